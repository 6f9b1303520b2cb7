"""The stream of events: whoever wants to hear what happens subscribes here.

Events reach the stream in three ways:
- `published`: the spool calls it after each commit, in the order of the commits. Nobody else publishes events that
  change the state of a message, so no reader hears of anything that a crash could undo.
- `record`: events that change nothing (refusals, log-ins, ends of sessions). Readers hear of them at once, also while
  the disk fails; the spool keeps them with its next commit.
- `tell`: remarks of the node about itself. They are not kept.

What always holds: each reader gets each event once, in the order in which it came to the stream, on the loop, and from
within the call that brought it. A reader that wants to miss nothing over a crash does not subscribe: it reads the
journal, with a mark of its own (`store.face.Journal`).

How it fails: an exception of a reader is a bug. It goes to `on_fault`, and the other readers get the events all the
same.
"""

from __future__ import annotations

from collections.abc import Callable

from postroad.mail.event import Event

Reader = Callable[[tuple[Event, ...]], None]


class Stream:
    """See the module. `keep` takes events that are to be kept (`Spool.record`); it is set when there is a spool."""

    def __init__(self, on_fault: Callable[[Exception], None]) -> None:
        self.keep: Reader = _forget
        self._readers: list[Reader] = []
        self._on_fault = on_fault

    def subscribe(self, reader: Reader) -> None:
        """From here on `reader` is called with all events."""
        self._readers.append(reader)

    def record(self, events: tuple[Event, ...]) -> None:
        """See `store.face.Events`."""
        self.keep(events)
        self.tell(events)

    def published(self, shard: int, events: tuple[Event, ...]) -> None:
        """The spool has committed these events of a shard. As `tell`, without a further call: it is on every message's
        way."""
        for reader in self._readers:
            try:
                reader(events)
            except Exception as error:
                self._on_fault(error)

    def tell(self, events: tuple[Event, ...]) -> None:
        """See `store.face.Events`."""
        for reader in self._readers:
            try:
                reader(events)
            except Exception as error:
                self._on_fault(error)


def _forget(events: tuple[Event, ...]) -> None:
    """There is no spool yet."""
