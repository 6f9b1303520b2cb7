"""TLS policies of remotes: what holds for a host, what an attempt came to know of it, and how MTA-STS is asked.

RFC 7672 (DANE), RFC 8461 (MTA-STS), RFC 8460 (their reports, whose words the policy kinds and failures are).

Three values, in the order of the way: `HostPolicy` stands on the hop (made where the MX hosts are chosen,
`route.securing`), `deliver` judges the host by it, and `TlsOutcome` stands on the attempt, and so in its event, for
log, `trace` and TLS reports. `StsPolicies` is the face by which the policy of MTA-STS is asked. What always holds: all
of it is plain data; nothing here asks or fails.
"""

from __future__ import annotations

import enum
from collections.abc import Awaitable
from typing import Final, Protocol

import msgspec


class PolicyKind(enum.Enum):
    """RFC 8460 §4.3, policy-type."""

    TLSA = "tlsa"
    STS = "sts"
    NONE = "no-policy-found"

    __hash__ = object.__hash__


class TlsFailure(enum.Enum):
    """RFC 8460 §4.3, result-type. `""` is no failure."""

    NO_FAILURE = ""
    STARTTLS_NOT_SUPPORTED = "starttls-not-supported"
    CERTIFICATE_HOST_MISMATCH = "certificate-host-mismatch"
    CERTIFICATE_EXPIRED = "certificate-expired"
    CERTIFICATE_NOT_TRUSTED = "certificate-not-trusted"
    VALIDATION_FAILURE = "validation-failure"  # all that no other word fits, such as a host that no `mx` names
    TLSA_INVALID = "tlsa-invalid"
    DNSSEC_INVALID = "dnssec-invalid"
    DANE_REQUIRED = "dane-required"  # our settings demand DANE, and the host has no usable TLSA records
    STS_POLICY_FETCH_ERROR = "sts-policy-fetch-error"
    STS_POLICY_INVALID = "sts-policy-invalid"
    STS_WEBPKI_INVALID = "sts-webpki-invalid"

    __hash__ = object.__hash__


class StsMode(enum.Enum):
    """RFC 8461 §5."""

    ENFORCE = "enforce"
    TESTING = "testing"
    NONE = "none"

    __hash__ = object.__hash__


class StsPolicy(msgspec.Struct, frozen=True, array_like=True):
    """The policy of a domain, valid now (RFC 8461 §3.2). `id`: of the record by which it was fetched. `mx`: patterns in
    lower case, ``mx.example.org`` or ``*.example.org``. `lines`: those of the file, as RFC 8460 wants them in reports
    (policy-string)."""

    domain: str
    id: str
    mode: StsMode
    mx: tuple[str, ...]
    max_age_s: int
    lines: tuple[str, ...] = ()

    def names(self, host: str) -> bool:
        """Whether a host (lower-case A-labels) is one of its mail servers (RFC 8461 §4.1: as RFC 6125 §6.4, where ``*``
        stands for the whole left-most label)."""
        wildcard = "*." + host.partition(".")[2]
        return any(pattern in (host, wildcard) for pattern in self.mx)


class StsAnswer(msgspec.Struct, frozen=True, array_like=True):
    """What is known of a domain's MTA-STS. `policy`: the one in force, None if there is none: mail then goes on as if
    the domain had none (RFC 8461 §5.1). `failure`, `text`: a policy was announced, but could not be had or renewed, for
    reports and people; beside a policy that is still valid, too. `source`: where the policy came from, for people, such
    as ``https://mta-sts.example.org/.well-known/mta-sts.txt, fetched 2026-12-01``."""

    policy: StsPolicy | None = None
    failure: TlsFailure = TlsFailure.NO_FAILURE
    text: str = ""
    source: str = ""


NO_STS: Final = StsAnswer()


class StsPolicies(Protocol):
    """Call it with a domain (lower-case A-labels): the recipients' domain, not a host. It ends within a time of its
    own, and never raises."""

    def __call__(self, domain: str, /) -> Awaitable[StsAnswer]: ...


async def no_sts(domain: str, /) -> StsAnswer:
    """The answer if nobody asks for MTA-STS."""
    return NO_STS


class Tlsa(msgspec.Struct, frozen=True, array_like=True):
    """One TLSA record (RFC 6698 §2.1), the three numbers as they stand."""

    usage: int
    selector: int
    matching_type: int
    data: bytes

    def __str__(self) -> str:
        return f"{self.usage} {self.selector} {self.matching_type} {self.data.hex()}"


class HostPolicy(msgspec.Struct, frozen=True, array_like=True):
    """What TLS policy holds for one host. `level`: the word of the settings that led to it (`mail.route.TlsDemand`).
    `source`: where it came from, for people. `domain`: whose policy it is: the TLSA base domain of DANE, else the
    recipients' domain or the next hop.

    What the host must show, besides the demand and the proof of its hop: `tlsa`: a certificate that these records
    allow; `names`: a certificate for one of these names, for DANE only with usage 2 (``.example.org`` stands for all
    below it); `fingerprints`: a certificate or key with one of these. `server_name`: the name to ask for (SNI), "": the
    host's. `failure`, `text`: what is wrong already, before the host is asked; if it is `passed_over`, it never is.
    `testing`: what does not hold is told, and the mail goes on (mode testing of MTA-STS).
    """

    level: str
    kind: PolicyKind = PolicyKind.NONE
    source: str = ""
    domain: str = ""
    tlsa: tuple[Tlsa, ...] = ()
    names: tuple[str, ...] = ()
    fingerprints: tuple[str, ...] = ()
    server_name: str = ""
    testing: bool = False
    failure: TlsFailure = TlsFailure.NO_FAILURE
    text: str = ""
    lines: tuple[str, ...] = ()  # RFC 8460 §4.4, policy-string
    mx: tuple[str, ...] = ()  # RFC 8460 §4.4, mx-host: of MTA-STS
    minimum: str = ""  # the oldest TLS version; "": as set under [outbound.tls]
    ciphers: str = ""
    passed_over: bool = False


class TlsOutcome(msgspec.Struct, frozen=True, array_like=True):
    """What became of the policy at one host, as the attempt and its event keep it (`mail.attempt.Attempt.policy`,
    `Try.policy`). The host's name and address stand in the attempt or try itself.

    `held`: the session satisfied the policy; if not, `failure` is why, in RFC 8460's words, and `text` in ours. Where
    there is a `failure` and `held`, something about the policy was wrong, and mail could go on (an MTA-STS policy that
    could not be renewed; with `testing`, `held` is false and the mail went on all the same). `session_us`: when the
    connection was begun, or was not begun: the attempts of one session have the same, so that it is counted once.
    `own_address`: from which address of ours the connection came, "" if there was none.
    """

    level: str
    kind: PolicyKind = PolicyKind.NONE
    source: str = ""
    domain: str = ""
    held: bool = True
    failure: TlsFailure = TlsFailure.NO_FAILURE
    text: str = ""
    testing: bool = False
    session_us: int = 0
    own_address: str = ""
    lines: tuple[str, ...] = ()
    mx: tuple[str, ...] = ()

    @property
    def in_words(self) -> str:
        """``TLS policy dane (TLSA records of mx.example.org, proved by DNSSEC) held``."""
        where = f" ({self.source})" if self.source else ""
        if self.held:
            noted = f", but {self.failure.value}: {self.text}" if self.failure is not TlsFailure.NO_FAILURE else ""
            return f"TLS policy {self.level}{where} held{noted}"
        what = "did not hold, and the mail went on (testing)" if self.testing else "did not hold"
        return f"TLS policy {self.level}{where} {what}: {self.failure.value}"


def outcome_of(
    policy: HostPolicy, failure: TlsFailure, text: str, *, held: bool, session_us: int = 0, own_address: str = ""
) -> TlsOutcome:
    """What a policy came to at a host."""
    return TlsOutcome(
        policy.level, policy.kind, policy.source, policy.domain, held, failure, text, policy.testing, session_us,
        own_address, policy.lines, policy.mx,
    )  # fmt: skip
