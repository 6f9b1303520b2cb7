"""`postroad config`: prints the reference of all settings and an example, both made from their declaration.

docs/configuration.md and examples/postroad.toml are what these commands print; `make docs` writes them, and a test
holds that they are current.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click

from postroad.cli.command import end
from postroad.cli.options import config_option, json_option, settings_of, state_dir_of


@click.group()
def config() -> None:
    """Print the reference of all settings, an example, or the settings in force."""


@config.command()
@json_option
def reference(as_json: bool) -> None:
    """Print every setting with its default, unit, bounds and meaning, in Markdown."""
    from postroad.config import document

    click.echo(
        json.dumps(document.records(), ensure_ascii=False, indent=2) if as_json else document.reference(), nl=as_json
    )


@config.command()
def example() -> None:
    """Print a commented configuration to begin with."""
    from postroad.config import document

    click.echo(document.example(), nl=False)


@config.command()
@click.option("--loaded", is_flag=True, help="Print the settings of the running node instead of those of the file.")
@config_option
@json_option
def show(config: Path | None, as_json: bool, loaded: bool) -> None:
    """Print all settings of the file, including defaults; passwords are hidden.

    If a running node has other settings, the differences are printed on standard error.
    """
    from postroad.cli.node import NOT_RUNNING, in_force
    from postroad.config import changes, document

    if loaded:
        values = in_force(state_dir_of(config))
        if values is None:
            end(NOT_RUNNING)
    else:
        settings = settings_of(config)
        values = document.in_force(settings)
        running = in_force(settings.state_dir)
        for key, ours, other in changes.differing(values, running) if running is not None else ():
            text = f"the file has {json.dumps(ours, ensure_ascii=False)}"
            click.echo(f"{key}: {text}, the running node has {json.dumps(other, ensure_ascii=False)}", err=True)
    if as_json:
        click.echo(json.dumps(values, ensure_ascii=False, indent=2))
        return
    for line in _lines(values, ""):
        click.echo(line)


def _lines(value: Any, path: str) -> list[str]:
    if isinstance(value, dict):
        return [line for key, inner in value.items() for line in _lines(inner, f"{path}.{key}" if path else key)]
    if isinstance(value, list) and value and isinstance(value[0], dict):
        return [line for index, inner in enumerate(value, 1) for line in _lines(inner, f"{path}[{index}]")]
    return [f"{path} = {json.dumps(value, ensure_ascii=False)}"]
