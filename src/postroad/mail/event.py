"""Events: the facts of what happened. Log, history, metrics, `trace` and web pages all read this one stream.

Each event belongs to one message (`id`, the queue id) or to none (0: sessions, the node), and has a time (`at_us`).
Events that change the state of a message are committed with that change (promise 3), in the shard's journal.
"""

from __future__ import annotations

from typing import Final

import msgspec

from postroad.mail.attempt import Attempt
from postroad.mail.envelope import Peer
from postroad.mail.evaluation import Evaluation


class _Event(msgspec.Struct, frozen=True, array_like=True, tag_field="kind"):
    at_us: int
    id: int


class Accepted(_Event, frozen=True, array_like=True, tag="accepted"):
    """A message has been accepted: its responsibility is ours. `took_us`: from MAIL to the commit."""

    reverse_path: str  # "" for the null reverse-path
    recipients: tuple[str, ...]
    size: int
    message_id: str
    peer: Peer
    envid: str = ""
    parent: int = 0
    took_us: int = 0


class Expanded(_Event, frozen=True, array_like=True, tag="expanded"):
    """An alias has turned one recipient into others, at acceptance. `listed`: it is a list with an owner, whose members
    have another sender."""

    recipient: str
    into: tuple[str, ...]
    listed: bool = False


class Attempted(_Event, frozen=True, array_like=True, tag="attempted"):
    """One attempt with one outcome for these recipients. `next_us`: when the next follows, 0 if none does.

    `attempts`: how many there have been, this one included.
    """

    recipients: tuple[str, ...]
    destination: str
    attempt: Attempt
    attempts: int = 1
    next_us: int = 0


class Failed(_Event, frozen=True, array_like=True, tag="failed"):
    """Recipients have come to an end without delivery other than by an attempt's failure: expired, routed nowhere,
    failed by an operator. `by`: "" or who did it."""

    recipients: tuple[str, ...]
    status: str
    text: str
    by: str = ""


class Reported(_Event, frozen=True, array_like=True, tag="reported"):
    """A DSN has been made and accepted (`report`: its queue id), or why not (`report` = 0, `text`)."""

    recipients: tuple[str, ...]
    action: str
    report: int = 0
    text: str = ""


class Held(_Event, frozen=True, array_like=True, tag="held"):
    recipients: tuple[str, ...]
    by: str = ""
    text: str = ""


class Released(_Event, frozen=True, array_like=True, tag="released"):
    """Released from hold, or asked to be tried at once (`now`)."""

    recipients: tuple[str, ...]
    by: str = ""
    now: bool = False


class Removed(_Event, frozen=True, array_like=True, tag="removed"):
    """Discarded by an operator or a rule, without a DSN."""

    recipients: tuple[str, ...]
    by: str = ""
    text: str = ""


class Refused(_Event, frozen=True, array_like=True, tag="refused"):
    """A command of a client was refused (`id` 0): `phase` is the verb, `reply` what we said, "" if we could say
    nothing (before a TLS handshake).

    `reason`: what the rule said of it, shorter than the reply; the account name that was tried, if AUTH failed.
    `recipients`: whom the message was for, if it was refused after RCPT; else `recipient`, at RCPT. `why`: why AUTH was
    refused, if not because password or token were wrong.
    """

    peer: Peer
    phase: str
    reply: str
    reverse_path: str = ""
    recipient: str = ""
    reason: str = ""
    recipients: tuple[str, ...] = ()
    why: str = ""


class Authenticated(_Event, frozen=True, array_like=True, tag="authenticated"):
    """A client has shown that it is the account `peer.identity` (`id` 0; a failure is Refused with the phase AUTH)."""

    peer: Peer
    mechanism: str


BROKEN_OFF: Final = "shutdown in the middle of a transaction"  # why a session ended


class SessionEnded(_Event, frozen=True, array_like=True, tag="session"):
    """A client's session ended (`id` 0). `refusal`: the last error of protocol as it was answered, "" for none."""

    peer: Peer
    reason: str
    messages: int = 0
    errors: int = 0
    took_us: int = 0
    refusal: str = ""


class Noted(_Event, frozen=True, array_like=True, tag="noted"):
    """Something about the node worth a line (`id` 0 or a message's): `level` is debug, info, warning or error."""

    level: str
    text: str


class Inspected(_Event, frozen=True, array_like=True, tag="checked"):
    """A rule or an inspection told what it found about a message that was accepted."""

    rule: str
    result: str
    text: str = ""


class Rewritten(_Event, frozen=True, array_like=True, tag="rewritten"):
    """Rules or inspections changed a message before it was accepted. `changes`: each in words, in their order.
    `sender`: as the client named it, if it is another one now; "" if not."""

    changes: tuple[str, ...]
    sender: str = ""


class Evaluated(_Event, frozen=True, array_like=True, tag="evaluated"):
    """What SPF, DKIM, DMARC, ARC and iprev found about a message that was accepted, or refused after its content for
    what they found (`id` 0)."""

    evaluation: Evaluation


Event = (
    Accepted
    | Expanded
    | Attempted
    | Failed
    | Reported
    | Held
    | Released
    | Removed
    | Refused
    | Authenticated
    | SessionEnded
    | Noted
    | Inspected
    | Rewritten
    | Evaluated
)
