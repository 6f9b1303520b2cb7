"""What the commands read: spool and history of a state folder, whether a node has them open or not."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Protocol

from postroad.mail.envelope import Envelope
from postroad.mail.event import Event
from postroad.store.values import Backlog, Loaded, Selection


class SpoolView(Protocol):
    """The spool as it stands, all shards; see `store.reader`."""

    def backlog(self) -> list[Backlog]:
        """What waits, by destination; one entry for each."""

    def fresh(self, limit: int) -> list[Envelope]:
        """Messages accepted and never settled, the oldest first."""

    def select(self, selection: Selection) -> list[int]:
        """The ids that are meant, the oldest first."""

    def load(self, id: int) -> Loaded | None:
        """One message with all its waiting recipients."""

    def head(self, id: int, limit: int) -> bytes:
        """The first octets of the content; b"" where there is none."""


class HistoryView(Protocol):
    """All events that are kept, journals of the spool included; see `store.history`."""

    def events(self, id: int) -> list[Event]:
        """The events of one message, in the order of time."""

    def find(self, *, message_id: str = "", address: str = "", since_us: int = 0, limit: int = 100) -> Iterable[int]:
        """Queue ids of messages with this Message-ID or this sender or recipient, the newest first."""
