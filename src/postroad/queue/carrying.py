"""Lanes at work: items that are ready get couriers, couriers carry jobs, and outcomes go to their settlement.

What always holds:
- Connections to one destination never exceed the node's limits (`Permits`, `queue.pace`), and all connections together
  never exceed the worker's own (`queue.connections`).
- A courier carries one job at a time. Each job ends with one call of `Settling.finish`, or its recipients are at the
  head of their lane again.
- Couriers wait while `unsettled_max` outcomes are not committed: only these, and the messages being carried, can arrive
  twice after a crash (promise 4).
- Connections that were opened by older settings end after their job.

How it fails: a courier makes an Attempt of its exceptions; if one escapes, it is logged, and the message is tried
later. If the content of a message cannot be read, the message is held, and an operator decides.

Not here: which lane a recipient belongs to (`queue.queue`), what a settlement is (`queue.settling`).
"""

from __future__ import annotations

import asyncio
import random
import traceback
from collections import deque
from collections.abc import Callable, Iterable
from functools import partial
from typing import Final, Protocol

import msgspec

from postroad.mail import verp
from postroad.mail.address import Address
from postroad.mail.attempt import Attempt, Outcome, Reach
from postroad.mail.courier import Courier
from postroad.mail.event import Attempted, Held, Noted
from postroad.mail.job import Job, Outbound
from postroad.mail.message import Content
from postroad.mail.route import Destination
from postroad.mail.routing import not_now
from postroad.queue import schedule
from postroad.queue.capacity import Capacity
from postroad.queue.connections import Connections
from postroad.queue.lane import Item, Lane, Opener, PendingConnection, QueuedMessage, Slot
from postroad.queue.options import QueueOptions
from postroad.queue.pace import PaceTable
from postroad.queue.pacing import HostsOf, Pacing
from postroad.queue.settling import ENDS, Settling
from postroad.queue.troubles import Troubles
from postroad.store.face import Events, Spool
from postroad.store.values import Settlement, Waiting
from postroad.world.clock import Clock

# Members of an Enum by plain names: on Python 3.11 each access through its class costs a look-up more.
_FAILED: Final = Outcome.FAILED
_DEFERRED: Final = Outcome.DEFERRED
_SESSION: Final = Reach.SESSION
_RECIPIENT: Final = Reach.RECIPIENT

_JOBS_BEFORE_GIVING_UP: Final = 10  # a connection carries so many, or all there are, before another worker gets it
_FEED_ON_S: Final = 0.01  # until the next lane is fed if one that was has not used its connection
_TELL_S: Final = 0.05  # between two words to the supervisor on how a destination fares: each costs it a turn
_AS_IN_ENVELOPE: Final[tuple[Address, ...]] = ()
_REPLAYS_MAX: Final = 5  # hosts tried one after the other for one message, whose sessions fail


class Permits(Protocol):
    """The node's counts of connections and rates, by scope (`queue.pace`)."""

    def acquire(self, scopes: tuple[str, ...], count: int, granted: Callable[[int], None]) -> None:
        """Asks for up to `count` connections that count in all these scopes. `granted` is called once, at once or
        later, with one or more. A destination (`scopes[0]`) has one question at a time."""

    def release(self, scopes: tuple[str, ...]) -> None: ...

    def succeeded(self, scopes: tuple[str, ...], successes: int) -> None:
        """Reports that so many messages went well while more connections are asked for."""

    def refused(self, scopes: tuple[str, ...], others: bool) -> None:
        """Reports that a remote refused a connection, which the caller still has to release. `others`: whether others
        work."""

    def tokens(self, destination_key: str, scopes: tuple[str, ...], count: int, granted: Callable[[int], None]) -> None:
        """Asks for up to `count` messages of the rates of these scopes, as `acquire` does. They are used at once or
        lost."""


class Carrying:
    """See the module. `quiet` is set when it was stopped, and nothing is carried or waits for its commit any more."""

    def __init__(
        self,
        *,
        capacity: Capacity,
        settling: Settling,
        spool: Spool,
        options: QueueOptions,
        clock: Clock,
        random: random.Random,
        opener: Opener,
        permits: Permits,
        stream: Events,
        loop: asyncio.AbstractEventLoop,
        pace: PaceTable,
        hosts_of: HostsOf | None,
        outbound: Outbound | None = None,
    ) -> None:
        self.options = options
        self.outbound = outbound  # `mail.job`
        self.quiet = asyncio.Event()
        self.troubles = Troubles(clock, random, self._options)
        self._capacity = capacity
        self._settling = settling
        self._spool = spool
        self._clock = clock
        self._open = opener
        self._permits = permits
        self._stream = stream
        self._loop = loop
        self._pacing = Pacing(pace, hosts_of, loop, is_open=capacity.is_open, on_found=self.pump)
        self._connections = Connections(
            loop, self._options, on_slot_free=self._on_slot_free, on_unwanted=self._drop, slots=self._slots
        )
        self._edition = 0  # of the settings: how often they were renewed
        self._parked: deque[Slot] = deque()  # couriers that wait for outcomes to be committed
        self._stopping = False

    def _options(self) -> QueueOptions:
        return self.options

    def _slots(self) -> Iterable[Slot]:
        return [slot for lane in self._capacity.lanes.values() for slot in lane.slots.values()]

    def stop(self) -> None:
        """Stops: starts nothing new."""
        self._stopping = True
        for lane in list(self._capacity.lanes.values()):
            for slot in list(lane.idle):
                self._drop(slot)
        while self._parked:
            self._drop(self._parked.popleft())
        self.check_quiet()

    def check_quiet(self) -> None:
        """Sets `quiet` if it was stopped, and nothing is carried or waits for its commit."""
        lanes = self._capacity.lanes.values()
        if self._stopping and not self._settling.unsettled and not any(lane.busy for lane in lanes):
            self.quiet.set()

    def take(self, options: QueueOptions, pace: PaceTable, outbound: Outbound | None = None) -> None:
        """Takes new settings. A connection may have been opened with other credentials, or with less TLS than is
        demanded now. So idle ones are closed at once, those that are being opened when they are open, the others after
        their job."""
        self.options, self.outbound = options, outbound
        self._edition += 1
        for lane in list(self._capacity.lanes.values()):
            for slot in list(lane.idle):
                self._drop(slot)
        lanes = list(self._capacity.lanes.values())
        self._pacing.renew(pace, lanes)
        for lane in lanes:
            self.pump(lane)

    # -- lanes -----------------------------------------------------------------------------------------------------

    def lane(self, destination: Destination, mail: QueuedMessage) -> Lane:
        """Returns the lane of this destination. If there is none, opens it for this mail."""
        lane = self._capacity.lanes.get(destination.key)
        if lane is None:
            lane = self._capacity.open(destination, mail)
            self._pacing.find(lane)
        else:
            lane.destination = destination  # a reload may have changed how it is reached
        return lane

    def close_if_unused(self, lane: Lane) -> None:
        if lane.unused and self._capacity.is_open(lane):
            self._capacity.close(lane)
            self._pacing.leave(lane)

    def hand_straight(self, lane: Lane, item: Item) -> bool:
        """Hands a message to an idle courier at once, if no other message waits."""
        if not lane.idle or len(lane.ready) or lane.tokens is not None:
            return False
        slot = lane.idle[-1]
        if not slot.courier.usable or self._settling.unsettled >= self.options.unsettled_max:
            return False
        lane.idle.pop()
        self._connections.works(slot)
        self._carry_item(slot, item)
        return True

    def pump(self, lane: Lane) -> None:
        """Gives ready items to idle couriers, and asks for more couriers if that helps and is allowed."""
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

    # -- connections -----------------------------------------------------------------------------------------------

    def _reach_out(self, lane: Lane, *, first: bool = False) -> None:
        """Gets more couriers, as far as the destination's pace and the worker's connections allow."""
        pace = lane.pace
        if pace is None:
            return  # `_pacing` comes back to it
        trouble = self.troubles.of(lane.destination.key)
        limit = pace.connections_max
        if trouble is not None and not lane.slots:
            if self.troubles.is_left_alone(trouble):
                self._postpone(lane, trouble.attempt, trouble.until_us)
                self.close_if_unused(lane)
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
        """Whether the next connection of the lane is to find out if the destination can be reached again."""
        if lane.slots:
            return False
        item = lane.ready.first()
        state = item.mail.states.get(item.indexes[0]) if item.mail.states else None
        return (state is not None and state.attempts > 0) or self.troubles.of(lane.destination.key) is not None

    def _wait_for_connection(self, lane: Lane, *, first: bool = False) -> None:
        self._connections.wait(lane, lane.ready.first().mail.source, self._is_probe(lane), first=first)

    def _granted(self, lane: Lane, scopes: tuple[str, ...], count: int) -> None:
        """Takes permits: opens as many connections as are still needed."""
        lane.asked = False
        lane.successes = 0
        self._capacity.counts_again(lane)
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
        self.close_if_unused(lane)

    def _on_slot_free(self, lane: Lane) -> None:
        """Gives a free connection of the worker to this lane, or to the next lane if this one needs none any more."""
        if len(lane.ready) and not lane.asked and not self._stopping and not lane.idle:
            self._reach_out(lane, first=True)
        if lane.asked:
            self._loop.call_later(_FEED_ON_S, self._connections.feed)  # it may have to wait for its permit
        elif not lane.starved:
            self._connections.feed()
        self.close_if_unused(lane)

    def _opened(self, lane: Lane, opening: PendingConnection, edition: int, result: Courier | Attempt) -> None:
        lane.opening -= 1
        if isinstance(result, Attempt):
            lane.to_give_up = max(0, lane.to_give_up - 1)
            if result.remote_address and result.outcome is _DEFERRED and not self._stopping:
                self._permits.refused(opening.scopes, bool(lane.slots))
            self._permits.release(opening.scopes)
            self._connections.failed(opening)
            if edition != self._edition:
                self.pump(lane)  # it tells nothing of the settings that hold now
            elif not self._stopping:  # else it most likely ended because we stop: no attempt, see `drain`
                self._opening_failed(lane, result)
            self.close_if_unused(lane)
            return
        self._connections.opened(opening)
        self.troubles.over(lane.destination.key)
        slot = Slot(lane, result, opening.scopes, edition)
        lane.slots[result] = slot
        if edition != self._edition:
            self._drop(slot)
            self.pump(lane)
        elif len(lane.ready) and not self._stopping and self._may_send(lane):
            self._carry(slot)
            self.pump(lane)  # after a probe that went well
        else:
            self._keep_idle(slot)

    def _keep_idle(self, slot: Slot) -> None:
        """Keeps a courier without work for later mail, unless another lane needs its place."""
        lane = slot.lane
        if lane.tokens and not len(lane.ready):
            lane.tokens = 0  # what is not used now is lost: kept tokens would make a burst some time
        if self._stopping or self._connections.wanted or lane.to_give_up:
            lane.to_give_up = max(0, lane.to_give_up - 1)
            self._drop(slot)
        else:
            lane.idle.append(slot)
            self._connections.rests(slot)

    def _on_idle_closed(self, lane: Lane, courier: Courier) -> None:
        """Removes an idle courier that is of no use any more: the remote has closed, or it was idle for too long."""
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
        self.close_if_unused(lane)

    def give_up_connection(self, scope: str) -> None:
        """Gives up one connection of this scope for another worker or destination: an idle one, else one whose job
        ends."""
        lane = self._capacity.lanes.get(scope)
        lanes = [lane] if lane is not None else self._pacing.sharing(scope)
        for lane in lanes:
            if lane.idle:
                self._drop(lane.idle[0])
                return
        busy = [lane for lane in lanes if lane.to_give_up < lane.busy + lane.opening]
        if busy:
            max(busy, key=lambda lane: lane.busy + lane.opening - lane.to_give_up).to_give_up += 1

    def has_room_for_retries(self) -> bool:
        """Whether destinations that failed before can get connections."""
        return self._connections.probes_waiting < self.options.probes_max

    def free_connection(self) -> None:
        """Closes an idle connection, if there is one: idle connections must not keep out mail that is due."""
        self._connections.free_one()

    # -- rates -----------------------------------------------------------------------------------------------------

    def _may_send(self, lane: Lane) -> bool:
        """Whether the rates of its destination allow a message now. If they do not, asks for one."""
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
        self._capacity.counts_again(lane)
        if lane.tokens is not None:
            lane.tokens += count
            self.pump(lane)
            if not len(lane.ready):
                lane.tokens = 0

    def _opening_failed(self, lane: Lane, attempt: Attempt) -> None:
        if lane.slots:
            return  # others to this destination work: the remote takes no more connections, no reason to give up
        if attempt.outcome is _FAILED:
            self._postpone(lane, attempt, 0)
        else:
            options = self._settling.options_for(lane.destination.retry)
            self._postpone(lane, attempt, self.troubles.failed(lane.destination.key, attempt, options).until_us)

    def _postpone(self, lane: Lane, attempt: Attempt, until_us: int) -> None:
        """Gives this attempt's outcome to everything that is ready in the lane, because nobody can carry it."""
        for item in lane.ready.clear():
            results = [(index, attempt) for index in item.indexes]
            self._settling.finish(item.mail, results, lane.destination.key, until_us, lane.destination.retry)

    # -- jobs ------------------------------------------------------------------------------------------------------

    def _carry(self, slot: Slot) -> None:
        if self._settling.unsettled >= self.options.unsettled_max:
            self._parked.append(slot)  # what a crash now would deliver twice has a limit (promise 4)
            return
        lane = slot.lane
        item = lane.ready.take_next()
        assert lane.pace is not None
        most = lane.pace.recipients_max
        if len(item.indexes) > most:
            # The rest goes to the end of the line: a mailing does not hold up what came behind it.
            lane.put(Item(item.mail, item.indexes[most:]))
            kept, item = item.content, Item(item.mail, item.indexes[:most])
            item.content = kept
        self._carry_item(slot, item)

    def _carry_item(self, slot: Slot, item: Item) -> None:
        outbound = self.outbound
        if outbound is None and item.mail.envelope.parameters and verp.delimiters(item.mail.envelope):
            outbound = verp.outbound
        if outbound is not None:
            item = self._of_one_sender(outbound, slot.lane, item)
        elif item.sent:
            item.sent = ()  # it was taken up before, by older settings
        slot.item = item
        slot.lane.busy += 1
        mail = item.mail
        content = mail.content if item.content is None else item.content
        item.content = None
        if content is None:
            self._spool.content(mail.envelope.id, partial(self._content_loaded, slot, item))
        else:
            self._hand_over(slot, item, content)

    def _of_one_sender(self, outbound: Outbound, lane: Lane, item: Item) -> Item:
        """Returns the recipients of an item that can share a transaction because they have one reverse-path, with their
        names at the destination. The others go back into the line."""
        envelope = item.mail.envelope
        envelope = envelope.of(envelope.recipients[item.indexes[0]])
        sent = tuple([outbound(envelope, envelope.recipients[index], lane.destination) for index in item.indexes])
        path = sent[0].reverse_path
        if any(each.reverse_path != path for each in sent):
            named = list(zip(item.indexes, sent, strict=True))
            others = tuple(index for index, each in named if each.reverse_path != path)
            lane.put(Item(item.mail, others, item.replays))
            these = Item(item.mail, tuple(index for index, each in named if each.reverse_path == path), item.replays)
            these.content = item.content
            item, sent = these, tuple(each for each in sent if each.reverse_path == path)
        item.sent = sent
        return item

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
            self.pump(slot.lane)
            self.check_quiet()
            return
        slot.item = None
        slot.lane.busy -= 1
        self._hold_unreadable(item, slot.lane.destination.key)
        self._next(slot, slot.courier.usable)
        self.pump(slot.lane)
        if self._stopping:
            self.check_quiet()

    def _hold_unreadable(self, item: Item, destination_key: str) -> None:
        """Holds mail whose content cannot be read: a retry would not help, so an operator must decide."""
        mail, now_us = item.mail, self._clock.now_us()
        envelope, states = mail.envelope, mail.states or {}
        text = "its content cannot be read from the spool; see the log and `postroad spool check`"
        rows = []
        for index in item.indexes:
            state = states.get(index) or Waiting(index, now_us, destination_key)
            rows.append(msgspec.structs.replace(state, held=True, status="4.3.0", text=text, last_us=now_us))
        names = tuple(envelope.recipients[index].name for index in item.indexes)
        events = (Held(now_us, envelope.id, names, "", text), Noted(now_us, envelope.id, "error", f"held: {text}"))
        self._settling.settle(mail, Settlement(envelope.id, waiting=tuple(rows), events=events), item.indexes)

    def _hand_over(self, slot: Slot, item: Item, content: Content) -> None:
        mail = item.mail
        envelope = mail.envelope
        first = envelope.recipients[item.indexes[0]]
        if first.sender is not None:  # all of an item have the same
            envelope = envelope.of(first)
        seen = mail.only_crlf and content is mail.content
        reverse_path, forward_paths = envelope.reverse_path, _AS_IN_ENVELOPE
        if item.sent:
            reverse_path = item.sent[0].reverse_path
            forward_paths = tuple([each.forward_path for each in item.sent])
            if all(
                path == envelope.recipients[index].address
                for index, path in zip(item.indexes, forward_paths, strict=True)
            ):
                forward_paths = _AS_IN_ENVELOPE
        slot.job = job = Job(envelope, item.indexes, content, slot.lane.destination, reverse_path, forward_paths, seen)
        if item.sent and (text := next((each.not_now for each in item.sent if each.not_now), "")):
            self._loop.call_soon(self._carried, slot, job, (not_now(text),) * len(item.indexes))
            return
        if envelope.parameters and schedule.is_overdue(envelope, self._clock.now_us()):
            late = _overdue(slot.lane.destination)
            self._loop.call_soon(self._carried, slot, job, (late,) * len(item.indexes))
            return
        try:
            slot.courier.carry(job, partial(self._carried, slot))
        except Exception:
            # A bug of the courier's must not strand the message, nor go up to who brought it.
            self.say_bug(item.mail, "carrying it")
            transport = slot.lane.destination.transport.value
            broken = Attempt(_DEFERRED, Reach.MESSAGE, "4.3.0", "internal error", transport=transport)
            self._loop.call_soon(self._carried, slot, job, (broken,) * len(item.indexes))

    def say_bug(self, mail: QueuedMessage, doing: str) -> None:
        """Logs an exception. Call it within the handler of the exception."""
        text = f"{doing} broke: {traceback.format_exc()}"
        self._stream.tell((Noted(self._clock.now_us(), mail.envelope.id, "error", text),))

    def _carried(self, slot: Slot, job: Job, attempts: tuple[Attempt, ...]) -> None:
        """Takes the outcomes of a job from its courier."""
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
            self._settling.finish(item.mail, results, lane.destination.key, 0, lane.destination.retry)
        if len(lane.ready):
            self.pump(lane)
        if self._stopping:
            self.check_quiet()

    def go_on(self) -> None:
        """Lets couriers continue that waited until outcomes are committed."""
        if self._parked:
            self._unpark()
        if self._stopping:
            self.check_quiet()

    def _unpark(self) -> None:
        """Lets couriers continue that waited until outcomes are committed."""
        while self._parked and self._settling.unsettled < self.options.unsettled_max:
            slot = self._parked.popleft()
            if slot.lane.slots.get(slot.courier) is slot:  # else it was lost meanwhile: another one takes its work
                self._next(slot, slot.courier.usable)
            self.pump(slot.lane)

    def _next(self, slot: Slot, usable: bool) -> None:
        """Gives a courier its next job, or keeps it idle, or ends it."""
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
        """Reports successes. They count towards a further connection while the lane waits for one."""
        if attempt.outcome in ENDS or attempt.reach is _RECIPIENT:
            lane.successes += 1
            if lane.successes >= len(lane.slots) and self._loop.time() >= lane.tell_at:
                lane.tell_at = self._loop.time() + _TELL_S
                self._permits.succeeded(slot.scopes, lane.successes)
                lane.successes = 0

    def _tell_refused(self, slot: Slot, attempt: Attempt) -> None:
        """Reports that a remote ended a session with 421 (RFC 5321 §3.8): it has too many sessions."""
        if attempt.reach is _SESSION and attempt.reply is not None and attempt.reply.code == 421:
            self._permits.refused(slot.scopes, len(slot.lane.slots) > 1)

    def _without_replayed(
        self, slot: Slot, item: Item, results: list[tuple[int, Attempt]], *, first: bool
    ) -> list[tuple[int, Attempt]]:
        """Tries recipients again at once if the session failed before anything was said about them, and if that may
        help. The outcomes of the others stand. If a kept connection ends when we use it, this says nothing about the
        message: it goes once more, over another connection. If a host ends its first session, the next host of the
        destination is tried (RFC 5321 §5.1: "MUST try each of the relevant addresses"); the opener remembers the host.
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
        """Sends recipients at once over another session if this session had no transaction left for them (RFC 9422:
        MAILMAX). Some recipients of the job had a transaction, so this comes to an end."""
        untried = tuple(index for index, attempt in results if _is_untried(attempt))
        if not untried or len(untried) == len(results):
            return results
        lane.put_first(Item(item.mail, untried))
        gone = set(untried)
        return [result for result in results if result[0] not in gone]

    def _tell_replay(self, item: Item, attempt: Attempt, destination_key: str) -> None:
        """Reports an attempt that changes no state to log and history: the next host is tried at once."""
        now_us, envelope = self._clock.now_us(), item.mail.envelope
        names = tuple(envelope.recipients[index].name for index in item.indexes)
        state = item.mail.states.get(item.indexes[0]) if item.mail.states else None
        attempts = state.attempts + 1 if state is not None else 1
        events = (Attempted(now_us, envelope.id, names, destination_key, attempt, attempts, now_us),)
        self._stream.record(events)


def _is_of_session(attempt: Attempt) -> bool:
    return attempt.outcome is _DEFERRED and attempt.reach is _SESSION


def _is_untried(attempt: Attempt) -> bool:
    """Whether the courier had no room for the recipient (`deliver.smtp`), so that it said nothing about the recipient
    to anybody."""
    return attempt.reach is _SESSION and attempt.status == "4.5.3" and attempt.reply is None


def _overdue(destination: Destination) -> Attempt:
    """The attempt with which a message returns because its time is over (RFC 2852)."""
    text = "the time that the sender has set for its delivery (BY) is over"
    return Attempt(_FAILED, Reach.MESSAGE, "5.4.7", text, transport=destination.transport.value)
