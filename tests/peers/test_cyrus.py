"""Cyrus IMAP takes our mail by LMTP: over TCP with TLS and a password, and over a Unix socket."""

from __future__ import annotations

import smtplib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.peers.harness import dsn, maildir
from tests.peers.harness.certificates import Authority
from tests.peers.harness.cyrus import Cyrus
from tests.peers.harness.postroad import Node, local_domain

ADA, BOB, FULL, NOBODY = (f"{name}@c.example" for name in ("ada", "bob", "full", "nobody"))


@dataclass(frozen=True)
class World:
    cyrus: Cyrus
    tcp: Node
    unix: Node


@pytest.fixture(scope="module")
def world(place: Path, authority: Authority) -> Iterator[World]:
    chain, key = authority.certificate("localhost")
    together = place / "cyrus.pem"
    together.write_bytes(chain.read_bytes() + key.read_bytes())
    cyrus = Cyrus(
        place / "cyrus", users=[ADA, BOB], full=[FULL], folders={ADA: "lists"}, certificate=together,
    )
    (place / "password").write_text(f"{cyrus.password}\n")
    (place / "password").chmod(0o600)
    outbound = {"tls": {"ca_file": str(authority.file)}}
    by_tcp = {"host": "localhost", "port": cyrus.lmtp_port, "tls": "verify", "username": "postroad",
              "password_file": str(place / "password")}
    nodes = [
        Node(place / name, {
            "outbound": outbound,
            "domain": [{"name": "c.example", "recipients": "any", "deliver": "lmtp", **way}, local_domain("e.example")],
        })
        for name, way in (("tcp", by_tcp), ("unix", {"socket": str(cyrus.lmtp_path)}))
    ]
    with cyrus, nodes[0], nodes[1]:
        yield World(cyrus, *nodes)


@pytest.fixture(params=["tcp", "unix"])
def node(request: pytest.FixtureRequest, world: World) -> Node:
    return world.tcp if request.param == "tcp" else world.unix


def send(node: Node, to: list[str], subject: str, body: bytes = b"hello\r\n") -> None:
    with smtplib.SMTP("127.0.0.1", node.port, timeout=20) as client:
        head = f"From: sender@e.example\r\nSubject: {subject}\r\nMessage-ID: <{subject}@e.example>\r\n\r\n"
        client.sendmail("sender@e.example", to, head.encode() + body)


def test_a_message_to_two(world: World, node: Node) -> None:
    subject = f"both-{node.port}"
    send(node, [ADA, BOB], subject, b"first\r\n.\r\n..second\r\n")
    for user in (ADA, BOB):
        message = maildir.parse(world.cyrus.wait(user, subject))
        assert message.get_payload() == "first\r\n.\r\n..second\r\n"
        assert message["Return-Path"] == "<sender@e.example>"


def test_tls_and_the_password_are_used(world: World) -> None:
    send(world.tcp, [BOB], "secured")
    world.cyrus.wait(BOB, "secured")
    world.tcp.wait_trace(BOB, "TLSv1.", "PLAIN as postroad")


def test_each_recipient_has_an_outcome_of_its_own(world: World, node: Node) -> None:
    """RFC 2033 §4.2: one is delivered, an unknown one fails, a full one waits; the sender hears of what failed."""
    if not world.cyrus.messages(FULL):  # Cyrus takes the message that goes beyond the quota, and none behind it
        send(node, [FULL], "the last one", b"0123456789abcdef0123456789abcdef\r\n" * 100)
        world.cyrus.wait(FULL, "the last one")
    subject = f"fates-{node.port}"
    send(node, [ADA, NOBODY, FULL], subject)
    world.cyrus.wait(ADA, subject)
    (report,) = dsn.wait(node.maildir("sender@e.example"), NOBODY)
    failed = {each["Final-Recipient"]: each["Status"] for each in report.recipients}
    assert failed[f"rfc822; {NOBODY}"] == "5.1.1"
    node.wait_log(f"deferred for <{FULL}>")
    assert "452 4.2.2 Over quota" in node.log()
    assert len(world.cyrus.messages(FULL)) == 1


def test_an_address_extension_names_a_folder(world: World, node: Node) -> None:
    """The folder that takes it, and the inbox where there is none."""
    subject = f"extension-{node.port}"
    send(node, ["ada+lists@c.example"], subject)
    send(node, ["ada+elsewhere@c.example"], f"inbox-{subject}")
    world.cyrus.wait(ADA, subject, folder="lists")
    world.cyrus.wait(ADA, f"inbox-{subject}")
