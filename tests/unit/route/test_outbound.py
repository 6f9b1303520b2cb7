"""How sender and recipients are named to a next hop (`route.outbound`)."""

from __future__ import annotations

import pytest

from postroad.mail.address import Address
from postroad.mail.envelope import Envelope, Recipient
from postroad.mail.job import Sent
from postroad.mail.route import REQUIRE_TLS, Destination, Transport
from postroad.route.options import Generic, LocalDomain, NextHop, RoutingOptions
from postroad.route.outbound import outbound
from postroad.route.table import RoutingTable

ADA, FAR = Address("ada", "host.local"), Address("far", "away.example")
GENERIC = (
    Generic("ada@host.local", Address("ada.lovelace", "example.org")),
    Generic("ada+lists@host.local", Address("lists", "example.org")),
    Generic("@host.local", Address("", "example.org")),
    Generic("@old.local", Address("all", "example.org")),
)


def sent(hop: NextHop, sender: Address | None, recipient: Address = FAR, *further: NextHop, **options: object) -> Sent:
    routing = RoutingOptions(next_hops=(hop, *further), **options)  # type: ignore[arg-type]
    envelope = Envelope(1, sender, (Recipient(recipient),), 0, 0)
    destination = RoutingTable(routing).route(envelope, envelope.recipients[0])
    assert isinstance(destination, Destination)
    renames = outbound(routing)
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
    renames = outbound(RoutingOptions(next_hops=(hop,)))
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
    assert outbound(RoutingOptions(next_hops=(NextHop("*", "smtp.example.net"),))) is None
