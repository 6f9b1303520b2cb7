"""A TLS report as JSON (RFC 8460 §4). Pure: values in, octets out.

What always holds: the counts of a policy fit its details: failures that are counted have an entry each. Two policies
stand apart if anything of them differs, such as a policy that was changed during the day. The result types are those of
RFC 8460 §4.3; any other word becomes `validation-failure`, with the word as its reason.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from typing import Any, Final

import msgspec

from postroad.report.feedback import FeedbackKind, Period, ReportingNode, TlsPolicySeen, TlsRow, report_id
from postroad.report.text import clean, shorten

RESULTS: Final = frozenset((
    "starttls-not-supported", "certificate-host-mismatch", "certificate-expired", "tlsa-invalid", "dnssec-invalid",
    "dane-required", "certificate-not-trusted", "sts-policy-invalid", "sts-webpki-invalid", "validation-failure",
    "sts-policy-fetch-error",
))  # fmt: skip
_OTHER: Final = "validation-failure"
_TYPES: Final = frozenset(("tlsa", "sts", "no-policy-found"))
_TEXT_MAX: Final = 500
_LINES_MAX: Final = 200  # of a policy, or records


class TlsReport(msgspec.Struct, frozen=True):
    """`domain`: of the recipients. `rows`: each with its number of connections."""

    reporter: ReportingNode
    period: Period
    domain: str
    rows: Sequence[tuple[TlsRow, int]]

    @property
    def id(self) -> str:
        return report_id(FeedbackKind.TLS, self.domain, self.period.day, self.reporter)


def written(report: TlsReport) -> bytes:
    """The document (§4.4)."""
    reporter, period = report.reporter, report.period
    whole = {
        "organization-name": clean(reporter.organization),
        # §4.4: a full UTC day; the last second of the day, as the report for the next day begins with the next one
        "date-range": {"start-datetime": _moment(period.begin_s), "end-datetime": _moment(period.end_s - 1)},
        "contact-info": reporter.contact,
        "report-id": report.id,
        "policies": [_policy(policy, rows) for policy, rows in _by_policy(report.rows)],
    }
    return msgspec.json.format(msgspec.json.encode(whole), indent=1) + b"\n"


def _by_policy(rows: Iterable[tuple[TlsRow, int]]) -> list[tuple[TlsPolicySeen, list[tuple[TlsRow, int]]]]:
    found: dict[TlsPolicySeen, list[tuple[TlsRow, int]]] = {}
    for row, count in rows:
        found.setdefault(row.policy, []).append((row, count))
    return list(found.items())


def _policy(policy: TlsPolicySeen, rows: Sequence[tuple[TlsRow, int]]) -> dict[str, Any]:
    described: dict[str, Any] = {"policy-type": policy.type if policy.type in _TYPES else "no-policy-found"}
    if policy.text:
        described["policy-string"] = [shorten(clean(line), _TEXT_MAX) for line in policy.text[:_LINES_MAX]]
    described["policy-domain"] = clean(policy.domain)
    if policy.hosts:
        described["mx-host"] = [clean(host) for host in policy.hosts[:_LINES_MAX]]
    failures = [(row, count) for row, count in rows if row.result]
    made: dict[str, Any] = {
        "policy": described,
        "summary": {
            "total-successful-session-count": sum(count for row, count in rows if not row.result),
            "total-failure-session-count": sum(count for _, count in failures),
        },
    }
    if failures:
        made["failure-details"] = [_failure(row, count) for row, count in failures]
    return made


def _failure(row: TlsRow, count: int) -> dict[str, Any]:
    known = row.result in RESULTS
    reason = row.reason if known else f"{row.result}: {row.reason}" if row.reason else row.result
    details = {
        "result-type": row.result if known else _OTHER,
        "sending-mta-ip": row.sending_ip,
        "receiving-mx-hostname": clean(row.host),
        "receiving-mx-helo": shorten(clean(row.hello), _TEXT_MAX),
        "receiving-ip": row.host_ip,
        "failed-session-count": count,
        "failure-reason-code": shorten(clean(reason), _TEXT_MAX),
    }
    return {name: value for name, value in details.items() if value != ""}


def _moment(at_s: int) -> str:
    """RFC 3339."""
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(at_s))
