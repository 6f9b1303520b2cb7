"""Several servers of a destination, and its fallbacks: their order, and what is found if some cannot be."""

from __future__ import annotations

import asyncio
import random
from collections import Counter

import pytest

from postroad.mail.attempt import Attempt, Outcome
from postroad.mail.route import Destination, Fallback, HostProof, Route, SetServer, TlsDemand, Transport
from postroad.route.domains import OwnNames
from postroad.route.mx import MxOptions, hops
from postroad.route.several import by_weight
from tests.unit.route.test_mx import TableResolver

ADDRESSES: dict[str, list[str] | str] = {
    "a.example": ["192.0.2.1"], "b.example": ["192.0.2.2"], "c.example": ["192.0.2.3"], "we.example": ["192.0.2.99"],
    "mx.group.example": ["192.0.2.4"], "error.example": "error", "mx.down.example": "error",
    "best.circle.example": ["192.0.2.99"],
}  # fmt: skip
MX: dict[str, list[str] | str] = {
    "group.example": ["10 mx.group.example"], "null.example": ["0 "], "error.example": "error",
    "circle.example": ["10 best.circle.example"],
}
OURSELVES = OwnNames(frozenset({"we.example"}), frozenset({"192.0.2.99"}), frozenset({25}))


def find(destination: Destination, chance: int = 1) -> Route | Attempt:
    resolver = TableResolver(MX, ADDRESSES)
    return asyncio.run(hops(destination, resolver, random.Random(chance), MxOptions(), OURSELVES))


def names(found: Route | Attempt) -> list[str]:
    assert isinstance(found, Route), found
    return [hop.name for hop in found.hops]


def listed(*written: str) -> tuple[SetServer, ...]:
    """Servers in their order; `mx:` in front of a domain."""
    return tuple(
        SetServer(each.removeprefix("mx:"), 25, each.startswith("mx:"), place) for place, each in enumerate(written)
    )


def among(*written: str, **fields: object) -> Route | Attempt:
    return find(Destination("key", Transport.SMTP, servers=listed(*written), **fields))  # type: ignore[arg-type]


def test_servers_of_a_list_are_tried_in_their_order() -> None:
    assert names(among("c.example", "a.example", "mx:group.example")) == ["c.example", "a.example", "mx.group.example"]


def test_a_server_that_cannot_be_found_keeps_nobody_from_the_others() -> None:
    assert names(among("no.example", "a.example", "error.example", "b.example")) == ["a.example", "b.example"]


def test_if_none_is_found_the_answer_tells_of_all_and_waits_if_one_may_be_found_later() -> None:
    found = among("mx:no.example", "error.example")
    assert isinstance(found, Attempt) and found.outcome is Outcome.DEFERRED and found.status == "4.4.3"
    assert "the domain no.example does not exist" in found.text and "error.example could not be looked up" in found.text


def test_behind_ourselves_no_server_is_tried() -> None:
    assert names(among("a.example", "we.example", "b.example")) == ["a.example"]
    found = among("we.example", "a.example")
    assert isinstance(found, Attempt) and "this server itself" in found.text


def test_weights_of_one_priority() -> None:
    servers = (SetServer("a", weight=3), SetServer("b", weight=1), SetServer("z", weight=0), SetServer("c", priority=1))
    chance = random.Random(5)
    first = Counter(next(by_weight(servers, chance)).host for _ in range(4_000))
    assert 2_250 < first["a"] < 2_550 and 700 < first["b"] < 900 and first["a"] + first["b"] + first["z"] == 4_000
    alone = Counter(next(by_weight(servers[:2], chance)).host for _ in range(4_000))
    assert 2_900 < alone["a"] < 3_100
    for _ in range(50):
        ordered = [server.host for server in by_weight(servers, chance)]
        assert sorted(ordered) == ["a", "b", "c", "z"] and ordered[-1] == "c"


# ---- fallbacks


@pytest.mark.parametrize(
    ("domain", "expected"),
    [
        ("group.example", ["mx.group.example", "c.example", "b.example"]),
        ("no.example", ["c.example", "b.example"]),  # it does not exist, as far as the DNS tells us
        ("error.example", ["c.example", "b.example"]),
    ],
)
def test_fallbacks_come_behind_all_others(domain: str, expected: list[str]) -> None:
    fallbacks = tuple(map(Fallback, listed("c.example", "b.example")))
    found = find(Destination(domain, Transport.SMTP, domain=domain, fallbacks=fallbacks))
    assert names(found) == expected


@pytest.mark.parametrize(("domain", "status"), [("null.example", "5.1.10"), ("circle.example", "5.4.6")])
def test_what_takes_no_mail_or_loops_goes_to_no_fallback(domain: str, status: str) -> None:
    found = find(Destination(domain, Transport.SMTP, domain=domain, fallbacks=(Fallback(SetServer("c.example")),)))
    assert isinstance(found, Attempt) and found.status == status


def test_a_fallback_has_demands_of_its_own() -> None:
    fallback = Fallback(SetServer("c.example", 587), TlsDemand.VERIFY, "fallback")
    found = find(Destination(
        "x", Transport.SMTP, host="a.example", tls=TlsDemand.NONE, credentials="own", fallbacks=(fallback,)
    ))  # fmt: skip
    assert isinstance(found, Route)
    own, last = found.hops
    assert (own.tls, own.fallback) == (TlsDemand.NONE, None)
    assert (last.tls, last.proof, last.port, last.fallback) == (TlsDemand.VERIFY, HostProof.NAME, 587, fallback)


def test_mail_that_requires_tls_requires_it_of_a_fallback() -> None:
    fallback = Fallback(SetServer("c.example"), TlsDemand.MAY)
    found = find(Destination("x", Transport.SMTP, host="a.example", require_tls=True, fallbacks=(fallback,)))
    assert isinstance(found, Route) and found.hops[-1].tls is TlsDemand.VERIFY


def test_if_nothing_is_found_the_answer_tells_of_the_fallbacks() -> None:
    fallbacks = (Fallback(SetServer("error.example")),)
    found = find(Destination("no.example", Transport.SMTP, domain="no.example", fallbacks=fallbacks))
    assert isinstance(found, Attempt) and found.outcome is Outcome.DEFERRED and "error.example" in found.text
