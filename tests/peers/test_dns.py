"""The resolver against real servers: Knot, authoritative for zones of our own, and Unbound, recursive over Knot."""

from __future__ import annotations

import asyncio
import json
import random
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from postroad.mail.attempt import Attempt, Outcome
from postroad.mail.route import Destination, Route, Transport
from postroad.route.domains import OwnNames
from postroad.route.mx import MxOptions, hops
from postroad.world.clock import SystemClock
from postroad.world.dns import DnsOptions, DnsResolver, DnsStatus, MxRecord, TlsaRecord
from tests.peers.harness import ports
from tests.peers.harness.knot import Knot
from tests.peers.harness.unbound import Unbound, anchors

pytestmark = pytest.mark.peer

ZONES = {
    "several.example": """
        @ IN MX 20 b
        @ IN MX 10 a
        @ IN MX 10 c
        @ IN MX 30 dead
        a IN A 192.0.2.1
        a IN A 192.0.2.2
        a IN AAAA 2001:db8::1
        b IN A 192.0.2.3
        c IN AAAA 2001:db8::3
        dead IN TXT "no address here"
        www IN CNAME a
        mail IN CNAME several.example.
        chain1 IN CNAME chain2
        chain2 IN CNAME chain3
        chain3 IN CNAME b
        ring1 IN CNAME ring2
        ring2 IN CNAME ring1
        away IN CNAME a.other.example.
        lost IN CNAME missing.other.example.
        *.wild IN MX 5 a""",
    "other.example": "a IN A 192.0.2.9",
    "null.example": "@ IN MX 0 .",
    "implicit.example": "@ IN A 192.0.2.4",
    "many.example": "\n".join(f"@ IN MX {200 - number} mx{number}" for number in range(120)),
    "big.example": "\n".join(f'@ IN TXT "{number:03}{"x" * 240}"' for number in range(40)),
    "signed.example": f"""
        @ IN MX 10 mx
        @ IN MX 20 alias
        @ IN MX 30 dangling
        mx IN A 192.0.2.6
        alias IN CNAME mx
        dangling IN CNAME gone
        _25._tcp.mx IN TLSA 3 1 1 {"ab" * 32}
        _25._tcp.mx IN TLSA 2 1 2 {"cd" * 64}
        _25._tcp.none IN TXT "no TLSA"
        """,
    "xn--bcher-kva.example": "@ IN MX 1 mx\nmx IN A 192.0.2.5",
}

@pytest.fixture(scope="module")
def knot(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Knot]:
    with Knot(tmp_path_factory.mktemp("dns") / "knot", ZONES, signed=("signed.example",)) as server:
        yield server


@pytest.fixture(scope="module")
def unbound(knot: Knot, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Unbound]:
    zones = dict.fromkeys((*ZONES, "lame.example"), knot.port)
    trusted = anchors("signed.example", knot.port)
    with Unbound(tmp_path_factory.mktemp("dns") / "unbound", zones, trusted, ready="null.example") as server:
        yield server


@pytest.fixture(params=["knot", "unbound"])
def resolver(request: pytest.FixtureRequest) -> DnsResolver:
    server = request.getfixturevalue(request.param)
    return made(f"127.0.0.1:{server.port}")


def made(*servers: str, **settings: float) -> DnsResolver:
    options = DnsOptions(servers=servers, **settings)  # type: ignore[arg-type]
    return DnsResolver(options, SystemClock(), random.SystemRandom())


@pytest.mark.parametrize(
    ("domain", "status", "records"),
    [
        ("several.example", DnsStatus.FOUND, {(10, "a.several.example"), (10, "c.several.example"),
                                           (20, "b.several.example"), (30, "dead.several.example")}),
        ("mail.several.example", DnsStatus.FOUND, {(10, "a.several.example"), (10, "c.several.example"),
                                                (20, "b.several.example"), (30, "dead.several.example")}),
        ("x.wild.several.example", DnsStatus.FOUND, {(5, "a.several.example")}),
        ("null.example", DnsStatus.FOUND, {(0, "")}),
        ("xn--bcher-kva.example", DnsStatus.FOUND, {(1, "mx.xn--bcher-kva.example")}),
        ("implicit.example", DnsStatus.NODATA, set()),
        ("nothing.several.example", DnsStatus.NXDOMAIN, set()),
        ("lost.several.example", DnsStatus.NXDOMAIN, set()),
        ("ring1.several.example", DnsStatus.ERROR, set()),
        ("lame.example", DnsStatus.ERROR, set()),  # Knot refuses, Unbound makes SERVFAIL of that
    ],
)  # fmt: skip
async def test_mx(resolver: DnsResolver, domain: str, status: DnsStatus, records: set[tuple[int, str]]) -> None:
    answer = await resolver.mx(domain)
    assert (answer.status, {(record.preference, record.exchange) for record in answer.records}) == (status, records)
    assert [record.preference for record in answer.records] == sorted(record.preference for record in answer.records)
    assert await resolver.mx(domain) == answer  # kept, or asked again with the same result


@pytest.mark.parametrize(
    ("host", "status", "records"),
    [
        ("a.several.example", DnsStatus.FOUND, {"192.0.2.1", "192.0.2.2", "2001:db8::1"}),
        ("c.several.example", DnsStatus.FOUND, {"2001:db8::3"}),
        ("www.several.example", DnsStatus.FOUND, {"192.0.2.1", "192.0.2.2", "2001:db8::1"}),
        ("chain1.several.example", DnsStatus.FOUND, {"192.0.2.3"}),
        ("away.several.example", DnsStatus.FOUND, {"192.0.2.9"}),
        ("dead.several.example", DnsStatus.NODATA, set()),
        ("missing.several.example", DnsStatus.NXDOMAIN, set()),
    ],
)
async def test_addresses(resolver: DnsResolver, host: str, status: DnsStatus, records: set[str]) -> None:
    answer = await resolver.addresses(host)
    assert (answer.status, set(answer.records)) == (status, records)


_TLSA = {TlsaRecord(3, 1, 1, b"\xab" * 32), TlsaRecord(2, 1, 2, b"\xcd" * 64)}


@pytest.mark.parametrize(
    ("host", "status", "records"),
    [
        ("mx.signed.example", DnsStatus.FOUND, _TLSA),
        ("none.signed.example", DnsStatus.NODATA, set()),
        ("gone.signed.example", DnsStatus.NXDOMAIN, set()),
        ("mx.lame.example", DnsStatus.ERROR, set()),
    ],
)
async def test_tlsa(resolver: DnsResolver, host: str, status: DnsStatus, records: set[TlsaRecord]) -> None:
    found = await resolver.tlsa(host, 25)
    assert (found.status, set(found.records)) == (status, records), found


@pytest.mark.parametrize(
    ("name", "status", "records"),
    [
        ("chain1.several.example", DnsStatus.FOUND, ("chain2.several.example",)),
        ("ring1.several.example", DnsStatus.FOUND, ("ring2.several.example",)),
        ("lost.several.example", DnsStatus.FOUND, ("missing.other.example",)),
        ("a.several.example", DnsStatus.NODATA, ()),
        ("nothing.several.example", DnsStatus.NXDOMAIN, ()),
    ],
)
async def test_cname(resolver: DnsResolver, name: str, status: DnsStatus, records: tuple[str, ...]) -> None:
    found = await resolver.cname(name)
    assert (found.status, found.records) == (status, records), found


async def test_the_chain_of_aliases_is_told(resolver: DnsResolver) -> None:
    found = await resolver.addresses("chain1.several.example")
    assert found.chain == " → ".join(f"{name}.several.example" for name in ("chain1", "chain2", "chain3", "b"))


async def test_dnssec_is_told_of_what_is_there_and_of_what_is_not(unbound: Unbound) -> None:
    resolver = made(f"127.0.0.1:{unbound.port}", validating=True)
    for host in ("mx", "none", "gone"):
        assert (await resolver.tlsa(f"{host}.signed.example", 25)).secure, host
    led = await resolver.addresses("alias.signed.example")
    assert led.secure and led.followed == ("alias.signed.example",)
    assert not (await resolver.tlsa("a.several.example", 25)).secure
    assert not (await resolver.addresses("www.several.example")).secure


def test_the_command_shows_the_way_and_what_is_wrong_with_it(unbound: Unbound, tmp_path: Path) -> None:
    config = tmp_path / "postroad.toml"
    config.write_text(
        f'''hostname = "here.example"\nstate_dir = "{tmp_path}"\n[dns]\nservers = ["127.0.0.1:{unbound.port}"]\n'''
        '''validating = true\n'''
        '''[[listener]]\nname = "mx"\naddress = ["127.0.0.1"]\nport = 2525\n'''
        '''role = "relay"\ntrusted_networks = ["127.0.0.0/8"]\n'''
    )
    command = [sys.executable, "-m", "postroad", "route", "-c", str(config)]
    names = ["ada@signed.example", "several.example", "null.example", "nobody@nothing.several.example"]
    done = subprocess.run([*command, "--json", *names], capture_output=True, text=True, timeout=60, check=False)
    signed, several, null, missing = json.loads(done.stdout)
    assert done.returncode == 1, done.stderr
    assert (signed["destination"], signed["domain"], signed["secure"]) == ("signed.example", "signed.example", True)
    mx, alias, dangling = signed["servers"]
    assert (mx["addresses"], mx["secure"], mx["aliases"]) == (["192.0.2.6"], True, [])
    assert set(mx["tlsa"]) == {f"3 1 1 {'ab' * 32}", f"2 1 2 {'cd' * 64}"} and mx["tlsa_secure"]
    # RFC 7672 §2.2.2: those of the name at the end of the aliases
    assert alias["aliases"] == ["alias.signed.example", "mx.signed.example"] and set(alias["tlsa"]) == set(mx["tlsa"])
    assert dangling["addresses"] == []
    told = "\n".join(signed["warnings"])
    assert "alias.signed.example → mx.signed.example" in told and "gone.signed.example does not exist" in told
    assert signed["tries"] == ["mx.signed.example [192.0.2.6]:25", "alias.signed.example [192.0.2.6]:25"]
    assert not several["secure"] and several["servers"][0]["tlsa_status"] == "nxdomain"
    assert "no mail (null MX)" in null["problem"] and "does not exist" in missing["problem"]
    text = subprocess.run([*command, "signed.example"], capture_output=True, text=True, timeout=60, check=False)
    assert text.returncode == 0 and "DNSSEC: yes" in text.stdout and f"3 1 1 {'ab' * 32}" in text.stdout
    assert "warning: an MX record names alias.signed.example" in text.stderr


async def test_what_is_too_big_for_udp(resolver: DnsResolver) -> None:
    answer = await resolver.text("big.example")
    assert {int(text[:3]) for text in answer.records} == set(range(40))
    assert resolver.queries == 2  # once over UDP, once over TCP


async def test_120_mail_servers(resolver: DnsResolver) -> None:
    answer = await resolver.mx("many.example")
    assert len(answer.records) == resolver.options.records_max == 100
    assert answer.records[0] == MxRecord(81, "mx119.many.example")


async def test_many_questions_at_once(resolver: DnsResolver) -> None:
    answers = await asyncio.gather(*(resolver.mx(f"n{number}.wild.several.example") for number in range(1000)))
    assert {answer.records for answer in answers} == {(MxRecord(5, "a.several.example"),)}


async def test_a_dead_and_a_silent_server_before_a_good_one(knot: Knot) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as silent:
        silent.bind(("127.0.0.1", 0))
        dead, quiet = ports.port(), silent.getsockname()[1]
        resolver = made(f"127.0.0.1:{dead}", f"127.0.0.1:{quiet}", f"127.0.0.1:{knot.port}", timeout_s=1.0)
        assert (await resolver.mx("null.example")).status is DnsStatus.FOUND
        assert resolver.queries <= 3


async def test_a_server_that_came_back(tmp_path: Path) -> None:
    knot = Knot(tmp_path / "knot", {"late.example": "@ IN MX 1 mx"})
    resolver = made(f"127.0.0.1:{knot.port}", timeout_s=2.0, total_s=5.0, error_ttl_s=0)
    assert (await resolver.mx("late.example")).status is DnsStatus.ERROR
    with knot:
        assert (await resolver.mx("late.example")).status is DnsStatus.FOUND


async def test_routes_by_real_answers(resolver: DnsResolver) -> None:
    async def route(domain: str) -> Route | Attempt:
        destination = Destination(domain, Transport.SMTP, domain)
        own = OwnNames(frozenset({"b.several.example"}))
        return await hops(destination, resolver, random.Random(1), MxOptions(), own)

    found = await route("several.example")
    assert isinstance(found, Route)
    assert {(hop.name, hop.preference) for hop in found.hops} == {("a.several.example", 10), ("c.several.example", 10)}
    found = await route("implicit.example")
    assert isinstance(found, Route) and [hop.address for hop in found.hops] == ["192.0.2.4"]
    for domain, outcome, status in (
        ("null.example", Outcome.FAILED, "5.1.10"),
        ("nothing.several.example", Outcome.FAILED, "5.1.2"),
        ("many.example", Outcome.FAILED, "5.4.4"),
        ("lame.example", Outcome.DEFERRED, "4.4.3"),
    ):
        attempt = await route(domain)
        assert isinstance(attempt, Attempt) and (attempt.outcome, attempt.status) == (outcome, status), attempt
