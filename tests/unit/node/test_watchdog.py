"""The supervisor's watch over workers whose loop hangs."""

from __future__ import annotations

from postroad.node.watchdog import LAST_S, Silence, Watchdog


class Time:
    def __init__(self) -> None:
        self.now = 1000.0
        self.dog = Watchdog(lambda: self.now)

    def pass_by(self, seconds: int, *alive: int, hang_s: float = 5.0) -> list[Silence]:
        """So many seconds, a look each; these workers say each second that they are alive."""
        found = []
        for _ in range(seconds):
            self.now += 1
            for number in alive:
                self.dog.heard(number)
            found += self.dog.look(hang_s)
        return found


def test_only_a_silent_worker_is_ended() -> None:
    time = Time()
    time.dog.heard(0)
    time.dog.heard(1)
    assert time.pass_by(4, 0) == []
    assert time.pass_by(1, 0) == [Silence(1, 5.0, last=False)]


def test_what_the_abort_does_not_end_is_killed_again_and_again() -> None:
    time = Time()
    time.dog.heard(1)
    assert time.pass_by(5) == [Silence(1, 5.0, last=False)]
    time.dog.heard(1)  # what was on its way before it hung is no sign of life
    assert time.pass_by(4) == [Silence(1, LAST_S, last=True)] * 2
    time.dog.forget(1)
    assert time.pass_by(9) == []


def test_a_worker_that_starts_or_stops_is_not_watched() -> None:
    time = Time()
    assert time.pass_by(20) == []
    time.dog.heard(0)
    time.dog.forget(0)
    assert time.pass_by(20) == []


def test_zero_is_never() -> None:
    time = Time()
    time.dog.heard(0)
    assert time.pass_by(100, hang_s=0) == []


def test_time_without_the_supervisor_is_not_held_against_workers() -> None:
    time = Time()
    time.dog.heard(0)
    time.now += 3600  # the machine slept
    assert time.dog.look(5.0) == []
    assert time.pass_by(3) == []
    assert time.pass_by(1) == [Silence(0, 5.0, last=False)]
