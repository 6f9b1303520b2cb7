"""MTA-STS: asks the DNS for the record, and the policy host for the policy (RFC 8461 §3.1, §3.3).

The resolver and HTTPS are handed in. What always holds: both questions end within the time of their doors; only an
answer with status 200, the media type text/plain and at most FILE_MAX octets counts; redirections are not followed; a
policy host is asked at the addresses that our resolver gives, and never at a loopback address unless that is allowed.

How it fails: nothing raises. `ask_record` says that the DNS did not answer; `fetch` gives a StsFetched without a
policy, with the failure in the words of RFC 8460.
"""

from __future__ import annotations

from typing import Annotated, Final

import msgspec
from msgspec import Meta

from postroad.mail.address import is_loopback, is_unusable
from postroad.mail.tls_policy import StsPolicy, TlsFailure
from postroad.trust.sts import (
    FILE_MAX,
    HTTPS,
    StsFault,
    is_text,
    policy_host,
    policy_url,
    read_policy,
    record_id,
    record_name,
)
from postroad.world.dns import DnsStatus, Resolver
from postroad.world.http import Fetch, HttpRequest
from postroad.world.http_link import Unproved
from postroad.world.problem import Problem

TEXT_MAX: Final = 300  # characters of an error
ADDRESSES_MAX: Final = 4  # of a policy host that are tried


class StsOptions(msgspec.Struct, frozen=True):
    """How policies are fetched and kept. `loopback`: as for mail servers (`route.mx.MxOptions`). `is_on`: whether mail
    of any domain goes by such policies."""

    time_s: Annotated[
        float,
        Meta(
            ge=0.1,
            le=600,
            description="How long the fetch of a policy may take. The first mail for a domain waits for it.",
        ),
    ] = 20.0
    ca_file: Annotated[
        str,
        Meta(
            description="The root certificates that the servers of policies must prove themselves by, PEM. Unset: the "
            "system's."
        ),
    ] = ""
    port: Annotated[
        int,
        Meta(
            ge=1,
            le=65_535,
            description="The port of the servers of policies. Another one is of use only in a closed network.",
        ),
    ] = HTTPS
    entries_max: Annotated[
        int,
        Meta(
            ge=1,
            le=1_000_000,
            description="The most domains whose policies are kept. If there are more, the policy goes that was not "
            "used for the longest time.",
        ),
    ] = 20_000
    size_max: Annotated[
        int,
        Meta(
            ge=FILE_MAX,
            description="How much memory, and about as much of the disk, all kept policies may take.",
        ),
    ] = 32 * 1024 * 1024
    testing: Annotated[
        bool,
        Meta(
            description="Whether all policies count as if they were for testing: mail goes whatever they say, and what "
            "would have failed stands in the history."
        ),
    ] = False
    loopback: bool = False
    is_on: bool = True


class StsRecordFound(msgspec.Struct, frozen=True):
    """What the DNS says of a domain. `id`: of its record, "" if there is no valid one. `text`: why not, for people; ""
    if the domain does not speak of MTA-STS at all. `unknown`: the DNS did not answer, so nobody knows."""

    id: str = ""
    text: str = ""
    unknown: bool = False


class StsFetched(msgspec.Struct, frozen=True, array_like=True):
    """What a policy host said: the policy, or `failure` and `text`. `notes`: what was passed over in the file."""

    policy: StsPolicy | None = None
    failure: TlsFailure = TlsFailure.NO_FAILURE
    text: str = ""
    notes: tuple[str, ...] = ()


async def ask_record(domain: str, resolver: Resolver) -> StsRecordFound:
    """The record of a domain (lower-case A-labels)."""
    answer = await resolver.text(record_name(domain))
    if answer.status is DnsStatus.ERROR:
        return StsRecordFound(text=answer.text, unknown=True)
    found = record_id(answer.records)
    if isinstance(found, StsFault):
        return StsRecordFound(text=f"{record_name(domain)}: {found.text}")
    return StsRecordFound(found)


async def fetch(domain: str, id: str, resolver: Resolver, https: Fetch, options: StsOptions) -> StsFetched:
    """The policy that the policy host of a domain serves now. `id`: of the record, "" if there is none."""
    host = policy_host(domain)
    found = await resolver.addresses(host)
    if found.status is not DnsStatus.FOUND:
        return _failed(f"the address of the policy host {host} could not be looked up: {found.text}")
    usable = [each for each in found.records if not is_unusable(each) and (options.loopback or not is_loopback(each))]
    if not usable:
        return _failed(f"the policy host {host} has no address that can be asked ({found.records[0]})")
    url, addresses = policy_url(domain, options.port), tuple(usable[:ADDRESSES_MAX])
    request = HttpRequest(
        url, b"", (("User-Agent", "Postroad"), ("Accept", "text/plain")), options.time_s, FILE_MAX, "GET", addresses
    )
    answer = await https(request)
    if isinstance(answer, Problem):
        failure = TlsFailure.STS_WEBPKI_INVALID if isinstance(answer, Unproved) else TlsFailure.STS_POLICY_FETCH_ERROR
        return StsFetched(None, failure, f"{url}: {_clean(answer.text)}")
    if answer.status != 200:
        moved = ", and redirections are not followed (RFC 8461 §3.3)" if 300 <= answer.status < 400 else ""
        return _failed(f"{url}: the server answered with status {answer.status}{moved}")
    if not is_text(answer.content_type):
        return _failed(f"{url}: the media type is {answer.content_type[:80]!a}, not text/plain")
    if answer.content_encoding.strip().lower() not in ("", "identity"):
        return _failed(f"{url}: the answer is encoded ({answer.content_encoding[:80]!a}), which we did not ask for")
    read = read_policy(answer.body, domain, id)
    if isinstance(read, StsFault):
        return StsFetched(None, TlsFailure.STS_POLICY_INVALID, f"{url}: {read.text}")
    policy, notes = read
    return StsFetched(policy, notes=notes)


def _failed(text: str) -> StsFetched:
    return StsFetched(None, TlsFailure.STS_POLICY_FETCH_ERROR, text)


def _clean(text: str) -> str:
    """What a stranger's server may have had a hand in."""
    return "".join(char if char.isprintable() else "?" for char in text[:TEXT_MAX])
