"""The largest message that destinations take: what is remembered, for how long, and of how many."""

from __future__ import annotations

import pytest

from postroad.mail import size_limits
from postroad.mail.size_limits import NO_LIMIT, SizeLimits


class _Time:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def test_a_larger_message_exceeds_the_limit_for_as_long_as_it_is_remembered() -> None:
    time = _Time()
    limits = SizeLimits(60.0, time)
    assert limits.exceeded("a.example", 10**12) == 0
    limits.note("a.example", 1000)
    assert limits.least == 1000
    assert limits.exceeded("a.example", 1000) == 0
    assert limits.exceeded("a.example", 1001) == 1000
    assert limits.exceeded("b.example", 1001) == 0
    time.now = 60.0
    assert limits.exceeded("a.example", 1001) == 0
    assert limits.least == NO_LIMIT


def test_of_servers_that_differ_the_larger_limit_counts() -> None:
    time = _Time()
    limits = SizeLimits(60.0, time)
    limits.note("a.example", 1000)
    limits.note("a.example", 5000)
    time.now = 30.0
    limits.note("a.example", 1000)
    assert limits.exceeded("a.example", 4000) == 0
    assert limits.exceeded("a.example", 6000) == 5000
    time.now = 61.0  # the larger one is forgotten: the next word counts
    limits.note("a.example", 1000)
    assert limits.exceeded("a.example", 4000) == 1000


def test_a_server_without_a_limit_ends_it() -> None:
    limits = SizeLimits(60.0)
    limits.note("a.example", 1000)
    limits.note("a.example", 0)
    assert limits.exceeded("a.example", 10**12) == 0
    assert limits.least == NO_LIMIT


def test_nothing_is_remembered_if_the_setting_is_0() -> None:
    limits = SizeLimits(60.0)
    limits.note("a.example", 1000)
    limits.take(0.0)
    assert (limits.exceeded("a.example", 2000), limits.least) == (0, NO_LIMIT)
    limits.note("a.example", 1000)
    assert limits.exceeded("a.example", 2000) == 0


def test_only_so_many_destinations_are_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(size_limits, "ENTRIES_MAX", 3)
    limits = SizeLimits(60.0)
    for number in range(5):
        limits.note(f"{number}.example", 1000)
    assert [limits.exceeded(f"{number}.example", 2000) for number in range(5)] == [0, 0, 1000, 1000, 1000]
