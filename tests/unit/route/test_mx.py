"""From a destination to its hops, with a resolver that answers from a table (RFC 5321 §5.1, RFC 7505)."""

from __future__ import annotations

import random
from collections import Counter

import msgspec
import pytest

from postroad.mail.attempt import Attempt, Outcome, Reach
from postroad.mail.route import Destination, Hop, Route, Transport, proof_of
from postroad.route.domains import OwnNames
from postroad.route.mx import MxOptions, hops
from postroad.world.dns import DnsAnswer, DnsStatus, MxRecord, TlsaRecord


class TableResolver:
    """`records`: by name, a list of "preference exchange" or addresses; "error" and "nodata" for these. What is not in
    the table does not exist."""

    def __init__(self, mx: dict[str, list[str] | str], addresses: dict[str, list[str] | str]) -> None:
        self._mx = mx
        self._addresses = addresses
        self.asked: list[str] = []

    async def mx(self, domain: str) -> DnsAnswer[MxRecord]:
        self.asked.append(f"MX {domain}")
        found = self._mx.get(domain, "nxdomain")
        if isinstance(found, str):
            return DnsAnswer(DnsStatus(found), (), f"{domain}: {found}")
        return DnsAnswer(
            DnsStatus.FOUND, tuple(MxRecord(int(p), e) for p, _, e in (line.partition(" ") for line in found))
        )

    async def addresses(self, host: str) -> DnsAnswer[str]:
        self.asked.append(host)
        if host[:1].isdigit():
            return DnsAnswer(DnsStatus.FOUND, (host,))
        found = self._addresses.get(host, "nxdomain")
        if isinstance(found, str):
            return DnsAnswer(DnsStatus(found), (), f"{host}: {found}")
        return DnsAnswer(DnsStatus.FOUND, tuple(found))

    async def a(self, host: str) -> DnsAnswer[str]:
        raise AssertionError("not wanted here")

    async def aaaa(self, host: str) -> DnsAnswer[str]:
        raise AssertionError("not wanted here")

    async def reverse(self, address: str) -> DnsAnswer[str]:
        raise AssertionError("not wanted here")

    async def text(self, name: str) -> DnsAnswer[str]:
        raise AssertionError("not wanted here")

    async def tlsa(self, host: str, port: int) -> DnsAnswer[TlsaRecord]:
        raise AssertionError("not wanted here")

    async def cname(self, name: str) -> DnsAnswer[str]:
        raise AssertionError("not wanted here")


MX: dict[str, list[str] | str] = {
    "simple.example": ["20 b.simple.example", "10 a.simple.example"],
    "implicit.example": "nodata",
    "bare.example": "nodata",
    "implicit-error.example": "nodata",
    "null.example": ["0 "],
    "half-null.example": ["0 ", "10 a.simple.example"],
    "error.example": "error",
    "hollow.example": ["10 no1.example", "20 no2.example"],
    "doubtful.example": ["10 no1.example", "20 error.host.example"],
    "partly.example": ["10 error.host.example", "20 a.simple.example"],
    "literal.example": ["10 192.0.2.77"],
    "half-literal.example": ["10 192.0.2.77", "20 a.simple.example"],
    "strange.example": ["10 a\\032b.example"],
    "loopback.example": ["10 loopback.host.example"],
    "localhost.example": ["10 localhost"],
    "zero.example": ["10 zero.host.example"],
    "half-loopback.example": ["10 loopback.host.example", "20 a.simple.example"],
    "multicast.example": ["10 multicast.host.example"],
    "us.example": ["10 mx.us.example"],
    "backup.example": ["10 a.simple.example", "20 mx.us.example", "20 b.simple.example", "30 c.simple.example"],
    "first.example": ["10 mx.us.example", "20 a.simple.example"],
    "equal.example": ["10 mx.us.example", "10 a.simple.example"],
    "by-address.example": ["10 a.simple.example", "20 us.host.example", "30 c.simple.example"],
    "first-by-address.example": ["10 us.host.example", "20 a.simple.example"],
    "backup-doubtful.example": ["10 error.host.example", "20 us.host.example"],
    "backup-hollow.example": ["10 no1.example", "20 mx.us.example"],
    "us-by-a.example": "nodata",
    "equals.example": [f"10 e{number}.example" for number in range(4)],
    "late.example": [*(f"{number} gone{number}.example" for number in range(11)), "11 a.simple.example"],
    "endless.example": [f"{number} gone{number}.example" for number in range(150)],
    "many.example": [f"{number} m{number}.example" for number in range(100)],
}
ADDRESSES: dict[str, list[str] | str] = {
    "a.simple.example": ["192.0.2.1"],
    "b.simple.example": ["192.0.2.2", "2001:db8::2"],
    "c.simple.example": ["192.0.2.3"],
    "implicit.example": ["192.0.2.4"],
    "bare.example": "nodata",
    "implicit-error.example": "error",
    "no1.example": "nodata",
    "error.host.example": "error",
    "loopback.host.example": ["127.0.0.1", "::1"],
    "localhost": ["127.0.0.1"],
    "zero.host.example": ["0.0.0.0"],
    "multicast.host.example": ["224.0.0.5"],
    "us.host.example": ["192.0.2.25", "192.0.2.99"],
    "us-by-a.example": ["192.0.2.25"],
    "both.example": ["192.0.2.1", "192.0.2.2", "192.0.2.3", "2001:db8::1", "2001:db8::2"],
    "six.example": ["2001:db8::1", "192.0.2.1"],
    **{f"e{number}.example": [f"192.0.2.{number}"] for number in range(4)},
    **{f"m{number}.example": [f"192.0.2.{number}", f"198.51.100.{number}"] for number in range(100)},
}
DEFAULT = MxOptions()
US = OwnNames(frozenset({"mx.us.example"}), frozenset({"192.0.2.25"}), frozenset({25}))


async def search(
    destination: Destination | str, options: MxOptions = DEFAULT, ourselves: OwnNames = US, seed: int = 1
) -> tuple[Route | Attempt, TableResolver]:
    if isinstance(destination, str):
        destination = Destination(destination, Transport.SMTP, destination)
    resolver = TableResolver(MX, ADDRESSES)
    return await hops(destination, resolver, random.Random(seed), options, ourselves), resolver


@pytest.mark.parametrize(
    ("domain", "expected"),
    [
        ("simple.example", ["a.simple.example 192.0.2.1 10", "b.simple.example 192.0.2.2 20",
                            "b.simple.example 2001:db8::2 20"]),
        ("implicit.example", ["implicit.example 192.0.2.4 0"]),
        ("half-null.example", ["a.simple.example 192.0.2.1 10"]),
        ("partly.example", ["a.simple.example 192.0.2.1 20"]),
        ("half-literal.example", ["a.simple.example 192.0.2.1 20"]),
        ("half-loopback.example", ["a.simple.example 192.0.2.1 20"]),
        ("backup.example", ["a.simple.example 192.0.2.1 10"]),
        ("by-address.example", ["a.simple.example 192.0.2.1 10"]),
    ],
)  # fmt: skip
async def test_hops_by_mx(domain: str, expected: list[str]) -> None:
    route, _ = await search(domain)
    assert isinstance(route, Route)
    assert [f"{hop.name} {hop.address} {hop.preference}" for hop in route.hops] == expected
    assert {hop.port for hop in route.hops} == {25}
    assert route.destination.domain == domain


@pytest.mark.parametrize(
    ("domain", "outcome", "status", "words"),
    [
        ("absent.example", Outcome.FAILED, "5.1.2", ["absent.example", "does not exist"]),
        ("null.example", Outcome.FAILED, "5.1.10", ["null.example", "no mail"]),
        ("error.example", Outcome.DEFERRED, "4.4.3", ["error.example", "error.example: error"]),
        ("bare.example", Outcome.FAILED, "5.4.4", ["bare.example", "no MX"]),
        ("implicit-error.example", Outcome.DEFERRED, "4.4.3", ["implicit-error.example"]),
        ("hollow.example", Outcome.FAILED, "5.4.4", ["hollow.example", "no1.example", "no2.example"]),
        ("doubtful.example", Outcome.DEFERRED, "4.4.3", ["doubtful.example", "error.host.example"]),
        ("literal.example", Outcome.FAILED, "5.4.4", ["192.0.2.77", "must give a name"]),
        ("strange.example", Outcome.FAILED, "5.4.4", ["no host can have"]),
        ("loopback.example", Outcome.FAILED, "5.4.4", ["loopback", "127.0.0.1"]),
        ("localhost.example", Outcome.FAILED, "5.4.4", ["loopback"]),
        ("zero.example", Outcome.FAILED, "5.4.4", ["loopback", "0.0.0.0"]),
        ("multicast.example", Outcome.FAILED, "5.4.4", ["224.0.0.5"]),
        ("us.example", Outcome.FAILED, "5.4.6", ["us.example", "loops back"]),
        ("first.example", Outcome.FAILED, "5.4.6", ["loops back"]),
        ("equal.example", Outcome.FAILED, "5.4.6", ["loops back"]),
        ("first-by-address.example", Outcome.FAILED, "5.4.6", ["loops back"]),
        ("us-by-a.example", Outcome.FAILED, "5.4.6", ["loops back"]),
        ("backup-doubtful.example", Outcome.DEFERRED, "4.4.3", ["error.host.example"]),
        ("backup-hollow.example", Outcome.FAILED, "5.4.4", ["no1.example"]),
    ],
)
async def test_no_hop_by_mx(domain: str, outcome: Outcome, status: str, words: list[str]) -> None:
    for seed in range(5):
        attempt, _ = await search(domain, seed=seed)
        assert isinstance(attempt, Attempt)
        assert (attempt.outcome, attempt.status, attempt.reach) == (outcome, status, Reach.DESTINATION)
        assert attempt.reply is None and attempt.transport == "smtp"
        for word in words:
            assert word in attempt.text


async def test_where_the_dns_errs_for_a_better_one_nothing_worse_than_us_is_used() -> None:
    attempt, _ = await search("backup-doubtful.example")
    assert isinstance(attempt, Attempt) and attempt.outcome is Outcome.DEFERRED


async def test_equals_are_tried_in_random_order() -> None:
    firsts = Counter[str]()
    for seed in range(400):
        route, _ = await search("equals.example", seed=seed)
        assert isinstance(route, Route) and len(route.hops) == 4
        firsts[route.hops[0].name] += 1
    assert len(firsts) == 4 and min(firsts.values()) > 50


async def test_a_hundred_mail_servers_are_bounded() -> None:
    route, resolver = await search("many.example", MxOptions(mx_max=5, addresses_max=2))
    assert isinstance(route, Route)
    assert [hop.preference for hop in route.hops] == [0, 0, 1, 1, 2, 2, 3, 3, 4, 4]
    assert len(resolver.asked) == 6


async def test_hosts_that_do_not_exist_take_nobodys_place() -> None:
    """RFC 5321 §5.1: the mail fails where none of the records is usable, not where our limit was met before."""
    route, resolver = await search("late.example", MxOptions(mx_max=10))
    assert isinstance(route, Route) and [hop.name for hop in route.hops] == ["a.simple.example"]
    assert len(resolver.asked) == 13


async def test_what_our_own_limit_leaves_out_is_deferred() -> None:
    found, resolver = await search("endless.example", MxOptions(mx_max=10))
    assert isinstance(found, Attempt)
    assert (found.outcome, found.status) == (Outcome.DEFERRED, "4.4.4") and "150 mail servers" in found.text
    assert len(resolver.asked) == 101


@pytest.mark.parametrize(
    ("host", "options", "expected"),
    [
        ("both.example", MxOptions(), "46464"[:4]),
        ("both.example", MxOptions(addresses_max=10), "46464"),
        ("both.example", MxOptions(prefer="ipv6"), "6464"),
        ("both.example", MxOptions(prefer="ipv4", addresses_max=3), "464"),
        ("both.example", MxOptions(addresses_max=0), "46"),  # at least two, RFC 5321 §5.1
        ("six.example", MxOptions(), "64"),
        ("six.example", MxOptions(prefer="ipv4"), "46"),
    ],
)
async def test_the_families_take_turns(host: str, options: MxOptions, expected: str) -> None:
    orders = set()
    for seed in range(20):
        route, _ = await search(Destination(f"[{host}]:25", Transport.SMTP, host=host), options, seed=seed)
        assert isinstance(route, Route)
        assert "".join("6" if ":" in hop.address else "4" for hop in route.hops) == expected
        assert len({hop.address for hop in route.hops}) == len(route.hops)
        orders.add(tuple(hop.address for hop in route.hops))
    assert len(orders) > 1 or host == "six.example"


@pytest.mark.parametrize("domain", ["loopback.example", "localhost.example"])
async def test_loopback_where_it_is_allowed(domain: str) -> None:
    route, _ = await search(domain, MxOptions(loopback=True))
    assert isinstance(route, Route) and route.hops[0].address in ("127.0.0.1", "::1")


@pytest.mark.parametrize(
    ("destination", "expected"),
    [
        (Destination("k", Transport.SMTP, host="a.simple.example", port=587),
         [Hop("a.simple.example", "192.0.2.1", 587)]),
        (Destination("k", Transport.SMTP, host="192.0.2.8", port=587), [Hop("192.0.2.8", "192.0.2.8", 587)]),
        # A host that the operator set may well be on this machine.
        (Destination("k", Transport.SMTP, host="localhost", port=10025), [Hop("localhost", "127.0.0.1", 10025)]),
        (Destination("k", Transport.LMTP, host="a.simple.example", port=24),
         [Hop("a.simple.example", "192.0.2.1", 24)]),
        (Destination("k", Transport.LMTP, path="/run/lmtp"), [Hop("/run/lmtp", "/run/lmtp", 0)]),
        (Destination("k", Transport.MAILDIR, "d.example", path="/mail"), []),
        (Destination("k", Transport.PROGRAM, "d.example", command=("/bin/true",)), []),
        (Destination("mx:simple.example:587", Transport.SMTP, "half-null.example", port=587),
         [Hop("a.simple.example", "192.0.2.1", 587, 10)]),
    ],
)  # fmt: skip
async def test_other_destinations(destination: Destination, expected: list[Hop]) -> None:
    route, resolver = await search(destination)
    tls, proof = destination.tls, proof_of(destination.tls)  # each host is asked for what its destination demands
    hops = tuple(msgspec.structs.replace(hop, tls=tls, proof=proof) for hop in expected)
    assert route == Route(destination, hops)
    assert destination.domain == "half-null.example" or not any(asked.startswith("MX") for asked in resolver.asked)


@pytest.mark.parametrize(
    ("host", "port", "status"),
    [
        ("absent.example", 25, "4.4.4"),
        ("bare.example", 25, "4.4.4"),
        ("error.host.example", 25, "4.4.3"),
        ("us.host.example", 25, "4.3.5"),
        ("192.0.2.25", 25, "4.3.5"),
    ],
)
async def test_a_mistake_of_ours_is_a_deferral(host: str, port: int, status: str) -> None:
    attempt, _ = await search(Destination("k", Transport.SMTP, host=host, port=port))
    assert isinstance(attempt, Attempt)
    assert (attempt.outcome, attempt.status) == (Outcome.DEFERRED, status) and host in attempt.text


async def test_another_port_of_our_address_is_somebody_else() -> None:
    route, _ = await search(Destination("k", Transport.SMTP, host="192.0.2.25", port=10025))
    assert isinstance(route, Route)
    route, _ = await search(Destination("k", Transport.SMTP, "us-by-a.example", port=2525))
    assert isinstance(route, Route)


class ProvedResolver(TableResolver):
    """Its MX answers are validated."""

    async def mx(self, domain: str) -> DnsAnswer[MxRecord]:
        answer = await super().mx(domain)
        return DnsAnswer(answer.status, answer.records, answer.text, True)


@pytest.mark.parametrize(
    ("resolver", "domain", "status"),
    [
        (ProvedResolver, "simple.example", ""),
        (TableResolver, "simple.example", "5.7.10"),
        (TableResolver, "implicit.example", ""),  # the domain's own name is what the certificate must prove
    ],
)
async def test_mail_that_requires_tls_needs_mx_proved_by_dnssec(
    resolver: type[TableResolver], domain: str, status: str
) -> None:
    """RFC 8689 §4.2.1 step 2; there is no MTA-STS."""
    destination = Destination(domain, Transport.SMTP, domain=domain, require_tls=True)
    found = await hops(destination, resolver(MX, ADDRESSES), random.Random(1), MxOptions(), OwnNames())
    if status:
        assert isinstance(found, Attempt) and (found.outcome, found.status) == (Outcome.FAILED, status)
    else:
        assert isinstance(found, Route) and found.hops


async def test_an_mx_that_names_an_alias_without_an_address_is_told_so() -> None:
    class AliasResolver(TableResolver):
        async def addresses(self, host: str) -> DnsAnswer[str]:
            found = await super().addresses(host)
            return msgspec.structs.replace(found, name="gone.example", followed=(host, "b.example"))

    destination = Destination("hollow.example", Transport.SMTP, "hollow.example")
    resolver = AliasResolver(MX, ADDRESSES)
    found = await hops(destination, resolver, random.Random(1), MxOptions(), OwnNames())
    assert isinstance(found, Attempt) and found.status == "5.4.4"
    assert "alias (CNAME: no1.example → b.example → gone.example)" in found.text and "RFC 5321 §5.1" in found.text
