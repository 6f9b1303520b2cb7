"""How the node works: DNS, the queue, the spool, reports to senders, the log, memory."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from postroad.check.reports import ReportLimits
from postroad.config.field import Section, setting, several
from postroad.config.values import DnsServer, File, Mailbox, Octets, Seconds
from postroad.queue.options import QueueOptions
from postroad.report.options import LogFormat, LogLevel, LogOptions, ReportOptions
from postroad.store.options import HistoryOptions, SpoolOptions
from postroad.world.dns import DnsOptions
from postroad.world.memory import MMAP_THRESHOLD_MAX, MemoryOptions

_DNS: Final = DnsOptions()
_QUEUE: Final = QueueOptions()
_STORE: Final = SpoolOptions()
_HISTORY: Final = HistoryOptions()
_REPORT_LIMITS: Final = ReportLimits()
_REPORT: Final = ReportOptions()
_LOG: Final = LogOptions()
_MEMORY: Final = MemoryOptions()


class DnsSection(Section):
    """How the node resolves names."""

    servers: tuple[DnsServer, ...] = several(
        _DNS.servers, "The resolvers to ask. Empty: those of `resolv_conf`.", example='["127.0.0.1:53"]'
    )
    resolv_conf: File = setting(
        Path(_DNS.resolv_conf), "The file that names the system's resolvers. It is used if `servers` is empty."
    )
    ipv4: bool = setting(_DNS.ipv4, "Whether the node connects to hosts by IPv4.")
    ipv6: bool = setting(_DNS.ipv6, "Whether the node connects to hosts by IPv6.")
    timeout_s: Seconds = setting(_DNS.timeout_s, "How long one try of a look-up may take.", least=0.1)
    attempts: int = setting(_DNS.attempts, "How often a look-up tries all resolvers.", unit="rounds", least=1, most=10)
    total_s: Seconds = setting(_DNS.total_s, "How long a look-up may take with all its tries.", least=0.1)
    server_pause_s: Seconds = setting(
        _DNS.server_pause_s, "How long a resolver that did not answer is asked only after the others.", least=0
    )
    payload: int = setting(
        _DNS.payload,
        "The largest answer accepted over UDP. 0: no EDNS.",
        unit="octets",
        most=65_535,
        least=0,
        source="RFC 6891",
    )
    trust_ad: bool = setting(
        _DNS.trust_ad,
        "Whether the node believes the AD bit (validated by DNSSEC) of resolvers that are not on this machine.",
    )
    ttl_min_s: int = setting(_DNS.ttl_min_s, "The shortest time that an answer is remembered.", unit="seconds", least=0)
    ttl_max_s: int = setting(_DNS.ttl_max_s, "The longest time that an answer is remembered.", unit="seconds", least=0)
    negative_ttl_max_s: int = setting(
        _DNS.negative_ttl_max_s,
        "The longest time that the node remembers that a name does not exist.",
        unit="seconds",
        least=0,
        source="RFC 2308",
    )
    error_ttl_s: int = setting(_DNS.error_ttl_s, "How long a failed look-up is remembered.", unit="seconds", least=0)
    cache_max: int = setting(_DNS.cache_max, "The most answers that one worker remembers.", unit="answers", least=0)
    queries_max: int = setting(
        _DNS.queries_max, "The most look-ups of one worker that are under way at a time.", unit="questions", least=1
    )
    waiting_max: int = setting(
        _DNS.waiting_max,
        "The most look-ups of one worker that may wait until they can start.",
        unit="questions",
        least=0,
    )
    records_max: int = setting(
        _DNS.records_max, "The most records that the node uses from one answer.", unit="records", least=1
    )
    cnames_max: int = setting(
        _DNS.cnames_max, "The most aliases (CNAME) that one look-up follows.", unit="records", least=0
    )


class QueueSection(Section):
    """When the node tries mail again, and how much mail goes to one destination at a time."""

    concurrency: int = setting(
        _QUEUE.concurrency, "The most connections of the whole node to one destination.", unit="connections", least=1
    )
    concurrency_start: int = setting(
        _QUEUE.concurrency_start,
        "The most connections to a remote destination at first. Success raises this number, up to `concurrency`; "
        "failure lowers it.",
        unit="connections",
        least=1,
    )
    connections_max: int = setting(
        _QUEUE.connections_max,
        "The most connections of one worker to all destinations together.",
        unit="connections",
        least=1,
    )
    connections_slow_max: int = setting(
        _QUEUE.connections_slow_max,
        "The most further connections of one worker. Each connection that has made no progress for `slow_s` allows "
        "one more, so that slow hosts do not hold up others.",
        unit="connections",
        least=0,
    )
    slow_s: Seconds = setting(
        _QUEUE.slow_s, "How long a connection must make no progress until it counts as slow.", least=0.1
    )
    probes_max: int = setting(
        _QUEUE.probes_max,
        "The most connections of one worker that are opening at a time to destinations that failed before.",
        unit="connections",
        least=1,
    )
    probes_per_s: float = setting(
        _QUEUE.probes_per_s,
        "The most destinations whose retries one worker begins in a second. After an outage or a restart, overdue "
        "retries are spread over time in this way.",
        unit="destinations",
        least=0.1,
    )
    gather_s: Seconds = setting(
        _QUEUE.gather_s,
        "How long failed recipients of a message wait for the outcome of its other recipients, so that one report "
        "covers all.",
        least=0,
    )
    recipients_per_job_max: int = setting(
        _QUEUE.recipients_per_job_max,
        "The most recipients of a message in one transaction.",
        unit="recipients",
        least=1,
        source="RFC 5321 §4.5.3.1.8",
    )
    retry_first_s: Seconds = setting(
        _QUEUE.retry_first_s, "The pause after the first attempt.", least=1, source="RFC 5321 §4.5.4.1"
    )
    retry_factor: float = setting(
        _QUEUE.retry_factor,
        "How many times longer each pause is than the pause before. The pause depends on the age of the message, not"
        " on the number of attempts: `queue retry` and ETRN do not lengthen it.",
        least=1,
        most=10,
    )
    retry_max_s: Seconds = setting(_QUEUE.retry_max_s, "The longest pause between two attempts.", least=1)
    retry_jitter: float = setting(
        _QUEUE.retry_jitter,
        "How far a pause may be longer or shorter at random, as a fraction of the pause.",
        least=0,
        most=0.9,
    )
    lifetime_s: Seconds = setting(
        _QUEUE.lifetime_s,
        "How long the node tries to reach a recipient. After that the recipient fails, and the node reports this to "
        "the sender.",
        least=0,
        source="RFC 5321 §4.5.4.1",
    )
    lifetime_dsn_s: Seconds = setting(
        _QUEUE.lifetime_dsn_s, "The same for messages without a return address, such as reports.", least=0
    )
    delay_notice_s: Seconds = setting(
        _QUEUE.delay_notice_s,
        "How long a message must be delayed until the node reports the delay to the sender. 0: it is not reported.",
        least=0,
    )
    backoff_first_s: Seconds = setting(
        _QUEUE.backoff_first_s,
        "How long the node leaves a destination alone if none of its hosts can be used. The pause doubles each time.",
        least=0,
    )
    backoff_max_s: Seconds = setting(_QUEUE.backoff_max_s, "The longest of these pauses.", least=0)
    ready_max: int = setting(
        _QUEUE.ready_max,
        "The most messages of one destination in memory. More wait on the disk.",
        unit="messages",
        least=1,
    )
    load_max: int = setting(
        _QUEUE.load_max,
        "The most recipients that are read from the disk at a time for one destination.",
        unit="recipients",
        least=1,
    )
    lanes_max: int = setting(
        _QUEUE.lanes_max, "The most destinations that one worker serves at a time.", unit="destinations", least=1
    )
    messages_max: int = setting(
        _QUEUE.messages_max,
        "The most messages that one worker has in memory. More wait on the disk.",
        unit="messages",
        least=1,
    )
    memory_max: Octets = setting(
        _QUEUE.memory_max,
        "The most content that one worker keeps in memory for delivery. Other content is read from the disk again.",
        least=0,
    )
    settle_retry_s: Seconds = setting(
        _QUEUE.settle_retry_s,
        "How long the node waits before it tries again to write an outcome that could not be written (the disk is "
        "full).",
        least=0.01,
    )
    unsettled_max: int = setting(
        _QUEUE.unsettled_max,
        "The most outcomes of one worker that may wait to be written. At this limit the worker delivers nothing "
        "more. So a crash leads to no more duplicates than these outcomes and the deliveries under way.",
        unit="outcomes",
        least=1,
    )


class StoreSection(Section):
    """The spool: how messages are kept on the disk."""

    inline_max: Octets = setting(
        _STORE.inline_max,
        "Content up to this size is kept in the database. Larger content has a file of its own.",
        least=0,
    )
    free_min: Octets = setting(
        _STORE.free_min,
        "If the disk has less free space than this, new mail is refused (452), while delivery goes on and empties "
        "the queue.",
        least=0,
    )
    reserve: Octets = setting(
        _STORE.reserve,
        "Space that each shard keeps in a file, NN.reserve beside its database, for the case that the disk is full. "
        "With this space the node can start, and can write the outcomes of deliveries, so that nothing is delivered "
        "twice. New mail is refused (452) until the reserve is whole again. 0: no reserve.",
        least=0,
        most=1_073_741_824,
    )
    wal_max: Octets = setting(
        _STORE.wal_max,
        "The size of the write-ahead log at which its content is moved into the database.",
        least=1_048_576,
    )
    record_s: Seconds = setting(
        _STORE.record_s,
        "How long events that change nothing (sessions, refusals) may wait to be written together with others.",
        least=0,
    )
    settle_s: Seconds = setting(
        _STORE.settle_s,
        "How long the outcome of a delivery may wait for new mail, so that one sync writes both. 0: it does not wait.",
        least=0,
        most=1,
    )
    commit_wait_s: Seconds = setting(
        _STORE.commit_wait_s,
        "How long after the start of the last sync the next sync may wait for clients that are in the middle of a "
        "message, so that they share the sync. 0: it does not wait. If little mail arrives, it waits a quarter of "
        "this time. A client that is alone never waits.",
        least=0,
        most=1,
    )
    file_threads: int = setting(
        _STORE.file_threads, "The threads of one worker that write content files.", unit="threads", least=1, most=64
    )


class HistorySection(Section):
    """What `postroad trace` knows about messages that have left the queue."""

    keep_days: int = setting(
        _HISTORY.keep_days, "How many days the history is kept, not counting today.", unit="days", least=0
    )
    size_max: Octets = setting(
        _HISTORY.size_max,
        "The most disk space for the history. Above this limit the oldest days are removed. 0: no limit.",
        least=0,
    )
    lag_s: Seconds = setting(
        _HISTORY.lag_s, "How long events stay in the spool before they are moved to the history.", least=0
    )


class DsnSection(Section):
    """Delivery status notifications: the node's reports to senders (RFC 3461 to 3464)."""

    sender: Mailbox = setting(_REPORT.sender, 'The From address of reports. "": MAILER-DAEMON at `hostname`.')
    contact: Mailbox = setting(
        _REPORT.contact, 'The mailbox that the text of a report names for questions. "": postmaster at `hostname`.'
    )
    full_max: Octets = setting(
        _REPORT.full_max,
        "A failed message up to this size is returned whole. Of a larger message only the header section is returned.",
        least=0,
    )
    full_asked_max: Octets = setting(
        _REPORT.full_asked_max,
        "The same limit if the sender asked for the whole message.",
        least=0,
        source="RFC 3461 §4.3",
    )
    header_max: Octets = setting(
        _REPORT.header_max, "The largest part of a header section that is returned.", least=1024
    )
    strangers_rate_s: Seconds = setting(
        _REPORT_LIMITS.strangers_rate_s,
        "The time span for which the two limits below count reports on mail of strangers. Strangers are clients that"
        " are neither trusted nor authenticated; their sender address may be forged. When a limit is reached, no "
        "report is made; the log and `postroad trace` say so.",
        least=1,
    )
    strangers_address_max: int = setting(
        _REPORT_LIMITS.strangers_address_max,
        "The most such reports to one address within `strangers_rate_s`. 0: no limit.",
        unit="reports",
        least=0,
    )
    strangers_max: int = setting(
        _REPORT_LIMITS.strangers_max,
        "The most such reports of the whole node within `strangers_rate_s`. 0: no limit.",
        unit="reports",
        least=0,
    )


class LogSection(Section):
    """Where the log goes, and how it is written. Each event is one line. If a mailing's recipients are refused for the
    same reason, they share a line."""

    format: LogFormat = setting(_LOG.format, "`human`: for people. `json`: one object in each line.", word=True)
    level: LogLevel = setting(_LOG.level, "The lowest level that is written.", word=True)
    path: File | None = setting(
        None,
        "The log file. Unset: standard error. The file is opened again on SIGHUP.",
        example='"/var/log/postroad/log"',
    )
    flush_s: Seconds = setting(_LOG.flush_s, "The longest time that lines wait to be written together.", least=0)
    batch_max: Octets = setting(_LOG.batch_max, "Lines are written at once when this much waits.", least=1024)
    buffer_max: Octets = setting(
        _LOG.buffer_max,
        "The most that may wait if the log cannot be written. Further lines are dropped and counted.",
        least=65_536,
    )
    line_max: Octets = setting(_LOG.line_max, "The longest line. The rest of a longer line is cut off.", least=1024)


class MemorySection(Section):
    """How a worker's C library (glibc) handles large pieces of memory. Few nodes need this."""

    mmap_threshold: Octets = setting(
        _MEMORY.mmap_threshold, "M_MMAP_THRESHOLD of mallopt(3). 0: glibc's default.", least=0, most=MMAP_THRESHOLD_MAX
    )
    trim_threshold: Octets = setting(
        _MEMORY.trim_threshold, "M_TRIM_THRESHOLD of mallopt(3). 0: glibc's default.", least=0
    )
