"""Leaving a message in the drop folder: whole and durable, or not at all."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from postroad.sendmail import drop_folder, places
from postroad.sendmail.drop_folder import Undropped

REQUEST = b"submit 1\nto ann\nsize 5\n\n"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / places.DROP).mkdir()
    return tmp_path


def _files(folder: Path) -> list[Path]:
    return list((folder / places.DROP).iterdir())


def test_the_file_has_all_and_only_the_owner_and_the_group_may_read_it(folder: Path) -> None:
    before = os.umask(0)
    try:
        drop_folder.drop(str(folder), REQUEST, b"hello")
    finally:
        os.umask(before)
    (path,) = _files(folder)
    assert path.read_bytes() == REQUEST + b"hello"
    assert stat.S_IMODE(path.stat().st_mode) == 0o640
    assert path.name.startswith(places.WHOLE) and len(path.name) == 2 + 2 * places.NAME_OCTETS


@pytest.mark.parametrize("call", ["fchmod", "write", "fsync", "rename", "close"])
def test_after_an_error_nothing_is_left(folder: Path, monkeypatch: pytest.MonkeyPatch, call: str) -> None:
    real = getattr(drop_folder.posix, call)

    def failing(*arguments: object, **named: object) -> None:
        if call == "close":
            real(*arguments)
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(drop_folder.posix, call, failing)
        if call == "close":  # of the file, not of the folder
            patch.setattr(drop_folder.posix, "close", lambda at: failing(at) if not os.path.isdir(f"/proc/self/fd/{at}")
                          else real(at))  # fmt: skip
        with pytest.raises(Undropped, match="No space left"):
            drop_folder.drop(str(folder), REQUEST, b"hello")
    assert _files(folder) == []


def test_a_sync_of_the_folder_that_fails_leaves_nothing(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def failing(descriptor: int) -> None:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(drop_folder, "_sync", failing)
    with pytest.raises(Undropped):
        drop_folder.drop(str(folder), REQUEST, b"hello")
    assert _files(folder) == []


def test_a_write_that_takes_only_a_part_goes_on(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = drop_folder.posix.write
    with monkeypatch.context() as patch:
        patch.setattr(drop_folder.posix, "write", lambda at, octets: real(at, bytes(octets)[:3]))
        drop_folder.drop(str(folder), REQUEST, b"hello")
    (path,) = _files(folder)
    assert path.read_bytes() == REQUEST + b"hello"


def test_the_drop_folder_is_no_link(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / places.DROP).symlink_to(tmp_path / "elsewhere")
    with pytest.raises(Undropped, match="no drop folder"):
        drop_folder.drop(str(tmp_path), REQUEST, b"hello")
    assert list((tmp_path / "elsewhere").iterdir()) == []


def test_a_folder_that_is_missing_is_named(tmp_path: Path) -> None:
    with pytest.raises(Undropped, match=rf"{tmp_path}/{places.DROP}: No such file or directory; the node makes it"):
        drop_folder.drop(str(tmp_path), REQUEST, b"hello")
