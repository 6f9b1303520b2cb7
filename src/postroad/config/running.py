"""How the node works: DNS, the queue, the spool, reports to senders, the log, memory."""

from __future__ import annotations

from typing import Final

from postroad.check.reports import ReportLimits
from postroad.config.field import Section, setting, several
from postroad.config.values import DnsServer, File, Mailbox, Octets, Seconds
from postroad.queue.options import QueueOptions
from postroad.report.options import LogFormat, LogLevel, LogOptions, ReportOptions
from postroad.store.history import HistoryOptions
from postroad.store.spool import SpoolOptions
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


class Dns(Section):
    """How names are resolved."""

    servers: tuple[DnsServer, ...] = several(
        _DNS.servers, "The resolvers to ask; none: those of `resolv_conf`.", example='["127.0.0.1:53"]'
    )
    resolv_conf: File = setting(_DNS.resolv_conf, "Where the system names its resolvers, used without `servers`.")
    ipv4: bool = setting(_DNS.ipv4, "Whether hosts are reached by IPv4.")
    ipv6: bool = setting(_DNS.ipv6, "Whether hosts are reached by IPv6.")
    timeout_s: Seconds = setting(_DNS.timeout_s, "How long one try may take.", least=0.1)
    attempts: int = setting(_DNS.attempts, "Rounds through the resolvers.", unit="rounds", least=1, most=10)
    total_s: Seconds = setting(_DNS.total_s, "How long a question may take with all tries.", least=0.1)
    server_pause_s: Seconds = setting(
        _DNS.server_pause_s, "For how long a resolver that did not answer is asked last.", least=0
    )
    payload: int = setting(
        _DNS.payload,
        "The largest answer taken over UDP; 0: no EDNS.",
        unit="octets",
        most=65_535,
        least=0,
        source="RFC 6891",
    )
    trust_ad: bool = setting(
        _DNS.trust_ad, "Whether the AD bit (validated by DNSSEC) is believed of resolvers that are not on this machine."
    )
    ttl_min_s: int = setting(_DNS.ttl_min_s, "Answers are kept at least so long.", unit="seconds", least=0)
    ttl_max_s: int = setting(_DNS.ttl_max_s, "Answers are kept at most so long.", unit="seconds", least=0)
    negative_ttl_max_s: int = setting(
        _DNS.negative_ttl_max_s,
        "That a name is not there is kept at most so long.",
        unit="seconds",
        least=0,
        source="RFC 2308",
    )
    error_ttl_s: int = setting(_DNS.error_ttl_s, "That a question failed is kept so long.", unit="seconds", least=0)
    cache_max: int = setting(_DNS.cache_max, "Answers kept in one worker.", unit="answers", least=0)
    queries_max: int = setting(
        _DNS.queries_max, "Questions on their way at a time, in one worker.", unit="questions", least=1
    )
    waiting_max: int = setting(_DNS.waiting_max, "Questions that wait for that.", unit="questions", least=0)
    records_max: int = setting(_DNS.records_max, "Records of an answer that are looked at.", unit="records", least=1)
    cnames_max: int = setting(_DNS.cnames_max, "Aliases (CNAME) followed.", unit="records", least=0)


class Queue(Section):
    """When mail is tried again, and how much goes to one destination at a time."""

    concurrency: int = setting(
        _QUEUE.concurrency, "Connections to one destination, for the whole node.", unit="connections", least=1
    )
    concurrency_start: int = setting(
        _QUEUE.concurrency_start,
        "How many of these at first, where it is a remote one; more with success, fewer with failure.",
        unit="connections",
        least=1,
    )
    connections_max: int = setting(
        _QUEUE.connections_max, "Connections of one worker to all destinations.", unit="connections", least=1
    )
    connections_slow_max: int = setting(
        _QUEUE.connections_slow_max,
        "Further connections, one for each that has not moved for `slow_s`, so that slow hosts do not hold up others.",
        unit="connections",
        least=0,
    )
    slow_s: Seconds = setting(_QUEUE.slow_s, "After how long a connection that does not move is slow.", least=0.1)
    probes_max: int = setting(
        _QUEUE.probes_max,
        "Connections of one worker being opened at a time to destinations that failed before.",
        unit="connections",
        least=1,
    )
    probes_per_s: float = setting(
        _QUEUE.probes_per_s,
        "Destinations whose retries one worker begins in a second: what is overdue after an outage or a restart is "
        "taken up spread over time.",
        unit="destinations",
        least=0.1,
    )
    gather_s: Seconds = setting(
        _QUEUE.gather_s,
        "How long failures of a message wait for those of its other recipients, so that one report tells of all.",
        least=0,
    )
    recipients_per_job_max: int = setting(
        _QUEUE.recipients_per_job_max,
        "Recipients of a message in one transaction.",
        unit="recipients",
        least=1,
        source="RFC 5321 §4.5.3.1.8",
    )
    retry_first_s: Seconds = setting(
        _QUEUE.retry_first_s, "The pause after the first attempt.", least=1, source="RFC 5321 §4.5.4.1"
    )
    retry_factor: float = setting(
        _QUEUE.retry_factor,
        "By how much each pause is longer than the one before. The age of the message decides, not how often it was "
        "tried: `queue retry` and ETRN do not lengthen the pause.",
        least=1,
        most=10,
    )
    retry_max_s: Seconds = setting(_QUEUE.retry_max_s, "The longest pause between two attempts.", least=1)
    retry_jitter: float = setting(
        _QUEUE.retry_jitter,
        "How far a pause may be longer or shorter by chance, as a part of itself.",
        least=0,
        most=0.9,
    )
    lifetime_s: Seconds = setting(
        _QUEUE.lifetime_s,
        "After this time a recipient that could not be reached fails, and the sender is told.",
        least=0,
        source="RFC 5321 §4.5.4.1",
    )
    lifetime_dsn_s: Seconds = setting(
        _QUEUE.lifetime_dsn_s, "The same for messages without a return address, which reports are.", least=0
    )
    delay_notice_s: Seconds = setting(
        _QUEUE.delay_notice_s, "After this time the sender is told of a delay; 0: never.", least=0
    )
    backoff_first_s: Seconds = setting(
        _QUEUE.backoff_first_s,
        "How long a destination none of whose hosts can be used is left alone; doubles each time.",
        least=0,
    )
    backoff_max_s: Seconds = setting(_QUEUE.backoff_max_s, "The longest of these pauses.", least=0)
    ready_max: int = setting(
        _QUEUE.ready_max, "Messages of one destination kept in memory; more wait on the disk.", unit="messages", least=1
    )
    load_max: int = setting(
        _QUEUE.load_max, "Recipients read from the disk at a time for one destination.", unit="recipients", least=1
    )
    lanes_max: int = setting(_QUEUE.lanes_max, "Destinations worked on at a time.", unit="destinations", least=1)
    messages_max: int = setting(
        _QUEUE.messages_max, "Messages of one worker in memory; more wait on the disk.", unit="messages", least=1
    )
    memory_max: Octets = setting(
        _QUEUE.memory_max,
        "Content kept in memory for delivery by one worker; more is read from the disk again.",
        least=0,
    )
    settle_retry_s: Seconds = setting(
        _QUEUE.settle_retry_s,
        "After how long an outcome that could not be written (disk full) is written again.",
        least=0.01,
    )
    unsettled_max: int = setting(
        _QUEUE.unsettled_max,
        "Outcomes of one worker that may wait to be written; with more nothing more is delivered, so that a crash "
        "leads to no more duplicates than these and what is on its way.",
        unit="outcomes",
        least=1,
    )


class Store(Section):
    """The spool: how messages are kept on the disk."""

    inline_max: Octets = setting(
        _STORE.inline_max,
        "Content up to this size stands in the database, larger content in a file of its own.",
        least=0,
    )
    free_min: Octets = setting(
        _STORE.free_min, "With less free space on the disk new mail is refused (452) while the queue drains.", least=0
    )
    reserve: Octets = setting(
        _STORE.reserve,
        "Space that each shard keeps in a file, NN.reserve beside its database, for the moment at which the disk is "
        "full: the node can start then, and outcomes of deliveries can be written, so that nothing is delivered twice. "
        "New mail is refused (452) until the reserve is whole again. 0: none.",
        least=0,
        most=1_073_741_824,
    )
    wal_max: Octets = setting(
        _STORE.wal_max, "The size of the write-ahead log at which it is taken into the database.", least=1_048_576
    )
    record_s: Seconds = setting(
        _STORE.record_s,
        "How long events that change nothing (sessions, refusals) wait to be written with others.",
        least=0,
    )
    settle_s: Seconds = setting(
        _STORE.settle_s,
        "How long the outcome of a delivery may wait for new mail whose sync it can share; 0: not at all.",
        least=0,
        most=1,
    )
    company_s: Seconds = setting(
        _STORE.company_s,
        "How long after the last sync a new one may wait for other clients that are in the middle of a message, so that"
        " they share it; 0: not at all. A quarter of that where little comes; a client that is alone never waits.",
        least=0,
        most=1,
    )
    file_threads: int = setting(
        _STORE.file_threads, "Threads of one worker that write content files.", unit="threads", least=1, most=64
    )


class History(Section):
    """What `postroad trace` knows of messages that have left the queue."""

    keep_days: int = setting(_HISTORY.keep_days, "For how long, today not counted.", unit="days", least=0)
    size_max: Octets = setting(
        _HISTORY.size_max, "With more than this on the disk the oldest days go; 0: no limit.", least=0
    )
    lag_s: Seconds = setting(
        _HISTORY.lag_s, "How long events stay in the spool before they are moved to the history.", least=0
    )


class Dsn(Section):
    """Delivery status notifications: what senders are told (RFC 3461 to 3464)."""

    sender: Mailbox = setting(_REPORT.sender, 'The From of reports; "": MAILER-DAEMON at `hostname`.')
    contact: Mailbox = setting(_REPORT.contact, 'Whom the text names for questions; "": postmaster at `hostname`.')
    full_max: Octets = setting(
        _REPORT.full_max,
        "A failed message up to this size is returned whole, of a larger one the header section.",
        least=0,
    )
    full_asked_max: Octets = setting(
        _REPORT.full_asked_max,
        "The same where the sender asked for the whole message.",
        least=0,
        source="RFC 3461 §4.3",
    )
    header_max: Octets = setting(_REPORT.header_max, "The most of a header section that is returned.", least=1024)
    strangers_rate_s: Seconds = setting(
        _REPORT_LIMITS.strangers_rate_s,
        "The time within which reports on mail of strangers are counted: of clients neither trusted nor authenticated, "
        "whose sender may be forged. Beyond the limits none is made; log and `postroad trace` say so.",
        least=1,
    )
    strangers_address_max: int = setting(
        _REPORT_LIMITS.strangers_address_max, "Of these, to one address; 0: no limit.", unit="reports", least=0
    )
    strangers_max: int = setting(
        _REPORT_LIMITS.strangers_max, "Of these, from the whole node; 0: no limit.", unit="reports", least=0
    )


class Log(Section):
    """Where the log goes and how. One event, one line; recipients of a mailing that are refused alike share a line."""

    format: LogFormat = setting(_LOG.format, "`human`: for reading. `json`: an object in each line.", word=True)
    level: LogLevel = setting(_LOG.level, "Lines of this level and above are written.", word=True)
    path: File | None = setting(
        None, "The file; unset: standard error. It is opened again on SIGHUP.", example='"/var/log/postroad/log"'
    )
    flush_s: Seconds = setting(_LOG.flush_s, "Lines are written together after this time at the latest.", least=0)
    batch_max: Octets = setting(_LOG.batch_max, "Lines are written as soon as so much waits.", least=1024)
    buffer_max: Octets = setting(
        _LOG.buffer_max,
        "Where nothing can be written, so much waits; further lines are dropped and counted.",
        least=65_536,
    )
    line_max: Octets = setting(_LOG.line_max, "The longest line; the rest of a longer one is cut.", least=1024)


class Memory(Section):
    """How a worker's C library (glibc) handles large pieces of memory. Rarely of interest."""

    mmap_threshold: Octets = setting(
        _MEMORY.mmap_threshold, "M_MMAP_THRESHOLD of mallopt(3); 0: glibc's own.", least=0, most=MMAP_THRESHOLD_MAX
    )
    trim_threshold: Octets = setting(_MEMORY.trim_threshold, "M_TRIM_THRESHOLD of mallopt(3); 0: glibc's own.", least=0)
