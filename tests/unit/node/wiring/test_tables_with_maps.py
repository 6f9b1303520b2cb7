"""Aliases and recipients in maps: at once, waited for, and while a map cannot answer."""

from __future__ import annotations

from collections.abc import Awaitable
from pathlib import Path

import pytest

from postroad.config import options
from postroad.config.load import parse
from postroad.mail.address import Address
from postroad.mail.envelope import Peer, Recipient
from postroad.mail.expansion import Expansion
from postroad.mail.policy import Action, Question, Verdict
from postroad.maps.face import MapSource, NotNow
from postroad.node.wiring.tables import Tables, build
from tests.unit.maps.fakes import Fixed, Waiting

SETTINGS = """
hostname = "mx.home.test"
state_dir = "state"
alias_maps = ["virtual", "further"]
[[listener]]
name = "front"
address = "127.0.0.1"
port = 2525
[[domain]]
name = "box.test"
recipients = ["ada"]
recipient_maps = ["people"]
path = "{folder}/{{domain}}/{{local_part}}"
[[domain]]
name = "plain.test"
recipients = ["bob"]
path = "{folder}/{{domain}}/{{local_part}}"
[[relay.domain]]
name = "behind.test"
recipient_maps = ["people"]
[[map]]
name = "virtual"
kind = "static"
value = "x"
[[map]]
name = "further"
kind = "inline"
entries = ["postkarte@box.test  bob@plain.test"]
[[map]]
name = "people"
kind = "static"
value = "x"
"""
VIRTUAL = {
    "sales@box.test": "ada, carl@box.test  bob@plain.test",
    "carl": "eve@box.test",
    "lists+x@box.test": "exact@box.test",
    "lists@box.test": "eve@box.test",
    "@plain.test": "@box.test",
    "ring@box.test": "ring2@box.test",
    "ring2@box.test": "ring@box.test",
    "program@box.test": '"|/bin/x"',
    "away@box.test": NotNow("it is away"),
    "led@box.test": "away@box.test, ada",
}
PEOPLE = {"eve@box.test": "1", "exact": "1", "dan@behind.test": "1", "gone@box.test": NotNow("it is away")}


@pytest.fixture(params=["at once", "waiting"])
def tables(request: pytest.FixtureRequest, tmp_path: Path) -> Tables:
    settings = parse(SETTINGS.format(folder=tmp_path), tmp_path / "postroad.toml", files=False)
    assert not isinstance(settings, list), settings
    found = build(settings)
    assert not isinstance(found, str), found
    kind = Fixed if request.param == "at once" else Waiting
    for name, values in (("virtual", VIRTUAL), ("people", PEOPLE)):
        source: MapSource = kind(values)  # type: ignore[assignment, arg-type]
        found.maps[name].source = source
        found.maps[name].waits = source.waits
    (listener,) = options.listener_options(settings)
    policy = options.policy_options(settings, settings.listener[0])
    rules = found.rules(policy, listener, lambda account, address: False)
    found.rcpt = rules.rcpt  # type: ignore[attr-defined]
    return found


async def rcpt(tables: Tables, mailbox: str) -> Verdict:
    local_part, _, domain = mailbox.rpartition("@")
    verdict = tables.rcpt(Question(Peer(address="192.0.2.1"), recipient=Address(local_part, domain)))  # type: ignore[attr-defined]
    found = verdict if isinstance(verdict, Verdict) else await verdict
    assert isinstance(found, Verdict)
    return found


async def expand(tables: Tables, *mailboxes: str) -> Expansion:
    recipients = tuple(Recipient(Address(*mailbox.rsplit("@", 1))) for mailbox in mailboxes)
    found: Expansion | Awaitable[Expansion] = tables.expand(1, 0, recipients)
    return found if isinstance(found, Expansion) else await found


def names(expansion: Expansion) -> set[str]:
    return {str(each.address) for each in expansion.recipients}


@pytest.mark.parametrize(
    ("mailbox", "code"),
    [
        ("ada@box.test", 0), ("eve@box.test", 0), ("eve+x@box.test", 0), ("nobody@box.test", 550),
        ("sales@box.test", 0), ("exact@box.test", 0), ("dan@behind.test", 0), ("nobody@behind.test", 550),
        ("bob@plain.test", 0), ("nobody@plain.test", 550), ("eve@plain.test", 0), ("gone@box.test", 451),
        ("away@box.test", 451), ("program@box.test", 451), ("ring@box.test", 550), ("postkarte@box.test", 0),
        ("x@elsewhere.test", 550),
    ],
)  # fmt: skip
async def test_at_rcpt(tables: Tables, mailbox: str, code: int) -> None:
    verdict = await rcpt(tables, mailbox)
    assert (0 if verdict.action is Action.ACCEPT else verdict.reply and verdict.reply.code) == code, verdict
    if code == 451:
        assert verdict.action is Action.DEFER and "4.3.0" in str(verdict.reply) and verdict.reason
        assert "away" not in str(verdict.reply).partition(">")[2]


@pytest.mark.parametrize(
    ("mailboxes", "ends"),
    [
        (["sales@box.test"], {"ada@box.test", "eve@box.test", "bob@plain.test"}),
        (["ada@box.test"], {"ada@box.test"}),
        (["lists+x@box.test", "lists+y@box.test"], {"exact@box.test", "eve@box.test"}),
        (["lists+y@box.test", "lists+z@box.test"], {"eve@box.test"}),
        (["eve@plain.test", "bob@plain.test"], {"eve@box.test", "bob@plain.test"}),  # a box beats its domain's alias
        (["postkarte@box.test"], {"bob@plain.test"}),
        (["x@elsewhere.test", "carl@box.test"], {"x@elsewhere.test", "eve@box.test"}),
    ],
)
async def test_aliases(tables: Tables, mailboxes: list[str], ends: set[str]) -> None:
    found = await expand(tables, *mailboxes)
    assert names(found) == ends and not found.not_now


@pytest.mark.parametrize(
    ("mailbox", "text"), [("led@box.test", "it is away"), ("program@box.test", "programs are not allowed here")]
)
async def test_what_cannot_be_looked_up_expands_nobody(tables: Tables, mailbox: str, text: str) -> None:
    found = await expand(tables, "ada@box.test", mailbox)
    assert found.recipients == () and text in found.not_now


async def test_who_needs_no_map_that_is_away_is_not_held_up(tables: Tables) -> None:
    tables.maps["people"].source = Fixed(dict.fromkeys(("eve@box.test",), NotNow("away")))  # type: ignore[assignment]
    assert names(await expand(tables, "postkarte@box.test")) == {"bob@plain.test"}
    assert (await rcpt(tables, "ada@box.test")).action is Action.ACCEPT


async def test_vrfy_says_nothing_for_sure_while_a_map_is_away(tables: Tables) -> None:
    for mailbox, known in (("eve@box.test", True), ("nobody@box.test", False), ("gone@box.test", None)):
        found = tables.verified(Address(*mailbox.split("@")))
        assert (found if found is None or isinstance(found, bool) else await found) is known


def test_the_alias_file_may_lead_to_mailboxes_of_a_map(tmp_path: Path) -> None:
    """The file is taken though the mailbox is not there yet: a map changes at any time."""
    (tmp_path / "aliases").write_text("news: later@box.test\n")
    text = f'aliases = "{tmp_path}/aliases"\n' + SETTINGS.format(folder=tmp_path)
    settings = parse(text, tmp_path / "postroad.toml")
    assert not isinstance(settings, list), settings
    assert not isinstance(build(settings), str)
    (tmp_path / "aliases").write_text("news: nobody@plain.test\n")
    assert isinstance(parse(text, tmp_path / "postroad.toml"), list)
