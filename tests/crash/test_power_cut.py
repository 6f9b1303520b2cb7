"""The power is cut at every write and sync of spool, content files and Maildirs: what was acknowledged is there, whole.

A workload runs once on a recorded disk (`tests.crash.disk`). Then, for each number of operations that the disk may have
got, the files are laid out as they may be found afterwards (nothing, all, or any sectors of what was not synced), and
opened by the real code. The spool must then be as it was after some number of commits: all that were acknowledged, and
none by halves. That this bites is shown by workloads whose syncs do nothing.
"""

from __future__ import annotations

import asyncio
import os
import random
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec
import pytest

from postroad.deliver.maildir import Writer
from postroad.deliver.options import MaildirOptions
from postroad.mail.address import Address
from postroad.mail.attempt import Outcome
from postroad.mail.envelope import Envelope, Recipient
from postroad.mail.event import Attempted
from postroad.mail.job import Job
from postroad.mail.message import Content, ContentFile
from postroad.mail.route import Destination, Transport
from postroad.store import content
from postroad.store.questions import Contents, Load, Question
from postroad.store.sqlite import codec, schema
from postroad.store.sqlite.operation import Read
from postroad.store.sqlite.shard import Shard
from postroad.store.sqlite.spool import SpoolOptions, SqliteSpool
from postroad.store.values import Settlement, Stored, Waiting
from postroad.world.files import Posix
from tests.crash.disk import Disk, Loss, Platter, Recorder, lay_out
from tests.crash.vfs import connector
from tests.unit.store.sqlite.material import START_US, Chosen, Clock, message, relayed, waiting


@pytest.fixture
def place() -> Iterator[Path]:
    """A folder in memory where there is one: what is tested is the order of syncs, not how long they take."""
    memory = Path("/dev/shm")
    base = memory if memory.is_dir() and os.access(memory, os.W_OK) else None
    with tempfile.TemporaryDirectory(prefix="pr-cut-", dir=base) as name:
        yield Path(name)


State = dict[int, tuple[Any, ...]]
OPTIONS = SpoolOptions(free_min=0, inline_max=3000, wal_max=150_000, settle_s=0.0, commit_wait_s=0.0)


@dataclass
class Workload:
    """Accepts, settles and trims as told by a seed, and keeps what the spool must hold after each operation."""

    spool: SqliteSpool
    disk: Disk
    chance: random.Random
    states: list[State] = field(default_factory=lambda: [{}])
    events: list[int] = field(default_factory=lambda: [0])  # how many there are after each operation
    ids: list[int] = field(default_factory=list)  # of the events, in order
    open: int = 0

    async def run(self, steps: int) -> None:
        for _ in range(steps):
            for _ in range(self.chance.randrange(1, 5)):
                self.chance.choice((self.accept, self.accept, self.accept, self.large, self.settle, self.settle))()
            while self.open > self.chance.randrange(4):
                await asyncio.sleep(0)
        while self.open:
            await asyncio.sleep(0)

    def accept(self) -> None:
        self._accept(self.spool.new_id(), self.chance.randbytes(self.chance.choice((30, 900, 3000))))

    def large(self) -> None:
        id, octets = self.spool.new_id(), self.chance.randbytes(5000)
        incoming = self.spool.incoming(id)
        for at in range(0, len(octets), 2000):
            incoming.write(octets[at : at + 2000])
        self.open += 1

        def finished(answer: Any) -> None:
            self.open -= 1
            self._accept(id, answer, octets)

        incoming.finish(finished)

    def _accept(self, id: int, stored: Content, octets: bytes = b"") -> None:
        names = [f"{name}@x.example" for name in "abc"[: self.chance.randrange(1, 4)]]
        made = message(id, *names, content=stored)
        rows: tuple[Waiting, ...] = ()
        if self.chance.random() < 0.2:
            rows = tuple(waiting(place, held=True) for place in range(len(names)))
        expected = (len(names), rows or None, octets or stored)
        self._issued({**self.states[-1], id: expected}, (id,))
        self.spool.accept(made, (relayed(id),), self._answered(len(self.states) - 1), rows)

    def settle(self) -> None:
        """Some recipients of a message end or wait on; an end may bring a DSN."""
        state = self.states[-1]
        if not state:
            return
        id = self.chance.choice(sorted(state))
        count, rows, octets = state[id]
        places = [row.index for row in rows] if rows else list(range(count))
        ended = tuple(place for place in places if self.chance.random() < 0.6)
        kept = tuple(waiting(place, "x.example", START_US + self.chance.randrange(9)) for place in places
                     if place not in ended)  # fmt: skip
        after = {**state, id: (count, kept, octets)} if kept else {key: state[key] for key in state if key != id}
        reports: tuple[Stored, ...] = ()
        if ended and self.chance.random() < 0.4:
            report = message(self.spool.new_id(), content=b"report" * 40, reverse_path=None, parent=id)
            reports = (report,)
            after[report.envelope.id] = (1, None, report.content)
        self._issued(after, (id,))
        settlement = Settlement(id, ended, kept, reports, (relayed(id),))
        self.spool.settle(settlement, self._answered(len(self.states) - 1))

    def _issued(self, state: State, events: tuple[int, ...]) -> None:
        self.states.append(state)
        self.ids += events
        self.events.append(len(self.ids))
        self.open += 1
        self.disk.mark(("issued", len(self.states) - 1))

    def _answered(self, number: int) -> Callable[[object], None]:
        def done(failure: object) -> None:
            assert failure is None, failure
            self.open -= 1
            self.disk.mark(("acknowledged", number))

        return done


async def record(base: Path, seed: int, steps: int, *, synchronous: str = "FULL", posix: bool = True) -> Workload:
    """Runs the workload. `synchronous`, `posix`: weaker than they should be, to see that it is found."""
    disk = Disk()
    base.mkdir(mode=0o700)
    schema.database(base, 0).touch(0o600)
    calls = Recorder(disk).posix()
    if not posix:
        calls = msgspec.structs.replace(calls, fdatasync=lambda handle: None, fsync=lambda handle: None)
    strict = connector(disk)

    def connect(path: Path) -> Any:
        connection = strict(path)
        connection.execute(f"PRAGMA synchronous={synchronous}").fetchall()
        return connection

    loop = asyncio.get_running_loop()
    spool = SqliteSpool(
        base, (0,), OPTIONS, Clock(), loop, connect=connect, threads=False, posix=calls, quickness=Chosen(on_loop=None)
    )
    spool.start()
    workload = Workload(spool, disk, random.Random(seed))
    await workload.run(steps)
    spool.close()
    return workload


def cuts(disk: Disk, base: Path, target: Path, seed: int, each: int = 1) -> Any:
    """(cut, loss) with the files of each laid out in `target`."""
    platter = Platter(disk, {str(base)})
    platter.enter(str(schema.database(base, 0)), _empty_inode())
    platter.sync_folder(str(base))
    for cut in range(0, len(disk) + 1, each):
        platter.advance(cut)
        seen: list[dict[str, bytes | None]] = []
        for loss in Loss:
            found = platter.after(random.Random(f"{seed} {cut} {loss}"), loss)
            if found in seen:
                continue
            seen.append(found)
            _clear(target)
            lay_out(found, base, target)
            yield cut, loss


def _empty_inode() -> Any:
    from tests.crash.disk import Inode

    return Inode()


def _clear(folder: Path) -> None:
    """As shutil.rmtree, for a few files, and quicker."""
    if folder.exists():
        for path, folders, files in os.walk(folder, topdown=False):
            for name in files:
                os.unlink(os.path.join(path, name))
            for name in folders:
                os.rmdir(os.path.join(path, name))
    else:
        folder.mkdir(mode=0o700)


class Lost(AssertionError):
    """What the spool holds is not what it held after any commit that it may have come to."""


def check(workload: Workload, target: Path, cut: int) -> None:
    """Opens the spool as it was found. Raises Lost."""
    marks = workload.disk.learnt(cut)
    acknowledged = max((number for word, number in marks if word == "acknowledged"), default=0)
    issued = max((number for word, number in marks if word == "issued"), default=0)
    noted: list[Any] = []
    shard = Shard(target, 0, lambda: START_US, note=noted.append)
    shard.open()
    try:
        if any(each.level == "error" for each in noted):
            raise Lost(str(noted))
        connection = shard.connection
        assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        found = read_state(shard)
        events = [event.id for row in connection.execute("SELECT events FROM journal ORDER BY seq")
                  for event in codec.decode_journal(row[0])]  # fmt: skip
        fits = [number for number in range(acknowledged, issued + 1) if found == workload.states[number]]
        if not fits:
            raise Lost(f"{acknowledged} were acknowledged, {issued} issued; found: {sorted(found)}")
        if not any(events == workload.ids[: workload.events[number]] for number in fits):
            raise Lost(f"the journal is of another moment than the messages: {len(events)}")
    finally:
        shard.close()


def asked(shard: Shard, question: Question) -> Any:
    [answer] = shard.commit([Read(question, print, None)])
    return answer


def read_state(shard: Shard) -> State:
    state: State = {}
    ids = [id for (id,) in shard.connection.execute("SELECT id FROM fresh UNION SELECT id FROM message").fetchall()]
    orphans = shard.connection.execute("SELECT count(*) FROM recipient WHERE id NOT IN (SELECT id FROM message)")
    if orphans.fetchone()[0]:
        raise Lost("recipients without their message")
    for id in ids:
        loaded, octets = asked(shard, Load(id)), asked(shard, Contents(id))
        if loaded is None or octets is None:
            raise Lost(f"half a message: {loaded}, {octets!r}")
        state[id] = (len(loaded.envelope.recipients), loaded.waiting or None, content.read(loaded.envelope, octets))
    files = {path.name for path in content.folder(shard.path.parent, 0).glob("*/*")}
    large = {path.name for id in ids if isinstance(octets := asked(shard, Contents(id)), ContentFile)
             for path in (Path(octets.path),)}  # fmt: skip
    if files != large:
        raise Lost(f"files of no message: {files - large}")
    return state


@pytest.mark.slow
@pytest.mark.parametrize("seed", [1, 2])
async def test_the_spool_after_a_power_cut_at_every_operation(place: Path, seed: int) -> None:
    workload = await record(place / "spool", seed, 20)
    assert len(workload.states) > 35 and len(workload.disk) > 250
    checked = 0
    for cut, loss in cuts(workload.disk, place / "spool", place / "found", seed):
        try:
            check(workload, place / "found", cut)
        except Exception as error:
            raise AssertionError(f"seed {seed}, cut at {cut} of {len(workload.disk)}, {loss.value}: {error}") from error
        checked += 1
    print(f"seed {seed}: {len(workload.states)} operations, {len(workload.disk)} cuts, {checked} disks opened")


@pytest.mark.parametrize("broken", [{"synchronous": "NORMAL"}, {"posix": False}], ids=["shard", "files"])
async def test_a_spool_that_does_not_sync_is_found_out(place: Path, broken: dict[str, Any]) -> None:
    """Without these the test above would be worth nothing."""
    workload = await record(place / "spool", 3, 8, **broken)
    with pytest.raises(Lost):
        for cut, _ in cuts(workload.disk, place / "spool", place / "found", 3):
            check(workload, place / "found", cut)


# --- Maildirs


def _job(base: Path, number: int, octets: bytes) -> Job:
    envelope = Envelope(number, None, (Recipient(Address("ann", "x.example")),), len(octets), START_US)
    path = f"{base}/{{local_part}}"
    destination = Destination("maildir:x", Transport.MAILDIR, domain="x.example", path=path)
    return Job(envelope, (0,), octets, destination, envelope.reverse_path)


def _deliver(base: Path, disk: Disk, posix: Posix, count: int) -> None:
    writer = Writer("mx.example", MaildirOptions(), posix)
    for number in range(1, count + 1):
        octets = b"Subject: %d\r\n\r\n" % number + b"x" * (number * 700) + b"\r\n"
        disk.mark(("issued", number))
        (finding,) = writer.deliver(_job(base, number, octets), START_US + number)
        assert finding.outcome is Outcome.DELIVERED, finding
        disk.mark(("acknowledged", number))


def _check_maildir(disk: Disk, target: Path, cut: int) -> None:
    marks = disk.learnt(cut)
    acknowledged = {number for word, number in marks if word == "acknowledged"}
    found: list[int] = []
    for path in (target / "ann" / "new").glob("*"):
        octets = path.read_bytes()
        number = int(octets.partition(b"Subject: ")[2].partition(b"\n")[0] or b"0")
        if not octets.endswith(b"\n\n" + b"x" * (number * 700) + b"\n") or not number:
            if number in acknowledged or not number:
                raise Lost(f"a message by halves in new: {octets[:60]!r}")
            raise Lost(f"message {number} by halves in new")
        found.append(number)
    if len(found) != len(set(found)):
        raise Lost("a message twice")
    if not acknowledged <= set(found):
        raise Lost(f"delivered and lost: {acknowledged - set(found)}")


@pytest.mark.parametrize("lacks", ["", "fsync"])
def test_a_maildir_after_a_power_cut_at_every_operation(place: Path, lacks: str) -> None:
    """The same with syncs that do nothing must be found out."""
    disk, base, target = Disk(), place / "mail", place / "found"
    base.mkdir()
    posix = Recorder(disk).posix()
    if lacks:
        posix = msgspec.structs.replace(posix, fsync=lambda handle: None)
    _deliver(base, disk, posix, 5)

    def check_all() -> None:
        for round in range(5):
            platter = Platter(disk, {str(base)})
            for cut in range(len(disk) + 1):
                platter.advance(cut)
                for loss in Loss:
                    _clear(target)
                    lay_out(platter.after(random.Random(f"{round} {cut} {loss}"), loss), base, target)
                    _check_maildir(disk, target, cut)

    if not lacks:
        check_all()
        return
    with pytest.raises(Lost):
        check_all()


def test_events_of_the_workload_are_decoded() -> None:
    """The material of these tests is what it is taken for."""
    [event] = codec.decode_journal(codec.join_events([codec.encode_events((relayed(7),))]))
    assert isinstance(event, Attempted) and event.id == 7
