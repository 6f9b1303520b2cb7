"""Lines that are too long for the next host."""

from __future__ import annotations

import random

import pytest

from postroad.mail.message import fields, header_end, lines_fit
from postroad.protocol.line_breaking import Breaker, broken


@pytest.mark.parametrize(
    ("octets", "expected"),
    [
        (b"", b""),
        (b"x" * 998 + b"\r\n", b"x" * 998 + b"\r\n"),
        (b"x" * 999 + b"\r\n", b"x" * 998 + b"\r\n x\r\n"),  # as Postfix 3.7 sends it
        (b"a\r\n" + b"x" * 2_500, b"a\r\n" + b"x" * 998 + b"\r\n " + b"x" * 997 + b"\r\n " + b"x" * 505),
        (b"x" * 950 + b" " + b"y" * 100 + b"\r\n", b"x" * 950 + b"\r\n " + b"y" * 100 + b"\r\n"),
        (b"x" * 998 + b" y\r\n", b"x" * 998 + b"\r\n y\r\n"),
        (b"x" * 997 + b"\xc3\xa4y\r\n", b"x" * 997 + b"\r\n \xc3\xa4y\r\n"),
        (b"\xf0\x9f\x93\xa8" * 300 + b"\r\n",
         b"\xf0\x9f\x93\xa8" * 249 + b"\r\n " + b"\xf0\x9f\x93\xa8" * 51 + b"\r\n"),
        (b"\x80" * 1_000 + b"\r\n", b"\x80" * 995 + b"\r\n " + b"\x80" * 5 + b"\r\n"),
    ],
)
def test_where_a_line_is_broken(octets: bytes, expected: bytes) -> None:
    assert broken(octets, 998) == expected
    assert broken(expected, 998) == expected
    for size in (1, 7, 997, 998, 1_000):
        breaker = Breaker(998)
        parts = [breaker.piece(octets[at : at + size]) for at in range(0, len(octets), size)]
        assert b"".join(parts) + breaker.end() == expected, size


@pytest.mark.parametrize("seed", range(200))
def test_any_content_in_any_pieces(seed: int) -> None:
    chance = random.Random(seed)
    words = [b"x" * chance.randrange(30), b" ", b"\t", b"\r\n", b"\xc3\xa4", b".", b"x" * chance.randrange(2_000)]
    octets = b"".join(chance.choices(words, k=chance.randrange(200)))
    whole = broken(octets, 998)
    assert lines_fit(whole, 1_000)
    unbroken = whole.replace(b"\r\n ", b"").replace(b"\r\n", b"").replace(b" ", b"")
    assert unbroken == octets.replace(b"\r\n ", b"").replace(b"\r\n", b"").replace(b" ", b"")
    breaker = Breaker(998)
    parts, at = [], 0
    while at < len(octets):
        step = chance.randrange(1, 3_000)
        parts.append(breaker.piece(octets[at : at + step]))
        at += step
    assert b"".join(parts) + breaker.end() == whole


def test_a_header_field_is_folded_and_means_the_same() -> None:
    octets = b"To: " + b", ".join(b"user%d@example.org" % number for number in range(500)) + b"\r\n\r\nbody\r\n"
    whole = broken(octets, 998)
    assert [field.value for field in fields(whole)] == [field.value for field in fields(octets)]
    assert whole[header_end(whole) :] == b"\r\nbody\r\n"
