"""The operator's actions where no node runs: the command opens the spool itself, as a worker would.

What always holds: the spool's own locks keep a node and this command apart; the work is done as the user who owns the
spool, so that root leaves no file behind that the node could not open.

How it fails: `CannotOpen` says which file and why; then nothing has been changed.
"""

from __future__ import annotations

import asyncio
import os
import re
from pathlib import Path
from typing import TYPE_CHECKING, Final

from postroad.mail.address import Address
from postroad.mail.attempt import Attempt, Outcome, Reach
from postroad.queue.operator import Operator, OperatorRequest, OperatorResult
from postroad.report.dsn import Reporter
from postroad.store.schema import SpoolError
from postroad.store.spool import Spool
from postroad.world.clock import SystemClock

if TYPE_CHECKING:
    from postroad.config.settings import Settings

_SHARD: Final = re.compile(r"(\d{2,4})\.db")
# A fresh message that is looked at here is routed by the node, when it starts.
_UNROUTED: Final = Attempt(Outcome.DEFERRED, Reach.DESTINATION, "4.4.4", "not routed yet")


class CannotOpen(Exception):
    """The spool cannot be opened; the text says why."""


def operate(settings: Settings, request: OperatorRequest) -> list[OperatorResult]:
    """Does it, on all shards. Raises CannotOpen."""
    directory = Path(settings.state_dir) / "spool"
    shards = shards_of(directory)
    if not shards:
        return []
    become_owner(directory)
    return asyncio.run(_operate(settings, directory, shards, request))


def shards_of(directory: Path) -> list[int]:
    """The shards that there are. Raises CannotOpen where the folder cannot be read."""
    try:
        names = os.listdir(directory)
    except FileNotFoundError:
        return []
    except OSError as error:
        raise CannotOpen(f"{directory}: cannot be read: {error.strerror or error}") from error
    return sorted(int(found[1]) for name in names if (found := _SHARD.fullmatch(name)))


def become_owner(directory: Path) -> None:
    """Root becomes the user and group who own the folder, for good. Raises CannotOpen."""
    if os.geteuid() != 0:
        return
    try:
        owner = directory.stat()
        if owner.st_uid == 0:
            return
        os.setgroups([])
        os.setgid(owner.st_gid)
        os.setuid(owner.st_uid)
    except FileNotFoundError:
        return
    except OSError as error:
        raise CannotOpen(f"{directory}: cannot become its owner: {error.strerror or error}") from error


async def _operate(
    settings: Settings, directory: Path, shards: list[int], request: OperatorRequest
) -> list[OperatorResult]:
    from postroad.config import options

    loop = asyncio.get_running_loop()
    clock = SystemClock()
    spool = Spool(directory, shards, options.spool_options(settings), clock, loop)
    try:
        spool.start()
    except SpoolError as error:
        raise CannotOpen(str(error)) from error
    try:
        reporter = Reporter(options.report_options(settings), clock.now_us, spool.new_id)
        operator = Operator(
            spool=spool, shards=shards, report=reporter, destination_of=_unrouted, clock=clock
        )
        answer: asyncio.Future[list[OperatorResult]] = loop.create_future()
        operator.operate(request, answer.set_result)
        return await answer
    finally:
        await loop.run_in_executor(None, spool.close)


def _unrouted(address: Address) -> Attempt:
    return _UNROUTED
