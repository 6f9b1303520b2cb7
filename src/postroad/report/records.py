"""Events as records of the JSON log: one Struct for each kind of event, whose fields are the keys of its lines. Pure.

What always holds: the keys are the same for every event of a kind, in one order, and stay: ``time`` (ISO 8601, UTC,
microseconds), ``level``, ``kind``, ``id`` (queue id, "" for none), then the fields of the Struct. Durations are in
microseconds (``*_us``). The names of kinds are those of `mail.event`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, get_args

import msgspec

from postroad.mail.evaluation import DmarcFacts, Found
from postroad.mail.event import (
    Accepted,
    Attempted,
    Authenticated,
    Evaluated,
    Event,
    Expanded,
    Failed,
    Held,
    Inspected,
    Noted,
    Refused,
    Released,
    Removed,
    Reported,
    Rewritten,
    SessionEnded,
)
from postroad.mail.tls_policy import TlsOutcome
from postroad.report.client import ClientLine, TlsLine, client_line, tls_line
from postroad.report.notation import NAMES_MAX, id_text, iso, reply_text


class _Line(msgspec.Struct):
    time: str
    level: str
    kind: str
    id: str


class _Named(_Line):
    recipients: tuple[str, ...]  # the first 100
    recipient_count: int


class AttemptedLine(_Named):
    destination: str
    outcome: Any  # the enums are encoded as their values
    reach: Any
    status: str
    text: str
    reply: str
    transport: str
    remote_name: str
    remote_address: str
    remote_port: int
    tls: str
    took_us: int
    connect_us: int
    attempts: int
    next: str | None
    tls_details: TlsLine | None
    auth: str
    signed: tuple[str, ...]
    unsigned: str
    tls_policy: PolicyLine | None


class PolicyLine(msgspec.Struct):
    level: str
    kind: Any
    source: str
    domain: str
    held: bool
    failure: Any
    text: str
    testing: bool


class AcceptedLine(_Named):
    reverse_path: str
    size: int
    message_id: str
    envid: str
    parent: str
    took_us: int
    client: ClientLine


class SessionLine(_Line):
    reason: str
    messages: int
    errors: int
    took_us: int
    client: ClientLine
    refusal: str


class RefusedLine(_Line):
    phase: str
    reply: str
    reverse_path: str
    recipient: str
    client: ClientLine
    reason: str
    recipients: tuple[str, ...]
    recipient_count: int
    why: str


class AuthenticatedLine(_Line):
    mechanism: str
    client: ClientLine


class ExpandedLine(_Line):
    recipient: str
    into: tuple[str, ...]  # the first 100
    into_count: int


class FailedLine(_Named):
    status: str
    text: str
    by: str


class ReportedLine(_Named):
    action: str
    report: str
    text: str


class HeldLine(_Named):
    by: str
    text: str


class ReleasedLine(_Named):
    by: str
    now: bool


class RemovedLine(_Named):
    by: str
    text: str


class NotedLine(_Line):
    text: str


class CheckedLine(_Line):
    rule: str
    result: str
    text: str


class RewrittenLine(_Line):
    changes: tuple[str, ...]
    changes_count: int


class FoundLine(msgspec.Struct):
    method: str
    result: str
    reason: str
    properties: dict[str, str]  # the first of each name
    told: str


class DmarcLine(msgspec.Struct):
    author: str
    result: str
    policy_domain: str
    organizational: str
    record: str
    tag: str
    asked: str
    applied: str
    spf_aligned: bool
    dkim_aligned: bool


class EvaluatedLine(_Line):
    address: str
    hello: str
    sender_domain: str
    found: tuple[FoundLine, ...]  # the first 100
    dmarc: tuple[DmarcLine, ...]
    disposition: str
    override: str
    comment: str
    believed: str
    queries: int


# These two kinds are written for each message. Their fields stand by place, in the order of the Struct: msgspec needs
# 1 µs more for the 23 fields of an attempt if they are given by keyword.


def _attempted(event: Attempted, time: str, level: str, kind: str, id: str) -> AttemptedLine:
    attempt = event.attempt
    return AttemptedLine(
        time,
        level,
        kind,
        id,
        event.recipients[:NAMES_MAX],
        len(event.recipients),
        event.destination,
        attempt.outcome,
        attempt.reach,
        attempt.status,
        attempt.text,
        reply_text(attempt.reply),
        attempt.transport,
        attempt.remote_name,
        attempt.remote_address,
        attempt.remote_port,
        attempt.tls,
        attempt.took_us,
        attempt.connect_us,
        event.attempts,
        iso(event.next_us) if event.next_us else None,
        tls_line(attempt.tls_details),
        attempt.auth,
        attempt.signed,
        attempt.unsigned,
        None if attempt.policy is None else _policy(attempt.policy),
    )


def _policy(policy: TlsOutcome) -> PolicyLine:
    return PolicyLine(
        policy.level, policy.kind, policy.source, policy.domain, policy.held, policy.failure, policy.text,
        policy.testing,
    )  # fmt: skip


def _accepted(event: Accepted, time: str, level: str, kind: str, id: str) -> AcceptedLine:
    return AcceptedLine(
        time,
        level,
        kind,
        id,
        event.recipients[:NAMES_MAX],
        len(event.recipients),
        event.reverse_path,
        event.size,
        event.message_id,
        event.envid,
        id_text(event.parent) if event.parent else "",
        event.took_us,
        client_line(event.peer),
    )


# All other kinds give their fields by keyword.


def _session(event: SessionEnded, time: str, level: str, kind: str, id: str) -> SessionLine:
    return SessionLine(
        time=time,
        level=level,
        kind=kind,
        id=id,
        reason=event.reason,
        messages=event.messages,
        errors=event.errors,
        took_us=event.took_us,
        client=client_line(event.peer),
        refusal=event.refusal,
    )


def _refused(event: Refused, time: str, level: str, kind: str, id: str) -> RefusedLine:
    return RefusedLine(
        time=time,
        level=level,
        kind=kind,
        id=id,
        phase=event.phase,
        reply=event.reply,
        reverse_path=event.reverse_path,
        recipient=event.recipient,
        client=client_line(event.peer),
        reason=event.reason,
        recipients=event.recipients[:NAMES_MAX],
        recipient_count=len(event.recipients),
        why=event.why,
    )


def _authenticated(event: Authenticated, time: str, level: str, kind: str, id: str) -> AuthenticatedLine:
    return AuthenticatedLine(
        time=time,
        level=level,
        kind=kind,
        id=id,
        mechanism=event.mechanism,
        client=client_line(event.peer),
    )


def _expanded(event: Expanded, time: str, level: str, kind: str, id: str) -> ExpandedLine:
    return ExpandedLine(
        time=time,
        level=level,
        kind=kind,
        id=id,
        recipient=event.recipient,
        into=event.into[:NAMES_MAX],
        into_count=len(event.into),
    )


def _failed(event: Failed, time: str, level: str, kind: str, id: str) -> FailedLine:
    return FailedLine(
        time=time,
        level=level,
        kind=kind,
        id=id,
        recipients=event.recipients[:NAMES_MAX],
        recipient_count=len(event.recipients),
        status=event.status,
        text=event.text,
        by=event.by,
    )


def _reported(event: Reported, time: str, level: str, kind: str, id: str) -> ReportedLine:
    return ReportedLine(
        time=time,
        level=level,
        kind=kind,
        id=id,
        recipients=event.recipients[:NAMES_MAX],
        recipient_count=len(event.recipients),
        action=event.action,
        report=id_text(event.report) if event.report else "",
        text=event.text,
    )


def _held(event: Held, time: str, level: str, kind: str, id: str) -> HeldLine:
    return HeldLine(
        time=time,
        level=level,
        kind=kind,
        id=id,
        recipients=event.recipients[:NAMES_MAX],
        recipient_count=len(event.recipients),
        by=event.by,
        text=event.text,
    )


def _released(event: Released, time: str, level: str, kind: str, id: str) -> ReleasedLine:
    return ReleasedLine(
        time=time,
        level=level,
        kind=kind,
        id=id,
        recipients=event.recipients[:NAMES_MAX],
        recipient_count=len(event.recipients),
        by=event.by,
        now=event.now,
    )


def _removed(event: Removed, time: str, level: str, kind: str, id: str) -> RemovedLine:
    return RemovedLine(
        time=time,
        level=level,
        kind=kind,
        id=id,
        recipients=event.recipients[:NAMES_MAX],
        recipient_count=len(event.recipients),
        by=event.by,
        text=event.text,
    )


def _noted(event: Noted, time: str, level: str, kind: str, id: str) -> NotedLine:
    return NotedLine(
        time=time,
        level=level,
        kind=kind,
        id=id,
        text=event.text,
    )


def _checked(event: Inspected, time: str, level: str, kind: str, id: str) -> CheckedLine:
    return CheckedLine(
        time=time,
        level=level,
        kind=kind,
        id=id,
        rule=event.rule,
        result=event.result,
        text=event.text,
    )


def _rewritten(event: Rewritten, time: str, level: str, kind: str, id: str) -> RewrittenLine:
    return RewrittenLine(
        time=time,
        level=level,
        kind=kind,
        id=id,
        changes=event.changes[:NAMES_MAX],
        changes_count=len(event.changes),
    )


def _evaluated(event: Evaluated, time: str, level: str, kind: str, id: str) -> EvaluatedLine:
    evaluation = event.evaluation
    return EvaluatedLine(
        time=time,
        level=level,
        kind=kind,
        id=id,
        address=evaluation.client,
        hello=evaluation.hello,
        sender_domain=evaluation.sender_domain,
        found=tuple(map(_found_line, evaluation.found[:NAMES_MAX])),
        dmarc=tuple(map(_dmarc_line, evaluation.dmarc[:NAMES_MAX])),
        disposition=evaluation.disposition,
        override=evaluation.override,
        comment=evaluation.comment,
        believed=evaluation.believed,
        queries=evaluation.queries,
    )


def _found_line(found: Found) -> FoundLine:
    named: dict[str, str] = {}
    for ptype, name, value in found.properties:
        named.setdefault(f"{ptype}.{name}".encode("utf-8", "backslashreplace").decode(), value)
    return FoundLine(found.method, found.result, found.reason, named, found.told)


def _dmarc_line(facts: DmarcFacts) -> DmarcLine:
    return DmarcLine(
        facts.author, facts.result, facts.policy_domain, facts.organizational, facts.record, facts.tag, facts.asked,
        facts.applied, facts.spf_aligned, facts.dkim_aligned,
    )  # fmt: skip


_FILL: Final[dict[type[Event], Callable[[Any, str, str, str, str], _Line]]] = {
    Attempted: _attempted,
    Accepted: _accepted,
    SessionEnded: _session,
    Refused: _refused,
    Authenticated: _authenticated,
    Expanded: _expanded,
    Failed: _failed,
    Reported: _reported,
    Held: _held,
    Released: _released,
    Removed: _removed,
    Noted: _noted,
    Inspected: _checked,
    Rewritten: _rewritten,
    Evaluated: _evaluated,
}
_KINDS: Final[dict[type[Event], str]] = {each: each.__struct_config__.tag for each in get_args(Event)}


def record(event: Event, level: str) -> msgspec.Struct:
    """What a JSON line says of this event."""
    kind = type(event)
    return _FILL[kind](event, iso(event.at_us), level, _KINDS[kind], id_text(event.id) if event.id else "")
