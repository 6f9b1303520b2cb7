"""8-bit mail for hosts without 8BITMIME: what Postfix takes, and what Postfix itself makes of the same messages.

The same input goes through Postroad and through Postfix to one remote without 8BITMIME; Python's parser reads the same
octets out of both. Postfix 3.7 leaves raw 8-bit data in header fields, in bodies without a Content-Transfer-Encoding
and in preambles as it is; Postroad does not.
"""

from __future__ import annotations

import email
import smtplib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.peers.harness import maildir, ports
from tests.peers.harness.postfix import Postfix, maildir_settings
from tests.peers.harness.postroad import Node, next_hop, relay_listener
from tests.peers.harness.remote import Remote

_SENDER = "sender@example.test"
_SIGNED = """Content-Type: multipart/signed; boundary=s; protocol="application/pgp-signature"\r
\r
--s\r
Content-Type: text/plain; charset=utf-8\r
Content-Transfer-Encoding: 8bit\r
\r
Grüße, unterschrieben\r
--s\r
Content-Type: application/pgp-signature\r
\r
abc\r
--s--\r
"""
_NESTED = """Content-Type: multipart/mixed; boundary=m\r
Content-Transfer-Encoding: 8bit\r
\r
--m\r
Content-Type: message/rfc822\r
Content-Transfer-Encoding: 8bit\r
\r
Subject: inner\r
MIME-Version: 1.0\r
Content-Type: text/plain; charset=utf-8\r
Content-Transfer-Encoding: 8bit\r
\r
innen ü, -- \r
--m\r
Content-Type: application/octet-stream\r
Content-Transfer-Encoding: 8bit\r
\r
äöüß\r
--m\r
Content-Type: multipart/alternative; boundary=n\r
Content-Transfer-Encoding: 8bit\r
\r
--n\r
Content-Type: text/html; charset=utf-8\r
Content-Transfer-Encoding: 8bit\r
\r
<p>für alle, die es lesen</p>\r
--n--\r
--m--\r
"""
_TEXT = """Content-Type: text/plain; charset=utf-8\r
Content-Transfer-Encoding: 8bit\r
\r
Grüße an alle = und \r
.\r
From hier\r
"""
_BARE = "\r\nGrüße ohne MIME\r\n"
MESSAGES = {"signed": _SIGNED, "nested": _NESTED, "text": _TEXT, "bare": _BARE}


@dataclass(frozen=True)
class Road:
    node: Node
    postfix: Postfix
    remote: Remote
    mail: Path


@pytest.fixture(scope="module")
def road(place: Path) -> Iterator[Road]:
    mail = place / "mail"
    relay_port, postfix_port = ports.port(), ports.port()
    with Remote(extensions=("PIPELINING", "SIZE")) as remote:
        postfix = Postfix(place / "postfix", port=postfix_port, settings={
            **maildir_settings(mail, "pf.example", ["alice"]),
            "smtpd_discard_ehlo_keywords": "8bitmime, smtputf8, chunking",
            "transport_maps": f"inline:{{ {{ remote.example = smtp:[127.0.0.1]:{remote.port} }} }}",
        })
        taking = Postfix(place / "taking", settings={
            "transport_maps": f"inline:{{ {{ remote.example = smtp:[127.0.0.1]:{remote.port} }} }}",
        })
        node = Node(place / "node", {
            "listener": [relay_listener(relay_port)],
            "next_hop": [next_hop("pf.example", postfix_port), next_hop("remote.example", remote.port)],
            "dns": {"ipv6": False},
        })
        with postfix, taking, node:
            yield Road(node, taking, remote, mail)


def _message(name: str) -> bytes:
    mime = "" if name == "bare" else "MIME-Version: 1.0\r\n"
    return f"From: <{_SENDER}>\r\nSubject: {name}\r\n{mime}{MESSAGES[name]}".encode()


def _send(port: int, to: str, content: bytes) -> None:
    with smtplib.SMTP("127.0.0.1", port, timeout=20) as client:
        client.ehlo("client.test")
        client.sendmail(_SENDER, [to], content, ("BODY=8BITMIME",))


def _leaves(octets: bytes) -> list[tuple[str, bytes]]:
    return [
        (part.get_content_type(), part.get_payload(decode=True).rstrip())
        for part in email.message_from_bytes(octets).walk()
        if not part.is_multipart()
    ]


@pytest.mark.parametrize("name", MESSAGES)
def test_a_postfix_without_8bitmime_takes_it(road: Road, name: str) -> None:
    _send(road.node.port, "alice@pf.example", _message(name))
    (octets,) = maildir.wait(road.mail / "alice", of=f"Subject: {name}")
    assert octets.isascii()
    assert [(kind, body.replace(b"\r\n", b"\n")) for kind, body in _leaves(octets)] == [
        (kind, body.replace(b"\r\n", b"\n")) for kind, body in _leaves(_message(name))
    ]
    road.node.wait_log("converted to 7 bit")


@pytest.mark.parametrize("name", MESSAGES)
def test_postfix_makes_the_same_of_it(road: Road, name: str) -> None:
    taken = []
    for port, to in ((road.node.port, f"us-{name}@remote.example"), (road.postfix.port, f"them-{name}@remote.example")):
        _send(port, to, _message(name))
        taken.append(road.remote.wait_for(lambda each, to=to: to in str(each.rcpt)).content)
    ours, theirs = taken
    assert ours.isascii()
    assert _leaves(ours) == _leaves(theirs) == _leaves(_message(name))
    assert theirs.isascii() is (name != "bare"), "Postfix does not look into what calls itself 7bit"
