"""What the spool and the history cost: microseconds of CPU for each message, and the latency of one that comes alone.

    python -m bench.spool [--memory] [--messages N] [--batch N] [--size OCTETS] [--directory DIR]

Each run accepts messages and settles them as delivered, `batch` of them on the way at a time, on a real loop and disk;
then measures the latency of lone accepts, a backlog of deferred recipients, and the history catching up. With
`--memory` the engine is the one without a disk (`store.memory`): the difference is what SQLite and the disk cost. Runs
are bounded in size and use a folder of their own, which is removed.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import resource
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from postroad.mail import identifier
from postroad.mail.address import Address
from postroad.mail.attempt import Attempt, Outcome, Reach
from postroad.mail.envelope import Envelope, Peer, Recipient
from postroad.mail.event import Accepted, Attempted
from postroad.mail.reply import Reply
from postroad.store.memory import MemorySpool
from postroad.store.options import HistoryOptions, SpoolOptions
from postroad.store.sqlite.history import Historian
from postroad.store.sqlite.reader import SpoolReader
from postroad.store.sqlite.spool import SqliteSpool
from postroad.store.values import Failure, Settlement, Stored, Waiting
from postroad.world.clock import SystemClock

PEER = Peer("192.0.2.7", 40000, "client.example.org", "ESMTPS", "TLSv1.3 TLS_AES_256_GCM_SHA384", "", "mx")
REPLY = Reply(250, "2.0.0", ("Ok: queued as 12345",))


def stored(id: int, now_us: int, octets: bytes, domain: str = "example.com") -> Stored:
    name = identifier.text(id)
    recipients = (Recipient(Address(f"rcpt{id & 0xFFFF}", domain)),)
    return Stored(
        Envelope(
            id, Address("sender", "example.org"), recipients, len(octets), now_us, PEER,
            message_id=f"<{name}@example.org>",
        ),
        octets,
    )  # fmt: skip


def accepted(message: Stored) -> Accepted:
    envelope = message.envelope
    return Accepted(
        envelope.accepted_us, envelope.id, str(envelope.reverse_path), (str(envelope.recipients[0].address),),
        envelope.size, envelope.message_id, PEER,
    )  # fmt: skip


def relayed(envelope: Envelope, now_us: int) -> Attempted:
    attempt = Attempt(
        Outcome.RELAYED, Reach.RECIPIENT, "2.0.0", "relayed", REPLY, "mx.example.com", "192.0.2.9", 25, "TLSv1.3",
        False, now_us, 2300,
    )  # fmt: skip
    return Attempted(now_us, envelope.id, (str(envelope.recipients[0].address),), "example.com", attempt)


class Bench:
    def __init__(self, directory: Path, size: int, *, memory: bool) -> None:
        self.clock = SystemClock()
        self.loop = asyncio.get_running_loop()
        engine = MemorySpool if memory else SqliteSpool
        self.spool = engine(directory / "spool", [0], SpoolOptions(), self.clock, self.loop)
        self.spool.start()
        self.octets = os.urandom(64) + b"x" * (size - 64)
        self.ended = asyncio.Event()
        self.left = self.started = 0

    async def accept_and_settle(self, messages: int, width: int, deferred: bool = False) -> float:
        """CPU seconds. `width` messages are on the way at a time."""
        self.left, self.started, self.deferred = messages, messages, deferred
        self.ended.clear()
        before = cpu_s()
        for _ in range(min(width, messages)):
            self._one()
        await self.ended.wait()
        return cpu_s() - before

    def _one(self) -> None:
        self.started -= 1
        now_us = self.clock.now_us()
        message = stored(self.spool.new_id(), now_us, self.octets, f"d{self.started % 1000}.example")
        self.spool.accept(message, (accepted(message),), lambda failure: self._accepted(message.envelope, failure))

    def _accepted(self, envelope: Envelope, failure: Failure | None) -> None:
        assert failure is None
        now_us = self.clock.now_us()
        event = relayed(envelope, now_us)
        if self.deferred:
            domain = envelope.recipients[0].address.domain
            waiting = (Waiting(0, now_us + 900_000_000, domain, 1, False, False, "4.4.1", "no answer", "mx", now_us),)
            settlement = Settlement(envelope.id, (), waiting, (), (event,))
        else:
            settlement = Settlement(envelope.id, (0,), (), (), (event,))
        self.spool.settle(settlement, self._settled)

    def _settled(self, failure: Failure | None) -> None:
        assert failure is None
        self.left -= 1
        if self.started > 0:
            self._one()
        elif self.left == 0:
            self.ended.set()

    async def lone(self, count: int) -> list[float]:
        """Seconds from accept to its callback, one at a time."""
        took = []
        for _ in range(count):
            future = self.loop.create_future()
            message = stored(self.spool.new_id(), self.clock.now_us(), self.octets)
            start = time.perf_counter()
            self.spool.accept(message, (accepted(message),), future.set_result)
            await future
            took.append(time.perf_counter() - start)
        return took

    async def ask(self, call: Callable[..., None], *arguments: Any) -> Any:
        future = self.loop.create_future()
        call(*arguments, future.set_result)
        return await future


def cpu_s() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


async def run(options: argparse.Namespace, directory: Path) -> None:
    bench = Bench(directory, options.size, memory=options.memory)
    await bench.accept_and_settle(2000, options.batch)
    start = time.perf_counter()
    used = await bench.accept_and_settle(options.messages, options.batch)
    rate = options.messages / (time.perf_counter() - start)
    print(f"accept + settle: {used / options.messages * 1e6:.1f} us CPU a message, {rate:.0f} messages/s")
    took = await bench.lone(200)
    print(f"lone accept: median {statistics.median(took) * 1e3:.2f} ms, worst {max(took) * 1e3:.1f} ms")
    used = await bench.accept_and_settle(options.deferred, options.batch, deferred=True)
    print(f"accept + defer: {used / options.deferred * 1e6:.1f} us CPU a message")
    start = time.perf_counter()
    await bench.ask(bench.spool.take_due, 0, "d1.example", bench.clock.now_us() + 10**12, 100)
    print(f"take of 100: {(time.perf_counter() - start) * 1e3:.2f} ms")
    if options.memory:
        bench.spool.close()
        return
    start = time.perf_counter()
    found = SpoolReader(directory / "spool").backlog()
    print(f"backlog of {found.recipients}: {(time.perf_counter() - start) * 1e3:.1f} ms")
    history = Historian(directory / "spool", directory / "history", bench.spool, HistoryOptions(), bench.clock)
    before = cpu_s()
    while history.step():
        pass
    total = options.messages + options.deferred + 2200
    print(f"history: {(cpu_s() - before) / total * 1e6:.1f} us CPU a message")
    history.close()
    bench.spool.close()
    for path in sorted(directory.rglob("*.db*")):
        print(f"{path.relative_to(directory)}: {path.stat().st_size / total:.0f} octets a message")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--memory", action="store_true")
    parser.add_argument("--messages", type=int, default=20_000)
    parser.add_argument("--deferred", type=int, default=10_000)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--size", type=int, default=4400)
    parser.add_argument("--directory", type=Path, default=None)
    options = parser.parse_args()
    directory = Path(tempfile.mkdtemp(prefix="spool-", dir=options.directory))
    try:
        import uvloop

        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(run(options, directory))
    finally:
        shutil.rmtree(directory, ignore_errors=True)


if __name__ == "__main__":
    main()
