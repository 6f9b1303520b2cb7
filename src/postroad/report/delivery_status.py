"""The delivery status of a DSN, its second part: what became of each recipient, for programs.

RFC 3464 §2.1 to §2.3, RFC 3461 §6.3 and §9.2, RFC 6533 §3 and §4.1, RFC 2852 and RFC 4865 (wishes about time).

What always holds: nothing that a peer, a remote or a user supplied can add a line (`report.text`); a part that is not
UTF-8 is ASCII.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from postroad.mail import identifier, trace, wishes
from postroad.mail import status as codes
from postroad.mail.address import Address
from postroad.mail.attempt import Attempt
from postroad.mail.envelope import Envelope, Recipient
from postroad.mail.reply import Reply
from postroad.mail.report import DsnAction, RecipientReport
from postroad.report.options import ReportOptions
from postroad.report.text import ascii_of, clean, field, shorten, without_places

# RFC 3461 §6.3 (g): if there is no code that describes it
_UNKNOWN: Final = {
    DsnAction.FAILED: "5.0.0", DsnAction.DELAYED: "4.0.0", DsnAction.DELIVERED: "2.0.0", DsnAction.RELAYED: "2.0.0",
    DsnAction.EXPANDED: "2.0.0",
}  # fmt: skip
_DIAGNOSTIC_MAX: Final = 4_000  # characters of a remote's reply that are quoted
_DIAGNOSTIC_LINES_MAX: Final = 30


def delivery_status(
    action: DsnAction, reports: list[RecipientReport], envelope: Envelope, options: ReportOptions, utf8: bool
) -> tuple[bytes, bool]:
    """Its octets, and whether they are UTF-8 (RFC 6533 §4.1)."""
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
    return "utf-8; " + (text if utf8 else unitext(text))


def _original(orcpt: str, utf8: bool) -> str:
    """The value of ORCPT as it came (RFC 3461 §6.3 (d)); of the type utf-8, in the form that the part may hold."""
    kind, separator, address = orcpt.partition(";")
    if not separator:
        return "unknown; " + ascii_of(orcpt)  # RFC 3464 §2.3.1
    if kind.lower() != "utf-8":
        return f"{ascii_of(kind)};{ascii_of(address)}"
    text = clean(_from_unitext(address))
    return f"{ascii_of(kind)};{text if utf8 else unitext(text)}"


def unitext(text: str) -> str:
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
