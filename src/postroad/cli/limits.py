"""`postroad limits`: what accounts, senders and trusted clients have sent, and counts that begin anew.

The running node is asked by its control socket: only its supervisor has the counts.

How it fails: one line on stderr and exit code 1 if no node runs, or if nothing was counted for
the names whose counts are to begin anew.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from postroad.cli.command import end, print_json
from postroad.cli.options import config_option, json_option, state_dir_of

if TYPE_CHECKING:
    from postroad.operate.requests import LimitsAsked, SentCount


@click.group(invoke_without_command=True)
@click.option("--of", "names", multiple=True, metavar="NAME", help="Only this account, sender or client.")
@json_option
@config_option
@click.pass_context
def limits(context: click.Context, names: tuple[str, ...], as_json: bool, config: Path | None) -> None:
    """List what was sent within the last hour and day, as far as `[sending]` counts it."""
    context.obj = config
    if context.invoked_subcommand is not None:
        return
    from postroad.operate.requests import LimitsAsked

    _print(_answer(state_dir_of(config), LimitsAsked(names)), as_json)


@limits.command()
@click.argument("names", nargs=-1, required=True, metavar="ACCOUNT|SENDER|CLIENT...")
@json_option
@config_option
@click.pass_obj
def reset(outer: Path | None, names: tuple[str, ...], as_json: bool, config: Path | None) -> None:
    """Have the counts of accounts, senders or clients begin anew. Shows the counts that they had.

    Ends with 1 if nothing was counted for any of these names.
    """
    from postroad.operate.requests import LimitsAsked

    found = _answer(state_dir_of(config or outer), LimitsAsked(names, reset=True))
    _print(found, as_json)
    if not found:
        sys.exit(1)


def _answer(state_dir: Path, asked: LimitsAsked) -> list[SentCount]:
    from postroad.operate import control
    from postroad.operate.requests import LimitsRequest, SentCount

    try:
        return control.ask(state_dir, LimitsRequest(asked), list[SentCount], 30.0)
    except (control.NotRunning, control.NodeRefused) as error:
        end(str(error))


def _print(found: list[SentCount], as_json: bool) -> None:
    if as_json:
        print_json([_shown(row) for row in found])
        return
    if not found:
        click.echo("nothing was counted", err=True)
        return
    from postroad.cli.table import print_table
    from postroad.operate.present import moment

    rows = [
        (
            row.whose, row.name, str(row.messages_per_hour), str(row.recipients_per_hour), str(row.messages_per_day),
            str(row.recipients_per_day), str(row.held_per_day), moment(row.noticed_us) if row.noticed_us else "-",
        )
        for row in found
    ]  # fmt: skip
    print_table(
        ("WHOSE", "NAME", "MESSAGES/HOUR", "RECIPIENTS/HOUR", "MESSAGES/DAY", "RECIPIENTS/DAY", "HELD/DAY",
         "LIMIT REACHED"), rows,
    )


def _shown(row: SentCount) -> dict[str, object]:
    from postroad.report.notation import iso

    return {
        "whose": row.whose,
        "name": row.name,
        "messages_per_hour": row.messages_per_hour,
        "recipients_per_hour": row.recipients_per_hour,
        "messages_per_day": row.messages_per_day,
        "recipients_per_day": row.recipients_per_day,
        "held_per_day": row.held_per_day,
        "held_size_per_day": row.held_size_per_day,
        "limit_reached": iso(row.noticed_us) if row.noticed_us else None,
    }
