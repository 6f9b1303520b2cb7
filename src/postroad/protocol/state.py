"""The order of commands: states, verbs, and one table of which command may follow (RFC 5321 §4.1.4 and extensions).

What always holds: a pair (state, verb) that is not in `NEXT` is answered 503 5.5.1 and changes nothing. The value is
the state after the command has *succeeded*; a refused command leaves the state as it was.

Three lifetimes, three values (nothing is ever reset field by field): the peer is the machine itself, `Session` is
replaced by EHLO and STARTTLS, `Transaction` by MAIL and dropped by RSET, EHLO and the end of content.
"""

from __future__ import annotations

import enum
from typing import Final

import msgspec

from postroad.mail.reply import Reply, reply
from postroad.protocol.command import Mail
from postroad.protocol.data import ChunkReader, Scrutiny
from postroad.protocol.extension import NO_TERMS, Terms
from postroad.protocol.offer import Offer


class State(enum.IntEnum):
    """Where a session is. IntEnum: its hash is that of a number, and the table is asked for each command."""

    CONNECTED = 0  # the greeting has not been given
    GREETED = 1  # no EHLO yet
    READY = 2  # no transaction
    MAIL = 3  # a transaction without an accepted recipient
    RCPT = 4  # with one at least
    CHUNKS = 5  # at least one BDAT was taken, none with LAST
    CONTENT = 6  # 354 was given
    AUTH = 7  # in an AUTH exchange
    TLS = 8  # 220 was given to STARTTLS
    CLOSED = 9


class Verb(enum.IntEnum):
    EHLO = 0
    HELO = 1
    LHLO = 2
    MAIL = 3
    RCPT = 4
    DATA = 5
    BDAT = 6
    RSET = 7
    NOOP = 8
    QUIT = 9
    VRFY = 10
    EXPN = 11
    HELP = 12
    STARTTLS = 13
    AUTH = 14
    ETRN = 15
    XCLIENT = 16
    XFORWARD = 17


_WAITING: Final = (State.GREETED, State.READY, State.MAIL, State.RCPT, State.CHUNKS)

NEXT: Final[dict[tuple[State, Verb], State]] = {
    # RFC 5321 §4.1.4: EHLO at any time, it acts as RSET
    **{(state, verb): State.READY for state in _WAITING for verb in (Verb.EHLO, Verb.HELO, Verb.LHLO)},
    # RFC 5321 §4.1.4: these at any time, also before EHLO; they change nothing
    **{
        (state, verb): state
        for state in _WAITING
        for verb in (Verb.NOOP, Verb.HELP, Verb.VRFY, Verb.EXPN)
    },
    # RFC 5321 §4.1.1.5: RSET at any time
    **{(state, Verb.RSET): State.READY for state in _WAITING},
    (State.GREETED, Verb.RSET): State.GREETED,
    # RFC 5321 §4.1.1.10: QUIT at any time
    **{(state, Verb.QUIT): State.CLOSED for state in _WAITING},
    # RFC 5321 §3.3, §4.1.4: MAIL, RCPT…, DATA
    (State.READY, Verb.MAIL): State.MAIL,
    (State.MAIL, Verb.RCPT): State.RCPT,
    (State.RCPT, Verb.RCPT): State.RCPT,
    (State.RCPT, Verb.DATA): State.CONTENT,
    # RFC 3030 §2: BDAT… instead of DATA, never mixed with it
    (State.RCPT, Verb.BDAT): State.CHUNKS,
    (State.CHUNKS, Verb.BDAT): State.CHUNKS,
    # RFC 3207 §4: after EHLO, which announced it
    (State.READY, Verb.STARTTLS): State.TLS,
    # RFC 4954 §4: not during a mail transaction
    (State.READY, Verb.AUTH): State.AUTH,
    # RFC 1985 §5
    (State.READY, Verb.ETRN): State.READY,
    # XCLIENT_README: "the SMTP server … starts over", with a new greeting; XFORWARD_README: before MAIL
    (State.READY, Verb.XCLIENT): State.GREETED,
    (State.READY, Verb.XFORWARD): State.READY,
}

# What 503 says, by state (RFC 5321 §4.1.4).
BAD_ORDER: Final[dict[State, Reply]] = {
    State.GREETED: reply(503, "5.5.1", "Bad sequence of commands, say hello first"),
    State.READY: reply(503, "5.5.1", "Bad sequence of commands, no transaction is open"),
    State.MAIL: reply(503, "5.5.1", "Bad sequence of commands, recipients come next"),
    State.RCPT: reply(503, "5.5.1", "Bad sequence of commands, a transaction is open"),
    State.CHUNKS: reply(503, "5.5.1", "Bad sequence of commands, BDAT has begun"),
}


class Session(msgspec.Struct, frozen=True):
    """From EHLO, HELO, LHLO or the handshake on (RFC 5321 §4.1.4, RFC 3207 §4.2). `identity` outlives a new EHLO.
    `gone`: the terms that EHLO has announced, where some of them have been taken back since."""

    offer: Offer
    terms: Terms = NO_TERMS
    hello: str = ""
    esmtp: bool = False
    identity: str = ""
    gone: Terms | None = None


class Transaction:
    """From MAIL to the end of content, RSET or EHLO (RFC 5321 §3.3). `accepted`, `refused`: recipients so far."""

    __slots__ = ("accepted", "chunks", "mail", "refused", "scrutiny")

    def __init__(self, mail: Mail) -> None:
        self.mail = mail
        self.accepted = 0
        self.refused = 0
        self.scrutiny: Scrutiny | None = None
        self.chunks: ChunkReader | None = None
