"""The promises over many seeds, first half; a file of its own, so that another core can run it."""

from __future__ import annotations

import pytest

from tests.sim.seeds import CHUNK, holds


@pytest.mark.slow
@pytest.mark.anywhere
@pytest.mark.parametrize("first", range(1, 151, CHUNK))
def test_the_promises_hold(first: int) -> None:
    holds(first)
