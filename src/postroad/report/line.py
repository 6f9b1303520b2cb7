"""One event as one line of the log, for people (`report.words`) or as JSON (`report.records`). Pure.

What always holds: a line holds nothing unprintable (control octets, ANSI escapes, C1 controls, line separators,
bidirectional overrides are escaped), so it is one line and no terminal acts upon it; a JSON line is one JSON object.

How it fails: it does not; text that cannot be encoded is escaped.
"""

from __future__ import annotations

import re
from typing import Any, Final

import msgspec

from postroad.mail.attempt import Outcome
from postroad.mail.event import BROKEN_OFF, Accepted, Attempted, Event, Failed, Noted, SessionEnded
from postroad.report.notation import id_text, iso
from postroad.report.records import record
from postroad.report.words import SAYS

DEBUG, INFO, WARNING, ERROR = range(4)
LEVELS: Final = ("debug", "info", "warning", "error")
_RANKS: Final = {"debug": DEBUG, "info": INFO, "warning": WARNING, "error": ERROR}
_ENCODER: Final = msgspec.json.Encoder()

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


# As JSON


def json_line(event: Event, rank: int | None = None) -> bytes:
    """One JSON object, without a line end. `rank`: of `rank_of`, if it is known."""
    found = record(event, LEVELS[rank_of(event) if rank is None else rank])
    try:
        line = _ENCODER.encode(found)
    except UnicodeEncodeError:  # a lone surrogate, which only a bug of ours can have made
        line = _ENCODER.encode(_repaired(msgspec.to_builtins(found)))
    if line.isascii() and b"\x7f" not in line:
        return line  # control octets below 0x20 are escaped by JSON itself
    return escaped_json(line.decode()).encode()


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
    id = id_text(event.id) if event.id else "-"
    line = f"{iso(event.at_us)} {level} {id} {SAYS[type(event)](event)}"
    if not line.isprintable():
        line = escaped(line)
    return line.encode("utf-8", "backslashreplace")


def escaped(text: str) -> str:
    """Unprintable characters as Python writes them: ``\\n``, ``\\x1b``, ``\\u202e``."""
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in text)
