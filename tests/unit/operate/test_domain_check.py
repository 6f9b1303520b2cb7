"""What `postroad dns check` finds of DMARC: the same as those who send reports."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from postroad.mail.tls_policy import StsMode
from postroad.operate.domain_check import RecordStanding, check
from postroad.operate.domain_records import NodeFacts
from postroad.trust.sts_fetch import StsFetched
from tests.unit.trust.zones import ZoneResolver

NODE = NodeFacts("a.example.org", "mx.a.example.org", takes_mail=False, sts_mode=StsMode.NONE)
ZONES: dict[str, Any] = {"_dmarc.example.org": {"TXT": ["v=DMARC1; p=none"]}}


async def no_policy(domain: str, id: str) -> StsFetched:
    return StsFetched()


async def dmarc(rua: str, zones: dict[str, Any] | None = None) -> list[tuple[str, RecordStanding]]:
    own = {"_dmarc.a.example.org": {"TXT": [f"v=DMARC1; p=none; rua={rua}"]}}
    found = await check(NODE, ZoneResolver({**ZONES, **own, **(zones or {})}), no_policy, 0)
    return [(each.name, each.standing) for each in found if each.kind == "DMARC"]


OK, WRONG, UNKNOWN = RecordStanding.OK, RecordStanding.WRONG, RecordStanding.UNKNOWN


@pytest.mark.parametrize("host", ["a.example.org", "deep.a.example.org", "example.org", "b.example.org"])
async def test_mailboxes_of_the_organization_need_no_record(host: str) -> None:
    assert await dmarc(f"mailto:r@{host}") == [("_dmarc.a.example.org", OK)]
    if host != "b.example.org":
        assert await dmarc(f"mailto:r@{host}", {"_dmarc.org": {"TXT": ["ERROR"]}}) == [("_dmarc.a.example.org", OK)]


async def test_what_a_right_spf_record_needs_besides() -> None:
    """The same text as found and as needed would tell nobody what to do."""
    node = msgspec.structs.replace(NODE, addresses=("192.0.2.9",))
    for record, needed in (
        ("v=spf1 a:mx.a.example.org -all", "mx.a.example.org. A 192.0.2.9"),
        ("v=spf1 ip4:192.0.2.1 -all", "v=spf1 a:mx.a.example.org -all"),
    ):
        found = await check(node, ZoneResolver({**ZONES, "a.example.org": {"TXT": [record]}}), no_policy, 0)
        (spf,) = [each for each in found if (each.kind, each.name) == ("SPF", "a.example.org")]
        assert (spf.standing, spf.expected) == (WRONG, (needed,))


async def test_mailboxes_of_others_need_one() -> None:
    name = "a.example.org._report._dmarc.other.example"
    assert await dmarc("mailto:r@other.example") == [(name, WRONG)]
    assert await dmarc("mailto:r@other.example", {name: {"TXT": ["v=DMARC1"]}}) == [("_dmarc.a.example.org", OK)]
    assert await dmarc("mailto:r@other.example", {name: {"TXT": ["ERROR"]}}) == [(name, UNKNOWN)]
