"""The mail with a report: read by another parser, named as the RFCs want it, and nothing can be added to it."""

from __future__ import annotations

import email
import email.policy
import gzip
from email.header import decode_header, make_header
from email.message import EmailMessage

import pytest

from postroad.mail import wishes
from postroad.mail.address import Address
from postroad.report.failure_report import FailureReport
from postroad.report.feedback import (
    FeedbackKind,
    Period,
    ReportingNode,
    file_name,
    message_id,
    report_id,
    share_of_spread,
)
from postroad.report.feedback_mail import Compressed, failure_mail, feedback_mail
from postroad.report.own_mail import LISTENER_FEEDBACK
from postroad.store.values import Stored

REPORTER = ReportingNode("Example", "dmarc@node.example", "mx1.node.example")
DAY = 20_787
NOW_US = 1_796_083_200_000_000


def mail(kind: FeedbackKind, reporter: ReportingNode = REPORTER) -> tuple[Stored, EmailMessage]:
    octets = b"content" * 500
    report = Compressed(kind, "example.com", Period(DAY), gzip.compress(octets, mtime=0))
    to = Address("reports", "example.com")
    stored = feedback_mail(report, reporter, to, "mailto:reports@example.com", id=5, now_us=NOW_US)
    assert isinstance(stored.content, bytes)
    return stored, read(stored.content)


def read(octets: bytes) -> EmailMessage:
    assert all(len(line) <= 998 for line in octets.split(b"\r\n"))
    assert octets.count(b"\n") == octets.count(b"\r\n") == octets.count(b"\r")
    found = email.message_from_bytes(octets, policy=email.policy.default)
    assert isinstance(found, EmailMessage)
    assert not found.defects
    return found


def test_an_aggregate_report() -> None:
    stored, found = mail(FeedbackKind.DMARC)
    assert found["Subject"] == (
        "Report Domain: example.com Submitter: node.example Report-ID: <20261130.dmarc.example.com@mx1.node.example>"
    )
    text, attachment = found.iter_parts()
    assert "2026-11-30" in text.get_content()
    assert attachment.get_content_type() == "application/gzip"
    begin, end = DAY * 86_400, (DAY + 1) * 86_400
    assert attachment.get_filename() == f"node.example!example.com!{begin}!{end}!{_unique()}.xml.gz"
    assert gzip.decompress(attachment.get_content()) == b"content" * 500
    assert found["From"] == '"Example" <dmarc@node.example>' or found["From"] == "Example <dmarc@node.example>"
    assert found["Auto-Submitted"] == "auto-generated"
    envelope = stored.envelope
    assert str(envelope.reverse_path) == "dmarc@node.example"
    assert envelope.peer.listener == LISTENER_FEEDBACK
    assert envelope.message_id == found["Message-ID"]
    assert envelope.size == len(stored.content)  # type: ignore[arg-type]


def _unique() -> str:
    return file_name(FeedbackKind.DMARC, "example.com", DAY, REPORTER).split("!")[4].partition(".")[0]


def test_a_tls_report_goes_out_whatever_tls_there_is() -> None:
    stored, found = mail(FeedbackKind.TLS)
    assert found.get_content_type() == "multipart/report"
    assert found.get_param("report-type") == "tlsrpt"
    assert found["TLS-Report-Domain"] == "example.com"
    assert found["TLS-Report-Submitter"] == "node.example"  # RFC 8460 §5.3: the domain of contact-info
    assert found["TLS-Required"] == "No"
    assert stored.envelope.parameters == ((wishes.TLS_OPTIONAL, "NO"),)
    _, attachment = found.iter_parts()
    assert attachment.get_content_type() == "application/tlsrpt+gzip"
    assert attachment.get_filename().endswith(".json.gz")


@pytest.mark.parametrize("name", ['A "B" \\ C', "Grüße und Küsse GmbH & Co. KG, Öffentliche Räume", "x\r\nBcc: y@z"])
def test_the_name_of_an_organization_is_only_a_name(name: str) -> None:
    stored, found = mail(FeedbackKind.DMARC, ReportingNode(name, "dmarc@node.example", "mx1.node.example"))
    assert isinstance(stored.content, bytes)
    assert found["Bcc"] is None
    (sender,) = found["From"].addresses
    assert sender.addr_spec == "dmarc@node.example"
    raw = email.message_from_bytes(stored.content)["From"]  # the newer parser puts spaces between encoded words
    shown = str(make_header(decode_header(raw.rpartition(" <")[0]))).replace("\\", "").replace('"', "")
    assert shown.split() == name.replace("\\", "").replace('"', "").split()


def test_names_follow_from_domain_and_day_alone() -> None:
    first = message_id(FeedbackKind.DMARC, "example.com", DAY, "mailto:a@example.com", REPORTER)
    assert first == message_id(FeedbackKind.DMARC, "example.com", DAY, "mailto:a@example.com", REPORTER)
    others = {
        message_id(FeedbackKind.TLS, "example.com", DAY, "mailto:a@example.com", REPORTER),
        message_id(FeedbackKind.DMARC, "example.org", DAY, "mailto:a@example.com", REPORTER),
        message_id(FeedbackKind.DMARC, "example.com", DAY + 1, "mailto:a@example.com", REPORTER),
        message_id(FeedbackKind.DMARC, "example.com", DAY, "mailto:b@example.com", REPORTER),
        message_id(
            FeedbackKind.DMARC, "example.com", DAY, "mailto:a@example.com", ReportingNode("x", "a@node.example", "mx2")
        ),
    }
    assert first not in others and len(others) == 5
    assert report_id(FeedbackKind.DMARC, "example.com", DAY, REPORTER) != report_id(
        FeedbackKind.TLS, "example.com", DAY, REPORTER
    )


def test_turns_are_spread_and_stay_the_same() -> None:
    shares = [share_of_spread(FeedbackKind.DMARC, f"{number}.example", DAY, "mx1") for number in range(500)]
    assert shares == [share_of_spread(FeedbackKind.DMARC, f"{number}.example", DAY, "mx1") for number in range(500)]
    assert all(0 <= share < 1 for share in shares)
    assert {int(share * 5) for share in shares} == {0, 1, 2, 3, 4}


HEADER = (
    b"Received: from a.example (a.example [192.0.2.1])\r\n\tby mx.node.example for <ada.l@node.example>\r\n"
    b"Received: from [10.0.0.1]\r\n"
    b"From: =?utf-8?q?Ada?= \"Ada L\" <author@example.com>, other@example.com\r\n"
    b"To: Secret Friends: ada.l@node.example, \"odd name\"@node.example;\r\n"
    b"Subject: the merger is on\r\n"
    b"X-Secret: sesame\r\n"
    b"Message-ID: <1@example.com>\r\n"
    b"Content-Type: application/pdf; name=\"dismissal of Bob.pdf\"\r\n"
    b"DKIM-Signature: v=1; d=example.com; i=author@example.com; b=AAA=\r\n"
    b"\xff\xfe: odd\r\nnot a field\r\nDate: Tue, 1 Dec 2026 12:00:00 +0000\r\n"
    b"Sender: =?x?q?a?= <s@example.com>\r\n\r\nbody of it\r\n"
)  # fmt: skip
RESULTS = "mx1; dkim=fail header.i=author@example.com;\r\n\tdmarc=fail header.from=example.com"
FAILED = FailureReport(
    "abc", "example.com", "example.com", NOW_US, "192.0.2.1", RESULTS, ("dkim", "spf"),
    HEADER, "author@example.com", "node.example", ("example.com", "author@example.com", "s1"),
    ("example.com", 'v=spf1 -all "'), "reject", 3, b"key",
)  # fmt: skip


def test_a_failure_report_is_redacted() -> None:
    stored = failure_mail(FAILED, REPORTER, Address("ruf", "example.com"), id=7, now_us=NOW_US)
    assert isinstance(stored.content, bytes)
    assert stored.envelope.reverse_path is None  # RFC 6650 §6
    found = read(stored.content)
    assert found.get_param("report-type") == "feedback-report"
    _, feedback, header = found.iter_parts()
    assert feedback.get_content_type() == "message/feedback-report"
    assert header.get_content_type() == "text/rfc822-headers"
    whole = stored.content.decode()
    secrets = "merger sesame ada.l author@ Secret Friends Ada odd Bob body s@ex"
    assert not [each for each in secrets.split() if each in whole.replace("never its body", "")]
    assert "Message-ID: <1@example.com>" in whole
    assert "[10.0.0.1]" in whole
    payload = feedback.get_payload()
    fields = email.message_from_string(str(payload[0] if isinstance(payload, list) else payload))
    assert fields["Feedback-Type"] == "auth-failure"
    assert fields["Auth-Failure"] == "dmarc"
    assert fields["Identity-Alignment"] == "dkim, spf"
    assert fields["DKIM-Domain"] == "example.com"
    assert fields["SPF-DNS"] == 'txt : example.com : "v=spf1 -all \\""'
    assert fields["Delivery-Result"] == "reject"
    assert fields["Incidents"] == "3"
    assert fields["Original-Rcpt-To"] == "redacted@node.example"
    # RFC 6590 §3: one word for one local-part, wherever it stands
    word = fields["Original-Mail-From"]
    assert word.endswith("@example.com") and whole.count(word) >= 3


def test_the_words_of_a_redaction_depend_on_the_key() -> None:
    import msgspec

    others = msgspec.structs.replace(FAILED, secret=b"another")
    one, two = (
        failure_mail(each, REPORTER, Address("ruf", "example.com"), id=7, now_us=NOW_US).content
        for each in (FAILED, others)
    )
    assert one != two


def test_a_failure_report_to_a_mailbox_that_is_not_ascii() -> None:
    stored = failure_mail(FAILED, REPORTER, Address("rüf", "example.com"), id=7, now_us=NOW_US)
    assert stored.envelope.smtputf8 and isinstance(stored.content, bytes)
    assert "To: rüf@example.com\r\n".encode() in stored.content
