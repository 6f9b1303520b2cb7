"""A DMARC aggregate report as XML (RFC 9990 §2.1, appendix A). Pure: values in, octets out.

What always holds: the document fits the schema of RFC 9990, whatever strangers have put into domains, selectors and
comments: what XML does not allow is replaced, and a result that the schema does not know becomes one that it knows. All
records of a report are of one policy domain, the rows with the most messages first.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Final
from xml.sax.saxutils import escape

import msgspec

from postroad.mail.address import is_within
from postroad.report.feedback import DkimSeen, DmarcRow, FeedbackKind, Period, ReportingNode, SpfSeen, report_id
from postroad.report.text import shorten
from postroad.trust.dmarc_record import DmarcRecord
from postroad.trust.results import (
    FAIL,
    NEUTRAL,
    NONE,
    PASS,
    PERMERROR,
    POLICY,
    SOFTFAIL,
    TEMPERROR,
)

NAMESPACE: Final = "urn:ietf:params:xml:ns:dmarc-2.0"
SIGNATURES_MAX: Final = 100  # RFC 9990 §2.1.3
REASONS_MAX: Final = 10
_TEXT_MAX: Final = 500  # characters of a text for people
_NOT_XML: Final = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
_DKIM: Final = frozenset((NONE, PASS, FAIL, POLICY, NEUTRAL, TEMPERROR, PERMERROR))
_SPF: Final = _DKIM | {SOFTFAIL}
_DISPOSITIONS: Final = frozenset((NONE, PASS, "quarantine", "reject"))
_REASONS: Final = frozenset(("local_policy", "mailing_list", "other", "policy_test_mode", "trusted_forwarder"))


class AggregateReport(msgspec.Struct, frozen=True):
    """`domain`: the policy domain. `record`: its record as it was found last. `rows`: each with its number of messages.
    `errors`: what was wrong, for people; `generator`: the program."""

    reporter: ReportingNode
    period: Period
    domain: str
    record: DmarcRecord
    rows: Sequence[tuple[DmarcRow, int]]
    errors: tuple[str, ...] = ()
    generator: str = ""

    @property
    def id(self) -> str:
        return report_id(FeedbackKind.DMARC, self.domain, self.period.day, self.reporter)


def written(report: AggregateReport) -> bytes:
    """The document. There must be at least one row (§2.1.1.2)."""
    parts = [
        f'<?xml version="1.0" encoding="UTF-8"?>\n<feedback xmlns="{NAMESPACE}">\n  <version>1.0</version>\n',
        *_metadata(report),
        *_policy(report.domain, report.record),
    ]
    for row, count in report.rows:
        parts += _record(row, count, report.domain)
    parts.append("</feedback>\n")
    return "".join(parts).encode("utf-8")


def _metadata(report: AggregateReport) -> Iterable[str]:
    reporter, period = report.reporter, report.period
    yield "  <report_metadata>\n"
    yield _element(4, "org_name", reporter.organization)
    yield _element(4, "email", reporter.contact)
    if reporter.more:
        yield _element(4, "extra_contact_info", reporter.more)
    yield _element(4, "report_id", report.id)
    yield f"    <date_range>\n      <begin>{period.begin_s}</begin>\n"
    yield f"      <end>{period.end_s}</end>\n    </date_range>\n"
    if report.errors:
        yield _element(4, "error", shorten("; ".join(report.errors), 4 * _TEXT_MAX))
    if report.generator:
        yield _element(4, "generator", report.generator)
    yield "  </report_metadata>\n"


def _policy(domain: str, record: DmarcRecord) -> Iterable[str]:
    """Tags that the record does not have are given with their defaults (§2.1.1.5)."""
    subdomains = record.policy if record.subdomains is None else record.subdomains
    nonexistent = subdomains if record.nonexistent is None else record.nonexistent
    yield "  <policy_published>\n"
    yield _element(4, "domain", domain)
    yield _element(4, "discovery_method", "treewalk")
    for name, policy in (("p", record.policy), ("sp", subdomains), ("np", nonexistent)):
        yield _element(4, name, policy.word)
    yield _element(4, "fo", ":".join(record.options))
    yield _element(4, "adkim", "s" if record.dkim_strict else "r")
    yield _element(4, "aspf", "s" if record.spf_strict else "r")
    yield _element(4, "testing", "y" if record.testing else "n")
    yield "  </policy_published>\n"


def _record(row: DmarcRow, count: int, domain: str) -> Iterable[str]:
    yield "  <record>\n    <row>\n"
    yield _element(6, "source_ip", row.source_ip)
    yield f"      <count>{count}</count>\n      <policy_evaluated>\n"
    yield _element(8, "disposition", row.disposition if row.disposition in _DISPOSITIONS else NONE)
    yield _element(8, "dkim", PASS if row.dkim_aligned else FAIL)
    yield _element(8, "spf", PASS if row.spf_aligned else FAIL)
    for type, comment in row.reasons[:REASONS_MAX]:
        yield "        <reason>\n"
        yield _element(10, "type", type if type in _REASONS else "other")
        if comment:
            yield _element(10, "comment", shorten(comment, _TEXT_MAX))
        yield "        </reason>\n"
    yield "      </policy_evaluated>\n    </row>\n    <identifiers>\n"
    yield _element(6, "header_from", row.header_from or domain)
    yield _element(6, "envelope_from", row.envelope_from)
    yield "    </identifiers>\n    <auth_results>\n"
    for signature in preferred(row.dkim, row.header_from):
        yield from _dkim(signature)
    if row.spf is not None:
        yield from _spf(row.spf)
    yield "    </auth_results>\n  </record>\n"


def _dkim(seen: DkimSeen) -> Iterable[str]:
    yield "      <dkim>\n"
    yield _element(8, "domain", seen.domain)
    yield _element(8, "selector", seen.selector)
    yield _element(8, "result", seen.result if seen.result in _DKIM else PERMERROR)
    if seen.told:
        yield _element(8, "human_result", shorten(seen.told, _TEXT_MAX))
    yield "      </dkim>\n"


def _spf(seen: SpfSeen) -> Iterable[str]:
    yield "      <spf>\n"
    yield _element(8, "domain", seen.domain)
    yield "        <scope>mfrom</scope>\n"
    yield _element(8, "result", seen.result if seen.result in _SPF else PERMERROR)
    if seen.told:
        yield _element(8, "human_result", shorten(seen.told, _TEXT_MAX))
    yield "      </spf>\n"


def preferred(signatures: Iterable[DkimSeen], author: str) -> list[DkimSeen]:
    """The signatures that a record has, in the order of RFC 9990 §2.1.3: those that passed and are strictly aligned,
    those that passed and may be aligned, others that passed, the rest."""
    return sorted(signatures, key=lambda each: _preference(each, author))[:SIGNATURES_MAX]


def _preference(seen: DkimSeen, author: str) -> int:
    if seen.result != PASS:
        return 3
    if seen.domain == author:
        return 0
    related = is_within(author, seen.domain) or is_within(seen.domain, author)
    return 1 if related else 2


def _element(indent: int, name: str, text: str) -> str:
    clean = _NOT_XML.sub("?", text)
    return f"{' ' * indent}<{name}>{escape(clean)}</{name}>\n" if clean else f"{' ' * indent}<{name}/>\n"
