"""The simulator bites: with a promise broken on purpose, each in one place, it must find so within a few seeds."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator

import pytest

from tests.sim import breaking
from tests.sim import plan as plans
from tests.sim.house import simulate

SEEDS = range(1, 41)
MUTATIONS = [
    each for name, each in vars(breaking).items()
    if callable(each) and getattr(each, "__module__", "") == breaking.__name__ and not name.startswith("_")
]  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("mutation", MUTATIONS, ids=lambda mutation: mutation.__name__)
def test_a_broken_promise_is_found(
    mutation: Callable[[breaking.Patch], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    mutation(monkeypatch.setattr)
    part = getattr(mutation, "part", "")
    for made in seeds_with(SEEDS, part) if part else seeds_with_much(SEEDS):
        if faults(made):
            return
    raise AssertionError(f"{mutation.__name__} was not found in {len(SEEDS)} seeds")


@pytest.mark.slow
def test_the_same_seeds_find_nothing_where_nothing_is_broken() -> None:
    for made in (*seeds_with_much(range(1, 11)), *seeds_with(range(1, 5), *plans.PARTS)):
        assert faults(made) == []


def faults(made: plans.Plan) -> list[str]:
    """What a run finds. A run that goes round in circles has found something, too."""
    try:
        return simulate(made.seed, made=made, turns_max=200_000).ledger.faults
    except RuntimeError as error:
        return [str(error)]


def seeds_with_much(seeds: range) -> Iterator[plans.Plan]:
    """Short runs with faults of all kinds and little room, so that each promise is under strain."""
    for seed in seeds:
        made = plans.plan(seed, days=0.5)
        yield dataclasses.replace(
            made, workers=1 + seed % 3, messages=24, trouble=0.3, dns=seed % 2 == 0, crashes=6, power_cuts=0,
            disk=2 if seed % 3 == 0 else 0, reloads=6 if seed % 4 == 0 else 0, operators=20, jumps=0,
            lifetime_days=0.2, tls=False, loops=3, odd=8, burst=seed % 2 == 1, crowd=seed % 2 == 0,
            packed=seed % 2 == 0, looked_up=seed % 3 == 1,
            parts=frozenset(), limited=seed % 2 == 0,
            signed=("", "require", "sign")[seed // 2 % 3],
            rewritten=seed % 3 != 2, dropped=12 if seed % 4 == 3 else 0,
            settings=tuple(map(_tight, made.settings)),
        )  # fmt: skip


def seeds_with(seeds: range, *parts: str) -> Iterator[plans.Plan]:
    """The same with these parts, and little else."""
    for made in seeds_with_much(seeds):
        yield dataclasses.replace(
            made, parts=frozenset(parts), messages=4, loops=0, odd=0, crowd=False, packed=False, dropped=0, crashes=4,
            limited="limited" in parts,
        )  # fmt: skip


def _tight(line: str) -> str:
    """Every limit that a mutation breaks is low."""
    name, found, value = line.partition(" = ")
    tight = {"concurrency": "1", "unsettled_max": "1", "ready_max": "1", "delay_notice_s": "3600", "piece_size": "4096"}
    return f"{name}{found}{tight.get(name, value)}"
