"""Mailings whose recipients have a sender each (VERP), and what becomes of reports that name them.

The promises:
1. whoever gets the message, by whatever way, hears of the sender that names him as the client named him, whether this
   sender is signed on top of it (`signing`) or not;
2. a report of the node tells of one recipient, and goes to the sender that names him. What hosts report to these
   senders comes back, too (`returning`).
"""

from __future__ import annotations

from tests.sim import signing
from tests.sim.ledger import Submitted
from tests.sim.part import Part, Scheduled, Seen
from tests.sim.plan import ALIASES, DOORS
from tests.sim.sender import Order

FIRST = 7400  # the number of the first order
_ORDERS = 4
_TO = (
    "u1@r0.test", "u2@r0.test", "u3@r0.test", "u1@r1.test", "bad1@r0.test", "bad2@r1.test", "later1@r2.test",
    "team@home.test", "bob@home.test", "cid@mbox.test", "eve@box.test", "gus@prog.test",
)  # fmt: skip


class Variable(Part):
    """See the module."""

    def orders(self) -> list[Scheduled]:
        chance = self.chance
        found: list[Scheduled] = []
        for number in range(FIRST, FIRST + _ORDERS):
            sender, delimiters = chance.choice((("ann@home.test", "+="), ("ann@home.test", "+="), ("s@r3.test", "-=")))
            order = Order(
                number, DOORS["relay"], lmtp=False, address="198.51.100.6", sender=sender,
                recipients=tuple((each, chance.choice(("", "", "SUCCESS"))) for each in chance.sample(_TO, 6)),
                body=b"to each of you\r\n", pipelining=True, bdat=False, leaves="", verp=delimiters,
            )  # fmt: skip
            found.append((self.moment(), order, 3))
        return found

    def check(self, seen: Seen) -> None:
        for delivery in self.house.ledger.deliveries:
            sent = seen.submitted.get(delivery.message_id)
            if sent is not None and sent.verp:
                due = {
                    _named(sent, told) for told in sent.taken if delivery.recipient in ALIASES.get(told, (told,))
                } or {_named(sent, delivery.recipient)}  # a copy
                path = signing.untagged(delivery.path)
                if path not in due:
                    self.fault(f"{delivery.message_id} came to {delivery.recipient} from {path}, not from {due}")
        for dsn in seen.dsns:
            sent = seen.submitted.get(dsn.about)
            if sent is not None and sent.verp and {dsn.to} != {_named(sent, each) for each in dsn.recipients}:
                self.fault(f"a report on {dsn.recipients} went to {dsn.to}")


def _named(sent: Submitted, recipient: str) -> str:
    """The sender for this recipient."""
    local_part, _, domain = sent.sender.partition("@")
    return f"{local_part}{sent.verp[0]}{recipient.replace('@', sent.verp[1])}@{domain}"
