"""The spool under kill -9, a failing sync and a full disk: what was acknowledged is there, what ended is gone, once."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from postroad.mail import identifier
from postroad.mail.event import Accepted, Attempted, Event
from postroad.mail.message import size
from postroad.report.counting import Counting, EventCounts, counted
from postroad.store import content
from postroad.store.face import HISTORY, READERS
from postroad.store.options import SpoolOptions
from postroad.store.sqlite import schema
from postroad.store.sqlite.dayfile import DayReader, path_of
from postroad.store.sqlite.history import day_files
from postroad.store.sqlite.journal import SqliteJournal
from postroad.store.sqlite.reader import SpoolReader
from postroad.store.sqlite.searching import HistoryReader
from postroad.store.sqlite.spool import SqliteSpool
from postroad.store.values import Selection
from postroad.world.clock import SystemClock
from tests.peers.harness import need

pytestmark = pytest.mark.slow

ROUNDS = 5
WRITER = Path(__file__).with_name("spool_writer.py")


class Run:
    """A writer process and what it has said so far."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self.process = process
        self.said: list[list[str]] = []

    def listen(self, lines: int = 1) -> None:
        """Hears so many more lines."""
        assert self.process.stdout is not None
        for _ in range(lines):
            line = self.process.stdout.readline()
            assert line.endswith(b"\n"), (self.process.poll(), line)
            self.said.append(line.decode().split())

    def hear_rest(self) -> None:
        assert self.process.stdout is not None
        self.said += [line.decode().split() for line in self.process.stdout.read().splitlines(keepends=True)
                      if line.endswith(b"\n")]  # fmt: skip

    def kill(self) -> None:
        """The whole group: what runs under a wrapper outlives it."""
        os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait(20)
        self.hear_rest()

    def ids(self, word: str) -> set[int]:
        return {int(said[1]) for said in self.said if said[0] == word}

    def failures(self) -> set[str]:
        return {said[1] for said in self.said if said[0] == "failed"}


@contextmanager
def writer(directory: Path, *arguments: str, wrapper: tuple[str, ...] = ()) -> Iterator[Run]:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    with subprocess.Popen(
        [*wrapper, sys.executable, str(WRITER), str(directory), *arguments],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment, start_new_session=True,
    ) as process:  # fmt: skip
        run = Run(process)
        try:
            run.listen()
            assert run.said.pop() == ["started"]
            yield run
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)


def check(directory: Path, accepted: set[int], settled: set[int], ended: set[int]) -> None:
    """What the spool and the history say, against what the writer was told."""
    spool = SpoolReader(directory / "spool")
    there = set(spool.select(Selection(limit=1 << 30)))
    missing = accepted - settled - there
    assert not missing, f"{len(missing)} acknowledged messages are lost"
    assert not ended & there, "what ended is back"
    for id in sorted(there)[:: max(1, len(there) // 60)]:
        loaded = spool.load(id)
        assert loaded is not None
        found = spool.content(id)
        assert found is not None
        assert size(loaded.envelope, found) == loaded.envelope.size
        assert len(content.read(loaded.envelope, found)) == loaded.envelope.size
    history = HistoryReader(directory / "history", directory / "spool")
    for id in sorted(accepted)[:: max(1, len(accepted) // 40)]:
        kinds = [type(event) for event in history.events(id)]
        assert kinds.count(Accepted) == 1, (identifier.text(id), kinds)
        assert kinds.count(Attempted) <= 1
        if id in ended:
            assert kinds.count(Attempted) == 1
    assert spool.faults == []
    assert history.faults == []


def check_sound(directory: Path) -> None:
    for path in [*(directory / "spool").glob("*.db"), *(directory / "history").glob("*.db")]:
        connection = schema.connect_reader(path)
        assert connection.execute("PRAGMA integrity_check").fetchone()[0] == "ok"
        connection.close()


def test_killed_again_and_again(tmp_path: Path) -> None:
    accepted: set[int] = set()
    settled: set[int] = set()
    ended: set[int] = set()
    for number in range(ROUNDS):
        with writer(tmp_path) as run:
            run.listen(300 + 137 * number)
            run.kill()
        for name, total in (("accepted", accepted), ("settled", settled), ("ended", ended)):
            new = run.ids(name)
            assert not new & total
            total |= new
        check(tmp_path, accepted, settled, ended)
    check_sound(tmp_path)
    # Nothing is left of files whose message was never acknowledged, once the shard has been opened again.
    with writer(tmp_path) as run:
        run.kill()
    there = set(SpoolReader(tmp_path / "spool").select(Selection(limit=1 << 30)))
    files = {identifier.parse(path.name) for path in (tmp_path / "spool" / "00").glob("*/*")}
    stray = files - there
    assert len(stray) <= 100, "only those of the last moments may be there"


async def test_each_event_is_counted_once_though_it_is_killed_while_it_counts(tmp_path: Path) -> None:
    """The history hands the events over to the counts; either may be ahead of the other in its files."""
    for number in range(ROUNDS):
        with writer(tmp_path) as run:
            run.listen(150 + 83 * number)
            run.kill()
        shutil.copytree(tmp_path, copy := tmp_path.with_name("copy"))
        await check_counts(copy)
        shutil.rmtree(copy)


async def check_counts(directory: Path) -> None:
    """After a restart the counts are those of all events of day files and journal."""
    clock = SystemClock()
    spool = SqliteSpool(
        directory / "spool", (0,), SpoolOptions(free_min=0), clock, asyncio.get_running_loop(), readers=READERS
    )
    spool.start()
    journal = SqliteJournal(directory / "spool", spool)
    counting = Counting(directory / "counts", journal, clock, time.monotonic, leader=HISTORY.name)
    while counting.catch_up():
        pass
    counts = counting.counts()
    events: list[Event] = []
    marks: dict[Path, int] = {}
    for _, path in day_files(directory / "history"):
        reader = DayReader(schema.connect_reader(path))
        marks[path] = reader.mark
        events += reader.all()
        reader.close()
    after = 0
    while rows := journal.read(0, after, 1000):
        after = rows[-1].seq
        for row in rows:
            if row.seq > marks.get(path_of(directory / "history", row.at_us, 0), 0):
                events += row.events
    journal.close()
    spool.close()
    assert counts.messages > 0 and not counting.failure
    assert counts == counted(EventCounts(counts.since_us), events)


def test_a_full_disk_refuses_and_then_goes_on(tmp_path: Path) -> None:
    """Files may not grow beyond 3 MB: accepts fail, nothing acknowledged is lost; then there is room again."""
    with writer(tmp_path, "3000000") as run:
        deadline = time.monotonic() + 60
        while not run.failures() and time.monotonic() < deadline:
            run.listen(20)
        assert run.failures(), "it never became full"
        run.listen(50)
        said = len(run.said)
        assert run.process.stdin is not None
        run.process.stdin.write(b"more\n")
        run.process.stdin.flush()
        for _ in range(100):
            run.listen(50)
            if sum(words[0] == "accepted" for words in run.said[said + 200 :]) > 200:
                break
        assert sum(words[0] == "accepted" for words in run.said[said + 200 :]) > 200, "service has not resumed"
        run.kill()
    check(tmp_path, run.ids("accepted"), run.ids("settled"), run.ids("ended"))
    check_sound(tmp_path)


@pytest.mark.parametrize(("call", "when"), [("fdatasync", "40+37"), ("pwrite64", "500+1501")])
@pytest.mark.parametrize("error", ["EIO", "ENOSPC"])
def test_errors_of_the_disk(tmp_path: Path, call: str, when: str, error: str) -> None:
    """Now and then a call fails (a commit syncs once and writes some hundred times): the caller is told, and what was
    acknowledged stays."""
    wrapper = (need.program("strace"), "-f", "-qq", "-o", "/dev/null", "-e", f"trace={call}",
               "-e", f"inject={call}:error={error}:when={when}")  # fmt: skip
    with writer(tmp_path, wrapper=wrapper) as run:
        deadline = time.monotonic() + 60
        while (len(run.ids("ended")) < 150 or not run.failures()) and time.monotonic() < deadline:
            run.listen(20)
        assert run.failures() <= {"io", "full"}
        assert run.failures()
        assert len(run.ids("ended")) >= 150
        run.kill()
    check(tmp_path, run.ids("accepted"), run.ids("settled"), run.ids("ended"))
    check_sound(tmp_path)
