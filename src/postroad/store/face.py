"""The faces of the store: what the stages may ask of it, whichever engine keeps it.

Each face stands here once, with its contract. Nobody outside `node/wiring`, the offline commands and the tests knows
an engine.
"""

from __future__ import annotations

from typing import Protocol

from postroad.mail.event import Event


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
