"""Other addresses for a message that is being accepted: what `mail.rewriting` says is asked and applied.

It happens once, at the end of data, after all rules and before aliases are followed. What always holds: the message is
stored as it was rewritten, or refused; nothing of it is changed by halves. Content in a file gets a second file in its
place if its header section changes (`store.content`), before 250. What was changed is an event of the message.

How it fails: 451 4.3.0 if a map cannot answer now; 554 5.6.0 if the header section has too many addresses.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import msgspec

from postroad.mail import message
from postroad.mail.address import Address
from postroad.mail.envelope import Notify, Recipient, asked_by_both
from postroad.mail.event import Expanded
from postroad.mail.expansion import Expansion
from postroad.mail.field_rules import bounded
from postroad.mail.policy import Action, Verdict, reject
from postroad.mail.rewriting import Rewriting
from postroad.receive import draft as drafts
from postroad.receive import replies
from postroad.receive.draft import Changes, Draft
from postroad.receive.setup import ListenerSetup
from postroad.store.values import NewContent


def ask(setup: ListenerSetup, draft: Draft, octets: bytes | None) -> Awaitable[None] | None:
    """Asks what becomes of the message: `Draft.rewriting` says it, at once or when the awaitable has ended. `octets`:
    the content, None if it is in a file."""
    rewrite = setup.doors.knowing.rewrite
    assert rewrite is not None
    sections = (draft.added, _head(draft, octets))
    found = rewrite(draft.peer, draft.mail.reverse_path, drafts.wanted(draft), sections)
    if isinstance(found, Rewriting):
        draft.rewriting = found
        return None
    return _awaited(draft, found)


async def _awaited(draft: Draft, pending: Awaitable[Rewriting]) -> None:
    draft.rewriting = await pending


def refusal(rewriting: Rewriting) -> Verdict | None:
    """Why the message cannot be taken; None if it can."""
    if rewriting.not_now:
        return Verdict(Action.DEFER, replies.UNSURE, rewriting.not_now)
    if rewriting.excess:
        return reject(554, "5.6.0", f"The message cannot be rewritten: {rewriting.excess}", rewriting.excess)
    return None


def apply(draft: Draft, octets: bytes | None, rewriting: Rewriting) -> bytes | None:
    """The content as it is now. Call it only if there is no `refusal`."""
    added, head = rewriting.sections
    before = _head(draft, octets)
    if added != draft.added or head != before:
        octets = _with_head(draft, octets, before, head)
        draft.added = added
        draft.head = added + head
        draft.ascii_only = draft.ascii_only and draft.head.isascii()
    mail = draft.mail
    if rewriting.reverse_path != mail.reverse_path:
        draft.change_sender(rewriting.reverse_path)
        mail = draft.mail
    if not mail.smtputf8 and _needs_utf8(rewriting, (added, head), before):
        draft.mail = msgspec.structs.replace(mail, smtputf8=True)
    draft.said += rewriting.changes
    draft.said += bounded([f"a copy for <{address}> ({setting})" for address, setting in rewriting.copies])
    return octets


def _head(draft: Draft, octets: bytes | None) -> bytes:
    """The header section of the content, as it is to be stored."""
    if octets is not None:
        return octets[: message.header_end(octets)]
    new = None if draft.changes is None else draft.changes.new_content
    return draft.file_head if new is None else new.head


def _with_head(draft: Draft, octets: bytes | None, before: bytes, head: bytes) -> bytes | None:
    if octets is not None:
        return octets if head == before else head + octets[len(before) :]
    if head != before:
        changes = _changes(draft)
        new = changes.new_content
        size, body = (len(draft.file_head), None) if new is None else (new.head_size, new.body)
        changes.new_content = NewContent(head, size, body)
    return None


def _changes(draft: Draft) -> Changes:
    if draft.changes is None:
        draft.changes = Changes()
    return draft.changes


def _needs_utf8(rewriting: Rewriting, sections: tuple[bytes, ...], before: bytes) -> bool:
    """Whether addresses have come in that only SMTPUTF8 can carry."""
    addresses = [each.address for each in rewriting.recipients if each.given is not None]
    if rewriting.reverse_path is not None:
        addresses.append(rewriting.reverse_path)
    return not all(each.is_ascii for each in addresses) or (
        before.isascii() and not all(section.isascii() for section in sections)
    )


# -- recipients, before and after aliases ------------------------------------------------------------------------------


def recipients(draft: Draft, given: tuple[Recipient, ...]) -> tuple[Recipient, ...]:
    """The recipients as they were rewritten, each mailbox once with all that was asked for it. `given`: those that
    `drafts.wanted` says."""
    rewriting = draft.rewriting
    if rewriting is None or not given:
        return given
    first: dict[object, Recipient] = {}
    for recipient in rewriting.recipients:
        there = first.setdefault(recipient.address, recipient)
        if there.notify is not recipient.notify:
            notify = asked_by_both(there.notify, recipient.notify)
            first[recipient.address] = msgspec.structs.replace(there, notify=notify)
    return tuple(first.values())


def copies(draft: Draft, has_had: Callable[[Address], bool]) -> tuple[Recipient, ...]:
    """Who gets a copy beside the recipients: the sender never hears of these. `has_had`: whether the message has
    brought a copy there before, and has come back."""
    rewriting = draft.rewriting
    if rewriting is None or not rewriting.recipients:
        return ()
    named = {each.address for each in rewriting.recipients}
    return tuple([
        Recipient(address, Notify.NEVER)
        for address, _ in rewriting.copies
        if address not in named and not has_had(address)
    ])


def told(draft: Draft, expansion: Expansion, now_us: int) -> Expansion:
    """With an event for each recipient that was rewritten and that no alias has led on."""
    if draft.rewriting is None:
        return expansion
    known = {event.recipient for event in expansion.events if isinstance(event, Expanded)}
    events = [
        Expanded(now_us, draft.id, str(each.given), (str(each.address),))
        for each in draft.rewriting.recipients
        if each.given is not None and each.given != each.address and str(each.given) not in known
    ]
    if not events:
        return expansion
    return msgspec.structs.replace(expansion, events=(*events, *expansion.events))
