"""Failure reports: only for who asks, about what is no report itself, and never so many that they are a flood."""

from __future__ import annotations

import asyncio
import email
from collections.abc import Callable
from typing import Any

import msgspec

from postroad.mail.evaluation import DmarcFacts, Evaluation, Found, JudgedMessage, fails_somewhere
from postroad.mail.event import Event
from postroad.report.failure_sending import FailureDoors, FailureReports
from postroad.report.feedback_options import FeedbackOptions
from postroad.store.values import Failure, FailureKind, Stored
from tests.unit.trust.zones import ZoneResolver

START_US = 1_796_083_200_000_000
OPTIONS = FeedbackOptions(
    organization="Example", contact="dmarc@node.example", hostname="mx.node.example", failures=True,
    failures_per_domain=3, failures_per_hour=5,
)  # fmt: skip
RECORD = "v=DMARC1; p=reject; ruf=mailto:ruf@example.com"
FACTS = DmarcFacts("example.com", "fail", "example.com", "example.com", RECORD, "p", "reject", "reject")
FOUND = (
    Found("spf", "fail", "", (("smtp", "mailfrom", "example.com"),)),
    Found(
        "dkim", "fail", "", (("header", "d", "example.com"), ("header", "i", "ada@example.com"), ("header", "s", "s1"))
    ),
)
HEADER = b"From: Ada <ada@example.com>\r\nSubject: secret plan\r\n\r\n"
ZONES: dict[str, Any] = {
    "_dmarc.example.com": {"TXT": [RECORD]},
    "example.com": {"TXT": ["other", "v=spf1 -all"]},
    "_dmarc.taker.example": {"TXT": ["v=DMARC1; p=none"]},
}


class Place:
    def __init__(self, options: FeedbackOptions = OPTIONS) -> None:
        self.stored: list[Stored] = []
        self.queued: list[Stored] = []
        self.logged: list[str] = []
        self.failure: Failure | None = None
        self.zones = dict(ZONES)
        doors = FailureDoors(
            names=lambda: ZoneResolver(self.zones), new_id=lambda: 100 + len(self.stored), accept=self._accept,
            queued=self.queued.append, log=lambda level, text: self.logged.append(text), secret=b"key",
        )  # fmt: skip
        self.reports = FailureReports(doors, options)

    def _accept(
        self, stored: Stored, events: tuple[Event, ...], done: Callable[[Failure | None], None]
    ) -> None:
        self.stored.append(stored)
        done(self.failure)

    async def judged(
        self, *, facts: DmarcFacts = FACTS, client: str = "192.0.2.1", header: bytes = HEADER, at_us: int = START_US
    ) -> list[str]:
        """Who gets a report on it."""
        before = len(self.stored)
        evaluation = Evaluation(client, "mx", "example.com", FOUND, (facts,), "reject")
        self.reports(JudgedMessage(at_us, evaluation, header, "ada@example.com"))
        for _ in range(20):
            await asyncio.sleep(0)
        return [str(each.envelope.recipients[0].address) for each in self.stored[before:]]


def with_record(record: str, **more: Any) -> DmarcFacts:
    return msgspec.structs.replace(FACTS, record=record, **more)


async def test_a_report_tells_of_one_message() -> None:
    place = Place()
    assert await place.judged() == ["ruf@example.com"]
    assert place.queued == place.stored
    (stored,) = place.stored
    assert isinstance(stored.content, bytes)
    assert stored.envelope.reverse_path is None
    text = stored.content.decode()
    assert "Identity-Alignment: dkim, spf\r\n" in text
    assert 'SPF-DNS: txt : example.com : "v=spf1 -all"\r\n' in text
    assert "DKIM-Selector: s1\r\n" in text
    assert "Delivery-Result: reject\r\n" in text
    assert "secret plan" not in text and "ada@" not in text
    assert not email.message_from_string(text).defects


async def test_only_for_who_asks() -> None:
    for record, result, wanted in (
        ("v=DMARC1; p=reject", "fail", False),
        (RECORD, "pass", False),
        (RECORD, "temperror", False),
        (RECORD + "; fo=1", "pass", True),
        (RECORD + "; fo=1:d:s", "fail", True),
        (RECORD + "; fo=d", "fail", True),
        (RECORD + "; psd=y", "fail", False),  # RFC 9991 §2
        ("p=reject; ruf=mailto:ruf@example.com", "fail", False),
    ):
        found = await Place().judged(facts=with_record(record, result=result))
        assert bool(found) is wanted, (record, result)
    assert not await Place(msgspec.structs.replace(OPTIONS, except_domains=("com",))).judged()


async def test_other_organizations_must_have_agreed() -> None:
    facts = with_record("v=DMARC1; p=reject; ruf=mailto:ruf@taker.example,mailto:ruf@example.com")
    place = Place()
    assert await place.judged(facts=facts) == ["ruf@example.com"]
    other = Place()
    other.zones["example.com._report._dmarc.taker.example"] = {"TXT": ["v=DMARC1"]}
    assert await other.judged(facts=facts) == ["ruf@taker.example", "ruf@example.com"]


async def test_never_about_reports_and_automatic_answers() -> None:
    for fields in (
        b"Content-Type: multipart/report; report-type=feedback-report\r\n", b"Auto-Submitted: auto-replied\r\n",
        b"Subject: Report Domain: example.com Submitter: x\r\n", b"subject:Report domain: x\r\n",
    ):  # fmt: skip
        assert not await Place().judged(header=fields + b"From: <ada@example.com>\r\n\r\n")
    assert await Place().judged(header=b"Auto-Submitted: no\r\n" + HEADER)


async def test_alike_messages_are_told_of_once_within_an_hour() -> None:
    place = Place()
    assert await place.judged()
    for number in range(4):
        assert not await place.judged(at_us=START_US + number * 1_000_000)
    assert await place.judged(at_us=START_US + 3_601_000_000)
    content = place.stored[-1].content
    assert isinstance(content, bytes)
    assert b"Incidents: 5\r\n" in content  # RFC 5965 §3.2


async def test_a_domain_and_all_together_are_not_flooded() -> None:
    place = Place()
    sent = [await place.judged(client=f"192.0.2.{number}") for number in range(10)]
    assert sum(map(bool, sent)) == 3
    others = [
        await place.judged(facts=msgspec.structs.replace(
            FACTS, author=f"{number}.example.com", policy_domain=f"{number}.example.com"
        ))
        for number in range(10)
    ]  # fmt: skip
    assert sum(map(bool, others)) == 2
    assert await place.judged(client="192.0.2.200", at_us=START_US + 3_601_000_000)


async def test_what_cannot_be_stored_is_said() -> None:
    place = Place()
    place.failure = Failure(FailureKind.FULL, "no space")
    await place.judged()
    assert not place.queued and "no space" in place.logged[0]
    other = Place()
    other.zones["_dmarc.example.com"] = {"TXT": ["ERROR"]}
    assert not await other.judged()
    assert "no failure report" in other.logged[0]


def test_what_the_reports_hear_of() -> None:
    passed = msgspec.structs.replace(FACTS, result="pass", spf_aligned=True, dkim_aligned=True)
    half = msgspec.structs.replace(passed, spf_aligned=False)
    assert not fails_somewhere(Evaluation("192.0.2.1", dmarc=(passed,)))
    assert fails_somewhere(Evaluation("192.0.2.1", dmarc=(passed, half)))
    assert not fails_somewhere(Evaluation("192.0.2.1"))
