"""Attributes of XCLIENT and XFORWARD: read, and written for the next server."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from postroad.mail import identifier
from postroad.mail.address import Address
from postroad.mail.envelope import Envelope, Forwarded, Peer, Recipient
from postroad.mail.reply import Reply
from postroad.protocol.answers import IMPROPER_PIPELINING
from postroad.protocol.command import Xclient, Xforward
from postroad.protocol.extension import BY_KEYWORD
from postroad.protocol.offer import Offer
from postroad.protocol.server import ProtocolLimits
from postroad.protocol.xclient import XCLIENT_LINE, XFORWARD_LINE, parse_xclient, parse_xforward, xforward
from tests.unit.protocol.host import ALL, Host

ID = identifier.make(1_790_000_000_000_000, 1, 0)
EVERY = "NAME ADDR PORT PROTO HELO IDENT SOURCE"


@pytest.mark.parametrize(
    ("argument", "expected"),
    [
        (b"ADDR=192.0.2.1", {"address": "192.0.2.1"}),
        (b"ADDR=IPv6:2001:DB8::0:1", {"address": "2001:db8::1"}),
        (b"ADDR=2001:db8::1", {"address": "2001:db8::1"}),
        (b"ADDR=::ffff:192.0.2.1", {"address": "192.0.2.1"}),
        (b"addr=[unavailable]", {"address": ""}),
        (b"  PORT=00025   DESTPORT=0 ", {"port": "25", "destination_port": "0"}),
        (b"NAME=a_b.example LOGIN=a+40b HELO=[192.0.2.1]",
         {"name": "a_b.example", "login": "a@b", "hello": "[192.0.2.1]"}),
        (b"LOGIN=gr+C3+BCn", {"login": "grün"}),
        (b"PROTO=smtp DESTADDR=192.0.2.2", {"protocol": "SMTP", "destination": "192.0.2.2"}),
    ],
)
def test_xclient(argument: bytes, expected: dict[str, str]) -> None:
    assert parse_xclient(argument) == Xclient(**expected)


@pytest.mark.parametrize(
    "argument",
    [
        b"", b" ", b"=", b"ADDR=", b"ADDR", b"NAME==", b"NAME=a=b", b"NAME=a b", b"NAME=a+", b"NAME=a+2", b"NAME=a+zz",
        b"NAME=" + b"a" * 256, b"NAME=a+0Ab", b"NAME=a+00", b"LOGIN=a+1Bb", b"LOGIN=+FF", b"LOGIN=" + b"a" * 256,
        b"HELO=a+0D+0A", b"HELO=a+20b", b"HELO=gr+C3+BCn", b"ADDR=1", b"ADDR=fe80::1%eth0", b"ADDR=IPV6:192.0.2.x",
        b"PORT=-1", b"PORT=65536", b"PORT=+2D1", b"PROTO=QMTP", b"IDENT=x", b"NAME=\xc3\xbc", b"NAME=[UNKNOWN]",
        b"NAME=a NAME=b", b"DESTADDR=x", b"DESTPORT=x",
    ],
)
def test_xclient_errors(argument: bytes) -> None:
    answer = parse_xclient(argument)
    assert isinstance(answer, Reply) and answer.code == 501


def test_xforward() -> None:
    assert parse_xforward(b"NAME=a.example PROTO=ESMTPS IDENT=4F+2B1 SOURCE=local PORT=[TEMPUNAVAIL]") == Xforward(
        name="a.example", protocol="ESMTPS", ident="4F+1", source="LOCAL", port=""
    )
    for argument in (b"LOGIN=ann", b"SOURCE=BOTH", b"IDENT=+07", b"PROTO=a+20b"):
        assert isinstance(parse_xforward(argument), Reply)


@given(st.one_of(st.binary(max_size=80), st.builds(
    lambda name, value: name + b"=" + value,
    st.sampled_from([b"NAME", b"ADDR", b"LOGIN", b"HELO", b"IDENT", b"PORT", b"PROTO", b"SOURCE"]),
    st.binary(max_size=40),
)))  # fmt: skip
def test_never_raises_and_lets_nothing_through_that_could_end_a_line(argument: bytes) -> None:
    for parsed in (parse_xclient(argument), parse_xforward(argument)):
        if not isinstance(parsed, Reply):
            for value in msgspec.structs.astuple(parsed):
                assert value is None or value.isprintable()


def test_what_is_announced_is_what_is_understood() -> None:
    offer = Offer(xclient=True, xforward=True)
    assert BY_KEYWORD["XCLIENT"].announce(offer, ProtocolLimits()) == XCLIENT_LINE
    assert BY_KEYWORD["XFORWARD"].announce(offer, ProtocolLimits()) == XFORWARD_LINE


def test_nothing_may_stand_behind_xclient() -> None:
    host = Host(ALL).play(b"EHLO a.example\r\n", b"XCLIENT ADDR=192.0.2.1\r\nEHLO b.example\r\n")
    assert host.replies[-1] == str(IMPROPER_PIPELINING)
    assert not any(isinstance(command, Xclient) for command in host.commands)


# ---- the client's side


def envelope(peer: Peer) -> Envelope:
    return Envelope(ID, None, (Recipient(Address("a", "b.example")),), 1, 1, peer)


def test_the_client_is_told_with_what_the_server_takes() -> None:
    peer = Peer("192.0.2.7", 1234, "client.example", "ESMTPSA", "TLSv1.3", "", "mx", None, "c.example")
    ident = identifier.text(ID)
    assert xforward(envelope(peer), EVERY) == [
        f"XFORWARD NAME=c.example ADDR=192.0.2.7 PORT=1234 PROTO=ESMTP HELO=client.example IDENT={ident} "
        "SOURCE=REMOTE\r\n".encode()
    ]
    assert xforward(envelope(peer), "addr helo COLOUR") == [b"XFORWARD ADDR=192.0.2.7 HELO=client.example\r\n"]
    assert xforward(envelope(peer), "") == []


def test_what_is_not_known_is_said_so() -> None:
    assert xforward(envelope(Peer("2001:db8::1", 0, "")), "NAME ADDR PORT HELO SOURCE") == [
        b"XFORWARD NAME=[UNAVAILABLE] ADDR=IPV6:2001:db8::1 PORT=[UNAVAILABLE] HELO=[UNAVAILABLE] SOURCE=REMOTE\r\n"
    ]
    assert xforward(envelope(Peer()), "ADDR SOURCE") == [b"XFORWARD ADDR=[UNAVAILABLE] SOURCE=LOCAL\r\n"]


def test_the_client_before_is_passed_on() -> None:
    before = Forwarded("o.example", "203.0.113.1", 99, "SMTP", "o", "4F1", "REMOTE")
    peer = Peer("127.0.0.1", 1, "filter", "ESMTP", forwarded=before)
    assert xforward(envelope(peer), EVERY) == [
        b"XFORWARD NAME=o.example ADDR=203.0.113.1 PORT=99 PROTO=SMTP HELO=o IDENT=4F1 SOURCE=REMOTE\r\n"
    ]


@given(st.text(max_size=300), st.text(max_size=300), st.text(max_size=300))
def test_whatever_the_facts_a_line_is_a_line(name: str, hello: str, ident: str) -> None:
    peer = Peer("192.0.2.1", 1, "x", "ESMTP", forwarded=Forwarded(name, "", 0, "", hello, ident, "LOCAL"))
    lines = xforward(envelope(peer), EVERY)
    for line in lines:
        assert len(line) <= 512 and line.count(b"\n") == 1 and line.endswith(b"\r\n") and line.isascii()
        assert b" " not in line[9:].replace(b" ", b"", line.count(b"=") - 1)
    assert b"".join(lines).count(b"=") == 7
