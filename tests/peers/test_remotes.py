"""Remotes that defer, refuse, drop the connection or take some recipients only: what Postroad makes of it."""

from __future__ import annotations

import contextlib
import smtplib
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import pytest

from tests.peers.harness import dsn
from tests.peers.harness.certificates import Authority
from tests.peers.harness.postroad import Node, local_domain, next_hop
from tests.peers.harness.remote import DROP, Dialog, Remote

_PLAIN = ("PIPELINING", "ENHANCEDSTATUSCODES")


@pytest.fixture(scope="module")
def remotes(authority: Authority) -> Iterator[dict[str, Remote]]:
    """One remote per domain below; each test sets the rule of its own."""
    context = authority.server_context("localhost", "127.0.0.1")
    made = {
        name: Remote(context=context if name.startswith("tls") else None,
                     extensions=(*_PLAIN, "AUTH PLAIN LOGIN") if name == "tlsauth" else _PLAIN)
        for name in ("later", "some", "drop", "never", "plain", "tlsauth", "demand", "delay", "old", "full", "slow")
    }
    made["full"].extensions = ["SIZE 1000", "8BITMIME"]
    made["old"].extensions = []
    with contextlib.ExitStack() as running:
        for remote in made.values():
            running.enter_context(remote)
        yield made


@pytest.fixture(scope="module")
def node(place: Path, remotes: dict[str, Remote]) -> Iterator[Node]:
    special = {
        "tlsauth": {"tls": "encrypt", "username": "post", "password": "road"},
        "demand": {"tls": "encrypt"},
        "delay": {"delay_notice_s": 3, "lifetime_s": 12, "retry_first_s": 1, "retry_max_s": 2},
    }
    node = Node(place / "node", {
        "domain": [local_domain("example.test")],
        "next_hop": [next_hop(f"{name}.example", remote.port, **special.get(name, {}))
                     for name, remote in remotes.items()],
    })
    with node:
        yield node


def _send(node: Node, *to: str, subject: str, mail: tuple[str, ...] = (), body: bytes = b"hello\r\n") -> None:
    with smtplib.SMTP("127.0.0.1", node.port, timeout=20) as client:
        client.ehlo("client.test")
        client.sendmail("sender@example.test", list(to), f"Subject: {subject}\r\n\r\n".encode() + body, mail)


def _reports(node: Node, subject: str, count: int = 1) -> list[Mapping[str, str]]:
    """The per-recipient fields of the DSNs that came for `subject`, one mapping per recipient."""
    reports = dsn.wait(node.maildir("sender@example.test"), subject, count)
    return [fields for report in reports for fields in report.recipients]


def _once(verb: str, reply: str, times: int = 1) -> Callable[[Dialog, str, str], str | None]:
    """Gives `reply` to the first `times` commands `verb`."""
    left = [times]

    def rule(dialog: Dialog, came: str, argument: str) -> str | None:
        if came == verb and left[0]:
            left[0] -= 1
            return reply
        return None

    return rule


@pytest.mark.parametrize(("verb", "reply"), [
    ("CONNECT", "421 4.3.2 not now"),
    ("MAIL", "451 4.7.1 greylisted"),
    ("RCPT", "450 4.2.0 greylisted"),
    ("DATA", "451 4.3.0 try later"),
    (".", "452 4.3.1 disk full"),
    (".", DROP),
    ("RCPT", DROP),
])
def test_a_remote_that_says_no_at_first_gets_the_message_later(
    node: Node, remotes: dict[str, Remote], verb: str, reply: str
) -> None:
    remotes["later"].rule = _once(verb, reply)
    subject = f"later {verb} {reply[:3]}"
    _send(node, "a@later.example", subject=subject)
    remotes["later"].wait_for(lambda each: subject.encode() in each.content)
    time.sleep(0.2)
    taken = [each for each in remotes["later"].transactions if subject.encode() in each.content]
    assert len(taken) == 1, "taken once, sent once"


def test_each_recipient_of_a_transaction_has_its_own_outcome(node: Node, remotes: dict[str, Remote]) -> None:
    deferred_once = _once("RCPT", "450 4.2.2 later")

    def rule(dialog: Dialog, verb: str, argument: str) -> str | None:
        if verb == "RCPT" and "<bad@" in argument:
            return "550 5.1.1 never heard of"
        return deferred_once(dialog, verb, argument) if "<late@" in argument else None

    remotes["some"].rule = rule
    _send(node, "good@some.example", "bad@some.example", "late@some.example", subject="fates")
    remotes["some"].wait(2)
    assert [each.rcpt for each in remotes["some"].transactions] == [
        ("TO:<good@some.example>",), ("TO:<late@some.example>",),
    ]
    (fields,) = _reports(node, "fates")
    assert fields["Final-Recipient"] == "rfc822; bad@some.example"
    assert fields["Diagnostic-Code"] == "smtp; 550 5.1.1 never heard of"
    assert fields["Remote-MTA"].startswith("dns; ")


@pytest.mark.parametrize(("verb", "reply", "status"), [
    ("MAIL", "550 5.7.1 go away", "5.7.1"),
    ("DATA", "554 5.6.0 no", "5.6.0"),
    (".", "550 spam without an enhanced code", "5.0.0"),
])
def test_a_refusal_for_good_brings_a_dsn(
    node: Node, remotes: dict[str, Remote], verb: str, reply: str, status: str
) -> None:
    remotes["never"].rule = lambda dialog, came, argument: reply if came == verb else None
    subject = f"never {verb} {status}"
    _send(node, "a@never.example", subject=subject)
    (fields,) = _reports(node, subject)
    assert (fields["Action"], fields["Status"]) == ("failed", status)
    assert reply in fields["Diagnostic-Code"]


def test_a_dead_destination_brings_a_delay_notice_and_then_a_failure(node: Node, remotes: dict[str, Remote]) -> None:
    remotes["delay"].rule = lambda dialog, verb, argument: "421 4.3.2 not today" if verb == "CONNECT" else None
    _send(node, "a@delay.example", subject="patience")
    delayed, failed = _reports(node, "patience", 2)
    assert (delayed["Action"], failed["Action"]) == ("delayed", "failed")
    assert delayed["Status"].startswith("4.") and "Will-Retry-Until" in delayed
    # RFC 3463 §3.5: the code of what stood in the way rather than X.4.7, which only says that the time is over.
    assert failed["Status"] == "4.3.2"
    assert "421 4.3.2 not today" in failed["Diagnostic-Code"]


def test_a_relayed_message_is_told_where_the_next_hop_has_no_dsn(node: Node, remotes: dict[str, Remote]) -> None:
    with smtplib.SMTP("127.0.0.1", node.port, timeout=20) as client:
        client.ehlo("client.test")
        client.sendmail("sender@example.test", ["a@plain.example"], "Subject: onward\r\n\r\nhello\r\n", [],
                        ["NOTIFY=SUCCESS"])
    (fields,) = _reports(node, "onward")
    assert (fields["Action"], fields["Status"]) == ("relayed", "2.0.0") or fields["Status"].startswith("2.")
    assert remotes["plain"].transactions[-1].rcpt == ("TO:<a@plain.example>",), "no parameter that was not offered"


def test_a_smart_host_with_tls_and_auth(node: Node, remotes: dict[str, Remote]) -> None:
    _send(node, "a@tlsauth.example", subject="smart")
    (taken,) = remotes["tlsauth"].wait()
    assert taken.tls and taken.identity.split()[0] in ("PLAIN", "LOGIN")


def test_tls_that_is_demanded_and_not_offered_defers(node: Node, remotes: dict[str, Remote]) -> None:
    _send(node, "a@demand.example", subject="in the open")
    node.wait_log("STARTTLS")
    assert not remotes["demand"].transactions
    assert "MAIL" not in remotes["demand"].counts


@pytest.mark.parametrize(("to", "mail", "body", "status"), [
    ("ü@plain.example", ("SMTPUTF8", "BODY=8BITMIME"), b"hello\r\n", "5.6.7"),  # RFC 6531 §3.5
    ("a@full.example", (), b"x" * 70 + b"\r\n" + b"y" * 990 + b"\r\n", "5.3.4"),  # RFC 1870 §5
])
def test_what_the_next_hop_cannot_take_is_not_sent(
    node: Node, remotes: dict[str, Remote], to: str, mail: tuple[str, ...], body: bytes, status: str
) -> None:
    subject = f"too much for {to.partition('@')[2]}"
    with smtplib.SMTP("127.0.0.1", node.port, timeout=20) as client:
        client.ehlo("client.test")
        client.command_encoding = "utf-8"
        client.sendmail("sender@example.test", [to], f"Subject: {subject}\r\n\r\n".encode() + body, mail)
    (fields,) = _reports(node, subject)
    assert (fields["Action"], fields["Status"]) == ("failed", status)
    remote = remotes[to.partition("@")[2].removesuffix(".example")]
    assert not [each for each in remote.transactions if subject.encode() in each.content]


def test_connections_are_kept_and_used_again(node: Node, remotes: dict[str, Remote]) -> None:
    remote = remotes["slow"]
    for number in range(10):
        _send(node, "a@slow.example", subject=f"kept {number}")
        remote.wait(number + 1)
    assert len(remote.dialogs) < 10, "each worker keeps its connection for a while"
    assert all(line.upper() != "RSET" for line in remote.dialogs[0].lines), "no needless commands"
