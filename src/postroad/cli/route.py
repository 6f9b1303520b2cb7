"""`postroad route`: shows where mail for an address would go now, and what the DNS says about its mail servers."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from postroad.cli.options import config_option, json_option, settings_of

if TYPE_CHECKING:
    from postroad.operate.hosts import ServerFacts, WayFacts


@click.command()
@click.argument("addresses", nargs=-1, required=True, metavar="ADDRESS…")
@click.option("--from", "sender", default=None, metavar="ADDRESS", help="Mail of this sender, or <> for reports.")
@click.option("--account", default="", metavar="NAME", help="Mail of a client that has logged in as this account.")
@click.option("--size", default=0, metavar="OCTETS", help="Mail of this size.")
@click.option("--listener", default="", metavar="NAME", help="Mail that came by this listener.")
@click.option("--priority", default=0, metavar="NUMBER", help="Mail with this MT-PRIORITY, from -9 to 9.")
@click.option(
    "--class", "classes", multiple=True, metavar="NAME",
    help="Mail of this class (bulk, automatic), or with this header field (X-Campaign). May be given several times.",
)
@config_option
@json_option
def route(
    addresses: tuple[str, ...], sender: str | None, account: str, size: int, listener: str, priority: int,
    classes: tuple[str, ...], config: Path | None, as_json: bool,
) -> None:
    """Show where mail for these addresses or domains would go now.

    For each one: the destination, its mail servers with their addresses, CNAME records and TLSA records, whether DNSSEC
    protects them, the order of tries, and warnings about mistakes in the DNS. The command looks names up by itself,
    with the settings of [dns]; no node needs to run. It shows other addresses of sender and
    recipient ([rewrite], `generic`). It follows aliases of our own domains: it shows each of them with its targets, and
    then the way of each mailbox, program or file at the end. Ends with 1 if there is no way for an address.
    """
    from postroad.cli.command import print_json
    from postroad.operate.hosts import AskedMail, ways

    given = None if sender is None else sender.strip("<>")
    asked = AskedMail(given, account, size, listener, priority, tuple(each.lower() for each in classes))
    found = ways(settings_of(config), addresses, asked)
    if as_json:
        print_json(found)
    else:
        for number, each in enumerate(found):
            if number:
                click.echo()
            _print(each)
    if any(each.problem for each in found):
        raise SystemExit(1)


def _print(way: WayFacts) -> None:
    from postroad.report.text import clean

    if way.steps and not way.destination:
        click.echo(clean(f"{way.address} is an alias"))
    else:
        _print_destination(way)
    for change in (*way.changes, *way.steps):
        click.echo(clean(change))
    for target in way.targets:
        click.echo()
        _print(target)
    if way.more:
        click.echo(f"\nThe aliases lead to {way.more} more.")
    _print_hosts(way)


def _print_destination(way: WayFacts) -> None:
    from postroad.report.text import clean

    if way.destination:
        by_mx = way.domain and way.servers
        how = f", by the MX records of {way.domain} (DNSSEC: {_yes(way.secure)})" if by_mx else ""
        click.echo(clean(f"{way.address} goes to {way.destination} ({way.transport}){how}"))
    else:
        click.echo(clean(way.address))


def _print_hosts(way: WayFacts) -> None:
    from postroad.cli.table import print_table
    from postroad.report.text import clean

    if way.servers:
        click.echo()
        print_table(("MX", "SERVER", "ADDRESSES", "DNSSEC", "TLSA"), [_row(server) for server in way.servers])
    if len(way.tries) > 1:
        click.echo()
        click.echo(clean("Tried in this order: " + ", ".join(way.tries)))
    if way.problem:
        click.echo(clean(f"There is no way: {way.problem}"))
    for warning in way.warnings:
        click.echo(clean(f"warning: {warning}"), err=True)


def _row(server: ServerFacts) -> tuple[str, ...]:
    name = " → ".join(server.aliases) or server.name
    preference = "" if server.preference is None else str(server.preference)
    tlsa = ", ".join(server.tlsa) or ("not known" if server.tlsa_status == "error" else "none")
    return preference, name, ", ".join(server.addresses) or "none", _yes(server.secure), tlsa


def _yes(value: bool) -> str:
    return "yes" if value else "no"
