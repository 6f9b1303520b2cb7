"""Tells an operator what maps answer: each step of a look-up, with the settings of the file; and the counts of maps.

The maps are made in this process, so that a change shows before the node takes it. How it fails: with Problems.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final

import msgspec

from postroad.maps.face import MapCounts, NotNow
from postroad.maps.files import FileSource
from postroad.maps.maps import Maps, make
from postroad.maps.rules import UsedRules
from postroad.maps.steps import KeyStep, steps_of, transport_steps
from postroad.maps.text import TextSource
from postroad.world.clock import SystemClock
from postroad.world.problem import Problem

if TYPE_CHECKING:
    from postroad.config.settings import Settings
    from postroad.maps.face import Answer, Map
    from postroad.maps.options import MapOptions


STATUS_S: Final = 10.0  # within which a node answers
USE_S: Final = 60.0  # the same for the use of all entries of a map


class StepAnswer(msgspec.Struct, frozen=True):
    """One step. `value`: None if the map has no such key; `not_now`: why there is no answer."""

    step: str
    key: str
    value: str | None
    not_now: str = ""


def counts(state_dir: Path) -> list[MapCounts]:
    """What the maps of the running node have been asked, of all workers together. Raises as `control.ask` does."""
    from postroad.operate import control
    from postroad.operate.requests import NodeStatus, StatusRequest

    status = control.ask(state_dir, StatusRequest(), NodeStatus, STATUS_S)
    found: dict[str, MapCounts] = {}
    for worker in status.activity:
        for each in worker.maps:
            found[each.name] = _sum(found[each.name], each) if each.name in found else each
    return list(found.values())


class EntryUse(msgspec.Struct, frozen=True):
    """One entry of a map. `used_us`: when it was last an answer, 0: not since the node has read it."""

    key: str
    value: str
    used_us: int


def entries(settings: Settings, name: str) -> list[EntryUse] | tuple[Problem, ...] | None:
    """The entries of a map as its file has them now, each with its last use; None if it has none that can be listed.
    Raises as `control.ask` does."""
    from postroad.config import options
    from postroad.operate import control
    from postroad.operate.requests import MapUseRequest

    used = control.ask(Path(settings.state_dir), MapUseRequest(name), dict[str, int], USE_S)
    maps = make(needed(options.map_options(settings), (name,)), SystemClock(), lambda level, text: None)
    if not isinstance(maps, Maps):
        return maps
    source = maps[name].source
    table = source.current if isinstance(source, FileSource) else source
    if not isinstance(table, TextSource | UsedRules):
        return None
    return [EntryUse(key, value, used.get(key, 0)) for key, value, _ in table.entries()]


def _sum(one: MapCounts, other: MapCounts) -> MapCounts:
    """Entries are the same in all workers; which of them were used is not."""
    return MapCounts(
        one.name, one.kind, one.asked + other.asked, one.found + other.found, one.not_now + other.not_now,
        max(one.entries, other.entries), max(one.used, other.used), one.away or other.away,
    )  # fmt: skip


def test(settings: Settings, name: str, key: str) -> list[StepAnswer] | tuple[Problem, ...]:
    """What the map of this name answers to a key, and to the keys that are looked up after it."""
    from postroad.config import options

    wanted = options.map_options(settings)

    async def ask() -> list[StepAnswer] | tuple[Problem, ...]:
        maps = make(needed(wanted, (name,)), SystemClock(), lambda level, text: None)
        if not isinstance(maps, Maps):
            return maps
        try:
            steps = _steps(key, settings.routing.detail_delimiter, name in settings.routing.transport_maps)
            return await _answers(maps[name], steps)
        finally:
            maps.close()

    return asyncio.run(ask())


def needed(wanted: Sequence[MapOptions], names: Sequence[str]) -> list[MapOptions]:
    """The options of these maps, behind those of the maps of which they are made."""
    by_name = {each.name: each for each in wanted}
    found = list(names)
    for each in found:
        found += [inner for inner in by_name[each].maps if inner not in found]
    return [each for each in wanted if each.name in found]


def _steps(key: str, delimiter: str, is_transport: bool) -> Iterable[KeyStep]:
    """For a transport map those by which a destination is found."""
    local_part, _, domain = key.rpartition("@")
    return transport_steps(local_part, domain, delimiter) if is_transport and local_part else steps_of(key, delimiter)


async def _answers(map: Map, steps: Iterable[KeyStep]) -> list[StepAnswer]:
    found = []
    for step in steps:
        pending = map.look_up(step.key, step.part)
        answer: Answer = pending if pending is None or isinstance(pending, str | NotNow) else await pending
        value = None if isinstance(answer, NotNow) or answer is None else str(answer)
        found.append(StepAnswer(step.what, step.key, value, answer.text if isinstance(answer, NotNow) else ""))
    return found
