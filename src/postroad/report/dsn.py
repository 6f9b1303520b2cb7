"""Delivery status notifications: decides whether the sender is told, and makes the message.

RFC 3461 (NOTIFY, RET, ENVID, ORCPT), RFC 3464 (message/delivery-status), RFC 6522 (multipart/report), RFC 6533 (UTF-8),
RFC 5321 §6.1, RFC 3834 (Auto-Submitted), RFC 8689 §5 (REQUIRETLS). Its parts: the text for people (`report.explain`),
the delivery status (`report.delivery_status`), and what is returned of the message (`report.returned_part`).

What always holds: a DSN has the null reverse-path and NOTIFY=NEVER, and none is made for a message that has the null
reverse-path itself, so none can answer another; all recipients that share an action share one DSN; nothing that a
peer, a remote or a user supplied can add a line to a header field or to the delivery status, or a part to the report
(`report.text`, and a boundary that the content does not hold); all lines have at most 998 octets.

The form is the simplest, which every host takes: the text, the delivery status and the returned message are 7-bit.
SMTPUTF8 is used only if the reverse-path itself needs it, to hosts that take 8-bit mail, too (RFC 6531 §3.1): then the
UTF-8 media types go as 8bit, else they are encoded (RFC 6533 §4.5).

How it fails: if the content cannot be read any more, the report goes without it. Not here: when to report (the queue
knows), and storing the report, which is one commit with the settlement (promise 3).
"""

from __future__ import annotations

import binascii
from collections.abc import Callable, Iterable, Sequence
from typing import Final

import msgspec

from postroad.mail import identifier, verp, wishes
from postroad.mail.address import Address
from postroad.mail.attempt import Attempt, Outcome
from postroad.mail.envelope import Body, Envelope, Notify, Peer, Recipient
from postroad.mail.event import Accepted, Event, Reported
from postroad.mail.expansion import Expansion
from postroad.mail.message import Content
from postroad.mail.report import DsnAction, RecipientReport, action_of, wants
from postroad.report.delivery_status import delivery_status, unitext
from postroad.report.explain import ReportFacts, explanation, subject
from postroad.report.options import ReportOptions
from postroad.report.own_mail import LISTENER, LISTENER_POSTMASTER, acceptance, first_fields, mailbox
from postroad.report.returned_part import Read, has_long_line, returned_part
from postroad.report.text import clean, field
from postroad.store.content import head
from postroad.store.values import Stored

_FAILED_NAMED_MAX: Final = 100  # recipients that X-Failed-Recipients names

Refusal = Callable[[Address, int], str]
"""Why no more reports go to this address of a stranger now, "" if they do."""


class Made(msgspec.Struct, frozen=True):
    """What the settlement of the reported recipients takes in: DSNs to accept, and what is to be told of them."""

    accepted: tuple[Stored, ...] = ()
    events: tuple[Event, ...] = ()


NOTHING: Final = Made()


def make(
    reports: Iterable[RecipientReport],
    envelope: Envelope,
    content: Content | None,
    options: ReportOptions,
    *,
    now_us: int,
    new_id: Callable[[int], int],
    read: Read,
    refusal: Refusal = lambda to, now_us: "",
) -> Made:
    """The DSNs for recipients of one message that have come to their end or to a delay together, one per action.

    `content` None: it can no longer be read, the report then goes without it. `read` gives the first octets of a
    content file. `new_id(shard)`: a report is kept in the shard of the message, so that they can share a commit.
    `refusal`: asked if the message is of a client neither trusted nor authenticated. A failure of which nobody can be
    told gives an event that says why, and so does a report that is one too many.
    """
    told: dict[DsnAction, list[RecipientReport]] = {}
    untold: dict[str, list[RecipientReport]] = {}
    for report in reports:
        why = _why_not(report, envelope, options)
        if why is None:
            told.setdefault(report.action, []).append(report)
        elif why:
            untold.setdefault(why, []).append(report)
    shard = identifier.shard_of(envelope.id)
    accepted: list[Stored] = []
    events: list[Event] = [
        Reported(now_us, envelope.id, _names(those), DsnAction.FAILED.value, 0, why) for why, those in untold.items()
    ]
    each_apart = verp.delimiters(envelope)
    for action, those in _groups(told, apart=each_apart != ""):
        if envelope.reverse_path is not None and not envelope.peer.is_known:
            why = refusal(envelope.reverse_path, now_us)
            if why:
                events.append(Reported(now_us, envelope.id, _names(those), action.value, 0, why))
                continue
        heard = _heard(envelope, those[0].recipient, each_apart) if each_apart else envelope
        stored = _message(action, those, heard, content, options, now_us, new_id(shard), read)
        accepted.append(stored)
        events.append(Reported(now_us, envelope.id, _names(those), action.value, stored.envelope.id))
        events.append(acceptance(stored.envelope))
    return Made(tuple(accepted), tuple(events)) if events else NOTHING


def _groups(
    told: dict[DsnAction, list[RecipientReport]], *, apart: bool
) -> list[tuple[DsnAction, list[RecipientReport]]]:
    """Who is told of in one report. `apart`: the sender has another name for each recipient."""
    if not apart:
        return list(told.items())
    return [(action, [each]) for action, those in told.items() for each in those]


def _heard(envelope: Envelope, recipient: Recipient, delimiters: str) -> Envelope:
    """The envelope with the sender that this recipient has heard of."""
    assert envelope.reverse_path is not None
    sender = verp.named(envelope.reverse_path, recipient, delimiters)
    return msgspec.structs.replace(envelope, reverse_path=sender)


def _why_not(report: RecipientReport, envelope: Envelope, options: ReportOptions) -> str | None:
    """None: tell. "": do not, and nothing is to be said of it. Else: why a failure is told to nobody."""
    if envelope.reverse_path is None:
        # RFC 3461 §5.2, RFC 5321 §6.1: never a DSN to the null reverse-path; the postmaster may be told of a failure.
        return _why_not_postmaster(report, envelope, options) if report.action is DsnAction.FAILED else ""
    if report.traced or wants(report.recipient.notify, report.action, dsn_passed=report.attempt.dsn_passed):
        return None
    return "the sender asked not to be told" if report.action is DsnAction.FAILED else ""


def _why_not_postmaster(report: RecipientReport, envelope: Envelope, options: ReportOptions) -> str | None:
    postmaster = mailbox(options.postmaster)
    if postmaster is None:
        return "no return address, and no postmaster is set"
    recipient = report.recipient
    if envelope.peer.listener == LISTENER_POSTMASTER or postmaster in (recipient.address, recipient.given):
        return "no return address, and it could not be delivered to the postmaster"
    return None


def _names(reports: Iterable[RecipientReport]) -> tuple[str, ...]:
    return tuple([report.recipient.name for report in reports])


ExpandNow = Callable[[int, int, tuple[Recipient, ...]], Expansion | None]
"""What aliases make of the recipients of a report; None if they cannot be looked up at once."""


class Reporter:
    """What the queue calls: `make` with the node's settings, clock and ids."""

    def __init__(
        self,
        options: ReportOptions,
        now_us: Callable[[], int],
        new_id: Callable[[int], int],
        read: Read = head,
        refusal: Refusal = lambda to, now_us: "",
        expand: ExpandNow = lambda id, now_us, recipients: None,
    ) -> None:
        self._expand = expand
        self._options = options
        self._now_us = now_us
        self._new_id = new_id
        self._read = read
        self._refusal = refusal

    def take(self, options: ReportOptions) -> None:
        """Settings."""
        self._options = options

    def __call__(
        self,
        envelope: Envelope,
        outcomes: Sequence[tuple[int, Attempt]],
        *,
        delayed: bool,
        content: Content | None,
        until_us: int,
    ) -> tuple[tuple[Stored, ...], tuple[Event, ...]]:
        """DSNs and events for recipients (by their indexes in the envelope) and the attempts that ended them.

        `delayed`: they are tried further, until `until_us`. A transient status that has ended a recipient means that
        its time was over (RFC 3464 §2.3.4 keeps the class 4 of what stood in the way).
        """
        reports = [
            RecipientReport(
                envelope.recipients[index],
                DsnAction.DELAYED if delayed else action_of(attempt.outcome),
                attempt,
                expired=not delayed and attempt.outcome is Outcome.FAILED and attempt.status.startswith("4"),
                until_us=until_us,
                traced=bool(envelope.parameters)
                and wishes.traces_relay(envelope, envelope.recipients[index], attempt),
            )
            for index, attempt in outcomes
        ]
        return self.make(reports, envelope, content)

    def make(
        self, reports: Iterable[RecipientReport], envelope: Envelope, content: Content | None,
        new_id: Callable[[int], int] | None = None,
    ) -> tuple[tuple[Stored, ...], tuple[Event, ...]]:
        """DSNs and events for reports that are made already, such as those of an alias's expansion."""
        accepted: tuple[Stored, ...] = ()
        events: tuple[Event, ...] = ()
        for whole, those in _by_sender(envelope, tuple(reports)):
            made = make(
                those, whole, content, self._options, now_us=self._now_us(), new_id=new_id or self._new_id,
                read=self._read, refusal=self._refusal,
            )
            accepted, events = accepted + made.accepted, events + made.events
        return self._led(accepted, events) if accepted else (accepted, events)

    def _led(
        self, accepted: tuple[Stored, ...], events: tuple[Event, ...]
    ) -> tuple[tuple[Stored, ...], tuple[Event, ...]]:
        """The reports whose recipients are aliases of ours, for those whom the aliases mean."""
        for place, stored in enumerate(accepted):
            envelope = stored.envelope
            found = self._expand(envelope.id, envelope.accepted_us, envelope.recipients)
            if found is None or not found.events or not found.recipients:
                continue
            recipients = tuple(msgspec.structs.replace(each, sender=None) for each in found.recipients)
            whole = msgspec.structs.replace(envelope, recipients=recipients)
            led = msgspec.structs.replace(stored, envelope=whole)
            accepted = (*accepted[:place], led, *accepted[place + 1 :])
            events = tuple(
                acceptance(whole) if isinstance(each, Accepted) and each.id == whole.id else each for each in events
            )
            events += found.events
        return accepted, events


def _by_sender(
    envelope: Envelope, reports: tuple[RecipientReport, ...]
) -> Iterable[tuple[Envelope, tuple[RecipientReport, ...]]]:
    """The reports for each sender, with the envelope as his recipients have it."""
    if all(report.recipient.sender is None for report in reports):
        return ((envelope, reports),)
    found: dict[Address | None, list[RecipientReport]] = {}
    for report in reports:
        found.setdefault(report.recipient.sender, []).append(report)
    return [(envelope.of(those[0].recipient), tuple(those)) for those in found.values()]


# The message


def _message(
    action: DsnAction,
    reports: list[RecipientReport],
    envelope: Envelope,
    content: Content | None,
    options: ReportOptions,
    now_us: int,
    number: int,
    read: Read,
) -> Stored:
    to_postmaster = envelope.reverse_path is None
    to = envelope.reverse_path or mailbox(options.postmaster)
    assert to is not None  # _why_not has seen to it
    utf8 = not to.is_ascii
    name = identifier.text(number)
    section, returned, eight_bit = returned_part(action, envelope, content, options, utf8, read)
    told = ReportFacts(action, reports, envelope, options, section, now_us, to_postmaster=to_postmaster)
    status, status_utf8 = delivery_status(action, reports, envelope, options, utf8)
    text, text_encoding = _text(explanation(told))
    boundary = _boundary(name, (text, status, *returned))
    message_id = f"<{name}.report@{options.hostname}>"
    header = "".join((
        first_fields(to, subject(told), message_id, options, now_us),
        _failed_recipients(reports) if action is DsnAction.FAILED and not utf8 else "",
        _thread(envelope.message_id),
        # RFC 3834 §5: an answer by a program, to which no program is to answer.
        "Auto-Submitted: auto-replied\r\n"
        "MIME-Version: 1.0\r\n"
        f'Content-Type: multipart/report; report-type=delivery-status;\r\n\tboundary="{boundary}"\r\n',
        # RFC 2045 §6.4: a composite part is labelled at least as wide as what it holds.
        "Content-Transfer-Encoding: 8bit\r\n" if eight_bit or status_utf8 else "",
        f"\r\nThis is a delivery report in MIME format (RFC 3464).\r\n\r\n--{boundary}\r\n"
        f"Content-Type: text/plain; charset=utf-8\r\nContent-Transfer-Encoding: {text_encoding}\r\n\r\n",
    ))  # fmt: skip
    octets = b"".join((
        header.encode(),
        text,
        f"\r\n--{boundary}\r\nContent-Type: message/{'global-' if status_utf8 else ''}delivery-status\r\n"
        f"{'Content-Transfer-Encoding: 8bit' + chr(13) + chr(10) if status_utf8 else ''}\r\n".encode(),
        status,
        f"\r\n--{boundary}\r\n".encode() if returned else b"",
        *returned,
        f"\r\n--{boundary}--\r\n".encode(),
    ))  # fmt: skip
    # RFC 8689 §5; a report is as urgent as what it reports on (RFC 6710)
    kept = [pair for pair in envelope.parameters if pair[0] in (wishes.REQUIRE_TLS, wishes.PRIORITY)]
    return Stored(
        Envelope(
            id=number,
            reverse_path=None,  # RFC 3461 §6.1, with NOTIFY=NEVER and without RET
            recipients=(Recipient(to, Notify.NEVER),),
            size=len(octets),
            accepted_us=now_us,
            peer=Peer(listener=LISTENER_POSTMASTER if to_postmaster else LISTENER),
            # RFC 6531 §3.1: SMTPUTF8 presumes 8BITMIME.
            body=Body.EIGHT_BIT_MIME if eight_bit or utf8 else Body.SEVEN_BIT,
            smtputf8=utf8,
            message_id=message_id,
            parameters=tuple(kept),
            parent=envelope.id,
        ),
        octets,
    )


def _boundary(name: str, returned: tuple[bytes, ...]) -> str:
    """A delimiter that does not occur in what is returned (RFC 2046 §5.1.1); nobody could know it, but nobody need."""
    boundary = f"report/{name}"
    number = 0
    while any(boundary.encode() in piece for piece in returned):
        number += 1
        boundary = f"report/{name}/{number}"
    return boundary


def _thread(message_id: str) -> str:
    """In-Reply-To and References (RFC 5322 §3.6.4), if the message had an id that can be quoted as it is."""
    if not message_id.startswith("<") or not message_id.endswith(">") or len(message_id) > 900:
        return ""
    if not message_id.isascii() or not message_id.isprintable() or " " in message_id:
        return ""
    return f"In-Reply-To: {message_id}\r\nReferences: {message_id}\r\n"


def _failed_recipients(reports: list[RecipientReport]) -> str:
    """Recipients that the delivery status can only name with the type utf-8, which hardly any reader of reports knows:
    in a field that they do read, in the 7-bit form of RFC 6533 §3."""
    named = (report.recipient.given or report.recipient.address for report in reports)
    names = [unitext(clean(str(address))) for address in named if not address.is_ascii]
    return field("X-Failed-Recipients", ", ".join(names[:_FAILED_NAMED_MAX])) if names else ""


def _text(lines: list[str]) -> tuple[bytes, str]:
    """The part for people, and its encoding: as it stands if it is ASCII."""
    text = "\r\n".join(lines) + "\r\n"
    octets = text.encode("utf-8", "backslashreplace")
    if octets.isascii() and not has_long_line(octets):
        return octets, "7bit"
    return binascii.b2a_qp(octets, istext=True), "quoted-printable"
