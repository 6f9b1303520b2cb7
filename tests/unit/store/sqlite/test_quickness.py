"""When a commit may be made on the loop: by how long the last ones waited."""

from __future__ import annotations

from postroad.store.sqlite.quickness import COMMITS, CREDIT_MAX_S, NOT_QUICK_MAX, QUICK_S, SHARE, Quickness

QUICK = QUICK_S / 2


class Time:
    now = 100.0

    def __call__(self) -> float:
        return self.now


def made(*, quick: int = COMMITS) -> tuple[Quickness, Time]:
    time = Time()
    quickness = Quickness(time)
    for _ in range(quick):
        quickness.took(QUICK, on_loop=False)
    return quickness, time


def test_it_begins_on_the_thread_until_most_commits_were_quick() -> None:
    quickness, _ = made(quick=COMMITS - NOT_QUICK_MAX - 1)
    assert not quickness.may_be_on_loop()
    quickness.took(QUICK, on_loop=False)
    assert quickness.may_be_on_loop()


def test_a_thread_that_waited_long_for_the_interpreter_proves_nothing() -> None:
    quickness, _ = made()
    quickness.took(10.0, on_loop=False)
    assert quickness.may_be_on_loop()


def test_a_slow_commit_on_the_loop_sends_the_next_ones_to_the_thread_until_it_is_made_up_for() -> None:
    quickness, time = made()
    quickness.took(1.0, on_loop=True)
    assert not quickness.may_be_on_loop()
    time.now += (1.0 - CREDIT_MAX_S) / SHARE - 0.1
    assert not quickness.may_be_on_loop()
    time.now += 0.2
    assert quickness.may_be_on_loop()


def test_a_commit_that_is_a_little_slow_does_no_harm() -> None:
    quickness, _ = made()
    quickness.took(QUICK_S + CREDIT_MAX_S / 2, on_loop=True)
    assert quickness.may_be_on_loop()


def test_the_loop_stands_still_for_slow_commits_no_more_than_its_share() -> None:
    """A disk that is slow for each tenth commit."""
    quickness, time = made()
    stood_s, begun = 0.0, time.now
    for number in range(100_000):
        wait_s = 0.02 if number % 10 == 0 else QUICK
        on_loop = quickness.may_be_on_loop()
        quickness.took(wait_s, on_loop=on_loop)
        time.now += 0.001
        if on_loop and wait_s > QUICK_S:
            stood_s += wait_s
    assert 0 < stood_s <= 1.1 * SHARE * (time.now - begun) + CREDIT_MAX_S + 0.02


def test_a_disk_that_is_never_quick_is_not_tried() -> None:
    quickness, time = made()
    for _ in range(NOT_QUICK_MAX + 1):
        assert quickness.may_be_on_loop()
        quickness.took(QUICK_S * 1.01, on_loop=True)
    time.now += 1e6
    assert not quickness.may_be_on_loop()
