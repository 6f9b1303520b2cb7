"""Reports as they are kept (`postroad.store.kept_reports`), and read again: their kinds, names, and octets.

The name of a report says which two are the same: the same reporter, report id, beginning and domain. Complaints have no
id, so the Message-ID of the mail that brought one stands for it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from typing import Final

import msgspec

from postroad.store.kept_reports import KeptReport
from postroad.trust.inbound.report_mail import InboundMail
from postroad.trust.inbound.values import (
    InboundAggregate,
    InboundFeedback,
    InboundReport,
    InboundTls,
    InboundTlsPolicy,
    domain_of,
)

DMARC: Final = "dmarc"
TLS: Final = "tls"
COMPLAINT: Final = "complaint"
FAILURE: Final = "failure"

_AGGREGATES: Final = msgspec.msgpack.Decoder(InboundAggregate)
_TLS: Final = msgspec.msgpack.Decoder(InboundTls)
_FEEDBACK: Final = msgspec.msgpack.Decoder(InboundFeedback)


def kept(mail: InboundMail, number: int) -> Iterator[KeptReport]:
    """The reports of a mail. `number`: its queue id."""
    for at, report in enumerate(mail.reports):
        for kind, domain, name, value in _forms(report, mail, f"{number}/{at}"):
            verified = mail.standing.is_signed if kind == TLS else mail.standing.has_passed
            yield KeptReport(kind, name, domain, msgspec.msgpack.encode(value), verified)


def _forms(
    report: InboundReport, mail: InboundMail, unique: str
) -> Iterator[tuple[str, str, str, InboundReport]]:
    """Kind, domain, name and value of what is kept of a report."""
    if isinstance(report, InboundAggregate):
        domain = report.policy.domain
        yield DMARC, domain, _name(report.organization, report.report_id, report.begin_s, domain, report), report
    elif isinstance(report, InboundTls):
        of: dict[str, list[InboundTlsPolicy]] = {}
        for each in report.policies:
            of.setdefault(each.domain, []).append(each)
        for domain, policies in of.items():
            part = msgspec.structs.replace(report, policies=tuple(policies))
            yield TLS, domain, _name(report.organization, report.report_id, report.begin_s, domain, part), part
    else:
        kind = FAILURE if report.is_failure else COMPLAINT
        name = f"{mail.author}\n{mail.message_id}" if mail.message_id else unique
        yield kind, _domain(report), name, report


def _name(organization: str, report_id: str, begin_s: int, domain: str, value: InboundReport) -> str:
    """A report without an id is the same as one of equal content."""
    id = report_id or hashlib.sha256(msgspec.msgpack.encode(value)).hexdigest()
    return f"{organization.lower()}\n{id}\n{begin_s}\n{domain}"


def _domain(report: InboundFeedback) -> str:
    """Of whose mail somebody complains: that of the author, else what the report says."""
    author = report.author.rpartition("@")[2].strip("<> ")
    sender = report.mail_from.rpartition("@")[2]
    said = report.domains[0] if report.domains else ""
    return domain_of(author.partition(">")[0]) or said or report.dkim_domain or domain_of(sender)


def aggregate(kept: KeptReport) -> InboundAggregate:
    """Raises msgspec.DecodeError, as the following do."""
    return _AGGREGATES.decode(kept.value)


def tls(kept: KeptReport) -> InboundTls:
    return _TLS.decode(kept.value)


def feedback(kept: KeptReport) -> InboundFeedback:
    return _FEEDBACK.decode(kept.value)


def in_words(report: InboundReport) -> str:
    """What a report is, for the log: ``a DMARC report of google.com for example.org``."""
    if isinstance(report, InboundAggregate):
        return f"a DMARC report of {report.organization} for {report.policy.domain}"
    if isinstance(report, InboundTls):
        return f"a TLS report of {report.organization} for {report.policies[0].domain}"
    what = "a report of failed authentication" if report.is_failure else f"a complaint ({report.type})"
    return f"{what} of {report.reporter or 'somebody'} about {_domain(report) or 'a message'}"
