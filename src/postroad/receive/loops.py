"""Finds mail that comes back, by the marks of `mail.loop`, and refuses it at the end of data.

What always holds: a message is led through the same alias once, and handed to the same mailbox once, however often it
comes back with our mark; it is refused only if all its recipients have had it (554 5.4.6, RFC 5321 §6.3); else those
who have had it are left out, and the history says why. Over LMTP no mailbox counts as one that has had the message,
because the client there is an MTA of our own, which delivers what it has. An alias that leads outside is stopped there,
too.

How it fails: if aliases lead to more recipients than they may, the reply is 554 5.2.4 (5.4.6 if too many follow one
another); if aliases cannot be looked up now, it is 451 4.3.0. Not here: the marks of mailboxes, which delivery writes
(`deliver.letter`, `deliver.program`), and loops that no mark shows (`check.message`).
"""

from __future__ import annotations

from collections.abc import Awaitable
from functools import partial
from typing import Final

import msgspec

from postroad.mail import loop
from postroad.mail.address import Address
from postroad.mail.envelope import Recipient
from postroad.mail.event import Removed
from postroad.mail.expansion import Expansion, excess_status
from postroad.mail.loop import Marks
from postroad.mail.policy import Action, Verdict, reject
from postroad.receive import draft as drafts
from postroad.receive import replies, rewriting
from postroad.receive.draft import Draft
from postroad.receive.setup import ListenerSetup

_NAMES_MAX: Final = 3  # addresses that the reply names
_NOBODY: Final = Expansion(())


def lead(setup: ListenerSetup, now_us: int, draft: Draft) -> Awaitable[None] | None:
    """Lead the message through the aliases of its recipients. Call it once, at the end of data. A field that bears the
    marks of these aliases is added on top. An awaitable if a map must be waited for: it is led when this has ended."""
    doors, marks = setup.doors, setup.doors.knowing.marks
    given = draft.given = drafts.wanted(draft)
    copies: tuple[Recipient, ...] = ()
    seen = loop.found(draft.head) if marks is not None else frozenset()
    if not given:
        draft.expansion = _NOBODY
        return None
    if draft.rewriting is not None:
        given = draft.given = rewriting.recipients(draft, given)
        copies = rewriting.copies(draft, partial(_has_had_copy, marks, draft.message_id, seen))
    if marks is not None and seen:
        message_id = draft.message_id
        expansion = doors.knowing.expand(
            draft.id, now_us, given + copies, lambda alias: marks.expanded(alias, message_id) in seen
        )
    else:
        expansion = doors.knowing.expand(draft.id, now_us, given + copies if copies else given)
    if isinstance(expansion, Expansion):
        if seen or expansion.through or draft.rewriting is not None:
            _led(setup, draft, seen, expansion, copies)
        else:
            draft.expansion = expansion
        return None
    return _awaited(setup, draft, seen, expansion, copies)


def _has_had_copy(marks: Marks | None, message_id: str, seen: frozenset[str], address: Address) -> bool:
    """Whether the message has brought a copy there before, and comes back."""
    return marks is not None and bool(seen) and marks.copied(address, message_id) in seen


async def _awaited(
    setup: ListenerSetup, draft: Draft, seen: frozenset[str], pending: Awaitable[Expansion],
    copies: tuple[Recipient, ...],
) -> None:
    _led(setup, draft, seen, await pending, copies)


def _led(
    setup: ListenerSetup, draft: Draft, seen: frozenset[str], expansion: Expansion, copies: tuple[Recipient, ...]
) -> None:
    marks = setup.doors.knowing.marks
    expansion = rewriting.told(draft, expansion, setup.doors.now_us())
    if marks is not None and seen and not setup.lmtp:
        expansion = _without_those_who_have_it(expansion, marks, seen, draft.message_id)
    draft.expansion = expansion
    if marks is not None and (expansion.through or copies):
        message_id = draft.message_id
        passed = [marks.expanded(alias, message_id) for alias in expansion.through]
        copied = [marks.copied(each.address, message_id) for each in copies]
        draft.added = loop.field(copied + passed) + draft.added


def _without_those_who_have_it(
    expansion: Expansion, marks: Marks, seen: frozenset[str], message_id: str
) -> Expansion:
    have_it = tuple(
        recipient.address
        for recipient in expansion.recipients
        if marks.delivered(recipient.address, message_id) in seen
    )
    if not have_it:
        return expansion
    recipients = tuple(each for each in expansion.recipients if each.address not in have_it)
    return msgspec.structs.replace(expansion, recipients=recipients, stopped=(*expansion.stopped, *have_it))


def refusal(expansion: Expansion) -> Verdict | None:
    """Why a message that was led so cannot be taken; None if it can."""
    if expansion.not_now:
        return Verdict(Action.DEFER, replies.UNSURE, expansion.not_now)
    if expansion.excess:
        return reject(554, excess_status(expansion.excess), expansion.excess, "an alias leads to too many recipients")
    if expansion.stopped and not expansion.recipients:
        return reject(554, "5.4.6", f"Mail loop: {_names(expansion)} had this message before", "mail loop")
    return None


def stopped(draft: Draft, expansion: Expansion, now_us: int) -> tuple[Removed, ...]:
    """The event of those who are left out because they have had the message."""
    names = tuple(map(str, expansion.stopped))
    return (Removed(now_us, draft.id, names, "", "a mail loop: they had this message before"),)


def _names(expansion: Expansion) -> str:
    names = [f"<{address}>" for address in expansion.stopped[:_NAMES_MAX]]
    more = len(expansion.stopped) - len(names)
    text = ", ".join(names)
    return f"{text} and {more} more" if more else text
