"""A DMARC failure report: what is told of one message that failed (RFC 9991, RFC 6591). Pure.

A failure report tells strangers of a message that they may not have sent, so it says as little as it can (RFC 9991 §7,
RFC 6590): never the body, and of the header section only the fields that say which way the message came and who signed
it. The local-part of each address in them becomes a word that is the same for the same local-part, but tells it to
nobody; names beside addresses and the words of the Subject are left out.

What always holds: the parts are ASCII lines of at most 998 octets, and nothing of the message can add a field or end a
part: each line of its header section begins with a field name or a space.
"""

from __future__ import annotations

import base64
import hashlib
import re
import textwrap
from collections.abc import Iterable
from typing import Final

import msgspec

from postroad.mail import message, trace
from postroad.report.feedback import ReportingNode
from postroad.report.text import ascii_of, field, shorten

FIELDS_MAX: Final = 100
HEADER_MAX: Final = 32_768  # octets of the reported header section
_HEADER_READ_MAX: Final = 131_072
_VALUE_MAX: Final = 4_000
_SPF_MAX: Final = 600
_BOUNCED: Final = frozenset(("from", "sender", "reply-to", "to", "cc", "resent-from", "resent-to", "return-path"))
# Fields that say where the message comes from and who answers for it.
_SHOWN: Final = _BOUNCED | frozenset((
    "received", "received-spf", "date", "message-id", "dkim-signature", "arc-seal", "arc-message-signature",
    "arc-authentication-results", "authentication-results", "list-id", "mime-version", "content-type", "auto-submitted",
    "precedence", "x-mailer", "user-agent", "subject",
))  # fmt: skip
_ADDRESS: Final = re.compile(r'("(?:[^"\\\r\n]|\\.){1,128}"|[^\s<>()\[\],;:@"=]{1,128})@([A-Za-z0-9._-]{1,253}|\[)')
_PARAMETERS: Final = re.compile(r";.*", re.DOTALL)


class FailureReport(msgspec.Struct, frozen=True):
    """What a report tells. `domain`: the policy domain; `author`: the domain of From. `name`: of the message, for the
    ids. `results`: the payload of Authentication-Results. `not_aligned`: the methods that
    brought no aligned identifier: dkim, spf. `signature`: domain, identity and selector of a signature of the author's
    domain that failed. `spf`: name and text of the SPF record if SPF failed for the author's domain. `delivery`:
    delivered, spam, policy, reject or other (RFC 6591 §3.2.2). `incidents`: how many messages it stands for. `secret`:
    makes the redacted words."""

    name: str
    domain: str
    author: str
    at_us: int
    source_ip: str
    results: str
    not_aligned: tuple[str, ...]
    header: bytes
    mail_from: str = ""
    recipient_domain: str = ""
    signature: tuple[str, str, str] | None = None
    spf: tuple[str, str] | None = None
    delivery: str = ""
    incidents: int = 1
    secret: bytes = b""


def failure_subject(report: FailureReport) -> str:
    return f"DMARC failure report: {ascii_of(report.author)}"


def failure_parts(report: FailureReport, reporter: ReportingNode) -> Iterable[str]:
    """The three parts of the message, each with its header fields and a CRLF at the end."""
    text = (
        f"This is a report on a message that names {ascii_of(report.author)} as its author and failed DMARC. It came "
        f"from {report.source_ip} on {trace.date(report.at_us // 1_000_000)}. The domain's DMARC record asks for such "
        "reports (ruf=). Local-parts of addresses are replaced."
    )
    yield "Content-Type: text/plain; charset=us-ascii\r\n\r\n" + _lines(textwrap.wrap(text, 72))
    yield "Content-Type: message/feedback-report\r\n\r\n" + "".join(_feedback(report, reporter))
    yield "Content-Type: text/rfc822-headers\r\n\r\n" + redacted(report.header, report.secret)


def _feedback(report: FailureReport, reporter: ReportingNode) -> Iterable[str]:
    """RFC 6591 §3.1, §3.2; RFC 9991 §4."""
    yield "Feedback-Type: auth-failure\r\nVersion: 1\r\nUser-Agent: Postroad\r\nAuth-Failure: dmarc\r\n"
    results = _ADDRESS.sub(lambda found: _word(found, report.secret), " ".join(report.results.split()))
    yield field("Authentication-Results", ascii_of(results))
    yield f"Identity-Alignment: {', '.join(report.not_aligned) or 'none'}\r\n"
    if report.delivery:
        yield f"Delivery-Result: {report.delivery}\r\n"
    if report.signature is not None:
        domain, identity, selector = map(ascii_of, report.signature)
        yield field("DKIM-Domain", domain)
        yield field("DKIM-Identity", _ADDRESS.sub(lambda found: _word(found, report.secret), identity))
        yield field("DKIM-Selector", selector)
    if report.spf is not None:
        name, record = report.spf
        quoted = ascii_of(shorten(record, _SPF_MAX)).replace("\\", "\\\\").replace('"', '\\"')
        yield field("SPF-DNS", f'txt : {ascii_of(name)} : "{quoted}"')
    yield field("Original-Mail-From", _hidden(report.mail_from, report.secret) or "<>")
    if report.recipient_domain:
        yield field("Original-Rcpt-To", f"redacted@{ascii_of(report.recipient_domain)}")
    yield field("Arrival-Date", trace.date(report.at_us // 1_000_000))
    yield field("Source-IP", ascii_of(report.source_ip))
    yield field("Reported-Domain", ascii_of(report.author))
    if report.incidents > 1:
        yield f"Incidents: {report.incidents}\r\n"


def redacted(header: bytes, secret: bytes) -> str:
    """The fields of a header section that are told, with what is told of them."""
    shown: list[str] = []
    size = 0
    for lower, begin, start, end in message.raw_fields(header[:_HEADER_READ_MAX]):
        name = lower.decode("ascii", "replace")
        if name not in _SHOWN:
            continue
        text = header[start : min(end, start + _VALUE_MAX)].decode("utf-8", "replace")
        written = header[begin : begin + len(lower)].decode("ascii")
        made = field(written, _told(name, " ".join(text.split()), secret))
        size += len(made)
        if size > HEADER_MAX or len(shown) >= FIELDS_MAX:
            break
        shown.append(made)
    return "".join(shown)


def _told(name: str, text: str, secret: bytes) -> str:
    if name == "subject":
        return "(redacted)"
    if name in _BOUNCED:  # names and comments are left out
        return ", ".join(_word(found, secret) for found in _ADDRESS.finditer(text)) or "(redacted)"
    if name == "message-id":  # its left side is made by a program, and finds the message in the sender's log
        return ascii_of(text)
    if name == "content-type":  # a parameter may name a file
        return ascii_of(_PARAMETERS.sub("", text))
    return ascii_of(_ADDRESS.sub(lambda found: _word(found, secret), text))


def _hidden(address: str, secret: bytes) -> str:
    found = _ADDRESS.fullmatch(address)
    return _word(found, secret) if found is not None else ""


def _word(found: re.Match[str], secret: bytes) -> str:
    """RFC 6590 §3: the same word for the same local-part, by a key that nobody else has."""
    digest = hashlib.blake2b(found[1].encode("utf-8", "surrogatepass"), key=secret[:64], digest_size=9).digest()
    return ascii_of(f"{base64.urlsafe_b64encode(digest).decode().rstrip('=')}@{found[2]}")


def _lines(lines: Iterable[str]) -> str:
    return "".join(f"{line}\r\n" for line in lines)
