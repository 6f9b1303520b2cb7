"""What a courier says of one job: MAIL and RCPT for this remote, and the content as it will be sent.

`announce` makes all of it before the first command goes out; `choose` and `go_without_dsn` change which recipients are
said, and how, when the remote has limits (RFC 9422) or refuses the parameters of DSN.

What always holds: nothing here waits, sends or reads a file; each recipient of the job is either in `rest`, to be said,
or has a result. How it fails: `announce` returns the Result for all recipients, and nothing of the job may be said.

Not here: the words of the commands (`protocol.sending`); when they are said, and what the answers mean
(`deliver.smtp`, `protocol.client`); the attempts that are made of the results (`deliver.concluding`).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import msgspec

from postroad.deliver.options import DeliverOptions
from postroad.deliver.signing import AwaitedSignature, SignedForm, Signing
from postroad.deliver.stream import ContentStream, Looked
from postroad.mail.attempt import Attempt, Outcome, Reach
from postroad.mail.envelope import Body, Recipient
from postroad.mail.job import Job
from postroad.mail.message import size
from postroad.mail.route import domain_of
from postroad.protocol import sending, stuffing, tunnel
from postroad.protocol.capability import Capabilities
from postroad.protocol.line_breaking import broken
from postroad.protocol.sending import MailCommand, Result, Security
from postroad.protocol.seven_bit import Plan
from postroad.protocol.xclient import xforward

Done = Callable[[Job, tuple[Attempt, ...]], None]

_BINARY_MIME: Final = Body.BINARY_MIME
STRAY_LINE_END: Final = Result(
    Outcome.FAILED, Reach.MESSAGE, "5.6.1",
    "the message holds a CR or LF that is not part of a line end, which this way of sending cannot carry",
)  # fmt: skip


class CarriedJob(msgspec.Struct, eq=False):
    """A job that a courier carries, and what becomes of it.

    `started_us`: wall time; `ends`: loop time by which its transactions must be over. `results`: one for each of its
    recipients, None as long as there is none. `recipients`: as they are named to the remote. `rest`: the recipients
    whose RCPT is still to be said, each with its position in the job and its command; `round`: those of the
    transaction under way. `facts`: XFORWARD commands, said before each transaction. `ready`: the content and its end,
    if they are sent in one go; else `stream` reads the content. `plan`: how the content is converted; `line_max`: where
    its lines are broken, 0 if they are not. `with_dsn`: positions of the recipients who were said with parameters of
    DSN before the remote refused these parameters of others. `changed`: what was changed of the header section for this
    remote, in words. `form`: how it is signed, None as long as nobody was asked."""

    job: Job
    done: Done
    started_us: int
    ends: float
    results: list[Result | None]
    recipients: list[Recipient] = []
    rest: list[tuple[int, bytes]] = []
    round: list[tuple[int, bytes]] = []
    opening: MailCommand = MailCommand(b"", False, False)
    facts: list[bytes] = []
    ready: tuple[bytes, ...] | None = None
    stream: ContentStream | None = None
    plan: Plan | None = None
    line_max: int = 0
    with_dsn: set[int] = set()
    changed: str = ""
    form: SignedForm | None = None


def announce(
    work: CarriedJob, looked: Looked | None, offered: Capabilities, security: Security, options: DeliverOptions,
    signing: Signing | None = None,
) -> Result | AwaitedSignature | None:
    """Makes the commands of a job for a remote that offers this, and its content if it is sent in one go. `looked`:
    what was found in the content, None if it was not looked through. `signing`: who signs, None if nobody does.
    Returns the result for all recipients if the remote cannot have the message; the signature if it must be waited for:
    then call it again with `work.form` set; else None."""
    job = work.job
    envelope, content = job.envelope, job.content
    if job.is_renamed:
        envelope = msgspec.structs.replace(envelope, reverse_path=job.reverse_path)
    content_size, inspection = size(envelope, content), None
    if looked is not None:
        work.plan, content_size, inspection = looked.plan, looked.size, looked.inspection
        content = content if looked.octets is None else looked.octets
    line_max = 0
    if envelope.long_lines and not security.final and envelope.body is not _BINARY_MIME:  # binary has no lines
        line_max = options.line_max
        if line_max and isinstance(content, bytes) and (work.plan is None or content is not job.content):
            # Other content is still to be converted, and its lines are broken then, piece by piece.
            content = broken(content, line_max)
            content_size, line_max = len(content), 0
    recipients = work.recipients = job.named()
    asking = envelope.parameters != ()
    utf8_wanted = False
    for recipient in recipients:
        if not recipient.address.is_ascii:
            utf8_wanted = True
        if recipient.parameters:
            asking = True
    prefix, waited_s = b"", 0
    if asking:
        prefix = tunnel.fields(envelope, recipients, offered, priority=options.mt_priority_tunnel)
        waited_s = max(0, work.started_us - envelope.accepted_us) // 1_000_000
    if signing is not None and signing.on:
        if work.form is None:
            made = signing.of(job, content, work.plan, prefix, line_max, final=security.final)
            if not isinstance(made, SignedForm):
                return made
            work.form = made
        prefix = work.form.fields + prefix
    opening = sending.opening(
        envelope, content_size + len(prefix), offered, security, utf8_wanted=utf8_wanted,
        inspection=inspection, bdat_size_min=options.bdat_size_min, by_data=line_max > 0,
        waited_s=waited_s, prefix=prefix, eight_bit=options.eight_bit,
    )  # fmt: skip
    if isinstance(opening, Result):
        return opening
    work.opening = opening
    if job.destination.xforward and "XFORWARD" in offered.keywords:
        work.facts = xforward(envelope, offered.keywords["XFORWARD"])
    work.line_max = line_max
    if isinstance(content, bytes) and (len(content) <= options.whole_max or content is not job.content):
        if opening.bdat:
            work.ready = (b"BDAT %d LAST\r\n" % (len(prefix) + len(content)), prefix, content)
        else:
            seen = job.only_crlf and content is job.content
            work.ready = stuffing.stuffed(prefix + content if prefix else content, seen=seen)
            if work.ready is None:
                return STRAY_LINE_END
    for position, recipient in enumerate(recipients):
        command = sending.rcpt(recipient, offered, smtputf8=opening.smtputf8, final=security.final)
        if isinstance(command, Result):
            work.results[position] = command
        else:
            work.rest.append((position, command))
    return None


def choose(work: CarriedJob, offered: Capabilities, domains: set[str]) -> bool:
    """Moves recipients from `rest` to `round`, as many as the remote's LIMITS allow: in one transaction (RFC 9422
    §4.2), and of no more domains than in one session (§4.3). `domains`: those said in this session; the new ones are
    added. Returns whether the session has no room for another domain, although mail for one may come."""
    rcpt_max, domain_max = offered.rcpt_max, offered.rcpt_domain_max
    chosen: list[tuple[int, bytes]] = []
    left: list[tuple[int, bytes]] = []
    for entry in work.rest:
        domain = work.recipients[entry[0]].address.domain
        no_room = domain_max and domain not in domains and len(domains) >= domain_max
        if no_room or (rcpt_max and len(chosen) >= rcpt_max):
            left.append(entry)
        else:
            domains.add(domain)
            chosen.append(entry)
    work.round, work.rest = chosen, left
    # Mail to a destination by MX is of one domain; to another hop the next may be of any.
    alone = domain_of(work.job.destination.key) in domains
    return bool(domain_max) and len(domains) >= domain_max and not alone


def go_without_dsn(work: CarriedJob) -> bool:
    """If the remote has refused the parameters of DSN (RFC 5321 §4.2.2: 555), the recipients concerned are to be said
    again without them (RFC 3461 §5.2.2), and reports are ours to make. Returns whether it is so."""
    by_mail = sending.asks_for_dsn(work.opening.mail)
    refused = [
        (position, command)
        for position, command in work.round
        if _refuses_parameters(work.results[position]) and (by_mail or sending.asks_for_dsn(command))
    ]
    if not refused:
        return False
    work.with_dsn = {position for position, _ in work.round} - {position for position, _ in refused}
    for position, _ in refused:
        work.results[position] = None
    work.rest = [(position, sending.without_dsn(command)) for position, command in (*refused, *work.rest)]
    opening = work.opening
    work.opening = msgspec.structs.replace(opening, mail=sending.without_dsn(opening.mail))
    return True


def _refuses_parameters(result: Result | None) -> bool:
    return result is not None and result.reply is not None and result.reply.code == 555
