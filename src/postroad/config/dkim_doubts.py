"""Doubts about the keys that sign mail: keys that cannot be used now or are short, and domains of ours without any.

None of them keeps a node from its work: mail goes out without a signature, or waits if that is set.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Final

from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey

from postroad.config.finding import Finding
from postroad.config.options import dkim_out_options, key_options
from postroad.config.settings import Settings
from postroad.deliver.signing_keys import SigningKeys, SigningTables, read_key, read_tables, source_path
from postroad.deliver.signing_options import DkimOutOptions, KeyTrouble
from postroad.mail.address import Address
from postroad.trust.key_store import KeyStore
from postroad.trust.opendkim_tables import ANY
from postroad.world.problem import Problem

BITS_MIN: Final = 2_048  # RFC 8301 §3.2: signers SHOULD use at least so many
TABLE_KEYS_MAX: Final = 1_000  # files of a key table that are looked at
_MAKE: Final = "Make a key with `postroad dkim add`"
_MAKE_OR_NAME: Final = f"{_MAKE}, or name one in a table [[dkim.key]]"
_PATTERNS: Final = "refile:"  # in front of a table of OpenDKIM with patterns
_SHORT: Final = "Make a new one: `postroad dkim add`"


def find(settings: Settings, now_s: float) -> Iterator[Finding]:
    options = dkim_out_options(settings)
    if not options.sign:
        yield from _unsigned_reports(settings, None)
        return
    tables = read_tables(options)
    if isinstance(tables, tuple):
        return  # a problem
    store = KeyStore(Path(key_options(settings).folder), lambda: int(now_s * 1_000_000))
    for problem in store.load():
        yield Finding((("dkim", "folder"),), f"{problem.where}: {problem.text}", problem.remedy)
    keys = SigningKeys(options, tables, lambda level, text: None)
    keys.take_stored(store.domains)
    yield from _short(settings)
    if tables is not None:
        yield from _of_table(options, tables)
        yield from _stars(options, tables)
    if options.arc_seal and not options.arc_listeners:
        text = "Nothing is sealed: no listener checks ARC"
        yield Finding((("dkim", "arc_seal"),), text, 'Write arc = "mark" at the listener by which strangers send')
    if options.arc_seal and (why := _why_not(keys, options.arc_seal)):
        remedy = _remedy(keys, options.arc_seal, _MAKE)
        yield Finding((("dkim", "arc_seal"),), f"Nothing is sealed: {why}", remedy)
    if keys.any:
        yield from _without_key(settings, options, keys)
    yield from _signs_as(settings, keys)
    yield from _unsigned_reports(settings, keys)


def _short(settings: Settings) -> Iterator[Finding]:
    for index, each in enumerate(settings.dkim.key):
        key = read_key(str(each.file))
        if isinstance(key, RSAPrivateKey) and key.key_size < BITS_MIN:
            text = f"The key of {each.domain} has {key.key_size} bits; many receivers want {BITS_MIN}"
            yield Finding((("dkim", "key", index, "file"),), text, _SHORT)


def _of_table(options: DkimOutOptions, tables: SigningTables) -> Iterator[Finding]:
    """Keys of a key table; a key whose path depends on the author is not looked at."""
    table = Path(source_path(options.key_table))
    for row in tables.keys.rows[:TABLE_KEYS_MAX]:
        if not row.path or ANY in row.path:
            continue
        key = read_key(str(table.parent / row.path))
        if isinstance(key, Problem):
            text, remedy = f"{key.where}: {key.text}; {_effect(options)}", key.remedy
        elif isinstance(key, RSAPrivateKey) and key.key_size < BITS_MIN:
            text, remedy = f"The key {row.name} has {key.key_size} bits, fewer than {BITS_MIN}", _SHORT
        else:
            continue
        yield Finding((("dkim", "key_table"),), text, remedy, table, row.line)


def _stars(options: DkimOutOptions, tables: SigningTables) -> Iterator[Finding]:
    """A plain SigningTable knows ``*`` for all authors and ``user@*``; in any other place it fits nobody."""
    if options.signing_table.startswith(_PATTERNS):
        return
    table = Path(source_path(options.signing_table))
    for row in tables.signers.rows:
        if "*" in row.pattern.removesuffix("@*") and row.pattern != "*":
            text = f"{row.pattern} fits no author: in a table without refile: in front, * is an ordinary character here"
            remedy = f'Write signing_table = "{_PATTERNS}{options.signing_table.removeprefix("file:")}"'
            yield Finding((("dkim", "signing_table"),), text, remedy, table, row.line)


def _without_key(settings: Settings, options: DkimOutOptions, keys: SigningKeys) -> Iterator[Finding]:
    """Domains of ours that cannot sign, while others can."""
    for index, each in enumerate(settings.domain):
        if each.name:
            why = _why_not(keys, each.name)
            if why:
                remedy = _remedy(keys, each.name, _MAKE_OR_NAME)
                yield Finding((("domain", index, "name"),), f"Mail from {each.name} is not signed: {why}", remedy)
    why = _why_not(keys, settings.hostname)
    if why and not settings.dsn.sender:
        text = f"Reports of the node, which come from {settings.hostname}, are not signed: {why}"
        yield Finding((("hostname",),), text, _remedy(keys, settings.hostname, _MAKE_OR_NAME))


def _signs_as(settings: Settings, keys: SigningKeys) -> Iterator[Finding]:
    for index, signs in enumerate(settings.dkim.sign_as):
        why = _why_not(keys, signs.domain)
        if why:
            text = f"The domain {signs.domain} cannot sign: {why}"
            remedy = _remedy(keys, signs.domain, _MAKE_OR_NAME)
            yield Finding((("dkim", "sign_as", index, "domain"),), text, remedy)


def _unsigned_reports(settings: Settings, keys: SigningKeys | None) -> Iterator[Finding]:
    """RFC 8460 §3: TLS reports by mail without a signature are thrown away. `keys`: None if nothing is signed."""
    section = settings.feedback
    domain = section.contact.rpartition("@")[2]
    if not (section.tls and section.organization and domain):
        return
    why = "dkim.sign is false" if keys is None else _why_not(keys, domain)
    if why:
        text = f"TLS reports from {domain} are not signed, so other domains throw them away: {why}"
        make = f"Make a key with `postroad dkim add {domain}`"
        remedy = "Set it to true" if keys is None else _remedy(keys, domain, make)
        yield Finding((("feedback", "contact"),), text, remedy)


def _why_not(keys: SigningKeys, domain: str) -> str:
    author = Address("postmaster", domain)
    if keys.find(author) is None:
        keys.read(author)
    found = keys.find(author)
    if found is None or found.keys:
        return ""
    return "; ".join(found.troubles) or keys.waiting(domain) or f"there is no key for {domain}"


def _remedy(keys: SigningKeys, domain: str, otherwise: str) -> str:
    """What to do about a domain that cannot sign. Keys that wait need their records, not further keys."""
    if not keys.waiting(domain):
        return otherwise
    return "Publish these records (`postroad dns show` prints them); a running node looks for them by itself"


def _effect(options: DkimOutOptions) -> str:
    waits = options.key_trouble is KeyTrouble.WAIT
    return f"mail that it should sign {'waits' if waits else 'goes without this signature'}"
