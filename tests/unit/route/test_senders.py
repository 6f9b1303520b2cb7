"""Which senders are signed, and what recipients mean that are signed senders (`route.senders`)."""

from __future__ import annotations

from pathlib import Path

import pytest

from postroad.mail.address import Address
from postroad.mail.envelope import Envelope, Peer, Recipient
from postroad.mail.event import Expanded
from postroad.mail.job import Sent
from postroad.mail.returned import Returned
from postroad.mail.route import Destination, Transport
from postroad.route.batv import Batv, BatvOptions
from postroad.route.options import Generic, LocalDomain, NextHop, RelayDomain, RoutingOptions
from postroad.route.senders import Senders, senders
from postroad.route.srs import DAY_US, SrsOptions
from postroad.route.table import RoutingTable
from postroad.world.problem import Problem
from tests.unit.route.test_outbound import named

NOW_US = 20_788 * DAY_US
OURS, FAR, BOB = Address("ada", "example.org"), Address("eve", "far.example"), Address("bob", "remote.example")
SIGNED = "SRS0=YFYk=JU=far.example=eve@srs.example"
STRANGER, TRUSTED, USER = Peer("192.0.2.1"), Peer("192.0.2.2", trusted=True), Peer("192.0.2.3", identity="ada")
DOMAINS = (
    LocalDomain("example.org", ("any",), path="/m", batv=Batv.REQUIRE),
    LocalDomain("signing.example", ("any",), path="/m", batv=Batv.SIGN),
    LocalDomain("plain.example", ("any",), path="/m"),
)


def made(tmp_path: Path, *, hops: tuple[NextHop, ...] = ()) -> Senders:
    (tmp_path / "srs").write_text("first\n")
    (tmp_path / "batv").write_text("# numbered\n1 first key\n")
    routing = RoutingTable(RoutingOptions(local=DOMAINS, relay=(RelayDomain("relay.example"),), next_hops=hops))
    srs = SrsOptions("srs.example", str(tmp_path / "srs"), excluded_domains=("friend.example", ".friend.example"))
    batv = BatvOptions(
        str(tmp_path / "batv"), plain_to=("lists.example",), plain_next_hops=("[192.0.2.9]",),
        unsigned=("both@example.org",),
    )
    found = senders(srs, batv, routing, lambda: NOW_US)
    assert isinstance(found, Senders)
    return found


def goes_out(
    signing: Senders, sender: Address | None, recipient: Address = BOB, peer: Peer = STRANGER, host: str = "",
    transport: Transport = Transport.SMTP,
) -> str:
    envelope = Envelope(1, sender, (Recipient(recipient),), 0, 0, peer)
    destination = Destination(recipient.domain, transport, domain=recipient.domain, host=host)
    sent = signing.outbound(None)(envelope, envelope.recipients[0], destination)
    assert sent.forward_path == recipient
    return str(sent.reverse_path or "<>")


def test_forwarded_mail_is_signed_whoever_brings_it(tmp_path: Path) -> None:
    signing = made(tmp_path)
    for peer in (STRANGER, TRUSTED, Peer(listener="sendmail", trusted=True)):
        signed = goes_out(signing, FAR, peer=peer)
        assert signed.startswith("SRS0=") and signed.endswith("=JU=far.example=eve@srs.example")


@pytest.mark.parametrize(
    ("sender", "recipient", "peer"),
    [
        (None, BOB, STRANGER),
        (FAR, BOB, USER),  # users answer for their senders
        (FAR, Address("x", "example.org"), STRANGER),  # by SMTP to a local domain's server
        (FAR, Address("x", "relay.example"), STRANGER),
        (Address("x", "friend.example"), BOB, STRANGER),
        (Address("x", "a.friend.example"), BOB, STRANGER),
        (Address("SRS0=x", "srs.example"), BOB, STRANGER),  # is ours
        (Address("x", "plain.example"), BOB, TRUSTED),
    ],
)
def test_other_senders_stay(tmp_path: Path, sender: Address | None, recipient: Address, peer: Peer) -> None:
    assert goes_out(made(tmp_path), sender, recipient, peer) == str(sender or "<>")


def test_mail_that_ends_here_keeps_its_sender(tmp_path: Path) -> None:
    for transport in set(Transport) - {Transport.SMTP}:
        assert goes_out(made(tmp_path), FAR, transport=transport) == str(FAR)


def test_our_own_senders_get_a_tag(tmp_path: Path) -> None:
    signing = made(tmp_path)
    for peer in (TRUSTED, USER, Peer()):
        signed = goes_out(signing, OURS, peer=peer)
        assert signed.startswith("prvs=1795") and signed.endswith("=ada@example.org")
        assert goes_out(signing, Address(signed.rpartition("@")[0], "example.org"), peer=peer) == signed  # once
    assert goes_out(signing, OURS) == str(OURS)  # a stranger may have forged it
    listed = Recipient(BOB, sender=OURS)  # what a stranger sends to a list with an owner goes out in the owner's name
    envelope = Envelope(1, OURS, (listed,), 0, 0, STRANGER)
    sent = signing.outbound(None)(envelope, listed, Destination("remote.example", Transport.SMTP, "remote.example"))
    assert str(sent.reverse_path).startswith("prvs=1795")


@pytest.mark.parametrize(
    ("sender", "recipient", "host"),
    [
        (Address("both", "example.org"), BOB, ""),
        (Address("Both+x", "example.org"), BOB, ""),
        (OURS, Address("x", "lists.example"), ""),
        (OURS, BOB, "192.0.2.9"),
        (OURS, Address("x", "plain.example"), ""),
    ],
)
def test_some_mail_keeps_the_plain_sender(tmp_path: Path, sender: Address, recipient: Address, host: str) -> None:
    assert goes_out(made(tmp_path), sender, recipient, USER, host) == str(sender)


def test_the_names_of_a_next_hop_come_first(tmp_path: Path) -> None:
    hop = NextHop("*", "192.0.2.7", generic=(Generic("@host.local", Address("", "example.org")),))
    signing = made(tmp_path, hops=(hop,))
    renaming = named(RoutingOptions(local=DOMAINS, next_hops=(hop,)))
    envelope = Envelope(1, Address("ada", "host.local"), (Recipient(BOB),), 0, 0, TRUSTED)
    destination = RoutingTable(RoutingOptions(next_hops=(hop,))).route(envelope, envelope.recipients[0])
    assert isinstance(destination, Destination)
    sent = signing.outbound(renaming)(envelope, envelope.recipients[0], destination)
    assert isinstance(sent, Sent) and str(sent.reverse_path).endswith("=ada@example.org")


def test_names_that_cannot_be_told_now_stay_so(tmp_path: Path) -> None:
    waiting = Sent(FAR, BOB, "the map is away")
    envelope = Envelope(1, FAR, (Recipient(BOB),), 0, 0, STRANGER)
    signing = made(tmp_path).outbound(lambda envelope, recipient, there: waiting)
    assert signing(envelope, envelope.recipients[0], Destination("remote.example", Transport.SMTP)) is waiting


def test_what_comes_back(tmp_path: Path) -> None:
    signing = made(tmp_path)
    signed = goes_out(signing, FAR)
    srs = Address(signed.rpartition("@")[0], "srs.example")
    assert signing.returned(srs) == Returned(FAR, elsewhere=True)
    assert signing.returned(srs, is_report=False) == Returned(FAR, elsewhere=True)  # a reply of a person
    forged = signing.returned(Address(srs.local_part + "x", "srs.example"))
    assert forged is not None and (forged.code, forged.status) == (550, "5.1.1")
    assert signing.returned(Address("info", "srs.example")) is None
    assert signing.returned(Address(srs.local_part, "other.example")) is None
    recipients = (Recipient(srs), Recipient(BOB), Recipient(Address("SRS0=forged", "srs.example")))
    found, events = signing.resolve(7, NOW_US, recipients)
    assert found == (Recipient(FAR, given=srs), *recipients[1:])
    assert events == (Expanded(NOW_US, 7, signed, ("eve@far.example",)),)
    assert signing.resolve(7, NOW_US, recipients[1:]) == (recipients[1:], ())


def test_an_srs_answer_for_a_mailbox_of_ours_is_asked_about(tmp_path: Path) -> None:
    signing = made(tmp_path)
    routing = RoutingTable(RoutingOptions())
    other = senders(SrsOptions("srs.example", str(tmp_path / "srs")), BatvOptions(), routing, lambda: NOW_US)
    assert isinstance(other, Senders)
    signed = goes_out(other, Address("nobody", "example.org"))  # a node that does not know our domains has signed it
    found = signing.returned(Address(signed.rpartition("@")[0], "srs.example"))
    assert found == Returned(Address("nobody", "example.org"))


@pytest.mark.parametrize(
    ("recipient", "code"),
    [
        ("ada@example.org", 550),
        ("prvs=1795000000=ada@example.org", 550),
        ("Postmaster@example.org", 0),
        ("both+x@example.org", 0),
        ("ada@signing.example", 0),
        ("ada@plain.example", 0),
        ("bob@remote.example", 0),
    ],
)
def test_a_report_needs_a_tag_where_it_is_required(tmp_path: Path, recipient: str, code: int) -> None:
    address = Address(*recipient.rsplit("@", 1))
    found = made(tmp_path).returned(address)
    assert (found.code if found is not None else 0) == code
    assert found is None or not code or found.status == "5.7.1"
    other = made(tmp_path).returned(address, is_report=False)
    assert other is None or not other.code
    if address.domain == "signing.example":
        assert found is not None and "tag" in found.note


def test_a_file_of_keys_that_breaks_leaves_the_old_keys_in_force(tmp_path: Path) -> None:
    signing = made(tmp_path)
    before = goes_out(signing, FAR)
    (tmp_path / "srs").write_text("# none\n")
    (problem,) = signing.load()
    assert "has no key" in problem.text
    assert signing.load() == ()  # once
    assert goes_out(signing, FAR) == before
    (tmp_path / "srs").write_text("another\nfirst\n")
    assert signing.load() == ()
    assert goes_out(signing, FAR) != before
    assert signing.returned(Address(before.rpartition("@")[0], "srs.example")) == Returned(FAR, elsewhere=True)


@pytest.mark.parametrize(
    ("text", "why"),
    [("", "has no key"), ("x first key\n", "number"), ("1 first key\n1 other key\n", "twice"), ("1 abc\n", "fewer"),
     ("12 first key\n", "number"), ("\xb2 first key\n", "number")],
)  # fmt: skip
def test_a_wrong_file_is_told_with_its_line(tmp_path: Path, text: str, why: str) -> None:
    (tmp_path / "batv").write_text(text)
    routing = RoutingTable(RoutingOptions(local=DOMAINS))
    found = senders(SrsOptions(), BatvOptions(str(tmp_path / "batv")), routing, lambda: NOW_US)
    assert isinstance(found, tuple) and isinstance(found[0], Problem)
    assert why in found[0].text


def test_without_settings_there_is_nothing() -> None:
    assert senders(SrsOptions(), BatvOptions(), RoutingTable(RoutingOptions()), lambda: 0) is None
