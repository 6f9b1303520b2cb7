"""`postroad reports sent`: which reports the node has sent to other domains, when, and to whom (docs/reports-out.md).

It reads the files of the days, whether the node runs or not. How it fails: what cannot be read is one line on stderr,
and exit code 1.
"""

from __future__ import annotations

import sys
from pathlib import Path

import click

from postroad.cli.command import end, print_json, time_us
from postroad.cli.options import config_option, json_option, state_dir_of
from postroad.cli.trace import WHEN, when_us


@click.command()
@click.argument("domain", default="", metavar="[DOMAIN]")
@click.option("--since", default="7d", show_default=True, metavar="WHEN", help=f"Reports on days since then: {WHEN}.")
@click.option("--all", "unwanted", is_flag=True, help="Also domains that get no report, and why.")
@json_option
@config_option
@click.pass_obj
def sent(
    outer: Path | None, domain: str, since: str, unwanted: bool, as_json: bool, config: Path | None
) -> None:
    """Show which reports we sent to other domains, or will send: when, to whom, by which message."""
    from postroad.operate.sent_reports import sent_reports
    from postroad.report.feedback import DAY_S, date_of

    first = date_of(when_us(since, time_us()) // (DAY_S * 1_000_000))
    try:
        found = sent_reports(state_dir_of(config or outer), domain, first, unwanted=unwanted)
    except PermissionError as error:
        end(f"{error.filename}: {error.strerror}")
    for fault in found.faults:
        click.echo(fault, err=True)
    if as_json:
        print_json(found.reports)
    elif not found.reports:
        click.echo("no reports", err=True)
    else:
        from postroad.cli.table import print_table
        from postroad.operate.present import moment

        rows = [
            (
                each.day, each.kind, each.domain, each.destination or "-", each.state,
                moment(each.at_us) if each.at_us else "-", each.id or "-", each.text,
            )
            for each in found.reports
        ]  # fmt: skip
        print_table(("day", "kind", "domain", "destination", "state", "at", "queue id", "why"), rows)
    if found.faults:
        sys.exit(1)
