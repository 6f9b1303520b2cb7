"""The mail that carries a report to another domain: a DMARC aggregate report (RFC 9990 §2.7.2), a TLS report (RFC 8460
§5.3), or a DMARC failure report (RFC 9991, RFC 6591, RFC 5965). Pure.

What always holds: the mail says that a program wrote it (RFC 3834), so no program answers it; From is the contact of
the reporter, so the mail is signed by the DKIM keys of that domain (`deliver`) and DMARC passes. The sender of the
envelope is the contact, too, so that SPF is aligned; that of a failure report is <> (RFC 6650 §6), because it answers
mail of strangers. A TLS report goes out whatever the TLS policy of its destination demands (RFC 8460 §3): its envelope
has the wish of `TLS-Required: No` (RFC 8689). Nothing that others supplied can add a line.
"""

from __future__ import annotations

import base64
import textwrap
from typing import Final

import msgspec

from postroad.mail import trace, wishes
from postroad.mail.address import Address
from postroad.mail.envelope import Body, Envelope, Notify, Peer, Recipient
from postroad.report.failure_report import FailureReport, failure_parts, failure_subject
from postroad.report.feedback import FeedbackKind, Period, ReportingNode, file_name, message_id, report_id
from postroad.report.own_mail import LISTENER_FEEDBACK, mailbox
from postroad.report.text import ascii_of, clean, field
from postroad.store.values import Stored

_BOUNDARY: Final = "postroad_report"  # it cannot occur in base64, nor in what we write
_LINE: Final = 76
_WORD_CHARACTERS: Final = 12  # of an encoded word: at most 48 octets, 64 in base64 (RFC 2047 §2: 75)


class Compressed(msgspec.Struct, frozen=True):
    """A report that is ready to be sent. `octets`: gzip."""

    kind: FeedbackKind
    domain: str
    period: Period
    octets: bytes

    def media_type(self) -> str:
        return "application/gzip" if self.kind is FeedbackKind.DMARC else "application/tlsrpt+gzip"


def feedback_mail(
    report: Compressed, reporter: ReportingNode, to: Address, destination: str, *, id: int, now_us: int
) -> Stored:
    """The mail to one destination. `destination`: the URI that names `to`; the Message-ID follows from it."""
    kind, domain = report.kind, report.domain
    name = file_name(kind, domain, report.period.day, reporter)
    number = report_id(kind, domain, report.period.day, reporter)
    # RFC 9990 §2.7.2 and RFC 8460 §5.3 have the same form.
    subject = f"Report Domain: {domain} Submitter: {reporter.domain} Report-ID: <{number}>"
    fields = [
        _from(reporter),
        field("To", clean(str(to))),
        field("Subject", subject),
        f"Date: {trace.date(now_us // 1_000_000)}\r\n",
        f"Message-ID: {message_id(kind, domain, report.period.day, destination, reporter)}\r\n",
        "Auto-Submitted: auto-generated\r\nMIME-Version: 1.0\r\n",
    ]
    if kind is FeedbackKind.TLS:
        fields += [
            field("TLS-Report-Domain", domain), field("TLS-Report-Submitter", reporter.domain),
            "TLS-Required: No\r\n",
            f'Content-Type: multipart/report; report-type="tlsrpt";\r\n\tboundary="{_BOUNDARY}"\r\n',
        ]  # fmt: skip
    else:
        fields.append(f'Content-Type: multipart/mixed; boundary="{_BOUNDARY}"\r\n')
    octets = "".join((
        *fields,
        f"\r\n--{_BOUNDARY}\r\nContent-Type: text/plain; charset=us-ascii\r\n\r\n",
        *(f"{line}\r\n" for line in _explanation(report, reporter)),
        f"\r\n--{_BOUNDARY}\r\nContent-Type: {report.media_type()}\r\n",
        "Content-Transfer-Encoding: base64\r\n",
        f'Content-Disposition: attachment;\r\n\tfilename="{name}"\r\n\r\n',
        _base64(report.octets),
        f"--{_BOUNDARY}--\r\n",
    )).encode("utf-8")  # fmt: skip
    wished = ((wishes.TLS_OPTIONAL, "NO"),) if kind is FeedbackKind.TLS else ()
    return _stored(
        octets, to, id, now_us, reverse_path=mailbox(reporter.contact), parameters=wished,
        message_id=message_id(kind, domain, report.period.day, destination, reporter),
    )  # fmt: skip


def failure_mail(report: FailureReport, reporter: ReportingNode, to: Address, *, id: int, now_us: int) -> Stored:
    """The mail about one message that failed (RFC 9991 §4)."""
    name = f"<{report.name}.{id:x}.failure@{reporter.hostname}>"
    octets = "".join((
        _from(reporter),
        field("To", clean(str(to))),
        field("Subject", failure_subject(report)),
        f"Date: {trace.date(now_us // 1_000_000)}\r\nMessage-ID: {name}\r\n",
        "Auto-Submitted: auto-generated\r\nMIME-Version: 1.0\r\n",
        f'Content-Type: multipart/report; report-type=feedback-report;\r\n\tboundary="{_BOUNDARY}"\r\n\r\n',
        *(f"--{_BOUNDARY}\r\n{part}\r\n" for part in failure_parts(report, reporter)),
        f"--{_BOUNDARY}--\r\n",
    )).encode("utf-8")  # fmt: skip
    return _stored(octets, to, id, now_us, reverse_path=None, message_id=name)


def _stored(
    octets: bytes, to: Address, id: int, now_us: int, *, reverse_path: Address | None, message_id: str,
    parameters: tuple[tuple[str, str], ...] = (),
) -> Stored:
    envelope = Envelope(
        id=id,
        reverse_path=reverse_path,
        recipients=(Recipient(to, Notify.UNSET if reverse_path is not None else Notify.NEVER),),
        size=len(octets),
        accepted_us=now_us,
        peer=Peer(listener=LISTENER_FEEDBACK),
        body=Body.SEVEN_BIT if octets.isascii() else Body.EIGHT_BIT_MIME,
        smtputf8=not to.is_ascii,
        message_id=message_id,
        parameters=parameters,
    )
    return Stored(envelope, octets)


def _explanation(report: Compressed, reporter: ReportingNode) -> list[str]:
    """For people."""
    what = "DMARC aggregate report" if report.kind is FeedbackKind.DMARC else "TLS report"
    of = (
        f"mail from {report.domain}" if report.kind is FeedbackKind.DMARC else f"connections for {report.domain}"
    )  # fmt: skip
    who = ascii_of(reporter.organization)
    text = f"This is the {what} of {who} on {of} on {report.period.date} (UTC). It is attached."
    lines = textwrap.wrap(text, 72)
    lines += ["", f"Questions: {ascii_of(reporter.contact)}"]
    if reporter.more:
        lines.append(ascii_of(reporter.more))
    return lines


def _from(reporter: ReportingNode) -> str:
    """From, with the organization as display name: quoted (RFC 5322 §3.2.4), or as encoded words (RFC 2047)."""
    name = clean(reporter.organization)
    if name.isascii():
        escaped = name.replace("\\", "\\\\").replace('"', '\\"')
        return field("From", f'"{escaped}" <{reporter.contact}>')
    pieces = [name[at : at + _WORD_CHARACTERS] for at in range(0, len(name), _WORD_CHARACTERS)]
    words = " ".join(f"=?utf-8?B?{base64.b64encode(piece.encode()).decode()}?=" for piece in pieces)
    return field("From", f"{words} <{reporter.contact}>")


def _base64(octets: bytes) -> str:
    text = base64.b64encode(octets).decode("ascii")
    return "".join(f"{text[at : at + _LINE]}\r\n" for at in range(0, len(text), _LINE))
