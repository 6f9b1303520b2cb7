"""XCLIENT of the courier: each message goes out as that of its own client, or as ours, never as that of another one."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from postroad.mail.envelope import Forwarded, Peer, Via
from postroad.mail.job import Job
from postroad.mail.route import Transport
from tests.unit.deliver.world import Stage, job

ATTRIBUTES = "NAME ADDR PORT PROTO HELO LOGIN DESTADDR DESTPORT"
OFFERED = f"PIPELINING XCLIENT:{ATTRIBUTES.replace(' ', ':')}"
HELLO = ("250-mx", f"250-XCLIENT {ATTRIBUTES}", "250 PIPELINING")
ADA = Peer("192.0.2.7", 4711, "ada.test", "ESMTPS", identity="ada", name="ada.example")
BOB = Peer("2001:db8::7", 25, "[IPv6:2001:db8::7]", "SMTP")
MADE_HERE = Peer()
AS_ADA = (
    b"XCLIENT ADDR=192.0.2.7 PORT=4711 PROTO=ESMTP LOGIN=ada HELO=ada.test NAME=ada.example DESTADDR=[UNAVAILABLE] "
    b"DESTPORT=[UNAVAILABLE]\r\n"
)
AS_BOB = (
    b"XCLIENT ADDR=IPV6:2001:db8::7 PORT=25 PROTO=SMTP LOGIN=[UNAVAILABLE] HELO=[IPv6:2001:db8::7] NAME=[UNAVAILABLE] "
    b"DESTADDR=[UNAVAILABLE] DESTPORT=[UNAVAILABLE]\r\n"
)
ENVELOPE = b"MAIL FROM:<ada@example.org>\r\nRCPT TO:<r0@example.net>\r\nDATA\r\n"


def of(peer: Peer, **fields: Any) -> Job:
    made = job(peer=peer, **fields)
    return msgspec.structs.replace(made, destination=msgspec.structs.replace(made.destination, xclient=True))


def sent(stage: Stage, ends: str = "250 2.0.0 ok") -> bytes:
    """What was said up to the end of the data."""
    stage.server("250 ok", "250 ok", "354 go")
    said = stage.wire.taken()
    stage.server(ends)
    return said


def named(stage: Stage, peer: Peer) -> bytes:
    """The message is carried, and its client named first."""
    said = stage.carry(of(peer))
    stage.server("220 mx greets")
    said += stage.wire.taken()
    stage.server(*HELLO)
    assert stage.wire.taken() == ENVELOPE
    sent(stage)
    return said


def test_each_client_is_named_once() -> None:
    stage = Stage(OFFERED)
    assert named(stage, ADA) == AS_ADA + b"EHLO ada.test\r\n"
    assert stage.carry(of(ADA)) == ENVELOPE
    sent(stage)
    assert named(stage, BOB) == AS_BOB + b"EHLO [IPv6:2001:db8::7]\r\n"
    assert named(stage, ADA) == AS_ADA + b"EHLO ada.test\r\n"
    assert [attempts[0].outcome.value for attempts in stage.done] == ["relayed"] * 4


def test_what_was_made_here_is_ours() -> None:
    stage = Stage(OFFERED)
    assert stage.carry(of(MADE_HERE)) == ENVELOPE  # the connection is ours
    sent(stage)
    named(stage, ADA)
    said = named(stage, MADE_HERE)
    assert said.startswith(b"XCLIENT ADDR=127.0.0.1 PORT=[UNAVAILABLE] PROTO=ESMTP LOGIN=[UNAVAILABLE] HELO=me.test ")
    assert said.endswith(b"\r\nEHLO me.test\r\n")


@pytest.mark.parametrize(("peer", "words"), [
    (Peer("127.0.0.1", 9, "filter.test", "ESMTP", identity="filter", forwarded=Forwarded(address="192.0.2.9")),
     "ADDR=192.0.2.9 PORT=[UNAVAILABLE] PROTO=ESMTP LOGIN=[UNAVAILABLE] HELO=[UNAVAILABLE]"),
    (Peer("192.0.2.7", 9, "a.test", "LMTP", via=Via("PROXY v2", "192.0.2.1", 1, "198.51.100.1", 25)),
     "DESTADDR=198.51.100.1 DESTPORT=25"),
    (Peer("192.0.2.7", 9, "bücher.test", "UTF8SMTP"), "HELO=b+C3+BCcher.test"),
])
def test_what_is_said_of_a_client(peer: Peer, words: str) -> None:
    stage = Stage(OFFERED)
    assert words in stage.carry(of(peer)).decode()


def test_a_name_that_is_no_name_is_not_said_in_ehlo() -> None:
    stage = Stage(OFFERED)
    stage.carry(of(msgspec.structs.replace(ADA, hello="what$ever")))
    stage.server("220 mx")
    assert stage.wire.taken() == b"EHLO me.test\r\n"


def test_what_does_not_fit_a_line_is_not_said() -> None:
    stage = Stage(OFFERED)
    said = stage.carry(of(msgspec.structs.replace(ADA, hello="h" * 255, name="n" * 255, identity="i" * 60)))
    assert b"LOGIN=" + b"i" * 60 in said and b"HELO=hhh" in said and b"NAME=[UNAVAILABLE]" in said
    assert len(said) <= 512


def test_a_server_that_does_not_offer_it_gets_the_message() -> None:
    stage = Stage("PIPELINING")
    assert stage.carry(of(ADA)) == ENVELOPE


@pytest.mark.parametrize("answer", ["550 5.7.0 insufficient authorization", "501 5.5.4 bad", "500 what"])
def test_a_server_that_refuses_it_gets_the_message_as_ours(answer: str) -> None:
    stage = Stage(OFFERED)
    assert stage.carry(of(ADA)) == AS_ADA
    stage.server(answer)
    assert stage.wire.taken() == ENVELOPE
    sent(stage)
    assert stage.carry(of(BOB)) == ENVELOPE  # it is not asked again
    assert stage.done[0][0].outcome.value == "relayed"


@pytest.mark.parametrize("answer", ["550 5.7.0 no", "450 4.7.1 not now", "250 2.0.0 late", "220"])
def test_a_message_never_goes_as_that_of_another_client(answer: str) -> None:
    """The second client is refused: the message goes over another connection. 220 alone is a good answer."""
    stage = Stage(OFFERED)
    named(stage, ADA)
    assert stage.carry(of(BOB)) == AS_BOB
    stage.server(answer)
    if answer == "220":
        assert stage.wire.taken() == b"EHLO [IPv6:2001:db8::7]\r\n"
        return
    assert stage.wire.aborted and stage.wire.taken() == b""
    (attempt,) = stage.done[1]
    assert (attempt.outcome.value, attempt.reach.value) == ("deferred", "session")


def test_a_server_that_lets_the_named_client_name_nobody() -> None:
    """As Postfix does: the connection is for this message alone."""
    stage = Stage(OFFERED)
    stage.carry(of(ADA))
    stage.server("220 mx greets")
    stage.wire.taken()
    stage.server("250-mx", "250 PIPELINING")
    assert stage.wire.taken() == ENVELOPE
    sent(stage)
    assert stage.done[0][0].outcome.value == "relayed"
    assert not stage.courier.usable


def test_it_is_another_session_with_extensions_of_its_own() -> None:
    stage = Stage(f"{OFFERED} SIZE", kind=Transport.LMTP)
    assert stage.carry(of(ADA)) == AS_ADA
    stage.server("220 mx greets")
    assert stage.wire.taken() == b"LHLO ada.test\r\n"
    stage.server("250-mx", f"250 XCLIENT {ATTRIBUTES}")
    assert stage.wire.taken() == b"MAIL FROM:<ada@example.org>\r\n"  # neither SIZE nor PIPELINING


@pytest.mark.parametrize(("answers", "reach"), [
    (("421 4.3.2 closing",), "session"),
    (("451 4.7.1 later",), "hop"),
    (("521 5.3.2 never",), "hop"),
    (("354 what",), "session"),
    (("220 mx", "554 5.7.1 not you", "554 5.7.1 not you"), "hop"),
    (("220 mx\r\n250 and more",), "session"),
])
def test_a_client_that_is_not_welcome(answers: tuple[str, ...], reach: str) -> None:
    stage = Stage(OFFERED)
    stage.carry(of(ADA))
    for answer in answers:
        stage.server(answer)
    (attempt,) = stage.done[0]
    assert attempt.reach.value == reach and stage.wire.aborted
    assert b"MAIL" not in stage.wire.taken()


def test_silence_has_a_limit() -> None:
    stage = Stage(OFFERED)
    stage.carry(of(ADA))
    stage.loop.advance(600)
    (attempt,) = stage.done[0]
    assert (attempt.reach.value, attempt.status) == ("session", "4.4.2") and "XCLIENT" in attempt.text
