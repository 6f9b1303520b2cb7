"""Mailboxes to which others send reports (docs/reports.md)."""

from __future__ import annotations

from typing import Annotated

from pydantic import BeforeValidator

from postroad.config.field import Section, of
from postroad.config.values import Mailbox, Octets, one_or_more
from postroad.deliver.options import ReportCopies, ReportMailboxOptions
from postroad.store.options import KeptReportOptions
from postroad.trust.inbound.limits import InboundLimits


class ReportMailboxesSection(Section):
    """Mailboxes to which others send DMARC reports, TLS reports and complaints. The node reads them, and `postroad
    reports` shows what they say."""

    addresses: Annotated[tuple[Mailbox, ...], BeforeValidator(one_or_more)] = of(
        ReportMailboxOptions.addresses, source="RFC 9990, RFC 9991, RFC 8460, RFC 5965",
        example='["dmarc@example.org", "tls-reports@example.org"]',
    )
    deliver: ReportCopies = of(ReportMailboxOptions.deliver, word=True)
    size_max: Octets = of(InboundLimits.size_max)
    expanded_max: Octets = of(InboundLimits.expanded_max)
    records_max: int = of(InboundLimits.records_max, unit="records")
    client_mails_max: int = of(KeptReportOptions.client_mails_max, unit="mails")
    keep_days: int = of(KeptReportOptions.keep_days, unit="days")
    kept_max: Octets = of(KeptReportOptions.size_max)
