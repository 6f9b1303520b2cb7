"""Files that change while a node runs: what its log says of them."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

from postroad.config.load import load
from postroad.config.settings import Settings
from postroad.mail.event import Noted
from postroad.node.wiring.assembly import Assembly
from postroad.node.wiring.tables import Tables, build


def test_aliases_that_go_wrong_and_come_right_again(tmp_path: Path) -> None:
    (tmp_path / "aliases").write_text("info: ada\n")
    (tmp_path / "postroad.toml").write_text(
        'hostname = "mail.example.org"\nstate_dir = "state"\naliases = "aliases"\n'
        '[[domain]]\nname = "example.org"\nrecipients = "ada"\npath = "mail/{local_part}"\n'
    )
    settings = load(tmp_path / "postroad.toml")
    assert isinstance(settings, Settings)
    tables = build(settings)
    assert isinstance(tables, Tables)
    noted: list[Noted] = []
    clock = SimpleNamespace(now_us=lambda: 1)
    node = SimpleNamespace(tables=tables, number=0, _note=noted.append, _world=SimpleNamespace(clock=clock))
    node._note_text = partial(Assembly._note_text, cast(Any, node))
    node._note_once = partial(Assembly._note_once, cast(Any, node))
    node._in_background = lambda *work: None  # no map has a file here

    def look() -> list[tuple[str, str]]:
        noted.clear()
        for _ in range(2):  # a file that is being written is left alone: two looks must see the same
            Assembly._look_at_tables(cast(Any, node))
        return [(each.level, each.text) for each in noted]

    assert look() == []
    (tmp_path / "aliases").write_text("info ada and more\n")
    (_, fault), (level, text) = look()
    assert fault.startswith(f"{tmp_path}/aliases:1: ") and "docs/aliases.md" in fault
    assert (level, text) == ("error", "the old aliases stay in force until the alias file is correct")
    assert look() == []
    (tmp_path / "aliases").write_text("info: ada, ada\n")
    assert look() == [("info", "the changed aliases are in force")]
    node.number = 1
    (tmp_path / "aliases").write_text("info ada and more\n")
    assert look() == [], "the first worker tells it, once for all"
