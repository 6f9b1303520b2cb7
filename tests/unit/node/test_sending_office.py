"""The office of sending limits: counts of several workers, over a restart, and what operators see."""

from __future__ import annotations

from pathlib import Path

from postroad.check.sending import WINDOWS_S
from postroad.check.tally import Tally
from postroad.node.frames import NoticeWanted, SendingForgotten, SendingTold, ToWorker
from postroad.node.offices.sending import FILE, SendingOffice
from postroad.operate.requests import LimitsAsked, SentCount

HOUR_US = 3_600_000_000
KEY = "maada@x.test"


class Node:
    """An office with two workers that hear and tell at once."""

    def __init__(self, folder: Path, now_us: int = 1_000 * 24 * HOUR_US + HOUR_US // 2) -> None:
        self.folder, self.now_us = folder, now_us
        self.said: list[tuple[str, str]] = []
        self.notices: list[tuple[int, str]] = []
        self.open()

    def open(self) -> None:
        self.calls: list[object] = []
        self.office = SendingOffice(
            lambda: self.folder, self._send, lambda: [0, 1], lambda: self.now_us,
            lambda level, text: self.said.append((level, text)),
        )
        self.office.load()
        self.workers: dict[int, Tally] = {}
        for number in (0, 1):
            self.start(number)

    def start(self, number: int) -> None:
        tally = self.workers[number] = Tally(
            WINDOWS_S, lambda told: self.office.take_counts(number, told), lambda seconds, call: self.later(call)
        )
        assert tally
        self.office.worker_up(number)

    def later(self, call: object) -> None:
        self.calls.append(call)

    def settle(self) -> None:
        while self.calls:
            call = self.calls.pop(0)
            assert callable(call)
            call()

    def _send(self, number: int, frame: ToWorker) -> None:
        match frame:
            case SendingTold(counts):
                self.workers[number].hear(counts, self.now_us)
            case SendingForgotten(keys):
                self.workers[number].forget(keys)
            case NoticeWanted(text):
                self.notices.append((number, text))

    def sums(self) -> tuple[float, ...]:
        self.settle()
        return tuple(
            self.workers[number].windows[window].total(KEY, self.now_us) for number in (0, 1) for window in (0, 1)
        )

    def count(self, number: int, amount: int = 1) -> None:
        for window in (0, 1):
            self.workers[number].count(window, KEY, self.now_us, amount)


async def test_each_worker_knows_the_sum_and_a_restart_forgets_nothing(tmp_path: Path) -> None:
    node = Node(tmp_path)
    for number in (0, 1, 1):
        node.count(number)
    assert node.sums() == (3, 3, 3, 3)
    await node.office.close()
    node.open()
    assert node.sums() == (3, 3, 3, 3)
    node.count(0)
    assert node.sums() == (4, 4, 4, 4)
    node.office.worker_died(1)
    node.start(1)
    assert node.sums() == (4, 4, 4, 4)


async def test_after_a_restart_in_the_next_hour_the_last_hour_counts_as_far_as_it_should(tmp_path: Path) -> None:
    node = Node(tmp_path)
    node.count(0, 8)
    node.settle()
    await node.office.close()
    node.now_us += HOUR_US  # 8 of the last hour, half of which is within 60 minutes
    node.open()
    assert node.sums() == (4, 8, 4, 8)
    node.count(1, 2)
    assert node.sums() == (6, 10, 6, 10)


async def test_the_file_is_written_after_a_while_and_a_broken_one_is_told(tmp_path: Path) -> None:
    node = Node(tmp_path)
    node.count(0)
    node.settle()
    node.office.look()
    await node.office.close()
    assert (tmp_path / FILE).stat().st_mode & 0o777 == 0o600
    (tmp_path / FILE).write_bytes(b"broken")
    node.open()
    assert node.sums() == (0, 0, 0, 0)
    assert node.said[-1][0] == "error" and "start again from 0" in node.said[-1][1]
    (tmp_path / FILE).unlink()
    (tmp_path / FILE).mkdir()
    node.count(0)
    node.settle()
    await node.office.close()
    assert "cannot be kept" in node.said[-1][1]


async def test_the_postmaster_is_told_once_in_a_day(tmp_path: Path) -> None:
    node = Node(tmp_path)
    for number in (0, 1, 0):
        node.office.reached(number, KEY, "the limit is reached")
    assert node.notices == [(0, "the limit is reached")]
    await node.office.close()
    node.open()
    node.office.reached(1, KEY, "the limit is reached")
    assert len(node.notices) == 1
    node.now_us += 25 * HOUR_US
    node.office.reached(1, KEY, "the limit is reached")
    assert node.notices[1:] == [(1, "the limit is reached")]


async def test_an_operator_sees_the_counts_and_resets_them(tmp_path: Path) -> None:
    node = Node(tmp_path)
    node.count(0, 2)
    node.workers[1].count(1, "rsx@y.test", node.now_us, 7)
    node.workers[1].count(1, "haada@x.test", node.now_us, 3)
    node.workers[1].count(1, "zaada@x.test", node.now_us, 900)
    node.settle()
    node.office.reached(0, KEY, "reached")
    rows = [
        SentCount("account", "ada@x.test", messages_per_hour=2, messages_per_day=2, noticed_us=node.now_us,
                  held_per_day=3, held_size_per_day=900),
        SentCount("sender", "x@y.test", recipients_per_day=7),
    ]
    assert node.office.asked(LimitsAsked()) == rows
    assert node.office.asked(LimitsAsked(("ADA@x.test",))) == rows[:1]
    assert node.office.asked(LimitsAsked(("ada@x.test",), reset=True)) == rows[:1]
    assert node.sums() == (0, 0, 0, 0)
    assert node.office.asked(LimitsAsked()) == rows[1:]
    node.count(1)
    assert node.sums() == (1, 1, 1, 1)
    node.office.reached(0, KEY, "reached")
    assert len(node.notices) == 2
