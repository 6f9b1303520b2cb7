"""Decides whether mail for an address can be delivered at all, by the way of delivery that it has. Pure.

It is asked at RCPT: what can never be delivered is refused there, and not reported later to a sender who may be forged.
The answer is the one that delivery itself would give later, because the same functions are asked. If the configuration
of a destination is wrong, its mail waits.
"""

from __future__ import annotations

from typing import Final, assert_never

from postroad.deliver import program
from postroad.deliver.mailbox import folder, mbox_file
from postroad.deliver.options import MaildirOptions
from postroad.mail.address import Address
from postroad.mail.attempt import Attempt, Outcome, Reach
from postroad.mail.route import Destination, Transport

_STATUS: Final = "5.1.3"


def unfit(destination: Destination, address: Address, options: MaildirOptions) -> Attempt | None:
    """Why no mail for this address can be delivered there; None if it can, as far as that can be told ahead."""
    match destination.transport:
        case Transport.MAILDIR:
            box = folder(destination.path, address, destination.domain, options)
            return _never(f"there can be no such mailbox: its {box}") if isinstance(box, str) else None
        case Transport.MBOX:
            file = mbox_file(destination.path, address, destination.domain, options)
            return _never(f"there can be no such mailbox: its {file}") if isinstance(file, str) else None
        case Transport.PROGRAM:
            found = program.never(destination.command, address, destination.domain)
            return _never(found.text) if found is not None else None
        case Transport.LMTP:
            if address.local_part and address.local_part.isprintable():
                return None
            return _never("there can be no such mailbox: its local-part is empty, or holds what cannot be printed")
        case Transport.SMTP | Transport.HTTP:
            return None
        case _ as unknown:
            assert_never(unknown)


def _never(text: str) -> Attempt:
    return Attempt(Outcome.FAILED, Reach.RECIPIENT, _STATUS, text)
