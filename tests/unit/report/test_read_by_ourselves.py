"""What we report to others, we read as they do: each report that we make says the same when it comes back."""

from __future__ import annotations

import gzip

from postroad.mail.address import Address
from postroad.report import aggregate_xml, tls_report
from postroad.report.feedback import (
    DkimSeen,
    DmarcRow,
    FeedbackKind,
    Period,
    ReportingNode,
    SpfSeen,
    TlsPolicySeen,
    TlsRow,
)
from postroad.report.feedback_mail import Compressed, failure_mail, feedback_mail
from postroad.trust import dmarc_record
from postroad.trust.inbound import report_mail
from postroad.trust.inbound.values import (
    InboundAggregate,
    InboundDkim,
    InboundFeedback,
    InboundSpf,
    InboundTls,
    InboundTlsFailure,
    InboundTlsPolicy,
)
from tests.unit.report.test_feedback_mail import FAILED

REPORTER = ReportingNode("Example & Söhne <mail>", "dmarc@node.example", "mx1.node.example")
DAY = 20_787
ROW = DmarcRow(
    "192.0.2.1", "example.com", "reject", False, True, "bounce.example.net", (("policy_test_mode", "t=y"),),
    (DkimSeen("example.com", "s1", "fail", "body hash"),), SpfSeen("bounce.example.net", "softfail"),
)  # fmt: skip


def test_an_aggregate_report() -> None:
    record = dmarc_record.parse("v=DMARC1; p=reject; np=reject; t=y; rua=mailto:a@b.example")
    report = aggregate_xml.AggregateReport(
        REPORTER, Period(DAY), "example.com", record, ((ROW, 7),), ("a < b",), "Postroad"
    )
    octets = gzip.compress(aggregate_xml.written(report))
    compressed = Compressed(FeedbackKind.DMARC, "example.com", Period(DAY), octets)
    stored = feedback_mail(compressed, REPORTER, Address("a", "b.example"), "mailto:a@b.example", id=5, now_us=1)
    assert isinstance(stored.content, bytes)
    found = report_mail.read([stored.content])
    assert found.problems == () and found.author == "node.example"
    (read,) = found.reports
    assert isinstance(read, InboundAggregate)
    assert (read.organization, read.errors, read.problems) == ("Example & Söhne <mail>", ("a < b",), ())
    assert (read.begin_s, read.end_s) == (DAY * 86_400, (DAY + 1) * 86_400)
    assert (read.policy.domain, read.policy.p, read.policy.np, read.policy.testing) == (
        "example.com", "reject", "reject", "y",
    )  # fmt: skip
    (row,) = read.rows
    assert (row.source, row.count, row.disposition, row.reasons) == (
        "192.0.2.1", 7, "reject", (("policy_test_mode", "t=y"),),
    )  # fmt: skip
    assert {row.dkim, row.spf} == {"pass", "fail"}
    assert row.signatures == (InboundDkim("example.com", "s1", "fail", "body hash"),)
    assert row.senders == (InboundSpf("bounce.example.net", "mfrom", "softfail"),)


def test_a_tls_report() -> None:
    policy = TlsPolicySeen("sts", "example.com", ("version: STSv1", "mode: testing"), ("*.example.com",))
    host = "mx.example.com"
    expired = TlsRow(policy, "certificate-expired", "198.51.100.1", host, host, "192.0.2.1", "2020")
    report = tls_report.TlsReport(REPORTER, Period(DAY), "example.com", ((TlsRow(policy), 5), (expired, 2)))
    octets = gzip.compress(tls_report.written(report))
    compressed = Compressed(FeedbackKind.TLS, "example.com", Period(DAY), octets)
    stored = feedback_mail(compressed, REPORTER, Address("a", "b.example"), "mailto:a@b.example", id=5, now_us=1)
    assert isinstance(stored.content, bytes)
    found = report_mail.read([stored.content])
    assert found.problems == ()
    (read,) = found.reports
    assert isinstance(read, InboundTls)
    assert (read.organization, read.begin_s, read.end_s, read.problems) == (
        "Example & Söhne <mail>", DAY * 86_400, (DAY + 1) * 86_400 - 1, (),
    )  # fmt: skip
    failure = InboundTlsFailure("certificate-expired", 2, "198.51.100.1", host, host, "192.0.2.1", "2020")
    assert read.policies == (
        InboundTlsPolicy("sts", "example.com", 5, 2, policy.text, policy.hosts, (failure,)),
    )


def test_a_failure_report() -> None:
    stored = failure_mail(FAILED, REPORTER, Address("a", "b.example"), id=5, now_us=1)
    assert isinstance(stored.content, bytes)
    (read,) = report_mail.read([stored.content]).reports
    assert isinstance(read, InboundFeedback)
    assert read.is_failure and read.problems == ()
    assert (read.auth_failure, read.source, read.domains) == ("dmarc", FAILED.source_ip, (FAILED.author,))
    assert (read.message_id, read.delivery_result, read.arrived_s) == (
        "<1@example.com>", FAILED.delivery, FAILED.at_us // 1_000_000,
    )  # fmt: skip
