"""Who is on the way with a message, as the spool counts it."""

from __future__ import annotations

from postroad.store.sqlite.arrivals import BUSY, SPAN_S, Arrivals


class _Time:
    now = 100.0

    def __call__(self) -> float:
        return self.now


def test_who_joins_is_expected_until_leaving() -> None:
    company = Arrivals(_Time())
    assert company.expected() == 0
    first, second = company.join(), company.join()
    assert company.expected() == 2
    first.leave()
    assert company.expected() == 1
    second.leave()
    assert company.expected() == 0


def test_who_is_slow_is_forgotten() -> None:
    time = _Time()
    company = Arrivals(time)
    slow = company.join()
    time.now += SPAN_S * 0.9
    assert company.expected() == 1
    time.now += SPAN_S * 0.9  # the next span: those of the last one still count
    fresh = company.join()
    assert company.expected() == 2
    time.now += SPAN_S
    assert company.expected() == 1
    slow.leave()  # too late to matter
    assert company.expected() == 1
    fresh.leave()
    assert company.expected() == 0


def test_after_a_pause_nobody_is_left() -> None:
    time = _Time()
    company = Arrivals(time)
    company.join()
    time.now += 10 * SPAN_S
    assert company.expected() == 0


def test_it_is_busy_while_much_begins_whoever_has_left_since() -> None:
    time = _Time()
    company = Arrivals(time)
    for _ in range(BUSY):
        assert not company.busy
        company.join().leave()
    assert company.busy and company.expected() == 0
    time.now += SPAN_S
    assert company.expected() == 0 and company.busy, "within the last span"
    time.now += SPAN_S
    assert company.expected() == 0 and not company.busy
