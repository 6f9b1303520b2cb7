"""How the node works: DNS, the queue, the spool, reports to senders, the log, memory."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from postroad.check.reports import ReportLimits
from postroad.config.field import Section, of
from postroad.config.values import DnsServer, File, Mailbox, Octets, Seconds
from postroad.queue.options import QueueOptions
from postroad.report.options import LogFormat, LogLevel, LogOptions, ReportOptions
from postroad.store.options import HistoryOptions, SpoolOptions
from postroad.world.dns import DnsOptions
from postroad.world.memory import MemoryOptions

_REPORT_LIMITS: Final = ReportLimits()


class DnsSection(Section):
    """How the node resolves names."""

    servers: tuple[DnsServer, ...] = of(DnsOptions.servers, example='["127.0.0.1:53"]')
    resolv_conf: File = of(DnsOptions.resolv_conf, default=Path(DnsOptions().resolv_conf))
    ipv4: bool = of(DnsOptions.ipv4)
    ipv6: bool = of(DnsOptions.ipv6)
    timeout_s: Seconds = of(DnsOptions.timeout_s)
    attempts: int = of(DnsOptions.attempts, unit="rounds")
    total_s: Seconds = of(DnsOptions.total_s)
    server_pause_s: Seconds = of(DnsOptions.server_pause_s)
    payload: int = of(DnsOptions.payload, unit="octets", source="RFC 6891")
    validating: bool = of(DnsOptions.validating, source="RFC 4035 §4.9.3, RFC 6840 §5.7")
    ttl_min_s: int = of(DnsOptions.ttl_min_s, unit="seconds")
    ttl_max_s: int = of(DnsOptions.ttl_max_s, unit="seconds")
    negative_ttl_max_s: int = of(DnsOptions.negative_ttl_max_s, unit="seconds", source="RFC 2308")
    error_ttl_s: int = of(DnsOptions.error_ttl_s, unit="seconds")
    cache_max: int = of(DnsOptions.cache_max, unit="answers")
    queries_max: int = of(DnsOptions.queries_max, unit="questions")
    waiting_max: int = of(DnsOptions.waiting_max, unit="questions")
    records_max: int = of(DnsOptions.records_max, unit="records")
    cnames_max: int = of(DnsOptions.cnames_max, unit="records")


class QueueSection(Section):
    """When the node tries mail again, and how much mail goes to one destination at a time."""

    concurrency: int = of(QueueOptions.concurrency, unit="connections")
    concurrency_start: int = of(QueueOptions.concurrency_start, unit="connections")
    connections_max: int = of(QueueOptions.connections_max, unit="connections")
    connections_slow_max: int = of(QueueOptions.connections_slow_max, unit="connections")
    slow_s: Seconds = of(QueueOptions.slow_s)
    probes_max: int = of(QueueOptions.probes_max, unit="connections")
    probes_per_s: float = of(QueueOptions.probes_per_s, unit="destinations")
    gather_s: Seconds = of(QueueOptions.gather_s)
    recipients_per_job_max: int = of(
        QueueOptions.recipients_per_job_max, unit="recipients", source="RFC 5321 §4.5.3.1.8"
    )
    retry_first_s: Seconds = of(QueueOptions.retry_first_s, source="RFC 5321 §4.5.4.1")
    retry_factor: float = of(QueueOptions.retry_factor)
    retry_max_s: Seconds = of(QueueOptions.retry_max_s)
    retry_jitter: float = of(QueueOptions.retry_jitter)
    lifetime_s: Seconds = of(QueueOptions.lifetime_s, source="RFC 5321 §4.5.4.1")
    lifetime_dsn_s: Seconds = of(QueueOptions.lifetime_dsn_s)
    delay_notice_s: Seconds = of(QueueOptions.delay_notice_s)
    backoff_first_s: Seconds = of(QueueOptions.backoff_first_s)
    backoff_max_s: Seconds = of(QueueOptions.backoff_max_s)
    ready_max: int = of(QueueOptions.ready_max, unit="messages")
    load_max: int = of(QueueOptions.load_max, unit="recipients")
    lanes_max: int = of(QueueOptions.lanes_max, unit="destinations")
    messages_max: int = of(QueueOptions.messages_max, unit="messages")
    memory_max: Octets = of(QueueOptions.memory_max)
    settle_retry_s: Seconds = of(QueueOptions.settle_retry_s)
    unsettled_max: int = of(QueueOptions.unsettled_max, unit="outcomes")


class StoreSection(Section):
    """The spool: how messages are kept on the disk."""

    inline_max: Octets = of(SpoolOptions.inline_max)
    free_min: Octets = of(SpoolOptions.free_min)
    reserve: Octets = of(SpoolOptions.reserve)
    wal_max: Octets = of(SpoolOptions.wal_max)
    record_s: Seconds = of(SpoolOptions.record_s)
    settle_s: Seconds = of(SpoolOptions.settle_s)
    commit_wait_s: Seconds = of(SpoolOptions.commit_wait_s)
    file_threads: int = of(SpoolOptions.file_threads, unit="threads")


class HistorySection(Section):
    """What `postroad trace` knows about messages that have left the queue."""

    keep_days: int = of(HistoryOptions.keep_days, unit="days")
    size_max: Octets = of(HistoryOptions.size_max)
    lag_s: Seconds = of(HistoryOptions.lag_s)


class DsnSection(Section):
    """Delivery status notifications: the node's reports to senders (RFC 3461 to 3464)."""

    sender: Mailbox = of(ReportOptions.sender)
    contact: Mailbox = of(ReportOptions.contact)
    full_max: Octets = of(ReportOptions.full_max)
    full_asked_max: Octets = of(ReportOptions.full_asked_max, source="RFC 3461 §4.3")
    header_max: Octets = of(ReportOptions.header_max)
    strangers_rate_s: Seconds = of(ReportLimits.strangers_rate_s)
    strangers_address_max: int = of(ReportLimits.strangers_address_max, unit="reports")
    strangers_max: int = of(ReportLimits.strangers_max, unit="reports")


class LogSection(Section):
    """Where the log goes, and how it is written. Each event is one line. If a mailing's recipients are refused for the
    same reason, they share a line."""

    format: LogFormat = of(LogOptions.format, word=True)
    level: LogLevel = of(LogOptions.level, word=True)
    path: File | None = of(LogOptions.path, default=None, example='"/var/log/postroad/log"')
    flush_s: Seconds = of(LogOptions.flush_s)
    batch_max: Octets = of(LogOptions.batch_max)
    buffer_max: Octets = of(LogOptions.buffer_max)
    line_max: Octets = of(LogOptions.line_max)


class MemorySection(Section):
    """How a worker's C library (glibc) handles large pieces of memory. Few nodes need this."""

    mmap_threshold: Octets = of(MemoryOptions.mmap_threshold)
    trim_threshold: Octets = of(MemoryOptions.trim_threshold)
