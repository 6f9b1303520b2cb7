"""The values that the stages give to the spool and get from it; no I/O."""

from __future__ import annotations

import enum

import msgspec

from postroad.mail.envelope import Envelope
from postroad.mail.event import Event
from postroad.mail.message import Content


class Stored(msgspec.Struct, frozen=True):
    """A message to be accepted, or as it stands in the spool. `only_crlf`: this process has seen that there is no CR
    and no LF outside a CRLF in the octets of `content`; never so of what was read from the disk."""

    envelope: Envelope
    content: Content
    only_crlf: bool = False


class NewContent(msgspec.Struct, frozen=True):
    """What takes the place of content in a file before it is accepted: `head` instead of its first `head_size` octets,
    and `body` (the empty line included) instead of the rest, None to keep that."""

    head: bytes
    head_size: int
    body: bytes | None = None


class Waiting(msgspec.Struct, frozen=True, array_like=True):
    """One recipient that waits for its next event.

    `index`: of the recipient in the envelope. `due_us`: when to try next. `destination`: the key
    (`mail.route.Destination`). `attempts`: tries so far. `held`: an operator or a rule holds it, `due_us` then counts
    for nothing. `delay_reported`: the sender has had a delay DSN. `status`, `text`, `remote`: of the last attempt, for
    the queue's listing. `released`: an operator has let it go on, so its route holds it no more.
    """

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
    """A message with those of its recipients that were asked for. Content is read apart (`Spool.content`)."""

    envelope: Envelope
    waiting: tuple[Waiting, ...]


class Settlement(msgspec.Struct, frozen=True):
    """What became of some recipients of one message; one commit with the DSNs that it brings and its events.

    `ended`: indexes of recipients that have come to their end. `waiting`: recipients with their new state, each
    replaces the old one. The first settlement of a fresh message names *all* its recipients, in one of the two. With
    its last recipient's end the message and its content go. `accepted`: new messages (DSNs), fresh as if they had come
    by SMTP.
    """

    id: int
    ended: tuple[int, ...] = ()
    waiting: tuple[Waiting, ...] = ()
    accepted: tuple[Stored, ...] = ()
    events: tuple[Event, ...] = ()


class Backlog(msgspec.Struct, frozen=True):
    """What waits for one destination: recipients in all, of these held, and when the first is due (0: all held)."""

    destination: str
    count: int
    held: int
    due_us: int


class WaitingMail(msgspec.Struct, frozen=True):
    """What waits by destination: some of them, how many there are, recipients in all, and of these held."""

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
    """Which messages an operator means; what is unset ("" / () / None) does not narrow, all that is set must hold.

    `ids`: queue ids. `message_id`: with or without angle brackets. `sender`, `recipient`: an address, or ``@domain``
    for all of a domain, ``@.domain`` for all of those below it, any case;
    ``<>`` is the null reverse-path; `recipient` also finds the address as it was given.
    `destination`: a destination's key. `held`: only messages with (or without any) held recipient.
    With `destination`, `held` or a `recipient` that waits no longer, only what still waits is looked at; a fresh
    message (accepted, never tried) has no destination yet and is not held.
    """

    ids: tuple[int, ...] = ()
    message_id: str = ""
    sender: str = ""
    recipient: str = ""
    destination: str = ""
    held: bool | None = None
    limit: int = 100_000
