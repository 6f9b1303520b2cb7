"""The queue of one worker: it decides what comes next for every accepted recipient, until the recipient has its end.

Fresh messages go from their commit straight to a courier. A recipient that must wait is a row in the spool; memory
holds only the time at which the first row of its destination is due, and only if this time is near. All state belongs
to the event loop; nothing here blocks, and there is no task per message.

This module is the face, and decides which way a recipient goes. Its parts, each of which calls only those below it and
reports by callbacks:

    queue.loading     from the spool into memory, when it is due
    queue.carrying    lanes → couriers → jobs → outcomes
    queue.awaiting    destinations that must be looked up
    queue.settling    outcomes → settlements
    queue.capacity    what is in memory, and how much may be
    queue.status      what operators hear about all this

What always holds:
- A recipient in memory is in exactly one place: an item of a lane, a job of a courier, a settlement under way, or it
  waits for its destination (`QueuedMessage.active`). The spool has all others, and `queue.loading` knows when they are
  due.
- A job's outcome becomes one settlement; the recipient is not tried again until this is committed (promise 4).
- Mail without room in memory waits in the spool, without an attempt.

How it fails: mail whose delivery is interrupted by a crash or a shutdown is in the spool as before, fresh or due, and
is taken up at the next start. Not here: what a route is (`route`), how a message is carried (`deliver`), what a DSN
says (`report`).
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Iterable, Sequence

import msgspec

from postroad.mail import identifier
from postroad.mail.address import Address
from postroad.mail.attempt import Attempt
from postroad.mail.job import Outbound
from postroad.mail.route import Destination
from postroad.mail.routing import HOLD, NOT_KNOWN, Answer, DestinationOf, Found, key_of, let_go
from postroad.queue.awaiting import Awaiting
from postroad.queue.capacity import Capacity
from postroad.queue.carrying import Carrying, Permits
from postroad.queue.lane import Item, Lane, Opener, QueuedMessage
from postroad.queue.loading import Loading
from postroad.queue.options import QueueOptions
from postroad.queue.order import FairQueue
from postroad.queue.pace import PaceTable
from postroad.queue.pacing import HostsOf
from postroad.queue.settling import Settling
from postroad.queue.status import Openings, QueueStatus
from postroad.store.face import Events, Spool
from postroad.store.reports import MakeReports
from postroad.store.values import Settlement, Stored, Waiting
from postroad.world.clock import Clock

__all__ = ["Permits", "Queue"]


def _no_openings(destination_key: str) -> Sequence[str]:
    return ()


class Queue:
    """See the module. `stream` takes the events that belong to no commit. `mail.routing` has the contract of
    `destination_of`, `mail.job` that of `outbound`; if that is None, all mail goes with the names of its envelope.
    `openings` says in words what the connections that are being opened for a destination do."""

    def __init__(
        self,
        *,
        spool: Spool,
        options: QueueOptions,
        clock: Clock,
        random: random.Random,
        destination_of: DestinationOf,
        outbound: Outbound | None = None,
        opener: Opener,
        permits: Permits,
        report: MakeReports,
        stream: Events,
        loop: asyncio.AbstractEventLoop,
        pace: PaceTable | None = None,
        hosts_of: HostsOf | None = None,
        openings: Openings = _no_openings,
    ) -> None:
        self.options = options
        self.destination_of = destination_of
        self._clock = clock
        self._stopping = False
        self._capacity = capacity = Capacity(options, loop)
        self._settling = Settling(
            spool=spool, options=options, clock=clock, random=random, loop=loop, report=report, tell=stream.tell,
            rows_of=self._rows, on_committed=self._on_committed,
        )  # fmt: skip
        table = pace or PaceTable(
            (), most=options.concurrency, start=options.concurrency_start, recipients_max=options.recipients_per_job_max
        )
        self._carrying = Carrying(
            capacity=capacity, settling=self._settling, spool=spool, options=options, clock=clock, random=random,
            opener=opener, permits=permits, stream=stream, loop=loop, pace=table, hosts_of=hosts_of, outbound=outbound,
        )  # fmt: skip
        self._awaiting = Awaiting(loop, on_found=self._on_found, on_bug=self._carrying.say_bug)
        self._loading = Loading(
            spool=spool, capacity=capacity, carrying=self._carrying, awaiting=self._awaiting, options=options,
            clock=clock, loop=loop, on_fresh=self._take_up, on_loaded=self._dispatch,
        )  # fmt: skip
        self.status = QueueStatus(capacity, self._carrying.troubles, self._awaiting, clock, openings)

    # -- in and out of the worker's life -------------------------------------------------------------------------

    def start(self, shards: Sequence[int]) -> None:
        """Takes up what the spool holds: rows that wait, and messages that were accepted and never settled."""
        self._loading.start(shards)

    async def drain(self, limit_s: float) -> bool:
        """Starts nothing new, and waits until everything that is carried has ended and is committed. Returns False if
        the time is over. Mail without a courier stays in the spool as it is, fresh or due, also if its connection was
        being opened: the next start tries it at once."""
        self._stopping = True
        self._loading.stop()
        self._awaiting.stop()
        self._settling.stop(list(self._capacity.mails.values()))
        self._carrying.stop()
        try:
            async with asyncio.timeout(limit_s):
                await self._carrying.quiet.wait()
        except TimeoutError:
            return False
        return True

    def take(
        self, options: QueueOptions, destination_of: DestinationOf, pace: PaceTable, outbound: Outbound | None = None
    ) -> None:
        """Takes new settings: they hold for everything that comes from now on."""
        self.options, self.destination_of = options, destination_of
        self._capacity.take(options)
        self._settling.take(options)
        self._loading.take(options)
        for lane in self._capacity.lanes.values():
            self._renew_destination(lane)
        self._carrying.take(options, pace, outbound)

    def _renew_destination(self, lane: Lane) -> None:
        """Keeps the destination of mail that waits, but reaches it as the new settings say."""
        if not len(lane.ready):
            return
        item = lane.ready.first()
        envelope = item.mail.envelope
        index = item.indexes[0]
        recipient = envelope.recipients[index]
        if item.mail.states and index in item.mail.states and item.mail.states[index].released:
            recipient = msgspec.structs.replace(recipient, released=True)
        found = self.destination_of(envelope, recipient)
        if isinstance(found, Destination) and found.key == lane.destination.key:
            lane.destination = found
        elif not isinstance(found, Destination | Attempt):
            let_go(found)  # it was looked up a moment ago

    def give_up_connection(self, scope: str) -> None:
        """Gives up a connection of this scope for another worker or destination."""
        self._carrying.give_up_connection(scope)

    # -- messages come in ----------------------------------------------------------------------------------------

    def add(self, stored: Stored) -> None:
        """Takes a message whose acceptance is durable; no recipient is settled yet."""
        self._take_up(QueuedMessage(stored.envelope, stored.content, None, stored.only_crlf))

    def wait(self, number: int, rows: Sequence[Waiting]) -> None:
        """Takes a message whose acceptance is durable, and whose recipients wait for a time of their own (RFC 4865)."""
        if not self._stopping:
            shard = identifier.shard_of(number)
            for row in rows:
                if not row.held:
                    self._loading.schedule(shard, row.destination, row.due_us)

    def _take_up(self, mail: QueuedMessage) -> None:
        envelope = mail.envelope
        if self._stopping:
            return  # it is in the spool, fresh; the next start takes it up
        self._capacity.add(mail)
        recipients = envelope.recipients
        if len(recipients) == 1:
            mail.active.add(0)
            destination = self.destination_of(envelope, recipients[0])
            if type(destination) is Destination:
                carrying = self._carrying
                lane, item = carrying.lane(destination, mail), Item(mail, (0,))
                if not carrying.hand_straight(lane, item):
                    self._enqueue(lane, item)
                    carrying.pump(lane)
            else:
                self._send_out(mail, ((0, destination),))
        else:
            mail.active.update(range(len(recipients)))
            self._dispatch(mail, range(len(recipients)))

    def _dispatch(self, mail: QueuedMessage, indexes: Sequence[int]) -> None:
        """Sends recipients of one message to the lanes of their destinations. All are in `mail.active` already."""
        envelope = mail.envelope
        self._send_out(
            mail, [(index, self.destination_of(envelope, envelope.recipients[index])) for index in indexes]
        )

    def _send_out(self, mail: QueuedMessage, answers: Iterable[tuple[int, Answer]]) -> None:
        """Sends each recipient to the lane of its destination, or lets it wait until the destination is known."""
        groups: dict[tuple[str, Address | None], list[int]] = {}
        recipients = mail.envelope.recipients
        destinations: dict[str, Destination] = {}
        failures: list[tuple[int, Attempt]] = []
        held: list[tuple[int, Attempt]] = []
        pending: list[tuple[int, Awaitable[Found]]] = []
        for index, answer in answers:
            if isinstance(answer, Destination):
                destinations[answer.key] = answer
                groups.setdefault((answer.key, recipients[index].sender), []).append(index)
            elif isinstance(answer, Attempt):
                (held if answer.transport == HOLD else failures).append((index, answer))
            else:
                pending.append((index, answer))
        for (destination_key, _), group in groups.items():
            lane = self._carrying.lane(destinations[destination_key], mail)
            self._enqueue(lane, Item(mail, tuple(group)))
            self._carrying.pump(lane)
        if failures:
            self._settling.finish(mail, failures, NOT_KNOWN)
        if held:
            self._hold(mail, held)
        if pending:
            self._await(mail, pending)

    def _hold(self, mail: QueuedMessage, held: Sequence[tuple[int, Attempt]]) -> None:
        """Handles routes that hold mail. If an operator has released a recipient, its route is asked again without
        holds."""
        envelope, states = mail.envelope, mail.states or {}
        released = [index for index, _ in held if index in states and states[index].released]
        kept = [each for each in held if each[0] not in released]
        if kept:
            self._settling.hold(mail, kept)
        if released:
            recipients = envelope.recipients
            self._send_out(
                mail,
                [
                    (index, self.destination_of(envelope, msgspec.structs.replace(recipients[index], released=True)))
                    for index in released
                ],
            )

    def _await(self, mail: QueuedMessage, pending: Sequence[tuple[int, Awaitable[Found]]]) -> None:
        """Waits for destinations that must be looked up. If there are too many, the spool keeps the recipients
        meanwhile."""
        room = self._awaiting.room
        if room:
            self._awaiting.ask(mail, pending[:room])
        if len(pending) > room:
            for _, answer in pending[room:]:
                let_go(answer)
            self._spill(mail, tuple(index for index, _ in pending[room:]))

    def _on_found(self, mail: QueuedMessage, answers: list[tuple[int, Found]]) -> None:
        """Takes destinations that were looked up, or the reasons why there are none."""
        for index, found in answers:
            if isinstance(found, Destination):
                mail.known = {**(mail.known or {}), index: found}
        self._send_out(mail, answers)

    def _enqueue(self, lane: Lane, item: Item) -> None:
        if self._capacity.may_wait(lane, item):
            lane.put(item)
        else:
            self._spill(item.mail, item.indexes)
            self._carrying.close_if_unused(lane)

    def _spill(self, mail: QueuedMessage, indexes: tuple[int, ...]) -> None:
        """Leaves these recipients in the spool, because memory has no room for them."""
        if mail.states is None:
            rows = self._rows(mail, indexes, self._clock.now_us())
            self._settling.settle(mail, Settlement(mail.envelope.id, waiting=rows), indexes)
        else:
            shard = identifier.shard_of(mail.envelope.id)
            # As the spool has it: a reload may have given the recipient another destination since.
            destination_keys = {mail.states[index].destination for index in indexes if index in mail.states}
            self._forget(mail, indexes)
            for destination_key in destination_keys:
                self._loading.look_again(shard, destination_key)

    # -- messages go ---------------------------------------------------------------------------------------------

    def _on_committed(
        self, mail: QueuedMessage, settlement: Settlement, removed_from_memory: set[int], settling_next: set[int]
    ) -> None:
        """Takes note that a settlement is durable."""
        if settlement.waiting:
            self._loading.note(settlement, mail.active.difference(removed_from_memory), settling_next)
        self._forget(mail, removed_from_memory)
        for stored in settlement.accepted:
            self.add(stored)
        self._carrying.go_on()

    def _rows(self, mail: QueuedMessage, indexes: Sequence[int], due_us: int) -> tuple[Waiting, ...]:
        """Returns rows for recipients of a message that has none in the spool yet."""
        envelope, known = mail.envelope, mail.known or {}
        rows = []
        for index in indexes:
            found = known.get(index) or self.destination_of(envelope, envelope.recipients[index])
            rows.append(Waiting(index, due_us, key_of(found)))
        return tuple(rows)

    def _forget(self, mail: QueuedMessage, indexes: Sequence[int] | set[int]) -> None:
        """Removes these recipients from memory; with the last one and its last settlement also the message."""
        mail.active.difference_update(indexes)
        if mail.failing and len(mail.failing) == len(mail.active):
            self._settling.tell_failures(mail)  # there is nobody left to wait for
        if not mail.active and not self._settling.is_under_way(mail.envelope.id):
            self._capacity.remove(mail)

    # -- for operators -------------------------------------------------------------------------------------------

    def withdraw(self, number: int) -> tuple[int, ...]:
        """Takes all recipients of a message out of memory, except those that are being carried or settled. They are
        rows in the spool then, and belong to the caller until it calls `changed`. Returns the recipients that could not
        be withdrawn."""
        destination_keys = self._loading.withdrawn.setdefault(number, set())
        mail = self._capacity.mails.get(number)
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
        for lane in list(self._capacity.lanes.values()):
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
            self._carrying.close_if_unused(lane)
        self._forget(mail, withdrawn)
        return tuple(sorted(mail.active))

    def changed(self, number: int, destination_keys: Sequence[str]) -> None:
        """Gives the message back to the queue. Rows of these destinations are due: they are loaded now, also during a
        back-off. What was withdrawn and not changed goes back to its place."""
        shard = identifier.shard_of(number)
        for destination_key in destination_keys:
            self._carrying.troubles.over(destination_key)
        for destination_key in {*destination_keys, *self._loading.withdrawn.pop(number, ())}:
            self._loading.look_at(shard, destination_key)
