"""The DNS tree walk and the organizational domain (RFC 9989 §4.10, §B.4)."""

from __future__ import annotations

import pytest

from postroad.trust.dmarc_walk import QUERIES_MAX, Walker, targets
from tests.unit.trust.zones import ZoneResolver

PLAIN = "v=DMARC1; p=none"
NO = "v=DMARC1; p=none; psd=n"
YES = "v=DMARC1; p=none; psd=y"
ONLY_PSD = "v=DMARC1; psd=y"
DEEP = "a.b.c.d.e.f.g.h.i.j.mail.example.com"


def zones(**records: str) -> dict[str, dict[str, list[str]]]:
    return {f"_dmarc.{name.replace('_', '.')}": {"TXT": [record]} for name, record in records.items()}


async def organizational(domain: str, resolver: ZoneResolver) -> str:
    walk = await Walker(resolver).walk(domain)
    assert not walk.failed
    return walk.organizational


def test_a_walk_has_at_most_eight_names() -> None:
    """§4.10, the example at its end."""
    assert targets(DEEP) == [
        DEEP, "g.h.i.j.mail.example.com", "h.i.j.mail.example.com", "i.j.mail.example.com", "j.mail.example.com",
        "mail.example.com", "example.com", "com",
    ]  # fmt: skip
    assert targets("a.b.c.d.e.f.g.h") == [
        "a.b.c.d.e.f.g.h", "b.c.d.e.f.g.h", "c.d.e.f.g.h", "d.e.f.g.h", "e.f.g.h", "f.g.h", "g.h", "h",
    ]  # fmt: skip
    assert targets("a.b.c.d.e.f.g.h.i")[1] == "c.d.e.f.g.h.i"
    assert targets("example.com") == ["example.com", "com"]
    assert targets("com") == ["com"]
    assert all(len(targets(".".join("x" * count))) == min(count, QUERIES_MAX) for count in range(1, 120))


@pytest.mark.parametrize(
    ("records", "expected"),
    [
        ({"mail_example_com": PLAIN, "example_com": PLAIN}, "example.com"),
        ({"mail_example_com": NO, "example_com": PLAIN}, "mail.example.com"),
        ({"com": YES}, "example.com"),
        ({"com": ONLY_PSD}, "example.com"),
        ({"com": NO}, "com"),
        ({"com": PLAIN}, "com"),
        ({"example_com": YES, "com": PLAIN}, "mail.example.com"),
        ({"a_mail_example_com": YES, "example_com": PLAIN}, "a.mail.example.com"),
        ({"a_mail_example_com": NO}, "a.mail.example.com"),
        ({"mail_example_com": PLAIN, "com": YES}, "example.com"),
        ({"mail_example_com": "v=DMARC1; p=none; psd=x", "example_com": PLAIN}, "example.com"),
        ({"example_com": "v=spf1 -all", "com": "v=dmarc1; psd=y"}, "a.mail.example.com"),
        ({}, "a.mail.example.com"),
    ],
)
async def test_the_organizational_domain(records: dict[str, str], expected: str) -> None:
    """§4.10.2, its rules and its examples."""
    assert await organizational("a.mail.example.com", ZoneResolver(zones(**records))) == expected


async def test_the_domain_below_a_suffix_is_found_also_if_names_are_skipped() -> None:
    """§4.10.2 rule 2: one label below, not one step back."""
    zone = zones(g_h_i_j_mail_example_com=YES)
    assert await organizational(DEEP, ZoneResolver(zone)) == "f.g.h.i.j.mail.example.com"


async def test_two_records_at_one_name_are_none() -> None:
    zone = zones(example_com=PLAIN)
    zone["_dmarc.mail.example.com"] = {"TXT": [NO, NO]}
    assert await organizational("a.mail.example.com", ZoneResolver(zone)) == "example.com"


async def test_the_walk_ends_at_psd() -> None:
    resolver = ZoneResolver(zones(mail_example_com=NO))
    await organizational("a.mail.example.com", resolver)
    assert resolver.asked == ["TXT _dmarc.a.mail.example.com", "TXT _dmarc.mail.example.com"]


async def test_each_name_is_asked_once() -> None:
    resolver = ZoneResolver(zones(example_com=PLAIN))
    walker = Walker(resolver)
    for domain in ("a.example.com", "b.example.com", "a.example.com"):
        assert (await walker.walk(domain)).organizational == "example.com"
    assert len(resolver.asked) == 4


async def test_a_name_that_cannot_be_asked_ends_the_walk_without_a_domain() -> None:
    resolver = ZoneResolver({**zones(a_example_com=PLAIN), "_dmarc.example.com": {"ERROR": []}})
    walk = await Walker(resolver).walk("a.example.com")
    assert walk.organizational == "" and "SERVFAIL" in walk.failed and "_dmarc.example.com" in walk.failed
    assert len(resolver.asked) == 2


async def test_the_examples_of_appendix_b_4() -> None:
    zone = zones(example_com=PLAIN, signing_example_com=PLAIN, bank_example=YES, giant_bank_example=PLAIN)
    for domain, expected in {
        "example.com": "example.com",
        "signing.example.com": "example.com",
        "a.b.c.d.e.f.g.h.i.j.k.example.com": "example.com",
        "giant.bank.example": "giant.bank.example",
        "mail.giant.bank.example": "giant.bank.example",
        "mail.mega.bank.example": "mega.bank.example",
    }.items():
        assert await organizational(domain, ZoneResolver(zone)) == expected
