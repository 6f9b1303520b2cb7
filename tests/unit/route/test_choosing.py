"""Which next hop takes a recipient's mail: by recipient, account and sender."""

from __future__ import annotations

import msgspec
import pytest

from postroad.mail.address import Address
from postroad.mail.attempt import Attempt
from postroad.mail.envelope import Envelope, Peer, Recipient
from postroad.mail.route import Destination, OwnAddress, TlsDemand, Transport
from postroad.mail.routing import is_held
from postroad.route.options import LocalDomain, NextHop, RoutingOptions
from postroad.route.table import RoutingTable

HOPS = (
    NextHop("*", "all"),
    NextHop("*", "alpha", senders=("alpha.example", ".alpha.example", "boss@beta.example")),
    NextHop("*", "reports", senders=("<>",)),
    NextHop("*", "ada", accounts=("Ada@Alpha.example",)),
    NextHop("partner.example", "partner"),
    NextHop("split.example", "split-alpha", senders=("alpha.example",)),
    NextHop("exempt.example", "hub"),
    NextHop("exempt.example", senders=("alpha.example",)),
    NextHop("strict.example", tls=TlsDemand.VERIFY),
    NextHop("strict.example", senders=("alpha.example",)),
    NextHop("", "desk", recipients=("desk@partner.example", "info@home.example")),
    NextHop("", "lists", recipients=("desk+lists@partner.example",)),
    NextHop("", "desk-alpha", recipients=("desk@partner.example",), senders=("alpha.example",)),
)
LOCAL = (LocalDomain("home.example", ("any",), path="/mail"),)
TABLE = RoutingTable(RoutingOptions(LOCAL, next_hops=HOPS))


def address(written: str) -> Address:
    local_part, _, domain = written.rpartition("@")
    return Address(local_part, domain)


def way(
    recipient: str, sender: str = "x@other.example", account: str = "", table: RoutingTable = TABLE
) -> Destination | Attempt:
    reverse_path = address(sender) if sender else None
    envelope = Envelope(1, reverse_path, (), 0, 0, Peer(identity=account))
    return table.route(envelope, Recipient(address(recipient)))


def host(recipient: str, sender: str = "x@other.example", account: str = "") -> str:
    """The host, or the key of what goes by MX or stays here."""
    found = way(recipient, sender, account)
    assert isinstance(found, Destination)
    return found.host or found.key


@pytest.mark.parametrize(
    ("recipient", "sender", "account", "expected"),
    [
        ("r@far.example", "x@other.example", "", "all"),
        ("r@far.example", "x@alpha.example", "", "alpha"),
        ("r@far.example", "x@sub.alpha.example", "", "alpha"),
        ("r@far.example", "Boss+sales@beta.example", "", "alpha"),  # without its address extension
        ("r@far.example", "x@beta.example", "", "all"),
        ("r@far.example", "", "", "reports"),
        ("r@far.example", "x@other.example", "ada@alpha.example", "ada"),
        ("r@far.example", "x@alpha.example", "ada@alpha.example", "ada"),  # what was proved before what may be forged
        ("r@far.example", "x@alpha.example", "bob@alpha.example", "alpha"),
        ("r@partner.example", "x@alpha.example", "", "partner"),  # the recipient's table is more exact than "*"
        ("r@split.example", "x@alpha.example", "", "split-alpha"),
        ("r@split.example", "x@other.example", "", "all"),  # the next pattern counts
        ("r@split.example", "boss@beta.example", "", "alpha"),
        ("r@exempt.example", "x@alpha.example", "", "exempt.example"),
        ("r@exempt.example", "x@other.example", "", "hub"),
        ("desk@partner.example", "x@other.example", "", "desk"),
        ("DESK+q@partner.example", "x@other.example", "", "desk"),
        ("desk+lists@partner.example", "x@other.example", "", "lists"),
        ("desk@partner.example", "x@alpha.example", "", "desk-alpha"),
        ("info@home.example", "x@alpha.example", "", "desk"),  # one mailbox of a local domain lives elsewhere
        ("ada@home.example", "x@alpha.example", "", "maildir:home.example"),
    ],
)
def test_the_most_exact_table_wins(recipient: str, sender: str, account: str, expected: str) -> None:
    for _ in range(2):  # and once more, as it was kept
        assert host(recipient, sender, account) == expected


def test_what_goes_by_mx_is_reached_in_one_way_whoever_sends_it() -> None:
    """Equal keys mean equal destinations."""
    for sender in ("x@alpha.example", "x@other.example"):
        found = way("r@strict.example", sender)
        assert isinstance(found, Destination) and (found.key, found.tls) == ("strict.example", TlsDemand.VERIFY)


def test_a_stored_destination_is_the_answer() -> None:
    stored = Destination("[kept]:25", Transport.SMTP, host="kept")
    recipient = Recipient(Address("r", "far.example"), destination=stored)
    assert TABLE.route(Envelope(1, None, (recipient,), 0, 0), recipient) is stored


def test_what_depends_on_the_domain_alone_is_one_look() -> None:
    table = RoutingTable(RoutingOptions(LOCAL, next_hops=HOPS))
    for recipient in ("a@partner.example", "a@home.example", "a@far.example"):
        way(recipient, table=table)
    assert not table._kept  # single mailboxes, or senders, have tables of their own
    plain = RoutingTable(RoutingOptions(next_hops=(HOPS[4], HOPS[1])))
    for recipient in ("a@partner.example", "b@partner.example", "a@far.example"):
        way(recipient, table=plain)
    assert set(plain._kept) == {"partner.example"} and len(plain._kept_apart) == 1


def test_what_senders_make_of_it_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("postroad.route.table._APART_MAX", 10)
    table = RoutingTable(RoutingOptions(next_hops=HOPS))
    for number in range(25):
        way("r@far.example", f"s{number}@other.example", table=table)
    assert len(table._kept_apart) <= 10


def test_all_keys_of_a_domain() -> None:
    """For ETRN: the queue of a domain may be at several servers."""
    assert set(TABLE.keys("partner.example")) == {
        "[partner]:25", "[desk]:25", "[desk-alpha]:25", "[lists]:25",
    }  # fmt: skip
    assert TABLE.keys("home.example") == ("maildir:home.example",)
    assert set(TABLE.keys("split.example")) == {
        "[split-alpha]:25", "[all]:25", "[alpha]:25", "[reports]:25", "[ada]:25",
    }  # fmt: skip


# ---- size, class, listener, priority

CONDITIONAL = RoutingTable(RoutingOptions(LOCAL, next_hops=(
    NextHop("*", "all"),
    NextHop("*", "large", size_min=10_000_000),
    NextHop("*", "bulk", classes=("bulk",), fields=("x-campaign",)),
    NextHop("*", "reports", classes=("report",)),
    NextHop("*", "lists", listeners=("lists",), senders=("alpha.example",)),
    NextHop("*", "alpha", senders=("alpha.example",)),
    NextHop("*", "slow", priority_max=-1),
    NextHop("*", "urgent", priority_min=4),
    NextHop("partner.example", source_ipv4=(OwnAddress("192.0.2.9"),), classes=("bulk",)),
    NextHop("held.example", action="hold:not yet", size_min=5),
    NextHop("held.example", "hub"),
    NextHop("gone.example", action="error:5.1.6 moved"),
    NextHop("", action="hold:looked at", recipients=("ada@home.example",)),
)))  # fmt: skip


def message(sender: str = "x@other.example", **fields: object) -> Envelope:
    listener = str(fields.pop("listener", ""))
    size = int(str(fields.pop("size", 1)))
    return Envelope(
        1, address(sender) if sender else None, (), size, 0, Peer(listener=listener), **fields  # type: ignore[arg-type]
    )


@pytest.mark.parametrize(
    ("envelope", "expected"),
    [
        (message(), "all"),
        (message(size=10_000_000), "large"),
        (message(size=9_999_999), "all"),
        (message(classes=("bulk",)), "bulk"),
        (message(classes=("x-campaign",)), "bulk"),
        (message(size=10_000_000, classes=("bulk",)), "large"),  # the first in the file
        (message("", classes=()), "reports"),
        (message("a@alpha.example", listener="lists"), "lists"),
        (message("a@alpha.example", size=10_000_000), "alpha"),  # who sends counts before what
        (message(listener="lists"), "all"),
        (message(parameters=(("MT-PRIORITY", "-3"),)), "slow"),
        (message(parameters=(("MT-PRIORITY", "4"),)), "urgent"),
        (message(parameters=(("MT-PRIORITY", "3"),)), "all"),
    ],
)
def test_tables_with_conditions(envelope: Envelope, expected: str) -> None:
    for _ in range(2):  # the second answer comes from what is kept
        found = CONDITIONAL.route(envelope, Recipient(address("r@far.example")))
        assert isinstance(found, Destination) and found.host == expected


def test_bulk_by_another_address_of_ours_shares_nothing_with_other_mail() -> None:
    usual, bulk = (
        CONDITIONAL.route(message(classes=classes), Recipient(address("r@partner.example")))
        for classes in ((), ("bulk",))
    )
    assert isinstance(usual, Destination) and usual.host == "all"
    assert isinstance(bulk, Destination) and bulk.key == "partner.example/from:192.0.2.9"
    assert (bulk.domain, bulk.origin.ipv4) == ("partner.example", (OwnAddress("192.0.2.9"),))
    assert set(CONDITIONAL.keys("partner.example")) >= {bulk.key}


def test_a_table_that_holds_counts_for_nothing_once_the_mail_is_released() -> None:
    for to, later in (("r@held.example", "hub"), ("ada@home.example", "maildir:home.example")):
        recipient, envelope = Recipient(address(to)), message(size=6)
        found = CONDITIONAL.route(envelope, recipient)
        assert is_held(found)
        after = CONDITIONAL.route(envelope, msgspec.structs.replace(recipient, released=True))
        assert isinstance(after, Destination) and later in (after.host, after.key)
        assert is_held(CONDITIONAL.route(envelope, recipient)), "other mail is still held"


def test_a_table_that_fails_mail_fails_it_released_or_not() -> None:
    for released in (False, True):
        found = CONDITIONAL.route(message(), Recipient(address("r@gone.example"), released=released))
        assert isinstance(found, Attempt) and (found.status, found.text) == ("5.1.6", "moved")
