"""Run as a program: accepts and settles messages as fast as it can, and says on its output what was acknowledged.

    python spool_writer.py DIRECTORY [SIZE_LIMIT]

Lines: ``accepted ID``, ``settled ID`` (asked to end), ``ended ID`` (acknowledged), ``failed KIND``. Each is written
when the spool has called back, with one write. With SIZE_LIMIT files may not grow beyond it (RLIMIT_FSIZE) until a line
comes on the input, so that a disk is full for a while. It ends when its input is closed.
"""

from __future__ import annotations

import asyncio
import os
import random
import resource
import sys
import threading
import time
from pathlib import Path

from postroad.mail.address import Address
from postroad.mail.attempt import Attempt, Outcome, Reach
from postroad.mail.envelope import Envelope, Peer, Recipient
from postroad.mail.event import Accepted, Attempted
from postroad.mail.message import Content, ContentFile
from postroad.report.counting import Counting
from postroad.store.face import HISTORY, READERS
from postroad.store.sqlite.history import Historian, HistoryOptions
from postroad.store.sqlite.journal import SqliteJournal
from postroad.store.sqlite.spool import SpoolOptions, SqliteSpool
from postroad.store.values import Failure, Settlement, Stored, Waiting
from postroad.world.clock import SystemClock
from tests.unit.store.sqlite.material import Chosen

WIDTH = 24


def say(*words: object) -> None:
    os.write(1, (" ".join(map(str, words)) + "\n").encode())


class Writer:
    def __init__(self, spool: SqliteSpool, clock: SystemClock, chance: random.Random) -> None:
        self.spool = spool
        self.clock = clock
        self.chance = chance

    def one(self) -> None:
        id = self.spool.new_id()
        if self.chance.random() < 0.1:
            incoming = self.spool.incoming(id)
            incoming.write(b"large" * 1000)

            def finished(answer: ContentFile | Failure) -> None:
                if isinstance(answer, Failure):
                    self._failed(answer)
                else:
                    self.accept(id, answer)

            incoming.finish(finished)
        else:
            self.accept(id, b"x" * self.chance.randrange(10, 12_000))

    def accept(self, id: int, content: Content) -> None:
        now_us = self.clock.now_us()
        recipients = (Recipient(Address("a", "x.example")), Recipient(Address("b", "y.example")))
        size = len(content) if isinstance(content, bytes) else content.size
        envelope = Envelope(id, None, recipients, size, now_us, message_id=f"<{id}@x.example>")
        event = Accepted(now_us, id, "", ("a@x.example", "b@y.example"), size, envelope.message_id, Peer())
        self.spool.accept(Stored(envelope, content), (event,), lambda failure: self._accepted(id, failure))

    def _accepted(self, id: int, failure: Failure | None) -> None:
        if failure is not None:
            self._failed(failure)
            return
        say("accepted", id)
        kind = self.chance.randrange(3)
        if kind == 0:
            self._again()
        elif kind == 1:
            self.settle(Settlement(id, (0, 1), events=(self._event(id),)))
        else:
            waiting = Waiting(1, self.clock.now_us(), "y.example")
            self.settle(Settlement(id, (0,), (waiting,), events=(self._event(id),)))

    def _event(self, id: int) -> Attempted:
        attempt = Attempt(Outcome.RELAYED, Reach.RECIPIENT, "2.0.0")
        return Attempted(self.clock.now_us(), id, ("a@x.example",), "x.example", attempt)

    def settle(self, settlement: Settlement) -> None:
        if not settlement.waiting:
            say("settled", settlement.id)
        self.spool.settle(settlement, lambda failure: self._settled(settlement, failure))

    def _settled(self, settlement: Settlement, failure: Failure | None) -> None:
        if failure is not None:
            say("failed", failure.kind.value)
            asyncio.get_running_loop().call_later(0.01, self.settle, settlement)
        elif settlement.waiting:
            self.settle(Settlement(settlement.id, (1,)))
        else:
            say("ended", settlement.id)
            self._again()

    def _failed(self, failure: Failure) -> None:
        say("failed", failure.kind.value)
        asyncio.get_running_loop().call_later(0.01, self._again)

    def _again(self) -> None:
        asyncio.get_running_loop().call_soon(self.one)


def count(counting: Counting) -> None:
    """Keeps the counts every few milliseconds, each time after another pause."""
    chance = random.Random(os.getpid())
    while True:
        counting.step()
        time.sleep(0.05 * chance.random() ** 2)


async def main(directory: Path, size_limit: int) -> None:
    loop = asyncio.get_running_loop()
    clock = SystemClock()
    options = SpoolOptions(free_min=0, inline_max=4000, wal_max=2_000_000)
    spool = SqliteSpool(
        directory / "spool", (0,), options, clock, loop, readers=READERS, quickness=Chosen(on_loop=None)
    )
    spool.start()
    journal = SqliteJournal(directory / "spool", spool)
    counting = Counting(directory / "counts", journal, clock, time.monotonic, leader=HISTORY.name)
    historian = Historian(
        directory / "spool", directory / "history", spool, HistoryOptions(lag_s=0.0), clock, on_moved=counting.on_moved
    )
    historian.start()
    threading.Thread(target=count, args=(counting,), daemon=True).start()
    say("started")
    if size_limit:
        resource.setrlimit(resource.RLIMIT_FSIZE, (size_limit, resource.RLIM_INFINITY))
    writer = Writer(spool, clock, random.Random(os.getpid()))
    for _ in range(WIDTH):
        writer.one()
    while await loop.run_in_executor(None, sys.stdin.readline):
        resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    historian.close()
    spool.close()


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else 0))
