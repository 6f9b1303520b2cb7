"""The commands of a mail transaction for a remote with given capabilities, or why the remote cannot have the message.

Pure functions: envelope and capabilities in, octets of MAIL and RCPT out, or a Result. RFC 5321 §4.1.1.2 and .3 with
SIZE (RFC 1870), 8BITMIME (RFC 6152), BINARYMIME (RFC 3030), SMTPUTF8 (RFC 6531), DSN (RFC 3461, RFC 6533), AUTH= (RFC
4954 §5), REQUIRETLS (RFC 8689), DELIVERBY (RFC 2852), MT-PRIORITY (RFC 6710), RRVS (RFC 7293). FUTURERELEASE is for
submission and is not passed on.

What always holds: no parameter goes out whose extension was not offered; no command holds CR, LF or NUL, whatever an
address or a parameter held. If the remote cannot take the message without loss, it is FAILED here, before MAIL; it is
not sent and damaged. 8-bit and binary content may have been converted before (`seven_bit`); a header in UTF-8 is not
converted on its way to another MTA (RFC 6531 §3.2).
"""

from __future__ import annotations

import enum
import re
from functools import lru_cache
from typing import Final

import msgspec

from postroad.mail import wishes
from postroad.mail.address import Address, path
from postroad.mail.attempt import Outcome, Reach
from postroad.mail.envelope import Body, Envelope, Notify, Recipient, Ret
from postroad.mail.reply import Reply
from postroad.protocol.capability import Capabilities
from postroad.protocol.grammar import orcpt_encode, xtext_encode
from postroad.protocol.seven_bit import ConversionTarget, EightBit

_CONTROL: Final = re.compile(r"[\x00-\x1f\x7f]")


# By plain names, as they are asked for with each message: on Python 3.11 a member by its class costs a look-up more.
_EIGHT_BIT: Final = Body.EIGHT_BIT_MIME
_BINARY: Final = Body.BINARY_MIME
_NO_RET: Final = Ret.UNSET
_NO_NOTIFY: Final = Notify.UNSET


class Result(msgspec.Struct, frozen=True):
    """The outcome for a recipient as far as the protocol knows it; an Attempt says also where and when."""

    outcome: Outcome
    reach: Reach
    status: str
    text: str = ""
    reply: Reply | None = None


class Security(msgspec.Struct, frozen=True):
    """What is known of the session besides its capabilities: TLS, whether the server's name was proved by its
    certificate, whether we have authenticated ourselves, whether the mail comes to its end there (LMTP), so that nobody
    else need keep what was promised of its way. `auth`: by which mechanism and as whom we have authenticated."""

    tls: bool = False
    verified: bool = False
    authenticated: bool = False
    final: bool = False
    auth: str = ""


class ContentFacts(msgspec.Struct, frozen=True):
    """What was found in the content, if `must_inspect` asks for it. `converted`: to what it has been converted, and
    will be sent so; `problem`: why it has not been."""

    ascii: bool  # all of it is ASCII
    utf8_header: bool  # a header section holds UTF-8, or may: of the message or of a part
    converted: ConversionTarget | None = None
    problem: str = ""


def must_inspect(envelope: Envelope, offered: Capabilities) -> bool:
    """Whether the remote lacks what the envelope asks for or the content may need, so that the content decides."""
    return (
        not offered.eight_bit_mime
        or (envelope.smtputf8 and not offered.smtputf8)
        or (envelope.body is _BINARY and not offered.binary_mime)
    )


def target(envelope: Envelope, offered: Capabilities) -> ConversionTarget | None:
    """To what the content would have to be converted; None if it can go as it is."""
    if not offered.eight_bit_mime and not (envelope.body is _BINARY and offered.binary_mime):
        return ConversionTarget.SEVEN_BIT
    return ConversionTarget.EIGHT_BIT if envelope.body is _BINARY and not offered.binary_mime else None


class MailCommand(msgspec.Struct, frozen=True):
    """How a message is announced: the MAIL command, whether SMTPUTF8 is in force, and whether BDAT carries it.
    `prefix`: header fields that go before the content (`protocol.tunnel`)."""

    mail: bytes
    smtputf8: bool
    bdat: bool
    prefix: bytes = b""


def opening(
    envelope: Envelope,
    size: int,
    offered: Capabilities,
    security: Security,
    *,
    utf8_wanted: bool,
    inspection: ContentFacts | None,
    bdat_size_min: int,
    waited_s: int = 0,
    prefix: bytes = b"",
    eight_bit: EightBit = EightBit.CONVERT,
    by_data: bool = False,
) -> MailCommand | Result:
    """MAIL for a content of `size` octets, the `prefix` before it included. `utf8_wanted`: a recipient of the
    transaction needs SMTPUTF8.

    `inspection` is given if `must_inspect` said so, `eight_bit` as it is set. Content of `bdat_size_min` and more
    goes by BDAT where offered. `waited_s`: how long we have had the message, for DELIVERBY.
    `by_data`: DATA it must be, because the size is not known to the octet; binary content goes by BDAT all the same.
    """
    sender = envelope.reverse_path
    if offered.size_max and size > offered.size_max:  # RFC 1870 §4, §7
        text = f"the message has {size} octets, the remote takes {offered.size_max} at most"
        return Result(Outcome.FAILED, Reach.MESSAGE, "5.3.4", text)
    wants_utf8 = utf8_wanted or envelope.smtputf8 or (sender is not None and not sender.is_ascii)
    if wants_utf8 and not offered.smtputf8:
        if sender is not None and not sender.is_ascii:
            text = "the sender's address is not ASCII and the remote does not offer SMTPUTF8"
            return Result(Outcome.FAILED, Reach.MESSAGE, "5.6.7", text)
        # RFC 6531 §3.2 is of relaying; in a mailbox a header may be as it was written (RFC 6532).
        stored = security.final and (offered.eight_bit_mime or (inspection is not None and inspection.converted))
        if inspection is not None and inspection.utf8_header and not stored:
            text = "the header is not ASCII and the remote does not offer SMTPUTF8"
            return Result(Outcome.FAILED, Reach.MESSAGE, "5.6.9", text)
    converted = inspection.converted if inspection is not None else None
    refused = None if converted else _body_refused(envelope, offered, inspection, eight_bit)
    if refused is None and envelope.parameters and not security.final:
        refused = _tls_refused(envelope, offered, security) or _time_refused(envelope, offered, waited_s)
    if refused is not None:
        return refused
    smtputf8 = wants_utf8 and offered.smtputf8
    body = envelope.body
    if converted is not None:
        body = _EIGHT_BIT if converted is ConversionTarget.EIGHT_BIT else Body.SEVEN_BIT
    elif envelope.smtputf8 and not smtputf8 and inspection is not None and not inspection.ascii:
        body = _EIGHT_BIT  # RFC 6531 §3.6: SMTPUTF8 alone may have said so
    words = _mail_parameters(envelope, body, size, offered, smtputf8)
    if envelope.parameters:
        words += _further_parameters(envelope, offered, security, waited_s)
    command = f"MAIL FROM:{path(sender)}{words}"
    octets = _octets(command)
    if octets is None:
        return Result(Outcome.FAILED, Reach.MESSAGE, "5.1.7", "the sender's address cannot be written in a command")
    by_bdat = offered.chunking and (body is _BINARY or (size >= bdat_size_min and not converted and not by_data))
    return MailCommand(octets, smtputf8, by_bdat, prefix)


def _body_refused(
    envelope: Envelope, offered: Capabilities, inspection: ContentFacts | None, eight_bit: EightBit
) -> Result | None:
    """What the remote cannot take as it is, and was not converted."""
    why = f" and it cannot be converted: {inspection.problem}" if inspection is not None and inspection.problem else ""
    if envelope.body is _BINARY:
        if offered.binary_mime:
            return None
        text = f"the message is BINARYMIME, which the remote does not offer{why}"  # RFC 3030 §3
        return Result(Outcome.FAILED, Reach.MESSAGE, "5.6.1", text)
    if offered.eight_bit_mime or inspection is None or inspection.ascii or eight_bit is EightBit.SEND:
        return None
    text = f"the message holds 8-bit data and the remote does not offer 8BITMIME{why}"  # RFC 6152 §3
    return Result(Outcome.FAILED, Reach.MESSAGE, "5.6.3", text)


def _tls_refused(envelope: Envelope, offered: Capabilities, security: Security) -> Result | None:
    """RFC 8689 §4.2.1; a null reverse-path is sent on all the same (§5)."""
    required = any(keyword == "REQUIRETLS" for keyword, _ in envelope.parameters)
    if not required or envelope.reverse_path is None:
        return None
    if not security.tls or not security.verified:
        text = "the sender requires TLS (REQUIRETLS) with a verified certificate, which this session does not have"
        return Result(Outcome.FAILED, Reach.MESSAGE, "5.7.10", text)
    if not offered.require_tls:
        text = "the sender requires TLS (REQUIRETLS), which the remote does not offer"
        return Result(Outcome.FAILED, Reach.MESSAGE, "5.7.30", text)
    return None


def _time_refused(envelope: Envelope, offered: Capabilities, waited_s: int) -> Result | None:
    """RFC 2852: a message that is to be returned when its time is over is not given to who does not keep the time."""
    by = wishes.deliver_by(envelope)
    if by is None or by.mode is not wishes.ByMode.RETURN:
        return None
    left_s = by.seconds - waited_s
    if left_s <= 0:
        text = "the time that the sender has set for its delivery (BY) is over"
        return Result(Outcome.FAILED, Reach.MESSAGE, "5.4.7", text)
    if "DELIVERBY" not in offered.keywords:
        text = "the sender wants it delivered in time or returned (BY), and the remote does not offer DELIVERBY"
        return Result(Outcome.FAILED, Reach.MESSAGE, "5.3.3", text)
    if left_s < offered.by_min_s:
        text = f"{left_s} s are left of the time that the sender has set (BY), the remote wants {offered.by_min_s} s"
        return Result(Outcome.FAILED, Reach.MESSAGE, "5.4.7", text)
    return None


def _mail_parameters(envelope: Envelope, body: Body, size: int, offered: Capabilities, smtputf8: bool) -> str:
    words = f" SIZE={size}" if offered.size else ""
    if body is _EIGHT_BIT and offered.eight_bit_mime:
        words += " BODY=8BITMIME"
    elif body is _BINARY:
        words += " BODY=BINARYMIME"
    if smtputf8:
        words += " SMTPUTF8"
    if offered.dsn:  # RFC 3461 §5.2.1
        if envelope.ret is not _NO_RET:
            words += f" RET={envelope.ret.value}"
        if envelope.envid:
            words += f" ENVID={xtext_encode(envelope.envid)}"
    return words


def _further_parameters(envelope: Envelope, offered: Capabilities, security: Security, waited_s: int) -> str:
    words = ""
    for keyword, value in envelope.parameters:
        match keyword:
            case "AUTH" if security.authenticated:  # RFC 4954 §5: told only where both ends trust each other
                words += f" AUTH={xtext_encode(value)}"
            case "REQUIRETLS" if offered.require_tls and security.tls:  # RFC 8689 §4.1: never outside TLS
                words += " REQUIRETLS"
            case "BY" if "DELIVERBY" in offered.keywords:
                words += f" BY={wishes.by_left(value, waited_s)}"
            case "MT-PRIORITY" if "MT-PRIORITY" in offered.keywords:
                words += f" MT-PRIORITY={value}"
            case _:
                pass
    return words


def rcpt(recipient: Recipient, offered: Capabilities, *, smtputf8: bool, final: bool = False) -> bytes | Result:
    """RCPT for one recipient; `smtputf8` as in the opening, `final` as in `Security`."""
    address = recipient.address
    if not smtputf8 and not address.is_ascii:  # RFC 6531 §3.2
        text = "the address is not ASCII and the remote does not offer SMTPUTF8"
        return Result(Outcome.FAILED, Reach.RECIPIENT, "5.6.7", text)
    since = wishes.valid_since(recipient) if recipient.parameters else None
    if since is not None and not (since.may_go_on or final or "RRVS" in offered.keywords):
        text = "the sender asks for the owner of the mailbox (RRVS), which the remote does not offer"
        return Result(Outcome.FAILED, Reach.RECIPIENT, "5.7.19", text)
    octets = _octets(f"RCPT TO:{path(address)}{_rcpt_parameters(recipient, offered, smtputf8)}")
    if octets is None:
        return Result(Outcome.FAILED, Reach.RECIPIENT, "5.1.3", "the address cannot be written in a command")
    return octets


def _rcpt_parameters(recipient: Recipient, offered: Capabilities, smtputf8: bool) -> str:
    words = ""
    if offered.dsn:
        if recipient.notify is not _NO_NOTIFY:
            words += f" NOTIFY={notify(recipient.notify)}"
        original = recipient.orcpt or (_original(recipient.given) if recipient.given is not None else "")
        if original:
            words += f" ORCPT={orcpt_encode(original, smtputf8=smtputf8)}"
    for keyword, value in recipient.parameters:
        if keyword == "RRVS" and "RRVS" in offered.keywords:  # RFC 7293 §3.1
            words += f" RRVS={value.removesuffix(';H')}{';C' if value.endswith(';H') else ''}"
    return words


def asks_for_dsn(command: bytes) -> bool:
    """Whether a MAIL or RCPT of ours has parameters of RFC 3461."""
    return without_dsn(command) != command


def without_dsn(command: bytes) -> bytes:
    """A MAIL or RCPT of ours without the parameters of RFC 3461."""
    found = _PATH.match(command)
    end = found.end() if found is not None else len(command)
    kept = [word for word in command[end:].split() if word.partition(b"=")[0] not in _DSN_PARAMETERS]
    return b" ".join([command[:end], *kept]).rstrip(b"\r\n") + b"\r\n"


_PATH: Final = re.compile(rb'(?:MAIL FROM|RCPT TO):<(?:"(?:\\.|[^"\\])*"|[^">])*>')
_DSN_PARAMETERS: Final = frozenset({b"RET", b"ENVID", b"NOTIFY", b"ORCPT"})


def _original(given: Address) -> str:
    """RFC 3461 §5.2.1 (d): an ORCPT of our own names the address as we were given it."""
    return f"rfc822;{given}" if given.is_ascii else f"utf-8;{given}"


@lru_cache(maxsize=16)
def notify(wanted: Notify) -> str:
    """RFC 3461 §4.1: NEVER, or a list of the others."""
    if wanted & Notify.NEVER:
        return "NEVER"
    return ",".join(name for flag, name in _NOTIFY if wanted & flag)


_NOTIFY: Final = ((Notify.SUCCESS, "SUCCESS"), (Notify.FAILURE, "FAILURE"), (Notify.DELAY, "DELAY"))


def _octets(command: str) -> bytes | None:
    """The command with its CRLF; None if it holds what must not be in a line (CVE-2020-7247 and its kin)."""
    if not command.isprintable() and _CONTROL.search(command):
        return None
    try:
        return command.encode() + b"\r\n"
    except UnicodeEncodeError:  # a lone surrogate is no character
        return None


class Subject(enum.Enum):
    """What a remote refuses, in words for people."""

    SESSION = "the session"
    SENDER = "the sender"
    RECIPIENT = "the recipient"
    MESSAGE = "the message"


def refusal(answer: Reply, reach: Reach, subject: Subject) -> Result:
    """What a 4xx or 5xx means."""
    status = answer.status or status_of(answer.code, at_rcpt=subject is Subject.RECIPIENT)
    if answer.permanent:
        return Result(Outcome.FAILED, reach, status, f"the remote refused {subject.value}", brief(answer))
    return Result(Outcome.DEFERRED, reach, status, f"the remote refused {subject.value} for now", brief(answer))


def status_of(code: int, *, at_rcpt: bool = False, at_auth: bool = False) -> str:
    """An enhanced code for a reply without one: only if RFC 5248 §2.4 and RFC 5321 §4.2.3 leave no doubt, else
    ``x.0.0`` (a 550 may be an unknown mailbox as well as a policy)."""
    known = (at_rcpt and _AT_RCPT.get(code)) or (at_auth and _AT_AUTH.get(code)) or _STATUS_OF.get(code)
    return known or f"{code // 100}.0.0"


_AT_RCPT: Final = {552: "5.2.2", 553: "5.1.3"}
# RFC 4954 §6 defines these for AUTH alone: at another command they tell nothing of our credentials.
_AT_AUTH: Final = {432: "4.7.12", 534: "5.7.9", 535: "5.7.8", 538: "5.7.11"}
_STATUS_OF: Final = {
    421: "4.3.2", 452: "4.3.1", 454: "4.7.0", 455: "4.5.4",
    500: "5.5.2", 501: "5.5.4", 502: "5.5.1", 503: "5.5.1", 504: "5.5.4", 521: "5.3.2", 530: "5.7.0",
    552: "5.3.4", 555: "5.5.4", 556: "5.1.10",
}


def brief(answer: Reply) -> Reply:
    """The reply as it is kept: at most 20 lines of 512 characters each, so that no remote fills the history."""
    lines = answer.lines
    if len(lines) == 1 and len(lines[0]) <= 512:
        return answer
    return Reply(answer.code, answer.status, tuple(line[:512] for line in lines[:20]))
