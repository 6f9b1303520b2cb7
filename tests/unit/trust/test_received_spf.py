"""The field Received-SPF (RFC 7208 §9.1)."""

from __future__ import annotations

import re
from typing import Any

import pytest

from postroad.mail.address import Address
from postroad.trust.asking import DnsQuestions
from postroad.trust.received_spf import field
from postroad.trust.spf import SpfClient, check_mail_from
from tests.unit.trust.zones import ZoneResolver

_QUOTED = r'"(?:[^"\\\r\n]|\\[ -~])*"'
_DOT_ATOM = r"[A-Za-z0-9!#$%&'*+/=?^_`{|}~.-]+"
_COMMENT = r"\((?:[^()\\\r\n]|\\[ -~])*\)"
FIELD = re.compile(rf"Received-SPF: [a-z]+ {_COMMENT}(?: [a-z-]+=(?:{_DOT_ATOM}|{_QUOTED});)+")


async def made(record: str, sender: Address | None, client: str = "192.0.2.1", helo: str = "h.example") -> bytes:
    zones: dict[str, Any] = {"d.example": {"TXT": [f"v=spf1 {record}"]}, "h.example": {"TXT": ["v=spf1 -all"]}}
    result = await check_mail_from(SpfClient(client, helo, "mx.example.net"), sender, DnsQuestions(ZoneResolver(zones)))
    return field(result)


async def test_a_whole_one() -> None:
    assert await made("ip4:192.0.2.0/24 -all", Address("a", "d.example")) == (
        b"Received-SPF: pass (mx.example.net: d.example permits 192.0.2.1:\r\n"
        b' ip4:192.0.2.0/24) client-ip=192.0.2.1; envelope-from="a@d.example";\r\n'
        b" helo=h.example; receiver=mx.example.net; identity=mailfrom;\r\n"
        b' mechanism="ip4:192.0.2.0/24";\r\n'
    )


async def test_the_null_reverse_path() -> None:
    text = await made("", None)
    assert b"envelope-from" not in text and b"identity=helo;" in text and b"Received-SPF: fail (" in text


async def test_no_term_matches() -> None:
    assert b"mechanism=default;" in await made("", Address("a", "d.example"))


async def test_errors_have_a_problem_and_no_mechanism() -> None:
    text = await made("foo(bar)", Address("a", "d.example"))
    assert text.startswith(b"Received-SPF: permerror (mx.example.net:")
    assert b"problem=" in text and b"mechanism=" not in text
    assert FIELD.fullmatch(text.decode().replace("\r\n ", " ").removesuffix("\r\n"))


@pytest.mark.parametrize(
    ("sender", "client", "helo", "record"),
    [
        (Address('a"b\\c) d', "d.example"), "2001:db8::1", "h.example", "-all"),
        (Address("a\r\nX: y", "d.example"), "192.0.2.1", "h\r\nX: y", "-all"),
        (Address("jörg", "d.example"), "192.0.2.1", "bücher.example", "-all"),
        (Address("x" * 2000, "d.example"), "192.0.2.1", "y" * 2000, "-all"),
        (Address("a", "gone.example"), "", "", "-all"),
        (Address("a", "[192.0.2.1]"), "192.0.2.1", ")(", "-all"),
        (Address("a", "d.example"), "192.0.2.1", "h.example", "?" + "include:h.example " * 9 + "x" * 3000),
    ],
)
async def test_nothing_of_a_stranger_gets_out(sender: Address, client: str, helo: str, record: str) -> None:
    text = (await made(record, sender, client, helo)).decode("ascii")
    lines = text.removesuffix("\r\n").split("\r\n")
    assert all(len(line) <= 998 for line in lines)
    assert all(line.startswith(" ") and line.strip() for line in lines[1:])
    assert FIELD.fullmatch("".join(lines)), text
