"""Names of clients that lead back to them (RFC 8601 §2.7.3)."""

from __future__ import annotations

from typing import Any

import pytest

from postroad.trust.asking import AskingLimits, DnsQuestions
from postroad.trust.iprev import check
from tests.unit.trust.zones import ZoneResolver

_IP6 = "1." + "0." * 23 + "8.b.d.0.1.0.0.2.ip6.arpa"
ZONES: dict[str, Any] = {
    "1.2.0.192.in-addr.arpa": {"PTR": ["mail.example"]},
    "2.2.0.192.in-addr.arpa": {"PTR": ["other.example", "mail.example"]},
    "3.2.0.192.in-addr.arpa": {"PTR": ["mail.example"]},
    "4.2.0.192.in-addr.arpa": {"PTR": ["gone.example"]},
    "5.2.0.192.in-addr.arpa": {"PTR": ["ERROR"]},
    "6.2.0.192.in-addr.arpa": {"PTR": ["broken.example", "other.example"]},
    "7.2.0.192.in-addr.arpa": {"PTR": ["broken.example", "seven.example"]},
    "9.2.0.192.in-addr.arpa": {"CNAME": ["9.0-15.2.0.192.in-addr.arpa"]},  # RFC 2317
    "9.0-15.2.0.192.in-addr.arpa": {"PTR": ["nine.example"]},
    "10.2.0.192.in-addr.arpa": {"PTR": [f"n{number}.example" for number in range(50)] + ["ten.example"]},
    _IP6: {"PTR": ["mail.example"]},
    "mail.example": {"A": ["192.0.2.1", "192.0.2.2"], "AAAA": ["2001:0db8::1"]},
    "other.example": {"A": ["192.0.2.99"]},
    "broken.example": {"ERROR": []},
    "seven.example": {"A": ["192.0.2.7"]},
    "nine.example": {"A": ["192.0.2.9"]},
    "ten.example": {"A": ["192.0.2.10"]},
}


@pytest.mark.parametrize(
    ("client", "result", "name", "words"),
    [
        ("192.0.2.1", "pass", "mail.example", "leads back"),
        ("::ffff:192.0.2.1", "pass", "mail.example", "192.0.2.1 has the name"),
        ("192.0.2.2", "pass", "mail.example", "leads back"),
        ("2001:db8::1", "pass", "mail.example", "leads back"),
        ("192.0.2.3", "fail", "", "does not lead back"),
        ("192.0.2.4", "fail", "", "does not lead back"),
        ("192.0.2.5", "temperror", "", "SERVFAIL"),
        ("192.0.2.6", "temperror", "", "broken.example"),
        ("192.0.2.7", "pass", "seven.example", "leads back"),
        ("192.0.2.8", "permerror", "", "no name"),
        ("192.0.2.9", "pass", "nine.example", "leads back"),
        ("192.0.2.10", "fail", "", "10 names"),
        ("", "permerror", "", "no IP address"),
    ],
)
async def test_results(client: str, result: str, name: str, words: str) -> None:
    resolver = ZoneResolver(ZONES)
    got = await check(client, DnsQuestions(resolver))
    assert (got.result, got.name) == (result, name) and words in got.told
    assert len(resolver.asked) <= 11
    found = got.found()
    assert (found.method, found.result) == ("iprev", result)
    assert found.properties == (("policy", "iprev", got.address),)
    assert bool(found.reason) == (result != "pass")


async def test_the_limits_of_the_message() -> None:
    got = await check("192.0.2.1", DnsQuestions(ZoneResolver(ZONES), AskingLimits(queries_max=1)))
    assert got.result == "temperror" and "more than 1 DNS queries" in got.told
