"""`postroad user`: the accounts file is changed as a whole, one line at a time."""

from __future__ import annotations

import json
import os
import pwd
import stat
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from postroad.accounts.accounts import matches, parse
from postroad.cli import users
from postroad.cli.cli import group
from postroad.protocol.sasl import scram_keys


@pytest.fixture
def config(tmp_path: Path) -> Path:
    file = tmp_path / "postroad.toml"
    file.write_text('hostname = "a.example"\nstate_dir = "state"\n[auth]\nusers = "accounts/users"\n')
    (tmp_path / "accounts").mkdir()
    return file


def run(config: Path, *arguments: str, text: str = "") -> Result:
    return CliRunner().invoke(group({}), ["user", *arguments, "-c", str(config)], input=text)


def file_of(config: Path) -> Path:
    return config.parent / "accounts/users"


def accounts(config: Path) -> dict[str, tuple[str, tuple[str, ...]]]:
    found, faults = parse(file_of(config).read_text())
    assert faults == ()
    return {name: (account.hash, account.addresses) for name, account in found.items()}


def test_an_account_is_added_with_its_password_from_standard_input(config: Path) -> None:
    result = run(config, "add", "alice", "-a", "Alice@Example.org", "-a", "*@example.net", text="pass word\n")
    assert result.exit_code == 0, result.output
    hashed, addresses = accounts(config)["alice"]
    assert addresses == ("alice@example.org", "*@example.net")
    assert matches(hashed, "pass word") and not matches(hashed, "pass")
    assert "pass word" not in result.output
    assert stat.S_IMODE(file_of(config).stat().st_mode) == 0o640


def test_an_account_named_by_its_mailbox_needs_no_address(config: Path) -> None:
    assert run(config, "add", "alice@example.org", text="x\n").exit_code == 0
    assert accounts(config)["alice@example.org"][1] == ()
    assert run(config, "list").output == "alice@example.org  alice@example.org\n"


def test_accounts_are_listed_for_people_and_programs(config: Path) -> None:
    run(config, "add", "al", "-a", "*@example.org", text="x\n")
    run(config, "add", "robot@example.org", text="x\n")
    assert run(config, "list").output == "al                 *@example.org\nrobot@example.org  robot@example.org\n"
    assert json.loads(run(config, "list", "--json").output) == [
        {"name": "al", "addresses": ["*@example.org"]},
        {"name": "robot@example.org", "addresses": ["robot@example.org"]},
    ]


def test_without_a_file_there_are_no_accounts(config: Path) -> None:
    result = run(config, "list")
    assert (result.exit_code, result.output) == (0, "")


def test_a_change_leaves_all_other_lines_as_they_are(config: Path) -> None:
    for name in ("a@example.org", "b@example.org", "c@example.org"):
        run(config, "add", name, text=f"{name}\n")
    lines = file_of(config).read_text().splitlines()
    file_of(config).write_text("\n".join(["# people", lines[0], "", "  # Bob", lines[1], lines[2]]) + "\n")
    assert run(config, "password", "b@example.org", text="new\n").exit_code == 0
    assert run(config, "addresses", "b@example.org", "b@example.net", "*@example.com").exit_code == 0
    after = file_of(config).read_text().splitlines()
    assert [*after[:4], after[5]] == ["# people", lines[0], "", "  # Bob", lines[2]]
    hashed, addresses = accounts(config)["b@example.org"]
    assert matches(hashed, "new") and addresses == ("b@example.net", "*@example.com")
    assert run(config, "remove", "b@example.org").exit_code == 0
    assert file_of(config).read_text().splitlines() == [*after[:4], after[5]]


def test_owner_and_mode_stay_those_of_the_file(config: Path) -> None:
    run(config, "add", "a@example.org", text="x\n")
    if os.geteuid() == 0:
        os.chown(file_of(config), 12, 34)
    before = file_of(config).stat()
    run(config, "add", "b@example.org", text="x\n")
    after = file_of(config).stat()
    assert (after.st_uid, after.st_gid, stat.S_IMODE(after.st_mode)) == (before.st_uid, before.st_gid, 0o640)
    assert after.st_ino != before.st_ino, "a file is replaced, not written over"


def test_a_symbolic_link_is_followed_not_replaced(config: Path) -> None:
    real = config.parent / "real"
    real.write_text("# here\n")
    file_of(config).symlink_to(real)
    run(config, "add", "a@example.org", text="x\n")
    assert file_of(config).is_symlink()
    assert real.read_text().startswith("# here\na@example.org:")


def test_a_write_that_fails_leaves_the_old_file_and_nothing_else(config: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run(config, "add", "a@example.org", text="x\n")
    before = file_of(config).read_bytes()

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("postroad.cli.users.os.fsync", full)
    result = run(config, "add", "b@example.org", text="x\n")
    assert result.exit_code == 1
    assert "No space left" in result.output
    assert file_of(config).read_bytes() == before
    assert [each.name for each in file_of(config).parent.iterdir()] == ["users"]


@pytest.mark.parametrize(
    ("arguments", "text", "said"),
    [
        (("add", "alice"), "x\n", "add --address with the addresses"),
        (("add", "a:b", "-a", "*"), "x\n", "not hold a colon"),
        (("add", "a\tb", "-a", "*"), "x\n", "cannot be an account"),
        (("add", "#a@example.org"), "x\n", "cannot be an account"),
        (("add", "alice", "-a", "nobody"), "x\n", "'nobody' is neither a mailbox"),
        (("add", "alice", "-a", '"a:b"@example.org'), "x\n", "is neither a mailbox"),
        (("add", "b@example.org"), "x\n", "already"),
        (("add", "c@example.org"), "", "no password on standard input"),
        (("add", "c@example.org"), "\n", "no password on standard input"),
        (("add", "c@example.org"), "x" * 1025 + "\n", "cannot be a password"),
        (("password", "c@example.org"), "x\n", "There is no account 'c@example.org'"),
        (("remove", "c@example.org"), "", "There is no account 'c@example.org'"),
        (("addresses", "c@example.org", "*"), "", "There is no account 'c@example.org'"),
        (("addresses", "b@example.org", "x"), "", "'x' is neither a mailbox"),
    ],
)
def test_what_cannot_be_done_changes_nothing(config: Path, arguments: tuple[str, ...], text: str, said: str) -> None:
    run(config, "add", "b@example.org", text="x\n")
    before = file_of(config).read_bytes()
    result = run(config, *arguments, text=text)
    assert result.exit_code == 1
    assert said in result.output
    assert file_of(config).read_bytes() == before


def test_an_account_that_is_there_already_is_said_before_all_else(config: Path) -> None:
    assert run(config, "add", "carl", "-a", "carl@example.org", text="x\n").exit_code == 0
    assert "The account 'carl' already exists" in run(config, "add", "carl", text="x\n").output


def test_a_faulty_line_is_named_and_nothing_is_changed(config: Path) -> None:
    file_of(config).write_text("\nalice\n")
    result = run(config, "add", "b@example.org", text="x\n")
    assert result.exit_code == 78
    assert f"{file_of(config)}:2: " in result.stderr
    assert file_of(config).read_text() == "\nalice\n"


def test_without_an_accounts_file_in_the_configuration_the_remedy_is_told(tmp_path: Path) -> None:
    file = tmp_path / "postroad.toml"
    file.write_text('hostname = "a.example"\nstate_dir = "s"\n')
    result = run(file, "list")
    assert result.exit_code == 78
    assert "auth.users" in result.stderr and 'users = "users" under [auth]' in result.stderr


def test_a_file_may_be_named_instead(tmp_path: Path) -> None:
    arguments = ["user", "add", "a@example.org", "--file", str(tmp_path / "other")]
    result = CliRunner().invoke(group({}), arguments, input="x\n")
    assert result.exit_code == 0, result.output
    assert (tmp_path / "other").read_text().startswith("a@example.org:$argon2id$")


def test_a_missing_folder_is_told(tmp_path: Path) -> None:
    arguments = ["user", "add", "a@example.org", "--file", str(tmp_path / "none/users")]
    result = CliRunner().invoke(group({}), arguments, input="x\n")
    assert result.exit_code == 1
    assert "No such file or directory" in result.output


def test_adding_by_program_makes_or_changes_the_account(tmp_path: Path) -> None:
    file = tmp_path / "users"
    users.add_account(file, "demo", "one", ("*@example.test",))
    users.add_account(file, "demo", "two", ("a@example.test",))
    found, _ = parse(file.read_text())
    assert list(found) == ["demo"]
    assert matches(found["demo"].hash, "two") and found["demo"].addresses == ("a@example.test",)


def test_a_file_that_root_makes_can_be_read_by_the_node(config: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    nobody = pwd.getpwnam("nobody")
    config.write_text('user = "nobody"\n' + config.read_text())
    owners: list[tuple[int, int]] = []
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setattr(os, "fchown", lambda descriptor, user, group: owners.append((user, group)))
    assert run(config, "add", "alice@example.org", text="x\n").exit_code == 0
    assert owners == [(-1, nobody.pw_gid)]
    assert stat.S_IMODE(file_of(config).stat().st_mode) == 0o640


def test_scram_keys_are_kept_beside_the_hash(config: Path) -> None:
    def kept() -> dict[str, list[str]]:
        found, _ = parse(file_of(config).read_text())
        return {name: [keys.hash.value for keys in account.keys] for name, account in found.items()}

    run(config, "add", "new@example.org", text="one\n")
    run(config, "add", "old@example.org", "--scram-sha-1", text="one\n")
    run(config, "add", "elsewhere@example.org", "--no-password")
    assert kept() == {"new@example.org": ["SHA-256"], "old@example.org": ["SHA-256", "SHA-1"],
                      "elsewhere@example.org": []}  # fmt: skip
    assert accounts(config)["elsewhere@example.org"][0] == ""
    before = file_of(config).read_text()
    for name in ("new@example.org", "old@example.org", "elsewhere@example.org"):
        assert run(config, "password", name, text="two\n").exit_code == 0
    assert kept()["old@example.org"] == ["SHA-256", "SHA-1"], "what a client needs stays"
    assert kept()["elsewhere@example.org"] == ["SHA-256"]
    found, _ = parse(file_of(config).read_text())
    for account in found.values():
        for keys in account.keys:
            assert scram_keys.derive(keys.hash, "two", keys.salt, keys.iterations) == keys
            assert scram_keys.format_keys(keys) not in before


def test_an_address_in_other_letters_is_the_same_account(config: Path) -> None:
    assert run(config, "add", "Ada@Example.org", text="x\n").exit_code == 0
    again = run(config, "add", "ada@example.ORG", text="y\n")
    assert again.exit_code == 1 and "already exists" in again.output
    assert run(config, "password", "ADA@example.org", text="z\n").exit_code == 0
    assert run(config, "addresses", "ada@example.org", "sales@example.org").exit_code == 0
    assert list(accounts(config)) == ["ada@example.org"]
    assert matches(accounts(config)["ada@example.org"][0], "z")
    assert "Ada@Example.org" in run(config, "list").output, "it stays as it was written"
    assert run(config, "remove", "aDa@example.org").exit_code == 0
    assert not accounts(config)


@pytest.mark.parametrize("line", ['account_domain = "example.org"', 'sender_maps = ["senders"]'])
def test_an_account_without_addresses_when_the_configuration_gives_them(config: Path, line: str) -> None:
    assert run(config, "add", "ada", text="secret\n").exit_code == 1
    with config.open("a") as file:
        file.write(f"{line}\n")
    assert run(config, "add", "ada", text="secret\n").exit_code == 0
    assert accounts(config)["ada"][1] == ()
