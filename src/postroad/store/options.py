"""Settings of the store, whichever engine is behind it."""

from __future__ import annotations

import msgspec


class SpoolOptions(msgspec.Struct, frozen=True, kw_only=True):
    """Settings of the spool.

    `inline_max`: octets of content above which it goes to a file. `free_min`: octets of free disk space below which new
    mail is refused (452) while the queue drains. `reserve`: octets that each shard keeps in a file for the moment at
    which the disk is full (`store.reserve`). `wal_max`: octets of WAL at which it is taken into the database.
    `record_s`: how long events without a change of state (sessions, refusals) may wait for a commit to join.
    `settle_s`: how long an outcome may wait for new mail whose commit it can join; nobody waits for it, and it is one
    sync less for each message. It is part of the time in which a crash leads to a duplicate (promise 4).
    `commit_wait_s`: how long after the beginning of a commit the next one waits for clients that are on their way with
    a message (`store.arrivals`), where many messages come; a quarter of it where few do. A client that is alone never
    waits. `file_threads`: threads that write content files.
    """

    inline_max: int = 1_048_576
    free_min: int = 268_435_456
    reserve: int = 4_194_304
    wal_max: int = 50_331_648
    record_s: float = 1.0
    settle_s: float = 0.02
    commit_wait_s: float = 0.02
    file_threads: int = 2


class HistoryOptions(msgspec.Struct, frozen=True, kw_only=True):
    """Settings of the history.

    `keep_days`: days that are kept, today not counted. `size_max`: octets of all day files together above which the
    oldest go, 0 for no limit. `lag_s`: how long events stay in the journal before they are moved.
    """

    keep_days: int = 30
    size_max: int = 0
    lag_s: float = 20.0
