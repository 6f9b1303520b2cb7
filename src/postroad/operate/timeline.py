"""What happened to a message, and what comes next for each of its recipients: from events and state to text and JSON.

Pure: events of the history (in the order of time), what the spool still holds, whether a node runs, and the time.

What always holds: every known recipient gets exactly one line at the end that says what comes next: from the spool if
the recipient still waits, else from the last event about it. So no recipient is without an answer. Text of others is
cleaned before it is shown.
"""

from __future__ import annotations

import enum
from collections.abc import Iterable, Iterator, Sequence
from typing import assert_never

import msgspec

from postroad.mail import identifier
from postroad.mail.attempt import Attempt, Outcome, Reach, Try
from postroad.mail.envelope import Peer
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
from postroad.mail.tls_details import TlsDetails
from postroad.operate.listing import said_by
from postroad.operate.present import clock_time, moment, octets, span, when
from postroad.report.client import behind, quoted, whereabouts
from postroad.report.line import escaped_json, json_line
from postroad.report.notation import iso
from postroad.report.text import clean
from postroad.report.words import UNSAID, evaluated_facts, finding
from postroad.store.values import Loaded, Waiting

_NAMES_MAX = 3  # recipients that a line of the timeline names
_FOUND_MAX = 20  # results of checks that the timeline shows
_CHANGES_MAX = 10  # changes that a line of the timeline names


class Fate(enum.Enum):
    """What became of a recipient, or stands before it."""

    DELIVERED = "delivered"
    RELAYED = "relayed"
    FAILED = "failed"
    REMOVED = "removed"
    EXPANDED = "expanded"
    WAITING = "waiting"
    HELD = "held"
    NOW = "being delivered"
    UNKNOWN = "unknown"


class RecipientStatus(msgspec.Struct, frozen=True):
    """One recipient and what comes next. `text` is the whole sentence; `next_us` 0 if nothing follows. `route`: where
    it goes by the settings as they are now, if that is not `destination`; else ""."""

    recipient: str
    fate: Fate
    text: str
    destination: str = ""
    attempts: int = 0
    next_us: int = 0
    status: str = ""
    reason: str = ""
    route: str = ""


class Trail(msgspec.Struct, frozen=True):
    """All there is to tell of one message; `reports`: of the DSNs made for it. `id` 0: log-ins and refused commands of
    clients, which belong to no message."""

    id: int
    events: tuple[Event, ...]
    outlooks: tuple[RecipientStatus, ...]
    reports: tuple[Trail, ...] = ()


def trail(
    id: int,
    events: Sequence[Event],
    loaded: Loaded | None,
    *,
    running: bool,
    now_us: int,
    recipient: str = "",
    reports: Iterable[Trail] = (),
) -> Trail:
    """`loaded`: what the spool holds of the message, None if nothing. `recipient`: only what concerns this one,
    and those whom it was expanded into."""
    known = list(events)
    outlooks = _outlooks(known, loaded, running, now_us)
    if recipient:
        meant = _meant(known, recipient)
        known = [event for event in known if _concerns(event, meant)]
        outlooks = [outlook for outlook in outlooks if outlook.recipient.lower() in meant] or outlooks
    return Trail(id, tuple(known), tuple(outlooks), tuple(reports))


def reports_of(events: Sequence[Event], recipient: str = "") -> list[int]:
    """The queue ids of the DSNs that the events tell of, or of those that concern one recipient."""
    meant = _meant(events, recipient) if recipient else None
    return [
        event.report
        for event in events
        if isinstance(event, Reported) and event.report and (meant is None or _concerns(event, meant))
    ]


def _meant(events: Sequence[Event], recipient: str) -> set[str]:
    """The recipient and those whom it was expanded into, in lower case."""
    into = [
        name.lower()
        for event in events
        if isinstance(event, Expanded) and _same(event.recipient, recipient)
        for name in event.into
    ]
    return {recipient.lower(), *into}


def names_recipient(events: Iterable[Event], loaded: Loaded | None, address: str) -> bool:
    """Whether `address` is a recipient of the message, now or before an alias."""
    if not address:
        return False
    if loaded is not None and any(_same(str(each.address), address) for each in loaded.envelope.recipients):
        return True
    return any(
        any(_same(name, address) for name in event.recipients)
        if isinstance(event, Accepted)
        else isinstance(event, Expanded) and _same(event.recipient, address)
        for event in events
    )


def _same(one: str, other: str) -> bool:
    return one.lower() == other.lower()


def _concerns(event: Event, meant: set[str]) -> bool:
    match event:
        case Accepted() | Noted() | SessionEnded() | Refused() | Authenticated():
            return True
        case Inspected() | Rewritten() | Evaluated():
            return True
        case Expanded():
            return event.recipient.lower() in meant or any(name.lower() in meant for name in event.into)
        case _:
            return any(name.lower() in meant for name in event.recipients)


# What comes next


def _outlooks(events: Sequence[Event], loaded: Loaded | None, running: bool, now_us: int) -> list[RecipientStatus]:
    found: dict[str, RecipientStatus] = {}
    for event in events:
        for outlook in _after(event):
            found[outlook.recipient] = outlook
    if loaded is None:
        return list(found.values())
    if not loaded.waiting:  # accepted, nothing of it settled yet
        for recipient in loaded.envelope.recipients:
            name = recipient.name
            found[name] = RecipientStatus(name, *_fresh(running))
    for row in loaded.waiting:
        name = loaded.envelope.recipients[row.index].name
        found[name] = _waiting(name, row, running, now_us)
    return list(found.values())


def _fresh(running: bool) -> tuple[Fate, str]:
    if running:
        return Fate.NOW, "is being delivered now, or waits for a free connection"
    return Fate.WAITING, "will be tried as soon as the node runs"


def _waiting(name: str, row: Waiting, running: bool, now_us: int) -> RecipientStatus:
    reason = clean(row.text)
    facts = (row.destination, row.attempts, 0 if row.held else row.due_us, row.status, reason)
    if row.held:
        because = f" because: {reason}" if reason and not row.remote else ""  # a remote has not held it
        text = f"is held{because}; `postroad queue release` lets it go on"
        return RecipientStatus(name, Fate.HELD, text, *facts)
    because = f", because: {clean(said_by(row.remote, row.text))}" if reason else ""
    times = f" after {row.attempts} attempt{'s' if row.attempts != 1 else ''}" if row.attempts else ""
    if row.due_us <= now_us:
        if running:
            return RecipientStatus(name, Fate.NOW, f"is being delivered now, or about to be{times}{because}", *facts)
        text = f"is due, and will be tried as soon as the node runs{times}{because}"
        return RecipientStatus(name, Fate.WAITING, text, *facts)
    return RecipientStatus(name, Fate.WAITING, f"will be tried at {when(row.due_us, now_us)}{times}{because}", *facts)


def _after(event: Event) -> Iterator[RecipientStatus]:
    """What an event means for those whom it concerns, as long as no later one and no state says otherwise."""
    match event:
        case Accepted():
            for name in event.recipients:
                yield RecipientStatus(name, Fate.UNKNOWN, "its end is unknown: the history does not hold it")
        case Expanded():
            text = f"was replaced by {_names(event.into)}"
            yield RecipientStatus(event.recipient, Fate.EXPANDED, text)
        case Attempted():
            for name in event.recipients:
                yield _attempted(name, event, event.attempt)
        case Failed():
            for name in event.recipients:
                text = f"has failed at {moment(event.at_us)}{_by(event.by)}: {clean(event.status)} {clean(event.text)}"
                yield RecipientStatus(name, Fate.FAILED, text, status=event.status, reason=clean(event.text))
        case Removed():
            for name in event.recipients:
                text = f"was removed at {moment(event.at_us)}{_by(event.by)}{_why(event.text)}; nobody got a report"
                yield RecipientStatus(name, Fate.REMOVED, text, reason=clean(event.text))
        case Held():
            for name in event.recipients:
                yield RecipientStatus(
                    name, Fate.HELD, f"is held{_by(event.by)}{_why(event.text)}", reason=clean(event.text)
                )
        case Released():
            for name in event.recipients:
                yield RecipientStatus(name, Fate.WAITING, "will be tried now")
        case Reported() | Refused() | Authenticated() | SessionEnded() | Noted():
            return
        case Inspected() | Rewritten() | Evaluated():
            return
        case _:
            assert_never(event)


def _attempted(name: str, event: Attempted, attempt: Attempt) -> RecipientStatus:
    reason = _reason(attempt)
    facts = (event.destination, event.attempts, event.next_us, attempt.status, reason)
    at = moment(event.at_us)
    match attempt.outcome:
        case Outcome.DELIVERED:
            return RecipientStatus(name, Fate.DELIVERED, f"was delivered to {clean(event.destination)} at {at}", *facts)
        case Outcome.RELAYED:
            return RecipientStatus(
                name, Fate.RELAYED, f"was taken by {_remote(attempt) or 'another server'} at {at}", *facts
            )
        case Outcome.FAILED:
            return RecipientStatus(name, Fate.FAILED, f"has failed at {at}: {reason}", *facts)
        case Outcome.DEFERRED:
            text = f"was to be tried at {moment(event.next_us)}, because: {reason}"
            return RecipientStatus(name, Fate.UNKNOWN, text, *facts)
        case _:
            assert_never(attempt.outcome)


def _reason(attempt: Attempt) -> str:
    said = clean(str(attempt.reply)) if attempt.reply is not None else ""
    own = clean(attempt.text)
    return f"{said} ({own})" if said and own else said or own or clean(attempt.status)


# For people


def lines(shown: Trail, now_us: int, indent: str = "") -> Iterator[str]:
    """The timeline of a message, then what comes next, then the same for each report on it."""
    title = f"{indent}Message {identifier.text(shown.id)}" if shown.id else f"{indent}No message"
    accepted = next((event for event in shown.events if isinstance(event, Accepted)), None)
    if accepted is not None:
        title += f"  from <{clean(accepted.reverse_path)}>, {octets(accepted.size)}"
        title += f", Message-ID {clean(accepted.message_id)}" if accepted.message_id else ""
    yield title
    day = ""
    for event in shown.events:
        if moment(event.at_us)[:10] != day:
            day = moment(event.at_us)[:10]
            yield f"{indent}  {day}"
        first, *others = _told(event)
        yield f"{indent}  {clock_time(event.at_us)}  {first}"
        for other in others:
            yield f"{indent}                {other}"
    yield f"{indent}  What comes next:"
    if not shown.id:
        yield from (f"{indent}    {line}" for line in _after_refusals(shown.events))
        return
    if not shown.outlooks:
        yield f"{indent}    nothing is known about any recipient"
    for outlook in shown.outlooks:
        yield f"{indent}    <{clean(outlook.recipient)}> {outlook.text}"
    for report in shown.reports:
        yield ""
        yield f"{indent}  Report on it:"
        yield from lines(report, now_us, indent + "    ")


def _told(event: Event) -> list[str]:
    match event:
        case Accepted():
            return _accepted(event)
        case Expanded():
            return [f"expanded   <{clean(event.recipient)}> into {_names(event.into)}"]
        case Attempted():
            return _attempt(event, event.attempt)
        case Failed():
            return [
                f"failed     {_names(event.recipients)}{_by(event.by)}",
                clean(f"{event.status} {event.text}"),
            ]
        case Reported():
            if event.report:
                id_text = identifier.text(event.report)
                return [f"reported   {clean(event.action)} for {_names(event.recipients)}: message {id_text}"]
            return [f"unreported {clean(event.action)} for {_names(event.recipients)}: {clean(event.text)}"]
        case Held():
            return [f"held       {_names(event.recipients)}{_by(event.by)}{_why(event.text)}"]
        case Released():
            return [f"{'retry now ' if event.now else 'released  '} {_names(event.recipients)}{_by(event.by)}"]
        case Removed():
            return [f"removed    {_names(event.recipients)}{_by(event.by)}{_why(event.text)}"]
        case Refused():
            return _refused(event)
        case Authenticated():
            return [f"authentic  {_client(event.peer)} by {clean(event.mechanism)}"]
        case SessionEnded():
            return [f"session    of {_client(event.peer)} ended: {clean(event.reason)}"]
        case Noted():
            return [f"{event.level:10} {clean(event.text)}"]
        case Inspected():
            return [f"checked    {clean(event.rule)}: {clean(event.result)}{_why(event.text)}"]
        case Rewritten():
            return [f"rewritten  {clean('; '.join(event.changes[:_CHANGES_MAX]))}{_further(event.changes)}"]
        case Evaluated():
            return _evaluated(event)
        case _:
            assert_never(event)


def _further(changes: tuple[str, ...]) -> str:
    return f"; and {len(changes) - _CHANGES_MAX} more" if len(changes) > _CHANGES_MAX else ""


def _evaluated(event: Evaluated) -> list[str]:
    """Each check in short, then in words."""
    evaluation = event.evaluation
    found = ", ".join(map(finding, evaluation.found[:_FOUND_MAX])) or "nothing"
    told = [each.told for each in evaluation.found[:_FOUND_MAX] if each.told]
    return [f"evaluated  {clean(found)}", *map(clean, (*told, *evaluated_facts(evaluation)))]


def _accepted(event: Accepted) -> list[str]:
    told = [f"accepted   for {_names(event.recipients)}"]
    if event.peer.address or event.peer.hello:
        told.append(f"from {_client(event.peer)}")
    elif event.parent:
        told.append(f"made here, a report on {identifier.text(event.parent)}")
    if event.envid:
        told.append(f"envelope id {clean(event.envid)}")
    if event.took_us:
        told.append(f"took {span(event.took_us)} until it was safe")
    return told


def _refused(event: Refused) -> list[str]:
    told = [f"refused    {clean(event.phase)} of {_client(event.peer)}", f"was told: {clean(event.reply) or UNSAID}"]
    if event.phase == "AUTH":
        account = [f"account {clean(event.reason) or '-'}"] if event.reason or not event.why else []
        return [*told, *account, *([clean(event.why)] if event.why else [])]
    if event.reason and event.reason not in event.reply:
        told.append(clean(event.reason))
    sender = f"from <{clean(event.reverse_path)}>"
    names = event.recipients or ((event.recipient,) if event.recipient else ())
    if names:
        told.append(f"{sender}, for {_names(names)}")
    elif event.phase == "MAIL" or event.reverse_path:
        told.append(sender)
    return told


def _after_refusals(events: Sequence[Event]) -> Iterator[str]:
    """What follows from refusals: it is the client's turn."""
    codes = {event.reply[:1] for event in events if isinstance(event, Refused) and event.phase != "AUTH"}
    if "4" in codes:
        yield "a client that was answered 4xx keeps the mail and should try again by itself"
    if "5" in codes:
        yield "a client that was answered 5xx does not try again: it reports to its user or the sender itself"
    if codes & {"4", "5"}:
        return
    if any(isinstance(event, Authenticated) for event in events):
        yield "nothing: this is a log-in, no mail"
    else:
        yield "nothing: only log-ins were refused, no mail"


def _attempt(event: Attempted, attempt: Attempt) -> list[str]:
    number = f", attempt {event.attempts}" if event.attempts > 1 else ""
    told = [f"{attempt.outcome.value:10} {_names(event.recipients)} to {clean(event.destination)}{number}"]
    remote = _remote(attempt)
    if remote and (attempt.tls or attempt.reach is not Reach.DESTINATION):
        told.append(f"at {remote}, {clean(_tls(attempt.tls, attempt.tls_details))}")
    elif remote:  # the session ended before there was TLS, or there was no session
        told.append(f"at {remote}")
    if attempt.policy is not None:
        told.append(clean(attempt.policy.in_words))
    if attempt.auth:
        told.append(f"authenticated by {clean(attempt.auth)}" if attempt.reach is not Reach.DESTINATION
                    else f"tried to authenticate by {clean(attempt.auth)}")  # fmt: skip
    if attempt.tries and attempt.reach is Reach.DESTINATION:  # a line for each host says it all
        told.append(clean(f"{attempt.status} {attempt.text.partition(': ')[0]}"))
    else:
        if attempt.reply is None:
            told.append(clean(f"{attempt.status} {attempt.text}").rstrip())
        else:
            told.append(f"said: {clean(str(attempt.reply))}")
            if attempt.text:  # ours, without a status, which would make it the remote's
                told.append(clean(attempt.text))
    told += map(_try, attempt.tries)
    if attempt.signed:
        told.append(clean(f"signed by {', '.join(attempt.signed)}"))
    if attempt.unsigned:
        told.append(clean(f"not signed{' by all keys' if attempt.signed else ''}: {attempt.unsigned}"))
    times = [f"took {span(attempt.took_us)}"] if attempt.took_us else []
    times += [f"connecting {span(attempt.connect_us)}"] if attempt.connect_us else []
    if times:
        told.append(", ".join(times))
    return told


def _try(tried: Try) -> str:
    """A host that did not take the connection, on one line."""
    where = clean(f"{tried.name} [{tried.address}]:{tried.port}" if tried.port else tried.name)
    said = f"said: {clean(str(tried.reply))}" if tried.reply is not None else clean(tried.text)
    tls = f", {clean(tried.tls)}" if tried.tls else ""
    if tried.policy is not None:
        tls += f", {clean(tried.policy.in_words)}"
    return f"tried {where}{tls}: {clean(tried.status)} {said}, {span(tried.took_us)}"


def _tls(tls: str, details: TlsDetails | None) -> str:
    if not tls:
        return "without TLS"
    return tls if details is None or not details.text else f"{tls}, {details.text}"


def _remote(attempt: Attempt) -> str:
    if not attempt.remote_address:
        return clean(attempt.remote_name)
    port = f":{attempt.remote_port}" if attempt.remote_port else ""
    return clean(f"{attempt.remote_name} [{attempt.remote_address}]{port}".lstrip())


def _client(peer: Peer) -> str:
    literal = f"[{peer.address}]"
    hello = "" if peer.hello in ("", literal) else f" {quoted(peer.hello)}"  # its address for a name is said once
    parts = [f"{whereabouts(peer)}{hello}", peer.protocol, _tls(peer.tls, peer.tls_details)]
    parts += [f"authenticated as {peer.identity}"] if peer.identity else []
    parts += [f"at listener {peer.listener}"] if peer.listener else []
    parts += behind(peer)
    return clean(", ".join(part for part in parts if part))


def _names(recipients: Sequence[str]) -> str:
    named = ", ".join(f"<{clean(name)}>" for name in recipients[:_NAMES_MAX])
    more = len(recipients) - _NAMES_MAX
    return f"{named} and {more} more" if more > 0 else named


def _by(by: str) -> str:
    return f" by {clean(by)}" if by else ""


def _why(text: str) -> str:
    return f": {clean(text)}" if text else ""


# JSON


class _OutlookLine(msgspec.Struct):
    recipient: str
    fate: str
    text: str
    destination: str
    attempts: int
    next: str | None
    status: str
    reason: str
    route: str


class _TrailLine(msgspec.Struct):
    id: str
    events: list[msgspec.Raw]  # as in the log, see report.line
    recipients: list[_OutlookLine]
    reports: list[_TrailLine]


def json_of(shown: Sequence[Trail]) -> bytes:
    """An array of messages."""
    return escaped_json(msgspec.json.encode([_trail_line(each) for each in shown]).decode()).encode()


def _trail_line(shown: Trail) -> _TrailLine:
    return _TrailLine(
        identifier.text(shown.id) if shown.id else "",
        [msgspec.Raw(json_line(event)) for event in shown.events],
        [
            _OutlookLine(
                outlook.recipient, outlook.fate.value, outlook.text, outlook.destination, outlook.attempts,
                iso(outlook.next_us) if outlook.next_us else None, outlook.status, outlook.reason, outlook.route,
            )
            for outlook in shown.outlooks
        ],
        [_trail_line(report) for report in shown.reports],
    )  # fmt: skip
