"""What the reports of others say, put together for operators: who sends in our name, how TLS went, who complains.

Pure, but for the look-ups in the history, which are bounded. The Structs here are what `--json` prints; fields are only
appended. What always holds: each report counts once; what a stranger wrote is shown as text and nothing more.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final

import msgspec

from postroad.mail import identifier
from postroad.mail.event import Accepted
from postroad.report import encoded_word
from postroad.store.face import HistoryView
from postroad.store.kept_reports import KeptMail, KeptReport, MailState
from postroad.trust.inbound import keeping
from postroad.trust.inbound.values import InboundAggregate, InboundFeedback, InboundRow, InboundTls

NAMES_MAX: Final = 20  # reporters, signers and the like of one row
LINKED_MAX: Final = 2_000  # complaints of which the message is looked up in the history
_IDS_MAX: Final = 3  # messages of one Message-ID that are looked at
_DAY: Final = "%Y-%m-%d"


class DmarcSource(msgspec.Struct):
    """Messages in the name of `domain` that came from one address, with one result. `dkim`, `spf`: ``pass`` if it
    passed and is aligned. `passed`: whether DMARC did, for one of the two. `signers`: ``domain=result`` of signatures;
    `senders`: the same of SPF. `overridden`: why another policy was applied. `verified`: the author of each report is
    who it says."""

    domain: str
    source: str
    messages: int
    passed: bool
    dkim: str
    spf: str
    disposition: str
    reporters: list[str]
    signers: list[str]
    senders: list[str]
    overridden: list[str]
    first_s: int
    last_s: int
    verified: bool


class DmarcFailure(msgspec.Struct):
    """A failure report: one message that failed."""

    at: int
    domain: str
    source: str
    reporter: str
    failure: str
    delivery: str
    author: str
    mail_from: str
    subject: str
    message_id: str
    verified: bool


class DmarcSummary(msgspec.Struct):
    """`reports`: how many aggregate reports were counted; `unverified`: of how many the author is not known to be who
    it says. `unread`: mails since then that could not be read. `reporters`: reports by reporter."""

    since_s: int
    domain: str
    reports: int
    unverified: int
    messages: int
    passed: int
    sources: list[DmarcSource]
    failures: list[DmarcFailure]
    reporters: dict[str, int]
    problems: list[str]
    unread: int


class TlsFailureCount(msgspec.Struct):
    """Sessions that failed for one reason."""

    type: str
    host: str
    address: str
    sessions: int
    reporters: list[str]
    said: list[str]


class TlsPolicyUse(msgspec.Struct):
    """How sessions to a domain went under one policy. `type`: ``tlsa``, ``sts`` or ``no-policy-found``."""

    domain: str
    type: str
    successful: int
    failed: int
    reporters: list[str]
    failures: list[TlsFailureCount]
    first_s: int
    last_s: int


class TlsSummary(msgspec.Struct):
    """`unverified`: reports whose signature nobody looked at."""

    since_s: int
    domain: str
    reports: int
    unverified: int
    successful: int
    failed: int
    policies: list[TlsPolicyUse]
    reporters: dict[str, int]
    problems: list[str]
    unread: int


class Complaint(msgspec.Struct):
    """A complaint about one message. `queue_id`: of our message, "" if the history does not know it; `account`: who had
    sent it. `recipients`: as the report says, or else as the history does."""

    at: int
    type: str
    domain: str
    reporter: str
    incidents: int
    account: str
    campaign: str
    author: str
    mail_from: str
    recipients: list[str]
    source: str
    subject: str
    message_id: str
    queue_id: str
    verified: bool


class ComplaintCount(msgspec.Struct):
    """Complaints about the mail of one domain, account and campaign."""

    domain: str
    account: str
    campaign: str
    type: str
    complaints: int
    reporters: list[str]
    last: int


class ComplaintSummary(msgspec.Struct):
    """`not_looked_up`: complaints whose message was not looked up, because there are too many."""

    since_s: int
    domain: str
    complaints: int
    unverified: int
    counts: list[ComplaintCount]
    each: list[Complaint]
    not_looked_up: int
    unread: int


class UnreadMail(msgspec.Struct):
    """A mail to a report mailbox that could not be read."""

    at: int
    queue_id: str
    client: str
    sender: str
    author: str
    recipient: str
    subject: str
    reason: str


class ReportsOverview(msgspec.Struct):
    """What came to the report mailboxes. `ordinary`: mails without a report; `duplicates`: reports that were there."""

    since_s: int
    mails: int
    ordinary: int
    duplicates: int
    reports: dict[str, int]
    unread: list[UnreadMail]


class _Names:
    """Names in the order in which they came, not too many."""

    def __init__(self) -> None:
        self._names: dict[str, None] = {}

    def add(self, names: Iterable[str]) -> None:
        for name in names:
            if name and len(self._names) < NAMES_MAX:
                self._names[name] = None

    def all(self) -> list[str]:
        return list(self._names)


class _Source:
    def __init__(self) -> None:
        self.messages = 0
        self.reporters, self.signers, self.senders, self.overridden = _Names(), _Names(), _Names(), _Names()
        self.first_s, self.last_s = 0, 0
        self.verified = True

    def add(self, report: InboundAggregate, row: InboundRow, verified: bool) -> None:
        self.messages += row.count
        self.reporters.add((report.organization,))
        self.signers.add(f"{each.domain}={each.result}" for each in row.signatures)
        self.senders.add(f"{each.domain}={each.result}" for each in row.senders)
        self.overridden.add(f"{type} ({comment})" if comment else type for type, comment in row.reasons)
        self.first_s = min(self.first_s or report.begin_s, report.begin_s)
        self.last_s = max(self.last_s, report.end_s)
        self.verified = self.verified and verified


def dmarc(
    aggregates: Iterable[KeptReport], failures: Iterable[KeptReport], mails: Sequence[KeptMail], since_us: int,
    domain: str = "",
) -> DmarcSummary:
    """Who sends in the name of a domain, the most messages first."""
    found: dict[tuple[str, str, str, str, str], _Source] = {}
    reporters: dict[str, int] = {}
    problems = _Names()
    reports = unverified = 0
    for kept in aggregates:
        report = keeping.aggregate(kept)
        reports += 1
        unverified += not kept.verified
        reporters[report.organization] = reporters.get(report.organization, 0) + 1
        problems.add(f"{report.organization}: {each}" for each in (*report.problems, *report.errors))
        for row in report.rows:
            key = (row.header_from or report.policy.domain, row.source, row.dkim, row.spf, row.disposition)
            found.setdefault(key, _Source()).add(report, row, kept.verified)
    sources = [
        DmarcSource(
            name, address, each.messages, "pass" in (dkim, spf), dkim, spf, disposition, each.reporters.all(),
            each.signers.all(), each.senders.all(), each.overridden.all(), each.first_s, each.last_s, each.verified,
        )
        for (name, address, dkim, spf, disposition), each in found.items()
    ]
    sources.sort(key=lambda each: (-each.messages, each.domain, each.source, each.dkim, each.spf, each.disposition))
    return DmarcSummary(
        since_us // 1_000_000, domain, reports, unverified, sum(each.messages for each in sources),
        sum(each.messages for each in sources if each.passed), sources,
        [_failure(each) for each in failures], reporters, problems.all(), len(_unread(mails)),
    )


def _failure(kept: KeptReport) -> DmarcFailure:
    report = keeping.feedback(kept)
    return DmarcFailure(
        report.arrived_s or kept.at_us // 1_000_000, kept.domain, report.source, report.reporter,
        report.auth_failure or report.identity_alignment, report.delivery_result, encoded_word.decode(report.author),
        report.mail_from, encoded_word.decode(report.subject), report.message_id, kept.verified,
    )


class _PolicyUse:
    def __init__(self) -> None:
        self.successful = self.failed = 0
        self.reporters = _Names()
        self.failures: dict[tuple[str, str, str], tuple[int, _Names, _Names]] = {}
        self.first_s, self.last_s = 0, 0


def tls(
    reports: Iterable[KeptReport], mails: Sequence[KeptMail], since_us: int, domain: str = ""
) -> TlsSummary:
    """How TLS to the hosts of our domains went, the most failures first."""
    found: dict[tuple[str, str], _PolicyUse] = {}
    reporters: dict[str, int] = {}
    problems = _Names()
    count = unverified = 0
    for kept in reports:
        report = keeping.tls(kept)
        count += 1
        unverified += not kept.verified
        reporters[report.organization] = reporters.get(report.organization, 0) + 1
        problems.add(f"{report.organization}: {each}" for each in report.problems)
        _add_policies(report, found)
    policies = [
        TlsPolicyUse(
            name, type, each.successful, each.failed, each.reporters.all(),
            sorted(
                (
                    TlsFailureCount(reason, host, address, sessions, names.all(), said.all())
                    for (reason, host, address), (sessions, names, said) in each.failures.items()
                ),
                key=lambda failure: -failure.sessions,
            ),
            each.first_s, each.last_s,
        )
        for (name, type), each in found.items()
    ]
    policies.sort(key=lambda each: (-each.failed, each.domain, each.type))
    return TlsSummary(
        since_us // 1_000_000, domain, count, unverified, sum(each.successful for each in policies),
        sum(each.failed for each in policies), policies, reporters, problems.all(), len(_unread(mails)),
    )


def _add_policies(report: InboundTls, found: dict[tuple[str, str], _PolicyUse]) -> None:
    for policy in report.policies:
        use = found.setdefault((policy.domain, policy.type), _PolicyUse())
        use.successful += policy.successful
        use.failed += policy.failed
        use.reporters.add((report.organization,))
        use.first_s = min(use.first_s or report.begin_s, report.begin_s)
        use.last_s = max(use.last_s, report.end_s)
        for failure in policy.failures:
            key = (failure.type, failure.receiving_host, failure.receiving_address)
            sessions, names, said = use.failures.get(key, (0, _Names(), _Names()))
            names.add((report.organization,))
            said.add((" ".join(filter(None, (failure.code, failure.information))),))
            use.failures[key] = sessions + failure.count, names, said


def complaints(
    reports: Iterable[KeptReport], mails: Sequence[KeptMail], history: HistoryView | None, since_us: int,
    domain: str = "",
) -> ComplaintSummary:
    """Who complains of which mail, the newest first. `history`: where our messages are looked up."""
    kept = sorted(reports, key=lambda each: -each.at_us)
    each = [
        _complaint(report, history if place < LINKED_MAX else None) for place, report in enumerate(kept)
    ]
    counts: dict[tuple[str, str, str, str], ComplaintCount] = {}
    for found in each:
        key = (found.domain, found.account, found.campaign, found.type)
        count = counts.setdefault(key, ComplaintCount(*key, 0, [], found.at))
        count.complaints += found.incidents
        if found.reporter not in count.reporters and len(count.reporters) < NAMES_MAX:
            count.reporters.append(found.reporter)
    return ComplaintSummary(
        since_us // 1_000_000, domain, sum(found.incidents for found in each),
        sum(not found.verified for found in each),
        sorted(counts.values(), key=lambda count: (-count.complaints, count.domain, count.account, count.campaign)),
        each, max(0, len(kept) - LINKED_MAX), len(_unread(mails)),
    )


def _complaint(kept: KeptReport, history: HistoryView | None) -> Complaint:
    report = keeping.feedback(kept)
    ours = _message_of(report, history) if history is not None else None
    recipients = list(report.recipients)
    if not recipients and ours is not None:
        recipients = list(ours.recipients)[:NAMES_MAX]
    return Complaint(
        kept.at_us // 1_000_000, report.type, kept.domain, report.reporter, report.incidents,
        "" if ours is None else ours.peer.identity, report.campaign, encoded_word.decode(report.author),
        report.mail_from or ("" if ours is None else ours.reverse_path), recipients, report.source,
        encoded_word.decode(report.subject), report.message_id, "" if ours is None else identifier.text(ours.id),
        kept.verified,
    )


def _message_of(report: InboundFeedback, history: HistoryView) -> Accepted | None:
    """Our message that a report is about: by our queue id in its Received fields, else by its Message-ID; one that has
    both comes first."""
    numbers = [number for id in report.queue_ids if (number := identifier.parse(id)) is not None]
    if report.message_id:
        numbers += list(history.find(message_id=report.message_id, limit=_IDS_MAX))
    first: Accepted | None = None
    for number in numbers[: _IDS_MAX * 2]:
        for event in history.events(number):
            if isinstance(event, Accepted):
                if event.message_id == report.message_id:
                    return event
                first = first or event
    return first


def overview(mails: Sequence[KeptMail], reports: dict[str, int], since_us: int) -> ReportsOverview:
    """What came to the report mailboxes."""
    return ReportsOverview(
        since_us // 1_000_000, len(mails), sum(each.state == MailState.ORDINARY for each in mails),
        sum(each.duplicates for each in mails), reports, _unread(mails),
    )


def _unread(mails: Sequence[KeptMail]) -> list[UnreadMail]:
    return [
        UnreadMail(
            each.at_us // 1_000_000, identifier.text(each.id), each.client, each.sender, each.author, each.recipient,
            encoded_word.decode(each.subject), each.text,
        )
        for each in mails
        if each.state in (MailState.UNREADABLE, MailState.NOT_READ)
    ]
