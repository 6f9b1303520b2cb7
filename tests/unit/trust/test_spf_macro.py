"""Macros of SPF (RFC 7208 §7)."""

from __future__ import annotations

import pytest

from postroad.trust.spf_macro import (
    TEXT_MAX,
    MacroFault,
    SpfMacro,
    cut_name,
    domain_spec,
    expand_name,
    expand_text,
    explain_string,
    letters,
    macro_string,
)

# RFC 7208 §7.4
VALUES = {
    "s": "strong-bad@email.example.com", "l": "strong-bad", "o": "email.example.com", "d": "email.example.com",
    "i": "192.0.2.3", "v": "in-addr", "p": "mx.example.org", "h": "helo.example", "c": "192.0.2.3",
    "r": "mx.example.net", "t": "1700000000",
}  # fmt: skip
IP6 = VALUES | {"i": "2.0.0.1.0.d.b.8.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.c.b.0.1", "v": "ip6"}


def expanded(text: str, values: dict[str, str] = VALUES) -> str:
    string = macro_string(text)
    assert not isinstance(string, MacroFault), string
    return expand_name(string, values.__getitem__)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("%{s}", "strong-bad@email.example.com"),
        ("%{o}", "email.example.com"),
        ("%{d}", "email.example.com"),
        ("%{d4}", "email.example.com"),
        ("%{d3}", "email.example.com"),
        ("%{d2}", "example.com"),
        ("%{d1}", "com"),
        ("%{dr}", "com.example.email"),
        ("%{d2r}", "example.email"),
        ("%{l}", "strong-bad"),
        ("%{l-}", "strong.bad"),
        ("%{lr}", "strong-bad"),
        ("%{lr-}", "bad.strong"),
        ("%{l1r-}", "strong"),
        ("%{ir}.%{v}._spf.%{d2}", "3.2.0.192.in-addr._spf.example.com"),
        ("%{lr-}.lp._spf.%{d2}", "bad.strong.lp._spf.example.com"),
        ("%{lr-}.lp.%{ir}.%{v}._spf.%{d2}", "bad.strong.lp.3.2.0.192.in-addr._spf.example.com"),
        ("%{ir}.%{v}.%{l1r-}.lp._spf.%{d2}", "3.2.0.192.in-addr.strong.lp._spf.example.com"),
        ("%{d2}.trusted-domains.example.net", "example.com.trusted-domains.example.net"),
        ("%{S}", "strong-bad%40email.example.com"),
        ("%{D2}", "example.com"),
        ("%{d127}", "email.example.com"),
        ("%{d002}", "example.com"),
        ("%{d99999999999}", "email.example.com"),
        ("%{dR}", "com.example.email"),
        ("%{o.}x", "email.example.comx"),
        ("%%%_%-a", "% %20a"),
        ("a.example.", "a.example"),
    ],
)
def test_expansion(text: str, expected: str) -> None:
    assert expanded(text) == expected


def test_an_ipv6_client() -> None:
    assert expanded("%{ir}.%{v}._spf.%{d2}", IP6) == (
        "1.0.b.c.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.8.b.d.0.1.0.0.2.ip6._spf.example.com"
    )


@pytest.mark.parametrize(
    ("delimiters", "value", "expected"),
    [
        ("-", "a-b-c", "c.b.a"),
        ("-+", "a+b-c", "c.b.a"),
        ("+,/_=", "a+b,c/d_e=f", "f.e.d.c.b.a"),
        (".", "a..b.", ".b..a"),  # no delimiter means anything special
        ("-", "", ""),
    ],
)
def test_delimiters(delimiters: str, value: str, expected: str) -> None:
    string = macro_string("%{lr" + delimiters + "}")
    assert not isinstance(string, MacroFault)
    assert expand_text(string, {"l": value}.__getitem__) == expected


def test_upper_case_escapes_all_but_the_unreserved_characters() -> None:
    """RFC 7208 §7.3, RFC 3986 §2.3."""
    assert SpfMacro("l", escape=True).value("~a-b._c/d?é") == "~a-b._c%2Fd%3F%C3%A9"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "missing"),
        ("example", "top-level"),
        ("example.123", "top-level"),
        ("example.-com", "top-level"),
        ("example.com-", "top-level"),
        ("example.com..", "top-level"),
        ("example.c_m", "top-level"),
        ("%{d}com", "top-level"),
        ("%{d}.", "top-level"),
        ("a b.example", "not allowed"),
        ("bücher.example", "not allowed"),
        ("a\tb.example", "not allowed"),
        ("%(d).example", '"%" begins no macro'),
        ("%{d", '"%" begins no macro'),
        ("%{d}.example%", '"%" begins no macro'),
        ("%{d-r}.example", '"%" begins no macro'),
        ("%{2d}.example", '"%" begins no macro'),
        ("%{s.@-}.example", '"%" begins no macro'),  # "@" separates nothing
        ("%{}.example", '"%" begins no macro'),
        ("%{x}.example", "no macro"),
        ("%{d0}.example", "0 parts"),
        ("%{d000r}.example", "0 parts"),
        ("%{c}.example", "only in the text of an explanation"),
        ("%{R}.example", "only in the text of an explanation"),
        ("%{t}.example", "only in the text of an explanation"),
    ],
)
def test_what_is_no_domain_spec(text: str, words: str) -> None:
    found = domain_spec(text)
    assert isinstance(found, MacroFault) and words in found.text and found.text.isprintable()


@pytest.mark.parametrize(
    "text",
    [
        "example.com",
        "example.com.",
        ".com",
        "_spf.a-b.x1",
        "a.1x",
        "%{d}",
        "x%{d}",
        "%{d}.com",
        "%%",
        "a%_",
        "a%-",
        "a:b/c.d",
    ],
)
def test_what_is_a_domain_spec(text: str) -> None:
    assert isinstance(domain_spec(text), tuple)


def test_an_explanation_has_spaces_and_more_letters() -> None:
    string = explain_string("%{i} is not one of %{d}'s hosts, %{c} %{r} %{t}")
    assert not isinstance(string, MacroFault)
    assert letters(string) == set("idcrt")
    assert expand_text(string, VALUES.__getitem__) == (
        "192.0.2.3 is not one of email.example.com's hosts, 192.0.2.3 mx.example.net 1700000000"
    )
    assert isinstance(explain_string("é"), MacroFault)
    assert isinstance(explain_string("a\nb"), MacroFault)


def test_long_names_are_cut_at_the_left() -> None:
    """RFC 7208 §7.3: whole labels, until at most 253 characters are left."""
    name = ".".join(["abcdefghi"] * 30)
    assert cut_name(name) == ".".join(["abcdefghi"] * 25)
    assert cut_name("x" * 300) == "x" * 253
    assert cut_name("y." + "x" * 253) == "x" * 253
    assert cut_name("y." + "x" * 251) == "y." + "x" * 251
    string = macro_string("%{l}.%{d}." * 5000 + "example.com")
    assert not isinstance(string, MacroFault)
    cut = expand_name(string, {"l": "l" * 64, "d": "d.example"}.__getitem__)
    assert len(cut) <= 253 and cut.endswith(".d.example.example.com")
    assert len(expand_text(string, {"l": "l" * 64, "d": "d.example"}.__getitem__)) == TEXT_MAX
