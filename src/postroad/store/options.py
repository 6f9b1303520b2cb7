"""Settings of the store, whichever engine is behind it."""

from __future__ import annotations

from typing import Annotated

import msgspec
from msgspec import Meta


class SpoolOptions(msgspec.Struct, frozen=True, kw_only=True):
    """Settings of the spool. `settle_s` is part of the time in which a crash leads to a duplicate (promise 4)."""

    inline_max: Annotated[
        int,
        Meta(
            ge=0,
            description="Content up to this size is kept in the database. Larger content has a file of its own.",
        ),
    ] = 1_048_576
    free_min: Annotated[
        int,
        Meta(
            ge=0,
            description="If the disk has less free space than this, new mail is refused (452), while delivery goes "
            "on and empties the queue.",
        ),
    ] = 268_435_456
    reserve: Annotated[
        int,
        Meta(
            ge=0,
            le=1_073_741_824,
            description="Space that each shard keeps in a file, NN.reserve beside its database, for the case that "
            "the disk is full. With this space the node can start, and can write the outcomes of "
            "deliveries, so that nothing is delivered twice. New mail is refused (452) until the reserve "
            "is whole again. 0: no reserve.",
        ),
    ] = 4_194_304
    wal_max: Annotated[
        int,
        Meta(
            ge=1_048_576,
            description="The size of the write-ahead log at which its content is moved into the database.",
        ),
    ] = 50_331_648
    record_s: Annotated[
        float,
        Meta(
            ge=0,
            description="How long events that change nothing (sessions, refusals) may wait to be written together "
            "with others.",
        ),
    ] = 1.0
    settle_s: Annotated[
        float,
        Meta(
            ge=0,
            le=1,
            description="How long the outcome of a delivery may wait for new mail, so that one sync writes both. 0: "
            "it does not wait.",
        ),
    ] = 0.02
    commit_wait_s: Annotated[
        float,
        Meta(
            ge=0,
            le=1,
            description="How long after the start of the last sync the next sync may wait for clients that are in "
            "the middle of a message, so that they share the sync. 0: it does not wait. If little mail "
            "arrives, it waits a quarter of this time. A client that is alone never waits.",
        ),
    ] = 0.02
    file_threads: Annotated[
        int,
        Meta(
            ge=1,
            le=64,
            description="The threads of one worker that write content files.",
        ),
    ] = 2


class HistoryOptions(msgspec.Struct, frozen=True, kw_only=True):
    """Settings of the history."""

    keep_days: Annotated[int, Meta(ge=0, description="How many days the history is kept, not counting today.")] = 30
    size_max: Annotated[
        int,
        Meta(
            ge=0,
            description="The most disk space for the history. Above this limit the oldest days are removed. 0: no "
            "limit.",
        ),
    ] = 0
    lag_s: Annotated[
        float,
        Meta(
            ge=0,
            description="How long events stay in the spool before they are moved to the history.",
        ),
    ] = 20.0


class KeptReportOptions(msgspec.Struct, frozen=True, kw_only=True):
    """Settings of the reports of others that are kept."""

    keep_days: Annotated[int, Meta(ge=1, description="How many days the reports of others are kept.")] = 400
    size_max: Annotated[
        int,
        Meta(
            ge=1_048_576,
            description="The most disk space for the reports of others. Above this limit the oldest ones are removed, "
            "and before them those whose author could not be verified.",
        ),
    ] = 536_870_912
    client_mails_max: Annotated[
        int,
        Meta(
            ge=1,
            description="The most mails of one client (IP address) within a day in which reports are looked for. "
            "Further mails go on to their mailbox unread.",
        ),
    ] = 2_000
