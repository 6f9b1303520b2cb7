"""Names the engine that keeps a node's files, for commands that open the files themselves. A worker gets its engine
from `node/wiring`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from postroad.store.face import READERS, HistoryView, Spool, SpoolView
from postroad.store.options import SpoolOptions
from postroad.store.sqlite.reader import SpoolReader, shard_files
from postroad.store.sqlite.searching import HistoryReader
from postroad.world.clock import Clock

if TYPE_CHECKING:  # who only looks does not wait for it to be imported
    import asyncio


def spool(
    directory: Path,
    shards: Sequence[int],
    options: SpoolOptions,
    clock: Clock,
    loop: asyncio.AbstractEventLoop,
    *,
    threads: bool = True,
) -> Spool:
    """Makes a spool that is not started yet."""
    from postroad.store.sqlite.spool import SqliteSpool  # it imports asyncio: see above

    return SqliteSpool(directory, shards, options, clock, loop, readers=READERS, threads=threads)


def shards_of(directory: Path) -> list[int]:
    """The shards in the folder, in order. Raises OSError."""
    return [number for number, _ in shard_files(directory)]


def spool_view(directory: Path) -> SpoolView:
    return SpoolReader(directory)


def history_view(directory: Path, spool_directory: Path) -> HistoryView:
    return HistoryReader(directory, spool_directory)
