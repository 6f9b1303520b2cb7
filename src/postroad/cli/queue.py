"""`postroad queue`: list the mail that waits, and act on it.

Lists read the spool's files, so they work whether the node runs or not. Actions go to the running node by its control
socket; if none runs, the command opens the spool itself (`operate.offline`).

How it fails: what cannot be read or done is one line on stderr and exit code 1; nothing is done by halves but what is
said: each message's change is one commit.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from postroad.cli.command import end, print_json, time_us, who
from postroad.cli.options import config_option, filter_options, json_option, settings_of, state_dir_of
from postroad.mail.numbers import counted

if TYPE_CHECKING:
    from postroad.operate.operator import OperatorRequest, OperatorResult
    from postroad.operate.requests import Paced
    from postroad.store.face import SpoolView
    from postroad.store.values import Backlog, Loaded, Selection

HEAD_MAX = 262_144  # octets of a message that are read for its header section
FRESH_MAX = 10_000  # messages on their way that are counted
STOPPED = "The node is not running: it tries no mail until it starts."

_Command = TypeVar("_Command", bound=Callable[..., Any])


@click.group(invoke_without_command=True)
@click.option("--messages", "-m", is_flag=True, help="List messages instead of destinations.")
@click.option("--limit", type=click.IntRange(1), default=100, show_default=True, help="Most lines to print.")
@filter_options
@json_option
@config_option
@click.pass_context
def queue(
    context: click.Context,
    messages: bool,
    limit: int,
    destination: str,
    sender: str,
    recipient: str,
    held: bool | None,
    as_json: bool,
    config: Path | None,
) -> None:
    """List the mail that waits, by destination or by message. The commands below change it.

    A destination is a domain (by its MX), [HOST]:PORT or mx:HOST:PORT (a next hop), lmtp:…, maildir:DOMAIN or
    program:DOMAIN. A name behind it after "/" says with whose account: [smtp.example.net]:587/* is the next hop for
    "*", with its username.
    """
    context.obj = config
    narrowed = bool(sender or recipient or destination or held is not None)
    if context.invoked_subcommand is not None:
        if narrowed:  # the command would not know of it, and do it to all
            raise click.UsageError(f"Write these options after `{context.invoked_subcommand}`.")
        return
    from postroad.operate import selector
    from postroad.store.values import Selection

    wanted = selector.narrowed(
        Selection(limit=limit), sender=sender, recipient=recipient, destination=destination, held=held
    )
    spool = _spool(config)
    if messages or sender or recipient or held is not None:
        _list_messages(spool, wanted, limit, as_json, config, narrowed=narrowed)
    else:
        _list_destinations(spool, destination, limit, as_json, config)
        for line in spool.unmoved(time_us()):
            click.echo(line, err=True)
    _tell_stopped(config, spool)
    _tell_faults(spool)


def _tell_stopped(config: Path | None, spool: SpoolView) -> None:
    """Times of a node that does not run are no times."""
    from postroad.operate import control

    if not control.is_running(state_dir_of(config)) and (spool.backlog(1).shown or spool.fresh(1)):
        click.echo(STOPPED, err=True)


def _list_destinations(spool: SpoolView, destination: str, limit: int, as_json: bool, config: Path | None) -> None:
    from postroad.cli.routes import routes
    from postroad.cli.table import print_table
    from postroad.operate import listing

    waits = spool.backlog(limit, destination)
    names = [each.destination for each in waits.shown]
    oldest = spool.oldest([name for name in names if name])
    paces = _paces(config, [*names, destination or "*"])
    fresh = listing.fresh_of(spool.fresh(FRESH_MAX), paces)
    if destination:
        fresh = [each for each in fresh if each.name == destination]
    shown: list[tuple[Backlog, Loaded | None]] = [(each, oldest.get(each.destination)) for each in waits.shown]
    ways = routes(config, oldest.values())
    if as_json:
        lines = [
            listing.destination_line(
                *each, paces.get(each[0].destination), route=listing.route_of_oldest(*each, ways)
            )
            for each in shown
        ]
        print_json(lines + [listing.fresh_line(each) for each in fresh])
        return
    if not shown and not fresh:
        _tell_nothing(spool, narrowed=bool(destination))
        return
    rows = listing.destination_rows(shown, fresh, time_us(), paces, ways)
    print_table(listing.DESTINATION_HEADINGS, rows, listing.DESTINATION_RIGHT)
    count = waits.recipients + sum(each.count for each in fresh)
    destinations = waits.destinations + len({each.name for each in fresh if each.paced} - set(names))
    totals = f"{counted(count, 'recipient')}, {waits.held} held, {counted(destinations, 'destination')}"
    left = waits.destinations - len(waits.shown)
    more = f"; {counted(left, 'destination')} more, see --limit" if left else ""
    click.echo(f"{totals}{more}", err=True)


def _paces(config: Path | None, destinations: list[str]) -> dict[str, Paced]:
    """What the running node says of these destinations; nothing where none runs, or we may not ask."""
    from postroad.operate import control

    try:
        return control.pace(state_dir_of(config), destinations)
    except (control.NotRunning, control.NodeRefused):
        return {}


def _tell_nothing(spool: SpoolView, *, narrowed: bool) -> None:
    """Nothing was found: since nothing is like that, or since there is nothing at all."""
    other = narrowed and bool(spool.backlog(1).shown or spool.fresh(1))
    click.echo("No such mail waits." if other else "The queue is empty.")


def _list_messages(
    spool: SpoolView, wanted: Selection, limit: int, as_json: bool, config: Path | None, *, narrowed: bool
) -> None:
    from postroad.cli.routes import routes
    from postroad.cli.table import print_table
    from postroad.operate import listing

    now_us = time_us()
    found = [loaded for id in spool.select(wanted)[:limit] if (loaded := spool.load(id)) is not None]
    paces = _paces(config, _destinations(found))
    ways = routes(config, found)
    if as_json:
        print_json([listing.message_line(loaded, now_us, paces, ways) for loaded in found])
        return
    if not found:
        _tell_nothing(spool, narrowed=narrowed)
        return
    print_table(listing.MESSAGE_HEADINGS, listing.message_rows(found, now_us, paces, ways), listing.MESSAGE_RIGHT)
    if len(found) == limit:
        click.echo(f"only the oldest {counted(limit, 'message')}; there may be more, see --limit", err=True)


def _destinations(found: Iterable[Loaded]) -> list[str]:
    """Those to ask the node about: what was not tried yet has none on the disk, but is told with those that have most
    waiting."""
    return [*dict.fromkeys(row.destination for loaded in found for row in loaded.waiting if row.destination), "*"]


@queue.command()
@click.argument("ids", metavar="ID...", nargs=-1, required=True)
@json_option
@config_option
@click.pass_obj
def show(outer: Path | None, ids: tuple[str, ...], as_json: bool, config: Path | None) -> None:
    """Show messages in full: envelope, waiting recipients with the reasons, header fields."""
    from postroad.cli.routes import routes
    from postroad.mail import identifier
    from postroad.operate import listing

    spool = _spool(config or outer)
    now_us = time_us()
    found: list[tuple[Loaded, bytes]] = []
    missing: list[str] = []
    for written in ids:
        number = identifier.parse(written)
        loaded = spool.load(number) if number is not None else None
        if loaded is None or number is None:
            missing.append(written)
        else:
            found.append((loaded, spool.head(loaded.envelope, HEAD_MAX)))
    paces = _paces(config or outer, _destinations(loaded for loaded, _ in found))
    ways = routes(config or outer, [loaded for loaded, _ in found])
    if as_json:
        print_json([listing.shown_line(loaded, head, now_us, paces, ways) for loaded, head in found])
    else:
        for place, (loaded, head) in enumerate(found):
            click.echo("\n".join(([""] if place else []) + listing.shown(loaded, head, now_us, paces, ways)))
    if found:
        _tell_stopped(config or outer, spool)
    _tell_faults(spool)
    for written in missing:
        click.echo(f"{written}: not in the queue; `postroad trace {written}` tells what happened to it", err=True)
    if missing:
        sys.exit(1)


def _action(command: Callable[..., Any]) -> Callable[..., Any]:
    """All that the actions have in common."""
    decorators: tuple[Callable[..., Any], ...] = (
        click.argument("selectors", metavar="SELECTOR...", nargs=-1),
        click.option("--all", "everything", is_flag=True, help="Everything in the queue."),
        filter_options,
        click.option("--dry-run", "-n", is_flag=True, help="Only print what would be done."),
        json_option,
        config_option,
        click.pass_obj,
    )
    for decorator in decorators:
        command = decorator(command)
    return command


def _reason(command: _Command) -> _Command:
    """`--reason TEXT`, handed to the command as `reason`."""
    return click.option("--reason", default="", metavar="TEXT", help="Reason, for log, history and report.")(command)


def _sure(command: _Command) -> _Command:
    """`--yes`, handed to the command as `yes`."""
    return click.option("--yes", "-y", is_flag=True, help="Do not ask for confirmation before --all.")(command)


@queue.command()
@_action
def retry(outer: Path | None, **options: Any) -> None:
    """Try now instead of at the next planned time.

    SELECTOR is a queue id, an address, @domain, or a destination as `postroad queue` lists it.
    """
    _act("retry", outer, **options)


@queue.command()
@_reason
@_action
def hold(outer: Path | None, **options: Any) -> None:
    """Stop trying until the mail is released.

    SELECTOR is a queue id, an address, @domain, or a destination as `postroad queue` lists it.
    """
    _act("hold", outer, **options)


@queue.command()
@_action
def release(outer: Path | None, **options: Any) -> None:
    """Release held mail and try it now.

    SELECTOR is a queue id, an address, @domain, or a destination as `postroad queue` lists it.
    """
    _act("release", outer, **options)


@queue.command()
@_sure
@_reason
@_action
def remove(outer: Path | None, **options: Any) -> None:
    """Discard mail without a report to anybody.

    SELECTOR is a queue id, an address, @domain, or a destination as `postroad queue` lists it.
    """
    _act("remove", outer, **options)


@queue.command()
@click.option("--status", default="", metavar="CODE", help="Enhanced status code of the report.  [default: 5.4.7]")
@_sure
@_reason
@_action
def fail(outer: Path | None, **options: Any) -> None:
    """Give up mail; the sender gets a report.

    SELECTOR is a queue id, an address, @domain, or a destination as `postroad queue` lists it.
    """
    _act("fail", outer, **options)


def _act(
    name: str,
    outer: Path | None,
    *,
    selectors: tuple[str, ...],
    everything: bool,
    destination: str,
    sender: str,
    recipient: str,
    held: bool | None,
    dry_run: bool,
    as_json: bool,
    config: Path | None,
    yes: bool = False,
    reason: str = "",
    status: str = "",
) -> None:
    from postroad.operate import selector
    from postroad.operate.operator import FAILED_STATUS, OperatorAction, OperatorRequest, read_request

    action = OperatorAction(name)
    filters = {"sender": sender, "recipient": recipient, "destination": destination, "held": held}
    selections = [
        selector.narrowed(each, sender=sender, recipient=recipient, destination=destination, held=held)
        for each in selections_of(selectors, everything=everything, filtered=any(filters.values()) or held is not None)
    ]
    request = OperatorRequest(
        action, tuple(selections), dry_run, who(), reason, status or FAILED_STATUS
    )
    import msgspec

    checked = read_request(msgspec.to_builtins(request))
    if isinstance(checked, str):
        raise click.UsageError(checked)
    if everything and action in (OperatorAction.REMOVE, OperatorAction.FAIL) and not (dry_run or yes):
        would = _operate(msgspec.structs.replace(checked, dry_run=True), config or outer)
        count = sum(each.count for each in would if each.done)
        if not count:  # nothing to ask about, and nothing to do
            _print_results(would, request, selections, selectors, as_json)
            sys.exit(1)
        said = _filters_said(sender=sender, recipient=recipient, destination=destination, held=held)
        what = f"what matches {said}" if said else "everything in the queue"
        click.confirm(f"Really {name} {what}: {counted(count, 'recipient')}?", abort=True, err=True)
    idle = _without_effect(checked, selectors, config or outer) if len(selectors) > 1 else []
    results = _operate(checked, config or outer)
    _print_results(results, request, selections, selectors, as_json)
    for written in idle if results else ():
        click.echo(f"{written}: matches nothing in the queue", err=True)
    if action in (OperatorAction.RETRY, OperatorAction.RELEASE) and any(each.done for each in results):
        _tell_stopped(config or outer, _spool(config or outer))
    if not any(each.done for each in results):
        sys.exit(1)


def _without_effect(request: OperatorRequest, selectors: tuple[str, ...], config: Path | None) -> list[str]:
    """Those of several selectors by which nothing is meant; ids are told of by themselves."""
    import msgspec

    asked = msgspec.structs.replace(request, dry_run=True, rows_max=1)
    return [
        written
        for written, selection in zip(selectors, request.selections, strict=True)
        if not selection.ids and not _operate(msgspec.structs.replace(asked, selections=(selection,)), config)
    ]


def _filters_said(*, sender: str, recipient: str, destination: str, held: bool | None) -> str:
    """The filters as they were given, for a question."""
    options = {"--from": sender, "--to": recipient, "--destination": destination}
    said = [f"{option} {value}" for option, value in options.items() if value]
    said += [] if held is None else ["--held" if held else "--not-held"]
    return " ".join(said)


def selections_of(selectors: tuple[str, ...], *, everything: bool, filtered: bool) -> list[Selection]:
    from postroad.operate import selector
    from postroad.store.values import Selection

    if everything and selectors:
        raise click.UsageError("Give selectors or --all, not both.")
    if everything or (filtered and not selectors):
        return [Selection(limit=selector.MESSAGES_MAX)]
    if not selectors:
        raise click.UsageError("Write a queue id, an address, a destination, or --all.")
    found = []
    for written in selectors:
        each = selector.selection(written)
        if isinstance(each, str):
            raise click.UsageError(each)
        found.append(each)
    return found


def _operate(request: OperatorRequest, config: Path | None) -> list[OperatorResult]:
    from postroad.operate import control

    try:
        return control.operate(state_dir_of(config), request)
    except control.NotRunning:
        pass
    except control.NodeRefused as error:
        end(str(error))
    from postroad.operate import offline
    from postroad.operate.view import CannotRead

    settings = settings_of(config)  # no node runs: the command does its work, and needs all settings for it
    try:
        return offline.operate(settings, request)
    except (CannotRead, offline.CannotOpen) as error:
        end(str(error))


def _print_results(
    results: list[OperatorResult],
    request: OperatorRequest,
    selections: list[Selection],
    selectors: tuple[str, ...],
    as_json: bool,
) -> None:
    from postroad.cli.table import print_table
    from postroad.mail import identifier
    from postroad.operate import listing

    if as_json:
        print_json([listing.result_line(each, dry_run=request.dry_run) for each in results])
    elif results:
        print_table(listing.RESULT_HEADINGS, listing.result_rows(results, dry_run=request.dry_run))
    named = {each.id for each in results}
    for id in [id for each in selections for id in each.ids]:
        if identifier.text(id) not in named:
            click.echo(f"{identifier.text(id)}: not in the queue", err=True)
    if not results:
        for written, each in zip(selectors, selections, strict=False):
            if not each.ids:
                hint = f"; for a recipient domain write @{written}" if each.destination == written else ""
                click.echo(f"{written}: not in the queue{hint}", err=True)
    if not as_json:
        click.echo(f"{request.action.value}: {listing.summary(results, request.dry_run)}", err=True)


def _spool(config: Path | None) -> SpoolView:
    from postroad.operate.view import CannotRead, open_spool

    try:
        return open_spool(state_dir_of(config))
    except CannotRead as error:
        end(str(error))


def _tell_faults(spool: SpoolView) -> None:
    """What could not be read is said: a list must not look whole when it is not."""
    for fault in spool.faults:
        click.echo(f"left out: {fault}", err=True)
