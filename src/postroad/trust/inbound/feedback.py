"""Reports about single messages, read: complaints (RFC 5965) and failures of authentication (RFC 6591, RFC 9991).

What a report says of the message comes from its fields; what the message was, from the copy or header section that is
attached, which RFC 5965 §3 has readers prefer. Microsoft's complaints have no fields, but an attached message with a
field of theirs. What always holds: nothing raises, whatever the report says.
"""

from __future__ import annotations

import contextlib
import datetime
import email.utils
import ipaddress
import re
from typing import Final

from postroad.mail import identifier
from postroad.mail.message import HEADER_MAX, fields
from postroad.trust.inbound.limits import PROBLEMS_MAX
from postroad.trust.inbound.values import AUTH_FAILURE, InboundFeedback, count_of, domain_of, tidy

MICROSOFT: Final = "x-hmxmroriginalrecipient"
_TIMES_MAX: Final = 50  # of a field that may stand several times
_OURS: Final = re.compile(r"\(Postroad\) with \S{1,40} id ([0-9a-z]{12})\b")
_IDS_MAX: Final = 5
_LINE_END: Final = re.compile(rb"\r\n?|\n")
_CAMPAIGNS: Final = ("feedback-id", "x-campaign-id", "x-campaignid", "list-id")  # the first that is there
_TYPES: Final = ("abuse", "auth-failure", "dmarc", "fraud", "not-spam", "opt-out", "other", "virus")  # IANA, and old


class FieldValues:
    """The values of fields by their names in lower case."""

    def __init__(self, section: bytes) -> None:
        self._values: dict[str, list[str]] = {}
        lines = _LINE_END.sub(b"\r\n", section[:HEADER_MAX]).lstrip(b"\r\n")
        for field in fields(lines):
            found = self._values.setdefault(field.name.lower(), [])
            if len(found) < _TIMES_MAX:
                found.append(field.text)

    def __contains__(self, name: str) -> bool:
        return name in self._values

    def first(self, *names: str) -> str:
        """The first value of the first of these fields that is there, tidy."""
        return next((tidy(self._values[name][0]) for name in names if name in self._values), "")

    def all(self, *names: str) -> list[str]:
        return [value for name in names for value in self._values.get(name, ())]

    def tidied(self, *names: str) -> tuple[str, ...]:
        return tuple(dict.fromkeys(text for value in self.all(*names) if (text := tidy(value))))


def read(section: bytes | None, original: bytes, reporter: str) -> InboundFeedback:
    """A report. `section`: its fields, None if it has none (Microsoft). `original`: the header section of the message
    that it is about, b"" if it is not attached. `reporter`: the domain of the mail's author."""
    said, copy = FieldValues(section or b""), FieldValues(original)
    problems: dict[str, None] = {}
    type = said.first("feedback-type").lower() or "abuse"
    if section is not None and "feedback-type" not in said:
        problems["it has no Feedback-Type"] = None
    elif type not in _TYPES:
        problems["its Feedback-Type is not registered"] = None
    if not original:
        problems["the message that it is about is not attached"] = None
    failures = said.tidied("auth-failure")
    return InboundFeedback(
        AUTH_FAILURE if type == "dmarc" else type,
        domain_of(said.first("reporting-mta").rpartition(";")[2]) or reporter,
        said.first("user-agent"), said.first("version"), _path(said.first("original-mail-from")),
        tuple(map(_path, said.tidied("original-rcpt-to", "removal-recipient") or copy.tidied(MICROSOFT))),
        _moment(said.first("arrival-date", "received-date")), _source(said.first("source-ip", "source")),
        _incidents(said.first("incidents"), problems), tuple(map(domain_of, said.tidied("reported-domain"))),
        said.tidied("reported-uri"), ", ".join(failures)[:200].lower(), said.first("delivery-result").lower(),
        said.first("identity-alignment").lower(), domain_of(said.first("dkim-domain")), said.first("dkim-selector"),
        said.first("spf-dns"), said.first("authentication-results"),
        copy.first("message-id") or said.first("original-message-id"), copy.first("subject"), copy.first("from"),
        campaign_of(copy), _queue_ids(copy), tuple(problems)[:PROBLEMS_MAX],
    )  # fmt: skip


def is_microsofts(original: bytes) -> bool:
    """Whether an attached message is a complaint by itself."""
    return MICROSOFT.encode() in original.lower() and MICROSOFT in FieldValues(original)


def campaign_of(copy: FieldValues) -> str:
    """What the sender calls the mailing."""
    return copy.first(*_CAMPAIGNS)


def _queue_ids(copy: FieldValues) -> tuple[str, ...]:
    """The ids in Received fields that a Postroad wrote."""
    found = (_OURS.search(value) for value in copy.all("received"))
    ids = dict.fromkeys(each[1] for each in found if each is not None and identifier.parse(each[1]) is not None)
    return tuple(ids)[:_IDS_MAX]


def _path(written: str) -> str:
    return written.strip("<> ")


def _incidents(written: str, problems: dict[str, None]) -> int:
    if not written:
        return 1
    found = count_of(written)
    if not found:
        problems["its number of incidents is none"] = None
    return found or 1


def _source(written: str) -> str:
    text = written.partition(" ")[0].strip("[]").removeprefix("IPv6:")
    with contextlib.suppress(ValueError):
        return str(ipaddress.ip_address(text))
    return text


def _moment(written: str) -> int:
    with contextlib.suppress(ValueError, TypeError, OverflowError, IndexError):
        at = email.utils.parsedate_to_datetime(written[:100])
        # "-0000" (RFC 5322 §3.3): a time of UTC, whatever the zone of this machine
        return max(0, int((at if at.tzinfo else at.replace(tzinfo=datetime.UTC)).timestamp()))
    return 0
