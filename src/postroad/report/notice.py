"""A message of the node to its postmaster, about something that a person should know.

What always holds: it has the null reverse-path, and no program answers it (RFC 3834); the text can inject nothing into
the header. None is made if no postmaster is set.
"""

from __future__ import annotations

from postroad.mail import identifier, trace
from postroad.mail.address import Address, canonical_domain
from postroad.mail.envelope import Body, Envelope, Notify, Peer, Recipient
from postroad.mail.event import Accepted
from postroad.report.dsn import LISTENER_POSTMASTER
from postroad.report.options import ReportOptions
from postroad.report.text import ascii_of, clean, field
from postroad.store.values import Stored


def notice(subject: str, lines: tuple[str, ...], options: ReportOptions, id: int, now_us: int) -> Stored | None:
    """The message; None if there is nobody to get it."""
    local_part, _, domain = options.postmaster.rpartition("@")
    if not local_part:
        return None
    to = Address(local_part, canonical_domain(domain))
    message_id = f"<{identifier.text(id)}.notice@{options.hostname}>"
    head = "".join((
        field("From", f'"Mail Delivery System" <{options.sender or "MAILER-DAEMON@" + options.hostname}>'),
        field("To", clean(str(to))),
        field("Subject", ascii_of(subject)),
        f"Date: {trace.date(now_us // 1_000_000)}\r\n",
        f"Message-ID: {message_id}\r\n",
        "Auto-Submitted: auto-generated\r\n"
        "MIME-Version: 1.0\r\nContent-Type: text/plain; charset=us-ascii\r\n\r\n",
    ))  # fmt: skip
    octets = (head + "".join(f"{ascii_of(line)}\r\n" for line in lines)).encode()
    envelope = Envelope(
        id, None, (Recipient(to, Notify.NEVER),), len(octets), now_us, Peer(listener=LISTENER_POSTMASTER),
        Body.SEVEN_BIT, smtputf8=not to.is_ascii, message_id=message_id,
    )  # fmt: skip
    return Stored(envelope, octets)


def accepted(stored: Stored) -> Accepted:
    """The event of its acceptance."""
    envelope = stored.envelope
    return Accepted(
        envelope.accepted_us, envelope.id, "", (str(envelope.recipients[0].address),), envelope.size,
        envelope.message_id, envelope.peer,
    )  # fmt: skip
