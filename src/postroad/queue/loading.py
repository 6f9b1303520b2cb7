"""From the spool into memory: rows whose time has come, and messages that were accepted and never settled.

What always holds:
- When the due time of a row in the spool comes, the agenda knows of it: by its destination (`queue.agenda`,
  `queue.lookahead`), or by the key `NOT_KNOWN` if its destination is not known.
- A recipient that is in memory is never taken from the spool again (`QueuedMessage.active`).
- Messages on which an operator works are not taken either; their destinations are looked at again when he is done.
- If there is no room for a row, it is not loaded, and its destination is noted again.

How it fails: the spool answers all questions in the end. If the clock was set back, rows that would wait too long are
looked into. Not here: what is done with loaded mail; `on_fresh(mail)` and `on_loaded(mail, indexes)` get it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Container, Sequence
from functools import partial
from typing import Final

import msgspec

from postroad.mail import identifier
from postroad.mail.envelope import Envelope
from postroad.mail.routing import NOT_KNOWN
from postroad.queue.agenda import Agenda
from postroad.queue.awaiting import WAITING_MAX, Awaiting
from postroad.queue.capacity import Capacity
from postroad.queue.carrying import Carrying
from postroad.queue.lane import QueuedMessage
from postroad.queue.lookahead import Lookahead
from postroad.queue.options import QueueOptions
from postroad.store.face import Spool
from postroad.store.values import Loaded, Settlement
from postroad.world.clock import Clock

_LOOK_AGAIN_US: Final = 200_000  # until a destination is looked at again whose recipients have no room in memory now
_EVER_US: Final = 1 << 62
_CLOCK_SLACK_US: Final = 60_000_000  # a clock that is kept right moves back by less
_FRUITLESS_MAX: Final = 5  # doublings of the pause between looks that found only what is in memory


class Loading:
    """See the module. `withdrawn`: messages on which an operator works, with the destinations from whose lanes he took
    them."""

    def __init__(
        self,
        *,
        spool: Spool,
        capacity: Capacity,
        carrying: Carrying,
        awaiting: Awaiting,
        options: QueueOptions,
        clock: Clock,
        loop: asyncio.AbstractEventLoop,
        on_fresh: Callable[[QueuedMessage], None],
        on_loaded: Callable[[QueuedMessage, Sequence[int]], None],
    ) -> None:
        self.options = options
        self.withdrawn: dict[int, set[str]] = {}
        self._spool = spool
        self._capacity = capacity
        self._carrying = carrying
        self._awaiting = awaiting
        self._clock = clock
        self._loop = loop
        self._on_fresh = on_fresh
        self._on_loaded = on_loaded
        self._agenda = Agenda(
            clock, loop, load=self._load, room=self._has_room, rate=self._rate,
            on_nothing_due=self._on_nothing_due, on_let_go=self._on_let_go,
        )  # fmt: skip
        self._lookahead = Lookahead(
            spool, self._agenda, clock, loop, far_us=self._horizon_us, on_look=self._watch_clock,
        )  # fmt: skip
        self._loading: set[tuple[int, str]] = set()
        self._fruitless: dict[tuple[int, str], int] = {}  # looks at a destination that found what is in memory only
        self._ahead_us = clock.now_us() - int(loop.time() * 1_000_000)  # the wall clock before the loop's
        self._stopping = False

    def _rate(self) -> float:
        return self.options.probes_per_s

    def _on_nothing_due(self) -> None:
        self._lookahead.go_on()

    def _on_let_go(self) -> None:
        self._lookahead.begin_anew()

    def take(self, options: QueueOptions) -> None:
        """Takes new settings."""
        self.options = options

    def start(self, shards: Sequence[int]) -> None:
        """Takes up what the spool holds: rows that wait, and messages that were accepted and never settled."""
        for shard in shards:
            # Of each shard: the clock may have been ahead when another one got its last message.
            boundary = self._spool.new_id(shard)
            self._spool.fresh(shard, 0, 500, partial(self._resume_fresh, shard, boundary))
        self._lookahead.start(shards)

    def _resume_fresh(self, shard: int, boundary: int, envelopes: list[Envelope]) -> None:
        for envelope in envelopes:
            if envelope.id in self.withdrawn:
                # An operator has it in hand; if he leaves it fresh, it is taken up then.
                again = partial(self._resume_fresh, shard, envelope.id + 1)
                self._loop.call_later(0.2, self._spool.fresh, shard, envelope.id - 1, 1, again)
            elif envelope.id < boundary and envelope.id not in self._capacity.mails:
                self._on_fresh(QueuedMessage(envelope, None, None))
        if envelopes and envelopes[-1].id < boundary and not self._stopping:
            self._spool.fresh(shard, envelopes[-1].id, 500, partial(self._resume_fresh, shard, boundary))

    def stop(self) -> None:
        """Stops loading."""
        self._stopping = True
        self._agenda.stop()
        self._lookahead.stop()

    # -- what is due, and when -------------------------------------------------------------------------------------

    def schedule(self, shard: int, destination_key: str, due_us: int) -> None:
        """Notes that a row of this destination is due at that time."""
        self._agenda.schedule(shard, destination_key, due_us)

    def look_at(self, shard: int, destination_key: str) -> None:
        """Loads rows of this destination now, before retries and without a back-off."""
        self._agenda.add_overflow(shard, destination_key)

    def look_again(self, shard: int, destination_key: str) -> None:
        """Loads rows of this destination again soon: memory had no room for them."""
        self._agenda.schedule(shard, destination_key, self._clock.now_us() + _LOOK_AGAIN_US)

    def note(self, settlement: Settlement, in_memory: Container[int], settling_next: Container[int]) -> None:
        """Takes note of rows that are in the spool now. The agenda gets those of recipients that are not in memory any
        more."""
        shard, now_us = identifier.shard_of(settlement.id), self._clock.now_us()
        for row in settlement.waiting:
            if row.held:
                continue
            if row.index in in_memory or row.index in settling_next:
                if self._lookahead.forgets:  # this row may hide one of its destination that is due later
                    self.look_again(shard, row.destination)
                continue
            if row.attempts == 0 and row.due_us <= now_us:
                self.look_at(shard, row.destination)
            else:
                self._agenda.schedule(shard, row.destination, row.due_us)

    # -- loading ---------------------------------------------------------------------------------------------------

    def _has_room(self) -> bool:
        """Whether there is room for mail from the disk. It gets half of the lanes, so that it and new mail do not shut
        each other out. Retries do not fill memory with mail that must wait for a connection."""
        if self._capacity.disk_lanes + len(self._loading) >= max(1, self.options.lanes_max // 2):
            self._carrying.free_connection()  # what rests must not shut out what is due
            self._capacity.set_aside()  # nor what waits
            return False
        return self._carrying.has_room_for_retries()

    def _load(self, shard: int, destination_key: str) -> bool:
        now_us = self._clock.now_us()
        lane = self._capacity.lanes.get(destination_key)
        if (
            (shard, destination_key) in self._loading
            or (lane is not None and len(lane.ready) > self.options.ready_max // 2)
            or self._capacity.is_full
            or (destination_key == NOT_KNOWN and self._awaiting.room < WAITING_MAX // 2)
        ):
            self._agenda.schedule(shard, destination_key, now_us + _LOOK_AGAIN_US)
            return False
        self._loading.add((shard, destination_key))
        limit = self.options.load_max
        self._spool.take_due(
            shard, destination_key, now_us, limit, partial(self._taken, shard, destination_key, now_us, limit)
        )
        return True

    def _taken(self, shard: int, destination_key: str, before_us: int, limit: int, loaded: list[Loaded]) -> None:
        self._loading.discard((shard, destination_key))
        if self._stopping:
            return
        rows = sum(len(entry.waiting) for entry in loaded)
        taken = self._take_rows(destination_key, loaded)
        if rows >= limit:
            # More are due. What was all in memory already must first go from there.
            if taken:
                self._fruitless.pop((shard, destination_key), None)
                self._agenda.add_overflow(shard, destination_key)
            else:
                looks = self._fruitless[shard, destination_key] = self._fruitless.get((shard, destination_key), 0) + 1
                wait_us = 100_000 << min(looks - 1, _FRUITLESS_MAX)
                self._agenda.schedule(shard, destination_key, self._clock.now_us() + wait_us)
        else:
            self._fruitless.pop((shard, destination_key), None)
            self._spool.next_due(
                shard, destination_key, partial(self._next_due_found, shard, destination_key), before_us
            )

    def _take_rows(self, destination_key: str, loaded: Sequence[Loaded]) -> int:
        """Brings rows from the spool to their lanes. Returns how many found room there."""
        taken = 0
        for entry in loaded:
            withdrawn = self.withdrawn.get(entry.envelope.id)
            if withdrawn is not None:
                withdrawn.add(destination_key)  # an operator has it in hand since we asked: look again when he is done
                continue
            mail = self._capacity.mails.get(entry.envelope.id)
            if mail is None:
                mail = QueuedMessage(entry.envelope, None, {})
            elif mail.states is None:
                continue  # its first settlement is still to come
            indexes = []
            for row in entry.waiting:
                if row.index not in mail.active:
                    assert mail.states is not None
                    mail.states[row.index] = row
                    mail.active.add(row.index)
                    indexes.append(row.index)
            if indexes:
                self._capacity.mails[entry.envelope.id] = mail
                self._on_loaded(mail, indexes)
                taken += len(mail.active.intersection(indexes))  # without those for which there was no room
        return taken

    def _next_due_found(self, shard: int, destination_key: str, due_us: int) -> None:
        if not due_us:
            return
        if self._is_far(due_us):
            self._spool.take_due(
                shard,
                destination_key,
                _EVER_US,
                self.options.load_max,
                partial(self._far_found, shard, destination_key),
            )
        else:
            self._agenda.schedule(shard, destination_key, due_us)

    # -- a clock that was set back -----------------------------------------------------------------------------------

    def _watch_clock(self, now_us: int) -> None:
        """Looks, every half minute, into what is far ahead now, on the agenda or on the disk."""
        ahead_us = now_us - int(self._loop.time() * 1_000_000)
        before_us, self._ahead_us = self._ahead_us, ahead_us
        if ahead_us < before_us - _CLOCK_SLACK_US:
            self._agenda.hasten(self._is_far, now_us)
            self._lookahead.begin_anew()

    def _is_far(self, due_us: int) -> bool:
        """Whether a time is further ahead than any interval of ours: the clock was set back, or a sender has wished for
        this time."""
        return due_us - self._clock.now_us() > self._horizon_us()

    def _horizon_us(self) -> int:
        return int((self.options.retry_max_s + self.options.backoff_max_s) * 2_000_000)

    def _far_found(self, shard: int, destination_key: str, loaded: list[Loaded]) -> None:
        """Tries rows at once whose last attempt is in the future by the present clock: they would wait until the clock
        is there again. All other rows have a reason to wait."""
        if self._stopping:
            return
        now_us = self._clock.now_us()
        ours = [
            msgspec.structs.replace(entry, waiting=rows)
            for entry in loaded
            if (rows := tuple(row for row in entry.waiting if row.last_us > now_us + _CLOCK_SLACK_US))
        ]
        more = bool(ours) and sum(len(entry.waiting) for entry in loaded) >= self.options.load_max
        self._take_rows(destination_key, ours)
        self._agenda.schedule(shard, destination_key, now_us + (_LOOK_AGAIN_US if more else self._horizon_us()))
