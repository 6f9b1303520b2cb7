"""The faces of the store: what the stages may ask of it, whichever engine is behind it.

Each face stands here once, with its contract. Only `node/wiring`, the offline commands and the tests know an engine.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Final, Protocol

import msgspec

from postroad.mail.envelope import Envelope
from postroad.mail.event import Authenticated, Event, Refused
from postroad.mail.message import Content, ContentFile
from postroad.store.options import SpoolOptions
from postroad.store.values import (
    Failure,
    Loaded,
    NewContent,
    Selection,
    Settlement,
    Stored,
    Waiting,
    WaitingMail,
)


class JournalReader(msgspec.Struct, frozen=True):
    """A durable reader of the journal: it gets every committed event, also after a crash, in the order of the commits.
    `behind_max`: how many commits it may be behind. If it is further behind, it misses the oldest ones, so that the
    journal does not grow for ever; the log and `postroad status` say so. 0: the journal keeps everything until the
    reader has it; then the limit is `free_min` of the disk."""

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


OnMoved = Callable[[int, int, Sequence[Committed]], None]
"""`on_moved(shard, after, rows)`: one reader of the journal hands what it has read and decoded to another reader, so
that it is read only once.

- `rows` are all commits above the seq `after` up to the last of them, the oldest first, none that failed.
- It is called before the reader sets its own mark. So if this mark is above the seq that the other reader has, the rows
  in between will not come (again).
- It is called off the loop, on one thread for all shards, and raises nothing.
"""


class JournalMarks(Protocol):
    """Where the readers of the journal are. Each reader of each shard has one mark.

    - `mark` says: the reader has everything up to `seq` on stable storage of its own. It is called after that, never
      before, with growing numbers; from any thread. It returns at once, and the mark is kept with a later commit.
    - A crash may lose the newest marks: then the reader gets again what it has. To count each commit once, it keeps the
      `seq` with its own data, in one step.
    - The journal removes what all readers have, up to the lowest mark. The last commit always stays.
    """

    @property
    def shards(self) -> Sequence[int]: ...

    def committed(self, shard: int) -> int:
        """The seq of the last commit. A commit that failed may have left rows above it."""

    def mark(self, reader: str, shard: int, seq: int) -> None: ...

    def mark_of(self, reader: str, shard: int) -> int:
        """The mark as it was last kept."""


class Journal(JournalMarks, Protocol):
    """The journal as a durable reader sees it."""

    def read(self, shard: int, after: int, limit: int) -> list[Committed]:
        """Gives the commits above `after`, the oldest first, at most `limit` of them: each once, none left out, none
        that failed. Blocks for a read of the disk, so call it off the loop. Raises OSError if the journal cannot be
        read."""


class Events(Protocol):
    """The stream of events, for the stages that bring events (`report.stream.Stream`).

    - Events that change the state of a message go to `Spool.accept` and `Spool.settle`, nowhere else: the spool
      publishes them after their commit.
    - All other events go to `record` or to `tell`, each event once.
    - Called on the loop. Returns at once, raises nothing, and calls nobody back.
    """

    def record(self, events: tuple[Event, ...]) -> None:
        """Takes events of the world outside (refusals, log-ins, ends of sessions, replays). Readers that are there hear
        of them at once, and the journal has them with the next commit. A crash before that commit loses them."""

    def tell(self, events: tuple[Event, ...]) -> None:
        """Takes events of the node itself (faults, remarks). Only readers that are there hear of them, such as the log.
        """


class SpoolError(Exception):
    """A shard cannot be opened: its text says which file, why, and what to do. Raised at start only."""


class ContentSink(Protocol):
    """Takes content into a file of the spool (`store.content.Incoming`)."""

    resumed: Callable[[], None] | None

    def write(self, octets: bytes) -> bool:
        """Takes octets. Returns False if this is enough for now; then `resumed` will be called."""

    def finish(self, done: Callable[[ContentFile | Failure], None], new: NewContent | None = None) -> None:
        """Syncs the file; if there is a `new` content, it takes the place of what was written. After a Failure the file
        is gone."""

    def abort(self) -> None: ...


class Questions(Protocol):
    """What may be asked of the spool. The answers are those of the classes in `store.questions`.

    - Called on the loop. `done` is called on the loop, once, never from within the call.
    - The answer shows the state after all operations that were asked for before it, in that order.
    - A question is never answered with an error: it waits until it can be answered. If the spool closes first, the
      answer is the empty one. Only content that cannot be read is given up after some time, with None.
    """

    def take_due(
        self, shard: int, destination: str, before_us: int, limit: int, done: Callable[[list[Loaded]], None]
    ) -> None: ...
    def next_due(self, shard: int, destination: str, done: Callable[[int], None], after_us: int = 0) -> None: ...
    def load(self, id: int, done: Callable[[Loaded | None], None]) -> None: ...
    def fresh(self, shard: int, after: int, limit: int, done: Callable[[list[Envelope]], None]) -> None: ...
    def ahead(
        self,
        shard: int,
        after: tuple[int, str],
        until_us: int,
        limit: int,
        done: Callable[[list[tuple[int, str]]], None],
    ) -> None: ...
    def first_due(self, shard: int, names: Sequence[str], done: Callable[[dict[str, int]], None]) -> None: ...
    def content(self, id: int, done: Callable[[Content | None], None]) -> None: ...
    def select(self, selection: Selection, done: Callable[[list[int]], None]) -> None:
        """The ids that are meant, over all shards, in order, at most `selection.limit`."""


class Spool(Questions, JournalMarks, Protocol):
    """The durable queue of one worker: the one owner of its shards from `start` to `close`.

    - Operations are executed in the order of the calls. `done` is called on the loop, once, in that order too, never
      from within the call, and after the commit of the operation is on stable storage (promise 1).
    - After a Failure nothing of the operation is stored, and it may be asked again. A settlement whose commit failed
      and may be on the disk all the same is not answered until a commit has it.
    - `accept`: a new message. With `waiting` (all its recipients) it counts as settled in this way at once; `reports`
      are DSNs that come in the same commit, with ids of the same shard (ValueError).
    - `settle`: what became of recipients, with the DSNs it brings and its events, in one commit (promise 3). The first
      settlement of a message names all its recipients. If it names a recipient that is not there any more, nothing
      changes for this one. When its last recipient is gone, the message and its content are removed.
    - `published(shard, events)`, given to the engine when it is made, is called with the events of an operation after
      its commit and before its `done`; never with those of an operation that failed.
    - `record`: events that change nothing; they are kept with a later commit, and not published.
    - `new_id`: a queue id that was never given before, also not before a crash, and greater than all of its shard.
    """

    @property
    def options(self) -> SpoolOptions: ...

    def start(self) -> None:
        """Opens the shards. Blocks. Raises SpoolError, with all shards closed again."""

    def close(self) -> None:
        """Does what was asked, answers it, and stops. Blocks until everything is on stable storage."""

    def new_id(self, shard: int | None = None) -> int: ...
    def accept(
        self,
        stored: Stored,
        events: tuple[Event, ...],
        done: Callable[[Failure | None], None],
        waiting: tuple[Waiting, ...] = (),
        reports: tuple[Stored, ...] = (),
    ) -> None: ...
    def settle(self, settlement: Settlement, done: Callable[[Failure | None], None]) -> None: ...
    def record(self, events: tuple[Event, ...]) -> None: ...
    def incoming(self, id: int, resumed: Callable[[], None] | None = None) -> ContentSink: ...

    @property
    def unsure(self) -> bool:
        """Whether settlements wait because the disk fails."""

    def refuses(self) -> str:
        """Why new mail is refused now for lack of space, "" if it is not."""

    def missed(self) -> list[Missed]:
        """What readers of the journal have missed since the start."""


class SpoolView(Protocol):
    """The spool as it is now, all shards."""

    @property
    def faults(self) -> list[str]: ...

    def backlog(self, limit: int = 0, destination: str = "") -> WaitingMail:
        """The mail that waits, by destination, those with the most mail first, at most `limit` of them (0: all)."""

    def oldest(self, destinations: Sequence[str]) -> dict[str, Loaded]:
        """The oldest message that waits for each destination, with those of its recipients that wait there."""

    def fresh(self, limit: int) -> list[Envelope]:
        """Messages accepted and never settled, the oldest first."""

    def select(self, selection: Selection) -> list[int]:
        """The ids that are meant, the oldest first."""

    def load(self, id: int) -> Loaded | None:
        """One message with all its waiting recipients."""

    def head(self, envelope: Envelope, limit: int) -> bytes:
        """The first octets of the content; b"" if there is no content."""

    def unmoved(self, now_us: int) -> list[str]:
        """Journals that the history has not moved for long, one line for each."""


class HistoryView(Protocol):
    """All events that are kept, also those in the journals of the spool."""

    @property
    def faults(self) -> list[str]: ...

    def events(self, id: int) -> list[Event]:
        """The events of one message, in the order of time."""

    def find(
        self,
        *,
        message_id: str = "",
        address: str = "",
        client: str = "",
        account: str = "",
        since_us: int = 0,
        until_us: int = 0,
        limit: int = 100,
    ) -> Iterable[int]:
        """Queue ids of messages with this Message-ID, sender or recipient, client or account, the newest first.
        `until_us`: only those made before then; 0 for all."""

    def refusals(
        self,
        address: str = "",
        *,
        client: str = "",
        account: str = "",
        since_us: int = 0,
        until_us: int = 0,
        limit: int = 100,
    ) -> Sequence[Refused | Authenticated]:
        """Refused commands with this sender or recipient, of this client or account; and the log-ins of this client or
        account."""

    def first_us(self) -> int:
        """The beginning of the oldest day that is kept; 0 if there is none yet."""
