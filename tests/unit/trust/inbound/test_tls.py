"""TLS reports, as RFC 8460 has them and as senders write them."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from postroad.trust.inbound import keeping, tls
from postroad.trust.inbound.limits import InboundLimits, UnreadableReport
from postroad.trust.inbound.report_mail import InboundMail
from postroad.trust.inbound.values import InboundTlsFailure
from tests.unit.trust.inbound.samples import tls as octets_of
from tests.unit.trust.inbound.samples import tls_report


def _read(report: Any) -> Any:
    return tls.read(json.dumps(report).encode())


def test_the_form_of_rfc_8460() -> None:
    found = tls.read(octets_of())
    assert (found.organization, found.contact, found.begin_s, found.end_s) == (
        "Sender Inc.", "tls@sender.example", 1_764_460_800, 1_764_547_199,
    )  # fmt: skip
    (policy,) = found.policies
    assert (policy.type, policy.domain, policy.successful, policy.failed) == ("sts", "example.org", 40, 3)
    assert policy.hosts == ("mx.example.org",) and policy.strings[0] == "version: STSv1"
    assert policy.failures == (
        InboundTlsFailure(
            "certificate-expired", 3, "2001:db8::1", "mx.example.org", code="X509_V_ERR_CERT_HAS_EXPIRED"
        ),
    )
    assert found.problems == ()


def test_what_senders_write_in_its_place() -> None:
    report = tls_report()
    policy = report["policies"][0]
    policy["policy"].update(
        {"mx-host": "mx.example.org", "policy-string": "version: STSv1", "policy-domain": "EXAMPLE.org."}
    )
    policy["summary"] = {"total-successful-session-count": "40", "total-failure-session-count": 3.0}
    policy["failure-details"] = dict(policy["failure-details"][0], **{"sending-mta-ip": "[192.0.2.1]", "new": [1]})
    report["more"] = {"a": [{}]}
    (found,) = _read(report).policies
    assert (found.domain, found.hosts, found.strings) == ("example.org", ("mx.example.org",), ("version: STSv1",))
    assert (found.successful, found.failed) == (40, 3)
    assert found.failures[0].sending_address == "192.0.2.1"
    empty: tuple[list[str] | None, ...] = (None, [])
    for nothing in empty:
        policy["failure-details"] = nothing
        assert _read(report).policies[0].failures == ()
    assert tls.read(b"\xef\xbb\xbf" + octets_of()) == tls.read(octets_of())


@pytest.mark.parametrize(
    ("changed", "problem"),
    [
        ({"organization-name": None}, "it has no organization-name"),
        ({"report-id": ""}, "it has no report-id"),
        ({"date-range": None}, "for which time"),
        ({"date-range": {"start-datetime": "yesterday", "end-datetime": "x"}}, "for which time"),
        ({"date-range": {"start-datetime": "2025-12-01", "end-datetime": "2025-11-01"}}, "ends before it begins"),
        ({"policies": [{"policy": {"policy-domain": "a.example"}}]}, "a policy of the type"),
        ({"policies": [{"policy": {"policy-domain": "a.example", "policy-type": "sts"}}]}, "how many sessions"),
    ],
)
def test_what_is_missing_is_named(changed: dict[str, Any], problem: str) -> None:
    assert any(problem in each for each in tls.read(octets_of(**changed)).problems)


@pytest.mark.parametrize(
    ("octets", "wrong"),
    [
        (b"{}", "missing required field `policies`"),
        (b"{", "no TLS report"),
        (b'{"policies": 1}', "Expected `array`"),
        (b'{"policies": []}', "which domain"),
        (octets_of(policies=[{"policy": {"policy-type": "sts"}}]), "which domain"),
        (octets_of(policies=[{"summary": {"total-failure-session-count": 10**40}}]), "no TLS report"),
        (b'{"policies": ' + b"[" * 100_000, "no TLS report|more than"),
        (b'{"organization-name": "\xff", "policies": []}', "no TLS report"),
        (b'{"policies": [' + b"{}," * 500_000 + b"{}]}", r"records_max"),
        (b'{"x": "' + b"x" * tls.SIZE_MAX + b'", "policies": []}', "octets"),
    ],
)
def test_what_cannot_be_read_says_why(octets: bytes, wrong: str) -> None:
    with pytest.raises(UnreadableReport, match=wrong):
        tls.read(octets, InboundLimits())


@given(st.binary(max_size=100), st.integers(0, 900), st.integers(0, 20))
def test_damaged_reports_are_read_or_refused(octets: bytes, at: int, gone: int) -> None:
    whole = octets_of()
    try:
        found = tls.read(whole[:at] + octets + whole[at + gone :])
    except UnreadableReport as error:
        assert str(error)
    else:
        assert all(each.successful >= 0 and each.failed >= 0 for each in found.policies)


def test_a_report_on_very_many_domains_is_refused_at_once() -> None:
    """Each would be kept by itself. A hundred thousand of them would hold the thread for hours."""
    policies = b",".join(b'{"policy":{"policy-domain":"d%d.example"}}' % number for number in range(150_000))
    with pytest.raises(UnreadableReport, match="more than 100 domains"):
        tls.read(b'{"policies":[' + policies + b"]}")
    few = tls.read(b'{"policies":[' + b",".join(policies.split(b",")[:100] * 2) + b"]}")
    assert len({each.domain for each in few.policies}) == 100
    mail = InboundMail(reports=(few,))
    kept = list(keeping.kept(mail, 1))
    assert len(kept) == 100 and all(len(keeping.tls(each).policies) == 2 for each in kept)
