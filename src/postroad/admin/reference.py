"""`postroad config`: the reference of all settings and an example, both made from their declaration.

docs/configuration.md and examples/postroad.toml are what these commands print; `make docs` writes them, and a test
holds that they are current.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click

from postroad.admin.options import config_option, json_option, settings_of


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
@config_option
@json_option
def show(config: Path | None, as_json: bool) -> None:
    """Print all settings as they are in force, defaults included; passwords are left out."""
    from postroad.config import document

    values = document.in_force(settings_of(config))
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
