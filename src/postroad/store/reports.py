"""The face by which queue and operator get reports: `report.dsn.Reporter` makes them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from postroad.mail.attempt import Attempt
from postroad.mail.envelope import Envelope
from postroad.mail.event import Event
from postroad.mail.message import Content
from postroad.store.values import Stored


class MakeReports(Protocol):
    """Makes the DSNs for recipients that ended (or are delayed) together; none if none is to be sent. The events say
    what was made, or why not. `until_us`: for delays, how long the node will try."""

    def __call__(
        self,
        envelope: Envelope,
        outcomes: Sequence[tuple[int, Attempt]],
        *,
        delayed: bool,
        content: Content | None,
        until_us: int,
    ) -> tuple[tuple[Stored, ...], tuple[Event, ...]]: ...
