"""The supervisor's guard: who is banned when, and what workers hear of it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from postroad.check import bans as kept
from postroad.check.banning import BanRequest
from postroad.check.bans import Bans
from postroad.config.load import load
from postroad.config.settings import Settings
from postroad.node.frames import BansTold, TallyForgotten, ToWorker
from postroad.node.offices.guard import Guard

TRUSTING = '[[listener]]\nname = "a"\nrole = "relay"\ntrusted_networks = ["192.0.2.0/24", "unix"]\n'
NOW_US = 1_790_000_000_000_000


class Place:
    """A guard with one worker; its frames and lines."""

    def __init__(self, folder: Path, text: str = "") -> None:
        (folder / "state").mkdir(exist_ok=True)
        path = folder / "postroad.toml"
        path.write_text(f'hostname = "mx.example.org"\nstate_dir = "{folder}/state"\n{text}')
        found = load(path)
        assert isinstance(found, Settings), found
        self.settings, self.now_us = found, NOW_US
        self.frames: list[ToWorker] = []
        self.said: list[str] = []
        self.guard = Guard(
            lambda: self.settings, lambda number, frame: self.frames.append(frame), lambda: [0], lambda: [0],
            lambda: self.now_us, lambda level, text: self.said.append(text),
        )  # fmt: skip
        assert self.guard.load() == ""
        self.guard.worker_starts(0)
        self.guard.worker_up(0)
        self.frames.clear()

    def count(self, key: str, times: int) -> None:
        window_us = int(self.settings.bans.window_s * 1e6)
        self.guard.take_counts(0, ({}, ((-1, {}, {}), (self.now_us // window_us, {key: times}, {}))))

    def ask(self, action: str, **more: Any) -> Any:
        return self.run(lambda: self.guard.asked(BanRequest(action, **more)))

    def run(self, work: Callable[[], Any]) -> Any:
        async def whole() -> Any:
            answer = await work()
            self.guard.look()
            return answer

        return asyncio.run(whole())

    def banned(self) -> list[str]:
        return [each.subject for each in self.ask("list")]

    def in_file(self) -> list[str]:
        found = kept.read(Path(self.settings.state_dir))
        assert isinstance(found, Bans)
        return [each.subject for each in found]


@pytest.mark.parametrize(
    ("text", "key", "times", "banned"),
    [
        ("", "f192.0.2.1", 19, []),
        ("", "f192.0.2.1", 20, ["192.0.2.1"]),
        ("", "f2001:db8::/64", 20, ["2001:db8::/64"]),
        ("", "o192.0.2.1", 10, ["192.0.2.1"]),
        ("", "fnet 192.0.2.0/24", 99, []),
        ("", "fnet 192.0.2.0/24", 100, ["192.0.2.0/24"]),
        ("", "fnet 2001:db8::/48", 100, ["2001:db8::/48"]),
        ("[bans]\nnetwork_failures_max = 0\n", "fnet 192.0.2.0/24", 1000, []),
        ('[bans]\nexempt = ["192.0.2.7"]\n', "fnet 192.0.2.0/24", 1000, []),
        ("", "l192.0.2.1", 1000, []),
        ("[bans]\nfailures_max = 0\n", "f192.0.2.1", 1000, []),
        ("", "aann", 1000, []),
        ("[bans]\naccount_failures_max = 5\n", "aann", 5, ["ann"]),
        ("", "f127.0.0.1", 1000, []),
        ("", "f::/64", 1000, []),
        ('[bans]\nexempt = ["192.0.2.0/24"]\n', "f192.0.2.1", 1000, []),
        (TRUSTING, "o192.0.2.1", 1000, []),
    ],
)
def test_what_leads_to_a_ban(tmp_path: Path, text: str, key: str, times: int, banned: list[str]) -> None:
    place = Place(tmp_path, text)
    place.count(key, times)
    assert place.banned() == banned
    assert [type(frame) for frame in place.frames] == ([BansTold] if banned else [])
    assert len(place.said) == len(banned) and all("postroad bans lift" in line for line in place.said)
    assert place.guard.count == len(banned)


def test_a_ban_ends_and_what_led_to_it_is_forgotten(tmp_path: Path) -> None:
    place = Place(tmp_path, "[bans]\ntime_s = 60\n")
    place.count("f192.0.2.1", 20)
    place.count("f192.0.2.1", 21)  # one that was on its way changes nothing
    assert len(place.said) == 1
    place.now_us += 61_000_000
    assert place.banned() == [] and "has ended" in place.said[-1]
    assert BansTold((), ("192.0.2.1",)) in place.frames
    assert TallyForgotten(("o192.0.2.1", "f192.0.2.1")) in place.frames
    assert place.in_file() == []
    place.count("f192.0.2.1", 1)
    assert place.banned() == []


def test_a_ban_of_a_network_that_is_lifted_does_not_come_back_at_once(tmp_path: Path) -> None:
    place = Place(tmp_path)
    place.count("fnet 192.0.2.0/24", 100)
    place.ask("lift", subjects=("192.0.2.0/24",))
    assert any(isinstance(frame, TallyForgotten) and "fnet 192.0.2.0/24" in frame.keys for frame in place.frames)
    place.count("fnet 192.0.2.0/24", 1)
    assert place.banned() == []


def test_what_an_operator_does_is_in_the_file_when_he_is_told(tmp_path: Path) -> None:
    place = Place(tmp_path)
    rows = place.ask("add", subjects=("192.0.2.0/24", "ann"), for_s=60.0, reason="spam", by="root")
    assert [(row.subject, row.text) for row in rows] == [("192.0.2.0/24", "banned"), ("ann", "banned")]
    assert place.in_file() == ["192.0.2.0/24", "ann"]
    assert [row.text for row in place.ask("lift", subjects=("ann", "bob"))] == ["lifted", "is not banned"]
    assert place.in_file() == ["192.0.2.0/24"]
    again = Place(tmp_path)
    assert again.banned() == ["192.0.2.0/24"]
    again.guard.worker_starts(1)
    told = again.frames[-1]
    assert isinstance(told, BansTold) and len(told.added) == 1


def test_a_ban_that_is_lifted_does_not_come_back_at_once(tmp_path: Path) -> None:
    place = Place(tmp_path)
    place.count("f192.0.2.1", 20)
    place.ask("lift", subjects=("192.0.2.1",))
    assert TallyForgotten(("o192.0.2.1", "f192.0.2.1")) in place.frames
    place.count("f192.0.2.1", 1)
    assert place.banned() == []


def test_a_file_that_cannot_be_written_is_told_and_the_ban_holds(tmp_path: Path) -> None:
    place = Place(tmp_path)
    (tmp_path / "state" / "bans.json").mkdir()
    answer = place.ask("add", subjects=("192.0.2.1",))
    assert isinstance(answer, str) and "cannot be kept" in answer
    assert place.guard.count == 1


def test_a_file_that_is_no_list_of_bans_stops_the_start(tmp_path: Path) -> None:
    place = Place(tmp_path)
    (tmp_path / "state" / "bans.json").write_text("{")
    assert "Remove the file" in place.guard.load()


@pytest.mark.parametrize("asked", [BanRequest("eat"), BanRequest("add", reason="\n"), BanRequest("add", for_s=-1.0)])
def test_what_is_no_request(tmp_path: Path, asked: BanRequest) -> None:
    place = Place(tmp_path)
    assert isinstance(place.run(lambda: place.guard.asked(asked)), str)


def test_the_log_has_end_and_reason_of_what_an_operator_bans(tmp_path: Path) -> None:
    place = Place(tmp_path)
    place.now_us = 1_800_000_000_000_000
    place.ask("add", subjects=("192.0.2.1",), for_s=60.0, reason="spam", by="root")
    place.ask("add", subjects=("192.0.2.2",), for_s=0.0, by="root")
    assert place.said == [
        "192.0.2.1: banned by root, until 2027-01-15T08:01:00Z: spam", "192.0.2.2: banned by root, for ever",
    ]  # fmt: skip
