"""Finds the keys that sign for an author: from OpenDKIM's tables, from files that the settings name, and from the store
of keys (`trust.key_store`).

The SigningTable comes first. An author who is not in it signs with the keys of his domain; if it has none, with those
of the nearest domain above it, if that is set, and with those of the domain that `sign_as` names.

What always holds: `find` reads no file and tries no long list of patterns, and tells if that must be done first; then
`read` does it on a thread. Files are looked at now and then (`look`); one that has changed is read anew. If it cannot
be read then, the key from before goes on to sign. `edition` grows with each change, so that nobody signs with a key
that is out of use.

How it fails: with the troubles of a `Chosen`, for people. No text has anything of a private key.
"""

from __future__ import annotations

import itertools
import os
import stat
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Final, TypeVar

import msgspec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey

from postroad.deliver.signing_options import DkimOutOptions
from postroad.mail.address import Address, is_within
from postroad.trust import opendkim_tables
from postroad.trust.dkim_key import KeyKind
from postroad.trust.dkim_sign import (
    DkimSigner,
    Plans,
    PrivateKeyFault,
    SigningKey,
    parse_key_data,
    parse_private_key,
)
from postroad.trust.keyring import DomainKeys, KeyringFault, KeyState, StoredKey, private_of
from postroad.trust.opendkim_tables import ANY, KeyRow, KeyTable, SigningTable, SignRow, TableFault
from postroad.world.files import Stamp, Watch, open_file, stamp
from postroad.world.problem import Problem, not_utf8, unreadable

PrivateKey = RSAPrivateKey | Ed25519PrivateKey
Tell = Callable[[str, str], None]

FILE_MAX: Final = 65_536  # octets of a key's file
FILES_MAX: Final = 10_000  # keys of files that stay parsed
CHOSEN_MAX: Final = 10_000  # authors whose keys are remembered
KEYS_MAX: Final = 20  # that sign one message
PATTERNS_MAX: Final = 200  # lines of tables that the loop tries for one author
_OTHERS: Final = stat.S_IROTH | stat.S_IWOTH
_NO_FILE: Final = Stamp()


class Chosen(msgspec.Struct, frozen=True):
    """The keys for an author, and why others cannot be used. `signer`: with all these keys; None without any."""

    keys: tuple[SigningKey, ...] = ()
    troubles: tuple[str, ...] = ()
    signer: DkimSigner | None = None


NOBODY: Final = Chosen()


class SigningTables(msgspec.Struct, frozen=True):
    """OpenDKIM's two tables."""

    keys: KeyTable
    signers: SigningTable


class _NotReadError(Exception):
    """A file must be read first. It never leaves this module."""


class _KeyFile(msgspec.Struct, frozen=True):
    """What a file holds. `key`: the last one that could be read; `trouble`: why it cannot be read now, "" if it can."""

    stamp: Stamp
    key: PrivateKey | None
    trouble: str = ""


class SigningKeys:
    """See the module. `tell(level, text)` logs; threads call it, too. `table_stamps`: the states of the files when the
    tables were read."""

    def __init__(
        self, options: DkimOutOptions, tables: SigningTables | None, tell: Tell, table_stamps: tuple[Stamp, ...] = ()
    ) -> None:
        self.edition = 0
        self._editions = itertools.count(1)
        self._plans: Plans = {}
        self._options = options
        self._tables = tables
        self._table_watch = Watch()
        self._table_watch.taken(table_stamps)
        self._tell = tell
        self._files: dict[str, _KeyFile] = {}
        self._chosen: dict[Address, Chosen] = {}
        self._named: dict[str, list[tuple[str, str]]] = {}  # selector and file, by domain
        for each in options.keys:
            self._named.setdefault(each.domain, []).append((each.selector, each.file))
        for path in dict.fromkeys(each.file for each in options.keys):
            self._read_file(path)
        self._stored: Mapping[str, DomainKeys] = {}

    @property
    def any(self) -> bool:
        """Whether there is any key."""
        return bool(self._named or self._stored or self._tables is not None)

    def take_stored(self, domains: Mapping[str, DomainKeys]) -> None:
        """Take the keys of the store, by domain."""
        if domains is not self._stored:
            self._stored = domains
            self.renew()

    def domains(self) -> set[str]:
        """The domains that have keys, without those of the tables."""
        return {*self._named, *self._stored}

    def lack(self, domain: str) -> str:
        """Why nobody signs for an author domain for which there is neither a key nor a trouble."""
        return self.waiting(domain) or f"no key for {domain}"

    def waiting(self, domain: str) -> str:
        """That keys of a domain, or of one above it whose keys could sign, wait; "" if none do."""
        while domain:
            stored = self._stored.get(domain)
            waiting = () if stored is None else stored.in_state(KeyState.WAITING)
            if waiting:
                names = ", ".join(each.selector for each in waiting)
                return f"the keys of {domain} ({names}) wait until the node has seen their records in the DNS"
            domain = domain.partition(".")[2] if self._options.parent_domains else ""
        return ""

    # -- finding -------------------------------------------------------------------------------------------------------

    def find(self, author: Address) -> Chosen | None:
        """None if `read` must be called first."""
        if self._tables is None:
            author = Address("", author.domain)
        chosen = self._chosen  # if keys change meanwhile (this may be a thread), another one takes its place
        found = chosen.get(author)
        if found is None and not self._has_many_patterns:
            try:
                found = self._choose(author, self._known_file)
            except _NotReadError:
                return None
            _remember(chosen, author, found)
        return found

    def read(self, author: Address) -> None:
        """Do what `find` must not. On a thread."""
        if self._tables is None:
            author = Address("", author.domain)
        chosen = self._chosen
        _remember(chosen, author, self._choose(author, self._read_file))

    @property
    def _has_many_patterns(self) -> bool:
        tables = self._tables
        return tables is not None and tables.signers.patterns + tables.keys.patterns > PATTERNS_MAX

    def signer(self, keys: tuple[SigningKey, ...]) -> DkimSigner:
        return DkimSigner(keys, self._options.fields, self._plans)

    def _choose(self, author: Address, file: Callable[[str], _KeyFile]) -> Chosen:
        keys: dict[tuple[str, str], SigningKey] = {}
        troubles: dict[str, None] = {}
        for found in self._candidates(author, file):
            if isinstance(found, str):
                troubles[found] = None
            elif len(keys) < KEYS_MAX:
                keys.setdefault((found.domain, found.selector), found)
        chosen = tuple(keys.values())
        return Chosen(chosen, tuple(troubles), self.signer(chosen) if chosen else None)

    def _candidates(self, author: Address, file: Callable[[str], _KeyFile]) -> Iterator[SigningKey | str]:
        """Keys, and why a key cannot be used."""
        rows = self._rows(author)
        if rows:
            for row in rows:
                yield from self._of_row(row, author.domain, file)
            return
        own = self._own_domain(author.domain)
        if own:
            yield from self._of_domain(own, file)
        for other in self._signs_as(author.domain, has_own=bool(own)):
            yield from self._of_domain(other, file)

    def _rows(self, author: Address) -> list[SignRow]:
        if self._tables is None:
            return []
        rows = self._tables.signers.matches(author.local_part, author.domain)
        return list(itertools.islice(rows, KEYS_MAX if self._options.all_matches else 1))

    def _of_row(self, row: SignRow, domain: str, file: Callable[[str], _KeyFile]) -> Iterator[SigningKey | str]:
        assert self._tables is not None
        name = domain if row.name == ANY else row.name
        found = self._tables.keys.find(name)
        if found is None:
            yield f"the key {name[:100]} is not in the key table"
            return
        key = _key_data(found) if found.data else self._table_file(found, domain, file)
        if isinstance(key, str):
            yield key
            return
        d = domain if found.domain == ANY else found.domain
        yield SigningKey(d, found.selector, key, _identity(row, domain, d))

    def _table_file(self, row: KeyRow, domain: str, file: Callable[[str], _KeyFile]) -> PrivateKey | str:
        path = row.path.replace(ANY, domain)
        if not os.path.isabs(path):
            path = str(Path(source_path(self._options.key_table)).parent / path)
        found = file(path)
        return found.key if found.key is not None else found.trouble

    def _own_domain(self, domain: str) -> str:
        """The author domain if it has a key, else the nearest one above it, if that is set; else ""."""
        while domain:
            if domain in self._named or self._is_stored(domain):
                return domain
            if not self._options.parent_domains:
                return ""
            domain = domain.partition(".")[2]
        return ""

    def _is_stored(self, domain: str) -> bool:
        stored = self._stored.get(domain)
        return stored is not None and bool(_signing(stored))

    def _signs_as(self, domain: str, *, has_own: bool) -> Iterator[str]:
        for each in self._options.sign_as:
            if (each.beside or not has_own) and any(_fits(pattern, domain) for pattern in each.authors):
                yield each.domain
                if not each.beside:
                    return

    def _of_domain(self, domain: str, file: Callable[[str], _KeyFile]) -> Iterator[SigningKey | str]:
        named = self._named.get(domain, ())
        for selector, path in named:
            found = file(path)
            yield SigningKey(domain, selector, found.key) if found.key is not None else found.trouble
        stored = self._stored.get(domain)
        keys = () if stored is None else _signing(stored)
        for each in keys:
            private = private_of(each)
            if isinstance(private, KeyringFault):
                yield f"{domain}: {private.text}"
            else:
                yield SigningKey(domain, each.selector, private)
        if not named and not keys:
            yield self.waiting(domain) or f"{domain} has no key that signs"

    # -- files ---------------------------------------------------------------------------------------------------------

    def _known_file(self, path: str) -> _KeyFile:
        found = self._files.get(path)
        if found is None:
            raise _NotReadError
        return found

    def _read_file(self, path: str) -> _KeyFile:
        before, now = self._files.get(path), stamp(path)
        if before is not None and before.stamp == now and not before.trouble:
            return before
        key = read_key(path)
        if isinstance(key, Problem):
            trouble = str(key)
            old = None if before is None else before.key
            found = _KeyFile(now, old, trouble)
            if before is None or before.trouble != trouble:
                stays = "; the key from before still signs" if old is not None else ""
                self._tell("error", f"DKIM: {trouble}{stays}")
        else:
            found = _KeyFile(now, key)
            if before is not None:
                self._tell("info", f"DKIM: the key {path} was read anew, and signs from now on")
        if len(self._files) >= FILES_MAX:
            self._files.clear()
            self.renew()  # nobody looks any more whether they have changed
        self._files[path] = found
        if before is not None and before.key is not found.key:
            self.renew()
        return found

    def look(self) -> None:
        """Look whether files have changed, and read those that have."""
        for path, found in list(self._files.items()):
            # A right to read a file changes no stamp. Authors may name any number of files that are not there (`%`).
            if (found.trouble and found.stamp != _NO_FILE) or stamp(path) != found.stamp:
                self._read_file(path)
        self._look_at_tables()

    def _look_at_tables(self) -> None:
        """Take tables that have changed, if they can be used."""
        stamps = table_stamps(self._options)
        if not stamps or not self._table_watch.has_changed(stamps, patient=True):  # half a table leaves mail unsigned
            return
        tables = read_tables(self._options)
        if isinstance(tables, tuple):
            self._tell_all(tables)
            self._tell("error", "DKIM: the old tables stay in force until the files are correct")
            return
        self._tables = tables
        self._tell("info", "DKIM: the changed tables are in force")
        self.renew()

    def renew(self) -> None:
        """Forget what was chosen: keys have changed. Threads call it, too."""
        self._chosen = {}
        self.edition = next(self._editions)

    def _tell_all(self, problems: Iterable[Problem]) -> None:
        for problem in problems:
            self._tell("error", f"DKIM: {problem}")


def _remember(chosen: dict[Address, Chosen], author: Address, found: Chosen) -> None:
    if len(chosen) >= CHOSEN_MAX:
        chosen.clear()
    chosen[author] = found


def _signing(stored: DomainKeys) -> list[StoredKey]:
    """The keys that sign, RSA first: old verifiers look at one signature alone."""
    return sorted(stored.in_state(KeyState.SIGNING), key=lambda each: (each.kind is not KeyKind.RSA, each.since_us))


def _fits(pattern: str, domain: str) -> bool:
    return pattern in ("*", domain) or (pattern.startswith(".") and domain.endswith(pattern))


def _identity(row: SignRow, author_domain: str, domain: str) -> str:
    """i=; OpenDKIM leaves it out, too, if it is not in the domain that signs."""
    found = row.identity.replace(ANY, author_domain)
    host = found.rpartition("@")[2].lower()
    inside = "@" in found and is_within(host, domain)
    return found if inside and found.isascii() and found.isprintable() and not set(found) & set("; \t=") else ""


def _key_data(row: KeyRow) -> PrivateKey | str:
    found = parse_key_data(row.data)
    return f"line {row.line} of the key table: {found.text}" if isinstance(found, PrivateKeyFault) else found


def read_key(path: str) -> PrivateKey | Problem:
    """The private key of a file, or why it cannot be used."""
    try:
        with open_file(path) as file:
            mode = os.fstat(file.fileno()).st_mode
            octets = file.read(FILE_MAX + 1)
    except OSError as error:
        return unreadable(path, error)
    if mode & _OTHERS:
        return Problem(path, "all users may read or write this private key", f"Run `chmod o-rw {path}`")
    if len(octets) > FILE_MAX:
        return Problem(path, f"has more than {FILE_MAX} octets", "Name the file of a private key")
    found = parse_private_key(octets, checked=False)
    if isinstance(found, PrivateKeyFault):
        return Problem(path, found.text, "Make a key with `postroad dkim add`, or name the right file")
    return found


def source_path(written: str) -> str:
    """The path of a table of OpenDKIM; "" if none is set."""
    found = opendkim_tables.source_of(written)
    return found[0] if isinstance(found, tuple) else ""


def table_stamps(options: DkimOutOptions) -> tuple[Stamp, ...]:
    """The states of the files of the tables; none without tables."""
    return tuple(stamp(source_path(each)) for each in (options.key_table, options.signing_table) if each)


def read_tables(options: DkimOutOptions) -> SigningTables | tuple[Problem, ...] | None:
    """OpenDKIM's tables, or what is wrong with them; None if none are set."""
    if not options.key_table or not options.signing_table:
        return None
    keys = _table(options.key_table, opendkim_tables.parse_key_table)
    signers = _table(options.signing_table, opendkim_tables.parse_signing_table)
    if isinstance(keys, tuple) or isinstance(signers, tuple):
        return (*(keys if isinstance(keys, tuple) else ()), *(signers if isinstance(signers, tuple) else ()))
    return SigningTables(keys, signers)


_Table = TypeVar("_Table", KeyTable, SigningTable)


def _table(
    written: str, parse: Callable[..., _Table | tuple[TableFault, ...]]
) -> _Table | tuple[Problem, ...]:
    source = opendkim_tables.source_of(written)
    if isinstance(source, str):
        return (Problem(written, source, "Write the path of the file"),)
    path, patterns = source
    try:
        with open_file(path) as file:
            octets = file.read(opendkim_tables.OCTETS_MAX + 1)
        text = octets.decode("utf-8")
    except OSError as error:
        return (unreadable(path, error),)
    except UnicodeDecodeError:
        return (not_utf8(path),)
    if len(octets) > opendkim_tables.OCTETS_MAX:
        return (Problem(path, f"has more than {opendkim_tables.OCTETS_MAX} octets", "Divide it"),)
    made = parse(text, patterns=patterns)
    if isinstance(made, tuple):
        return tuple(
            Problem(f"{path}:{fault.line}" if fault.line else path, fault.text, "Correct the line") for fault in made
        )
    return made
