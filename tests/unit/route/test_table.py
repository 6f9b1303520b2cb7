"""Where the mail for an address goes: local delivery, next hops, literals, MX."""

from __future__ import annotations

import pytest

from postroad.mail.address import Address
from postroad.mail.attempt import Attempt, Outcome
from postroad.mail.envelope import Recipient
from postroad.mail.route import Destination, TlsDemand, Transport
from postroad.route.domains import OwnNames
from postroad.route.options import LocalDomain, NextHop, RelayDomain, RoutingOptions
from postroad.route.table import RoutingTable

SMTP = Transport.SMTP
LOCAL = (
    LocalDomain("example.org", path="/mail/{domain}/{local_part}"),
    LocalDomain("lmtp.example", deliver=Transport.LMTP, socket="/run/lmtp"),
    LocalDomain("imap.example", deliver=Transport.LMTP, host="imap.lan", port=24),
    LocalDomain("six.example", deliver=Transport.LMTP, host="[2001:db8::1]", port=2424),
    LocalDomain("files.example", deliver=Transport.MBOX, path="/var/mail/{local_part}"),
    LocalDomain("tickets.example", deliver=Transport.PROGRAM, command=("/bin/tickets", "{recipient}")),
)
HOPS = (
    NextHop("partner.example", "mx.partner.example", 2525, tls=TlsDemand.VERIFY),
    NextHop(".partner.example", "[192.0.2.7]"),
    NextHop("group.example", "hub.example", mx=True, credentials="hub"),
    NextHop("strict.example", tls=TlsDemand.ENCRYPT),
    NextHop("backup.example", "primary.example", 25),
)
OURSELVES = OwnNames(frozenset({"mx.example.org"}), frozenset({"192.0.2.25", "2001:db8::25"}))
OPTIONS = RoutingOptions(LOCAL, (RelayDomain("backup.example"), RelayDomain(".group.example")), HOPS)
TABLE = RoutingTable(OPTIONS, OURSELVES)
SMART = RoutingTable(
    RoutingOptions(LOCAL, next_hops=(NextHop("*", "smtp.isp.example", 587, tls=TlsDemand.VERIFY, credentials="isp"),))
)
LITERAL = RoutingTable(RoutingOptions(LOCAL, literals=True, tls=TlsDemand.NONE, mx_port=2525), OURSELVES)


@pytest.mark.parametrize(
    ("domain", "expected"),
    [
        ("example.org", Destination("maildir:example.org", Transport.MAILDIR, "example.org",
                                    path="/mail/{domain}/{local_part}")),
        ("lmtp.example", Destination("lmtp:/run/lmtp", Transport.LMTP, path="/run/lmtp")),
        ("imap.example", Destination("lmtp:[imap.lan]:24", Transport.LMTP, host="imap.lan", port=24)),
        ("six.example", Destination("lmtp:[2001:db8::1]:2424", Transport.LMTP, host="2001:db8::1", port=2424)),
        ("files.example", Destination("mbox:files.example", Transport.MBOX, "files.example",
                                      path="/var/mail/{local_part}")),
        ("tickets.example", Destination("program:tickets.example", Transport.PROGRAM, "tickets.example",
                                        command=("/bin/tickets", "{recipient}"))),
        ("partner.example", Destination("[mx.partner.example]:2525", SMTP, host="mx.partner.example", port=2525,
                                        tls=TlsDemand.VERIFY)),
        ("a.partner.example", Destination("[192.0.2.7]:25", SMTP, host="192.0.2.7")),
        ("group.example", Destination("mx:hub.example:25/hub", SMTP, "hub.example", credentials="hub")),
        ("strict.example", Destination("strict.example", SMTP, "strict.example", tls=TlsDemand.ENCRYPT)),
        ("elsewhere.example", Destination("elsewhere.example", SMTP, "elsewhere.example")),
        ("sub.example.org", Destination("sub.example.org", SMTP, "sub.example.org")),
        ("[192.0.2.25]", Destination("maildir:example.org", Transport.MAILDIR, "example.org",
                                     path="/mail/{domain}/{local_part}")),
        ("", Destination("maildir:example.org", Transport.MAILDIR, "example.org", path="/mail/{domain}/{local_part}")),
    ],
)  # fmt: skip
def test_destinations(domain: str, expected: Destination) -> None:
    found = TABLE.destination(Address("ada", domain))
    assert found == expected
    assert TABLE.destination(Address("bob", domain)) is found


def test_a_smart_host_takes_all_but_local_mail_and_literals() -> None:
    found = SMART.destination(Address("a", "anything.example"))
    assert found == Destination("[smtp.isp.example]:587/isp", SMTP, host="smtp.isp.example", port=587,
                                tls=TlsDemand.VERIFY, credentials="isp")  # fmt: skip
    assert isinstance(found, Destination)
    assert SMART.destination(Address("a", "example.org")) != found
    assert isinstance(SMART.destination(Address("a", "[192.0.2.9]")), Attempt)


@pytest.mark.parametrize(
    ("domain", "key"), [("[192.0.2.9]", "[192.0.2.9]:2525"), ("[IPv6:2001:db8::9]", "[2001:db8::9]:2525")]
)
def test_address_literals_where_they_are_allowed(domain: str, key: str) -> None:
    found = LITERAL.destination(Address("a", domain))
    assert isinstance(found, Destination)
    assert (found.key, found.host, found.port, found.domain, found.tls) == (key, key[1:-6], 2525, "", TlsDemand.NONE)


@pytest.mark.parametrize(
    ("table", "domain"),
    [
        (TABLE, "[192.0.2.9]"),
        (TABLE, "[x:y]"),
        (LITERAL, "[127.0.0.1]"),
        (LITERAL, "[0.0.0.0]"),
        (LITERAL, "[224.0.0.1]"),
        (LITERAL, "[IPv6:::1]"),
        (LITERAL, "[x:y]"),
        (RoutingTable(RoutingOptions()), ""),
    ],
)
def test_what_goes_nowhere(table: RoutingTable, domain: str) -> None:
    found = table.destination(Address("a", domain))
    assert isinstance(found, Attempt)
    assert (found.outcome, found.status) == (Outcome.FAILED, "5.1.2") and found.text


@pytest.mark.parametrize(
    ("domain", "local", "relay"),
    [
        ("example.org", True, False),
        ("", True, False),
        ("[192.0.2.25]", True, False),
        ("[IPv6:2001:db8::25]", True, False),
        ("[192.0.2.26]", False, False),
        ("backup.example", False, True),
        ("a.backup.example", False, False),
        ("group.example", False, False),
        ("a.group.example", False, True),
        ("elsewhere.example", False, False),
    ],
)
def test_whose_domain(domain: str, local: bool, relay: bool) -> None:
    assert (TABLE.is_local(domain), TABLE.is_relay(domain)) == (local, relay)


def test_a_local_domain_is_no_relay_domain() -> None:
    table = RoutingTable(RoutingOptions(LOCAL, (RelayDomain("*"),)))
    assert table.is_relay("elsewhere.example") and not table.is_relay("example.org") and not table.is_relay("")


@pytest.mark.parametrize(
    ("domain", "home"),
    [("", "example.org"), ("[192.0.2.25]", "example.org"), ("[192.0.2.26]", "[192.0.2.26]"), ("a.example",) * 2],
)
def test_home(domain: str, home: str) -> None:
    address = Address("Postmaster", domain)
    recipients = (Recipient(Address("x", "y.example")), Recipient(address))
    assert TABLE.home(address) == Address("Postmaster", home)
    moved = TABLE.at_home(recipients)
    assert moved[0] is recipients[0]
    assert moved[1] == Recipient(Address("Postmaster", home), given=None if domain == home else address)


def test_equal_keys_are_equal_destinations() -> None:
    domains = ["example.org", "partner.example", "group.example", "hub.example", "strict.example", "primary.example"]
    found = [TABLE.destination(Address("a", domain)) for domain in domains]
    assert len({each.key for each in found if isinstance(each, Destination)}) == len(domains)


def test_the_cache_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("postroad.route.table._CACHE_MAX", 10)
    table = RoutingTable(OPTIONS)
    for number in range(25):
        assert isinstance(table.destination(Address("a", f"d{number}.example")), Destination)
    assert len(table._kept) <= 10


def test_ignored_extensions_go_with_the_destination() -> None:
    """Of a set next hop, of hosts found by MX, and of an LMTP server."""
    ignored = ("CHUNKING", "PIPELINING")
    table = RoutingTable(RoutingOptions(
        local=(LocalDomain("home.test", deliver=Transport.LMTP, host="h", ignored_extensions=ignored),),
        next_hops=(
            NextHop("set.test", "h", ignored_extensions=ignored), NextHop("mx.test", ignored_extensions=ignored),
        ),
    ))  # fmt: skip
    for domain in ("home.test", "set.test", "mx.test"):
        found = table.destination(Address("a", domain))
        assert isinstance(found, Destination) and found.ignored_extensions == ignored
    other = table.destination(Address("a", "other.test"))
    assert isinstance(other, Destination) and other.ignored_extensions == ()


@pytest.mark.parametrize(
    ("usual", "by_mx", "by_host"),
    [
        (TlsDemand.MAY, TlsDemand.MAY, TlsDemand.MAY), (TlsDemand.ENCRYPT, TlsDemand.ENCRYPT, TlsDemand.MAY),
        (TlsDemand.STS, TlsDemand.STS, TlsDemand.DANE), (TlsDemand.DANE, TlsDemand.DANE, TlsDemand.DANE),
        (TlsDemand.DANE_ONLY, TlsDemand.DANE_ONLY, TlsDemand.MAY),
    ],
)  # fmt: skip
def test_a_table_that_says_nothing_of_tls(usual: TlsDemand, by_mx: TlsDemand, by_host: TlsDemand) -> None:
    """A table without a server, which only sets something else for a domain, must not turn DANE off there."""
    hops = (NextHop("a.example"), NextHop("b.example", "h.example"), NextHop("c.example", tls=TlsDemand.NONE))
    table = RoutingTable(RoutingOptions(next_hops=hops, tls=usual))
    for domain, demand in (("a.example", by_mx), ("b.example", by_host), ("c.example", TlsDemand.NONE)):
        found = table.destination(Address("u", domain))
        assert isinstance(found, Destination) and found.tls is demand
