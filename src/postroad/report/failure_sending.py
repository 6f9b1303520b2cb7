"""Sends DMARC failure reports (RFC 9991): tells a domain at once of a message that failed, if it asks for that (ruf=).

A worker decides this by itself, right after a message was judged. Such reports could be used to flood a domain, so what
is sent is limited, and alike messages are told of once (RFC 9991 §8.1).

What always holds: nothing is sent for mail that is a report or an automatic answer itself, nor for records of public
suffixes (§2), nor to a destination in another organization that has not agreed. Within an hour a domain gets at most
`failures_per_domain` reports from a worker, and all get at most `failures_per_hour`. At most `WAITING_MAX` messages
wait for answers of the DNS; more are not reported.

How it fails: if the DNS does not answer or the disk is full, the report is left out; the log says so. The message that
failed has long had its answer.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from typing import Final

import msgspec

from postroad.mail import message
from postroad.mail.address import is_within
from postroad.mail.evaluation import DmarcFacts, Evaluation, JudgedMessage
from postroad.mail.event import Event
from postroad.report.failure_report import FailureReport
from postroad.report.feedback_mail import failure_mail
from postroad.report.feedback_options import FeedbackOptions
from postroad.report.feedback_places import dmarc_places, mailbox_of
from postroad.report.own_mail import acceptance
from postroad.store.values import Failure, Stored
from postroad.trust import authres, dmarc_record
from postroad.trust.dmarc_record import DmarcRecord, Psd
from postroad.trust.dmarc_walk import Names
from postroad.trust.results import DKIM, FAIL, PASS, SPF

HOUR_US: Final = 3_600_000_000
WAITING_MAX: Final = 50
ALIKE_MAX: Final = 10_000  # kinds of failures that are remembered
_EVERY: Final = "1"  # fo=: a report if any mechanism brought no aligned pass; else if all did not
_DELIVERY: Final = {"none": "delivered", "quarantine": "policy", "reject": "reject"}  # RFC 6591 §3.2.2


class FailureDoors(msgspec.Struct, frozen=True):
    """What it needs. `secret`: makes the redacted words; the same over restarts."""

    names: Callable[[], Names]
    new_id: Callable[[], int]
    accept: Callable[[Stored, tuple[Event, ...], Callable[[Failure | None], None]], None]
    queued: Callable[[Stored], None]
    log: Callable[[str, str], None]
    secret: bytes


class FailureReports:
    """Call it with a message that was judged."""

    def __init__(self, doors: FailureDoors, options: FeedbackOptions) -> None:
        self._doors = doors
        self._options = options
        self._tasks: set[asyncio.Task[None]] = set()
        self._sent: deque[int] = deque()  # when, within the last hour
        self._of_domain: dict[str, deque[int]] = {}
        self._alike: dict[tuple[object, ...], tuple[int, int]] = {}  # when one was told of, and how many since then

    def take(self, options: FeedbackOptions) -> None:
        """Settings."""
        self._options = options

    def __call__(self, judged: JudgedMessage) -> None:
        if _is_automatic(judged.header):
            return
        for facts in judged.evaluation.dmarc:
            record = _record(facts)
            if record is not None and len(self._tasks) < WAITING_MAX:
                incidents = self._admitted(judged, facts)
                if incidents:
                    task = asyncio.get_running_loop().create_task(self._send(judged, facts, record, incidents))
                    self._tasks.add(task)
                    task.add_done_callback(self._tasks.discard)

    async def close(self) -> None:
        """Gives up what waits for the DNS."""
        tasks = tuple(self._tasks)
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)

    # --- how many

    def _admitted(self, judged: JudgedMessage, facts: DmarcFacts) -> int:
        """For how many messages a report would stand; 0 if none may be sent now."""
        now_us, options = judged.at_us, self._options
        if any(is_within(facts.policy_domain, each) for each in options.except_domains):
            return 0
        key = _kind_of(judged.evaluation, facts)
        told_us, since = self._alike.get(key, (0, 0))
        of_domain = self._of_domain.setdefault(facts.policy_domain, deque())
        for times in (self._sent, of_domain):
            while times and times[0] <= now_us - HOUR_US:
                times.popleft()
        full = len(self._sent) >= options.failures_per_hour or len(of_domain) >= options.failures_per_domain
        if full or (told_us and now_us - told_us < HOUR_US):
            self._remember(key, (told_us, since + 1))
            return 0
        self._sent.append(now_us)
        of_domain.append(now_us)
        self._remember(key, (now_us, 0))
        return since + 1

    def _remember(self, key: tuple[object, ...], value: tuple[int, int]) -> None:
        self._alike.pop(key, None)
        while len(self._alike) >= ALIKE_MAX:
            del self._alike[next(iter(self._alike))]
        self._alike[key] = value
        while len(self._of_domain) > ALIKE_MAX:
            del self._of_domain[next(iter(self._of_domain))]

    # --- the report

    async def _send(self, judged: JudgedMessage, facts: DmarcFacts, record: DmarcRecord, incidents: int) -> None:
        names = self._doors.names()
        places = await dmarc_places(names, facts.policy_domain, record, failure=True)
        if places.failed:
            self._doors.log("info", f"no failure report on {facts.author}: {places.failed}")
        if not places.found:
            return
        report = await self._report(names, judged, facts, incidents)
        for place in places.found:
            to = mailbox_of(place.uri)
            if to is not None:
                stored = failure_mail(
                    report, self._options.reporter, to, id=self._doors.new_id(), now_us=judged.at_us
                )
                self._doors.accept(stored, (acceptance(stored.envelope),), self._kept(stored))

    def _kept(self, stored: Stored) -> Callable[[Failure | None], None]:
        def done(failure: Failure | None) -> None:
            if failure is None:
                self._doors.queued(stored)
            else:
                self._doors.log("warning", f"a failure report could not be stored: {failure.text}")

        return done

    async def _report(
        self, names: Names, judged: JudgedMessage, facts: DmarcFacts, incidents: int
    ) -> FailureReport:
        evaluation = judged.evaluation
        not_aligned = [name for name, fits in ((DKIM, facts.dkim_aligned), (SPF, facts.spf_aligned)) if not fits]
        return FailureReport(
            name=f"{judged.at_us:x}",
            domain=facts.policy_domain,
            author=facts.author,
            at_us=judged.at_us,
            source_ip=evaluation.client,
            results=authres.payload(self._options.hostname, evaluation.found).decode("ascii", "replace"),
            not_aligned=tuple(not_aligned),
            header=judged.header,
            mail_from=judged.sender,
            signature=_failed_signature(evaluation, facts),
            spf=await _spf_record(names, evaluation, facts),
            delivery=_DELIVERY.get(evaluation.disposition, "other"),
            incidents=incidents,
            secret=self._doors.secret,
        )


def _record(facts: DmarcFacts) -> DmarcRecord | None:
    """The record, if it asks for a report on this result."""
    if not facts.policy_domain or not dmarc_record.is_record(facts.record):
        return None
    record = dmarc_record.parse(facts.record)
    if not record.failure or record.psd is Psd.YES:  # RFC 9991 §2
        return None
    if facts.result == FAIL:
        return record
    return record if facts.result == PASS and _EVERY in record.options else None


def _kind_of(evaluation: Evaluation, facts: DmarcFacts) -> tuple[object, ...]:
    """Failures with the same kind are alike: one report stands for all of an hour."""
    results = tuple((each.method, each.result) for each in evaluation.found)
    return facts.author, evaluation.client, evaluation.sender_domain, facts.result, evaluation.disposition, results


def _is_automatic(header: bytes) -> bool:
    """RFC 6650 §6: no report on a report; RFC 3834: nor on what a program has answered."""
    automatic = (message.first(header, b"auto-submitted") or "no").partition(";")[0].strip().lower()
    kind = (message.first(header, b"content-type") or "").partition(";")[0].strip().lower()
    subject = (message.first(header, b"subject") or "").lower()
    return automatic != "no" or kind == "multipart/report" or subject.lstrip().startswith("report domain:")


def _failed_signature(evaluation: Evaluation, facts: DmarcFacts) -> tuple[str, str, str] | None:
    """Domain, identity and selector of a signature of the author's domain that failed (RFC 9991 §4)."""
    for each in evaluation.found:
        domain = each.value("header", "d").lower()
        if each.method == DKIM and each.result != PASS and domain and _is_related(domain, facts):
            return domain, each.value("header", "i") or f"@{domain}", each.value("header", "s")
    return None


async def _spf_record(names: Names, evaluation: Evaluation, facts: DmarcFacts) -> tuple[str, str] | None:
    """Name and text of the SPF record, if SPF failed for the author's domain. The DNS has just been asked for it."""
    for each in evaluation.found:
        domain = each.value("smtp", "mailfrom").rpartition("@")[2].lower()
        if each.method == SPF and each.result != PASS and domain and _is_related(domain, facts):
            answer = await names.text(domain)
            texts = [text for text in answer.records if text.lower().startswith("v=spf1")]
            return domain, texts[0] if texts else ""
    return None


def _is_related(domain: str, facts: DmarcFacts) -> bool:
    above = facts.organizational or facts.policy_domain
    return domain == facts.author or is_within(domain, above)
