"""What tests of nodes share."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest


@pytest.fixture(autouse=True)
def kept_umask() -> Iterator[None]:
    """A node sets its umask (`world.system.restrict`), and these tests prepare one in their own process."""
    before = os.umask(0o022)
    os.umask(before)
    yield
    os.umask(before)
