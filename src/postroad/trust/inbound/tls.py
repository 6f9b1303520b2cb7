"""TLS reports, read (RFC 8460 §4.4, with errata; what reporters send in its place).

What always holds: JSON is read by its schema, so that no more than that is held; members that are not known are passed
over. How it fails: `UnreadableReport`.
"""

from __future__ import annotations

import datetime
import ipaddress
from collections.abc import Sequence
from typing import Annotated, Final

import msgspec

from postroad.trust.inbound.limits import DEFAULT_LIMITS, PROBLEMS_MAX, InboundLimits, UnreadableReport
from postroad.trust.inbound.values import (
    COUNT_MAX,
    InboundTls,
    InboundTlsFailure,
    InboundTlsPolicy,
    domain_of,
    tidy,
)

SIZE_MAX: Final = 8_388_608  # octets of JSON
DOMAINS_MAX: Final = 100  # of one report: each is kept by itself. RFC 8460 §4.4 has one, its mail hosts more
_STRINGS_MAX: Final = 100  # lines of a policy, hosts of a policy
_TYPES: Final = ("tlsa", "sts", "no-policy-found")
_Count = Annotated[int, msgspec.Meta(ge=-(2**62), le=2**62)]
_Strings = list[str] | str | None


class _Range(msgspec.Struct, rename="kebab"):
    start_datetime: str | None = None
    end_datetime: str | None = None


class _Policy(msgspec.Struct, rename="kebab"):
    policy_type: str | None = None
    policy_string: _Strings = None
    policy_domain: str | None = None
    mx_host: _Strings = None


class _Summary(msgspec.Struct, rename="kebab"):
    total_successful_session_count: _Count | None = None
    total_failure_session_count: _Count | None = None


class _Failure(msgspec.Struct, rename="kebab"):
    result_type: str | None = None
    sending_mta_ip: str | None = None
    receiving_mx_hostname: str | None = None
    receiving_mx_helo: str | None = None
    receiving_ip: str | None = None
    failed_session_count: _Count | None = None
    additional_information: str | None = None
    additional_info_uri: str | None = None
    failure_reason_code: str | None = None


class _PolicyResult(msgspec.Struct, rename="kebab"):
    policy: _Policy | None = None
    summary: _Summary | None = None
    failure_details: list[_Failure] | _Failure | None = None


class _TlsReport(msgspec.Struct, rename="kebab"):
    policies: list[_PolicyResult]
    organization_name: str | None = None
    date_range: _Range | None = None
    contact_info: str | None = None
    report_id: str | None = None


_DECODER: Final = msgspec.json.Decoder(_TlsReport, strict=False)


def looks_like_one(octets: bytes) -> bool:
    """Whether a file seems to be JSON."""
    return octets[:200].removeprefix(b"\xef\xbb\xbf").lstrip().startswith(b"{")


def read(octets: bytes, limits: InboundLimits = DEFAULT_LIMITS) -> InboundTls:
    """The report in a JSON file."""
    if len(octets) > SIZE_MAX:
        raise UnreadableReport(f"its JSON has more than {SIZE_MAX} octets")
    if octets.count(b"{") + octets.count(b"[") > limits.records_max * 4:
        raise UnreadableReport(f"it has more than {limits.records_max} policies and failures (records_max)")
    try:
        found = _DECODER.decode(octets.removeprefix(b"\xef\xbb\xbf"))
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise UnreadableReport(f"it is JSON, but no TLS report: {tidy(str(error))}"[:300]) from None
    return _report(found)


def _report(found: _TlsReport) -> InboundTls:
    problems: dict[str, None] = {}
    span = found.date_range or _Range()
    begin_s, end_s = _moment(span.start_datetime), _moment(span.end_datetime)
    if not begin_s or not end_s:
        problems["it does not say for which time it is"] = None
    elif end_s < begin_s:
        problems["its time ends before it begins"] = None
    for value, name in ((found.organization_name, "organization-name"), (found.report_id, "report-id")):
        if not value:
            problems[f"it has no {name}"] = None
    policies = tuple(_policy(each, problems) for each in found.policies)
    domains = {each.domain for each in policies}
    if not any(domains):
        raise UnreadableReport("it does not say which domain it is about")
    if len(domains) > DOMAINS_MAX:
        raise UnreadableReport(f"it is about more than {DOMAINS_MAX} domains")
    return InboundTls(
        tidy(found.organization_name or "") or "unknown", tidy(found.contact_info or ""), tidy(found.report_id or ""),
        begin_s, end_s, policies, tuple(problems)[:PROBLEMS_MAX],
    )


def _policy(found: _PolicyResult, problems: dict[str, None]) -> InboundTlsPolicy:
    policy, summary = found.policy or _Policy(), found.summary or _Summary()
    type = tidy(policy.policy_type or "").lower()
    if type not in _TYPES:
        problems[f"it has a policy of the type {type or 'nothing'!r}"] = None
    details = found.failure_details
    failures = () if details is None else (details,) if isinstance(details, _Failure) else tuple(details)
    failed, successful = summary.total_failure_session_count, summary.total_successful_session_count
    if failed is None or successful is None:
        problems["it does not say how many sessions there were"] = None
    return InboundTlsPolicy(
        type, domain_of(policy.policy_domain or ""), _count(successful), _count(failed),
        _strings(policy.policy_string), _strings(policy.mx_host), tuple(map(_failure, failures)),
    )


def _failure(found: _Failure) -> InboundTlsFailure:
    information = found.additional_information or found.additional_info_uri
    return InboundTlsFailure(
        tidy(found.result_type or "unknown").lower(), _count(found.failed_session_count),
        _address(found.sending_mta_ip), domain_of(found.receiving_mx_hostname or ""),
        tidy(found.receiving_mx_helo or ""), _address(found.receiving_ip), tidy(found.failure_reason_code or ""),
        tidy(information or ""),
    )


def _count(number: int | None) -> int:
    return min(max(number or 0, 0), COUNT_MAX)


def _strings(found: Sequence[str] | str | None) -> tuple[str, ...]:
    if found is None:
        return ()
    return tuple(map(tidy, ((found,) if isinstance(found, str) else found)[:_STRINGS_MAX]))


def _address(written: str | None) -> str:
    text = tidy(written or "").strip("[]")
    try:
        return str(ipaddress.ip_address(text))
    except ValueError:
        return text


def _moment(written: str | None) -> int:
    """A date-time of RFC 3339, in seconds since 1970; 0 for what is none."""
    if not written:
        return 0
    try:
        at = datetime.datetime.fromisoformat(written.strip()[:40])
        return max(0, int((at if at.tzinfo else at.replace(tzinfo=datetime.UTC)).timestamp()))
    except (ValueError, OverflowError):
        return 0
