"""``python -m tests.sim``: run seeds of the simulator, one to look at or many for a time.

    --seed N [--days D] [--trace]     one run; what it found, and with --trace all that happened in it
    --soak SECONDS [--from N] [--jobs J]  seeds from N on, on all cores or J; how many were run and each that failed

Exit code 1 where a promise was broken.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from concurrent.futures import FIRST_COMPLETED, ProcessPoolExecutor, wait


def main() -> int:
    options = _options()
    if os.environ.get("PYTHONHASHSEED") != "0":  # the same order of every set in every run
        os.environ["PYTHONHASHSEED"] = "0"
        os.execv(sys.executable, [sys.executable, "-m", "tests.sim", *sys.argv[1:]])
    if options.soak:
        return _soak(options.soak, options.first, options.jobs)
    return _one(options.seed, options.days, options.trace)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.sim", description=__doc__)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--days", type=float, default=None, help="simulated days before everything is healed")
    parser.add_argument("--trace", action="store_true")
    parser.add_argument("--soak", type=float, default=0.0, metavar="SECONDS")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, metavar="J")
    parser.add_argument("--from", type=int, default=1, dest="first", metavar="N")
    return parser.parse_args()


def _one(seed: int, days: float | None, trace: bool) -> int:
    from tests.sim.house import simulate

    begun = time.monotonic()
    house = simulate(seed, days=days, trace=trace)
    if trace:
        print("\n".join(house.lines))
    print(house.plan)
    told = sum(len(each.told) for each in house.ledger.submitted)
    print(
        f"seed {seed}: {house.base.now / 86_400:.1f} days in {time.monotonic() - begun:.2f} s, {told} recipients with a"
        f" 250, {len(house.ledger.deliveries)} deliveries, digest {house.digest}"
    )
    for fault in house.ledger.faults:
        print(f"  {fault}")
    return 1 if house.ledger.faults else 0


def run_seed(seed: int) -> tuple[int, list[str], float]:
    """For a pool: the seed, what went wrong, and how many days it simulated."""
    from tests.sim.house import simulate

    try:
        house = simulate(seed)
    except Exception as error:
        return seed, [f"the simulation broke: {error!r}"], 0.0
    return seed, house.ledger.faults, house.base.now / 86_400


def _soak(seconds: float, first: int, workers: int) -> int:
    begun = time.monotonic()
    failed: list[int] = []
    count, days, following = 0, 0.0, first
    with ProcessPoolExecutor(workers) as pool:
        pending = set()
        while time.monotonic() - begun < seconds or pending:
            while len(pending) < 2 * workers and time.monotonic() - begun < seconds:
                pending.add(pool.submit(run_seed, following))
                following += 1
            done, pending = wait(pending, return_when=FIRST_COMPLETED)
            for future in done:
                seed, faults, simulated = future.result()
                count, days = count + 1, days + simulated
                if faults:
                    failed.append(seed)
                    print(f"seed {seed} failed: {faults[0]} (and {len(faults) - 1} more)", flush=True)
    print(
        f"{count} seeds from {first} on, {days / 365:.1f} simulated years in {time.monotonic() - begun:.0f} s;"
        f" {len(failed)} failed{': ' + ', '.join(map(str, sorted(failed))) if failed else ''}"
    )
    for seed in sorted(failed):
        print(f"  python -m tests.sim --seed {seed} --trace")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
