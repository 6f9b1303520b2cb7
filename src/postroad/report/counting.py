"""Counts of what happened since the node was set up: mail in and out, refusals, sessions.

This is a durable reader of the journal (`store.face.Journal`).

What always holds: each committed event is counted once, whoever crashed and when. The counts of a shard stand in one
small file with the seq up to which they reach; the file is replaced as a whole, synced, and the mark in the journal
follows after that.

How it fails: an error of the disk leaves file and mark as they are, `failure` says it, and the next step tries again. A
file that cannot be read is begun anew from the mark of the journal: the counts then begin at that moment (`since_us`).
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable
from itertools import chain
from pathlib import Path
from typing import Final

import msgspec

from postroad.mail.attempt import Outcome
from postroad.mail.event import Accepted, Attempted, Authenticated, Event, Failed, Refused, Removed, SessionEnded
from postroad.store.face import COUNTS, Committed, Journal
from postroad.world.clock import Clock

ROWS: Final = 4_000  # commits in one step


class EventCounts(msgspec.Struct, frozen=True):
    """`messages`: accepted, with our own reports. `delivered`, `relayed`, `failed`, `removed`: recipients that came to
    this end. `deferred`: attempts that will be made again. `refused`: commands of clients. `sessions`: those that
    ended without mail or with an error; the end of any other is only in the log. `logins`: those that succeeded."""

    since_us: int = 0
    messages: int = 0
    recipients: int = 0
    delivered: int = 0
    relayed: int = 0
    failed: int = 0
    removed: int = 0
    deferred: int = 0
    refused: int = 0
    sessions: int = 0
    logins: int = 0


class _File(msgspec.Struct, frozen=True):
    seq: int
    counts: EventCounts


def counted(counts: EventCounts, events: Iterable[Event]) -> EventCounts:
    """The counts with these events. Pure. By class and in plain numbers: each message comes by here twice."""
    messages = recipients = failed = removed = refused = sessions = logins = 0
    ends = dict.fromkeys(Outcome, 0)
    for event in events:
        if isinstance(event, Attempted):
            ends[event.attempt.outcome] += len(event.recipients)
        elif isinstance(event, Accepted):
            messages += 1
            recipients += len(event.recipients)
        elif isinstance(event, Failed):
            failed += len(event.recipients)
        elif isinstance(event, Removed):
            removed += len(event.recipients)
        elif isinstance(event, Refused):
            refused += 1
        elif isinstance(event, SessionEnded):
            sessions += 1
        elif isinstance(event, Authenticated):
            logins += 1
    return EventCounts(
        since_us=counts.since_us,
        messages=counts.messages + messages,
        recipients=counts.recipients + recipients,
        delivered=counts.delivered + ends[Outcome.DELIVERED],
        relayed=counts.relayed + ends[Outcome.RELAYED],
        failed=counts.failed + failed + ends[Outcome.FAILED],
        removed=counts.removed + removed,
        deferred=counts.deferred + ends[Outcome.DEFERRED],
        refused=counts.refused + refused,
        sessions=counts.sessions + sessions,
        logins=counts.logins + logins,
    )


def total(parts: Iterable[EventCounts]) -> EventCounts:
    """Those of several shards as one."""
    found = list(parts)
    since_us = min((each.since_us for each in found), default=0)
    names = EventCounts.__struct_fields__[1:]
    return EventCounts(since_us, **{name: sum(getattr(each, name) for each in found) for name in names})


class Counting:
    """The reader. `step` is called off the loop, by one thread at a time; `counts` from anywhere."""

    def __init__(self, directory: Path, journal: Journal, clock: Clock) -> None:
        self.failure = ""  # why the last step did not end, "" if it did
        self._directory = directory
        self._journal = journal
        self._files = {shard: self._load(shard, clock.now_us()) for shard in journal.shards}

    def counts(self) -> EventCounts:
        return total(file.counts for file in self._files.values())

    def step(self) -> bool:
        """Counts a bounded part of what is new; whether there may be more."""
        try:
            more = [self._step(shard) for shard in self._journal.shards]
        except OSError as error:
            self.failure = f"the counts cannot be kept: {error}"
            return False
        self.failure = ""
        return any(more)

    def _step(self, shard: int) -> bool:
        file = self._files[shard]
        rows: list[Committed] = self._journal.read(shard, file.seq, ROWS)
        if not rows:
            return False
        file = _File(rows[-1].seq, counted(file.counts, chain.from_iterable([row.events for row in rows])))
        self._keep(shard, file)
        self._files[shard] = file
        self._journal.mark(COUNTS.name, shard, file.seq)
        return True

    def _load(self, shard: int, now_us: int) -> _File:
        try:
            return msgspec.json.decode(self._path(shard).read_bytes(), type=_File)
        except (OSError, msgspec.MsgspecError):
            return _File(self._journal.mark_of(COUNTS.name, shard), EventCounts(now_us))

    def _path(self, shard: int) -> Path:
        return self._directory / f"{shard:02}.json"

    def _keep(self, shard: int, file: _File) -> None:
        """Replaces the file. Raises OSError."""
        self._directory.mkdir(mode=0o700, exist_ok=True)
        path = self._path(shard)
        beside = path.with_suffix(".new")
        with contextlib.closing(os.fdopen(os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb")) as sink:
            sink.write(msgspec.json.encode(file))
            sink.flush()
            os.fsync(sink.fileno())
        os.rename(beside, path)
        folder = os.open(self._directory, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
