"""The faces of the store: what the stages may ask of it, whichever engine keeps it.

Each face stands here once, with its contract. Nobody outside `node/wiring`, the offline commands and the tests knows
an engine.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, Protocol

import msgspec

from postroad.mail.event import Event


class JournalReader(msgspec.Struct, frozen=True):
    """A durable reader of the journal: it gets every committed event, over every crash, in the order of the commits.

    `behind_max`: commits that it may be behind. If it is further behind, it misses the oldest ones, so that the journal
    does not grow for ever; the log and `postroad status` tell it. 0: the journal waits for it without a limit of its
    own, and the disk's `free_min` is the limit.
    """

    name: str
    behind_max: int = 0


HISTORY: Final = JournalReader("history")
COUNTS: Final = JournalReader("counts", behind_max=200_000)
READERS: Final = (HISTORY, COUNTS)  # of a node; the mark of a reader that is not among them goes at the next start


class Missed(msgspec.Struct, frozen=True):
    """Commits that a reader of a shard has missed since the start, because it was too far behind."""

    reader: str
    shard: int
    commits: int


class Committed(msgspec.Struct, frozen=True):
    """The events of one commit. `seq` grows with each commit of the shard and is never used twice."""

    seq: int
    at_us: int
    events: tuple[Event, ...]


class JournalMarks(Protocol):
    """Where the readers of the journal are. Each reader of each shard has one mark.

    - `mark` says: the reader has everything up to `seq` on stable storage of its own. It is called after that, never
      before, with growing numbers; from any thread. It returns at once, and the mark is kept with a later commit.
    - A crash may lose the newest marks: the reader is then offered again what it has. To count each commit once, it
      keeps the `seq` with its own data, in one step.
    - What all readers have is removed from the journal, up to the least mark. The last commit always stays.
    """

    @property
    def shards(self) -> Sequence[int]: ...

    def committed(self, shard: int) -> int:
        """The seq of the last commit. What stands above it was left by a commit that failed."""

    def mark(self, reader: str, shard: int, seq: int) -> None: ...

    def mark_of(self, reader: str, shard: int) -> int:
        """The mark as it was kept last."""


class Journal(JournalMarks, Protocol):
    """The journal as a durable reader sees it."""

    def read(self, shard: int, after: int, limit: int) -> list[Committed]:
        """The commits above `after`, the oldest first, at most `limit` of them, none twice, none left out, none that
        failed. Blocks for a read of the disk, so it is called off the loop. Raises OSError if it cannot be read."""


class Events(Protocol):
    """The stream of events, as the stages that bring events see it (`report.stream.Stream`).

    - Events that change the state of a message go to `Spool.accept` and `Spool.settle`, nowhere else: the spool
      publishes them after their commit.
    - All other events go to `record` or to `tell`, each event once.
    - Called on the loop. Returns at once, raises nothing, and calls nobody back.
    """

    def record(self, events: tuple[Event, ...]) -> None:
        """Events of the world outside (refusals, log-ins, ends of sessions, replays): readers that are there hear of
        them at once, and the journal has them with the next commit. A crash before it loses them."""

    def tell(self, events: tuple[Event, ...]) -> None:
        """Events of the node itself (faults, remarks): only readers that are there hear of them, such as the log."""
