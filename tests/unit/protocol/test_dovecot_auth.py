"""Dovecot's protocol: its lines in any pieces, and what our requests may hold."""

from __future__ import annotations

import base64
import random

import pytest

from postroad.protocol import dovecot_auth as wire
from postroad.protocol.dovecot_auth import (
    Continued,
    Denied,
    DovecotBroken,
    DovecotMachine,
    DovecotReady,
    Event,
    LoginAccepted,
)

GREETING = (
    b"VERSION\t1\t2\nMECH\tPLAIN\tplaintext\nMECH\tSCRAM-SHA-256\tdictionary\tactive\nMECH\tANONYMOUS\tanonymous\n"
    b"MECH\tbad name\nSPID\t1\nCUID\t2\nCOOKIE\tabc\nDONE\n"
)
READY = DovecotReady(("PLAIN", "SCRAM-SHA-256"))


def heard(*parts: bytes) -> list[Event]:
    machine = DovecotMachine()
    found = []
    for part in parts:
        machine.feed(part)
        while (event := machine.next_event()) is not None:
            found.append(event)
            if isinstance(event, DovecotBroken):
                return found
    return found


@pytest.mark.parametrize(
    ("line", "event"),
    [
        (b"OK\t7\tuser=ada\tx=y", LoginAccepted(7, "ada")),
        (b"OK\t7\tnologin\tuser=a\x01tb\x011c", LoginAccepted(7, "a\tb\x01c")),
        (b"OK\t7", Denied(7, "", True, "no user=")),
        (b"CONT\t7\tYWJj", Continued(7, b"abc")),
        (b"CONT\t7\t", Continued(7, b"")),
        (b"CONT\t7", Continued(7, b"")),
        (b"CONT\t7\t!", Denied(7, "", True, "a challenge that is not base64")),
        (b"FAIL\t7\tuser=ada", Denied(7, "ada")),
        (b"FAIL\t7\tuser=ada\ttemp", Denied(7, "ada", True)),
        (b"FAIL\t7\tcode=temp_fail\treason=no database", Denied(7, "", True, "no database")),
        (b"FAIL\t7\tuser=ada\tcode=user_disabled", Denied(7, "ada", False, "user_disabled")),
    ],
)
def test_answers(line: bytes, event: Event) -> None:
    octets = GREETING + line + b"\nNEWS\tof tomorrow\n"
    assert heard(octets) == heard(*(octets[at : at + 1] for at in range(len(octets)))) == [READY, event]


def test_what_is_no_dovecot() -> None:
    assert heard(b"VERSION\t2\t0\n") == [DovecotBroken("version '2' of the protocol")]
    assert heard(b"x" * 70_000) == [DovecotBroken("a line without an end")]
    assert heard(b"OK\t1\tuser=ada\n") == [], "nothing counts before the handshake is done"
    chance = random.Random(1)
    for _ in range(200):
        heard(GREETING, chance.randbytes(200) + b"\n", b"FAIL\tx\nOK\t\xff\tuser=a\nCONT\t\xb2\n")


def test_requests() -> None:
    facts = (("service", "smtp"), ("rip", "192.0.2.1"), ("secured", ""))
    assert wire.request(1, "PLAIN", facts, b"\0a\0b") == (
        b"AUTH\t1\tPLAIN\tservice=smtp\trip=192.0.2.1\tsecured\tresp=AGEAYg==\n"
    )
    assert wire.request(2, "LOGIN", (), None) == b"AUTH\t2\tLOGIN\n"
    assert wire.request(2, "EXTERNAL", (), b"") == b"AUTH\t2\tEXTERNAL\tresp==\n"
    assert wire.response(3, b"abc") == b"CONT\t3\tYWJj\n"
    assert wire.cancel(4) == b"CANCEL\t4\n"
    assert wire.handshake(5) == b"VERSION\t1\t2\nCPID\t5\n"


@pytest.mark.parametrize("octets", [b"a\tuser=root\n", b"\nOK\t1\tuser=root\n", b"\0\t\0\n", b'"; --', b"\x01t\xff"])
def test_nothing_that_a_client_said_ends_a_word_or_a_line(octets: bytes) -> None:
    facts = (("cert_username", octets.decode("latin-1")),)
    for line in (wire.request(1, "PLAIN", facts, octets), wire.response(1, octets)):
        assert line is not None and line.endswith(b"\n") and line.count(b"\n") == 1 and b"\0" not in line
    line = wire.request(1, "PLAIN", facts, octets) or b""
    words = line[:-1].decode().split("\t")
    assert len(words) == 5
    assert wire.unescape(words[3]) == f"cert_username={octets.decode('latin-1')}"
    assert base64.b64decode(words[4].removeprefix("resp=")) == octets


def test_a_request_is_never_longer_than_dovecot_takes() -> None:
    """It would drop the connection, and with it all others' requests."""
    assert wire.request(1, "PLAIN", (), b"x" * 7_000) is None
    assert wire.response(1, b"x" * 7_000) is None
    assert wire.response(1, b"x" * 6_000) is not None


@pytest.mark.parametrize("text", ["", "a", "\x01", "\x011", "\x01\x01", "\0\t\r\n", "a\x01t\tb\x01"])
def test_escapes(text: str) -> None:
    assert wire.unescape(wire.escape(text)) == text
