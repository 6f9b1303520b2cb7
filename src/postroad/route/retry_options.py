"""When mail of a table is tried again: settings that tables of domains and of next hops have in common."""

from __future__ import annotations

from typing import Annotated, Protocol

from msgspec import Meta

from postroad.mail.route import Retry

# The pauses and lifetimes of a table, as far as they differ from those under `[queue]`.
FirstPause = Annotated[
    float | None, Meta(ge=1, description="The pause after the first attempt. Unset: as set under `[queue]`.")
]
LongestPause = Annotated[
    float | None,
    Meta(
        ge=1,
        description="The longest pause between two attempts; also the longest time for which the node leaves these "
        "servers alone if none of them can be used. Unset: as set under `[queue]`.",
    ),
]
Lifetime = Annotated[
    float | None, Meta(ge=0, description="How long the node tries to deliver this mail. Unset: as set under `[queue]`.")
]
LifetimeOfReports = Annotated[
    float | None, Meta(ge=0, description="The same for mail without a return address. Unset: as set under `[queue]`.")
]
DelayNotice = Annotated[
    float | None,
    Meta(
        ge=0,
        description="How long a message must be delayed until the sender is told. 0: never. Unset: as set under "
        "`[queue]`.",
    ),
]


class RetryTable(Protocol):
    """A table with these settings."""

    @property
    def retry_first_s(self) -> float | None: ...
    @property
    def retry_max_s(self) -> float | None: ...
    @property
    def lifetime_s(self) -> float | None: ...
    @property
    def lifetime_dsn_s(self) -> float | None: ...
    @property
    def delay_notice_s(self) -> float | None: ...


def retry_of(table: RetryTable) -> Retry | None:
    """When mail of a table is tried again, None if the table says nothing of that."""
    found = Retry(
        table.retry_first_s, table.retry_max_s, table.lifetime_s, table.lifetime_dsn_s, table.delay_notice_s
    )
    return None if found == Retry() else found
