"""Every parser that a message meets on its way is linear: four times the input, at most a little more than four times
the work, counted in steps (`tests.unit.linear`)."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import pytest

from postroad.mail import message, trace
from postroad.mail.address import Address
from postroad.protocol import ascii_header, data, grammar, mailboxes, mime, seven_bit
from postroad.protocol.limits import ProtocolLimits
from postroad.receive import repair, wishes_in
from postroad.report import encoded_word
from tests.unit import linear

MODULES = [message, trace, data, grammar, mailboxes, mime, seven_bit, ascii_header, wishes_in, repair, encoded_word]
LIMITS = ProtocolLimits(header_fields_max=1, path_max=100_000, text_line_max=1_000_000)
ANN = Address("ann", "local.test")


def of(seed: bytes, length: int) -> bytes:
    return (seed * (length // len(seed) + 1))[:length]


def repaired(octets: bytes) -> tuple[bytes, bytes]:
    return repair.repaired(
        octets, reverse_path=ANN, owns=lambda address: address == ANN, message_id="<new@mx>", submitted_us=0
    )


# What has no match in the end, or many that begin: for each rule the worst that we could think of.
ADDRESSES = [
    b"a", b"a@", b"(", b")", b"((a)", b"(a", b'"', b'\\"', b"<", b"<<>", b'<"', b"a@b,", b",", b"a ", b" ", b"\\",
    b"<@a,", b"a . ", b":", b";", b'"a"', b"\\(", b"<>", b">", b"a@b c", b"@",
]  # fmt: skip
SECTIONS = [
    b"A: b\r\n", b"A: b\r\n c\r\n", b"a", b": ", b"A:", b"A \r\n", b"\r\n ", b" ", b"A :b\r\n", b"\r", b"\r\r\n",
    b"Date: x\r\n", b"Date : x\r\n", b"date-x: y\r\n", b"From a\r\n", b">", b">From ", b"Received-X: y\r\n",
    b"A\t", b"A\r\n:",
]  # fmt: skip
VALUES = [b"<", b"@", b"a", b" ", b"(", b")", b"Mon, ", b"1 ", b"1", b"1 jan 2000 00:00:00 +0000 (", b"a@",
          b"<a@", b":"]  # fmt: skip


@pytest.mark.parametrize("seed", ADDRESSES)
def test_mailboxes(seed: bytes) -> None:
    def call(length: int) -> Callable[[], Any]:
        value = of(seed, length).decode()
        return lambda: mailboxes.mailboxes(value)

    linear.assert_linear(MODULES, call, 300)


@pytest.mark.parametrize("seed", SECTIONS)
@pytest.mark.parametrize("start", [b"", b"X: "])
def test_header_sections(seed: bytes, start: bytes) -> None:
    def call(length: int) -> Callable[[], Any]:
        octets = start + of(seed, length) + b"\r\n\r\nbody\r\n"
        section = octets[: message.header_end(octets)]

        def read() -> None:
            message.header_end(octets)
            message.header_is_whole(octets)
            message.joining(octets)
            list(message.fields(octets))
            message.without(octets, b"date")
            trace.hops(section)
            for name in (b"date", b"received", b"a"):
                message.first(section, name)
                message.count(section, name)
            seven_bit.survey([octets])
            repaired(octets)
            repair.dated(octets, message_id="<a@b>", submitted_us=0)

        return read

    linear.assert_linear(MODULES, call, 400)


@pytest.mark.parametrize("seed", VALUES)
@pytest.mark.parametrize("name", [b"Date", b"Message-ID", b"From", b"Sender"])
def test_values_that_are_looked_at(seed: bytes, name: bytes) -> None:
    def call(length: int) -> Callable[[], Any]:
        octets = b"From: eve@local.test\r\n" if name != b"From" else b""
        octets += name + b": " + of(seed, length) + b"\r\n\r\n"
        return lambda: repaired(octets)

    linear.assert_linear(MODULES, call, 240)


@pytest.mark.parametrize("seed", SECTIONS)
def test_the_door(seed: bytes) -> None:
    def call(length: int) -> Callable[[], Any]:
        wire = of(seed, length) + b"\r\n.\r\n"

        def read() -> None:
            for repairs in (False, True):
                reader = data.DataReader(data.Scrutiny(LIMITS, binary=False, repairs=repairs), LIMITS.piece_size)
                reader.read(wire, 0)

        return read

    linear.assert_linear(MODULES, call, 400)


@pytest.mark.parametrize("seed", [b"=?", b"=?a?b?", b"=?a?b?c", b"?= ", b"?= =?", b" ", b"=?utf-8?q?a?= ", b"=?a*b?q?"])
def test_encoded_words(seed: bytes) -> None:
    def call(length: int) -> Callable[[], Any]:
        text = of(seed, length).decode()
        return lambda: encoded_word.decode(text)

    linear.assert_linear(MODULES, call, 400)


@pytest.mark.parametrize("seed", [b"a", b".", b"@", b'"', b"\\", b"@a,", b"a=", b"+", b"[", b":", b"a.", b"@a:", b" "])
@pytest.mark.parametrize("start", [b"MAIL FROM:", b"MAIL FROM:<", b'MAIL FROM:"', b"MAIL FROM:<a@b> ENVID="])
def test_commands(seed: bytes, start: bytes) -> None:
    def call(length: int) -> Callable[[], Any]:
        line = start + of(seed, length)

        def read() -> None:
            grammar.parse_mail(line, frozenset({"ENVID"}), LIMITS, loose=True)
            grammar.parse_rcpt(b"RCPT TO:" + line[10:], frozenset(), LIMITS, smtputf8=False, loose=True)
            grammar.parse_mailbox(line[10:].decode())
            grammar.parse_hello(line)

        return read

    linear.assert_linear(MODULES, call, 150)


def test_the_count_finds_what_is_quadratic() -> None:
    """The pattern that mailboxes were found by once: for each word that is no address, all of it anew."""
    module = type(re)("quadratic")
    module.pattern = re.compile(r"[^\s@]+@[^\s@]+")  # type: ignore[attr-defined]

    def call(length: int) -> Callable[[], Any]:
        return lambda: module.pattern.search("a" * length)

    with pytest.raises(AssertionError):
        linear.assert_linear([module], call, 500)


def test_the_count_finds_a_call_for_each_line() -> None:
    def call(length: int) -> Callable[[], Any]:
        octets = b"a\n" * length
        return lambda: [octets.find(b"\n", at) for at in range(0, length, 2)]

    with pytest.raises(AssertionError):
        linear.assert_linear([], call, 500)


