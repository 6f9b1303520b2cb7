"""Postroad and Postfix, both ways: TLS, DSN parameters, 8BITMIME, SMTPUTF8, CHUNKING, refused recipients, LMTP, load.

Postfix 3.7 takes BDAT and does not send it; it has no REQUIRETLS, LIMITS, BINARYMIME, DELIVERBY or MT-PRIORITY.
"""

from __future__ import annotations

import smtplib
import ssl
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.peers.harness import dsn, maildir, ports
from tests.peers.harness.certificates import Authority
from tests.peers.harness.postfix import Postfix, maildir_settings
from tests.peers.harness.postroad import Node, local_domain, mx_listener, next_hop, relay_listener
from tests.peers.harness.process import until
from tests.peers.harness.smtptools import run_source, source_command


@dataclass(frozen=True)
class Pair:
    """`node` relays pf.example to `postfix`, which has Maildirs for it in `mail` and relays the rest to `node`."""

    node: Node
    postfix: Postfix
    mail: Path
    mx_port: int
    lmtp_port: int


@pytest.fixture(scope="module")
def pair(place: Path, authority: Authority) -> Iterator[Pair]:
    chain, key = authority.certificate("postroad.test", "127.0.0.1")
    postfix_chain, postfix_key = authority.certificate("postfix.test", "localhost")
    relay_port, mx_port, lmtp_port, postfix_port = ports.port(), ports.port(), ports.port(), ports.port()
    mail = place / "mail"
    postfix = Postfix(place / "postfix", port=postfix_port, settings={
        **maildir_settings(mail, "pf.example", ["alice", "bob", "grün", "load"]),
        "smtpd_tls_security_level": "may",
        "smtpd_tls_chain_files": f"{postfix_key}, {postfix_chain}",
        "smtpd_tls_received_header": "yes",
        # Out: the certificate must be of our authority and bear the name.
        "smtp_tls_security_level": "secure",
        "smtp_tls_secure_cert_match": "postroad.test",
        "smtp_tls_CAfile": str(authority.file),
        "relayhost": f"[127.0.0.1]:{mx_port}",
        "transport_maps": f"inline:{{ {{ lmtp.test = lmtp:inet:[127.0.0.1]:{lmtp_port} }} }}",
        "lmtp_tls_security_level": "none",
    })
    node = Node(place / "node", {
        "listener": [
            relay_listener(relay_port),
            mx_listener(mx_port),
            mx_listener(lmtp_port, name="lmtp", protocol="lmtp", tls="none"),
        ],
        "tls": {"certificate": str(chain), "key": str(key)},
        "domain": [local_domain("example.test", ["sender", "carol", "load"]), local_domain("lmtp.test", ["dave"])],
        "next_hop": [next_hop("pf.example", postfix_port, host="localhost", tls="encrypt")],
        "dns": {"ipv6": False},
    })
    with postfix, node:
        yield Pair(node, postfix, mail, mx_port, lmtp_port)


def _send(
    port: int, to: list[str], content: bytes, *, sender: str = "sender@example.test", mail: Sequence[str] = (),
    rcpt: Sequence[str] = (),
) -> None:
    with smtplib.SMTP("127.0.0.1", port, timeout=20) as client:
        client.ehlo("client.test")
        client.sendmail(sender, to, content, mail, rcpt)


def _deliveries(pair: Pair) -> list[str]:
    """The queue ids under which Postfix has delivered to alice or bob, one for each delivery."""
    return [line.split("]: ")[1].split(":")[0] for line in pair.postfix.log_path.read_text().splitlines()
            if "to=<" in line and "status=sent" in line and ("alice@" in line or "bob@" in line)]


def test_postroad_relays_to_postfix_over_tls(pair: Pair) -> None:
    before = len(_deliveries(pair))
    _send(pair.node.port, ["alice@pf.example", "bob@pf.example"], b"Subject: there\r\n\r\nhello\r\n.\r\n..\r\n")
    for name in ("alice", "bob"):
        message = maildir.parse(maildir.wait(pair.mail / name, of="Subject: there")[0])
        received = message.get_all("Received")
        assert received is not None and len(received) == 2
        assert "using TLSv1." in received[0] and "from postroad.test" in received[0], received[0]
        assert message.get_payload() == "hello\n.\n..\n"
    # Both recipients went in one transaction: Postfix has one queue id for them.
    until(lambda: len(_deliveries(pair)) == before + 2, "Postfix has logged both deliveries")
    assert len(set(_deliveries(pair)[before:])) == 1, pair.postfix.log()


def test_postfix_relays_to_postroad_over_verified_tls(pair: Pair) -> None:
    _send(pair.postfix.port, ["carol@example.test"], b"Subject: back\r\n\r\nhello\r\n", sender="a@elsewhere.test")
    message = maildir.parse(maildir.wait(pair.node.maildir("carol@example.test"), of="Subject: back")[0])
    received = message.get_all("Received")
    assert received is not None and " with ESMTPS id " in received[0] and "for <carol@example.test>" in received[0]
    assert "TLSv1." in received[0]
    assert message["Return-Path"] == "<a@elsewhere.test>"


def test_a_certificate_of_another_authority_is_not_trusted_where_proof_is_demanded(pair: Pair, place: Path) -> None:
    node = Node(place / "verify", {
        "next_hop": [next_hop("pf.example", pair.postfix.port, host="localhost", tls="verify")], "dns": {"ipv6": False},
    })
    with node:
        _send(node.port, ["alice@pf.example"], b"Subject: unproven\r\n\r\nhello\r\n")
        node.wait_log("certificate")
        assert not [each for each in maildir.raw(pair.mail / "alice") if b"unproven" in each]


def test_an_unknown_recipient_at_postfix_brings_a_dsn_to_the_sender(pair: Pair) -> None:
    content = b"Subject: half\r\nMessage-ID: <half@example.test>\r\n\r\nx\r\n"
    _send(pair.node.port, ["nobody@pf.example", "alice@pf.example"], content)
    assert maildir.wait(pair.mail / "alice", of="Subject: half")
    (report,) = dsn.wait(pair.node.maildir("sender@example.test"), "half@example.test")
    assert report.message["Return-Path"] == "<>"
    assert report.per_message["Reporting-MTA"] == "dns; postroad.test"
    (fields,) = report.recipients
    assert fields["Final-Recipient"] == "rfc822; nobody@pf.example"
    assert (fields["Action"], fields["Status"]) == ("failed", "5.1.1")
    assert "550 5.1.1" in fields["Diagnostic-Code"]
    assert "nobody@pf.example" in report.text
    assert report.returned in ("message/rfc822", "text/rfc822-headers")


def test_dsn_parameters_go_through_postfix_and_back(pair: Pair) -> None:
    """RFC 3461: Postfix gets ENVID, ORCPT, NOTIFY and RET from us, and its success report shows them."""
    _send(
        pair.node.port, ["bob@pf.example"], b"Subject: tell me\r\n\r\nhello\r\n",
        mail=["RET=HDRS", "ENVID=QQ+2B314159"], rcpt=["NOTIFY=SUCCESS,FAILURE", "ORCPT=rfc822;Bob+2BOld@pf.example"],
    )
    (report,) = dsn.wait(pair.node.maildir("sender@example.test"), "QQ+314159")
    assert report.per_message["Reporting-MTA"] == "dns; postfix.test", "the duty was handed on (RFC 3461 §5.2.1)"
    assert report.per_message["Original-Envelope-Id"] == "QQ+314159"
    (fields,) = report.recipients
    assert fields["Action"] == "delivered"
    assert fields["Original-Recipient"].replace(" ", "").lower() == "rfc822;bob+old@pf.example"
    assert report.returned == "text/rfc822-headers"


def test_8bitmime_goes_both_ways_untouched(pair: Pair) -> None:
    body = "Subject: eight\r\nMIME-Version: 1.0\r\nContent-Type: text/plain; charset=utf-8\r\n" \
           "Content-Transfer-Encoding: 8bit\r\n\r\nGrüße, žluťoučký kůň\r\n".encode()
    _send(pair.node.port, ["alice@pf.example"], body, mail=["BODY=8BITMIME"])
    _send(pair.postfix.port, ["carol@example.test"], body, mail=["BODY=8BITMIME"], sender="a@elsewhere.test")
    for found in (pair.mail / "alice", pair.node.maildir("carol@example.test")):
        assert "Grüße, žluťoučký kůň".encode() in maildir.wait(found, of="Subject: eight")[0]


def test_smtputf8_goes_both_ways(pair: Pair) -> None:
    body = "Subject: Grüße überall\r\nFrom: ü@elsewhere.test\r\n\r\nhello\r\n".encode()
    with smtplib.SMTP("127.0.0.1", pair.node.port, timeout=20) as client:
        client.ehlo("client.test")
        client.command_encoding = "utf-8"
        client.sendmail("ü@elsewhere.test", ["grün@pf.example"], body, ["SMTPUTF8", "BODY=8BITMIME"])
    assert maildir.wait(pair.mail / "grün", of="Grüße überall")
    with smtplib.SMTP("127.0.0.1", pair.postfix.port, timeout=20) as client:
        client.ehlo("client.test")
        client.command_encoding = "utf-8"
        client.sendmail("ü@elsewhere.test", ["carol@example.test"], body, ["SMTPUTF8", "BODY=8BITMIME"])
    message = maildir.wait(pair.node.maildir("carol@example.test"), of="Grüße überall")[0]
    # RFC 6531 §4.3: the with-protocol says that the message was internationalised.
    assert b" with UTF8SMTPS id " in message


def test_a_large_message_goes_to_postfix_in_chunks(pair: Pair) -> None:
    """RFC 3030: Postfix counts the commands of each session in its log."""
    lines = b"".join(b".%07d %s\r\n" % (number, b"z" * 60) for number in range(20_000))
    _send(pair.node.port, ["alice@pf.example"], b"Subject: chunks out\r\n\r\n" + lines)
    octets = maildir.wait(pair.mail / "alice", of="Subject: chunks out", within_s=30)[0]
    assert octets.replace(b"\r\n", b"\n").endswith(lines.replace(b"\r\n", b"\n"))
    # The count stands at the end of a session: ours ends with the idle time of the node.
    pair.node.restart()
    until(lambda: " bdat=" in pair.postfix.log(2000), "a session with BDAT in the log of Postfix")


def test_original_recipients_in_utf8_go_through_postfix_and_back(pair: Pair) -> None:
    """RFC 6533 §3: ORCPT of the type utf-8, in the form that is all ASCII, since the message needs no SMTPUTF8."""
    with smtplib.SMTP("127.0.0.1", pair.node.port, timeout=20) as client:
        client.ehlo("client.test")
        client.sendmail("sender@example.test", ["bob@pf.example"], b"Subject: original\r\n\r\nhello\r\n", [],
                        ["NOTIFY=SUCCESS", "ORCPT=utf-8;j\\x{FC}rgen@origin.test"])
    octets = maildir.wait(pair.node.maildir("sender@example.test"), of="origin.test")[0]
    assert b"postfix.test" in octets and b"rgen@origin.test" in octets


def test_postfix_hands_mail_to_the_lmtp_listener(pair: Pair) -> None:
    _send(pair.postfix.port, ["dave@lmtp.test", "unknown@lmtp.test"], b"Subject: by lmtp\r\n\r\nhello\r\n",
          sender="sender@example.test")
    message = maildir.parse(maildir.wait(pair.node.maildir("dave@lmtp.test"), of="by lmtp")[0])
    received = message.get_all("Received")
    assert received is not None and " with LMTP id " in received[0]
    # The unknown one was refused in the LMTP dialog; Postfix tells the sender, through our mx listener.
    report = maildir.wait(pair.node.maildir("sender@example.test"), of="unknown@lmtp.test")[0]
    assert b"550 5.1.1" in report and b"Reporting-MTA: dns; postfix.test" in report


def test_mail_in_bulk_arrives_both_ways(pair: Pair) -> None:
    """Two hundred over twenty sessions, through the pool of connections of each side."""
    run_source(source_command(pair.node.port, messages=200, sessions=20, recipient="load@pf.example"))
    run_source(source_command(pair.postfix.port, messages=200, sessions=20, recipient="load@example.test",
                              sender="a@elsewhere.test"))
    assert len(maildir.wait(pair.mail / "load", 200, within_s=60)) == 200
    assert len(maildir.wait(pair.node.maildir("load@example.test"), 200, within_s=60)) == 200


def test_a_client_sees_the_certificate_of_the_node(pair: Pair, authority: Authority) -> None:
    context = authority.client_context()
    context.check_hostname = True
    with smtplib.SMTP("127.0.0.1", pair.mx_port, timeout=20) as client:
        client.starttls(context=context)
        assert isinstance(client.sock, ssl.SSLSocket) and client.sock.version() in ("TLSv1.2", "TLSv1.3")
