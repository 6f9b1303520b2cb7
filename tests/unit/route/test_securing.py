"""Which TLS policy each host of a route gets: DANE (RFC 7672), then MTA-STS (RFC 8461), then the settings."""

from __future__ import annotations

import random
from collections.abc import Mapping
from typing import Any

import msgspec
import pytest

from postroad.mail.attempt import Attempt, Outcome
from postroad.mail.route import Destination, Hop, HostProof, Route, TlsDemand, TlsTerms, Transport
from postroad.mail.tls_policy import PolicyKind, StsAnswer, StsMode, StsPolicy, TlsFailure
from postroad.route.domains import OwnNames
from postroad.route.mx import MxOptions, hops
from postroad.route.securing import find_tlsa
from postroad.world.dns import DnsAnswer, DnsStatus, MxRecord, TlsaRecord

FOUND, NODATA, ERROR = DnsStatus.FOUND, DnsStatus.NODATA, DnsStatus.ERROR
GOOD = TlsaRecord(3, 1, 1, b"k" * 32)
ANCHOR = TlsaRecord(2, 1, 1, b"k" * 32)
USELESS = TlsaRecord(0, 0, 1, b"k" * 32)
Table = Mapping[tuple[str, str], DnsAnswer[Any]]


def found(*records: Any, secure: bool = True, name: str = "", followed: tuple[str, ...] = ()) -> DnsAnswer[Any]:
    return DnsAnswer(FOUND, records, "", secure, name=name, followed=followed)


class Told:
    """A resolver that answers from a table; all else does not exist, and is proved."""

    def __init__(self, table: Table) -> None:
        self.table = table
        self.asked: list[tuple[str, str]] = []

    def _of(self, name: str, type: str) -> DnsAnswer[Any]:
        self.asked.append((name, type))
        return self.table.get((name, type), DnsAnswer(NODATA, (), "there is none", True, name=name))

    async def mx(self, domain: str) -> DnsAnswer[MxRecord]:
        return self._of(domain, "MX")

    async def addresses(self, host: str) -> DnsAnswer[str]:
        return self._of(host, "A")

    async def tlsa(self, host: str, port: int) -> DnsAnswer[TlsaRecord]:
        return self._of(host, f"TLSA {port}")

    async def cname(self, name: str) -> DnsAnswer[str]:
        return self._of(name, "CNAME")

    a = aaaa = reverse = text = addresses


MX = found(MxRecord(10, "mx.h.example"), name="d.example")
HOST = found("192.0.2.1", name="mx.h.example")
BASE: Table = {("d.example", "MX"): MX, ("mx.h.example", "A"): HOST}


def by_mx(tls: TlsDemand, **more: Any) -> Destination:
    return Destination("d.example", Transport.SMTP, domain="d.example", tls=tls, **more)


class Sts:
    def __init__(self, answer: StsAnswer) -> None:
        self.answer = answer
        self.asked: list[str] = []

    async def __call__(self, domain: str) -> StsAnswer:
        self.asked.append(domain)
        return self.answer


def sts(mode: StsMode, *mx: str, failure: TlsFailure = TlsFailure.NO_FAILURE) -> Sts:
    return Sts(StsAnswer(StsPolicy("d.example", "1", mode, mx, 86400, ("version: STSv1",)), failure))


NO_POLICY = StsAnswer()


async def secured(
    destination: Destination, table: Table, policies: Sts | None = None
) -> tuple[tuple[Hop, ...] | Attempt, Told, Sts]:
    resolver, asked = Told({**BASE, **table}), policies or Sts(NO_POLICY)
    route = await hops(destination, resolver, random.Random(1), MxOptions(), OwnNames(), asked)
    return route.hops if isinstance(route, Route) else route, resolver, asked


async def hop_of(destination: Destination, table: Table, policies: Sts | None = None) -> Hop:
    made, _, _ = await secured(destination, table, policies)
    assert isinstance(made, tuple), made
    return made[0]


TLSA = ("mx.h.example", "TLSA 25")


@pytest.mark.parametrize("tls", [TlsDemand.DANE, TlsDemand.DANE_ONLY, TlsDemand.STS])
async def test_usable_records_demand_a_proved_host(tls: TlsDemand) -> None:
    policies = sts(StsMode.ENFORCE, "other.example")
    made, _, asked = await secured(by_mx(tls), {TLSA: found(GOOD, USELESS)}, policies)
    assert isinstance(made, tuple)
    hop = made[0]
    assert (hop.tls, hop.proof) == (TlsDemand.ENCRYPT, HostProof.DANE)
    policy = hop.policy
    assert policy is not None and not policy.passed_over
    assert (policy.kind, policy.domain, policy.server_name) == (PolicyKind.TLSA, "mx.h.example", "mx.h.example")
    assert [each.usage for each in policy.tlsa] == [3] and policy.names == ()
    assert policy.lines[0] == f"_25._tcp.mx.h.example. IN TLSA {GOOD}"
    assert asked.asked == []  # RFC 8461 §2: DANE before MTA-STS


async def test_usage_2_may_have_the_name_of_host_and_domain() -> None:
    alias = found(MxRecord(10, "mx.h.example"), name="target.example", followed=("d.example",))
    hop = await hop_of(by_mx(TlsDemand.DANE), {("d.example", "MX"): alias, TLSA: found(ANCHOR)})
    assert hop.policy is not None and hop.policy.names == ("mx.h.example", "d.example", "target.example")


@pytest.mark.parametrize(
    "table",
    [
        {("d.example", "MX"): found(MxRecord(10, "mx.h.example"), secure=False)},
        {("mx.h.example", "A"): found("192.0.2.1", secure=False)},
        {TLSA: found(GOOD, secure=False)},
        {TLSA: DnsAnswer(NODATA, (), "none", True)},
        {TLSA: DnsAnswer(DnsStatus.NXDOMAIN, (), "none", True)},
    ],
)
async def test_what_dnssec_does_not_prove_is_not_dane(table: Table) -> None:
    table = {TLSA: found(GOOD), **table}
    hop = await hop_of(by_mx(TlsDemand.DANE), table)
    assert (hop.tls, hop.proof) == (TlsDemand.MAY, HostProof.NOTHING)
    assert hop.policy is not None and hop.policy.kind is PolicyKind.NONE and not hop.policy.passed_over
    only = await hop_of(by_mx(TlsDemand.DANE_ONLY), table)
    assert only.policy is not None and only.policy.passed_over
    assert only.policy.failure is TlsFailure.DANE_REQUIRED


async def test_no_question_for_hosts_whose_addresses_are_not_proved() -> None:
    """RFC 7672 §2.2.2: some servers of unsigned zones do not answer it."""
    _, resolver, _ = await secured(by_mx(TlsDemand.DANE), {("mx.h.example", "A"): found("192.0.2.1", secure=False)})
    assert not [each for each in resolver.asked if each[1].startswith("TLSA")]


async def test_an_error_is_never_taken_for_no_records() -> None:
    bogus = DnsAnswer[Any](ERROR, (), "SERVFAIL")
    for tls in (TlsDemand.DANE, TlsDemand.STS, TlsDemand.DANE_ONLY):
        hop = await hop_of(by_mx(tls), {TLSA: bogus}, sts(StsMode.ENFORCE, "mx.h.example"))
        assert hop.policy is not None and hop.policy.passed_over
        assert hop.policy.failure is TlsFailure.DNSSEC_INVALID and "SERVFAIL" in hop.policy.text


async def test_addresses_that_are_lost_between_two_questions_prove_nothing() -> None:
    """The host was found; a moment later nobody answers whether its addresses are proved."""
    lost = DnsAnswer(ERROR, (), "SERVFAIL", name="mx.h.example")
    assert (await find_tlsa("mx.h.example", 25, Told({("mx.h.example", "A"): lost}))).trouble == "SERVFAIL"


async def test_useless_records_demand_encryption() -> None:
    hop = await hop_of(by_mx(TlsDemand.DANE), {TLSA: found(USELESS)})
    assert (hop.tls, hop.proof) == (TlsDemand.ENCRYPT, HostProof.NOTHING)
    assert hop.policy is not None and hop.policy.failure is TlsFailure.TLSA_INVALID and not hop.policy.passed_over
    only = await hop_of(by_mx(TlsDemand.DANE_ONLY), {TLSA: found(USELESS)})
    assert only.policy is not None and only.policy.passed_over


@pytest.mark.parametrize("status", [ERROR, NODATA, DnsStatus.NXDOMAIN])
async def test_addresses_that_nobody_knows_any_more(status: DnsStatus) -> None:
    """The look-up of the hosts has found them; the next one, with another answer, must not turn DANE off."""

    class Fails(Told):
        async def addresses(self, host: str) -> DnsAnswer[str]:
            if (host, "A") in self.asked:
                return DnsAnswer(status, (), "no answer")
            return self._of(host, "A")

    route = await hops(
        by_mx(TlsDemand.DANE), Fails({**BASE, TLSA: found(GOOD)}), random.Random(1), MxOptions(), OwnNames()
    )
    assert isinstance(route, Route)
    policy = route.hops[0].policy
    assert policy is not None and policy.passed_over and policy.failure is TlsFailure.DNSSEC_INVALID


ALIAS = {("mx.h.example", "A"): found("192.0.2.1", name="real.example", followed=("mx.h.example",))}
HALF = {("mx.h.example", "A"): found("192.0.2.1", name="real.example", followed=("mx.h.example",), secure=False)}


@pytest.mark.parametrize(
    ("table", "base"),
    [
        ({**ALIAS, ("real.example", "TLSA 25"): found(GOOD), TLSA: found(ANCHOR)}, "real.example"),
        ({**ALIAS, TLSA: found(GOOD)}, "mx.h.example"),
        ({**HALF, ("mx.h.example", "CNAME"): found("real.example"), TLSA: found(GOOD)}, "mx.h.example"),
        ({**HALF, ("mx.h.example", "CNAME"): found("real.example", secure=False), TLSA: found(GOOD)}, ""),
    ],
)
async def test_aliases_of_the_host(table: Table, base: str) -> None:
    """RFC 7672 §2.2.2, §2.2.3."""
    hop = await hop_of(by_mx(TlsDemand.DANE), table)
    assert hop.policy is not None
    assert (hop.policy.domain if hop.policy.kind is PolicyKind.TLSA else "") == base
    if base:
        assert hop.policy.server_name == base and hop.name == "mx.h.example"


async def test_an_alias_of_which_nobody_knows() -> None:
    table = {**HALF, ("mx.h.example", "CNAME"): DnsAnswer[Any](ERROR, (), "SERVFAIL")}
    hop = await hop_of(by_mx(TlsDemand.DANE), table)
    assert hop.policy is not None and hop.policy.passed_over


async def test_a_host_that_was_set_has_records_of_its_port() -> None:
    destination = Destination("[x]:587", Transport.SMTP, host="mx.h.example", port=587, tls=TlsDemand.DANE)
    hop = await hop_of(destination, {("mx.h.example", "TLSA 587"): found(ANCHOR)})
    assert hop.proof is HostProof.DANE and hop.policy is not None and hop.policy.names == ("mx.h.example",)


@pytest.mark.parametrize(
    ("policies", "demand", "proof", "passed_over", "failure"),
    [
        (sts(StsMode.ENFORCE, "mx.h.example"), TlsDemand.VERIFY, HostProof.NAME, False, ""),
        (sts(StsMode.ENFORCE, "*.h.example"), TlsDemand.VERIFY, HostProof.NAME, False, ""),
        (sts(StsMode.ENFORCE, "*.example"), TlsDemand.VERIFY, HostProof.NAME, True, "validation-failure"),
        (sts(StsMode.TESTING, "mx.h.example"), TlsDemand.VERIFY, HostProof.NAME, False, ""),
        (sts(StsMode.TESTING, "else.example"), TlsDemand.MAY, HostProof.NOTHING, False, "validation-failure"),
        (sts(StsMode.NONE), TlsDemand.MAY, HostProof.NOTHING, False, ""),
        (Sts(NO_POLICY), TlsDemand.MAY, HostProof.NOTHING, False, ""),
        (Sts(StsAnswer(None, TlsFailure.STS_POLICY_FETCH_ERROR, "404")), TlsDemand.MAY, HostProof.NOTHING, False,
         "sts-policy-fetch-error"),
        (sts(StsMode.ENFORCE, "mx.h.example", failure=TlsFailure.STS_POLICY_FETCH_ERROR), TlsDemand.VERIFY,
         HostProof.NAME, False, "sts-policy-fetch-error"),
    ],
)  # fmt: skip
async def test_mta_sts_counts_for_hosts_without_records(
    policies: Sts, demand: TlsDemand, proof: HostProof, passed_over: bool, failure: str
) -> None:
    hop = await hop_of(by_mx(TlsDemand.STS), {}, policies)
    assert hop.policy is not None
    assert (hop.tls, hop.proof, hop.policy.passed_over) == (demand, proof, passed_over)
    assert hop.policy.failure.value == failure and policies.asked == ["d.example"]


async def test_each_host_has_a_policy_of_its_own() -> None:
    table = {
        ("d.example", "MX"): found(MxRecord(10, "mx.h.example"), MxRecord(20, "b.h.example")),
        ("b.h.example", "A"): found("192.0.2.2", name="b.h.example"), TLSA: found(GOOD),
    }  # fmt: skip
    made, _, _ = await secured(by_mx(TlsDemand.STS), table, sts(StsMode.ENFORCE, "b.h.example"))
    assert isinstance(made, tuple)
    assert [hop.proof for hop in made] == [HostProof.DANE, HostProof.NAME]


@pytest.mark.parametrize("tls", [TlsDemand.MAY, TlsDemand.NONE])
async def test_who_demands_nothing_asks_nothing(tls: TlsDemand) -> None:
    made, resolver, asked = await secured(by_mx(tls), {TLSA: found(GOOD)})
    assert isinstance(made, tuple) and made[0].policy is None and made[0].tls is tls
    assert len(resolver.asked) == 2 and asked.asked == []


async def test_an_event_has_not_all_of_a_long_policy() -> None:
    whole = TlsaRecord(2, 0, 0, b"\0" * 2000)
    small = [TlsaRecord(3, 1, 1, bytes([number]) * 32) for number in range(50)]
    hop = await hop_of(by_mx(TlsDemand.DANE), {TLSA: found(*small, whole)})
    assert hop.policy is not None and len(hop.policy.lines) == 20 and len(hop.policy.tlsa) == 50
    hop = await hop_of(by_mx(TlsDemand.DANE), {TLSA: found(whole)})
    assert hop.policy is not None and len(hop.policy.lines[0]) == 301
    many = sts(StsMode.ENFORCE, "mx.h.example", *(f"mx{n}.example" for n in range(1000)))
    hop = await hop_of(by_mx(TlsDemand.STS), {}, many)
    assert hop.policy is not None and len(hop.policy.mx) == 20


async def test_names_and_fingerprints_of_the_settings() -> None:
    terms = TlsTerms(names=("nexthop", "dot-nexthop", "hostname", "x.example"), minimum="TLSv1.3")
    hop = await hop_of(by_mx(TlsDemand.VERIFY, terms=terms), {})
    assert hop.proof is HostProof.NAMES and hop.policy is not None and hop.policy.minimum == "TLSv1.3"
    assert hop.policy.names == ("d.example", ".d.example", "mx.h.example", "x.example")
    hop = await hop_of(by_mx(TlsDemand.FINGERPRINT, terms=TlsTerms(fingerprints=("ab" * 32,))), {})
    assert (hop.tls, hop.proof) == (TlsDemand.ENCRYPT, HostProof.FINGERPRINT)
    assert hop.policy is not None and hop.policy.fingerprints == ("ab" * 32,)


@pytest.mark.parametrize("tls", [TlsDemand.VERIFY, TlsDemand.STS, TlsDemand.DANE])
async def test_dane_and_mta_sts_satisfy_requiretls(tls: TlsDemand) -> None:
    """RFC 8689 §4.2.1."""
    destination = by_mx(tls, require_tls=True)
    assert (await hop_of(destination, {TLSA: found(GOOD)})).proof is HostProof.DANE
    assert (await hop_of(destination, {TLSA: found(USELESS)})).proof is HostProof.NAME
    unproved = {("d.example", "MX"): msgspec.structs.replace(MX, secure=False)}
    hop = await hop_of(destination, unproved, sts(StsMode.ENFORCE, "mx.h.example"))
    assert (hop.tls, hop.proof) == (TlsDemand.VERIFY, HostProof.NAME)
    assert hop.policy is not None and hop.policy.kind is PolicyKind.STS
    for policies, outcome in (
        (sts(StsMode.TESTING, "mx.h.example"), Outcome.FAILED), (Sts(NO_POLICY), Outcome.FAILED),
        (Sts(StsAnswer(None, TlsFailure.STS_POLICY_FETCH_ERROR, "no answer")), Outcome.DEFERRED),
    ):  # fmt: skip
        made, _, _ = await secured(destination, unproved, policies)
        assert isinstance(made, Attempt) and made.outcome is outcome and made.status.endswith(".7.10")


async def test_a_policy_for_testing_never_relaxes_what_the_sender_requires() -> None:
    """RFC 8689: mail that requires TLS goes to no host that proves nothing. RFC 8461 §5 lets other mail go on."""
    none = {("d.example", "MX"): DnsAnswer[Any](NODATA, (), "none", False, name="d.example"),
            ("d.example", "A"): found("192.0.2.1", secure=False, name="d.example")}  # fmt: skip
    for table in ({}, none):
        for host in ("mx.h.example", "else.example"):
            policies = sts(StsMode.TESTING, host, "d.example")
            hop = await hop_of(by_mx(TlsDemand.STS, require_tls=True), table, policies)
            assert (hop.tls, hop.proof) == (TlsDemand.VERIFY, HostProof.NAME)
            assert hop.policy is not None and not hop.policy.testing


async def test_an_enforced_policy_counts_before_records_that_are_of_no_use() -> None:
    """RFC 8461 §5: no mail to hosts that do not prove their name. Useless records prove nothing (RFC 7672 §2.2)."""
    useless = {TLSA: found(USELESS)}
    hop = await hop_of(by_mx(TlsDemand.STS), useless, sts(StsMode.ENFORCE, "mx.h.example"))
    assert (hop.tls, hop.proof) == (TlsDemand.VERIFY, HostProof.NAME)
    hop = await hop_of(by_mx(TlsDemand.STS), useless, sts(StsMode.ENFORCE, "else.example"))
    assert hop.policy is not None and hop.policy.passed_over
    hop = await hop_of(by_mx(TlsDemand.STS), useless, sts(StsMode.TESTING, "mx.h.example"))
    assert (hop.tls, hop.proof) == (TlsDemand.ENCRYPT, HostProof.NOTHING)


@pytest.mark.parametrize(
    ("tls", "table"),
    [(TlsDemand.MAY, {}), (TlsDemand.DANE, {}), (TlsDemand.DANE, {TLSA: found(GOOD)}), (TlsDemand.STS, {})],
)
async def test_versions_and_ciphers_of_the_settings_hold_under_every_policy(tls: TlsDemand, table: Table) -> None:
    terms = TlsTerms(minimum="TLSv1.3", ciphers="HIGH")
    hop = await hop_of(by_mx(tls, terms=terms), table, sts(StsMode.ENFORCE, "mx.h.example"))
    assert hop.policy is not None and (hop.policy.minimum, hop.policy.ciphers) == ("TLSv1.3", "HIGH")


async def test_a_host_that_was_set_and_is_an_alias_may_have_its_own_name() -> None:
    """RFC 7672 §3.2.2, records of hosts without MX."""
    destination = Destination("[x]:25", Transport.SMTP, host="mx.h.example", port=25, tls=TlsDemand.DANE)
    hop = await hop_of(destination, {**ALIAS, ("real.example", "TLSA 25"): found(ANCHOR)})
    assert hop.policy is not None and hop.policy.names == ("real.example", "mx.h.example")
