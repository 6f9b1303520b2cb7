"""Writes times, queue ids, replies, durations and names for a line of the log. Pure."""

from __future__ import annotations

import time
from functools import lru_cache
from typing import Final

from postroad.mail import identifier
from postroad.mail.reply import Reply

NAMES_MAX: Final = 100  # recipients that one line names; the history has all


@lru_cache(maxsize=64)
def _second(seconds: int) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%S.", time.gmtime(seconds))


def iso(at_us: int) -> str:
    """``2026-11-23T12:15:00.123456Z``."""
    seconds, micros = divmod(at_us, 1_000_000)
    return f"{_second(seconds)}{micros:06}Z"


id_text: Final = lru_cache(maxsize=4096)(identifier.text)  # the events of a message come close together


def reply_text(reply: Reply | None) -> str:
    """``250 2.0.0 ok``, all lines in one; "" for None."""
    if reply is None:
        return ""
    text = reply.lines[0] if len(reply.lines) == 1 else reply.text
    return f"{reply.code} {reply.status} {text}" if reply.status else f"{reply.code} {text}"


def duration(took_us: int) -> str:
    """``2.3 ms``, ``12.0 s``."""
    return f"{took_us / 1000:.1f} ms" if took_us < 10_000_000 else f"{took_us / 1_000_000:.1f} s"


def names(recipients: tuple[str, ...]) -> str:
    """``<ada@example.org>, <bo@example.org> and 5 more``."""
    if len(recipients) == 1:
        return f"<{recipients[0]}>"
    text = ", ".join([f"<{name}>" for name in recipients[:NAMES_MAX]])
    return text if len(recipients) <= NAMES_MAX else f"{text} and {len(recipients) - NAMES_MAX} more"
