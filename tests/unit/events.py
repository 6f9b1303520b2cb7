"""Events for tests: at least one of each kind, with one text in every place that others can fill."""

from __future__ import annotations

from postroad.mail.attempt import Attempt
from postroad.mail.envelope import Peer
from postroad.mail.evaluation import DmarcFacts, Evaluation, Found
from postroad.mail.event import (
    Accepted,
    Attempted,
    Authenticated,
    Evaluated,
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


def _evaluation(text: str) -> Evaluation:
    found = Found(text, text, text, ((text, text, text), ("smtp", "mailfrom", text)), text)
    facts = DmarcFacts(text, text, text, text, text, text, text, text)
    return Evaluation(text, text, text, (found,), (facts,), text, text, text, text)


def with_text(text: str, at_us: int, id: int, attempt: Attempt) -> list[Event]:
    peer = Peer(text, 1, text, text, text, text, text)
    names = (text,)
    return [
        Accepted(at_us, id, text, names, 1, text, peer, text),
        Expanded(at_us, id, text, names),
        Attempted(at_us, id, names, text, attempt),
        Failed(at_us, id, names, text, text, text),
        Reported(at_us, id, names, text, 0, text),
        Held(at_us, id, names, text, text),
        Released(at_us, id, names, text),
        Removed(at_us, id, names, text, text),
        Refused(at_us, 0, peer, text, text, text, text, text, (), text),
        Refused(at_us, 0, peer, "AUTH", text, reason=text),
        Authenticated(at_us, 0, peer, text),
        SessionEnded(at_us, 0, peer, text, errors=1, refusal=text),
        Noted(at_us, 0, "info", text),
        Inspected(at_us, id, text, text, text),
        Rewritten(at_us, id, names),
        Evaluated(at_us, id, _evaluation(text)),
    ]
