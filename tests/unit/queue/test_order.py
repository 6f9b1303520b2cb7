"""Turns: senders take turns, each sender's own mail goes in its order."""

from __future__ import annotations

import random

import pytest

from postroad.mail.address import Address
from postroad.mail.envelope import Envelope, Peer, Recipient
from postroad.queue.order import MAILING, FairQueue, source_of


def _turns(*values: tuple[str, int]) -> FairQueue[int]:
    turns: FairQueue[int] = FairQueue()
    for source, value in values:
        turns.add(source, value)
    return turns


def test_sources_take_turns_and_each_keeps_its_order() -> None:
    turns = _turns(("a", 1), ("a", 2), ("a", 3), ("b", 10), ("c", 20), ("b", 11))
    assert [turns.take_next() for _ in range(6)] == [1, 10, 20, 2, 11, 3]
    assert not len(turns)


def test_one_that_comes_late_waits_for_one_turn_only() -> None:
    turns = _turns(*(("mailing", number) for number in range(1000)))
    assert turns.take_next() == 0
    turns.add("somebody", -1)
    assert [turns.take_next(), turns.take_next()] == [1, -1]


def test_what_is_put_first_is_next() -> None:
    turns = _turns(("a", 1), ("b", 2), ("a", 3))
    turns.add_first("b", 4)
    turns.add_first("c", 5)
    assert turns.first() == 5
    assert [turns.take_next() for _ in range(5)] == [5, 4, 1, 2, 3]


def test_a_higher_rank_goes_first_and_its_sources_take_turns() -> None:
    turns = _turns(("a", 1), ("b", 2))
    for source, value, rank in [("a", 10, 4), ("a", 11, 4), ("b", 12, 4), ("a", 90, -4), ("c", 99, 9)]:
        turns.add(source, value, rank)
    assert turns.first() == 99 and turns.count("a") == 4 and len(turns) == 7
    assert [turns.take_next() for _ in range(7)] == [99, 10, 12, 11, 1, 2, 90]


@pytest.mark.parametrize("seed", range(5))
def test_nothing_is_lost_or_taken_twice(seed: int) -> None:
    chance = random.Random(seed)
    turns: FairQueue[int] = FairQueue()
    there: set[int] = set()
    for number in range(2000):
        match chance.randrange(5):
            case 0 | 1 if there:
                assert turns.first() in there
                there.remove(turns.take_next())
            case 2:
                turns.add_first(chance.choice("abc"), number, chance.choice((0, 0, 3)))
                there.add(number)
            case _:
                turns.add(chance.choice("abcdef"), number, chance.choice((0, 0, 0, -2, 3)))
                there.add(number)
        assert len(turns) == len(there) and set(turns) == there
        assert sum(turns.count(source) for source in "abcdef") == len(there)
    assert set(turns.clear()) == there and not len(turns)


def _envelope(sender: str | None, identity: str = "", recipients: int = 1) -> Envelope:
    to = tuple(Recipient(Address(f"r{n}", "y.example")) for n in range(recipients))
    reverse_path = Address(*sender.split("@")) if sender else None
    return Envelope(1, reverse_path, to, 1, 1, Peer(identity=identity))


def test_a_source_is_who_sends_and_his_mailings_are_another() -> None:
    assert source_of(_envelope("a@x.example")) == source_of(_envelope("b@x.example")) == "x.example"
    assert source_of(_envelope("a@x.example", "ada")) == "ada"
    assert source_of(_envelope(None)) == ""
    assert source_of(_envelope("a@x.example", recipients=MAILING)) != source_of(_envelope("a@x.example"))
