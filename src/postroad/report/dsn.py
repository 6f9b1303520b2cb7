"""Delivery status notifications: decides whether the sender is told, and makes the message.

RFC 3461 (NOTIFY, RET, ENVID, ORCPT), RFC 3464 (message/delivery-status), RFC 6522 (multipart/report), RFC 6533 (UTF-8),
RFC 5321 §6.1, RFC 3834 (Auto-Submitted), RFC 8689 §5 (REQUIRETLS), RFC 2852 and RFC 4865 (wishes about time).

What always holds: a DSN has the null reverse-path and NOTIFY=NEVER, and none is made for a message that has the null
reverse-path itself, so none can answer another; all recipients that share an action share one DSN; nothing that a
peer, a remote or a user supplied can add a line to a header field or to the delivery status, or a part to the report
(`report.text`, and a boundary that the content does not hold); all lines have at most 998 octets.

The form is the simplest, which every host takes: the text, the delivery status and the returned message are 7-bit. If
the message is not, it is converted as for a host without 8BITMIME (`protocol.seven_bit`); if this is impossible, only
the header section is returned, quoted-printable if needed. SMTPUTF8 is used only if the reverse-path itself needs it,
to hosts that take 8-bit mail, too (RFC 6531 §3.1): then the UTF-8 media types go as 8bit, else they are encoded (RFC
6533 §4.5).

How it fails: if the content cannot be read any more, the report goes without it. Not here: when to report (the queue
knows), and storing the report, which is one commit with the settlement (promise 3).
"""

from __future__ import annotations

import binascii
from collections.abc import Callable, Iterable, Sequence
from functools import lru_cache
from typing import Final

import msgspec

from postroad.mail import identifier, trace, verp, wishes
from postroad.mail import status as codes
from postroad.mail.address import Address, canonical_domain
from postroad.mail.attempt import Attempt, Outcome
from postroad.mail.envelope import Body, Envelope, Notify, Peer, Recipient, Ret
from postroad.mail.event import Accepted, Event, Reported
from postroad.mail.expansion import Expansion
from postroad.mail.message import HEADER_MAX, Content, ContentFile, header_end, only_crlf
from postroad.mail.message import size as content_size
from postroad.mail.reply import Reply
from postroad.mail.report import DsnAction, RecipientReport, action_of, wants
from postroad.protocol import seven_bit
from postroad.report.explain import ReportFacts, explanation, subject
from postroad.report.options import ReportOptions
from postroad.report.text import ascii_of, clean, field, shorten, without_places
from postroad.store.content import head
from postroad.store.values import Stored

# RFC 3461 §6.3 (g): if there is no code that describes it
_UNKNOWN: Final = {
    DsnAction.FAILED: "5.0.0", DsnAction.DELAYED: "4.0.0", DsnAction.DELIVERED: "2.0.0", DsnAction.RELAYED: "2.0.0",
    DsnAction.EXPANDED: "2.0.0",
}  # fmt: skip
LISTENER: Final = "report"  # Peer.listener of a DSN to a sender
LISTENER_POSTMASTER: Final = "report-postmaster"  # and of one to the postmaster, whose own failure is told to nobody
_LINE_MAX: Final = 998  # RFC 5322 §2.1.1, RFC 2045 §2.7 and §2.8, CRLF not counted
_DIAGNOSTIC_MAX: Final = 4_000  # characters of a remote's reply that are quoted
_DIAGNOSTIC_LINES_MAX: Final = 30
_FAILED_NAMED_MAX: Final = 100  # recipients that X-Failed-Recipients names

Read = Callable[[Envelope, ContentFile, int], bytes]
"""The first octets of a content file, at most so many."""

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
        events.append(_accepted(stored.envelope))
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
    postmaster = _address(options.postmaster)
    if postmaster is None:
        return "no return address, and no postmaster is set"
    recipient = report.recipient
    if envelope.peer.listener == LISTENER_POSTMASTER or postmaster in (recipient.address, recipient.given):
        return "no return address, and it could not be delivered to the postmaster"
    return None


@lru_cache(maxsize=16)
def _address(mailbox: str) -> Address | None:
    """A mailbox from the settings; its local-part is taken as written."""
    local_part, _, domain = mailbox.rpartition("@")
    return Address(local_part, canonical_domain(domain)) if local_part else None


def _names(reports: Iterable[RecipientReport]) -> tuple[str, ...]:
    return tuple([report.recipient.name for report in reports])


def _accepted(envelope: Envelope) -> Accepted:
    return Accepted(
        envelope.accepted_us, envelope.id, "", tuple(each.name for each in envelope.recipients), envelope.size,
        envelope.message_id, envelope.peer, "", envelope.parent,
    )  # fmt: skip


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
                _accepted(whole) if isinstance(each, Accepted) and each.id == whole.id else each for each in events
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
    to = envelope.reverse_path or _address(options.postmaster)
    assert to is not None  # _why_not has seen to it
    utf8 = not to.is_ascii
    name = identifier.text(number)
    section, returned, eight_bit = _returned(action, envelope, content, options, utf8, read)
    told = ReportFacts(action, reports, envelope, options, section, now_us, to_postmaster=to_postmaster)
    status, status_utf8 = _delivery_status(action, reports, envelope, options, utf8)
    text, text_encoding = _text(explanation(told))
    boundary = _boundary(name, (text, status, *returned))
    message_id = f"<{name}.report@{options.hostname}>"
    header = "".join((
        field("From", f'"Mail Delivery System" <{options.sender or "MAILER-DAEMON@" + options.hostname}>'),
        field("To", clean(str(to))),
        field("Subject", subject(told)),
        f"Date: {trace.date(now_us // 1_000_000)}\r\n",
        f"Message-ID: {message_id}\r\n",
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
    names = [_unitext(clean(str(address))) for address in named if not address.is_ascii]
    return field("X-Failed-Recipients", ", ".join(names[:_FAILED_NAMED_MAX])) if names else ""


def _text(lines: list[str]) -> tuple[bytes, str]:
    """The part for people, and its encoding: as it stands if it is ASCII."""
    text = "\r\n".join(lines) + "\r\n"
    octets = text.encode("utf-8", "backslashreplace")
    if octets.isascii() and not _has_long_line(octets):
        return octets, "7bit"
    return binascii.b2a_qp(octets, istext=True), "quoted-printable"


# The delivery status (RFC 3464 §2.1 to §2.3)


def _delivery_status(
    action: DsnAction, reports: list[RecipientReport], envelope: Envelope, options: ReportOptions, utf8: bool
) -> tuple[bytes, bool]:
    """The octets of the second part, and whether they are UTF-8 (RFC 6533 §4.1)."""
    written = clean if utf8 else ascii_of
    parts = [_per_message(envelope, options)]
    outcomes: dict[tuple[int, int], str] = {}  # most recipients of a mailing share their attempt
    for report in reports:
        shared = (id(report.attempt), report.until_us)
        outcome = outcomes.get(shared)
        if outcome is None:
            outcome = outcomes[shared] = _outcome(action, report, written)
        parts.append(_named(report.recipient, utf8) + outcome)
    text = "\r\n".join(parts)
    return text.encode("utf-8", "backslashreplace"), not text.isascii()


def _per_message(envelope: Envelope, options: ReportOptions) -> str:
    hostname = options.hostname
    peer = envelope.peer
    return "".join((
        # RFC 3461 §6.3 (a): there if and only if ENVID was; its spelling is kept.
        field("Original-Envelope-Id", ascii_of(envelope.envid)) if envelope.envid else "",
        # RFC 3461 §6.3 (b): "dns" only for a fully-qualified name.
        field("Reporting-MTA", f"{'dns' if '.' in hostname else 'x-local-hostname'}; {hostname}"),
        # RFC 3464 §2.2.4: the HELO name, and the address as a comment.
        field("Received-From-MTA", f"dns; {_host(peer.hello) or 'unknown'} ({_literal(peer.address)})")
        if peer.address
        else "",
        f"Arrival-Date: {trace.date(envelope.accepted_us // 1_000_000)}\r\n",
        _asked(envelope) if envelope.parameters else "",
        f"X-Postroad-Queue-ID: {identifier.text(envelope.id)}\r\n",  # RFC 3464 §2.4 (c)
    ))  # fmt: skip


def _asked(envelope: Envelope) -> str:
    """What the sender had asked of the time: Deliver-By-Date (RFC 2852), Future-Release-Request (RFC 4865)."""
    by = wishes.deliver_by(envelope)
    lines = ""
    if by is not None:
        lines += f"Deliver-By-Date: {trace.date(envelope.accepted_us // 1_000_000 + by.seconds)}\r\n"
    for keyword, word in ((wishes.HOLDFOR, "for"), (wishes.HOLDUNTIL, "until")):
        value = wishes.parameter(envelope.parameters, keyword)
        if value is not None:
            lines += field("Future-Release-Request", f"{word};{ascii_of(value)}")
    return lines


def _named(recipient: Recipient, utf8: bool) -> str:
    """The fields that say whom it is about."""
    # RFC 3461 §6.3 (d): there if and only if ORCPT was.
    original = field("Original-Recipient", _original(recipient.orcpt, utf8)) if recipient.orcpt else ""
    # RFC 3464 §2.3.2: the mailbox as it was when we accepted the message, not what an alias made of it (§4.2).
    return original + field("Final-Recipient", _typed(recipient.given or recipient.address, utf8))


def _outcome(action: DsnAction, report: RecipientReport, written: Callable[[str], str]) -> str:
    """The fields that say what became of it."""
    attempt = report.attempt
    return "".join((
        f"Action: {action.value}\r\nStatus: {codes.parse(attempt.status) or _UNKNOWN[action]}\r\n",
        _remote(attempt),
        _diagnostic(action, attempt, written),
        f"Last-Attempt-Date: {trace.date(attempt.started_us // 1_000_000)}\r\n" if attempt.started_us else "",
        # RFC 3464 §2.3.9: only in a delay.
        f"Will-Retry-Until: {trace.date(report.until_us // 1_000_000)}\r\n"
        if report.until_us and action is DsnAction.DELAYED
        else "",
    ))  # fmt: skip


def _typed(address: Address, utf8: bool) -> str:
    """``rfc822; a@example.org``, or the "utf-8" type in the form that the part may hold (RFC 6533 §3)."""
    text = clean(str(address))
    if address.is_ascii:
        return "rfc822; " + text
    return "utf-8; " + (text if utf8 else _unitext(text))


def _original(orcpt: str, utf8: bool) -> str:
    """The value of ORCPT as it came (RFC 3461 §6.3 (d)); of the type utf-8, in the form that the part may hold."""
    kind, separator, address = orcpt.partition(";")
    if not separator:
        return "unknown; " + ascii_of(orcpt)  # RFC 3464 §2.3.1
    if kind.lower() != "utf-8":
        return f"{ascii_of(kind)};{ascii_of(address)}"
    text = clean(_from_unitext(address))
    return f"{ascii_of(kind)};{text if utf8 else _unitext(text)}"


def _unitext(text: str) -> str:
    """RFC 6533 §3 utf-8-addr-xtext: everything but QCHAR as ``\\x{HEX}``."""
    return "".join(
        char if "!" <= char <= "~" and char not in "\\+=" else f"\\x{{{ord(char):02X}}}" for char in text
    )


def _from_unitext(text: str) -> str:
    """RFC 6533 §3: the utf-8-address form; what does not conform is left as it is."""
    head, *rest = text.split("\\x{")
    decoded = [head]
    for piece in rest:
        digits, brace, tail = piece.partition("}")
        value = int(digits, 16) if brace and 2 <= len(digits) <= 6 and digits.isalnum() and _is_hex(digits) else -1
        if not 0 <= value <= 0x10FFFF or 0xD800 <= value <= 0xDFFF:
            return text
        decoded += chr(value), tail
    return "".join(decoded)


def _is_hex(digits: str) -> bool:
    return all(char in "0123456789ABCDEFabcdef" for char in digits)


def _remote(attempt: Attempt) -> str:
    """Remote-MTA (RFC 3464 §2.3.5), absent for local work and for a socket, whose path is nobody's business."""
    if attempt.remote_name and "/" not in attempt.remote_name:
        return field("Remote-MTA", f"dns; {_host(attempt.remote_name)}")
    if attempt.remote_address and "/" not in attempt.remote_address:
        return field("Remote-MTA", f"dns; {_literal(attempt.remote_address)}")
    return ""


def _diagnostic(action: DsnAction, attempt: Attempt, written: Callable[[str], str]) -> str:
    if attempt.reply is not None:
        return field("Diagnostic-Code", f"smtp; {_transcript(attempt.reply, written)}")
    if attempt.text and action in (DsnAction.FAILED, DsnAction.DELAYED):
        text = shorten(without_places(attempt.text), _DIAGNOSTIC_MAX)
        return field("Diagnostic-Code", f"x-postroad; {written(text)}")
    return ""


def _transcript(reply: Reply, written: Callable[[str], str]) -> str:
    """RFC 3461 §9.2: ``*( 3*DIGIT "-" *text ) 3*DIGIT SPACE *text``, the lines set apart by a space."""
    lines = reply.lines[:_DIAGNOSTIC_LINES_MAX] or ("",)
    status = f"{reply.status} " if reply.status else ""
    last = len(lines) - 1
    text = " ".join(
        f"{reply.code:03}{' ' if place == last else '-'}{status}{line}".rstrip() for place, line in enumerate(lines)
    )
    return written(shorten(text, _DIAGNOSTIC_MAX))


def _host(name: str) -> str:
    """A name that a peer gave itself, as one word without what would end or open a comment."""
    kept = ascii_of(name)
    return "".join(char for char in kept if char not in ' ();<>"\\')[:255]


def _literal(address: str) -> str:
    return f"[IPv6:{_host(address)}]" if ":" in address else f"[{_host(address)}]"


# The third part: what is returned of the message (RFC 3461 §4.3 and §6.2, RFC 6522 §3)


def _returned(
    action: DsnAction, envelope: Envelope, content: Content | None, options: ReportOptions, utf8: bool, read: Read
) -> tuple[bytes, tuple[bytes, ...], bool]:
    """The header section for the text's use, the third part with its own header, and whether it is 8-bit."""
    whole = content is not None and _is_whole(action, envelope, content, options)
    octets = _octets(envelope, content, whole, read)
    if octets is None:
        return b"", (), False
    section = octets[: header_end(octets)]
    if whole:
        form = _whole_form(octets, section, envelope, utf8)
        if form is not None:
            return section, *form
    return section, *_header_form(_cut_section(section, options.header_max), envelope, utf8)


def _octets(envelope: Envelope, content: Content | None, whole: bool, read: Read) -> bytes | None:
    """What is needed of the content, None if it cannot be had: the report then goes without it."""
    if content is None or isinstance(content, bytes):
        return content
    try:
        return read(envelope, content, content_size(envelope, content) if whole else HEADER_MAX)
    except OSError:
        return None


def _is_whole(action: DsnAction, envelope: Envelope, content: Content, options: ReportOptions) -> bool:
    if action is not DsnAction.FAILED or envelope.ret is Ret.HDRS:
        return False
    if wishes.parameter(envelope.parameters, wishes.REQUIRE_TLS) is not None:  # RFC 8689 §5: as if RET=HDRS
        return False
    size_max = options.full_asked_max if envelope.ret is Ret.FULL else options.full_max
    return content_size(envelope, content) <= size_max


def _whole_form(
    octets: bytes, section: bytes, envelope: Envelope, utf8: bool
) -> tuple[tuple[bytes, ...], bool] | None:
    """The part that returns the whole message and whether it is 8-bit; None if none can hold it."""
    if octets.isascii() and not _is_binary(octets, envelope):
        return (b"Content-Type: message/rfc822\r\n\r\n", octets), False
    if utf8 and not _is_binary(octets, envelope):
        kind = b"global" if envelope.smtputf8 and not section.isascii() else b"rfc822"
        return (b"Content-Type: message/" + kind + b"\r\nContent-Transfer-Encoding: 8bit\r\n\r\n", octets), True
    if envelope.smtputf8 and not section.isascii():
        if _is_binary(octets, envelope):
            return None
        # RFC 6533 §4.5: the way back is not known to know SMTPUTF8, so it MUST be encoded (RFC 6532 §3.7 allows it).
        encoded = binascii.b2a_qp(octets, istext=True)
        return (b"Content-Type: message/global\r\nContent-Transfer-Encoding: quoted-printable\r\n\r\n", encoded), False
    # RFC 2046 §5.2.1: message/rfc822 itself may not be encoded, but its parts may.
    made = _seven_bit(octets)
    return None if made is None else ((b"Content-Type: message/rfc822\r\n\r\n", made), False)


def _is_binary(octets: bytes, envelope: Envelope) -> bool:
    """Whether it is what neither 7bit nor 8bit can hold (RFC 2045 §2.7, §2.8)."""
    return envelope.body is Body.BINARY_MIME or b"\0" in octets or _has_long_line(octets)


def _seven_bit(octets: bytes) -> bytes | None:
    """The message with 7-bit parts; None if there is no way to that, or its result would not do either."""
    pieces = (octets,)
    how = seven_bit.plan(seven_bit.survey(pieces), seven_bit.ConversionTarget.SEVEN_BIT)
    if isinstance(how, str):
        return None
    made = b"".join(seven_bit.converted(pieces, how))
    fits = made.isascii() and b"\0" not in made and only_crlf(made) and not _has_long_line(made)
    return made if fits else None


def _header_form(section: bytes, envelope: Envelope, utf8: bool) -> tuple[tuple[bytes, ...], bool]:
    """The part that returns the header section alone, and whether it is 8-bit."""
    if section.isascii() and b"\0" not in section and not _has_long_line(section):
        return (b"Content-Type: text/rfc822-headers\r\n\r\n", section), False
    # RFC 6533 §4.3 for UTF-8 header fields; RFC 6522 §4 allows quoted-printable for any other that is not 7-bit.
    kind = b"message/global-headers" if envelope.smtputf8 and not section.isascii() else b"text/rfc822-headers"
    if utf8 and b"\0" not in section and not _has_long_line(section):
        return (b"Content-Type: " + kind + b"\r\nContent-Transfer-Encoding: 8bit\r\n\r\n", section), True
    encoded = binascii.b2a_qp(section, istext=True)
    return (b"Content-Type: " + kind + b"\r\nContent-Transfer-Encoding: quoted-printable\r\n\r\n", encoded), False


def _cut_section(section: bytes, size_max: int) -> bytes:
    if len(section) <= size_max:
        return section
    return section[: section.rfind(b"\n", 0, size_max) + 1]


def _has_long_line(octets: bytes) -> bool:
    """Whether a line has more than 998 octets before its CRLF; looks at one place per 1,000 octets or so."""
    start = 0
    while len(octets) - start > _LINE_MAX:
        found = octets.rfind(b"\n", start, start + _LINE_MAX + 2)
        if found < 0:
            return True
        start = found + 1
    return False
