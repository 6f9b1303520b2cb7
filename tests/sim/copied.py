"""Copies of mail: of all of it, of what somebody sends, and of what somebody gets.

The promises:
1. each message of a client has each copy that is due once, as one recipient more, which `promises` follows as any
   other: through crashes, aliases, and the ways back of mail that goes round. Who is a recipient gets no copy beside;
2. reports and other mail of the node are not copied;
3. no sender hears of a copy.
"""

from __future__ import annotations

from postroad.mail.event import Accepted
from tests.sim.ledger import Submitted
from tests.sim.part import Part, Scheduled, Seen
from tests.sim.plan import DOORS, NEW, OLD
from tests.sim.sender import Order

FIRST = 7500  # the number of the first order
_ORDERS = 3
ALL, FROM, TO = "kept@r1.test", "bad7@r0.test", "got@r2.test"  # the second can never be delivered
_SENDER = "cid@home.test"
_KEYS = 'always_bcc = "kept@r1.test"\nsender_bcc_maps = ["sent"]\nrecipient_bcc_maps = ["came"]\n'
_MAPS = f"""
[[map]]
name = "sent"
kind = "inline"
entries = "{_SENDER} {FROM}"
[[map]]
name = "came"
kind = "inline"
entries = "{NEW} {TO}"
"""


class Copied(Part):
    """See the module."""

    def settings(self, toml: str) -> str:
        if "\n[rewrite]\n" in toml:
            return toml.replace("\n[rewrite]\n", f"\n[rewrite]\n{_KEYS}") + _MAPS
        return f"{toml}\n[rewrite]\n{_KEYS}{_MAPS}"

    def orders(self) -> list[Scheduled]:
        chance = self.chance
        found: list[Scheduled] = []
        for number in range(FIRST, FIRST + _ORDERS):
            to = chance.sample((NEW, ALL, "team@home.test", "u1@r0.test", "nobody@home.test"), 2)
            order = Order(
                number, DOORS["relay"], lmtp=False, address="198.51.100.2",
                sender=chance.choice((_SENDER, _SENDER, "s@r0.test")),
                recipients=tuple((each, chance.choice(("", "SUCCESS"))) for each in to), body=b"to be copied\r\n",
                pipelining=True, bdat=False, leaves="",
            )  # fmt: skip
            found.append((self.moment(), order, 3))
        return found

    def check(self, seen: Seen) -> None:
        for life in seen.lives.values():
            accepted = life.accepted
            sent = seen.submitted.get(accepted.message_id)
            due = _due(accepted, sent) if sent is not None else set()
            named = set(sent.taken) if sent is not None else set()
            for copy in (ALL, FROM, TO):
                count = accepted.recipients.count(copy)
                if count != (copy in due or copy in named):
                    self.fault(f"{accepted.message_id} has {count} copies for {copy}: {accepted.recipients}"[:300])
        for dsn in seen.dsns:
            sent = seen.submitted.get(dsn.about)
            if sent is None or not sent.sender:  # the postmaster hears of what has no return address
                continue
            if told := {ALL, FROM, TO} & set(dsn.recipients) - set(sent.taken):
                self.fault(f"the sender of {dsn.about} hears of copies for {told}")


def _due(accepted: Accepted, sent: Submitted) -> set[str]:
    """Whose copies a message has."""
    if set(accepted.recipients) <= {"nobody@home.test"}:  # left in the drop folder, and refused
        return set()
    due = {ALL}
    if accepted.reverse_path == _SENDER:
        due.add(FROM)
    if {NEW, OLD} & set(sent.taken):
        due.add(TO)
    return due
