"""The file ``.forward``: which one counts, and which cannot be used."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from postroad.world import forward_file
from postroad.world.forward_file import SIZE_MAX, ForwardFile
from postroad.world.identity import UserAccount


def user(home: Path) -> UserAccount:
    return UserAccount("ada", os.getuid(), (os.getgid(),), str(home))


def test_the_file_of_the_extension_comes_first(tmp_path: Path) -> None:
    tmp_path.chmod(0o700)
    (tmp_path / ".forward").write_text("bob\n")
    (tmp_path / ".forward+lists").write_text("carol\n")
    for extension, text in (
        ("", "bob\n"), ("+lists", "carol\n"), ("+LISTS", "carol\n"), ("+other", "bob\n"), ("+/../.forward", "bob\n"),
        ("+", "bob\n"),
    ):  # fmt: skip
        assert forward_file.read(user(tmp_path), extension) == ForwardFile(text)


def test_none_is_none(tmp_path: Path) -> None:
    assert forward_file.read(user(tmp_path), "+x") == ForwardFile()
    assert forward_file.read(user(tmp_path / "missing"), "") == ForwardFile()


@pytest.mark.parametrize(
    ("mode", "fault"),
    [(0o666, "all users can write"), (0o644, ""), (0o600, "")],
)
def test_who_may_write_to_it(tmp_path: Path, mode: int, fault: str) -> None:
    tmp_path.chmod(0o700)
    (tmp_path / ".forward").write_text("bob\n")
    (tmp_path / ".forward").chmod(mode)
    found = forward_file.read(user(tmp_path), "")
    assert fault in found.fault and (found.text is None) is bool(fault) and not found.not_now
    tmp_path.chmod(0o777)
    assert "can write to" in forward_file.read(user(tmp_path), "").fault


def test_files_of_others_and_no_files(tmp_path: Path) -> None:
    tmp_path.chmod(0o700)
    path = tmp_path / ".forward"
    path.write_text("bob\n")
    other = UserAccount("bob", os.getuid() + 1, (os.getgid(),), str(tmp_path))
    if os.getuid() != 0:
        assert "belongs to the user" in forward_file.read(other, "").fault
    else:
        os.chown(path, 12345, -1)
        assert "belongs to the user" in forward_file.read(other, "").fault
    path.unlink()
    os.mkfifo(path)
    assert "no plain file" in forward_file.read(user(tmp_path), "").fault  # and it waits for nobody
    path.unlink()
    path.mkdir()
    assert "no plain file" in forward_file.read(user(tmp_path), "").fault
    path.rmdir()
    (tmp_path / "there").write_text("bob\n")
    path.symlink_to(tmp_path / "there")
    assert forward_file.read(user(tmp_path), "").fault


def test_size_and_encoding(tmp_path: Path) -> None:
    tmp_path.chmod(0o700)
    (tmp_path / ".forward").write_bytes(b"x" * (SIZE_MAX + 1))
    assert "more than" in forward_file.read(user(tmp_path), "").fault
    (tmp_path / ".forward").write_bytes(b"\xff\n")
    assert "UTF-8" in forward_file.read(user(tmp_path), "").fault


def test_a_home_that_is_away_is_no_answer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def stale(*_: object) -> int:
        raise OSError(116, "Stale file handle")

    monkeypatch.setattr(os, "open", stale)
    assert "Stale" in forward_file.read(user(tmp_path), "").not_now


def test_included_files(tmp_path: Path) -> None:
    """As the file that includes them: of the user or root, and nobody else can write to it or exchange it."""
    tmp_path.chmod(0o700)
    path = tmp_path / "team"
    assert "No such file" in forward_file.read_included(str(path), user(tmp_path / "home")).fault
    path.write_text("bob\n")
    assert forward_file.read_included(str(path), user(tmp_path / "home")) == ForwardFile("bob\n")
    other = UserAccount("bob", os.getuid() + 1, (os.getgid(),), str(tmp_path))
    found = forward_file.read_included(str(path), other)
    assert "belongs to the user" in found.fault or os.getuid() == 0
    path.chmod(0o666)
    assert "all users can write" in forward_file.read_included(str(path), user(tmp_path)).fault
    path.chmod(0o600)
    tmp_path.chmod(0o1777)
    assert "all users can write to its folder" in forward_file.read_included(str(path), user(tmp_path / "home")).fault
    tmp_path.chmod(0o700)
    (tmp_path / "link").symlink_to(path)
    assert forward_file.read_included(str(tmp_path / "link"), user(tmp_path)).fault
    os.mkfifo(tmp_path / "fifo")
    assert "no plain file" in forward_file.read_included(str(tmp_path / "fifo"), user(tmp_path)).fault
