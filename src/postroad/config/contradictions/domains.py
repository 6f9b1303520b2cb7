"""Finds contradictions among the settings of our own domains: names, delivery, recipients."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from itertools import combinations
from typing import Final

from postroad.config.field import Section
from postroad.config.finding import Finding
from postroad.config.locate import Path
from postroad.config.routing import LocalDomainSection, RelayDomainSection
from postroad.config.settings import Settings
from postroad.deliver.mailbox import HOME, LOCAL_PART
from postroad.deliver.options import COMMAND_PLACEHOLDERS, PATH_PLACEHOLDERS
from postroad.mail.route import TlsDemand
from postroad.protocol.grammar import parse_mailbox


def names(settings: Settings) -> Iterator[Finding]:
    """A name that is used twice, and a domain that is local and relayed."""
    yield from _twice((("listener", index, "name"), each.name) for index, each in enumerate(settings.listener))
    yield from _twice((("domain", index, "name"), each.name) for index, each in enumerate(settings.domain))
    relayed: list[tuple[Path, str]] = [
        *((("relay", "domains", index), name) for index, name in enumerate(settings.relay.domains)),
        *((("relay", "domain", index, "name"), each.name) for index, each in enumerate(settings.relay.domain)),
    ]
    yield from _twice(relayed)
    local = {domain.name for domain in settings.domain}
    for path, domain in relayed:
        if domain and domain in local:
            yield Finding(
                (path, ("domain",)),
                f"{domain!r} is also a local domain",
                "A domain is either local or relayed: remove it from one of the two places",
            )


def _twice(named: Iterable[tuple[Path, str]]) -> Iterator[Finding]:
    first: dict[str, Path] = {}
    for path, name in named:
        if name and name in first:
            yield Finding(
                (path, first[name]), f"{name!r} is used twice", "Remove one of the two, or give it another name"
            )
        first.setdefault(name, path)


def same_server(settings: Settings) -> Iterator[Finding]:
    """Domains with one LMTP server share its connections, so they must want the same of them."""
    known = [
        (("domain", index), each)
        for index, each in enumerate(settings.domain)
        if each.deliver == "lmtp" and (each.socket or each.host or each.hosts)
    ]
    for (here, domain), (other_here, other) in combinations(known, 2):
        one, two = (
            (each.socket, each.host, each.hosts, None if each.socket else each.port) for each in (domain, other)
        )
        if one != two:
            continue
        for name in _SHARED:
            if set_of(domain, name) != set_of(other, name):
                yield Finding(
                    ((*other_here, name), (*here, name), other_here),
                    f"{domain.called} and {other.called} have the same LMTP server, but two different values of {name}",
                    f"Write the same {name} in both",
                )


_SHARED: Final = (
    "xforward", "xclient", "ignored_extensions", "tls", "username", "password_file", "retry_first_s", "retry_max_s",
    "lifetime_s", "lifetime_dsn_s", "delay_notice_s", "connections_max", "recipients_max",
)  # fmt: skip


def set_of(section: Section, name: str) -> frozenset[object]:
    """The values of a setting, whatever their order."""
    value = getattr(section, name)
    return frozenset(value) if isinstance(value, tuple) else frozenset((value,))


_KEYS_OF: Final[dict[str, tuple[str, ...]]] = {
    "maildir": (
        "path", "quota_size", "quota_messages", "quota_file", "over_quota", "quota_warning", "detail_folders", "user",
        "user_group", "quota_maps", "quota_at_rcpt", "path_maps", "path_base",
    ),
    "mbox": (
        "path", "quota_size", "quota_file", "over_quota", "user", "user_group", "quota_maps", "path_maps", "path_base",
    ),
    "lmtp": (
        "quota_maps", "over_quota", "verify", "socket", "host", "hosts", "port", "xforward", "xclient", "tls",
        "username", "password_file",
    ),
    "program": ("command", "user", "quota_maps", "over_quota"),
    "http": ("url", "format", "secret_file", "authorization_file", "together", "quota_maps", "over_quota"),
    "aliases": (),
}


_PLACE_KEYS: Final = ("path", "socket", "host", "hosts", "port", "command", "url")  # those that say where the mail goes


# The ways of delivery for which a key is.
_WAYS_OF: Final = {
    key: tuple(way for way, keys in _KEYS_OF.items() if key in keys) for keys in _KEYS_OF.values() for key in keys
}


def delivery(settings: Settings) -> Iterator[Finding]:
    """A domain whose mail has no way, or more than one, or no recipients."""
    for index, domain in enumerate(settings.domain):
        here = ("domain", index)
        if missing := _missing(domain):
            keys = tuple((*here, key) for key in _KEYS_OF[domain.deliver] if key in _PLACE_KEYS)
            yield Finding(
                (*keys, (*here, "deliver")), f"{domain.quoted} does not say where its mail is delivered", missing
            )
        if domain.deliver == "lmtp" and domain.socket and (domain.host or domain.hosts):
            yield Finding(
                ((*here, "host"), (*here, "socket"), (*here, "deliver")),
                "There is a host and also a socket",
                "Only one of them can lead to the LMTP server: remove the other",
            )
        for key, ways in _WAYS_OF.items():
            if domain.deliver not in ways and key in domain.model_fields_set:
                other = " or ".join(f'"{way}"' for way in ways)
                yield Finding(
                    ((*here, key), (*here, "deliver")),
                    f'This has no effect with deliver = "{domain.deliver}"',
                    f"Remove it, or write deliver = {other}",
                )
        has_recipients = domain.recipients or domain.recipients_file or domain.recipient_maps or domain.verify
        has_recipients = has_recipients or domain.path_maps
        if not has_recipients and domain.deliver != "aliases":
            yield Finding(
                ((*here, "recipients"), (*here, "recipients_file"), (*here, "recipient_maps")),
                f"{domain.quoted} has no recipients",
                'Name them in recipients, recipients_file or recipient_maps, or write recipients = "any"',
            )


def users(settings: Settings) -> Iterator[Finding]:
    """As whom mail is delivered."""
    for index, domain in enumerate(settings.domain):
        here = ("domain", index)
        if "{" in domain.user and domain.user != LOCAL_PART:
            yield Finding(
                ((*here, "user"),), f"{domain.user!r} is not a user", f'Write the name of a user, or "{LOCAL_PART}"'
            )
        if domain.path_maps and domain.user:
            yield Finding(
                ((*here, "path_maps"), (*here, "user")),
                "Mail that is delivered as another user cannot have its path from a map",
                "Remove user, or use path with {domain} and {local_part}",
            )
        if domain.quota_at_rcpt and domain.user:
            yield Finding(
                ((*here, "quota_at_rcpt"), (*here, "user")),
                "The node cannot look into the mailboxes of another user",
                "Remove quota_at_rcpt, or use quota_maps",
            )
        if HOME in str(domain.path or "") and not domain.user:
            yield Finding(
                ((*here, "path"),), f"{HOME} is the home of a user, but there is no user",
                f'Add user = "{LOCAL_PART}", or write the whole path',
            )
        if domain.forward_files and domain.user != LOCAL_PART and (domain.user or settings.user):
            yield Finding(
                ((*here, "forward_files"), (*here, "user")),
                "Only users of this machine, as whom their mail is delivered, have .forward files",
                f'Add user = "{LOCAL_PART}", or remove forward_files',
            )
        if domain.user_group and not domain.user:
            yield Finding(((*here, "user_group"),), "This has no effect without user", "Add user, or remove it")


def alias_targets(settings: Settings) -> Iterator[Finding]:
    """The owner of a file as whom its targets are used, without the user for files of root."""
    targets = settings.alias_targets
    places = {*targets.programs, *targets.files, *targets.includes}
    if "forwards" in places and not any(each.forward_files for each in settings.domain):
        yield Finding(
            (("alias_targets",),), "Targets of .forward files are allowed, but no domain has such files",
            'Add forward_files = true to a [[domain]], or remove "forwards"',
        )
    if settings.alias_targets.as_owner and not settings.alias_targets.user:
        yield Finding(
            (("alias_targets", "as_owner"),), "This has no effect without user",
            'Add user, which counts for files of root, such as user = "nobody"',
        )


_PROVED: Final = (TlsDemand.VERIFY, TlsDemand.IMPLICIT, TlsDemand.DANE, TlsDemand.DANE_ONLY)


def lmtp_account(settings: Settings) -> Iterator[Finding]:
    """An account without its password, and TLS that cannot be proved."""
    for index, domain in enumerate(settings.domain):
        here = ("domain", index)
        if bool(domain.username) is not (domain.password_file is not None):
            missing = "username" if domain.password_file is not None else "password_file"
            yield Finding(
                ((*here, "username"), (*here, "password_file")),
                f"An account needs username and password_file, but there is no {missing}",
                f"Add {missing}",
            )
        if domain.socket is not None and domain.tls in _PROVED:
            yield Finding(
                ((*here, "tls"), (*here, "socket")),
                "A server at a Unix socket has no name that a certificate could prove",
                "Remove tls: only programs of this machine can connect to the socket",
            )


def _missing(domain: LocalDomainSection) -> str:
    match domain.deliver:
        case "maildir":
            return "" if domain.path or domain.path_maps else 'Add path = "/var/mail/{domain}/{local_part}"'
        case "mbox":
            return "" if domain.path or domain.path_maps else 'Add path = "/var/mail/{local_part}"'
        case "lmtp":
            named = domain.socket or domain.host or domain.hosts
            return "" if named else "Add socket, or host and port, of the LMTP server"
        case "http":
            return "" if domain.url else 'Add url = "https://app.example.org/mail"'
        case "program":
            return "" if domain.command else 'Add command = ["/path/of/the/program", "argument"]'
        case "aliases":
            return ""


# What looks like a placeholder. Within a command not `${HOME}` and `{}`, which other programs know.
_IN_PATH: Final = re.compile(r"\{([^{}/]*)\}")

_DOVECOTS: Final = re.compile(r"%[A-Z]?([undh])(?![\w%])")

_IN_COMMAND: Final = re.compile(r"(?<!\$)\{([\w.-]+)\}")


def placeholders(settings: Settings) -> Iterator[Finding]:
    """Unknown placeholders in the path of mailboxes or in a command."""
    for index, domain in enumerate(settings.domain):
        here = ("domain", index)
        if domain.deliver in ("maildir", "mbox") and domain.path is not None:
            yield from _unknown((*here, "path"), _IN_PATH.findall(str(domain.path)), PATH_PLACEHOLDERS)
            yield from _of_dovecot((*here, "path"), str(domain.path))
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


def _of_dovecot(key: Path, path: str) -> Iterator[Finding]:
    """Variables of Dovecot's mail_location, with which all mailboxes would be one."""
    for letter in dict.fromkeys(_DOVECOTS.findall(path)):
        ours = {"u": "{local_part}", "n": "{local_part}", "d": "{domain}", "h": "{home}"}[letter]
        yield Finding((key,), f"%{letter} is a placeholder of Dovecot, not of Postroad", f"Write {ours}")


def _unknown(key: Path, found: list[str], known: tuple[str, ...]) -> Iterator[Finding]:
    for name in dict.fromkeys(found):
        if name not in known:
            names = ", ".join(f"{{{each}}}" for each in known)
            yield Finding(
                (key,), f"{{{name}}} is not a known placeholder. The known ones are {names}", "Write one of these"
            )


def recipients(settings: Settings) -> Iterator[Finding]:
    """Names of recipients that cannot be local-parts."""
    domains: list[tuple[Path, LocalDomainSection | RelayDomainSection]] = [
        *((("domain", index), each) for index, each in enumerate(settings.domain)),
        *((("relay", "domain", index), each) for index, each in enumerate(settings.relay.domain)),
    ]
    for here, domain in domains:
        for place, name in enumerate(domain.recipients):
            local_part = name.removesuffix(f"@{domain.name}")
            whole = not domain.name and "@" in name
            if parse_mailbox(name if whole else f"{local_part}@{_ANY_DOMAIN}") is None:
                yield Finding(
                    ((*here, "recipients", place), (*here, "recipients"), (*here, "name")),
                    f"{name!r} is not the local-part of a mailbox in {domain.quoted}",
                    f'Write only the part before the "@", such as "ada" for ada@{_plain_name(domain.name)}',
                )


def _plain_name(pattern: str) -> str:
    return pattern.removeprefix(".") or _ANY_DOMAIN


_ANY_DOMAIN: Final = "example.org"  # the domain of a recipient may be a pattern, which no mailbox has
