"""Wishes of a client beyond delivery: judged at MAIL, and read from header fields that take the place of parameters.

RFC 2852 (BY), RFC 4865 (HOLDFOR, HOLDUNTIL), RFC 6710 and RFC 6758 (MT-PRIORITY and its header field), RFC 8689 §4.1
(TLS-Required), RFC 7293 §3.2 (Require-Recipient-Valid-Since). What always holds: a message without wishes costs one
test at MAIL and one look at its header section. Queue, route and delivery do what is promised here (`mail.wishes`). How
it fails: with a reply to MAIL. A header field that makes no sense is ignored.

Not here: the syntax of parameters (`protocol.grammar`), whether a mailbox has kept its owner (`check.owner`, `route`).
"""

from __future__ import annotations

import datetime
import re
from typing import Final

import msgspec

from postroad.mail import message, verp, wishes
from postroad.mail.envelope import Recipient
from postroad.mail.numbers import counted
from postroad.mail.reply import Reply, reply
from postroad.protocol.command import Mail
from postroad.protocol.grammar import parse_mailbox
from postroad.receive import replies
from postroad.receive.draft import Draft
from postroad.receive.options import ExtensionOptions

_US: Final = 1_000_000
_HOUR_US: Final = 3_600 * _US

_OVER_BEFORE_RELEASE: Final = reply(501, "5.5.4", "The time of BY is over before the message is to be released")

_VERP_OF_NOBODY: Final = reply(501, "5.5.4", "XVERP needs a sender")

_TLS_REQUIRED: Final = b"tls-required"
_VALID_SINCE: Final = b"require-recipient-valid-since"
_MT_PRIORITY: Final = b"mt-priority"
_FIELDS_MAX: Final = 100  # fields of one name that are looked at


def held_until(hold_max_s: int, now_us: int) -> str:
    """The latest release as FUTURERELEASE announces it (RFC 4865 §4), to the hour, so that it changes seldom."""
    return wishes.date_time((now_us + hold_max_s * _US) // _HOUR_US * _HOUR_US)


# ---- MAIL


def at_mail(mail: Mail, options: ExtensionOptions, now_us: int, *, known: bool) -> tuple[Mail, Reply] | Reply:
    """MAIL with what is granted of its parameters, and the reply that says so; a reply alone refuses. `known`: the
    client has authenticated, or is of a trusted network."""
    refused = _time_refused(mail, options, now_us)
    if refused is not None:
        return refused
    found = _with_delimiters(mail)
    if isinstance(found, Reply):
        return found
    mail = found
    asked = wishes.parameter(mail.parameters, wishes.PRIORITY)
    if asked is None:
        return mail, replies.SENDER_OK
    granted = _granted(int(asked), options, known=known)
    if granted == int(asked):
        return mail, replies.SENDER_OK
    # RFC 6710 §4.1: the text begins with the priority that was assigned
    answer = reply(250, "2.3.6", f"{granted} is the new priority assigned to the message")
    return _with_priority(mail, granted), answer


def _time_refused(mail: Mail, options: ExtensionOptions, now_us: int) -> Reply | None:
    value = wishes.parameter(mail.parameters, wishes.BY)
    by = None if value is None else wishes.parse_by(value)
    if by is not None and by.mode is wishes.ByMode.RETURN and by.seconds < options.deliver_by_min_s:
        return reply(555, "5.5.4", f"BY: the least time is {counted(int(options.deliver_by_min_s), 'second')}")
    release_us = wishes.release_of(mail.parameters, now_us)
    if not release_us:
        return None
    if release_us > now_us + int(options.future_release_max_s * _US):
        most_s = int(options.future_release_max_s)
        return reply(501, "5.5.4", f"Released too far in the future: the most is {counted(most_s, 'second')} from now")
    # RFC 4865: a message cannot be wanted there before it is released
    if by is not None and release_us >= now_us + by.seconds * _US:
        return _OVER_BEFORE_RELEASE
    return None


def _with_delimiters(mail: Mail) -> Mail | Reply:
    """XVERP without a value means the usual delimiters."""
    value = wishes.parameter(mail.parameters, verp.XVERP)
    if value is None:
        return mail
    if mail.reverse_path is None:
        return _VERP_OF_NOBODY
    pairs = tuple((name, (given or verp.DEFAULT) if name == verp.XVERP else given) for name, given in mail.parameters)
    return msgspec.structs.replace(mail, parameters=pairs)


def _granted(asked: int, options: ExtensionOptions, *, known: bool) -> int:
    return min(asked, options.mt_priority_max if known else options.mt_priority_strangers_max)


def _with_priority(mail: Mail, priority: int) -> Mail:
    kept = tuple(pair for pair in mail.parameters if pair[0] != wishes.PRIORITY)
    return msgspec.structs.replace(mail, parameters=(*kept, (wishes.PRIORITY, str(priority))))


# ---- the header section


def reads_header(options: ExtensionOptions) -> bool:
    """Whether any header field may ask for something."""
    return options.requiretls or options.rrvs or (options.mt_priority and options.mt_priority_tunnel)


def read_header(draft: Draft, octets: bytes, options: ExtensionOptions, *, known: bool) -> bytes:
    """What the header section asks for goes into the transaction. The content, without what must not go on."""
    head = draft.head.lower()
    if options.requiretls and _TLS_REQUIRED in head:
        _read_tls_required(draft)
    if options.rrvs and _VALID_SINCE in head:
        _read_valid_since(draft)
    if options.mt_priority_tunnel and options.mt_priority and _MT_PRIORITY in head:
        return _read_priority(draft, octets, options, known=known)
    return octets


def _read_tls_required(draft: Draft) -> None:
    """RFC 8689 §4.1: the field counts if REQUIRETLS was not asked; §3: there is one, and all it says is No."""
    mail, head = draft.mail, draft.head
    if wishes.parameter(mail.parameters, wishes.REQUIRE_TLS) is not None or message.count(head, _TLS_REQUIRED) != 1:
        return
    if (message.first(head, _TLS_REQUIRED) or "").lower() == "no":
        draft.mail = msgspec.structs.replace(mail, parameters=(*mail.parameters, (wishes.TLS_OPTIONAL, "NO")))


def _read_valid_since(draft: Draft) -> None:
    """RFC 7293 §3.2: ``Require-Recipient-Valid-Since: addr-spec ; date-time``, for a recipient of whom RCPT said
    nothing."""
    since: dict[str, str] = {}
    named = (field for field in message.fields(draft.head) if field.name.lower().encode() == _VALID_SINCE)
    for field, _ in zip(named, range(_FIELDS_MAX), strict=False):
        written, _, moment = field.text.rpartition(";")
        address, at_us = parse_mailbox(written.strip()), mail_date_us(moment.strip())
        if address is not None and at_us is not None:
            since.setdefault(str(address).lower(), wishes.date_time(at_us))
    for place, recipient in enumerate(draft.recipients):
        value = since.get(str(recipient.address).lower())
        if value is not None and wishes.parameter(recipient.parameters, wishes.RRVS) is None:
            draft.recipients[place] = _asked_of(recipient, value)


def _asked_of(recipient: Recipient, since: str) -> Recipient:
    return msgspec.structs.replace(recipient, parameters=(*recipient.parameters, (wishes.RRVS, f"{since};H")))


def _read_priority(draft: Draft, octets: bytes, options: ExtensionOptions, *, known: bool) -> bytes:
    """RFC 6758: of who is trusted the field stands for the parameter; it never goes on as it came, lest the next host
    believes a stranger because it believes us."""
    head = draft.head
    if known and wishes.parameter(draft.mail.parameters, wishes.PRIORITY) is None:
        asked = wishes.parse_priority(message.first(head, _MT_PRIORITY) or "")
        if asked is not None:
            draft.mail = _with_priority(draft.mail, _granted(asked, options, known=True))
    kept = message.without(octets, _MT_PRIORITY)
    draft.head = kept[: message.header_end(kept)]
    return kept


# RFC 5322 §3.3: [ day-of-week "," ] day month year hour ":" minute [ ":" second ] zone, comments behind it
_DATE: Final = re.compile(
    r"(?:[A-Za-z]{3}[ \t]*,)?[ \t]*(\d{1,2})[ \t]+([A-Za-z]{3})[ \t]+(\d{4})[ \t]+(\d{2}):(\d{2})(?::(\d{2}))?[ \t]+"
    r"(?:([+-])(\d{2})(\d{2})|GMT|UT)(?:[ \t]*\(.*\))?"
)
_MONTHS: Final = {
    name: number
    for number, name in enumerate(
        ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"), 1
    )
}


def mail_date_us(text: str) -> int | None:
    """A date-time of RFC 5322 §3.3 in microseconds since 1970; None if it is none."""
    found = _DATE.fullmatch(text)
    month = _MONTHS.get(found[2].lower()) if found else None
    if found is None or month is None:
        return None
    try:
        moment = datetime.datetime(
            int(found[3]), month, int(found[1]), int(found[4]), int(found[5]), min(int(found[6] or 0), 59),
            tzinfo=datetime.UTC,
        )
    except ValueError:
        return None
    offset_s = int(found[8]) * 3600 + int(found[9]) * 60 if found[7] else 0
    at_us = (int(moment.timestamp()) + (offset_s if found[7] == "-" else -offset_s)) * _US
    return at_us if wishes.can_be_written(at_us) else None
