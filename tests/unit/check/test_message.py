"""Rules about the content: fields of which there may be one, the author that an account claims."""

from __future__ import annotations

import pytest

from postroad.check import message, policy
from postroad.check.policy import HeaderFrom, PolicyOptions
from postroad.mail.envelope import Peer
from postroad.mail.policy import Question, Role, Verdict
from postroad.receive.options import ListenerOptions
from tests.unit.receive.fakes import KNOWN, House, owns


def ask(rule: object, head: bytes, identity: str = "ann") -> str:
    assert callable(rule)
    verdict = rule(Question(Peer(identity=identity), head=head))
    assert isinstance(verdict, Verdict)
    return "ok" if verdict.reply is None else str(verdict.reply)


# RFC 5322 §3.6: the fields whose greatest number is 1
SINGLE = [
    "Date", "From", "Sender", "Reply-To", "To", "Cc", "Bcc", "Message-ID", "In-Reply-To", "References", "Subject",
]  # fmt: skip


@pytest.mark.parametrize("name", SINGLE)
@pytest.mark.parametrize("again", ["{}: b\r\n", "X: y\r\n{}: b\r\n", "{} : b\r\n", "X: y\r\n z\r\n{}\t:\r\n"])
def test_fields_of_which_there_may_be_one(name: str, again: str) -> None:
    for other in (name, name.lower(), name.upper()):
        head = f"{name}: a\r\n".encode() + again.format(other).encode()
        assert ask(message.single_fields, head).startswith(f"550 5.6.0 More than one {name} field")
    assert ask(message.single_fields, f"{name}: a\r\n {name}: b\r\nX-{name}: c\r\n{name}-X: d\r\n".encode()) == "ok"


def test_fields_of_which_there_may_be_several() -> None:
    head = b"Received: a\r\nReceived: b\r\nComments: a\r\nComments: b\r\nResent-From: a\r\nResent-From: b\r\n"
    assert ask(message.single_fields, head + b"From: a\r\nDate: b\r\n") == "ok"
    assert ask(message.single_fields, b"") == "ok"


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("ann@local.test", "ok"),
        ('"Boss, the" <ann@local.test>', "ok"),
        ("(eve@x.test) ann@local.test", "ok"),
        ("", "ok"),  # a submission server puts the reverse-path there, which is owned
        ("boss@local.test", "550 5.7.1 From names <boss@local.test>, not an address of the account"),
        ("ann@local.test, eve@x.test", "550 5.7.1 From names <eve@x.test>"),
        ("eve@x.test, <ann@local.test>", "550 5.7.1 From names <eve@x.test>"),
        ("Group: ann@local.test, eve@x.test;", "550 5.7.1 From names <eve@x.test>"),
        ("undisclosed", "550 5.7.1 From has no mailbox"),
        ("ann@local.test, boss", "550 5.7.1 From has no mailbox"),
        ("<ann@local.test> eve@x.test", "550 5.7.1 From has no mailbox"),
        ('"ann@local.test', "550 5.7.1 From has no mailbox"),
        ("ann@local.test" + " " * 20_000 + ",eve@x.test", "550 5.7.1 From has no mailbox"),
        ("=?utf-8?q?ann=40local.test?=", "550 5.7.1 From has no mailbox"),
    ],
)
def test_whom_from_may_name(value: str, expected: str) -> None:
    rule = message.author_owned(owns)
    assert ask(rule, f"From: {value}\r\n".encode()).startswith(expected)
    assert ask(rule, f"X: y\r\nFROM : {value}\r\n".encode()).startswith(expected)
    assert ask(rule, f"From: {value}\r\n".encode(), identity="") == "ok"
    assert ask(rule, b"Subject: x\r\n") == "ok"


def test_each_from_field_counts() -> None:
    assert ask(message.author_owned(owns), b"From: ann@local.test\r\nFrom: eve@x.test\r\n").startswith("550 5.7.1")


def test_where_the_rules_stand() -> None:
    several, alien = b"To: a@b.test\r\nTo: c@d.test\r\n", b"From: eve@x.test\r\n"

    def asked(role: Role, options: PolicyOptions, head: bytes, *, lmtp: bool = False) -> str:
        return ask(policy.rules(role, options, KNOWN, lmtp=lmtp).message, head)[:9]

    for role in Role:
        assert asked(role, PolicyOptions(), several) == ("550 5.6.0" if role is Role.SUBMISSION else "ok")
        assert asked(role, PolicyOptions(single_fields=False), several) == "ok"
        assert asked(role, PolicyOptions(), several, lmtp=True) == "ok"
        assert asked(role, PolicyOptions(), alien) == "ok"
        assert asked(role, PolicyOptions(header_from=HeaderFrom.OWNED), alien) == "550 5.7.1"


def test_what_the_client_sent_is_judged_and_not_what_was_made_of_it() -> None:
    """Both Date fields were taken out, as the first one is none, and a good one was put in their place."""
    where = House(
        listener=ListenerOptions("front", Role.SUBMISSION, trusted_networks=("192.0.2.0/24",)),
        policy_options=PolicyOptions(trust_network=True),
    )
    client = where.client()
    client.say("EHLO c.test\r\n")
    client.codes("MAIL FROM:<ann@local.test>", "RCPT TO:<bob@local.test>", "DATA")
    answer = client.say(b"Date: soon\r\nDate: later\r\nFrom: ann@local.test\r\n\r\nx\r\n.\r\n")
    assert answer == "550 5.6.0 More than one Date field in the header (RFC 5322 section 3.6)"
    assert not where.spool.stored
