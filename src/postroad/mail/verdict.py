"""The verdict of a rule on a session, a recipient or a message: what the check stage answers.

A Verdict with action ACCEPT lets the way go on. The Reply of REJECT and DEFER goes to the client as it stands; HOLD
accepts the message yet keeps it until an operator releases it; DISCARD accepts it and lets it go with an event.
"""

from __future__ import annotations

import enum
from typing import Final

import msgspec

from postroad.mail.reply import Reply


class Action(enum.Enum):
    ACCEPT = "accept"
    REJECT = "reject"
    DEFER = "defer"
    HOLD = "hold"
    DISCARD = "discard"


class Verdict(msgspec.Struct, frozen=True):
    """`reason` is for the log and the history; `disconnect` closes the session after the reply (421)."""

    action: Action
    reply: Reply | None = None
    reason: str = ""
    disconnect: bool = False


ACCEPT: Final = Verdict(Action.ACCEPT)


def reject(code: int, status: str, text: str, reason: str = "") -> Verdict:
    """A permanent refusal, `code` 5xx."""
    return Verdict(Action.REJECT, Reply(code, status, tuple(text.split("\n"))), reason or text)


def defer(code: int, status: str, text: str, reason: str = "", *, disconnect: bool = False) -> Verdict:
    """A refusal for now, `code` 4xx."""
    return Verdict(Action.DEFER, Reply(code, status, tuple(text.split("\n"))), reason or text, disconnect)
