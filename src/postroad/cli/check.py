"""`postroad check`: tells whether the configuration can be used. It shows all problems at once, with exit code 78 if
there are any; settings that are allowed but probably not intended are warnings, on stderr.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from postroad.cli.options import EX_CONFIG, config_option, config_path, end_with, json_option, with_both_places

if TYPE_CHECKING:
    from postroad.config.problem import ConfigProblem
    from postroad.config.settings import Settings


@click.command()
@config_option
@json_option
def check(config: Path | None, as_json: bool) -> None:
    """Check the configuration and the things that it names: certificates, accounts, aliases, recipients, addresses,
    ports.

    Prints every problem with file, line, key and remedy, and ends with 78 if there is one. If something is allowed but
    probably a mistake (a certificate has expired, a folder cannot be written), it prints a warning. A running node is
    not affected; the node checks the same before it loads a new configuration (`postroad reload`, SIGHUP). If no node
    runs, the command also checks whether the ports are free. If a node runs, it lists the keys that differ from those
    of the running node, and says which of them need a restart.
    """
    from postroad.config import changes
    from postroad.config.load import load, tried, warnings
    from postroad.operate.control import is_running

    path = config_path(config)
    found = load(path)
    problems = with_both_places(config, found) if isinstance(found, list) else []
    doubts = [] if isinstance(found, list) else warnings(path, found, time.time())
    if not isinstance(found, list):
        problems = tried(path, found, running=is_running(found.state_dir))
    before, after = ({}, {}) if problems or isinstance(found, list) else _compared(found)
    if as_json:
        told: dict[str, Any] = {"problems": list(map(_listed, problems)), "warnings": list(map(_listed, doubts))}
        keys = [key for key, *_ in changes.differing(before, after)]
        told["changes"] = [{"key": key, "restart": changes.needs_restart(key)} for key in keys]
        click.echo(json.dumps({"file": str(path), "valid": not problems, **told}))
        sys.exit(EX_CONFIG if problems else 0)
    if problems:
        end_with(problems)
    for doubt in doubts:
        click.echo(f"warning: {doubt}", err=True)
    click.echo(f"{path} is valid.")
    lines = changes.summed_up(before, after)
    if lines:
        click.echo("The running node does not have this yet:")
    for key, what in lines:
        remedy = "the node must be restarted for it" if changes.needs_restart(key) else "`postroad reload` takes it"
        click.echo(f"  {key} {what}: {remedy}")


def _compared(found: Settings) -> tuple[dict[str, Any], dict[str, Any]]:
    """The values of a running node and those of the file; the same values twice if no node runs."""
    from postroad.cli.node import in_force
    from postroad.config import document

    after = document.in_force(found)
    return in_force(found.state_dir) or after, after


def _listed(problem: ConfigProblem) -> dict[str, str | int]:
    return {
        "file": str(problem.file), "line": problem.line, "key": problem.key, "text": problem.text,
        "remedy": problem.remedy,
    }  # fmt: skip
