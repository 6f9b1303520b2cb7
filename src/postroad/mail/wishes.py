"""What a sender asks for beyond delivery, read from the parameters of an envelope: until when, not before when, how
urgently, how safely, and only to the same owner as before.

    BY           RFC 2852 §4    ``120;RT``: within so many seconds of acceptance, else return (R) or tell (N); T: trace
    HOLDFOR, HOLDUNTIL          RFC 4865 §4: not before
    MT-PRIORITY  RFC 6710 §3    -9 to 9
    REQUIRETLS   RFC 8689 §2    over TLS with a proved certificate only, all the way
    TLS-REQUIRED                ``NO``: our own mark of the header field "TLS-Required: No" (RFC 8689 §3); never sent
    RRVS         RFC 7293 §3.1  ``date-time[;C|R]``, of a recipient: only if the mailbox has had its owner since then;
                                ``;H`` is our own mark if the header section asked it (§3.2)

What always holds: times are microseconds since 1970, 0 for none; a value that makes no sense counts as absent (the
grammar refuses such values when they arrive). An envelope without parameters costs one test. Pure.
"""

from __future__ import annotations

import datetime
import enum
import re
from functools import lru_cache
from typing import Final

import msgspec

from postroad.mail.attempt import Attempt, Outcome
from postroad.mail.envelope import Envelope, Notify, Recipient

BY: Final = "BY"
HOLDFOR: Final = "HOLDFOR"
HOLDUNTIL: Final = "HOLDUNTIL"
PRIORITY: Final = "MT-PRIORITY"
REQUIRE_TLS: Final = "REQUIRETLS"
TLS_OPTIONAL: Final = "TLS-REQUIRED"
RRVS: Final = "RRVS"

_US: Final = 1_000_000
_YEAR_1000_US: Final = -30_610_224_000 * _US
_YEAR_10000_US: Final = 253_402_300_800 * _US
# RFC 2852 §4: by-value = by-time ";" by-mode [by-trace]; by-time = ["-" / "+"] 1*9DIGIT
_BY: Final = re.compile(r"([+-]?\d{1,9});([NR])(T?)", re.IGNORECASE)


class ByMode(enum.Enum):
    """What is to happen when the time is over (RFC 2852 §4)."""

    NOTIFY = "N"
    RETURN = "R"


class DeliverBy(msgspec.Struct, frozen=True):
    """BY=. `seconds` from acceptance on; less than one if the time was over before. `traced`: each relay is told."""

    seconds: int
    mode: ByMode
    traced: bool = False


def parameter(parameters: tuple[tuple[str, str], ...], keyword: str) -> str | None:
    """The value of a parameter, "" if it has none, None if it is absent."""
    for name, value in parameters:
        if name == keyword:
            return value
    return None


def later(keyword: str, value: str, since_s: int) -> str:
    """A parameter's value as it stands so many seconds after it was said."""
    if keyword == BY:
        return by_left(value, since_s)
    if keyword == HOLDFOR:
        return str(max(1, int(value) - since_s))
    return value


# ---- DELIVERBY


def by_left(value: str, waited_s: int) -> str:
    """BY= with the time that is left after a wait, as it is passed on (RFC 2852: decremented on relay)."""
    seconds, _, rest = value.partition(";")
    # RFC 2852 §4: by-time has nine digits at most
    return f"{max(int(seconds) - waited_s, -999_999_999)};{rest.upper()}"


@lru_cache(maxsize=256)
def parse_by(value: str) -> DeliverBy | None:
    """BY='s value; None if it is none. A time of zero or less means nothing with R (RFC 2852 §4)."""
    found = _BY.fullmatch(value)
    if found is None:
        return None
    mode = ByMode(found[2].upper())
    seconds = int(found[1])
    return None if mode is ByMode.RETURN and seconds <= 0 else DeliverBy(seconds, mode, bool(found[3]))


def deliver_by(envelope: Envelope) -> DeliverBy | None:
    """Within what time the message is wanted there."""
    if not envelope.parameters:
        return None
    value = parameter(envelope.parameters, BY)
    return None if value is None else parse_by(value)


def deadline_us(envelope: Envelope, mode: ByMode) -> int:
    """When the time of a message with this mode is over; 0: it never is, or was over when we got it."""
    by = deliver_by(envelope)
    if by is None or by.mode is not mode or by.seconds <= 0:
        return 0
    return envelope.accepted_us + by.seconds * _US


def traces_relay(envelope: Envelope, recipient: Recipient, attempt: Attempt) -> bool:
    """Whether handing over to another MTA is to be told because of BY=, whatever NOTIFY says of success.

    RFC 2852: with T each MTA tells that it has relayed; with N the one that hands over to a host which does not know
    DELIVERBY, for nobody will tell of the time from there on. NOTIFY=NEVER is stronger.
    """
    if attempt.outcome is not Outcome.RELAYED or recipient.notify & Notify.NEVER:
        return False
    by = deliver_by(envelope)
    return by is not None and (by.traced or (by.mode is ByMode.NOTIFY and not attempt.by_passed))


# ---- FUTURERELEASE


def release_us(envelope: Envelope) -> int:
    """When the message is to be released; 0: at once."""
    if not envelope.parameters:
        return 0
    return release_of(envelope.parameters, envelope.accepted_us)


def release_of(parameters: tuple[tuple[str, str], ...], accepted_us: int) -> int:
    """The same of parameters that are no envelope's yet."""
    until = parameter(parameters, HOLDUNTIL)
    if until is not None:
        return date_time_us(until) or 0
    held = parameter(parameters, HOLDFOR)
    return accepted_us + int(held) * _US if held is not None and held.isdecimal() else 0


def begin_us(envelope: Envelope) -> int:
    """From when on the message may be delivered: its lifetime in the queue begins then."""
    return max(envelope.accepted_us, release_us(envelope)) if envelope.parameters else envelope.accepted_us


# ---- MT-PRIORITY


def priority(parameters: tuple[tuple[str, str], ...]) -> int:
    """-9 to 9, 0 if nothing was asked (RFC 6710 §3)."""
    value = parameter(parameters, PRIORITY) if parameters else None
    return 0 if value is None else parse_priority(value) or 0


# RFC 6710 §3: priority-value = (["-"] NZDIGIT) / "0"
_PRIORITY: Final = re.compile(r"-?[1-9]|0")


def parse_priority(text: str) -> int | None:
    return int(text) if _PRIORITY.fullmatch(text) else None


# ---- REQUIRETLS


def requires_tls(envelope: Envelope) -> bool:
    """RFC 8689 §4.2.1: the sender requires TLS, and there is somebody to return the message to. A report is sent on
    all the same (§5)."""
    return (
        bool(envelope.parameters)
        and envelope.reverse_path is not None
        and parameter(envelope.parameters, REQUIRE_TLS) is not None
    )


def tls_optional(envelope: Envelope) -> bool:
    """RFC 8689 §4.2.2: the sender would rather have it sent without TLS than not at all."""
    return bool(envelope.parameters) and parameter(envelope.parameters, TLS_OPTIONAL) is not None


# ---- RRVS


class ValidSince(msgspec.Struct, frozen=True):
    """RRVS=. `since_us`: since when the mailbox must have had the same owner. `may_go_on`: a host that does not know
    RRVS may have the message all the same (``;C``). `in_header`: a header field asks the same."""

    since_us: int
    may_go_on: bool
    in_header: bool = False


@lru_cache(maxsize=1024)
def parse_valid_since(value: str) -> ValidSince | None:
    """RRVS='s value; None if it is none. Without an action it is R (RFC 7293 §3.1)."""
    written, _, action = value.partition(";")
    since_us = date_time_us(written)
    in_header = action == "H"
    return None if since_us is None else ValidSince(since_us, in_header or action.upper() == "C", in_header)


def valid_since(recipient: Recipient) -> ValidSince | None:
    """What the sender asks of the owner of the mailbox."""
    value = parameter(recipient.parameters, RRVS) if recipient.parameters else None
    return None if value is None else parse_valid_since(value)


# ---- date-time


@lru_cache(maxsize=1024)
def date_time_us(text: str) -> int | None:
    """A date-time of RFC 3339 §5.6; None if it is none. A leap second counts as the second before it."""
    written = text.upper().replace(":60", ":59", 1) if text[16:19] == ":60" else text.upper()
    try:
        moment = datetime.datetime.fromisoformat(written)
    except ValueError:
        return None
    if moment.tzinfo is None or "T" not in written:
        return None
    at_us = round(moment.timestamp() * _US)
    return at_us if can_be_written(at_us) else None


def can_be_written(at_us: int) -> bool:
    """Whether the year of a moment in UTC has four digits, as all forms of a date-time want it."""
    return _YEAR_1000_US <= at_us < _YEAR_10000_US


def date_or_time_us(text: str) -> int | None:
    """A date-time, or a date alone, which means its beginning in UTC; None if it is neither."""
    return date_time_us(f"{text}T00:00:00Z" if len(text) == 10 else text)


def date_time(at_us: int) -> str:
    """The moment as RFC 3339 §5.6 has it, in UTC, whole seconds."""
    moment = datetime.datetime.fromtimestamp(at_us // _US, datetime.UTC)
    return moment.strftime("%Y-%m-%dT%H:%M:%SZ")
