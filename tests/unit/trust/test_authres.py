"""Authentication-Results as we write it (RFC 8601)."""

from __future__ import annotations

import pytest

from postroad.trust.authres import RESULTS_MAX, field, payload, written
from postroad.trust.authres_reading import read
from postroad.trust.results import ARC, AUTH, DKIM, DMARC, FAIL, IPREV, NONE, PASS, SPF, Found

US = "mx.example.org"


def text(*results: Found, utf8: bool = False) -> str:
    return field(US, results, utf8=utf8).decode()


def test_each_result_has_its_line_and_the_field_ends_with_crlf() -> None:
    assert text(
        Found(SPF, PASS, properties=(("smtp", "mailfrom", "a.example"),)),
        Found(DKIM, FAIL, "body hash differs", (("header", "d", "a.example"), ("header", "s", "one"))),
        Found(DMARC, PASS, properties=(("header", "from", "a.example"),)),
    ) == (
        "Authentication-Results: mx.example.org;\r\n"
        " spf=pass smtp.mailfrom=a.example;\r\n"
        ' dkim=fail reason="body hash differs" header.d=a.example header.s=one;\r\n'
        " dmarc=pass header.from=a.example\r\n"
    )


def test_no_result_is_said_to_be_none() -> None:
    assert text() == "Authentication-Results: mx.example.org;\r\n none\r\n"


def test_the_sender_is_named_by_the_domain_for_spf_alone() -> None:
    assert "smtp.mailfrom=a.example\r\n" in text(Found(SPF, PASS, properties=(("smtp", "mailfrom", "ada@a.example"),)))
    assert "smtp.mailfrom=ada@a.example\r\n" in text(
        Found(AUTH, PASS, properties=(("smtp", "mailfrom", "ada@a.example"),))
    )


def test_header_d_stands_beside_header_i() -> None:
    assert "header.d=a.example header.i=@a.example" in text(
        Found(DKIM, PASS, properties=(("header", "i", "@a.example"),))
    )
    assert "header.d" not in text(Found(DKIM, FAIL, properties=(("header", "i", "@"),)))
    both = (("header", "d", "a.example"), ("header", "i", "x@sub.a.example"))
    assert "dkim=pass header.d=a.example header.i=x@sub.a.example" in text(Found(DKIM, PASS, properties=both))


def test_long_lines_are_folded_between_properties() -> None:
    properties = tuple(("header", name, "x" * 30) for name in ("d", "s", "a", "b"))
    lines = text(Found(DKIM, PASS, properties=properties)).split("\r\n")
    assert max(map(len, lines)) <= 78 and lines[-1] == ""
    assert all(line.startswith(" ") for line in lines[1:-1])


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        ("a.example", "a.example"),
        ("@a.example", "@a.example"),
        ("ada.l+x@a.example", "ada.l+x@a.example"),
        ('"a b"@a.example', "@a.example"),
        ("a b@a.example", "@a.example"),
        ('a"b\\c', '"a\'b/c"'),
        ('"c"a.example', "'c'a.example"),
        ("192.0.2.1", "192.0.2.1"),
        ("2001:db8::1", '"2001:db8::1"'),
        ("aB/c+d==", '"aB/c+d=="'),
        ("rsa-sha256", "rsa-sha256"),
        ("", '""'),
        ("a\r\nSubject: x", '"a??Subject: x"'),
        ("a; spf=pass", '"a; spf=pass"'),
        ("ada@[192.0.2.1]", '"ada@[192.0.2.1]"'),
        ("x\udcff", '"x?"'),
    ],
)
def test_a_value_is_quoted_if_it_must_be(value: str, shown: str) -> None:
    assert written(value) == shown


def test_an_internationalised_message_keeps_its_characters_and_another_one_is_ascii() -> None:
    assert written("bücher.example", utf8=True) == "bücher.example"
    assert written("bücher.example") == "xn--bcher-kva.example"
    assert written("jürgen@bücher.example", utf8=True) == "jürgen@bücher.example"
    assert written("jürgen@bücher.example") == "@xn--bcher-kva.example"
    assert written("schön und gut") == '"sch?n und gut"'
    assert written("ada@\ufffdx.example") == '"ada@?x.example"'  # no domain at all
    assert field("bücher.example", ()).isascii()


def test_values_and_results_have_a_limit() -> None:
    hostile = Found(DKIM, FAIL, "\\" * 5000, (("header", "s", "\\" * 5000), ("header", "d", "ä" * 5000)))
    for utf8 in (False, True):
        octets = field(US, [hostile] * 500, utf8=utf8)
        assert max(map(len, octets.split(b"\r\n"))) <= 998
        assert octets.count(b"dkim=") == RESULTS_MAX


def test_names_that_are_no_words_are_left_out() -> None:
    assert text(Found("sp f", PASS)).endswith(" none\r\n")
    assert "evil" not in text(Found(SPF, PASS, properties=(("smtp", "x=evil", "y"), ("", "action", "evil"))))


def test_what_stands_behind_the_name_is_there_alone_for_arc() -> None:
    assert payload(US, [Found(ARC, NONE)]) == b"mx.example.org;\r\n arc=none"


def test_what_is_written_is_read() -> None:
    found = (
        Found(SPF, PASS, properties=(("smtp", "mailfrom", "a.example"),)),
        Found(DKIM, FAIL, "said 'no'", (("header", "d", "a.example"), ("header", "b", "a/b+c=="))),
        Found(IPREV, PASS, properties=(("policy", "iprev", "2001:db8::1"),)),
    )
    reading = read(field(US, found).partition(b":")[2])
    assert reading.authserv_id == US and not reading.problem and not reading.others
    assert [(each.method, each.result, each.reason, each.properties) for each in reading.results] == [
        (each.method, each.result, each.reason, each.properties) for each in found
    ]
