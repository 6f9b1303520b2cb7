"""The command line as a whole: what it lists, what it imports, how it ends."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import click
import pytest
from click.testing import CliRunner, Result

from postroad import __version__
from postroad.cli.cli import COMMANDS, CommandEntry, group

RIGHT = """\
hostname = "mail.example.org"
state_dir = "state"
postmaster = "ada@example.org"

[[listener]]
name = "mx"
address = "unix:/run/postroad/mx"
port = 2525

[[domain]]
name = "example.org"
recipients = "any"
path = "mail/{local_part}"
"""


def run(*arguments: str) -> Result:
    return CliRunner().invoke(group({}), list(arguments))


def test_help_lists_each_command_with_its_line() -> None:
    result = run("--help")
    assert result.exit_code == 0
    for name, place in COMMANDS.items():
        assert any(line.split(maxsplit=1) == [name, place.summary] for line in result.output.splitlines()), name


def test_further_commands_are_listed_too() -> None:
    result = CliRunner().invoke(group({"more": CommandEntry("nowhere", "more", "Do more.")}), ["-h"])
    assert "more" in result.output and "Do more." in result.output


@pytest.mark.parametrize("name", sorted(COMMANDS))
def test_each_command_of_the_table_is_there(name: str) -> None:
    place = COMMANDS[name]
    module = __import__(place.module, fromlist=[place.attribute])
    assert isinstance(getattr(module, place.attribute), click.Command)
    result = run(name, "--help")
    assert result.exit_code == 0, result.output
    assert result.output.startswith(f"Usage: postroad {name}")


def test_help_imports_nothing_that_takes_its_time() -> None:
    script = (
        "import sys\nfrom postroad.cli.cli import group\n"
        "group({})(['--help'], standalone_mode=False)\n"
        "print(*sorted(sys.modules), sep='\\n')"
    )
    ended = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    loaded = {line.split(".")[0] for line in ended.stdout.splitlines()}
    assert loaded.isdisjoint(
        {"pydantic", "msgspec", "rich", "cryptography", "uvloop", "sqlite3", "asyncio", "argon2", "dns"}
    )
    assert "click" in loaded


def test_the_program_is_there_with_serve() -> None:
    ended = subprocess.run([sys.executable, "-m", "postroad", "--help"], capture_output=True, text=True, check=True)
    assert "\n  serve " in ended.stdout


@pytest.mark.parametrize(("given", "meant"), [("que", "queue"), ("traec", "trace"), ("users", "user")])
def test_a_misspelt_command_is_told_the_nearest(given: str, meant: str) -> None:
    result = run(given)
    assert result.exit_code == 2
    assert f"No such command '{given}'. Did you mean '{meant}'?" in result.output


def test_an_unknown_command_is_an_error_of_usage() -> None:
    result = run("zzz")
    assert result.exit_code == 2
    assert "Did you mean" not in result.output


def test_version_for_people_and_programs() -> None:
    assert run("version").output.startswith(f"postroad {__version__} (Python 3.")
    assert json.loads(run("version", "--json").output)["postroad"] == __version__
    assert run("--version").output == f"postroad {__version__}\n"


def test_check_of_a_right_file(tmp_path: Path) -> None:
    file = tmp_path / "postroad.toml"
    file.write_text(RIGHT)
    result = run("check", "--config", str(file))
    assert (result.exit_code, result.output) == (0, f"{file} is valid.\n")
    assert json.loads(run("check", "--json", "-c", str(file)).output) == {
        "file": str(file), "valid": True, "problems": [], "warnings": [], "changes": [],
    }  # fmt: skip


def test_check_warns_of_what_is_hardly_meant(tmp_path: Path) -> None:
    file = tmp_path / "postroad.toml"
    file.write_text(RIGHT.replace('"mail.example.org"', '"mail"', 1))
    result = run("check", "-c", str(file))
    assert (result.exit_code, result.stdout) == (0, f"{file} is valid.\n")
    assert result.stderr.startswith(f"warning: {file}:1: hostname: 'mail' is not a fully qualified name. ")
    said = json.loads(run("check", "--json", "-c", str(file)).output)
    assert said["valid"] and [each["key"] for each in said["warnings"]] == ["hostname"]


def test_check_of_a_wrong_file_tells_all_and_ends_with_78(tmp_path: Path) -> None:
    file = tmp_path / "postroad.toml"
    file.write_text(RIGHT.replace("port =", "prot =").replace('"any"', "5"))
    result = run("check", "-c", str(file))
    assert result.exit_code == 78
    assert result.stdout == ""
    assert [line.split(": ")[0] for line in result.stderr.splitlines()] == [f"{file}:8", f"{file}:12"]
    said = json.loads(run("check", "--json", "-c", str(file)).output)
    assert run("check", "--json", "-c", str(file)).exit_code == 78
    assert said["valid"] is False
    assert said["problems"][0] == {
        "file": str(file), "line": 8, "key": "listener[1].prot", "text": "There is no setting 'prot'",
        "remedy": "Did you mean 'port'?",
    }  # fmt: skip


@pytest.mark.parametrize("arguments", [("check",), ("config", "show"), ("user", "list")])
def test_a_missing_file_ends_every_command_with_78(arguments: tuple[str, ...], tmp_path: Path) -> None:
    result = run(*arguments, "-c", str(tmp_path / "none.toml"))
    assert result.exit_code == 78
    assert "The file does not exist" in result.stderr


def test_the_configuration_is_found_by_environment_and_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    named, here = tmp_path / "named.toml", tmp_path / "postroad.toml"
    named.write_text(RIGHT)
    here.write_text(RIGHT)
    monkeypatch.chdir(tmp_path)
    assert run("check").output == "postroad.toml is valid.\n"
    monkeypatch.setenv("POSTROAD_CONFIG", str(named))
    assert run("check").output == f"{named} is valid.\n"
    assert run("check", "-c", "postroad.toml").output == "postroad.toml is valid.\n"


def test_config_prints_reference_and_example() -> None:
    assert run("config", "reference").output.startswith("# Configuration\n")
    assert {"table": "limits", "key": "hops_max"}.items() <= next(
        each for each in json.loads(run("config", "reference", "--json").output) if each["key"] == "hops_max"
    ).items()
    assert 'hostname = "mail.example.org"' in run("config", "example").output.splitlines()


def test_config_show_prints_what_is_in_force(tmp_path: Path) -> None:
    file = tmp_path / "postroad.toml"
    file.write_text(RIGHT)
    lines = run("config", "show", "-c", str(file)).output.splitlines()
    assert "listener[1].port = 2525" in lines
    assert "limits.hops_max = 100" in lines
    assert 'outbound.tls.minimum = "TLSv1.2"' in lines
    assert json.loads(run("config", "show", "--json", "-c", str(file)).output)["listener"][0]["port"] == 2525


def test_check_tries_the_places_to_listen_on(tmp_path: Path) -> None:
    (tmp_path / "postroad.toml").write_text(
        'hostname = "mail.example.org"\nstate_dir = "state"\n'
        '[[domain]]\nname = "example.org"\nrecipients = "any"\npath = "mail/{domain}/{local_part}"\n'
        '[[listener]]\nname = "mx"\naddress = "192.0.2.77"\nport = 2525\n'
    )
    done = run("check", "-c", str(tmp_path / "postroad.toml"))
    assert done.exit_code == 78
    assert "postroad.toml:9: listener[1].address: 192.0.2.77:2525 is not an address of this machine." in done.stderr
