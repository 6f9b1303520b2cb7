"""What the host of a client machine (`protocol.client`) sees of it: the step in which it waits, and its events."""

from __future__ import annotations

import enum

import msgspec

from postroad.mail.reply import Reply
from postroad.protocol.sending import Result


class Step(enum.IntEnum):
    """What the session waits for: a reply to this, or (last six) something of the host. IntEnum, as it is looked up for
    each reply, and its hash is that of a number."""

    GREETING = enum.auto()
    HELLO = enum.auto()
    HELO = enum.auto()  # after EHLO was refused
    STARTTLS = enum.auto()
    AUTH = enum.auto()
    RSET = enum.auto()
    XFORWARD = enum.auto()
    XCLIENT = enum.auto()
    MAIL = enum.auto()
    RCPT = enum.auto()
    DATA = enum.auto()
    END = enum.auto()  # end of data, or of the last chunk
    DOT = enum.auto()  # end of data that nobody was to get
    QUIT = enum.auto()
    IDLE = enum.auto()
    RESPONSE = enum.auto()  # to a challenge
    HANDSHAKE = enum.auto()
    CONTENT = enum.auto()
    CLOSED = enum.auto()


class SessionReady(msgspec.Struct, frozen=True):
    """EHLO, LHLO or HELO was accepted: `capabilities` are known, the session is idle."""


class StartHandshake(msgspec.Struct, frozen=True):
    """STARTTLS was accepted: the host starts TLS, then calls `tls_started`."""


class TlsRefused(msgspec.Struct, frozen=True):
    """STARTTLS was refused; the session is idle, in plaintext."""

    reply: Reply


class AuthChallenged(msgspec.Struct, frozen=True):
    """AUTH goes on: the host calls `respond`."""

    octets: bytes


class AuthSucceeded(msgspec.Struct, frozen=True):
    """AUTH succeeded; the session is idle."""


class AuthRefused(msgspec.Struct, frozen=True):
    """AUTH failed, the session is idle. `reply` None: the exchange was broken and cancelled by us."""

    reply: Reply | None


class XclientRefused(msgspec.Struct, frozen=True):
    """XCLIENT was refused; the session is as it was."""

    reply: Reply


class SendContent(msgspec.Struct, frozen=True):
    """The remote waits for the content: by BDAT, or dots stuffed with the end of data. Then call `content_sent`."""

    bdat: bool


class Finished(msgspec.Struct, frozen=True):
    """The transaction is over, one result per RCPT, in order. `excess`: which were refused only because there were
    too many in one transaction (RFC 5321 §4.5.3.1.10); they may follow in another one at once."""

    results: tuple[Result, ...]
    excess: frozenset[int] = frozenset()


class ConnectionEnded(msgspec.Struct, frozen=True):
    """The session is over; close the connection. `results`: as in Finished if a transaction was under way.
    `bdat_refused`: the remote refused BDAT as a command, though it had offered CHUNKING."""

    result: Result
    results: tuple[Result, ...] = ()
    bdat_refused: bool = False


class Goodbye(msgspec.Struct, frozen=True):
    """QUIT was answered."""


ClientEvent = (
    SessionReady
    | StartHandshake
    | TlsRefused
    | AuthChallenged
    | AuthSucceeded
    | AuthRefused
    | XclientRefused
    | SendContent
    | Finished
    | ConnectionEnded
    | Goodbye
)
