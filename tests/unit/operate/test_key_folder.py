"""The folder of keys, made by a command that root calls for a node of another user."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from postroad.config.load import load
from postroad.config.settings import Settings
from postroad.operate import key_folder

NOBODY = 65_534


def _settings(folder: Path) -> Settings:
    path = folder / "postroad.toml"
    path.write_text(f'hostname = "mx.example.org"\nuser = "nobody"\nstate_dir = "{folder}/state"\n')
    found = load(path)
    assert isinstance(found, Settings), found
    return found


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to give a folder to another user")
@pytest.mark.parametrize("ended_after", ["nothing", "the state folder", "the folder of keys"])
def test_folders_that_a_command_has_made_and_not_given_away_are_given_away_later(
    tmp_path: Path, ended_after: str
) -> None:
    settings, state = _settings(tmp_path), tmp_path / "state"
    if ended_after != "nothing":
        state.mkdir()
    if ended_after == "the folder of keys":
        os.chown(state, NOBODY, NOBODY)
        (state / "dkim").mkdir(0o700)
    key_folder._make(settings, state / "dkim")
    assert (state.stat().st_uid, (state / "dkim").stat().st_uid) == (NOBODY, NOBODY)


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to give a folder to another user")
def test_a_folder_of_root_with_files_is_left_alone(tmp_path: Path) -> None:
    settings, keys = _settings(tmp_path), tmp_path / "state" / "dkim"
    keys.mkdir(0o700, parents=True)
    (keys / "example.org.json").write_bytes(b"")
    key_folder._make(settings, keys)
    assert (tmp_path / "state").stat().st_uid == keys.stat().st_uid == 0
