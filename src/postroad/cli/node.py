"""`postroad reload` and `postroad status`: has the running node take its configuration, and shows its state.

Both ask over the control socket (`operate.control`). Exit codes: 0 taken, or running; 1 no node runs, or it does not
answer; 78 (EX_CONFIG) the new configuration was refused, and the old one stays in force.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click
import msgspec

from postroad.cli.command import end, print_json, time_us
from postroad.cli.options import EX_CONFIG, config_option, config_path, json_option, state_dir_of
from postroad.mail.numbers import counted

if TYPE_CHECKING:
    from postroad.operate.requests import Configuration, KeysSummary, NodeStatus
    from postroad.report.counting import EventCounts

RELOAD_S: Final = 180.0  # for a start that goes on, a reload under way, and the one that is asked for
STATUS_S: Final = 40.0
NOT_RUNNING: Final = "The node is not running."


@click.command()
@config_option
@json_option
def reload(config: Path | None, as_json: bool) -> None:
    """Tell the running node to load its configuration again, and wait for the result.

    If the node refuses the new configuration, the command prints all problems and ends with 78. The old configuration
    then stays in force.
    """
    from postroad.operate import control
    from postroad.operate.requests import Reloaded, ReloadRequest

    try:
        told = control.ask(state_dir_of(config), ReloadRequest(), Reloaded, RELOAD_S)
    except control.NotRunning:
        end(NOT_RUNNING)
    except control.NodeRefused as error:
        end(str(error))
    if as_json:
        print_json(msgspec.to_builtins(told))
    elif told.taken:
        click.echo("The new configuration is in force.", err=True)
    else:
        for problem in told.problems:
            click.echo(problem, err=True)
        click.echo("The node has refused the new configuration; the old one stays in force.", err=True)
    sys.exit(0 if told.taken else EX_CONFIG)


@click.command()
@config_option
@json_option
def status(config: Path | None, as_json: bool) -> None:
    """Tell whether the node runs, since when, with which configuration, and how much mail waits.

    Ends with 1 if the node does not run. The waiting mail is shown in any case.
    """
    state_dir = state_dir_of(config)
    found = asked(state_dir)
    waits = _queue(state_dir)
    if as_json:
        node = {"running": False} if found is None else {"running": True, **msgspec.to_builtins(found)}
        print_json({**node, "queue": waits})
    else:
        for line in [NOT_RUNNING] if found is None else _lines(found, config):
            click.echo(line)
        if waits is not None:
            click.echo(f"queue: {counted(waits['recipients'], 'recipient')} waiting, {waits['held']} held, for "
                       f"{counted(waits['destinations'], 'destination')}; "
                       f"{counted(waits['fresh'], 'message not tried yet')}")  # fmt: skip
    sys.exit(1 if found is None else 0)


def asked(state_dir: Path) -> NodeStatus | None:
    """None if no node runs. A node that does not answer, or that we may not ask, ends the command."""
    from postroad.operate import control
    from postroad.operate.requests import NodeStatus, StatusRequest

    try:
        return control.ask(state_dir, StatusRequest(), NodeStatus, STATUS_S)
    except control.NotRunning:
        return None
    except control.NodeRefused as error:
        end(str(error))


def in_force(state_dir: Path) -> dict[str, Any] | None:
    """The values that the running node goes by; None if none runs, or it does not tell."""
    from postroad.operate import control
    from postroad.operate.requests import ConfigurationRequest

    try:
        return control.ask(state_dir, ConfigurationRequest(), dict[str, Any], 10.0)
    except (control.NotRunning, control.NodeRefused):
        return None


def _queue(state_dir: Path) -> dict[str, int] | None:
    """What waits, as the spool's files say; None if there is none, or it cannot be read."""
    from postroad.cli.queue import FRESH_MAX
    from postroad.operate.view import CannotRead, open_spool

    try:
        spool = open_spool(state_dir)
        waits, fresh = spool.backlog(1), len(spool.fresh(FRESH_MAX))
    except CannotRead:
        return None
    return {
        "recipients": waits.recipients, "held": waits.held, "destinations": waits.destinations, "fresh": fresh,
    }  # fmt: skip


def _lines(found: NodeStatus, config: Path | None) -> list[str]:
    from postroad.operate.present import span, when

    now_us = time_us()
    since = when(found.started_us, now_us)
    lines = [f"Postroad {found.version} runs: {found.state}, process {found.pid}, since {since}"]
    sessions = {each.number: each for each in found.activity}
    for worker in found.workers:
        of = sessions.get(worker.number)
        more = ""
        if of is not None:
            more = (
                f", {counted(of.sessions, 'session')} ({of.sessions_admitted} since its start)"
                f", {counted(of.in_memory, 'message in memory')}"
            )
        ready = "ready" if worker.ready else "not ready"
        lines.append(f"worker {worker.number}: {ready}, process {worker.pid}, up {span(int(worker.up_s * 1e6))}{more}")
    lines += [f"listener {each.name}: {each.address}, {each.role}" for each in found.listeners]
    lines += _totals([each.counts for each in found.activity if each.counts.since_us], now_us)
    refusals = dict.fromkeys(each.refuses for each in found.activity if each.refuses)
    lines += [f"new mail is refused (452): {why}" for why in refusals]
    lines += _keys(found.keys)
    for each in found.activity:
        lines += [
            f"shard {one.shard:02}: the reader {one.reader} of the journal was too far behind, and misses"
            f" {counted(one.commits, 'commit')}"
            for one in each.readers_missed
        ]
    return lines + _configuration(found.configuration, config, now_us)


def _keys(keys: KeysSummary) -> list[str]:
    """The keys that sign mail, if there are any, and what somebody must do about them."""
    if not keys.domains:
        return []
    counts = f"{keys.signing} signing, {keys.waiting} waiting, {keys.retired} retired, {keys.removable} removable"
    return [f"keys of {counted(keys.domains, 'domain')} (DKIM): {counts}", *(f"  {each}" for each in keys.told)]


def _totals(parts: list[EventCounts], now_us: int) -> list[str]:
    """What was counted, in two lines."""
    from postroad.operate.present import when
    from postroad.report.counting import total

    if not parts:
        return []
    of = total(parts)
    return [
        f"since {when(of.since_us, now_us)}: {counted(of.messages, 'message')} for"
        f" {counted(of.recipients, 'recipient')} accepted, {counted(of.refused, 'command')} refused,"
        f" {counted(of.sessions, 'session without mail or with errors')}, {counted(of.logins, 'log-in')}",
        f"  recipients: {of.relayed} relayed, {of.delivered} delivered, {of.failed} failed, {of.removed} removed;"
        f" {counted(of.deferred, 'attempt')} deferred",
    ]


def _configuration(loaded: Configuration, config: Path | None, now_us: int) -> list[str]:
    from postroad.operate.present import when

    lines = [f"configuration: {loaded.file}, loaded {when(loaded.loaded_us, now_us)}"]
    if loaded.changed:
        lines.append("  the file has changed since: `postroad check` lists the changes, `postroad reload` loads them")
    if loaded.file and config_path(config).absolute() != Path(loaded.file):
        lines.append(f"  this command uses another file: {config_path(config).absolute()}")
    if loaded.refused_us:
        lines.append(f"  a new configuration was refused {when(loaded.refused_us, now_us)}:")
        lines += [f"  {problem}" for problem in loaded.problems]
    return lines
