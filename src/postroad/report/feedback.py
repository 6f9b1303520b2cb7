"""What reports to other domains say (DMARC aggregate reports, TLS reports), as values, and how a report is named.

What always holds: everything that names a report (its id, its file, the Message-ID of the mail) follows from kind,
domain, day and reporter alone. So a report that is made again after a crash has the same names, and whoever gets it
twice can see it (RFC 9990 §2.7.3). Days are those of UTC: a number of days since 1970.
"""

from __future__ import annotations

import calendar
import enum
import hashlib
import time
from typing import Final

import msgspec

DAY_S: Final = 86_400


class FeedbackKind(enum.Enum):
    """Which report it is. The values stand in the database of reports."""

    DMARC = "dmarc"
    TLS = "tls"


class ReportingNode(msgspec.Struct, frozen=True):
    """Who reports. `organization`: its name. `contact`: the mailbox for questions, which is also the sender of the
    mail. `hostname`: of this node; it is part of the ids, so that several nodes of an organization have their own."""

    organization: str
    contact: str
    hostname: str
    more: str = ""

    @property
    def domain(self) -> str:
        """The submitter: the domain of the contact (RFC 8460 §5.3 wants the two to be the same)."""
        return self.contact.rpartition("@")[2]


class Period(msgspec.Struct, frozen=True):
    """One day, in seconds since 1970."""

    day: int

    @property
    def begin_s(self) -> int:
        return self.day * DAY_S

    @property
    def end_s(self) -> int:
        return self.begin_s + DAY_S

    @property
    def date(self) -> str:
        return date_of(self.day)


def date_of(day: int) -> str:
    """``2026-11-30``."""
    return time.strftime("%Y-%m-%d", time.gmtime(day * DAY_S))


def day_of(text: str) -> int | None:
    """The day of such a text; None if it is none."""
    try:
        seconds = time.strptime(text, "%Y-%m-%d")
    except ValueError:
        return None
    return calendar.timegm(seconds) // DAY_S


class DkimSeen(msgspec.Struct, frozen=True, array_like=True):
    """One DKIM signature. `result`: as RFC 8601 §2.7.1 names it. `told`: for people."""

    domain: str
    selector: str
    result: str
    told: str = ""


class SpfSeen(msgspec.Struct, frozen=True, array_like=True):
    """What SPF said of MAIL FROM."""

    domain: str
    result: str
    told: str = ""


class DmarcRow(msgspec.Struct, frozen=True, array_like=True):
    """Messages that are alike for a DMARC report. `disposition`: none, pass, quarantine or reject. `dkim_aligned`,
    `spf_aligned`: whether an identifier passed and was aligned. `envelope_from`: the domain of MAIL FROM, "" for <>.
    `reasons`: why another thing was done than the domain asks for: type (RFC 9990 §2.1.1) and comment."""

    source_ip: str
    header_from: str
    disposition: str
    dkim_aligned: bool
    spf_aligned: bool
    envelope_from: str = ""
    reasons: tuple[tuple[str, str], ...] = ()
    dkim: tuple[DkimSeen, ...] = ()
    spf: SpfSeen | None = None


class TlsPolicySeen(msgspec.Struct, frozen=True, array_like=True):
    """The policy that a connection had to satisfy (RFC 8460 §4.4). `type`: tlsa, sts or no-policy-found. `text`: the
    records, or the lines of the policy. `hosts`: for sts, the patterns of its hosts."""

    type: str
    domain: str
    text: tuple[str, ...] = ()
    hosts: tuple[str, ...] = ()


class TlsRow(msgspec.Struct, frozen=True, array_like=True):
    """Connections that are alike for a TLS report. `result`: the result type of a failure (RFC 8460 §4.3); "": it
    succeeded, and then nothing else but the policy is set. `sending_ip`: our address. `host`, `hello`, `host_ip`: of
    the server. `reason`: a code or a few words."""

    policy: TlsPolicySeen
    result: str = ""
    sending_ip: str = ""
    host: str = ""
    hello: str = ""
    host_ip: str = ""
    reason: str = ""


def report_id(kind: FeedbackKind, domain: str, day: int, reporter: ReportingNode) -> str:
    """Unique among the reports of this node (RFC 9990 §2.7.1: ``ridfmt``; RFC 8460 §5.3)."""
    number = time.strftime("%Y%m%d", time.gmtime(day * DAY_S))
    return f"{number}.{kind.value}.{domain}@{reporter.hostname}"


def file_name(kind: FeedbackKind, domain: str, day: int, reporter: ReportingNode) -> str:
    """The name of the attachment (RFC 9990 §2.7.2, RFC 8460 §5.1). It has the ``unique-id`` of this node, so that
    reports of several nodes for one day do not take each other's place."""
    period = Period(day)
    unique = hashlib.blake2b(reporter.hostname.encode(), digest_size=4).hexdigest()
    ending = "xml.gz" if kind is FeedbackKind.DMARC else "json.gz"
    return f"{reporter.domain}!{domain}!{period.begin_s}!{period.end_s}!{unique}.{ending}"


def message_id(kind: FeedbackKind, domain: str, day: int, destination: str, reporter: ReportingNode) -> str:
    """The Message-ID of the mail to one destination, by which the history finds it."""
    number = time.strftime("%Y%m%d", time.gmtime(day * DAY_S))
    place = hashlib.blake2b(f"{domain} {destination}".encode(), digest_size=10).hexdigest()
    return f"<{number}.{kind.value}.{place}@{reporter.hostname}>"


def share_of_spread(kind: FeedbackKind, domain: str, day: int, hostname: str) -> float:
    """From 0 to 1: when in the time in which reports are sent this one has its turn. A restart changes nothing."""
    seed = hashlib.blake2b(f"{kind.value} {domain} {day} {hostname}".encode(), digest_size=8).digest()
    return int.from_bytes(seed, "big") / 2**64
