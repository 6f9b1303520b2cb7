"""The settings of one listener that are in force, with all that can be worked out from them in advance.

A Setting is replaced as a whole at reload; a session takes the new one at its next transaction.
"""

from __future__ import annotations

import enum
import ipaddress
from asyncio import Transport
from dataclasses import dataclass, field
from typing import Final

from postroad.accounts.authenticate import CertificateName
from postroad.mail.field_rules import FieldRules
from postroad.mail.policy import Inspector, Role, Rules
from postroad.mail.reply import Reply
from postroad.maps.field_patterns import rules as field_rules
from postroad.protocol.offer import Dialect, Offer, without
from postroad.receive import wishes_in
from postroad.receive.completing import Completing, completing
from postroad.receive.doors import Doors
from postroad.receive.options import ListenerOptions, ListenerTls, ReceiveOptions, Telling
from postroad.world.tls_facts import TlsFacts
from postroad.world.tls_session import client_names

UNIX: Final = "unix"  # the name of clients of a Unix socket among trusted networks

_FOR_NOBODY: Final = (False, False)
_CLIENTS_MAX: Final = 4096  # addresses of clients whose trust is remembered

Network = ipaddress.IPv4Network | ipaddress.IPv6Network


class Mending(enum.Enum):
    """What a listener mends in a message."""

    NOTHING = "nothing"
    DATED = "dated"  # of known clients: Date and Message-ID are added
    SUBMITTED = "submitted"  # as a submission server may (RFC 6409 §8)


@dataclass(frozen=True, slots=True, kw_only=True)
class ListenerSetup:
    """One listener's settings. Make it with `listener_setup`. `mending`: what is mended in messages.
    `reads_header`: header fields may ask for something (`receive.wishes_in`), or rules change them (`fields`).
    `completing`: adds a domain to addresses in header fields."""

    listener: ListenerOptions
    options: ReceiveOptions
    rules: Rules
    doors: Doors
    lmtp: bool
    mending: Mending
    reads_header: bool
    fields: FieldRules | None
    completing: Completing | None = None
    networks: tuple[Network, ...]
    greeting: Reply
    hello: Reply
    proxies: tuple[Network, ...] = ()
    xclients: tuple[Network, ...] = ()
    xforwarders: tuple[Network, ...] = ()
    inspectors: tuple[Inspector, ...] = ()
    known_clients: dict[str, bool] = field(default_factory=dict, compare=False, repr=False)  # what `trusts` found
    offers: dict[tuple[bool, ...], Offer] = field(default_factory=dict, compare=False, repr=False)

    def trusts(self, address: str) -> bool:
        """Whether a client's address ("" for a Unix socket) is in a trusted network."""
        if not address:
            return UNIX in self.listener.trusted_networks
        if not self.networks:
            return False
        known = self.known_clients
        found = known.get(address)
        if found is None:
            found = _within(address, self.networks)
            if len(known) >= _CLIENTS_MAX:
                known.clear()
            known[address] = found
        return found

    def is_proxy(self, address: str) -> bool:
        """Whether a PROXY header from this address ("" for a Unix socket) counts."""
        return _among(address, self.listener.proxy_networks, self.proxies)

    def trusts_certificate(self, tls: TlsFacts) -> bool:
        """Whether a client is trusted for the certificate that it has shown under TLS."""
        trusted = self.listener.trusted_certificates
        return bool(trusted) and tls.verified and tls.certificate is not None and tls.certificate.sha256 in trusted

    def certificate_names(self, transport: Transport) -> tuple[str, ...]:
        """The names of the client's certificate that may be an account's; () without one, or if none may be."""
        authenticator = self.doors.knowing.authenticator
        if not self.listener.auth or authenticator is None:
            return ()
        kind = authenticator.options.certificate_name
        names = client_names(transport) if kind is not CertificateName.NONE else None
        if names is None:
            return ()
        if kind is CertificateName.MAILBOX:
            return names.mailboxes
        return (names.common_name,) if names.common_name else ()

    def may_speak_for_others(self, address: str) -> tuple[bool, bool]:
        """Whether the client of this address ("" for a Unix socket) may use XCLIENT, and XFORWARD."""
        listener = self.listener
        if not (listener.xclient_networks or listener.xforward_networks):
            return _FOR_NOBODY
        return (
            _among(address, listener.xclient_networks, self.xclients),
            _among(address, listener.xforward_networks, self.xforwarders),
        )

    def offer(
        self, *, tls: bool, bindable: bool = False, certificate: bool = False, xclient: bool = False,
        xforward: bool = False, trusted: bool = False, known: bool = False,
    ) -> Offer:
        """What a session is offered now; `tls`: it is under TLS; `bindable`: that is our own, not a proxy's;
        `certificate`: its client has shown a certificate with a name that may be an account's; `trusted`: it counts as
        one of a trusted network; `known`: it does, or has authenticated."""
        listener, doors = self.listener, self.doors
        hold_max_s = int(self.options.extensions.future_release_max_s) if listener.role is Role.SUBMISSION else 0
        startable = listener.tls in (ListenerTls.STARTTLS, ListenerTls.REQUIRED) and not tls
        starttls = startable and doors.tls_context(listener.asking) is not None
        # Who can have reports sent to whom he likes must be known. By DELIVERBY they can be had, too (RFC 2852 §3).
        dsn = known or self.lmtp or listener.role is not Role.MX or listener.dsn_for_strangers
        verp = self.options.extensions.xverp and (known or listener.role is Role.SUBMISSION)
        if listener.auth or hold_max_s:  # what is offered changes with time
            auth: tuple[str, ...] = ()
            if listener.auth and doors.knowing.authenticator is not None:
                may_auth = tls or listener.auth_without_tls
                authenticator = doors.knowing.authenticator
                auth = authenticator.mechanisms(bindable=bindable or not may_auth, certificate=certificate)
            return self._offer(tls, starttls, auth, xclient, xforward, trusted, dsn, verp, hold_max_s)
        facts = (tls, starttls, xclient, xforward, trusted, dsn, verp)
        found = self.offers.get(facts)
        if found is None:
            found = self.offers[facts] = self._offer(tls, starttls, (), xclient, xforward, trusted, dsn, verp, 0)
        return found

    def _offer(
        self, tls: bool, starttls: bool, auth: tuple[str, ...], xclient: bool, xforward: bool, trusted: bool,
        dsn: bool, verp: bool,
        hold_max_s: int,
    ) -> Offer:
        listener, doors, extensions = self.listener, self.doors, self.options.extensions
        may_auth = tls or listener.auth_without_tls
        offer = Offer(
            starttls=starttls,
            tls=tls,
            tls_required=listener.tls is ListenerTls.REQUIRED,
            auth=auth if may_auth else (),
            auth_after_tls=() if may_auth else auth,
            vrfy=listener.vrfy in (Telling.TRUSTED, Telling.ON),
            vrfy_off=listener.vrfy is Telling.OFF,
            expn=listener.expn is not Telling.OFF,
            etrn=doors.knowing.etrn is not None,
            dsn=dsn,
            xclient=xclient,
            xforward=xforward,
            known=trusted,
            loose_paths=listener.loose_paths,
            binarymime=extensions.binarymime,
            limits=extensions.limits,
            requiretls=extensions.requiretls,
            by_min_s=int(extensions.deliver_by_min_s) if extensions.deliver_by and dsn else None,
            hold_max_s=hold_max_s or None,
            hold_until=wishes_in.held_until(hold_max_s, doors.now_us()) if hold_max_s else "",
            mt_priority=extensions.mt_priority_profile if extensions.mt_priority else None,
            rrvs=extensions.rrvs,
            xverp=verp,
        )
        return without(offer, listener.withheld_extensions)


def _within(address: str, networks: tuple[Network, ...]) -> bool:
    parsed = ipaddress.ip_address(address)
    return any(parsed in network for network in networks if network.version == parsed.version)


def _among(address: str, written: tuple[str, ...], networks: tuple[Network, ...]) -> bool:
    """Whether a client's address is in networks as they were written and as they were read."""
    if not written:
        return False
    return _within(address, networks) if address else UNIX in written


def _networks(written: tuple[str, ...]) -> tuple[Network, ...]:
    return tuple(ipaddress.ip_network(text) for text in written if text != UNIX)


def _mending(listener: ListenerOptions, options: ReceiveOptions) -> Mending:
    if options.repair and listener.role is Role.SUBMISSION and listener.protocol is not Dialect.LMTP:
        return Mending.SUBMITTED
    return Mending.DATED if listener.add_missing else Mending.NOTHING


def listener_setup(
    listener: ListenerOptions, options: ReceiveOptions, rules: Rules, doors: Doors,
    inspectors: tuple[Inspector, ...] = (),
) -> ListenerSetup:
    """ValueError for a trusted network that is none."""
    lmtp = listener.protocol is Dialect.LMTP
    fields = field_rules(listener.remove_fields, listener.replace_fields, listener.add_fields)
    made = None if lmtp else completing(listener, doors.knowing.is_here)
    words = f"{options.hostname} {'LMTP' if lmtp else 'ESMTP'} Postroad"
    return ListenerSetup(
        listener=listener,
        options=options,
        rules=rules,
        doors=doors,
        lmtp=lmtp,
        mending=_mending(listener, options),
        reads_header=wishes_in.reads_header(options.extensions) or fields is not None or made is not None,
        fields=fields,
        completing=made,
        networks=_networks(listener.trusted_networks),
        proxies=_networks(listener.proxy_networks),
        xclients=_networks(listener.xclient_networks),
        xforwarders=_networks(listener.xforward_networks),
        greeting=Reply(220, "", (words,)),
        hello=Reply(250, "", (options.hostname,)),
        inspectors=inspectors,
    )
