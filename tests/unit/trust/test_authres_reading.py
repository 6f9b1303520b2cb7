"""Authentication-Results of others, and those that claim to be ours (RFC 8601 §2, §5)."""

from __future__ import annotations

import pytest

from postroad.trust import authres_reading
from postroad.trust.authres_reading import FIELD_MAX, claims, forged, read, trusted, values, without_forged

US = ("mx.example.org", "bücher.example")


def said(value: str) -> list[tuple[str, str, tuple[tuple[str, str, str], ...]]]:
    return [(each.method, each.result, each.properties) for each in read(value.encode()).results]


def test_gmails_form() -> None:
    value = (
        " mx.google.com;\r\n       dkim=pass header.i=@a.example header.s=one header.b=aB/cD+e=;\r\n"
        "       dkim=neutral (body hash did not verify) header.i=@b.example header.s=two header.b=x;\r\n"
        "       arc=pass (i=1 spf=pass spfdomain=a.example dkim=pass dkdomain=a.example);\r\n"
        "       spf=pass (google.com: domain of x@a.example designates 192.0.2.1 as permitted sender)"
        " smtp.mailfrom=x@a.example;\r\n"
        "       dmarc=pass (p=REJECT sp=REJECT dis=NONE) header.from=a.example;\r\n"
        "       dara=pass header.i=@gmail.com"
    )
    reading = read(value.encode())
    assert (reading.authserv_id, reading.problem) == ("mx.google.com", "")
    assert said(value) == [
        ("dkim", "pass", (("header", "i", "@a.example"), ("header", "s", "one"), ("header", "b", "aB/cD+e="))),
        ("dkim", "neutral", (("header", "i", "@b.example"), ("header", "s", "two"), ("header", "b", "x"))),
        ("arc", "pass", ()),
        ("spf", "pass", (("smtp", "mailfrom", "x@a.example"),)),
        ("dmarc", "pass", (("header", "from", "a.example"),)),
    ]
    assert reading.others == ("dara=pass header.i=@gmail.com",)


def test_microsofts_form_has_no_authserv_id() -> None:
    value = (
        " spf=pass (sender IP is 192.0.2.1)\r\n smtp.mailfrom=a.example; dkim=pass (signature was verified)\r\n"
        " header.d=a.example;dmarc=pass action=none\r\n header.from=a.example;compauth=pass reason=100"
    )
    assert read(value.encode()).authserv_id == ""
    assert said(value) == [
        ("spf", "pass", (("smtp", "mailfrom", "a.example"),)),
        ("dkim", "pass", (("header", "d", "a.example"),)),
        ("dmarc", "pass", (("header", "from", "a.example"),)),
    ]
    assert read(value.encode()).others == ("compauth=pass reason=100",)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("a.example; none", []),
        ("a.example;", []),
        ("a.example 1; spf=pass", [("spf", "pass", ())]),
        ("a.example 1; spf / 1 = pass", [("spf", "pass", ())]),
        ("a.example; SPF=Pass SMTP.MailFrom=A.example", [("spf", "pass", (("smtp", "mailfrom", "A.example"),))]),
        (
            'x (a;b "c) (d(e)\\)) ; dkim (y) = (z) pass header (q) . (r) d = "a.example"',
            [("dkim", "pass", (("header", "d", "a.example"),))],
        ),
        (
            'x; auth=pass smtp.auth="a b"@a.example',
            [("auth", "pass", (("smtp", "auth", '"a b"@a.example'),))],
        ),
        ("x; spf=hardfail", [("spf", "fail", ())]),
        ("x; spf=maybe", []),
        ("x; spf/2=pass", []),
        ("x; bimi=pass", []),
        ("x; spf=pass urn.x=y policy.z=1", [("spf", "pass", (("policy", "z", "1"),))]),
        ("x; iprev=pass policy.iprev=2001:db8::1", [("iprev", "pass", (("policy", "iprev", "2001:db8::1"),))]),
        ("x; dkim=pass header.i=jü@bü.example", [("dkim", "pass", (("header", "i", "jü@bü.example"),))]),
    ],
)
def test_forms(value: str, expected: list[object]) -> None:
    assert said(value) == expected


def test_a_reason_is_kept() -> None:
    assert read(b'x; dkim=fail reason="bad \\"sig\\"" header.d=a.example').results[0].reason == 'bad "sig"'


@pytest.mark.parametrize(
    ("value", "problem"),
    [
        ("a.example 2; spf=pass", "version 2 of the field is not known"),
        ("a.example; spf=pass (x", "a comment is not closed"),
        ('a.example; spf=pass reason="x', "a quoted string is not closed"),
        ("a.example" + "; spf=pass" * 101, "the field has more than 100 results"),
        (" " * (FIELD_MAX + 1), f"the field has {FIELD_MAX + 1} octets, more than {FIELD_MAX}"),
    ],
)
def test_what_is_not_understood_is_said(value: str, problem: str) -> None:
    assert read(value.encode()).problem == problem


@pytest.mark.parametrize(
    "value",
    [
        " mx.example.org; spf=pass",
        " MX.Example.ORG; spf=pass",
        "mx.example.org;spf=pass",
        ' "mx.example.org"; spf=pass',
        ' "mx.\\example.org"; spf=pass',
        ' "mx".example.org; spf=pass',
        " mx.example.org.; spf=pass",
        " mx.example.org 1; spf=pass",
        " mx.example.org/1; spf=pass",
        " (not other.example) mx.example.org (x) 1; spf=pass",
        " (" + "x" * 70_000 + ") mx.example.org; spf=pass",
        "\r\n\tmx.example.org\r\n\t; spf=pass",
        " mx.example.org",
        " ; mx.example.org; spf=pass",
        " mx.example.org =1; spf=pass",
        " (mx.example.org; spf=pass",
        " bücher.example; spf=pass",
        " xn--bcher-kva.example; spf=pass",
    ],
)
def test_a_field_that_claims_to_be_ours_is_found(value: str) -> None:
    assert claims(value.encode(), US)


@pytest.mark.parametrize(
    "value",
    [
        " other.example; spf=pass",
        " mx.example.org.other.example; spf=pass",
        " (mx.example.org) other.example; spf=pass",
        " spf=pass smtp.mailfrom=mx.example.org",
        " other.example; spf=pass smtp.mailfrom=mx.example.org",
        "",
    ],
)
def test_a_field_of_others_is_not_ours(value: str) -> None:
    assert not claims(value.encode(), US)


@pytest.mark.parametrize(
    ("value", "claimed"),
    [
        (" a.example; spf=pass" + ";=" * 100_000, False),
        (" mx.example.org; spf=pass" + ";=" * 100_000, True),
        (" x" + " a" * 100_000, True),
        (" " + "()" * 100_000 + "a.example;", True),
        (" " + "(" * 100_000, True),
        (" a.example " + "(" * 100_000, False),
        (" " + "(" * 50 + ")" * 50 + "a.example;", False),
    ],
)
def test_only_the_beginning_of_a_field_is_read_to_find_whose_it_is(
    monkeypatch: pytest.MonkeyPatch, value: str, claimed: bool
) -> None:
    """A field of a stranger may be as long as a header section. If its beginning has no end, it goes."""
    made: list[object] = []
    plain = authres_reading._Token

    def counted(kind: str, text: str) -> object:
        made.append(kind)
        return plain(kind, text)

    monkeypatch.setattr(authres_reading, "_Token", counted)
    assert claims(value.encode(), US) is claimed
    section = b"Authentication-Results:" + value[: FIELD_MAX - 1].encode() + b"\r\n"
    assert len(values(section, ("b.example",))) == len(trusted(section, ("b.example",))) == 0
    assert len(made) < 1_000


def test_forged_fields_are_taken_out_of_the_section() -> None:
    kept = (
        b"Received: x\r\n",
        b"Authentication-Results: other.example; spf=pass\r\n",
        b"X-Authentication-Results: mx.example.org; spf=pass\r\n",
        b"From: a@b.example\r\n",
    )
    bad = (
        b"authentication-RESULTS : mx.example.org;\r\n\tspf=pass\r\n",
        b'Authentication-Results:\r\n "MX.example.org" 1; dkim=pass\r\n',
    )
    section = kept[0] + bad[0] + kept[1] + kept[2] + bad[1] + kept[3]
    assert without_forged(section, US) == (b"".join(kept), bad)
    assert without_forged(section[:-2] + b"\r\nAuthentication-Results: mx.example.org; none", US)[0] == b"".join(kept)
    clean = b"".join(kept)
    assert without_forged(clean, US)[0] is clean and forged(clean, US) == []


def test_only_fields_of_services_that_are_trusted_are_read() -> None:
    section = (
        b"Authentication-Results: Other.example; spf=pass\r\n"
        b"Authentication-Results: third.example; spf=fail\r\n"
        b"Authentication-Results: spf=fail; dkim=fail\r\n"
    )
    (reading,) = trusted(section, ["other.example", ""])
    assert reading.results[0].result == "pass"
    assert trusted(section, []) == [] == trusted(b"From: x\r\n", ["other.example"])
