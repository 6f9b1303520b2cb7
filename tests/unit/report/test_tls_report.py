"""TLS reports have the form of RFC 8460 §4.4, and their counts fit together."""

from __future__ import annotations

import json
from typing import Any

from postroad.report.feedback import Period, ReportingNode, TlsPolicySeen, TlsRow
from postroad.report.tls_report import TlsReport, written

REPORTER = ReportingNode("Example", "tls@node.example", "mx1.node.example")
STS = TlsPolicySeen("sts", "example.com", ("version: STSv1", "mode: testing", "mx: *.example.com"), ("*.example.com",))
NONE = TlsPolicySeen("no-policy-found", "example.com")
DAY = 20_787


def made(*rows: tuple[TlsRow, int]) -> Any:
    return json.loads(written(TlsReport(REPORTER, Period(DAY), "example.com", rows)))


def test_a_report_says_what_was_seen() -> None:
    host = "mx.example.com"
    expired = TlsRow(STS, "certificate-expired", "198.51.100.1", host, host, "192.0.2.1", "2020")
    report = made((TlsRow(STS), 5), (expired, 2), (TlsRow(NONE), 1))
    assert report["organization-name"] == "Example"
    assert report["date-range"] == {"start-datetime": "2026-11-30T00:00:00Z", "end-datetime": "2026-11-30T23:59:59Z"}
    assert report["report-id"] == "20261130.tls.example.com@mx1.node.example"
    assert report["contact-info"] == "tls@node.example"
    sts, none = report["policies"]
    assert sts["policy"] == {
        "policy-type": "sts", "policy-string": list(STS.text), "policy-domain": "example.com",
        "mx-host": ["*.example.com"],
    }  # fmt: skip
    assert sts["summary"] == {"total-successful-session-count": 5, "total-failure-session-count": 2}
    assert sts["failure-details"] == [{
        "result-type": "certificate-expired", "sending-mta-ip": "198.51.100.1",
        "receiving-mx-hostname": "mx.example.com", "receiving-mx-helo": "mx.example.com", "receiving-ip": "192.0.2.1",
        "failed-session-count": 2, "failure-reason-code": "2020",
    }]  # fmt: skip
    assert none["policy"] == {"policy-type": "no-policy-found", "policy-domain": "example.com"}
    assert "failure-details" not in none


def test_a_word_that_the_rfc_does_not_know_becomes_a_reason() -> None:
    report = made((TlsRow(NONE, "moon-phase", reason="full"), 1))
    assert report["policies"][0]["failure-details"] == [
        {"result-type": "validation-failure", "failed-session-count": 1, "failure-reason-code": "moon-phase: full"}
    ]
