"""Fixtures for tests with real peers. A module's peers start once: its tests run in one process (--dist loadfile)."""

from __future__ import annotations

import dataclasses
from collections.abc import Generator, Iterator
from pathlib import Path

import pytest

from tests.peers.harness.certificates import Authority
from tests.peers.harness.process import folder

_HERE = Path(__file__).parent


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if _HERE in item.path.parents:
            item.add_marker(pytest.mark.peer)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """A failed test shows what its peers have logged."""
    report = yield
    if report.failed:
        for name, value in getattr(item, "funcargs", {}).items():
            parts = vars(value) if dataclasses.is_dataclass(value) else {"": value}
            for part, peer in parts.items():
                if callable(getattr(peer, "log", None)):
                    report.sections.append((f"log of {name} {part}", str(peer.log())))
    return report


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
