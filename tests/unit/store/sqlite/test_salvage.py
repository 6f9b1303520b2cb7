"""A damaged shard: found at start, set aside, saved as far as it can be read; a spool that does not fit, repaired."""

from __future__ import annotations

import random
import shutil
import sqlite3
from pathlib import Path
from typing import Any

import pytest

from postroad.mail import identifier
from postroad.mail.event import Noted
from postroad.store import content
from postroad.store.questions import Contents, Load
from postroad.store.sqlite import checking, repair, salvage, schema, shard
from postroad.store.sqlite.operation import Read
from postroad.store.sqlite.reader import SpoolReader
from postroad.store.values import Selection
from tests.unit.store.sqlite.material import START_US, Desk, error, message, open_spool, rows, text, waiting

pytestmark = pytest.mark.slow

PAGE = schema.PAGE_SIZE


class Filled:
    """A shard of fresh and waiting messages, some large, some that have ended; and what it held."""

    def __init__(self) -> None:
        self.contents: dict[int, bytes] = {}
        self.fresh: set[int] = set()
        self.waiting: dict[int, set[int]] = {}
        self.ended: set[int] = set()

    async def fill(self, desk: Desk, count: int) -> None:
        chance = random.Random(5)
        for number in range(count):
            octets = chance.randbytes(chance.choice((100, 2000, 12_000)))
            if number % 9 == 0:
                id = desk.new_id()
                incoming = desk.spool.incoming(id)
                incoming.write(octets)
                file = await desk.ask(incoming.finish)
                stored = message(id, "a@x.example", "b@y.example", content=file)
                assert await desk.try_accept(stored) is None
            else:
                stored = await desk.accept("a@x.example", "b@y.example", content=octets)
            id = stored.envelope.id
            match number % 4:
                case 0:
                    self.fresh.add(id)
                case 1:
                    await desk.settle(id, waiting=(waiting(0, "x.example"), waiting(1, "y.example")))
                    self.waiting[id] = {0, 1}
                case 2:
                    await desk.settle(id, 0, waiting=(waiting(1, "y.example", text="later"),))
                    self.waiting[id] = {1}
                case _:
                    await desk.settle(id, 0, 1)
                    self.ended.add(id)
                    continue
            self.contents[id] = octets


@pytest.fixture
async def filled(tmp_path: Path) -> tuple[Path, Filled]:
    made = Filled()
    with open_spool(tmp_path / "whole") as desk:
        await made.fill(desk, 60)
    return tmp_path / "whole", made


def _damage(directory: Path, page: int, octets: bytes) -> None:
    with open(schema.database(directory, 0), "r+b") as file:
        file.seek(page * PAGE)
        file.write(octets)


def _opened(directory: Path) -> tuple[dict[int, Any], list[str]]:
    """All that the shard holds after its start, and what was said."""
    said: list[str] = []
    one = shard.Shard(directory, 0, lambda: START_US, note=lambda event: said.append(getattr(event, "text", "")))
    one.open()
    try:
        ids = [id for (id,) in one.connection.execute("SELECT id FROM fresh UNION SELECT id FROM message")]
        held = {}
        for id in ids:
            [loaded], [octets] = (one.commit([Read(each, print, None)]) for each in (Load(id), Contents(id)))
            assert loaded is not None
            held[id] = (loaded, None if octets is None else content.read(loaded.envelope, octets))
        assert one.connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        return held, said
    finally:
        one.close()


@pytest.mark.parametrize("how", ["zeros", "garbage", "another page"])
async def test_a_damaged_page_costs_its_own_rows_at_most(filled: tuple[Path, Filled], tmp_path: Path, how: str) -> None:
    """Each page in turn, the first too. What is not saved whole is held, or named; nothing comes back that had ended.

    SQLite has no checksums: octets that change within the content of one message are not seen by anybody.
    """
    whole, was = filled
    pages = schema.database(whole, 0).stat().st_size // PAGE
    assert pages > 30
    everything = was.fresh | was.waiting.keys()
    damaged = 0
    for page in range(0, pages, 1 if how == "garbage" else 3):
        here = tmp_path / f"{page}"
        shutil.copytree(whole, here)
        octets = {"zeros": bytes(PAGE), "garbage": random.Random(page).randbytes(PAGE)}.get(how)
        if octets is None:
            octets = schema.database(whole, 0).read_bytes()[(page + 1) % pages * PAGE :][:PAGE]
        _damage(here, page, octets)
        found, said = _opened(here)
        if not any("set aside" in line for line in said):
            assert found.keys() == everything, page  # a page that is free, or damage that reading does not meet
            shutil.rmtree(here)
            continue
        damaged += 1
        changed: list[int] = []
        for id, (loaded, held) in found.items():
            places = {row.index for row in loaded.waiting}
            doubtful = {row.index for row in loaded.waiting if row.text in (salvage.DOUBTFUL, salvage.NO_CONTENT)}
            assert all(row.held for row in loaded.waiting if row.index in doubtful)
            if held is None:
                assert doubtful == places, (page, text(id))
            elif held != was.contents.get(id):
                changed.append(id)
                assert id in was.ended or len(held) == len(was.contents[id]), (page, text(id))
            if id in was.fresh:
                assert not places or doubtful == places
            else:
                assert places - doubtful <= was.waiting.get(id, set()), (page, "what has ended is tried again")
                assert was.waiting.get(id, set()) <= places
        assert len(changed) <= 1
        missing = everything - found.keys()
        named = "".join(said)
        assert all(text(id) in named for id in sorted(missing)[:20]) or page == 0, (page, len(missing))
        assert len(missing) < len(everything) // 2 or page in range(1, 7), f"page {page} has cost {len(missing)}"
        assert list(here.glob("00.db.damaged-*"))
        # What was saved is whole: a second start finds nothing.
        assert not any("damaged" in line for line in _opened(here)[1])
        shutil.rmtree(here)
    assert damaged > 5


async def test_without_its_first_page_a_shard_is_saved_wholly(filled: tuple[Path, Filled]) -> None:
    whole, was = filled
    _damage(whole, 0, b"x" * PAGE)
    found, _ = _opened(whole)
    assert found.keys() == was.fresh | was.waiting.keys()
    assert {id: octets for id, (_, octets) in found.items()} == was.contents


@pytest.mark.parametrize("step", ["before the old one goes", "before the new one is there"])
async def test_a_crash_while_saving_loses_nothing(
    filled: tuple[Path, Filled], monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    whole, was = filled
    _damage(whole, 0, b"x" * PAGE)
    real = salvage.os.rename

    def crash(source: Any, target: Any) -> None:
        if step == "before the old one goes" or str(source).endswith(".new"):
            raise KeyboardInterrupt
        real(source, target)

    with monkeypatch.context() as patched:
        patched.setattr(salvage.os, "rename", crash)
        with pytest.raises(KeyboardInterrupt):
            _opened(whole)
    for lock in whole.glob("*.lock"):
        lock.unlink()  # a process that is gone holds none
    found, _ = _opened(whole)
    assert {id: octets for id, (_, octets) in found.items()} == was.contents
    assert not list(whole.glob("*.new*")) and not list(whole.glob("*.work*"))


async def test_damage_that_shows_while_running_is_looked_for_at_the_next_start(
    filled: tuple[Path, Filled], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A shard too large to be looked through at each start is so after it was found to be damaged."""
    monkeypatch.setattr(shard, "CHECK_MAX", 1000)
    whole, was = filled
    connection = schema.connect_reader(schema.database(whole, 0))
    [root] = [page for (page,) in connection.execute("SELECT rootpage FROM sqlite_master WHERE name = 'content'")]
    connection.close()
    _damage(whole, root - 1, b"\xff" * PAGE)
    one = shard.Shard(whole, 0, lambda: START_US)
    one.open()  # as a large one it is not looked through
    inline = next(id for id in was.contents if content.content_file(whole, id) is None)
    [answer] = one.commit([Read(Contents(inline), print, None)])
    assert isinstance(answer, shard.Postponed)
    one.close()
    found, said = _opened(whole)
    assert any("set aside" in line for line in said)
    assert found.keys() == was.fresh | was.waiting.keys()
    assert not list(whole.glob("*.suspect"))


async def test_a_disk_that_cannot_be_read_for_a_moment_is_no_damage(
    filled: tuple[Path, Filled], monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, _ = filled
    monkeypatch.setattr(shard, "_AGAIN_S", 0.0)
    calls: list[Path] = []

    def connect(path: Path) -> sqlite3.Connection:
        calls.append(path)
        if len(calls) == 1:
            raise error(sqlite3.SQLITE_IOERR_READ)
        return schema.connect(path)

    one = shard.Shard(whole, 0, lambda: START_US, connect=connect)
    one.open()
    one.close()
    assert len(calls) == 2 and not list(whole.glob("*.damaged-*"))


@pytest.mark.parametrize("database_too", [False, True])
async def test_a_crash_while_a_shard_is_set_aside_loses_no_commit(
    filled: tuple[Path, Filled], database_too: bool
) -> None:
    """The WAL goes first: what was committed since the last checkpoint is nowhere else."""
    whole, _ = filled
    path, wal = schema.database(whole, 0), Path(f"{schema.database(whole, 0)}-wal")
    wal.unlink(missing_ok=True)
    wal.write_bytes(b"committed")
    new = salvage.new_path(whole, 0)
    new.write_bytes(b"saved")
    aside = whole / "00.db.damaged-20260101T000000"
    wal.rename(f"{aside}-wal")
    if database_too:
        path.rename(aside)
    salvage.finish(whole, 0)
    assert not new.exists()
    if database_too:
        assert path.read_bytes() == b"saved" and not wal.exists(), "it was complete: the new one takes its place"
    else:
        assert wal.read_bytes() == b"committed" and path.read_bytes() != b"saved"


async def test_the_other_shards_of_a_worker_run(tmp_path: Path) -> None:
    with open_spool(tmp_path, (0, 1)) as desk:
        kept = desk.new_id(1)
        assert await desk.try_accept(message(kept)) is None
    schema.database(tmp_path, 0).write_bytes(b"x" * 20_000)
    with open_spool(tmp_path, (0, 1)) as desk:
        assert await desk.fresh_ids(1) == [kept]
        assert await desk.fresh_ids(0) == []
        await desk.accept()
        assert any("damaged" in each.text for each in desk.noted if isinstance(each, Noted))


# --- what does not fit together


def _change(directory: Path, *statements: str) -> None:
    connection = sqlite3.connect(schema.database(directory, 0), isolation_level=None)
    for each in statements:
        connection.execute(each)
    connection.close()


def _findings(directory: Path) -> set[tuple[str, str]]:
    [checked] = checking.check(directory, running=False)
    return {(each.kind, each.id) for each in checked.findings}


async def test_a_sound_spool_has_no_findings(filled: tuple[Path, Filled]) -> None:
    whole, was = filled
    [checked] = checking.check(whole, running=False)
    assert checked.findings == () and checked.messages == len(was.contents)


@pytest.mark.parametrize(
    ("statement", "kind", "left"),
    [
        ("DELETE FROM content WHERE id = {waiting}", "no-content", "held"),
        ("DELETE FROM content WHERE id = {fresh}", "no-content", "held"),
        ("UPDATE content SET octets = x'00' WHERE id = {waiting}", "content", "held"),
        ("DELETE FROM recipient WHERE id = {waiting}", "no-recipients", "held"),
        ("DELETE FROM message WHERE id = {waiting}", "no-message", "gone"),
        ("INSERT INTO fresh SELECT * FROM message WHERE id = {waiting}", "twice", "waits"),
        ("UPDATE message SET envelope = x'c1' WHERE id = {waiting}", "envelope", "kept"),
        ("UPDATE recipient SET number = 9 WHERE id = {waiting} AND number = 1", "recipient", "kept"),
        ("UPDATE recipient SET state = x'c1' WHERE id = {waiting} AND number = 1", "recipient", "kept"),
        ("INSERT INTO content VALUES ({ghost}, x'41')", "stray-content", "filed"),
    ],
)
async def test_what_does_not_fit_is_found_and_repaired(
    filled: tuple[Path, Filled], statement: str, kind: str, left: str
) -> None:
    whole, was = filled
    inline = [id for id in was.contents if content.content_file(whole, id) is None]
    waits = next(id for id in inline if was.waiting.get(id) == {1})
    fresh = next(id for id in inline if id in was.fresh)
    ghost = identifier.make(START_US, 0, 0)
    _change(whole, statement.format(waiting=waits, fresh=fresh, ghost=ghost))
    about = fresh if "{fresh}" in statement else ghost if "{ghost}" in statement else waits
    if "number" in statement and "state" not in statement:
        assert _findings(whole) == {(kind, text(about))}
    else:
        assert (kind, text(about)) in _findings(whole)
    [checked] = checking.check(whole, running=False)
    said = repair.repair(whole, checked, lambda: START_US)
    assert any(text(about) in line for line in said), said
    loaded = SpoolReader(whole).load(about)
    if left == "kept":
        assert any(text(about) in line and "kept" in line for line in said)
        return
    assert not _findings(whole) - {("no-content", text(about)), ("content", text(about))}
    match left:
        case "held":
            assert loaded is not None and loaded.waiting and all(row.held and row.text for row in loaded.waiting)
        case "gone":
            assert rows(whole, "recipient") == sum(map(len, was.waiting.values())) - 1
        case "waits":
            assert loaded is not None and not any(row.held for row in loaded.waiting)
        case "filed":
            assert [path.read_bytes() for path in whole.glob("00.damaged-*/*")] == [b"A"]


async def test_repair_of_a_damaged_shard_saves_it(filled: tuple[Path, Filled]) -> None:
    whole, was = filled
    _damage(whole, 0, b"x" * PAGE)
    [checked] = checking.check(whole, running=False)
    assert [each.kind for each in checked.findings] == ["damaged"]
    said = repair.repair(whole, checked, lambda: START_US)
    assert any(f"{len(was.contents)} messages saved" in line for line in said), said
    assert _findings(whole) == set()
    assert len(SpoolReader(whole).select(Selection())) == len(was.contents)
    assert checking.set_aside(whole) == [path.name for path in whole.glob("00.db.damaged-*")]
