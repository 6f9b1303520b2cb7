"""Makes one line of the log of a refused mailing, not one for each of its recipients. Pure.

If a remote refuses 500 recipients, there are 500 events, because each reply names its recipient; the history keeps them
all. In the log, events of one moment that differ only in the name become one line with all the recipients, in the place
of the first and with its reply. What always holds: each recipient is in exactly one line; a delivery is never merged.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence

import msgspec

from postroad.mail.attempt import Outcome
from postroad.mail.event import Attempted, Event, Refused
from postroad.mail.reply import Reply

_UNFINISHED = (Outcome.FAILED, Outcome.DEFERRED)


def merged(events: Sequence[Event]) -> Sequence[Event]:
    """The events of a moment, as they are to be logged."""
    if len(events) < 2:
        return events
    alike = [
        event
        for event in events
        if (event.attempt.outcome in _UNFINISHED if isinstance(event, Attempted) else isinstance(event, Refused))
    ]
    return _grouped(events) if len(alike) > 1 else events


def _grouped(events: Sequence[Event]) -> Sequence[Event]:
    groups: dict[Hashable, list[Attempted | Refused]] = {}
    found: list[Event | list[Attempted | Refused]] = []
    for event in events:
        if isinstance(event, Attempted):
            key = _attempted(event) if event.attempt.outcome in _UNFINISHED else None
        elif isinstance(event, Refused):
            key = _refused(event)
        else:
            found.append(event)
            continue
        if key is None:
            found.append(event)
            continue
        group = groups.get(key)
        if group is None:
            groups[key] = group = []
            found.append(group)
        group.append(event)
    if not groups:
        return events
    return [_one(each) if isinstance(each, list) else each for each in found]


def _attempted(event: Attempted) -> Hashable:
    """Equal for attempts that tell the same."""
    attempt = event.attempt
    said = _said(attempt.reply)
    # What is our own finding differs in its text only if it names the recipient.
    return (
        event.id, event.destination, event.attempts, event.next_us > 0, attempt.outcome, attempt.reach,
        attempt.status, said, attempt.text if said is None else "", attempt.remote_name, attempt.remote_address,
    )  # fmt: skip


def _refused(event: Refused) -> Hashable:
    """Equal for refusals that tell the same; None for those that stand alone."""
    if event.phase == "RCPT" and event.recipient:
        peer = event.peer
        return (peer.address, peer.port, peer.listener, event.reverse_path, event.reply[:9], event.reason)
    return None


def _said(reply: Reply | None) -> tuple[int, str] | None:
    return None if reply is None else (reply.code, reply.status)


def _one(group: Sequence[Attempted | Refused]) -> Event:
    first = group[0]
    if len(group) == 1:
        return first
    if isinstance(first, Refused):
        names = tuple([each.recipient for each in group if isinstance(each, Refused)])
        return msgspec.structs.replace(first, recipient="", recipients=names)
    attempts = [each for each in group if isinstance(each, Attempted)]
    return msgspec.structs.replace(
        first,
        recipients=tuple([name for each in attempts for name in each.recipients]),
        next_us=min(each.next_us for each in attempts),
    )
