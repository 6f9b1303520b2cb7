"""Events in words, for people who read the log. Pure."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from postroad.mail.envelope import Peer
from postroad.mail.evaluation import NONE, Evaluation, Found
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
from postroad.mail.numbers import counted
from postroad.mail.tls_details import TlsDetails
from postroad.report.client import behind, quoted, whereabouts
from postroad.report.notation import NAMES_MAX, duration, id_text, iso, names, reply_text
from postroad.report.text import shorten

_ACCOUNT_MAX: Final = 200  # characters of an account's name that a client has tried
# What a check was about, the first of these that it names.
_SUBJECTS: Final = frozenset(
    (("smtp", "mailfrom"), ("smtp", "helo"), ("header", "d"), ("header", "from"), ("policy", "iprev"))
)
UNSAID: Final = "closed without a reply"  # a refusal before a TLS handshake


def _attempted(event: Attempted) -> str:
    attempt = event.attempt
    to = f" to {event.destination}" if event.destination else ""  # it was not known, or there is none
    parts = [f"{attempt.outcome._value_} for {names(event.recipients)}{to}"]
    if attempt.remote_address:
        parts.append(f" at {attempt.remote_name}[{attempt.remote_address}]:{attempt.remote_port}")
    elif attempt.remote_name:
        parts.append(f" at {attempt.remote_name}")
    if attempt.tls:
        parts.append(f" ({_tls(attempt.tls, attempt.tls_details)})")
    if attempt.policy is not None:
        parts.append(f" ({attempt.policy.in_words})")
    if attempt.auth and attempt.auth not in attempt.text:
        parts.append(f" by {attempt.auth}")
    parts.append(f": {attempt.status}")
    if attempt.reply is not None:
        parts.append(f' "{reply_text(attempt.reply)}"')
    if attempt.text:
        parts.append(f" {attempt.text}")
    if attempt.signed:
        parts.append(f", signed by {', '.join(attempt.signed)}")
    if attempt.unsigned:
        parts.append(f", not signed{' by all keys' if attempt.signed else ''}: {attempt.unsigned}")
    if attempt.took_us:
        parts.append(f", in {duration(attempt.took_us)}")
    if attempt.connect_us:
        parts.append(f" + {duration(attempt.connect_us)} to connect")
    if event.attempts > 1:
        parts.append(f", attempt {event.attempts}")
    if event.next_us:
        parts.append(f", next {iso(event.next_us)}")
    return "".join(parts)


def _accepted(event: Accepted) -> str:
    parts = [f"accepted from <{event.reverse_path}> for {names(event.recipients)}, {counted(event.size, 'octet')}"]
    if event.peer.address or event.peer.hello:
        parts.append(f" by {_peer(event.peer)}")
    if event.parent:
        parts.append(f", reports on {id_text(event.parent)}")
    if event.message_id:
        parts.append(f", Message-ID {event.message_id}")
    if event.envid:
        parts.append(f", ENVID {event.envid}")
    if event.took_us:
        parts.append(f", in {duration(event.took_us)}")
    return "".join(parts)


def _refused(event: Refused) -> str:
    text = f"refused {event.phase} of {_peer(event.peer)}: {event.reply or UNSAID}"
    if event.phase == "AUTH":  # the reason is the name that was tried
        text += f"; account {quoted(shorten(event.reason, _ACCOUNT_MAX))}" if event.reason or not event.why else ""
        text += f"; {event.why}" if event.why else ""
    elif _tells_reason(event):
        text += f"; {shorten(event.reason, _ACCOUNT_MAX)}"
    text += f"; from <{event.reverse_path}>" if event.reverse_path else ""
    if event.recipients:
        return f"{text}; for {names(event.recipients)}"
    return f"{text}; for <{event.recipient}>" if event.recipient else text


def _tells_reason(event: Refused) -> bool:
    """Whether the reason says more than the reply: what the client did before it was heard, what we lack, or how many
    refusals were left out."""
    if event.reason in event.reply:
        return False
    return event.phase == "CONNECT" or event.reply[:1] == "4" or event.reason[:1] == "("


def _reported(event: Reported) -> str:
    if event.report:
        return f"reported {event.action} for {names(event.recipients)} in {id_text(event.report)}"
    return f"not reported {event.action} for {names(event.recipients)}: {event.text}"


def _session(event: SessionEnded) -> str:
    counts = f"{counted(event.messages, 'message')}, {counted(event.errors, 'error')}, {duration(event.took_us)}"
    last = f", the last: {event.refusal}" if event.refusal else ""
    return f"session of {_peer(event.peer)} ended: {event.reason}; {counts}{last}"


def _authenticated(event: Authenticated) -> str:
    return f"authenticated {_peer(event.peer)} by {event.mechanism}"


def _expanded(event: Expanded) -> str:
    return f"expanded <{event.recipient}> into {names(event.into)}"


def _failed(event: Failed) -> str:
    return f"failed for {names(event.recipients)}: {event.status} {event.text}{_by(event.by)}"


def _held(event: Held) -> str:
    return f"held for {names(event.recipients)}{_by(event.by)}{_why(event.text)}"


def _released(event: Released) -> str:
    return f"{'to be tried now' if event.now else 'released'} for {names(event.recipients)}{_by(event.by)}"


def _removed(event: Removed) -> str:
    return f"removed for {names(event.recipients)}{_by(event.by)}{_why(event.text)}"


def _noted(event: Noted) -> str:
    return event.text


def _checked(event: Inspected) -> str:
    return f"checked by {event.rule}: {event.result}{_why(event.text)}"


def _rewritten(event: Rewritten) -> str:
    return f"rewritten: {'; '.join(event.changes[:NAMES_MAX])}"


def _evaluated(event: Evaluated) -> str:
    evaluation = event.evaluation
    found = ", ".join(map(finding, evaluation.found[:NAMES_MAX])) or "nothing"
    told = evaluated_facts(evaluation)
    return f"evaluated: {found}; {'; '.join(told)}" if told else f"evaluated: {found}"


def finding(found: Found) -> str:
    """What one check found, in short: ``dkim pass (example.org)``."""
    named = next((value for ptype, name, value in found.properties if (ptype, name) in _SUBJECTS), "")
    return f"{found.method} {found.result} ({named})" if named else f"{found.method} {found.result}"


def evaluated_facts(evaluation: Evaluation) -> list[str]:
    """What else is to be told of an evaluation."""
    told = []
    if evaluation.disposition != NONE:
        told.append(f"what was done: {evaluation.disposition}")
    if evaluation.comment:
        told.append(evaluation.comment)
    if evaluation.believed:
        told.append(f"results of {evaluation.believed} are believed")
    return told


def _peer(peer: Peer) -> str:
    text = whereabouts(peer)  # first, as it is certain: what the client calls itself it may choose
    if peer.hello and peer.hello != f"[{peer.address}]":  # its address for a name is said once
        text += f" {quoted(peer.hello)}"
    text += f" {peer.protocol}"
    if peer.tls:
        text += f" ({_tls(peer.tls, peer.tls_details)})"
    if peer.identity:
        text += f" as {peer.identity}"
    if peer.listener:
        text += f" at {peer.listener}"
    told = behind(peer)
    return f"{text}, {', '.join(told)}" if told else text


def _tls(tls: str, details: TlsDetails | None) -> str:
    return tls if details is None or not details.text else f"{tls}, {details.text}"


def _by(by: str) -> str:
    return f", by {by}" if by else ""


def _why(text: str) -> str:
    return f": {text}" if text else ""


# What happened, in words; for each kind of event.
SAYS: Final[dict[type[Event], Callable[[Any], str]]] = {
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
