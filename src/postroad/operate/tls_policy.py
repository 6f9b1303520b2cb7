"""A dry run of the TLS policy of another domain: what DNS and policy host say, what its hosts show, what follows.

It goes the way of a delivery (`route.mx`, `deliver.session`) up to MAIL, which is not said; from this process, so that
no node needs to run, with the policies that the node keeps in `sts.db`. Each host is asked twice: once without any
demand, to see what it shows, and once as the policy demands.

How it fails: what cannot be found out stands in its place in words; nothing raises. Not here: how it is printed
(`cli.dns_policy`).
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Final

import msgspec

from postroad.deliver.courier_context import courier_context
from postroad.deliver.options import DeliverOptions
from postroad.deliver.session import HopTools, HopTrial, NoCourier, visit
from postroad.deliver.smtp import SmtpCourier
from postroad.mail.attempt import Attempt
from postroad.mail.envelope import Recipient
from postroad.mail.route import HERE, Destination, Hop, HostProof, Route, TlsDemand
from postroad.mail.tls_policy import HostPolicy, StsAnswer, StsPolicy, Tlsa, TlsFailure
from postroad.operate.hosts import AskedMail, Router
from postroad.protocol.grammar import parse_mailbox
from postroad.route import mx
from postroad.route.choosing import NOBODYS
from postroad.route.domains import OwnNames
from postroad.store.sts import NAME as STS_STORE
from postroad.store.sts import kept
from postroad.trust import certificate, dane
from postroad.trust.sts import policy_url, record_name
from postroad.trust.sts_fetch import StsOptions, ask_record, fetch
from postroad.world.clock import SystemClock
from postroad.world.dns import DnsResolver, Resolver
from postroad.world.http import Fetch, HttpRequest, HttpResponse, fetcher
from postroad.world.network import Network, SystemNetwork
from postroad.world.problem import Problem
from postroad.world.programs import SystemPrograms
from postroad.world.tls import ClientTls
from postroad.world.tls_facts import chain, read_certificate

if TYPE_CHECKING:
    from postroad.config.settings import Settings

HOSTS_MAX: Final = 20  # hosts that are asked
STEP_S: Final = 20.0  # for each step of a session with one of them
_AT_A_TIME: Final = 5
_CHAIN_SHOWN: Final = 5


class MxFacts(msgspec.Struct, frozen=True):
    """`records`: ``10 mx.example.org``. `secure`: proved by DNSSEC. `text`: why there are none."""

    records: tuple[str, ...] = ()
    secure: bool = False
    text: str = ""


class StsFacts(msgspec.Struct, frozen=True):
    """MTA-STS of the domain. `record`: its TXT records; `id`: of the valid one, "" with `text` if there is none.
    `fetched`: what the policy host serves now, None with `problem` and `failure` if that cannot be had, or was not
    asked for; `notes`: what was passed over in it. `kept`: what the node knows, until `kept_until`. `in_force`: the
    policy by which mail would go now."""

    domain: str
    record: tuple[str, ...] = ()
    id: str = ""
    text: str = ""
    url: str = ""
    fetched: StsPolicy | None = None
    failure: str = ""
    problem: str = ""
    notes: tuple[str, ...] = ()
    kept: StsPolicy | None = None
    kept_until: str = ""
    kept_problem: str = ""
    in_force: StsPolicy | None = None


class ShownCertificate(msgspec.Struct, frozen=True):
    """One certificate that a host has shown. `state`: ``valid``, ``expired`` or ``not valid yet``, by its own dates."""

    subject: str
    issuer: str
    names: tuple[str, ...]
    not_before: str
    not_after: str
    state: str
    sha256: str


class TlsaFacts(msgspec.Struct, frozen=True):
    """A TLSA record as in a master file. `usable`: SMTP can use it (RFC 7672 §3.1). `fits`: which certificate of the
    chain it means, from 1 on; 0: none."""

    record: str
    usable: bool
    fits: int = 0


class HostFacts(msgspec.Struct, frozen=True):
    """One host. `level`, `source`: the TLS policy that holds for it, and where it was said. `connects`, `starttls`,
    `tls`, `chain`: what it shows if nothing is demanded; `shows`: in words, if it shows less. `held`: whether it
    satisfies the policy; else `failure` (RFC 8460) and `text`. `takes`: whether mail would go there now."""

    name: str
    address: str
    port: int
    preference: int
    level: str = ""
    source: str = ""
    connects: bool = False
    starttls: bool = False
    tls: str = ""
    chain: tuple[ShownCertificate, ...] = ()
    tlsa: tuple[TlsaFacts, ...] = ()
    shows: str = ""
    held: bool = False
    failure: str = ""
    text: str = ""
    takes: bool = False


class TlsPolicyFacts(msgspec.Struct, frozen=True):
    """All that was found. `level`, `source`: what the settings say. `outcome`: what would happen to mail now; `goes`:
    whether it would go. `problem`: why nothing more could be found out."""

    asked: str
    destination: str = ""
    level: str = ""
    source: str = ""
    mx: MxFacts | None = None
    sts: StsFacts | None = None
    hosts: tuple[HostFacts, ...] = ()
    notes: tuple[str, ...] = ()
    outcome: str = ""
    goes: bool = False
    problem: str = ""


def dry_run(settings: Settings, asked: str, level: TlsDemand | None = None) -> TlsPolicyFacts:
    """For a domain or an address, asked now. `level`: as if the settings demanded so much TLS."""
    from postroad.config import options

    async def ask() -> TlsPolicyFacts:
        resolver = DnsResolver(options.dns_options(settings), SystemClock(), random.SystemRandom())
        with ThreadPoolExecutor(2) as pool:
            try:
                return await DryRun(settings, resolver, SystemNetwork(), _https(settings, pool), pool).of(asked, level)
            finally:
                resolver.close()

    return asyncio.run(ask())


def _https(settings: Settings, pool: ThreadPoolExecutor) -> Fetch:
    path = str(settings.mta_sts.ca_file or "")

    async def get(request: HttpRequest) -> HttpResponse | Problem:
        try:
            return await fetcher(pool, path)(request)
        except OSError as error:
            return Problem(path, f"the root certificates cannot be read: {error.strerror or error}")

    return get


class DryRun:
    """One dry run, with its doors."""

    def __init__(
        self, settings: Settings, resolver: Resolver, network: Network, https: Fetch, pool: ThreadPoolExecutor
    ) -> None:
        from postroad.config import options

        self._settings, self._resolver, self._network, self._https = settings, resolver, network, https
        self._sts_options: StsOptions = options.sts_options(settings)
        self._ourselves: OwnNames = options.own_names(settings)
        self._pool = pool
        self._sts: StsFacts | None = None

    async def of(self, asked: str, level: TlsDemand | None) -> TlsPolicyFacts:
        address = parse_mailbox(asked if "@" in asked else f"postmaster@{asked}")
        if address is None:
            return TlsPolicyFacts(asked, problem="this is neither a mail address nor a domain")
        router = Router(self._settings, self._ourselves)
        try:
            destination = await router.find(AskedMail().envelope(NOBODYS.sender), Recipient(address))
            if isinstance(destination, Attempt):
                return TlsPolicyFacts(asked, problem=destination.text)
            if destination.path or destination.transport in HERE:
                return TlsPolicyFacts(asked, destination.key, problem="its mail does not go to another server by SMTP")
            if level is not None:
                return await self._of(asked, msgspec.structs.replace(destination, tls=level), None)
            return await self._of(asked, destination, router.told)
        finally:
            router.close()

    async def _of(self, asked: str, destination: Destination, told: mx.Told | None) -> TlsPolicyFacts:
        from postroad.config import options

        by_maps = await told(destination) if told is not None else destination
        if isinstance(by_maps, Attempt):
            return TlsPolicyFacts(asked, destination.key, problem=by_maps.text)
        destination = by_maps
        facts = TlsPolicyFacts(asked, destination.key, destination.tls.value, destination.terms.source)
        if destination.domain:
            domain = destination.domain
            records, sts = await asyncio.gather(self._mx(domain), self._sts_facts(domain))
            self._sts = sts
            facts = msgspec.structs.replace(facts, mx=records, sts=sts, notes=_notes(destination, records, sts))
        route = await mx.hops(
            destination, self._resolver, random.Random(), options.mx_options(self._settings), self._ourselves,
            self._answer, told,
        )
        if isinstance(route, Attempt):
            what = "wait" if route.outcome.value == "deferred" else "fail"
            return msgspec.structs.replace(facts, outcome=f"mail would {what} with {route.status}: {route.text}")
        hosts = await self._hosts(destination, route)
        return msgspec.structs.replace(facts, hosts=hosts, **_outcome(hosts))

    # -- the DNS and the policy host ---------------------------------------------------------------------------------

    async def _mx(self, domain: str) -> MxFacts:
        answer = await self._resolver.mx(domain)
        shown = tuple(f"{each.preference} {each.exchange or '.'}" for each in answer.records)
        return MxFacts(shown, answer.secure, answer.text)

    async def _sts_facts(self, domain: str) -> StsFacts:
        found = await ask_record(domain, self._resolver)
        texts = await self._resolver.text(record_name(domain))
        about = tuple(each[:300] for each in texts.records if "STSv1" in each)[:5]
        entry = kept(Path(self._settings.state_dir) / STS_STORE, domain)
        facts = StsFacts(domain, about, found.id, found.text)
        if isinstance(entry, str):
            facts = msgspec.structs.replace(facts, kept_problem=entry)
        elif entry is not None and entry.expires_us > time.time_ns() // 1000:
            facts = msgspec.structs.replace(facts, kept=entry.policy, kept_until=_time(entry.expires_us / 1_000_000))
        if found.id or facts.kept is not None:
            served = await fetch(domain, found.id, self._resolver, self._https, self._sts_options)
            facts = msgspec.structs.replace(
                facts, url=policy_url(domain, self._sts_options.port), fetched=served.policy,
                failure=served.failure.value, problem=served.text, notes=served.notes,
            )
        return msgspec.structs.replace(facts, in_force=_in_force(facts))

    async def _answer(self, domain: str, /) -> StsAnswer:
        facts = self._sts
        if facts is None or facts.domain != domain:
            facts = await self._sts_facts(domain)
        announced = bool(facts.id) or facts.kept is not None
        failure = TlsFailure(facts.failure) if announced else TlsFailure.NO_FAILURE
        policy = facts.in_force
        if policy is not None and self._sts_options.testing and policy.mode.value == "enforce":
            policy = msgspec.structs.replace(policy, mode=type(policy.mode)("testing"))
        return StsAnswer(policy, failure, facts.problem, policy_url(domain, self._sts_options.port))

    # -- the hosts ---------------------------------------------------------------------------------------------------

    async def _hosts(self, destination: Destination, route: Route) -> tuple[HostFacts, ...]:
        from postroad.config import options

        usual = options.deliver_options(self._settings)
        clock, loop = SystemClock(), asyncio.get_running_loop()
        shared = courier_context(self._settings.hostname, _hasty(usual), clock, loop, self._pool)
        tls = ClientTls(options.client_tls_options(self._settings))
        ways = HopTools(shared, self._network, tls, SystemPrograms(), random.SystemRandom())
        gate = asyncio.Semaphore(_AT_A_TIME)

        async def one(hop: Hop) -> HostFacts:
            async with gate:
                return await _host(ways, destination, hop)

        return tuple(await asyncio.gather(*map(one, route.hops[:HOSTS_MAX])))


def _hasty(usual: DeliverOptions) -> DeliverOptions:
    """The same, for somebody who sits and waits."""
    steps = ("connect_s", "handshake_s", "greeting_s", "hello_s", "starttls_s", "quit_s")
    return msgspec.structs.replace(usual, **{name: min(STEP_S, getattr(usual, name)) for name in steps})


async def _host(ways: HopTools, destination: Destination, hop: Hop) -> HostFacts:
    facts = await _shown(ways, destination, hop)
    policy = hop.policy
    if policy is not None:
        facts = msgspec.structs.replace(facts, level=policy.level, source=policy.source)
        if policy.passed_over:
            return msgspec.structs.replace(facts, failure=policy.failure.value, text=policy.text)
    if hop.tls in (TlsDemand.NONE, TlsDemand.MAY) and (hop.proof or HostProof.NOTHING) is HostProof.NOTHING:
        about = {} if policy is None else {"failure": policy.failure.value, "text": policy.text}
        return msgspec.structs.replace(facts, held=facts.connects, takes=facts.connects, **about)
    found = await visit(ways, HopTrial(destination, hop, None, plain=False), _forgotten)
    if isinstance(found, SmtpCourier):
        found.close()
        return msgspec.structs.replace(facts, held=True, takes=True)
    testing = policy is not None and policy.testing and found.failure is not TlsFailure.NO_FAILURE
    return msgspec.structs.replace(
        facts, failure=found.failure.value, text=found.result.text, takes=testing and facts.connects
    )


async def _shown(ways: HopTools, destination: Destination, hop: Hop) -> HostFacts:
    """What it shows to a client that demands nothing."""
    facts = HostFacts(hop.name, hop.address, hop.port, hop.preference)
    policy = hop.policy or HostPolicy("")
    records = [TlsaFacts(str(record), True) for record in policy.tlsa]
    facts = msgspec.structs.replace(facts, tlsa=tuple(records))
    implicit = hop.tls is TlsDemand.IMPLICIT
    open_hop = msgspec.structs.replace(
        hop, tls=hop.tls if implicit else TlsDemand.MAY, proof=HostProof.NOTHING,
        policy=HostPolicy(policy.level, server_name=policy.server_name),
    )
    plain = msgspec.structs.replace(destination, require_tls=False, credentials="")
    found = await visit(ways, HopTrial(plain, open_hop, None, plain=False), _forgotten)
    if isinstance(found, NoCourier) and found.plain_next:
        reason = found.result.text
        found = await visit(ways, HopTrial(plain, open_hop, None, plain=True), _forgotten)
        if isinstance(found, SmtpCourier):
            found.close()
            return msgspec.structs.replace(facts, connects=True, starttls=True, shows=reason)
    if isinstance(found, NoCourier):
        return msgspec.structs.replace(facts, shows=found.result.text)
    shown = chain(found.transport)
    found.close()
    return msgspec.structs.replace(
        facts, connects=True, starttls=bool(shown) and not implicit,
        tls=found.tls.text if found.tls is not None else "",
        chain=tuple(map(_certificate, shown[:_CHAIN_SHOWN])),
        tlsa=tuple(_fitting(record, shown) for record in policy.tlsa),
        shows="" if shown else "it does not offer STARTTLS",
    )


def _fitting(record: Tlsa, shown: Sequence[bytes]) -> TlsaFacts:
    chosen = shown[:1] if record.usage == dane.END_ENTITY else shown
    place = next((number for number, der in enumerate(chosen, 1) if dane.matches(record, der)), 0)
    return TlsaFacts(str(record), dane.is_usable(record), place)


def _certificate(der: bytes) -> ShownCertificate:
    read, known = certificate.read(der), read_certificate(der)
    unreadable = ShownCertificate("it cannot be read", "", (), "", "", "", known.sha256)
    if read is None:
        return unreadable
    try:
        begin, end = read.not_valid_before_utc.timestamp(), read.not_valid_after_utc.timestamp()
        names, dates = certificate.names_of(read), (_time(begin), _time(end))
    except Exception:  # of what a stranger sends, the library promises nothing
        return unreadable
    now_s = time.time()
    state = "not valid yet" if now_s < begin else "expired" if now_s > end else "valid"
    return ShownCertificate(known.subject, known.issuer, names, *dates, state, known.sha256)


def _in_force(facts: StsFacts) -> StsPolicy | None:
    """As `node.offices.sts` decides: a new id wants the new policy, and the one that is known holds until then."""
    if facts.id and facts.fetched is not None and (facts.kept is None or facts.kept.id != facts.id):
        return facts.fetched
    return facts.kept


def _notes(destination: Destination, records: MxFacts, sts: StsFacts) -> tuple[str, ...]:
    """What the domain offers, and the settings do not take."""
    notes = []
    policy = sts.in_force
    if policy is not None and policy.mode.value != "none" and destination.tls is not TlsDemand.STS:
        notes.append(
            f"the domain has an MTA-STS policy ({policy.mode.value}), which counts only with the level sts"
        )
    if records.secure and destination.tls not in (TlsDemand.STS, TlsDemand.DANE, TlsDemand.DANE_ONLY):
        notes.append("DNSSEC proves its mail servers, but TLSA records count only with the levels dane and sts")
    if policy is not None and records.records:
        hosts = [each.partition(" ")[2] for each in records.records]
        strangers = [host for host in hosts if not policy.names(host)]
        if strangers:
            notes.append(f"the MTA-STS policy does not name {', '.join(strangers)}")
    return tuple(notes)


def _outcome(hosts: Sequence[HostFacts]) -> dict[str, object]:
    first = next((host for host in hosts if host.takes), None)
    if first is None:
        failed = next((host for host in hosts if host.failure), None)
        if failed is not None:
            return {"outcome": f"mail would wait (4.7.x): {failed.text}", "goes": False}
        return {"outcome": "mail would wait (4.4.1): no host can be reached", "goes": False}
    how = f"under {first.tls}" if first.tls else "without TLS"
    but = "" if first.held else ", though it does not satisfy the policy, which is for testing"
    return {"outcome": f"mail would go to {first.name} [{first.address}]:{first.port} {how}{but}", "goes": True}


def _forgotten(courier: SmtpCourier) -> None:
    """Nobody waits for the end of the connection."""


def _time(at_s: float) -> str:
    return datetime.fromtimestamp(at_s, UTC).strftime("%Y-%m-%d %H:%M:%SZ")


