"""Programs and files of aliases that are not there, or may not be used."""

from __future__ import annotations

from pathlib import Path

import pytest

from postroad.config import alias_outlets
from postroad.config.load import parse

SETTINGS = """
hostname = "mx.test"
state_dir = "state"
aliases = "{folder}/aliases"
alias_maps = ["lists"]
user = "{user}"
[alias_targets]
programs = ["aliases"]
files = ["aliases"]
[[map]]
name = "lists"
kind = "text"
file = "{folder}/lists"
[[listener]]
name = "front"
role = "mx"
port = 2525
[[domain]]
name = "a.test"
recipients = "any"
path = "{folder}/mail/{{local_part}}"
"""


def doubts(folder: Path, aliases: str, lists: str = "", user: str = "nobody") -> list[str]:
    (folder / "aliases").write_text(aliases)
    (folder / "lists").write_text(lists)
    found = parse(SETTINGS.format(folder=folder, user=user), folder / "postroad.toml", files=False)
    assert not isinstance(found, list), found
    return [each.text for each in alias_outlets.find(found, 0.0)]


@pytest.mark.parametrize(("target", "why"), [
    ("|/bin/true", ""), ("|/no/such/program x", "the program /no/such/program does not exist"),
    ("|{folder}", "is not a program"), ("|{folder}/closed", "may not run"), ("|{folder}/open", ""),
    ("{folder}/archive", ""), ("{folder}/none/archive", "the folder"), ("{folder}/open/", "it is a file"),
    ("{folder}/box", "it is a folder"), ("{folder}/box/", ""), ("/dev/null", ""),
])  # fmt: skip
def test_what_is_said(tmp_path: Path, target: str, why: str) -> None:
    (tmp_path / "box").mkdir()
    for name, mode in (("closed", 0o640), ("open", 0o755)):
        (tmp_path / name).write_text("#!/bin/sh\n")
        (tmp_path / name).chmod(mode)
    target = target.format(folder=tmp_path)
    for found in (doubts(tmp_path, f'list: "{target}"\n'), doubts(tmp_path, "", f'list@a.test "{target}"\n')):
        assert [bool(why)] == [bool(found)] and all(why in each for each in found)
        assert all("The alias list" in each and "mail waits" in each for each in found)


def test_a_plain_configuration_looks_at_nothing(tmp_path: Path) -> None:
    assert doubts(tmp_path, "list: ada\n") == []
