"""The demonstration node: made once, kept from then on, explained at every start."""

from __future__ import annotations

import datetime
import stat
from pathlib import Path

import pytest

from postroad.accounts.accounts import matches, owns, parse
from postroad.cli import demo
from postroad.config.load import load
from postroad.config.settings import Settings
from postroad.mail.address import Address
from postroad.mail.policy import Role
from postroad.receive.options import ListenerTls
from postroad.world.problem import Problem

NOW = datetime.datetime.now(datetime.UTC)


def made(folder: Path) -> Settings:
    path = demo.prepare(folder, NOW)
    assert path == folder / "postroad.toml"
    settings = load(path)
    assert isinstance(settings, Settings), [str(each) for each in settings]
    return settings


def test_it_is_what_the_newcomer_was_promised(tmp_path: Path) -> None:
    folder = tmp_path / "var"
    settings = made(folder)
    assert [(each.address, each.port, each.role, settings.tls_of(each)) for each in settings.listener] == [
        (("127.0.0.1",), 2525, Role.MX, ListenerTls.STARTTLS),
        (("127.0.0.1",), 2587, Role.SUBMISSION, ListenerTls.REQUIRED),
    ]
    assert settings.state_dir == folder
    assert [(each.name, each.recipients) for each in settings.domain] == [("example.test", ("any",))]
    assert settings.domain[0].path == folder / "mail/{domain}/{local_part}"


def test_the_account_is_for_its_owner_only_and_works(tmp_path: Path) -> None:
    made(tmp_path)
    note = tmp_path / "demo-account"
    assert stat.S_IMODE(note.stat().st_mode) == 0o600
    name, password = note.read_text().splitlines()
    account = parse((tmp_path / "users").read_text())[0][name]
    assert matches(account.hash, password)
    assert owns(account, Address("anyone", "example.test")) and not owns(account, Address("a", "example.org"))


def test_a_second_start_changes_nothing(tmp_path: Path) -> None:
    made(tmp_path)
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    made(tmp_path)
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before


@pytest.mark.parametrize("lost", ["demo-account", "users"])
def test_an_account_without_its_other_half_gets_a_new_password(lost: str, tmp_path: Path) -> None:
    made(tmp_path)
    (tmp_path / lost).unlink()
    made(tmp_path)
    name, password = (tmp_path / "demo-account").read_text().splitlines()
    assert matches(parse((tmp_path / "users").read_text())[0][name].hash, password)


def test_the_banner_says_where_who_and_three_commands(tmp_path: Path) -> None:
    settings = made(tmp_path)
    text = demo.banner(tmp_path, tmp_path / "postroad.toml", settings)
    password = (tmp_path / "demo-account").read_text().splitlines()[1]
    for said in (
        "127.0.0.1 port 2525",
        "127.0.0.1 port 2587",
        demo.ACCOUNT,
        password,
        "mail/example.test/<local-part>/",
    ):
        assert said in text
    commands = text.split("another terminal:\n")[1].strip().splitlines()
    assert [command.split()[:2][-1] for command in commands] == ["-c", "queue", "trace"]
    compile(commands[0].split('"')[1], "command", "exec")


def test_a_folder_that_cannot_be_made_is_a_problem(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    found = demo.prepare(tmp_path / "file/var", NOW)
    assert isinstance(found, Problem)
    assert "cannot be written" in found.text
