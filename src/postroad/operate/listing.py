"""What `postroad queue` shows: values from the state of the spool to rows of a table, to lines, and to JSON. Pure.

Text of others is cleaned where it is shown (`operate.present`).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import msgspec

from postroad.mail import identifier
from postroad.mail.address import path
from postroad.mail.envelope import Envelope, Notify
from postroad.mail.message import fields
from postroad.operate.operator import OperatorResult
from postroad.operate.present import octets, span, when
from postroad.operate.requests import Doing, Paced
from postroad.operate.routes import NO_ROUTES, Routes, changed, question
from postroad.report.client import behind, client_line, quoted, whereabouts
from postroad.report.encoded_word import decode
from postroad.report.notation import iso
from postroad.report.text import clean, shorten, shorten_reason
from postroad.store.values import Backlog, Loaded, Waiting

_REASON_MAX = 100  # characters of a reason in a table
_FIELDS_MAX = 100  # header fields that are shown
_VALUE_MAX = 500
NOT_TRIED = "(not tried yet)"
NOT_ROUTED = "(destination not known yet)"  # of mail that waits until its destination can be found


class DestinationLine(msgspec.Struct, frozen=True):
    """What waits for one destination. `oldest` and `next` as ISO 8601; `reason` is that of its oldest message.

    The connections, what it waits for (a limit, a rate, the end of a back-off) and what is being done are those of a
    running node; None if none runs or the destination is not at work."""

    destination: str
    count: int
    held: int
    oldest: str | None
    next: str | None
    reason: str
    connections: int | None = None
    connections_now_max: int | None = None
    connections_max: int | None = None
    waits_for: str = ""
    doing: tuple[Doing, ...] = ()
    route: str = ""


class RecipientLine(msgspec.Struct, frozen=True):
    """One recipient that waits. `state`: fresh, waiting, due or held. `waits_for`: what keeps a running node from
    trying it now: a limit, a rate, the end of a back-off; "" if nothing does, or it is not known. `route`: where the
    mail would go by the settings as they are now, "" if that is not known."""

    recipient: str
    state: str
    destination: str
    attempts: int
    next: str | None
    last: str | None
    status: str
    reason: str
    remote: str
    waits_for: str = ""
    route: str = ""


class MessageLine(msgspec.Struct, frozen=True):
    """One message with what waits of it."""

    id: str
    accepted: str
    reverse_path: str
    size: int
    message_id: str
    recipient_count: int
    recipients: list[RecipientLine]


# From the spool's values


def destination_line(
    backlog: Backlog, oldest: Loaded | None, paced: Paced | None = None, accepted_us: int = 0, route: str = ""
) -> DestinationLine:
    """`oldest`: the oldest message of the destination, None if that was not looked up; `accepted_us`: of what has
    none on the disk."""
    reason = ""
    if oldest is not None:
        accepted_us = oldest.envelope.accepted_us
    if oldest is not None:
        rows = [row for row in oldest.waiting if row.destination == backlog.destination]
        reason = max(rows, key=lambda row: row.last_us).text if rows else ""
    return DestinationLine(
        backlog.destination,
        backlog.count,
        backlog.held,
        iso(accepted_us) if accepted_us else None,
        iso(backlog.due_us) if backlog.due_us > 1 else None,
        reason,
        paced.connections if paced is not None else None,
        paced.connections_now_max if paced is not None else None,
        paced.connections_max if paced is not None else None,
        paced.in_full if paced is not None else "",
        paced.doing if paced is not None else (),
        route,
    )


class FreshBacklog(msgspec.Struct, frozen=True):
    """Recipients of messages of which nothing has been settled. `paced`: the destination that holds them back; None
    where they are on their way at this moment, or wait for the node to start."""

    count: int
    accepted_us: int
    paced: Paced | None = None

    @property
    def name(self) -> str:
        return self.paced.destination if self.paced is not None else NOT_TRIED


def fresh_of(envelopes: Iterable[Envelope], paces: Mapping[str, Paced]) -> list[FreshBacklog]:
    """What was not tried yet, by what holds it back; what nothing holds back comes last."""
    holding = holding_back(paces)
    found: dict[str, tuple[int, int]] = {}
    for envelope in envelopes:  # the oldest first
        for recipient in envelope.recipients:
            paced = holding.get(recipient.address.domain)
            key = paced.destination if paced is not None else ""
            count, accepted_us = found.get(key, (0, envelope.accepted_us))
            found[key] = (count + 1, accepted_us)
    return [FreshBacklog(*found[key], paces.get(key)) for key in sorted(found, key=lambda key: (not key, key))]


def holding_back(paces: Mapping[str, Paced]) -> dict[str, Paced]:
    """The destination that has what was not tried yet, and holds it back or is at it, by the recipients' domain."""
    return {domain: each for each in paces.values() if each.waits_for or each.doing for domain in each.domains}


def fresh_line(fresh: FreshBacklog) -> DestinationLine:
    return destination_line(Backlog(fresh.name, fresh.count, 0, 1), None, fresh.paced, fresh.accepted_us)


def message_line(
    loaded: Loaded, now_us: int, paces: Mapping[str, Paced] | None = None, routes: Routes = NO_ROUTES
) -> MessageLine:
    envelope = loaded.envelope
    if loaded.waiting:
        rows = [_recipient_line(envelope, row, now_us, paces or {}, routes) for row in loaded.waiting]
    else:
        holding = holding_back(paces or {})
        rows = [
            RecipientLine(
                each.name, "fresh", "", 0, None, None, "", "", "",
                held.in_full if (held := holding.get(each.address.domain)) is not None else "",
            )
            for each in envelope.recipients
        ]  # fmt: skip
    return MessageLine(
        identifier.text(envelope.id),
        iso(envelope.accepted_us),
        str(envelope.reverse_path) if envelope.reverse_path is not None else "",
        envelope.size,
        envelope.message_id,
        len(envelope.recipients),
        rows,
    )


def _state(row: Waiting, now_us: int) -> str:
    return "held" if row.held else "due" if row.due_us <= now_us else "waiting"


def _at_it(envelope: Envelope, row: Waiting, now_us: int, paces: Mapping[str, Paced]) -> Paced | None:
    """The destination that has a recipient who is due. The disk knows that of his last attempt; if a reload has
    changed the way since, it is the one that his domain has now."""
    if _state(row, now_us) != "due":
        return None
    domain = envelope.recipients[row.index].address.domain
    return paces.get(row.destination) or holding_back(paces).get(domain)


def _held_up(envelope: Envelope, row: Waiting, now_us: int, paces: Mapping[str, Paced]) -> str:
    """What keeps the node from trying a recipient that is due."""
    paced = _at_it(envelope, row, now_us, paces)
    return paced.in_full if paced is not None else ""


def _recipient_line(
    envelope: Envelope, row: Waiting, now_us: int, paces: Mapping[str, Paced], routes: Routes
) -> RecipientLine:
    name = envelope.recipients[row.index].name
    return RecipientLine(
        name,
        _state(row, now_us),
        row.destination,
        row.attempts,
        None if row.held else iso(row.due_us),
        iso(row.last_us) if row.last_us else None,
        row.status,
        row.text,
        row.remote,
        _held_up(envelope, row, now_us, paces),
        routes.get(question(envelope, row).key, ""),
    )


# Tables


DESTINATION_HEADINGS = ("DESTINATION", "COUNT", "HELD", "OLDEST", "NEXT", "CONN", "WAITS FOR", "REASON OF THE OLDEST")
DESTINATION_RIGHT = frozenset({1, 2})


def destination_rows(
    backlogs: Iterable[tuple[Backlog, Loaded | None]],
    fresh: Iterable[FreshBacklog],
    now_us: int,
    paces: Mapping[str, Paced] | None = None,
    routes: Routes = NO_ROUTES,
) -> list[tuple[str, ...]]:
    rows: list[tuple[str, ...]] = []
    for backlog, oldest in backlogs:
        paced = (paces or {}).get(backlog.destination)
        line = destination_line(backlog, oldest, paced)
        rows.append((
            _with_route(line.destination or NOT_ROUTED, route_of_oldest(backlog, oldest, routes)),
            str(line.count),
            str(line.held),
            span(now_us - oldest.envelope.accepted_us) if oldest is not None else "",
            _next(backlog.due_us, now_us, paced),
            f"{paced.connections}/{paced.connections_now_max}" if paced is not None else "",
            # Why a destination is left alone is most often what was said of its oldest message.
            shorten_reason(_waits_or_does(paced, with_reason=not line.reason), _REASON_MAX),
            shorten_reason(line.reason, _REASON_MAX),
        ))
    for each in fresh:
        age, paced = span(now_us - each.accepted_us), each.paced
        connections = f"{paced.connections}/{paced.connections_now_max}" if paced is not None else ""
        waits_for = shorten_reason(_waits_or_does(paced, with_reason=True), _REASON_MAX)
        due = "" if paced is not None and paced.waits_for else "now"
        rows.append((each.name, str(each.count), "0", age, due, connections, waits_for, ""))
    return rows


def _next(due_us: int, now_us: int, paced: Paced | None) -> str:
    """When the next attempt is. What is due and held back says so where it says what it waits for, and only there."""
    if not due_us:
        return "held"
    return "" if due_us <= now_us and paced is not None and paced.waits_for else _due(due_us, now_us)


def route_of_oldest(backlog: Backlog, oldest: Loaded | None, routes: Routes) -> str:
    """Where the oldest message of a destination would go by the settings as they are now, if that is elsewhere."""
    if oldest is None:
        return ""
    for row in oldest.waiting:
        if row.destination == backlog.destination:
            return changed(row.destination, routes.get(question(oldest.envelope, row).key, ""))
    return ""


def _with_route(tried: str, now: str) -> str:
    return f"{tried}, now {now}" if now else tried


def _waits_or_does(paced: Paced | None, *, with_reason: bool) -> str:
    """What keeps a destination's mail, else what is being done about it."""
    if paced is None:
        return ""
    return (paced.in_full if with_reason else paced.waits_for) or paced.under_way


MESSAGE_HEADINGS = ("ID", "AGE", "SIZE", "FROM", "TO", "ATTEMPTS", "NEXT", "REASON")
MESSAGE_RIGHT = frozenset({1, 2, 5})


def message_rows(
    messages: Iterable[Loaded], now_us: int, paces: Mapping[str, Paced] | None = None, routes: Routes = NO_ROUTES
) -> list[tuple[str, ...]]:
    """One row for each message; recipients that share their state share one row, others have rows of their own."""
    rows = []
    for loaded in messages:
        envelope = loaded.envelope
        head: tuple[str, ...] = (
            identifier.text(envelope.id),
            span(now_us - envelope.accepted_us),
            octets(envelope.size),
            path(envelope.reverse_path),
        )
        for names, attempts, due, reason in _grouped(loaded, now_us, paces or {}, routes):
            rows.append((*head, names, attempts, due, shorten_reason(reason, _REASON_MAX)))
            head = ("", "", "", "")
    return rows


def _grouped(
    loaded: Loaded, now_us: int, paces: Mapping[str, Paced], routes: Routes
) -> list[tuple[str, str, str, str]]:
    recipients = loaded.envelope.recipients
    groups: dict[tuple[str, str, str], list[str]] = {}
    holding = holding_back(paces)
    for each in () if loaded.waiting else recipients:
        held = holding.get(each.address.domain)
        facts = ("0", "now", "")
        if held is not None:
            facts = ("0", "", f"waits for: {held.in_full}") if held.waits_for else ("0", "now", held.under_way)
        groups.setdefault(facts, []).append(each.name)
    for row in loaded.waiting:
        due = "held" if row.held else _due(row.due_us, now_us)
        waits_for = _held_up(loaded.envelope, row, now_us, paces)
        doing = _doing(_at_it(loaded.envelope, row, now_us, paces), loaded)
        name = recipients[row.index].name
        reason = f"waits for: {waits_for}" if waits_for else doing[0] if doing else row.text
        now = "" if doing else changed(row.destination, routes.get(question(loaded.envelope, row).key, ""))
        reason += f"; goes to {now} now, not to {row.destination}" if now else ""
        groups.setdefault((str(row.attempts), "" if waits_for else due, reason), []).append(name)
    return [(_some(names), *facts) for facts, names in groups.items()]


def _some(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else f"{names[0]} and {len(names) - 1} more"


def _due(due_us: int, now_us: int) -> str:
    return f"in {span(due_us - now_us)}" if due_us > now_us else "now"


# One message in full


def shown(
    loaded: Loaded, head: bytes, now_us: int, paces: Mapping[str, Paced] | None = None, routes: Routes = NO_ROUTES
) -> list[str]:
    """The lines of `queue show`."""
    envelope = loaded.envelope
    lines = [
        f"Message {identifier.text(envelope.id)}",
        f"  accepted    {when(envelope.accepted_us, now_us)}",
        f"  from        {clean(path(envelope.reverse_path))}",
        f"  size        {octets(envelope.size)} ({envelope.size})",
        f"  Message-ID  {clean(envelope.message_id) or 'none'}",
    ]
    peer = envelope.peer
    if peer.address:
        client = f"{whereabouts(peer)} {quoted(peer.hello)}, {peer.protocol}, {peer.tls or 'without TLS'}"
        client += f", {peer.tls_details.text}" if peer.tls_details is not None else ""
        client += f", authenticated as {peer.identity}" if peer.identity else ""
        lines.append(f"  client      {clean(client)}" + (f", at {clean(peer.listener)}" if peer.listener else ""))
        lines += [f"              {clean(told)}" for told in behind(peer)]
    if envelope.parent:
        lines.append(f"  reports on  {identifier.text(envelope.parent)}")
    wishes = [f"BODY={envelope.body.value}"]
    wishes += ["SMTPUTF8"] if envelope.smtputf8 else []
    wishes += [f"RET={envelope.ret.value}"] if envelope.ret.value else []
    wishes += [f"ENVID={envelope.envid}"] if envelope.envid else []
    wishes += [f"{keyword}={value}" if value else keyword for keyword, value in envelope.parameters]
    lines.append(f"  parameters  {clean(' '.join(wishes))}")
    lines.append("")
    for index, recipient in enumerate(envelope.recipients):
        row = next((each for each in loaded.waiting if each.index == index), None)
        lines += _recipient_lines(loaded, index, row, now_us, paces or {}, routes)
        wishes = ["NOTIFY=" + ",".join(_notifies(recipient.notify))] if recipient.notify else []
        wishes += [f"ORCPT={recipient.orcpt}"] if recipient.orcpt else []
        wishes += [f"{keyword}={value}" for keyword, value in recipient.parameters]
        if wishes:
            lines.append(clean(f"      {' '.join(wishes)}"))
    if head:
        lines += ["", "Header:"]
        for number, field in enumerate(fields(head)):
            if number == _FIELDS_MAX:
                lines.append("  ...")
                break
            lines.append(f"  {field.name}: {shorten(clean(decode(field.text)), _VALUE_MAX)}")
    return lines


def _doing(paced: Paced | None, loaded: Loaded) -> list[str]:
    """What is being done for a message now: its own transactions, else connections that are being opened for it."""
    if paced is None:
        return []
    own = [each for each in paced.doing if each.message == identifier.text(loaded.envelope.id)]
    return [each.what for each in own or paced.doing if each in own or not each.message]


def _under_way(paced: Paced | None, loaded: Loaded) -> list[str]:
    return [f"      now: {clean(what)}" for what in _doing(paced, loaded)]


def _recipient_lines(
    loaded: Loaded, index: int, row: Waiting | None, now_us: int, paces: Mapping[str, Paced], routes: Routes
) -> list[str]:
    recipient = loaded.envelope.recipients[index]
    name = clean(path(recipient.address))
    if recipient.given is not None:
        name += f" (given as {clean(path(recipient.given))})"
    if row is None:
        held = None if loaded.waiting else holding_back(paces).get(recipient.address.domain)
        waits = [f"      waits for: {clean(held.in_full)}"] if held is not None and held.waits_for else []
        waits += _under_way(held, loaded)
        return [f"  {name}: " + ("has ended" if loaded.waiting else "not tried yet"), *waits]
    state = "held" if row.held else f"next attempt {when(row.due_us, now_us)}"
    lines = [f"  {name}: {state}"]
    lines.append(f"      to {clean(row.destination) or NOT_ROUTED}, attempts {row.attempts}")
    if row.last_us:
        lines[-1] += f", the last {when(row.last_us, now_us)}"
    if now := changed(row.destination, routes.get(question(loaded.envelope, row).key, "")):
        lines.append(f"      with the settings as they are now, the next attempt goes to {clean(now)}")
    paced = _at_it(loaded.envelope, row, now_us, paces)
    if waits_for := _held_up(loaded.envelope, row, now_us, paces):
        lines.append(f"      waits for: {clean(waits_for)}")
    lines += _under_way(paced, loaded)
    if row.text:
        # What a remote has said is no reason for holding it.
        why = "the last attempt" if row.held and row.remote else "because"
        lines.append(f"      {why}: {clean(said_by(row.remote, row.text))}")
    if row.delay_reported:
        lines.append("      the sender has got a delay report")
    return lines


def said_by(remote: str, text: str) -> str:
    """A reason with the remote that it is about, unless it names it."""
    return text if not remote or remote in text else f"{remote}: {text}"


def _notifies(notify: Notify) -> list[str]:
    """The keywords of NOTIFY=; none if it was absent."""
    return [flag.name or "" for flag in (Notify.NEVER, Notify.SUCCESS, Notify.FAILURE, Notify.DELAY) if flag & notify]


class NamedLine(msgspec.Struct, frozen=True):
    """One recipient as the envelope has it; `given`: the mailbox that was named, if an alias changed it, else "".

    `state`: as of a recipient that waits, or ended."""

    recipient: str
    given: str
    notify: list[str]
    orcpt: str
    state: str
    parameters: dict[str, str]


class ShownLine(msgspec.Struct, frozen=True):
    """`queue show --json`: all of the envelope, what waits of it, and the header fields as [name, value]."""

    message: MessageLine
    parent: str
    body: str
    smtputf8: bool
    ret: str
    envid: str
    parameters: dict[str, str]
    client: dict[str, Any]
    recipients: list[NamedLine]
    header: list[tuple[str, str]]


def shown_line(
    loaded: Loaded, head: bytes, now_us: int, paces: Mapping[str, Paced] | None = None, routes: Routes = NO_ROUTES
) -> ShownLine:
    envelope, peer = loaded.envelope, loaded.envelope.peer
    states = {row.index: _state(row, now_us) for row in loaded.waiting}
    missing = "ended" if loaded.waiting else "fresh"
    return ShownLine(
        message_line(loaded, now_us, paces, routes),
        identifier.text(envelope.parent) if envelope.parent else "",
        envelope.body.value,
        envelope.smtputf8,
        envelope.ret.value,
        envelope.envid,
        dict(envelope.parameters),
        {
            "address": peer.address, "port": peer.port, "hello": peer.hello, "protocol": peer.protocol,
            "tls": peer.tls, "identity": peer.identity, "listener": peer.listener, "name": peer.name,
            "via": msgspec.to_builtins(client_line(peer).via),
            "forwarded": msgspec.to_builtins(client_line(peer).forwarded),
            "tls_details": msgspec.to_builtins(client_line(peer).tls_details),
        },
        [
            NamedLine(
                each.name, str(each.given) if each.given else "", _notifies(each.notify), each.orcpt,
                states.get(index, missing), dict(each.parameters),
            )
            for index, each in enumerate(envelope.recipients)
        ],
        [(field.name, field.text) for _, field in zip(range(_FIELDS_MAX), fields(head), strict=False)],
    )  # fmt: skip


# What an operator has done


class ResultLine(msgspec.Struct, frozen=True):
    """What was done to one recipient or why not, as `OperatorResult` has it. With `dry_run` nothing was done, and
    `would` says whether it would be."""

    id: str
    recipient: str
    destination: str
    done: bool
    text: str
    count: int
    dry_run: bool
    would: bool


def result_line(result: OperatorResult, *, dry_run: bool) -> ResultLine:
    would = dry_run and result.done
    return ResultLine(
        result.id, result.recipient, result.destination, result.done and not dry_run,
        _would(result.text) if would else result.text, result.count, dry_run, would,
    )  # fmt: skip


def result_rows(results: Iterable[OperatorResult], *, dry_run: bool = False) -> list[tuple[str, ...]]:
    return [
        (each.id, each.recipient or _recipients(each.count), each.destination,
         _would(each.text) if dry_run and each.done else each.text)
        for each in results
    ]  # fmt: skip


def _would(text: str) -> str:
    """``will be tried now`` → ``would be tried now``; ``removed`` → ``would be removed``."""
    return text.replace("will ", "would ", 1) if text.startswith("will ") else f"would be {text}"


RESULT_HEADINGS = ("ID", "RECIPIENT", "DESTINATION", "RESULT")


def _recipients(count: int) -> str:
    return f"{count} recipient{'s' if count != 1 else ''}"


def summary(results: Sequence[OperatorResult], dry_run: bool) -> str:
    """``2 recipients, 1 left alone``."""
    done = sum(each.count for each in results if each.done)
    left = sum(each.count for each in results if not each.done)
    text = _recipients(done)
    text += f", {left} left unchanged" if left else ""
    return f"{text}; nothing was changed (--dry-run)" if dry_run else text
