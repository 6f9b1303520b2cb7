"""Postroad and Exim, both ways: TLS, CHUNKING, SMTPUTF8, DSN parameters, a refused recipient.

Exim 4.96 as Debian builds it has no LIMITS, REQUIRETLS, BINARYMIME, DELIVERBY or MT-PRIORITY.
"""

from __future__ import annotations

import re
import smtplib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.peers.harness import dsn, maildir, ports
from tests.peers.harness.certificates import Authority
from tests.peers.harness.exim import Exim
from tests.peers.harness.postroad import Node, local_domain, mx_listener, next_hop, relay_listener
from tests.peers.harness.process import until


@dataclass(frozen=True)
class Pair:
    node: Node
    exim: Exim


@pytest.fixture(scope="module")
def pair(place: Path, authority: Authority) -> Iterator[Pair]:
    chain, key = authority.certificate("postroad.test", "127.0.0.1")
    mx_port, exim_port = ports.port(), ports.port()
    exim = Exim(
        place / "exim", port=exim_port, mailboxes=("alice", "bob", "grün"), next_port=mx_port,
        certificate=authority.certificate("exim.test"),
        remote=["hosts_require_tls = *", f"tls_verify_certificates = {authority.file}", "tls_verify_hosts = *",
                "tls_verify_cert_hostnames =", "hosts_try_chunking = *"],
    )
    node = Node(place / "node", {
        "listener": [relay_listener(ports.port()), mx_listener(mx_port)],
        "tls": {"certificate": str(chain), "key": str(key)},
        "domain": [local_domain("example.test", ["sender", "carol"])],
        "next_hop": [next_hop("exim.example", exim_port, tls="encrypt")],
    })
    with exim, node:
        yield Pair(node, exim)


def _send(port: int, sender: str, to: list[str], content: bytes) -> None:
    with smtplib.SMTP("127.0.0.1", port, timeout=20) as client:
        client.sendmail(sender, to, content)


def test_postroad_relays_to_exim_over_tls(pair: Pair) -> None:
    _send(pair.node.port, "sender@example.test", ["alice@exim.example", "bob@exim.example"],
          b"Subject: to exim\r\n\r\n.\r\nhello\r\n")
    for name in ("alice", "bob"):
        message = maildir.parse(maildir.wait(pair.exim.mailbox(name), of="to exim")[0])
        received = message.get_all("Received")
        assert received is not None and "esmtps" in received[0] and "postroad.test" in received[0]
        assert message.get_payload() == ".\nhello\n"


def test_exim_relays_to_postroad_over_tls_in_chunks(pair: Pair) -> None:
    """Exim sends BDAT where CHUNKING is offered (RFC 3030); a large message goes in several chunks."""
    lines = b"".join(b"%07d %s\r\n" % (number, b"x" * 60) for number in range(20_000))
    _send(pair.exim.port, "a@elsewhere.test", ["carol@example.test"], b"Subject: chunks\r\n\r\n" + lines)
    octets = maildir.wait(pair.node.maildir("carol@example.test"), of="Subject: chunks", within_s=30)[0]
    assert octets.replace(b"\r\n", b"\n").endswith(lines.replace(b"\r\n", b"\n"))
    assert b" with ESMTPS id " in octets
    sent = re.compile(r" => carol@example\.test .* K ")
    until(lambda: sent.search(pair.exim.log()), "Exim logs K where it used CHUNKING")


def test_a_large_message_goes_to_exim_in_chunks(pair: Pair) -> None:
    """RFC 3030 out: BDAT where it is offered, from `bdat_size_min` on; a dot at a line's start is not doubled."""
    lines = b"".join(b".%07d %s\r\n" % (number, b"y" * 60) for number in range(20_000))
    _send(pair.node.port, "sender@example.test", ["alice@exim.example"], b"Subject: chunks out\r\n\r\n" + lines)
    octets = maildir.wait(pair.exim.mailbox("alice"), of="Subject: chunks out", within_s=30)[0]
    assert octets.replace(b"\r\n", b"\n").endswith(lines.replace(b"\r\n", b"\n"))
    came = re.compile(r" <= .*postroad\.test.* K ")
    until(lambda: came.search(pair.exim.log()), "Exim logs K where BDAT brought it")


def test_smtputf8_and_dsn_parameters_with_exim_both_ways(pair: Pair) -> None:
    body = "Subject: Grüße\r\nFrom: ü@elsewhere.test\r\n\r\nhello\r\n".encode()
    with smtplib.SMTP("127.0.0.1", pair.node.port, timeout=20) as client:
        client.ehlo("client.test")
        client.command_encoding = "utf-8"
        client.sendmail("sender@example.test", ["grün@exim.example"], body,
                        ["SMTPUTF8", "BODY=8BITMIME", "ENVID=UTF+2B8"],
                        ["NOTIFY=SUCCESS", "ORCPT=rfc822;g@origin.test"])
    assert maildir.wait(pair.exim.mailbox("grün"), of="Grüße")
    report = maildir.wait(pair.node.maildir("sender@example.test"), of="g@origin.test")[0]
    assert b"Action: delivered" in report and b"exim.test" in report, "Exim tells of success, for we have handed it on"
    with smtplib.SMTP("127.0.0.1", pair.exim.port, timeout=20) as client:
        client.ehlo("client.test")
        client.command_encoding = "utf-8"
        client.sendmail("ü@elsewhere.test", ["carol@example.test"], body, ["SMTPUTF8", "BODY=8BITMIME"])
    assert b" with UTF8SMTPS id " in maildir.wait(pair.node.maildir("carol@example.test"), of="Grüße")[0]


def test_a_recipient_that_exim_refuses_brings_a_dsn(pair: Pair) -> None:
    _send(pair.node.port, "sender@example.test", ["nobody@exim.example"], b"Subject: lost\r\n\r\nhello\r\n")
    (report,) = dsn.wait(pair.node.maildir("sender@example.test"), "nobody@exim.example")
    (fields,) = report.recipients
    assert fields["Action"] == "failed" and "no such mailbox here" in fields["Diagnostic-Code"]


def test_a_recipient_that_postroad_refuses_makes_exim_tell_its_sender(pair: Pair) -> None:
    _send(pair.exim.port, "sender@example.test", ["nobody@example.test"], b"Subject: unknown here\r\n\r\nhello\r\n")
    report = maildir.wait(pair.node.maildir("sender@example.test"), of="unknown here")[0]
    assert b"550 5.1.1" in report and b"nobody@example.test" in report
