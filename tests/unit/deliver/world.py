"""A small world for couriers: a loop whose time stands until it is told to go on, and a transport that remembers."""

from __future__ import annotations

import heapq
import itertools
from collections import deque
from collections.abc import Callable
from functools import partial
from typing import Any

import msgspec

from postroad.deliver.courier_context import courier_context
from postroad.deliver.options import DeliverOptions
from postroad.deliver.signing import Signing
from postroad.deliver.smtp import SmtpCourier
from postroad.mail.address import Address
from postroad.mail.attempt import Attempt
from postroad.mail.envelope import Envelope, Recipient
from postroad.mail.job import Job
from postroad.mail.message import Content, size
from postroad.mail.route import Destination, Hop, Transport
from postroad.protocol.sending import Security
from postroad.world.tls_facts import TlsFacts

HOP = Hop("mx.example.net", "192.0.2.7", 25)
PIPELINING = "PIPELINING SIZE 8BITMIME DSN"


class Handle:
    def __init__(self, call: Callable[[], None]) -> None:
        self.call = call
        self.cancelled = False

    def cancel(self) -> None:
        self.cancelled = True


class Ready:
    """What `run_in_executor` gives: done at once, told later."""

    def __init__(self, loop: Loop, work: Callable[[], Any]) -> None:
        self.loop = loop
        self.work = work

    def result(self) -> Any:
        return self.work()

    def add_done_callback(self, call: Callable[[Any], None]) -> None:
        try:
            value = self.work()
            self.work = lambda: value
        except Exception as error:
            self.work = partial(_raise, error)
        self.loop.call_soon(call, self)


def _raise(error: Exception) -> Any:
    raise error


class Loop:
    """As much of an event loop as couriers use."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.soon: deque[Callable[[], None]] = deque()
        self.timers: list[tuple[float, int, Handle]] = []
        self.armed = 0  # how many timers were ever set
        self._count = itertools.count()

    def time(self) -> float:
        return self.now

    def call_soon(self, call: Callable[..., None], *arguments: Any) -> None:
        self.soon.append(lambda: call(*arguments))

    def call_at(self, when: float, call: Callable[[], None]) -> Handle:
        handle = Handle(call)
        self.armed += 1
        heapq.heappush(self.timers, (when, next(self._count), handle))
        return handle

    def run_in_executor(self, pool: Any, work: Callable[..., Any], *arguments: Any) -> Ready:
        return Ready(self, lambda: work(*arguments))

    def run(self) -> None:
        while self.soon:
            self.soon.popleft()()

    def advance(self, seconds: float) -> None:
        end = self.now + seconds
        self.run()
        while self.timers and self.timers[0][0] <= end:
            when, _, handle = heapq.heappop(self.timers)
            self.now = max(self.now, when)
            if not handle.cancelled:
                handle.call()
            self.run()
        self.now = end


class Clock:
    def __init__(self) -> None:
        self.us = 1_700_000_000_000_000

    def now_us(self) -> int:
        self.us += 10
        return self.us


class Wire:
    """A transport. `pause_above`: octets after which it asks for a pause, as a socket that takes no more does."""

    def __init__(self, pause_above: int = 1 << 60) -> None:
        self.writes: list[bytes] = []
        self.protocol: Any = None
        self.pause_above = pause_above
        self.buffered = 0
        self.closed = False
        self.aborted = False

    def write(self, octets: bytes) -> None:
        assert not self.aborted, "written to a connection that was given up"
        self.writes.append(bytes(octets))
        self.buffered += len(octets)
        if self.buffered > self.pause_above:
            self.protocol.pause_writing()

    def writelines(self, pieces: Any) -> None:
        self.write(b"".join(pieces))

    def taken(self) -> bytes:
        """What was written since; the buffer is empty again."""
        octets = b"".join(self.writes)
        self.writes.clear()
        if self.buffered > self.pause_above:
            self.buffered = 0
            self.protocol.resume_writing()
        self.buffered = 0
        return octets

    def close(self) -> None:
        self.closed = True

    def abort(self) -> None:
        self.aborted = True

    def get_extra_info(self, name: str) -> None:
        return None


class Stage:
    """A courier with its session set up, and what it told."""

    def __init__(
        self, offered: str = PIPELINING, *, kind: Transport = Transport.SMTP, pause_above: int = 1 << 60,
        options: DeliverOptions | None = None, security: Security | None = None,
        signing: Callable[[Any, Any], Signing] | None = None,
    ) -> None:
        self.loop = Loop()
        signs = None if signing is None else signing(self.loop, Clock())
        self.wire = Wire(pause_above)
        self.done: list[tuple[Attempt, ...]] = []
        self.lost: list[Any] = []
        set_up: Any = (self.loop, None, signs)
        shared = courier_context("me.test", options or DeliverOptions(), Clock(), *set_up)
        self.courier = SmtpCourier(shared, kind, HOP)
        self.wire.protocol = self.courier
        self.courier.connection_made(self.wire)  # type: ignore[arg-type]
        self.server("220 mx")
        lines = ["mx", *self._keywords(offered)]
        self.server("\r\n".join(f"250-{line}" for line in lines[:-1]), f"250 {lines[-1]}")
        self.wire.taken()
        self.courier.tls = TlsFacts("TLSv1.3", "X", 256)
        self.courier.release(security or Security(), 777, self.lost.append)

    @staticmethod
    def _keywords(offered: str) -> list[str]:
        """``"SIZE:100 DSN"`` → SIZE 100, DSN"""
        return [word.replace(":", " ").replace("_", " ") for word in offered.split()]

    def server(self, *lines: str) -> None:
        self.courier.data_received("".join(f"{line}\r\n" for line in lines if line).encode())
        self.loop.run()

    def carry(self, job: Job) -> bytes:
        """Carry; what was written at once."""
        known = len(self.done)
        self.courier.carry(job, lambda job, attempts: self.done.append(attempts))
        assert len(self.done) == known, "done was called from within carry"
        self.loop.run()
        return self.wire.taken()

    def outcomes(self) -> list[tuple[str, str, str]]:
        assert len(self.done) == 1, self.done
        return [(attempt.outcome.value, attempt.reach.value, attempt.status) for attempt in self.done[0]]


def job(content: Content = b"Subject: x\r\n\r\nhello\r\n", to: int | tuple[Recipient, ...] = 1, **fields: Any) -> Job:
    recipients = to if isinstance(to, tuple) else tuple(
        Recipient(Address(f"r{number}", "example.net")) for number in range(to)
    )
    envelope = Envelope(7, Address("ada", "example.org"), recipients, 0, 1_700_000_000_000_000, **fields)
    envelope = msgspec.structs.replace(envelope, size=size(envelope, content))
    destination = Destination("example.net", Transport.SMTP)
    return Job(envelope, tuple(range(len(recipients))), content, destination, envelope.reverse_path)
