"""How a job has ended: the attempts of its recipients, and results of our own when the remote says nothing.

Pure functions: the results of the protocol and what is known of the session in, attempts out. What always holds: there
is one attempt for each recipient of the job, in their order. Nothing fails here.

Not here: what an answer of the remote means (`protocol.client`), what becomes of a recipient (`queue.settling`).
"""

from __future__ import annotations

from typing import Final

import msgspec

from postroad.deliver.announcing import CarriedJob
from postroad.deliver.signing import UNSIGNED
from postroad.mail.address import path
from postroad.mail.attempt import Attempt, Outcome, Reach, Try
from postroad.mail.job import Job
from postroad.mail.route import Hop
from postroad.mail.status import with_class
from postroad.mail.tls_details import TlsDetails
from postroad.mail.tls_policy import TlsOutcome
from postroad.protocol.capability import Capabilities
from postroad.protocol.client import NO_MAIL
from postroad.protocol.client_events import Step
from postroad.protocol.sending import Result, Security
from postroad.protocol.seven_bit import ConversionTarget, Plan

NOT_TRIED: Final = Result(
    Outcome.DEFERRED, Reach.SESSION, "4.5.3", "no room for this recipient in a transaction of this connection"
)
CLOSED: Final = Result(Outcome.DEFERRED, Reach.SESSION, "4.4.2", "the connection is closed")
_NO_GROUPS: Final = "; for some time this host gets one command at a time, though it offers PIPELINING"
_BITS: Final = {ConversionTarget.SEVEN_BIT: "7 bit", ConversionTarget.EIGHT_BIT: "8 bit"}
_WAITED_FOR: Final = {
    Step.GREETING: "the connection", Step.HELLO: "EHLO", Step.HANDSHAKE: "the TLS handshake",
    Step.END: "the end of data", Step.DOT: "the end of data",
}  # fmt: skip
# What we do ourselves, while the remote waits.
_OURS: Final = {
    Step.IDLE: "we could not go on", Step.RESPONSE: "we could not answer the challenge of AUTH",
}  # fmt: skip


class SessionUsed(msgspec.Struct, frozen=True):
    """What the attempts of a job tell of the session that carried it. `transport`: its name (`mail.route.Transport`).
    `tls`: in words, "" without TLS. `connect_us`: how long the connection took, and `tries`: the hosts that were tried
    before this one; both are told with the first job only. `policy`: what the TLS policy of the remote came to."""

    hop: Hop
    transport: str
    security: Security = Security()
    tls: str = ""
    tls_details: TlsDetails | None = None
    connect_us: int = 0
    tries: tuple[Try, ...] = ()
    policy: TlsOutcome | None = None


def attempts_of(
    work: CarriedJob, rest: Result, offered: Capabilities, session: SessionUsed, now_us: int
) -> tuple[Attempt, ...]:
    """One attempt for each recipient of the job. `rest` is the result of those that have none of their own."""
    took_us = max(0, now_us - work.started_us)
    hop, connect_us, transport = session.hop, session.connect_us, session.transport
    tls, tls_details, auth = session.tls, session.tls_details, session.security.auth
    by_passed = work.job.envelope.parameters != () and "DELIVERBY" in offered.keywords
    converted = "" if work.plan is None else _conversion(work.plan)
    if work.changed:
        converted = f"{converted}; {work.changed}" if converted else work.changed
    renamed = work.job.is_renamed
    form = work.form if work.form is not UNSIGNED else None
    made: list[Attempt] = []
    last: Result | None = None
    for position, result in enumerate(work.results):
        if result is None:
            result = rest
        dsn = offered.dsn or position in work.with_dsn
        if result is not last or renamed:
            last = result
            text = result.text
            if converted:
                text = f"{text}; {converted}" if text else converted
            if renamed:
                names = _names(work.job, position)
                text = f"{text}; {names}" if text else names
            attempt = Attempt(
                result.outcome, result.reach, result.status, text, result.reply, hop.name, hop.address, hop.port, tls,
                dsn, work.started_us, took_us, connect_us, transport, by_passed, tls_details, auth,
            )
            if form is not None:
                attempt = msgspec.structs.replace(attempt, signed=form.names, unsigned=form.why_not)
        made.append(attempt)
    if session.tries or session.policy is not None:
        changes = {"tries": session.tries, "policy": session.policy}
        return tuple([msgspec.structs.replace(each, **changes) for each in made])
    return tuple(made)


def softened(result: Result) -> Result:
    """Makes a deferral of a refused session, unless the host says that it never takes mail: only then does the refusal
    fail the mail. A result of our own (REQUIRETLS) stays as it is."""
    if result.outcome is not Outcome.FAILED or result.reply is None or result.reply.code in NO_MAIL:
        return result
    return Result(Outcome.DEFERRED, result.reach, with_class(result.status, "4"), result.text, result.reply)


def unreadable(reason: str) -> Result:
    """The result of a job whose content could not be read from the spool."""
    return Result(Outcome.DEFERRED, Reach.MESSAGE, "4.3.0", f"the content could not be read: {reason}")


def silent(step: Step, limit_s: float) -> Result:
    """The result if a step took longer than its limit."""
    if step is Step.CONTENT:
        text = f"the remote took no data for {limit_s:g} s"
    elif step in _OURS:
        text = f"{_OURS[step]} within {limit_s:g} s"
    else:
        text = f"no answer to {_WAITED_FOR.get(step, step.name)} within {limit_s:g} s"
    return Result(Outcome.DEFERRED, Reach.SESSION, "4.4.2", text)


def over_time(step: Step, limit_s: float) -> Result:
    """The result if all transactions of a job together took longer than their limit, which passed in this step."""
    found = silent(step, limit_s)
    text = f"the transaction took longer than {limit_s:g} s: {found.text}"
    return Result(found.outcome, found.reach, found.status, text)


def answered_in_part(silence: Result) -> Result:
    """The result if the remote has answered MAIL, but not what came in one group with it."""
    return Result(silence.outcome, silence.reach, silence.status, silence.text + _NO_GROUPS)


def _conversion(plan: Plan) -> str:
    """Says that the content was sent otherwise than it stands in the spool; "" if it was not."""
    if not plan.changes and not plan.encodings and plan.target is ConversionTarget.EIGHT_BIT:
        return ""
    text = f"converted to {_BITS[plan.target]}"
    return f"{text}, also under multipart/signed, so that the signature may not hold" if plan.signed else text


def _names(job: Job, position: int) -> str:
    """By which names the message was sent, as far as they are not those of the envelope."""
    names = [f"from {path(job.reverse_path)}"] if job.reverse_path != job.envelope.reverse_path else []
    if job.forward_paths:
        names.append(f"to {path(job.forward_paths[position])}")
    return f"sent {' '.join(names)}"
