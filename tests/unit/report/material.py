"""Messages and attempts for the tests of this folder."""

from __future__ import annotations

from typing import Any

import msgspec

from postroad.mail import identifier
from postroad.mail.address import Address
from postroad.mail.attempt import Attempt, Outcome, Reach
from postroad.mail.envelope import Envelope, Peer, Recipient
from postroad.mail.message import Content, ContentFile
from postroad.mail.reply import Reply
from postroad.mail.report import DsnAction, RecipientReport
from postroad.report.dsn import Made, make
from postroad.report.options import ReportOptions

NOW_US = 1_790_000_000_000_000
ID = identifier.make(NOW_US, 3, 0)
ALICE = Address("alice", "example.org")
CONTENT = (
    b"Received: from client by mx.example.org\r\nFrom: alice@example.org\r\nSubject: Hello\r\n"
    b"Date: Mon, 21 Sep 2026 14:13:20 +0000\r\nMessage-ID: <1@example.org>\r\n\r\nHello there.\r\n.\r\nBye.\r\n"
)
OPTIONS = ReportOptions(hostname="mx.example.org")
REFUSAL = Reply(550, "5.1.1", ("no such user here",))
FAILURE = Attempt(
    Outcome.FAILED, Reach.RECIPIENT, "5.1.1", "", REFUSAL, "mx.example.net", "192.0.2.9", 25,
    started_us=NOW_US + 60_000_000,
)  # fmt: skip


def recipient(address: str = "bob@example.net", **changes: Any) -> Recipient:
    local_part, _, domain = address.rpartition("@")
    return Recipient(Address(local_part, domain), **changes)


def envelope(*recipients: Recipient, **changes: Any) -> Envelope:
    made = Envelope(
        id=ID,
        reverse_path=ALICE,
        recipients=recipients or (recipient(),),
        size=len(CONTENT),
        accepted_us=NOW_US,
        peer=Peer("192.0.2.7", 1234, "client.example.org", "ESMTPS", "TLSv1.3"),
        message_id="<1@example.org>",
    )
    return msgspec.structs.replace(made, **changes)


def report(
    to: Recipient | None = None, action: DsnAction = DsnAction.FAILED, attempt: Attempt = FAILURE, **changes: Any
) -> RecipientReport:
    return RecipientReport(to or recipient(), action, attempt, **changes)


def attempt(**changes: Any) -> Attempt:
    return msgspec.structs.replace(FAILURE, **changes)


def made(
    *reports: RecipientReport,
    about: Envelope | None = None,
    content: Content | None = CONTENT,
    options: ReportOptions = OPTIONS,
    now_us: int = NOW_US + 3_600_000_000,
    read: Any = None,
) -> Made:
    """`make` with ids that count up from the message's."""
    last = ID

    def new_id(shard: int) -> int:
        nonlocal last
        last = identifier.make(now_us, shard, last)
        return last

    def read_file(file: ContentFile, limit: int) -> bytes:
        with open(file.path, "rb") as handle:
            return handle.read(limit)

    about = about or envelope(*[each.recipient for each in reports])
    return make(reports, about, content, options, now_us=now_us, new_id=new_id, read=read or read_file)
