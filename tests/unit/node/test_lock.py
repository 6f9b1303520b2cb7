"""The lock of a node: one node per state folder, and nothing in that folder leads root to a file elsewhere."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from postroad.node.supervisor import Supervisor


def _supervisor() -> Any:
    class Stripped(Supervisor):
        def __init__(self) -> None:  # the lock needs nothing else of it
            self._say = lambda level, text: None
            self._lock = -1

    return Stripped()


@pytest.fixture
def run(tmp_path: Path) -> Path:
    folder = tmp_path / "state" / "run"
    folder.mkdir(parents=True)
    return folder


def test_a_second_node_is_told_which_process_has_it(run: Path) -> None:
    first, second = _supervisor(), _supervisor()
    assert first._take_lock(run / "node.lock", None) == ""
    assert f"another node (process {os.getpid()})" in second._take_lock(run / "node.lock", None)
    os.close(first._lock)
    os.close(second._lock)


def test_a_link_is_not_followed(run: Path, tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.write_text("precious")
    (run / "node.lock").symlink_to(victim)
    assert "cannot lock" in _supervisor()._take_lock(run / "node.lock", None)
    (run / "node.lock").unlink()
    os.link(victim, run / "node.lock")
    assert "is no lock file" in _supervisor()._take_lock(run / "node.lock", None)
    assert victim.read_text() == "precious"


def test_a_folder_that_is_a_link_is_not_followed(run: Path, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").symlink_to(run)
    assert "cannot lock" in _supervisor()._take_lock(tmp_path / "elsewhere" / "node.lock", None)
