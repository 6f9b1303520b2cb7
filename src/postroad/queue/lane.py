"""A lane: all that one destination has in memory, and the values that are in it.

What always holds: these are values with small moves; nothing here calls another part of the queue. Not here: what is
done with them (`queue.carrying`), how many there may be (`queue.capacity`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from postroad.mail import wishes
from postroad.mail.attempt import Attempt
from postroad.mail.courier import Courier
from postroad.mail.envelope import Envelope
from postroad.mail.job import Job, Sent
from postroad.mail.message import Content
from postroad.mail.route import Destination
from postroad.queue.order import FairQueue, source_of
from postroad.queue.pace import Pace
from postroad.store.values import Waiting

Opener = Callable[[Destination, Callable[[Courier | Attempt], None], Callable[[Courier], None]], None]
"""`open(destination, opened, lost)`. `opened` is called exactly once, never from within: with a courier, or with the
Attempt that says why there is none. `lost` is called at most once: an idle courier has become unusable."""


class QueuedMessage:
    """A message with recipients in memory. `states`: what the spool holds of its recipients, by index; None while the
    message is fresh: then the spool holds no rows of recipients, and the first settlement has to name all. `active`:
    indexes of the recipients in memory: in a lane, carried, or being settled. An index in `active` is never taken from
    the spool again. `failing`: recipients that have failed, with their attempts and destinations; they wait for others,
    so that one report names all. `known`: destinations that had to be looked up, by index; None if there are none."""

    __slots__ = (
        "active", "content", "envelope", "failing", "known", "octets", "only_crlf", "priority", "removed_next",
        "source", "states",
    )  # fmt: skip

    def __init__(
        self, envelope: Envelope, content: Content | None, states: dict[int, Waiting] | None, only_crlf: bool = False
    ) -> None:
        self.envelope = envelope
        self.content = content
        self.only_crlf = only_crlf  # of this `content`; not of what is read from the spool instead
        self.states = states
        self.active: set[int] = set()
        self.removed_next: list[Sequence[int]] = []  # indexes of settlements that wait for the one under way
        self.octets = 0  # counted against the memory budget
        self.priority = wishes.priority(envelope.parameters) if envelope.parameters else 0
        self.source = source_of(envelope)
        self.failing: list[tuple[int, Attempt, str]] = []
        self.known: dict[int, Destination] | None = None


class Item:
    """Some recipients of one message, ready for one destination. `replays`: how often it was put back at once.
    `content`: what was read for a connection that has ended, for the next one. `sent`: the names of sender and
    recipients for the destination, for each index; () if they are those of the envelope."""

    __slots__ = ("content", "indexes", "mail", "replays", "sent")

    def __init__(self, mail: QueuedMessage, indexes: tuple[int, ...], replays: int = 0) -> None:
        self.mail = mail
        self.indexes = indexes
        self.replays = replays
        self.content: Content | None = None
        self.sent: tuple[Sent, ...] = ()


class Slot:
    """A courier in a lane, with its permits, what it carries, and how many jobs it has carried. `seen`: this number at
    the last look whether it moves. `edition`: the settings with which it was opened."""

    __slots__ = ("carried", "courier", "edition", "item", "job", "lane", "scopes", "seen")

    def __init__(self, lane: Lane, courier: Courier, scopes: tuple[str, ...], edition: int = 0) -> None:
        self.lane = lane
        self.courier = courier
        self.scopes = scopes
        self.edition = edition
        self.item: Item | None = None
        self.job: Job | None = None
        self.carried = 0
        self.seen = -1


class PendingConnection:
    """A connection that is being opened, and its permits. `probe`: its destination failed before."""

    __slots__ = ("began", "probe", "scopes")

    def __init__(self, scopes: tuple[str, ...], began: float, probe: bool) -> None:
        self.scopes = scopes
        self.began = began
        self.probe = probe


class Lane:
    """One destination at work. `pace`: None until it is known which hosts serve the destination. `tokens`: how many
    messages its rate allows now, None if it has no rate. `asked`: whether a question for permits is open. `opening`:
    connections that are being opened. `successes`: messages that went well while it asked."""

    __slots__ = (
        "asked",
        "busy",
        "destination",
        "idle",
        "opening",
        "pace",
        "paying",
        "ready",
        "slots",
        "source",
        "starved",
        "successes",
        "tell_at",
        "to_give_up",
        "tokens",
    )  # fmt: skip

    def __init__(self, destination: Destination, source: str = "") -> None:
        self.destination = destination
        self.source = source  # of the mail that opened it
        self.pace: Pace | None = None
        self.tokens: int | None = None
        self.paying = False  # has asked for tokens
        self.ready: FairQueue[Item] = FairQueue()
        self.idle: list[Slot] = []
        self.slots: dict[Courier, Slot] = {}
        self.busy = 0
        self.opening = 0
        self.asked = False
        self.successes = 0
        self.tell_at = 0.0  # loop time from which they may be told again
        self.starved = False  # waits for one of the worker's connections
        self.to_give_up = 0  # couriers to give up for another worker, at their next pause

    @property
    def couriers(self) -> int:
        return len(self.slots) + self.opening

    @property
    def unused(self) -> bool:
        return not (len(self.ready) or self.slots or self.opening or self.asked or self.starved)

    def put(self, item: Item) -> None:
        self.ready.add(item.mail.source, item, item.mail.priority)

    def put_first(self, item: Item) -> None:
        self.ready.add_first(item.mail.source, item, item.mail.priority)
