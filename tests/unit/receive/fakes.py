"""Stand-ins for what surrounds a session: loop with a clock of its own, transport, spool, doors."""

from __future__ import annotations

import asyncio
import dataclasses
import heapq
import itertools
from collections.abc import Callable, Coroutine
from typing import Any

from postroad.check import policy
from postroad.check.client import ClientOptions, Clients
from postroad.check.policy import Directory, PolicyOptions
from postroad.mail import identifier
from postroad.mail.address import Address
from postroad.mail.envelope import Envelope, Recipient
from postroad.mail.event import Event
from postroad.mail.message import ContentFile
from postroad.mail.policy import Inspector, Role, Rules
from postroad.protocol.offer import Dialect
from postroad.receive.doors import Doors, Expansion, Knowing, Limiting, Storing
from postroad.receive.listener import Listener
from postroad.receive.options import ListenerOptions, ReceiveOptions
from postroad.receive.session import ClientConnection
from postroad.receive.setup import listener_setup
from postroad.store.arrivals import Arrivals
from postroad.store.values import Failure, FailureKind, NewContent, Stored, Waiting
from tests.unit.receive.ruled import with_rules

NOW_US = 1_795_000_000_000_000  # in November 2026


class Loop:
    """Time that passes when it is told to."""

    def __init__(self) -> None:
        self.now = 1000.0
        self._timers: list[tuple[float, int, _Timer]] = []
        self._numbers = itertools.count()
        self._ready: list[_Timer] = []

    def time(self) -> float:
        return self.now

    def call_at(self, when: float, callback: Callable[..., None], *arguments: Any) -> _Timer:
        timer = _Timer(callback, arguments)
        heapq.heappush(self._timers, (when, next(self._numbers), timer))
        return timer

    def call_later(self, delay: float, callback: Callable[..., None], *arguments: Any) -> _Timer:
        return self.call_at(self.now + delay, callback, *arguments)

    def call_soon(self, callback: Callable[..., None], *arguments: Any) -> _Timer:
        timer = _Timer(callback, arguments)
        self._ready.append(timer)
        return timer

    def turn(self) -> bool:
        """Go round once: what was asked for soon is done, what comes of that is left for the next time. False: there
        was nothing."""
        ready, self._ready = self._ready, []
        for timer in ready:
            if not timer.cancelled:
                timer.callback(*timer.arguments)
        return bool(ready)

    def create_task(self, coroutine: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        return asyncio.get_running_loop().create_task(coroutine)

    def run_in_executor(self, executor: Any, work: Callable[..., Any], *arguments: Any) -> _Work:
        done = _Work()
        try:
            done.outcome = work(*arguments)
        except Exception as error:
            done.error = error
        self.call_later(0, done.tell)
        return done

    def step(self) -> None:
        """The next timer."""
        when, _, timer = heapq.heappop(self._timers)
        self.now = max(self.now, when)
        if not timer.cancelled:
            timer.callback(*timer.arguments)

    def pass_time(self, seconds: float) -> None:
        end = self.now + seconds
        while self.turn():
            pass
        while self._timers and self._timers[0][0] <= end:
            when, _, timer = heapq.heappop(self._timers)
            self.now = max(self.now, when)
            if not timer.cancelled:
                timer.callback(*timer.arguments)
            while self.turn():
                pass
        self.now = end

    @property
    def timers(self) -> int:
        return sum(not timer.cancelled for _, _, timer in self._timers)


class _Timer:
    def __init__(self, callback: Callable[..., None], arguments: tuple[Any, ...]) -> None:
        self.callback, self.arguments, self.cancelled = callback, arguments, False

    def cancel(self) -> None:
        self.cancelled = True


class _Work:
    """A future that ends when the loop comes round."""

    def __init__(self) -> None:
        self.outcome: Any = None
        self.error: Exception | None = None
        self.callbacks: list[Callable[[Any], None]] = []

    def add_done_callback(self, callback: Callable[[Any], None]) -> None:
        self.callbacks.append(callback)

    def tell(self) -> None:
        for callback in self.callbacks:
            callback(self)

    def cancelled(self) -> bool:
        return False

    def exception(self) -> Exception | None:
        return self.error

    def result(self) -> Any:
        if self.error is not None:
            raise self.error
        return self.outcome


class Transport(asyncio.Transport):
    """Keeps what is written; the client's side of it is the test."""

    def __init__(self, peer: tuple[str, int] | str = ("192.0.2.1", 50_000)) -> None:
        super().__init__({"peername": peer})
        self.written = b""
        self.writes = 0
        self.closed = self.aborted = self.paused = False
        self.protocol: asyncio.BaseProtocol | None = None

    def write(self, data: Any) -> None:
        assert not self.closed, "written after close"
        self.written += data
        self.writes += 1

    def get_write_buffer_size(self) -> int:
        return len(self.written)  # whether the client takes it, the test has not said

    def close(self) -> None:
        self.closed = True

    def abort(self) -> None:
        self.closed = self.aborted = True
        if isinstance(self.protocol, asyncio.Protocol):
            self.protocol.connection_lost(None)

    def is_closing(self) -> bool:
        return self.closed

    def pause_reading(self) -> None:
        self.paused = True

    def resume_reading(self) -> None:
        self.paused = False


class Incoming:
    def __init__(self, spool: Spool, id: int) -> None:
        self.spool, self.id = spool, id
        self.octets = b""
        self.resumed: Callable[[], None] | None = None
        self.aborted = False
        self.slow = False

    def write(self, octets: bytes) -> bool:
        self.octets += octets
        return not self.spool.slow

    def finish(self, done: Callable[[ContentFile | Failure], None], new: NewContent | None = None) -> None:
        if new is not None:
            self.octets = new.head + (self.octets[new.head_size :] if new.body is None else new.body)
        if self.spool.file_failure is not None:
            done(self.spool.file_failure)
        elif self.spool.patient:
            self.spool.finishing.append(lambda: done(ContentFile(f"/{self.id}", len(self.octets))))
        else:
            done(ContentFile(f"/{self.id}", len(self.octets)))

    def abort(self) -> None:
        self.aborted = True


class Spool:
    """Commits at once, or when it is told (`patient`)."""

    def __init__(self) -> None:
        self.patient = False
        self.slow = False
        self.failure: Failure | None = None
        self.file_failure: Failure | None = None
        self.stored: list[Stored] = []
        self.reports: list[Stored] = []
        self.waiting: list[tuple[Waiting, ...]] = []
        self.events: list[Event] = []
        self.published: Callable[[int, tuple[Event, ...]], None] = lambda shard, events: None
        self.pending: list[Callable[[], None]] = []
        self.finishing: list[Callable[[], None]] = []
        self.incomings: list[Incoming] = []
        self._last = 0

    def new_id(self) -> int:
        self._last = identifier.make(NOW_US, 0, self._last)
        return self._last

    def accept(
        self,
        stored: Stored,
        events: tuple[Event, ...],
        done: Callable[[Failure | None], None],
        waiting: tuple[Waiting, ...] = (),
        reports: tuple[Stored, ...] = (),
    ) -> None:
        def commit() -> None:
            if self.failure is None:
                self.stored.append(stored)
                self.reports += reports
                self.events += events
                self.waiting.append(waiting)
                self.published(0, events)
            done(self.failure)

        if self.patient:
            self.pending.append(commit)
        else:
            commit()

    def commit(self) -> None:
        pending, self.pending = self.pending, []
        for each in pending:
            each()

    def incoming(self, id: int) -> Incoming:
        self.incomings.append(Incoming(self, id))
        return self.incomings[-1]

    def message(self, number: int = -1) -> bytes:
        """A stored message as its readers see it, in memory or in a file."""
        stored = self.stored[number]
        if isinstance(stored.content, bytes):
            return stored.envelope.prefix + stored.content
        (octets,) = [each.octets for each in self.incomings if each.id == stored.envelope.id]
        return stored.envelope.prefix + octets


_OF_EACH = ("session", "authenticated")  # tags of events that each session has
USERS = {Address("ann", "local.test"), Address("bob", "local.test")}


def owns(name: str, address: Address) -> bool:
    return str(address) == f"{name}@local.test"


KNOWN = Directory(
    is_local=lambda domain: domain == "local.test",
    is_relay=lambda domain: domain == "relay.test",
    recipient=lambda address: address in USERS or address.domain == "relay.test",
    owns=owns,
)

FULL, IO = Failure(FailureKind.FULL, "full"), Failure(FailureKind.IO, "io")
CLOSED, INVALID = Failure(FailureKind.CLOSED, "closed"), Failure(FailureKind.INVALID, "no")


class House:
    """A listener with stand-ins around it."""

    def __init__(
        self,
        role: Role = Role.MX,
        dialect: Dialect = Dialect.SMTP,
        *,
        options: ReceiveOptions | None = None,
        listener: ListenerOptions | None = None,
        policy_options: PolicyOptions | None = None,
        rules: Rules | None = None,
        clients: ClientOptions | None = None,
        expand: Callable[[int, int, tuple[Recipient, ...]], Expansion] | None = None,
        loop: Any = None,
        inspectors: tuple[Inspector, ...] = (),
        **doors: Any,
    ) -> None:
        self.loop = loop or Loop()
        self.spool = Spool()
        self.queued: list[Stored] = []
        self.awaited: list[tuple[int, tuple[Waiting, ...]]] = []
        self.recorded: list[Event] = []
        self.logged: list[Event] = []
        self.spool.published = lambda shard, events: self.logged.extend(events)
        self.clients = Clients(clients or ClientOptions())
        self.options = options or ReceiveOptions(hostname="mx.local.test", default_domain="local.test")
        self.listener_options = listener or ListenerOptions("front", role, dialect, dsn_for_strangers=True)
        lmtp = self.listener_options.protocol is Dialect.LMTP
        own = policy.rules(self.listener_options.role, policy_options or PolicyOptions(), KNOWN, lmtp=lmtp)
        composed = with_rules(own, rules)
        self.doors = made_doors(
            {
                "loop": self.loop,
                "now_us": lambda: NOW_US,
                "join": Arrivals(self.loop.time).join,
                "new_id": self.spool.new_id,
                "accept": self.spool.accept,
                "incoming": self.spool.incoming,
                "queued": self.queued.append,
                "expand": expand or (lambda id, now_us, recipients, passed=None: Expansion(recipients)),
                "reports": lambda stored, given, events: ((), ()),
                "held": held,
                "waiting": lambda id, rows: self.awaited.append((id, rows)),
                "record": self._record,
                "log": self.logged.extend,
                "admit": self.clients.admit,
                "left": self.clients.left,
                "known": lambda address: address in USERS if address.domain == "local.test" else None,
                "members": {Address("staff", "local.test"): sorted(USERS, key=str)}.get,
                "owns": owns,
                "network": None,
                "tls_context": lambda asking: None,
                **doors,
            }
        )
        self.rules = composed
        self.listener = Listener(listener_setup(self.listener_options, self.options, composed, self.doors, inspectors))

    def _record(self, events: tuple[Event, ...]) -> None:
        """`recorded` is without log-ins and ends of sessions: each session has them, and few tests ask for them."""
        self.recorded.extend([event for event in events if event.__struct_config__.tag not in _OF_EACH])
        self.logged.extend(events)

    def client(self, peer: tuple[str, int] | str = ("192.0.2.1", 50_000)) -> Client:
        return Client(self, peer)


def made_doors(all: dict[str, Any]) -> Doors:
    """The doors of these names, each in its group."""
    groups: dict[str, Any] = {}
    for name, kind in (("storing", Storing), ("knowing", Knowing), ("limiting", Limiting)):
        groups[name] = kind(**{key: all.pop(key) for key in kind.__dataclass_fields__ if key in all})
    return Doors(**groups, **all)


def with_door(doors: Doors, name: str, value: Any) -> Doors:
    """The same doors with another one of this name."""
    for group in ("storing", "knowing", "limiting"):
        if name in getattr(doors, group).__dataclass_fields__:
            return dataclasses.replace(doors, **{group: dataclasses.replace(getattr(doors, group), **{name: value})})
    return dataclasses.replace(doors, **{name: value})


def held(envelope: Envelope, text: str) -> tuple[Waiting, ...]:
    return tuple(
        Waiting(index, 0, recipient.address.domain, held=True, text=text)
        for index, recipient in enumerate(envelope.recipients)
    )


class Client:
    """A client of a session over the stand-in transport."""

    def __init__(self, house: House, peer: tuple[str, int] | str) -> None:
        self.house = house
        self.transport = Transport(peer)
        self.session: ClientConnection = house.listener.connect()
        self.transport.protocol = self.session
        self.session.connection_made(self.transport)

    def heard(self) -> bytes:
        """What the server has said since the last time."""
        written, self.transport.written = self.transport.written, b""
        return written

    def say(self, octets: bytes | str) -> str:
        """Send, and give what came back, CRLF as LF."""
        self.transport.written = b""
        if octets and not self.transport.closed:
            self.session.data_received(octets.encode() if isinstance(octets, str) else octets)
            while isinstance(self.house.loop, Loop) and self.house.loop.turn():
                pass
        return self.heard().decode().replace("\r\n", "\n").removesuffix("\n")

    def codes(self, *lines: str) -> list[str]:
        """Say line by line; the last line's first two words of each answer."""
        return [" ".join(self.say(line + "\r\n").rpartition("\n")[2].split(" ")[:2]) for line in lines]

    def hang_up(self, error: Exception | None = None) -> None:
        self.transport.closed = True
        self.session.connection_lost(error)


def opened(house: House, hello: str = "EHLO client.test") -> Client:
    """A client that has said hello."""
    client = house.client()
    client.say("")
    assert client.say(hello + "\r\n").startswith("250")
    return client
