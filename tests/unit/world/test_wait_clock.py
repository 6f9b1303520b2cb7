"""The clock of waiting: a sleep counts, work does not. No test asserts how long anything takes, but for at least."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from postroad.world import wait_clock
from postroad.world.wait_clock import WaitClock


def test_a_sleep_counts() -> None:
    clock = WaitClock()
    before = clock.waited_s()
    time.sleep(0.02)
    waited = clock.waited_s() - before
    clock.close()
    # What comes after the sleep, until the processor is there, does not count.
    assert waited > 0.015


@pytest.mark.skipif(not Path("/proc/thread-self/schedstat").exists(), reason="the system does not tell of turns")
def test_work_does_not_count() -> None:
    clock = WaitClock()
    before, begun = clock.waited_s(), time.thread_time()
    while time.thread_time() < begun + 0.2:
        pass
    waited = clock.waited_s() - before
    clock.close()
    assert waited < 0.1


def test_it_goes_on_where_the_system_tells_nothing(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for text in (None, "", "x y z"):
        file = tmp_path / "schedstat"
        if text is not None:
            file.write_text(text)
        monkeypatch.setattr(wait_clock, "_SCHEDSTAT", str(file))
        clock = WaitClock()
        before = clock.waited_s()
        time.sleep(0.01)
        assert clock.waited_s() > before
        clock.close()
