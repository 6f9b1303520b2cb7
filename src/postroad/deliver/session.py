"""One try of one hop: connection, greeting, EHLO, STARTTLS, AUTH, until there is a courier or a result why not.

RFC 5321 §3.1 and §3.2, RFC 3207, RFC 8314 §3.3, RFC 4954, RFC 8689 §4.2.1. TLS as `mail.route.TlsDemand` says; MAIL is
never said here. If TLS is optional and the connection breaks between STARTTLS and MAIL, the answer says that plaintext
may help (`NoCourier.plain_next`), and the caller may try once more with `plain` (RFC 7435). It does not say so if
octets in plaintext came after the answer to STARTTLS (this is an attack), if the remote refused the session by a reply
under TLS, or if we would have to send credentials without TLS.
"""

from __future__ import annotations

import asyncio
import errno
import random
import ssl
from collections.abc import Callable
from typing import Final

import msgspec

from postroad.deliver.courier_context import CourierContext
from postroad.deliver.credentials import ClientExchangeContext, Credentials, choose, current, exchange
from postroad.deliver.doing import Trying, place
from postroad.deliver.proving import IN_HANDSHAKE, failure_of, fault_of, is_judged_here
from postroad.deliver.smtp import SmtpCourier
from postroad.mail.attempt import Outcome, Reach
from postroad.mail.reply import Reply
from postroad.mail.route import Destination, Hop, HostProof, OwnAddress, TlsDemand, Transport, proof_of
from postroad.mail.status import with_class
from postroad.mail.tls_policy import HostPolicy, PolicyKind, TlsFailure, TlsOutcome, outcome_of
from postroad.protocol.client_events import (
    AuthChallenged,
    AuthRefused,
    AuthSucceeded,
    ClientEvent,
    ConnectionEnded,
    StartHandshake,
    TlsRefused,
)
from postroad.protocol.sending import Result, Security, status_of
from postroad.world.network import Network, why
from postroad.world.problem import Problem
from postroad.world.programs import Programs
from postroad.world.tls import ClientTls
from postroad.world.tls_facts import TlsFacts, facts
from postroad.world.tls_session import best_binding


class HopTools(msgspec.Struct, frozen=True):
    """What every try needs."""

    shared: CourierContext
    network: Network
    tls: ClientTls
    programs: Programs
    entropy: random.Random


class NoCourier(msgspec.Struct, frozen=True):
    """Why there is no courier. `tls`: what the session had by then, None if it had none, or there was none.
    `plain_next`: see the module. `auth`: mechanism and account that were tried, "" if it did not come to AUTH. `ours`:
    the cause is on this machine and says nothing of the host. `failure`: TLS was not what is demanded of the host, or
    did not work; `policy`: what its TLS policy came to, None if none was judged; `own_address`: from which address of
    ours the connection came, "" if there was none."""

    result: Result
    tls: TlsFacts | None = None
    plain_next: bool = False
    auth: str = ""
    ours: bool = False
    failure: TlsFailure = TlsFailure.NO_FAILURE
    policy: TlsOutcome | None = None
    own_address: str = ""


class HopTrial(msgspec.Struct, frozen=True):
    """Where to, and as whom. `plain`: without TLS, though it may be offered. `ignored`: what the hop offers and is not
    to be used. `trying`: is told of the connection. `turn`: which of several addresses of ours comes first."""

    destination: Destination
    hop: Hop
    credentials: Credentials | None
    plain: bool
    ignored: frozenset[str] = frozenset()
    trying: Trying | None = None
    turn: int = 0

    @property
    def tls(self) -> TlsDemand:
        """How much TLS this host is asked for."""
        return self.destination.tls if self.hop.tls is None else self.hop.tls

    @property
    def proof(self) -> HostProof:
        """What the certificate of this host must show."""
        return proof_of(self.tls) if self.hop.proof is None else self.hop.proof

    @property
    def server_name(self) -> str:
        """The name that the server is asked for (SNI), and whose certificate it is to show."""
        policy = self.hop.policy
        return self.hop.name if policy is None else policy.server_name or self.hop.name

    @property
    def may_be_plain(self) -> bool:
        """Whether the mail may go without TLS. What a policy for testing demands holds nothing back."""
        without_tls = self.credentials is None or self.credentials.without_tls
        policy = self.hop.policy
        return without_tls and (self.tls is TlsDemand.MAY or (policy is not None and policy.testing))


async def visit(ways: HopTools, where: HopTrial, lost: Callable[[SmtpCourier], None]) -> SmtpCourier | NoCourier:
    """The courier, or why there is none (see the module). What the TLS policy of the hop came to stands on both."""
    policy = where.hop.policy
    if policy is None:
        return await _visited(ways, where, lost)
    started_us = ways.shared.clock.now_us()
    if policy.passed_over:
        return passed_over(policy, started_us)
    found = await _visited(ways, where, lost)
    if isinstance(found, NoCourier):
        if found.failure is TlsFailure.NO_FAILURE:
            return found
        told = outcome_of(
            policy, found.failure, found.result.text, held=False, session_us=started_us, own_address=found.own_address
        )
        return msgspec.structs.replace(found, policy=told)
    found.judged(_kept(policy, found, started_us))
    return found


def passed_over(policy: HostPolicy, now_us: int) -> NoCourier:
    """For a host that cannot satisfy its policy, so that it is not even asked. It counts once for all mail for which a
    connection was wanted now."""
    told = outcome_of(policy, policy.failure, policy.text, held=False, session_us=now_us)
    status = "4.7.5" if policy.failure is TlsFailure.DNSSEC_INVALID else "4.7.0"
    return NoCourier(deferred(status, policy.text), failure=policy.failure, policy=told)


def _kept(policy: HostPolicy, courier: SmtpCourier, started_us: int) -> TlsOutcome:
    """The session is as the policy wants it, or the policy only wants to be told."""
    failure, text = policy.failure, policy.text
    if failure is TlsFailure.NO_FAILURE and courier.tls is None and policy.kind is PolicyKind.NONE:
        failure, text = TlsFailure.STARTTLS_NOT_SUPPORTED, "without TLS"
    held = not (policy.testing and policy.failure is not TlsFailure.NO_FAILURE and not _is_about_policy(failure))
    return outcome_of(policy, failure, text, held=held, session_us=started_us, own_address=_own_address(courier))


def _own_address(courier: SmtpCourier) -> str:
    try:
        own = courier.transport.get_extra_info("sockname")
    except Exception:  # a connection that the handshake has closed may not know it any more
        return ""
    return str(own[0]) if isinstance(own, tuple) and own else ""


def _is_about_policy(failure: TlsFailure) -> bool:
    """Whether it says something of how the policy was had, and nothing of the host."""
    return failure.value.startswith("sts-")


async def _visited(ways: HopTools, where: HopTrial, lost: Callable[[SmtpCourier], None]) -> SmtpCourier | NoCourier:
    clock = ways.shared.clock
    started_us = clock.now_us()
    context = None if where.plain else _context(ways.tls, where)
    if isinstance(context, Problem):
        return NoCourier(deferred("4.3.5", f"TLS cannot be set up: {context}"))
    courier = await _connected(ways, where, context)
    if isinstance(courier, NoCourier):
        return courier
    if where.trying is not None:
        where.trying.machine = courier.machine
    try:
        found = await _set_up(ways, where, courier, context)
    except BaseException:
        courier.abort()
        raise
    if isinstance(found, NoCourier):
        found = msgspec.structs.replace(found, tls=courier.tls, own_address=_own_address(courier))
        courier.abort()
        return found
    if where.destination.require_tls and not courier.machine.capabilities.require_tls:  # RFC 8689 §4.2.1 step 5
        courier.close()
        text = f"{place(where.hop)} does not offer REQUIRETLS, which the sender requires"
        return NoCourier(refused("5.7.30", text), courier.tls)
    if courier.ended is not None:
        return msgspec.structs.replace(_ended(where, courier, courier.ended), tls=courier.tls)
    courier.release(found, max(0, clock.now_us() - started_us), lost)
    return courier


def _ended(where: HopTrial, courier: SmtpCourier, event: ConnectionEnded) -> NoCourier:
    """The session ended before there was a courier."""
    machine, result = courier.machine, event.result
    refused = result.reply is not None and result.reply.code >= 400
    broke = machine.tls_asked and not machine.injected and (not refused or courier.tls is None)
    return NoCourier(result, plain_next=broke and where.may_be_plain)


async def _connected(ways: HopTools, where: HopTrial, context: ssl.SSLContext | None) -> SmtpCourier | NoCourier:
    origin, options = where.destination.origin, ways.shared.options
    if where.hop.address.startswith("/"):
        return await _connected_from(ways, where, context, _ANYWHERE)
    if not origin.is_set:
        source = options.source_ipv6 if ":" in where.hop.address else options.source_ipv4
        return await _connected_from(ways, where, context, OwnAddress(source, origin.hello))
    addresses = origin.of(where.hop.address)
    first = where.turn % len(addresses)
    for own in addresses[first:] + addresses[:first]:
        found = await _connected_from(ways, where, context, OwnAddress(own.address, own.hello or origin.hello))
        if not isinstance(found, NoCourier) or not found.ours:
            break
    return found


async def _connected_from(
    ways: HopTools, where: HopTrial, context: ssl.SSLContext | None, own: OwnAddress
) -> SmtpCourier | NoCourier:
    hop, options = where.hop, ways.shared.options
    implicit = where.tls is TlsDemand.IMPLICIT
    path = hop.address if hop.address.startswith("/") else ""
    kind, hello = where.destination.transport, own.hello or options.hello
    try:
        _, courier = await ways.network.connect(
            lambda: SmtpCourier(ways.shared, kind, hop, where.ignored, hello),
            hop.address, hop.port, path=path, source=own.address, timeout_s=options.connect_s,
            context=context if implicit else None, server_name=where.server_name if implicit else "",
        )
    except ssl.SSLError as error:
        return NoCourier(_unproved(where, error), failure=failure_of(error))
    except OSError as error:
        if own.address and error.errno == errno.EADDRNOTAVAIL:
            text = f"no connection to {place(hop)}: {own.address} is not an address of this machine now"
            return NoCourier(deferred("4.3.5", text), ours=True)
        return NoCourier(deferred("4.4.1", f"no connection to {place(hop)}: {why(error)}"))
    if implicit:
        courier.tls = facts(courier.transport)
        fault = _judged(ways, where, courier, courier.transport)
        if fault is not None:
            courier.abort()
            return fault
    return courier


def _judged(
    ways: HopTools, where: HopTrial, courier: SmtpCourier, transport: asyncio.Transport
) -> NoCourier | None:
    """What is wrong with the host, if its policy demands more than the handshake proves."""
    fault = fault_of(where.hop.policy, where.proof, transport, ways.shared.clock.now_us())
    if fault is None:
        return None
    courier.tls = facts(transport)
    told = _distrusted(where, fault.text)
    return NoCourier(told, courier.tls, failure=fault.failure, own_address=_own_address(courier))


_ANYWHERE: Final = OwnAddress("")


async def _set_up(
    ways: HopTools, where: HopTrial, courier: SmtpCourier, context: ssl.SSLContext | None
) -> Security | NoCourier:
    event: ClientEvent | NoCourier = await courier.event()
    demand = where.tls
    secure = demand is TlsDemand.IMPLICIT
    if context is not None and not secure and not isinstance(event, ConnectionEnded):
        if courier.machine.capabilities.starttls:
            event = await _secured(ways, where, courier, context)
            secure = not isinstance(event, TlsRefused)
        if not secure and demand is not TlsDemand.MAY:
            return NoCourier(_no_tls(where, event), failure=TlsFailure.STARTTLS_NOT_SUPPORTED)
    match event:
        case ConnectionEnded():
            return _ended(where, courier, event)
        case NoCourier():
            return event
        case _:
            final = where.destination.transport is Transport.LMTP
            security = Security(tls=secure, verified=secure and where.proof is not HostProof.NOTHING, final=final)
            return await _identified(ways, where, courier, security)


async def _secured(
    ways: HopTools, where: HopTrial, courier: SmtpCourier, context: ssl.SSLContext
) -> ClientEvent | NoCourier:
    """STARTTLS: the event behind it, or that the handshake failed."""
    event = await courier.ask_for_tls()
    if not isinstance(event, StartHandshake):
        return event
    try:
        transport = await ways.network.start_tls(
            courier.transport, courier, context, server_name=where.server_name,
            timeout_s=ways.shared.options.handshake_s,
        )
    except OSError as error:
        plain_next = where.may_be_plain and not courier.machine.injected
        return NoCourier(_unproved(where, error), plain_next=plain_next, failure=failure_of(error))
    if courier.ended is not None:  # octets came in plaintext before the handshake had begun
        return courier.ended
    if where.hop.policy is None:
        return await courier.tls_started(transport)
    fault = _judged(ways, where, courier, transport)
    return fault or await courier.tls_started(transport, proved=is_judged_here(where.proof))


async def _identified(
    ways: HopTools, where: HopTrial, courier: SmtpCourier, security: Security
) -> Security | NoCourier:
    credentials, hop = where.credentials, where.hop
    if credentials is None:
        return security
    credentials = await current(credentials, ways.shared.pool)
    offered = courier.machine.capabilities.mechanisms
    binding = best_binding(courier.transport) if security.tls else None
    mechanism = choose(credentials, offered, tls=security.tls, bindable=binding is not None)
    if " " in mechanism:
        return NoCourier(deferred("4.7.4", f"{place(hop)}: {mechanism}"))
    around = ClientExchangeContext(binding, hop.name, hop.port, ways.entropy, ways.shared.pool, ways.programs)
    made = await exchange(credentials, mechanism, offered, around)
    if isinstance(made, str):
        return NoCourier(deferred("4.3.5", f"{place(hop)}: {made}"))
    event = await courier.authenticate(made.mechanism, made.initial)
    while isinstance(event, AuthChallenged):
        event = await courier.respond(await made.respond(event.octets))
    shown = f"{made.mechanism} as {credentials.name}"
    match event:
        case AuthSucceeded() if not made.problem:
            return msgspec.structs.replace(security, authenticated=True, auth=shown)
        case AuthSucceeded():
            text = f"{place(hop)} took our credentials ({shown}), but {made.problem}"
            return NoCourier(deferred("4.7.8", text), auth=shown)
        case AuthRefused(reply=reply):
            # Wrong credentials are ours to mend, not the sender's: the mail waits.
            status = "4.7.8" if reply is None else with_class(_auth_status(reply), "4")
            why_not = f": {made.problem}" if made.problem and reply is None else ""
            found = deferred(status, f"{place(hop)} refused our credentials ({shown}){why_not}", reply)
            if reply is not None and reply.code in _ACCOUNT_REFUSED:
                found = msgspec.structs.replace(found, reach=Reach.DESTINATION)
            return NoCourier(found, auth=shown)
        case ConnectionEnded():
            return _ended(where, courier, event)
        case _:
            raise AssertionError(event)


# The account is refused, not the host: another address of the same server would say so again, and the provider counts
# each wrong password. RFC 4954 §4 and §6: 535, 534 (mechanism too weak), 432 (password transition).
_ACCOUNT_REFUSED: Final = (432, 534, 535)


def _auth_status(reply: Reply) -> str:
    status = reply.status or status_of(reply.code, at_auth=True)
    return "4.7.8" if status.endswith(".0.0") else status


def _unproved(where: HopTrial, error: OSError) -> Result:
    """A handshake that failed. Where the sender requires TLS that is final, unless it is the network's doing."""
    if where.destination.require_tls and isinstance(error, ssl.SSLError):
        return refused("5.7.10", f"{place(where.hop)}: {why(error)}; the sender requires TLS")
    return deferred("4.7.5", f"{place(where.hop)}: {why(error)}")


def _distrusted(where: HopTrial, text: str) -> Result:
    """A host that is not what its policy wants."""
    told = f"{place(where.hop)}: {text}"
    if where.destination.require_tls:
        return refused("5.7.10", f"{told}; the sender requires TLS")
    return deferred("4.7.5", told)


def _no_tls(where: HopTrial, event: ClientEvent | NoCourier) -> Result:
    """RFC 3207 §6: a STARTTLS that is missing may have been removed on the way. RFC 8689 §4.2.1: final for mail that
    requires TLS."""
    hop = where.hop
    if where.destination.require_tls:
        return refused("5.7.10", f"{place(hop)} does not speak TLS, which the sender requires")
    if isinstance(event, TlsRefused):
        return deferred("4.7.4", f"{place(hop)} refused STARTTLS, which is demanded", event.reply)
    return deferred("4.7.4", f"{place(hop)} does not offer STARTTLS, which is demanded")


def _context(tls: ClientTls, where: HopTrial) -> ssl.SSLContext | Problem | None:
    demand, policy = where.tls, where.hop.policy
    if demand is TlsDemand.NONE:
        return None
    broad = demand is TlsDemand.MAY
    if policy is None:
        return tls.context(IN_HANDSHAKE[where.proof], broad=broad)
    return tls.context(
        IN_HANDSHAKE[where.proof], broad=broad, minimum=policy.minimum, ciphers=policy.ciphers
    )


def deferred(status: str, text: str, reply: Reply | None = None) -> Result:
    """What is to be tried again, at another host or later."""
    return Result(Outcome.DEFERRED, Reach.HOP, status, text, reply)


def refused(status: str, text: str) -> Result:
    """What another host may yet do, and this one never will."""
    return Result(Outcome.FAILED, Reach.HOP, status, text)
