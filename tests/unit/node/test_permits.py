"""Permits: the node's count of connections per destination is never passed, and nobody waits for ever."""

from __future__ import annotations

import random

from postroad.node.permits import PermitOffice, WorkerPermits


class Node:
    """An office and its workers, frames delivered at once."""

    def __init__(self, workers: int, limit: int) -> None:
        self.sent: list[tuple[int, tuple[str, str]]] = []
        self.office = PermitOffice(lambda key: limit, self._to_worker)
        self.workers = [WorkerPermits(lambda frame, n=number: self._to_office(n, frame)) for number in range(workers)]
        self.wanted: list[int] = []

    def _to_worker(self, number: int, frame: tuple[str, str]) -> None:
        kind, key = frame
        if kind == "granted":
            self.workers[number].granted(key)
        else:
            self.wanted.append(number)

    def _to_office(self, number: int, frame: tuple[str, str]) -> None:
        kind, key = frame
        (self.office.ask if kind == "ask" else self.office.release)(number, key)


def test_granted_up_to_the_limit_then_in_order_as_they_come_back() -> None:
    node = Node(2, 3)
    granted: list[int] = []
    for n in range(5):
        node.workers[n % 2].acquire("x", lambda n=n: granted.append(n))
    assert granted == [0, 1, 2] and node.office.counts() == {"x": 3}
    node.workers[0].release("x")
    assert granted == [0, 1, 2, 3] and node.office.counts() == {"x": 3}


def test_destinations_do_not_share() -> None:
    node = Node(1, 1)
    granted: list[str] = []
    node.workers[0].acquire("x", lambda: granted.append("x"))
    node.workers[0].acquire("y", lambda: granted.append("y"))
    assert granted == ["x", "y"]


def test_the_one_that_holds_most_is_asked_to_give_up_one() -> None:
    node = Node(2, 4)
    for _ in range(4):
        node.workers[0].acquire("x", lambda: None)
    node.workers[1].acquire("x", lambda: None)
    assert node.wanted == [0]


def test_nobody_is_asked_below_the_fair_share() -> None:
    node = Node(2, 2)
    node.workers[0].acquire("x", lambda: None)
    node.workers[1].acquire("x", lambda: None)
    node.workers[1].acquire("x", lambda: None)
    assert node.wanted == []


def test_a_dead_worker_gives_back_all_and_asks_no_more() -> None:
    node = Node(2, 2)
    granted: list[str] = []
    node.workers[0].acquire("x", lambda: granted.append("a"))
    node.workers[0].acquire("x", lambda: granted.append("b"))
    node.workers[0].acquire("x", lambda: granted.append("never"))
    node.workers[1].acquire("x", lambda: granted.append("c"))
    node.office.worker_died(0)
    assert granted == ["a", "b", "c"] and node.office.counts() == {"x": 1}


def test_a_grant_that_nobody_waits_for_goes_back() -> None:
    sent: list[tuple[str, str]] = []
    WorkerPermits(sent.append).granted("x")
    assert sent == [("release", "x")]


def test_releasing_what_is_not_held_changes_nothing() -> None:
    node = Node(1, 1)
    node.office.release(0, "x")
    assert node.office.counts() == {}


def test_whatever_happens_the_limit_holds_and_all_are_served() -> None:
    chance = random.Random(7)
    node = Node(3, 4)
    held = [0, 0, 0]
    served = asked = 0

    def granted(number: int) -> None:
        nonlocal served
        served += 1
        held[number] += 1

    for _ in range(5000):
        number = chance.randrange(3)
        if chance.random() < 0.5:
            asked += 1
            node.workers[number].acquire("x", lambda number=number: granted(number))
        elif held[number]:
            held[number] -= 1
            node.workers[number].release("x")
        assert sum(held) <= 4
        assert node.office.counts().get("x", 0) == sum(held)
    while sum(held):
        number = next(n for n in range(3) if held[n])
        held[number] -= 1
        node.workers[number].release("x")
    assert served == asked and node.office.counts() == {}


def test_with_fewer_permits_than_workers_they_go_round() -> None:
    """A courier of local mail is kept for ever: only its worker can give its permit to another one."""
    node = Node(3, 1)
    granted: list[int] = []
    for number in range(3):
        node.workers[number].acquire("x", lambda number=number: granted.append(number))
    assert granted == [0] and set(node.wanted) == {0}
    node.wanted.clear()
    node.workers[0].release("x")
    assert granted == [0, 1] and node.wanted == [1], "the third one still waits"
    node.workers[1].release("x")
    assert granted == [0, 1, 2]


def test_who_had_none_to_give_is_reminded() -> None:
    node = Node(2, 1)
    node.workers[0].acquire("x", lambda: None)
    node.workers[1].acquire("x", lambda: None)
    node.wanted.clear()
    node.office.remind()
    assert node.wanted == [0]
    node.workers[0].release("x")
    node.wanted.clear()
    node.office.remind()
    assert node.wanted == []


def test_connections_do_not_go_to_and_fro_when_both_want_more() -> None:
    node = Node(2, 20)
    for _ in range(20):
        node.workers[0].acquire("x", lambda: None)
    for _ in range(30):  # both have far more to do than there are permits
        node.workers[0].acquire("x", lambda: None)
        node.workers[1].acquire("x", lambda: None)
    moved = 0
    while node.wanted:
        number = node.wanted.pop()
        moved += 1
        assert moved <= 10, "connections are closed and opened to and fro"
        node.workers[number].release("x")
        node.workers[number].acquire("x", lambda: None)
    assert moved == 10 and node.office._held["x"] == {0: 10, 1: 10}
    node.office.remind()
    assert not node.wanted
