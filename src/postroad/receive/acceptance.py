"""From the end of data to the commit: a complete transaction becomes a stored message, or the reply that says why not.

What always holds: `on_reply` is called exactly once, with the reply to the end of data; with 250 only after the spool
has reported the commit (promise 1), and after the queue has taken the message over. None of this needs the client: if
the client goes away meanwhile, the message is still kept, because the client has sent all of it and may have missed our
250.

How it fails: if the disk is full or fails, the reply is 452 4.3.1 or 451 4.3.0, nothing of the message is left in the
spool, and the log says what failed.
"""

from __future__ import annotations

import traceback
from collections.abc import Callable
from functools import partial
from typing import Final

import msgspec

from postroad.mail import classes, identifier, wishes
from postroad.mail.envelope import Notify
from postroad.mail.event import Event, Held, Noted, Rewritten
from postroad.mail.message import Content, ContentFile
from postroad.mail.reply import Reply, reply
from postroad.receive import draft as drafts
from postroad.receive import list_senders, loops, refusals
from postroad.receive.draft import Draft
from postroad.receive.replies import LEAVING
from postroad.receive.setup import ListenerSetup
from postroad.store.values import Failure, FailureKind, Stored, Waiting

_FAILURES: Final = {
    FailureKind.FULL: reply(452, "4.3.1", "Not enough space, try again later"),
    FailureKind.IO: reply(451, "4.3.0", "Could not store the message, try again later"),
    FailureKind.CLOSED: LEAVING,
    FailureKind.INVALID: reply(554, "5.3.0", "The message cannot be stored"),
}

_REASON_MAX: Final = 300  # of what failed, its end: the rest stands in the log

OnReply = Callable[[Reply], None]


def accept(setup: ListenerSetup, draft: Draft, octets: bytes | None, on_reply: OnReply) -> None:
    """Accept the message: the verdict is there. `octets`: its content, as `drafts.finished` made it, None if it
    has gone to a file. The fields that we add are made now: they go in front of `octets`, or into the envelope."""
    now_us = setup.doors.now_us()
    prefix = drafts.on_top(draft, setup.options.hostname, now_us, setup.fields)
    if octets is not None:
        _store(setup, draft, on_reply, prefix + octets, now_us)
    else:
        assert draft.incoming is not None
        draft.prefix = prefix
        new = None if draft.changes is None else draft.changes.new_content
        draft.incoming.finish(partial(_filed, setup, draft, on_reply), new)


def _filed(setup: ListenerSetup, draft: Draft, on_reply: OnReply, answer: ContentFile | Failure) -> None:
    """Large content is on stable storage, or is not."""
    if isinstance(answer, Failure):
        _failed(setup, draft, on_reply, answer)
        return
    try:
        _store(setup, draft, on_reply, answer, setup.doors.now_us())
    except Exception:  # a bug; nobody above us could tell the client, who would wait for ever
        _failed(setup, draft, on_reply, Failure(FailureKind.IO, traceback.format_exc()))


def _store(setup: ListenerSetup, draft: Draft, on_reply: OnReply, content: Content, now_us: int) -> None:
    """Hand the message to the spool, with all that goes into the same commit."""
    doors = setup.doors
    given = () if draft.dropped else draft.given
    expansion = draft.expansion if given else None
    recipients = expansion.recipients if expansion is not None else ()
    expanded: tuple[Event, ...] = ()
    listed: tuple[Event, ...] = ()
    if expansion is not None and expansion.events:
        expanded = _stamped(expansion.events, now_us)
        recipients, listed = list_senders.settled(draft.id, now_us, draft.mail.reverse_path, recipients)
    named = recipients or tuple(draft.recipients)
    envelope = drafts.envelope(
        draft, named, len(content) if isinstance(content, bytes) else content.size, now_us, doors.knowing.owns
    )
    if setup.options.classes:
        envelope = msgspec.structs.replace(envelope, classes=classes.found(draft.head, setup.options.classes))
    events: tuple[Event, ...] = (drafts.accepted(envelope, draft.started_us), *expanded)
    if draft.changes is not None and draft.changes.events:
        events += _stamped(draft.changes.events, now_us)
    if draft.said:
        before = draft.said_sender if draft.as_said is not None else None
        events += (Rewritten(now_us, draft.id, draft.said, "" if before is None else str(before)),)
    if draft.discarded or draft.dropped:
        events += drafts.removed(draft, now_us)
    if listed:
        events += listed
    if expansion is not None and expansion.stopped:
        events += loops.stopped(draft, expansion, now_us)
    if not recipients and draft.refused:
        _report_only(setup, draft, on_reply, Stored(envelope, content), events)
        return
    if not recipients:
        # Nobody is left to deliver to: rules or aliases let the message go, and its events say so.
        draft.abort()
        doors.record(events)
        on_reply(_queued(draft.id))
        return
    if envelope.size > doors.knowing.sizes.least and not draft.held and (limit := doors.knowing.exceeded(envelope)):
        _too_large(setup, draft, on_reply, envelope.size, limit)
        return
    if doors.limiting.over is not None and not draft.held:
        # Others may have sent since the rules were asked: filters, maps and the disk take their time.
        count = len(draft.recipients) - len(draft.discarded)
        over = doors.limiting.over(draft.peer, draft.said_sender, count, envelope.size)
        if over.reply is not None:
            _not_taken(setup, draft, on_reply, over.reply, over.reason)
            return
        draft.held = over.reason
    stored = Stored(envelope, content, draft.only_crlf and draft.changes is None)
    waiting: tuple[Waiting, ...] = ()
    reports: tuple[Stored, ...] = ()
    if draft.held:
        waiting = doors.storing.held(envelope, draft.held)
        names = tuple(recipient.name for recipient in recipients)
        events += (Held(now_us, draft.id, names, "", draft.held),)
    elif envelope.parameters and (release_us := wishes.release_us(envelope)) > now_us:
        waiting = _until(release_us, doors.storing.held(envelope, ""))
        events += (Noted(now_us, draft.id, "info", waiting[0].text),)
    if expanded and any(recipient.notify & Notify.SUCCESS for recipient in given):
        reports, reported = doors.storing.reports(stored, given, expanded)
        events += reported
    if draft.refused:
        made, reported = doors.storing.report(draft.refused, stored)
        reports += made
        events = (*drafts.refused(draft.refused, drafts.accepted(envelope, draft.started_us)), *events[1:], *reported)
    if doors.limiting.sent is not None and not draft.held:
        draft.sent = len(draft.recipients) - len(draft.discarded)
        doors.limiting.sent(draft.peer, draft.said_sender, draft.sent, 1)
    done = partial(_committed, setup, draft, on_reply, stored, waiting, reports)
    if waiting or reports:
        doors.storing.accept(stored, events, done, waiting, reports)
    else:
        doors.storing.accept(stored, events, done)


def _too_large(setup: ListenerSetup, draft: Draft, on_reply: OnReply, size: int, limit: int) -> None:
    """No server of the recipients takes so large a message: the client hears it, and no report is needed."""
    text = f"the message has {size} octets; the servers of its recipients take {limit} at most"
    _not_taken(setup, draft, on_reply, reply(552, "5.3.4", text), text)


def _not_taken(setup: ListenerSetup, draft: Draft, on_reply: OnReply, answer: Reply, text: str) -> None:
    """What was found at the very end: nothing is stored. `text`: why, for log and history."""
    draft.abort()
    peer = draft.peer
    refusals.tell(
        setup.doors, peer, answer, text, "DATA", known=peer.is_known, sender=str(draft.mail.reverse_path),
        recipients=draft.names,
    )  # fmt: skip
    on_reply(answer)


def _report_only(
    setup: ListenerSetup, draft: Draft, on_reply: OnReply, stored: Stored, events: tuple[Event, ...]
) -> None:
    """Rules or aliases let the message go, but its sender is to hear of recipients who were refused."""
    doors = setup.doors
    made, reported = doors.storing.report(draft.refused, stored)
    draft.abort()
    accepted = drafts.accepted(stored.envelope, draft.started_us)
    events = (*drafts.refused(draft.refused, accepted), *events[1:], *reported)
    if made:
        doors.storing.accept(made[0], events, partial(_committed, setup, draft, on_reply, made[0], (), ()))
    else:
        doors.record(events)
        on_reply(_queued(draft.id))


def _stamped(events: tuple[Event, ...], now_us: int) -> tuple[Event, ...]:
    """Large content was led through the aliases before its file was synced, a while ago."""
    if events[0].at_us == now_us:
        return events
    return tuple([msgspec.structs.replace(event, at_us=now_us) for event in events])


def _until(release_us: int, rows: tuple[Waiting, ...]) -> tuple[Waiting, ...]:
    """Rows of recipients whose message is to be released later (RFC 4865)."""
    text = f"to be released at {wishes.date_time(release_us)}, as the client asked"
    return tuple(msgspec.structs.replace(row, held=False, due_us=release_us, text=text) for row in rows)


def _committed(
    setup: ListenerSetup,
    draft: Draft,
    on_reply: OnReply,
    stored: Stored,
    waiting: tuple[Waiting, ...],
    reports: tuple[Stored, ...],
    failure: Failure | None,
) -> None:
    """The commit has come, or failed. The queue hears of it first: this message is ours, whatever becomes of the
    session."""
    if failure is not None:
        _failed(setup, draft, on_reply, failure)
        return
    try:
        # The message and its reports are the queue's from here on.
        if waiting:
            setup.doors.storing.waiting(stored.envelope.id, waiting)
        else:
            setup.doors.storing.queued(stored)
        for report in reports:
            setup.doors.storing.queued(report)
    finally:  # it is committed, whatever breaks behind it
        on_reply(_queued(draft.id))


def _failed(setup: ListenerSetup, draft: Draft, on_reply: OnReply, failure: Failure) -> None:
    """Nothing of the message is stored: the client shall come back with it."""
    draft.abort()
    doors = setup.doors
    if draft.sent and doors.limiting.sent is not None:
        doors.limiting.sent(draft.peer, draft.said_sender, -draft.sent, -1)
    text = f"could not be stored: {failure.text}"
    doors.log((Noted(doors.now_us(), draft.id, "error", text),))
    answer, peer = _FAILURES[failure.kind], draft.peer
    refusals.tell(
        doors, peer, answer, f"could not be stored: {failure.text[-_REASON_MAX:]}", "DATA", known=peer.is_known,
        sender=str(draft.mail.reverse_path), recipients=draft.names,
    )
    on_reply(answer)


def _queued(queue_id: int) -> Reply:
    return Reply(250, "2.0.0", (f"Ok: queued as {identifier.text(queue_id)}",))
