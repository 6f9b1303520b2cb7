"""One event as one line of the log, for people or as JSON. Pure.

What always holds: a line holds nothing unprintable (control octets, ANSI escapes, C1 controls, line separators,
bidirectional overrides are escaped), so it is one line and no terminal acts upon it; a JSON line is one JSON object.
Its keys are the same for every event of a kind, in one order, and stay: ``time`` (ISO 8601, UTC, microseconds),
``level``, ``kind``, ``id`` (queue id, "" for none), then the fields of the kind's struct below. Durations are in
microseconds (``*_us``).

How it fails: it does not; text that cannot be encoded is escaped.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from functools import lru_cache
from typing import Any, Final

import msgspec

from postroad.mail import identifier
from postroad.mail.attempt import Outcome
from postroad.mail.envelope import Peer
from postroad.mail.event import (
    BROKEN_OFF,
    Accepted,
    Attempted,
    Authenticated,
    Event,
    Expanded,
    Failed,
    Held,
    Inspected,
    Noted,
    Refused,
    Released,
    Removed,
    Reported,
    Rewritten,
    SessionEnded,
)
from postroad.mail.numbers import counted
from postroad.mail.reply import Reply
from postroad.mail.tls_details import TlsDetails
from postroad.report.client import ClientLine, TlsLine, behind, client_line, quoted, tls_line, whereabouts
from postroad.report.text import shorten

DEBUG, INFO, WARNING, ERROR = range(4)
LEVELS: Final = ("debug", "info", "warning", "error")
_RANKS: Final = {"debug": DEBUG, "info": INFO, "warning": WARNING, "error": ERROR}
_ENCODER: Final = msgspec.json.Encoder()
_ACCOUNT_MAX: Final = 200  # characters of an account's name that a client has tried
_NAMES_MAX: Final = 100  # recipients that one line names; the history has all
UNSAID: Final = "closed without a reply"  # a refusal before a TLS handshake


_HANDSHAKE: Final = re.compile("TLS handshake|TLS is not spoken")
# Members of an Enum by plain names: on Python 3.11 each access through its class costs a look-up more.
_FAILED: Final = Outcome.FAILED


def rank_of(event: Event) -> int:
    """How much an event matters, an index into `LEVELS`: what an operator may have to act upon is a warning."""
    match event:
        case Accepted():
            return INFO
        case Attempted():
            return WARNING if event.attempt.outcome is _FAILED else INFO
        case SessionEnded():
            # A session that brought mail has a line for each already; errors that the protocol answers have none.
            # A handshake that failed, TLS on a port without, and mail that was broken off have none elsewhere.
            told = event.errors or event.reason == BROKEN_OFF or _HANDSHAKE.search(event.reason)
            return INFO if told else DEBUG
        case Failed():
            return WARNING
        case Noted():
            return _RANKS.get(event.level, INFO)
        case _:
            return INFO


@lru_cache(maxsize=64)
def _second(seconds: int) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%S.", time.gmtime(seconds))


def iso(at_us: int) -> str:
    """``2026-11-23T12:15:00.123456Z``."""
    seconds, micros = divmod(at_us, 1_000_000)
    return f"{_second(seconds)}{micros:06}Z"


_ID: Final = lru_cache(maxsize=4096)(identifier.text)  # a message's events come close together


def _reply(reply: Reply | None) -> str:
    if reply is None:
        return ""
    text = reply.lines[0] if len(reply.lines) == 1 else reply.text
    return f"{reply.code} {reply.status} {text}" if reply.status else f"{reply.code} {text}"


# JSON: one struct for each kind, whose fields are the keys of its lines


class _Line(msgspec.Struct):
    time: str
    level: str
    kind: str
    id: str


class _Named(_Line):
    recipients: tuple[str, ...]  # the first 100
    recipient_count: int


class AttemptedLine(_Named):
    destination: str
    outcome: Any  # the enums are encoded as their values
    reach: Any
    status: str
    text: str
    reply: str
    transport: str
    remote_name: str
    remote_address: str
    remote_port: int
    tls: str
    took_us: int
    connect_us: int
    attempts: int
    next: str | None
    tls_details: TlsLine | None
    auth: str


class AcceptedLine(_Named):
    reverse_path: str
    size: int
    message_id: str
    envid: str
    parent: str
    took_us: int
    client: ClientLine


class SessionLine(_Line):
    reason: str
    messages: int
    errors: int
    took_us: int
    client: ClientLine
    refusal: str


class RefusedLine(_Line):
    phase: str
    reply: str
    reverse_path: str
    recipient: str
    client: ClientLine
    reason: str
    recipients: tuple[str, ...]
    recipient_count: int
    why: str


class AuthenticatedLine(_Line):
    mechanism: str
    client: ClientLine


class ExpandedLine(_Line):
    recipient: str
    into: tuple[str, ...]  # the first 100
    into_count: int


class FailedLine(_Named):
    status: str
    text: str
    by: str


class ReportedLine(_Named):
    action: str
    report: str
    text: str


class HeldLine(_Named):
    by: str
    text: str


class ReleasedLine(_Named):
    by: str
    now: bool


class RemovedLine(_Named):
    by: str
    text: str


class NotedLine(_Line):
    text: str


class CheckedLine(_Line):
    rule: str
    result: str
    text: str


class RewrittenLine(_Line):
    changes: tuple[str, ...]
    changes_count: int


def json_line(event: Event, rank: int | None = None) -> bytes:
    """One JSON object, without a line end."""
    level = LEVELS[rank_of(event) if rank is None else rank]
    record = _RECORDS[type(event)](event, iso(event.at_us), level, _ID(event.id) if event.id else "")
    try:
        line = _ENCODER.encode(record)
    except UnicodeEncodeError:  # a lone surrogate, which only a bug of ours can have made
        line = _ENCODER.encode(_repaired(msgspec.to_builtins(record)))
    if line.isascii() and b"\x7f" not in line:
        return line  # control octets below 0x20 are escaped by JSON itself
    return escaped_json(line.decode()).encode()


def _attempted_record(event: Attempted, time: str, level: str, id: str) -> AttemptedLine:
    attempt, recipients = event.attempt, event.recipients
    return AttemptedLine(
        time, level, "attempted", id, recipients[:_NAMES_MAX], len(recipients), event.destination, attempt.outcome,
        attempt.reach, attempt.status, attempt.text, _reply(attempt.reply), attempt.transport, attempt.remote_name,
        attempt.remote_address, attempt.remote_port, attempt.tls, attempt.took_us, attempt.connect_us, event.attempts,
        iso(event.next_us) if event.next_us else None, tls_line(attempt.tls_details),
        attempt.auth,
    )  # fmt: skip


def _accepted_record(event: Accepted, time: str, level: str, id: str) -> AcceptedLine:
    recipients = event.recipients
    return AcceptedLine(
        time, level, "accepted", id, recipients[:_NAMES_MAX], len(recipients), event.reverse_path, event.size,
        event.message_id, event.envid, _ID(event.parent) if event.parent else "", event.took_us,
        client_line(event.peer),
    )  # fmt: skip


_Record = Callable[[Any, str, str, str], _Line]
_RECORDS: Final[dict[type[Event], _Record]] = {
    Attempted: _attempted_record,
    Accepted: _accepted_record,
    SessionEnded: lambda event, *head: SessionLine(
        head[0], head[1], "session", head[2], event.reason, event.messages, event.errors, event.took_us,
        client_line(event.peer), event.refusal,
    ),
    Refused: lambda event, *head: RefusedLine(
        head[0], head[1], "refused", head[2], event.phase, event.reply, event.reverse_path, event.recipient,
        client_line(event.peer), event.reason, *_named(event), event.why,
    ),
    Authenticated: lambda event, *head: AuthenticatedLine(
        head[0], head[1], "authenticated", head[2], event.mechanism, client_line(event.peer)
    ),
    Expanded: lambda event, *head: ExpandedLine(
        head[0], head[1], "expanded", head[2], event.recipient, event.into[:_NAMES_MAX], len(event.into)
    ),
    Failed: lambda event, *head: FailedLine(
        head[0], head[1], "failed", head[2], *_named(event), event.status, event.text, event.by
    ),
    Reported: lambda event, *head: ReportedLine(
        head[0], head[1], "reported", head[2], *_named(event), event.action,
        _ID(event.report) if event.report else "", event.text,
    ),
    Held: lambda event, *head: HeldLine(head[0], head[1], "held", head[2], *_named(event), event.by, event.text),
    Released: lambda event, *head: ReleasedLine(
        head[0], head[1], "released", head[2], *_named(event), event.by, event.now
    ),
    Removed: lambda event, *head: RemovedLine(
        head[0], head[1], "removed", head[2], *_named(event), event.by, event.text
    ),
    Noted: lambda event, *head: NotedLine(head[0], head[1], "noted", head[2], event.text),
    Inspected: lambda event, *head: CheckedLine(
        head[0], head[1], "checked", head[2], event.rule, event.result, event.text
    ),
    Rewritten: lambda event, *head: RewrittenLine(
        head[0], head[1], "rewritten", head[2], event.changes[:_NAMES_MAX], len(event.changes)
    ),
}  # fmt: skip


def _named(event: Any) -> tuple[tuple[str, ...], int]:
    return event.recipients[:_NAMES_MAX], len(event.recipients)


def _repaired(value: Any) -> Any:
    match value:
        case str():
            return value.encode("utf-8", "backslashreplace").decode()
        case dict():
            return {key: _repaired(item) for key, item in value.items()}
        case tuple():
            return [_repaired(item) for item in value]
        case _:
            return value


_UNPRINTABLE: Final = re.compile(r"[^ -~]")


def escaped_json(text: str) -> str:
    """JSON of one line on which no terminal acts: unprintable characters stand in strings only, where ``\\u`` may write
    them (RFC 8259 §7)."""
    if text.isprintable():
        return text

    def escape(found: re.Match[str]) -> str:
        char = found.group()
        if char.isprintable():
            return char
        code = ord(char)
        if code < 0x10000:
            return f"\\u{code:04x}"
        code -= 0x10000
        return f"\\u{0xD800 + (code >> 10):04x}\\u{0xDC00 + (code & 0x3FF):04x}"

    return _UNPRINTABLE.sub(escape, text)


# For people


def human_line(event: Event, rank: int | None = None) -> bytes:
    """Time, level, queue id, then what happened in words; without a line end. `rank`: of `rank_of`, if it is known."""
    level = LEVELS[rank_of(event) if rank is None else rank]
    id_text = _ID(event.id) if event.id else "-"
    line = f"{iso(event.at_us)} {level} {id_text} {_SAID[type(event)](event)}"
    if not line.isprintable():
        line = escaped(line)
    return line.encode("utf-8", "backslashreplace")


def escaped(text: str) -> str:
    """Unprintable characters as Python writes them: ``\\n``, ``\\x1b``, ``\\u202e``."""
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in text)


def _attempted(event: Attempted) -> str:
    attempt = event.attempt
    parts = [f"{attempt.outcome._value_} for {_names(event.recipients)} to {event.destination}"]
    if attempt.remote_address:
        parts.append(f" at {attempt.remote_name}[{attempt.remote_address}]:{attempt.remote_port}")
    elif attempt.remote_name:
        parts.append(f" at {attempt.remote_name}")
    if attempt.tls:
        parts.append(f" ({_tls(attempt.tls, attempt.tls_details)})")
    if attempt.auth and attempt.auth not in attempt.text:
        parts.append(f" by {attempt.auth}")
    parts.append(f": {attempt.status}")
    if attempt.reply is not None:
        parts.append(f' "{_reply(attempt.reply)}"')
    if attempt.text:
        parts.append(f" {attempt.text}")
    if attempt.took_us:
        parts.append(f", in {_duration(attempt.took_us)}")
    if attempt.connect_us:
        parts.append(f" + {_duration(attempt.connect_us)} to connect")
    if event.attempts > 1:
        parts.append(f", attempt {event.attempts}")
    if event.next_us:
        parts.append(f", next {iso(event.next_us)}")
    return "".join(parts)


def _accepted(event: Accepted) -> str:
    parts = [f"accepted from <{event.reverse_path}> for {_names(event.recipients)}, {counted(event.size, 'octet')}"]
    if event.peer.address:
        parts.append(f" by {_peer(event.peer)}")
    if event.parent:
        parts.append(f", reports on {_ID(event.parent)}")
    if event.message_id:
        parts.append(f", Message-ID {event.message_id}")
    if event.envid:
        parts.append(f", ENVID {event.envid}")
    if event.took_us:
        parts.append(f", in {_duration(event.took_us)}")
    return "".join(parts)


def _refused(event: Refused) -> str:
    text = f"refused {event.phase} of {_peer(event.peer)}: {event.reply or UNSAID}"
    if event.phase == "AUTH":  # the reason is the name that was tried
        text += f"; account {quoted(shorten(event.reason, _ACCOUNT_MAX))}" if event.reason or not event.why else ""
        text += f"; {event.why}" if event.why else ""
    elif _tells_reason(event):
        text += f"; {shorten(event.reason, _ACCOUNT_MAX)}"
    text += f"; from <{event.reverse_path}>" if event.reverse_path else ""
    if event.recipients:
        return f"{text}; for {_names(event.recipients)}"
    return f"{text}; for <{event.recipient}>" if event.recipient else text


def _tells_reason(event: Refused) -> bool:
    """Whether the reason says more than the reply: what the client did before it was heard, what we lack, or how many
    refusals were left out."""
    if event.reason in event.reply:
        return False
    return event.phase == "CONNECT" or event.reply[:1] == "4" or event.reason[:1] == "("


def _reported(event: Reported) -> str:
    if event.report:
        return f"reported {event.action} for {_names(event.recipients)} in {_ID(event.report)}"
    return f"not reported {event.action} for {_names(event.recipients)}: {event.text}"


_SAID: Final[dict[type[Event], Callable[[Any], str]]] = {
    Attempted: _attempted,
    Accepted: _accepted,
    Refused: _refused,
    Reported: _reported,
    SessionEnded: lambda event: (
        f"session of {_peer(event.peer)} ended: {event.reason}; {counted(event.messages, 'message')}, "
        f"{counted(event.errors, 'error')}, {_duration(event.took_us)}{_last(event.refusal)}"
    ),
    Authenticated: lambda event: f"authenticated {_peer(event.peer)} by {event.mechanism}",
    Expanded: lambda event: f"expanded <{event.recipient}> into {_names(event.into)}",
    Failed: lambda event: f"failed for {_names(event.recipients)}: {event.status} {event.text}{_by(event.by)}",
    Held: lambda event: f"held for {_names(event.recipients)}{_by(event.by)}{_why(event.text)}",
    Released: lambda event: (
        f"{'to be tried now' if event.now else 'released'} for {_names(event.recipients)}{_by(event.by)}"
    ),
    Removed: lambda event: f"removed for {_names(event.recipients)}{_by(event.by)}{_why(event.text)}",
    Noted: lambda event: event.text,
    Inspected: lambda event: f"checked by {event.rule}: {event.result}{_why(event.text)}",
    Rewritten: lambda event: f"rewritten: {'; '.join(event.changes[:_NAMES_MAX])}",
}


def _names(recipients: tuple[str, ...]) -> str:
    if len(recipients) == 1:
        return f"<{recipients[0]}>"
    text = ", ".join([f"<{name}>" for name in recipients[:_NAMES_MAX]])
    return text if len(recipients) <= _NAMES_MAX else f"{text} and {len(recipients) - _NAMES_MAX} more"


def _peer(peer: Peer) -> str:
    text = whereabouts(peer)  # first, as it is certain: what the client calls itself it may choose
    if peer.hello and peer.hello != f"[{peer.address}]":  # its address for a name is said once
        text += f" {quoted(peer.hello)}"
    text += f" {peer.protocol}"
    if peer.tls:
        text += f" ({_tls(peer.tls, peer.tls_details)})"
    if peer.identity:
        text += f" as {peer.identity}"
    if peer.listener:
        text += f" at {peer.listener}"
    told = behind(peer)
    return f"{text}, {', '.join(told)}" if told else text


def _tls(tls: str, details: TlsDetails | None) -> str:
    return tls if details is None or not details.text else f"{tls}, {details.text}"


def _by(by: str) -> str:
    return f", by {by}" if by else ""


def _last(refusal: str) -> str:
    return f", the last: {refusal}" if refusal else ""


def _why(text: str) -> str:
    return f": {text}" if text else ""


def _duration(took_us: int) -> str:
    return f"{took_us / 1000:.1f} ms" if took_us < 10_000_000 else f"{took_us / 1_000_000:.1f} s"
