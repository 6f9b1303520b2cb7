"""Permits: the node's count of connections per scope is never passed, adapts, and nobody waits for ever."""

from __future__ import annotations

import random
from collections.abc import Callable

import pytest

from postroad.node.frames import AskPermits, FromWorker, Granted, OpeningFailed, ReleasePermit, Succeeded, ToWorker
from postroad.node.offices.permits import PermitOffice, WorkerPermits
from postroad.queue.pace import UNLIMITED, ScopeLimits


class Node:
    """An office and its workers, frames delivered at once. `limit` holds for scopes that `limits` does not name."""

    def __init__(self, workers: int, limit: int, start: int = 0, limits: dict[str, ScopeLimits] | None = None) -> None:
        self.now = 0.0
        self.limits = limits or {}
        self.limit = ScopeLimits(limit, start or limit)
        self.office = PermitOffice(lambda scope: self.limits.get(scope, self.limit), self._to_worker, lambda: self.now)
        self.workers = [WorkerPermits(lambda frame, n=number: self._to_office(n, frame)) for number in range(workers)]
        self.wanted: list[int] = []

    def _to_worker(self, number: int, frame: ToWorker) -> None:
        if isinstance(frame, Granted):
            self.workers[number].received(frame)
        else:
            self.wanted.append(number)

    def _to_office(self, number: int, frame: FromWorker) -> None:
        match frame:
            case AskPermits(scopes, count):
                self.office.ask(number, scopes, count)
            case ReleasePermit(scopes):
                self.office.release(number, scopes)
            case Succeeded(scopes, count):
                self.office.succeeded(scopes, count)
            case OpeningFailed(scopes, others):
                self.office.refused(scopes, others=others)

    def take(self, number: int, *scopes: str, count: int = 1) -> list[int]:
        """Asks; what was granted is added to the list, at once or later."""
        got: list[int] = []
        self.workers[number].acquire(scopes or ("x",), count, got.append)
        return got

    def give(self, number: int, *scopes: str) -> None:
        self.workers[number].release(scopes or ("x",))


def test_granted_up_to_the_limit_then_as_they_come_back() -> None:
    node = Node(2, 3)
    assert node.take(0, count=2) == [2] and node.take(1, count=5) == [1]
    waits = node.take(0)
    assert waits == [] and node.office.counts() == {"x": 3}
    node.give(1)
    assert waits == [1] and node.office.counts() == {"x": 3}


def test_destinations_do_not_share() -> None:
    node = Node(1, 1)
    assert node.take(0, "x") == [1] and node.take(0, "y") == [1]


def test_a_scope_that_several_share_limits_them_together() -> None:
    node = Node(2, 5, limits={"provider:p": ScopeLimits(3, 3)})
    assert node.take(0, "x", "provider:p", count=2) == [2]
    assert node.take(1, "y", "provider:p", count=4) == [1]
    waits = node.take(0, "z", "provider:p")
    assert waits == [] and node.office.counts() == {"x": 2, "y": 1, "provider:p": 3}
    node.give(0, "x", "provider:p")
    assert waits == [1] and node.office.counts() == {"x": 1, "y": 1, "z": 1, "provider:p": 3}


def test_who_waits_for_one_scope_does_not_hold_another() -> None:
    node = Node(2, 1, limits={"provider:p": ScopeLimits(1, 1)})
    assert node.take(0, "x", "provider:p") == [1]
    waits = node.take(0, "y", "provider:p")
    assert waits == [] and node.take(1, "y") == [1], "y is free as long as the provider has no room"
    node.give(0, "x", "provider:p")
    assert waits == [], "now y itself has none"
    node.give(1, "y")
    assert waits == [1] and node.office.counts() == {"y": 1, "provider:p": 1}


def test_a_worker_whose_destinations_share_a_scope_is_asked_for_the_sake_of_its_own() -> None:
    node = Node(1, 9, limits={"provider:p": ScopeLimits(2, 2)})
    node.take(0, "x", "provider:p", count=2)
    node.take(0, "y", "provider:p")
    assert node.wanted == [0]


def test_the_one_that_holds_most_is_asked_to_give_up_one() -> None:
    node = Node(2, 4)
    node.take(0, count=4)
    node.take(1)
    assert node.wanted == [0]


def test_nobody_is_asked_below_the_fair_share() -> None:
    node = Node(2, 2)
    node.take(0)
    node.take(1)
    node.take(1)
    assert node.wanted == []


def test_a_dead_worker_gives_back_all_and_asks_no_more() -> None:
    node = Node(2, 2)
    node.take(0, count=2)
    dead, alive = node.take(0), node.take(1)
    node.office.worker_died(0)
    assert (dead, alive) == ([], [1]) and node.office.counts() == {"x": 1}


def test_releasing_what_is_not_held_changes_nothing() -> None:
    node = Node(1, 1)
    node.give(0)
    assert node.office.counts() == {}


@pytest.mark.parametrize("seed", range(5))
def test_whatever_happens_the_limits_hold_and_all_are_served(seed: int) -> None:
    chance = random.Random(seed)
    limits = {"provider:p": ScopeLimits(5, 2), "host:h": ScopeLimits(4, 4)}
    node = Node(3, 4, 2, limits)
    kinds = [("x",), ("y", "provider:p"), ("z", "host:h", "provider:p")]
    held: list[tuple[int, tuple[str, ...]]] = []
    open_: set[tuple[int, str]] = set()
    served = asked = 0

    def granted(number: int, scopes: tuple[str, ...]) -> Callable[[int], None]:
        def note(count: int) -> None:
            nonlocal served
            served += 1
            open_.discard((number, scopes[0]))
            held.extend([(number, scopes)] * count)

        return note

    def check() -> None:
        counts: dict[str, int] = {}
        for _, scopes in held:
            for scope in scopes:
                counts[scope] = counts.get(scope, 0) + 1
        assert counts == node.office.counts()
        for scope, count in counts.items():
            assert count <= limits.get(scope, node.limit).most

    for _ in range(3000):
        number, scopes = chance.randrange(3), chance.choice(kinds)
        match chance.randrange(8):
            case 0 | 1 | 2 if (number, scopes[0]) not in open_:
                asked += 1
                open_.add((number, scopes[0]))
                node.workers[number].acquire(scopes, chance.randrange(1, 4), granted(number, scopes))
            case 3 | 4 | 5 if held:
                number, scopes = held.pop(chance.randrange(len(held)))
                node.give(number, *scopes)
            case 6:
                node.workers[number].succeeded(scopes, chance.randrange(5))
            case 7 if chance.random() < 0.3:
                node.workers[number].refused(scopes, chance.random() < 0.5)
        check()
        if chance.random() < 0.02:
            node.now += 100
            node.office.remind()
    while held:
        number, scopes = held.pop()
        node.give(number, *scopes)
    assert served == asked and node.office.counts() == {}
    node.now += 10_000
    node.office.remind()
    node.now += 10_000
    node.office.remind()
    assert not node.office._counts, "what nobody uses is forgotten"


def test_with_fewer_permits_than_workers_they_go_round() -> None:
    """A courier of local mail is kept for ever: only its worker can give its permit to another one."""
    node = Node(3, 1)
    granted = [node.take(number) for number in range(3)]
    assert granted == [[1], [], []] and set(node.wanted) == {0}
    node.wanted.clear()
    node.give(0)
    assert granted == [[1], [1], []] and node.wanted == [1], "the third one still waits"
    node.give(1)
    assert granted == [[1], [1], [1]]


def test_who_had_none_to_give_is_reminded() -> None:
    node = Node(2, 1)
    node.take(0)
    node.take(1)
    node.wanted.clear()
    node.office.remind()
    assert node.wanted == [0]
    node.give(0)
    node.wanted.clear()
    node.office.remind()
    assert node.wanted == []


def test_connections_do_not_go_to_and_fro_when_both_want_more() -> None:
    node = Node(2, 20)
    node.take(0, count=20)
    node.take(0)
    node.take(1)
    moved = 0
    while node.wanted:
        number = node.wanted.pop()
        moved += 1
        assert moved <= 10, "connections are closed and opened to and fro"
        node.give(number)
        node.take(1)  # each has far more to do than there are permits, and asks again
    assert moved == 10 and node.office._counts["x"].held == {0: 10, 1: 10}
    node.office.remind()
    assert not node.wanted


# -- the window


def test_the_window_begins_at_its_start_and_grows_by_one_for_as_many_successes_as_it_is_wide() -> None:
    node = Node(1, 10, 4)
    assert node.take(0, count=10) == [4]
    waits = node.take(0, count=10)
    node.workers[0].succeeded(("x",), 3)
    assert waits == []
    node.workers[0].succeeded(("x",), 1)
    assert waits == [1] and node.office.usage("x") == (5, 5, 10)
    node.workers[0].succeeded(("x",), 1000)
    assert node.office.usage("x") == (5, 10, 10), "never above its limit"


def test_the_window_falls_by_half_where_nothing_can_be_reached_and_never_below_one() -> None:
    node = Node(1, 20, 8)
    node.take(0, count=8)
    seen = []
    for _ in range(5):
        node.workers[0].refused(("x",), False)
        node.give(0)
        seen.append(node.office.usage("x")[1])
    assert seen == [4, 2, 1, 1, 1]


def test_where_only_further_connections_are_refused_it_stays_at_those_that_work() -> None:
    node = Node(1, 20, 20)
    node.take(0, count=11)
    node.workers[0].refused(("x",), True)
    node.give(0)
    assert node.office.usage("x") == (10, 10, 20)


def test_what_was_refused_is_tried_again_more_and_more_seldom() -> None:
    node = Node(1, 20, 10)
    node.take(0, count=10)
    needed = []
    for _ in range(3):
        waits, count = node.take(0), 0
        while not waits:
            node.workers[0].succeeded(("x",), 1)
            count += 1
        needed.append(count)
        node.workers[0].refused(("x",), True)
        node.give(0)
    assert needed == [10, 20, 40]


def test_a_window_that_has_found_its_measure_is_remembered_for_a_while() -> None:
    node = Node(1, 20, 5)
    node.take(0, count=5)
    node.workers[0].succeeded(("x",), 5)
    for _ in range(5):
        node.give(0)
    node.now = 500.0
    node.office.remind()
    assert node.office.usage("x") == (0, 6, 20)
    node.now = 700.0
    node.office.remind()
    assert node.office.usage("x") == (0, 5, 20)


def test_a_scope_without_a_number_does_not_adapt() -> None:
    node = Node(1, 20, 20, {"provider:p": ScopeLimits(UNLIMITED, UNLIMITED)})
    node.take(0, "x", "provider:p", count=4)
    node.workers[0].refused(("x", "provider:p"), True)
    assert node.office.usage("provider:p") == (4, UNLIMITED, UNLIMITED)


def test_a_limit_that_a_reload_has_lowered_holds_for_new_ones() -> None:
    node = Node(1, 10)
    node.take(0, count=4)
    node.limit = ScopeLimits(3, 3)
    waits = node.take(0)
    node.give(0)
    assert waits == []
    node.give(0)
    assert waits == [1]
    more = node.take(0)
    node.limit = ScopeLimits(9, 9)
    node.office.remind()
    assert more == [1], "and one that a reload has raised"
