"""What all messages that the node itself writes have in common: reports (`report.dsn`) and notices (`report.notice`).

What always holds: they say that a program has written them (RFC 3834); nothing that others supplied can add a line.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Final

from postroad.mail import own_listeners, trace
from postroad.mail.address import Address, canonical_domain
from postroad.mail.envelope import Envelope
from postroad.mail.event import Accepted
from postroad.report.options import ReportOptions
from postroad.report.text import clean, field

LISTENER: Final = own_listeners.REPORT
LISTENER_POSTMASTER: Final = own_listeners.POSTMASTER
LISTENER_FEEDBACK: Final = own_listeners.FEEDBACK


@lru_cache(maxsize=16)
def mailbox(text: str) -> Address | None:
    """A mailbox from the settings, its local-part as written; None for ""."""
    local_part, _, domain = text.rpartition("@")
    return Address(local_part, canonical_domain(domain)) if local_part else None


def first_fields(to: Address, subject: str, message_id: str, options: ReportOptions, now_us: int) -> str:
    """The header fields with which each begins. `subject` has been cleaned."""
    return "".join((
        field("From", f'"Mail Delivery System" <{options.sender or "MAILER-DAEMON@" + options.hostname}>'),
        field("To", clean(str(to))),
        field("Subject", subject),
        f"Date: {trace.date(now_us // 1_000_000)}\r\n",
        f"Message-ID: {message_id}\r\n",
    ))  # fmt: skip


def acceptance(envelope: Envelope) -> Accepted:
    """The event of its acceptance."""
    recipients = tuple([each.name for each in envelope.recipients])
    return Accepted(
        envelope.accepted_us, envelope.id, str(envelope.reverse_path or ""), recipients, envelope.size,
        envelope.message_id, envelope.peer, "", envelope.parent,
    )  # fmt: skip
