"""A message of the node to its postmaster, about something that a person should know.

What always holds: it has the null reverse-path, and no program answers it (RFC 3834); the text can inject nothing into
the header. None is made if no postmaster is set.
"""

from __future__ import annotations

from postroad.mail import identifier
from postroad.mail.envelope import Body, Envelope, Notify, Peer, Recipient
from postroad.report.options import ReportOptions
from postroad.report.own_mail import LISTENER_POSTMASTER, first_fields, mailbox
from postroad.report.text import ascii_of
from postroad.store.values import Stored


def notice(subject: str, lines: tuple[str, ...], options: ReportOptions, id: int, now_us: int) -> Stored | None:
    """The message; None if there is nobody to get it."""
    to = mailbox(options.postmaster)
    if to is None:
        return None
    message_id = f"<{identifier.text(id)}.notice@{options.hostname}>"
    head = first_fields(to, ascii_of(subject), message_id, options, now_us) + (
        "Auto-Submitted: auto-generated\r\n"
        "MIME-Version: 1.0\r\nContent-Type: text/plain; charset=us-ascii\r\n\r\n"
    )
    octets = (head + "".join(f"{ascii_of(line)}\r\n" for line in lines)).encode()
    envelope = Envelope(
        id, None, (Recipient(to, Notify.NEVER),), len(octets), now_us, Peer(listener=LISTENER_POSTMASTER),
        Body.SEVEN_BIT, smtputf8=not to.is_ascii, message_id=message_id,
    )  # fmt: skip
    return Stored(envelope, octets)
