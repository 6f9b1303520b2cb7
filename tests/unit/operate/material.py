"""Messages, states and events for the tests of this folder."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import msgspec

from postroad.mail import identifier
from postroad.mail.address import Address
from postroad.mail.attempt import Attempt, Outcome, Reach
from postroad.mail.envelope import Envelope, Peer, Recipient
from postroad.mail.event import Accepted, Authenticated, Event, Refused
from postroad.mail.reply import Reply
from postroad.store.values import Backlog, Loaded, Selection, Waiting

NOW_US = 1_790_000_000_000_000
S = 1_000_000
HOUR = 3600 * S
ACCEPTED_US = NOW_US - 2 * HOUR
ID = identifier.make(ACCEPTED_US, 1, 0)
TEXT = identifier.text(ID)
PEER = Peer("192.0.2.7", 1234, "client.example.org", "ESMTPSA", "TLSv1.3 AES", "alice", "submission")
RELAYED = Attempt(
    Outcome.RELAYED, Reach.RECIPIENT, "2.0.0", "", Reply(250, "2.0.0", ("ok queued",)), "mx.example.net", "192.0.2.9",
    25, "TLSv1.3 AES", took_us=2300, connect_us=10_000, started_us=ACCEPTED_US,
)  # fmt: skip
DEFERRED = msgspec.structs.replace(
    RELAYED, outcome=Outcome.DEFERRED, status="4.2.2", reply=Reply(450, "4.2.2", ("mailbox full",)), tls=""
)
FAILED = msgspec.structs.replace(RELAYED, outcome=Outcome.FAILED, status="5.1.1", reply=Reply(550, "5.1.1", ("no",)))


def address(text: str) -> Address:
    local_part, _, domain = text.rpartition("@")
    return Address(local_part, domain)


def envelope(*recipients: str, id: int = ID, **changes: Any) -> Envelope:
    to = tuple(Recipient(address(each)) for each in recipients or ("bob@example.net",))
    made = Envelope(
        id, address("alice@example.org"), to, 4096, ACCEPTED_US, PEER, message_id="<1@example.org>",
    )  # fmt: skip
    return msgspec.structs.replace(made, **changes)


def waiting(index: int = 0, **changes: Any) -> Waiting:
    return msgspec.structs.replace(
        Waiting(index, NOW_US + 12 * 60 * S, "example.net", 3, False, False, "4.2.2", "450 4.2.2 mailbox full",
                "mx.example.net", NOW_US - HOUR),
        **changes,
    )  # fmt: skip


def accepted(*recipients: str, id: int = ID, **changes: Any) -> Accepted:
    made = Accepted(
        ACCEPTED_US, id, "alice@example.org", recipients or ("bob@example.net",), 4096, "<1@example.org>", PEER,
        took_us=800,
    )  # fmt: skip
    return msgspec.structs.replace(made, **changes)


class FakeSpool:
    """A SpoolView of what it is given."""

    def __init__(self, *loaded: Loaded, head: bytes = b"") -> None:
        self.messages = {each.envelope.id: each for each in loaded}
        self.header = head
        self.faults: list[str] = []

    def backlog(self) -> list[Backlog]:
        rows: dict[str, list[Waiting]] = {}
        for each in self.messages.values():
            for row in each.waiting:
                rows.setdefault(row.destination, []).append(row)
        return [
            Backlog(key, len(all), sum(row.held for row in all),
                    min((row.due_us for row in all if not row.held), default=0))
            for key, all in rows.items()
        ]  # fmt: skip

    def fresh(self, limit: int) -> list[Envelope]:
        return [each.envelope for _, each in sorted(self.messages.items()) if not each.waiting][:limit]

    def select(self, selection: Selection) -> list[int]:
        from postroad.store.sqlite import codec, selecting

        return [
            id
            for id, each in sorted(self.messages.items())
            if (not selection.ids or id in selection.ids)
            and selecting.matches(
                codec.encode_envelope(each.envelope), selection,
                frozenset((row.destination, row.held) for row in each.waiting),
            )
        ][: selection.limit]  # fmt: skip

    def load(self, id: int) -> Loaded | None:
        return self.messages.get(id)

    def unmoved(self, now_us: int) -> list[str]:
        return []

    def head(self, envelope: Envelope, limit: int) -> bytes:
        return self.header[:limit]


class FakeHistory:
    """A HistoryView of what it is given."""

    def __init__(self, *events: Event) -> None:
        self.all = events
        self.faults: list[str] = []

    def events(self, id: int) -> list[Event]:
        return [event for event in self.all if event.id == id]

    def first_us(self) -> int:
        return 0

    def refusals(
        self,
        address: str = "",
        *,
        client: str = "",
        account: str = "",
        since_us: int = 0,
        until_us: int = 0,
        limit: int = 100,
    ) -> Sequence[Refused | Authenticated]:
        return [
            event
            for event in self.all
            if isinstance(event, Refused | Authenticated)
            and event.at_us >= since_us
            and (
                (isinstance(event, Refused) and address in (event.reverse_path, event.recipient, *event.recipients))
                if address
                else event.peer.address == client
                if client
                else account in (event.peer.identity, getattr(event, "reason", ""))
            )
        ][:limit]

    def find(
        self,
        *,
        message_id: str = "",
        address: str = "",
        client: str = "",
        account: str = "",
        since_us: int = 0,
        until_us: int = 0,
        limit: int = 100,
    ) -> Iterable[int]:
        found = [
            event.id
            for event in self.all
            if isinstance(event, Accepted)
            and event.at_us >= since_us
            and not 0 < until_us <= event.at_us
            and (
                (message_id and event.message_id == message_id)
                or (address and address in (event.reverse_path, *event.recipients))
                or (client and event.peer.address == client)
                or (account and event.peer.identity == account)
            )
        ]
        return found[::-1][:limit]
