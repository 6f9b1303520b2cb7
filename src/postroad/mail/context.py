"""What a rule may know of a client and its mail when it is asked, and the face of rules: `Context -> Verdict`.

The rooms `receive` (which asks) and `check` (whose rules answer) meet here. A rule that knows its answer gives a
Verdict; only one that must wait gives an awaitable of one, and only then is a task made.
"""

from __future__ import annotations

import enum
from collections.abc import Awaitable, Callable

import msgspec

from postroad.mail.address import Address
from postroad.mail.envelope import Peer
from postroad.mail.verdict import Verdict


class Role(enum.Enum):
    """What a listener is for."""

    MX = "mx"  # mail from anywhere for our own domains
    SUBMISSION = "submission"  # mail from our users (RFC 6409)
    RELAY = "relay"  # mail from trusted networks to anywhere


class Context(msgspec.Struct, frozen=True, gc=False):
    """The facts at one moment of a session.

    `peer.identity` is the authenticated account; `trusted`: the client's address is in a trusted network of its
    listener. From MAIL on: `reverse_path` (None is the null reverse-path) and `size` (SIZE=, 0 where absent; in the
    message phase the octets of the content). At RCPT: `recipient`, and `recipients`, how many were accepted before it.
    `parameters`: of RCPT, beyond those of DSN, such as ("RRVS", "...").
    Message phase: `head`, the header section as the client sent it (`mail.message`), before anything was mended.
    """

    peer: Peer
    trusted: bool = False
    reverse_path: Address | None = None
    size: int = 0
    recipient: Address | None = None
    recipients: int = 0
    head: bytes = b""
    parameters: tuple[tuple[str, str], ...] = ()


Rule = Callable[[Context], Verdict | Awaitable[Verdict]]


class Rules(msgspec.Struct, frozen=True):
    """The rules of one listener, one composed rule per phase; None where the phase has none."""

    connect: Rule | None = None
    hello: Rule | None = None
    mail: Rule | None = None
    rcpt: Rule | None = None
    message: Rule | None = None
