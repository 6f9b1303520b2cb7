"""Replacing a file: the old octets or the new ones, never a part."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from postroad.world import files


def test_a_file_is_replaced(tmp_path: Path) -> None:
    path = tmp_path / "counts"
    files.replace(str(path), b"first", 0o640)
    files.replace(str(path), b"second")
    assert path.read_bytes() == b"second"
    assert path.stat().st_mode & 0o777 == 0o600
    assert list(tmp_path.iterdir()) == [path]


def test_what_a_writer_left_behind_is_in_nobodys_way(tmp_path: Path) -> None:
    path, left, elsewhere = tmp_path / "counts", tmp_path / "counts.new", tmp_path / "elsewhere"
    elsewhere.write_bytes(b"kept")
    left.symlink_to(elsewhere)
    files.replace(str(path), b"new")
    assert path.read_bytes() == b"new"
    assert elsewhere.read_bytes() == b"kept"
    assert not left.exists()


def test_the_old_file_stays_if_the_disk_refuses(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "counts"
    files.replace(str(path), b"old")

    def refuse(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", refuse)
    with pytest.raises(OSError, match="No space"):
        files.replace(str(path), b"new")
    monkeypatch.undo()
    assert path.read_bytes() == b"old"
    files.replace(str(path), b"new")
    assert path.read_bytes() == b"new"


def test_the_folder_is_written_behind_the_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without it the power can end between the name and the disk, and the old file is back."""
    done: list[str] = []
    rename, fsync = os.rename, os.fsync
    monkeypatch.setattr(os, "rename", lambda old, new: (done.append("rename"), rename(old, new)))
    monkeypatch.setattr(
        os, "fsync", lambda fd: (done.append("folder" if os.path.isdir(f"/proc/self/fd/{fd}") else "file"), fsync(fd))
    )
    files.replace(str(tmp_path / "counts"), b"new")
    assert done == ["file", "rename", "folder"]
