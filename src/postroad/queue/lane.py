"""A lane: all that one destination has in memory. Values and small moves only; `queue.Queue` is the one that acts."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from typing import Protocol

from postroad.mail import wishes
from postroad.mail.attempt import Attempt
from postroad.mail.envelope import Envelope
from postroad.mail.job import Job
from postroad.mail.message import Content
from postroad.mail.route import Destination
from postroad.store.values import Waiting


class Courier(Protocol):
    """One kept connection to a destination, or a writer of local mail; see docs/flow.md."""

    def carry(self, job: Job, done: Callable[[Job, tuple[Attempt, ...]], None]) -> None: ...

    @property
    def usable(self) -> bool: ...

    @property
    def elsewhere(self) -> bool: ...

    def close(self) -> None: ...


Opener = Callable[[Destination, Callable[[Courier | Attempt], None], Callable[[Courier], None]], None]


class Mail:
    """A message with recipients in memory.

    `states`: what the spool holds of its recipients, by place; None while the message is fresh, when the spool holds
    no recipient rows and the first settlement has to name all. `active`: places that are in memory: in a lane, being
    carried, or being settled. A place in `active` is never taken from the spool again.
    """

    __slots__ = ("active", "content", "envelope", "leaving", "octets", "priority", "states")

    def __init__(self, envelope: Envelope, content: Content | None, states: dict[int, Waiting] | None) -> None:
        self.envelope = envelope
        self.content = content
        self.states = states
        self.active: set[int] = set()
        self.leaving: list[Sequence[int]] = []  # places of settlements that wait for the one under way
        self.octets = 0  # counted against the memory budget
        self.priority = wishes.priority(envelope.parameters) if envelope.parameters else 0


class Item:
    """Some recipients of one message, ready for one destination. `replays`: times it was put back at once."""

    __slots__ = ("mail", "places", "replays")

    def __init__(self, mail: Mail, places: tuple[int, ...], replays: int = 0) -> None:
        self.mail = mail
        self.places = places
        self.replays = replays


class Slot:
    """A courier in a lane, what it carries, and how many jobs it has carried before."""

    __slots__ = ("carried", "courier", "item", "job", "lane")

    def __init__(self, lane: Lane, courier: Courier) -> None:
        self.lane = lane
        self.courier = courier
        self.item: Item | None = None
        self.job: Job | None = None
        self.carried = 0


class Lane:
    """One destination at work. `opening`: couriers asked for (permit or connection) and not there yet."""

    __slots__ = ("busy", "destination", "idle", "opening", "ranked", "ready", "slots", "starved", "surrender")

    def __init__(self, destination: Destination) -> None:
        self.destination = destination
        self.ready: deque[Item] = deque()
        self.idle: list[Slot] = []
        self.slots: dict[Courier, Slot] = {}
        self.busy = 0
        self.opening = 0
        self.starved = False  # waits for one of the worker's connections
        self.surrender = 0  # couriers to give up for another worker, at their next pause
        self.ranked = False  # something in `ready` has, or had not long ago, a priority of its own

    def put(self, item: Item) -> None:
        """Behind all that is as urgent (RFC 6710 §5: the more urgent first, in each class as it came)."""
        ready, priority = self.ready, item.mail.priority
        if not ready:
            self.ranked = priority != 0
        elif priority:
            self.ranked = True
        if not self.ranked:
            ready.append(item)
            return
        behind = 0
        for other in reversed(ready):
            if other.mail.priority >= priority:
                break
            behind += 1
        ready.insert(len(ready) - behind, item)

    @property
    def couriers(self) -> int:
        return len(self.slots) + self.opening

    @property
    def unused(self) -> bool:
        return not (self.ready or self.slots or self.opening or self.starved)


class Trouble:
    """A destination that could not be reached: how often in a row, until when it is left alone, and why."""

    __slots__ = ("attempt", "failures", "until_us")

    def __init__(self, failures: int, until_us: int, attempt: Attempt) -> None:
        self.failures = failures
        self.until_us = until_us
        self.attempt = attempt
