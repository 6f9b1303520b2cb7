"""Complaints and failure reports, and what they say of our message."""

from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from postroad.trust.inbound import feedback, report_mail
from postroad.trust.inbound.values import InboundFeedback
from tests.unit.trust.inbound import samples


def _read(content: bytes) -> InboundFeedback:
    (found,) = report_mail.read([content]).reports
    assert isinstance(found, InboundFeedback)
    return found


def test_a_complaint() -> None:
    found = _read(samples.feedback())
    assert (found.type, found.reporter, found.user_agent) == ("abuse", "mx.there.example", "Loop/1.0")
    assert (found.mail_from, found.recipients, found.source) == (
        "news@example.org", ("bob@there.example",), "192.0.2.9"
    )  # fmt: skip
    assert (found.message_id, found.campaign) == ("<news-1@example.org>", "spring:news:example")
    assert found.queue_ids == ("0123456789ab",)
    assert found.arrived_s == 1_764_583_205 and found.incidents == 1 and not found.problems


@pytest.mark.parametrize(
    "content",
    [
        samples.feedback(original=samples.ORIGINAL, type="text/rfc822-headers"),
        samples.feedback().replace(b"Arrival-Date", b"Received-Date"),
        samples.feedback().replace(b"Source-IP", b"X-New: 1\r\nSource-IP"),
        samples.feedback().replace(b"Content-Type: message/feedback-report\r\n\r\n",
                                   b"Content-Type: message/feedback-report\r\n\r\n\r\n"),
        samples.feedback().replace(b"multipart/report", b"multipart/mixed"),
    ],
    ids=["headers only", "old date", "unknown field", "blank line", "mixed"],
)  # fmt: skip
def test_other_forms_say_the_same(content: bytes) -> None:
    assert _read(content) == _read(samples.feedback())


def test_parts_in_base64() -> None:
    fields = b"Feedback-Type: fraud\nUser-Agent: x\nVersion: 1\nIncidents: 3\nReported-Domain: Example.ORG\n"
    content = samples.mail(
        samples.part("message/feedback-report", fields), samples.part("message/rfc822", samples.ORIGINAL + b"\r\nx\r\n")
    )
    found = _read(content)
    assert (found.type, found.incidents, found.domains) == ("fraud", 3, ("example.org",))
    assert found.message_id == "<news-1@example.org>"


def test_a_failure_report() -> None:
    fields = (
        "Feedback-Type: auth-failure\r\nUser-Agent: x\r\nVersion: 1\r\nAuth-Failure: dmarc\r\n"
        "Identity-Alignment: none\r\nDelivery-Result: reject\r\nDKIM-Domain: Forged.example\r\nDKIM-Selector: s\r\n"
        "SPF-DNS: txt : example.org : v=spf1 -all\r\nAuthentication-Results: mx.there.example; dmarc=fail\r\n"
        "Source-IP: IPv6:2001:DB8::1\r\nReported-Domain: example.org\r\n"
    )
    found = _read(samples.feedback(fields))
    assert found.is_failure
    assert (found.auth_failure, found.identity_alignment, found.delivery_result) == ("dmarc", "none", "reject")
    assert (found.dkim_domain, found.dkim_selector, found.source) == ("forged.example", "s", "2001:db8::1")
    assert found.results == "mx.there.example; dmarc=fail"
    assert _read(samples.feedback(fields.replace("auth-failure", "dmarc"))).is_failure


def test_microsofts_complaint_has_only_the_message() -> None:
    original = b"X-HmXmrOriginalRecipient: bob@hot.example\r\n" + samples.ORIGINAL + b"\r\nx\r\n"
    content = samples.mail(b"Content-Type: message/rfc822\r\n\r\n" + original, author="staff@hot.example")
    found = _read(content)
    assert (found.type, found.reporter, found.recipients) == ("abuse", "hot.example", ("bob@hot.example",))
    assert found.message_id == "<news-1@example.org>"


def test_what_is_missing_is_named() -> None:
    found = feedback.read(b"User-Agent: x\r\nIncidents: many\r\n", b"", "there.example")
    assert found.type == "abuse" and found.reporter == "there.example" and found.incidents == 1
    assert len(found.problems) == 3
    assert feedback.read(b"Feedback-Type: rude\r\n", b"X: y\r\n", "").problems == (
        "its Feedback-Type is not registered",
    )


def test_reports_in_the_message_that_somebody_complains_about_are_none() -> None:
    inner = samples.mail(samples.part("text/xml", samples.aggregate()))
    found = report_mail.read([samples.feedback(original=inner)])
    assert [type(each).__name__ for each in found.reports] == ["InboundFeedback"]


def test_ids_of_others_are_not_ours() -> None:
    original = b"Received: from a by b (Postfix) with ESMTP id 0123456789ab; x\r\n" + samples.ORIGINAL.replace(
        b"0123456789ab", b"0123456789!!"
    )
    assert _read(samples.feedback(original=original + b"\r\nx")).queue_ids == ()


@given(st.binary(max_size=300), st.binary(max_size=300))
def test_any_octets_are_read(section: bytes, original: bytes) -> None:
    found = feedback.read(b"Feedback-Type: abuse\r\n" + section, original, "x.example")
    assert found.incidents >= 1


def test_a_time_without_a_zone_is_one_of_utc(monkeypatch: pytest.MonkeyPatch) -> None:
    """RFC 5322 §3.3: -0000 says nothing of a zone, and must not mean that of this machine."""
    monkeypatch.setenv("TZ", "America/New_York")
    time.tzset()
    try:
        for zone in ("-0000", "+0000"):
            said = f"Feedback-Type: abuse\r\nArrival-Date: Mon, 1 Dec 2025 10:00:05 {zone}\r\n".encode()
            assert feedback.read(said, b"", "a.example").arrived_s == 1_764_583_205
    finally:
        monkeypatch.undo()
        time.tzset()
