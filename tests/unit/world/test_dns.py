"""Look-ups against a fake server on loopback: statuses, tries, time limits, forged answers, TCP, aliases, the cache."""

from __future__ import annotations

import asyncio
import random
import socket
from pathlib import Path
from typing import Any

import dns.flags
import dns.message
import dns.rcode
import pytest

from postroad.world.dns import (
    DnsAnswer,
    DnsOptions,
    DnsResolver,
    DnsStatus,
    MxRecord,
    ServerAddress,
    TlsaRecord,
    parse_server,
    problems,
    read_resolv_conf,
)
from postroad.world.problem import Problem
from tests.unit.world.fake_dns import FakeServer, Zone, answer, closed_port


class FakeClock:
    def __init__(self) -> None:
        self.us = 1_700_000_000_000_000

    def now_us(self) -> int:
        return self.us

    def pass_s(self, seconds: float) -> None:
        self.us += int(seconds * 1_000_000)


def resolver(*servers: str, clock: FakeClock | None = None, **settings: Any) -> DnsResolver:
    given: dict[str, Any] = {"timeout_s": 5.0, "total_s": 10.0, "attempts": 2, **settings}
    options = DnsOptions(servers=servers, **given)
    return DnsResolver(options, clock or FakeClock(), random.Random(7))


ZONE = Zone(
    {
        ("example.org", "MX"): [
            "example.org. 300 IN MX 20 mx2.example.org.",
            "example.org. 300 IN MX 10 mx1.example.org.",
        ],
        ("mx1.example.org", "A"): ["mx1.example.org. 300 IN A 192.0.2.1", "mx1.example.org. 300 IN A 192.0.2.2"],
        ("mx1.example.org", "AAAA"): ["mx1.example.org. 300 IN AAAA 2001:db8::1"],
        ("mx2.example.org", "A"): ["mx2.example.org. 300 IN A 192.0.2.3"],
        ("null.example", "MX"): ["null.example. 300 IN MX 0 ."],
        ("alias.example", "CNAME"): ["alias.example. 100 IN CNAME example.org."],
        ("ring1.example", "CNAME"): ["ring1.example. 100 IN CNAME ring2.example."],
        ("ring2.example", "CNAME"): ["ring2.example. 100 IN CNAME ring1.example."],
        ("dangling.example", "CNAME"): ["dangling.example. 100 IN CNAME gone.example."],
        ("text.example", "TXT"): ['text.example. 300 IN TXT "a" "b"', 'text.example. 300 IN TXT "c"'],
        ("big.example", "TXT"): [f'big.example. 300 IN TXT "{"x" * 250}{number}"' for number in range(20)],
        ("many.example", "MX"): [f"many.example. 300 IN MX {200 - n} mx{n}.many.example." for n in range(120)],
        ("1.2.0.192.in-addr.arpa", "PTR"): ["1.2.0.192.in-addr.arpa. 300 IN PTR mx1.example.org."],
        ("7.2.0.192.in-addr.arpa", "PTR"): ["7.2.0.192.in-addr.arpa. 300 IN PTR seven.example."],
        ("broken.example", "A"): ["broken.example. 300 IN A 192.0.2.9"],
    }
)


@pytest.mark.parametrize(
    ("domain", "status", "records"),
    [
        ("example.org", DnsStatus.FOUND, (MxRecord(10, "mx1.example.org"), MxRecord(20, "mx2.example.org"))),
        ("null.example", DnsStatus.FOUND, (MxRecord(0, ""),)),
        ("mx1.example.org", DnsStatus.NODATA, ()),
        ("nowhere.example", DnsStatus.NXDOMAIN, ()),
        ("alias.example", DnsStatus.FOUND, (MxRecord(10, "mx1.example.org"), MxRecord(20, "mx2.example.org"))),
        ("dangling.example", DnsStatus.NXDOMAIN, ()),
        ("ring1.example", DnsStatus.ERROR, ()),
        ("x" * 64 + ".example", DnsStatus.NXDOMAIN, ()),
        ("something.invalid", DnsStatus.NXDOMAIN, ()),
    ],
)
async def test_mx(domain: str, status: DnsStatus, records: tuple[MxRecord, ...]) -> None:
    async with FakeServer(ZONE) as server:
        found = await resolver(server.address).mx(domain)
    assert (found.status, found.records) == (status, records)
    assert bool(found.text) == (status is not DnsStatus.FOUND)
    assert found.status is DnsStatus.FOUND or "\n" not in found.text


async def test_the_name_at_the_end_of_aliases() -> None:
    async with FakeServer(ZONE) as server:
        found = await resolver(server.address).mx("alias.example")
    assert found.name == "example.org"
    assert [name for name, _, _ in server.queries] == ["alias.example", "example.org"]


async def test_a_chain_in_one_answer_needs_no_further_question() -> None:
    def answering(query: dns.message.Message, tcp: bool) -> bytes:
        return answer(
            query,
            "b.example. 300 IN CNAME c.example.",
            "a.example. 20 IN CNAME b.example.",
            "c.example. 300 IN MX 1 mx.example.",
        ).to_wire()

    clock = FakeClock()
    async with FakeServer(answering) as server:
        found = await resolver(server.address, clock=clock).mx("a.example")
    assert found.records == (MxRecord(1, "mx.example"),)
    assert found.expires_us == clock.us + 20_000_000  # the least TTL of the chain
    assert len(server.queries) == 1


async def test_too_many_aliases() -> None:
    def answering(query: dns.message.Message, tcp: bool) -> bytes:
        name = query.question[0].name.to_text()
        number = int(name.partition(".")[0])
        return answer(query, f"{name} 300 IN CNAME {number + 1}.example.").to_wire()

    async with FakeServer(answering) as server:
        found = await resolver(server.address, cnames_max=8).mx("1.example")
    assert found.status is DnsStatus.ERROR and "CNAME" in found.text
    assert len(server.queries) == 9


@pytest.mark.parametrize(
    ("host", "settings", "status", "records"),
    [
        ("mx1.example.org", {}, DnsStatus.FOUND, ("192.0.2.1", "192.0.2.2", "2001:db8::1")),
        ("mx1.example.org", {"ipv6": False}, DnsStatus.FOUND, ("192.0.2.1", "192.0.2.2")),
        ("mx1.example.org", {"ipv4": False}, DnsStatus.FOUND, ("2001:db8::1",)),
        ("mx2.example.org", {}, DnsStatus.FOUND, ("192.0.2.3",)),
        ("mx2.example.org", {"ipv4": False}, DnsStatus.NODATA, ()),
        ("example.org", {}, DnsStatus.NODATA, ()),
        ("nowhere.example", {}, DnsStatus.NXDOMAIN, ()),
        ("192.0.2.9", {}, DnsStatus.FOUND, ("192.0.2.9",)),
        ("2001:db8:0:0::9", {}, DnsStatus.FOUND, ("2001:db8::9",)),
        ("localhost", {}, DnsStatus.FOUND, ("127.0.0.1", "::1")),
        ("x.localhost", {"ipv6": False}, DnsStatus.FOUND, ("127.0.0.1",)),
    ],
)
async def test_addresses(host: str, settings: dict[str, bool], status: DnsStatus, records: tuple[str, ...]) -> None:
    async with FakeServer(ZONE) as server:
        found = await resolver(server.address, clock=None, **settings).addresses(host)
    assert (found.status, tuple(sorted(found.records))) == (status, tuple(sorted(records)))


@pytest.mark.parametrize(
    ("host", "status", "a", "aaaa"),
    [
        ("mx1.example.org", DnsStatus.FOUND, ("192.0.2.1", "192.0.2.2"), ("2001:db8::1",)),
        ("example.org", DnsStatus.NODATA, (), ()),
        ("nowhere.example", DnsStatus.NXDOMAIN, (), ()),
        ("192.0.2.9", DnsStatus.NXDOMAIN, (), ()),  # a name like others, for which nobody has an answer ready
    ],
)
async def test_one_address_family(host: str, status: DnsStatus, a: tuple[str, ...], aaaa: tuple[str, ...]) -> None:
    """Whether the node connects by this version makes no difference."""
    async with FakeServer(ZONE) as server:
        asking = resolver(server.address, clock=None, ipv6=False)
        found = await asking.a(host), await asking.aaaa(host)
    assert [(each.status, tuple(sorted(each.records))) for each in found] == [(status, a), (status, aaaa)]


@pytest.mark.parametrize(
    ("a", "aaaa", "status"),
    [
        ("found", "servfail", DnsStatus.FOUND),
        ("servfail", "found", DnsStatus.FOUND),
        ("nodata", "servfail", DnsStatus.ERROR),
        ("servfail", "nxdomain", DnsStatus.ERROR),
        ("nxdomain", "nodata", DnsStatus.NODATA),
        ("nxdomain", "nxdomain", DnsStatus.NXDOMAIN),
        ("servfail", "servfail", DnsStatus.ERROR),
    ],
)
async def test_one_family_fails(a: str, aaaa: str, status: DnsStatus) -> None:
    def answering(query: dns.message.Message, tcp: bool) -> bytes:
        six = query.question[0].rdtype == 28
        match aaaa if six else a:
            case "found":
                line = "h.example. 300 IN AAAA 2001:db8::1" if six else "h.example. 300 IN A 192.0.2.1"
                return answer(query, line).to_wire()
            case "servfail":
                return answer(query, rcode=dns.rcode.SERVFAIL).to_wire()
            case "nxdomain":
                return answer(query, rcode=dns.rcode.NXDOMAIN, authority=[Zone.soa]).to_wire()
            case _:
                return answer(query, authority=[Zone.soa]).to_wire()

    async with FakeServer(answering) as server:
        found = await resolver(server.address).addresses("h.example")
    assert found.status is status


async def test_text_and_reverse() -> None:
    async with FakeServer(ZONE) as server:
        asking = resolver(server.address)
        assert sorted((await asking.text("text.example")).records) == ["ab", "c"]
        assert (await asking.reverse("192.0.2.1")).records == ("mx1.example.org",)
        assert (await asking.reverse("192.0.2.77")).status is DnsStatus.NXDOMAIN
        assert (await asking.reverse("example.org")).status is DnsStatus.NXDOMAIN
        await asking.reverse("2001:db8::1")
    assert server.queries[-1][0] == "1." + "0." * 23 + "8.b.d.0.1.0.0.2.ip6.arpa"


async def test_tlsa_keeps_the_ad_bit_and_tells_no_from_not_known() -> None:
    async with FakeServer(Zone(TLSA_ZONE, dns.flags.AD)) as server:
        asking = resolver(server.address, validating=True)
        found = await asking.tlsa("mx.example", 25)
        assert set(found.records) == {TlsaRecord(3, 1, 1, b"\xab" * 32), TlsaRecord(2, 0, 1, b"\xcd" * 32)}
        assert found.secure and (found.status, found.followed) == (DnsStatus.FOUND, ())
        led = await asking.tlsa("led.example", 25)
        assert set(led.records) == set(found.records)
        assert led.chain == "_25._tcp.led.example → _25._tcp.mx.example"
        for host, port, status in (
            ("mx.example", 465, DnsStatus.NXDOMAIN), ("bare.example", 25, DnsStatus.NODATA)
        ):  # fmt: skip
            none = await asking.tlsa(host, port)
            assert (none.status, none.records, none.secure) == (status, (), True) and none.text
        assert asking.hits == 0 and (await asking.tlsa("mx.example", 25)) == found and asking.hits == 1
    async with FakeServer(lambda query, tcp: answer(query, rcode=2, flags=dns.flags.AD).to_wire()) as server:
        failed = await resolver(server.address, attempts=1, validating=True).tlsa("mx.example", 25)
    assert failed.status is DnsStatus.ERROR and not failed.secure


TLSA_ZONE = {
    ("_25._tcp.mx.example", "TLSA"): [
        f"_25._tcp.mx.example. 300 IN TLSA 3 1 1 {'ab' * 32}",
        f"_25._tcp.mx.example. 300 IN TLSA 2 0 1 {'cd' * 32}",
    ],
    ("_25._tcp.led.example", "CNAME"): ["_25._tcp.led.example. 300 IN CNAME _25._tcp.mx.example."],
    ("_25._tcp.bare.example", "TXT"): ['_25._tcp.bare.example. 300 IN TXT "no TLSA"'],
}


async def test_the_alias_itself_is_asked_for_and_not_followed() -> None:
    async with FakeServer(ZONE) as server:
        asking = resolver(server.address)
        found = await asking.cname("ring1.example")
        assert (found.status, found.records, found.name) == (DnsStatus.FOUND, ("ring2.example",), "ring1.example")
        none = await asking.cname("example.org")
        assert (none.status, none.text) == (DnsStatus.NODATA, "example.org has no CNAME records")
        assert (await asking.cname("nowhere.example")).status is DnsStatus.NXDOMAIN
    assert [kind for _, kind, _ in server.queries] == ["CNAME"] * 3


async def test_the_names_on_the_way_stand_in_every_kind_of_answer() -> None:
    table = {
        ("mx.example", "CNAME"): ["mx.example. 100 IN CNAME b.example."],
        ("b.example", "CNAME"): ["b.example. 100 IN CNAME c.example."],
        ("c.example", "A"): ["c.example. 300 IN A 192.0.2.1"],
        ("d.example", "CNAME"): ["d.example. 100 IN CNAME e.example."],
        ("e.example", "TXT"): ['e.example. 300 IN TXT "no address"'],
        ("r.example", "CNAME"): ["r.example. 100 IN CNAME s.example."],
        ("s.example", "CNAME"): ["s.example. 100 IN CNAME r.example."],
    }
    async with FakeServer(Zone(table)) as server:
        asking = resolver(server.address)
        found = await asking.addresses("mx.example")
        assert (found.records, found.followed, found.name) == (
            ("192.0.2.1",), ("mx.example", "b.example"), "c.example"
        )  # fmt: skip
        assert (await asking.addresses("c.example")).followed == ()
        none = await asking.addresses("d.example")
        assert (none.status, none.followed) == (DnsStatus.NODATA, ("d.example",))
        ring = await asking.mx("r.example")
        assert (ring.status, ring.followed[0]) == (DnsStatus.ERROR, "r.example")


async def test_what_does_not_fit_is_asked_over_tcp() -> None:
    async with FakeServer(ZONE) as server:
        found = await resolver(server.address).text("big.example")
    assert len(found.records) == 20
    assert [way for _, _, way in server.queries] == ["udp", "tcp"]


async def test_120_mail_servers_are_cut_to_the_most_preferred() -> None:
    async with FakeServer(ZONE) as server:
        found = await resolver(server.address, records_max=100).mx("many.example")
    assert len(found.records) == 100
    assert found.records[0] == MxRecord(81, "mx119.many.example")
    assert found.records[-1].preference == 180


async def test_every_query_has_a_port_and_an_id_of_its_own() -> None:
    zone = Zone({(f"h{number}.example", "MX"): [f"h{number}.example. 300 IN MX 1 a."] for number in range(50)})
    async with FakeServer(zone) as server:
        asking = resolver(server.address)
        await asyncio.gather(*(asking.mx(f"h{number}.example") for number in range(50)))
    assert len({message.id for message in server.messages}) >= 48
    assert len(set(server.ports)) >= 48
    assert all(message.edns == 0 and message.payload == 1232 for message in server.messages)


def forged(query: dns.message.Message, what: str) -> bytes:
    """An answer that would send mail elsewhere, wrong in one point."""
    made = answer(query, "example.org. 300 IN MX 1 evil.example.")
    match what:
        case "id":
            made.id = (made.id + 1) % 65536
        case "name":
            made.question = dns.message.make_query("example.net", "MX").question
        case "type":
            made.question = dns.message.make_query("example.org", "A").question
        case "no question":
            made.question = []
        case "query":
            made.flags &= ~dns.flags.QR
    octets = made.to_wire()
    return octets[:7] if what == "short" else octets


@pytest.mark.parametrize("what", ["id", "name", "type", "no question", "short"])
async def test_forged_answers_are_ignored(what: str) -> None:
    def answering(query: dns.message.Message, tcp: bool) -> list[bytes]:
        return [forged(query, what), forged(query, what), ZONE(query, tcp)]

    async with FakeServer(answering) as server:
        found = await resolver(server.address).mx("example.org")
    assert [record.exchange for record in found.records] == ["mx1.example.org", "mx2.example.org"]
    assert len(server.queries) == 1


async def test_an_answer_from_elsewhere_never_arrives() -> None:
    async with FakeServer(ZONE) as server:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as stranger:
            stranger.bind(("127.0.0.1", 0))
            real = server.answering

            def answering(query: dns.message.Message, tcp: bool) -> list[bytes]:
                # right in all points, but not from the server's port
                evil = answer(query, "example.org. 300 IN MX 1 evil.example.").to_wire()
                stranger.sendto(evil, ("127.0.0.1", server.ports[-1]))
                octets = real(query, tcp)
                assert isinstance(octets, bytes)
                return [octets]

            server.answering = answering
            found = await resolver(server.address).mx("example.org")
    assert "evil.example" not in [record.exchange for record in found.records]
    assert len(found.records) == 2


async def test_guessing_leads_to_tcp() -> None:
    def answering(query: dns.message.Message, tcp: bool) -> list[bytes]:
        return [ZONE(query, tcp)] if tcp else [forged(query, "id")] * 50 + [forged(query, "none")]

    async with FakeServer(answering) as server:
        found = await resolver(server.address).mx("example.org")
    assert [record.exchange for record in found.records] == ["mx1.example.org", "mx2.example.org"]
    assert [way for _, _, way in server.queries] == ["udp", "tcp"]


@pytest.mark.parametrize("rcode", [dns.rcode.SERVFAIL, dns.rcode.REFUSED, dns.rcode.NOTIMP, dns.rcode.NOTAUTH])
async def test_the_next_server_is_asked_after_an_error(rcode: int) -> None:
    def failing(query: dns.message.Message, tcp: bool) -> bytes:
        return answer(query, rcode=rcode).to_wire()

    async with FakeServer(failing) as bad, FakeServer(ZONE) as good:
        found = await resolver(bad.address, good.address).mx("example.org")
    assert found.status is DnsStatus.FOUND
    assert len(good.queries) == 1


@pytest.mark.parametrize(
    ("rcode", "word"), [(dns.rcode.SERVFAIL, "SERVFAIL"), (dns.rcode.REFUSED, "REFUSED"), (dns.rcode.NOTIMP, "NOTIMP")]
)
async def test_all_servers_fail(rcode: int, word: str) -> None:
    def failing(query: dns.message.Message, tcp: bool) -> bytes:
        return answer(query, rcode=rcode).to_wire()

    async with FakeServer(failing) as bad:
        found = await resolver(bad.address).mx("example.org")
    assert found.status is DnsStatus.ERROR
    assert word in found.text and bad.address in found.text and "example.org" in found.text


async def test_a_server_without_edns() -> None:
    def answering(query: dns.message.Message, tcp: bool) -> bytes:
        return ZONE(query, tcp) if query.edns < 0 else answer(query, rcode=dns.rcode.FORMERR).to_wire()

    async with FakeServer(answering) as server:
        found = await resolver(server.address, attempts=1).mx("example.org")
    assert found.status is DnsStatus.FOUND
    assert [message.edns for message in server.messages] == [0, -1]


async def test_a_bare_header_as_error() -> None:
    def answering(query: dns.message.Message, tcp: bool) -> bytes:
        return query.id.to_bytes(2, "big") + bytes.fromhex("80050000000000000000")

    async with FakeServer(answering) as server:
        found = await resolver(server.address).mx("example.org")
    assert found.status is DnsStatus.ERROR and "REFUSED" in found.text


async def test_a_referral_is_no_answer() -> None:
    def answering(query: dns.message.Message, tcp: bool) -> bytes:
        return answer(query, authority=["org. 600 IN NS a.example."]).to_wire()

    async with FakeServer(answering) as server:
        found = await resolver(server.address).mx("example.org")
    assert found.status is DnsStatus.ERROR and "does not resolve" in found.text


async def test_an_unreadable_answer() -> None:
    def answering(query: dns.message.Message, tcp: bool) -> bytes:
        return ZONE(query, tcp)[:-20]

    async with FakeServer(answering) as server:
        found = await resolver(server.address).mx("example.org")
    assert found.status is DnsStatus.ERROR and "cannot be read" in found.text


async def test_silence_ends_in_time() -> None:
    async with FakeServer(lambda query, tcp: None) as server:
        asking = resolver(server.address, timeout_s=0.02, attempts=3, total_s=5.0)
        found = await asyncio.wait_for(asking.mx("example.org"), 30)
    assert found.status is DnsStatus.ERROR and "no answer in 0.02 s" in found.text
    assert len(server.queries) == 3


async def test_the_total_ends_it_before_all_tries() -> None:
    async with FakeServer(lambda query, tcp: None) as server:
        asking = resolver(server.address, timeout_s=0.05, attempts=1000, total_s=0.12)
        found = await asyncio.wait_for(asking.mx("example.org"), 30)
    assert found.status is DnsStatus.ERROR
    assert len(server.queries) <= 4


async def test_a_silent_server_is_asked_last_from_then_on() -> None:
    async with FakeServer(lambda query, tcp: None) as silent, FakeServer(ZONE) as good:
        asking = resolver(silent.address, good.address, timeout_s=1.0)
        assert (await asking.mx("example.org")).status is DnsStatus.FOUND
        assert (await asking.mx("null.example")).status is DnsStatus.FOUND
    assert len(silent.queries) == 1
    assert len(good.queries) == 2


async def test_nobody_listens_is_noticed_at_once() -> None:
    dead = f"127.0.0.1:{closed_port()}"
    async with FakeServer(ZONE) as good:
        asking = resolver(dead, good.address, timeout_s=60.0, total_s=120.0)
        found = await asyncio.wait_for(asking.mx("example.org"), 30)
        assert found.status is DnsStatus.FOUND
    alone = await asyncio.wait_for(resolver(dead, timeout_s=60.0, total_s=120.0).mx("example.org"), 30)
    assert alone.status is DnsStatus.ERROR and "refused" in alone.text.lower()


async def test_tcp_that_closes_or_is_silent() -> None:
    def answering(query: dns.message.Message, tcp: bool) -> bytes | None:
        return None if tcp else answer(query, flags=dns.flags.TC).to_wire()

    async with FakeServer(answering) as server:
        found = await asyncio.wait_for(resolver(server.address, timeout_s=60.0, total_s=120.0).mx("example.org"), 30)
    assert found.status is DnsStatus.ERROR and "TCP" in found.text


# -- the cache --------------------------------------------------------------------------------------------------------


async def test_answers_are_kept_for_their_time() -> None:
    clock = FakeClock()
    async with FakeServer(ZONE) as server:
        asking = resolver(server.address, clock=clock)
        first = await asking.mx("example.org")
        clock.pass_s(299)
        assert await asking.mx("example.org") is first
        clock.pass_s(2)
        assert await asking.mx("example.org") is not first
    assert len(server.queries) == 2
    assert (asking.queries, asking.hits) == (2, 1)


@pytest.mark.parametrize(
    ("ttl", "kept_s"), [(0, 5), (1, 5), (60, 60), (1_000_000, 86_400), (0x7FFFFFFF, 86_400), (0x80000000, 5)]
)
async def test_bounds_of_the_time(ttl: int, kept_s: int) -> None:
    def answering(query: dns.message.Message, tcp: bool) -> bytes:
        octets = answer(query, "example.org. 77 IN MX 1 a.example.").to_wire()
        return octets.replace((77).to_bytes(4, "big"), ttl.to_bytes(4, "big"))

    clock = FakeClock()
    async with FakeServer(answering) as server:
        found = await resolver(server.address, clock=clock).mx("example.org")
    assert found.status is DnsStatus.FOUND
    assert found.expires_us == clock.us + kept_s * 1_000_000


@pytest.mark.parametrize(
    ("rcode", "soa", "status", "kept_s"),
    [
        (dns.rcode.NXDOMAIN, "example. 600 IN SOA a. b. 1 2 3 4 60", DnsStatus.NXDOMAIN, 60),
        (dns.rcode.NXDOMAIN, "example. 30 IN SOA a. b. 1 2 3 4 60", DnsStatus.NXDOMAIN, 30),
        (dns.rcode.NXDOMAIN, "example. 86400 IN SOA a. b. 1 2 3 4 86400", DnsStatus.NXDOMAIN, 3600),
        (dns.rcode.NOERROR, "example. 600 IN SOA a. b. 1 2 3 4 60", DnsStatus.NODATA, 60),
        (dns.rcode.NOERROR, "", DnsStatus.NODATA, 0),
        (dns.rcode.SERVFAIL, "", DnsStatus.ERROR, 5),
    ],
)
async def test_how_long_a_no_is_kept(rcode: int, soa: str, status: DnsStatus, kept_s: int) -> None:
    def answering(query: dns.message.Message, tcp: bool) -> bytes:
        return answer(query, rcode=rcode, authority=[soa] if soa else []).to_wire()

    clock = FakeClock()
    async with FakeServer(answering) as server:
        asking = resolver(server.address, clock=clock, attempts=1)
        assert (await asking.mx("example.org")).status is status
        for _ in range(2):
            await asking.mx("example.org")
        assert len(server.queries) == (1 if kept_s else 3)
        clock.pass_s(kept_s + 1)
        await asking.mx("example.org")
    assert len(server.queries) == (2 if kept_s else 4)


async def test_a_clock_set_back_does_not_keep_answers_for_ever() -> None:
    clock = FakeClock()
    async with FakeServer(ZONE) as server:
        asking = resolver(server.address, clock=clock)
        await asking.mx("example.org")
        clock.pass_s(-30 * 86_400)
        await asking.mx("example.org")
    assert len(server.queries) == 2


async def test_the_cache_is_bounded_and_drops_what_was_not_wanted_longest() -> None:
    async with FakeServer(ZONE) as server:
        asking = resolver(server.address, cache_max=2)
        for domain in ("example.org", "null.example", "example.org", "nowhere.example"):
            await asking.mx(domain)
        assert len(server.queries) == 3
        await asking.mx("example.org")
        assert len(server.queries) == 3
        await asking.mx("null.example")
    assert len(server.queries) == 4


async def test_equal_questions_are_one_and_a_cancelled_one_disturbs_no_other() -> None:
    async with FakeServer(ZONE) as server:
        asking = resolver(server.address)
        tasks = [asyncio.create_task(asking.mx("example.org")) for _ in range(10)]
        await asyncio.sleep(0)
        tasks[0].cancel()
        found = await asyncio.gather(*tasks, return_exceptions=True)
    assert isinstance(found[0], asyncio.CancelledError)
    assert all(isinstance(each, DnsAnswer) and each.status is DnsStatus.FOUND for each in found[1:])
    assert len(server.queries) == 1


async def test_no_more_sockets_than_set_and_all_are_answered() -> None:
    zone = Zone({(f"h{n}.example", "MX"): [f"h{n}.example. 300 IN MX 1 a."] for n in range(60)})
    most = 0
    async with FakeServer(zone) as server:
        asking = resolver(server.address, queries_max=3)

        def answering(query: dns.message.Message, tcp: bool) -> bytes:
            nonlocal most
            most = max(most, asking._active)
            return zone(query, tcp)

        server.answering = answering
        found = await asyncio.gather(*(asking.mx(f"h{number}.example") for number in range(60)))
    assert {each.status for each in found} == {DnsStatus.FOUND}
    assert most == 3
    assert asking._active == 0


async def test_too_many_look_ups() -> None:
    async with FakeServer(lambda query, tcp: None) as server:
        asking = resolver(server.address, queries_max=2, waiting_max=3, timeout_s=0.05, total_s=0.1, attempts=1)
        found = await asyncio.gather(*(asking.mx(f"h{number}.example") for number in range(7)))
    assert all(each.status is DnsStatus.ERROR for each in found)
    assert ["too many" in each.text for each in found] == [False] * 5 + [True] * 2
    assert asking._active == 0


async def test_thousands_that_fail_at_once() -> None:
    asking = resolver(f"127.0.0.1:{closed_port()}", queries_max=5, total_s=60.0)
    found = await asyncio.gather(*(asking.mx(f"h{number}.example") for number in range(3000)))
    assert {each.status for each in found} == {DnsStatus.ERROR}
    assert asking._active == 0 and not asking._inquiries


async def test_close_ends_what_is_under_way() -> None:
    async with FakeServer(lambda query, tcp: None) as server:
        asking = resolver(server.address, timeout_s=60.0, total_s=120.0)
        task = asyncio.create_task(asking.mx("example.org"))
        await asyncio.sleep(0)
        asking.close()
        found = await asyncio.wait_for(task, 30)
    assert found.status is DnsStatus.ERROR


@pytest.mark.parametrize(
    ("flags", "validating", "secure"), [(dns.flags.AD, False, False), (dns.flags.AD, True, True), (0, True, False)]
)
async def test_the_ad_bit(flags: int, validating: bool, secure: bool) -> None:
    async with FakeServer(Zone(ZONE.table, flags)) as server:
        asking = resolver(server.address, validating=validating)
        assert (await asking.mx("example.org")).secure is secure
        assert (await asking.addresses("mx1.example.org")).secure is secure


async def test_an_insecure_alias_makes_the_answer_insecure() -> None:
    def answering(query: dns.message.Message, tcp: bool) -> bytes:
        alias = query.question[0].name.to_text().startswith("alias")
        return Zone(ZONE.table, 0 if alias else dns.flags.AD)(query, tcp)

    async with FakeServer(answering) as server:
        found = await resolver(server.address, validating=True).mx("alias.example")
    assert found.status is DnsStatus.FOUND and not found.secure


async def test_resolvers_of_the_system_are_not_named(tmp_path: Path) -> None:
    conf = tmp_path / "resolv.conf"
    conf.write_text("nameserver 127.0.0.1\n")
    asking = resolver(resolv_conf=str(conf), validating=True)
    assert [server.trusted for server in asking.plan(0.0)] == [False]


# -- settings ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("192.0.2.53", ServerAddress("192.0.2.53", 53)),
        ("192.0.2.53:5353", ServerAddress("192.0.2.53", 5353)),
        ("2001:db8::53", ServerAddress("2001:db8::53", 53)),
        ("[2001:db8::53]", ServerAddress("2001:db8::53", 53)),
        ("[2001:DB8:0::53]:5353", ServerAddress("2001:db8::53", 5353)),
    ],
)
def test_addresses_of_servers(text: str, expected: ServerAddress) -> None:
    assert parse_server(text) == expected
    assert parse_server(str(expected)) == expected


@pytest.mark.parametrize("text", ["", "dns.example", "192.0.2.53:", "192.0.2.53:0", "192.0.2.1:65536", "[::1]x", "1.2"])
def test_bad_addresses_of_servers(text: str) -> None:
    found = parse_server(text)
    assert isinstance(found, Problem) and found.remedy
    assert problems(DnsOptions(servers=(text,))) == (found,)


def test_problems_of_options() -> None:
    assert problems(DnsOptions()) == ()
    assert len(problems(DnsOptions(ipv4=False, ipv6=False, payload=100))) == 2


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", ["127.0.0.1"]),
        ("# nameserver 1.1.1.1\nsearch example.org\n", ["127.0.0.1"]),
        ("nameserver 192.0.2.1\nnameserver\t2001:db8::1\noptions edns0", ["192.0.2.1", "2001:db8::1"]),
        ("nameserver what\nnameserver 192.0.2.1", ["192.0.2.1"]),
        ("".join(f"nameserver 192.0.2.{n}\n" for n in range(1, 9)), ["192.0.2.1", "192.0.2.2", "192.0.2.3"]),
    ],
)
def test_resolv_conf(text: str, expected: list[str]) -> None:
    assert [server.address for server in read_resolv_conf(text)] == expected


async def test_resolv_conf_is_read_again_when_it_changes(tmp_path: Path) -> None:
    path = tmp_path / "resolv.conf"
    path.write_text("nameserver 127.0.0.2\n")
    asking = DnsResolver(DnsOptions(resolv_conf=str(path)), FakeClock(), random.Random(1))
    assert [server.name for server in asking.plan(0.0)] == ["127.0.0.2"]
    path.write_text("nameserver 127.0.0.33\n")
    assert [server.name for server in asking.plan(5.0)] == ["127.0.0.2"]  # not looked at before its time
    assert [server.name for server in asking.plan(11.0)] == ["127.0.0.33"]
    path.unlink()
    assert [server.name for server in asking.plan(22.0)] == ["127.0.0.1"]
