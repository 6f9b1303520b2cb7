"""The supervisor's office of keys: looks at the DNS, changes of state, restarts, and commands at the same time."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from postroad.config.load import load
from postroad.config.settings import Settings
from postroad.node.offices.keys import KeyOffice
from postroad.operate import signing_keys
from postroad.operate.signing_keys import NewKey
from postroad.trust import keyring, rotation
from postroad.trust.dkim_key import KeyKind
from postroad.trust.key_store import KeyStore
from postroad.trust.keyring import DomainKeys
from postroad.world.dns import DnsAnswer, DnsOptions, DnsStatus

DAY_US = 86_400 * 1_000_000
NOW_US = 1_790_000_000_000_000
ED = (NewKey(KeyKind.ED25519),)


class Dns:
    """A resolver that says what a test wants. `asked`: names, in order."""

    def __init__(self) -> None:
        self.records: dict[str, tuple[str, ...]] = {}
        self.broken = False
        self.asked: list[str] = []

    async def text(self, name: str) -> DnsAnswer[str]:
        self.asked.append(name)
        await asyncio.sleep(0)
        if self.broken:
            return DnsAnswer(DnsStatus.ERROR, (), "SERVFAIL")
        found = self.records.get(name, ())
        status = DnsStatus.FOUND if found else DnsStatus.NXDOMAIN
        return DnsAnswer(status, found, expires_us=NOW_US + 600 * 1_000_000)

    def close(self) -> None:
        pass


class Place:
    """An office over a folder; `restart` makes another one over the same."""

    def __init__(self, folder: Path, text: str = "") -> None:
        (folder / "state").mkdir(exist_ok=True)
        path = folder / "postroad.toml"
        path.write_text(f'hostname = "mx.example.org"\nstate_dir = "{folder}/state"\n{text}')
        found = load(path)
        assert isinstance(found, Settings), found
        self.settings, self.now_us, self.dns = found, NOW_US, Dns()
        self.said: list[str] = []
        self.told: list[dict[str, str]] = []  # the states that workers had when they were told
        self.mails: list[tuple[str, tuple[str, ...]]] = []
        self.store = KeyStore(folder / "state" / "dkim", lambda: self.now_us)
        self.restart()

    def restart(self) -> None:
        self.office = KeyOffice(
            lambda: self.settings, lambda options: self.dns, self._tell,  # type: ignore[arg-type, return-value]
            lambda subject, lines: self.mails.append((subject, lines)), lambda: self.now_us,
            lambda level, text: self.said.append(text),
        )  # fmt: skip

    async def _tell(self) -> None:
        self.told.append(self.states())

    def states(self) -> dict[str, str]:
        """As the files say."""
        found = self.store.domain("example.org")
        return {each.selector: each.state.value for each in found.keys} if isinstance(found, DomainKeys) else {}

    def add(self, selector: str, made_us: int = 0) -> None:
        wanted = (NewKey(KeyKind.ED25519, selector=selector),)

        def change(keys: DomainKeys) -> DomainKeys:
            private = [keyring.generate(KeyKind.ED25519, 0)]
            return signing_keys.with_all(keys, wanted, private, made_us or self.now_us)

        signing_keys.changed(self.store, "example.org", change)

    def publish(self, *selectors: str) -> None:
        found = self.store.domain("example.org")
        assert isinstance(found, DomainKeys)
        for selector in selectors:
            key = found.key(selector)
            assert key is not None
            text = keyring.record_text(key)
            assert isinstance(text, str)
            self.dns.records[keyring.record_name(selector, "example.org")] = (text,)

    def run(self, *work: Callable[[], Any], seconds: int = 2) -> None:
        """Some seconds of the office's life; before each, some work."""

        async def whole() -> None:
            for step in work or (lambda: None,):
                done = step()
                if isinstance(done, Awaitable):
                    await done
                for _ in range(seconds):
                    self.office.look()
                    for _ in range(20_000):
                        await asyncio.sleep(0.001)
                        if self.office.is_idle:
                            break
                    self.now_us += 1_000_000
            await self.office.close()

        asyncio.run(whole())


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path)


def test_a_node_without_keys_asks_nobody(place: Place) -> None:
    place.run(seconds=5)
    assert (place.dns.asked, place.said, place.told) == ([], [], [])
    assert place.office.summary().domains == 0


def test_a_key_signs_when_its_record_is_seen_and_workers_know_before_the_log_says_so(place: Place) -> None:
    place.add("a")
    place.run(seconds=8)
    assert place.states() == {"a": "waiting"}
    assert len(place.dns.asked) >= 2
    place.restart()
    place.publish("a")
    place.run(seconds=3)
    assert place.states() == {"a": "signing"}
    assert place.told[-1] == {"a": "signing"}
    assert place.said == ["the key a of example.org signs from now on: its record is in the DNS"]


def test_the_old_key_is_out_of_use_at_once_and_later_removable_over_restarts(place: Place) -> None:
    place.add("a", 1)
    place.publish("a")
    place.run()
    place.add("b")
    place.publish("b")
    place.restart()
    place.run(seconds=3)
    assert place.states() == {"a": "retired", "b": "signing"}
    assert place.told[-1] == place.states()
    place.restart()
    place.now_us += 4 * DAY_US
    place.run()
    assert place.states()["a"] == "retired"
    place.now_us += 2 * DAY_US
    place.restart()
    place.run()
    assert place.states() == {"a": "removable", "b": "signing"}
    assert sum("is not needed any more" in each for each in place.said) == 1
    place.restart()
    place.run()
    assert sum("is not needed any more" in each for each in place.said) == 1


@pytest.mark.parametrize("broken", [True, False])
def test_a_dns_that_fails_or_has_an_old_key_changes_nothing_but_what_is_told(place: Place, broken: bool) -> None:
    place.add("a", 1)
    place.publish("a")
    place.run()
    place.add("b")
    place.publish("b")
    place.dns.broken = broken
    place.dns.records["b._domainkey.example.org"] = place.dns.records["a._domainkey.example.org"]
    place.run(seconds=3)
    assert place.states() == {"a": "signing", "b": "waiting"}
    wanted = "the DNS did not answer: SERVFAIL" if broken else "has another key"
    [told] = [each for each in place.office.summary().told if each.startswith("b ")]
    assert wanted in told


def test_a_record_that_vanishes_is_told_once_and_the_key_signs_on(place: Place) -> None:
    place.add("a")
    place.publish("a")
    place.run()
    del place.dns.records["a._domainkey.example.org"]
    for _ in range(2):
        place.now_us += 3_700 * 1_000_000
        place.run()
    assert place.states() == {"a": "signing"}
    assert sum("receivers cannot verify the mail of example.org that a signs" in each for each in place.said) == 1
    place.publish("a")
    place.now_us += 3_700 * 1_000_000
    place.run()
    assert place.said[-1] == "the record of the key a of example.org is in the DNS again"


def test_keys_that_are_too_old_get_a_successor_and_the_postmaster_hears_of_it_once(tmp_path: Path) -> None:
    place = Place(tmp_path, "[dkim]\nrotate_days = 30\n")
    place.add("a", NOW_US - 1)
    place.publish("a")
    place.run()
    place.now_us += 30 * DAY_US
    place.run(seconds=3)
    [new] = [selector for selector in place.states() if selector != "a"]
    assert place.states() == {"a": "signing", new: "waiting"}
    place.restart()
    place.run(seconds=3)
    [(subject, lines)] = place.mails
    assert "example.org" in subject
    assert any(line.startswith(f"{new}._domainkey.example.org. IN TXT") for line in lines)
    place.publish(new)
    place.run(seconds=8)
    assert place.states() == {"a": "retired", new: "signing"}


def test_a_key_that_waits_for_long_is_told_of_once_also_after_a_restart(place: Place) -> None:
    """The node may have ended before it could tell the postmaster which record to publish."""
    place.add("a")
    waits = "the key a of example.org waits for its record (`postroad dns show example.org`): there is no TXT record "
    place.run(seconds=30)
    assert place.said == []
    place.now_us += 3_600 * 1_000_000
    for count in (1, 2):
        place.restart()
        place.run(seconds=700)
        assert [each.startswith(waits) for each in place.said] == [True] * count
    place.publish("a")
    place.run(seconds=700)
    assert place.states() == {"a": "signing"}
    place.now_us += 3_600 * 1_000_000
    place.run(seconds=10)
    assert len(place.said) == 3 and "signs from now on" in place.said[-1]


def test_the_time_to_live_of_a_record_is_heard_as_it_is(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """The resolver of `[dns]` remembers answers for a day at most."""
    asked: list[DnsOptions] = []

    def made(options: DnsOptions) -> Dns:
        asked.append(options)
        return place.dns

    monkeypatch.setattr(place.office, "_make_resolver", made)
    place.add("a")
    place.run()
    assert [(each.cache_max, each.ttl_max_s) for each in asked] == [(0, rotation.TTL_MAX_S)]


def test_what_a_command_says_is_in_the_log_and_workers_have_it_when_it_ends(place: Place) -> None:
    def command() -> Awaitable[None]:
        place.add("a")
        return place.office.changed(("new key a of example.org, made by root",))

    place.run(command)
    assert place.said == ["new key a of example.org, made by root"]
    assert place.told[0] == {"a": "waiting"}


def test_a_command_that_removes_a_key_during_a_look_wins(place: Place) -> None:
    place.add("a")
    place.publish("a")
    ask = place.dns.text

    async def text(name: str) -> DnsAnswer[str]:
        signing_keys.remove(place.store, "example.org", ("a",), sure=True)
        return await ask(name)

    place.dns.text = text  # type: ignore[method-assign]
    place.run()
    assert place.states() == {}
    assert place.said == []


def test_a_folder_that_cannot_be_written_keeps_everything_as_it_is(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    place.add("a")
    place.publish("a")

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "rename", full)
        place.run(seconds=200)
    assert place.states() == {"a": "waiting"}
    assert place.said == ["the keys of example.org cannot be changed: [Errno 28] No space left on device"]
    place.run(seconds=40)
    assert place.states() == {"a": "signing"}
