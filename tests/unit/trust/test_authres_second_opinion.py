"""authres of PyPI reads what we write, and we read what it reads."""

from __future__ import annotations

from typing import Any

import pytest

from postroad.trust.authres import field
from postroad.trust.authres_reading import read
from postroad.trust.results import ARC, AUTH, DKIM, DMARC, FAIL, IPREV, NONE, PASS, SPF, TEMPERROR, Found

authres: Any = pytest.importorskip("authres", reason="authres is not installed")

US = "mx.example.org"
Said = tuple[str, str, str | None, dict[tuple[str, str], str]]

RESULTS = (
    Found(IPREV, PASS, properties=(("policy", "iprev", "2001:db8::1"),)),
    Found(AUTH, PASS, properties=(("smtp", "auth", "ada@a.example"), ("smtp", "mailfrom", "ada@a.example"))),
    Found(SPF, PASS, properties=(("smtp", "mailfrom", "ada@a.example"),)),
    Found(SPF, TEMPERROR, "the DNS did not answer", (("smtp", "helo", "mx.a.example"),)),
    Found(
        DKIM, FAIL, 'the body hash differs: "a" is not "b\\"',
        (("header", "d", "a.example"), ("header", "i", "news@a.example"), ("header", "s", "one"),
         ("header", "a", "rsa-sha256"), ("header", "b", "aB/c+d=="))
    ),
    Found(ARC, NONE),
    Found(DMARC, FAIL, properties=(("header", "from", "a.example"), ("policy", "dmarc", "quarantine"))),
)  # fmt: skip

FIELDS = (
    # As OpenDKIM, OpenDMARC, rspamd and the SPF policy server write them.
    "mx.example.net; dkim=pass (2048-bit key; unprotected) header.d=a.example header.i=@a.example header.a=rsa-sha256"
    ' header.s=one header.b="aB/c+d=="; dkim-atps=neutral',
    "mx.example.net; dmarc=pass (p=reject dis=none) header.from=a.example",
    "mx.example.net; dkim=pass header.d=a.example header.s=one header.b=abc; dmarc=pass (policy=none)"
    " header.from=a.example; spf=pass (mx: domain of ada@a.example designates 192.0.2.1 as permitted sender)"
    " smtp.mailfrom=ada@a.example",
    "mx.example.net; spf=pass (mailfrom) smtp.mailfrom=a.example (client-ip=192.0.2.1; helo=mx.a.example;"
    " envelope-from=ada@a.example; receiver=<UNKNOWN>)",
    "mx.example.net 1; auth=pass (cram-md5) smtp.auth=ada@a.example; spf=fail smtp.mailfrom=a.example",
    "mx.example.net; none",
)


def theirs(value: str) -> tuple[str, list[Said]]:
    parsed = authres.AuthenticationResultsHeader.parse_value(value)
    return parsed.authserv_id, [
        (each.method, each.result, each.reason, {(p.type, p.name): p.value for p in each.properties})
        for each in parsed.results or ()
        if each.method not in ("none", None)
    ]


def ours(value: str) -> tuple[str, list[Said]]:
    reading = read(value.encode())
    return reading.authserv_id, [
        (each.method, each.result, each.reason or None, {(ptype, name): said for ptype, name, said in each.properties})
        for each in reading.results
    ]


def unfolded(octets: bytes) -> str:
    return octets.decode().partition(": ")[2].replace("\r\n", "")


@pytest.mark.parametrize("results", [(), *[(each,) for each in RESULTS], RESULTS])
def test_what_we_write(results: tuple[Found, ...]) -> None:
    value = unfolded(field(US, results))
    assert ours(value) == theirs(value)
    assert len(ours(value)[1]) == len(results)


@pytest.mark.parametrize("value", FIELDS)
def test_what_others_write(value: str) -> None:
    known = [each for each in theirs(value)[1] if each[:2] != ("dkim-atps", "neutral")]  # no result of that method
    assert ours(value) == (theirs(value)[0], known)
