"""Makes a daily report of the rows of its day: XML or JSON, compressed, no larger than it may be. Pure.

What always holds: equal rows give equal octets (gzip without a time), so a report that is made again after a crash is
the same. If it is too large, the rows that count least are left out, and a DMARC report says how many are missing.
"""

from __future__ import annotations

import gzip
from collections.abc import Sequence
from typing import Final

import msgspec

from postroad import __version__
from postroad.report import aggregate_xml, tls_report
from postroad.report.aggregate_xml import AggregateReport
from postroad.report.feedback import DmarcRow, FeedbackKind, Period, ReportingNode, TlsRow
from postroad.report.feedback_mail import Compressed
from postroad.report.tls_report import TlsReport
from postroad.trust import dmarc_record

ROWS_MAX: Final = 100_000  # of a report; about 50 MB of XML
FAULTS_MAX: Final = 5
_DMARC: Final = msgspec.msgpack.Decoder(DmarcRow)
_TLS: Final = msgspec.msgpack.Decoder(TlsRow)


def compressed(
    kind: FeedbackKind, domain: str, day: int, reporter: ReportingNode, rows: Sequence[tuple[bytes, int]], *,
    rows_in_all: int, record: str, size_max: int,
) -> Compressed | None:
    """The report. `rows`: those that count most first; `rows_in_all`: how many there are. `record`: of DMARC. None: not
    even one row fits into `size_max` octets."""
    count = len(rows)
    while count:
        missing = rows_in_all - count
        octets = gzip.compress(_written(kind, domain, day, reporter, rows[:count], missing, record), 9, mtime=0)
        if len(octets) <= size_max:
            return Compressed(kind, domain, Period(day), octets)
        # Somewhat fewer than the size says, so that one more try is enough in most cases.
        count = min(count - 1, int(count * size_max / len(octets) * 0.95))
    return None


def _written(
    kind: FeedbackKind, domain: str, day: int, reporter: ReportingNode, rows: Sequence[tuple[bytes, int]], missing: int,
    record: str,
) -> bytes:
    period = Period(day)
    if kind is FeedbackKind.TLS:
        return tls_report.written(
            TlsReport(reporter, period, domain, [(_TLS.decode(row), count) for row, count in rows])
        )
    found = dmarc_record.parse(record)
    errors = found.faults[:FAULTS_MAX]
    if missing:
        errors = (*errors, f"{missing} records with few messages are left out, because the report became too large")
    seen = [(_DMARC.decode(row), count) for row, count in rows]
    return aggregate_xml.written(
        AggregateReport(reporter, period, domain, found, seen, errors, f"Postroad {__version__}")
    )
