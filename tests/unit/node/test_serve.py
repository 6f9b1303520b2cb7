"""`postroad serve`: from the command line to the supervisor, which is not run here."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from postroad.config.settings import Settings
from postroad.node import supervisor
from postroad.node.serve import serve

RIGHT = 'hostname = "mail.example.org"\nstate_dir = "state"\n'


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Any, ...]]:
    """What the supervisor is called with; it ends with 5."""
    seen: list[tuple[Any, ...]] = []

    def main(*arguments: Any) -> int:
        seen.append(arguments)
        return 5

    monkeypatch.setattr(supervisor, "main", main)
    return seen


def run(*arguments: str, **environment: str) -> Result:
    return CliRunner().invoke(serve, arguments, env=environment)


def written(folder: Path, text: str = RIGHT) -> Path:
    (folder / "postroad.toml").write_text(text)
    return folder / "postroad.toml"


def test_the_supervisor_gets_the_settings_and_its_code_is_ours(calls: list[tuple[Any, ...]], tmp_path: Path) -> None:
    result = run("-c", str(written(tmp_path)))
    assert result.exit_code == 5
    assert isinstance(calls[0][0], Settings) and calls[0][0].hostname == "mail.example.org"


def test_a_wrong_configuration_ends_with_78_and_nothing_is_started(
    calls: list[tuple[Any, ...]], tmp_path: Path
) -> None:
    result = run("-c", str(written(tmp_path, "wrokers = 2\n" + RIGHT)))
    assert result.exit_code == 78
    assert "postroad.toml:1: wrokers: There is no setting 'wrokers'. Did you mean 'workers'?" in result.stderr
    assert calls == []


def test_files_are_looked_at_before_anything_is_started(calls: list[tuple[Any, ...]], tmp_path: Path) -> None:
    result = run("-c", str(written(tmp_path, RIGHT + '[auth]\nusers = "users"\n')))
    assert (result.exit_code, calls) == (78, [])


def test_a_reload_reads_the_file_again(calls: list[tuple[Any, ...]], tmp_path: Path) -> None:
    path = written(tmp_path)
    run("-c", str(path))
    load: Callable[[], Settings | list[str]] = calls[0][1]
    written(tmp_path, RIGHT + "workers = 3\n")
    found = load()
    assert isinstance(found, Settings) and found.workers == 3
    written(tmp_path, RIGHT + "workers = 3\nx = 1\n")
    problems = load()
    assert isinstance(problems, list) and problems[0].startswith(f"{path}:4: x: ")


def test_lines_about_the_node_go_where_the_log_goes(calls: list[tuple[Any, ...]], tmp_path: Path) -> None:
    run("-c", str(written(tmp_path, RIGHT + '[log]\npath = "log"\nformat = "json"\nlevel = "warning"\n')))
    say: Callable[[str, str], None] = calls[0][2]
    say("info", "not this one")
    say("error", "this\none")
    lines = [json.loads(line) for line in (tmp_path / "log").read_text().splitlines()]  # warnings of check come first
    assert [line["text"] for line in lines if line["level"] != "warning"] == ["this\none"]
    assert lines[-1]["level"] == "error"


def test_lines_for_people_go_to_stderr(calls: list[tuple[Any, ...]], tmp_path: Path, capfdbinary: Any) -> None:
    run("-c", str(written(tmp_path)))
    say: Callable[[str, str], None] = calls[0][2]
    say("debug", "not this one")
    say("info", "ready")
    said = capfdbinary.readouterr().err
    assert said.endswith(b"ready\n") and b" info " in said and b"not this one" not in said


def test_a_log_that_cannot_be_written_is_said_on_stderr(
    calls: list[tuple[Any, ...]], tmp_path: Path, capfdbinary: Any
) -> None:
    run("-c", str(written(tmp_path, RIGHT + '[log]\npath = "log"\n')))
    (tmp_path / "log").unlink(missing_ok=True)
    (tmp_path / "log").mkdir()
    calls[0][2]("error", "this")
    said = capfdbinary.readouterr().err
    assert b"log: Is a directory: " in said and said.endswith(b"this\n")


def test_after_a_reload_lines_go_where_the_new_log_goes(calls: list[tuple[Any, ...]], tmp_path: Path) -> None:
    path = written(tmp_path)
    run("-c", str(path))
    load, say, renew = calls[0][1], calls[0][2], calls[0][4]
    written(tmp_path, RIGHT + '[log]\npath = "log"\nformat = "json"\n')
    renew(load())
    say("info", "reloaded")
    assert [json.loads(line)["text"] for line in (tmp_path / "log").read_text().splitlines()] == ["reloaded"]


@pytest.mark.skipif(os.geteuid() != 0, reason="a log that root makes needs root")
def test_a_log_that_root_begins_is_the_users(calls: list[tuple[Any, ...]]) -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        os.chown(folder, 65_534, -1)
        run("-c", str(written(folder, f'user = "nobody"\n{RIGHT}[log]\npath = "log"\n')))
        calls[0][2]("info", "ready")
        assert (folder / "log").stat().st_uid == 65_534


def test_the_demonstration_is_made_explained_and_served(calls: list[tuple[Any, ...]], tmp_path: Path) -> None:
    result = run("--demo", str(tmp_path / "var"))
    assert result.exit_code == 5, result.output
    assert calls[0][0].listener[0].port == 2525
    assert "password" in result.stdout and "another terminal" in result.stdout
    # A configuration in the environment is another node's.
    again = run("--demo", str(tmp_path / "var"), POSTROAD_CONFIG=str(tmp_path / "none.toml"))
    assert again.exit_code == 5


def test_the_demonstration_has_its_own_configuration(calls: list[tuple[Any, ...]], tmp_path: Path) -> None:
    result = run("--demo", str(tmp_path), "-c", str(written(tmp_path)))
    assert (result.exit_code, calls) == (2, [])
    assert "not both" in result.stderr


def test_a_folder_that_cannot_be_made_is_said(calls: list[tuple[Any, ...]], tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    result = run("--demo", str(tmp_path / "file" / "var"))
    assert (result.exit_code, calls) == (1, [])
    assert "cannot be written" in result.stderr
