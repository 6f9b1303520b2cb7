"""iprev: whether the address of a client has a name that leads back to it (RFC 8601 §3, §2.7.3).

What always holds: at most NAMES_MAX names are looked at. How it fails: `temperror` if the DNS could not be asked and no
name that was found leads back. An IPv4-mapped address is the IPv4 address that it means.
"""

from __future__ import annotations

import asyncio
from typing import Final

import msgspec

from postroad.trust import results
from postroad.trust.asking import DnsQuestions, client_address
from postroad.trust.results import Found
from postroad.world.dns import DnsStatus

NAMES_MAX: Final = 10


class ReverseName(msgspec.Struct, frozen=True):
    """What was found. `name`: a name that leads back to the address; "": none does. `address`: as it was asked for."""

    result: str
    address: str
    told: str
    name: str = ""

    def found(self) -> Found:
        """In the terms of Authentication-Results."""
        reason = "" if self.result == results.PASS else self.told
        return Found(results.IPREV, self.result, reason, (("policy", "iprev", self.address),), self.told)


async def check(client: str, questions: DnsQuestions) -> ReverseName:
    """Look up the names of the address, and the addresses of the names."""
    address = client_address(client)
    if address is None:
        return ReverseName(results.PERMERROR, client, "the client has no IP address")
    written = str(address)
    answer = await questions.reverse(written)
    if answer.status is DnsStatus.ERROR:
        told = f"the names of {written} could not be looked up: {answer.text}"
        return ReverseName(results.TEMPERROR, written, told)
    names = [name for name in dict.fromkeys(answer.records) if name][:NAMES_MAX]
    if not names:
        return ReverseName(results.PERMERROR, written, f"{written} has no name in the DNS")
    ask = questions.aaaa if address.version == 6 else questions.a
    answers = await asyncio.gather(*map(ask, names))
    for name, each in zip(names, answers, strict=True):
        if any(client_address(record) == address for record in each.records):
            return ReverseName(results.PASS, written, f"{written} has the name {name}, which leads back to it", name)
    for name, each in zip(names, answers, strict=True):
        if each.status is DnsStatus.ERROR:
            told = f"{written} has the name {name}, whose addresses could not be looked up: {each.text}"
            return ReverseName(results.TEMPERROR, written, told)
    told = f"{written} has the name {names[0]}, but that name does not lead back to it"
    if len(names) > 1:
        told = f"{written} has {len(names)} names, such as {names[0]}, but none leads back to it"
    return ReverseName(results.FAIL, written, told)
