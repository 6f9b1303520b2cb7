"""Dovecot takes our mail by LMTP, over TCP and over a Unix socket, and shows it by IMAP."""

from __future__ import annotations

import smtplib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.peers.harness import dsn, maildir
from tests.peers.harness.dovecot import Dovecot
from tests.peers.harness.postroad import Node, local_domain


@dataclass(frozen=True)
class Pair:
    node: Node
    dovecot: Dovecot


@pytest.fixture(scope="module")
def pair(place: Path) -> Iterator[Pair]:
    dovecot = Dovecot(
        place / "dovecot",
        users=["alice@tcp.example", "bob@tcp.example", "alice@unix.example", "bob@unix.example"],
        full=["full@tcp.example"],
    )
    node = Node(place / "node", {"domain": [
        {"name": "tcp.example", "recipients": "any", "deliver": "lmtp", "host": "127.0.0.1", "port": dovecot.lmtp_port},
        {"name": "unix.example", "recipients": "any", "deliver": "lmtp", "socket": str(dovecot.lmtp_path)},
        local_domain("example.test"),
    ]})
    with dovecot, node:
        yield Pair(node, dovecot)


@pytest.mark.parametrize("domain", ["tcp.example", "unix.example"])
def test_a_message_to_two_is_read_by_imap(pair: Pair, domain: str) -> None:
    with smtplib.SMTP("127.0.0.1", pair.node.port, timeout=20) as client:
        client.sendmail("a@b.test", [f"alice@{domain}", f"bob@{domain}"], b"Subject: for both\r\n\r\nhello\r\n.\r\n")
    for name in ("alice", "bob"):
        message = maildir.parse(pair.dovecot.wait(f"{name}@{domain}", of="for both")[0])
        assert message.get_payload() == "hello\r\n.\r\n"
        assert message["Return-Path"] == "<a@b.test>"
        received = message.get_all("Received")
        assert received is not None and any("by postroad.test (Postroad) with ESMTP" in each for each in received)


def test_each_recipient_has_an_outcome_of_its_own(pair: Pair) -> None:
    """RFC 2033 §4.2: one is delivered, an unknown one fails, a full one fails or waits; the sender hears of it."""
    to = ["alice@tcp.example", "unknown@tcp.example", "full@tcp.example"]
    with smtplib.SMTP("127.0.0.1", pair.node.port, timeout=20) as client:
        client.sendmail("sender@example.test", to, b"Subject: three fates\r\n\r\n" + b"hello\r\n" * 100)
    assert pair.dovecot.wait("alice@tcp.example", of="three fates")
    (report,) = dsn.wait(pair.node.maildir("sender@example.test"), "unknown@tcp.example")
    failed = {each["Final-Recipient"]: each["Status"] for each in report.recipients}
    assert failed["rfc822; unknown@tcp.example"] == "5.1.1"
    assert pair.dovecot.messages("full@tcp.example") == []
    # A message counts once, however the LMTP server answers for the others.
    assert len(pair.dovecot.wait("alice@tcp.example", of="three fates")) == 1


def test_a_large_message_arrives_whole(pair: Pair) -> None:
    body = b"".join(b"%08d %s\r\n" % (number, b"y" * 66) for number in range(70_000))
    with smtplib.SMTP("127.0.0.1", pair.node.port, timeout=60) as client:
        client.sendmail("a@b.test", ["bob@unix.example"], b"Subject: large\r\n\r\n" + body)
    found = pair.dovecot.wait("bob@unix.example", of="Subject: large", within_s=60)[0]
    assert found.partition(b"\r\n\r\n")[2] == body


def test_mail_waits_while_dovecot_is_down(pair: Pair) -> None:
    pair.dovecot.stop()
    with smtplib.SMTP("127.0.0.1", pair.node.port, timeout=20) as client:
        client.sendmail("a@b.test", ["bob@tcp.example", "bob@unix.example"], b"Subject: patience\r\n\r\nhello\r\n")
    for domain in ("tcp.example", "unix.example"):
        pair.node.wait_log(f"deferred for <bob@{domain}>")
    pair.dovecot.start()
    for domain in ("tcp.example", "unix.example"):
        assert len(pair.dovecot.wait(f"bob@{domain}", of="patience", within_s=30)) == 1
