"""A Resolver that answers from a table, for the tests of this room and for second opinions on it."""

from __future__ import annotations

import asyncio
import ipaddress
from collections.abc import Mapping, Sequence
from typing import Any

from postroad.world.dns import DnsAnswer, DnsStatus, MxRecord, TlsaRecord

Records = Mapping[str, Sequence[str]]
_CNAMES_MAX = 8


class ZoneResolver:
    """`zones`: by name, the records by type: {"a.example": {"A": ["192.0.2.1"], "MX": ["10 mx.a.example"]}}.

    A type with the one record "ERROR" fails, and all types of a name do if it has the type "ERROR". A name that is not
    in the table, and of which none is below, does not exist. `slow_s`: how long each answer takes.
    """

    def __init__(self, zones: Mapping[str, Records], slow_s: float = 0.0) -> None:
        self._zones = {name.lower().rstrip("."): records for name, records in zones.items()}
        self._slow_s = slow_s
        self.asked: list[str] = []

    async def mx(self, domain: str) -> DnsAnswer[MxRecord]:
        found = await self.find(domain, "MX")
        records = [
            MxRecord(int(preference), host.lower().rstrip("."))
            for preference, _, host in (line.partition(" ") for line in found.records)
        ]
        return DnsAnswer(found.status, tuple(sorted(records, key=lambda each: each.preference)), found.text)

    async def addresses(self, host: str) -> DnsAnswer[str]:
        both = await self.a(host), await self.aaaa(host)
        records = tuple(record for answer in both for record in answer.records)
        return DnsAnswer(DnsStatus.FOUND, records) if records else both[0]

    async def a(self, host: str) -> DnsAnswer[str]:
        return await self.find(host, "A")

    async def aaaa(self, host: str) -> DnsAnswer[str]:
        return await self.find(host, "AAAA")

    async def reverse(self, address: str) -> DnsAnswer[str]:
        return await self.find(ipaddress.ip_address(address).reverse_pointer, "PTR")

    async def text(self, name: str) -> DnsAnswer[str]:
        return await self.find(name, "TXT")

    async def tlsa(self, host: str, port: int) -> DnsAnswer[TlsaRecord]:
        raise AssertionError("not wanted here")

    async def cname(self, name: str) -> DnsAnswer[str]:
        return await self.find(name, "CNAME")

    async def find(self, asked: str, type: str) -> DnsAnswer[Any]:
        self.asked.append(f"{type} {asked}")
        if self._slow_s:
            await asyncio.sleep(self._slow_s)
        name = asked
        followed: list[str] = []
        while True:
            records = self._zones.get(name, {})
            if "ERROR" in records or list(records.get(type, ())) == ["ERROR"]:
                return DnsAnswer(DnsStatus.ERROR, (), f"DNS look-up of {name}: SERVFAIL", name=name)
            if type in records:
                values = records[type]
                if type in ("PTR", "CNAME"):
                    values = [each.lower().rstrip(".") for each in values]
                return DnsAnswer(DnsStatus.FOUND, tuple(values), name=name, followed=tuple(followed))
            if "CNAME" not in records:
                break
            followed.append(name)
            name = records["CNAME"][0].lower().rstrip(".")
            if name in followed or len(followed) > _CNAMES_MAX:
                return DnsAnswer(DnsStatus.ERROR, (), f"too many aliases (CNAME), or a ring of them, at {name}")
        if records or any(each.endswith(f".{name}") for each in self._zones):
            text = f"{name} has no {type} records"
            return DnsAnswer(DnsStatus.NODATA, (), text, name=name, followed=tuple(followed))
        return DnsAnswer(DnsStatus.NXDOMAIN, (), f"{name} does not exist", name=name, followed=tuple(followed))
