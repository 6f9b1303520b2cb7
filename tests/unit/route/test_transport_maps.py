"""Where mail goes by transport maps: keys in their order, values, maps that wait or cannot answer."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

import msgspec
import pytest

from postroad.mail.address import Address
from postroad.mail.attempt import Attempt, Outcome, Reach
from postroad.mail.envelope import Envelope, Peer, Recipient
from postroad.mail.route import Destination, SetServer, TlsDemand, Transport
from postroad.mail.routing import NOT_KNOWN, Found, held, key_of, let_go, not_now
from postroad.maps.face import Answer, Map, NotNow
from postroad.maps.patterns import PatternDialect, PatternSource, parse_patterns
from postroad.maps.waiting import WaitingOptions, WaitingSource
from postroad.route.choosing import RoutedMail
from postroad.route.options import LocalDomain, NextHop, RoutingOptions
from postroad.route.table import RoutingTable
from postroad.route.transport_maps import TransportMaps
from tests.unit.maps.fakes import Fixed, Waiting, named

OPTIONS = RoutingOptions(
    (
        LocalDomain("example.org", path="/mail/{local_part}", quota_warning=0),
        LocalDomain("lmtp.example", deliver=Transport.LMTP, socket="/run/lmtp", xforward=True),
    ),
    next_hops=(
        NextHop("*", "isp.example", 587, tls=TlsDemand.VERIFY, credentials="*"),
        NextHop("", "bulk.example", 25, tls=TlsDemand.ENCRYPT, credentials="next_hop:bulk", name="bulk"),
        NextHop("*", "two.example", tls=TlsDemand.VERIFY, senders=("alpha.example",), credentials="alpha.example>*"),
        NextHop("*", "two.example", tls=TlsDemand.VERIFY, accounts=("carol",)),
        NextHop("own.example", "two.example", credentials="own.example"),
        NextHop("group.example", "hub.example", mx=True, xforward=True),
    ),
    apart=("apart.example",),
)
TABLE = RoutingTable(OPTIONS)


def ask(
    maps: tuple[Map, ...] | Mapping[str, str], to: str, sender: str = "ada@beta.example", account: str = ""
) -> Found:
    transports = TransportMaps(TABLE, maps if isinstance(maps, tuple) else (named(Fixed(maps), "routes"),))
    found = transports.route(_envelope(sender, account), _recipient(to))
    assert isinstance(found, Destination | Attempt), found
    return found


def _envelope(sender: str = "", account: str = "") -> Envelope:
    local_part, _, domain = sender.rpartition("@")
    return Envelope(0, Address(local_part, domain) if sender else None, (), 0, 0, Peer(identity=account))


def _recipient(to: str) -> Recipient:
    local_part, _, domain = to.rpartition("@")
    return Recipient(Address(local_part, domain))


# ---- keys


@pytest.mark.parametrize(
    ("to", "keys"),
    [
        ("Ada+x@a.b.example",
         ["Ada+x@a.b.example", "Ada@a.b.example", "a.b.example", ".b.example", ".example", "*"]),
        ("ada@example.net", ["ada@example.net", "example.net", ".net", "*"]),
        ("ada+x@example.org", ["ada+x@example.org", "ada@example.org"]),  # local
        ("ada@[192.0.2.1]", ["ada@[192.0.2.1]", "[192.0.2.1]"]),
        ("postmaster@", []),
    ],
)  # fmt: skip
def test_keys(to: str, keys: list[str]) -> None:
    first, second = Fixed({}), Fixed({})
    found = ask((named(first), named(second, "more")), to)
    assert first.asked == second.asked == keys
    assert found == TABLE.find(_recipient(to).address, RoutedMail(Address("ada", "beta.example")))


def test_each_key_is_looked_up_in_all_maps_before_the_next() -> None:
    first, second = Fixed({"example.net": "smtp:[one.example]"}), Fixed({"a@example.net": "smtp:[three.example]"})
    maps = named(first), named(second, "second")
    assert key_of(ask(maps, "a@example.net")) == "[three.example]:25"
    assert key_of(ask(maps, "b@example.net")) == "[one.example]:25"


def test_a_stored_destination_needs_no_map() -> None:
    source, stored = Fixed({"*": "smtp:[a.example]"}), Destination("x", Transport.SMTP, host="x")
    transports = TransportMaps(TABLE, (named(source),))
    assert transports.route(_envelope(), Recipient(Address("a", "b.example"), destination=stored)) is stored
    assert source.asked == []


# ---- values


def _smtp(host: str, port: int = 25, **more: object) -> Destination:
    return Destination(f"[{host}]:{port}", Transport.SMTP, host=host, port=port, **more)  # type: ignore[arg-type]


def _attempt(outcome: Outcome, status: str, text: str, transport: str = "") -> Attempt:
    return Attempt(outcome, Reach.RECIPIENT, status, text, transport=transport)


@pytest.mark.parametrize(
    ("value", "to", "expected"),
    [
        (":", "a@far.example", TABLE.destination(Address("a", "far.example"))),  # with the relay host
        (":", "a@example.org", TABLE.destination(Address("a", "example.org"))),
        ("smtp:", "a@far.example", Destination("far.example", Transport.SMTP, "far.example")),
        ("smtp:[Else.example]:26", "a@far.example", _smtp("else.example", 26)),
        ("smtp:[else.example]", "a@example.org", _smtp("else.example")),  # away from a local domain
        (":[192.0.2.7]:26", "a@far.example", _smtp("192.0.2.7", 26)),
        ("smtp:else.example", "a@far.example", Destination("mx:else.example:25", Transport.SMTP, "else.example")),
        ("smtp:hub.example", "a@far.example",
         Destination("mx:hub.example:25", Transport.SMTP, "hub.example", xforward=True)),
        ("smtp:[else.example]", "a@apart.example",
         Destination("[else.example]:25/@apart.example", Transport.SMTP, host="else.example", apart="apart.example")),
        ("lmtp:unix:/run/other", "a@far.example", Destination("lmtp:/run/other", Transport.LMTP, path="/run/other")),
        ("lmtp:unix:/run/lmtp", "a@far.example",  # as the domain says that has it, too
         Destination("lmtp:/run/lmtp", Transport.LMTP, path="/run/lmtp", xforward=True)),
        ("lmtp:inet:imap.example", "a@far.example",
         Destination("lmtp:[imap.example]:24", Transport.LMTP, host="imap.example", port=24)),
        ("next_hop:bulk", "a@far.example",
         Destination("[bulk.example]:25/next_hop:bulk", Transport.SMTP, host="bulk.example", tls=TlsDemand.ENCRYPT,
                     credentials="next_hop:bulk")),
        ("smtp:[bulk.example]:25", "a@far.example",
         Destination("[bulk.example]:25/next_hop:bulk", Transport.SMTP, host="bulk.example", tls=TlsDemand.ENCRYPT,
                     credentials="next_hop:bulk")),
        ("smtp:[bulk.example]:26", "a@far.example", _smtp("bulk.example", 26)),  # another server
        ("error:5.7.9 go away", "a@far.example", _attempt(Outcome.FAILED, "5.7.9", "go away")),
        ("retry:later", "a@far.example", _attempt(Outcome.DEFERRED, "4.0.0", "later")),
        ("discard:", "a@far.example",
         _attempt(Outcome.DELIVERED, "2.0.0", "its mail is thrown away, as the settings say", "discard")),
        ("dovecot:", "a@far.example",
         not_now("its destination is not known: map routes has 'dovecot:' for a@far.example, but there is no transport "
                 "'dovecot'")),
        ("next_hop:gone", "a@far.example",
         not_now("its destination is not known: map routes has 'next_hop:gone' for a@far.example, but no [[next_hop]] "
                 "has this name")),
    ],
)  # fmt: skip
def test_values(value: str, to: str, expected: Found) -> None:
    assert ask({to: value}, to) == expected


@pytest.mark.parametrize(
    ("to", "sender", "account", "key"),
    [
        ("a@far.example", "x@alpha.example", "", "[two.example]:25/alpha.example>*"),
        ("a@far.example", "x@beta.example", "carol", "[two.example]:25"),
        # No table names the sender: the one for all senders, whatever its recipients are.
        ("a@far.example", "x@beta.example", "", "[two.example]:25/own.example"),
        ("a@own.example", "x@beta.example", "", "[two.example]:25/own.example"),
    ],
)
def test_a_server_of_a_table_is_reached_as_the_table_says(to: str, sender: str, account: str, key: str) -> None:
    assert key_of(ask({"*": "smtp:[two.example]"}, to, sender, account)) == key


def test_equal_keys_are_equal_destinations() -> None:
    """A table for some senders says how its server is reached; mail of others has the same key, so it holds for it."""
    table = RoutingTable(RoutingOptions(next_hops=(
        NextHop("*", "one.example", tls=TlsDemand.VERIFY, senders=("alpha.example",)),
    )))  # fmt: skip
    transports = TransportMaps(table, (named(Fixed({"*": "smtp:[one.example]"})),))
    senders = "x@alpha.example", "x@beta.example"
    found = [transports.route(_envelope(sender), _recipient("a@far.example")) for sender in senders]
    assert found[0] == found[1] == _smtp("one.example", tls=TlsDemand.VERIFY)


# ---- maps that wait, or cannot answer


async def test_waiting() -> None:
    source = Waiting({"example.net": "smtp:[one.example]"})
    transports = TransportMaps(TABLE, (named(Fixed({"b@example.net": "smtp:[two.b]"}), "first"), named(source)))
    assert key_of(transports.route(_envelope(), _recipient("b@example.net"))) == "[two.b]:25"
    assert source.asked == []
    answer = transports.route(_envelope(), _recipient("a@example.net"))
    assert not isinstance(answer, Destination | Attempt) and source.asked == []  # nothing has begun
    assert key_of(transports.route(_envelope(), _recipient("a@example.net"))) == NOT_KNOWN
    let_go(transports.route(_envelope(), _recipient("a@example.net")))
    assert source.asked == []
    assert key_of(await answer) == "[one.example]:25"
    assert source.asked == ["a@example.net", "example.net"]
    assert transports.at_once(Address("a", "example.net")) is None


async def test_a_kept_answer_is_given_at_once() -> None:
    class Slow:
        folds = True

        async def fetch(self, key: str, part: bool) -> str | None:
            await asyncio.sleep(0)
            return "smtp:[one.example]" if key == "example.net" else None

        def close(self) -> None: ...

    source = WaitingSource(Slow(), WaitingOptions(), "slow", lambda level, text: None)
    transports = TransportMaps(TABLE, (named(source),))
    answer = transports.route(_envelope(), _recipient("a@example.net"))
    assert not isinstance(answer, Destination | Attempt)
    assert await answer == transports.route(_envelope(), _recipient("a@example.net")) == _smtp("one.example")


@pytest.mark.parametrize("kind", [Fixed, Waiting])
async def test_a_map_that_cannot_answer_defers(kind: type[Fixed | Waiting]) -> None:
    values: dict[str, Answer] = {"example.net": NotNow("map routes: the server is away"), "*": "smtp:[one.example]"}
    transports = TransportMaps(TABLE, (named(kind(values)),))  # type: ignore[arg-type]
    answer = transports.route(_envelope(), _recipient("a@example.net"))
    found = answer if isinstance(answer, Destination | Attempt) else await answer
    assert found == not_now("its destination is not known: map routes: the server is away")


def test_a_hold_counts_for_nothing_once_the_mail_is_released() -> None:
    transports = TransportMaps(TABLE, (named(Fixed({"far.example": "hold:until Monday"}), "routes"),))
    recipient = _recipient("a@far.example")
    assert transports.route(_envelope(), recipient) == held("until Monday")
    released = msgspec.structs.replace(recipient, released=True)
    assert transports.route(_envelope(), released) == TABLE.destination(recipient.address)


def test_several_servers() -> None:
    found = ask({"far.example": "smtp:[a.example]:26, [b.example]"}, "a@far.example")
    assert isinstance(found, Destination) and found.key == "[a.example]:26,[b.example]:25"
    assert found.servers == (SetServer("a.example", 26), SetServer("b.example", 25, priority=1))
    found = ask({"far.example": "lmtp:inet:a.example, inet:b.example:25"}, "a@far.example")
    assert isinstance(found, Destination) and found.key == "lmtp:[a.example]:24,[b.example]:25"


def test_senders_do_not_choose_where_mail_goes_by_a_local_part() -> None:
    made = parse_patterns([
        rb"/^(.*)@box\.example$/ smtp:[$1]:25", rb"/^.*@(.*)\.inner\.example$/ smtp:[$1.lan]:25",
        rb"/^(.*)@gone\.example$/ error:5.1.1 $1 is gone",
    ], "routes", PatternDialect.PCRE, lambda: 1)
    assert isinstance(made, tuple) and isinstance(made[0], PatternSource)
    maps = (named(made[0], "routes"),)
    for local_part in ("mail.evil.example", "plain"):
        found = ask(maps, f"{local_part}@box.example")
        assert isinstance(found, Attempt) and found.outcome is Outcome.DEFERRED and "local-part" in found.text
    assert key_of(ask(maps, "ada@one.inner.example")) == "[one.lan]:25"
    found = ask(maps, "ada@gone.example")
    assert isinstance(found, Attempt) and found.outcome is Outcome.FAILED
