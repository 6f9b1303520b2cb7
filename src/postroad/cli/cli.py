"""The command line `postroad`: one group, whose commands are imported when they are called.

The table below is all that `postroad --help` reads, so that it answers at once; shell completion and a command's own
help import that one command. `node.main` adds `serve`, which needs the floor above this one.
Exit codes: 0 done, 1 could not be done, 2 wrong usage (click's), 78 the configuration is wrong (EX_CONFIG).
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from typing import Final, NamedTuple

import click

from postroad import __version__


class CommandEntry(NamedTuple):
    """Where a command stands and what it does, in one line."""

    module: str
    attribute: str
    summary: str


COMMANDS: Final[Mapping[str, CommandEntry]] = {
    "bans": CommandEntry("postroad.cli.bans", "bans", "List who is banned; lift or add bans."),
    "check": CommandEntry("postroad.cli.check", "check", "Check the configuration and print all problems."),
    "config": CommandEntry("postroad.cli.reference", "config", "Print the reference of all settings, or an example."),
    "dkim": CommandEntry("postroad.cli.dkim", "dkim", "Make, list, rotate and remove the keys that sign mail."),
    "dns": CommandEntry("postroad.cli.dns", "dns", "Show and check DNS records for mail; try TLS policies."),
    "limits": CommandEntry("postroad.cli.limits", "limits", "Show who has sent how much; reset counts."),
    "map": CommandEntry("postroad.cli.maps", "maps", "Show what a map answers to a key, step by step."),
    "queue": CommandEntry(
        "postroad.cli.queue", "queue", "List the queue; retry, hold, release, remove or fail mail in it."
    ),
    "reload": CommandEntry("postroad.cli.node", "reload", "Tell the running node to load a changed configuration."),
    "reports": CommandEntry(
        "postroad.cli.reports", "reports", "Show what others report about our mail, and what we report to them."
    ),
    "route": CommandEntry("postroad.cli.route", "route", "Show where mail for an address goes, and what the DNS says."),
    "spool": CommandEntry(
        "postroad.cli.spool", "spool", "Check and repair the spool; export mail to files and import it."
    ),
    "status": CommandEntry("postroad.cli.node", "status", "Tell whether the node runs, and how much mail waits."),
    "submit": CommandEntry("postroad.cli.submit", "submit", "Hand a message from standard input to the node."),
    "trace": CommandEntry("postroad.cli.trace", "trace", "Tell what happened to a message, and what comes next."),
    "user": CommandEntry("postroad.cli.users", "user", "Add, list and remove accounts; set passwords and addresses."),
    "verified": CommandEntry(
        "postroad.cli.verified", "verified", "List what next servers have said about recipients; forget answers."
    ),
    "verify": CommandEntry(
        "postroad.cli.verify", "verify", "Check SPF, DKIM and DMARC of a message in a file."
    ),
    "version": CommandEntry("postroad.cli.version", "version", "Print the version."),
}


class LazyGroup(click.Group):
    """A group that knows its commands by a table and imports each when it is called."""

    def __init__(self, places: Mapping[str, CommandEntry], **attributes: object) -> None:
        super().__init__(**attributes)  # type: ignore[arg-type]
        self._places = places

    def list_commands(self, context: click.Context) -> list[str]:
        return sorted(self._places)

    def get_command(self, context: click.Context, name: str) -> click.Command | None:
        place = self._places.get(name)
        if place is None:
            return None
        command = getattr(import_module(place.module), place.attribute)
        assert isinstance(command, click.Command)
        return command

    def format_commands(self, context: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, self._places[name].summary) for name in self.list_commands(context)])

    def resolve_command(
        self, context: click.Context, arguments: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        try:
            return super().resolve_command(context, arguments)
        except click.UsageError as error:
            near = _nearest(arguments[0], self._places)
            if near:
                raise click.UsageError(f"{error.message} Did you mean {near!r}?", context) from None
            raise


def _nearest(name: str, known: Mapping[str, CommandEntry]) -> str:
    from difflib import get_close_matches

    return next(iter(get_close_matches(name, known, n=1)), "")


def group(further: Mapping[str, CommandEntry]) -> click.Group:
    """The command `postroad` with the commands of this room and `further` ones."""
    made = LazyGroup(
        {**COMMANDS, **further},
        name="postroad",
        help="Postroad, a mail transfer agent. It accepts, relays and delivers mail, and tells what happened to it.",
        context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    )
    return click.version_option(__version__, message="postroad %(version)s")(made)
