"""DMARC aggregate reports, read: RFC 7489 appendix C, RFC 9990, and what reporters send in their place.

What always holds: equal rows of one report are one, with the sum of their counts; what is missing is "" or 0, and
`problems` says so where it matters. How it fails: `UnreadableReport`, if the XML cannot be read even when it is mended,
or if it is no report.
"""

from __future__ import annotations

import datetime
import ipaddress
from collections.abc import Callable
from typing import Final

from msgspec.structs import replace

from postroad.trust.inbound import xml
from postroad.trust.inbound.limits import DEFAULT_LIMITS, PROBLEMS_MAX, InboundLimits, UnreadableReport
from postroad.trust.inbound.values import (
    COUNT_MAX,
    InboundAggregate,
    InboundDkim,
    InboundPolicy,
    InboundRow,
    InboundSpf,
    count_of,
    domain_of,
    moment_of,
    tidy,
)

ROOT: Final = "feedback"
_RESULTS_MAX: Final = 100  # signatures, reasons and the like of one row
_HARD: Final = {"hardfail": "fail", "error": "temperror", "unknown": "permerror"}  # words of RFC 4408 and before


def looks_like_one(octets: bytes) -> bool:
    """Whether a file seems to be XML."""
    head = octets[:200].removeprefix(b"\xef\xbb\xbf").lstrip()
    return head.startswith(b"<") or octets.startswith((b"\xff\xfe", b"\xfe\xff"))


def read(
    octets: bytes, limits: InboundLimits = DEFAULT_LIMITS, breathe: Callable[[], None] = lambda: None
) -> InboundAggregate:
    """The report in an XML file. `breathe` is called now and then."""
    rows = _Rows(limits.records_max)
    try:
        root = xml.read(octets, "record", rows.take, breathe)
    except UnreadableReport as error:
        if "document type" in str(error) or "more than" in str(error):
            raise
        rows = _Rows(limits.records_max)
        try:
            root = xml.read(xml.mended(octets), "record", rows.take, breathe, namespaces=False)
        except UnreadableReport:
            raise error from None
        rows.problem(str(error))
    return _report(root, rows)


class _Rows:
    """Rows, equal ones once."""

    def __init__(self, records_max: int) -> None:
        self._records_max = records_max
        self._count: dict[InboundRow, int] = {}
        self.records = 0
        self.problems: dict[str, None] = {}

    def problem(self, text: str) -> None:
        if len(self.problems) < PROBLEMS_MAX:
            self.problems[tidy(text)] = None

    def take(self, record: xml.XmlElement) -> None:
        self.records += 1
        if self.records > self._records_max:
            raise UnreadableReport(f"it has more than {self._records_max} records (records_max)")
        row = _row(record, self.problem)
        plain = replace(row, count=0)
        self._count[plain] = min(self._count.get(plain, 0) + row.count, COUNT_MAX)

    def all(self) -> tuple[InboundRow, ...]:
        return tuple(replace(row, count=count) for row, count in self._count.items())


def _report(root: xml.XmlElement, rows: _Rows) -> InboundAggregate:
    if root.name != ROOT:
        raise UnreadableReport(f"it is XML, but its root is <{tidy(root.name)}> and not <{ROOT}>")
    metadata, published = root.child("report_metadata"), root.child("policy_published")
    if metadata is None or published is None:
        missing = "report_metadata" if metadata is None else "policy_published"
        raise UnreadableReport(f"it has no <{missing}>")
    policy = _policy(published)
    if not policy.domain:
        raise UnreadableReport("it does not say which domain it is about")
    organization = tidy(metadata.said("org_name"))
    email = tidy(metadata.said("email"))
    report_id = tidy(metadata.said("report_id"))
    for value, name in ((organization, "org_name"), (email, "email"), (report_id, "report_id")):
        if not value:
            rows.problem(f"it has no {name}")
    span = metadata.child("date_range")
    begin_s, end_s = (0, 0) if span is None else (_moment(span.said("begin")), _moment(span.said("end")))
    if not begin_s or not end_s:
        rows.problem("it does not say for which time it is")
    elif end_s < begin_s:
        rows.problem("its time ends before it begins")
    if not rows.records:
        rows.problem("it has no records")
    return InboundAggregate(
        organization or email.rpartition("@")[2] or "unknown", email, report_id, begin_s, end_s, policy, rows.all(),
        tidy(root.said("version")), tidy(metadata.said("extra_contact_info")), tidy(metadata.said("generator")),
        tuple(tidy(each.text) for each in metadata.all("error")[:PROBLEMS_MAX] if each.text.strip()),
        tuple(rows.problems),
    )


def _policy(node: xml.XmlElement) -> InboundPolicy:
    def said(name: str) -> str:
        return tidy(node.said(name)).lower()

    return InboundPolicy(
        domain_of(node.said("domain")), said("p"), said("sp"), said("np"), said("adkim"), said("aspf"), said("pct"),
        said("fo"), said("testing"), said("discovery_method"),
    )


def _row(record: xml.XmlElement, problem: Callable[[str], None]) -> InboundRow:
    row = record.child("row") or _NOTHING
    evaluated = row.child("policy_evaluated") or _NOTHING
    identifiers = record.child("identifiers", "identities") or _NOTHING
    results = record.child("auth_results") or _NOTHING
    count = count_of(row.said("count"))
    if count is None:
        problem("a record does not say how many messages it is about")
    return InboundRow(
        _source(row.said("source_ip"), problem), count or 0, tidy(evaluated.said("disposition")).lower(),
        tidy(evaluated.said("dkim")).lower(), tidy(evaluated.said("spf")).lower(),
        tuple(
            (tidy(each.said("type")).lower(), tidy(each.said("comment")))
            for each in evaluated.all("reason")[:_RESULTS_MAX] if each.children
        ),
        domain_of(identifiers.said("header_from")), domain_of(identifiers.said("envelope_from")),
        domain_of(identifiers.said("envelope_to")),
        tuple(
            InboundDkim(
                domain_of(each.said("domain")), tidy(each.said("selector")), _result(each),
                tidy(each.said("human_result")),
            )
            for each in results.all("dkim")[:_RESULTS_MAX]
        ),
        tuple(
            InboundSpf(
                domain_of(each.said("domain")), tidy(each.said("scope")).lower(), _result(each),
                tidy(each.said("human_result")),
            )
            for each in results.all("spf")[:_RESULTS_MAX]
        ),
    )  # fmt: skip


_NOTHING: Final = xml.XmlElement("")


def _result(node: xml.XmlElement) -> str:
    word = tidy(node.said("result")).lower()
    return _HARD.get(word, word)


def _source(written: str, problem: Callable[[str], None]) -> str:
    text = tidy(written).strip("[]")
    try:
        return str(ipaddress.ip_address(text))
    except ValueError:
        problem("a record names no IP address as its source")
        return text


def _moment(written: str) -> int:
    """Seconds since 1970; a few reporters write a date and time instead, in UTC."""
    found = moment_of(written)
    if found or not written:
        return found
    try:
        at = datetime.datetime.fromisoformat(written.strip()[:40])
        return max(0, int((at if at.tzinfo else at.replace(tzinfo=datetime.UTC)).timestamp()))
    except (ValueError, OverflowError):
        return 0
