"""Reports that the node sends to other domains (docs/reports-out.md)."""

from __future__ import annotations

from postroad.config.field import Section, of
from postroad.config.values import Domain, File, Mailbox, Octets, Seconds
from postroad.report.feedback_options import FeedbackOptions


class FeedbackSection(Section):
    """Reports that the node sends to other domains: what it found of mail in their name (DMARC), and how TLS with their
    servers went. They are sent only if `organization` and `contact` are set."""

    organization: str = of(FeedbackOptions.organization, example='"Example Organization"')
    contact: Mailbox = of(FeedbackOptions.contact, example='"dmarc-reports@example.org"')
    more_contact: str = of(FeedbackOptions.more_contact, example='"https://example.org/mail"')
    dmarc: bool = of(FeedbackOptions.dmarc, source="RFC 9990")
    tls: bool = of(FeedbackOptions.tls, source="RFC 8460")
    failures: bool = of(FeedbackOptions.failures, source="RFC 9991")
    failures_per_hour: int = of(FeedbackOptions.failures_per_hour, unit="reports", source="RFC 9991 §2")
    failures_per_domain: int = of(FeedbackOptions.failures_per_domain, unit="reports")
    except_domains: tuple[Domain, ...] = of(FeedbackOptions.except_domains, example='["example.org"]')
    spread_s: Seconds = of(FeedbackOptions.spread_s, source="RFC 8460 §4.1")
    per_day_max: int = of(FeedbackOptions.per_day_max, unit="reports")
    size_max: Octets = of(FeedbackOptions.size_max)
    post_s: Seconds = of(FeedbackOptions.post_s)
    post_ca_file: File | None = of(FeedbackOptions.post_ca_file, default=None, example='"report-servers.pem"')
    post_private: bool = of(FeedbackOptions.post_private)


