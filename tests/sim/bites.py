"""Where the simulator finds a promise that was broken on purpose (`breaking`): short runs under strain.

`FOUND` names for each mutation a seed that finds it, so that a test need not look for one. After a change of the
simulated world many seeds mean something else. A test whose seed finds nothing any more looks through all others, which
is slow, until somebody writes the table anew: ``python -m tests.sim.bites [NAME…]``.
"""

from __future__ import annotations

import dataclasses
import os
import re
import shutil
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from pathlib import Path
from typing import Final

import pytest

from tests.sim import breaking
from tests.sim import plan as plans
from tests.sim.house import House, folder_in_memory

SEEDS: Final = (*range(1, 41, 2), *range(2, 41, 2))  # first those without a crowd and a packed disk: they cost half
TURNS_MAX: Final = 200_000  # a run that goes round in circles has found something, too
MUTATIONS: Final = [
    each for name, each in vars(breaking).items()
    if callable(each) and getattr(each, "__module__", "") == breaking.__name__ and not name.startswith("_")
]  # fmt: skip
FOUND: Final = Path(__file__).with_name("bites.txt")

Mutation = Callable[[breaking.Patch], None]


def finds(made: plans.Plan) -> bool:
    """Whether a run finds a fault; the first one ends it."""
    folder = folder_in_memory()
    house = House(made, folder)
    house.base.turns_max = TURNS_MAX
    house.ledger.on_fault = house.base.stop
    try:
        house.run()
    except RuntimeError:
        return True
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    return bool(house.ledger.faults)


def plans_for(mutation: Mutation, seeds: Iterable[int]) -> Iterator[plans.Plan]:
    part = getattr(mutation, "part", "")
    yield from seeds_with(seeds, part) if part else seeds_with_much(seeds)


def in_order(mutation: Mutation) -> Iterator[plans.Plan]:
    """The runs in which a mutation may be found: first the one of the table."""
    seed = table().get(mutation.__name__, SEEDS[0])
    yield from plans_for(mutation, (seed, *(each for each in SEEDS if each != seed)))


def table() -> dict[str, int]:
    return {name: int(seed) for name, seed in re.findall(r"^(\w+) (\d+)$", FOUND.read_text(), re.MULTILINE)}


def seeds_with_much(seeds: Iterable[int]) -> Iterator[plans.Plan]:
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


def seeds_with(seeds: Iterable[int], *parts: str) -> Iterator[plans.Plan]:
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


# -- the table, written anew ----------------------------------------------------------------------------------


def first_find(name: str) -> tuple[str, int]:
    """The first seed that finds a mutation; 0 if none does."""
    mutation = getattr(breaking, name)
    with pytest.MonkeyPatch.context() as patch:
        mutation(patch.setattr)
        return name, next((made.seed for made in plans_for(mutation, SEEDS) if finds(made)), 0)


def main(names: Sequence[str]) -> int:
    """Writes the table for all mutations, or those that are named."""
    known = {each.__name__ for each in MUTATIONS}
    if unknown := set(names) - known:
        print(f"no mutation has the name {', '.join(sorted(unknown))}", file=sys.stderr)
        return 2
    seeds = {name: seed for name, seed in table().items() if name in known}
    missed = []
    with ProcessPoolExecutor() as pool:
        for finding in as_completed([pool.submit(first_find, name) for name in names or sorted(known)]):
            name, seed = finding.result()
            print(f"{name} {seed or 'is not found'}", flush=True)
            seeds[name] = seed
            missed += [] if seed else [name]
    FOUND.write_text("".join(f"{name} {seed}\n" for name, seed in sorted(seeds.items()) if seed))
    return 1 if missed else 0


if __name__ == "__main__":
    if os.environ.get("PYTHONHASHSEED") != "0":  # the same order of every set in every run
        os.environ["PYTHONHASHSEED"] = "0"
        os.execv(sys.executable, [sys.executable, "-m", "tests.sim.bites", *sys.argv[1:]])
    sys.exit(main(sys.argv[1:]))
