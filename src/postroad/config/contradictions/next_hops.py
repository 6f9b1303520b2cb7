"""Finds contradictions among the tables [[next_hop]]: whose mail they take, hosts, passwords, tokens."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from itertools import combinations
from typing import Final

from postroad.config import options
from postroad.config.contradictions.domains import set_of
from postroad.config.finding import Finding
from postroad.config.locate import Path
from postroad.config.routing import LocalDomainSection, NextHopSection
from postroad.config.settings import Settings
from postroad.deliver.credentials import TOKENS
from postroad.mail.account import canonical_account
from postroad.mail.address import is_ip_address
from postroad.mail.route import TlsDemand
from postroad.receive import local_socket, submit
from postroad.route.domains import DomainTable
from postroad.route.options import NextHop
from postroad.route.table import destination_of_hop, origin_name
from postroad.route.transport import SERVERS_MAX, SMTP_PORT

_TLS: Final = ("tls_names", "tls_fingerprints", "tls_minimum", "tls_ciphers")
# What is changed of mail on the way to a server.
_CHANGES = ("generic", "generic_maps", "generic_header", "remove_fields", "replace_fields", "add_fields")


def find(settings: Settings) -> Iterator[Finding]:
    """All that is wrong with one table, or with two of them."""
    yield from _whose_mail(settings)
    yield from _twice(settings)
    yield from _same_server(settings)
    yield from _names(settings)
    for index, domain in enumerate(settings.domain):
        yield from _xclient(("domain", index), domain)
        yield from servers(("domain", index), domain)
        yield from lifetimes(("domain", index), domain, settings)
    yield from server_list(("routing", "fallback"), settings.routing.fallback)
    for index, hop in enumerate(settings.next_hop):
        here = ("next_hop", index)
        keys = tuple((*here, key) for key in ("password", "password_file", "username"))
        if hop.password and hop.password_file:
            yield Finding(keys, "There is a password and also a password_file", "Remove one of the two")
        yield from _xclient(here, hop)
        for key in ("port", "username", "xforward", "xclient"):
            if not has_server(hop) and key in hop.model_fields_set:
                yield Finding(((*here, key), (*here, "host")), "This has no effect without a host", "Add host")
        yield from servers(here, hop)
        token = hop.token_file is not None or bool(hop.token_command)
        secret = token or bool(hop.password) or hop.password_file is not None
        if hop.username and not secret and hop.mechanism != "EXTERNAL":
            yield Finding(keys[::-1], "There is a username, but no password", "Add password_file")
        yield from _next_hop_token(here, hop)
        if not hop.username and (hop.password or hop.password_file):
            yield Finding(keys, "There is a password, but no username", "Add username")
        if hop.username and hop.tls is TlsDemand.NONE and not hop.auth_without_tls:
            yield Finding(
                ((*here, "tls"), *keys, (*here, "auth_without_tls")),
                "Without TLS anybody on the network path could read the password, so it is not sent",
                'Write tls = "verify"; for a server on this machine, auth_without_tls = true',
            )
        if hop.mx and (hop.host is None or is_ip_address(hop.host)):
            yield Finding(
                ((*here, "mx"), (*here, "host")),
                "mx = true needs a domain as host, to look up its MX records",
                "Write a domain as host, or write mx = false",
            )


def _xclient(here: Path, hop: NextHopSection | LocalDomainSection) -> Iterator[Finding]:
    """A server that is told of another client forgets that we have logged in."""
    if hop.xclient and hop.username:
        yield Finding(
            ((*here, "xclient"), (*here, "username")),
            "After XCLIENT the server would forget the account",
            "Remove one of the two: the server must know this node by its address",
        )


def _whose_mail(settings: Settings) -> Iterator[Finding]:
    """Recipients, senders and accounts that do not fit together."""
    local = {domain.name for domain in settings.domain}
    for index, hop in enumerate(settings.next_hop):
        here = ("next_hop", index)
        whose = hop.recipients or hop.senders or hop.accounts or hop.name or options.conditions(hop)
        if hop.domain is None and not whose:
            yield Finding(((*here, "domain"), here), "The table does not say whose mail it takes", "Add domain")
        if hop.domain is not None and hop.recipients:
            yield Finding(
                ((*here, "recipients"), (*here, "domain")),
                "The table has a domain and also recipients",
                "Remove domain, or write two tables",
            )
        if hop.senders and hop.accounts:
            yield Finding(
                ((*here, "accounts"), (*here, "senders")),
                "The table has senders and also accounts",
                "Write two tables: one for the accounts, one for the senders",
            )
        if not has_server(hop) and (hop.recipients or hop.senders or hop.accounts or options.conditions(hop)):
            yield from _by_mx(here, hop, local)
        yield from _listeners(here, hop, settings)
        yield from lifetimes(here, hop, settings)
        yield from _renamed_twice(here, options.next_hop(hop))


def _renamed_twice(here: Path, hop: NextHop) -> Iterator[Finding]:
    """The second of two new names for one would never be used."""
    first: dict[str, int] = {}
    for place, entry in enumerate(hop.generic):
        known = first.setdefault(entry.pattern, place)
        if known != place:
            at = (*here, "generic")
            yield Finding(
                ((*at, place), (*at, known), at), f"{entry.pattern!r} gets two new names", "Remove one of the two"
            )


def _by_mx(here: Path, hop: NextHopSection, local: Collection[str]) -> Iterator[Finding]:
    """A table that exempts some mail from other tables."""
    for key in ("tls", *_TLS, "ignored_extensions", "fallback", *_CHANGES):
        if key in hop.model_fields_set:
            yield Finding(
                ((*here, key), (*here, "host")),
                "Without a host this can be set for a whole domain and all senders only",
                "Add host, or set this in a table that has only a domain",
            )
    for key in ("hello", *_RETRY):
        if key in hop.model_fields_set and not (hop.source_ipv4 or hop.source_ipv6):
            yield Finding(
                ((*here, key), (*here, "host")),
                "Without a host this can be set only together with an address to connect from",
                "Add source_ipv4 or source_ipv6",
            )
    if hop.action:
        return
    for place, name in enumerate(hop.recipients):
        if name.rpartition("@")[2] in local:
            yield Finding(
                ((*here, "recipients", place), (*here, "host")),
                f"The domain of {name!r} is a local domain, so its MX is this node",
                "Add host",
            )


def _twice(settings: Settings) -> Iterator[Finding]:
    """The second of two tables for the same mail would never be used."""
    first: dict[tuple[str, str], Path] = {}
    for index, hop in enumerate(settings.next_hop):
        of = options.next_hop(hop)
        here = ("next_hop", index)
        takes: list[tuple[Path, str]] = [((*here, "domain"), of.domain)] if of.domain else []
        takes += [((*here, "recipients", place), name) for place, name in enumerate(of.recipients)]
        whose: list[tuple[Path, str]] = [((*here, "senders", place), name) for place, name in enumerate(of.senders)]
        names = (f"account {canonical_account(name)}" for name in of.accounts)
        whose += [((*here, "accounts", place), name) for place, name in enumerate(names)]
        only = options.conditions(hop)
        if only:
            whose = [(path, f"{name} if {only}") for path, name in whose] or [(here, f"if {only}")]
        for taken_at, name in takes:
            for path, sender in whose or [(taken_at, "")]:
                known = first.setdefault((name, sender), path)
                if known is not path:
                    text = f"{name!r} is used twice" + (f" with {sender!r}" if sender else "")
                    yield Finding((path, known), text, "Remove one of the two")


def _same_server(settings: Settings) -> Iterator[Finding]:
    """What shares its connections must want the same of them."""
    apart = DomainTable((name, True) for name in options.routing_options(settings).apart)
    known = []
    for index, each in enumerate(settings.next_hop):
        if not has_server(each) and each.source_ipv4 + each.source_ipv6:
            known.append((("next_hop", index), each, f"by MX{origin_name(options.next_hop(each).origin)}"))
        if has_server(each):
            own = each.domain if each.domain and apart.find(each.domain) else ""
            known.append((("next_hop", index), each, destination_of_hop(options.next_hop(each), own).key))
    for (here, hop, key), (other_here, other, other_key) in combinations(known, 2):
        if key != other_key:
            continue
        for name in _SHARED:
            if set_of(hop, name) != set_of(other, name):
                yield Finding(
                    ((*other_here, name), (*here, name), other_here),
                    f"Two tables for the same server {key} have two different values of {name}",
                    f"Write the same {name} in both, or use another port or name of the server",
                )


def _names(settings: Settings) -> Iterator[Finding]:
    """Names by which transport maps mean a table."""
    first: dict[str, Path] = {}
    for index, hop in enumerate(settings.next_hop):
        here: Path = ("next_hop", index)
        if not hop.name:
            continue
        if hop.name != hop.name.strip() or not hop.name.isprintable():
            yield Finding(((*here, "name"),), f"{hop.name!r} cannot be written in a map", "Write a plain word")
        known = first.setdefault(hop.name, (*here, "name"))
        if known != (*here, "name"):
            yield Finding(
                ((*here, "name"), known), f"{hop.name!r} is used twice", "Give one of the two tables another name"
            )
        if not has_server(hop) and not hop.action:
            yield Finding(
                ((*here, "name"), (*here, "host")), "A table with a name needs a host", "Add host, or remove name"
            )
        if not settings.routing.transport_maps:
            yield Finding(
                ((*here, "name"), ("routing", "transport_maps")), "There is no transport map that can use this name",
                "Add transport_maps under [routing], or remove name",
            )  # fmt: skip


_RETRY: Final = ("retry_first_s", "retry_max_s", "lifetime_s", "lifetime_dsn_s", "delay_notice_s")

# What mail over one connection cannot have different values of.
_SHARED: Final = (
    *_CHANGES, "tls", *_TLS, "xforward", "xclient", "ignored_extensions", "hosts", "fallback", "source_ipv4",
    "source_ipv6", "hello", *_RETRY,
)  # fmt: skip


def lifetimes(here: Path, table: NextHopSection | LocalDomainSection, settings: Settings) -> Iterator[Finding]:
    """Pauses and lifetimes of a table that do not fit together, or with those under [queue]."""
    for less, more in (("retry_first_s", "retry_max_s"), ("delay_notice_s", "lifetime_s")):
        one, two = (_of_table(table, key, settings) for key in (less, more))
        given = [key for key in (less, more) if getattr(table, key) is not None]
        if given and one > two:
            too_long = given[0] == less
            yield Finding(
                ((*here, given[0]), here),
                f"This is more than {more} ({two:g} s)" if too_long else f"This is less than {less} ({one:g} s)",
                f"Set {less} of the table to at most its {more}",
            )


def _of_table(table: NextHopSection | LocalDomainSection, key: str, settings: Settings) -> float:
    found = getattr(table, key)
    return float(getattr(settings.queue, key) if found is None else found)


def _listeners(here: Path, hop: NextHopSection, settings: Settings) -> Iterator[Finding]:
    """Listeners that are not there."""
    there = [each.name for each in settings.listener] + [submit.LISTENER, local_socket.LISTENER]
    for place, name in enumerate(hop.listeners):
        if name not in there:
            text = f"There is no listener {name!r}"
            yield Finding(((*here, "listeners", place), here), text, f"Write one of these: {', '.join(there)}")


def has_server(hop: NextHopSection) -> bool:
    return hop.host is not None or bool(hop.hosts)


def servers(here: Path, table: NextHopSection | LocalDomainSection) -> Iterator[Finding]:
    """What is wrong with the hosts and fallbacks of a table, and with our own addresses."""
    if table.host is not None and table.hosts:
        yield Finding(
            ((*here, "hosts"), (*here, "host")), "There is a host and also hosts", "Write all servers in hosts"
        )
    lists = {"hosts": table.hosts}
    if isinstance(table, NextHopSection):
        lists["fallback"] = table.fallback
        for key, addresses in (("source_ipv4", table.source_ipv4), ("source_ipv6", table.source_ipv6)):
            yield from own_addresses((*here, key), addresses, six=key == "source_ipv6")
    for key, written in lists.items():
        yield from server_list((*here, key), written)


def server_list(here: Path, written: tuple[str, ...]) -> Iterator[Finding]:
    """Servers that are named twice, too many of them, and IP addresses that can have no MX."""
    found = options.set_servers(written, SMTP_PORT)
    if len(found) > SERVERS_MAX:
        yield Finding((here,), f"There are more than {SERVERS_MAX} servers", "Remove some")
    first: dict[str, int] = {}
    for place, server in enumerate(found):
        if first.setdefault(server.key, place) != place:
            yield Finding(((*here, place), here), f"{server.key} is used twice", "Remove one of the two")
        if server.mx and is_ip_address(server.host):
            yield Finding(((*here, place), here), f"{server.host} has no MX records", "Remove mx, or write a domain")


def own_addresses(here: Path, written: tuple[str, ...], *, six: bool) -> Iterator[Finding]:
    """Addresses of the other family, and the same one twice."""
    first: dict[str, int] = {}
    for place, entry in enumerate(written):
        address = entry.split()[0]
        if (":" in address) is not six:
            family, key = ("IPv4", "source_ipv4") if six else ("IPv6", "source_ipv6")
            yield Finding(((*here, place), here), f"{address} is an {family} address", f"Write it in {key}")
        if first.setdefault(address, place) != place:
            yield Finding(((*here, place), here), f"{address} is used twice", "Remove one of the two")


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
