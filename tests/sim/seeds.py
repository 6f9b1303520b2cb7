"""Seeds as tests: what `make test` runs, and how a failure tells to replay it."""

from __future__ import annotations

from tests.sim.house import replay, simulate

CHUNK = 10


def holds(first: int, count: int = CHUNK) -> None:
    """Run seeds; AssertionError with what was broken, and how to see it again."""
    broken = []
    for seed in range(first, first + count):
        faults = simulate(seed).ledger.faults
        if faults:
            broken.append("\n  ".join((f"seed {seed} ({replay(seed)}):", *faults[:8])))
    assert not broken, "\n".join(broken)
