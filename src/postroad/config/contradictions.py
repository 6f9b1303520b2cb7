"""What the settings say against each other: each key is right by itself, together they cannot work.

Pure: each function looks at one matter and yields its findings. Paths count elements as `Settings` does.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable, Iterable, Iterator
from itertools import combinations
from typing import Final

from postroad.accounts.authenticate import CertificateName
from postroad.check.etrn import covers
from postroad.config.finding import Finding
from postroad.config.listening import UNIX, ListenerSection
from postroad.config.locate import Path
from postroad.config.routing import LocalDomainSection, NextHopSection, RelayDomainSection
from postroad.config.settings import Settings
from postroad.deliver.credentials import TOKENS
from postroad.deliver.options import COMMAND_PLACEHOLDERS, PATH_PLACEHOLDERS
from postroad.mail.policy import Role
from postroad.mail.route import TlsDemand
from postroad.protocol.grammar import parse_mailbox
from postroad.protocol.offer import Dialect
from postroad.queue.pace import AUTOMATIC
from postroad.receive.options import EarlyTalker, ListenerTls, Proxy
from postroad.world.tls import NOBODY, ClientCertificates


def find(settings: Settings) -> list[Finding]:
    """All contradictions."""
    return [finding for check in _CHECKS for finding in check(settings)]


# ---- listeners ------------------------------------------------------------------------------------------------------


def _auth(settings: Settings) -> Iterator[Finding]:
    for index, listener in enumerate(settings.listener):
        if not listener.offers_auth:
            continue
        here = ("listener", index)
        auth = settings.auth
        if auth.users is None and auth.dovecot is None and not auth.function and auth.introspection.url is None:
            blame = (*here, "auth") if listener.auth else (*here, "role")
            yield Finding(
                (blame, (*here, "auth"), ("auth", "users")),
                f"The listener {listener.name!r} offers AUTH, but no accounts are configured",
                'Add users = "users" under [auth] and create an account with `postroad user add`',
            )
        if settings.tls_of(listener) is ListenerTls.NONE and not listener.auth_without_tls:
            yield Finding(
                ((*here, "tls"), (*here, "auth"), (*here, "role"), ("tls", "certificate")),
                f"The listener {listener.name!r} offers AUTH only under TLS, but has no TLS",
                "Add certificate and key under [tls]; in a trusted network, auth_without_tls = true allows it",
            )


def _inspectors(settings: Settings) -> Iterator[Finding]:
    for place, listener in enumerate(settings.listener):
        for named in listener.inspectors:
            if not _FUNCTION.fullmatch(named):
                yield Finding(
                    (("listener", place, "inspectors"),),
                    f"{named!r} is not the name of an inspector",
                    'Write "module:name" or "/path/file.py:name"',
                )


def _accounts(settings: Settings) -> Iterator[Finding]:
    auth, tokens = settings.auth, settings.auth.introspection
    if auth.dovecot is not None and auth.function:
        yield Finding(
            (("auth", "function"), ("auth", "dovecot")),
            "There is a function and also a Dovecot socket",
            "Only one of them can verify passwords: remove the other",
        )
    if auth.function and not _FUNCTION.fullmatch(auth.function):
        yield Finding(
            (("auth", "function"),),
            f"{auth.function!r} is not the name of a function",
            'Write "module:function" or "/path/file.py:function"',
        )
    if tokens.url is None:
        for key in ("client_id", "client_secret_file", "scope", "audience", "ca_file"):
            if key in tokens.model_fields_set:
                yield Finding((("auth", "introspection", key),), "This has no effect without a url", "Add url")
    elif bool(tokens.client_id) != (tokens.client_secret_file is not None):
        yield Finding(
            (("auth", "introspection", "client_id"), ("auth", "introspection", "client_secret_file")),
            "client_id and client_secret_file belong together",
            "Set both, or none of them",
        )
    if auth.certificate_name is CertificateName.NONE:
        return
    asked = [settings.asking_of(listener) for listener in settings.listener if listener.offers_auth]
    if not any(asking.ca_file for asking in asked) or any(asking != NOBODY and not asking.ca_file for asking in asked):
        yield Finding(
            (("auth", "certificate_name"), ("tls", "client_certificates"), ("tls", "client_ca_file")),
            "Accounts go by client certificates, but a listener asks for none, or accepts those of any public CA",
            'Write client_certificates = "asked" and client_ca_file under [tls]',
        )


_FUNCTION: Final = re.compile(r"(?:/[^\0]*\.py|[A-Za-z_]\w*(?:\.[A-Za-z_]\w*)*):[A-Za-z_]\w*")


def _certificate(settings: Settings) -> Iterator[Finding]:
    for index, listener in enumerate(settings.listener):
        if listener.tls not in (None, ListenerTls.NONE) and settings.tls.certificate is None:
            yield Finding(
                (("listener", index, "tls"), ("tls", "certificate")),
                f"The listener {listener.name!r} needs TLS, but there is no certificate",
                'Add certificate and key under [tls], or write tls = "none"',
            )
    if settings.tls.certificate is None:
        for key in ("key", "further"):
            if getattr(settings.tls, key):
                yield Finding(
                    (("tls", key), ("tls", "certificate")),
                    f"{key!r} is set, but there is no first certificate",
                    "Add certificate under [tls]",
                )


def _client_certificates(settings: Settings) -> Iterator[Finding]:
    for index, listener in enumerate(settings.listener):
        here = ("listener", index)
        asked = listener.client_certificates not in (None, ClientCertificates.NEVER)
        if asked and settings.tls_of(listener) is ListenerTls.NONE:
            yield Finding(
                ((*here, "client_certificates"), ("tls", "certificate")),
                f"The listener {listener.name!r} asks for client certificates, but has no TLS",
                "Give it TLS, or remove client_certificates",
            )
        if listener.trusted_certificates and settings.asking_of(listener) == NOBODY:
            yield Finding(
                ((*here, "trusted_certificates"), (*here, "client_certificates")),
                f"The listener {listener.name!r} trusts client certificates, but does not ask for them",
                'Write client_certificates = "asked"',
            )


def _same_place(settings: Settings) -> Iterator[Finding]:
    taken = [
        (("listener", index), place) for index, listener in enumerate(settings.listener) for place in places(listener)
    ]
    for (one, place), (other, other_place) in combinations(taken, 2):
        if _overlap(place, other_place):
            name = settings.listener[one[1]].name
            key = "address" if one == other or other_place[0].startswith(UNIX) else "port"
            yield Finding(
                ((*other, key), (*other, "address"), (*other, "port"), (*one, "address"), (*one, "port")),
                f"{shown(other_place)} is already used by the listener {name!r} ({shown(place)})",
                "Give each listener its own address or port",
            )


def places(listener: ListenerSection) -> list[tuple[str, int]]:
    """Each address with its port, 0 for a Unix socket."""
    return [(address, 0 if address.startswith(UNIX) else listener.port) for address in listener.address]


def _overlap(one: tuple[str, int], other: tuple[str, int]) -> bool:
    if one[1] != other[1]:
        return False
    if one[0] == other[0]:
        return True
    if UNIX in one[0] or UNIX in other[0]:
        return False
    first, second = ipaddress.ip_address(one[0]), ipaddress.ip_address(other[0])
    return first.version == second.version and (first.is_unspecified or second.is_unspecified)


def shown(place: tuple[str, int]) -> str:
    """``127.0.0.1:25``, ``[::1]:25``, ``unix:/path``."""
    address, port = place
    return address if address.startswith(UNIX) else f"[{address}]:{port}" if ":" in address else f"{address}:{port}"


def _names(settings: Settings) -> Iterator[Finding]:
    yield from _twice((("listener", index, "name"), each.name) for index, each in enumerate(settings.listener))
    yield from _twice((("domain", index, "name"), each.name) for index, each in enumerate(settings.domain))
    yield from _twice((("next_hop", index, "domain"), each.domain) for index, each in enumerate(settings.next_hop))
    relayed: list[tuple[Path, str]] = [
        *((("relay", "domains", index), name) for index, name in enumerate(settings.relay.domains)),
        *((("relay", "domain", index, "name"), each.name) for index, each in enumerate(settings.relay.domain)),
    ]
    yield from _twice(relayed)
    local = {domain.name for domain in settings.domain}
    for path, domain in relayed:
        if domain in local:
            yield Finding(
                (path, ("domain",)),
                f"{domain!r} is also a local domain",
                "A domain is either local or relayed: remove it from one of the two places",
            )


def _twice(named: Iterable[tuple[Path, str]]) -> Iterator[Finding]:
    first: dict[str, Path] = {}
    for path, name in named:
        if name in first:
            yield Finding(
                (path, first[name]), f"{name!r} is used twice", "Remove one of the two, or give it another name"
            )
        first.setdefault(name, path)


def _roles(settings: Settings) -> Iterator[Finding]:
    for index, listener in enumerate(settings.listener):
        here = ("listener", index)
        if listener.role is Role.MX and not (settings.domain or settings.relay.domains or settings.relay.domain):
            yield Finding(
                ((*here, "role"), ("domain",), ("relay",)),
                f"The listener {listener.name!r} accepts mail for our own domains, but there are no domains",
                "Add a [[domain]], or domains under [relay]",
            )
        trusting = listener.trusted_networks or listener.trusted_certificates
        if listener.role is Role.RELAY and not trusting and not listener.offers_auth:
            yield Finding(
                ((*here, "trusted_networks"), (*here, "trusted_certificates"), (*here, "role"), (*here, "auth")),
                f"Nobody may relay through the listener {listener.name!r}: it trusts no network and no certificate",
                'Add the networks of your clients, such as trusted_networks = ["192.0.2.0/24"]',
            )
        for key, role, what in (("trust_network", Role.SUBMISSION, "submission"), ("strangers", Role.RELAY, "relay")):
            if key in listener.model_fields_set and listener.role is not role:
                yield Finding(
                    ((*here, key), (*here, "role")),
                    f"This has no effect for the role {listener.role.value!r}",
                    f'Remove it: it is for the role "{what}"',
                )


def _open_relays(settings: Settings) -> Iterator[Finding]:
    """Networks so wide that whoever is in them is a stranger: an open relay is found within hours and listed."""
    for index, listener in enumerate(settings.listener):
        relays = listener.role is Role.RELAY or (listener.role is Role.SUBMISSION and listener.trust_network)
        for place, written in enumerate(listener.trusted_networks if relays else ()):
            if written != "unix" and _is_everyone(ipaddress.ip_network(written)):
                here = ("listener", index)
                yield Finding(
                    ((*here, "trusted_networks", place), (*here, "trusted_networks"), (*here, "role")),
                    f"The listener {listener.name!r} would be an open relay: {written} may relay to anywhere",
                    'Name your own networks only; strangers send to your domains through a listener with role = "mx"',
                )


def _is_everyone(network: ipaddress.IPv4Network | ipaddress.IPv6Network) -> bool:
    """Whether a network has more public addresses than any registry gives to one owner."""
    return network.prefixlen < _WIDEST[network.version] and (network.prefixlen == 0 or not network.is_private)


_WIDEST: Final = {4: 8, 6: 16}


def _open_relay_domains(settings: Settings) -> Iterator[Finding]:
    """Relay domains so wide that they are not ours: whoever connects could send to anywhere through this node."""
    taking = [
        each for each in settings.listener if each.role is Role.MX or (each.role is Role.RELAY and each.strangers)
    ]
    if not taking:
        return
    relayed: list[tuple[Path, str]] = [
        *((("relay", "domains", index), name) for index, name in enumerate(settings.relay.domains)),
        *((("relay", "domain", index, "name"), each.name) for index, each in enumerate(settings.relay.domain)),
    ]
    for path, pattern in relayed:
        if pattern == "*" or _is_public_suffix(pattern):
            whom = "every domain" if pattern == "*" else f"every domain below {pattern}"
            yield Finding(
                (path,),
                f"The listener {taking[0].name!r} would be an open relay: anybody may send to {whom}",
                "Name your own domains only. To send mail for all other domains to one server, write a [[next_hop]] "
                'with domain = "*"; who may send there, the listeners with role = "submission" or "relay" say',
            )


def _is_public_suffix(pattern: str) -> bool:
    """Whether everything below is sold to anybody: the domains of countries and the oldest of the others. A pattern of
    one label may also be a network's own (``.internal``) or one owner's."""
    label = pattern.removeprefix(".")
    return pattern.startswith(".") and "." not in label and (len(label) == 2 or label in _PUBLIC_SUFFIXES)


_PUBLIC_SUFFIXES: Final = frozenset(("arpa", "biz", "com", "edu", "gov", "info", "int", "mil", "name", "net", "org"))


def _proxies(settings: Settings) -> Iterator[Finding]:
    for index, listener in enumerate(settings.listener):
        here = ("listener", index)
        wanted = listener.proxy is not Proxy.NONE
        if wanted and not listener.proxy_networks:
            yield Finding(
                ((*here, "proxy"), (*here, "proxy_networks")),
                f"The listener {listener.name!r} expects PROXY headers, but trusts no proxy",
                'Add the addresses of your proxies, such as proxy_networks = ["192.0.2.10"]',
            )
        if listener.proxy_networks and not wanted:
            yield Finding(
                ((*here, "proxy_networks"), (*here, "proxy")),
                f"The listener {listener.name!r} has proxy_networks, but expects no PROXY header",
                'Write proxy = "v2" (or "v1", "any"), or remove proxy_networks',
            )


def _etrn(settings: Settings) -> Iterator[Finding]:
    relayed = {*settings.relay.domains, *(each.name for each in settings.relay.domain)}
    for index, row in enumerate(settings.relay.etrn):
        here = ("relay", "etrn", index)
        if not (row.networks or row.accounts):
            yield Finding(
                ((*here, "domains"), here),
                "Nobody may use ETRN for these domains: neither networks nor accounts are set",
                'Add networks = ["192.0.2.0/24"], or accounts = ["name"]',
            )
        for place, domain in enumerate(row.domains):
            if domain not in relayed and not any(covers(pattern, domain) for pattern in relayed):
                yield Finding(
                    ((*here, "domains", place), (*here, "domains")),
                    f"ETRN is only for relay domains, and {domain!r} is not a relay domain",
                    "Add it to domains under [relay], or remove it here",
                )


def _early_talkers(settings: Settings) -> Iterator[Finding]:
    for index, listener in enumerate(settings.listener):
        here = ("listener", index)
        if listener.early_talker is EarlyTalker.REFUSE and not listener.greet_delay_s:
            yield Finding(
                ((*here, "early_talker"), (*here, "greet_delay_s")),
                "Without a delay before the greeting, no client can be caught speaking before it",
                "Add greet_delay_s = 2",
            )
        if listener.greet_delay_s and settings.tls_of(listener) is ListenerTls.IMPLICIT:
            yield Finding(
                ((*here, "greet_delay_s"), (*here, "tls")),
                "With TLS from the first octet, every client must speak before the greeting",
                "Remove greet_delay_s",
            )


def _lmtp(settings: Settings) -> Iterator[Finding]:
    for index, listener in enumerate(settings.listener):
        here = ("listener", index)
        if listener.protocol is not Dialect.LMTP:
            continue
        if listener.port == 25 and any(not address.startswith(UNIX) for address in listener.address):
            yield Finding(
                ((*here, "port"), (*here, "protocol"), (*here, "address")),
                "LMTP must not use port 25 (RFC 2033 §5)",
                "Use another port, such as 24, or a Unix socket",
            )
        if listener.role is Role.SUBMISSION:
            yield Finding(
                ((*here, "protocol"), (*here, "role")),
                "Submission uses SMTP (RFC 6409), not LMTP",
                'Write protocol = "smtp", or another role',
            )


# ---- where mail goes ------------------------------------------------------------------------------------------------

_KEYS_OF: Final[dict[str, tuple[str, ...]]] = {
    "maildir": ("path",),
    "lmtp": ("socket", "host", "port", "xforward"),
    "program": ("command",),
}


def _delivery(settings: Settings) -> Iterator[Finding]:
    for index, domain in enumerate(settings.domain):
        here = ("domain", index)
        if missing := _missing(domain):
            keys = tuple((*here, key) for key in _KEYS_OF[domain.deliver])
            yield Finding(
                (*keys, (*here, "deliver")), f"{domain.name!r} does not say where its mail is delivered", missing
            )
        if domain.deliver == "lmtp" and domain.socket and domain.host:
            yield Finding(
                ((*here, "host"), (*here, "socket"), (*here, "deliver")),
                "There is a host and also a socket",
                "Only one of them can lead to the LMTP server: remove the other",
            )
        for other, keys_of in _KEYS_OF.items():
            for key in keys_of:
                if other != domain.deliver and key in domain.model_fields_set:
                    yield Finding(
                        ((*here, key), (*here, "deliver")),
                        f'This has no effect with deliver = "{domain.deliver}"',
                        f'Remove it, or write deliver = "{other}"',
                    )
        if not domain.recipients and domain.recipients_file is None:
            yield Finding(
                ((*here, "recipients"), (*here, "recipients_file")),
                f"{domain.name!r} has no recipients",
                'Name them in recipients or recipients_file, or write recipients = "any"',
            )


# What looks like a placeholder. Within a command not `${HOME}` and `{}`, which other programs know.
_IN_PATH: Final = re.compile(r"\{([^{}/]*)\}")
_IN_COMMAND: Final = re.compile(r"(?<!\$)\{([\w.-]+)\}")


def _placeholders(settings: Settings) -> Iterator[Finding]:
    for index, domain in enumerate(settings.domain):
        here = ("domain", index)
        if domain.deliver == "maildir" and domain.path is not None:
            yield from _unknown((*here, "path"), _IN_PATH.findall(str(domain.path)), PATH_PLACEHOLDERS)
        if domain.deliver != "program":
            continue
        for place, word in enumerate(domain.command):
            names = _IN_COMMAND.findall(word)
            if not any(char.isspace() for char in word):  # else a script, in which braces have a meaning of their own
                yield from _unknown((*here, "command", place), names, COMMAND_PLACEHOLDERS)
            if any(name in COMMAND_PLACEHOLDERS and word != f"{{{name}}}" for name in names):
                yield Finding(
                    ((*here, "command", place),),
                    f"A placeholder must be a whole argument, but {word!r} holds more",
                    "Write the placeholder as a separate argument",
                )


def _unknown(key: Path, found: list[str], known: tuple[str, ...]) -> Iterator[Finding]:
    for name in dict.fromkeys(found):
        if name not in known:
            names = ", ".join(f"{{{each}}}" for each in known)
            yield Finding(
                (key,), f"{{{name}}} is not a known placeholder. The known ones are {names}", "Write one of these"
            )


def _recipients(settings: Settings) -> Iterator[Finding]:
    domains: list[tuple[Path, LocalDomainSection | RelayDomainSection]] = [
        *((("domain", index), each) for index, each in enumerate(settings.domain)),
        *((("relay", "domain", index), each) for index, each in enumerate(settings.relay.domain)),
    ]
    for here, domain in domains:
        for place, name in enumerate(domain.recipients):
            local_part = name.removesuffix(f"@{domain.name}")
            if parse_mailbox(f"{local_part}@{_ANY_DOMAIN}") is None:
                yield Finding(
                    ((*here, "recipients", place), (*here, "recipients"), (*here, "name")),
                    f"{name!r} is not the local-part of a mailbox in {domain.name!r}",
                    f'Write only the part before the "@", such as "ada" for ada@{domain.name.removeprefix(".")}',
                )


_ANY_DOMAIN: Final = "example.org"  # the domain of a recipient may be a pattern, which no mailbox has


def _relayed(settings: Settings) -> Iterator[Finding]:
    for index, domain in enumerate(settings.relay.domain):
        here = ("relay", "domain", index)
        if not domain.recipients and domain.recipients_file is None:
            yield Finding(
                ((*here, "recipients"), (*here, "recipients_file")),
                f"{domain.name!r} has no recipients",
                "Name them, or move the domain to domains under [relay], which accepts mail for any recipient",
            )


def _missing(domain: LocalDomainSection) -> str:
    match domain.deliver:
        case "maildir":
            return "" if domain.path else 'Add path = "/var/mail/{domain}/{local_part}"'
        case "lmtp":
            return "" if domain.socket or domain.host else "Add socket, or host and port, of the LMTP server"
        case "program":
            return "" if domain.command else 'Add command = ["/path/of/the/program", "argument"]'


def _next_hops(settings: Settings) -> Iterator[Finding]:
    for index, hop in enumerate(settings.next_hop):
        here = ("next_hop", index)
        keys = tuple((*here, key) for key in ("password", "password_file", "username"))
        if hop.password and hop.password_file:
            yield Finding(keys, "There is a password and also a password_file", "Remove one of the two")
        for key in ("port", "username"):
            if hop.host is None and key in hop.model_fields_set:
                yield Finding(((*here, key), (*here, "host")), "This has no effect without a host", "Add host")
        token = hop.token_file is not None or bool(hop.token_command)
        secret = token or bool(hop.password) or hop.password_file is not None
        if hop.username and not secret and hop.mechanism != "EXTERNAL":
            yield Finding(keys[::-1], "There is a username, but no password", "Add password_file")
        yield from _next_hop_token(here, hop)
        if not hop.username and (hop.password or hop.password_file):
            yield Finding(keys, "There is a password, but no username", "Add username")
        if hop.username and hop.tls is TlsDemand.NEVER and not hop.auth_without_tls:
            yield Finding(
                ((*here, "tls"), *keys, (*here, "auth_without_tls")),
                "Without TLS anybody on the network path could read the password, so it is not sent",
                'Write tls = "verify"; for a server on this machine, auth_without_tls = true',
            )
        if hop.mx and (hop.host is None or _is_address(hop.host)):
            yield Finding(
                ((*here, "mx"), (*here, "host")),
                "mx = true needs a domain as host, to look up its MX records",
                "Write a domain as host, or write mx = false",
            )


def _next_hop_token(here: Path, hop: NextHopSection) -> Iterator[Finding]:
    """A token, a password, and a mechanism that is for one of them."""
    token = hop.token_file is not None or bool(hop.token_command)
    if hop.token_file is not None and hop.token_command:
        yield Finding(
            ((*here, "token_command"), (*here, "token_file")),
            "There is a token_file and also a token_command",
            "Remove one of the two",
        )
    if token and (hop.password or hop.password_file is not None):
        yield Finding(
            ((*here, "token_file"), (*here, "token_command"), (*here, "password_file"), (*here, "password")),
            "There is a token and also a password",
            "Remove one of the two",
        )
    if (token or hop.mechanism) and not hop.username:
        yield Finding(
            ((*here, "token_file"), (*here, "token_command"), (*here, "mechanism"), (*here, "username")),
            "There is no username to authenticate as",
            "Add username",
        )
    if hop.cram_md5 and (token or not hop.username or hop.mechanism not in ("", "CRAM-MD5")):
        yield Finding(
            ((*here, "cram_md5"), (*here, "mechanism"), (*here, "username")),
            "CRAM-MD5 is allowed, but there is no password to use with it",
            "Remove cram_md5, or add username and password_file and no other mechanism",
        )
    if hop.mechanism and hop.mechanism != "EXTERNAL" and (hop.mechanism in TOKENS) is not token:
        yield Finding(
            ((*here, "mechanism"), (*here, "token_file"), (*here, "password_file")),
            f"{hop.mechanism} needs a {'password, but a token is set' if token else 'token, but none is set'}",
            "Remove mechanism, or write one that fits",
        )


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


# ---- numbers --------------------------------------------------------------------------------------------------------

# The first may not be more than the second.
_ORDERED: Final[tuple[tuple[str, str, str], ...]] = (
    ("dns", "timeout_s", "total_s"),
    ("dns", "ttl_min_s", "ttl_max_s"),
    ("queue", "retry_first_s", "retry_max_s"),
    ("queue", "backoff_first_s", "backoff_max_s"),
    ("queue", "delay_notice_s", "lifetime_s"),
    ("log", "batch_max", "buffer_max"),
    ("limits", "command_s", "session_s"),
    ("limits", "data_block_s", "message_s"),
    ("limits", "data_block_s", "refused_content_s"),
    ("limits", "message_s", "session_s"),
    ("limits", "sessions_per_client_max", "sessions_max"),
    ("limits", "header_size_max", "size_max"),
)


def _order(settings: Settings) -> Iterator[Finding]:
    for section, less, more in _ORDERED:
        values = getattr(settings, section)
        if getattr(values, less) > getattr(values, more):
            blame = less if less in values.model_fields_set else more
            yield Finding(
                ((section, blame), (section, less), (section, more)),
                f"This is more than {more}" if blame == less else f"This is less than {less}",
                f"Set {section}.{less} to at most {section}.{more}",
            )


def _pace(settings: Settings) -> Iterator[Finding]:
    seen: dict[tuple[str, str, str], int] = {}
    for index, each in enumerate(settings.pace):
        here = ("pace", index)
        if not each.domain and not each.mx and each.provider != AUTOMATIC:
            yield Finding(
                ((*here, "domain"), (*here, "mx")), "This table names neither domains nor MX hosts", "Add domain or mx"
            )
        if each.domain and each.provider == AUTOMATIC:
            yield Finding(
                ((*here, "domain"), (*here, "provider")),
                f'With provider = "{AUTOMATIC}" domains are grouped by their MX hosts',
                "Remove domain, or write the name of a provider",
            )
        if 0 < each.connections_max < each.connections_start:
            yield Finding(
                ((*here, "connections_start"), (*here, "connections_max")),
                "This is more than connections_max",
                "Set connections_start to at most connections_max",
            )
        kind = "each" if not each.provider else "set" if each.provider == AUTOMATIC else "group"
        names = [("domain", name) for name in each.domain] + [("mx", name) for name in each.mx]
        if kind == "group":
            names.append(("provider", each.provider))
        for key, name in names:
            before = seen.setdefault((kind, key, name), index)
            if before != index:
                yield Finding(
                    ((*here, key), ("pace", before, key)),
                    f"{name!r} already has another table [[pace]]",
                    "Join the two tables",
                )


def _dns(settings: Settings) -> Iterator[Finding]:
    if not settings.dns.ipv4 and not settings.dns.ipv6:
        yield Finding(
            (("dns", "ipv6"), ("dns", "ipv4")), "Without IPv4 and IPv6 no host can be reached", "Allow one of them"
        )


def _group(settings: Settings) -> Iterator[Finding]:
    if settings.group and not settings.user:
        yield Finding((("group",), ("user",)), "A group is set, but no user", "Add user, or remove group")


_CHECKS: Final[tuple[Callable[[Settings], Iterator[Finding]], ...]] = (
    _auth,
    _inspectors,
    _accounts,
    _certificate,
    _client_certificates,
    _same_place,
    _names,
    _roles,
    _open_relays, _open_relay_domains,
    _proxies,
    _etrn,
    _early_talkers,
    _lmtp,
    _delivery,
    _placeholders,
    _recipients,
    _relayed,
    _next_hops,
    _order,
    _pace,
    _dns,
    _group,
)
