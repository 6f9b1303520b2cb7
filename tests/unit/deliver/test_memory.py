"""What is remembered of hops."""

from __future__ import annotations

from postroad.deliver import memory
from postroad.deliver.memory import HopMemory
from postroad.mail.route import Hop

ONE, TWO, THREE = (Hop(f"mx{number}", f"192.0.2.{number}") for number in (1, 2, 3))


def test_a_hop_that_failed_stands_behind_the_others_for_a_while() -> None:
    known = HopMemory(60, 60)
    assert known.ordered((ONE, TWO, THREE), 0, 9) == [ONE, TWO, THREE]
    known.failed(ONE, 0)
    known.failed(TWO, 30)
    assert known.ordered((ONE, TWO, THREE), 31, 9) == [THREE, ONE, TWO]
    assert known.ordered((ONE, TWO, THREE), 61, 9) == [ONE, THREE, TWO]
    known.reached(TWO)
    assert known.ordered((ONE, TWO, THREE), 31, 9) == [TWO, THREE, ONE]


def test_tls() -> None:
    known = HopMemory(60, 100)
    known.tls_failed(ONE, 0)
    assert known.speaks_plain(ONE, 99) and not known.speaks_plain(ONE, 100) and not known.speaks_plain(TWO, 1)


def test_extensions_that_do_not_work() -> None:
    known = HopMemory(60, 60, 100)
    known.is_broken(ONE, "DSN", 0)
    known.is_broken(ONE, "PIPELINING", 50)
    assert known.broken(ONE, 99) == ["DSN", "PIPELINING"] and known.broken(ONE, 100) == ["PIPELINING"]
    assert known.broken(ONE, 150) == known.broken(TWO, 99) == []


def test_it_is_bounded() -> None:
    known = HopMemory(60, 60)
    for number in range(memory._ENTRIES_MAX + 5):
        known.failed(Hop("x", str(number)), 0)
    assert len(known._failed) <= memory._ENTRIES_MAX
    last = Hop("x", str(memory._ENTRIES_MAX + 4))
    assert known.ordered((last, ONE), 1, 9) == [ONE, last]


def test_nobody_is_left_out_for_good() -> None:
    """Two may be tried; when both have failed, the others get their turn, later the first ones again."""
    known = HopMemory(60, 60)
    hops = (ONE, TWO, THREE)
    assert known.ordered(hops, 0, 2) == [ONE, TWO]
    known.failed(ONE, 0)
    known.failed(TWO, 30)
    assert known.ordered(hops, 300, 2) == [THREE, ONE]
    known.failed(THREE, 300)
    known.failed(ONE, 330)
    assert known.ordered(hops, 600, 2) == [TWO, THREE]
    known.reached(TWO)
    assert known.ordered(hops, 900, 2) == [ONE, TWO], "one of them works: as they stand"
