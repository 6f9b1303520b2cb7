"""Rates: in no span of a rate's length are more tokens given than it says, and all who ask get theirs."""

from __future__ import annotations

import heapq
import random
from collections.abc import Callable

import pytest

from postroad.node.frames import TokensGranted, ToWorker
from postroad.node.offices.rates import RateOffice
from postroad.queue.pace import Rate, ScopeLimits


class _Timer:
    def __init__(self, work: Callable[[], None]) -> None:
        self.work = work
        self.cancelled = False

    def cancel(self) -> None:
        self.cancelled = True


class Node:
    """An office on a clock of its own. `given`: (time, worker, key, tokens)."""

    def __init__(self, **rates: Rate | None) -> None:
        self.now = 1000.0
        self.rates = rates
        self.given: list[tuple[float, int, str, int]] = []
        self._timers: list[tuple[float, int, _Timer]] = []
        self._number = 0
        self.office = RateOffice(
            lambda scope: ScopeLimits(10, 10, self.rates.get(scope)), self._send, lambda: self.now, self._later
        )
        self.again: Callable[[int, str], None] = lambda worker, key: None

    def _send(self, worker: int, frame: ToWorker) -> None:
        assert isinstance(frame, TokensGranted)
        self.given.append((self.now, worker, frame.destination_key, frame.count))
        self.again(worker, frame.destination_key)

    def _later(self, seconds: float, work: Callable[[], None]) -> _Timer:
        timer = _Timer(work)
        self._number += 1
        heapq.heappush(self._timers, (self.now + seconds, self._number, timer))
        return timer

    def run(self, seconds: float) -> None:
        end = self.now + seconds
        while self._timers and self._timers[0][0] <= end:
            at, _, timer = heapq.heappop(self._timers)
            self.now = max(self.now, at)
            if not timer.cancelled:
                timer.work()
        self.now = end

    def most_within(self, span_s: float) -> int:
        """The most tokens in any half-open span of this length."""
        return max(
            (sum(n for at, _, _, n in self.given if begin <= at < begin + span_s) for begin, *_ in self.given),
            default=0,
        )


@pytest.mark.parametrize("rate", [Rate(1, 10.0), Rate(2, 10.0), Rate(7, 1.0), Rate(100, 60.0), Rate(1000, 1.0)])
def test_never_more_than_the_rate_and_nearly_as_much(rate: Rate) -> None:
    node = Node(x=rate)
    node.again = lambda worker, key: node.office.ask(worker, key, ("x",), 50)
    node.office.ask(0, "x", ("x",), 50)
    node.office.ask(1, "x", ("x",), 50)
    node.run(rate.period_s * 5)
    assert node.most_within(rate.period_s * (1 - 1e-6)) <= rate.messages
    assert sum(given[3] for given in node.given) >= 0.85 * 5 * rate.messages


def test_a_pause_earns_no_more_than_a_tenth_at_once() -> None:
    node = Node(x=Rate(100, 60.0))
    node.run(100_000)
    node.office.ask(0, "x", ("x",), 100)
    assert [given[3] for given in node.given] == [10]


def test_both_rates_of_a_destination_hold_and_a_waiting_one_does_not_use_up_the_other() -> None:
    node = Node(x=Rate(1, 100.0), p=Rate(10, 100.0))
    for _ in range(3):
        node.office.ask(0, "x", ("x", "p"), 1)
    for _ in range(9):
        node.office.ask(0, "y", ("p",), 1)
    node.run(100.0 - 0.001)
    assert [given[2] for given in node.given].count("x") == 1
    assert [given[2] for given in node.given].count("y") == 9, "those of x that wait for x leave p alone"


def test_questions_are_served_in_order() -> None:
    node = Node(x=Rate(1, 1.0))
    for worker in (0, 1, 2, 0, 1):
        node.office.ask(worker, f"k{worker}", ("x",), 3)
    node.run(10)
    assert [given[1] for given in node.given] == [0, 1, 2, 0, 1]
    assert [given[3] for given in node.given] == [1] * 5


def test_the_questions_of_a_dead_worker_are_void() -> None:
    node = Node(x=Rate(1, 1.0))
    for worker in (0, 1, 0, 2):
        node.office.ask(worker, "k", ("x",), 1)
    node.office.worker_died(1)
    node.run(10)
    assert [given[1] for given in node.given] == [0, 0, 2]


def test_a_reload_that_takes_the_rate_away_lets_all_go_and_one_that_brings_one_begins_without_a_burst() -> None:
    node = Node(x=Rate(1, 1000.0))
    for _ in range(3):
        node.office.ask(0, "k", ("x",), 1)
    assert len(node.given) == 1
    node.rates["x"] = None
    node.run(60.0)  # it is looked at once a minute at least
    assert len(node.given) == 3
    node.rates["x"] = Rate(500, 1000.0)
    node.office.ask(0, "k", ("x",), 500)
    assert node.given[3:] == [] and node.office.wait_s("x") > 0


@pytest.mark.parametrize("seed", range(4))
def test_whoever_asks_whenever(seed: int) -> None:
    chance = random.Random(seed)
    rates = {"x": Rate(20, 30.0), "p": Rate(50, 60.0), "q": Rate(3, 5.0)}
    node = Node(**rates)
    asked = 0
    for _ in range(400):
        scopes = tuple(scope for scope in rates if chance.random() < 0.5) or ("x",)
        node.office.ask(chance.randrange(3), "+".join(scopes), scopes, chance.randrange(1, 9))
        asked += 1
        node.run(chance.random() * 4)
    node.run(10_000)
    assert len(node.given) == asked and all(given[3] >= 1 for given in node.given)
    for scope, rate in rates.items():
        mine = Node()
        mine.given = [given for given in node.given if scope in given[2].split("+")]
        assert mine.most_within(rate.period_s * (1 - 1e-6)) <= rate.messages
