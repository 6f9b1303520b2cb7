"""Who gets a report of our own, if its recipient is at one of our domains.

Aliases lead it on, as they lead all mail. If its recipient is nobody (a client may send as an address of ours that is
no mailbox), the postmaster gets it: delivery would make a mailbox that nobody reads. What always holds: a report is
never lost here. If no postmaster is set, if he is nobody, too, or if nobody can tell at once who is there, the report
goes the way that its recipient names.
"""

from __future__ import annotations

import msgspec

from postroad.mail.envelope import Recipient
from postroad.mail.event import Expanded
from postroad.mail.expansion import Expansion
from postroad.node.wiring.tables import Tables
from postroad.protocol.grammar import parse_mailbox


def expand(tables: Tables, id: int, now_us: int, recipients: tuple[Recipient, ...]) -> Expansion | None:
    """What becomes of the recipients of a report (`report.dsn.ExpandNow`)."""
    found = tables.expand_at_once(id, now_us, recipients)
    if found is None or found.events or not any(tables.is_nobody(each.address) for each in recipients):
        return found
    postmaster = parse_mailbox(tables.routing.options.postmaster)
    if postmaster is None or tables.is_nobody(postmaster):
        return found
    [recipient] = recipients  # of a report: its sender
    given = recipient.given or recipient.address
    led = tables.expand_at_once(id, now_us, (msgspec.structs.replace(recipient, address=postmaster, given=given),))
    if led is None or not led.recipients:
        return found
    into = tuple([each.name for each in led.recipients])
    return led if led.events else msgspec.structs.replace(led, events=(Expanded(now_us, id, str(given), into),))
