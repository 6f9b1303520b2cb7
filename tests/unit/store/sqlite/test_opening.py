"""The spool's folder, lock and files belong to the node alone: whatever else is there is refused, and said."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from postroad.store.sqlite.opening import check_directory, make_private_file, take_lock
from postroad.store.sqlite.schema import SpoolError


def _is_a_file(path: Path) -> None:
    path.write_text("")


def _is_a_link(path: Path) -> None:
    (path.parent / "other").mkdir()
    path.symlink_to("other")


def _is_open_to_others(path: Path) -> None:
    path.mkdir()
    path.chmod(0o770)


@pytest.mark.parametrize(
    ("prepare", "said"),
    [
        (_is_a_file, "File exists"),
        (_is_a_link, "not a folder (a symbolic link is not followed)"),
        (_is_open_to_others, "others can write there; run chmod go-w"),
    ],
)
def test_a_folder_that_will_not_do(tmp_path: Path, prepare: Callable[[Path], None], said: str) -> None:
    path = tmp_path / "spool"
    prepare(path)
    with pytest.raises(SpoolError) as refused:
        check_directory(path)
    assert str(refused.value).startswith(f"{path}: ") and said in str(refused.value)


def test_a_folder_is_made_for_us_alone(tmp_path: Path) -> None:
    path = tmp_path / "state" / "spool"
    check_directory(path)
    assert path.stat().st_mode & 0o777 == 0o700
    check_directory(path)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file to somebody else")
def test_a_folder_and_a_file_of_somebody_else(tmp_path: Path) -> None:
    os.chown(tmp_path, 12345, -1)
    with pytest.raises(SpoolError, match="belongs to user 12345, the node runs as 0"):
        check_directory(tmp_path)
    (tmp_path / "00.db").write_text("")
    os.chown(tmp_path / "00.db", 12345, -1)
    with pytest.raises(SpoolError, match="belongs to user 12345, not to the one that runs the node"):
        make_private_file(tmp_path / "00.db")


def test_the_lock_is_one_process_s(tmp_path: Path) -> None:
    lock, database = tmp_path / "00.lock", tmp_path / "00.db"
    handle = take_lock(lock, database)
    with pytest.raises(SpoolError, match="another process has it open for writing; is a node running"):
        take_lock(lock, database)
    os.close(handle)
    os.close(take_lock(lock, database))


def test_a_lock_that_is_a_link_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "00.lock").symlink_to("elsewhere")
    with pytest.raises(SpoolError, match="cannot be locked"):
        take_lock(tmp_path / "00.lock", tmp_path / "00.db")
    assert not (tmp_path / "elsewhere").exists()


def test_a_file_with_a_second_name_or_of_another_kind(tmp_path: Path) -> None:
    make_private_file(tmp_path / "00.db")
    assert (tmp_path / "00.db").stat().st_mode & 0o777 == 0o600
    os.link(tmp_path / "00.db", tmp_path / "second")
    with pytest.raises(SpoolError, match="not a regular file of its own"):
        make_private_file(tmp_path / "00.db")
    os.mkfifo(tmp_path / "01.db")
    with pytest.raises(SpoolError, match="not a regular file of its own"):
        make_private_file(tmp_path / "01.db")
