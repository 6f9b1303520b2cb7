"""Domains whose names come from maps: at once, waited for, and while a map cannot answer."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from pathlib import Path

import pytest

from postroad.config import options
from postroad.config.load import parse
from postroad.mail.address import Address
from postroad.mail.attempt import Attempt, Outcome
from postroad.mail.envelope import Envelope, Peer, Recipient
from postroad.mail.expansion import Expansion
from postroad.mail.policy import Action, Question, Verdict
from postroad.mail.rewriting import Rewriting
from postroad.mail.route import Destination
from postroad.mail.routing import Found
from postroad.maps import fresh
from postroad.maps.face import Map, MapSource, NotNow
from postroad.node.wiring.tables import Tables, build
from postroad.route import domain_maps
from postroad.route.options import LocalDomain
from tests.unit.maps.fakes import Fixed, Waiting

SETTINGS = """
hostname = "mx.home.test"
state_dir = "state"
alias_maps = ["virtual"]
postmaster = "root@plain.test"
[rewrite]
recipient_canonical_maps = ["renamed"]
recipient_canonical_classes = ["header_recipient"]
[[next_hop]]
domain = "hop.test"
host = "192.0.2.25"
generic_maps = ["renamed"]
[[listener]]
name = "front"
address = "127.0.0.1"
port = 2525
[[listener]]
name = "inside"
role = "relay"
address = "127.0.0.1"
port = 2526
trusted_networks = ["192.0.2.0/24"]
[[domain]]
name = "plain.test"
recipients = ["root", "bob"]
path = "{folder}/{{domain}}/{{local_part}}"
[[domain]]
domain_maps = ["boxes"]
recipients = ["info", "ada@shop.test"]
recipient_maps = ["people"]
path = "{folder}/{{domain}}/{{local_part}}"
[[domain]]
domain_maps = ["names"]
deliver = "aliases"
[[relay.domain]]
domain_maps = ["behind"]
recipients = ["any"]
[[map]]
name = "virtual"
kind = "static"
value = "x"
[[map]]
name = "renamed"
kind = "static"
value = "x"
[[map]]
name = "people"
kind = "static"
value = "x"
[[map]]
name = "boxes"
kind = "inline"
entries = ["x y"]
[[map]]
name = "names"
kind = "inline"
entries = ["x y"]
[[map]]
name = "behind"
kind = "inline"
entries = ["x y"]
"""
BARE = {"old-name": "new@else.test"}
VALUES: dict[str, dict[str, str | NotNow]] = {
    "virtual": {
        "sales@names.test": "ada@shop.test, eve@far.test", "lost@names.test": "nobody@shop.test",
        "@old.test": "@shop.test", "led@names.test": "x@away.test",
        "@on.test": "@far.test", "@all.test": "ada@shop.test, @here.test", "@here.test": "bob@plain.test",
    },
    "renamed": {**BARE},
    "people": {"eve@shop.test": "1", "eve@old.test": "1"},
    "boxes": {
        "shop.test": "1", "away.test": NotNow("it is away"), "old.test": "1", "plain.test": "1", "both.test": "1",
    },
    "names": {"names.test": "1", "both.test": "1", "on.test": "1", "all.test": "1", "here.test": "1"},
    "behind": {"behind.test": "1", ".below.test": "1", "both.test": "1"},
}  # fmt: skip


@pytest.fixture(params=["at once", "waiting"])
def tables(request: pytest.FixtureRequest, tmp_path: Path) -> Tables:
    settings = parse(SETTINGS.format(folder=tmp_path), tmp_path / "postroad.toml", files=False)
    assert not isinstance(settings, list), settings
    found = build(settings)
    assert not isinstance(found, str), found
    for name, values in VALUES.items():
        kind = Fixed if request.param == "at once" or name == "renamed" else Waiting
        source: MapSource = kind(dict(values))  # type: ignore[assignment, arg-type]
        found.maps[name].source = source
        found.maps[name].waits = source.waits
    for place, listener in enumerate(options.listener_options(settings)):
        policy = options.policy_options(settings, settings.listener[place])
        made = found.rules(policy, listener, lambda account, address: False)
        setattr(found, listener.name, made)
    return found


async def rcpt(tables: Tables, mailbox: str, listener: str = "front", sender: str = "") -> Verdict:
    address = Address(*mailbox.rsplit("@", 1))
    question = Question(Peer(address="192.0.2.1"), listener != "front", recipient=address)
    verdict = getattr(tables, listener).rcpt(question)
    found = verdict if isinstance(verdict, Verdict) else await verdict
    assert isinstance(found, Verdict)
    return found


async def destination(tables: Tables, mailbox: str) -> Found:
    address = Address(*mailbox.rsplit("@", 1))
    found = tables.destination(Envelope(1, None, (), 0, 0, Peer()), Recipient(address))
    return found if isinstance(found, Destination | Attempt) else await found


async def expand(tables: Tables, mailbox: str) -> Expansion:
    found = tables.expand(1, 0, (Recipient(Address(*mailbox.rsplit("@", 1))),))
    return found if isinstance(found, Expansion) else await found


@pytest.mark.parametrize(
    ("mailbox", "code"),
    [
        ("info@shop.test", 0), ("ada@shop.test", 0), ("ada@old.test", 0), ("nobody@shop.test", 550),
        ("eve@shop.test", 0), ("sales@names.test", 0), ("nobody@names.test", 550), ("lost@names.test", 550),
        ("postmaster@names.test", 0), ("postmaster@shop.test", 0), ("x@away.test", 451), ("x@far.test", 550),
        ("anybody@behind.test", 0), ("anybody@host.below.test", 0), ("x@below.test", 550), ("x@sub.shop.test", 550),
        ("bob@plain.test", 0), ("info@plain.test", 550), ("info@both.test", 0), ("nobody@both.test", 550),
        ("nobody@old.test", 550), ("led@names.test", 451), ("x@on.test", 0), ("x%y.test@on.test", 550),
        ("y.test!x@on.test", 550), ("x@y.test@on.test", 550), ("x%y.test@all.test", 0),
    ],
)  # fmt: skip
async def test_at_rcpt(tables: Tables, mailbox: str, code: int) -> None:
    verdict = await rcpt(tables, mailbox)
    assert (0 if verdict.action is Action.ACCEPT else verdict.reply and verdict.reply.code) == code, verdict
    if code == 451:
        assert "4.3.0" in str(verdict.reply) and "away" in verdict.reason


@pytest.mark.parametrize("mailbox", ["x@away.test", "x@far.test", "info@shop.test"])
async def test_a_trusted_client_relays_to_no_domain_that_may_be_ours(tables: Tables, mailbox: str) -> None:
    verdict = await rcpt(tables, mailbox, "inside")
    assert (verdict.action is Action.DEFER) is (mailbox == "x@away.test")
    assert (verdict.action is Action.ACCEPT) is (mailbox != "x@away.test")


async def test_destinations(tables: Tables, tmp_path: Path) -> None:
    shop = await destination(tables, "info@shop.test")
    assert isinstance(shop, Destination) and (shop.key, shop.domain) == ("maildir:shop.test", "shop.test")
    far = await destination(tables, "x@far.test")
    assert isinstance(far, Destination) and far.key == "far.test"
    behind = await destination(tables, "x@behind.test")
    assert isinstance(behind, Destination) and behind.key == "behind.test"
    away = await destination(tables, "x@away.test")
    assert isinstance(away, Attempt) and away.outcome is Outcome.DEFERRED and away.status == "4.3.0"
    names = await destination(tables, "gone@names.test")
    assert isinstance(names, Attempt) and (names.outcome, names.status) == (Outcome.FAILED, "5.1.1")


async def test_aliases_lead_from_and_to_such_domains(tables: Tables) -> None:
    found = await expand(tables, "sales@names.test")
    assert {str(each.address) for each in found.recipients} == {"ada@shop.test", "eve@far.test"}
    found = await expand(tables, "postmaster@names.test")
    assert [str(each.address) for each in found.recipients] == ["root@plain.test"]
    found = await expand(tables, "x@away.test")
    assert found.not_now and not found.recipients


async def test_all_hear_of_a_change(tables: Tables, monkeypatch: pytest.MonkeyPatch) -> None:
    now = [100.0]
    monkeypatch.setattr(domain_maps, "_clock", lambda: lambda: now[0])
    monkeypatch.setattr(fresh, "FRESH_S", 0.0)
    assert (await rcpt(tables, "info@new.test")).action is Action.REJECT
    found = await destination(tables, "info@new.test")
    assert isinstance(found, Destination) and found.key == "new.test"
    boxes = tables.maps["boxes"].source
    boxes.values["new.test"] = "1"  # type: ignore[attr-defined]
    assert (await rcpt(tables, "info@new.test")).action is Action.REJECT
    now[0] += domain_maps.KEPT_S
    await asyncio.sleep(0.001)
    assert (await rcpt(tables, "info@new.test")).action is Action.ACCEPT
    found = await destination(tables, "info@new.test")
    assert isinstance(found, Destination) and found.key == "maildir:new.test"
    boxes.values["new.test"] = NotNow("it is away")  # type: ignore[attr-defined]
    now[0] += domain_maps.KEPT_S
    await asyncio.sleep(0.001)
    found = await destination(tables, "info@new.test")
    assert isinstance(found, Attempt) and found.outcome is Outcome.DEFERRED


async def test_what_is_kept_is_bounded(tables: Tables, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(domain_maps, "KEPT_MAX", 10)
    for number in range(50):
        await destination(tables, f"x@host{number}.test")
    mapped = tables.routing.mapped
    assert mapped is not None and len(mapped._kept) == 10
    assert len(tables.routing._kept) == 10


@pytest.mark.parametrize("kind", [Fixed, Waiting])
async def test_senders_of_such_domains_are_signed_and_others_are_forwarded(
    tmp_path: Path, kind: type[Fixed] | type[Waiting]
) -> None:
    (tmp_path / "srs.keys").write_text("a secret that is long enough\n")
    (tmp_path / "batv.keys").write_text("1 a secret that is long enough\n")
    text = SETTINGS.format(folder=tmp_path).replace(
        'recipients = ["info", "ada@shop.test"]\n', 'recipients = ["info"]\nbatv = "sign"\n'
    )
    text += '[srs]\ndomain = "plain.test"\nkeys_file = "srs.keys"\n[batv]\nkeys_file = "batv.keys"\n'
    settings = parse(text, tmp_path / "postroad.toml", files=False)
    assert not isinstance(settings, list), settings
    tables = build(settings)
    assert not isinstance(tables, str), tables
    for name, values in VALUES.items():
        source: MapSource = kind(dict(values))  # type: ignore[assignment, arg-type]
        tables.maps[name].source = source
        tables.maps[name].waits = source.waits
    recipient = Recipient(Address("x", "far.test"))
    for sender, begin in (("info@shop.test", "prvs="), ("eve@other.test", "SRS0=")):
        envelope = Envelope(1, Address(*sender.split("@")), (recipient,), 0, 0, Peer("192.0.2.1", trusted=True))
        found = tables.destination(envelope, recipient)
        found = found if isinstance(found, Destination | Attempt) else await found
        assert isinstance(found, Destination) and tables.outbound is not None
        assert str(tables.outbound(envelope, recipient, found).reverse_path).startswith(begin)


def test_vrfy_tells_nothing_of_whom_only_the_next_hop_knows(tmp_path: Path) -> None:
    text = SETTINGS.format(folder=tmp_path) + '[[relay.domain]]\nname = "open.test"\nverify = true\n'
    settings = parse(text, tmp_path / "postroad.toml", files=False)
    assert not isinstance(settings, list), settings
    tables = build(settings)
    assert not isinstance(tables, str), tables
    assert tables.verifies and tables.verified(Address("x", "open.test")) is None
    assert tables.verified(Address("bob", "plain.test")) is not None


async def members(tables: Tables, mailbox: str) -> object:
    found = tables.members(Address(*mailbox.rsplit("@", 1)))
    told = await found if isinstance(found, Awaitable) else found
    return told if told is None or isinstance(told, NotNow) else [str(each) for each in told]


@pytest.mark.asyncio
async def test_expn_asks_the_maps_that_aliases_come_from(tables: Tables) -> None:
    assert await members(tables, "sales@names.test") == ["ada@shop.test", "eve@far.test"]
    assert await members(tables, "nobody@names.test") is None
    assert isinstance(await members(tables, "x@away.test"), NotNow)
    assert isinstance(await members(tables, "led@names.test"), NotNow)


async def header(tables: Tables, to: str) -> Rewriting:
    assert tables.rewriter is not None
    section = f"To: {to}\r\n".encode()
    found = tables.rewriter(Peer(), None, (Recipient(Address("bob", "plain.test")),), (section,))
    return found if isinstance(found, Rewriting) else await found


@pytest.mark.asyncio
async def test_a_bare_name_in_a_canonical_map_holds_for_domains_by_map(tables: Tables) -> None:
    assert (await header(tables, "old-name@shop.test")).sections == (b"To: new@else.test\r\n",)
    assert (await header(tables, "old-name@far.test")).sections == (b"To: old-name@far.test\r\n",)
    assert "it is away" in (await header(tables, "old-name@away.test")).not_now


@pytest.mark.asyncio
async def test_a_bare_name_in_a_generic_map_holds_for_domains_by_map(tables: Tables) -> None:
    sender, recipient = Address("old-name", "shop.test"), Recipient(Address("x", "hop.test"))
    envelope = Envelope(1, sender, (recipient,), 0, 0, Peer())
    found = tables.destination(envelope, recipient)
    hop = found if isinstance(found, Destination | Attempt) else await found
    assert isinstance(hop, Destination)
    assert tables.outbound is not None
    said = tables.outbound(envelope, recipient, hop)
    assert str(said.reverse_path) == "new@else.test"


def test_what_was_found_before_the_loop_began_grows_old_on_it() -> None:
    names = Fixed({"new.test": "1"})
    map = Map("names", "fake", names, str)
    found = domain_maps.MappedDomains([(LocalDomain("all"), (map,))], [])
    assert found.is_local("new.test") and found.find("new.test") is not None
    names.values.clear()
    assert found.is_local("new.test")

    async def on_the_loop() -> bool:
        return found.is_local("new.test")

    assert not asyncio.run(on_the_loop())
