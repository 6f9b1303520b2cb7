"""`postroad queue`: list the mail that waits, and show messages. What acts on it is in `cli.actions`.

Lists read the spool's files, so they work whether the node runs or not.

How it fails: what cannot be read is one line on stderr and exit code 1.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

import click

from postroad.cli.actions import COMMANDS
from postroad.cli.command import print_json, time_us
from postroad.cli.opened import name_faults, spool_of, warn_if_stopped
from postroad.cli.options import config_option, filter_options, json_option, state_dir_of
from postroad.mail.numbers import counted

if TYPE_CHECKING:
    from postroad.operate.requests import Paced
    from postroad.store.face import SpoolView
    from postroad.store.values import Backlog, Loaded, Selection

HEAD_MAX = 262_144  # octets of a message that are read for its header section
FRESH_MAX = 10_000  # messages on their way that are counted


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
    program:DOMAIN. A name after "/" means a next hop with a username: [smtp.example.net]:587/* is the next hop for "*",
    with its username.
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
    spool = spool_of(config)
    if messages or sender or recipient or held is not None:
        _list_messages(spool, wanted, limit, as_json, config, narrowed=narrowed)
    else:
        _list_destinations(spool, destination, limit, as_json, config)
        for line in spool.unmoved(time_us()):
            click.echo(line, err=True)
    warn_if_stopped(config, spool)
    name_faults(spool)


def _list_destinations(spool: SpoolView, destination: str, limit: int, as_json: bool, config: Path | None) -> None:
    from postroad.cli.routes import routes
    from postroad.cli.table import print_table
    from postroad.operate import listing

    waits = spool.backlog(limit, destination)
    names = [each.destination for each in waits.shown]
    oldest = spool.oldest(names)
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
    """What the running node says of these destinations; nothing if none runs, or we may not ask."""
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
@click.argument("selectors", metavar="[SELECTOR]...", nargs=-1)
@click.option("--limit", type=click.IntRange(1), default=100, show_default=True, help="Most messages to print.")
@filter_options
@json_option
@config_option
@click.pass_obj
def show(
    outer: Path | None,
    selectors: tuple[str, ...],
    limit: int,
    destination: str,
    sender: str,
    recipient: str,
    held: bool | None,
    as_json: bool,
    config: Path | None,
) -> None:
    """Show messages in full: envelope, waiting recipients with the reasons, header fields.

    SELECTOR is a queue id, an address, @domain, or a destination as `postroad queue` lists it. A message that was not
    tried yet has no destination.
    """
    from postroad.cli.routes import routes
    from postroad.operate import listing, selector

    narrowed = bool(sender or recipient or destination or held is not None)
    chosen = selector.selections(selectors, everything=False, filtered=narrowed)
    if isinstance(chosen, str):
        raise click.UsageError(chosen)
    spool = spool_of(config or outer)
    wanted = [
        selector.narrowed(each, sender=sender, recipient=recipient, destination=destination, held=held)
        for each in chosen
    ]
    found_by = [spool.select(each) for each in wanted]
    ids = sorted({id for each in found_by for id in each})
    now_us = time_us()
    loaded = [each for id in ids[:limit] if (each := spool.load(id)) is not None]
    paces = _paces(config or outer, _destinations(loaded))
    ways = routes(config or outer, loaded)
    heads = [spool.head(each.envelope, HEAD_MAX) for each in loaded]
    if as_json:
        print_json(
            [listing.shown_line(each, head, now_us, paces, ways) for each, head in zip(loaded, heads, strict=True)]
        )
    else:
        for place, (each, head) in enumerate(zip(loaded, heads, strict=True)):
            click.echo("\n".join(([""] if place else []) + listing.shown(each, head, now_us, paces, ways)))
    if loaded:
        warn_if_stopped(config or outer, spool)
    if len(ids) > limit:
        click.echo(f"only the oldest {counted(limit, 'message')} of {len(ids)}, see --limit", err=True)
    name_faults(spool)
    missing = [
        _nothing_found(written, each) for written, each, found in zip(selectors, wanted, found_by, strict=False)
        if not found
    ]  # fmt: skip
    for line in missing or ([] if loaded else ["No such mail waits."]):
        click.echo(line, err=True)
    if missing or not loaded:
        sys.exit(1)


def _nothing_found(written: str, selection: Selection) -> str:
    if selection.ids:
        return f"{written}: not in the queue; `postroad trace {written}` tells what happened to it"
    return f"{written}: matches nothing in the queue"


for _each in COMMANDS:
    queue.add_command(_each)
