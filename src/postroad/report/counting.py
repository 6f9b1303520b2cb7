"""Counts events since the node was set up: mail in and out, refusals, sessions.

This is a durable reader of the journal (`store.face.Journal`). It reads little of it: another reader, the leader, hands
over the events that it has decoded (`store.face.OnMoved`). It reads only rows that the leader had read before, as after
a crash, and rows that the leader has not read for `LATE_S`. So the counts are as far behind as the leader, or by
`LATE_S`.

What always holds: each committed event is counted once, whoever crashed and when. The counts of a shard stand in one
small file with the seq up to which they reach; the file is replaced as a whole, synced, and the mark in the journal
follows after that. Counts in memory that are not yet in the file are counted again from the journal after a crash.

How it fails: an error of the disk leaves file and mark as they are, `failure` says it, and the next step tries again. A
file that cannot be read is begun anew from the mark of the journal: the counts then begin at that moment (`since_us`).
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Sequence
from itertools import chain
from pathlib import Path
from typing import Final

import msgspec

from postroad.mail.attempt import Outcome
from postroad.mail.event import Accepted, Attempted, Authenticated, Event, Failed, Refused, Removed, SessionEnded
from postroad.store.face import COUNTS, Committed, Journal
from postroad.world import files
from postroad.world.clock import Clock

ROWS: Final = 4_000  # commits that are read in one step
LATE_S: Final = 60.0  # without anything of the leader's; then the counts read the journal themselves


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
    """The reader. `step` is called off the loop, by one thread at a time; `take` by another one, `counts` by any."""

    def __init__(
        self, directory: Path, journal: Journal, clock: Clock, time: Callable[[], float], leader: str = ""
    ) -> None:
        """`time`: monotonic seconds. `leader`: the reader that calls `take`; "" for none."""
        self.failure = ""  # why the last step did not end, "" if it did
        self._directory = directory
        self._journal = journal
        self._time = time
        self._leader = leader
        self._files = {shard: self._load(shard, clock.now_us()) for shard in journal.shards}
        self._kept = {shard: file.seq for shard, file in self._files.items()}  # the seq in the file on the disk
        self._followed = dict.fromkeys(journal.shards, time())  # when the counts were last where the leader is
        self._lock = threading.Lock()  # around a look at `_files` and its change

    def counts(self) -> EventCounts:
        return total(file.counts for file in self._files.values())

    def on_moved(self, shard: int, after: int, rows: Sequence[Committed]) -> None:
        """See `store.face.OnMoved`."""
        if self._add(shard, after, rows):
            self._followed[shard] = self._time()

    def step(self) -> bool:
        """Keeps the counts, and counts a bounded part of what nobody hands over; whether there may be more of it."""
        return self._step([shard for shard in self._journal.shards if self._must_read(shard)])

    def catch_up(self) -> bool:
        """As `step`, and also what the leader would hand over later."""
        return self._step(self._journal.shards)

    def _step(self, shards: Sequence[int]) -> bool:
        try:
            more = [self._read(shard) for shard in shards]
            for shard in self._journal.shards:
                self._keep_new(shard)
        except OSError as error:
            self.failure = f"the counts cannot be kept: {error}"
            return False
        self.failure = ""
        return any(more)

    def _must_read(self, shard: int) -> bool:
        seq = self._files[shard].seq
        if seq >= self._journal.committed(shard):
            self._followed[shard] = self._time()
            return False
        if not self._leader or self._journal.mark_of(self._leader, shard) > seq:
            return True
        return self._time() - self._followed[shard] > LATE_S

    def _read(self, shard: int) -> bool:
        after = self._files[shard].seq
        rows = self._journal.read(shard, after, ROWS)
        if len(rows) < ROWS:
            self._followed[shard] = self._time()
        if rows:
            self._add(shard, after, rows)
        return bool(rows)

    def _add(self, shard: int, after: int, rows: Sequence[Committed]) -> bool:
        """Counts the rows that are new. False: there is a gap before them, which must be read first."""
        with self._lock:
            file = self._files[shard]
            if after > file.seq:
                return False
            new = [row.events for row in rows if row.seq > file.seq]
            if new:
                self._files[shard] = _File(rows[-1].seq, counted(file.counts, chain.from_iterable(new)))
        return True

    def _keep_new(self, shard: int) -> None:
        file = self._files[shard]
        if file.seq > self._kept[shard]:
            self._keep(shard, file)
            self._kept[shard] = file.seq
            self._journal.mark(COUNTS.name, shard, file.seq)

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
        files.replace(str(self._path(shard)), msgspec.json.encode(file))
