"""Checks the files and names of the system that the settings point to: whether they exist, and have the right content.

It only looks. A certificate is loaded as a listener would load it, so that a certificate that passes here also works;
files of accounts, recipients and passwords are read. Files that the node makes itself (the spool, Maildirs) need not
exist yet. Root, who may read everything, looks with the rights of `user`, which the node will have.
"""

from __future__ import annotations

import contextlib
import grp
import os
import pwd
import re
from collections.abc import Callable, Iterator
from io import TextIOWrapper
from pathlib import Path as FilePath
from typing import Final

from msgspec.structs import replace

from postroad.accounts import accounts
from postroad.config import mailboxes
from postroad.config.aliasing import relocated_of
from postroad.config.finding import Finding
from postroad.config.locate import Path
from postroad.config.maps import MapSection
from postroad.config.options import (
    alias_limits,
    alias_sources,
    client_tls_options,
    deliver_options,
    dkim_out_options,
    map_options,
    outlet_options,
    report_mailboxes,
    routing_options,
    server_tls_options,
)
from postroad.config.routing import LocalDomainSection, RelayDomainSection
from postroad.config.settings import Settings
from postroad.deliver.mailbox import LOCAL_PART
from postroad.deliver.quota import read_quotas
from postroad.deliver.signing_keys import SigningTables, read_key, read_tables, source_path
from postroad.deliver.webhook import SECRET_MIN, secret_of
from postroad.maps.face import Map
from postroad.maps.maps import Maps
from postroad.maps.maps import make as make_maps
from postroad.maps.options import MapKind, MapOptions
from postroad.maps.simple import StaticSource
from postroad.route import alias_file
from postroad.route.includes import IncludingTargets
from postroad.route.key_files import numbered_secrets_of, secrets_of
from postroad.route.recipients import Recipients, mailboxes_of, read_names
from postroad.route.table import RoutingTable
from postroad.trust.opendkim_tables import dangling
from postroad.world import tls
from postroad.world.clock import SystemClock
from postroad.world.files import open_file
from postroad.world.identity import account, is_group
from postroad.world.problem import Problem, not_utf8, unreadable


def find(settings: Settings, *, entries: bool = True) -> list[Finding]:
    """All files that cannot be read or do not hold what they should. `entries`: also those of aliases, recipients and
    maps."""
    with rights(settings):
        checks = [check for check in _CHECKS if entries or check not in _OF_ENTRIES]
        found = [finding for check in checks for finding in check(settings)]
    return [*found, *_state(settings)]


@contextlib.contextmanager
def rights(settings: Settings) -> Iterator[bool]:
    """The rights that the node will have, for a while. False if they are those that we have, or are not known."""
    try:
        account = pwd.getpwnam(settings.user)
        group = grp.getgrnam(settings.group).gr_gid if settings.group else account.pw_gid
    except KeyError:
        account = None
    if account is None or os.geteuid() != 0 or account.pw_uid == 0:
        yield False
        return
    groups, own = os.getgroups(), os.getegid()
    os.initgroups(settings.user, group)
    os.setegid(group)
    os.seteuid(account.pw_uid)
    try:
        yield True
    finally:
        os.seteuid(0)
        os.setegid(own)
        os.setgroups(groups)


def read_text(path: FilePath) -> str | Problem:
    """A text in UTF-8, or why it cannot be had."""
    try:
        with TextIOWrapper(open_file(str(path)), "utf-8") as file:
            return file.read()
    except OSError as error:
        return unreadable(str(path), error)
    except UnicodeDecodeError as error:
        return not_utf8(str(path), f" (octet {error.start})")


def _within(key: Path, file: FilePath, problem: Problem) -> Finding:
    """A problem with the line of the file that its reader names (``FILE:LINE``), or with all of it."""
    name, _, line = problem.where.rpartition(":")
    if name == str(file) and line.isdigit():
        return Finding((key,), problem.text, problem.remedy, file, int(line))
    return _found(key, problem)


def _found(key: Path, problem: Problem) -> Finding:
    return Finding((key,), f"{problem.where}: {problem.text}", problem.remedy or "Check the file")


# ---- TLS ------------------------------------------------------------------------------------------------------------


def _tls(settings: Settings) -> Iterator[Finding]:
    options = server_tls_options(settings)
    if options is None:
        return
    keys: list[Path] = [("tls",), *(("tls", "further", index) for index in range(len(settings.tls.further)))]
    seen: set[Problem] = set()
    for key, files in zip(keys, options.certificates, strict=True):
        made = tls.server_tls(replace(options, certificates=(files,)))
        for problem in made if isinstance(made, tuple) else ():
            if problem not in seen:
                yield _tls_finding(settings, key, files, options, problem)
            seen.add(problem)
        if files.key and isinstance(made, tuple) and (closed := tls.readable(files.key)) and closed not in seen:
            seen.add(closed)  # OpenSSL looks at the key only if the certificate is right
            yield _found((*key, "key"), closed)


def _outbound_tls(settings: Settings) -> Iterator[Finding]:
    options = client_tls_options(settings)
    here: Path = ("outbound", "tls")
    places = {options.ca_file: "ca_file"}
    if options.certificate is not None:
        places |= {options.certificate.certificate: "certificate", options.certificate.key: "key"}
    client = tls.ClientTls(options)
    for index, hop in enumerate(settings.next_hop):
        made = client.context(tls.Proof.NOTHING, ciphers=hop.tls_ciphers)
        if hop.tls_ciphers and isinstance(made, Problem) and made.where == "ciphers":
            yield Finding((("next_hop", index, "tls_ciphers"),), made.text, made.remedy)
    for problem in client.problems():
        key = places.get(problem.where, problem.where)
        if key in places.values():
            yield _found((*here, key), problem)
        else:
            yield Finding(((*here, "ciphers"), (*here, "opportunistic_ciphers")), problem.text, problem.remedy)


def _tls_finding(
    settings: Settings, key: Path, files: tls.CertificateFiles, options: tls.ServerTlsOptions, problem: Problem
) -> Finding:
    match problem.where:
        case "ciphers":
            return Finding((("tls", "ciphers"),), problem.text, problem.remedy)
        case "groups":
            return Finding((("tls", "groups"),), problem.text, problem.remedy)
        case where if where in (asking.ca_file for asking in options.askings):
            return Finding(_ca_keys(settings, where), f"{where}: {problem.text}", problem.remedy)
        case where if where == files.key and not isinstance(tls.validity_s(files.certificate), Problem):
            return _found((*key, "key"), problem)
        case _:
            return _found((*key, "certificate"), problem)


def _ca_keys(settings: Settings, path: str) -> tuple[Path, ...]:
    """Where the roots for client certificates are named."""
    keys: list[Path] = [("tls", "client_ca_file")] if str(settings.tls.client_ca_file) == path else []
    for index, listener in enumerate(settings.listener):
        if str(listener.client_ca_file) == path:
            keys.append(("listener", index, "client_ca_file"))
    return tuple(keys)


# ---- accounts, recipients, passwords --------------------------------------------------------------------------------


def _users(settings: Settings) -> Iterator[Finding]:
    if (path := settings.auth.users) is None:
        return
    key: Path = ("auth", "users")
    text = read_text(path)
    if isinstance(text, Problem):
        missing = _is_missing(path)
        remedy = "Create the file with `postroad user add`, or correct the path" if missing else text.remedy
        yield Finding((key,), f"{path}: {text.text}", remedy)
        return
    for fault in accounts.parse(text)[1]:
        yield Finding((key,), fault.text, "Correct the line, or write it with `postroad user`", path, fault.line)


def _is_missing(path: FilePath) -> bool:
    """Whether there is surely no such file: behind a closed folder nobody can tell."""
    try:
        os.lstat(path)
    except FileNotFoundError:
        return True
    except OSError:
        pass
    return False


def _function(settings: Settings) -> Iterator[Finding]:
    """Only whether its file can be read; `trial` loads it as the node would."""
    place = settings.auth.function.rpartition(":")[0]
    if place.endswith(".py") and isinstance(text := read_text(FilePath(place)), Problem):
        yield _found(("auth", "function"), text)


def _introspection(settings: Settings) -> Iterator[Finding]:
    section = settings.auth.introspection
    key: Path = ("auth", "introspection")
    if section.client_secret_file is not None:
        text = read_text(section.client_secret_file)
        if isinstance(text, Problem):
            yield _found((*key, "client_secret_file"), text)
    if section.ca_file is not None:
        text = read_text(section.ca_file)
        if isinstance(text, Problem):
            yield _found((*key, "ca_file"), text)


def _recipients(settings: Settings) -> Iterator[Finding]:
    domains: list[tuple[Path, LocalDomainSection | RelayDomainSection]] = [
        *((("domain", index), each) for index, each in enumerate(settings.domain)),
        *((("relay", "domain", index), each) for index, each in enumerate(settings.relay.domain)),
    ]
    for here, domain in domains:
        if domain.recipients_file is not None:
            read = read_names(str(domain.recipients_file), domain.name, settings.routing.detail_delimiter)
            if isinstance(read, Problem):
                yield _within((*here, "recipients_file"), domain.recipients_file, read)


def _secrets_of_domains(settings: Settings) -> Iterator[Finding]:
    """Secrets and passwords for delivery."""
    named: list[tuple[Path, FilePath | None]] = [
        (("http", "ca_file"), settings.http.ca_file), (("mta_sts", "ca_file"), settings.mta_sts.ca_file)
    ]  # fmt: skip
    for index, domain in enumerate(settings.domain):
        keys = ("secret_file", "authorization_file", "password_file")
        named += [(("domain", index, key), getattr(domain, key)) for key in keys]
        text = read_text(domain.secret_file) if domain.secret_file is not None else ""
        if isinstance(text, str) and text and secret_of(text.partition("\n")[0]) is None:
            yield Finding(
                (("domain", index, "secret_file"),),
                f"The first line of {domain.secret_file} is not a secret of at least {SECRET_MIN} octets in Base64",
                "Make one: openssl rand -base64 32",
            )
    for key, path in named:
        if path is not None and isinstance(problem := read_text(path), Problem):
            yield _found(key, problem)


def _other_users(settings: Settings) -> Iterator[Finding]:
    """Users as whom mail is to be delivered: whether they exist."""
    for index, domain in enumerate(settings.domain):
        if not domain.user:
            continue
        here = ("domain", index)
        if domain.user != LOCAL_PART:
            found = account(domain.user, "", settings.other_users.uid_min)
            if isinstance(found, Problem):
                yield Finding(((*here, "user"),), f"The user {found.where!r}: {found.text}", _USER_REMEDY)
        if domain.user_group and not is_group(domain.user_group):
            yield Finding(
                ((*here, "user_group"),), f"There is no group {domain.user_group!r}", "Name a group of this machine"
            )


_USER_REMEDY: Final = "Name another user, create it (`useradd`), or lower other_users.uid_min"


def _user_of_aliases(settings: Settings) -> Iterator[Finding]:
    """The user as whom programs and files of aliases are used: whether he exists."""
    name = settings.alias_targets.user
    found = account(name, "", 1) if name else None
    if isinstance(found, Problem):
        yield Finding(
            (("alias_targets", "user"),), f"The user {found.where!r}: {found.text}", "Name another user, or create it"
        )


def _quotas(settings: Settings) -> Iterator[Finding]:
    for index, domain in enumerate(settings.domain):
        if domain.quota_file is not None:
            read = read_quotas(str(domain.quota_file))
            if isinstance(read, Problem):
                yield _within(("domain", index, "quota_file"), domain.quota_file, read)


def _aliases(settings: Settings) -> Iterator[Finding]:
    if (path := settings.aliases) is None:
        return
    text = read_text(path)
    if isinstance(text, Problem):
        yield _within(("aliases",), path, text)
        return
    reader = IncludingTargets(outlet_options(settings))
    source = alias_sources(settings)[""]
    read = alias_file.parse(text, str(path), homes(settings), alias_limits(settings), reader, source)
    for problem in read if isinstance(read, tuple) else ():
        yield _within(("aliases",), path, problem)


# In the place of all maps: what is there by a map is not judged here.
_NOT_ASKED: Final = Map("", "static", StaticSource(""), lambda text: None)


def homes(settings: Settings) -> alias_file.Homes | None:
    """Our own mailboxes; None if their files cannot be read, which is a finding of its own."""
    routing = routing_options(settings)
    boxes = mailboxes_of(routing, lambda names: (_NOT_ASKED,) * len(names))
    recipients = Recipients(boxes, None, report_mailboxes(settings))
    if recipients.load():
        return None
    table = RoutingTable(routing)
    return mailboxes.homes(table, recipients, deliver_options(settings).maildir, _moved(settings, table))


def _moved(settings: Settings, table: RoutingTable) -> mailboxes.Moved | None:
    """Whether a mailbox has moved, as far as files can tell; None if no map says so."""
    names = settings.rewrite.relocated_maps
    if not names:
        return None
    made = make_maps(_without_functions(settings), SystemClock(), lambda level, text: None)
    if isinstance(made, tuple) or not set(names) <= {each.name for each in made}:
        return lambda address, asked: None
    relocated = relocated_of(settings, table, made.named)
    return None if relocated is None else relocated.has_moved


def _without_functions(settings: Settings) -> list[MapOptions]:
    """The maps but those of Python functions, which `trial` loads as the node would."""
    functions = {each.name for each in settings.map if each.kind is MapKind.PYTHON}
    wanted = []
    for each in map_options(settings):
        if functions.isdisjoint((each.name, *each.maps)):
            wanted.append(each)
        else:
            functions.add(each.name)
    return wanted


def _maps(settings: Settings) -> Iterator[Finding]:
    """Maps that cannot be made, or whose files cannot be read."""
    made = make_maps(_without_functions(settings), SystemClock(), lambda level, text: None)
    if isinstance(made, Maps):
        made.close()
        return
    for problem in made:
        index, section = _map_of(settings, problem)
        if section.file is not None and _is_about(problem, str(section.file)):
            yield _within(("map", index, "file"), section.file, problem)
        elif _entry_of(problem):
            yield Finding((("map", index, "entries", _entry_of(problem) - 1),), problem.text, problem.remedy)
        else:
            yield Finding((("map", index),), problem.text, problem.remedy)


def _map_of(settings: Settings, problem: Problem) -> tuple[int, MapSection]:
    """The map that a problem is about, which names it or its file."""
    found = enumerate(settings.map)
    return next(
        (index, each)
        for index, each in found
        if _is_about(problem, f"map {each.name}") or (each.file is not None and _is_about(problem, str(each.file)))
    )


def _is_about(problem: Problem, what: str) -> bool:
    """Whether a problem names this file or map, or a line in it."""
    where, _, line = problem.where.rpartition(":")
    return problem.where == what or (where == what and line.isdigit())


def _entry_of(problem: Problem) -> int:
    """The number of the entry of an `inline` map that is wrong; 0 if the problem is about something else."""
    where, _, number = problem.where.rpartition(":")
    return int(number) if where.startswith("map ") and number.isdigit() else 0


# ``[host]:587 account:password`` and ``host account:password``, the lines of smtp_sasl_password_maps.
_OF_POSTFIX: Final = re.compile(
    r"(?:\[[\w.:-]+\](?::\w+)?|[\w-]+(?:\.[\w-]+)+(?::\d+)?)[ \t]+[^\s:]+:\S+[ \t]*(?:\r?\n|$)"
)


def _passwords(settings: Settings) -> Iterator[Finding]:
    for index, hop in enumerate(settings.next_hop):
        if hop.token_file is not None and isinstance(found := read_text(hop.token_file), Problem):
            yield _found(("next_hop", index, "token_file"), found)
        if hop.password_file is None:
            continue
        key = ("next_hop", index, "password_file")
        text = read_text(hop.password_file)
        if isinstance(text, Problem):
            yield _found(key, text)
        elif not text.split("\n", 1)[0].strip():
            yield Finding(
                (key,),
                f"{hop.password_file} has no password in its first line",
                "Write the password into the first line",
            )
        elif _OF_POSTFIX.match(text):
            yield Finding(
                (key,),
                f"The first line of {hop.password_file} is one of smtp_sasl_password_maps of Postfix",
                "Write only the password into the first line, and the name of the account into username",
            )


# ---- folders and users ----------------------------------------------------------------------------------------------


def _folders(settings: Settings) -> Iterator[Finding]:
    if os.path.exists(settings.state_dir) and not os.path.isdir(settings.state_dir):
        yield Finding((("state_dir",),), f"{settings.state_dir} is not a folder", "Write the path of a folder")
    for index, domain in enumerate(settings.domain):
        if domain.command and not os.path.isfile(domain.command[0]):
            yield Finding(
                (("domain", index, "command"),),
                f"The program {domain.command[0]} does not exist",
                "Write the full path of the program",
            )


def _log(settings: Settings) -> Iterator[Finding]:
    """The log, which each worker opens for itself, and makes if it is missing."""
    if (path := settings.log.path) is None:
        return
    key: Path = ("log", "path")
    who = _ourselves()
    other = settings.user not in ("", who)  # an ordinary user looks, with rights that the node will not have
    elsewhere = f"run this as root or as {settings.user}" if other else "write another path"
    if os.path.isdir(path):
        yield Finding((key,), f"{path} is a folder", "Write the path of a file in this folder")
    elif os.path.exists(path):
        if not os.access(path, os.W_OK, effective_ids=True):
            remedy = f"Give the file to this user (chown {who} {path}), or {elsewhere}"
            yield Finding((key,), f"The user {who!r} cannot write {path}", remedy)
    elif not os.path.isdir(path.parent):
        yield Finding((key,), f"The folder {path.parent} does not exist", "Create it, or correct the path")
    elif not os.access(path.parent, os.W_OK | os.X_OK, effective_ids=True):
        remedy = f"Give the folder to this user (chown {who} …), or {elsewhere}"
        yield Finding((key,), f"The user {who!r} cannot create a log file in {path.parent}", remedy)


def _state(settings: Settings) -> Iterator[Finding]:
    """Folders of the state that are there (those that are not, root makes for the user) and cannot be written."""
    key: Path = ("state_dir",)
    folders = [settings.state_dir / name for name in ("", "run", "spool", "history")]
    try:
        there = [folder for folder in folders if folder.is_dir()]
    except OSError as error:  # a folder on the way to it is closed
        remedy = "Run this as root or as the user who owns it, or give this user the right to enter the folder"
        text = f"The user {_ourselves()!r} may not look into {settings.state_dir} ({error.strerror or error})"
        yield Finding((key,), text, remedy)
        return
    with rights(settings) as taken:
        closed = [each for each in there if not os.access(each, os.R_OK | os.W_OK | os.X_OK, effective_ids=True)]
    for folder in closed if taken else ():
        remedy = f"Give the folder and its content to this user (chown -R {settings.user} {folder})"
        yield Finding((key,), f"The user {settings.user!r} cannot write to {folder}", remedy)


def _ourselves() -> str:
    """The user whose rights we have now."""
    try:
        return pwd.getpwuid(os.geteuid()).pw_name
    except KeyError:
        return str(os.geteuid())


def _owner(settings: Settings) -> Iterator[Finding]:
    known: tuple[tuple[str, str, Callable[[str], object]], ...] = (
        ("user", settings.user, pwd.getpwnam),
        ("group", settings.group, grp.getgrnam),
    )
    for key, name, find_name in known:
        try:
            if name:
                find_name(name)
        except KeyError:
            yield Finding(((key,),), f"This system has no {key} {name!r}", f"Create the {key}, or write another one")


def _keys_of_senders(settings: Settings) -> Iterator[Finding]:
    """Keys that cannot be read, or are none."""
    files: tuple[tuple[Path, FilePath | None, Callable[[str, str], object]], ...] = (
        (("srs", "keys_file"), settings.srs.keys_file, secrets_of),
        (("batv", "keys_file"), settings.batv.keys_file, numbered_secrets_of),
    )
    for key, path, parse in files:
        if path is not None:
            text = read_text(path)
            found = text if isinstance(text, Problem) else parse(text, str(path))
            if isinstance(found, Problem):
                yield _within(key, path, found)


def _dkim(settings: Settings) -> Iterator[Finding]:
    """Keys that the settings name, and OpenDKIM's tables."""
    for index, key in enumerate(settings.dkim.key):
        found = read_key(str(key.file))
        if isinstance(found, Problem):
            yield _found(("dkim", "key", index, "file"), found)
    wanted = dkim_out_options(settings)
    tables = read_tables(wanted)
    for problem in tables if isinstance(tables, tuple) else ():
        of_keys = _is_about(problem, source_path(wanted.key_table))
        named = "key_table" if of_keys else "signing_table"
        yield _within(("dkim", named), FilePath(source_path(getattr(wanted, named))), problem)
    for fault in dangling(tables.keys, tables.signers) if isinstance(tables, SigningTables) else ():
        path = FilePath(source_path(wanted.signing_table))
        yield Finding((("dkim", "signing_table"),), fault.text, "Correct the name, or add the key", path, fault.line)


_OF_ENTRIES: Final = (_recipients, _aliases, _maps)
_CHECKS: Final[tuple[Callable[[Settings], Iterator[Finding]], ...]] = (
    _tls,
    _outbound_tls,
    _users,
    _function,
    _introspection,
    _recipients,
    _quotas,
    _other_users,
    _secrets_of_domains,
    _aliases,
    _user_of_aliases,
    _maps,
    _passwords,
    _keys_of_senders,
    _dkim,
    _folders,
    _log,
    _owner,
)
