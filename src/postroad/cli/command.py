"""Things that all commands for operators share: the time, who asks, output as JSON, an end with a message.

Not here: options (`cli.options`), tables and words (`operate.present`).
"""

from __future__ import annotations

import getpass
import os
import sys
from typing import Any, NoReturn

import click

from postroad.world.clock import SystemClock


def time_us() -> int:
    """The wall clock: microseconds since 1970, UTC."""
    return SystemClock().now_us()


def who() -> str:
    """Who asks, for the events: the user who called sudo, else the user."""
    try:
        name = os.environ.get("SUDO_USER") or getpass.getuser()
    except (KeyError, OSError):
        name = str(os.getuid())
    return name if name.isprintable() else "unknown"


def print_json(value: Any) -> None:
    """To standard output, for people as well as for programs: no terminal acts upon what others have put into it."""
    import msgspec

    from postroad.report.line import escaped_json

    # Escaped while it is one line: the line ends of the form are none of a string.
    line = escaped_json(msgspec.json.encode(value).decode())
    click.echo(msgspec.json.format(line, indent=2))


def end(text: str) -> NoReturn:
    """The command could not do what it was asked: say why on stderr, and end with 1."""
    click.echo(text, err=True)
    sys.exit(1)
