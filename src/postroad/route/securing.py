"""Finds the TLS policy of each host of a route: what the settings say, DANE, MTA-STS (RFC 7672, 8461, 8689).

It is asked when a connection must be opened, behind the look-up of the hosts. For each host the first of these counts:
TLSA records that DNSSEC proves (RFC 7672), the MTA-STS policy of the recipients' domain (RFC 8461 §2: never instead of
DANE), the settings alone. TLSA records of which none is usable demand encryption and prove nothing, so a policy of
MTA-STS that is to be enforced counts before them.

What always holds: DANE is asked about only if the MX records (or their absence) and the host's addresses, or the first
alias on the way to them, were proved; an answer that nobody has ("bogus" is one, RFC 4035 §5.5) is never taken for "no
records": the host is passed over. A policy belongs to the destination for which it was found. So it keeps no mail of
another domain from the same host. How it fails: hosts that cannot satisfy their policy stay in the route, marked as
passed over (`HostPolicy.passed_over`), so that the attempt tells of them; an Attempt, if the sender requires TLS and
nothing proves which hosts are the domain's own.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence
from itertools import islice
from typing import Final

import msgspec

from postroad.mail.address import is_ip_address
from postroad.mail.attempt import Attempt, Outcome, Reach
from postroad.mail.route import (
    BELOW_NEXT_HOP,
    HOST_NAME,
    NEXT_HOP,
    Destination,
    Hop,
    HostProof,
    TlsDemand,
    plain_demand,
    proof_of,
)
from postroad.mail.tls_policy import (
    NO_STS,
    HostPolicy,
    PolicyKind,
    StsAnswer,
    StsMode,
    StsPolicies,
    StsPolicy,
    Tlsa,
    TlsFailure,
)
from postroad.trust.dane import TRUST_ANCHOR, usable
from postroad.world.dns import DnsAnswer, DnsStatus, MxRecord, Resolver

_WITH_DANE: Final = frozenset({TlsDemand.DANE, TlsDemand.DANE_ONLY, TlsDemand.STS})
_LINES_MAX: Final = 20  # of a policy that each event tells
_LINE_MAX: Final = 300  # characters
_SETTINGS: Final = "settings"  # where a demand stands that no map has made


def _told(lines: Iterable[str]) -> tuple[str, ...]:
    """What each attempt's event has of a policy, which a stranger has written: not more than this."""
    return tuple(line if len(line) <= _LINE_MAX else f"{line[:_LINE_MAX]}…" for line in islice(lines, _LINES_MAX))


def is_wanted(destination: Destination) -> bool:
    """Whether its hosts have a policy at all."""
    terms = destination.terms
    if destination.tls is TlsDemand.MAY and (terms.minimum or terms.ciphers or terms.server_name):
        return True
    return destination.require_tls or destination.tls not in (TlsDemand.MAY, TlsDemand.NONE)


class TlsaFinding(msgspec.Struct, frozen=True):
    """What the DNS says of a host's TLSA records. `records`: of the TLSA base domain `base`, proved by DNSSEC; none if
    DANE does not apply. `trouble`: why nobody knows."""

    records: tuple[Tlsa, ...] = ()
    base: str = ""
    trouble: str = ""


NO_TLSA: Final = TlsaFinding()


async def find_tlsa(host: str, port: int, resolver: Resolver) -> TlsaFinding:
    """RFC 7672 §2.2.2 and §2.2.3."""
    if is_ip_address(host):
        return NO_TLSA
    addresses = await resolver.addresses(host)
    if addresses.status is not DnsStatus.FOUND:  # it had some a moment ago, when the route was made
        return TlsaFinding(trouble=addresses.text)
    bases: tuple[str, ...] = ()
    if addresses.secure:
        bases = (addresses.name, host) if addresses.followed else (host,)
    elif addresses.followed:
        alias = await resolver.cname(host)
        if alias.status is DnsStatus.ERROR:
            return TlsaFinding(trouble=alias.text)
        bases = (host,) if alias.secure and alias.records else ()
    for base in bases:
        found = await resolver.tlsa(base, port)
        if found.status is DnsStatus.ERROR:
            return TlsaFinding(base=base, trouble=found.text)
        if found.secure and found.records:
            records = (Tlsa(each.usage, each.selector, each.matching_type, each.data) for each in found.records)
            return TlsaFinding(tuple(records), base)
    return NO_TLSA


class Securing(msgspec.Struct, frozen=True):
    """For one destination. `answer`: of its MX records, None if a host was set."""

    destination: Destination
    answer: DnsAnswer[MxRecord] | None
    resolver: Resolver
    sts: StsPolicies

    async def secured(self, hops: Sequence[Hop]) -> tuple[Hop, ...] | Attempt:
        """The hops, each with its policy."""
        destination = self.destination
        names = tuple(dict.fromkeys(hop.name for hop in hops))
        tlsa: dict[str, TlsaFinding] = {}
        if self._asks_for_dane:
            port = destination.port
            found = await asyncio.gather(*(find_tlsa(name, port, self.resolver) for name in names))
            tlsa = dict(zip(names, found, strict=True))
        sts = NO_STS
        if self._asks_for_sts and not (tlsa and all(usable(each.records) or each.trouble for each in tlsa.values())):
            sts = await self.sts(destination.domain)
        if destination.require_tls and not self._are_own(sts):
            return self._not_own(sts)
        return tuple(self._hop(hop, tlsa.get(hop.name, NO_TLSA), sts) for hop in hops)

    @property
    def _mx_is_proved(self) -> bool:
        return self.answer is None or self.answer.secure

    @property
    def _asks_for_dane(self) -> bool:
        destination = self.destination
        return self._mx_is_proved and (destination.tls in _WITH_DANE or destination.require_tls)

    @property
    def _asks_for_sts(self) -> bool:
        """For mail by MX. If the sender requires TLS, only where DNSSEC does not prove the MX records."""
        destination = self.destination
        if not destination.domain:
            return False
        return destination.tls is TlsDemand.STS or (destination.require_tls and not self._mx_is_proved)

    def _are_own(self, sts: StsAnswer) -> bool:
        """RFC 8689 §4.2.1 step 2: whether it is beyond doubt which hosts are the domain's."""
        if self._mx_is_proved or (self.answer is not None and self.answer.status is DnsStatus.NODATA):
            return True  # without MX records it is the domain's own name that the certificate must show
        return sts.policy is not None and sts.policy.mode is StsMode.ENFORCE

    def _not_own(self, sts: StsAnswer) -> Attempt:
        domain = self.destination.domain
        text = f"the sender requires TLS, and neither DNSSEC nor MTA-STS proves the mail servers of {domain}"
        kind = self.destination.transport.value
        if sts.failure is TlsFailure.STS_POLICY_FETCH_ERROR:
            return Attempt(
                Outcome.DEFERRED, Reach.DESTINATION, "4.7.10", f"{text} for now: {sts.text}", transport=kind
            )
        if sts.text:
            text += f" ({sts.text})"
        return Attempt(Outcome.FAILED, Reach.DESTINATION, "5.7.10", text, transport=kind)

    # -- one host ----------------------------------------------------------------------------------------------------

    def _hop(self, hop: Hop, tlsa: TlsaFinding, sts: StsAnswer) -> Hop:
        if tlsa.trouble:
            text = f"whether {hop.name} has TLSA records (DANE) cannot be found out: {tlsa.trouble}"
            return self._passed_over(hop, PolicyKind.TLSA, TlsFailure.DNSSEC_INVALID, text, tlsa.base or hop.name)
        if tlsa.records:
            made = self._by_dane(hop, tlsa)
            is_enforced = sts.policy is not None and sts.policy.mode is StsMode.ENFORCE
            if made is not None and not (made.proof is HostProof.NOTHING and is_enforced):
                return made
        if self.destination.tls is TlsDemand.DANE_ONLY:
            return self._passed_over(hop, PolicyKind.NONE, TlsFailure.DANE_REQUIRED, self._no_dane(hop, tlsa), "")
        policy = sts.policy
        if policy is None or policy.mode is StsMode.NONE:
            return self._by_settings(hop, sts)
        if policy.mode is StsMode.TESTING and self.destination.require_tls:
            return self._by_settings(hop, sts)  # such a policy lets mail go on that the sender wants to be kept
        return self._by_sts(hop, policy, sts)

    def _by_dane(self, hop: Hop, tlsa: TlsaFinding) -> Hop | None:
        """None if the records are of no use, and more than encryption is demanded."""
        records = usable(tlsa.records)
        port, terms = self.destination.port, self.destination.terms
        policy = HostPolicy(
            self.destination.tls.value, PolicyKind.TLSA, f"TLSA records of {tlsa.base}, proved by DNSSEC", tlsa.base,
            records, server_name=tlsa.base, minimum=terms.minimum, ciphers=terms.ciphers,
            lines=_told(f"_{port}._tcp.{tlsa.base}. IN TLSA {record}" for record in tlsa.records),
        )
        if records:
            if any(record.usage == TRUST_ANCHOR for record in records):
                policy = msgspec.structs.replace(policy, names=self._dane_names(tlsa.base))
            return self._with(hop, TlsDemand.ENCRYPT, HostProof.DANE, policy)
        if self.destination.tls is TlsDemand.DANE_ONLY or self.destination.require_tls:
            return None
        text = f"no TLSA record of {tlsa.base} is usable"
        policy = msgspec.structs.replace(policy, failure=TlsFailure.TLSA_INVALID, text=text)
        return self._with(hop, TlsDemand.ENCRYPT, HostProof.NOTHING, policy)

    def _dane_names(self, base: str) -> tuple[str, ...]:
        """RFC 7672 §3.2.2: the base domain, and the host that was set, or for mail by MX the domain and what it is an
        alias of."""
        answer = self.answer
        if answer is None:
            return tuple(dict.fromkeys((base, self.destination.host)))
        return tuple(dict.fromkeys((base, self.destination.domain, answer.name or self.destination.domain)))

    def _no_dane(self, hop: Hop, tlsa: TlsaFinding) -> str:
        if tlsa.records:
            return f"DANE is demanded, and no TLSA record of {tlsa.base} is usable"
        if not self._mx_is_proved:
            return f"DANE is demanded, and DNSSEC does not prove the mail servers of {self.destination.domain}"
        return f"DANE is demanded, and {hop.name} has no TLSA records that DNSSEC proves"

    def _by_sts(self, hop: Hop, found: StsPolicy, sts: StsAnswer) -> Hop:
        testing, terms = found.mode is StsMode.TESTING, self.destination.terms
        policy = HostPolicy(
            self.destination.tls.value, PolicyKind.STS, sts.source or f"MTA-STS of {found.domain}", found.domain,
            testing=testing, failure=sts.failure, text=sts.text, lines=_told(found.lines), mx=_told(found.mx),
            minimum=terms.minimum, ciphers=terms.ciphers,
        )
        if found.names(hop.name):
            return self._with(hop, TlsDemand.VERIFY, HostProof.NAME, policy)
        text = f"the MTA-STS policy of {found.domain} does not name {hop.name}"
        policy = msgspec.structs.replace(policy, failure=TlsFailure.VALIDATION_FAILURE, text=text)
        if testing:
            return self._with(hop, TlsDemand.MAY, HostProof.NOTHING, policy)
        return self._with(hop, TlsDemand.VERIFY, HostProof.NAME, msgspec.structs.replace(policy, passed_over=True))

    def _by_settings(self, hop: Hop, sts: StsAnswer) -> Hop:
        destination, terms = self.destination, self.destination.terms
        source = terms.source or _SETTINGS
        demand = plain_demand(destination.tls)
        if destination.require_tls and demand is not TlsDemand.IMPLICIT and not terms.fingerprints:
            demand, source = TlsDemand.VERIFY, "the sender (REQUIRETLS)"
        policy = HostPolicy(
            destination.tls.value, PolicyKind.NONE, source, destination.domain or destination.host,
            server_name=terms.server_name, failure=sts.failure, text=sts.text, minimum=terms.minimum,
            ciphers=terms.ciphers,
        )
        if destination.tls is TlsDemand.FINGERPRINT:
            policy = msgspec.structs.replace(policy, fingerprints=terms.fingerprints)
            return self._with(hop, demand, HostProof.FINGERPRINT, policy)
        if terms.names and demand in (TlsDemand.VERIFY, TlsDemand.IMPLICIT):
            policy = msgspec.structs.replace(policy, names=self._names(hop))
            return self._with(hop, demand, HostProof.NAMES, policy)
        return self._with(hop, demand, proof_of(demand), policy)

    def _names(self, hop: Hop) -> tuple[str, ...]:
        """Those that settings allow, the words replaced by what they stand for."""
        next_hop = self.destination.domain or self.destination.host
        words = {HOST_NAME: hop.name, NEXT_HOP: next_hop, BELOW_NEXT_HOP: f".{next_hop}"}
        return tuple(words.get(name, name) for name in self.destination.terms.names)

    def _passed_over(self, hop: Hop, kind: PolicyKind, failure: TlsFailure, text: str, domain: str) -> Hop:
        source = "DNSSEC" if kind is PolicyKind.TLSA else self.destination.terms.source or _SETTINGS
        policy = HostPolicy(
            self.destination.tls.value, kind, source, domain, failure=failure, text=text, passed_over=True
        )
        return self._with(hop, TlsDemand.ENCRYPT, HostProof.NOTHING, policy)

    @staticmethod
    def _with(hop: Hop, demand: TlsDemand, proof: HostProof, policy: HostPolicy) -> Hop:
        return msgspec.structs.replace(hop, tls=demand, proof=proof, policy=policy)
