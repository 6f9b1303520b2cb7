"""Where a report to another domain goes: the URIs of its DMARC or TLSRPT record, as far as they may be used.

A DMARC record may name a destination in another organization. That destination must say in the DNS that it wants the
reports (RFC 9990 §3): else anybody could have all nodes of the world send reports to a victim. What always holds: a
destination in another organization that has not said so gets nothing; each destination stands in the answer once; one
report costs at most a bounded number of DNS queries (`trust.asking`). Never raises but for cancellation.

How it fails: `ReportPlaces.failed` says that the DNS did not answer about some of them; the question is for later.
"""

from __future__ import annotations

import re
from typing import Final

import msgspec

from postroad.mail.address import Address, canonical_domain
from postroad.protocol.grammar import parse_mailbox
from postroad.trust import dmarc_record, tlsrpt_record
from postroad.trust.asking import NAME_MAX
from postroad.trust.dmarc_record import DmarcRecord, mail_address
from postroad.trust.dmarc_walk import Names, Walker
from postroad.trust.tlsrpt_record import TlsrptRecord
from postroad.world.dns import DnsStatus

CONSENT: Final = "._report._dmarc."  # between the policy domain and the destination's host
PLACES_MAX: Final = 10  # destinations of one report


class ReportPlace(msgspec.Struct, frozen=True):
    """One destination. `uri`: as the record has it. `size_max`: the most octets that it takes, 0 if it does not say."""

    uri: str
    size_max: int = 0


class ReportPlaces(msgspec.Struct, frozen=True):
    """`found`: the destinations. `refused`: URIs that get nothing, each with the reason. `failed`: why it is not known
    yet whether there are more; "" if all is known."""

    found: tuple[ReportPlace, ...] = ()
    refused: tuple[tuple[str, str], ...] = ()
    failed: str = ""


def mailbox_of(uri: str) -> Address | None:
    """The mailbox of a mailto: URI; None if there is none."""
    text = mail_address(uri)
    return None if text is None else parse_mailbox(text)


async def dmarc_places(dns: Names, policy_domain: str, record: DmarcRecord, *, failure: bool = False) -> ReportPlaces:
    """Where reports go that this record asks for: aggregate reports, or failure reports."""
    walker = Walker(dns)
    found: dict[str, ReportPlace] = {}
    refused: list[tuple[str, str]] = []
    failed = ""
    for uri in record.failure if failure else record.aggregate:
        if len(found) >= PLACES_MAX:
            refused.append((uri, f"the record names more than {PLACES_MAX} destinations"))
            continue
        mailbox = mailbox_of(uri)
        if mailbox is None:
            refused.append((uri, "it is no mailto: address"))
            continue
        judged = await _allowed(dns, walker, policy_domain, uri, mailbox.domain, failure=failure)
        failed = failed or judged.failed
        refused += judged.refused
        size_max = 0 if failure else record.size_max(uri)
        for each in judged.found:
            found.setdefault(each.uri, ReportPlace(each.uri, each.size_max or size_max))
    return ReportPlaces(tuple(found.values())[:PLACES_MAX], tuple(refused), failed)


async def _allowed(
    dns: Names, walker: Walker, policy_domain: str, uri: str, host: str, *, failure: bool
) -> ReportPlaces:
    """The destination itself, or others that it names in its place; or why it gets nothing."""
    ours, theirs = await walker.walk(policy_domain), await walker.walk(host)
    failed = ours.failed or theirs.failed
    if failed:
        return ReportPlaces(failed=failed)
    if ours.organizational == theirs.organizational:
        return ReportPlaces((ReportPlace(uri),))
    name = f"{policy_domain}{CONSENT}{host}"
    if len(name) > NAME_MAX:  # RFC 9990 §3 step 4
        return ReportPlaces(refused=((uri, f"the name {name[:60]}… is too long for the DNS"),))
    answer = await dns.text(name)
    if answer.status is DnsStatus.ERROR:
        return ReportPlaces(failed=f"the DNS has no answer for {name}: {answer.text}")
    records = [dmarc_record.parse(text) for text in answer.records if dmarc_record.is_record(text)]
    if not records:
        return ReportPlaces(refused=((uri, f"{host} does not take reports for {policy_domain}: no record at {name}"),))
    return _instead(uri, host, name, records, failure=failure)


def _instead(uri: str, host: str, name: str, records: list[DmarcRecord], *, failure: bool) -> ReportPlaces:
    """Step 9: the destination may name other mailboxes of the same host."""
    named = [(record, each) for record in records for each in (record.failure if failure else record.aggregate)]
    if not named:
        return ReportPlaces((ReportPlace(uri),))
    found: list[ReportPlace] = []
    for record, each in named:
        mailbox = mailbox_of(each)
        if mailbox is None:
            continue
        if mailbox.domain != host:
            return ReportPlaces(refused=((uri, f"the record at {name} names another host, {mailbox.domain}"),))
        found.append(ReportPlace(each, 0 if failure else record.size_max(each)))
    if not found:
        return ReportPlaces(refused=((uri, f"the record at {name} names no mailbox"),))
    return ReportPlaces(tuple(found))


async def tls_places(dns: Names, domain: str) -> ReportPlaces:
    """Where TLS reports about a domain go (RFC 8460 §3). No consent is asked of other organizations (§7): only mail
    that we send to the domain can lead to a report."""
    answer = await dns.text(tlsrpt_record.PREFIX + domain)
    if answer.status is DnsStatus.ERROR:
        return ReportPlaces(failed=f"the DNS has no answer for {tlsrpt_record.PREFIX}{domain}: {answer.text}")
    record: TlsrptRecord | str = tlsrpt_record.select(answer.records)
    if isinstance(record, str):
        return ReportPlaces(refused=(("", record),))
    found: list[ReportPlace] = []
    refused: list[tuple[str, str]] = []
    for uri in record.uris[:PLACES_MAX]:
        is_mail = uri.partition(":")[0].lower() == "mailto"
        if is_mail and mailbox_of(uri) is None:
            refused.append((uri, "it is no mailto: address"))
        elif not is_mail and not _can_be_posted_to(uri):
            refused.append((uri, "it is no https: URI of a host"))
        else:
            found.append(ReportPlace(uri))
    return ReportPlaces(tuple(found), tuple(refused))


def _can_be_posted_to(uri: str) -> bool:
    """Whether a https: URI names a host, perhaps a port, and no more than that: what is read in two ways is refused."""
    found = _POSTED_TO.match(uri)
    port = int(found[2] or 443) if found is not None else 0
    return found is not None and 0 < port < 65_536 and host_of(uri) != ""


_POSTED_TO: Final = re.compile(r"https://([A-Za-z0-9._-]{1,253})(?::([0-9]{1,5}))?(?=[/?]|\Z)", re.IGNORECASE)


def host_of(uri: str) -> str:
    """The host of a destination, as the DNS has it; "" if it is none."""
    mailbox = mailbox_of(uri)
    if mailbox is not None:
        return mailbox.domain
    host = re.split("[/?#]", uri.partition("//")[2], maxsplit=1)[0].rpartition("@")[2].partition(":")[0]
    try:
        return canonical_domain(host)
    except ValueError:
        return ""
