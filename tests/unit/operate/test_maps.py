"""`postroad map test`: what each step says."""

from __future__ import annotations

from pathlib import Path

import msgspec

from postroad.config.load import parse
from postroad.config.settings import Settings
from postroad.operate import maps

CONFIGURATION = """
hostname = "mx.example.org"
state_dir = "state"
[[map]]
name = "patterns"
kind = "regexp"
file = "patterns"
"""


def test_a_value_with_a_part_of_the_key_is_a_text_as_any_other(tmp_path: Path) -> None:
    """It is one of a type of its own in the node (`maps.face.WithKey`), which JSON does not know."""
    (tmp_path / "patterns").write_text("/^list-(.*)@/  $1@lists.example\n")
    settings = parse(CONFIGURATION, tmp_path / "postroad.toml")
    assert isinstance(settings, Settings), settings
    found = maps.test(settings, "patterns", "list-dev@example.org")
    assert isinstance(found, list) and found[0].value == "dev@lists.example"
    assert b'"value":"dev@lists.example"' in msgspec.json.encode(found)
