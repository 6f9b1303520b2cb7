"""What this node is for a domain, from its settings and files: the input of `postroad dns show` and `dns check`.

How it fails: `notes` say what could not be read, and what is left out because of it.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable
from typing import TYPE_CHECKING

import msgspec

from postroad.config import options
from postroad.deliver.signing_keys import SigningKeys, read_tables
from postroad.mail.address import Address, canonical_domain
from postroad.mail.policy import Role
from postroad.mail.tls_policy import StsMode
from postroad.operate.domain_records import NodeFacts
from postroad.trust import keyring
from postroad.trust.keyring import DomainKeys, KeyState, StoredKey
from postroad.world.key_digests import KeyDigest, key_digest
from postroad.world.problem import Problem
from postroad.world.system import own_addresses

if TYPE_CHECKING:
    from postroad.config.settings import Settings


def node_facts(
    settings: Settings, domain: str, given: tuple[str, ...], mode: StsMode
) -> tuple[NodeFacts, tuple[str, ...]]:
    """The facts, without the keys of the store, and what could not be found out. `given`: addresses that an operator
    names."""
    notes: list[str] = []
    hostname = canonical_domain(settings.hostname)
    extra = _sources(settings)
    addresses = given or tuple(dict.fromkeys((*_own(settings), *extra)))
    facts = NodeFacts(
        domain,
        hostname,
        takes_mail=_takes_mail(settings, domain),
        addresses=addresses,
        extra=tuple(each for each in extra if each in addresses) if not given else (),
        file_keys=_file_keys(settings, domain, notes),
        certificates=_certificates(settings, hostname, notes),
        next_certificates=tuple(_read(map(str, settings.tls.next_certificates), notes)),
        reports=tuple(settings.report_mailboxes.addresses),
        sts_mode=mode,
    )
    return facts, tuple(notes)


def _takes_mail(settings: Settings, domain: str) -> bool:
    """Whether mail for the domain may come to this node: it is named here, or a map may name it."""
    local = [each.name for each in settings.domain]
    relayed = [*settings.relay.domains, *(each.name for each in settings.relay.domain)]
    by_map = any(not name for name in (*local, *(each.name for each in settings.relay.domain)))
    listens = any(each.role is Role.MX for each in settings.listener)
    named = any(name == domain or (name.startswith(".") and domain.endswith(name)) for name in local + relayed)
    return listens and (named or by_map)


def _own(settings: Settings) -> tuple[str, ...]:
    """Public addresses on which mail is taken, or of this machine; IPv4 first."""
    listening = {each for listener in settings.listener for each in listener.address if not each.startswith("unix:")}
    found = {each for each in listening if ipaddress.ip_address(each).is_global} or own_addresses()
    public = [ipaddress.ip_address(each) for each in found]
    return tuple(str(each) for each in sorted(public, key=lambda one: (one.version, int(one))) if each.is_global)


def _sources(settings: Settings) -> tuple[str, ...]:
    """Addresses from which the settings have mail sent."""
    found = [settings.outbound.source_ipv4, settings.outbound.source_ipv6]
    for hop in settings.next_hop:
        found += [each.split()[0] for each in (*hop.source_ipv4, *hop.source_ipv6)]
    return tuple(dict.fromkeys(str(each) for each in found if each))


def _file_keys(settings: Settings, domain: str, notes: list[str]) -> tuple[DomainKeys, ...]:
    """Keys of files and of OpenDKIM's tables that sign mail of the domain."""
    wanted = options.dkim_out_options(settings)
    tables = read_tables(wanted)
    if isinstance(tables, tuple):
        notes.extend(map(str, tables))
        return ()
    if not wanted.sign or (not wanted.keys and tables is None):
        return ()
    keys = SigningKeys(wanted, tables, lambda level, text: None)
    author = Address("postmaster", domain)
    keys.read(author)
    found = keys.find(author)
    by_domain: dict[str, list[StoredKey]] = {}
    for each in () if found is None else found.keys:
        made = msgspec.structs.replace(keyring.made(each.selector, each.private, 0), state=KeyState.SIGNING)
        by_domain.setdefault(each.domain, []).append(made)
    # A domain without any key is no trouble here: the store may have keys.
    notes.extend(() if found is None else (each for each in found.troubles if not each.endswith("no key that signs")))
    return tuple(DomainKeys(name, tuple(each)) for name, each in by_domain.items())


def _certificates(settings: Settings, hostname: str, notes: list[str]) -> tuple[KeyDigest, ...]:
    """Those that clients get who ask for the name of the node."""
    tls = options.server_tls_options(settings)
    if tls is None:
        return ()
    found = list(_read((each.certificate for each in tls.certificates), notes))
    wildcard = "*." + hostname.partition(".")[2]
    named = [each for each in found if hostname in each.names or wildcard in each.names]
    return tuple(named or found[:1])


def _read(paths: Iterable[str], notes: list[str]) -> list[KeyDigest]:
    found: list[KeyDigest] = []
    for path in paths:
        read = key_digest(path)
        if isinstance(read, Problem):
            notes.append(str(read))
        else:
            found.append(read)
    return found
