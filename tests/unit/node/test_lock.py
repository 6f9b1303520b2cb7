"""The lock of a node: one node per state folder, and nothing in that folder leads root to a file elsewhere."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from postroad.node.state_dir import HOLDER_SIZE, NodeLock


def lock(run: Path) -> NodeLock:
    return NodeLock(run / "node.lock", lambda level, text: None)


@pytest.fixture
def run(tmp_path: Path) -> Path:
    folder = tmp_path / "state" / "run"
    folder.mkdir(parents=True)
    return folder


def test_a_second_node_is_told_which_process_has_it(run: Path) -> None:
    first, second = lock(run), lock(run)
    assert first.take(None) == ""
    assert f"another node (process {os.getpid()})" in second.take(None)
    os.close(first.descriptor)
    os.close(second.descriptor)


def test_a_link_is_not_followed(run: Path, tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.write_text("precious")
    (run / "node.lock").symlink_to(victim)
    assert "cannot lock" in lock(run).take(None)
    (run / "node.lock").unlink()
    os.link(victim, run / "node.lock")
    assert "is not a lock file" in lock(run).take(None)
    assert victim.read_text() == "precious"


def test_a_folder_that_is_a_link_is_not_followed(run: Path, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").symlink_to(run)
    assert "cannot lock" in lock(tmp_path / "elsewhere").take(None)


def test_a_full_disk_does_not_keep_the_lock_away(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    (run / "node.lock").write_bytes(b"4000000\n")
    with monkeypatch.context() as patch:
        patch.setattr(os, "pwrite", full)
        first = lock(run)
        assert first.take(None) == ""
        os.close(first.descriptor)
    second = lock(run)
    assert second.take(None) == ""
    os.close(second.descriptor)
    assert (run / "node.lock").read_bytes() == f"{os.getpid():<{HOLDER_SIZE - 1}}\n".encode(), "one size, in place"
