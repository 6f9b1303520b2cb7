"""What reports of others say, as it is kept.

These values are stored (docs/decisions/0003): fields are only appended, with a default. What always holds: each text is
one line of at most TEXT_MAX characters, but may hold whatever a stranger wrote: it is escaped where it is shown.
Domains are in lower case; times are seconds since 1970, 0 if the report does not say.
"""

from __future__ import annotations

from typing import Final

import msgspec

TEXT_MAX: Final = 500  # characters of a text of a report that are kept
_TIME_MAX: Final = 253_402_300_799  # the end of the year 9999
COUNT_MAX: Final = 1_000_000_000_000  # of messages or sessions in one row; more is not believed


class InboundPolicy(msgspec.Struct, frozen=True, array_like=True):
    """The DMARC record as the reporter saw it. "": not said."""

    domain: str
    p: str = ""
    sp: str = ""
    np: str = ""
    adkim: str = ""
    aspf: str = ""
    pct: str = ""
    fo: str = ""
    testing: str = ""
    discovery_method: str = ""


class InboundDkim(msgspec.Struct, frozen=True, array_like=True):
    """The result of one DKIM signature, without regard to alignment."""

    domain: str
    selector: str = ""
    result: str = ""
    human_result: str = ""


class InboundSpf(msgspec.Struct, frozen=True, array_like=True):
    """The result of SPF, without regard to alignment."""

    domain: str
    scope: str = ""
    result: str = ""
    human_result: str = ""


class InboundRow(msgspec.Struct, frozen=True, array_like=True):
    """Messages of one source with one result. `dkim`, `spf`: ``pass`` if it passed and is aligned (RFC 9990).
    `reasons`: (type, comment) of what overrode the policy."""

    source: str
    count: int
    disposition: str = ""
    dkim: str = ""
    spf: str = ""
    reasons: tuple[tuple[str, str], ...] = ()
    header_from: str = ""
    envelope_from: str = ""
    envelope_to: str = ""
    signatures: tuple[InboundDkim, ...] = ()
    senders: tuple[InboundSpf, ...] = ()


class InboundAggregate(msgspec.Struct, frozen=True, array_like=True):
    """A DMARC aggregate report. `problems`: what is not as the RFCs want it, in words."""

    organization: str
    email: str
    report_id: str
    begin_s: int
    end_s: int
    policy: InboundPolicy
    rows: tuple[InboundRow, ...]
    version: str = ""
    contact: str = ""
    generator: str = ""
    errors: tuple[str, ...] = ()
    problems: tuple[str, ...] = ()


class InboundTlsFailure(msgspec.Struct, frozen=True, array_like=True):
    """Sessions that failed for one reason (RFC 8460 §4.3)."""

    type: str
    count: int
    sending_address: str = ""
    receiving_host: str = ""
    receiving_hello: str = ""
    receiving_address: str = ""
    code: str = ""
    information: str = ""


class InboundTlsPolicy(msgspec.Struct, frozen=True, array_like=True):
    """What one policy came to. `type`: ``tlsa``, ``sts`` or ``no-policy-found``."""

    type: str
    domain: str
    successful: int
    failed: int
    strings: tuple[str, ...] = ()
    hosts: tuple[str, ...] = ()
    failures: tuple[InboundTlsFailure, ...] = ()


class InboundTls(msgspec.Struct, frozen=True, array_like=True):
    """A TLS report."""

    organization: str
    contact: str
    report_id: str
    begin_s: int
    end_s: int
    policies: tuple[InboundTlsPolicy, ...]
    problems: tuple[str, ...] = ()


class InboundFeedback(msgspec.Struct, frozen=True, array_like=True):
    """A report about one message (RFC 5965): a complaint, or a failure of authentication (RFC 6591, RFC 9991). `type`:
    Feedback-Type. `incidents`: how many it stands for. `message_id`, `subject`, `author`, `campaign`, `queue_ids`: of
    the message that it is about; `author` is its From, `campaign` its Feedback-ID or List-Id, `queue_ids` those in its
    Received fields. `recipients`: for whom it was."""

    type: str
    reporter: str = ""
    user_agent: str = ""
    version: str = ""
    mail_from: str = ""
    recipients: tuple[str, ...] = ()
    arrived_s: int = 0
    source: str = ""
    incidents: int = 1
    domains: tuple[str, ...] = ()
    uris: tuple[str, ...] = ()
    auth_failure: str = ""
    delivery_result: str = ""
    identity_alignment: str = ""
    dkim_domain: str = ""
    dkim_selector: str = ""
    spf_record: str = ""
    results: str = ""
    message_id: str = ""
    subject: str = ""
    author: str = ""
    campaign: str = ""
    queue_ids: tuple[str, ...] = ()
    problems: tuple[str, ...] = ()

    @property
    def is_failure(self) -> bool:
        """Whether it tells that authentication failed, and is no complaint."""
        return self.type == AUTH_FAILURE


AUTH_FAILURE: Final = "auth-failure"

InboundReport = InboundAggregate | InboundTls | InboundFeedback


def tidy(text: str) -> str:
    """The text as one line that is not too long."""
    return " ".join(text[: TEXT_MAX * 4].split())[:TEXT_MAX]


def domain_of(text: str) -> str:
    """A domain as written, in lower case without a final dot."""
    return tidy(text).lower().rstrip(".")


def moment_of(text: str) -> int:
    """Seconds since 1970 in digits, perhaps with a fraction; 0 for what is none."""
    whole = text.strip().partition(".")[0]
    if not (whole.isascii() and whole.isdigit() and len(whole) <= 16):
        return 0
    found = int(whole)
    return found if found <= _TIME_MAX else 0


def count_of(text: str) -> int | None:
    """A number of messages; None for what is none."""
    digits = text.strip()
    if not (digits.isascii() and digits.isdigit() and len(digits) <= 16):
        return None
    return min(int(digits), COUNT_MAX)
