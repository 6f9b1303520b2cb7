"""An operator's request is done by the running node, or on the spool itself if there is none."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from postroad.config.load import parse
from postroad.config.settings import Settings
from postroad.operate import acting
from postroad.operate.operator import OperatorAction, OperatorRequest, OperatorResult
from postroad.store.values import Selection
from tests.unit.operate.test_control import REQUEST, ROW, _served

ALL = OperatorRequest(OperatorAction.RETRY, (Selection(),), by="ada")


def unwanted() -> Settings:
    raise AssertionError("beside a running node nobody waits for the settings")


async def test_the_running_node_does_it(tmp_path: Path) -> None:
    async with _served(tmp_path) as node:
        node.why_not = ""
        assert await asyncio.to_thread(acting.act, REQUEST, tmp_path, unwanted) == [ROW]


async def test_a_node_that_refuses_is_not_passed_by(tmp_path: Path) -> None:
    """Its spool is open: nobody else may touch it."""
    async with _served(tmp_path):
        with pytest.raises(acting.CannotAct, match="not ready"):
            await asyncio.to_thread(acting.act, REQUEST, tmp_path, unwanted)


def settings(folder: Path) -> Settings:
    found = parse('hostname = "a.example"\nstate_dir = "state"\n', folder / "postroad.toml", files=False)
    assert isinstance(found, Settings)
    return found


def test_without_a_node_the_spool_is_opened(tmp_path: Path) -> None:
    (tmp_path / "state" / "spool").mkdir(parents=True, mode=0o700)
    assert acting.act(ALL, tmp_path / "state", lambda: settings(tmp_path)) == []


def test_without_a_node_and_without_a_spool_it_says_so(tmp_path: Path) -> None:
    with pytest.raises(acting.CannotAct, match="spool"):
        acting.act(ALL, tmp_path / "state", lambda: settings(tmp_path))


def test_selectors_that_match_nothing_are_found_one_by_one() -> None:
    asked: list[OperatorRequest] = []

    def act(request: OperatorRequest) -> list[OperatorResult]:
        asked.append(request)
        return [ROW] if request.selections[0].recipient == "a@x" else []

    selections = (Selection(recipient="a@x"), Selection(ids=(7,)), Selection(destination="y"))
    request: Any = OperatorRequest(OperatorAction.REMOVE, selections, by="ada")
    assert acting.without_effect(request, ("a@x", "ID", "y"), act) == ["y"]
    assert [(each.dry_run, each.rows_max, each.selections) for each in asked] == [
        (True, 1, (selections[0],)), (True, 1, (selections[2],)),
    ]  # fmt: skip
