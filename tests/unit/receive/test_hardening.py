"""Rows of docs/hardening.md that touch a session from outside, and are not another test's."""

from __future__ import annotations

import base64
import itertools
import time
from pathlib import Path

import pytest

from postroad.mail import message
from postroad.mail.address import Address
from postroad.mail.event import SessionEnded
from postroad.receive import repair
from postroad.receive.options import ListenerOptions, Telling
from tests.unit.receive.fakes import House, opened
from tests.unit.receive.test_auth import house_of, wait
from tests.unit.receive.test_session import MESSAGE, content

QUOTES = ["' OR '1'='1", '" OR ""="', "*)(uid=*))(|(uid=*", "ann'--", "ann\\", "%", "ann*", "../ann", "ann;drop"]


@pytest.mark.parametrize("name", QUOTES)
def test_quotes_in_the_name_of_an_account_find_nobody(tmp_path: Path, name: str) -> None:
    """CVE-2025-26794: AUTH identities are compared, never put into a query."""
    client = opened(house_of(tmp_path))
    attempt = base64.b64encode(f"\0{name}\0x".encode()).decode()
    assert wait(client, f"AUTH PLAIN {attempt}") == "535 5.7.8"


@pytest.mark.parametrize("argument", QUOTES)
def test_quotes_in_etrn_and_vrfy_are_refused_or_unknown(argument: str) -> None:
    client = opened(House(listener=ListenerOptions("front", vrfy=Telling.ON)))
    assert client.codes(f"ETRN {argument}")[0][:1] == "5"
    assert client.codes(f"VRFY {argument}")[0][:3] in ("252", "501", "550", "553")


@pytest.mark.parametrize("local_part", QUOTES)
def test_quotes_in_a_recipient_find_nobody(local_part: str) -> None:
    quoted = local_part.replace("\\", "\\\\").replace('"', '\\"')
    client = opened(House())
    client.say("MAIL FROM:<>\r\n")
    assert client.codes(f'RCPT TO:<"{quoted}"@local.test>') == ["550 5.1.1"]


# Header injection: what a client says of itself stands in our Received field

HELLOS = ["a\x0bb", "a\tX-Evil: y", "x)(by evil;", "a;b", "x\\", '"', "a\x00b", "a\x85b", "a b c", "(((((", "x" * 500]


@pytest.mark.parametrize("hello", HELLOS)
def test_nothing_a_client_calls_itself_makes_a_field_of_its_own(hello: str) -> None:
    house = House()
    client = house.client()
    client.heard()
    client.say(f"HELO {hello}\r\n".encode())
    if client.transport.closed or client.codes("MAIL FROM:<>")[0] != "250 2.1.0":
        assert house.spool.stored == []
        return
    client.codes("RCPT TO:<ann@local.test>", "DATA")
    assert client.say(MESSAGE + b".\r\n").startswith("250")
    octets = content(house)
    head = octets[: message.header_end(octets)]
    names = [field.name for field in message.fields(head)]
    wanted = [field.name for field in message.fields(MESSAGE[: message.header_end(MESSAGE)])]
    assert names == ["Received", *wanted]
    assert not any((octet < 32 and octet not in b"\r\n\t") or octet == 127 for octet in head.split(b"\r\n\r\n")[0])


# Look-alikes of the end of data through a whole session, every one split at every octet

ENDS = [b"\r\n", b"\n", b"\r", b"\r\0\n", b""]
SMUGGLED = b"MAIL FROM:<evil@evil.test>\r\nRCPT TO:<bob@local.test>\r\nDATA\r\nSubject: evil\r\n\r\n.\r\n"


@pytest.mark.parametrize(
    ("before", "after"), [each for each in itertools.product(ENDS, ENDS) if each != (b"\r\n", b"\r\n")]
)
def test_a_look_alike_smuggles_nothing_wherever_it_is_split(before: bytes, after: bytes) -> None:
    """CVE-2023-51764 and its kin: never a second message, whatever the first one's answer."""
    wire = b"Subject: x\r\n\r\nbody" + before + b"." + after + SMUGGLED
    for place in range(14, len(b"Subject: x\r\n\r\nbody" + before + b"." + after) + 1):
        house = House()
        client = opened(house)
        client.codes("MAIL FROM:<a@b.test>", "RCPT TO:<ann@local.test>", "DATA")
        client.say(wire[:place])
        if not client.transport.closed:
            client.say(wire[place:])
        stored = house.spool.stored
        assert len(stored) <= 1
        assert not [each for each in stored if str(each.envelope.reverse_path).startswith("evil")]


# Parser bombs

BOMBS = {
    "comments": b"From: " + b"(" * 50_000 + b"\r\n",
    "quotes": b'From: "' + b'\\"' * 50_000 + b"\r\n",
    "groups": b"From: " + b"a:" * 50_000 + b";" * 50_000 + b"\r\n",
    "angles": b"From: " + b"<" * 50_000 + b">" * 50_000 + b"\r\n",
    "commas": b"From: " + b"a@b.c," * 20_000 + b"\r\n",
    "folded": b"From: a\r\n" + b" b\r\n" * 30_000,
    "levels": b"Content-Type: multipart/mixed; boundary=a\r\n" * 10_000,
    "fields": b"X-1: y\r\n" * 10_000,
}


@pytest.mark.parametrize("bomb", BOMBS)
def test_a_bomb_in_the_header_section_takes_no_time(bomb: str) -> None:
    octets = BOMBS[bomb] + b"\r\nbody\r\n"
    began = time.process_time()
    _, mended = repair.repaired(
        octets, reverse_path=Address("ann", "local.test"), owns=lambda address: False, message_id="<1@x>",
        submitted_us=0,
    )  # fmt: skip
    assert mended.endswith(b"\r\nbody\r\n")
    assert time.process_time() - began < 2.0


# Slow and many


def test_a_thousand_clients_that_drip_all_end_at_their_deadline() -> None:
    """Slowloris: an octet now and then keeps no session beyond the time of a command."""
    house = House()
    clients = [house.client((f"192.0.2.{number % 250}", 1000 + number)) for number in range(1000)]
    for _ in range(31):
        house.loop.pass_time(10)
        for client in clients:
            if not client.transport.closed:
                client.session.data_received(b"N")
    assert all(client.transport.closed for client in clients)
    for client in clients:
        client.hang_up()
    assert {event.reason for event in house.logged if isinstance(event, SessionEnded)} == {"timeout"}
    assert house.clients.sessions == 0
