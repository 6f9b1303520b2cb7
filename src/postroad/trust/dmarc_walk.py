"""The DNS tree walk: DMARC records from a domain upwards, and the organizational domain (RFC 9989 §4.10).

No list of public suffixes: the records say themselves where an organization ends. What always holds: one walk asks at
most QUERIES_MAX names, however many labels the domain has; one `Walker` asks each name once. Never raises but for
cancellation. How it fails: `Walk.failed` says which name could not be asked; then nobody knows the organizational
domain.
"""

from __future__ import annotations

from typing import Final, Protocol

import msgspec

from postroad.trust.dmarc_record import PREFIX, DmarcRecord, Psd, select
from postroad.world.dns import DnsAnswer, DnsStatus

QUERIES_MAX: Final = 8
_LABELS_MAX: Final = QUERIES_MAX - 1  # of the second name that is asked


class Names(Protocol):
    """What DMARC asks the DNS. `trust.asking.DnsQuestions` is one."""

    async def text(self, name: str) -> DnsAnswer[str]: ...

    async def a(self, host: str) -> DnsAnswer[str]: ...


class AskedDomain(msgspec.Struct, frozen=True):
    """What one name has. `record`: None: none that counts; `why`: why not. `failed`: the DNS did not say."""

    domain: str
    record: DmarcRecord | None = None
    why: str = ""
    failed: bool = False


class Walk(msgspec.Struct, frozen=True):
    """`asked`: from the domain upwards. `organizational`: "" if `failed` has a text."""

    asked: tuple[AskedDomain, ...]
    organizational: str = ""
    failed: str = ""

    def record_of(self, domain: str) -> DmarcRecord | None:
        return next((each.record for each in self.asked if each.domain == domain), None)

    @property
    def suffix(self) -> AskedDomain | None:
        """The public suffix domain that ended the walk."""
        last = self.asked[-1]
        return last if last.record is not None and last.record.psd is Psd.YES else None


def targets(domain: str) -> list[str]:
    """The domains whose records are asked for, in their order, if none ends the walk."""
    labels = domain.split(".")
    return [domain, *[".".join(labels[at:]) for at in range(max(1, len(labels) - _LABELS_MAX), len(labels))]]


class Walker:
    """The walks for one message."""

    __slots__ = ("_asked", "_dns", "_walks")

    def __init__(self, dns: Names) -> None:
        self._dns = dns
        self._asked: dict[str, AskedDomain] = {}
        self._walks: dict[str, Walk] = {}

    async def asked(self, domain: str) -> AskedDomain:
        """The record at this domain itself."""
        known = self._asked.get(domain)
        if known is None:
            known = self._asked[domain] = _read(domain, await self._dns.text(PREFIX + domain))
        return known

    async def walk(self, domain: str) -> Walk:
        """All the way up, to the first record that ends it."""
        known = self._walks.get(domain)
        if known is None:
            known = self._walks[domain] = await self._walk(domain)
        return known

    async def _walk(self, domain: str) -> Walk:
        passed: list[AskedDomain] = []
        for target in targets(domain):
            each = await self.asked(target)
            passed.append(each)
            if each.failed:
                return Walk(tuple(passed), failed=each.why)
            if each.record is not None and each.record.psd is not Psd.UNKNOWN:
                break
        return Walk(tuple(passed), _organizational(domain, passed))

    async def exists(self, domain: str) -> bool | str:
        """Whether the domain exists (RFC 9989 §3.2.13: no NXDOMAIN); or why nobody knows. An alias exists, also if the
        name to which it leads does not (RFC 6604 §3)."""
        answer = await self._dns.a(domain)
        if answer.status is DnsStatus.ERROR:
            return f"the DNS does not say whether {domain} exists: {answer.text}"
        return answer.status is not DnsStatus.NXDOMAIN or bool(answer.followed)


def _organizational(domain: str, passed: list[AskedDomain]) -> str:
    """RFC 9989 §4.10.2. Only the last one can have psd=y or psd=n, as these end the walk."""
    found = [each for each in passed if each.record is not None]
    if not found:
        return domain
    last = found[-1]
    if last.record is not None and last.record.psd is Psd.YES and last.domain != domain:
        # The domain one label below the public suffix.
        return ".".join(domain.split(".")[-(last.domain.count(".") + 2) :])
    return last.domain


def _read(domain: str, answer: DnsAnswer[str]) -> AskedDomain:
    match answer.status:
        case DnsStatus.FOUND:
            selected = select(answer.records)
            if isinstance(selected, str):
                return AskedDomain(domain, None, f"{PREFIX}{domain}: {selected}")
            return AskedDomain(domain, selected)
        case DnsStatus.ERROR:
            return AskedDomain(domain, None, f"the DNS has no answer for {PREFIX}{domain}: {answer.text}", failed=True)
        case DnsStatus.NODATA | DnsStatus.NXDOMAIN:
            return AskedDomain(domain, None, f"{PREFIX}{domain}: there is no DMARC record")
