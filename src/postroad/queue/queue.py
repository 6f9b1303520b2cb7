"""The queue of one worker: it gives every accepted recipient its next event, until it has come to its end.

Fresh messages go from their commit straight to a courier; what must wait is a row in the spool and, in memory, no more
than the time at which the first row of its destination is due, and that only when it is near. All state belongs to the
event loop; nothing here blocks, and there is no task per message.

What always holds:
- A recipient in memory is in exactly one place: an item of a lane, a job of a courier, a settlement under way, or its
  destination is being waited for (`QueuedMessage.active`, `queue.awaiting`). One in the spool with a due time is known
  to the agenda when that comes, through its destination (`queue.lookahead`); if its destination is not known, through
  the key `NOT_KNOWN`.
- A job's outcome becomes one settlement (`queue.settling`); the recipient is not attempted until it is committed
  (promise 4), and with `unsettled_max` of them couriers stand still: no more than that, and what is being carried,
  comes twice at most.
- Connections to one destination never pass the node's limits (`Permits`, `queue.pace`), nor the worker's own
  (`queue.connections`); who has mail waiting takes turns (`queue.order`), what waits on the disk is taken up spread
  over time (`queue.agenda`).

How it fails: an exception in a courier is the courier's to turn into an Attempt. A message whose content the spool
cannot give (lost with a damaged disk) is held with that reason, for an operator to decide; it is never dropped.

Not here: what a route is (`route`), how a message is carried (`deliver`), what a DSN says (`report`).
"""

from __future__ import annotations

import asyncio
import heapq
import random
import traceback
from collections import deque
from collections.abc import Awaitable, Callable, Iterable, Sequence
from functools import partial
from itertools import chain, islice
from typing import Any, Final, Protocol

import msgspec

from postroad.mail import identifier
from postroad.mail.attempt import Attempt, Outcome, Reach
from postroad.mail.courier import Courier
from postroad.mail.envelope import Envelope
from postroad.mail.event import Attempted, Held, Noted
from postroad.mail.job import Job
from postroad.mail.message import Content, ContentFile
from postroad.mail.numbers import counted
from postroad.mail.route import Destination
from postroad.mail.routing import NOT_KNOWN, Answer, DestinationOf, Found, key_of, let_go
from postroad.queue import schedule
from postroad.queue.agenda import Agenda
from postroad.queue.awaiting import WAITING_MAX, Awaiting
from postroad.queue.connections import Connections
from postroad.queue.lane import Item, Lane, Opener, PendingConnection, QueuedMessage, Slot
from postroad.queue.lookahead import Lookahead
from postroad.queue.options import QueueOptions
from postroad.queue.order import FairQueue
from postroad.queue.pace import PaceTable
from postroad.queue.pacing import HostsOf, Pacing
from postroad.queue.settling import ENDS, Settling
from postroad.queue.troubles import Trouble, Troubles
from postroad.store.face import Events, Spool
from postroad.store.reports import MakeReports
from postroad.store.values import Loaded, Settlement, Stored, Waiting
from postroad.world.clock import Clock

# Members of an Enum by plain names: on Python 3.11 each access through its class costs a look-up more.
_FAILED: Final = Outcome.FAILED
_DEFERRED: Final = Outcome.DEFERRED
_SESSION: Final = Reach.SESSION
_RECIPIENT: Final = Reach.RECIPIENT


class Permits(Protocol):
    """The node's counts: connections and rates, by scope (`queue.pace`)."""

    def acquire(self, scopes: tuple[str, ...], count: int, granted: Callable[[int], None]) -> None:
        """Ask for up to `count` connections that count in all these scopes; `granted` is called once, at once or later,
        with one or more. One question of a destination (`scopes[0]`) at a time."""

    def release(self, scopes: tuple[str, ...]) -> None: ...

    def succeeded(self, scopes: tuple[str, ...], successes: int) -> None:
        """So many messages went well, while more connections are asked for."""

    def refused(self, scopes: tuple[str, ...], others: bool) -> None:
        """A remote refused a connection, which is still to be released; `others`: while others work."""

    def tokens(self, destination_key: str, scopes: tuple[str, ...], count: int, granted: Callable[[int], None]) -> None:
        """Ask for up to `count` messages of the rates of these scopes; as `acquire`. They are used at once or lost."""


_LOOK_AGAIN_US: Final = 200_000  # until a destination is looked at again whose recipients have no room in memory now
_EVER_US: Final = 1 << 62
_CLOCK_SLACK_US: Final = 60_000_000  # a clock that is kept right moves back by less
_JOBS_BEFORE_GIVING_UP: Final = 10  # a connection carries so many, or all there are, before another worker gets it
ALL_THAT_WAIT: Final = "*"
LOOKED_UP: Final = "(destination not known yet)"  # as a destination, of recipients whose own is being looked up
_DOING_MAX: Final = 20  # transactions, and openings, of a destination that are told of
_TOLD_MAX: Final = 100  # destinations that are told of unasked
_FROM_DISK: Final = "\0disk"  # as the source of lanes that were opened by mail from there
_ASIDE: Final = "\0aside"  # as the source of lanes that do not count, because all they do is wait
_ASIDE_S: Final = 5.0  # between looks for such lanes
_FEED_ON_S: Final = 0.01  # until the next lane is fed where one that was has not used its connection
_FRUITLESS_MAX: Final = 5  # doublings of the pause between such looks
_SHARE: Final = 16  # part of a lane that a source has even where others have filled it
_TELL_S: Final = 0.05  # between two words to the supervisor on how a destination fares: each costs it a turn
_LOOKED_MAX: Final = 10_000  # messages in a lane that are looked at for the domains of their recipients
_DOMAINS_MAX: Final = 1_000
_REPLAYS_MAX = 5  # hosts tried one after the other for one message, whose sessions fail


class Queue:
    """See the module. `stream` takes the events that belong to no commit. `destination_of`: `mail.routing` has its
    contract. `openings`: what those for a destination are at, in words."""

    def __init__(
        self,
        *,
        spool: Spool,
        options: QueueOptions,
        clock: Clock,
        random: random.Random,
        destination_of: DestinationOf,
        opener: Opener,
        permits: Permits,
        report: MakeReports,
        stream: Events,
        loop: asyncio.AbstractEventLoop,
        pace: PaceTable | None = None,
        hosts_of: HostsOf | None = None,
        openings: Callable[[str], Sequence[str]] = lambda destination_key: (),
    ) -> None:
        self._openings = openings
        self.options = options
        table = pace or PaceTable(
            (), most=options.concurrency, start=options.concurrency_start, recipients_max=options.recipients_per_job_max
        )
        self._pacing = Pacing(
            table, hosts_of, loop, found=self._pump,
            is_open=lambda lane: self._lanes.get(lane.destination.key) is lane,
        )  # fmt: skip
        self.destination_of = destination_of
        self._edition = 0  # of the settings: how often they were renewed
        self._spool = spool
        self._clock = clock
        self._random = random
        self._open = opener
        self._permits = permits
        self._stream = stream
        self._loop = loop
        self._mails: dict[int, QueuedMessage] = {}
        self._lanes: dict[str, Lane] = {}
        self._troubles = Troubles(clock, random, lambda: self.options)
        self._lanes_of: dict[str, int] = {}  # how many lanes the mail of a source has opened
        self._idling: set[Lane] = set()  # lanes that only waited when it was last looked
        self._look_aside_at = 0.0
        self._agenda = Agenda(
            clock, loop, load=self._load, room=self._has_room, rate=lambda: self.options.probes_per_s,
            on_nothing_due=lambda: self._outlook.go_on(), begin_anew=lambda: self._outlook.begin_anew(),
        )  # fmt: skip
        self._outlook = Lookahead(
            spool, self._agenda, clock, loop, far_us=self._horizon_us, watch=self._watch_clock,
        )  # fmt: skip
        self._loading: set[tuple[int, str]] = set()
        self._fruitless: dict[tuple[int, str], int] = {}  # looks at a destination that found what is in memory only
        self._ahead_us = clock.now_us() - int(loop.time() * 1_000_000)  # the wall clock before the loop's
        self._settling = Settling(
            spool=spool, options=lambda: self.options, clock=clock, random=random, loop=loop, report=report,
            tell=stream.tell, rows_of=self._rows, on_committed=self._on_committed,
        )  # fmt: skip
        self._connections = Connections(
            loop, lambda: self.options, on_slot_free=self._on_slot_free, drop=self._drop,
            slots=lambda: [slot for lane in self._lanes.values() for slot in lane.slots.values()],
        )  # fmt: skip
        self._awaiting = Awaiting(loop, on_found=self._on_found, on_bug=self._say_bug)
        self._parked: deque[Slot] = deque()  # couriers that wait for outcomes to be committed
        self._octets = 0
        self._stopping = False
        self._withdrawn: dict[int, set[str]] = {}  # id → destinations whose lanes an operator took it out of
        self._quiet: asyncio.Event = asyncio.Event()

    # -- in and out of the worker's life -------------------------------------------------------------------------

    def start(self, shards: Sequence[int]) -> None:
        """Take up what the spool holds: rows that wait, and messages accepted yet never settled."""
        for shard in shards:
            # Of each shard: the clock may have been ahead when another one got its last message.
            boundary = self._spool.new_id(shard)
            self._spool.fresh(shard, 0, 500, partial(self._resume_fresh, shard, boundary))
        self._outlook.start(shards)

    def _resume_fresh(self, shard: int, boundary: int, envelopes: list[Envelope]) -> None:
        for envelope in envelopes:
            if envelope.id in self._withdrawn:
                # An operator has it in hand; where he leaves it fresh, it is taken up then.
                again = partial(self._resume_fresh, shard, envelope.id + 1)
                self._loop.call_later(0.2, self._spool.fresh, shard, envelope.id - 1, 1, again)
            elif envelope.id < boundary and envelope.id not in self._mails:
                self._take_up(QueuedMessage(envelope, None, None))
        if envelopes and envelopes[-1].id < boundary and not self._stopping:
            self._spool.fresh(shard, envelopes[-1].id, 500, partial(self._resume_fresh, shard, boundary))

    async def drain(self, limit_s: float) -> bool:
        """Start nothing new; wait until what is being carried has ended and is committed. False where time ran out.

        What no courier has stays as the spool has it, fresh or due, also where its connection was being opened: the
        next start tries it at once.
        """
        self._stopping = True
        self._agenda.stop()
        self._outlook.stop()
        self._awaiting.stop()
        self._settling.stop(list(self._mails.values()))
        for lane in list(self._lanes.values()):
            for slot in list(lane.idle):
                self._drop(slot)
        while self._parked:
            self._drop(self._parked.popleft())
        self._check_quiet()
        try:
            async with asyncio.timeout(limit_s):
                await self._quiet.wait()
        except TimeoutError:
            return False
        return True

    def _check_quiet(self) -> None:
        if self._stopping and not self._settling.unsettled and not any(lane.busy for lane in self._lanes.values()):
            self._quiet.set()

    # -- messages come in ----------------------------------------------------------------------------------------

    def add(self, stored: Stored) -> None:
        """A message whose acceptance is durable, with no recipient settled yet."""
        self._take_up(QueuedMessage(stored.envelope, stored.content, None, stored.only_crlf))

    def wait(self, number: int, rows: Sequence[Waiting]) -> None:
        """A message whose acceptance is durable, and whose recipients wait for a time of their own (RFC 4865)."""
        if not self._stopping:
            shard = identifier.shard_of(number)
            for row in rows:
                if not row.held:
                    self._agenda.schedule(shard, row.destination, row.due_us)

    def _take_up(self, mail: QueuedMessage) -> None:
        envelope = mail.envelope
        if self._stopping:
            return  # it is in the spool, fresh; the next start takes it up
        self._mails[envelope.id] = mail
        content = mail.content
        if isinstance(content, bytes):
            octets = len(content)
            if self._octets + octets > self.options.memory_max:
                mail.content = None
            else:
                self._octets += octets
                mail.octets = octets
        recipients = envelope.recipients
        if len(recipients) == 1:
            mail.active.add(0)
            destination = self.destination_of(envelope, recipients[0])
            if type(destination) is Destination:
                lane, item = self._lane(destination, mail), Item(mail, (0,))
                if not self._hand_straight(lane, item):
                    self._enqueue(lane, item)
                    self._pump(lane)
            else:
                self._send_out(mail, ((0, destination),))
        else:
            mail.active.update(range(len(recipients)))
            self._dispatch(mail, range(len(recipients)))

    def _hand_straight(self, lane: Lane, item: Item) -> bool:
        """Where nobody waits and a courier has nothing to do, a message need not stand in line first."""
        if not lane.idle or len(lane.ready) or lane.tokens is not None:
            return False
        slot = lane.idle[-1]
        if not slot.courier.usable or self._settling.unsettled >= self.options.unsettled_max:
            return False
        lane.idle.pop()
        self._connections.works(slot)
        self._carry_item(slot, item)
        return True

    def _dispatch(self, mail: QueuedMessage, indexes: Sequence[int]) -> None:
        """Send recipients of one message to the lanes of their destinations; all are in `mail.active` already."""
        envelope = mail.envelope
        self._send_out(
            mail, [(index, self.destination_of(envelope, envelope.recipients[index])) for index in indexes]
        )

    def _send_out(self, mail: QueuedMessage, answers: Iterable[tuple[int, Answer]]) -> None:
        """Each recipient goes to the lane of its destination, or waits until that is known."""
        groups: dict[str, list[int]] = {}
        destinations: dict[str, Destination] = {}
        failures: list[tuple[int, Attempt]] = []
        pending: list[tuple[int, Awaitable[Found]]] = []
        for index, answer in answers:
            if isinstance(answer, Destination):
                destinations[answer.key] = answer
                groups.setdefault(answer.key, []).append(index)
            elif isinstance(answer, Attempt):
                failures.append((index, answer))
            else:
                pending.append((index, answer))
        for destination_key, group in groups.items():
            lane = self._lane(destinations[destination_key], mail)
            self._enqueue(lane, Item(mail, tuple(group)))
            self._pump(lane)
        if failures:
            self._settling.finish(mail, failures, NOT_KNOWN)
        if pending:
            self._await(mail, pending)

    def _await(self, mail: QueuedMessage, pending: Sequence[tuple[int, Awaitable[Found]]]) -> None:
        """Destinations that have to be waited for. If too many are, the spool keeps the recipients in the meantime."""
        room = self._awaiting.room
        if room:
            self._awaiting.ask(mail, pending[:room])
        if len(pending) > room:
            for _, answer in pending[room:]:
                let_go(answer)
            self._spill(mail, tuple(index for index, _ in pending[room:]))

    def _on_found(self, mail: QueuedMessage, answers: list[tuple[int, Found]]) -> None:
        """Destinations are known, or why they are not."""
        for index, found in answers:
            if isinstance(found, Destination):
                mail.known = {**(mail.known or {}), index: found}
        self._send_out(mail, answers)

    def _lane(self, destination: Destination, mail: QueuedMessage) -> Lane:
        lane = self._lanes.get(destination.key)
        if lane is None:
            source = mail.source if mail.states is None else _FROM_DISK
            lane = self._lanes[destination.key] = Lane(destination, source)
            self._lanes_of[source] = self._lanes_of.get(source, 0) + 1
            self._pacing.find(lane)
        else:
            lane.destination = destination  # a reload may have changed how it is reached
        return lane

    def _enqueue(self, lane: Lane, item: Item) -> None:
        if self._may_wait_here(lane, item):
            lane.put(item)
        else:
            self._spill(item.mail, item.indexes)
            self._close_if_unused(lane)

    def _may_wait_here(self, lane: Lane, item: Item) -> bool:
        """Whether there is room in memory for it. What one source brings never takes all the room of another: of the
        lanes it may open as many as it leaves, and of a full lane each source has a share beyond."""
        options, mail = self.options, item.mail
        if lane.unused:
            most = self._room(options.lanes_max, mail)
            left = most - len(self._lanes) + self._lanes_of.get(_ASIDE, 0)
            if left < 0:
                self._set_aside()
            if left < 0 or (mail.states is None and self._lanes_of.get(mail.source, 0) > left + 1):
                return False
        ready_max = options.ready_max if mail.priority <= 0 else 2 * options.ready_max
        if len(lane.ready) < ready_max and len(self._mails) <= self._room(options.messages_max, mail):
            return True
        return (
            mail.states is None
            and lane.ready.count(mail.source) < options.ready_max // _SHARE
            and len(lane.ready) < 2 * options.ready_max
            and len(self._mails) <= 2 * options.messages_max
        )

    @staticmethod
    def _room(most: int, mail: QueuedMessage) -> int:
        """A limit as it holds for a message: the last fifth is for what waited; fresh mail never shuts it out."""
        return most if mail.states is None else most + most // 4

    def _spill(self, mail: QueuedMessage, indexes: tuple[int, ...]) -> None:
        """There is no room for these recipients in memory: they wait in the spool."""
        now_us = self._clock.now_us()
        if mail.states is None:
            rows = self._rows(mail, indexes, now_us)
            self._settling.settle(mail, Settlement(mail.envelope.id, waiting=rows), indexes)
        else:
            shard = identifier.shard_of(mail.envelope.id)
            # As the spool has it: a reload may have given the recipient another destination since.
            destination_keys = {mail.states[index].destination for index in indexes if index in mail.states}
            self._forget(mail, indexes)
            for destination_key in destination_keys:
                self._agenda.schedule(shard, destination_key, now_us + _LOOK_AGAIN_US)

    # -- lanes: couriers carry what is ready -----------------------------------------------------------------------

    def _pump(self, lane: Lane) -> None:
        """Give what is ready to idle couriers, and ask for more couriers where that helps and is allowed."""
        while lane.idle and len(lane.ready) and not self._stopping:
            slot = lane.idle[-1]
            if not slot.courier.usable:
                self._drop(slot)
            elif self._may_send(lane):
                lane.idle.pop()
                self._connections.works(slot)
                self._carry(slot)
            else:
                return
        if len(lane.ready) and not lane.asked and not self._stopping:
            self._reach_out(lane)

    def _reach_out(self, lane: Lane, *, first: bool = False) -> None:
        """More couriers, as far as the destination's pace and the worker's connections allow."""
        pace = lane.pace
        if pace is None:
            return  # `_pacing` comes back to it
        trouble = self._troubles.of(lane.destination.key)
        limit = pace.connections_max
        if trouble is not None and not lane.slots:
            if self._troubles.is_left_alone(trouble):
                self._postpone(lane, trouble.attempt, trouble.until_us)
                self._close_if_unused(lane)
                return
            limit = 1  # one probe; the others wait for what it finds
        wanted = min(limit - lane.couriers, len(lane.ready) - lane.opening)
        if wanted <= 0:
            return
        if lane.tokens is not None and lane.tokens <= lane.opening:
            self._ask_for_tokens(lane)
            return
        if self._connections.room(self._is_probe(lane)):
            lane.asked = True
            self._permits.acquire(pace.scopes, wanted, partial(self._granted, lane, pace.scopes))
        else:
            self._wait_for_connection(lane, first=first)

    def _is_probe(self, lane: Lane) -> bool:
        """Whether its next connection is to find out if the destination can be reached again."""
        if lane.slots:
            return False
        item = lane.ready.first()
        state = item.mail.states.get(item.indexes[0]) if item.mail.states else None
        return (state is not None and state.attempts > 0) or self._troubles.of(lane.destination.key) is not None

    def _wait_for_connection(self, lane: Lane, *, first: bool = False) -> None:
        self._connections.wait(lane, lane.ready.first().mail.source, self._is_probe(lane), first=first)

    def _granted(self, lane: Lane, scopes: tuple[str, ...], count: int) -> None:
        """Permits are there: open as many connections as are still of use."""
        lane.asked = False
        lane.successes = 0
        if lane.source == _ASIDE:
            self._count_as(lane, _FROM_DISK)
        probe = len(lane.ready) > 0 and self._is_probe(lane)
        while count and len(lane.ready) > lane.opening and not self._stopping and self._connections.room(probe):
            count -= 1
            lane.opening += 1
            opening = self._connections.begin(scopes, probe)
            self._open(
                lane.destination,
                partial(self._opened, lane, opening, self._edition),
                partial(self._on_idle_closed, lane),
            )
        for _ in range(count):
            self._permits.release(scopes)
        if self._stopping:
            return
        if len(lane.ready) > lane.opening and not self._connections.room(probe):
            self._wait_for_connection(lane, first=True)
        elif len(lane.ready) > lane.opening:
            self._reach_out(lane)
        self._close_if_unused(lane)

    def _on_slot_free(self, lane: Lane) -> None:
        """A connection of the worker is free for this lane; where it needs none any more, the next one gets it."""
        if len(lane.ready) and not lane.asked and not self._stopping and not lane.idle:
            self._reach_out(lane, first=True)
        if lane.asked:
            self._loop.call_later(_FEED_ON_S, self._connections.feed)  # it may have to wait for its permit
        elif not lane.starved:
            self._connections.feed()
        self._close_if_unused(lane)

    def _opened(self, lane: Lane, opening: PendingConnection, edition: int, result: Courier | Attempt) -> None:
        lane.opening -= 1
        if isinstance(result, Attempt):
            lane.to_give_up = max(0, lane.to_give_up - 1)
            if result.remote_address and result.outcome is _DEFERRED and not self._stopping:
                self._permits.refused(opening.scopes, bool(lane.slots))
            self._permits.release(opening.scopes)
            self._connections.failed(opening)
            if edition != self._edition:
                self._pump(lane)  # it tells nothing of the settings that hold now
            elif not self._stopping:  # else it most likely ended because we stop: no attempt, see `drain`
                self._opening_failed(lane, result)
            self._close_if_unused(lane)
            return
        self._connections.opened(opening)
        self._troubles.over(lane.destination.key)
        slot = Slot(lane, result, opening.scopes, edition)
        lane.slots[result] = slot
        if edition != self._edition:
            self._drop(slot)
            self._pump(lane)
        elif len(lane.ready) and not self._stopping and self._may_send(lane):
            self._carry(slot)
            self._pump(lane)  # after a probe that went well
        else:
            self._keep_idle(slot)

    def _keep_idle(self, slot: Slot) -> None:
        """A courier without work: kept for what comes, unless somebody needs its place."""
        lane = slot.lane
        if lane.tokens and not len(lane.ready):
            lane.tokens = 0  # what is not used now is lost: kept tokens would make a burst some time
        if self._stopping or self._connections.wanted or lane.to_give_up:
            lane.to_give_up = max(0, lane.to_give_up - 1)
            self._drop(slot)
        else:
            lane.idle.append(slot)
            self._connections.rests(slot)

    # -- pace ------------------------------------------------------------------------------------------------------

    def take(self, options: QueueOptions, destination_of: DestinationOf, pace: PaceTable) -> None:
        """Settings: everything that comes from now on goes by these. A connection may have been opened with other
        credentials, or with less TLS than is demanded now: those at rest are closed, those that are still being opened
        then, the others after their job."""
        self.options, self.destination_of = options, destination_of
        self._edition += 1
        for lane in list(self._lanes.values()):
            self._renew_destination(lane)
            for slot in list(lane.idle):
                self._drop(slot)
        lanes = list(self._lanes.values())
        self._pacing.renew(pace, lanes)
        for lane in lanes:
            self._pump(lane)

    def _renew_destination(self, lane: Lane) -> None:
        """What waits goes to where it was to go, in the way that is wanted now."""
        if not len(lane.ready):
            return
        item = lane.ready.first()
        envelope = item.mail.envelope
        found = self.destination_of(envelope, envelope.recipients[item.indexes[0]])
        if isinstance(found, Destination) and found.key == lane.destination.key:
            lane.destination = found
        elif not isinstance(found, Destination | Attempt):
            let_go(found)  # it was looked up a moment ago

    def _may_send(self, lane: Lane) -> bool:
        """Whether the rates of its destination allow a message now. If not, they are asked for one."""
        if lane.tokens is None:
            return True
        if lane.tokens > 0:
            lane.tokens -= 1
            return True
        self._ask_for_tokens(lane)
        return False

    def _ask_for_tokens(self, lane: Lane) -> None:
        if not lane.paying and lane.pace is not None:
            lane.paying = True
            count = max(1, min(len(lane.idle), len(lane.ready)))
            self._permits.tokens(lane.destination.key, lane.pace.rated, count, partial(self._on_tokens, lane))

    def _on_tokens(self, lane: Lane, count: int) -> None:
        lane.paying = False
        if lane.source == _ASIDE:
            self._count_as(lane, _FROM_DISK)
        if lane.tokens is not None:
            lane.tokens += count
            self._pump(lane)
            if not len(lane.ready):
                lane.tokens = 0

    def _opening_failed(self, lane: Lane, attempt: Attempt) -> None:
        if lane.slots:
            return  # others to this destination work: the remote takes no more connections, no reason to give up
        if attempt.outcome is _FAILED:
            self._postpone(lane, attempt, 0)
        else:
            self._postpone(lane, attempt, self._troubles.failed(lane.destination.key, attempt).until_us)

    def _postpone(self, lane: Lane, attempt: Attempt, until_us: int) -> None:
        """Nobody can carry what is ready here: all of it gets this attempt's outcome."""
        for item in lane.ready.clear():
            results = [(index, attempt) for index in item.indexes]
            self._settling.finish(item.mail, results, lane.destination.key, until_us)

    def _carry(self, slot: Slot) -> None:
        if self._settling.unsettled >= self.options.unsettled_max:
            self._parked.append(slot)  # what a crash now would deliver twice has a limit (promise 4)
            return
        lane = slot.lane
        item = lane.ready.take()
        assert lane.pace is not None
        most = lane.pace.recipients_max
        if len(item.indexes) > most:
            # The rest goes to the end of the line: a mailing does not hold up what came behind it.
            lane.put(Item(item.mail, item.indexes[most:]))
            kept, item = item.content, Item(item.mail, item.indexes[:most])
            item.content = kept
        self._carry_item(slot, item)

    def _carry_item(self, slot: Slot, item: Item) -> None:
        slot.item = item
        slot.lane.busy += 1
        mail = item.mail
        content = mail.content if item.content is None else item.content
        item.content = None
        if content is None:
            self._spool.content(mail.envelope.id, partial(self._content_loaded, slot, item))
        else:
            self._hand_over(slot, item, content)

    def _content_loaded(self, slot: Slot, item: Item, content: Content | None) -> None:
        if content is not None:
            if slot.courier.usable:
                self._hand_over(slot, item, content)
                return
            slot.item = None
            slot.lane.busy -= 1
            # The connection went while the disk was read. Kept for the next one, which could go while it is read, and
            # so on; not for the other recipients of the message: there is no room in memory for it.
            item.content = content
            slot.lane.put_first(item)
            self._drop(slot)
            self._pump(slot.lane)
            self._check_quiet()
            return
        slot.item = None
        slot.lane.busy -= 1
        self._hold_unreadable(item, slot.lane.destination.key)
        self._next(slot, slot.courier.usable)
        self._pump(slot.lane)
        if self._stopping:
            self._check_quiet()

    def _hold_unreadable(self, item: Item, destination_key: str) -> None:
        """Time does not mend it: an operator is to know, and to decide."""
        mail, now_us = item.mail, self._clock.now_us()
        envelope, states = mail.envelope, mail.states or {}
        text = "its content cannot be read from the spool; see the log and `postroad spool check`"
        rows = []
        for index in item.indexes:
            state = states.get(index) or Waiting(index, now_us, destination_key)
            rows.append(msgspec.structs.replace(state, held=True, status="4.3.0", text=text, last_us=now_us))
        names = tuple(str(envelope.recipients[index].address) for index in item.indexes)
        events = (Held(now_us, envelope.id, names, "", text), Noted(now_us, envelope.id, "error", f"held: {text}"))
        self._settling.settle(mail, Settlement(envelope.id, waiting=tuple(rows), events=events), item.indexes)

    def _hand_over(self, slot: Slot, item: Item, content: Content) -> None:
        mail = item.mail
        envelope = mail.envelope
        seen = mail.only_crlf and content is mail.content
        slot.job = job = Job(envelope, item.indexes, content, slot.lane.destination, seen)
        if envelope.parameters and schedule.is_overdue(envelope, self._clock.now_us()):
            late = _overdue(slot.lane.destination)
            self._loop.call_soon(self._carried, slot, job, (late,) * len(item.indexes))
            return
        try:
            slot.courier.carry(job, partial(self._carried, slot))
        except Exception:
            # A bug of the courier's must not strand the message, nor go up to who brought it.
            self._say_bug(item.mail, "carrying it")
            transport = slot.lane.destination.transport.value
            broken = Attempt(_DEFERRED, Reach.MESSAGE, "4.3.0", "internal error", transport=transport)
            self._loop.call_soon(self._carried, slot, job, (broken,) * len(item.indexes))

    def _say_bug(self, mail: QueuedMessage, doing: str) -> None:
        text = f"{doing} broke: {traceback.format_exc()}"
        self._stream.tell((Noted(self._clock.now_us(), mail.envelope.id, "error", text),))

    def _carried(self, slot: Slot, job: Job, attempts: tuple[Attempt, ...]) -> None:
        """A courier is done with a job."""
        lane, item = slot.lane, slot.item
        if item is None or slot.job is not job:
            return  # it had told before: the first word counts
        slot.item = slot.job = None
        lane.busy -= 1
        usable = slot.courier.usable
        results = list(zip(item.indexes, attempts, strict=True))
        first = not slot.carried  # of its session: if that fails, a host has failed, not a kept connection
        if not usable and not self._stopping:
            results = self._without_untried(lane, item, results)
            results = self._without_replayed(slot, item, results, first=first)
        slot.carried += 1
        if not usable:
            self._tell_refused(slot, attempts[0])
        elif lane.asked:
            self._tell_fared(lane, slot, attempts[0])
        self._next(slot, usable)
        if results:
            self._settling.finish(item.mail, results, lane.destination.key)
        if len(lane.ready):
            self._pump(lane)
        if self._stopping:
            self._check_quiet()

    def _unpark(self) -> None:
        """Outcomes were committed: couriers that waited for it go on."""
        while self._parked and self._settling.unsettled < self.options.unsettled_max:
            slot = self._parked.popleft()
            if slot.lane.slots.get(slot.courier) is slot:  # else it was lost meanwhile: another one takes its work
                self._next(slot, slot.courier.usable)
            self._pump(slot.lane)

    def _next(self, slot: Slot, usable: bool) -> None:
        """A courier without a job: the next one, a rest, or its end."""
        lane, pace = slot.lane, slot.lane.pace
        gives_up = lane.to_give_up and (slot.carried >= _JOBS_BEFORE_GIVING_UP or not len(lane.ready))
        if pace is not None and slot.carried >= pace.messages_per_connection_max > 0:
            usable = False
        if slot.edition != self._edition:
            usable = False
        if usable and not self._stopping and not gives_up:
            if len(lane.ready) and self._may_send(lane):
                self._carry(slot)
            else:
                self._keep_idle(slot)
        else:
            if lane.to_give_up:
                lane.to_give_up -= 1
            self._drop(slot)

    def _tell_fared(self, lane: Lane, slot: Slot, attempt: Attempt) -> None:
        """While it waits for a further connection successes count towards that one."""
        if attempt.outcome in ENDS or attempt.reach is _RECIPIENT:
            lane.successes += 1
            if lane.successes >= len(lane.slots) and self._loop.time() >= lane.tell_at:
                lane.tell_at = self._loop.time() + _TELL_S
                self._permits.succeeded(slot.scopes, lane.successes)
                lane.successes = 0

    def _tell_refused(self, slot: Slot, attempt: Attempt) -> None:
        """A remote that ends a session with 421 (RFC 5321 §3.8) has too many of them."""
        if attempt.reach is _SESSION and attempt.reply is not None and attempt.reply.code == 421:
            self._permits.refused(slot.scopes, len(slot.lane.slots) > 1)

    def _without_replayed(
        self, slot: Slot, item: Item, results: list[tuple[int, Attempt]], *, first: bool
    ) -> list[tuple[int, Attempt]]:
        """Recipients of whom nothing was said because the session failed are tried again at once, where that may help;
        the outcomes of the others stand.

        A kept connection that ends as we use it says nothing of the message: once more, on another one. A host that
        ends its first session is passed over for the next host of the destination (RFC 5321 §5.1: "MUST try each of
        the relevant addresses"); the opener remembers it.
        """
        left = [result for result in results if _is_of_session(result[1])]
        may = (not first and not item.replays) or (slot.courier.elsewhere and item.replays < _REPLAYS_MAX)
        if not left or not may:
            return results
        again = item
        if len(left) < len(item.indexes):
            again = Item(item.mail, tuple(index for index, _ in left), item.replays)
        if first:
            self._tell_replay(again, left[0][1], slot.lane.destination.key)
        again.replays += 1
        slot.lane.put_first(again)
        return [result for result in results if not _is_of_session(result[1])]

    def _without_untried(
        self, lane: Lane, item: Item, results: list[tuple[int, Attempt]]
    ) -> list[tuple[int, Attempt]]:
        """Recipients for whom this session had no transaction left (RFC 9422: MAILMAX) go at once by another one. Some
        of the job had theirs, so there is an end to it."""
        untried = tuple(index for index, attempt in results if _is_untried(attempt))
        if not untried or len(untried) == len(results):
            return results
        lane.put_first(Item(item.mail, untried))
        gone = set(untried)
        return [result for result in results if result[0] not in gone]

    def _tell_replay(self, item: Item, attempt: Attempt, destination_key: str) -> None:
        """An attempt that changes no state, for log and history: the next host is tried at once."""
        now_us, envelope = self._clock.now_us(), item.mail.envelope
        names = tuple(str(envelope.recipients[index].address) for index in item.indexes)
        state = item.mail.states.get(item.indexes[0]) if item.mail.states else None
        attempts = state.attempts + 1 if state is not None else 1
        events = (Attempted(now_us, envelope.id, names, destination_key, attempt, attempts, now_us),)
        self._stream.record(events)

    def _on_idle_closed(self, lane: Lane, courier: Courier) -> None:
        """An idle courier has become of no use (the remote closed, or it was idle for too long)."""
        slot = lane.slots.get(courier)
        if slot is not None and slot.item is None:
            self._drop(slot)

    def _drop(self, slot: Slot) -> None:
        lane = slot.lane
        if lane.slots.pop(slot.courier, None) is None:
            return
        if slot in lane.idle:
            lane.idle.remove(slot)
            self._connections.works(slot)
        slot.courier.close()
        self._permits.release(slot.scopes)
        self._connections.closed()
        self._close_if_unused(lane)

    def _close_if_unused(self, lane: Lane) -> None:
        if lane.unused and self._lanes.get(lane.destination.key) is lane:
            del self._lanes[lane.destination.key]
            self._pacing.leave(lane)
            self._uncount(lane)

    def _uncount(self, lane: Lane) -> None:
        if self._lanes_of[lane.source] > 1:
            self._lanes_of[lane.source] -= 1
        else:
            del self._lanes_of[lane.source]

    def _set_aside(self) -> None:
        """There is no room for another lane: those that have only waited since the last look, for a permit or a rate,
        do not count until they get it. Else a few of them would keep out what could go elsewhere; what they hold in
        memory is bounded all the same (`messages_max`)."""
        if self._loop.time() < self._look_aside_at:
            return
        self._look_aside_at = self._loop.time() + _ASIDE_S
        idling = {
            lane
            for lane in self._lanes.values()
            if (lane.asked or lane.paying) and not lane.busy and not lane.opening and lane.source != _ASIDE
        }
        for lane in idling & self._idling:
            self._count_as(lane, _ASIDE)
        self._idling = idling

    def _count_as(self, lane: Lane, source: str) -> None:
        if self._lanes.get(lane.destination.key) is lane:
            self._uncount(lane)
            lane.source = source
            self._lanes_of[source] = self._lanes_of.get(source, 0) + 1

    def give_up_connection(self, scope: str) -> None:
        """Another worker, or another destination, needs a connection of this scope: give one up, idle or when its job
        is done."""
        lane = self._lanes.get(scope)
        lanes = [lane] if lane is not None else self._pacing.sharing(scope)
        for lane in lanes:
            if lane.idle:
                self._drop(lane.idle[0])
                return
        busy = [lane for lane in lanes if lane.to_give_up < lane.busy + lane.opening]
        if busy:
            max(busy, key=lambda lane: lane.busy + lane.opening - lane.to_give_up).to_give_up += 1

    # -- outcomes: settlements -------------------------------------------------------------------------------------

    def _on_committed(
        self, mail: QueuedMessage, settlement: Settlement, removed_from_memory: set[int], settling_next: set[int]
    ) -> None:
        """A settlement is durable. What has rows in the spool now, and is in memory no more, is the agenda's."""
        if settlement.waiting:
            shard = identifier.shard_of(settlement.id)
            staying, now_us = mail.active.difference(removed_from_memory), self._clock.now_us()
            for row in settlement.waiting:
                if row.held:
                    continue
                if row.index in staying or row.index in settling_next:
                    if self._outlook.forgets:  # this row may hide one of its destination that is due later
                        self._agenda.schedule(shard, row.destination, now_us + _LOOK_AGAIN_US)
                    continue
                if row.attempts == 0 and row.due_us <= now_us:
                    self._agenda.add_overflow(shard, row.destination)
                else:
                    self._agenda.schedule(shard, row.destination, row.due_us)
        self._forget(mail, removed_from_memory)
        for stored in settlement.accepted:
            self.add(stored)
        if self._parked:
            self._unpark()
        if self._stopping:
            self._check_quiet()

    def _rows(self, mail: QueuedMessage, indexes: Sequence[int], due_us: int) -> tuple[Waiting, ...]:
        """Rows for recipients of a message that has none in the spool yet."""
        envelope, known = mail.envelope, mail.known or {}
        rows = []
        for index in indexes:
            found = known.get(index) or self.destination_of(envelope, envelope.recipients[index])
            rows.append(Waiting(index, due_us, key_of(found)))
        return tuple(rows)

    def _forget(self, mail: QueuedMessage, indexes: Sequence[int] | set[int]) -> None:
        """These recipients are in memory no more; with the last of them, and its last settlement, the message."""
        mail.active.difference_update(indexes)
        if mail.failing and len(mail.failing) == len(mail.active):
            self._settling.tell_failures(mail)  # there is nobody left to wait for
        if not mail.active and not self._settling.is_under_way(mail.envelope.id):
            self._mails.pop(mail.envelope.id, None)
            self._octets -= mail.octets
            mail.octets = 0
            mail.content = None if not isinstance(mail.content, ContentFile) else mail.content

    # -- what waits in the spool -----------------------------------------------------------------------------------

    def _has_room(self) -> bool:
        """For what waits on the disk: half of the lanes, so that neither it nor new mail shuts the other out. Retries
        do not fill memory with what must wait for a connection."""
        lanes = self._lanes_of.get(_FROM_DISK, 0) + len(self._loading)
        if lanes >= max(1, self.options.lanes_max // 2):
            self._connections.free_one()  # what rests must not shut out what is due
            self._set_aside()  # nor what waits
            return False
        return self._connections.probes_waiting < self.options.probes_max

    def _load(self, shard: int, destination_key: str) -> bool:
        now_us = self._clock.now_us()
        lane = self._lanes.get(destination_key)
        if (
            (shard, destination_key) in self._loading
            or (lane is not None and len(lane.ready) > self.options.ready_max // 2)
            or len(self._mails) > self.options.messages_max + self.options.messages_max // 8
            or (destination_key == NOT_KNOWN and self._awaiting.room < WAITING_MAX // 2)
        ):
            self._agenda.schedule(shard, destination_key, now_us + _LOOK_AGAIN_US)
            return False
        self._loading.add((shard, destination_key))
        limit = self.options.load_max
        self._spool.take(
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
        """Rows from the spool go to their lanes; how many of them did, and found room there."""
        taken = 0
        for entry in loaded:
            withdrawn = self._withdrawn.get(entry.envelope.id)
            if withdrawn is not None:
                withdrawn.add(destination_key)  # an operator has it in hand since we asked: look again when he is done
                continue
            mail = self._mails.get(entry.envelope.id)
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
                self._mails[entry.envelope.id] = mail
                self._dispatch(mail, indexes)
                taken += len(mail.active.intersection(indexes))  # without those for which there was no room
        return taken

    def _next_due_found(self, shard: int, destination_key: str, due_us: int) -> None:
        if not due_us:
            return
        if self._is_far(due_us):
            self._spool.take(
                shard,
                destination_key,
                _EVER_US,
                self.options.load_max,
                partial(self._far_found, shard, destination_key),
            )
        else:
            self._agenda.schedule(shard, destination_key, due_us)

    # -- a clock that was set back -------------------------------------------------------------------------------------

    def _watch_clock(self, now_us: int) -> None:
        """Each half minute. What is far ahead now, in the agenda or on the disk, is looked into."""
        ahead_us = now_us - int(self._loop.time() * 1_000_000)
        before_us, self._ahead_us = self._ahead_us, ahead_us
        if ahead_us < before_us - _CLOCK_SLACK_US:
            self._agenda.hasten(self._is_far, now_us)
            self._outlook.begin_anew()

    def _is_far(self, due_us: int) -> bool:
        """Whether a time is further ahead than any interval of ours: the clock was set back since, or it is a time
        that somebody has wished for."""
        return due_us - self._clock.now_us() > self._horizon_us()

    def _horizon_us(self) -> int:
        return int((self.options.retry_max_s + self.options.backoff_max_s) * 2_000_000)

    def _far_found(self, shard: int, destination_key: str, loaded: list[Loaded]) -> None:
        """Rows whose last attempt is still to come, by the clock as it is now, would wait for the clock to get there
        once more: they are tried at once. All others have a reason to wait."""
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

    # -- for operators -----------------------------------------------------------------------------------------------

    def withdraw(self, number: int) -> tuple[int, ...]:
        """Take all recipients of a message that are not being carried or settled out of memory.

        They are rows in the spool then, and nobody's but the caller's until he calls `changed`. The answer names those
        that could not be withdrawn.
        """
        destination_keys = self._withdrawn.setdefault(number, set())
        mail = self._mails.get(number)
        if mail is None:
            return ()
        if mail.states is None:
            everyone = tuple(range(len(mail.envelope.recipients)))
            rows = self._rows(mail, everyone, self._clock.now_us())
            self._settling.settle(mail, Settlement(number, waiting=rows), ())
        states = mail.states
        assert states is not None  # the settlement above has seen to it
        withdrawn = set(self._awaiting.withdraw(number))
        destination_keys.update(states[index].destination for index in withdrawn if index in states)
        for lane in list(self._lanes.values()):
            kept: FairQueue[Item] = FairQueue()
            for item in lane.ready:
                if item.mail is mail:
                    withdrawn.update(item.indexes)
                    # As the spool has it: a reload may have given the recipient another destination since.
                    destination_keys.update(states[index].destination for index in item.indexes if index in states)
                else:
                    kept.add(item.mail.source, item, item.mail.priority)
            if len(kept) == len(lane.ready):
                continue
            lane.ready = kept
            self._close_if_unused(lane)
        self._forget(mail, withdrawn)
        return tuple(sorted(mail.active))

    def changed(self, number: int, destination_keys: Sequence[str]) -> None:
        """The message is the queue's again, and rows of these destinations are due: look at them now, back-off or not.
        What was withdrawn and not changed goes back to where it was."""
        shard = identifier.shard_of(number)
        for destination_key in destination_keys:
            self._troubles.over(destination_key)
        for destination_key in {*destination_keys, *self._withdrawn.pop(number, ())}:
            self._agenda.add_overflow(shard, destination_key)

    def paces(self, destination_keys: Sequence[str]) -> dict[str, dict[str, Any]]:
        """Of those of these destinations that are at work or left alone: their scopes, and what their mail waits for
        ("permit", "rate", else in words; "" for nothing), why it is left alone, and the recipients' domains of what is
        in memory; and what is being done. `ALL_THAT_WAIT`: also those that have most waiting or under way."""
        told: dict[str, dict[str, Any]] = {}
        named = dict.fromkeys(destination_keys)
        if named.pop(ALL_THAT_WAIT, True) is None:
            waiting = [lane for lane in self._lanes.values() if len(lane.ready) or lane.busy]
            for each in heapq.nlargest(_TOLD_MAX, waiting, key=lambda lane: len(lane.ready) + lane.busy):
                if each.busy or each.opening or self._waits_for(each, self._troubles.of(each.destination.key)):
                    named[each.destination.key] = None
        for destination_key in named:
            lane, trouble = self._lanes.get(destination_key), self._troubles.of(destination_key)
            if lane is None and (trouble is None or not self._troubles.is_left_alone(trouble)):
                continue
            pace = lane.pace if lane is not None else None
            waits = self._waits_for(lane, trouble)
            told[destination_key] = {
                "scopes": pace.scopes if pace is not None else (destination_key,),
                "rated": pace.rated if pace is not None else (),
                "ready": len(lane.ready) if lane is not None else 0,
                "waits": waits,
                "left_alone_s": self._left_alone_s(trouble) if waits.startswith(_BACK_OFF) else 0.0,
                "because": trouble.attempt.text if trouble is not None and waits.startswith(_BACK_OFF) else "",
                "domains": _domains(lane) if lane is not None and (waits or lane.busy or lane.opening) else [],
                "doing": self._doing(lane) if lane is not None else [],
            }
        if ALL_THAT_WAIT in destination_keys and len(self._awaiting):
            told[LOOKED_UP] = {
                "scopes": (),
                "ready": len(self._awaiting),
                "waits": self._awaiting.summary(),
                "domains": self._awaiting.domains(_DOMAINS_MAX),
            }
        return told

    def _doing(self, lane: Lane) -> list[dict[str, str]]:
        """What is under way, with the message that is being carried."""
        carrying = [slot for slot in lane.slots.values() if slot.job is not None][:_DOING_MAX]
        told = [
            {"message": identifier.text(slot.job.envelope.id), "what": slot.courier.doing}
            for slot in carrying
            if slot.job is not None
        ]
        openings = self._openings(lane.destination.key) if lane.opening else ()
        return told + [{"message": "", "what": what} for what in openings[:_DOING_MAX]]

    def _waits_for(self, lane: Lane | None, trouble: Trouble | None) -> str:
        if lane is not None and len(lane.ready):
            if lane.paying:
                return "rate"
            if lane.starved:
                return "limit of this worker: all its connections are taken"
            if lane.asked:
                return "permit"
        if trouble is not None and self._troubles.is_left_alone(trouble) and not (lane is not None and lane.slots):
            failures = counted(trouble.failures, "failure")
            return f"{_BACK_OFF} {failures} in a row, {self._left_alone_s(trouble):.0f} s more"
        return ""

    def _left_alone_s(self, trouble: Trouble | None) -> float:
        return 0.0 if trouble is None else (trouble.until_us - self._clock.now_us()) / 1_000_000

    def troubles(self) -> dict[str, tuple[int, int, str]]:
        """Destinations left alone for now: failures in a row, until when, and why."""
        return self._troubles.summary()

    @property
    def in_memory(self) -> int:
        return len(self._mails)

    @property
    def carrying(self) -> int:
        return sum(lane.busy for lane in self._lanes.values())


_BACK_OFF: Final = "back-off after"


def _domains(lane: Lane) -> list[str]:
    """The domains of what waits in a lane, or is carried: of a next hop there may be any."""
    found: set[str] = set()
    carried = (slot.item for slot in lane.slots.values() if slot.item is not None)
    for item in islice(chain(carried, lane.ready), _LOOKED_MAX):
        found.update(item.mail.envelope.recipients[index].address.domain for index in item.indexes)
        if len(found) >= _DOMAINS_MAX:
            break
    return sorted(found)


def _is_of_session(attempt: Attempt) -> bool:
    return attempt.outcome is _DEFERRED and attempt.reach is _SESSION


def _is_untried(attempt: Attempt) -> bool:
    """Whether the courier had no room for the recipient (`deliver.smtp`): nothing was said of it to anybody."""
    return attempt.reach is _SESSION and attempt.status == "4.5.3" and attempt.reply is None


def _overdue(destination: Destination) -> Attempt:
    """RFC 2852: what was to be there or returned by now is returned."""
    text = "the time within which the sender wanted it delivered (BY) is over"
    return Attempt(_FAILED, Reach.MESSAGE, "5.4.7", text, transport=destination.transport.value)
