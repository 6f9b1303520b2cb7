"""`postroad dkim` without a node."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from msgspec.structs import replace

from postroad.cli.cli import group
from postroad.trust import keyring
from postroad.trust.dkim_key import DkimKey, KeyKind, parse_key
from postroad.trust.key_store import KeyStore
from postroad.trust.keyring import DomainKeys, KeyState

ED = "--algorithm=ed25519"


class Place:
    def __init__(self, folder: Path) -> None:
        self.config = folder / "postroad.toml"
        self.config.write_text(f'hostname = "mx.example.org"\nstate_dir = "{folder}/state"\n')
        self.folder = folder / "state" / "dkim"

    def run(self, *words: str) -> Result:
        return CliRunner().invoke(group({}), ["dkim", *words, "--config", str(self.config)])

    def rows(self, *words: str) -> list[dict[str, Any]]:
        done = self.run(*words, "--json")
        assert done.exit_code == 0, done.output
        found: list[dict[str, Any]] = json.loads(done.stdout)
        return found

    def set(self, domain: str, **states: KeyState) -> None:
        store = KeyStore(self.folder, lambda: 0)
        keys = store.domain(domain)
        assert isinstance(keys, DomainKeys)
        found = tuple(replace(each, state=states.get(each.selector, each.state)) for each in keys.keys)
        with store.changing():
            store.write(DomainKeys(domain, found))


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path)


def test_new_keys_are_printed_for_the_zone_and_listed(place: Place) -> None:
    done = place.run("add", "Example.ORG", "--selector", "S1")
    assert done.exit_code == 0, done.output
    assert done.stdout.startswith("s1-rsa._domainkey.example.org. IN TXT (\n")
    assert "\ns1-ed25519._domainkey.example.org. IN TXT \"v=DKIM1; k=ed25519; p=" in done.stdout
    assert "No node runs" in done.stderr
    rows = place.rows("list")
    assert [(each["selector"], each["algorithm"], each["bits"], each["state"]) for each in rows] == [
        ("s1-rsa", "rsa", 2_048, "waiting"), ("s1-ed25519", "ed25519", 256, "waiting"),
    ]  # fmt: skip
    assert all(isinstance(parse_key(each["record"]), DkimKey) for each in rows)
    assert (place.folder / "example.org.json").stat().st_mode & 0o777 == 0o600
    assert "publish its record" in place.run("list", "example.org").stdout


def test_what_cannot_be_done_is_said_and_changes_nothing(place: Place) -> None:
    assert place.run("add", "example.org", ED, "--selector", "a").exit_code == 0
    before = (place.folder / "example.org.json").read_bytes()
    for words, text in (
        (("add", "example.org", ED), "has a key of the kind ed25519 already"),
        (("add", "example.org", "--algorithm=rsa", "--selector", "a"), "has a key of the selector a already"),
        (("add", "example.org", "--algorithm=rsa", "--selector", "a_b"), "is no selector"),
        (("add", "exa mple.org"), "is not a domain name"),
        (("add", "192.0.2.1"), "'192.0.2.1' is not a domain name"),
        (("add", "example.net", "--selector", "a b"), "'a b' is no selector"),
        (("add", "example.org", "--bits", "512"), "512"),
        (("add", "example.org", "--key", "/dev/null"), "--key needs --selector"),
        (("add", "example.org", "--key", "/dev/null", "--selector", "k"), "this is no private key in PEM"),
        (("list", "example.net"), "has no keys"),
        (("rotate",), "Name domains, or say --all"),
        (("rotate", "example.net"), "has no keys"),
        (("rotate", "example.org", "--selector", "b"), "keys that wait for their record: a"),
        (("remove", "example.org", "x"), "has no key of the selector x"),
        (("remove", "example.net"), "has no keys"),
        (("remove", "example.org", "--removable"), "removable yet"),
    ):
        done = place.run(*words)
        assert done.exit_code != 0, words
        assert text in done.output, (words, done.output)
    assert (place.folder / "example.org.json").read_bytes() == before
    (place.folder / "example.org.json").chmod(0o644)
    said = place.run("rotate", "example.org").output
    assert f"Run `chmod 600 {place.folder / 'example.org.json'}`." in said and ".." not in said


def test_a_key_that_was_made_elsewhere_is_taken(place: Place, tmp_path: Path) -> None:
    made = keyring.made("x", keyring.generate(KeyKind.RSA, 1_024), 1)
    (tmp_path / "key.pem").write_text(made.private)
    assert place.run("add", "example.org", "--selector", "old", "--key", str(tmp_path / "key.pem")).exit_code == 0
    [row] = place.rows("list")
    assert (row["selector"], row["bits"], row["record"]) == ("old", 1_024, keyring.record_text(made))


def test_rotation_makes_one_successor_of_each_key_that_signs(place: Place) -> None:
    place.run("add", "example.org", "--selector", "a")
    place.run("add", "example.net", ED, "--selector", "a")
    first = place.rows("rotate", "example.org")
    assert {each["selector"] for each in first} == {"a-rsa", "a-ed25519"}  # they wait still
    place.set("example.org", **{"a-rsa": KeyState.SIGNING, "a-ed25519": KeyState.SIGNING})
    place.set("example.net", a=KeyState.SIGNING)
    made = {(each["domain"], each["algorithm"]) for each in place.rows("rotate", "--all")}
    assert made == {("example.org", "rsa"), ("example.org", "ed25519"), ("example.net", "ed25519")}
    again = place.rows("rotate", "--all")
    assert len(again) == 3
    said = place.run("rotate", "--all")
    assert "These keys wait already." in said.stderr and "the change" not in said.stderr
    assert len(place.rows("list")) == 6


def test_a_domain_that_fails_does_not_hold_up_the_others(place: Place) -> None:
    for domain in ("example.com", "example.net"):
        place.run("add", domain, ED, "--selector", "a")
        place.set(domain, a=KeyState.SIGNING)
    (place.folder / "example.com.json").write_bytes(b"broken")
    done = place.run("rotate", "example.com", "example.net", "--json")
    assert done.exit_code == 1
    assert [each["domain"] for each in json.loads(done.stdout)] == ["example.net"]
    assert "is no file of keys" in done.stderr
    listed = place.run("list")
    assert listed.exit_code == 1
    assert "is no file of keys" in listed.stderr


def test_the_last_key_that_signs_is_removed_only_on_purpose(place: Place) -> None:
    place.run("add", "example.org", "--selector", "a")
    place.set("example.org", **{"a-rsa": KeyState.SIGNING, "a-ed25519": KeyState.SIGNING})
    done = place.run("remove", "example.org")
    assert (done.exit_code, len(place.rows("list"))) == (1, 2)
    assert "would not be signed any more" in done.stderr
    done = place.run("remove", "example.org", "a-rsa")
    assert "Leave its record, a-rsa._domainkey.example.org, in the DNS until" in done.stderr
    assert place.run("remove", "example.org", "a-ed25519").exit_code == 1
    assert place.run("remove", "example.org", "a-ed25519", "--yes").exit_code == 0
    assert place.rows("list") == []
    assert list(place.folder.iterdir()) == []


def test_removable_keys_go_together(place: Place) -> None:
    place.run("add", "example.org", "--selector", "a")
    place.set("example.org", **{"a-rsa": KeyState.REMOVABLE, "a-ed25519": KeyState.SIGNING})
    [gone] = place.rows("remove", "example.org", "--removable")
    assert gone["selector"] == "a-rsa"
    assert [each["selector"] for each in place.rows("list")] == ["a-ed25519"]


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, who works for the node's user")
def test_keys_that_root_makes_belong_to_the_owner_of_the_state_folder(place: Place, tmp_path: Path) -> None:
    state = tmp_path / "state"
    state.mkdir(0o750)
    os.chown(state, 65_534, 65_534)
    for folder in (tmp_path, *tmp_path.parents):
        if folder.stat().st_mode & 0o011 == 0:
            folder.chmod(folder.stat().st_mode | 0o011)
        if folder == Path("/tmp"):
            break
    done = subprocess.run(
        [sys.executable, "-m", "postroad", "dkim", "add", "example.org", ED, "--config", str(place.config)],
        capture_output=True, text=True, check=False, timeout=120,
    )
    if "install it elsewhere" in done.stderr:
        pytest.skip("another user may not read this checkout")
    assert done.returncode == 0, done.stderr
    for path in (place.folder, place.folder / "example.org.json"):
        assert path.stat().st_uid == 65_534
    stranger = subprocess.run(
        [sys.executable, "-m", "postroad", "dkim", "list", "--config", str(place.config)],
        capture_output=True, text=True, check=False, timeout=120, user=65_533, group=65_533,
    )
    assert stranger.returncode == 1
    assert "Run this as root or as the user" in stranger.stderr
