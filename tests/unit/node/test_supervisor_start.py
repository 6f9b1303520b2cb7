"""How a node ends that cannot start: each problem once, the exit code, and no traceback."""

from __future__ import annotations

import asyncio
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest

from postroad.config.load import load
from postroad.config.settings import Settings
from postroad.node.supervisor import Supervisor


def settings_in(folder: Path, more: str = "") -> Settings:
    text = 'hostname = "mail.example.org"\nstate_dir = "state"\nworkers = 2\n'
    listener = f'[[listener]]\nname = "mx"\nrole = "mx"\naddress = ["unix:{folder}/mx"]\n'
    domain = '[[domain]]\nname = "example.org"\nrecipients = "any"\npath = "mail/{domain}/{local_part}"\n'
    (folder / "postroad.toml").write_text(text + more + listener + domain)
    found = load(folder / "postroad.toml")
    assert isinstance(found, Settings), found
    return found


def started(settings: Settings) -> tuple[int, list[str]]:
    """Start a node; its exit code and what it said of errors."""
    said: list[tuple[str, str]] = []
    supervisor = Supervisor(
        settings,
        lambda: settings,
        lambda level, text: said.append((level, text)),
        lambda *problem: str(problem[2]),
        lambda settings: None,
    )
    assert supervisor.prepare() == ""
    code = asyncio.run(asyncio.wait_for(supervisor.run(), 30))
    os.close(supervisor._lock.descriptor)
    return code, [text for level, text in said if level == "error" and not text.startswith("worker ")]


def test_what_all_workers_complain_of_is_said_once_as_of_accounts_that_cannot_be_read(tmp_path: Path) -> None:
    (tmp_path / "users").write_text("")
    settings = settings_in(tmp_path, "[auth]\nusers = \"users\"\n")
    (tmp_path / "users").unlink()
    code, errors = started(settings)
    assert code == 78
    assert len(errors) == 1 and f"{tmp_path}/users: there is no such file" in errors[0]


def test_a_log_that_cannot_be_opened_by_now_keeps_the_node_from_starting(tmp_path: Path) -> None:
    settings = settings_in(tmp_path, '[log]\npath = "log"\n')
    (tmp_path / "log").mkdir()
    code, errors = started(settings)
    assert code == 78
    assert errors == [f"cannot start: log.path: {tmp_path}/log: Is a directory"]


def test_an_interpreter_that_may_not_be_run_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*arguments: Any, **named: Any) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(subprocess, "Popen", refused)
    code, errors = started(settings_in(tmp_path))
    assert code == 1
    assert len(errors) == 1 and "Permission denied; give this user the right to execute it" in errors[0]
