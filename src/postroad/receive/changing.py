"""Applies the effects of rules to a draft, when its content is complete and before it is handed to the spool.

What always holds: all effects are looked at before the first is applied; if one is at fault, the message is refused
(451 4.3.0, and the log says what was wrong) and never stored half changed. Fields that are put on top leave the content
as it is. If fields are changed or removed, or the body is replaced, new content is made: in memory, or in a second file
that takes the place of the first (`store.content`), before 250. Each change is an event of the message.

Not here: what an effect makes of a header section (`mail.effects`).
"""

from __future__ import annotations

from postroad.mail import message
from postroad.mail.effects import TEXT_MAX, Sections, applied, said
from postroad.mail.envelope import Recipient
from postroad.mail.event import Evaluated, Event, Inspected, Rewritten
from postroad.mail.policy import (
    AddRecipient,
    DropRecipient,
    Effect,
    Evaluate,
    HeaderEffect,
    Record,
    Redirect,
    ReplaceBody,
)
from postroad.receive.draft import Draft
from postroad.store.values import NewContent


def change(draft: Draft, octets: bytes | None, now_us: int) -> bytes | None:
    """Apply the draft's effects, which have no `fault`. `octets`: its content, None if it is in a file; so is what is
    returned."""
    changes = draft.changes
    assert changes is not None
    effects = changes.effects
    fields = tuple(each for each in effects if isinstance(each, HeaderEffect))
    bodies = [each.octets for each in effects if isinstance(each, ReplaceBody)]
    _readdress(draft, effects)
    changes.events = _events(draft, effects, now_us)
    if not (fields or bodies):
        return octets
    before = draft.file_head if octets is None else octets[: message.header_end(octets)]
    end = len(before)
    sections = applied(Sections(changes.top, draft.added, before), fields)
    changes.top, draft.added = sections.top, sections.added
    draft.head = sections.added + sections.head
    draft.message_id = (message.first(draft.head, b"message-id") or "")[: message.MESSAGE_ID_MAX]
    body = b"\r\n" + bodies[-1] if bodies else None
    if octets is not None:
        if body is None and sections.head == before:
            draft.ascii_only = draft.ascii_only and changes.top.isascii() and draft.added.isascii()
            return octets
        changed = sections.head + (octets[end:] if body is None else body)
        draft.ascii_only = changed.isascii() and changes.top.isascii() and draft.added.isascii()
        draft.long_lines = not message.lines_fit(changed, message.LINE_MAX + 2)
        return changed
    if body is not None or sections.head != before:
        changes.new_content = NewContent(sections.head, end, body)
        new = sections.head + (body or b"")
        if body is not None:
            draft.ascii_only, draft.long_lines = True, False
        draft.long_lines = draft.long_lines or not message.lines_fit(new, message.LINE_MAX + 2)
        draft.ascii_only = draft.ascii_only and new.isascii()
    draft.ascii_only = draft.ascii_only and changes.top.isascii() and draft.added.isascii()
    return None


def _readdress(draft: Draft, effects: tuple[Effect, ...]) -> None:
    """Recipients that are added or dropped."""
    named = len(draft.recipients)  # by the client
    for effect in effects:
        if isinstance(effect, AddRecipient):
            draft.recipients.append(Recipient(effect.address))
        elif isinstance(effect, DropRecipient):
            for index, recipient in enumerate(draft.recipients):
                if recipient.address == effect.address:
                    draft.discarded.setdefault(index, "dropped by a rule")
        elif isinstance(effect, Redirect):
            for index in range(named):
                draft.discarded.setdefault(index, f"redirected to <{effect.address}>")
            draft.recipients.append(Recipient(effect.address))


def _events(draft: Draft, effects: tuple[Effect, ...], now_us: int) -> tuple[Event, ...]:
    """What the rules found and changed."""
    checked = [
        Inspected(now_us, draft.id, each.rule[:TEXT_MAX], each.result[:TEXT_MAX], each.text[:TEXT_MAX])
        for each in effects
        if isinstance(each, Record)
    ]
    evaluated = [Evaluated(now_us, draft.id, each.evaluation) for each in effects if isinstance(each, Evaluate)]
    changes = tuple(text for each in effects if (text := said(each)))
    told: tuple[Event, ...] = (*evaluated, *checked)
    return (*told, Rewritten(now_us, draft.id, changes)) if changes else told
