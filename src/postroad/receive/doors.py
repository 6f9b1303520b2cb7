"""The doors that `node` hands to the receive stage: the spool, the clock, TLS, and the knowledge of other stages.

Each is a function, so that a test or a simulation puts its own in place. All are called on the event loop. Those with a
callback call it there, exactly once.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Protocol

from postroad.accounts.authenticate import Authenticator
from postroad.accounts.sender_maps import MaySend, Owns
from postroad.mail.address import Address
from postroad.mail.envelope import Envelope, Peer, Recipient
from postroad.mail.event import Event
from postroad.mail.expansion import Expansion, Passed
from postroad.mail.loop import Marks
from postroad.mail.policy import Verdict
from postroad.mail.reply import Reply
from postroad.mail.report import RecipientReport
from postroad.mail.rewriting import Rewrite
from postroad.mail.size_limits import SizeLimits
from postroad.maps.face import NotNow
from postroad.protocol.etrn import Wish
from postroad.receive.budget import Budget
from postroad.receive.refusal_notes import SEVERAL, RefusalNotes
from postroad.receive.turns import Turns
from postroad.store.face import ContentSink
from postroad.store.values import Failure, Stored, Waiting
from postroad.world.network import Network
from postroad.world.tls import ClientCertificatePolicy

Members = Sequence[Address] | NotNow | None

__all__ = [
    "AcceptMessage",
    "ArrivingClient",
    "ContentSink",
    "Doors",
    "Expand",
    "Expansion",
    "Knowing",
    "Limiting",
    "Members",
    "Storing",
]  # fmt: skip


class Expand(Protocol):
    def __call__(
        self, id: int, now_us: int, recipients: tuple[Recipient, ...], passed: Passed | None = None
    ) -> Expansion | Awaitable[Expansion]:
        """What aliases make of the recipients of message `id`; an awaitable if a map must be waited for. `passed`: the
        aliases that it came through before."""


class ArrivingClient(Protocol):
    """The place of a client among those who are on their way with a message (`store.arrivals`)."""

    def leave(self) -> None: ...


def _uncounted(address: str) -> None:
    """For who does not count offences."""


class MakeReport(Protocol):
    def __call__(
        self, reports: Sequence[RecipientReport], stored: Stored, new_id: Callable[[int], int] | None = None
    ) -> tuple[tuple[Stored, ...], tuple[Event, ...]]:
        """The DSNs of these recipients of a message, and their events. `new_id`: gives their ids, by the shard."""


def _no_report(
    reports: Sequence[RecipientReport], stored: Stored, new_id: Callable[[int], int] | None = None
) -> tuple[tuple[Stored, ...], tuple[Event, ...]]:
    """For who makes none."""
    return (), ()


def _always(transport: asyncio.BaseTransport) -> bool:
    """For who has no limit of file descriptors."""
    return True


class AcceptMessage(Protocol):
    def __call__(
        self,
        stored: Stored,
        events: tuple[Event, ...],
        done: Callable[[Failure | None], None],
        waiting: tuple[Waiting, ...] = (),
        reports: tuple[Stored, ...] = (),
    ) -> None:
        """One commit: the message, its events, how its recipients wait (() is fresh), and the DSNs that it brings."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Storing:
    """The doors to the spool and to the queue behind it.

    `join()`: a client has connected or begun a message; it leaves its place when it hands it over, or will not.
    `new_id`, `accept`, `incoming(id)`: the spool. `queued(stored)`: this message (or DSN) is committed and fresh: the
    queue takes it over. `held(envelope, text)`: how the recipients wait if a rule holds the message. `waiting(id,
    rows)`: a message is committed that is not fresh: the queue looks at those of its rows that are not held when they
    are due. `reports(stored, given, events)`: the "expanded" DSNs, and their events, that an expansion of the
    recipients `given` brings (RFC 3461 §5.2.7.3). `report(reports, stored)`: the DSNs of recipients who were refused
    when the message was taken.
    """

    join: Callable[[], ArrivingClient]
    new_id: Callable[[], int]
    accept: AcceptMessage
    incoming: Callable[[int], ContentSink]
    queued: Callable[[Stored], None]
    held: Callable[[Envelope, str], tuple[Waiting, ...]]
    waiting: Callable[[int, tuple[Waiting, ...]], None]
    reports: Callable[
        [Stored, tuple[Recipient, ...], tuple[Event, ...]], tuple[tuple[Stored, ...], tuple[Event, ...]]
    ]
    report: MakeReport = _no_report


@dataclass(frozen=True, slots=True, kw_only=True)
class Knowing:
    """The doors to what is known of mailboxes and accounts.

    `expand(id, now_us, recipients, passed)`: aliases. `marks`: those that stop loops; None: none are made or looked
    for. `known(mailbox)`: whether a mailbox is ours: True, False, or None if its domain is not (for VRFY).
    `members(mailbox)`: whom an alias leads to in the end; None if there is no such alias, NotNow if nobody can tell
    now (for EXPN).
    `owns(account, mailbox)`: whether an account may call itself so, as far as that is known at once. `sends_as`: the
    same where maps may be waited for; None: `owns` knows all.
    `authenticator`: None if no listener has AUTH. `etrn(peer, wish, done)`: starts a queue, `done` gets the reply
    (RFC 1985 §5.3); None if ETRN is off. `rewrite`: other addresses, and copies; None: the settings want none.
    `sizes`: the largest messages that destinations take, as far as it is known; `exceeded(envelope)`: the limit of
    these that a message exceeds for all its recipients, 0 if it may fit for one. `is_here`: whether a client is this
    machine.
    """

    expand: Expand
    known: Callable[[Address], bool | Awaitable[bool | None] | None]
    members: Callable[[Address], Members | Awaitable[Members]]
    owns: Callable[[str, Address], bool]
    sends_as: Owns | None = None
    marks: Marks | None = None
    authenticator: Authenticator | None = None
    etrn: Callable[[Peer, Wish, Callable[[Reply], None]], None] | None = None
    rewrite: Rewrite | None = None
    sizes: SizeLimits = field(default_factory=SizeLimits)
    exceeded: Callable[[Envelope], int] = lambda envelope: 0
    is_here: Callable[[Peer], bool] = lambda peer: False

    def may_send(self, account: str, mailbox: Address) -> MaySend:
        """Whether an account may send from there."""
        return self.owns(account, mailbox) if self.sends_as is None else self.sends_as(account, mailbox)


@dataclass(frozen=True, slots=True, kw_only=True)
class Limiting:
    """The doors to what is counted and bounded for all sessions.

    `admit(address, trusted, auth)` and `left(address)`: counts of sessions (`check.client.Clients`).
    `offended(address)`: a session of a client was ended for what it did (`check.client`). `has_room(transport)`:
    whether a session on it leaves enough file descriptors for the rest of the node. `budget`: the memory that content
    may take while it arrives. `sent(peer, sender, recipients, messages)`: counts what the node has taken
    (`check.sending`), negative what came to nothing; None if nothing limits that. `over(peer, sender, recipients,
    size)`: the verdict about one more message, just before it is counted; None likewise. `turns`: sessions that have
    more to say than is handled at once. `turned`: refusals of which one client can bring about any number.
    """

    admit: Callable[[str, bool, bool], Verdict]
    left: Callable[[str], None]
    offended: Callable[[str], None] = _uncounted
    has_room: Callable[[asyncio.BaseTransport], bool] = _always
    budget: Budget = field(default_factory=Budget)
    turns: Turns = field(default_factory=Turns)
    turned: RefusalNotes = field(default_factory=partial(RefusalNotes, SEVERAL))
    sent: Callable[[Peer, Address | None, int, int], None] | None = None
    over: Callable[[Peer, Address | None, int, int], Verdict] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Doors:
    """The doors of all listeners of a worker.

    `record`: events for the journal and the log: refusals, log-ins, ends of sessions; `log`: events for the log only:
    failures of ours. The events of an acceptance go to `Storing.accept`, and the spool publishes them
    (`store.face.Events`). `tls_context(asking)`: the server's TLS context for a handshake that begins now; None if no
    certificate is set, or clients are not asked like that any more.
    """

    loop: asyncio.AbstractEventLoop
    now_us: Callable[[], int]
    record: Callable[[tuple[Event, ...]], None]
    log: Callable[[tuple[Event, ...]], None]
    network: Network
    tls_context: Callable[[ClientCertificatePolicy], ssl.SSLContext | None]
    storing: Storing
    knowing: Knowing
    limiting: Limiting
