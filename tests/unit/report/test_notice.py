"""Messages of the node to its postmaster."""

from __future__ import annotations

import email
import email.policy

from postroad.mail import identifier
from postroad.mail.address import Address
from postroad.mail.envelope import Notify
from postroad.report.notice import notice
from postroad.report.options import ReportOptions
from postroad.report.own_mail import acceptance

NOW_US = 1_764_000_000_000_000
ID = identifier.make(NOW_US, 0, 0)


def _options(postmaster: str) -> ReportOptions:
    return ReportOptions(hostname="mx.home.test", postmaster=postmaster)


def test_nobody_hears_of_it_without_a_postmaster() -> None:
    assert notice("too much mail", ("from ada",), _options(""), ID, NOW_US) is None


def test_it_cannot_be_answered_by_a_program_and_nothing_is_injected() -> None:
    lines_given = ("from ada\r\n.\r\nRCPT", "grün")
    made = notice("too much\r\nBcc: eve@far.test", lines_given, _options("ann@home.test"), ID, NOW_US)
    assert made is not None and isinstance(made.content, bytes)
    assert made.envelope.reverse_path is None
    (recipient,) = made.envelope.recipients
    assert (recipient.address, recipient.notify) == (Address("ann", "home.test"), Notify.NEVER)
    assert made.envelope.size == len(made.content) and made.content.isascii()
    message = email.message_from_bytes(made.content, policy=email.policy.default)
    assert message["Bcc"] is None and message["Auto-Submitted"] == "auto-generated"
    assert message["Message-ID"] == made.envelope.message_id
    lines = made.content.split(b"\r\n\r\n", 1)[1].split(b"\r\n")
    assert len(lines) == 3 and b"." not in lines  # a line for each, and the end of the last one
    assert acceptance(made.envelope).recipients == ("ann@home.test",)
