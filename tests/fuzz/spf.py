"""Target `spf`: any octets as SPF record, explanation, HELO name and local-part of the sender.

What must hold: nothing raises; the result is one of RFC 7208's; a record with a fault anywhere is a permerror; names
that are asked can be names; the number of queries has a limit; nothing of a stranger begins a line of a reply or field.
"""

from __future__ import annotations

import asyncio

from postroad.mail.address import Address
from postroad.trust import received_spf
from postroad.trust.asking import DnsQuestions
from postroad.trust.spf import MX_MAX, PTR_MAX, TERMS_MAX, SpfClient, check_helo, check_mail_from
from postroad.trust.spf_macro import TEXT_MAX
from postroad.trust.spf_record import SpfFault, parse, select
from tests.fuzz import choices
from tests.unit.trust.zones import ZoneResolver

_RESULTS = {"none", "neutral", "pass", "fail", "softfail", "temperror", "permerror"}
# The record and its explanation, the terms with their hosts, and the names of the client.
_QUERIES_MAX = 2 + TERMS_MAX * (1 + MX_MAX) + 1 + PTR_MAX
_ZONES: dict[str, dict[str, list[str]]] = {
    "pass.example": {"TXT": ["v=spf1 ip4:192.0.2.0/24 ip6:2001:db8::/32 -all"]},
    "fail.example": {
        "TXT": ["v=spf1 exp=why.example -all"],
        "A": ["192.0.2.9"],
        "MX": ["1 h.example", "2 why.example"],
    },
    "loop.example": {"TXT": ["v=spf1 include:loop.example"], "CNAME": ["loop.example"]},
    "h.example": {"A": ["192.0.2.1"], "AAAA": ["2001:db8::1"], "TXT": ["v=spf1 a -all"]},
    "broken.example": {"ERROR": []},
    "1.2.0.192.in-addr.arpa": {"PTR": ["h.example", "x.fail.example"]},
}


def check(data: bytes, *, hasty: bool = False) -> None:
    chosen = choices.read(data)
    parts = chosen.wire.decode("utf-8", "backslashreplace").split("\n", 3)
    record, explanation, helo, local_part = (*parts, "", "", "")[:4]
    client = SpfClient("2001:db8::1" if chosen.on(0) else "192.0.2.1", helo or "h.example", "mx.example.org", 1)
    zones = _ZONES | {"d.example": {"TXT": [record]}, "why.example": {"TXT": [explanation], "A": ["192.0.2.1"]}}
    resolver = ZoneResolver(zones)

    async def ask() -> None:
        questions = DnsQuestions(resolver)
        if chosen.on(1):
            results = [await check_helo(client, questions, with_steps=True)]
        else:
            results = [await check_mail_from(client, Address(local_part, "d.example"), questions)]
        for each in results:
            assert each.result in _RESULTS and each.told and each.told.isprintable()
            assert each.explanation.isascii() and len(each.explanation) <= TEXT_MAX
            assert not each.explanation or (each.result == "fail" and each.explanation.isprintable())
            _is_one_field(received_spf.field(each))
        if not chosen.on(1) and select([record]) and isinstance(parse(record), SpfFault):
            assert results[0].result == "permerror"

    asyncio.run(ask())
    assert len(resolver.asked) <= _QUERIES_MAX, resolver.asked
    for asked in resolver.asked:
        name = asked.partition(" ")[2]
        assert name.isascii() and len(name) <= 253 and name == name.lower(), asked


def _is_one_field(octets: bytes) -> None:
    first, *more, last = octets.split(b"\r\n")
    assert first.startswith(b"Received-SPF: ") and last == b"" and octets.isascii()
    assert all(line.startswith(b" ") and line.strip() for line in more), octets
    assert max(map(len, (first, *more))) <= 998
    assert not set(b"".join((first, *more))) & {0, 10, 13}


_SEEDS = (
    "v=spf1 -all", "v=spf1", "v=spf1 a mx ptr ip4:192.0.2.1/24 ip6:2001:db8::/32 exists:%{ir}.h.example ~all",
    "v=spf1 include:pass.example include:fail.example ?all", "v=spf1 redirect=fail.example", "v=spf1 redirect=%{h}",
    "v=spf1 exp=why.example -all\nSee http://why.example/?s=%{S}&i=%{I}\nh.example\na b",
    "v=spf1 exp=why.example -all\n%{c} %{r} %{t} %{p} %{v} %% %_ %-\n[192.0.2.1]\njörg",
    "v=spf1 exp=why.example -all\n%{l}\nh.example\nx\r y", "v=spf1 exists:%{l1r+-}._spf.%{d2} -all",
    "v=spf1 a:%{d127}.example//0 mx:fail.example/0 -all", "v=spf1 include:loop.example", "v=spf1 a:loop.example",
    "v=spf1 mx:broken.example", "v=spf1 ptr:h.example ptr:%{p} -all", "V=SPF1 A/24//64 ?ALL", "v=spf1  a   -all  ",
    "v=spf1 moo.cow-far_out=man:dog/cat ip4:1.2.3.4 -all", "v=spf1 ip4:1.2.3 -all", "v=spf1 a:123 -all", "v=spf10 -all",
    "v=spf1 exists:%{s.-+,/_=}.%{o}.%{d0} -all", "v=spf1 %{%{}}", "v=spf1 a:%", "v=spf1 a:%{", "v=spf1 =x",
    "v=spf1 x=%{c}",
    "v=spf1 " + "a " * 12 + "-all", "v=spf1 " + "include:h.example " * 11, "v=spf1 a:" + "x" * 70 + ".example -all",
    "v=spf1 a:" + "%{s}." * 50 + "example -all", "v=spf1 redirect=a.example redirect=b.example", "v=spf1 -all\xff", "",
)  # fmt: skip


def seeds() -> dict[str, bytes]:
    return {
        f"{number:02}-{mode}": choices.written(mode, 9, number, text.encode())
        for number, text in enumerate(_SEEDS)
        for mode in (0, 1)
    }
