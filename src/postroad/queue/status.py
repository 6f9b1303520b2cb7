"""Tells what the queue of one worker is doing, and why mail waits. It only looks.

Not here: what is on the disk (`store`), what the whole node has (`node.offices.pacing`), how it is shown (`operate`).
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Sequence
from itertools import chain, islice
from typing import Any, Final

from postroad.mail import identifier
from postroad.mail.numbers import counted
from postroad.queue.awaiting import Awaiting
from postroad.queue.capacity import Capacity
from postroad.queue.lane import Lane
from postroad.queue.troubles import Trouble, Troubles
from postroad.world.clock import Clock

ALL_THAT_WAIT: Final = "*"
LOOKED_UP: Final = "(destination not known yet)"  # as a destination, of recipients whose own is being looked up
_DOING_MAX: Final = 20  # transactions, and openings, of a destination that are told of
_TOLD_MAX: Final = 100  # destinations that are told of unasked
_LOOKED_MAX: Final = 10_000  # messages in a lane that are looked at for the domains of their recipients
_DOMAINS_MAX: Final = 1_000
_BACK_OFF: Final = "back-off after"

Openings = Callable[[str], Sequence[str]]


class QueueStatus:
    """See the module. `openings(destination_key)` says in words what the connections do that are being opened for it.
    """

    def __init__(
        self, capacity: Capacity, troubles: Troubles, awaiting: Awaiting, clock: Clock, openings: Openings
    ) -> None:
        self._capacity = capacity
        self._troubles = troubles
        self._awaiting = awaiting
        self._clock = clock
        self._openings = openings

    def paces(self, destination_keys: Sequence[str]) -> dict[str, dict[str, Any]]:
        """For those of these destinations that are at work or left alone: their scopes; what their mail waits for
        ("permit", "rate", else in words; "" for nothing); why they are left alone; the domains of the recipients in
        memory; and what is being done. `ALL_THAT_WAIT` adds those with the most mail waiting or under way."""
        told: dict[str, dict[str, Any]] = {}
        named = dict.fromkeys(destination_keys)
        if named.pop(ALL_THAT_WAIT, True) is None:
            waiting = [lane for lane in self._capacity.lanes.values() if len(lane.ready) or lane.busy]
            for each in heapq.nlargest(_TOLD_MAX, waiting, key=lambda lane: len(lane.ready) + lane.busy):
                if each.busy or each.opening or self._waits_for(each, self._troubles.of(each.destination.key)):
                    named[each.destination.key] = None
        for destination_key in named:
            lane, trouble = self._capacity.lanes.get(destination_key), self._troubles.of(destination_key)
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
        """The destinations that are left alone now: failures in a row, until when, and why."""
        return self._troubles.summary()

    @property
    def in_memory(self) -> int:
        return len(self._capacity.mails)

    @property
    def carrying(self) -> int:
        return sum(lane.busy for lane in self._capacity.lanes.values())


def _domains(lane: Lane) -> list[str]:
    """The domains of the mail that waits in a lane, or is carried. A next hop may have any number of them."""
    found: set[str] = set()
    carried = (slot.item for slot in lane.slots.values() if slot.item is not None)
    for item in islice(chain(carried, lane.ready), _LOOKED_MAX):
        found.update(item.mail.envelope.recipients[index].address.domain for index in item.indexes)
        if len(found) >= _DOMAINS_MAX:
            break
    return sorted(found)
