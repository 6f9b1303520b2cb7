"""Reports and mails with reports, as reporters of different habits write them. Our own; no sample of others is here."""

from __future__ import annotations

import base64
import gzip
import io
import json
import zipfile
from collections.abc import Iterable, Mapping
from typing import Any

BEGIN_S, END_S = 1_764_460_800, 1_764_547_199


def record(
    source: str = "192.0.2.1", count: object = 2, *, dkim: str = "pass", spf: str = "fail", disposition: str = "none",
    header_from: str = "example.org", more: str = "",
) -> str:
    return (
        f"<record><row><source_ip>{source}</source_ip><count>{count}</count><policy_evaluated>"
        f"<disposition>{disposition}</disposition><dkim>{dkim}</dkim><spf>{spf}</spf></policy_evaluated></row>"
        f"<identifiers><header_from>{header_from}</header_from></identifiers>"
        f"<auth_results><dkim><domain>{header_from}</domain><selector>s1</selector><result>{dkim}</result></dkim>"
        f"<spf><domain>bounce.{header_from}</domain><result>{spf}</result></spf></auth_results>{more}</record>"
    )


def aggregate(
    records: Iterable[str] = (record(),), *, organization: str = "Reporter Inc.", report_id: str = "r-1",
    domain: str = "example.org", attributes: str = "", prolog: str = '<?xml version="1.0" encoding="UTF-8"?>\n',
    begin_s: object = BEGIN_S, end_s: object = END_S, more: str = "",
) -> bytes:
    """A report of RFC 7489 appendix C; with `attributes` and `more` also one of RFC 9990."""
    return (
        f"{prolog}<feedback{attributes}>\n<report_metadata><org_name>{organization}</org_name>"
        f"<email>dmarc@reporter.example</email><report_id>{report_id}</report_id><date_range><begin>{begin_s}</begin>"
        f"<end>{end_s}</end></date_range></report_metadata>\n<policy_published><domain>{domain}</domain>"
        f"<adkim>r</adkim><aspf>r</aspf><p>none</p><sp>none</sp><pct>100</pct></policy_published>\n{more}"
        f"{''.join(records)}</feedback>\n"
    ).encode()


def tls_report(**changed: Any) -> dict[str, Any]:
    """A TLS report with one policy, as RFC 8460 has it."""
    return {
        "organization-name": "Sender Inc.",
        "date-range": {"start-datetime": "2025-11-30T00:00:00Z", "end-datetime": "2025-11-30T23:59:59Z"},
        "contact-info": "tls@sender.example",
        "report-id": "2025-11-30T00:00:00Z_example.org",
        "policies": [
            {
                "policy": {
                    "policy-type": "sts", "policy-domain": "example.org", "mx-host": ["mx.example.org"],
                    "policy-string": ["version: STSv1", "mode: enforce", "mx: mx.example.org", "max_age: 86400"],
                },
                "summary": {"total-successful-session-count": 40, "total-failure-session-count": 3},
                "failure-details": [
                    {
                        "result-type": "certificate-expired", "sending-mta-ip": "2001:db8::1",
                        "receiving-mx-hostname": "mx.example.org", "failed-session-count": 3,
                        "failure-reason-code": "X509_V_ERR_CERT_HAS_EXPIRED",
                    }
                ],
            }
        ],
        **changed,
    }  # fmt: skip


def tls(**changed: Any) -> bytes:
    return json.dumps(tls_report(**changed)).encode()


def zipped(files: Mapping[str, bytes], method: int = zipfile.ZIP_DEFLATED) -> bytes:
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w", method) as archive:
        for name, octets in files.items():
            archive.writestr(name, octets)
    return made.getvalue()


def packed(octets: bytes) -> bytes:
    return gzip.compress(octets, mtime=0)


def part(type: str, octets: bytes, name: str = "") -> bytes:
    """A part in Base64."""
    fields = f'Content-Type: {type}{f"; name={chr(34)}{name}{chr(34)}" if name else ""}\r\n'
    if name:
        fields += f'Content-Disposition: attachment;\r\n\tfilename="{name}"\r\n'
    lines = base64.encodebytes(octets).replace(b"\n", b"\r\n")
    return fields.encode() + b"Content-Transfer-Encoding: base64\r\n\r\n" + lines


def mail(
    *parts: bytes, subject: str = "Report Domain: example.org Submitter: reporter.example Report-ID: <r-1>",
    author: str = "dmarc@reporter.example", message_id: str = "<one@reporter.example>", top: bytes = b"",
) -> bytes:
    """A multipart mail."""
    head = top + (
        f"From: <{author}>\r\nTo: <dmarc@example.org>\r\nSubject: {subject}\r\nMessage-ID: {message_id}\r\n"
        "MIME-Version: 1.0\r\nContent-Type: multipart/mixed; boundary=cut\r\n\r\n"
    ).encode()
    body = b"".join([b"--cut\r\n" + each + b"\r\n" for each in parts])
    return head + body + b"--cut--\r\n"


ORIGINAL = (
    b"Received: from [192.0.2.7] by mx.example.org (Postroad) with ESMTPSA id 0123456789ab; "
    b"Mon, 1 Dec 2025 10:00:00 +0000\r\n"
    b"From: News <news@example.org>\r\nTo: <bob@there.example>\r\nSubject: =?UTF-8?Q?Gr=C3=BC=C3=9Fe?=\r\n"
    b"Message-ID: <news-1@example.org>\r\nFeedback-ID: spring:news:example\r\n"
)


def feedback(
    fields: str = "Feedback-Type: abuse\r\nUser-Agent: Loop/1.0\r\nVersion: 1\r\n"
    "Original-Mail-From: <news@example.org>\r\nOriginal-Rcpt-To: <bob@there.example>\r\n"
    "Arrival-Date: Mon, 1 Dec 2025 10:00:05 +0000\r\nReporting-MTA: dns; mx.there.example\r\nSource-IP: 192.0.2.9\r\n",
    original: bytes = ORIGINAL + b"\r\nHello\r\n", type: str = "message/rfc822",
    message_id: str = "<c-1@there.example>",
) -> bytes:
    """A complaint as RFC 5965 has it."""
    head = (
        f"From: <loop@there.example>\r\nSubject: FW: news\r\nMessage-ID: {message_id}\r\nMIME-Version: 1.0\r\n"
        "Content-Type: multipart/report; report-type=feedback-report; boundary=cut\r\n\r\n--cut\r\n"
        "Content-Type: text/plain\r\n\r\nA complaint.\r\n--cut\r\nContent-Type: message/feedback-report\r\n\r\n"
    )
    return head.encode() + fields.encode() + f"\r\n--cut\r\nContent-Type: {type}\r\n\r\n".encode() + original + (
        b"\r\n--cut--\r\n"
    )
