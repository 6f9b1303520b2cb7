"""`postroad serve`: loads the configuration, then runs the supervisor until it is told to stop.

Exit codes: those of `node.supervisor`; 78 with all problems on stderr if the configuration is wrong.
"""

from __future__ import annotations

import datetime
import os
import select
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import click

from postroad.cli.options import config_option, config_path, settings_of

if TYPE_CHECKING:
    from postroad.config.settings import Settings
    from postroad.node.sockets import Endpoint
    from postroad.world.problem import Problem


@click.command()
@config_option
@click.option(
    "--demo",
    type=click.Path(path_type=Path, file_okay=False),
    metavar="FOLDER",
    help="Run the demonstration node in FOLDER; a missing configuration, certificate or account is created.",
)
@click.pass_context
def serve(context: click.Context, config: Path | None, demo: Path | None) -> None:
    """Run the node in the foreground.

    SIGTERM and SIGINT stop it: sessions and deliveries under way end, and the other mail stays in the queue. SIGHUP
    makes it load a changed configuration, either all of it or nothing.
    """
    if demo is not None and context.get_parameter_source("config") is click.core.ParameterSource.COMMANDLINE:
        raise click.UsageError("The configuration of --demo is in its folder: give --config or --demo, not both.")
    path = config_path(config) if demo is None else _prepared(demo)
    settings = settings_of(path, files=True, entries=False)
    if demo is not None:
        from postroad.cli.demo import banner

        click.echo(banner(demo, path, settings))
    from postroad.node import supervisor

    def locate(settings: Settings, endpoint: Endpoint, problem: Problem) -> str:
        from postroad.config.load import at_listener

        return str(at_listener(path, settings, str(endpoint), problem))

    log = _NodeLog(settings)
    _tell_unusable(path, settings, log.say)
    _warn(path, settings, log.say)
    sys.exit(supervisor.main(settings, lambda: _load(path, log.say), log.say, locate, log.renew, path))


def _prepared(folder: Path) -> Path:
    from postroad.cli.demo import prepare

    prepared = prepare(folder, datetime.datetime.now(datetime.UTC))
    if not isinstance(prepared, Path):
        raise click.ClickException(str(prepared))
    return prepared


def _tell_unusable(path: Path, settings: Settings, say: Callable[[str, str], None]) -> None:
    """Says what is wrong with files of aliases, recipients and maps. The node starts all the same: it may be that a
    machine comes up again, and nobody is there. Mail that needs such a file waits."""
    from postroad.config.load import load

    found = load(path)
    for problem in found if isinstance(found, list) else ():
        text = f"{problem} The node starts, and mail that needs it waits (4.3.0) until it is correct."
        say("error", text)
        if settings.log.path is not None:
            click.echo(text, err=True)  # whoever starts a node looks there first


def _load(path: Path, say: Callable[[str, str], None]) -> Settings | list[str]:
    from postroad.config.load import load

    found = load(path)
    if isinstance(found, list):
        return [str(problem) for problem in found]
    _warn(path, found, say)
    return found


def _warn(path: Path, settings: Settings, say: Callable[[str, str], None]) -> None:
    from postroad.config.load import warnings

    for doubt in warnings(path, settings, time.time()):
        say("warning", str(doubt))


class _NodeLog:
    """Lines about the node, in the form and place that the settings in force say."""

    def __init__(self, settings: Settings) -> None:
        self.renew(settings)

    def renew(self, settings: Settings) -> None:
        """Goes on as these settings say."""
        from postroad.config.options import log_options

        self._settings = settings
        self._options = log_options(settings)

    def say(self, level: str, text: str) -> None:
        """Writes one line, if its level is wanted."""
        from postroad.config.files import rights
        from postroad.mail.event import Noted
        from postroad.report.line import LEVELS, human_line, json_line
        from postroad.report.options import LogFormat

        if LEVELS.index(level) < LEVELS.index(self._options.level.value):
            return
        line = json_line if self._options.format is LogFormat.JSON else human_line
        octets = line(Noted(time.time_ns() // 1000, 0, level, text)) + b"\n"
        # A log that root had made its own could not be written by the workers, nor by us once we are the user.
        with rights(self._settings):
            _write(self._options.path, octets)


def _write(path: str, octets: bytes) -> None:
    """Appends to the file, which a log rotation may have moved away meanwhile; to stderr where that fails, too."""
    if path:
        try:
            descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o640)
        except OSError as error:
            octets = f"{path}: {error.strerror}: ".encode() + octets
        else:
            with os.fdopen(descriptor, "wb", buffering=0) as file:
                file.write(octets)
            return
    # A pipe that nobody empties must not stop the supervisor, on whom all workers depend.
    poll = select.poll()
    poll.register(2, select.POLLOUT)
    if poll.poll(0):
        sys.stderr.buffer.write(octets)
        sys.stderr.buffer.flush()
