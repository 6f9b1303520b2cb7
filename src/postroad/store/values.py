"""The values that the stages give to the spool and get from it; no I/O."""

from __future__ import annotations

import enum

import msgspec

from postroad.mail.envelope import Envelope
from postroad.mail.event import Event
from postroad.mail.message import Content


class Stored(msgspec.Struct, frozen=True):
    """A message to be accepted, or as it stands in the spool. `only_crlf`: this process has seen that the octets of
    `content` have CR and LF only as CRLF; it is never set for content that was read from the disk."""

    envelope: Envelope
    content: Content
    only_crlf: bool = False


class NewContent(msgspec.Struct, frozen=True):
    """The content that takes the place of content in a file before it is accepted: `head` instead of its first
    `head_size` octets, and `body` (the empty line included) instead of the rest; None keeps the rest."""

    head: bytes
    head_size: int
    body: bytes | None = None


class Waiting(msgspec.Struct, frozen=True, array_like=True):
    """One recipient that waits for its next event. `index`: of the recipient in the envelope. `due_us`: when to try
    next. `destination`: the key (`mail.route.Destination`). `attempts`: how many there were. `held`: an operator or a
    rule holds it; then `due_us` does not count. `delay_reported`: the sender has had a delay DSN. `status`, `text`,
    `remote`: of the last attempt, for lists of the queue. `released`: an operator has released it, so its route does
    not hold it any more."""

    index: int
    due_us: int
    destination: str
    attempts: int = 0
    held: bool = False
    delay_reported: bool = False
    status: str = ""
    text: str = ""
    remote: str = ""
    last_us: int = 0
    released: bool = False


class Loaded(msgspec.Struct, frozen=True):
    """A message with those of its recipients that were asked for. Content is read separately (`Spool.content`)."""

    envelope: Envelope
    waiting: tuple[Waiting, ...]


class Settlement(msgspec.Struct, frozen=True):
    """What became of some recipients of one message: one commit, with the DSNs that it brings and its events. `ended`:
    indexes of recipients that have their end. `waiting`: recipients with their new state, each of which replaces the
    old one. The first settlement of a fresh message names *all* its recipients, in one of the two. When the last
    recipient has its end, the message and its content are removed. `accepted`: new messages (DSNs), fresh as if they
    had come by SMTP."""

    id: int
    ended: tuple[int, ...] = ()
    waiting: tuple[Waiting, ...] = ()
    accepted: tuple[Stored, ...] = ()
    events: tuple[Event, ...] = ()


class Backlog(msgspec.Struct, frozen=True):
    """What waits for one destination: recipients in all, how many of these are held, and when the first is due (0: all
    are held)."""

    destination: str
    count: int
    held: int
    due_us: int


class WaitingMail(msgspec.Struct, frozen=True):
    """What waits by destination: some of the destinations, how many there are, recipients in all, and how many of these
    are held."""

    shown: tuple[Backlog, ...] = ()
    destinations: int = 0
    recipients: int = 0
    held: int = 0


class FailureKind(enum.Enum):
    """Why the spool could not do what was asked. Nothing of the operation is stored; it may be asked again."""

    FULL = "full"  # no space, or less than the budget leaves for new mail: 452 4.3.1
    IO = "io"  # the disk or the database failed: 451 4.3.0
    CLOSED = "closed"  # the spool is closing or closed: 421 4.3.2
    INVALID = "invalid"  # this operation alone cannot be stored (beyond a limit of the engine): 554 5.3.0


class Failure(msgspec.Struct, frozen=True):
    """`text` is for the log: what failed, where."""

    kind: FailureKind
    text: str


class Selection(msgspec.Struct, frozen=True):
    """The messages that an operator means. All fields that are set must match; a field that is unset ("" / () / None)
    does not matter. `ids`: queue ids. `message_id`: with or without angle brackets. `sender`, `recipient`: an address,
    ``@domain`` for all of a domain, ``@.domain`` for all domains below it, in upper or lower case; ``<>`` is the null
    reverse-path; `recipient` also finds the address as the client named it. `destination`: a destination's key. `held`:
    only messages with (or without any) held recipient. With `destination`, `held` or a `recipient` that does not wait
    any more, only recipients that still wait count; a fresh message (accepted, never tried) has no destination yet and
    is not held."""

    ids: tuple[int, ...] = ()
    message_id: str = ""
    sender: str = ""
    recipient: str = ""
    destination: str = ""
    held: bool | None = None
    limit: int = 100_000
