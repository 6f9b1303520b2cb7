"""`postroad version`."""

from __future__ import annotations

import json
import platform

import click

from postroad import __version__
from postroad.cli.options import json_option


@click.command()
@json_option
def version(as_json: bool) -> None:
    """Print the version of Postroad and of the Python that runs it."""
    if as_json:
        click.echo(json.dumps({"postroad": __version__, "python": platform.python_version()}))
    else:
        click.echo(f"postroad {__version__} (Python {platform.python_version()})")
