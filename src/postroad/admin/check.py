"""`postroad check`: whether the configuration can be used. All problems at once, exit code 78 where there are any."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import click

from postroad.admin.options import EX_CONFIG, config_option, config_path, end_with, json_option, with_both_places


@click.command()
@config_option
@json_option
def check(config: Path | None, as_json: bool) -> None:
    """Check the configuration and the files that it names: certificates, accounts, aliases, recipients.

    Prints every problem with file, line, key and remedy and ends with 78 where there is one. A node that runs is not
    touched; it checks the same before it takes a new configuration (SIGHUP).
    """
    from postroad.config.load import load

    path = config_path(config)
    found = load(path)
    problems = with_both_places(config, found) if isinstance(found, list) else []
    if as_json:
        listed = [
            {"file": str(each.file), "line": each.line, "key": each.key, "text": each.text, "remedy": each.remedy}
            for each in problems
        ]
        click.echo(json.dumps({"file": str(path), "valid": not problems, "problems": listed}))
        sys.exit(EX_CONFIG if problems else 0)
    if problems:
        end_with(problems)
    click.echo(f"{path} is valid.")
