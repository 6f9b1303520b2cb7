"""SPF with any record and any client: nothing raises, limits hold, and pyspf agrees where the record is well-formed."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from postroad.mail.address import Address
from postroad.trust import received_spf
from postroad.trust.asking import DnsQuestions
from postroad.trust.spf import SpfClient, SpfResult, check_mail_from
from postroad.trust.spf_macro import MacroFault, expand_name, explain_string, macro_string
from postroad.trust.spf_record import SpfFault, SpfRecord, parse
from tests.unit.trust.zones import ZoneResolver

RESULTS = {"none", "neutral", "pass", "fail", "softfail", "temperror", "permerror"}

HOSTS: dict[str, Any] = {
    "four.example": {"A": ["192.0.2.4", "192.0.2.5"]},
    "six.example": {"AAAA": ["2001:db8::6"], "A": ["198.51.100.6"]},
    "mx.example": {"MX": ["10 four.example", "20 six.example"], "A": ["203.0.113.1"], "AAAA": ["2001:db8:1::1"]},
    "pass.example": {"TXT": ["v=spf1 ip4:192.0.2.0/24 ip6:2001:db8::/32 -all"], "A": ["203.0.113.2"],
                     "AAAA": ["2001:db8:1::2"]},
    "soft.example": {"TXT": ["other", "v=spf1 a:four.example ~all"], "A": ["203.0.113.3"],
                     "AAAA": ["2001:db8:1::3"]},
    "odd.example": {"TXT": ["v=spf1 redirect=pass.example"], "A": ["203.0.113.4"], "AAAA": ["2001:db8:1::4"]},
    "wrong.example": {"TXT": ["v=spf1 ipv4:192.0.2.1"], "A": ["203.0.113.5"], "AAAA": ["2001:db8:1::5"]},
    "4.2.0.192.in-addr.arpa": {"PTR": ["four.example"]},
    "9.9.0.192.in-addr.arpa": {"PTR": ["six.example"]},
    "6." + "0." * 23 + "8.b.d.0.1.0.0.2.ip6.arpa": {"PTR": ["six.example"]},
    "9." + "0." * 23 + "9.b.d.0.1.0.0.2.ip6.arpa": {"PTR": ["six.example"]},
    "4.2.0.192.x.example": {"A": ["127.0.0.2"]},
    "a.four.example": {"A": ["127.0.0.2"]},
}  # fmt: skip
CLIENTS = ("192.0.2.4", "192.0.9.9", "2001:db8::6", "2001:db9::9")
_DOMAINS = (
    "four.example", "six.example", "mx.example", "pass.example", "soft.example", "odd.example", "wrong.example",
    "%{l}.four.example", "%{ir}.x.example", "%{d}", "%{o2}", "%{h}", "FOUR.example.",
)  # fmt: skip

_LENGTHS = ("", "/0", "/8", "/24", "/32", "/33", "/08", "//0", "//32", "//128", "//129", "/24//64", "/")
_lengths = st.sampled_from(_LENGTHS)
_domains = st.sampled_from(_DOMAINS)
_terms = st.one_of(
    st.sampled_from(
        ("all", "ptr", "a", "mx", "ip4:192.0.2.4", "ip6:2001:db8::6", "all:x", "foo", "x=y", "exp=mx.example")
    ),
    st.builds("{}:{}{}".format, st.sampled_from(("a", "mx", "A", "Mx")), _domains, _lengths),
    st.builds("{}:{}".format, st.sampled_from(("include", "exists", "ptr", "INCLUDE")), _domains),
    st.builds("ip4:192.0.2.{}{}".format, st.integers(0, 260), _lengths),
    st.builds("ip6:2001:db8::{:x}{}".format, st.integers(0, 70_000), _lengths.filter(lambda text: "//" not in text)),
)
_records = st.builds(
    lambda terms, end: "v=spf1 " + " ".join(terms + end),
    st.lists(st.builds("{}{}".format, st.sampled_from(("", "+", "-", "~", "?")), _terms), max_size=5),
    st.sampled_from(([], ["-all"], ["~all"], ["redirect=pass.example"], ["redirect=%{o}"], ["redirect=wrong.example"])),
)
_texts = st.one_of(
    st.text(max_size=60),
    st.lists(st.sampled_from(
        ["a", "mx", "ip4:", "ip6:", "include:", "exists:", "ptr:", "redirect=", "exp=", "all", "%{", "}", "%", "i",
         "l1r-", "d2", "p", ".", ":", "/", "//", "24", " ", "-", "~", "example", "192.0.2.0", "2001:db8::", "\\xff",
         "ü", "\r\n"]
    ), max_size=12).map("".join),
)  # fmt: skip

# pyspf counts every query that finds nothing, RFC 7208 §4.6.4 counts terms; pyspf refuses a record that includes
# itself also where that is never evaluated, and an unknown modifier that is there twice, which RFC 7208 §6 allows.
_OTHERWISE = ("Void lookup limit", "trivial recursion", "x= MUST appear at most once")


def check(record: str, client: str, sender: Address, helo: str = "h.example", more: dict[str, Any] | None = None) -> (
    tuple[SpfResult, ZoneResolver]
):  # fmt: skip
    resolver = ZoneResolver(HOSTS | {"d.example": {"TXT": [record], "A": ["203.0.113.9"], "AAAA": ["2001:db8:1::9"],
                                                   "MX": ["1 four.example"]}} | (more or {}))  # fmt: skip

    async def asked() -> SpfResult:
        return await check_mail_from(SpfClient(client, helo, "mx.example.net"), sender, DnsQuestions(resolver))

    return asyncio.run(asked()), resolver


@given(_texts, st.sampled_from(CLIENTS), st.text(max_size=20), st.text(max_size=20))
def test_any_record_ends_in_a_result(text: str, client: str, local_part: str, helo: str) -> None:
    found, resolver = check(f"v=spf1 {text}", client, Address(local_part, "d.example"), helo)
    assert found.result in RESULTS
    assert found.told and len(found.problem) <= 400
    # 10 terms, each with 10 hosts at most; the record, its explanation, and the names of the client.
    assert len(resolver.asked) <= 2 + 10 * 12 + 11
    received_spf.field(found).decode("ascii")


@given(_texts, st.text(max_size=30), st.text(max_size=300))
def test_any_text_as_record_macro_and_explanation(text: str, value: str, long: str) -> None:
    assert isinstance(parse(text), SpfRecord | SpfFault)
    for read in (macro_string, explain_string):
        string = read(text)
        if not isinstance(string, MacroFault):
            assert len(expand_name(string, lambda letter: value if letter in "ld" else long)) <= 253


@given(_texts, st.text(max_size=40))
def test_any_explanation_is_one_line_of_ascii(text: str, local_part: str) -> None:
    found, _ = check("v=spf1 exp=why.example -all", "192.0.2.4", Address(local_part, "d.example"),
                     more={"why.example": {"TXT": [text]}})  # fmt: skip
    assert found.result == "fail"
    assert found.explanation.isascii() and (found.explanation.isprintable() or not found.explanation)
    assert len(found.explanation) <= 400


@given(_records, st.sampled_from(CLIENTS))
def test_pyspf_agrees(record: str, client: str) -> None:
    """The names of these zones have addresses of both kinds where pyspf would count what they lack."""
    spf: Any = pytest.importorskip("spf", reason="pyspf is not installed")
    ours, resolver = check(record, client, Address("a", "d.example"))
    theirs, text = asyncio.run(asyncio.to_thread(_ask_pyspf, spf, resolver, client))
    if any(words in text for words in _OTHERWISE):
        return
    assert ours.result == theirs, (record, ours.told, text)


def _ask_pyspf(spf: Any, resolver: ZoneResolver, client: str) -> tuple[str, str]:
    def look_up(name: str, type: str, strict: bool = True, timeout: float = 20.0) -> list[tuple[tuple[str, str], Any]]:
        answer = asyncio.run(_find(resolver, name.rstrip("."), type))
        return [((name, type), record) for record in answer]

    query = spf.query(client, "a@d.example", "h.example", receiver="mx.example.net", strict=True)
    before, spf.DNSLookup = spf.DNSLookup, look_up
    try:
        result, _, text = query.check()
    finally:
        spf.DNSLookup = before
    return result, text


async def _find(resolver: ZoneResolver, name: str, type: str) -> list[Any]:
    match type:
        case "TXT":
            return [(record.encode("utf-8", "replace"),) for record in (await resolver.text(name)).records]
        case "MX":
            return [(record.preference, record.exchange) for record in (await resolver.mx(name)).records]
        case "A":
            return list((await resolver.a(name)).records)
        case "AAAA":
            return list((await resolver.aaaa(name)).records)
        case _:
            return list((await resolver.find(name, type)).records)
