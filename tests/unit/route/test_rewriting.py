"""Canonical maps, masquerading and copies: what each address becomes, and when nobody can tell."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

import pytest

from postroad.mail.address import Address
from postroad.mail.envelope import Forwarded, Peer, Recipient, Via
from postroad.mail.header_clients import HeaderClients
from postroad.mail.rewriting import Rewriting
from postroad.maps.asked import Asked
from postroad.maps.face import Answer, Map, NotNow
from postroad.protocol.grammar import parse_mailbox
from postroad.route.domains import OwnNames
from postroad.route.rewrite_options import RewriteOptions
from postroad.route.rewriting import Masquerading, Rewriter, rewriter
from tests.unit.maps.fakes import Fixed, Waiting

HERE = Peer()
STRANGER = Peer("192.0.2.9")
ACCOUNT = Peer("192.0.2.9", identity="ada")
HEAD = b"From: Ada <ada@h.example>\r\nSubject: ada@h.example\r\nTo: bob@h.example\r\n"


def made(maps: Mapping[str, Mapping[str, Answer]] = {}, *, waits: bool = False, **settings: Any) -> Rewriter:
    def named(names: tuple[str, ...]) -> tuple[Map, ...]:
        kind: Any = Waiting if waits else Fixed
        return tuple([Map(name, "test", kind(maps[name]), lambda text: None) for name in names])

    options = RewriteOptions(**{name: (name,) for name in maps}, **settings)
    found = rewriter(
        options, named, is_ours=lambda domain: domain == "ours.example", origin="ours.example", delimiter="+",
        ourselves=OwnNames(frozenset(), frozenset(("198.51.100.1",))),
    )
    assert found is not None
    return found


def asked(
    rewriter: Rewriter, sender: str, *recipients: str, head: bytes = b"", peer: Peer = HERE
) -> Rewriting:
    named = tuple([Recipient(_address(each)) for each in recipients])
    found = rewriter(peer, _address(sender) if sender else None, named, (head,))
    if isinstance(found, Rewriting):
        return found

    async def wait() -> Rewriting:
        return await found

    return asyncio.run(wait())


def _address(text: str) -> Address:
    found = parse_mailbox(text)
    assert found is not None
    return found


def test_nothing_set_is_nothing_to_ask() -> None:
    assert rewriter(
        RewriteOptions(), lambda names: (), is_ours=lambda domain: False, origin="x.example", delimiter="+",
        ourselves=OwnNames(),
    ) is None  # fmt: skip


@pytest.mark.parametrize("waits", [False, True])
@pytest.mark.parametrize(("before", "after"), [
    ("ada@h.example", "countess@n.example"),
    ("ADA@h.example", "ADA@h.example"),  # these maps do not fold; real ones do
    ("ada+x@h.example", "countess+x@n.example"),
    ("ada+exact@h.example", "other@n.example"),
    ("who@dom.example", "who@new.example"),
    ("who+x@dom.example", "who+x@new.example"),
    ("bare@ours.example", "name@ours.example"),
    ("bare+y@ours.example", "name+y@ours.example"),
    ("bare@theirs.example", "bare@theirs.example"),
    ("one@h.example", "three@h.example"),  # its result is looked up again
    ("self@h.example", "self@h.example"),
    ("+lists@h.example", "+lists@h.example"),
])  # fmt: skip
def test_keys_and_extensions(before: str, after: str, waits: bool) -> None:
    table: dict[str, Answer] = {
        "ada@h.example": "countess@n.example", "ada+exact@h.example": "other@n.example", "@dom.example": "@new.example",
        "bare": "name", "one@h.example": "two@h.example", "two@h.example": "three@h.example",
        "self@h.example": "self@h.example",
    }  # fmt: skip
    found = asked(made({"canonical_maps": table}, waits=waits), before, before)
    assert (str(found.reverse_path), [str(each.address) for each in found.recipients]) == (after, [after])
    assert [each.given for each in found.recipients] == [None if before == after else _address(before)]
    assert not found.not_now


def test_an_extension_is_dropped_if_the_settings_say_so() -> None:
    table: dict[str, Answer] = {"ada@h.example": "countess@n.example"}
    found = asked(made({"canonical_maps": table}, propagate_extensions=False), "ada+x@h.example")
    assert str(found.reverse_path) == "countess@n.example"


def test_each_side_has_its_maps_and_classes() -> None:
    tables: dict[str, Mapping[str, Answer]] = {
        "sender_canonical_maps": {"ada@h.example": "sender@h.example"},
        "recipient_canonical_maps": {"ada@h.example": "recipient@h.example"},
        "canonical_maps": {"sender@h.example": "s@h.example", "recipient@h.example": "r@h.example"},
    }
    head = b"Reply-To: ada@h.example\r\nCc: ada@h.example\r\n"
    found = asked(made(tables), "ada@h.example", "ada@h.example", head=head)
    assert (str(found.reverse_path), str(found.recipients[0].address)) == ("s@h.example", "r@h.example")
    assert found.sections == (b"Reply-To: s@h.example\r\nCc: r@h.example\r\n",)
    found = asked(
        made(tables, sender_canonical_classes=("envelope_sender",), canonical_classes=("header_recipient",)),
        "ada@h.example", "ada@h.example", head=head,
    )  # fmt: skip
    assert (str(found.reverse_path), str(found.recipients[0].address)) == ("sender@h.example", "recipient@h.example")
    assert found.sections == (b"Reply-To: ada@h.example\r\nCc: r@h.example\r\n",)


@pytest.mark.parametrize(("clients", "peer", "rewritten"), [
    (HeaderClients.KNOWN, HERE, True), (HeaderClients.KNOWN, STRANGER, False), (HeaderClients.KNOWN, ACCOUNT, True),
    (HeaderClients.KNOWN, Peer("192.0.2.9", trusted=True), True), (HeaderClients.LOCAL, ACCOUNT, False),
    (HeaderClients.LOCAL, Peer("127.0.0.1"), True), (HeaderClients.LOCAL, Peer("198.51.100.1"), True),
    (HeaderClients.KNOWN, Peer("127.0.0.1", trusted=True, forwarded=Forwarded(source="REMOTE")), False),
    (HeaderClients.KNOWN, Peer("127.0.0.1", forwarded=Forwarded(source="LOCAL")), True),
    (HeaderClients.LOCAL, Peer(via=Via("XCLIENT", "192.0.2.1")), False), (HeaderClients.LOCAL, Peer("unknown"), False),
    (HeaderClients.NONE, HERE, False), (HeaderClients.ALL, STRANGER, True),
])  # fmt: skip
def test_whose_header_fields(clients: HeaderClients, peer: Peer, rewritten: bool) -> None:
    table: dict[str, Answer] = {"ada@h.example": "countess@n.example"}
    found = asked(made({"canonical_maps": table}, header_clients=clients), "ada@h.example", head=HEAD, peer=peer)
    assert str(found.reverse_path) == "countess@n.example"
    expected = HEAD.replace(b"<ada@h.example>", b"<countess@n.example>") if rewritten else HEAD
    assert found.sections == (expected,)


def test_fields_that_a_signature_covers_stay() -> None:
    table: dict[str, Answer] = {"ada@h.example": "countess@n.example"}
    head = b"DKIM-Signature: v=1; d=h.example;\r\n\th=from : Subject;\r\n b=x\r\n" + HEAD + b"Sender: ada@h.example\r\n"
    found = asked(made({"canonical_maps": table}), "ada@h.example", head=head)
    assert found.sections == (head.replace(b"Sender: ada@h.example", b"Sender: countess@n.example"),)
    found = asked(made({"canonical_maps": table}, signed_fields=True), "ada@h.example", head=head)
    assert b"From: Ada <countess@n.example>" in found.sections[0]


@pytest.mark.parametrize(("table", "why"), [
    ({"ada@h.example": NotNow("away")}, "away"),
    ({"ada@h.example": "no address"}, "not a single address"),
    ({"ada@h.example": "a@h.example, b@h.example"}, "not a single address"),
    ({"ada@h.example": "b@h.example", "b@h.example": "ada@h.example"}, "circle"),
])  # fmt: skip
@pytest.mark.parametrize("waits", [False, True])
def test_what_nobody_can_tell_waits(table: dict[str, Answer], why: str, waits: bool) -> None:
    for sender, recipient, head in (("ada@h.example", "x@y.example", b""), ("x@y.example", "ada@h.example", b""),
                                    ("x@y.example", "x@y.example", HEAD)):  # fmt: skip
        found = asked(made({"canonical_maps": table}, waits=waits), sender, recipient, head=head)
        assert why in found.not_now


def test_a_recipient_alone_can_be_asked_about() -> None:
    table: dict[str, Answer] = {"ada@h.example": "countess@n.example"}
    found = made({"recipient_canonical_maps": table})
    assert found.changes_recipients
    assert found.recipient(_address("ada@h.example"), Asked()) == _address("countess@n.example")
    assert not made({"sender_canonical_maps": table}).changes_recipients


@pytest.mark.parametrize(("before", "after"), [
    ("u@host.m.example", "u@m.example"), ("u@m.example", "u@m.example"), ("u@x.lab.m.example", "u@x.lab.m.example"),
    ("u@lab.m.example", "u@lab.m.example"), ("Root@host.m.example", "Root@host.m.example"),
    ("u@notm.example", "u@notm.example"), ("root+x@host.m.example", "root+x@m.example"),
])  # fmt: skip
def test_masquerading(before: str, after: str) -> None:
    masquerading = Masquerading(("!lab.m.example", "m.example"), ("root",))
    assert str(masquerading.of(_address(before))) == after


def test_masquerading_leaves_recipients_of_the_envelope() -> None:
    found = asked(made(masquerade_domains=("m.example",)), "u@a.m.example", "v@b.m.example",
                  head=b"From: u@a.m.example\r\nTo: v@b.m.example\r\n")  # fmt: skip
    assert (str(found.reverse_path), str(found.recipients[0].address)) == ("u@m.example", "v@b.m.example")
    assert found.sections == (b"From: u@m.example\r\nTo: v@m.example\r\n",)


@pytest.mark.parametrize("waits", [False, True])
def test_copies(waits: bool) -> None:
    tables: dict[str, Mapping[str, Answer]] = {
        "sender_bcc_maps": {"boss@h.example": "out@h.example"},
        "recipient_bcc_maps": {"ann@h.example": "copy@h.example, copy2", "@all.example": "copy@h.example"},
        "canonical_maps": {"out@h.example": "outgoing@h.example", "chief@h.example": "boss@h.example"},
    }
    rewriter = made(tables, waits=waits, always_bcc=("archive@h.example",))
    found = asked(rewriter, "chief@h.example", "ann+x@h.example", "any@all.example")
    assert {str(address): setting for address, setting in found.copies} == {
        "archive@h.example": "always_bcc", "outgoing@h.example": "sender_bcc_maps",
        "copy@h.example": "recipient_bcc_maps", "copy2@ours.example": "recipient_bcc_maps",
    }  # fmt: skip
    assert [str(address) for address, _ in asked(rewriter, "", "x@y.example").copies] == ["archive@h.example"]


def test_a_report_to_a_signed_sender_is_copied_as_mail_to_the_sender() -> None:
    options = RewriteOptions(recipient_bcc_maps=("copies",))
    copies = Map("copies", "test", Fixed({"ann@h.example": "copy@h.example"}), lambda text: None)
    found = rewriter(
        options, lambda names: (copies,) if names else (), is_ours=lambda domain: False, origin="", delimiter="+",
        ourselves=OwnNames(frozenset(), frozenset()), meant=lambda address: _address("ann@h.example"),
    )
    assert found is not None
    assert [str(address) for address, _ in asked(found, "", "prvs=1234567890=ann@h.example").copies] == [
        "copy@h.example"
    ]


def test_a_copy_for_no_address_makes_mail_wait() -> None:
    found = asked(made({"recipient_bcc_maps": {"ann@h.example": "copy@h.example <>"}}), "", "ann@h.example")
    assert "not a list of addresses" in found.not_now


def test_too_many_addresses_are_refused() -> None:
    head = b"To: " + b",\r\n ".join(b"u%d@h.example" % number for number in range(10_001)) + b"\r\n"
    assert "more than 10000" in asked(made(masquerade_domains=("m.example",)), "", head=head).excess


def test_a_header_section_that_would_become_too_long_is_refused() -> None:
    table: dict[str, Answer] = {"@h.example": "@" + ".".join(["x" * 60] * 4)}
    head = b"To: " + b",\r\n ".join(b"u%d@h.example" % number for number in range(9_000)) + b"\r\n"
    assert "octets" in asked(made({"canonical_maps": table}), "", head=head).excess


def test_too_many_copies_are_refused() -> None:
    table: dict[str, Answer] = {"ann@h.example": ", ".join(f"u{number}@h.example" for number in range(1_001))}
    assert "more than 1000" in asked(made({"recipient_bcc_maps": table}), "", "ann@h.example").excess
