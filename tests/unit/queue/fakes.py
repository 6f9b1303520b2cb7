"""A spool in memory with the face of the real one, couriers that follow a script, and a queue between them."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from typing import Any

from postroad.mail import identifier
from postroad.mail.address import Address
from postroad.mail.attempt import Attempt, Outcome, Reach
from postroad.mail.courier import Courier
from postroad.mail.envelope import Envelope, Recipient
from postroad.mail.event import Event, Reported
from postroad.mail.job import Job
from postroad.mail.message import Content
from postroad.mail.reply import Reply
from postroad.mail.route import Destination, Transport
from postroad.mail.routing import Answer
from postroad.queue.options import QueueOptions
from postroad.queue.pace import PaceRule, PaceTable
from postroad.queue.queue import Queue
from postroad.store.values import Failure, FailureKind, Loaded, Settlement, Stored, Waiting
from tests.sim.virtual import VirtualClock, VirtualLoop

RELAYED = Attempt(Outcome.RELAYED, Reach.RECIPIENT, "2.0.0", reply=Reply(250, "2.0.0", ("ok",)))
FAILED = Attempt(Outcome.FAILED, Reach.RECIPIENT, "5.1.1", reply=Reply(550, "5.1.1", ("no such user",)))
DEFERRED = Attempt(Outcome.DEFERRED, Reach.RECIPIENT, "4.2.0", reply=Reply(450, "4.2.0", ("later",)))
BROKEN = Attempt(Outcome.DEFERRED, Reach.SESSION, "4.4.2", "the connection was lost")
DEAD = Attempt(Outcome.DEFERRED, Reach.DESTINATION, "4.4.1", "connection refused")
NOWHERE = Attempt(Outcome.FAILED, Reach.DESTINATION, "5.1.2", "no such domain")


class FakeSpool:
    """Executes every call in order, one loop turn later; `broken` makes commits fail."""

    def __init__(self, loop: VirtualLoop, clock: VirtualClock) -> None:
        self.loop, self.clock = loop, clock
        self.messages: dict[int, Stored] = {}
        self.rows: dict[int, dict[int, Waiting] | None] = {}
        self.events: list[Event] = []
        self.commits: list[Settlement] = []
        self.published: Callable[[int, tuple[Event, ...]], None] = lambda shard, events: None
        self.broken = False
        self.last = 0
        self.takes = 0

    def _later(self, work: Callable[[], None]) -> None:
        self.loop.call_soon(work)

    def new_id(self, shard: int | None = None) -> int:
        self.last = identifier.make(self.clock.now_us(), 0, self.last)
        return self.last

    def store(self, stored: Stored) -> None:
        self.messages[stored.envelope.id] = stored
        self.rows[stored.envelope.id] = None

    def settle(self, settlement: Settlement, done: Callable[[Failure | None], None]) -> None:
        def work() -> None:
            if self.broken:
                self.loop.call_soon(done, Failure(FailureKind.FULL, "no space left on device"))
                return
            self.commits.append(settlement)
            rows = self.rows[settlement.id]
            named = {*settlement.ended, *(row.index for row in settlement.waiting)}
            if rows is None:
                everyone = set(range(len(self.messages[settlement.id].envelope.recipients)))
                assert named == everyone, f"the first settlement names {named}, not {everyone}"
                rows = self.rows[settlement.id] = {}
            else:
                assert set(settlement.ended) <= set(rows), "an end of a recipient that is not there"
            for index in settlement.ended:
                rows.pop(index, None)
            for row in settlement.waiting:
                rows[row.index] = row
            if not rows:
                del self.rows[settlement.id], self.messages[settlement.id]
            for stored in settlement.accepted:
                self.store(stored)
            self.events.extend(settlement.events)
            self.loop.call_soon(self.published, 0, settlement.events)
            self.loop.call_soon(done, None)

        self._later(work)

    def take_due(
        self, shard: int, destination: str, before_us: int, limit: int, done: Callable[[list[Loaded]], None]
    ) -> None:
        def work() -> None:
            self.takes += 1
            due = sorted(
                (row.due_us, number, row.index, row)
                for number, rows in self.rows.items()
                for row in (rows or {}).values()
                if row.destination == destination and row.due_us <= before_us and not row.held
            )[:limit]
            found: dict[int, list[Waiting]] = {}
            for _, number, _, row in due:
                found.setdefault(number, []).append(row)
            self.loop.call_soon(
                done, [Loaded(self.messages[number].envelope, tuple(rows)) for number, rows in found.items()]
            )

        self._later(work)

    def next_due(self, shard: int, destination: str, done: Callable[[int], None], after_us: int = 0) -> None:
        def work() -> None:
            due = [
                row.due_us
                for rows in self.rows.values()
                for row in (rows or {}).values()
                if row.destination == destination and row.due_us > after_us and not row.held
            ]
            self.loop.call_soon(done, min(due, default=0))

        self._later(work)

    def _first_due(self) -> dict[str, int]:
        found: dict[str, int] = {}
        for rows in self.rows.values():
            for row in (rows or {}).values():
                if not row.held:
                    found[row.destination] = min(row.due_us, found.get(row.destination, row.due_us))
        return found

    def ahead(
        self,
        shard: int,
        after: tuple[int, str],
        until_us: int,
        limit: int,
        done: Callable[[list[tuple[int, str]]], None],
    ) -> None:
        def work() -> None:
            found = sorted((due_us, key) for key, due_us in self._first_due().items())
            self.loop.call_soon(done, [each for each in found if after < each and each[0] <= until_us][:limit])

        self._later(work)

    def first_due(self, shard: int, names: Sequence[str], done: Callable[[dict[str, int]], None]) -> None:
        def work() -> None:
            found = self._first_due()
            self.loop.call_soon(done, {name: found[name] for name in names if name in found})

        self._later(work)

    def fresh(self, shard: int, after: int, limit: int, done: Callable[[list[Envelope]], None]) -> None:
        def work() -> None:
            found = sorted(number for number, rows in self.rows.items() if rows is None and number > after)[:limit]
            self.loop.call_soon(done, [self.messages[number].envelope for number in found])

        self._later(work)

    def record(self, events: tuple[Event, ...]) -> None:
        self.events.extend(events)

    def content(self, number: int, done: Callable[[Content | None], None]) -> None:
        def work() -> None:
            stored = self.messages.get(number)
            self.loop.call_soon(done, stored.content if stored is not None else None)

        self._later(work)


class FakeStream:
    """What is not published by the spool: `record` is kept there, and all of it is told."""

    def __init__(self, spool: FakeSpool, logged: list[Event]) -> None:
        self._spool, self._logged = spool, logged

    def record(self, events: tuple[Event, ...]) -> None:
        self._spool.record(events)
        self._logged.extend(events)

    def tell(self, events: tuple[Event, ...]) -> None:
        self._logged.extend(events)


class FakeCourier:
    """Carries for `took_s`, then answers what `world.answer(job, index)` says."""

    def __init__(self, world: World, destination: Destination) -> None:
        self.world, self.destination = world, destination
        self.usable = True
        self.closed = False
        self.elsewhere = world.hosts > len(world.openings)

    def carry(self, job: Job, done: Callable[[Job, tuple[Attempt, ...]], None]) -> None:
        assert self.usable and not self.closed
        self.world.jobs.append(job)
        self.world.carrying += 1
        self.world.carrying_most = max(self.world.carrying_most, self.world.carrying)

        def end() -> None:
            self.world.carrying -= 1
            attempts = tuple(self.world.answer(job, index) for index in job.recipients)
            if any(attempt.reach is Reach.SESSION for attempt in attempts):
                self.usable = False
            for index, attempt in zip(job.recipients, attempts, strict=True):
                if attempt.outcome in (Outcome.RELAYED, Outcome.DELIVERED):
                    self.world.arrived.append((job.envelope.id, index))
            done(job, attempts)

        self.world.loop.call_later(self.world.took_s, end)

    def close(self) -> None:
        self.closed = True
        self.usable = False


class World:
    """A queue in a virtual world. `answer` and `dead` may be replaced at any time."""

    def __init__(self, seed: int = 1, **options: Any) -> None:
        self.loop = VirtualLoop()
        self.clock = VirtualClock(self.loop)
        self.spool = FakeSpool(self.loop, self.clock)
        self.jobs: list[Job] = []
        self.arrived: list[tuple[int, int]] = []
        self.carrying = self.carrying_most = 0
        self.took_s = 0.01
        self.answer: Callable[[Job, int], Attempt] = lambda job, index: RELAYED
        self.dead: dict[str, Attempt] = {}
        self.hosts = 0  # of each destination; each opening finds the next
        self.openings: list[tuple[float, str]] = []
        self.couriers: list[FakeCourier] = []
        self.held_permits: dict[str, int] = {}
        self.permits_max = 1000  # of each destination
        self.asking: dict[str, tuple[tuple[str, ...], Callable[[int], None]]] = {}
        self.told: list[tuple[str, int]] = []
        self.token_s = 1.0
        self.token_times: dict[str, float] = {}
        self.reports: list[tuple[int, tuple[str, ...], bool]] = []
        self.logged: list[Event] = []
        self.spool.published = lambda shard, events: self.logged.extend(events)
        self.rules: tuple[PaceRule, ...] = tuple(options.pop("rules", ()))
        self.hosts_of: dict[str, tuple[str, ...]] = {}
        self.options = QueueOptions(**options)
        self.chance = random.Random(seed)
        self.queue = self.new_queue()
        self.queue.start((0,))

    def new_queue(self) -> Queue:
        return Queue(
            spool=self.spool,  # type: ignore[arg-type]
            options=self.options, clock=self.clock, random=self.chance, destination_of=self.destination_of,
            opener=self.open, permits=self, report=self.report, loop=self.loop,
            stream=FakeStream(self.spool, self.logged), pace=self.pace_table(), hosts_of=self.find_hosts,
        )

    def pace_table(self) -> PaceTable:
        options = self.options
        return PaceTable(
            self.rules, most=options.concurrency, start=options.concurrency_start,
            recipients_max=options.recipients_per_job_max,
        )

    def find_hosts(self, destination: Destination, found: Callable[[tuple[str, ...]], None]) -> None:
        self.loop.call_later(0.001, found, self.hosts_of.get(destination.domain, ()))

    def destination_of(self, envelope: Envelope, recipient: Recipient) -> Answer:
        domain = recipient.address.domain
        if domain == "nowhere.example":
            return NOWHERE
        return Destination(domain, Transport.SMTP, domain=domain)

    def acquire(self, scopes: tuple[str, ...], count: int, granted: Callable[[int], None]) -> None:
        key = scopes[0]
        given = min(count, self.permits_max - self.held_permits.get(key, 0))
        if given <= 0:
            self.asking[key] = (scopes, granted)
            return
        for scope in scopes:
            self.held_permits[scope] = self.held_permits.get(scope, 0) + given
        self.loop.call_soon(granted, given)

    def release(self, scopes: tuple[str, ...]) -> None:
        for scope in scopes:
            self.held_permits[scope] -= 1
            assert self.held_permits[scope] >= 0
        if scopes[0] in self.asking:
            self.acquire(scopes, 1, self.asking.pop(scopes[0])[1])

    def succeeded(self, scopes: tuple[str, ...], successes: int) -> None:
        self.told.append((scopes[0], successes))

    def refused(self, scopes: tuple[str, ...], others: bool) -> None:
        self.told.append((scopes[0], -1))

    def tokens(self, key: str, scopes: tuple[str, ...], count: int, granted: Callable[[int], None]) -> None:
        """As many as asked for, one by one each `token_s`."""
        self.token_times[key] = at = max(self.loop.now, self.token_times.get(key, -self.token_s) + self.token_s)
        self.loop.call_at(at, granted, 1)

    def open(
        self,
        destination: Destination,
        opened: Callable[[Courier | Attempt], None],
        lost: Callable[[Courier], None],
    ) -> None:
        self.openings.append((self.loop.now, destination.key))

        def end() -> None:
            if destination.key in self.dead:
                opened(self.dead[destination.key])
                return
            courier = FakeCourier(self, destination)
            self.couriers.append(courier)
            opened(courier)

        self.loop.call_later(0.02, end)

    def report(self, envelope: Envelope, outcomes: Any, *, delayed: bool, content: Content, until_us: int) -> Any:
        self.reports.append(
            (envelope.id, tuple(str(envelope.recipients[index].address) for index, _ in outcomes), delayed)
        )
        assert content, "a DSN is made with the content in hand"
        if envelope.reverse_path is None:
            return (), ()
        number = self.spool.new_id()
        dsn = Envelope(number, None, (Recipient(envelope.reverse_path),), 10, self.clock.now_us(), parent=envelope.id)
        return (Stored(dsn, b"the report"),), (Reported(self.clock.now_us(), envelope.id, (), "failed", number),)

    def accept(
        self, *recipients: str, sender: str | None = "s@sender.example", content: bytes = b"content",
        only_crlf: bool = False,
    ) -> int:
        number = self.spool.new_id()
        reverse_path = Address(*sender.split("@")) if sender else None
        envelope = Envelope(
            number, reverse_path, tuple(Recipient(Address(*name.split("@"))) for name in recipients),
            len(content), self.clock.now_us(),
        )
        stored = Stored(envelope, content, only_crlf)
        self.spool.store(stored)
        self.loop.call_soon(self.queue.add, stored)
        return number

    def run(self, seconds: float) -> None:
        self.loop.call_later(seconds, self.loop.stop)
        self.loop.run_forever()

    def arrivals(self, number: int) -> list[int]:
        return sorted(index for message, index in self.arrived if message == number)
