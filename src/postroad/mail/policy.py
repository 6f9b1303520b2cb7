"""What a rule is asked and what it may answer: the face between `receive`, which brings mail, and those who judge it.

Two kinds of judges, asked in the phases CONNECT, HELLO, MAIL, RCPT, DATA and MESSAGE:

- A **Rule** has no memory: `Question -> Verdict`. `check` makes one composed rule for each phase of a listener.
- An **Inspector** makes an **Inspection** of each session that interests it. An inspection has memory, may see the
  content piece by piece, and is asked in every phase.

The contract of a rule:

1. It is called on the event loop and does not block. If it must wait, it returns an awaitable of its Verdict, else the
   Verdict itself; only an awaitable costs a task.
2. It does not raise. An exception is a bug: it is logged, and the client hears 451 4.3.0 (421, and the end of the
   session, if a rule of `check` raises at once).
3. REJECT and DEFER end the phase. The effects of such a verdict, and of those before it in the phase, are not applied.
4. Effects are applied in their order, and each later rule of the phase sees what the earlier ones changed.

The contract of an inspection, beyond that of a rule:

1. `Inspector.visit` is called once when a session has begun, before CONNECT is asked. None: it does not want to see
   this session. A client that XCLIENT names is a new session. STARTTLS and a reload of settings make none.
2. `ask` is called for one question at a time: never before the last verdict has come, or was given up.
3. The listener's rule is asked first, then the inspections in the order of the configuration. After a refusal the
   others are not asked.
4. A transaction is MAIL, RCPT for each recipient, DATA once before 354, then `content` for each piece in its order if
   `reads_content`, then MESSAGE once. With BDAT, DATA is asked between the last piece and MESSAGE. Content
   is as the client sent it, before anything was mended.
5. `aborted` is called once for each transaction whose MAIL was asked and which was not handed to the spool: after RSET,
   a new EHLO, a refused MAIL or message, or when the client is gone. It may be called while a verdict is awaited, which
   then counts for nothing.
6. `ended` is called exactly once, at the end of the session, after everything else. Nothing is called after it.
7. If an inspection raises, only `ended` is still called. All further questions of its session are answered 451 4.3.0,
   because nobody knows what the inspection would have said.

Not here: applying effects to a header section (`mail.effects`), who applies them and when (`receive.intake`).
"""

from __future__ import annotations

import enum
from collections.abc import Awaitable, Callable
from typing import Final, Protocol

import msgspec

from postroad.mail.address import Address
from postroad.mail.envelope import Peer
from postroad.mail.evaluation import Evaluation
from postroad.mail.reply import Reply


class Role(enum.Enum):
    """What a listener is for."""

    MX = "mx"  # mail from anywhere for our own domains
    SUBMISSION = "submission"  # mail from our users (RFC 6409)
    RELAY = "relay"  # mail from trusted networks to anywhere


class Phase(enum.Enum):
    """When a rule or an inspection is asked. The values are the verbs that log and history show."""

    CONNECT = "CONNECT"
    HELLO = "EHLO"
    MAIL = "MAIL"
    RCPT = "RCPT"
    DATA = "DATA"
    MESSAGE = "MESSAGE"


class Question(msgspec.Struct, frozen=True, gc=False):
    """The facts at one moment of a session.

    `peer.identity` is the authenticated account; `trusted`: the client's address is in a trusted network of its
    listener. From MAIL on: `reverse_path` (None is the null reverse-path) and `size` (SIZE=, 0 if absent; in the
    message phase the octets of the content). At RCPT: `recipient`, and `recipients`, how many were accepted before it.
    `parameters`: of RCPT, beyond those of DSN, such as ("RRVS", "...").
    Message phase: `head`, the header section as the client sent it (`mail.message`), before anything was mended, with
    the changes of those that were asked before. `id`: the queue id, from DATA on.
    """

    peer: Peer
    trusted: bool = False
    reverse_path: Address | None = None
    size: int = 0
    recipient: Address | None = None
    recipients: int = 0
    head: bytes = b""
    parameters: tuple[tuple[str, str], ...] = ()
    phase: Phase = Phase.CONNECT
    id: int = 0


# ---- Effects


class Prepend(msgspec.Struct, frozen=True, tag=True):
    """A header field on top of the message, above Received. `value` as it is to stand behind "Name: ", folded with
    CRLF if it is long; so in all effects. `told`: the history says so."""

    name: str
    value: bytes
    told: bool = True


class Append(msgspec.Struct, frozen=True, tag=True):
    """A header field at the end of the header section."""

    name: str
    value: bytes


class SetField(msgspec.Struct, frozen=True, tag=True):
    """The first field of this name gets the value, further ones of the name go. If there is none, as Append."""

    name: str
    value: bytes


class RemoveField(msgspec.Struct, frozen=True, tag=True):
    """All fields of this name go; with `only` those for whose value it is true."""

    name: str
    only: Callable[[bytes], bool] | None = None


class ReplaceBody(msgspec.Struct, frozen=True, tag=True):
    """What follows the empty line behind the header section becomes `octets`, with CRLF as the only line end."""

    octets: bytes


class AddRecipient(msgspec.Struct, frozen=True, tag=True):
    """The message goes to this mailbox, too. It is not asked about at RCPT."""

    address: Address


class DropRecipient(msgspec.Struct, frozen=True, tag=True):
    """The message does not go to this recipient, whom the client named. Its history says why."""

    address: Address


class Redirect(msgspec.Struct, frozen=True, tag=True):
    """The message goes to this mailbox in place of all recipients whom the client named. Their history says why."""

    address: Address


class SetReversePath(msgspec.Struct, frozen=True, tag=True):
    """The message has another reverse-path; None is the null reverse-path."""

    address: Address | None


class Record(msgspec.Struct, frozen=True, tag=True):
    """Something for log and history that changes nothing: `rule` found `result`, `text` in words."""

    rule: str
    result: str
    text: str = ""


class Evaluate(msgspec.Struct, frozen=True, tag=True):
    """What SPF, DKIM, DMARC, ARC and iprev found, for log and history. It changes nothing."""

    evaluation: Evaluation


HeaderEffect = Prepend | Append | SetField | RemoveField
Effect = HeaderEffect | ReplaceBody | AddRecipient | DropRecipient | Redirect | SetReversePath | Record | Evaluate

EFFECTS_MAX: Final = 1_000  # effects on one message, over all phases; more are a fault of a rule


# ---- Verdicts


class Action(enum.Enum):
    ACCEPT = "accept"
    REJECT = "reject"
    DEFER = "defer"
    HOLD = "hold"
    DISCARD = "discard"


class Verdict(msgspec.Struct, frozen=True):
    """What the judge answers. ACCEPT lets the way go on. The Reply of REJECT and DEFER goes to the client as it stands;
    HOLD accepts the message yet keeps it until an operator releases it; DISCARD accepts it and lets it go with an
    event. `reason` is for the log and the history; `disconnect` closes the session after the reply (421).

    `effects`: from MAIL on, what is to change of the message. SetReversePath is applied at once, all others when the
    content has come, in the order in which they were asked for. Before MAIL effects do not count.
    """

    action: Action
    reply: Reply | None = None
    reason: str = ""
    disconnect: bool = False
    effects: tuple[Effect, ...] = ()


ACCEPT: Final = Verdict(Action.ACCEPT)


def reject(code: int, status: str, text: str, reason: str = "") -> Verdict:
    """A permanent refusal, `code` 5xx."""
    return Verdict(Action.REJECT, Reply(code, status, tuple(text.split("\n"))), reason or text)


def defer(code: int, status: str, text: str, reason: str = "", *, disconnect: bool = False) -> Verdict:
    """A refusal for now, `code` 4xx."""
    return Verdict(Action.DEFER, Reply(code, status, tuple(text.split("\n"))), reason or text, disconnect)


def accept(*effects: Effect) -> Verdict:
    """Let it go on, with these effects."""
    return Verdict(Action.ACCEPT, effects=effects)


# ---- Judges

Answer = Verdict | Awaitable[Verdict]
Rule = Callable[[Question], Answer]


class Rules(msgspec.Struct, frozen=True):
    """The rules of one listener, one composed rule per phase; None if the phase has none."""

    connect: Rule | None = None
    hello: Rule | None = None
    mail: Rule | None = None
    rcpt: Rule | None = None
    message: Rule | None = None


class Inspection(Protocol):
    """One session, seen by one inspector. The contract stands at the top of this module."""

    reads_content: bool

    def ask(self, question: Question) -> Answer:
        """The verdict on one phase."""

    def content(self, octets: bytes) -> None:
        """One piece of the content."""

    def aborted(self) -> None:
        """The transaction came to nothing."""

    def ended(self) -> None:
        """The session is over."""


class Inspector(Protocol):
    """Makes inspections. One for a listener; it may be asked by many sessions at a time."""

    def visit(self, peer: Peer) -> Inspection | None:
        """The inspection of a session that begins; None if this client does not interest the inspector."""
