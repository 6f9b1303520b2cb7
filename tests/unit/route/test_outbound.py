"""How sender and recipients are named to a next hop (`route.outbound`)."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from typing import Any

import pytest

from postroad.mail.address import Address
from postroad.mail.attempt import Attempt
from postroad.mail.envelope import Envelope, Recipient
from postroad.mail.job import Outbound, Sent
from postroad.mail.route import REQUIRE_TLS, Destination, Transport
from postroad.maps.face import Map, NotNow
from postroad.route.by_next_hop import ByNextHop
from postroad.route.generic import Naming
from postroad.route.options import Generic, LocalDomain, NextHop, RoutingOptions
from postroad.route.outbound import HopNames, generic_names, outbound
from postroad.route.table import RoutingTable
from postroad.route.way_out import ways_out
from tests.unit.maps.fakes import Fixed, Waiting

ADA, FAR = Address("ada", "host.local"), Address("far", "away.example")
GENERIC = (
    Generic("ada@host.local", Address("ada.lovelace", "example.org")),
    Generic("ada+lists@host.local", Address("lists", "example.org")),
    Generic("@host.local", Address("", "example.org")),
    Generic("@old.local", Address("all", "example.org")),
)


def named(options: RoutingOptions, maps: dict[str, Any] | None = None) -> Outbound | None:
    """The names of these next hops. `maps`: the sources of maps by their names."""
    return outbound(options, names_of(options, maps))


def names_of(options: RoutingOptions, maps: dict[str, Any] | None = None) -> HopNames:
    def found(names: tuple[str, ...]) -> tuple[Map, ...]:
        return tuple([Map(name, "test", (maps or {})[name], lambda text: None) for name in names])

    return generic_names(options, found, is_ours=lambda domain: domain == "ours.example", origin="ours.example")


def sent(hop: NextHop, sender: Address | None, recipient: Address = FAR, *further: NextHop, **options: object) -> Sent:
    routing = RoutingOptions(next_hops=(hop, *further), **options)  # type: ignore[arg-type]
    envelope = Envelope(1, sender, (Recipient(recipient),), 0, 0)
    destination = RoutingTable(routing).route(envelope, envelope.recipients[0])
    assert isinstance(destination, Destination)
    renames = named(routing)
    assert renames is not None
    return renames(envelope, envelope.recipients[0], destination)


@pytest.mark.parametrize(
    ("name", "becomes"),
    [
        ("ada@host.local", "ada.lovelace@example.org"),
        ("ADA@host.local", "ada.lovelace@example.org"),
        ("ada+cron@host.local", "ada.lovelace@example.org"),
        ("ada+lists@host.local", "lists@example.org"),
        ("Bob+x@host.local", "Bob+x@example.org"),
        ("bob@old.local", "all@example.org"),
        ("bob@other.local", "bob@other.local"),
    ],
)
@pytest.mark.parametrize("hop", [
    NextHop("*", "smtp.example.net", generic=GENERIC),
    NextHop("*", "example.net", mx=True, credentials="*", generic=GENERIC),
    NextHop(".example", generic=GENERIC),
])  # fmt: skip
def test_the_most_exact_name_counts(hop: NextHop, name: str, becomes: str) -> None:
    sender = Address(*name.rsplit("@", 1))
    assert str(sent(hop, sender).reverse_path) == becomes
    assert sent(hop, sender).forward_path == FAR
    if hop.host:
        assert str(sent(hop, FAR, sender).forward_path) == becomes


def test_the_null_sender_stays() -> None:
    assert sent(NextHop("*", "smtp.example.net", generic=GENERIC), None) == Sent(None, FAR)


def test_only_mail_that_goes_this_way_is_renamed() -> None:
    hop = NextHop("else.example", "smtp.example.net", generic=GENERIC)
    assert sent(hop, ADA) == Sent(ADA, FAR)
    assert sent(NextHop("else.example", generic=GENERIC), ADA) == Sent(ADA, FAR)
    # The table that takes the domain's mail has none.
    assert sent(NextHop("*", generic=GENERIC), ADA, FAR, NextHop("away.example")) == Sent(ADA, FAR)
    own = LocalDomain("away.example", deliver=Transport.MAILDIR, path="/m")
    assert sent(NextHop("*", generic=GENERIC), ADA, local=(own,)) == Sent(ADA, FAR)


def test_what_a_message_demands_and_a_pace_of_its_own_change_no_name() -> None:
    hop = NextHop("*", "smtp.example.net", generic=GENERIC)
    assert sent(hop, ADA, apart=("away.example",)).reverse_path == Address("ada.lovelace", "example.org")
    renames = named(RoutingOptions(next_hops=(hop,)))
    assert renames is not None
    strict = Destination(f"[smtp.example.net]:25{REQUIRE_TLS}", Transport.SMTP, host="smtp.example.net")
    envelope = Envelope(1, ADA, (Recipient(FAR),), 0, 0)
    assert renames(envelope, envelope.recipients[0], strict).reverse_path == Address("ada.lovelace", "example.org")


def test_tables_for_one_server_keep_their_own_names_if_a_domain_goes_apart() -> None:
    """They share no connection, so they may want different names."""
    renaming, plain = NextHop("away.example", "smtp.example.net", generic=GENERIC), NextHop("*", "smtp.example.net")
    other = Address("bob", "other.example")
    apart = ("away.example", "other.example")
    for hops in ((renaming, plain), (plain, renaming)):
        assert str(sent(hops[0], ADA, FAR, hops[1], apart=apart).reverse_path) == "ada.lovelace@example.org"
        assert sent(hops[0], ADA, other, hops[1], apart=apart) == Sent(ADA, other)
        assert sent(hops[0], ADA, Address("x", "y.example"), hops[1], apart=apart).reverse_path == ADA


def test_without_a_table_nobody_is_asked() -> None:
    assert named(RoutingOptions(next_hops=(NextHop("*", "smtp.example.net"),))) is None


# -- maps --------------------------------------------------------------------------------------------------------------

TABLE = {"ada@host.local": "countess@example.org", "@host.local": "@example.org", "eve@host.local": "no address"}
BY_MAP = NextHop("*", "smtp.example.net", generic=GENERIC[1:2], generic_maps=("names",))
ROUTED = RoutingOptions(next_hops=(BY_MAP,))
TO = Destination("[smtp.example.net]:25", Transport.SMTP, host="smtp.example.net")


def envelope(sender: Address | None = ADA) -> Envelope:
    return Envelope(1, sender, (Recipient(FAR),), 0, 0)


@pytest.mark.parametrize(("name", "becomes"), [
    ("ada@host.local", "countess@example.org"), ("ada+x@host.local", "countess@example.org"),
    ("ada+lists@host.local", "lists@example.org"), ("Bob+x@host.local", "Bob+x@example.org"),
    ("bob@other.local", "bob@other.local"),
])  # fmt: skip
def test_maps_are_asked_behind_the_table(name: str, becomes: str) -> None:
    renames = named(ROUTED, {"names": Fixed(TABLE)})
    assert renames is not None
    mail = envelope(Address(*name.rsplit("@", 1)))
    assert renames(mail, mail.recipients[0], TO) == Sent(Address(*becomes.rsplit("@", 1)), FAR)


@pytest.mark.parametrize(("source", "why"), [
    (Fixed(TABLE), "not a single address"), (Fixed({"eve@host.local": NotNow("away")}), "away"),
    (Waiting({}), "has to be asked for"),
])  # fmt: skip
def test_a_name_that_nobody_can_tell_now_makes_the_mail_wait(source: Any, why: str) -> None:
    renames = named(ROUTED, {"names": source})
    assert renames is not None
    mail = envelope(Address("eve", "host.local"))
    sent = renames(mail, mail.recipients[0], TO)
    assert why in sent.not_now
    assert (sent.reverse_path, sent.forward_path) == (mail.reverse_path, FAR)


def asked_before(source: Any, mail: Envelope, found: Any = TO) -> tuple[Any, Sent]:
    """What `Naming` says of a destination, and the names that are known afterwards."""
    names = names_of(ROUTED, {"names": source})
    naming = Naming(ByNextHop(ROUTED, names.get))

    async def ask() -> Any:
        answer = naming.asked(mail, mail.recipients[0], found)
        return await answer if isinstance(answer, Awaitable) else answer

    answer = asyncio.run(ask())
    renames = outbound(ROUTED, names)
    assert renames is not None
    return answer, renames(mail, mail.recipients[0], TO)


def test_names_that_take_time_are_asked_for_before_a_connection_takes_the_mail_up() -> None:
    assert asked_before(Waiting(TABLE), envelope()) == (TO, Sent(Address("countess", "example.org"), FAR))

    async def later() -> Destination:
        return TO

    assert asked_before(Waiting(TABLE), envelope(), later())[0] == TO
    assert asked_before(Waiting(TABLE), envelope(None)) == (TO, Sent(None, FAR))
    elsewhere = Destination("maildir:x", Transport.MAILDIR, domain="x")
    assert asked_before(Waiting(TABLE), envelope(), elsewhere)[0] == elsewhere


def test_names_that_cannot_be_had_defer() -> None:
    answer, _ = asked_before(Waiting({"ada@host.local": NotNow("away")}), envelope())
    assert isinstance(answer, Attempt)
    assert (answer.status, answer.text, answer.outcome.value) == ("4.3.0", "away", "deferred")


# -- header fields -----------------------------------------------------------------------------------------------------

HEAD = (
    b"Received: x\r\nFrom: A (ada@host.local) <ada@host.local>\r\nTo: bob@host.local, z@y.example\r\n"
    b"X-To: ada@host.local\r\nUser-Agent: x\r\n"
)


def head_out(hop: NextHop, head: bytes = HEAD, source: Any = None, *, signed_fields: bool = False) -> Any:
    options = RoutingOptions(next_hops=(hop,))
    tables = ways_out(options, names_of(options, {"names": source}), signed_fields=signed_fields)
    assert tables is not None
    way = tables.of(TO)
    assert way is not None

    async def ask() -> Any:
        answer = way(head)
        return await answer if isinstance(answer, Awaitable) else answer

    return asyncio.run(ask())


@pytest.mark.parametrize("source", [Fixed(TABLE), Waiting(TABLE)])
def test_header_fields_get_the_names_of_the_next_hop(source: Any) -> None:
    found = head_out(BY_MAP, source=source)
    assert found.head == HEAD.replace(b"<ada@host.local>", b"<countess@example.org>").replace(
        b"bob@host.local", b"bob@example.org"
    )
    assert found.said == ("other addresses in From, To",)


def test_fields_first_then_addresses() -> None:
    hop = NextHop(
        "*", "smtp.example.net", generic=GENERIC, remove_fields=("User-Agent",), add_fields=("Cc: ada@host.local",),
        replace_fields=("/^X-To: (.*)/ Reply-To: $1",),
    )  # fmt: skip
    found = head_out(hop)
    assert found.head.endswith(b"Reply-To: ada.lovelace@example.org\r\nCc: ada.lovelace@example.org\r\n")
    assert found.said == (
        "changed X-To", "removed User-Agent", "added Cc", "other addresses in From, To, Reply-To, Cc",
    )  # fmt: skip


def test_fields_alone_and_a_header_section_that_has_no_end() -> None:
    hop = NextHop("*", "smtp.example.net", add_fields=("X-By: here",))
    assert head_out(hop, b"Subject: x").head == b"Subject: x\r\nX-By: here\r\n"
    assert head_out(hop, b"").head == b"X-By: here\r\n"


def test_signed_fields_keep_their_addresses() -> None:
    hop = NextHop("*", "smtp.example.net", generic=GENERIC)
    head = b"DKIM-Signature: h=from:subject; b=x\r\n" + HEAD
    assert b"<ada@host.local>" in head_out(hop, head).head and b"To: bob@example.org" in head_out(hop, head).head
    assert b"<ada.lovelace@example.org>" in head_out(hop, head, signed_fields=True).head


def test_header_fields_stay_if_nothing_or_not_this_is_wanted() -> None:
    for hop in (NextHop("*", "smtp.example.net"),
                NextHop("*", "smtp.example.net", generic=GENERIC, generic_header=False)):  # fmt: skip
        options = RoutingOptions(next_hops=(hop,))
        assert ways_out(options, names_of(options), signed_fields=False) is None


@pytest.mark.parametrize("kind", [Fixed, Waiting])
def test_header_fields_that_nobody_can_tell_now(kind: Any) -> None:
    assert head_out(BY_MAP, source=kind({"ada@host.local": NotNow("away")})).not_now == "away"


def test_too_many_addresses_wait_for_an_operator() -> None:
    head = b"To: " + b",\r\n ".join(b"u%d@h.example" % number for number in range(10_001)) + b"\r\n"
    assert "more than 10000" in head_out(BY_MAP, head, Fixed({})).not_now
