"""Warns of settings that are allowed but probably not intended: in `postroad check` and at the start of a node. They
are never a reason to refuse the configuration.

A node with an expired certificate can still take mail, and a folder that cannot be written now may be another file
system tomorrow. So each of these is a warning, beside the problems that `load` finds. This module only looks, with the
rights that the node will have (`files.rights`).
"""

from __future__ import annotations

import datetime
import ipaddress
import os
import pwd
import stat
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path as FilePath
from typing import Final
from urllib.parse import urlsplit

from postroad.check.policy import HeaderFrom
from postroad.config import alias_outlets, dkim_doubts, exposure, map_values, nobody, overlaps
from postroad.config.files import rights
from postroad.config.finding import Finding
from postroad.config.listening import UNIX, ListenerSection
from postroad.config.locate import Path
from postroad.config.options import (
    client_tls_options,
    has_own_box,
    map_options,
    next_hop,
    own_box,
    routing_tls,
    server_tls_options,
    servers_of,
)
from postroad.config.routing import LocalDomainSection, NextHopSection
from postroad.config.settings import Settings
from postroad.mail.policy import Role
from postroad.mail.route import TlsDemand
from postroad.maps.maps import Maps
from postroad.maps.maps import make as make_maps
from postroad.protocol.offer import Dialect
from postroad.route.table import demand_of
from postroad.world import tls
from postroad.world.clock import SystemClock
from postroad.world.key_digests import key_digest
from postroad.world.problem import Problem
from postroad.world.system import own_addresses

SOON_S: Final = 7 * 86_400.0  # a certificate that ends within this time

# RFC 6761, RFC 6762, RFC 8375: names of this kind are nobody's in the Internet.
_NOWHERE: Final = ("localhost", "localdomain", "local", "invalid", "lan", "internal", "home.arpa")


def find(settings: Settings, now_s: float) -> list[Finding]:
    """All doubts. `now_s`: seconds since 1970."""
    with rights(settings):
        found = [finding for look in _LOOKS for finding in look(settings, now_s)]
    return [*found, *exposure.find(settings)]


def _next_certificates(settings: Settings, now_s: float) -> Iterator[Finding]:
    """The node itself does not need them."""
    for index, path in enumerate(settings.tls.next_certificates):
        digest = key_digest(str(path))
        if isinstance(digest, Problem):
            text = f"{digest.where}: {digest.text}; `postroad dns show` has no TLSA record for it"
            yield Finding((("tls", "next_certificates", index),), text, digest.remedy)


def _hostname(settings: Settings, now_s: float) -> Iterator[Finding]:
    """RFC 5321 §2.3.5: names are fully qualified; many servers refuse an EHLO with another."""
    name = settings.hostname.lower().rstrip(".")
    remedy = "Write the name by which the Internet knows this host, such as `mail.example.org`"
    if "." not in name:
        yield Finding((("hostname",),), f"{settings.hostname!r} is not a fully qualified name", remedy)
    elif name.endswith(tuple(f".{suffix}" for suffix in _NOWHERE)):
        yield Finding((("hostname",),), f"{settings.hostname!r} is a name that does not exist in the Internet", remedy)


def _certificates(settings: Settings, now_s: float) -> Iterator[Finding]:
    named: list[tuple[Path, str]] = []
    server = server_tls_options(settings)
    if server is not None:
        keys: list[Path] = [("tls",), *(("tls", "further", index) for index in range(len(settings.tls.further)))]
        for key, files in zip(keys, server.certificates, strict=True):
            named.append(((*key, "certificate"), files.certificate))
    own = client_tls_options(settings).certificate
    if own is not None:
        named.append((("outbound", "tls", "certificate"), own.certificate))
    for key, path in named:
        text = _validity(path, now_s)
        if text:
            yield Finding(
                (key,), f"{path}: {text}", "Renew the certificate; a running node reads the new files by itself"
            )


def _validity(path: str, now_s: float) -> str:
    """Doubts about the dates of a certificate. A certificate that cannot be read is a problem, not a doubt."""
    times = tls.validity_s(path)
    if isinstance(times, Problem):
        return ""
    begins_s, ends_s = times
    if now_s < begins_s:
        return f"the certificate is not valid before {_day(begins_s)}"
    if now_s >= ends_s:
        return f"the certificate expired on {_day(ends_s)}"
    return f"the certificate expires on {_day(ends_s)}" if ends_s - now_s < SOON_S else ""


def _day(at_s: float) -> str:
    return datetime.datetime.fromtimestamp(at_s, datetime.UTC).strftime("%Y-%m-%d %H:%M UTC")


def _introspection(settings: Settings, now_s: float) -> Iterator[Finding]:
    """RFC 7662 §4: the endpoint is protected by TLS."""
    url = settings.auth.introspection.url
    if url is None:
        return
    parts = urlsplit(str(url))
    if parts.scheme == "http" and not _is_loopback(parts.hostname or ""):
        text = f"Tokens and the secret of `client_secret_file` are sent to {parts.hostname} without TLS"
        yield Finding((("auth", "introspection", "url"),), text, "Write https://, or use a server on this machine")


def _http(settings: Settings, now_s: float) -> Iterator[Finding]:
    """Mail that anybody on the network path could read or forge."""
    for index, domain in enumerate(settings.domain):
        if domain.url is None:
            continue
        parts = urlsplit(str(domain.url))
        if parts.scheme == "http" and not _is_loopback(parts.hostname or ""):
            text = f"Mail for {domain.called} is sent to {parts.hostname} without TLS: everybody on the way can read it"
            yield Finding((("domain", index, "url"),), text, "Write https://, or use a server on this machine")
        if domain.secret_file is None and domain.authorization_file is None:
            text = f"The server {parts.hostname} cannot tell the node's requests from those of others"
            yield Finding((("domain", index, "url"),), text, "Add secret_file, and have the server check the signature")


def _dovecot(settings: Settings, now_s: float) -> Iterator[Finding]:
    """Dovecot may be started later; until then nobody can authenticate."""
    path = settings.auth.dovecot
    if path is None or _is_socket(path):
        return
    text = f"The socket {path} does not exist. Until it does, AUTH is answered 454, so that clients try again later"
    yield Finding((("auth", "dovecot"),), text, "Start Dovecot with this auth socket, or correct the path")


def _is_socket(path: FilePath) -> bool:
    """Whether it is one; True also if we may not look."""
    try:
        return stat.S_ISSOCK(os.stat(path).st_mode)
    except PermissionError:
        return True
    except OSError:
        return False


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host.lower() == "localhost"


def _circles(settings: Settings, now_s: float) -> Iterator[Finding]:
    """A next hop that is a listener of our own: its mail waits until that is mended."""
    for index, hop in enumerate(settings.next_hop):
        for server in servers_of(hop):
            taking = [
                each.name for each in settings.listener
                if not server.mx and _listens(settings, each, server.host, server.port)
            ]  # fmt: skip
            if taking:
                text = f"The host {server.host}:{server.port} is the listener {taking[0]!r} of this node"
                end = "the node uses neither it nor the hosts after it" if hop.hosts else "it waits"
                remedy = "Name another host, or another port"
                where = (("next_hop", index, "host"), ("next_hop", index, "hosts"))
                yield Finding(where, f"{text}. Its mail would be sent in a loop, so {end}", remedy)


def _unused_next_hops(settings: Settings, now_s: float) -> Iterator[Finding]:
    """Tables that no mail can match."""
    local = {domain.name for domain in settings.domain}
    logs_in = any(map(_has_accounts, settings.listener))
    for index, hop in enumerate(settings.next_hop):
        here = ("next_hop", index)
        if hop.domain in local:
            text = f"The domain {hop.domain} is local: its mail is delivered here, so this table is never used"
            remedy = "Remove the table, or name single mailboxes of the domain in recipients"
            yield Finding(((*here, "domain"), here), text, remedy)
        if hop.accounts and not logs_in:
            text = "No listener lets clients log in, so no mail has an account, and this table is never used"
            yield Finding(((*here, "accounts"), here), text, "Name senders instead, or let clients log in")


def _listens(settings: Settings, listener: ListenerSection, host: str, port: int) -> bool:
    """Whether a host, by its address or a name that is plainly ours, is a place of this listener."""
    if listener.port != port:
        return False
    names = {"localhost": ("127.0.0.1", "::1"), settings.hostname.lower(): tuple(listener.address)}
    for address in names.get(host, (host,)):
        wildcard = "::" if ":" in address else "0.0.0.0"
        if address in listener.address and not address.startswith(UNIX):
            return True
        if wildcard in listener.address and (_is_loopback(address) or address in own_addresses()):
            return True
    return False


def _recipients(settings: Settings, now_s: float) -> Iterator[Finding]:
    """Words by which every mailbox may be meant, and which are the names of single ones."""
    for index, domain in enumerate(settings.domain):
        if domain.recipients and set(domain.recipients) <= _EVERYBODY:
            name = domain.recipients[0]
            text = f"{domain.quoted} has only one mailbox, {name!r}"
            yield Finding(
                (("domain", index, "recipients"),), text, 'To accept every recipient, write recipients = "any"'
            )


_EVERYBODY: Final = frozenset(("all", "*", "every", "everyone", "everybody"))


def _keep(told: list[str], level: str, text: str) -> None:
    told.append(text)


def _maps(settings: Settings, now_s: float) -> Iterator[Finding]:
    """Lines in the files of maps that count for nothing."""
    for index, each in enumerate(map_options(settings)):
        if not each.file:
            continue
        told: list[str] = []
        made = make_maps([each], SystemClock(), partial(_keep, told))
        if isinstance(made, Maps):
            made.close()
            for text in told:
                yield Finding((("map", index),), text, "Correct the file")


def _maildirs(settings: Settings, now_s: float) -> Iterator[Finding]:
    for index, domain in enumerate(settings.domain):
        if domain.path is None or domain.user:
            continue
        closed = _closed(FilePath(_with_domain(domain)))
        if closed is not None:
            kind = "mbox files" if domain.deliver == "mbox" else "Maildirs"
            text = f"The user {settings.user!r} cannot create {kind} in {closed}"
            remedy = f"{_way_in(settings, domain, closed)}. Until then the domain's mail waits"
            yield Finding((("domain", index, "path"),), text, remedy)


def _way_in(settings: Settings, domain: LocalDomainSection, closed: FilePath) -> str:
    """What to do about a closed folder: the domain's own is made where other programs have theirs (`/var/mail`), else
    the folder itself is given away."""
    own = FilePath(_with_domain(domain).partition("{")[0])
    if closed in own.parents and os.access(closed, os.X_OK, effective_ids=True):
        return f"As root, make the folder below it: install -d -m 750 -o {settings.user} {own}"
    return f"Give it to that user (chown {settings.user} {closed}), or name a folder that this user owns"


def _with_domain(domain: LocalDomainSection) -> str:
    return str(domain.path).replace("{domain}", domain.name) if domain.name else str(domain.path)


def _closed(template: FilePath) -> FilePath | None:
    """The folder that stands in the way of what a path with placeholders leads to: it may not be entered, or the next
    one not be made in it."""
    fixed = FilePath(f"{str(template).partition('{')[0]}x").parent if "{" in str(template) else template
    last = FilePath("/")
    for folder in (*reversed(fixed.parents), fixed):
        if not os.path.isdir(folder):  # said also of what is hidden behind a closed folder, which is seen by then
            break
        last = folder
        if not os.access(folder, os.X_OK, effective_ids=True):
            return folder
    return None if os.access(last, os.W_OK, effective_ids=True) else last


def _space(settings: Settings, now_s: float) -> Iterator[Finding]:
    """Less free space than `free_min`: the node refuses all new mail."""
    folders = (settings.state_dir, *settings.state_dir.absolute().parents)
    there = next((each for each in folders if os.path.isdir(each)), FilePath("/"))
    try:
        disk = os.statvfs(there)
    except OSError:
        return
    free, least = disk.f_bavail * disk.f_frsize, settings.store.free_min
    if free < least:
        text = f"The disk of {there} has {free >> 20} MB left, fewer than free_min: new mail is refused (452)"
        remedy = f"Free space up to {least >> 20} MB, or set a smaller free_min under [store]"
        yield Finding((("state_dir",),), text, remedy)


def _listeners(settings: Settings, now_s: float) -> Iterator[Finding]:
    if not settings.listener and settings.sendmail.folder is None:  # with the folder, it is a host that only sends
        text = "There is no listener: the node accepts mail only from `sendmail` and `postroad submit` on this machine"
        yield Finding((("listener",),), text, "Add a [[listener]]; `postroad config example` shows one")


def _extensions(settings: Settings, now_s: float) -> Iterator[Finding]:
    """Letters that begin an address extension: somebody has written a word."""
    written = settings.routing.detail_delimiter
    letters = "".join(each for each in written if each.isalnum())
    if letters:
        text = f"Each of the characters {letters!r} begins an address extension, so that most names are cut there"
        yield Finding((("routing", "detail_delimiter"),), text, 'Write the characters themselves, such as "+" or "+-"')


def _trust(settings: Settings, now_s: float) -> Iterator[Finding]:
    """Trusted clients of a listener that lets them relay nothing."""
    for index, listener in enumerate(settings.listener):
        for key in ("trusted_networks", "trusted_certificates"):
            if not getattr(listener, key):
                continue
            here = ("listener", index, key)
            if listener.role is Role.MX:
                text = "With the role 'mx' these clients may not relay. They are only exempt from limits and bans"
                yield Finding((here,), text, 'To let clients relay, add a listener with role = "relay"')
            elif listener.role is Role.SUBMISSION and not listener.trust_network:
                text = "These clients must still authenticate. They are only exempt from limits and bans"
                yield Finding((here,), text, "To let them send without an account, add trust_network = true")


def _without_effect(settings: Settings, now_s: float) -> Iterator[Finding]:
    """Settings of a listener that have no effect there."""
    for index, listener in enumerate(settings.listener):
        for key, wanted, why in (
            ("add_missing", listener.add_missing, _why_not_add(settings, listener)),
            ("header_from", listener.header_from is HeaderFrom.OWNED, _why_not_own(listener)),
            ("untrusted_routing", listener.untrusted_routing, _why_not_route(settings, listener)),
            ("dsn_for_strangers", listener.dsn_for_strangers, _why_not_dsn(listener)),
        ):
            if wanted and why:
                text = f"This has no effect on the listener {listener.name!r}: {why}"
                yield Finding((("listener", index, key),), text, "Remove it")


def _why_not_add(settings: Settings, listener: ListenerSection) -> str:
    if listener.role is Role.SUBMISSION and settings.receive.repair:
        return "a submission listener adds missing fields already (receive.repair)"
    trusted = listener.trusted_networks or listener.trusted_certificates
    return (
        ""
        if trusted or _has_accounts(listener)
        else "it has no trusted networks, no trusted certificates and no accounts"
    )


def _why_not_own(listener: ListenerSection) -> str:
    return "" if _has_accounts(listener) else "its clients have no accounts, since it does not offer AUTH"


def _has_accounts(listener: ListenerSection) -> bool:
    """Whether clients can have authenticated: with us, or with a proxy that says so by XCLIENT."""
    return listener.offers_auth or bool(listener.xclient_networks)


def _why_not_route(settings: Settings, listener: ListenerSection) -> str:
    if listener.protocol is Dialect.LMTP:
        return "over LMTP it accepts mail only for local domains"
    if listener.role is Role.SUBMISSION or (listener.role is Role.RELAY and not listener.strangers):
        return "it accepts no mail from strangers"
    return "" if settings.relay.domains or settings.relay.domain else "there are no relay domains"


def _why_not_dsn(listener: ListenerSection) -> str:
    if listener.protocol is Dialect.LMTP or listener.role is not Role.MX:
        return "it offers DSN to all its clients in any case"
    return "it withholds DSN" if "DSN" in listener.withheld_extensions else ""


def _wide_networks(settings: Settings, now_s: float) -> Iterator[Finding]:
    """Public networks of more addresses than one organisation is likely to have. The widest are a contradiction."""
    for index, listener in enumerate(settings.listener):
        if listener.role is Role.MX or (listener.role is Role.SUBMISSION and not listener.trust_network):
            continue
        for place, written in enumerate(listener.trusted_networks):
            if written == UNIX.rstrip(":"):
                continue
            network = ipaddress.ip_network(written)
            if network.is_global and network.prefixlen < _OWN_PREFIX[network.version]:
                text = f"{written} has more addresses than one organisation uses, and all its clients may relay"
                yield Finding((("listener", index, "trusted_networks", place),), text, "Name your own networks only")


_OWN_PREFIX: Final = {4: 16, 6: 32}  # the shortest prefix that is likely to be one organisation's


def _passwords_without_proof(settings: Settings, now_s: float) -> Iterator[Finding]:
    """RFC 4954 §9: a password is safe only with a server whose name TLS has proved."""
    for index, hop in enumerate(settings.next_hop):
        named = [server.host for server in servers_of(hop) if not _is_loopback(server.host)]
        if not hop.username or not named:
            continue
        here = ("next_hop", index)
        demand = _demand(settings, hop)
        if hop.auth_without_tls and demand in (TlsDemand.NONE, TlsDemand.MAY, TlsDemand.DANE, TlsDemand.STS):
            text = (
                f"The password for {named[0]} can be sent without TLS, so that anybody on the network path can read it"
            )
        elif demand is TlsDemand.MAY:
            text = (
                f'The password is sent to any server that answers as {named[0]}: tls = "may" checks no certificate. '
                "If the server does not offer TLS, the password is not sent and the mail waits"
            )
        elif demand in (TlsDemand.DANE, TlsDemand.STS):
            text = (
                f"If DNSSEC proves no TLSA records of {named[0]}, the password is sent to any server that answers "
                f'as {named[0]}: tls = "{demand.value}" checks no certificate then'
            )
        elif demand is TlsDemand.ENCRYPT:
            text = (
                f'The password is sent to any server that answers as {named[0]}: tls = "encrypt" checks no certificate'
            )
        else:
            continue
        yield Finding(((*here, "tls"), (*here, "username")), text, 'Write tls = "verify"')


def _demand(settings: Settings, hop: NextHopSection) -> TlsDemand:
    """How much TLS a table demands."""
    return demand_of(next_hop(hop), routing_tls(settings))


def _lmtp_without_proof(settings: Settings, now_s: float) -> Iterator[Finding]:
    """A password for an LMTP server elsewhere whose name nothing proves."""
    for index, domain in enumerate(settings.domain):
        named = [server.host for server in servers_of(domain) if not _is_loopback(server.host)]
        if not domain.username or not named:
            continue
        if domain.tls not in (TlsDemand.VERIFY, TlsDemand.IMPLICIT, TlsDemand.DANE_ONLY):
            here = ("domain", index)
            text = f"The password is sent to any server that answers as {named[0]}"
            yield Finding(((*here, "tls"), (*here, "username")), text, 'Write tls = "verify"')


def _lmtp(settings: Settings, now_s: float) -> Iterator[Finding]:
    """The LMTP server may be started later; until then its mail waits."""
    for index, domain in enumerate(settings.domain):
        if domain.socket is None:
            continue
        key = ("domain", index, "socket")
        closed = _closed_socket(domain.socket)
        if closed == "missing":
            text = f"The socket {domain.socket} does not exist. Until it does, the mail for {domain.called} waits"
            yield Finding((key,), text, "Start the LMTP server with this socket, or correct the path")
        elif closed:
            text = f"The user {_user(settings)!r} may not use {closed}, so the mail for {domain.called} waits"
            remedy = (
                f"Configure the LMTP server so that {_user(settings)} or its group may use the socket and its folder"
            )
            yield Finding((key,), text, remedy)


def _closed_socket(path: FilePath) -> str:
    """What keeps us from a socket: ``missing``, the path of the folder or socket that is closed, or "" for nothing."""
    for folder in reversed(path.parents):
        if folder.is_dir() and not os.access(folder, os.X_OK, effective_ids=True):
            return str(folder)
    if not _is_socket(path):
        return "missing"
    return "" if os.access(path, os.W_OK, effective_ids=True) else str(path)


def _user(settings: Settings) -> str:
    """The user whom the node will be."""
    try:
        return settings.user or pwd.getpwuid(os.geteuid()).pw_name
    except KeyError:
        return str(os.geteuid())


def _lost_reports(settings: Settings, now_s: float) -> Iterator[Finding]:
    """RFC 3461 §5.2, RFC 5321 §6.1: a report that cannot be delivered has no return address."""
    if not settings.postmaster and settings.listener:
        text = "If a report to a sender cannot be delivered, nobody gets it; it is only in the log"
        if not any(map(has_own_box, settings.domain)):  # RFC 5321 §4.5.1: postmaster is always there
            box = own_box(settings)
            goes = f"into the Maildir {box}, where somebody must look for it" if box else "the way of all mail for it"
            text += f". Mail to postmaster at {settings.hostname}, which every mail server must accept, goes {goes}"
        yield Finding((("postmaster",),), text, "Add postmaster with the address of the person who runs this server")


_GHOSTS: Final = "if the next server refuses a recipient later, the sender gets a report, and many senders are forged"


def _ghosts(settings: Settings, now_s: float) -> Iterator[Finding]:
    """Recipients that only the next server knows: mail for those that do not exist is taken, then reported to senders
    who may be forged (RFC 5321 §6.2)."""
    if all(listener.role is not Role.MX for listener in settings.listener):
        return
    for index, domain in enumerate(settings.domain):
        if domain.deliver == "lmtp" and "any" in domain.recipients:
            text = f"Every recipient in {domain.called} is accepted: {_GHOSTS}"
            yield Finding((("domain", index, "recipients"),), text, "Name the mailboxes in a recipients_file")
    for index, relayed in enumerate(settings.relay.domain):
        if "any" in relayed.recipients:
            text = f"Every recipient in {relayed.called} is accepted: {_GHOSTS}"
            yield Finding((("relay", "domain", index, "recipients"),), text, "Name the recipients")
    for index, name in enumerate(settings.relay.domains):
        text = f"Every recipient in {name} is accepted: {_GHOSTS}"
        remedy = "Name its recipients in a table [[relay.domain]] instead, or write verify = true there"
        yield Finding((("relay", "domains", index),), text, remedy)


_LOOKS: Final[tuple[Callable[[Settings, float], Iterator[Finding]], ...]] = (
    _hostname, _certificates, _introspection, _http, _dovecot, _circles, _unused_next_hops, _recipients, _maildirs,
    _maps, _space, _listeners, _extensions, _trust, _without_effect, _wide_networks, _passwords_without_proof, _lmtp,
    _lmtp_without_proof, _ghosts, _lost_reports, overlaps.find, map_values.find,
    _next_certificates, nobody.find, alias_outlets.find, dkim_doubts.find,
)  # fmt: skip
