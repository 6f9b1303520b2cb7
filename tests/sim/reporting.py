"""A mailbox to which others send reports, beside mail of people.

The promises, beside those that hold for every delivery (`promises`):
1. what was delivered to the mailbox was looked at, and its report is kept: each report once, however often its mail is
   tried, sent again by its client, or handed to another worker after a crash;
2. what is kept is what the report said, and nothing else is kept.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from postroad.mail.attempt import Outcome
from postroad.mail.event import Attempted
from postroad.store.kept_reports import MailState, ReportStore
from postroad.store.options import KeptReportOptions
from postroad.trust.inbound import keeping
from tests.sim.part import Part, Scheduled, Seen
from tests.sim.plan import DOORS
from tests.sim.sender import Order
from tests.unit.trust.inbound import samples

if TYPE_CHECKING:
    from tests.sim.house import House

DOMAIN = "reports.test"
MAILBOX = f"dmarc@{DOMAIN}"
FIRST = 9500  # the number of the first order
_ORDERS = 8
_SETTINGS = f"""
[[domain]]
name = "{DOMAIN}"
recipients = ["postmaster"]
path = "FOLDER/mail/{{domain}}/{{local_part}}"
[report_mailboxes]
addresses = ["{MAILBOX}"]
"""


class Reporting(Part):
    """`counts`: how many messages the report of an order is about, by its report id; 0 for mail of people."""

    def __init__(self, house: House) -> None:
        super().__init__(house)
        self.counts: dict[str, int] = {}

    def settings(self, toml: str) -> str:
        return toml + _SETTINGS.replace("FOLDER", str(self.house.folder))

    def orders(self) -> list[Scheduled]:
        chance = self.chance
        found: list[Scheduled] = []
        for number in range(FIRST, FIRST + _ORDERS):
            count = chance.choice((0, *range(1, 9)))
            body = b"please stop\r\n"
            if count:
                self.counts[f"{number}"] = count
                rows = [samples.record(count=count)] + [samples.record(f"10.1.1.{at}", 0) for at in range(number % 40)]
                body = samples.aggregate(rows, report_id=f"{number}", domain=DOMAIN).replace(b"\n", b"\r\n")
            names = (MAILBOX, f"Dmarc+x@{DOMAIN}", "ann@home.test")
            order = Order(
                number, DOORS["mx"], lmtp=False, address="198.51.100.5", sender="s@r0.test",
                recipients=tuple((each, "") for each in names[: chance.choice((1, 2, 3))]), body=body,
                pipelining=chance.random() < 0.5, bdat=False, leaves="",
            )  # fmt: skip
            found.append((self.moment(), order, 3))
        return found

    # -- what must hold ---------------------------------------------------------------------------------------

    def check(self, seen: Seen) -> None:
        store = ReportStore(self.house.folder / "state" / "history", KeptReportOptions(), only_reads=True)
        mails = {each.id: each for each in store.mails()} if store.is_there else {}
        reports = [keeping.aggregate(each) for each in store.reports(keeping.DMARC)] if store.is_there else []
        store.close()
        delivered = {
            event.id for event in seen.events
            if isinstance(event, Attempted) and event.attempt.outcome is Outcome.DELIVERED
            and any(name.lower().endswith(f"@{DOMAIN}") for name in event.recipients)
        }  # fmt: skip
        for id in delivered - set(mails):
            self.fault(f"{id:x} was delivered to {MAILBOX}, and nobody looked for a report")
        for id in mails:
            if mails[id].state not in (MailState.READ, MailState.ORDINARY):
                self.fault(f"{id:x} could not be read: {mails[id].text}")
        for report in reports:
            count = sum(row.count for row in report.rows)
            if self.counts.get(report.report_id) != count:
                self.fault(f"report {report.report_id} counts {count}, not {self.counts.get(report.report_id)}")
        for report_id, count in Counter(each.report_id for each in reports).items():
            if count > 1:
                self.fault(f"report {report_id} is kept {count} times")
        due = {
            self._order(life.accepted.message_id) for id, life in seen.lives.items() if id in delivered
        } & set(self.counts)
        for report_id in due - {each.report_id for each in reports}:
            self.fault(f"report {report_id} came and is not kept")

    @staticmethod
    def _order(message_id: str) -> str:
        """The number of the order that a message was made for, which is the id of its report."""
        return message_id.strip("<>").partition(".")[0]
