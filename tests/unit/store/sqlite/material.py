"""Messages, a clock and a spool to test with; questions as awaitables."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from postroad.mail import identifier
from postroad.mail.address import Address
from postroad.mail.attempt import Attempt, Outcome, Reach
from postroad.mail.envelope import Envelope, Peer, Recipient
from postroad.mail.event import Accepted, Attempted, Event
from postroad.mail.message import Content
from postroad.store.face import HISTORY, JournalReader
from postroad.store.sqlite import schema
from postroad.store.sqlite.quickness import Quickness
from postroad.store.sqlite.spool import SpoolOptions, SqliteSpool
from postroad.store.values import Failure, Settlement, Stored, Waiting

START_US = 1_790_000_000_000_000
OPTIONS = SpoolOptions(free_min=0)


class Clock:
    """Moves by a microsecond at each look, and as told."""

    def __init__(self, now_us: int = START_US) -> None:
        self.time_us = now_us

    def now_us(self) -> int:
        self.time_us += 1
        return self.time_us


def message(id: int, *names: str, content: Content = b"Subject: x\r\n\r\nhello\r\n", **changes: Any) -> Stored:
    recipients = tuple(Recipient(Address(*name.split("@"))) for name in names or ("ann@example.com",))
    size = len(content) if isinstance(content, bytes) else content.size
    envelope = Envelope(
        id, Address("Sender", "example.org"), recipients, size, START_US, message_id=f"<{id}@example.org>"
    )
    for field, value in changes.items():
        envelope = _replaced(envelope, **{field: value})
    return Stored(envelope, content)


def _replaced(envelope: Envelope, **changes: Any) -> Envelope:
    import msgspec

    return msgspec.structs.replace(envelope, **changes)


def waiting(index: int, destination: str = "example.com", due_us: int = START_US, **changes: Any) -> Waiting:
    return Waiting(index, due_us, destination, **changes)


def accepted(stored: Stored, at_us: int = START_US) -> Accepted:
    envelope = stored.envelope
    return Accepted(
        at_us, envelope.id, str(envelope.reverse_path or ""), tuple(str(each.address) for each in envelope.recipients),
        envelope.size, envelope.message_id, Peer("192.0.2.1"), parent=envelope.parent,
    )  # fmt: skip


def relayed(id: int, *recipients: str, at_us: int = START_US) -> Attempted:
    attempt = Attempt(Outcome.RELAYED, Reach.RECIPIENT, "2.0.0")
    return Attempted(at_us, id, recipients or ("ann@example.com",), "example.com", attempt)


class Chosen(Quickness):
    """Commits are made on the loop, or on the thread, as the test says; `None`: by turns."""

    def __init__(self, *, on_loop: bool | None) -> None:
        super().__init__(lambda: 0.0)
        self._on_loop = on_loop
        self._count = 0

    def may_be_on_loop(self) -> bool:
        self._count += 1
        return self._count % 2 == 0 if self._on_loop is None else self._on_loop


class Desk:
    """A spool with its calls as awaitables."""

    def __init__(self, spool: SqliteSpool, clock: Clock, noted: list[Event]) -> None:
        self.spool = spool
        self.clock = clock
        self.noted = noted

    async def ask(self, call: Callable[..., None], *arguments: Any) -> Any:
        future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        call(*arguments, future.set_result)
        return await asyncio.wait_for(future, 20)

    def new_id(self, shard: int | None = None) -> int:
        return self.spool.new_id(shard)

    async def try_accept(self, stored: Stored, *events: Event) -> Failure | None:
        return await self.ask(self.spool.accept, stored, events or (accepted(stored),))

    async def accept(self, *names: str, **changes: Any) -> Stored:
        stored = message(self.new_id(), *names, **changes)
        assert await self.try_accept(stored) is None
        return stored

    async def try_settle(self, id: int, *ended: int, **fields: Any) -> Failure | None:
        return await self.ask(self.spool.settle, Settlement(id, ended, **fields))

    async def settle(self, id: int, *ended: int, **fields: Any) -> None:
        assert await self.try_settle(id, *ended, **fields) is None

    async def fresh_ids(self, shard: int = 0) -> list[int]:
        """All of them, however many there are: the spool is asked page by page."""
        ids: list[int] = []
        while page := await self.ask(self.spool.fresh, shard, ids[-1] if ids else 0, 1000):
            ids += [each.id for each in page]
        return ids

    async def load(self, id: int) -> Any:
        return await self.ask(self.spool.load, id)


@contextmanager
def open_spool(
    directory: Path,
    shards: tuple[int, ...] = (0,),
    *,
    options: SpoolOptions = OPTIONS,
    clock: Clock | None = None,
    connect: schema.Connect = schema.connect,
    threads: bool = True,
    readers: tuple[JournalReader, ...] = (HISTORY,),
    published: Callable[[int, tuple[Event, ...]], None] = lambda shard, events: None,
    quickness: Quickness | None = None,
) -> Iterator[Desk]:
    """Within a running loop; closed at the end."""
    clock = clock or Clock()
    noted: list[Event] = []
    spool = SqliteSpool(
        directory, shards, options, clock, asyncio.get_running_loop(), log=noted.append, connect=connect,
        threads=threads, published=published, readers=readers, quickness=quickness,
    )  # fmt: skip
    spool.start()
    try:
        yield Desk(spool, clock, noted)
    finally:
        spool.close()


class Faults:
    """A plan of errors, for all connections that it opens. `at(sql)` says which error to raise, if any."""

    def __init__(self) -> None:
        self.at: Callable[[str], int | None] = lambda sql: None
        self.after: Callable[[str], int | None] = lambda sql: None  # the statement is carried out, and then fails
        self.opened = 0
        plan = self

        class Broken(sqlite3.Connection):
            def execute(self, sql: str, parameters: Any = (), /) -> sqlite3.Cursor:
                if (code := plan.at(sql)) is not None:
                    raise error(code)
                cursor = super().execute(sql, parameters)
                if (code := plan.after(sql)) is not None:
                    raise error(code)
                return cursor

        self._factory = Broken

    def connect(self, path: Path) -> sqlite3.Connection:
        self.opened += 1
        return partial(schema.connect, factory=self._factory)(path)


def error(code: int) -> sqlite3.OperationalError:
    made = sqlite3.OperationalError(f"made by the test: {code}")
    made.sqlite_errorcode = code
    made.sqlite_errorname = "SQLITE_TEST"
    return made


def rows(directory: Path, table: str, shard: int = 0) -> int:
    """How many rows a table of a shard has, seen from outside."""
    connection = schema.connect_reader(schema.database(directory, shard))
    try:
        return int(connection.execute(f"SELECT count(*) FROM {table}").fetchone()[0])
    finally:
        connection.close()


TABLES = ("fresh", "message", "content", "recipient")


def is_empty(directory: Path, shard: int = 0) -> bool:
    return all(rows(directory, table, shard) == 0 for table in TABLES)


def text(id: int) -> str:
    return identifier.text(id)
