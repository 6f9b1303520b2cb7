"""Where reports go: only mailboxes that want them; nobody can have us flood another organization."""

from __future__ import annotations

from typing import Any

import pytest

from postroad.report.feedback_places import ReportPlace, ReportPlaces, dmarc_places, host_of, tls_places
from postroad.trust import dmarc_record
from tests.unit.trust.zones import ZoneResolver

OURS = {"_dmarc.example.com": {"TXT": ["v=DMARC1; p=none"]}, "_dmarc.taker.example": {"TXT": ["v=DMARC1; p=none"]}}


async def places(rua: str, zones: dict[str, Any] | None = None, *, failure: bool = False) -> ReportPlaces:
    record = dmarc_record.parse(f"v=DMARC1; p=none; {'ruf' if failure else 'rua'}={rua}")
    return await dmarc_places(ZoneResolver({**OURS, **(zones or {})}), "example.com", record, failure=failure)


def consent(text: str) -> dict[str, Any]:
    return {"example.com._report._dmarc.taker.example": {"TXT": [text]}}


async def test_mailboxes_of_the_same_organization_need_no_consent() -> None:
    found = await places("mailto:a@example.com!10m, mailto:b@deep.sub.example.com,mailto:a@example.com")
    assert found.found == (ReportPlace("mailto:a@example.com", 10 << 20), ReportPlace("mailto:b@deep.sub.example.com"))
    assert not found.refused


async def test_other_organizations_must_have_agreed() -> None:
    refused = await places("mailto:a@taker.example")
    assert not refused.found and "does not take reports" in refused.refused[0][1]
    agreed = await places("mailto:a@taker.example", consent("v=DMARC1"))
    assert agreed.found == (ReportPlace("mailto:a@taker.example"),)
    assert (await places("mailto:a@taker.example", consent("v=DMARC1;"), failure=True)).found
    assert not (await places("mailto:a@taker.example", consent("yes; v=DMARC1"))).found
    wildcard = {"*._report._dmarc.taker.example": {"TXT": ["v=DMARC1"]}}  # the DNS server's own work; here it is a name
    assert not (await places("mailto:a@taker.example", wildcard)).found


async def test_who_has_agreed_may_name_another_mailbox_of_the_same_host() -> None:
    found = await places("mailto:a@taker.example!1k", consent("v=DMARC1; rua=mailto:z@taker.example!5m"))
    assert found.found == (ReportPlace("mailto:z@taker.example", 5 << 20),)
    moved = await places("mailto:a@taker.example", consent("v=DMARC1; rua=mailto:z@victim.example"))
    assert not moved.found and "another host" in moved.refused[0][1]


async def test_what_is_no_mailbox_gets_nothing() -> None:
    found = await places("https://example.com/,mailto:nobody,mailto:a%0d%0ab@example.com,mailto:ok@example.com")
    assert found.found == (ReportPlace("mailto:ok@example.com"),)


async def test_without_an_answer_of_the_dns_nobody_knows() -> None:
    zones = {"example.com._report._dmarc.taker.example": {"TXT": ["ERROR"]}}
    assert (await places("mailto:a@taker.example", zones)).failed
    zones = {"_dmarc.taker.example": {"TXT": ["ERROR"]}}
    found = await places("mailto:a@taker.example,mailto:b@example.com", zones)
    assert found.failed
    assert found.found == (ReportPlace("mailto:b@example.com"),)  # who needs not be asked about does not wait


async def test_a_name_that_is_too_long_is_no_consent() -> None:
    host = ".".join(["a" * 60] * 4)
    found = await places(f"mailto:a@{host}")
    assert not found.found and "too long" in found.refused[0][1]


async def test_the_number_of_destinations_is_limited() -> None:
    found = await places(",".join(f"mailto:{number}@example.com" for number in range(15)))
    assert len(found.found) == 10 and len(found.refused) == 5


async def test_tls_reports_go_where_the_record_says() -> None:
    zones = {
        "_smtp._tls.example.com": {"TXT": ["v=TLSRPTv1;rua=mailto:t@other.example,https://other.example/x", "spf"]},
        "_smtp._tls.b.example": {"TXT": ["v=TLSRPTv1;rua=mailto:a@b", "v=TLSRPTv1;rua=mailto:a@b"]},
        "_smtp._tls.c.example": {"TXT": ["ERROR"]},
        "_smtp._tls.d.example": {"TXT": ["v=TLSRPTv1;rua=ftp://d.example"]},
    }
    dns = ZoneResolver(zones)
    found = await tls_places(dns, "example.com")
    assert [place.uri for place in found.found] == ["mailto:t@other.example", "https://other.example/x"]
    assert "2 TLSRPT records" in (await tls_places(dns, "b.example")).refused[0][1]
    assert (await tls_places(dns, "c.example")).failed
    assert not (await tls_places(dns, "d.example")).found
    assert not (await tls_places(dns, "none.example")).found


def test_the_host_of_a_destination() -> None:
    assert host_of("mailto:a@Example.COM") == "example.com"
    assert host_of("https://user@Example.com:8443/x?y=z@w") == "example.com"
    assert host_of("https:///x") == ""


@pytest.mark.parametrize(
    "uri",
    ["https://a.example:99999/x", "https://a.example:0/", "https://a.example:x/", "https://u:p@a.example/",
     "https://[2001:db8::1]/", "https:/a.example", "https:a.example", "https:///x"],
)  # fmt: skip
async def test_a_place_that_no_report_can_be_posted_to(uri: str) -> None:
    dns = ZoneResolver({"_smtp._tls.example.com": {"TXT": [f"v=TLSRPTv1;rua={uri},https://a.example:8443/x?y"]}})
    found = await tls_places(dns, "example.com")
    assert [each.uri for each in found.found] == ["https://a.example:8443/x?y"]
    assert [each for each, _ in found.refused] == [uri]
    assert host_of("https://a.example?@b.example/") == "a.example"  # the one that is asked
