"""A spool in memory with the calls that the operator needs, each answered later and in order; and a queue beside it."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

from postroad.mail import identifier
from postroad.mail.address import Address
from postroad.mail.attempt import Attempt, Outcome, Reach
from postroad.mail.envelope import Envelope, Peer, Recipient
from postroad.mail.event import Event
from postroad.mail.message import Content
from postroad.mail.route import Destination, Transport
from postroad.operate.operator import Operator, OperatorAction, OperatorRequest, OperatorResult
from postroad.report.dsn import Reporter
from postroad.report.options import ReportOptions
from postroad.store.sqlite import codec, selecting
from postroad.store.values import Failure, Loaded, Selection, Settlement, Stored, Waiting

NOW_US = 1_790_000_000_000_000
HOUR_US = 3_600_000_000


class Clock:
    def now_us(self) -> int:
        return NOW_US


class FakeSpool:
    """`rows` of a message is None while it is fresh. `failure` is what the next commits answer."""

    def __init__(self, *, at_once: bool) -> None:
        self.envelopes: dict[int, Envelope] = {}
        self.rows: dict[int, dict[int, Waiting] | None] = {}
        self.contents: dict[int, Content] = {}
        self.commits: list[Settlement] = []
        self.published: Callable[[int, tuple[Event, ...]], None] = lambda shard, events: None
        self.failure: Failure | None = None
        self.calls: deque[Callable[[], None]] = deque()
        self.at_once = at_once
        self.last = 0

    def new_id(self, shard: int = 0) -> int:
        self.last = identifier.make(NOW_US, shard, self.last)
        return self.last

    def _later(self, work: Callable[[], None]) -> None:
        if self.at_once:
            work()
        else:
            self.calls.append(work)

    def run(self) -> None:
        while self.calls:
            self.calls.popleft()()

    def store(self, stored: Stored) -> None:
        self.envelopes[stored.envelope.id] = stored.envelope
        self.contents[stored.envelope.id] = stored.content
        self.rows[stored.envelope.id] = None

    def select(self, selection: Selection, done: Callable[[list[int]], None]) -> None:
        def work() -> None:
            found = []
            for id, envelope in sorted(self.envelopes.items()):
                states = frozenset((row.destination, row.held) for row in (self.rows[id] or {}).values())
                if selection.ids and id not in selection.ids:
                    continue
                if selecting.matches(codec.encode_envelope(envelope), selection, states):
                    found.append(id)
            done(found)

        self._later(work)

    def fresh(self, shard: int, after: int, limit: int, done: Callable[[list[Envelope]], None]) -> None:
        def work() -> None:
            ids = sorted(id for id, rows in self.rows.items() if rows is None and id > after)
            done([self.envelopes[id] for id in ids[:limit]])

        self._later(work)

    def load(self, id: int, done: Callable[[Loaded | None], None]) -> None:
        def work() -> None:
            if id not in self.envelopes:
                done(None)
                return
            rows = self.rows[id] or {}
            done(Loaded(self.envelopes[id], tuple(rows[place] for place in sorted(rows))))

        self._later(work)

    def content(self, id: int, done: Callable[[Content | None], None]) -> None:
        self._later(lambda: done(self.contents.get(id)))

    def settle(self, settlement: Settlement, done: Callable[[Failure | None], None]) -> None:
        def work() -> None:
            if self.failure is not None:
                done(self.failure)
                return
            self.commits.append(settlement)
            rows = self.rows[settlement.id]
            named = [*settlement.ended, *(row.index for row in settlement.waiting)]
            assert len(named) == len(set(named))
            if rows is None:
                everyone = list(range(len(self.envelopes[settlement.id].recipients)))
                assert sorted(named) == everyone, "the first settlement must name all"
                rows = self.rows[settlement.id] = {}
            else:
                assert set(named) <= set(rows), "a settlement of what is not there"
            for place in settlement.ended:
                rows.pop(place, None)
            for row in settlement.waiting:
                rows[row.index] = row
            if not rows:
                for table in (self.rows, self.envelopes, self.contents):
                    del table[settlement.id]
            for stored in settlement.accepted:
                self.store(stored)
            self.published(0, settlement.events)
            done(None)

        self._later(work)


class World:
    def __init__(self, *, at_once: bool = False) -> None:
        self.spool = FakeSpool(at_once=at_once)
        self.busy: dict[int, tuple[int, ...]] = {}
        self.withdrawn: list[int] = []
        self.changed: list[tuple[int, tuple[str, ...]]] = []
        self.added: list[Stored] = []
        self.logged: list[Event] = []
        self.spool.published = lambda shard, events: self.logged.extend(events)
        reporter = Reporter(ReportOptions(hostname="mx.example.org"), Clock().now_us, self.spool.new_id)
        self.operator = Operator(
            spool=self.spool,
            shards=(0,),
            report=reporter,
            destination_of=self.destination_of,
            clock=Clock(),
            withdraw=self._withdraw,
            changed=self._changed,
            add=self.added.append,
            tell=self.logged.extend,
        )

    def destination_of(self, envelope: Envelope, recipient: Recipient) -> Destination | Attempt:
        domain = recipient.address.domain
        if domain == "nowhere.example":
            return Attempt(Outcome.FAILED, Reach.DESTINATION, "5.1.2", "no such domain")
        return Destination(domain, Transport.SMTP, domain)

    def _withdraw(self, id: int) -> Sequence[int]:
        self.withdrawn.append(id)
        return self.busy.get(id, ())

    def _changed(self, id: int, keys: Sequence[str]) -> None:
        self.changed.append((id, tuple(keys)))

    def message(
        self, *recipients: str, rows: dict[int, Waiting] | None = None, sender: str | None = "alice@example.org"
    ) -> int:
        """A message in the spool; fresh without `rows`."""
        envelope = Envelope(
            self.spool.new_id(),
            address(sender) if sender else None,
            tuple(Recipient(address(each)) for each in recipients),
            100,
            NOW_US - HOUR_US,
            Peer("192.0.2.1"),
            message_id=f"<{len(self.spool.envelopes)}@example.org>",
        )
        self.spool.store(Stored(envelope, b"Subject: x\r\n\r\nbody\r\n"))
        self.spool.rows[envelope.id] = rows
        return envelope.id

    def waiting(self, *recipients: str, **changes: Any) -> int:
        """A message that has been tried once, and waits."""
        rows = {
            place: Waiting(
                **{
                    "index": place, "due_us": NOW_US + HOUR_US, "destination": each.partition("@")[2], "attempts": 1,
                    "status": "4.2.2", "text": "450 4.2.2 mailbox full", "remote": "mx.example.net",
                    "last_us": NOW_US - HOUR_US, **changes,
                }
            )
            for place, each in enumerate(recipients)
        }  # fmt: skip
        return self.message(*recipients, rows=rows)

    def ask(self, action: OperatorAction, *selections: Selection, **options: Any) -> list[OperatorResult]:
        answers: list[list[OperatorResult]] = []
        self.operator.operate(OperatorRequest(action, selections, by="root", **options), answers.append)
        self.spool.run()
        assert len(answers) == 1
        # Each withdrawal is followed by one change.
        assert sorted(self.withdrawn) == sorted(id for id, _ in self.changed)
        return answers[0]


def address(text: str) -> Address:
    local_part, _, domain = text.rpartition("@")
    return Address(local_part, domain)
