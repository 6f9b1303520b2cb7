"""Complaints are linked to our messages: by queue id, else by Message-ID, with the account that sent them."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from msgspec import structs

from postroad.mail import identifier
from postroad.mail.envelope import Peer
from postroad.mail.event import Accepted, Event, Noted
from postroad.operate import reports
from postroad.store.kept_reports import KeptReport
from postroad.trust.inbound import keeping, report_mail
from tests.unit.trust.inbound import samples

OURS = identifier.parse("0123456789ab")
assert OURS is not None
OTHER = OURS + 1024


class History:
    """`asked`: the Message-IDs that were looked for."""

    def __init__(self, *events: Event, by_message_id: Iterable[int] = ()) -> None:
        self._events = events
        self._by_message_id = list(by_message_id)
        self.asked: list[str] = []

    def events(self, id: int) -> list[Event]:
        return [each for each in self._events if each.id == id]

    def find(self, *, message_id: str = "", **_: Any) -> Iterable[int]:
        self.asked.append(message_id)
        return self._by_message_id


def accepted(id: int, account: str) -> Accepted:
    peer = Peer("192.0.2.7", identity=account)
    return Accepted(1, id, "news@example.org", ("bob@there.example",), 100, "<news-1@example.org>", peer)


def complaint(content: bytes = samples.feedback(), id: int = 1) -> KeptReport:
    (kept,) = keeping.kept(report_mail.read([content]), id)
    return kept


def _summary(history: Any, *kept: KeptReport) -> reports.ComplaintSummary:
    return reports.complaints(kept, [], history, 0)


def test_by_the_queue_id_in_its_received_field() -> None:
    history = History(Noted(1, OURS, "info", "x"), accepted(OURS, "ada"), accepted(OTHER, "eve"), by_message_id=[OTHER])
    (each,) = _summary(history, complaint()).each
    assert (each.queue_id, each.account, each.campaign) == ("0123456789ab", "ada", "spring:news:example")
    assert each.subject == "Grüße" and each.recipients == ["bob@there.example"]


def test_by_its_message_id_if_the_queue_id_is_not_known() -> None:
    """The field may be that of another node, or forged."""
    history = History(accepted(OTHER, "eve"), by_message_id=[OTHER])
    (each,) = _summary(history, complaint()).each
    assert (each.account, history.asked) == ("eve", ["<news-1@example.org>"])


def test_a_message_that_has_both_is_meant() -> None:
    """The newest Received field may be that of another message, of a list for instance."""
    other = accepted(OURS, "list")
    history = History(structs.replace(other, message_id="<x@y>"), accepted(OTHER, "ada"), by_message_id=[OTHER])
    assert _summary(history, complaint()).each[0].account == "ada"
    alone = History(structs.replace(other, message_id="<x@y>"))
    assert _summary(alone, complaint()).each[0].account == "list", "reporters change Message-IDs to hide them"


def test_what_the_history_does_not_know() -> None:
    for history in (History(), None):
        (each,) = _summary(history, complaint()).each
        assert (each.queue_id, each.account) == ("", "") and each.mail_from == "news@example.org"


def test_recipients_that_the_report_hides_are_those_of_the_message() -> None:
    hidden = samples.feedback("Feedback-Type: abuse\r\nVersion: 1\r\n")
    (each,) = _summary(History(accepted(OURS, "ada")), complaint(hidden)).each
    assert (each.recipients, each.mail_from) == (["bob@there.example"], "news@example.org")


def test_complaints_are_added_up(monkeypatch: Any) -> None:
    monkeypatch.setattr(reports, "LINKED_MAX", 2)
    many = samples.feedback("Feedback-Type: abuse\r\nVersion: 1\r\nIncidents: 5\r\nReporting-MTA: dns; b.example\r\n")
    kept = [complaint(), complaint(id=2), complaint(many, id=3)]
    found = _summary(History(accepted(OURS, "ada")), *kept)
    assert (found.complaints, found.unverified, found.not_looked_up) == (7, 3, 1)
    assert [(each.account, each.complaints, each.reporters) for each in found.counts] == [
        ("", 5, ["b.example"]), ("ada", 2, ["mx.there.example"]),
    ]  # fmt: skip
