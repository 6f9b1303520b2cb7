"""Counts what happened on a day for the reports to other domains: events in, rows with numbers out. Pure.

For DMARC: each message that was evaluated counts once for each of its author domains that has a DMARC record, whether
it was accepted or refused (RFC 9990 §2.1). For TLS: each connection counts once, however many messages it carried and
however many recipients an attempt had (RFC 8460 §4.2).

What always holds: mail whose recipients are all report mailboxes of ours is not counted, nor are the connections by
which our own reports went out: two nodes that report on each other's reports would never come to an end (RFC 8460 §3).
Memory is bounded: the caller takes the rows (`taken`) when there are `ROWS_MAX`. Not here: where the events come from
(`store.sqlite.day_events`), and where the rows go (`store.feedback_days`).
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Final, TypeVar

import msgspec

from postroad.mail.address import canonical_domain
from postroad.mail.attempt import Attempt, Try
from postroad.mail.evaluation import DmarcFacts, Evaluation, Found
from postroad.mail.event import Accepted, Attempted, Evaluated, Event, Expanded, Refused
from postroad.mail.extension import without_extension
from postroad.mail.route import domain_of
from postroad.mail.tls_policy import PolicyKind, TlsFailure, TlsOutcome
from postroad.report.aggregate_xml import preferred
from postroad.report.feedback import DkimSeen, DmarcRow, FeedbackKind, SpfSeen, TlsPolicySeen, TlsRow
from postroad.report.own_mail import LISTENER_FEEDBACK
from postroad.report.text import shorten
from postroad.trust import dmarc_record
from postroad.trust.dmarc_record import Policy
from postroad.trust.results import DKIM, FAIL, NONE, PASS, SPF

_K = TypeVar("_K")

ROWS_MAX: Final = 50_000
SESSIONS_MAX: Final = 200_000  # connections that are remembered, so that each counts once
_OWN_MAX: Final = 200_000
_STEPS_MAX: Final = 3  # of aliases behind each other
_INTO_MAX: Final = 20  # recipients of an alias; more are no report mailbox, but a list
_TEXT_MAX: Final = 200
_LINES_MAX: Final = 100
_REASONS: Final = frozenset(("local_policy", "mailing_list", "other", "policy_test_mode", "trusted_forwarder"))
_ENCODE: Final = msgspec.msgpack.Encoder().encode

CountedRow = tuple[str, str, bytes, int]
"""Kind, domain, row and number, as `store.feedback_days` keeps them."""


class FeedbackCounts:
    """`kinds`: which reports are wanted. `mailboxes`: report mailboxes of ours. `own`: the queue ids of reports of ours
    that were sent on days before. `delimiters`: begin an extension of a mailbox's name."""

    def __init__(
        self, kinds: Collection[FeedbackKind], mailboxes: Iterable[str], own: Iterable[int] = (), delimiters: str = ""
    ) -> None:
        self._delimiters = delimiters
        self._dmarc = FeedbackKind.DMARC in kinds
        self._tls = FeedbackKind.TLS in kinds
        self._mailboxes = frozenset(each.lower() for each in mailboxes)
        self._own = dict.fromkeys(own)
        self._rows: dict[tuple[str, str, bytes], int] = {}
        self._records: dict[str, tuple[int, str]] = {}
        self._sessions: dict[tuple[object, ...], None] = {}

    def __len__(self) -> int:
        return len(self._rows)

    def take(self, events: Sequence[Event]) -> None:
        """Counts the events of one commit."""
        for event in events:
            if isinstance(event, Attempted):
                if self._tls and event.id not in self._own:
                    self._attempted(event)
            elif isinstance(event, Evaluated):
                if self._dmarc and event.evaluation.dmarc and not self._is_report(event, events):
                    self._evaluated(event)
            elif isinstance(event, Accepted) and event.peer.listener == LISTENER_FEEDBACK:
                _remember(self._own, event.id, _OWN_MAX)

    def taken(self) -> tuple[list[CountedRow], dict[str, tuple[int, str]]]:
        """The rows since the last call, and the DMARC records that were seen, each with the time."""
        rows = [(kind, domain, row, count) for (kind, domain, row), count in self._rows.items()]
        records, self._records, self._rows = self._records, {}, {}
        return rows, records

    def _add(self, kind: FeedbackKind, domain: str, row: DmarcRow | TlsRow) -> None:
        key = (kind.value, domain, _ENCODE(row))
        self._rows[key] = self._rows.get(key, 0) + 1

    # --- DMARC

    def _is_report(self, event: Evaluated, events: Sequence[Event]) -> bool:
        """Whether the message is for nobody but report mailboxes. `events`: those of the same commit."""
        if not self._mailboxes:
            return False
        for each in events:
            if isinstance(each, Accepted):
                if each.id == event.id:
                    sources = _sources(events, event.id)
                    return all(self._is_ours(name, sources) for name in each.recipients)
            elif isinstance(each, Refused) and not event.id and each.peer.address == event.evaluation.client:
                return all(self._is_ours(name, {}) for name in each.recipients or (each.recipient,))
        return False

    def _is_ours(self, recipient: str, sources: Mapping[str, Sequence[str]], steps: int = 0) -> bool:
        """Whether it is a report mailbox, or aliases have led from none but report mailboxes to it."""
        if self._plain(recipient) in self._mailboxes:
            return True
        known = sources.get(recipient.lower(), ())
        return steps < _STEPS_MAX and bool(known) and all(self._is_ours(each, sources, steps + 1) for each in known)

    def _plain(self, recipient: str) -> str:
        local_part, at, domain = recipient.lower().rpartition("@")
        return f"{without_extension(local_part, self._delimiters)}{at}{domain}"

    def _evaluated(self, event: Evaluated) -> None:
        evaluation = event.evaluation
        for facts in evaluation.dmarc:
            if facts.policy_domain and facts.author:
                self._add(FeedbackKind.DMARC, facts.policy_domain, dmarc_row(evaluation, facts))
                known = self._records.get(facts.policy_domain)
                if known is None or known[0] <= event.at_us:
                    self._records[facts.policy_domain] = (event.at_us, facts.record)

    # --- TLS

    def _attempted(self, event: Attempted) -> None:
        attempt = event.attempt
        if attempt.policy is None and not attempt.tries:
            return
        domain = _canonical(domain_of(event.destination))
        for each in attempt.tries:
            if each.policy is not None:
                self._connected(domain, each, each.policy, each.name, each.address)
        if attempt.policy is not None:
            self._connected(domain, attempt, attempt.policy, attempt.remote_name, attempt.remote_address)

    def _connected(
        self, domain: str, of: Attempt | Try, policy: TlsOutcome, name: str, address: str
    ) -> None:
        domain = domain or _canonical(policy.domain)
        if not domain:
            return
        if policy.session_us:
            session = (policy.session_us, policy.own_address, address, domain)
            if session in self._sessions:
                return
            _remember(self._sessions, session, SESSIONS_MAX)
        self._add(FeedbackKind.TLS, domain, tls_row(domain, policy, name, address))


def _sources(events: Iterable[Event], id: int) -> dict[str, list[str]]:
    """By each recipient to which aliases have led a message, from which ones."""
    found: dict[str, list[str]] = {}
    for event in events:
        if isinstance(event, Expanded) and event.id == id:
            for name in event.into[:_INTO_MAX]:
                found.setdefault(name.lower(), []).append(event.recipient)
    return found


def dmarc_row(evaluation: Evaluation, facts: DmarcFacts) -> DmarcRow:
    """The row to which a message belongs, for one of its author domains."""
    disposition = _disposition(evaluation, facts)
    signatures = tuple(map(_signature, (each for each in evaluation.found if each.method == DKIM)))
    return DmarcRow(
        source_ip=evaluation.client,
        header_from=facts.author,
        disposition=disposition,
        dkim_aligned=facts.dkim_aligned,
        spf_aligned=facts.spf_aligned,
        envelope_from=evaluation.sender_domain,
        reasons=_reasons(evaluation, facts, disposition),
        dkim=tuple(preferred((each for each in signatures if each.domain), facts.author)),
        spf=_spf(evaluation),
    )


def _disposition(evaluation: Evaluation, facts: DmarcFacts) -> str:
    if facts.result != PASS:
        return evaluation.disposition
    if not dmarc_record.is_record(facts.record):
        return NONE
    record = dmarc_record.parse(facts.record)
    below = record.policy if record.subdomains is None else record.subdomains
    policy = record.policy if facts.author == facts.policy_domain else below
    return NONE if policy is Policy.NONE else PASS


def _reasons(evaluation: Evaluation, facts: DmarcFacts, disposition: str) -> tuple[tuple[str, str], ...]:
    """Why another thing was done than the domain asks for (RFC 9990 §2.1.1.10: then there MUST be a reason)."""
    if facts.result == PASS:
        return ()
    found: list[tuple[str, str]] = []
    if facts.result == FAIL and facts.applied != facts.asked:
        found.append(("policy_test_mode", ""))
    if evaluation.override:
        known = evaluation.override if evaluation.override in _REASONS else "other"
        found.append((known, shorten(evaluation.comment, _TEXT_MAX)))
    elif disposition != facts.asked and not found:
        doubt = "" if facts.result == FAIL else f"the result of DMARC is {facts.result}"
        found.append(("local_policy" if facts.result == FAIL else "other", doubt))
    return tuple(found)


def _signature(found: Found) -> DkimSeen:
    domain = found.value("header", "d") or found.value("header", "i").rpartition("@")[2]
    told = "" if found.result == PASS else shorten(found.reason, _TEXT_MAX)
    return DkimSeen(_canonical(domain), found.value("header", "s"), found.result, told)


def _spf(evaluation: Evaluation) -> SpfSeen | None:
    """What SPF said of MAIL FROM; with <> this is the name of HELO (RFC 7208 §2.4)."""
    for each in evaluation.found:
        if each.method != SPF:
            continue
        domain = each.value("smtp", "mailfrom").rpartition("@")[2]
        if not domain and not evaluation.sender_domain:
            domain = each.value("smtp", "helo")
        if domain:
            told = "" if each.result == PASS else shorten(each.reason, _TEXT_MAX)
            return SpfSeen(_canonical(domain) or domain, each.result, told)
    return None


def tls_row(domain: str, policy: TlsOutcome, host: str, address: str) -> TlsRow:
    """The row to which a connection belongs."""
    kind = policy.kind.value
    of = policy.domain if policy.kind is PolicyKind.TLSA and policy.domain else domain
    seen = TlsPolicySeen(kind, of, policy.lines[:_LINES_MAX], policy.mx[:_LINES_MAX])
    if policy.failure is TlsFailure.NO_FAILURE and policy.held:
        return TlsRow(seen)
    failure = policy.failure if policy.failure is not TlsFailure.NO_FAILURE else TlsFailure.VALIDATION_FAILURE
    return TlsRow(seen, failure.value, policy.own_address, host, "", address, shorten(policy.text, _TEXT_MAX))


def _canonical(domain: str) -> str:
    """The domain as the DNS has it; "" if the text is none."""
    try:
        found = canonical_domain(domain)
    except ValueError:
        return ""
    return found if "." in found and not found.rpartition(".")[2].isdigit() else ""


def _remember(known: dict[_K, None], key: _K, most: int) -> None:
    while len(known) >= most:
        del known[next(iter(known))]
    known[key] = None
