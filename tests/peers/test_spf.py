"""SPF over a real DNS server: our resolver asks Knot, and pyspf asks it, too. Both come to the same result."""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import Any

import dns.resolver
import pytest

from postroad.mail.address import Address
from postroad.trust import iprev
from postroad.trust.asking import DnsQuestions
from postroad.trust.spf import SpfClient, check_helo, check_mail_from
from postroad.world.clock import SystemClock
from postroad.world.dns import DnsOptions, DnsResolver
from tests.peers.harness.knot import Knot

pytestmark = [
    pytest.mark.peer,
    pytest.mark.filterwarnings("ignore:please use dns.resolver.resolve:DeprecationWarning"),  # what pyspf calls
]

LONG = " ".join(f'"ip4:198.51.100.{number} "' for number in range(60))
ZONES = {
    "d.example": f"""
        @ IN TXT "v=spf1 a mx include:_spf.d.example -all exp=why.d.example"
        @ IN TXT "something else"
        @ IN A 192.0.2.1
        @ IN AAAA 2001:db8::1
        @ IN MX 10 mx
        mx IN A 192.0.2.2
        mx IN AAAA 2001:db8::2
        _spf IN TXT "v=spf1 ip4:192.0." "2.128/25 ip6:2001:db8:1::/48 ~all"
        why IN TXT "%{{i}} may not send for %{{d}}; see http://why.example/?s=%{{S}}"
        long IN TXT "v=spf1 " {LONG} "-all"
        alias IN CNAME _spf
        redirect IN TXT "v=spf1 redirect=alias.d.example"
        exists IN TXT "v=spf1 exists:%{{ir}}.%{{l1r+}}.list.d.example -all"
        4.2.0.192.a.list IN A 127.0.0.2
        ptr IN TXT "v=spf1 ptr:d.example ?all"
        twice IN TXT "v=spf1 -all"
        twice IN TXT "v=spf1 +all"
        wrong IN TXT "v=spf1 ip4:192.0.2 -all"
        octet IN TXT "v=spf1 a:\\233.example -all"
        hollow IN TXT "v=spf1 a:none1.d.example a:none2.d.example a:none3.d.example ?all"
        gone IN TXT "v=spf1 include:none.d.example -all"
        away IN TXT "v=spf1 include:a.elsewhere.test -all"
        ring1 IN CNAME ring2
        ring2 IN CNAME ring1
        """,
    "2.0.192.in-addr.arpa": """
        2 IN PTR mx.d.example.
        3 IN PTR mx.d.example.
        9 IN CNAME 9.0-15
        9.0-15 IN PTR mx.d.example.
        """,
    "8.b.d.0.1.0.0.2.ip6.arpa": f"2{'.0' * 23} IN PTR mx.d.example.",
}
CASES = [
    ("d.example", "192.0.2.1", "pass"),
    ("d.example", "192.0.2.2", "pass"),
    ("d.example", "192.0.2.200", "pass"),
    ("d.example", "192.0.2.3", "fail"),
    ("d.example", "::ffff:192.0.2.2", "pass"),
    ("d.example", "2001:db8::1", "pass"),
    ("d.example", "2001:db8::2", "pass"),
    ("d.example", "2001:db8:1::99", "pass"),
    ("d.example", "2001:db8::3", "fail"),
    ("long.d.example", "198.51.100.59", "pass"),
    ("long.d.example", "198.51.100.60", "fail"),
    ("alias.d.example", "192.0.2.1", "softfail"),
    ("redirect.d.example", "192.0.2.129", "pass"),
    ("redirect.d.example", "192.0.2.1", "softfail"),
    ("exists.d.example", "192.0.2.4", "pass"),
    ("exists.d.example", "192.0.2.5", "fail"),
    ("ptr.d.example", "192.0.2.2", "pass"),
    ("ptr.d.example", "192.0.2.3", "neutral"),
    ("ptr.d.example", "192.0.2.4", "neutral"),
    ("ptr.d.example", "2001:db8::2", "pass"),
    ("twice.d.example", "192.0.2.1", "permerror"),
    ("wrong.d.example", "192.0.2.1", "permerror"),
    ("octet.d.example", "192.0.2.1", "permerror"),
    ("hollow.d.example", "192.0.2.1", "permerror"),
    ("gone.d.example", "192.0.2.1", "permerror"),
    ("away.d.example", "192.0.2.1", "temperror"),  # Knot refuses what it has no zone for
    ("none.d.example", "192.0.2.1", "none"),
    ("mx.d.example", "192.0.2.1", "none"),
]


@pytest.fixture(scope="module")
def knot(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Knot]:
    with Knot(tmp_path_factory.mktemp("spf") / "knot", ZONES) as server:
        yield server


def test_pyspf_says_so(knot: Knot, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the cases expect is not our opinion alone."""
    spf: Any = pytest.importorskip("spf", reason="pyspf is not installed")
    resolver = dns.resolver.Resolver(configure=False)
    resolver.nameservers, resolver.port = ["127.0.0.1"], knot.port
    monkeypatch.setattr(dns.resolver, "default_resolver", resolver)
    found = {}
    for domain, client, _ in CASES:
        query = spf.query(client, f"a+tag@{domain}", "h.example", receiver="mx.example.net", strict=True)
        found[domain, client] = query.check()[0]
    assert found == {(domain, client): result for domain, client, result in CASES}


@pytest.mark.parametrize(("domain", "client", "expected"), CASES)
async def test_ours(knot: Knot, domain: str, client: str, expected: str) -> None:
    questions, resolver = _questions(knot)
    result = await check_mail_from(SpfClient(client, "h.example"), Address("a+tag", domain), questions, with_steps=True)
    resolver.close()
    assert result.result == expected, (result.told, result.steps)


async def test_an_explanation_and_the_helo_identity(knot: Knot) -> None:
    questions, resolver = _questions(knot)
    client = SpfClient("192.0.2.77", "d.example")
    result = await check_mail_from(client, Address("a b", "d.example"), questions)
    assert result.explanation == "192.0.2.77 may not send for d.example; see http://why.example/?s=a%20b%40d.example"
    assert (await check_helo(client, questions)).result == "fail"
    assert (await check_mail_from(client, None, questions)).identity == "helo"
    resolver.close()


@pytest.mark.parametrize(
    ("client", "expected"),
    [
        ("192.0.2.2", "pass"),
        ("2001:db8::2", "pass"),
        ("192.0.2.3", "fail"),
        ("192.0.2.9", "fail"),
        ("192.0.2.4", "permerror"),
        ("198.51.100.1", "temperror"),
    ],
)
async def test_names_of_clients(knot: Knot, client: str, expected: str) -> None:
    questions, resolver = _questions(knot)
    assert (await iprev.check(client, questions)).result == expected
    resolver.close()


def _questions(knot: Knot) -> tuple[DnsQuestions, DnsResolver]:
    options = DnsOptions(servers=(f"127.0.0.1:{knot.port}",), timeout_s=10.0)
    resolver = DnsResolver(options, SystemClock(), random.SystemRandom())
    return DnsQuestions(resolver), resolver
