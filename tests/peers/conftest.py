"""Fixtures for tests with real peers. Each module's tests run in one process, so that its peers start once."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.peers.harness.certificates import Authority
from tests.peers.harness.process import folder

_HERE = Path(__file__).parent


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if _HERE in item.path.parents:
            item.add_marker(pytest.mark.peer)
            if item.get_closest_marker("xdist_group") is None:
                item.add_marker(pytest.mark.xdist_group(item.path.stem))


@pytest.fixture(scope="module")
def place(request: pytest.FixtureRequest) -> Iterator[Path]:
    """A folder for the module's peers, with a short path that every user may enter."""
    with folder(request.path.stem.removeprefix("test_")) as path:
        yield path


@pytest.fixture(scope="session")
def authority() -> Iterator[Authority]:
    """A certificate authority for this run."""
    with folder("ca") as path:
        yield Authority(path)
