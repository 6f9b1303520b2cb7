"""`postroad bans` where no node runs: the file, the lock, what is wrong usage."""

from __future__ import annotations

import fcntl
import json
import tempfile
from datetime import datetime, timedelta
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from postroad.cli.bans import bans
from tests.unit.rights import as_ordinary_user


class Place:
    def __init__(self, folder: Path) -> None:
        self.state = folder / "state"
        (self.state / "run").mkdir(parents=True)
        self.config = folder / "postroad.toml"
        self.config.write_text(f'hostname = "mx.example.org"\nstate_dir = "{self.state}"\n')

    def call(self, *arguments: str, code: int = 0) -> Result:
        ran = CliRunner().invoke(bans, [*arguments, "--config", str(self.config)])
        assert ran.exit_code == code, ran.output
        return ran

    def listed(self) -> list[str]:
        return [each["subject"] for each in json.loads(self.call("--json").stdout)]


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path)


def test_nobody(place: Place) -> None:
    assert "nobody is banned" in place.call().output
    assert place.listed() == []


def test_add_list_lift(place: Place) -> None:
    said = place.call("add", "192.0.2.7/24", "Ann", "--for", "30m", "--reason", "it guessed").output
    assert "192.0.2.0/24: banned (the whole network of 192.0.2.7/24) until 20" in said
    assert "ann: banned until 20" in said
    table = place.call().output
    assert "account ann" in table and "it guessed" in table and "192.0.2.0/24" in table
    assert place.listed() == ["192.0.2.0/24", "ann"]
    assert "part of 192.0.2.0/24" in place.call("lift", "192.0.2.7", code=1).output
    rows = json.loads(place.call("lift", "192.0.2.0/24", "bob", "--json").stdout)
    assert [row["text"] for row in rows] == ["lifted", "is not banned"]
    assert place.listed() == ["ann"]


def test_for_ever(place: Place) -> None:
    assert "for ever" in place.call("add", "2001:db8::/64", "--for", "forever").output
    assert "for ever" in place.call().output


@pytest.mark.parametrize(
    "arguments",
    [("add",), ("lift",), ("add", "192.0.2.1", "--for", "soon"), ("add", "192.0.2.1", "--for", "0h"),
     ("add", "192.0.2.1", "--reason", "a\nb"), ("add", "192.0.2.1", "--for", "9999w"), ("eat",)],
)  # fmt: skip
def test_wrong_usage(place: Place, arguments: tuple[str, ...]) -> None:
    place.call(*arguments, code=2)
    assert not (place.state / "bans.json").exists()


def test_nothing_done_is_exit_code_1(place: Place) -> None:
    assert "is not an address" in place.call("add", "192.0.2.300", code=1).output
    assert "too much of the world" in place.call("add", "0.0.0.0/0", code=1).output


def test_a_node_that_is_just_starting_is_not_worked_around(place: Place) -> None:
    with (place.state / "run" / "node.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert "starting or stopping" in place.call("add", "192.0.2.1", code=1).output
    place.call("add", "192.0.2.1")


def test_a_file_that_is_none_is_told(place: Place) -> None:
    (place.state / "bans.json").write_text("{")
    for arguments in ((), ("add", "192.0.2.1"), ("lift", "192.0.2.1")):
        assert "is not a list of bans" in place.call(*arguments, code=1).output


def test_a_folder_that_may_not_be_written_to() -> None:
    with tempfile.TemporaryDirectory() as folder:  # pytest's own folders are closed to others
        place = Place(Path(folder))
        Path(folder).chmod(0o555)
        place.state.chmod(0o555)
        try:
            with as_ordinary_user():
                assert "ermission" in place.call("add", "192.0.2.1", code=1).output
        finally:
            Path(folder).chmod(0o755)
            place.state.chmod(0o755)


def test_times_in_json_are_iso_8601(place: Place) -> None:
    rows = json.loads(place.call("add", "192.0.2.1", "--json").stdout)
    place.call("add", "ann", "--for", "forever", "--reason", "guessed")
    address, account = json.loads(place.call("--json").stdout)
    assert rows[0]["ban"] == address
    assert all(datetime.fromisoformat(address[key]).utcoffset() == timedelta(0) for key in ("since", "until"))
    assert (account["until"], account["is_account"], account["reason"]) == (None, True, "guessed")


def test_a_longer_ban_that_stays_is_told_with_its_end(place: Place) -> None:
    place.call("add", "192.0.2.1", "--for", "forever")
    said = place.call("add", "192.0.2.1", "--for", "1h").output
    assert said == (
        "192.0.2.1: banned for longer already, which stays (lift it first to shorten it): for ever\n"
    )


def test_an_account_is_called_one(place: Place) -> None:
    assert place.call("add", "bob").output.startswith("account bob: banned until 20")
    assert place.call("lift", "bob").output == "account bob: lifted\n"
