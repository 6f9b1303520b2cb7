"""Maps that take time: kept answers, limits, and servers that are away."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from postroad.maps.face import Answer, NotNow
from postroad.maps.function import FunctionDriver, function_driver
from postroad.maps.waiting import VALUE_MAX, Away, WaitingOptions, WaitingSource
from postroad.world.problem import Problem


class FakeDriver:
    folds = True

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.at_once = 0
        self.at_once_max = 0
        self.answer: Callable[[str], str | None] = lambda key: f"value of {key}"
        self.gate: asyncio.Event | None = None

    async def fetch(self, key: str, part: bool) -> str | None:
        self.asked.append(key)
        self.at_once += 1
        self.at_once_max = max(self.at_once_max, self.at_once)
        try:
            await asyncio.sleep(0)
            if self.gate is not None:
                await self.gate.wait()
            return self.answer(key)
        finally:
            self.at_once -= 1

    def close(self) -> None: ...


class House:
    def __init__(self, **options: Any) -> None:
        self.driver = FakeDriver()
        self.told: list[str] = []
        given = {"timeout_s": 20.0, **options}
        self.source = WaitingSource(
            self.driver, WaitingOptions(**given), "people", lambda level, text: self.told.append(f"{level}: {text}")
        )

    async def ask(self, key: str) -> Answer:
        found: Answer | Awaitable[Answer] = self.source.look_up(key)
        return found if found is None or isinstance(found, str | NotNow) else await found

    def away(self) -> None:
        def fail(key: str) -> str:
            raise Away("connection refused")

        self.driver.answer = fail


class Time:
    """The loop's time, moved by hand."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 1000.0
        self._real = asyncio.get_running_loop().time
        base = self._real()
        monkeypatch.setattr(asyncio.get_running_loop(), "time", lambda: self.now + self._real() - base)


async def test_values_and_missing_keys_are_kept_for_their_times(monkeypatch: pytest.MonkeyPatch) -> None:
    time, house = Time(monkeypatch), House(cache_s=30, cache_missing_s=10)
    house.driver.answer = {"ada": "1"}.get
    for passed, ada, bob in ((0, 1, 1), (9, 1, 1), (2, 1, 2), (18, 1, 3), (3, 2, 3)):
        time.now += passed
        assert (await house.ask("Ada"), await house.ask("bob")) == ("1", None)
        assert (house.driver.asked.count("ada"), house.driver.asked.count("bob")) == (ada, bob), passed


async def test_equal_look_ups_are_one_and_one_that_is_cancelled_disturbs_no_other() -> None:
    house = House()
    house.driver.gate = asyncio.Event()
    tasks = [asyncio.ensure_future(house.ask("ada")) for _ in range(5)]
    await asyncio.sleep(0)
    tasks[0].cancel()
    await asyncio.sleep(0)
    house.driver.gate.set()
    assert await asyncio.gather(*tasks[1:]) == ["value of ada"] * 4 and house.driver.asked == ["ada"]


async def test_no_more_at_once_than_set_and_all_are_answered() -> None:
    house = House(at_once_max=3)
    found = await asyncio.gather(*(house.ask(f"k{number}") for number in range(50)))
    assert found == [f"value of k{number}" for number in range(50)] and house.driver.at_once_max == 3


async def test_a_look_up_ends_in_time_also_if_it_waits_for_a_place() -> None:
    house = House(at_once_max=1, timeout_s=0.05, failures_max=99)
    house.driver.gate = asyncio.Event()
    found = await asyncio.gather(*(house.ask(f"k{number}") for number in range(3)))
    assert all(isinstance(each, NotNow) and "no answer in 0.05 s" in each.text for each in found)
    assert house.driver.asked == ["k0"]


async def test_who_waits_for_a_place_is_served_in_turn_and_what_was_too_late_is_forgotten() -> None:
    house = House(at_once_max=1, timeout_s=0.05)
    house.driver.gate = asyncio.Event()
    answers = await asyncio.gather(*(house.ask(key) for key in "abc"))
    assert all(isinstance(answer, NotNow) for answer in answers) and house.driver.asked == ["a"]
    house.source._failures = 0
    house.driver.gate.set()
    assert await asyncio.gather(*(house.ask(key) for key in "cab")) == ["value of c", "value of a", "value of b"]
    assert house.driver.asked == ["a", "c", "a", "b"]
    assert not house.source._under_way and not house.source._queued and house.source._fetched == 0


async def test_one_who_gives_up_takes_no_answer_from_the_others() -> None:
    house = House()
    first, second = asyncio.ensure_future(house.ask("ada")), asyncio.ensure_future(house.ask("ada"))
    await asyncio.sleep(0)
    first.cancel()
    assert await second == "value of ada" and house.driver.asked == ["ada"]
    assert first.cancelled()


async def test_who_waits_for_a_place_of_a_map_that_is_closed_is_told() -> None:
    house = House(at_once_max=1)
    house.driver.gate = asyncio.Event()
    asked = [asyncio.ensure_future(house.ask(key)) for key in "ab"]
    await asyncio.sleep(0)
    house.source.close()
    for each in asked:
        assert await each == NotNow("map people: it is closed")
    assert house.driver.asked == ["a"]


async def test_a_server_that_is_away_is_left_alone_and_its_last_answers_go_on(monkeypatch: pytest.MonkeyPatch) -> None:
    time, house = Time(monkeypatch), House(cache_s=1, cache_missing_s=1, last_good_s=100, failures_max=3, pause_s=10)
    house.driver.answer = {"ada": "1"}.get
    assert (await house.ask("ada"), await house.ask("gone")) == ("1", None)
    time.now += 5
    house.away()
    assert (await house.ask("ada"), await house.ask("gone")) == ("1", None)
    assert await house.ask("new") == NotNow("map people: connection refused")
    asked = len(house.driver.asked)
    assert await house.ask("ada") == "1" and await house.ask("other") == NotNow("map people: connection refused")
    assert len(house.driver.asked) == asked  # it is left alone
    time.now += 11
    assert isinstance(await house.ask("other"), NotNow) and isinstance(await house.ask("third"), NotNow)
    assert len(house.driver.asked) == asked + 1  # one tries for all
    time.now += 100
    assert isinstance(await house.ask("ada"), NotNow)  # too old to be good
    house.driver.answer = {"ada": "2"}.get
    time.now += 11
    assert await house.ask("ada") == "2" and await house.ask("new") is None
    assert house.told == [
        "error: map people cannot answer: connection refused. Mail that needs it waits",
        "info: map people answers again",
    ]


async def test_odd_keys_do_not_turn_the_map_off() -> None:
    house = House(failures_max=2)

    def odd(key: str) -> str:
        if key.startswith("odd"):
            raise ValueError("no such octet")
        return "1"

    house.driver.answer = odd
    for number in range(10):
        answer = await house.ask(f"odd{number}")
        assert isinstance(answer, NotNow) and "no such octet" in answer.text
    assert await house.ask("ada") == "1" and house.told == []
    assert await house.ask("x" * 5000) is None


async def test_the_cache_is_bounded_and_drops_what_was_not_wanted_longest() -> None:
    house = House(cache_max=2)
    for key in ("a", "b", "a", "c", "a", "b"):
        await house.ask(key)
    assert house.driver.asked == ["a", "b", "c", "b"]
    house = House(cache_max=0)
    for key in ("a", "a"):
        await house.ask(key)
    assert house.driver.asked == ["a", "a"]


@pytest.mark.parametrize("begun", [True, False])
async def test_who_waits_for_a_map_that_is_closed_is_told_and_not_cancelled(begun: bool) -> None:
    house = House()
    await house.ask("kept")
    house.driver.gate = asyncio.Event()
    asking = asyncio.create_task(house.ask("ada"))
    for _ in range(5 if begun else 1):
        await asyncio.sleep(0)
    assert ("ada" in house.driver.asked) is begun
    house.source.close()
    assert await asking == NotNow("map people: it is closed")
    assert await house.ask("kept") == "value of kept"


async def test_functions() -> None:
    async def slow(key: str) -> str | None:
        await asyncio.sleep(0)
        return key.upper() if key != "x" else None

    for function in (slow, lambda key: key.upper() if key != "x" else None):
        driver = FunctionDriver(function, 2)
        assert (await driver.fetch("Ada", False), await driver.fetch("x", False)) == ("ADA", None)
        driver.close()
    with pytest.raises(TypeError):
        await FunctionDriver(lambda key: 5, 1).fetch("a", False)


def test_loading_a_function(tmp_path: Path) -> None:
    module = tmp_path / "maps.py"
    module.write_text("def look_up(key):\n    return key\n")
    assert isinstance(function_driver(f"{module}:look_up", 1), FunctionDriver)
    for name in (f"{module}:other", "no.such.module:x", str(module)):
        assert isinstance(function_driver(name, 1), Problem)


async def test_a_value_that_is_too_long_is_no_answer_and_no_failure_of_the_map() -> None:
    house = House(failures_max=1)
    house.driver.answer = lambda key: "x" * (VALUE_MAX + 1) if key == "all" else key
    assert isinstance(await house.ask("all"), NotNow)
    assert await house.ask("ada") == "ada" and house.told == []


async def test_what_the_driver_cancels_itself_cancels_nobody_who_waits() -> None:
    house = House(failures_max=1)

    def cancelled(key: str) -> str:
        raise asyncio.CancelledError

    house.driver.answer = cancelled
    asking = asyncio.create_task(house.ask("ada"))
    assert isinstance(await asking, NotNow) and house.told == []
    house.driver.answer = str
    assert await house.ask("bob") == "bob" and house.source._fetched == 0


@pytest.mark.parametrize("ends", ["late", "closed"])
async def test_who_waits_does_not_wait_for_a_driver_that_is_slow_to_stop(ends: str) -> None:
    house = House(at_once_max=1, timeout_s=0.05 if ends == "late" else 20.0)
    stop, fetch = asyncio.Event(), house.driver.fetch

    async def stubborn(key: str, part: bool) -> str | None:
        for _ in range(3):
            try:
                await stop.wait()
            except asyncio.CancelledError:
                house.driver.asked.append("cancelled")
        return await fetch(key, part)

    house.driver.fetch = stubborn  # type: ignore[method-assign]
    asking = asyncio.create_task(house.ask("ada"))
    await asyncio.sleep(0)
    if ends == "closed":
        house.source.close()
    answer = await asyncio.wait_for(asking, 10)
    assert isinstance(answer, NotNow) and not house.source._under_way
    await asyncio.sleep(0)
    assert house.driver.asked == ["cancelled"] and house.source._fetched == 1  # it keeps its place
    failures = house.source._failures
    stop.set()
    for _ in range(5):
        await asyncio.sleep(0)
    assert house.source._fetched == 0 and house.source._failures == failures


async def test_an_end_of_the_loop_cancels_who_waits() -> None:
    house = House()
    house.driver.gate = asyncio.Event()
    asking = asyncio.create_task(house.ask("ada"))
    for _ in range(3):
        await asyncio.sleep(0)
    (found,) = house.source._under_way.values()
    assert found.task is not None
    found.task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asking
    assert house.source._fetched == 0 and not house.source._under_way
