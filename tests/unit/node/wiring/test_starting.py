"""A worker starts, perhaps again after a crash, while files of aliases, mailboxes and maps cannot be used: mail that
needs them waits, all other mail goes on, and nobody is refused as unknown."""

from __future__ import annotations

from pathlib import Path

import pytest

from postroad.config.load import load
from postroad.config.settings import Settings
from postroad.mail.address import Address
from postroad.mail.envelope import Recipient
from postroad.mail.expansion import Expansion
from postroad.maps.face import NotNow
from postroad.node.wiring.tables import Tables, build

SETTINGS = """
hostname = "mx.home.test"
state_dir = "state"
aliases = "aliases"
alias_maps = ["virtual"]
[alias_targets]
includes = ["aliases", "includes"]
[[map]]
name = "virtual"
kind = "{kind}"
file = "virtual"
[[domain]]
name = "home.test"
recipients = ["ann", "bob"]
recipients_file = "people"
path = "mail/{{local_part}}"
[[domain]]
name = "other.test"
recipients = ["ann"]
path = "mail/{{local_part}}"
"""
GOOD = {
    "aliases": "list: bob, :include:{0}/members\nall: list\nfriends: bob\n@new.test: @home.test\n",
    "members": "ann\n:include:{0}/more\n", "more": "bob\n", "people": "carol\n", "virtual": "vera@home.test ann\n",
}  # fmt: skip
NAMES = ("ann", "bob", "carol", "friends", "list", "all", "vera", "nobody")
ALL_WELL = {**dict.fromkeys(NAMES, "yes"), "nobody": "no"}


def write(folder: Path, **other: str | None) -> None:
    for name, text in {**GOOD, **other}.items():
        if text is None:
            (folder / name).unlink(missing_ok=True)
        else:
            (folder / name).write_bytes(text.format(folder).encode("latin-1"))


def begun(folder: Path, kind: str = "text") -> tuple[Tables, list[str]]:
    (folder / "postroad.toml").write_text(SETTINGS.format(kind=kind))
    settings = load(folder / "postroad.toml", entries=False)
    assert isinstance(settings, Settings), settings
    told: list[str] = []
    assert isinstance(load(folder / "postroad.toml"), list)  # `postroad check` says it
    assert isinstance(build(settings), str)  # and a reload refuses it
    tables = build(settings, note=lambda level, text: told.append(f"{level} {text}"), starting=True)
    assert isinstance(tables, Tables), tables
    return tables, told


def known(tables: Tables, domain: str = "home.test") -> dict[str, str]:
    """Of each mailbox what RCPT is told of it, which the end of data must be told, too."""
    found: dict[str, str] = {}
    for name in NAMES:
        address = Address(name, domain)
        answer = tables.known(address)
        found[name] = "later" if isinstance(answer, NotNow) else "yes" if answer else "no"
        expansion = tables.expand(1, 1, (Recipient(address),))
        assert isinstance(expansion, Expansion) and not expansion.excess
        if found[name] != "no" and name not in ("ann", "bob", "carol"):
            assert bool(expansion.not_now) is (found[name] == "later")
    return found


@pytest.mark.parametrize("file", ["members", "more"])
@pytest.mark.parametrize("text", [None, "\xff\xfe", "<>\n", "|/bin/cat\n"])
def test_only_aliases_that_lead_through_a_broken_include_wait(tmp_path: Path, file: str, text: str | None) -> None:
    write(tmp_path, **{file: text})
    tables, told = begun(tmp_path)
    assert known(tables) == {**ALL_WELL, "list": "later", "all": "later"}
    assert any(f"{tmp_path}/{file}" in each and each.startswith("error ") for each in told)
    write(tmp_path)
    for _ in range(3):
        tables.look()
    assert known(tables) == ALL_WELL


def test_a_line_that_cannot_be_used_keeps_only_its_own_alias(tmp_path: Path) -> None:
    lines = "list: <>\nfriends: bob\nall: a, all2\nall2: all\nlost: nobody\nvera: ann\n"
    write(tmp_path, aliases=lines)
    tables, _ = begun(tmp_path)
    assert known(tables) == {**ALL_WELL, "list": "later", "all": "later"}
    assert isinstance(tables.known(Address("lost", "home.test")), NotNow)


@pytest.mark.parametrize("text", [None, "\xff\xfe", "no colon\n"])
def test_no_alias_is_known_while_the_whole_file_cannot_be_used(tmp_path: Path, text: str | None) -> None:
    write(tmp_path, aliases=text)
    tables, told = begun(tmp_path)
    assert known(tables) == {name: "yes" if name in ("ann", "bob", "carol") else "later" for name in NAMES}
    expansion = tables.expand(1, 1, (Recipient(Address("ann", "home.test")),))
    assert isinstance(expansion, Expansion) and expansion.not_now  # an alias may stand for a mailbox, too
    assert len(told) == 1 and f"{tmp_path}/aliases" in told[0]
    write(tmp_path)
    for _ in range(3):
        tables.look()
    assert known(tables) == ALL_WELL


@pytest.mark.parametrize("text", [None, "\xff\xfe", "a b c\n"])
def test_mailboxes_of_a_broken_file_are_not_refused(tmp_path: Path, text: str | None) -> None:
    write(tmp_path, people=text)
    tables, told = begun(tmp_path)
    assert tables.known(Address("ann", "home.test")) is True
    assert isinstance(tables.known(Address("carol", "home.test")), NotNow)
    assert isinstance(tables.known(Address("nobody", "home.test")), NotNow)
    assert tables.known(Address("nobody", "other.test")) is False
    assert len(told) == 1 and f"{tmp_path}/people" in told[0]
    write(tmp_path)
    for _ in range(3):
        tables.look()
    assert known(tables) == ALL_WELL


@pytest.mark.parametrize("kind", ["text", "cdb", "regexp", "sqlite"])
def test_a_map_whose_file_is_missing_says_not_now(tmp_path: Path, kind: str) -> None:
    write(tmp_path, virtual=None)
    if kind == "sqlite":
        kind = 'sqlite"\nquery = "SELECT 1 WHERE %s = 2'
    tables, told = begun(tmp_path, kind)
    # Mailboxes are known; where mail for them goes on to, and aliases that lead to them, nobody can tell.
    assert known(tables) == {name: "yes" if name in ("ann", "bob", "carol") else "later" for name in NAMES}
    assert len(told) == 1 and f"{tmp_path}/virtual" in told[0]
    if kind in ("text", "regexp"):
        (tmp_path / "virtual").write_text("vera@home.test ann\n" if kind == "text" else "/^vera@home/ ann\n")
        for _ in range(3):
            tables.maps.look(lambda work, done: done(work()))
        assert known(tables) == ALL_WELL
