"""The operator's actions if no node runs: the command opens the spool itself, as a worker would.

What always holds: the spool's own locks keep a node and this command apart; the work is done as the user who owns the
spool, so that root leaves no file behind that the node could not open.

How it fails: `CannotRead` if there is no spool, `CannotOpen` if it cannot be opened for writing; then nothing has
been changed. If the disk fails for `DISK_FAILS_S`, the rows of what could not be stored say so.
"""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import TYPE_CHECKING, Final

from postroad.config import options
from postroad.operate.destinations import destination_of
from postroad.operate.operator import Operator, OperatorRequest, OperatorResult
from postroad.operate.view import cannot_read, existing_spool
from postroad.report.dsn import Reporter
from postroad.store import engine
from postroad.store.face import Spool, SpoolError
from postroad.world.clock import SystemClock

if TYPE_CHECKING:
    from postroad.config.settings import Settings


DISK_FAILS_S: Final = 10.0  # how long a disk that fails is waited for
_LOOK_S: Final = 0.5


class CannotOpen(Exception):
    """The spool cannot be opened for writing; the text says why."""


def operate(settings: Settings, request: OperatorRequest) -> list[OperatorResult]:
    """Does it, on all shards. Raises CannotRead, CannotOpen."""
    directory = existing_spool(Path(settings.state_dir))
    try:
        shards = engine.shards_of(directory)
    except OSError as error:
        raise CannotOpen(cannot_read(directory, error)) from error
    return asyncio.run(_operate(settings, directory, shards, request)) if shards else []


async def _operate(
    settings: Settings, directory: Path, shards: list[int], request: OperatorRequest
) -> list[OperatorResult]:
    loop = asyncio.get_running_loop()
    clock = SystemClock()
    spool = engine.spool(directory, shards, options.spool_options(settings), clock, loop)
    try:
        spool.start()
    except SpoolError as error:
        raise CannotOpen(str(error)) from error
    try:
        operator = Operator(
            spool=spool,
            shards=shards,
            report=Reporter(options.report_options(settings), clock.now_us, spool.new_id),
            destination_of=destination_of(settings),
            clock=clock,
        )
        answer: asyncio.Future[list[OperatorResult]] = loop.create_future()
        operator.operate(request, answer.set_result)
        await _wait(answer, spool)
    finally:
        await loop.run_in_executor(None, spool.close)
    return await answer


async def _wait(answer: asyncio.Future[list[OperatorResult]], spool: Spool) -> None:
    """Until the answer is there, or the disk has failed for too long: closing the spool then answers what is left."""
    failing_s = 0.0
    while not answer.done() and failing_s < DISK_FAILS_S:
        await asyncio.wait((answer,), timeout=_LOOK_S)
        failing_s = failing_s + _LOOK_S if spool.unsure else 0.0
