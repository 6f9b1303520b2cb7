"""`postroad trace`: shows what happened to a message, and what comes next.

It reads history and spool, whether the node runs or not; `operate.timeline` makes the text. A report about the message
is followed, too, and reports about that. Refused commands are shown as well, and for a client or an account its
log-ins.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Final, TypedDict

import click

from postroad.cli.options import config_option, json_option, state_dir_of

if TYPE_CHECKING:
    from postroad.mail.event import Authenticated, Refused
    from postroad.operate.requests import RouteQuestion
    from postroad.operate.timeline import RecipientStatus, Trail
    from postroad.store.face import HistoryView, SpoolView

WHEN: Final = "12h, 7d, yesterday, today, 2026-11-23 or 2026-11-23T12:15 (UTC)"
DEPTH_MAX = 4  # a report on a report on a report; there is no more than a report to the postmaster


@click.command()
@click.argument("what", metavar="QUEUE-ID|MESSAGE-ID|ADDRESS|CLIENT|ACCOUNT")
@click.option("--since", default="", metavar="WHEN", help=f"Nothing older: {WHEN}.  [default: all]")
@click.option("--until", default="", metavar="WHEN", help=f"Nothing newer: {WHEN}.  [default: all]")
@click.option("--limit", type=click.IntRange(1, 10_000), default=20, show_default=True, help="Most messages to print.")
@json_option
@config_option
def trace(what: str, since: str, until: str, limit: int, as_json: bool, config: Path | None) -> None:
    """Tell what happened to a message, with every attempt and the remote's words, and what comes next.

    The newest message comes last. ADDRESS is that of a sender or of a recipient. CLIENT is an IP address. ACCOUNT is a
    name that logs in. Refused mail and refused log-ins are shown, too.
    """
    from postroad.cli.opened import STOPPED
    from postroad.cli.routes import routes_of
    from postroad.operate import control
    from postroad.operate.timeline import Fate, json_of, lines
    from postroad.operate.view import CannotRead, open_history, open_spool

    now_us = time.time_ns() // 1000
    since_us = when_us(since, now_us) if since else 0
    until_us = when_us(until, now_us) if until else 0
    if not what.strip():
        raise click.UsageError("Say what to look for: a queue id, a Message-ID, an address, a client or an account.")
    if what.startswith("@"):
        raise click.UsageError(
            f"The history finds messages by queue id, Message-ID and full address, not by domain: write one of these. "
            f"`postroad queue --to {what}` lists the mail that waits for a domain."
        )
    state_dir = state_dir_of(config)
    try:
        spool, history = open_spool(state_dir), open_history(state_dir)
        running = control.is_running(state_dir)
        trails = find(what, spool, history, running=running, now_us=now_us, since_us=since_us, limit=limit,
                      until_us=until_us)
    except CannotRead as error:
        click.echo(str(error), err=True)
        sys.exit(1)
    for fault in (*spool.faults, *history.faults):
        click.echo(f"left out: {fault}", err=True)
    if running:
        trails = held_up(trails, partial(_waits, state_dir))
    trails = rerouted(trails, partial(routes_of, config))
    if as_json:
        click.echo(json_of(trails))
    for place, trail in enumerate(trails if not as_json else ()):
        click.echo("\n".join(([""] if place else []) + list(lines(trail, now_us))))
    if not running and any(each.fate is Fate.WAITING for trail in trails for each in trail.outlooks):
        click.echo(STOPPED, err=True)
    if not trails:
        click.echo("\n".join(_nothing(what, history.first_us(), running=running)), err=True)
        sys.exit(1)


def _nothing(what: str, first_us: int, *, running: bool) -> Iterator[str]:
    """That nothing was found, what cannot be found at all, and where to look next."""
    from postroad.operate.present import moment

    begins = f"The history begins on {moment(first_us)[:10]}. It" if first_us else "The history"
    yield f"Nothing is known about {what}."
    if running:
        yield "Refusals are written with a short delay: if it has just happened, ask again."
    yield (
        f"{begins} has no mail that never reached this node, and no client that was "
        "refused before it named a sender or a recipient."
    )
    yield (
        "`postroad trace IP-ADDRESS` shows what one client did, `postroad bans` who is banned. For mail that "
        "is not here, ask the server that sent it."
    )


def when_us(written: str, now_us: int) -> int:
    """A moment in microseconds since 1970: a span before now, a day's beginning in UTC, or a date-time."""
    from postroad.mail import wishes
    from postroad.operate.present import duration

    days = {"today": 0, "yesterday": 1}.get(written)
    if days is not None:
        return (now_us // _DAY_US - days) * _DAY_US
    length_us = duration(written)
    if length_us is not None:
        return now_us - length_us
    at_us = wishes.date_or_time_us(written.replace(" ", "T"))
    at_us = at_us if at_us is not None else wishes.date_or_time_us(_whole(written))
    if at_us is None:
        raise click.UsageError(f"{written!r} is not a time: write {WHEN}.")
    return at_us


def _whole(written: str) -> str:
    """A time of day in UTC with all that RFC 3339 wants of it."""
    text = written.replace(" ", "T")
    return f"{text}:00Z" if len(text) == len("2026-11-23T12:15") else f"{text}Z"


_DAY_US: Final = 86_400_000_000


def held_up(trails: Sequence[Trail], waits: Callable[[list[str]], Mapping[str, str]]) -> list[Trail]:
    """The trails with what the mail waits for that is on its way now. `waits(destinations)`: what the node says of
    these, and unasked of others that have most waiting. What was not tried yet has no destination on the disk: it is
    that of its domain, by MX or behind a next hop."""
    import msgspec

    from postroad.mail.route import domain_of
    from postroad.operate.timeline import Fate

    going = [each for trail in trails for each in trail.outlooks if each.fate is Fate.NOW]
    if not going:
        return list(trails)
    found = dict(waits([*dict.fromkeys(each.destination or _domain(each.recipient) for each in going), "*"]))
    by_domain = {domain_of(key): text for key, text in found.items()}

    def told(outlook: RecipientStatus) -> RecipientStatus:
        if outlook.fate is not Fate.NOW:
            return outlook
        text = found.get(outlook.destination) if outlook.destination else by_domain.get(_domain(outlook.recipient))
        return msgspec.structs.replace(outlook, text=f"is being delivered now, or waits: {text}") if text else outlook

    return [msgspec.structs.replace(trail, outlooks=tuple(map(told, trail.outlooks))) for trail in trails]


def rerouted(trails: Sequence[Trail], routes: Callable[[list[RouteQuestion]], Mapping[str, str]]) -> list[Trail]:
    """The trails with the route as it is now, for mail that was tried by another one. `routes(questions)`: the keys of
    the destinations, by the keys of the questions."""
    import msgspec

    from postroad.operate.routes import changed
    from postroad.operate.timeline import Fate

    waits = (Fate.WAITING, Fate.NOW, Fate.HELD)
    going = [
        (trail, each) for trail in trails for each in trail.outlooks if each.fate in waits and each.destination
    ]
    if not going:
        return list(trails)
    found = routes([_question(*each) for each in going])

    def told(trail: Trail, outlook: RecipientStatus) -> RecipientStatus:
        way = found.get(_question(trail, outlook).key, "")
        now = changed(outlook.destination, way) if outlook.fate in waits else ""
        if not now or _is_outlet(outlook):
            return outlook
        text = f"{outlook.text}. It was tried at {outlook.destination}; the settings now send it to {now}"
        return msgspec.structs.replace(outlook, text=text, route=now)

    return [
        msgspec.structs.replace(trail, outlooks=tuple(told(trail, each) for each in trail.outlooks)) for trail in trails
    ]


def _is_outlet(outlook: RecipientStatus) -> bool:
    """Whether it is a program or file that an alias names, which no route can change."""
    return outlook.recipient.startswith(("|", "/")) and outlook.destination.endswith(outlook.recipient)


def _question(trail: Trail, outlook: RecipientStatus) -> RouteQuestion:
    """Where would the mail for this recipient go?"""
    from postroad.mail.event import Accepted
    from postroad.operate.requests import RouteQuestion

    accepted = next((each for each in trail.events if isinstance(each, Accepted)), None)
    if accepted is None:
        return RouteQuestion(outlook.recipient)
    return RouteQuestion(
        outlook.recipient, accepted.reverse_path, accepted.peer.identity, accepted.size, accepted.peer.listener,
        whole=False,
    )


def _domain(recipient: str) -> str:
    return recipient.rpartition("@")[2].lower()


def _waits(state_dir: Path, destinations: list[str]) -> dict[str, str]:
    from postroad.operate import control

    try:
        found = control.pace(state_dir, destinations)
    except (control.NotRunning, control.NodeRefused):
        return {}
    waiting = {key: each for key, each in found.items() if each.waits_for}
    by_domain = {domain: each.in_full for each in waiting.values() for domain in each.domains}
    return by_domain | {key: each.in_full for key, each in waiting.items()}


class _Span(TypedDict):
    """When, and how many at most. `until_us` 0: no end."""

    since_us: int
    until_us: int
    limit: int


def find(
    what: str,
    spool: SpoolView,
    history: HistoryView,
    *,
    running: bool,
    now_us: int,
    since_us: int = 0,
    until_us: int = 0,
    limit: int = 20,
) -> list[Trail]:
    """The trails of what was named, the oldest first. `until_us`: 0 for no end."""
    from postroad.mail import identifier
    from postroad.operate.selector import address_of, message_id_of

    number = identifier.parse(what)
    if number is not None:
        trail = _trail(number, "", spool, history, running, now_us, DEPTH_MAX)
        return [trail] if trail is not None else []
    client = _client(what)
    is_message_id = what.startswith("<") and what.endswith(">")
    span = _Span(since_us=since_us, until_us=until_us, limit=limit)
    ids: Sequence[int]
    address = address_of(what)
    if client:
        ids = sorted(history.find(client=client, **span))
    elif is_message_id:
        ids = _ids(spool, history, message_id=message_id_of(what), **span)
    else:
        ids = _ids(spool, history, address=address, **span)
        if not ids and "@" in what:  # a Message-ID may be written without its angle brackets
            ids = _ids(spool, history, message_id=message_id_of(f"<{what}>"), **span)
            is_message_id = bool(ids)
        ids = sorted({*ids, *history.find(account=what, **span)})[-limit:]
    recipient = "" if is_message_id or client else address
    found = [_trail(id, recipient, spool, history, running, now_us, DEPTH_MAX) for id in ids]
    trails = [trail for trail in found if trail is not None]
    # A report is told with the message that it reports on, and not once more by itself.
    within = {id for trail in trails for id in _within(trail)}
    trails = [trail for trail in trails if trail.id not in within]
    return _merged(trails, [] if is_message_id else _refusals(history, what, client, span))


def _client(what: str) -> str:
    """The IP address that is written, with or without brackets, as the history writes it; "" for what is none."""
    import ipaddress

    try:
        return str(ipaddress.ip_address(what.strip("[]").removeprefix("IPv6:")))
    except ValueError:
        return ""


def _refusals(history: HistoryView, what: str, client: str, span: _Span) -> list[Refused | Authenticated]:
    """What became no message, the oldest first. A name may be an address and an account, too."""
    from postroad.operate.selector import address_of

    if client:
        found = list(history.refusals(client=client, **span))
    else:
        found = [*history.refusals(address_of(what), **span), *history.refusals(account=what, **span)]
    unique = {(event.at_us, repr(event)): event for event in found}
    return [unique[key] for key in sorted(unique)][-span["limit"] :]


def _merged(trails: Sequence[Trail], refusals: Sequence[Refused | Authenticated]) -> list[Trail]:
    """Both in the order of time: refusals between two messages stand together."""
    from itertools import groupby

    from postroad.mail import identifier
    from postroad.operate.timeline import Trail

    made: list[tuple[int, Trail]] = [(identifier.made_us(trail.id), trail) for trail in trails]
    made += [(event.at_us, Trail(0, (event,), ())) for event in refusals]
    made.sort(key=lambda each: each[0])
    merged: list[Trail] = []
    for is_message, group in groupby((trail for _, trail in made), key=lambda trail: trail.id != 0):
        if is_message:
            merged += group
        else:
            merged.append(Trail(0, tuple(event for trail in group for event in trail.events), ()))
    return merged


def _within(trail: Trail) -> Iterator[int]:
    for report in trail.reports:
        if report.id != trail.id:
            yield report.id
            yield from _within(report)


def _ids(
    spool: SpoolView,
    history: HistoryView,
    *,
    since_us: int,
    until_us: int,
    limit: int,
    message_id: str = "",
    address: str = "",
) -> list[int]:
    """The newest, the oldest of them first: of the history and of the spool, which may hold what is older than that."""
    from postroad.mail import identifier
    from postroad.store.values import Selection

    found = set(
        history.find(message_id=message_id, address=address, since_us=since_us, until_us=until_us, limit=limit)
    )
    wanted = [Selection(message_id=message_id)] if message_id else [
        Selection(recipient=address), Selection(sender=address),
    ]  # fmt: skip
    for selection in wanted:
        made = {id: identifier.made_us(id) for id in spool.select(selection)}
        found.update(id for id in made if made[id] >= since_us and not 0 < until_us <= made[id])
    return sorted(found)[-limit:]


def _trail(
    id: int, address: str, spool: SpoolView, history: HistoryView, running: bool, now_us: int, depth: int
) -> Trail | None:
    from postroad.operate import timeline

    # The spool first: what ends in between is then in the history for sure.
    loaded = spool.load(id)
    events = history.events(id)
    if loaded is None and not events:
        return None
    # An address that is the sender's narrows nothing.
    recipient = address if timeline.names_recipient(events, loaded, address) else ""
    reports = [
        report
        for number in timeline.reports_of(events, recipient)
        if depth > 0
        and (report := _trail(number, "", spool, history, running, now_us, depth - 1)) is not None
    ]
    return timeline.trail(
        id, events, loaded, running=running, now_us=now_us, recipient=recipient, reports=reports
    )
