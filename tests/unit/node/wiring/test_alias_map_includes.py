"""A map of kind `aliases` that includes a file: what is wrong with the file concerns the entries that include it."""

from __future__ import annotations

from pathlib import Path

import pytest

from postroad.config.load import parse
from postroad.mail.address import Address
from postroad.maps.face import NotNow
from postroad.node.wiring.tables import Tables, build

SETTINGS = """
hostname = "mx.home.test"
state_dir = "state"
alias_maps = ["lists"]
[[listener]]
name = "front"
address = "127.0.0.1"
port = 2525
[[domain]]
name = "home.test"
recipients = ["ann", "bob"]
path = "{folder}/{{domain}}/{{local_part}}"
[alias_targets]
includes = ["aliases"]
[[map]]
name = "lists"
kind = "aliases"
file = "{folder}/lists"
"""


@pytest.fixture
def tables(tmp_path: Path) -> Tables:
    (tmp_path / "members").write_text("bob\n|/bin/cat\n")
    (tmp_path / "lists").write_text(f"list: :include:{tmp_path}/members\nall: list, ann\nfriends: bob\n")
    settings = parse(SETTINGS.format(folder=tmp_path), tmp_path / "postroad.toml", files=False)
    assert not isinstance(settings, list), settings
    found = build(settings)
    assert not isinstance(found, str), found
    return found


def test_only_the_entries_that_include_it_wait(tables: Tables, tmp_path: Path) -> None:
    def known(name: str) -> object:
        return tables.known(Address(name, "home.test"))

    assert [known(name) for name in ("ann", "bob", "friends", "nobody")] == [True, True, True, False]
    for name in ("list", "all"):
        found = known(name)
        assert isinstance(found, NotNow) and "members:2: '|/bin/cat': programs are not allowed here" in found.text
    (tmp_path / "members").write_text("bob\n")
    assert tables.look() == tables.look() == ()
    assert [known(name) for name in ("list", "all")] == [True, True]
