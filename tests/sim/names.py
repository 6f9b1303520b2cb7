"""The simulated DNS: zones that change while the world runs, and answers that fail, each with its delay."""

from __future__ import annotations

import asyncio
import ipaddress
import random
from dataclasses import dataclass, field
from typing import Any

from postroad.mail.address import is_ip_address
from postroad.world.dns import DnsAnswer, DnsStatus, MxRecord, TlsaRecord


@dataclass
class Zone:
    """What a domain answers now. `state`: "", "nxdomain", "servfail", "timeout", "nodata"."""

    mx: tuple[tuple[int, str], ...] = ()
    state: str = ""


@dataclass
class Names:
    """All names. `share`: of the questions, how many fail by chance (SERVFAIL)."""

    chance: random.Random
    zones: dict[str, Zone] = field(default_factory=dict)
    fixed: dict[str, Zone] = field(default_factory=dict)  # zones whose records nobody changes
    hosts: dict[str, tuple[str, ...]] = field(default_factory=dict)
    host_states: dict[str, str] = field(default_factory=dict)
    share: float = 0.0
    down: bool = False  # no resolver answers
    texts: dict[str, tuple[str, ...]] = field(default_factory=dict)
    reverses: dict[str, tuple[str, ...]] = field(default_factory=dict)
    text_states: dict[str, str] = field(default_factory=dict)
    text_chance: random.Random = field(default_factory=lambda: random.Random("texts"))
    failed: list[float] = field(default_factory=list)  # when a question about a text had no answer
    denied: list[float] = field(default_factory=list)  # when it was said that there is none, and there is one
    proved: set[str] = field(default_factory=set)  # hosts whose addresses DNSSEC proves
    tlsa: dict[str, tuple[TlsaRecord, ...] | None] = field(default_factory=dict)  # by host; None: SERVFAIL


class SimResolver:
    """`postroad.world.dns.Resolver` over Names."""

    def __init__(self, names: Names) -> None:
        self._names = names

    async def mx(self, domain: str) -> DnsAnswer[MxRecord]:
        zone = self._names.zones.get(domain) or self._names.fixed.get(domain)
        failed: DnsAnswer[MxRecord] | None = await self._state(domain, zone.state if zone is not None else "nxdomain")
        if failed is not None:
            return failed
        assert zone is not None
        if not zone.mx:
            return DnsAnswer(DnsStatus.NODATA, (), f"{domain} has no MX records")
        records = [MxRecord(preference, exchange) for preference, exchange in zone.mx]
        return DnsAnswer(DnsStatus.FOUND, tuple(sorted(records, key=lambda record: record.preference)))

    async def addresses(self, host: str) -> DnsAnswer[str]:
        names = self._names
        if host[:1].isdigit():
            return DnsAnswer(DnsStatus.FOUND, (host,))
        known = names.hosts.get(host)
        state = names.host_states.get(host, "" if known is not None else "nxdomain")
        failed: DnsAnswer[str] | None = await self._state(host, state)
        if failed is not None:
            return failed
        if not known:
            return DnsAnswer(DnsStatus.NODATA, (), f"{host} has no addresses")
        return DnsAnswer(DnsStatus.FOUND, known, secure=host in names.proved, name=host)

    async def a(self, host: str) -> DnsAnswer[str]:
        return _of_version(host, 4, await self.addresses(host))

    async def aaaa(self, host: str) -> DnsAnswer[str]:
        return _of_version(host, 6, await self.addresses(host))

    async def reverse(self, address: str) -> DnsAnswer[str]:
        known = self._names.reverses.get(address)
        if known is None:
            return DnsAnswer(DnsStatus.NXDOMAIN, (), f"{address} has no name")
        return await self._slowly(address, known)

    async def text(self, name: str) -> DnsAnswer[str]:
        known = self._names.texts.get(name)
        if known is None:
            return DnsAnswer(DnsStatus.NXDOMAIN, (), f"{name} does not exist")
        return await self._slowly(name, known)

    async def _slowly(self, name: str, known: tuple[str, ...]) -> DnsAnswer[str]:
        """What is known, later; or a failure, or a lie. Its chance is its own: other names answer as without it."""
        names = self._names
        await asyncio.sleep(0.001 + 0.2 * names.text_chance.random() ** 4)
        state = names.text_states.get(name, "")
        now = asyncio.get_running_loop().time
        if names.down or state == "timeout":
            names.failed.append(now())
            await asyncio.sleep(15.0)
            names.failed.append(now())
            return DnsAnswer(DnsStatus.ERROR, (), f"{name}: no answer within 15 s")
        if state == "servfail":
            names.failed.append(now())
            return DnsAnswer(DnsStatus.ERROR, (), f"{name}: SERVFAIL")
        if state:
            names.denied.append(now())
            return DnsAnswer(DnsStatus.NXDOMAIN, (), f"{name} does not exist")
        return DnsAnswer(DnsStatus.FOUND, known)

    async def tlsa(self, host: str, port: int) -> DnsAnswer[TlsaRecord]:
        name = f"_{port}._tcp.{host}"
        if host not in self._names.tlsa:
            return DnsAnswer(DnsStatus.NXDOMAIN, (), f"{name} does not exist")
        records = self._names.tlsa[host]
        failed: DnsAnswer[TlsaRecord] | None = await self._state(name, "servfail" if records is None else "")
        if failed is not None:
            return failed
        status = DnsStatus.FOUND if records else DnsStatus.NODATA
        return DnsAnswer(status, records or (), "" if records else f"{name} has no TLSA records", secure=True)

    async def cname(self, name: str) -> DnsAnswer[str]:
        return DnsAnswer(DnsStatus.NODATA, (), f"{name} has no CNAME records")

    async def _state(self, name: str, state: str) -> DnsAnswer[Any] | None:
        names = self._names
        await asyncio.sleep(0.001 + 0.2 * names.chance.random() ** 4)
        if names.down or state == "timeout":
            await asyncio.sleep(15.0)
            return DnsAnswer(DnsStatus.ERROR, (), f"{name}: no answer within 15 s")
        if state == "nxdomain":
            return DnsAnswer(DnsStatus.NXDOMAIN, (), f"{name} does not exist")
        if state == "servfail" or names.chance.random() < names.share:
            return DnsAnswer(DnsStatus.ERROR, (), f"{name}: SERVFAIL")
        return DnsAnswer(DnsStatus.NODATA, (), f"{name} has none") if state == "nodata" else None


def _of_version(host: str, version: int, both: DnsAnswer[str]) -> DnsAnswer[str]:
    """What a query for the addresses of one version finds."""
    if both.status is not DnsStatus.FOUND:
        return both
    if is_ip_address(host):
        return DnsAnswer(DnsStatus.NXDOMAIN, (), f"{host} does not exist")
    records = tuple(each for each in both.records if ipaddress.ip_address(each).version == version)
    if not records:
        return DnsAnswer(DnsStatus.NODATA, (), f"{host} has no such addresses")
    return DnsAnswer(DnsStatus.FOUND, records)
