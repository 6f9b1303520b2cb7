"""Who is on the way with a message, as the spool counts it."""

from __future__ import annotations

from postroad.store.arrivals import BUSY, SPAN_S, Arrivals


class _Time:
    now = 100.0

    def __call__(self) -> float:
        return self.now


def test_who_joins_is_expected_until_leaving() -> None:
    arrivals = Arrivals(_Time())
    assert arrivals.expected() == 0
    first, second = arrivals.join(), arrivals.join()
    assert arrivals.expected() == 2
    first.leave()
    assert arrivals.expected() == 1
    second.leave()
    assert arrivals.expected() == 0


def test_who_is_slow_is_forgotten() -> None:
    time = _Time()
    arrivals = Arrivals(time)
    slow = arrivals.join()
    time.now += SPAN_S * 0.9
    assert arrivals.expected() == 1
    time.now += SPAN_S * 0.9  # the next span: those of the last one still count
    fresh = arrivals.join()
    assert arrivals.expected() == 2
    time.now += SPAN_S
    assert arrivals.expected() == 1
    slow.leave()  # too late to matter
    assert arrivals.expected() == 1
    fresh.leave()
    assert arrivals.expected() == 0


def test_after_a_pause_nobody_is_left() -> None:
    time = _Time()
    arrivals = Arrivals(time)
    arrivals.join()
    time.now += 10 * SPAN_S
    assert arrivals.expected() == 0


def test_it_is_busy_while_much_begins_whoever_has_left_since() -> None:
    time = _Time()
    arrivals = Arrivals(time)
    for _ in range(BUSY):
        assert not arrivals.busy
        arrivals.join().leave()
    assert arrivals.busy and arrivals.expected() == 0
    time.now += SPAN_S
    assert arrivals.expected() == 0 and arrivals.busy, "within the last span"
    time.now += SPAN_S
    assert arrivals.expected() == 0 and not arrivals.busy
