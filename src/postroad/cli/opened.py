"""Opens the spool for a command that reads it, and makes the warnings that belong beside its list.

How it fails: a spool that cannot be read is one line on stderr and exit code 1.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Final

import click

from postroad.cli.command import end
from postroad.cli.options import state_dir_of

if TYPE_CHECKING:
    from postroad.store.face import SpoolView

STOPPED: Final = "The node is not running: it tries no mail until it starts."


def spool_of(config: Path | None) -> SpoolView:
    """The spool of the node with this configuration."""
    from postroad.operate.view import CannotRead, open_spool

    try:
        return open_spool(state_dir_of(config))
    except CannotRead as error:
        end(str(error))


def warn_if_stopped(config: Path | None, spool: SpoolView) -> None:
    """Says that no node runs, if mail waits: then the times of a list mean nothing."""
    from postroad.operate import control

    if not control.is_running(state_dir_of(config)) and (spool.backlog(1).shown or spool.fresh(1)):
        click.echo(STOPPED, err=True)


def name_faults(spool: SpoolView) -> None:
    """Names what could not be read: a list must not look whole when it is not."""
    for fault in spool.faults:
        click.echo(f"left out: {fault}", err=True)
