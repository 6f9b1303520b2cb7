"""The folder that the node shares with users: made with the right modes, and nothing in it is followed."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from postroad.node import local_folder
from postroad.sendmail import places
from postroad.world import system
from postroad.world.problem import Problem


def test_it_is_made_for_all_and_made_right_again(tmp_path: Path) -> None:
    folder = tmp_path / "spool" / "postroad"
    for _ in range(2):
        assert local_folder.prepare(folder, None) is None
        assert stat.S_IMODE(folder.stat().st_mode) == 0o755
        assert stat.S_IMODE((folder / places.DROP).stat().st_mode) == 0o3733
        (folder / places.DROP).chmod(0o777)


def test_a_drop_folder_that_leads_elsewhere_is_refused(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir(mode=0o700)
    (tmp_path / "shared").mkdir()
    (tmp_path / "shared" / places.DROP).symlink_to(tmp_path / "elsewhere")
    found = local_folder.prepare(tmp_path / "shared", None)
    assert isinstance(found, Problem) and "install -d -m 3733" in found.remedy
    assert stat.S_IMODE((tmp_path / "elsewhere").stat().st_mode) == 0o700


def test_what_the_program_has_to_know(tmp_path: Path) -> None:
    (tmp_path / "victim").write_text("keep")
    (tmp_path / f"{places.FACTS}.new").symlink_to(tmp_path / "victim")
    local_folder.tell(tmp_path, 77)
    assert (tmp_path / places.FACTS).read_text() == "size_max 77\n"
    assert stat.S_IMODE((tmp_path / places.FACTS).stat().st_mode) == 0o644
    assert (tmp_path / "victim").read_text() == "keep"


def test_everybody_may_connect(tmp_path: Path) -> None:
    for _ in range(2):  # a socket that a node before left is replaced
        made = local_folder.serve(tmp_path)
        assert not isinstance(made, Problem)
        assert stat.S_IMODE((tmp_path / places.SOCKET).stat().st_mode) == 0o666
        made.close()


def test_what_should_be_otherwise_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o700)
    monkeypatch.setattr(system, "group_members", lambda gid: ["eve"])
    said = local_folder.doubts(closed, os.getgid())
    assert any(f"cannot enter {closed}" in text for text in said)
    assert any(text.startswith("in the node's group: eve;") for text in said)
