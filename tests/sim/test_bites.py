"""The simulator bites: with a promise broken on purpose, each in one place, it must find so within a few seeds."""

from __future__ import annotations

import pytest

from tests.sim import plan as plans
from tests.sim.bites import MUTATIONS, SEEDS, Mutation, finds, in_order, seeds_with, seeds_with_much, table
from tests.sim.house import simulate


@pytest.mark.slow
@pytest.mark.anywhere
@pytest.mark.parametrize("mutation", MUTATIONS, ids=lambda mutation: mutation.__name__)
def test_a_broken_promise_is_found(mutation: Mutation, monkeypatch: pytest.MonkeyPatch) -> None:
    mutation(monkeypatch.setattr)
    assert any(map(finds, in_order(mutation))), f"not found in {len(SEEDS)} seeds"


@pytest.mark.slow
@pytest.mark.anywhere
def test_the_same_seeds_find_nothing_where_nothing_is_broken() -> None:
    for made in (*seeds_with_much(range(1, 11)), *seeds_with(range(1, 5), *plans.PARTS)):
        assert simulate(made.seed, made=made).ledger.faults == []


def test_the_table_knows_mutations_that_are_there() -> None:
    assert not set(table()) - {each.__name__ for each in MUTATIONS}
