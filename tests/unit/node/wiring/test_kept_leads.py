"""Where an alias leads is looked up once for RCPT and the end of data, and again as soon as it may be another place."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Awaitable
from pathlib import Path

import pytest

from postroad.config import options
from postroad.config.load import parse
from postroad.mail.address import Address
from postroad.mail.envelope import Peer, Recipient
from postroad.mail.expansion import Expansion
from postroad.mail.policy import Question, Verdict
from postroad.maps import fresh
from postroad.node.wiring.tables import Tables, build

SETTINGS = """
hostname = "mx.home.test"
state_dir = "state"
postmaster = "root@far.test"
alias_maps = ["virtual"]
[[listener]]
name = "front"
address = "127.0.0.1"
port = 2525
[[domain]]
name = "home.test"
recipients = ["ada", "bob"]
recipients_file = "{folder}/boxes"
recipient_maps = ["people"]
path = "{folder}/{{domain}}/{{local_part}}"
[[domain]]
name = "names.test"
deliver = "aliases"
[[map]]
name = "virtual"
kind = "text"
file = "{folder}/virtual"
[[map]]
name = "people"
kind = "text"
file = "{folder}/people"
"""
VIRTUAL = "sales@names.test ada@home.test, eve@far.test\nmany@names.test {many}\nlost@names.test gone@home.test\n"


class House:
    """The tables of a node whose files change."""

    def __init__(self, folder: Path, virtual: str = "", more: str = "", settings: str = SETTINGS) -> None:
        self.folder = folder
        many = ", ".join(f"user{number}@far.test" for number in range(20))
        self.write("virtual", virtual or VIRTUAL.format(many=many))
        self.write("people", "carol@home.test 1\n")
        self.write("boxes", "dora\n")
        parsed = parse(settings.format(folder=folder) + more, folder / "postroad.toml", files=False)
        assert not isinstance(parsed, list), parsed
        made = build(parsed)
        assert isinstance(made, Tables), made
        self.tables = made
        (listener,) = options.listener_options(parsed)
        policy = options.policy_options(parsed, parsed.listener[0])
        self._rule = made.rules(policy, listener, lambda account, address: False).rcpt

    def write(self, name: str, text: str) -> None:
        (self.folder / "new").write_text(text)
        (self.folder / "new").rename(self.folder / name)

    def look(self) -> None:
        for _ in range(2):  # the second one takes what did not change any more
            self.tables.maps.look(lambda work, done: done(work()))
            self.tables.look()

    async def rcpt(self, name: str) -> str:
        assert self._rule is not None
        verdict = self._rule(Question(Peer(address="192.0.2.1"), recipient=Address(*name.split("@"))))
        if not isinstance(verdict, Verdict):
            verdict = await verdict
        return str(verdict.reply) if verdict.reply is not None else "ok"

    async def ends(self, *names: str) -> list[str]:
        found = self.tables.expand(1, 1, tuple(Recipient(Address(*name.split("@"))) for name in names))
        found = await found if isinstance(found, Awaitable) else found
        assert isinstance(found, Expansion) and not found.not_now
        return sorted(str(each.address) for each in found.recipients)

    @property
    def asked(self) -> int:
        return self.tables.maps["virtual"].asked


async def test_maps_are_asked_once_for_rcpt_and_the_end_of_data(tmp_path: Path) -> None:
    house = House(tmp_path)
    assert await house.rcpt("sales@names.test") == "ok"
    first = house.asked
    assert await house.ends("sales@names.test") == ["ada@home.test", "eve@far.test"]
    assert await house.rcpt("sales@names.test") == "ok"
    assert house.asked == first
    assert (await house.ends("sales@names.test", "sales@names.test"))[0] == "ada@home.test"


async def test_the_event_and_the_marks_are_those_of_a_look_up(tmp_path: Path) -> None:
    house = House(tmp_path)
    recipient = Recipient(Address("sales", "names.test"))
    fresh_one = house.tables.expand(1, 1, (recipient,))
    kept_one = house.tables.expand(1, 1, (recipient,))
    assert isinstance(kept_one, Expansion) and kept_one == fresh_one
    assert kept_one.events and kept_one.through == (recipient.address,)
    stopped = house.tables.expand(1, 1, (recipient,), lambda alias: True)
    assert isinstance(stopped, Expansion) and stopped.stopped == (recipient.address,) and not stopped.recipients


async def test_it_is_looked_up_again_after_a_second(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fresh, "FRESH_S", 0.0)
    house = House(tmp_path)
    assert await house.rcpt("sales@names.test") == "ok"
    first = house.asked
    await asyncio.sleep(0.001)
    await house.ends("sales@names.test")
    assert house.asked > first


async def test_a_file_that_changes_between_rcpt_and_the_end_of_data_counts(tmp_path: Path) -> None:
    house = House(tmp_path)
    assert await house.rcpt("sales@names.test") == "ok"
    house.write("virtual", "sales@names.test bob@home.test\n")
    house.look()
    assert await house.ends("sales@names.test") == ["bob@home.test"]
    house.write("virtual", "other@names.test bob@home.test\n")
    house.look()
    assert await house.rcpt("sales@names.test") == "550 5.1.1 <sales@names.test>: no such user here"


@pytest.mark.parametrize(("file", "name"), [("people", "carol"), ("boxes", "dora")])
async def test_mailboxes_that_come_and_go_count(tmp_path: Path, file: str, name: str) -> None:
    house = House(tmp_path, f"to@names.test {name}@home.test\n")
    assert await house.rcpt("to@names.test") == "ok"
    house.write(file, "someone@home.test 1\n" if file == "people" else "someone\n")
    house.look()
    assert (await house.rcpt("to@names.test")).startswith("550 5.1.1")
    assert await house.ends("to@names.test") == ["to@names.test"]


async def test_who_leads_nowhere_or_to_many_is_not_kept(tmp_path: Path) -> None:
    house = House(tmp_path)
    for _ in range(2):
        assert (await house.rcpt("lost@names.test")).startswith("550 5.1.1")
        assert await house.rcpt("many@names.test") == "ok"
        assert len(await house.ends("many@names.test")) == 20
    assert not house.tables._aliases.leads(Address("many", "names.test"))
    assert not house.tables._aliases.leads(Address("lost", "names.test"))


async def test_it_is_not_kept_for_who_wants_to_hear_of_fewer(tmp_path: Path) -> None:
    house = House(tmp_path)
    assert len(await house.ends("sales@names.test")) == 2
    recipients = (Recipient(Address("sales", "names.test")),)
    assert house.tables.expand_at_once(1, 1, recipients, 1) is None
    found = house.tables.expand_at_once(1, 1, recipients, 2)
    assert found is not None and len(found.recipients) == 2


FUNCTION = """
[[map]]
name = "slow"
kind = "python"
function = "kept_leads_asked:look_up"
"""
MODULE = """
asked = []

async def look_up(key):
    asked.append(key)
    return "ada@home.test" if key == "x@names.test" else None
"""


@pytest.mark.parametrize("limits", ["", "cache_s = 0\n", "cache_missing_s = 0.5\n", "cache_max = 0\n"])
async def test_a_map_whose_answers_are_not_kept_is_asked_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, limits: str
) -> None:
    (tmp_path / "kept_leads_asked.py").write_text(MODULE)
    monkeypatch.syspath_prepend(tmp_path)
    plain = SETTINGS.replace('["virtual"]', '["slow"]').replace('recipient_maps = ["people"]\n', "")
    house = House(tmp_path, more=FUNCTION + limits, settings=plain)
    assert await house.rcpt("x@names.test") == "ok"
    assert house.tables._aliases.leads(Address("x", "names.test")) is (not limits)
    assert await house.ends("x@names.test") == ["ada@home.test"]
    module = sys.modules.pop("kept_leads_asked")
    assert module.asked.count("x@names.test") == (2 if limits in ("cache_s = 0\n", "cache_max = 0\n") else 1)


BOTH = '["virtual", "slow"]'
GATED = """
import asyncio
gate = asyncio.Event()

async def look_up(key):
    await gate.wait()
    return "bob@home.test" if key == "x@names.test" else None
"""


async def test_what_is_missing_is_never_passed_over_and_a_file_may_change_meanwhile(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "kept_leads_asked.py").write_text(GATED)
    monkeypatch.syspath_prepend(tmp_path)
    plain = SETTINGS.replace('["virtual"]', BOTH)
    house = House(tmp_path, "to@names.test ada@home.test, x@names.test\n", more=FUNCTION, settings=plain)
    asking = asyncio.create_task(house.ends("to@names.test"))
    for _ in range(3):
        await asyncio.sleep(0)
    house.write("virtual", "to@names.test eve@far.test\n")
    house.look()
    sys.modules.pop("kept_leads_asked").gate.set()
    assert await asking == ["ada@home.test", "bob@home.test"]
    assert await house.ends("to@names.test") == ["eve@far.test"]


async def test_a_map_that_cannot_answer_is_asked_again(tmp_path: Path) -> None:
    house = House(tmp_path, "to@names.test ada@home.test, other@names.test\nother@names.test |/bin/no\n")
    name = Recipient(Address("to", "names.test"))
    found = house.tables.expand(1, 1, (name,))
    assert isinstance(found, Expansion) and found.not_now
    assert (await house.rcpt("to@names.test")).startswith("451 4.3.0")
    house.write("virtual", "to@names.test ada@home.test, other@names.test\nother@names.test bob@home.test\n")
    house.look()
    assert await house.ends("to@names.test") == ["ada@home.test", "bob@home.test"]


async def test_nothing_is_kept_of_what_was_found_without_asking(tmp_path: Path) -> None:
    house = House(tmp_path)
    address = Address("sales", "names.test")
    assert house.tables._aliases.ends(address, house.tables._has_box) is not None
    assert not house.tables._aliases.leads(address)


async def test_a_mailbox_that_has_not_moved_any_more_counts(tmp_path: Path) -> None:
    settings = SETTINGS.replace("[[listener]]", '[rewrite]\nrelocated_maps = ["moved"]\n[[listener]]', 1)
    more = f'[[map]]\nname = "moved"\nkind = "text"\nfile = "{tmp_path}/moved"\n'
    (tmp_path / "moved").write_text("gone@home.test new@far.test\n")
    house = House(tmp_path, "lost@names.test gone@home.test\n", more=more, settings=settings)
    assert await house.ends("lost@names.test") == ["gone@home.test"]
    assert house.tables._aliases.leads(Address("lost", "names.test"))
    house.write("moved", "other@home.test new@far.test\n")
    house.look()
    assert await house.ends("lost@names.test") == ["lost@names.test"]


async def test_a_catch_all_ends_for_a_new_mailbox(tmp_path: Path) -> None:
    house = House(tmp_path, "@home.test eve@far.test\n")
    assert await house.ends("zoe@home.test") == ["eve@far.test"]
    house.write("people", "zoe@home.test 1\n")
    house.look()
    assert await house.ends("zoe@home.test") == ["zoe@home.test"]
    assert await house.ends("yan@home.test") == ["eve@far.test"]
    house.write("boxes", "yan\n")
    house.look()
    assert await house.ends("yan@home.test") == ["yan@home.test"]


async def test_a_file_within_another_map_counts_at_once_too(tmp_path: Path) -> None:
    more = '[[map]]\nname = "all"\nkind = "union"\nmaps = ["virtual"]\n'
    house = House(tmp_path, more=more, settings=SETTINGS.replace('alias_maps = ["virtual"]', 'alias_maps = ["all"]'))
    assert await house.ends("sales@names.test") == ["ada@home.test", "eve@far.test"]
    assert house.tables._aliases.leads(Address("sales", "names.test"))
    house.write("virtual", "sales@names.test bob@home.test\n")
    house.look()
    assert await house.ends("sales@names.test") == ["bob@home.test"]


async def test_patterns_lead_each_mailbox_elsewhere(tmp_path: Path) -> None:
    settings = SETTINGS.replace('name = "virtual"\nkind = "text"', 'name = "virtual"\nkind = "pcre"')
    house = House(tmp_path, "/^(.*)[+]to@names[.]test$/ ${1}@far.test\n", settings=settings)
    for _ in range(2):
        for name in ("a", "A", "b"):
            assert await house.ends(f"{name}+to@names.test") == [f"{name}@far.test"]


async def test_a_domain_that_becomes_ours_counts(tmp_path: Path) -> None:
    more = f"""
[[domain]]
domain_maps = ["ours"]
recipients = ["zoe"]
path = "{tmp_path}/{{domain}}/{{local_part}}"
[[map]]
name = "ours"
kind = "text"
file = "{tmp_path}/ours"
"""
    (tmp_path / "ours").write_text("other.test 1\n")
    house = House(tmp_path, "to@names.test ada@home.test, gone@late.test\n", more=more)
    assert await house.ends("to@names.test") == ["ada@home.test", "gone@late.test"]
    house.write("ours", "late.test 1\n")
    house.look()
    mapped = house.tables.routing.mapped
    assert mapped is not None
    mapped.fresh.clear()
    mapped._kept.clear()  # as if they had grown old
    assert (await house.rcpt("gone@late.test")).startswith("550 5.1.1")
    assert await house.ends("to@names.test") == ["ada@home.test"]


async def test_what_one_message_may_not_pass_again_is_kept_for_no_other(tmp_path: Path) -> None:
    house = House(tmp_path, "to@names.test ada@home.test, x@names.test\nx@names.test bob@home.test\n")
    recipients = (Recipient(Address("to", "names.test")),)
    found = house.tables.expand(1, 1, recipients, lambda alias: alias.local_part == "x")
    assert isinstance(found, Expansion) and [str(each.address) for each in found.recipients] == ["ada@home.test"]
    assert await house.ends("to@names.test") == ["ada@home.test", "bob@home.test"]


async def test_the_owner_of_a_list_is_kept_with_it(tmp_path: Path) -> None:
    house = House(tmp_path, "list@names.test ada@home.test\nowner-list@names.test bob@home.test\n")
    recipients = (Recipient(Address("list", "names.test")), Recipient(Address("bob", "home.test")))
    first, second = (house.tables.expand(1, 1, recipients) for _ in range(2))
    assert first == second and isinstance(first, Expansion)
    assert [each.sender for each in first.recipients] == [Address("owner-list", "names.test"), None]


@pytest.mark.parametrize("name", ["@", "@mx.home.test"])
async def test_mailboxes_of_the_node_itself_are_never_elsewhere(tmp_path: Path, name: str) -> None:
    house = House(tmp_path)
    for _ in range(2):
        assert await house.ends(f"postmaster{name}") == ["root@far.test"]
