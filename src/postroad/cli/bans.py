"""`postroad bans`: list who is banned; lift or add bans.

A running node is asked by its control socket; if none runs, the command reads and writes its file (`check.bans`)
under the node's lock, so that no node that is just starting misses it. A client is an address or a network, an account
any other name.

How it fails: what cannot be done is one line on stderr, and exit code 1 if nothing was done of what was asked.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from postroad.cli.command import end, print_json, time_us, who
from postroad.cli.options import config_option, json_option, state_dir_of

if TYPE_CHECKING:
    from postroad.check.banning import BanRequest, BanResult
    from postroad.check.bans import Ban

DEFAULT_FOR: Final = "1h"
_UNITS: Final = {"": 1, "s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 604_800}


class Span(click.ParamType[float]):
    """``30m``, ``12h``, ``7d``, or ``forever``; as seconds, 0 for ever."""

    name = "time"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        if isinstance(value, float) or value == "forever":
            return value if isinstance(value, float) else 0.0
        found = re.fullmatch(r"([0-9]+)([smhdw]?)", value)
        if found is None or int(found[1]) == 0:
            self.fail(f"{value!r} is not a time such as 30m, 12h, 7d or forever", param, ctx)
        return float(found[1]) * _UNITS[found[2]]


@click.group(invoke_without_command=True)
@json_option
@config_option
@click.pass_context
def bans(context: click.Context, as_json: bool, config: Path | None) -> None:
    """List the bans in force. The commands below lift and add bans."""
    context.obj = config
    if context.invoked_subcommand is not None:
        return
    from postroad.check.banning import BanRequest

    found = _listed(state_dir_of(config), BanRequest("list"))
    if as_json:
        print_json([_shown(ban) for ban in found])
    elif not found:
        click.echo("nobody is banned", err=True)
    else:
        _print_table(found)


@bans.command()
@click.argument("subjects", nargs=-1, required=True, metavar="ADDRESS|NETWORK|ACCOUNT...")
@json_option
@config_option
@click.pass_obj
def lift(outer: Path | None, subjects: tuple[str, ...], as_json: bool, config: Path | None) -> None:
    """Lift bans. The node also forgets the failures that led to them.

    Ends with 1 if nothing was lifted, because nobody of these is banned.
    """
    from postroad.check.banning import BanRequest

    _act(config or outer, BanRequest("lift", subjects, by=who()), as_json)


@bans.command()
@click.argument("subjects", nargs=-1, required=True, metavar="ADDRESS|NETWORK|ACCOUNT...")
@click.option("--for", "for_s", type=Span(), default=DEFAULT_FOR, show_default=True, help="30m, 12h, 7d or forever.")
@click.option("--reason", default="", metavar="TEXT", help="The reason, listed with the ban.")
@json_option
@config_option
@click.pass_obj
def add(
    outer: Path | None, subjects: tuple[str, ...], for_s: float, reason: str, as_json: bool, config: Path | None
) -> None:
    """Ban clients or accounts. The node ends the sessions of a banned client after the command under way."""
    from postroad.check.banning import BanRequest

    _act(config or outer, BanRequest("add", subjects, for_s, reason, who()), as_json)


def _act(config: Path | None, asked: BanRequest, as_json: bool) -> None:
    import msgspec

    from postroad.check.banning import BanResult, read_request

    checked = read_request(msgspec.to_builtins(asked))
    if isinstance(checked, str):
        raise click.UsageError(checked)
    rows = _changed(state_dir_of(config), checked)
    if as_json:
        print_json([
            {"subject": row.subject, "text": row.text, "ban": None if row.ban is None else _shown(row.ban)}
            for row in rows
        ])
    else:
        for row in rows:
            account = "account " if row.ban is not None and row.ban.is_account else ""
            click.echo(f"{account}{row.subject}: {row.text}{_until(row)}", err=row.ban is None)
    if not any(isinstance(row, BanResult) and row.ban is not None for row in rows):
        sys.exit(1)


def _until(row: BanResult) -> str:
    from postroad.check.banning import LIFTED
    from postroad.operate.present import moment

    if row.ban is None or row.text == LIFTED:
        return ""
    return f" until {moment(row.ban.until_us)}" if row.ban.until_us else " for ever"


def _listed(state_dir: Path, asked: BanRequest) -> list[Ban]:
    from postroad.check import bans as kept
    from postroad.operate import control
    from postroad.operate.requests import BansRequest
    from postroad.world.problem import Problem

    try:
        return control.ask(state_dir, BansRequest(asked), list[kept.Ban], 30.0)
    except control.NotRunning:
        found = kept.read(state_dir)
    except control.NodeRefused as error:
        end(str(error))
    if isinstance(found, Problem):
        end(str(found))
    now_us = time_us()
    return [ban for ban in found if ban.holds(now_us)]


def _changed(state_dir: Path, asked: BanRequest) -> list[BanResult]:
    from postroad.check.banning import BanResult
    from postroad.operate import control
    from postroad.operate.requests import BansRequest

    try:
        return control.ask(state_dir, BansRequest(asked), list[BanResult], 30.0)
    except control.NotRunning:
        return _changed_in_file(state_dir, asked)
    except control.NodeRefused as error:
        end(str(error))


def _changed_in_file(state_dir: Path, asked: BanRequest) -> list[BanResult]:
    from postroad.check import bans as kept
    from postroad.check.banning import apply
    from postroad.operate.view import CannotRead, become_owner
    from postroad.world.problem import Problem

    try:
        become_owner(state_dir)
        with _locked(state_dir):
            found = kept.read(state_dir)
            if isinstance(found, Problem):
                end(str(found))
            now_us = time_us()
            rows = apply(found, asked, now_us)
            if any(row.ban is not None for row in rows):
                kept.write(state_dir, found, now_us)
            return rows
    except BlockingIOError:
        end(f"a node that uses {state_dir} is starting or stopping; try again")
    except CannotRead as error:
        end(str(error))
    except OSError as error:
        end(f"{error.filename or state_dir}: {error.strerror or error}")


@contextlib.contextmanager
def _locked(state_dir: Path) -> Iterator[None]:
    """The node's lock, if a node has been here before; BlockingIOError while a node holds it."""
    try:
        lock = os.open(state_dir / "run" / "node.lock", os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
    except FileNotFoundError:
        yield
        return
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    finally:
        os.close(lock)


def _print_table(found: list[Ban]) -> None:
    from postroad.cli.table import print_table
    from postroad.operate.present import moment

    rows = [
        (
            f"account {ban.subject}" if ban.is_account else ban.subject,
            moment(ban.since_us),
            moment(ban.until_us) if ban.until_us else "for ever",
            ban.by or "the node",
            ban.reason,
        )
        for ban in sorted(found, key=lambda ban: ban.since_us)
    ]
    print_table(("BANNED", "SINCE", "UNTIL", "BY", "REASON"), rows)


def _shown(ban: Ban) -> dict[str, Any]:
    """A ban in JSON, with times as the other commands have them; `until` null: for ever."""
    from postroad.report.notation import iso

    return {
        "subject": ban.subject,
        "is_account": ban.is_account,
        "since": iso(ban.since_us),
        "until": iso(ban.until_us) if ban.until_us else None,
        "by": ban.by,
        "reason": ban.reason,
    }
