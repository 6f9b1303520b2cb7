"""Who sends: authentication, ownership, null reverse-paths, EHLO, and loops."""

from __future__ import annotations

import pytest

from postroad.check import policy, sender
from postroad.check.message import hop_limit
from postroad.check.policy import Directory, PolicyOptions
from postroad.mail.address import Address
from postroad.mail.envelope import Peer
from postroad.mail.policy import Question, Role, Rule, Verdict
from tests.unit.check.test_relay import KNOWN

ANN, EVE = Address("ann", "local.test"), Address("eve", "local.test")


def ask(rule: Rule | None, question: Question) -> str:
    if rule is None:
        return "none"
    verdict = rule(question)
    assert isinstance(verdict, Verdict)
    return f"{verdict.reply.code} {verdict.reply.status}" if verdict.reply else "ok"


@pytest.mark.parametrize(
    ("role", "identity", "trusted", "reverse_path", "expected"),
    [
        (Role.SUBMISSION, "", False, ANN, "530 5.7.0"),
        (Role.SUBMISSION, "", True, ANN, "530 5.7.0"),
        (Role.SUBMISSION, "ann", False, ANN, "ok"),
        (Role.SUBMISSION, "ann", False, EVE, "553 5.7.1"),
        (Role.SUBMISSION, "ann", False, None, "ok"),
        (Role.MX, "", False, ANN, "ok"),
        (Role.MX, "ann", False, EVE, "553 5.7.1"),
        (Role.RELAY, "", True, EVE, "ok"),
    ],
)
def test_senders(role: Role, identity: str, trusted: bool, reverse_path: Address | None, expected: str) -> None:
    rule = policy.rules(role, PolicyOptions(), KNOWN, lmtp=False).mail
    assert ask(rule, Question(Peer(identity=identity), trusted, reverse_path)) == expected


@pytest.mark.parametrize(
    ("role", "domain", "expected"),
    [
        (Role.SUBMISSION, "sales", "554"), (Role.SUBMISSION, "sales.example", "ok"), (Role.SUBMISSION, "local", "ok"),
        (Role.SUBMISSION, "[192.0.2.1]", "ok"), (Role.RELAY, "sales", "ok"),
    ],
)  # fmt: skip
def test_submission_demands_fully_qualified_domains(role: Role, domain: str, expected: str) -> None:
    """RFC 6409 §4.2."""
    known = Directory(
        lambda name: name == "local", lambda name: False, lambda address: True, lambda name, address: True
    )
    rules = policy.rules(role, PolicyOptions(), known, lmtp=False)
    peer, address = Peer(identity="ann"), Address("ann", domain)
    mail, rcpt = ("554 5.1.8", "554 5.1.2") if expected == "554" else (expected, expected)
    assert ask(rules.mail, Question(peer, True, address)) == mail
    assert ask(rules.rcpt, Question(peer, True, ANN, recipient=address)) == rcpt


def test_submission_from_a_trusted_network_where_that_is_set() -> None:
    rule = policy.rules(Role.SUBMISSION, PolicyOptions(trust_network=True), KNOWN, lmtp=False).mail
    assert ask(rule, Question(Peer(), True, EVE)) == "ok"
    assert ask(rule, Question(Peer(), False, EVE)) == "530 5.7.0"


def test_null_reverse_path_with_many_recipients() -> None:
    rule = policy.rules(Role.MX, PolicyOptions(null_sender_recipients_max=1), KNOWN, lmtp=False).rcpt
    assert ask(rule, Question(Peer(), False, None, recipient=ANN, recipients=0)) == "ok"
    assert ask(rule, Question(Peer(), False, None, recipient=ANN, recipients=1)) == "550 5.5.3"
    assert ask(rule, Question(Peer(), False, EVE, recipient=ANN, recipients=1)) == "ok"


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("mx.example.org", "ok"), ("localhost", "ok"), ("[192.0.2.1]", "ok"), ("[IPv6:2001:db8::1]", "ok"),
        ("bücher.example", "ok"), ("under_score.example", "ok"),
        ("192.0.2.1:25", "501 5.5.4"), ("[2001:db8::1]", "501 5.5.4"), ("[192.0.2]", "501 5.5.4"),
        ("-x", "501 5.5.4"), ("a..b", "501 5.5.4"), ("(none)", "501 5.5.4"),
    ],
)  # fmt: skip
def test_hello_syntax(name: str, expected: str) -> None:
    assert ask(sender.hello_syntax, Question(Peer(hello=name))) == expected


def test_hello_syntax_is_asked_where_it_is_set_and_never_of_user_agents() -> None:
    strict = PolicyOptions(hello_syntax=True)
    assert policy.rules(Role.MX, PolicyOptions(), KNOWN, lmtp=False).hello is None
    assert policy.rules(Role.MX, strict, KNOWN, lmtp=False).hello is sender.hello_syntax
    assert policy.rules(Role.SUBMISSION, strict, KNOWN, lmtp=False).hello is None


@pytest.mark.parametrize(("hops", "expected"), [(0, "ok"), (3, "ok"), (4, "554 5.4.6"), (200, "554 5.4.6")])
def test_loops(hops: int, expected: str) -> None:
    head = b"RECEIVED: from a by b;\r\n\tdate\r\n" * hops + b"Subject: received: no field\r\n Received: folded\r\n"
    assert ask(hop_limit(3), Question(Peer(), head=head)) == expected
