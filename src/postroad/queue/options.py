"""The queue's settings; each limit of promise 5 that concerns the queue has its name here."""

from __future__ import annotations

import msgspec


class QueueOptions(msgspec.Struct, frozen=True):
    """Times in seconds, sizes in octets.

    `retry_*`: the pause after the first attempt, and by how much each is longer than the one before, at most
    `retry_max_s`, then spread by plus or minus `retry_jitter` of itself. It follows from the age of the message: an
    attempt out of turn does not lengthen it. `lifetime_s`: a recipient not delivered after this fails (RFC 5321
    §4.5.4.1 asks for 4 to 5 days); `lifetime_dsn_s` for messages with the null reverse-path. `delay_notice_s`: when
    the sender is told of a delay (0: never). `backoff_*`: how long a destination none of whose hosts can be used is
    left alone as a whole, doubling from first to max.
    """

    concurrency: int = 20  # connections to one destination, for the whole node
    concurrency_start: int = 5  # of these at first; more with success (`node.offices.permits`)
    connections_max: int = 400  # outward connections of one worker, over all destinations
    connections_slow_max: int = 400  # further ones, in place of those that have not moved for `slow_s`
    slow_s: float = 2.0
    probes_max: int = 100  # of the connections, those being opened to destinations that failed before
    probes_per_s: float = 100.0  # destinations whose retries are taken up in a second, by one worker
    gather_s: float = 10.0  # how long the failures of a message wait for others, to be told in one report
    recipients_per_job_max: int = 100  # RCPT commands in one transaction (RFC 5321 §4.5.3.1.8: at least 100)
    retry_first_s: float = 300.0
    retry_factor: float = 1.7
    retry_max_s: float = 14_400.0
    retry_jitter: float = 0.15
    lifetime_s: float = 432_000.0
    lifetime_dsn_s: float = 432_000.0
    delay_notice_s: float = 14_400.0
    backoff_first_s: float = 60.0
    backoff_max_s: float = 3_600.0
    ready_max: int = 2_000  # messages of one destination in memory; more wait in the spool
    load_max: int = 200  # recipients taken from the spool for one destination at a time
    lanes_max: int = 2_000  # destinations worked on at a time; mail for more waits in the spool
    messages_max: int = 50_000  # messages of one worker in memory; more wait in the spool
    memory_max: int = 67_108_864  # octets of content kept in memory for delivery by one worker
    settle_retry_s: float = 1.0  # after a commit that failed (disk full), the outcome is committed again
    unsettled_max: int = 500  # outcomes of one worker that wait for their commit; with more nothing more is carried
