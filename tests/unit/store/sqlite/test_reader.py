"""The spool seen from outside: while it runs, after a kill, and when nobody has it open."""

from __future__ import annotations

import os
import shutil
import sqlite3
import subprocess
import sys
import tempfile
from pathlib import Path

import msgspec
import pytest

from postroad.mail.address import Address
from postroad.store import selection
from postroad.store.sqlite import schema, selecting
from postroad.store.sqlite.reader import SpoolReader
from postroad.store.values import Backlog, Selection, WaitingMail
from tests.unit.store.sqlite.material import START_US, Desk, message, open_spool, waiting


async def _fill(desk: Desk) -> tuple[int, int, int]:
    fresh = await desk.accept("ann@a.example", content=b"Subject: fresh\r\n\r\n")
    deferred = await desk.accept("bob@b.example", "cy@c.example", content=b"Subject: deferred\r\n\r\n")
    await desk.settle(deferred.envelope.id, waiting=(waiting(0, "b.example", START_US + 5), waiting(1, "c.example")))
    other = message(desk.new_id(1), "dan@b.example", reverse_path=None)
    assert await desk.try_accept(other) is None
    await desk.settle(other.envelope.id, waiting=(waiting(0, "b.example", START_US + 3, held=True),))
    return fresh.envelope.id, deferred.envelope.id, other.envelope.id


def _check(reader: SpoolReader, fresh: int, deferred: int, held: int) -> None:
    assert reader.backlog() == WaitingMail(
        (Backlog("b.example", 2, 1, START_US + 5), Backlog("c.example", 1, 0, START_US)), 2, 3, 1
    )
    assert [each.id for each in reader.fresh(10)] == [fresh]
    assert reader.select(Selection()) == sorted([fresh, deferred, held])
    loaded = reader.load(deferred)
    assert loaded is not None
    assert [each.destination for each in loaded.waiting] == ["b.example", "c.example"]
    assert reader.load(fresh).waiting == ()  # type: ignore[union-attr]
    assert reader.load(fresh + 1024) is None
    assert reader.content(fresh) == b"Subject: fresh\r\n\r\n"
    assert reader.head(loaded.envelope, 7) == b"Subject"
    assert reader.head(msgspec.structs.replace(loaded.envelope, id=fresh + 1024), 7) == b""
    assert [each.envelope.id for each in reader.messages(Selection(destination="b.example"), 10)] == sorted(
        [deferred, held]
    )
    counts = reader.counts()
    assert (counts.fresh, counts.messages, counts.waiting, counts.held) == (1, 2, 3, 1)
    assert reader.faults == []


async def test_while_the_spool_is_open_and_when_it_is_closed(tmp_path: Path) -> None:
    with open_spool(tmp_path, (0, 1)) as desk:
        ids = await _fill(desk)
        _check(SpoolReader(tmp_path), *ids)
    _check(SpoolReader(tmp_path), *ids)


async def test_after_a_kill_with_a_wal_left_over(tmp_path: Path) -> None:
    with open_spool(tmp_path / "live", (0, 1)) as desk:
        ids = await _fill(desk)
        shutil.copytree(tmp_path / "live", tmp_path / "dead")  # as a kill leaves it: WAL and all
    assert any(path.name.endswith("-wal") and path.stat().st_size for path in (tmp_path / "dead").iterdir())
    _check(SpoolReader(tmp_path / "dead"), *ids)


@pytest.mark.skipif(os.geteuid() != 0, reason="needs another user, who may only read")
@pytest.mark.parametrize("state", ["closed", "killed"])
async def test_for_one_who_may_only_read(state: str) -> None:
    # Not under tmp_path: pytest keeps the folders above that closed to others.
    with tempfile.TemporaryDirectory() as name:
        place = Path(name)
        place.chmod(0o755)
        with open_spool(place / "live", (0, 1)) as desk:
            ids = await _fill(desk)
            shutil.copytree(place / "live", place / "dead")
        _read_as_another(place / ("dead" if state == "killed" else "live"), ids)


def _read_as_another(directory: Path, ids: tuple[int, int, int]) -> None:
    for path in (directory, *directory.iterdir()):
        path.chmod(0o755 if path.is_dir() else 0o644)
    before = sorted(path.name for path in directory.iterdir())
    script = (
        "import os, sys, pathlib; from postroad.store.sqlite.reader import SpoolReader; "
        "os.setgid(65534); os.setuid(65534);"
        "r = SpoolReader(pathlib.Path(sys.argv[1])); print(len(r.fresh(9)), "
        "r.backlog().recipients, r.faults)"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path)), "PYTHONDONTWRITEBYTECODE": "1"}
    done = subprocess.run(
        [sys.executable, "-c", script, str(directory)], capture_output=True, text=True, env=environment, check=False
    )
    assert done.stdout.strip() == "1 3 []", done.stderr
    assert sorted(path.name for path in directory.iterdir()) == before
    _check(SpoolReader(directory), *ids)


async def test_a_shard_that_cannot_be_read_is_named_and_hides_no_other(tmp_path: Path) -> None:
    with open_spool(tmp_path, (0, 1)) as desk:
        fresh, _, _ = await _fill(desk)
    (tmp_path / "01.db").write_bytes(b"x" * 9000)
    (tmp_path / "notes.txt").write_bytes(b"no shard")
    reader = SpoolReader(tmp_path)
    assert [each.id for each in reader.fresh(10)] == [fresh]
    assert [each.destination for each in reader.backlog().shown] == ["b.example", "c.example"]
    assert any("01.db" in fault for fault in reader.faults)


def test_no_spool_at_all(tmp_path: Path) -> None:
    reader = SpoolReader(tmp_path / "none")
    assert reader.backlog() == WaitingMail()
    assert reader.fresh(5) == []
    assert reader.select(Selection()) == []
    assert reader.counts().messages == 0
    assert not (tmp_path / "none").exists()


async def test_damaged_rows_are_shown_as_held_or_left_out(tmp_path: Path) -> None:
    with open_spool(tmp_path, (0, 1)) as desk:
        fresh, deferred, _ = await _fill(desk)
    connection = sqlite3.connect(schema.database(tmp_path, 0), isolation_level=None)
    connection.execute("UPDATE fresh SET envelope = x'c1' WHERE id = ?", (fresh,))
    connection.execute("UPDATE recipient SET state = x'c1' WHERE id = ? AND number = 0", (deferred,))
    connection.close()
    reader = SpoolReader(tmp_path)
    assert reader.fresh(9) == []
    assert reader.load(fresh) is None
    loaded = reader.load(deferred)
    assert loaded is not None
    assert [(each.index, each.held) for each in loaded.waiting] == [(0, True), (1, False)]


SELECTIONS = [
    (Selection(), "fdh"),
    (Selection(sender="sender@example.org"), "fd"),
    (Selection(sender="SENDER@Example.ORG"), "fd"),
    (Selection(sender="@example.org"), "fd"),
    (Selection(sender="@xample.org"), ""),
    (Selection(sender="<>"), "h"),
    (Selection(recipient="ann@a.example"), "f"),
    (Selection(recipient="Bob@B.example"), "d"),
    (Selection(recipient="@b.example"), "dh"),
    (Selection(recipient="nobody@b.example"), ""),
    (Selection(destination="b.example"), "dh"),
    (Selection(destination="c.example"), "d"),
    (Selection(destination="nowhere"), ""),
    (Selection(held=True), "h"),
    (Selection(held=False), "fd"),
    (Selection(held=False, destination="b.example"), "d"),
    (Selection(held=True, destination="c.example"), ""),
    (Selection(destination="b.example", sender="<>"), "h"),
    (Selection(limit=1), "f"),
]


@pytest.mark.parametrize(("selection", "expected"), SELECTIONS)
@pytest.mark.parametrize("small_steps", [False, True])
@pytest.mark.parametrize("few", [0, 1000])
async def test_selections(
    tmp_path: Path, selection: Selection, expected: str, small_steps: bool, few: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(selecting, "_FEW", few)
    if small_steps:
        monkeypatch.setattr(selecting, "_STEP", 1)
        monkeypatch.setattr(selecting, "_SPAN", 1)
    with open_spool(tmp_path, (0, 1)) as desk:
        by_id = dict(zip(await _fill(desk), "fdh", strict=True))
        for found in (await desk.ask(desk.spool.select, selection), SpoolReader(tmp_path).select(selection)):
            assert "".join(sorted(by_id[id] for id in found)) == "".join(sorted(expected))


async def test_selection_by_id_and_message_id(tmp_path: Path) -> None:
    with open_spool(tmp_path, (0, 1)) as desk:
        fresh, deferred, held = await _fill(desk)
        reader = SpoolReader(tmp_path)
        assert reader.select(Selection(ids=(fresh, held, 12345))) == sorted([fresh, held])
        assert reader.select(Selection(ids=(12345,))) == []
        for written in (f"<{deferred}@example.org>", f"{deferred}@example.org"):
            assert reader.select(Selection(message_id=written)) == [deferred]
        assert reader.select(Selection(message_id=f"x{deferred}@example.org")) == []


@pytest.mark.parametrize(
    ("wanted", "address", "expected"),
    [
        ("ann@example.org", Address("ann", "example.org"), True),
        ("ANN@EXAMPLE.ORG", Address("Ann", "example.org"), True),
        ('"a b"@example.org', Address("a b", "example.org"), True),
        ("ann@bücher.example", Address("ann", "xn--bcher-kva.example"), True),
        ("ann@xn--bcher-kva.example", Address("ann", "xn--bcher-kva.example"), True),
        ("postmaster", Address("Postmaster", ""), True),
        ("@example.org", Address("ann", "example.org"), True),
        ("@sub.example.org", Address("ann", "example.org"), False),
        ("ann@example.org", None, False),
        ("<>", None, True),
        ("<>", Address("ann", "example.org"), False),
    ],
)
def test_names(wanted: str, address: Address | None, expected: bool) -> None:
    assert selection.names(wanted, address) is expected


async def test_a_journal_that_is_not_moved_is_told_of(tmp_path: Path) -> None:
    with open_spool(tmp_path) as desk:
        reader = SpoolReader(tmp_path)
        await desk.accept()
        later_us = START_US + 2 * 3_600_000_000
        assert reader.unmoved(later_us) == [], "one row always stays"
        await desk.accept()
        assert reader.unmoved(START_US + 1_000_000) == []
        [line] = reader.unmoved(later_us)
        assert "00.db" in line and "2.0 h" in line and "2 commits" in line
