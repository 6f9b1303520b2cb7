"""SPF records as values (RFC 7208 §4.5, §4.6.1, §5, §6)."""

from __future__ import annotations

import pytest

from postroad.trust import spf_record
from postroad.trust.spf_record import (
    RECORD_MAX,
    SpfDirective,
    SpfFault,
    SpfMechanism,
    SpfRecord,
    number_of,
    parse,
    select,
)


def read(text: str) -> SpfRecord:
    found = parse(text)
    assert isinstance(found, SpfRecord), found
    return found


def test_all_terms() -> None:
    record = read(
        "v=spf1 +a mx:m.example/24//64 -ptr ~include:_spf.%{d} ?exists:%{i}.x.example ip4:192.0.2.0/24 "
        "IP6:2001:DB8::/32 unknown=%{d}/x -ALL exp=why.example"
    )
    assert record.directives == (
        SpfDirective(SpfMechanism.A, "pass", "+a"),
        SpfDirective(SpfMechanism.MX, "pass", "mx:m.example/24//64", ("m.example",), 0, 24, 64),
        SpfDirective(SpfMechanism.PTR, "fail", "-ptr"),
        SpfDirective(SpfMechanism.INCLUDE, "softfail", "~include:_spf.%{d}", record.directives[3].domain),
        SpfDirective(SpfMechanism.EXISTS, "neutral", "?exists:%{i}.x.example", record.directives[4].domain),
        SpfDirective(SpfMechanism.IP4, "pass", "ip4:192.0.2.0/24", None, 0xC0000200, 24, 128, 4, 8),
        SpfDirective(SpfMechanism.IP6, "pass", "IP6:2001:DB8::/32", None, 0x20010DB8 << 96, 32, 32, 6, 96),
        SpfDirective(SpfMechanism.ALL, "fail", "-ALL"),
    )
    assert record.explanation == ("why.example",)


def test_what_stands_behind_all_is_read_and_not_used() -> None:
    record = read("v=spf1 redirect=r.example -all a:behind.example")
    assert [each.text for each in record.directives] == ["-all"]
    assert record.redirect is None
    assert isinstance(parse("v=spf1 -all a:behind"), SpfFault)


@pytest.mark.parametrize(
    ("text", "number", "words"),
    [
        ("v=spf1 a ipv4:192.0.2.1", 2, 'no mechanism "ipv4"'),
        ("v=spf1  a   mx  foo", 3, 'no mechanism "foo"'),
        ("v=spf1 -all.", 1, 'no mechanism "all."'),
        ("v=spf1 -all:x.example", 1, "nothing may follow all"),
        ("v=spf1 -all/8", 1, "nothing may follow all"),
        ("v=spf1 include", 1, 'there must be ":"'),
        ("v=spf1 include:", 1, "domain is missing"),
        ("v=spf1 include:_spf.example.com/24", 1, "top-level"),
        ("v=spf1 exists", 1, 'there must be ":"'),
        ("v=spf1 ptr/24", 1, 'there must be ":"'),
        ("v=spf1 a:", 1, "domain is missing"),
        ("v=spf1 a:/24", 1, "domain is missing"),
        ("v=spf1 a:192.0.2.1", 1, "top-level"),
        ("v=spf1 a/33", 1, "over 32"),
        ("v=spf1 a//129", 1, "over 128"),
        ("v=spf1 a/024", 1, "may be only"),
        ("v=spf1 a/24/32", 1, "may be only"),
        ("v=spf1 a/", 1, "may be only"),
        ("v=spf1 mxa", 1, "no mechanism"),
        ("v=spf1 ip4:192.0.2", 1, "IPv4 address"),
        ("v=spf1 ip4:192.0.2.256", 1, "no IPv4 address"),
        ("v=spf1 ip4:192.0.2.01", 1, "IPv4 address"),
        ("v=spf1 ip4:192.0.2.0/33", 1, "over 32"),
        ("v=spf1 ip4:192.0.2.0/", 1, "IPv4 address"),
        ("v=spf1 ip4:192.0.2.0/08", 1, "IPv4 address"),
        ("v=spf1 ip4:192.0.2.1:25", 1, "IPv4 address"),
        ("v=spf1 ip4", 1, "IPv4 address"),
        ("v=spf1 ip4:2001:db8::1", 1, "IPv4 address"),
        ("v=spf1 ip6:192.0.2.1", 1, "IPv6 address"),
        ("v=spf1 ip6:::1::", 1, "no IPv6 address"),
        ("v=spf1 ip6:2001:db8::/129", 1, "over 128"),
        ("v=spf1 ip6:[2001:db8::1]", 1, "IPv6 address"),
        ("v=spf1 redirect=", 1, "domain is missing"),
        ("v=spf1 redirect=a.example redirect=b.example", 2, "redirect= is there twice"),
        ("v=spf1 exp=a.example -all exp=a.example", 3, "exp= is there twice"),
        ("v=spf1 -redirect=a.example", 1, "a modifier has no"),
        ("v=spf1 x=%a", 1, '"%" begins no macro'),
        ("v=spf1 1x=a", 1, "neither a mechanism nor a modifier"),
        ("v=spf1 =a", 1, "neither a mechanism nor a modifier"),
        ("v=spf1 - all", 1, "neither a mechanism nor a modifier"),
        ("v=spf1 --all", 1, "neither a mechanism nor a modifier"),
        ("v=spf1 a\tmx", 1, "may be only"),
        ("v=spf1 a\r\nmx", 1, "may be only"),
        ("v=spf1 include:bücher.example", 1, "not ASCII"),
        ("v=spf1 x=\\xe9", 1, "not ASCII"),  # an octet as the resolver writes it
    ],
)
def test_what_is_wrong_and_where(text: str, number: int, words: str) -> None:
    found = parse(text)
    assert isinstance(found, SpfFault)
    assert found.text.startswith(f"term {number}, ") and words in found.text, found.text
    assert found.text.isprintable()


@pytest.mark.parametrize(
    "text",
    [
        "v=spf1", "v=spf1 ", "V=SPF1 A -All", "v=spf1 x=1 x=2 x=", "v=spf1 ip4=192.0.2.1", "v=spf1 a:a:b/c.example//0",
        "v=spf1 a:a.example/0//0", "v=spf1 ip4:0.0.0.0/0", "v=spf1 ip6:::/0", "v=spf1 ip6:::ffff:192.0.2.1",
        "v=spf1 exists:%{l1r+-}.x.%{d2}", "v=spf1 a:%{d1r/}.example/24",
    ],
)  # fmt: skip
def test_unusual_and_right(text: str) -> None:
    read(text)


def test_records_among_others() -> None:
    texts = ["v=spf1", "v=spf10 a", "v=spf1 -all", " v=spf1 a", "v=spf1\ta", "V=SPF1 mx", "spf2.0/pra a", ""]
    assert select(texts) == ["v=spf1", "v=spf1 -all", "V=SPF1 mx"]


def test_a_record_of_many_terms_is_read_in_linear_time() -> None:
    record = read("v=spf1" + " ip4:192.0.2.1" * 400 + " " * 2000 + "-all")
    assert len(record.directives) == 401
    assert isinstance(parse("v=spf1 a:" + "." * 8_000), SpfFault)
    assert isinstance(parse("v=spf1 " + "%{d}" * 2_000 + "%{"), SpfFault)


def test_a_record_that_is_too_long_is_not_read(monkeypatch: pytest.MonkeyPatch) -> None:
    """One of 64 KB takes a fifth of a second, and ten of them may be included."""
    assert isinstance(parse("v=spf1" + " a" * ((RECORD_MAX - 6) // 2)), SpfRecord)
    monkeypatch.setattr(spf_record, "_parse", None)
    found = parse("v=spf1" + " a" * 30_000)
    assert found == SpfFault("it has 60006 characters, more than 8192")


def test_long_records_are_not_remembered() -> None:
    before = spf_record._kept.cache_info().currsize
    assert isinstance(parse("v=spf1" + " a" * 2_000), SpfRecord)
    assert spf_record._kept.cache_info().currsize == before


def test_numbers_of_addresses() -> None:
    assert number_of("192.0.2.1") == 0xC0000201
    assert number_of("::1") == 1
    assert [number_of(text) for text in ("", "x", "192.0.2", "192.0.2.1/24", "::1%eth0")] == [None] * 5
