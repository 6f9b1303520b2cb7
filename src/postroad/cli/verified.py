"""`postroad verified`: what next servers have said of recipients (`verify` of a domain); list it, and forget it.

The answers are in a file of the state folder, which a running node reads at each question. So the command needs no
node, and a running one goes by what the command leaves.

How it fails: what cannot be done is one line on stderr, and exit code 1 if nothing was forgotten of what was asked.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import click

from postroad.cli.command import end, print_json
from postroad.cli.options import config_option, json_option, state_dir_of

if TYPE_CHECKING:
    from postroad.store.verified import VerifiedStore


@click.group(invoke_without_command=True)
@click.option("--domain", default="", metavar="DOMAIN", help="Only recipients of this domain.")
@json_option
@config_option
@click.pass_context
def verified(context: click.Context, domain: str, as_json: bool, config: Path | None) -> None:
    """List the recipients about whom next servers were asked, with their answers. The command below forgets answers."""
    context.obj = config
    if context.invoked_subcommand is not None:
        return
    store = _store(config)
    found = [] if store is None else list(store.entries(domain.lower()))
    if as_json:
        print_json(found)
    elif not found:
        click.echo("no next server has answered yet", err=True)
    else:
        from postroad.cli.table import print_table
        from postroad.operate.present import moment

        rows = [
            (each.mailbox, "yes" if each.found else "no", moment(each.at_us), each.hop, each.text) for each in found
        ]
        print_table(("RECIPIENT", "EXISTS", "ANSWERED", "SERVER", "ANSWER"), rows)


@verified.command()
@click.argument("recipients", nargs=-1, metavar="ADDRESS|@DOMAIN...")
@click.option("--all", "everything", is_flag=True, help="Forget all answers.")
@config_option
@click.pass_obj
def forget(outer: Path | None, recipients: tuple[str, ...], everything: bool, config: Path | None) -> None:
    """Forget answers, so that the next server is asked again. @DOMAIN means all recipients of a domain.

    Ends with 1 if there was no such answer.
    """
    if bool(recipients) is everything:
        raise click.UsageError("Name recipients, or write --all.")
    store = _store(config or outer)
    gone = 0
    if store is not None:
        gone = store.forget_all() if everything else store.forget(each.lower() for each in recipients)
    if not gone:
        end("there is no such answer")
    click.echo(f"{gone} {'answer' if gone == 1 else 'answers'} forgotten")


def _store(config: Path | None) -> VerifiedStore | None:
    """None if nothing was ever kept."""
    from postroad.store.verified import NAME, VerifiedStore

    path = state_dir_of(config) / NAME
    try:
        there = path.exists()
    except OSError as error:
        end(f"{path}: {error.strerror or error}")
    if not there:
        return None
    if not os.access(path, os.R_OK | os.W_OK):
        end(f"{path}: only the user of the node may change it")
    return VerifiedStore(path, 1_000_000_000, end)
