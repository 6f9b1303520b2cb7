"""Counts of the whole node: workers that tell, an office that adds up, and the bound of the error."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from postroad.check.tally import KEYS_MAX, Tally, TallyFrame, TallyOffice, Window

SECOND_US = 1_000_000
START_US = 1_790_000_000 * SECOND_US  # the start of a window of 10 s


class Node:
    """Workers and an office whose frames arrive when `tell` is called."""

    def __init__(self, workers: int = 2, limit: int = 10) -> None:
        self.now_us = START_US
        self.limit = limit
        self.over: list[str] = []
        self.timers: list[Callable[[], None]] = []
        self.sent: list[tuple[int, TallyFrame]] = []
        self.office = TallyOffice(1, self._send, lambda key: self.limit, self.over.append)
        self.workers: dict[int, Tally] = {}
        for number in range(workers):
            self.start(number)

    def start(self, number: int) -> Tally:
        tally = self.workers[number] = Tally(
            (10.0,), lambda told: self.office.take_counts(number, told), lambda seconds, call: self.timers.append(call)
        )
        self.office.worker_up(number)
        return tally

    def _send(self, number: int, told: TallyFrame) -> None:
        self.sent.append((number, told))
        self.workers[number].hear(told, self.now_us)

    def tell(self) -> None:
        timers, self.timers = self.timers, []
        for timer in timers:
            timer()

    def count(self, worker: int, times: int = 1, key: str = "c192.0.2.1") -> float:
        return [self.workers[worker].count(0, key, self.now_us) for _ in range(times)][-1]

    def total(self, worker: int, key: str = "c192.0.2.1") -> float:
        return self.workers[worker].windows[0].total(key, self.now_us)


def test_sessions_of_all_workers_are_one_sum() -> None:
    node = Node()
    for _ in range(6):
        node.workers[0].came(("s192.0.2.1",))
    assert node.workers[1].sessions("s192.0.2.1") == 0  # not told yet
    node.tell()
    assert node.workers[1].sessions("s192.0.2.1") == 6
    node.workers[1].came(("s192.0.2.1",))
    node.tell()
    assert [tally.sessions("s192.0.2.1") for tally in node.workers.values()] == [7, 7]
    for _ in range(6):
        node.workers[0].went(("s192.0.2.1",))
    node.tell()
    # One of ten is far from the limit: each knows its own, and nothing of the others that could be out of date.
    assert [tally.sessions("s192.0.2.1") for tally in node.workers.values()] == [0, 1]


def test_who_comes_near_the_limit_hears_what_the_others_had_before() -> None:
    node = Node(limit=6)
    for worker, count in ((0, 2), (1, 4)):  # two are far from the limit: nobody was told of them
        for _ in range(count):
            node.workers[worker].came(("s192.0.2.1",))
        node.count(worker, count)
        node.tell()
    assert [tally.sessions("s192.0.2.1") for tally in node.workers.values()] == [6, 6]
    assert [node.total(worker) for worker in node.workers] == [6, 6]


def test_who_leads_away_from_the_limit_forgets_the_others() -> None:
    node = Node(limit=6)
    for worker, count in ((0, 2), (1, 3)):
        for _ in range(count):
            node.workers[worker].came(("s192.0.2.1",))
        node.tell()
    for worker, count in ((1, 3), (0, 2)):
        for _ in range(count):
            node.workers[worker].went(("s192.0.2.1",))
        node.tell()
    assert [tally.sessions("s192.0.2.1") for tally in node.workers.values()] == [0, 0]


def test_what_is_far_from_its_limit_is_told_to_nobody() -> None:
    node = Node(limit=10)
    node.sent.clear()
    for _ in range(4):
        node.workers[0].came(("s192.0.2.1",))
    node.count(0, 4)
    node.tell()
    assert node.sent == []
    node.limit = 0  # no limit
    node.count(0, 100)
    node.tell()
    assert node.sent == []


def test_one_frame_for_all_that_happens_within_a_moment() -> None:
    node = Node()
    for number in range(100):
        node.workers[0].came((f"s192.0.2.{number}",))
        node.count(0, key=f"c192.0.2.{number}")
    assert len(node.timers) == 1


def test_the_error_is_what_others_let_in_before_they_were_heard() -> None:
    """The bound that the module names: at most what came to the other workers since the last frame."""
    node = Node(workers=3, limit=10)
    let_in = 0
    for _ in range(20):  # each moment one client comes once to each worker
        for worker in node.workers:
            if node.workers[worker].sessions("s") < 10:
                node.workers[worker].came(("s",))
                let_in += 1
        node.tell()
    assert 10 <= let_in <= 10 + (3 - 1)


def test_a_worker_that_dies_takes_its_sessions_with_it_but_not_its_counts() -> None:
    node = Node()
    for _ in range(6):
        node.workers[0].came(("s192.0.2.1",))
    node.count(0, 6)
    node.tell()
    node.office.worker_died(0)
    assert node.workers[1].sessions("s192.0.2.1") == 0
    again = node.start(0)
    assert again.sessions("s192.0.2.1") == 0
    assert node.total(0) == 6  # who died by a client's doing must not set it free
    assert node.count(0) == 7


def test_the_window_slides() -> None:
    node = Node()
    node.count(0, 8)
    node.tell()
    node.now_us += 10 * SECOND_US  # the next window begins: all of the last one still counts
    assert node.total(0) == 8
    node.now_us += 5 * SECOND_US
    assert node.total(0) == 4
    assert node.total(1) == 4  # of the others, too
    node.now_us += 5 * SECOND_US
    assert node.total(0) == 0


def test_a_worker_that_comes_up_hears_of_the_window_before() -> None:
    node = Node()
    node.count(0, 8)
    node.tell()
    node.now_us += 12 * SECOND_US
    node.count(0)
    node.tell()
    node.start(2)
    assert node.total(2) == pytest.approx(1 + 8 * 0.8)


def test_a_clock_that_is_set_back_does_not_stop_the_counting() -> None:
    node = Node()
    node.count(0, 8)
    node.tell()
    node.now_us -= 3600 * SECOND_US
    node.count(0, 10)
    node.tell()
    assert node.over == ["c192.0.2.1"]
    assert node.total(1) == 10


def test_the_office_hears_when_a_sum_has_come_to_its_limit() -> None:
    node = Node(limit=10)
    node.count(0, 5)
    node.tell()
    assert node.over == []
    node.count(1, 5)
    node.tell()
    assert node.over == ["c192.0.2.1"]


def test_what_is_forgotten_begins_anew() -> None:
    node = Node(limit=10)
    node.count(0, 9)
    node.tell()
    node.office.forget(["c192.0.2.1"])
    for tally in node.workers.values():
        tally.forget(["c192.0.2.1"])
    assert node.count(1) == 1
    node.tell()
    assert node.over == []


def test_told_twice_is_told_once() -> None:
    node = Node()
    node.office.take_counts(0, ({"s": 6}, ((START_US // SECOND_US // 10, {"c": 6}, {}),)))
    node.office.take_counts(0, ({"s": 6}, ((START_US // SECOND_US // 10, {"c": 6}, {}),)))
    assert node.workers[1].sessions("s") == 6 and node.total(1, "c") == 6


def test_a_window_holds_no_more_keys_than_its_limit() -> None:
    window = Window(10.0)
    for number in range(3 * KEYS_MAX):
        window.add(str(number), 1, START_US)
    assert len(window.own) <= KEYS_MAX and len(window._own_before) <= KEYS_MAX


def test_nothing_is_left_of_clients_that_are_gone() -> None:
    node = Node()
    for number in range(100):
        node.workers[0].came((f"s{number}",))
        node.workers[0].went((f"s{number}",))
        node.count(0, key=f"c{number}")
    node.tell()
    assert not node.office._sessions and not node.workers[0]._own
    node.now_us += 100 * SECOND_US
    node.count(0)
    node.tell()
    assert list(node.office._now[0]) == ["c192.0.2.1"] and not node.office._before[0]
    assert list(node.workers[0].windows[0].own) == ["c192.0.2.1"]


def test_a_window_of_another_length_begins_anew() -> None:
    node = Node()
    node.count(0, 3)
    node.workers[0].take((10.0,))
    assert node.total(0) == 3
    node.workers[0].take((20.0,))
    assert node.total(0) == 0
