"""Mail through a list goes out with the owner of the list as its sender (RFC 3461 §5.2.7.1, RFC 5321 §3.9.2).

Aliases find the owner (`route.aliases`), each recipient keeps it (`Recipient.sender`). What always holds: the null
reverse-path stays null, so that no report is answered by a report.
"""

from __future__ import annotations

import msgspec

from postroad.mail.address import Address
from postroad.mail.envelope import Recipient
from postroad.mail.event import Event, Rewritten


def settled(
    id: int, now_us: int, sender: Address | None, recipients: tuple[Recipient, ...]
) -> tuple[tuple[Recipient, ...], tuple[Event, ...]]:
    """The recipients of a message of this sender, and the event that tells who is the sender for some of them."""
    owners = dict.fromkeys(each.sender for each in recipients if each.sender is not None)
    if not owners:
        return recipients, ()
    if sender is None:
        return tuple(msgspec.structs.replace(each, sender=None) for each in recipients), ()
    changes = tuple(f"the sender of the mail through a list is its owner <{owner}>" for owner in owners)
    return recipients, (Rewritten(now_us, id, changes),)
