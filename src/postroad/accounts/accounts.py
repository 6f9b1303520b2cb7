"""The accounts that may authenticate, and the users file that lists them (RFC 4954, RFC 6409 §6.1).

The file is text in UTF-8, one account per line, ``name:hash:addresses:keys``:

    # comment
    alice:$argon2id$v=19$m=19456,t=2,p=1$c2FsdA$aGFzaA:alice@example.org,sales@example.org:SCRAM-SHA-256$50000$...
    robot@example.org:$argon2id$...:*@example.org
    carol::carol@example.org,info@example.org

`name` is what the client gives as its authentication identity, `hash` an encoded argon2 hash, `addresses` the mailboxes
that the account may send from: a mailbox, ``*@domain`` for all of a domain, or ``*`` for any. If an account has no
addresses, and its name is a mailbox, it may send from this mailbox. `keys` are those of SCRAM
(`protocol.sasl.scram_keys`), separated by commas. An account without a hash has no password here. It authenticates
elsewhere (Dovecot, a function, a token) or by a certificate; its line only says which addresses it may send from.

What always holds: a log-in takes the same time whether or not the file has the name (`Accounts.verify` hashes against a
decoy, with the parameters that most accounts have). The file is read again when it has changed. If a line of it is
wrong, or it cannot be read, the accounts from before stay in force. Passwords and names are compared in the form of RFC
8265, names that are addresses without regard to case (`mail.account`). `Accounts` is changed on the event loop only;
`matches` is slow (tens of milliseconds) and is called on a thread; it reads nothing that changes.

Threads, the cache and the limits of verification are in `accounts.authenticate`.
"""

from __future__ import annotations

import base64
import collections
import os
import re
import unicodedata
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Final

import argon2
import msgspec
from argon2.exceptions import InvalidHashError, VerificationError, VerifyMismatchError

from postroad.mail.account import canonical_account
from postroad.mail.address import Address
from postroad.mail.extension import extension_at
from postroad.protocol.grammar import parse_domain, parse_mailbox
from postroad.protocol.sasl import scram_keys
from postroad.protocol.sasl.scram_keys import ScramKeys
from postroad.protocol.sasl.step import Hash
from postroad.world.problem import unreadable

LINE_MAX: Final = 65_536  # octets of one line of the file
NAME_MAX: Final = 255  # characters of a name
PASSWORD_MAX: Final = 1024  # octets of a password; a longer one is never hashed
ANY: Final = "*"
DELIMITER: Final = "+"  # begins an address extension, unless settings say otherwise

# Memory in KiB, passes and lanes of a new hash: OWASP's Argon2id profile for servers that verify many at a time.
_MEMORY_KIB: Final = 19_456
_PASSES: Final = 2
_LANES: Final = 1

_ENCODED: Final = re.compile(
    r"\$argon2(?:id|i|d)\$v=\d{1,3}\$m=\d{1,8},t=\d{1,4},p=\d{1,3}\$[A-Za-z0-9+/]{11,128}\$[A-Za-z0-9+/]{16,128}"
)
_MEMORY_MAX_KIB: Final = 1_048_576  # what a hash of the file may ask for: 1 GiB


class Account(msgspec.Struct, frozen=True):
    """One account. `addresses` as in the file, in canonical form: ``a@example.org``, ``*@example.org`` or ``*``.
    `hash`: "" if it has no password here. `keys`: of SCRAM, one for a hash function at most."""

    name: str
    hash: str = ""
    addresses: tuple[str, ...] = ()
    keys: tuple[ScramKeys, ...] = ()

    def keys_for(self, hash: Hash) -> ScramKeys | None:
        return next((keys for keys in self.keys if keys.hash is hash), None)


class UsersFileFault(msgspec.Struct, frozen=True):
    """What is wrong with a line (1 is the first) of the users file; line 0 is the file as a whole."""

    line: int
    text: str


def parse(text: str) -> tuple[dict[str, Account], tuple[UsersFileFault, ...]]:
    """The accounts of a users file by name, and all that is wrong with it."""
    accounts: dict[str, Account] = {}
    faults: list[UsersFileFault] = []
    for number, line in enumerate(text.split("\n"), 1):
        stripped = line.strip()
        if not stripped or stripped.startswith("#"):
            continue
        parsed = parse_line(stripped)
        if isinstance(parsed, str):
            faults.append(UsersFileFault(number, parsed))
        elif (name := canonical_account(parsed.name)) in accounts:
            also = accounts[name].name
            more = "" if also == parsed.name else f" (also as {also!r}: upper and lower case are the same)"
            faults.append(UsersFileFault(number, f"the account {parsed.name!r} appears twice{more}"))
        else:
            accounts[name] = parsed
    return accounts, tuple(faults)


def parse_line(line: str) -> Account | str:
    """The account of one line, or what is wrong with it."""
    if len(line) > LINE_MAX:
        return f"the line is longer than {LINE_MAX} characters"
    parts = line.split(":")
    if not 2 <= len(parts) <= 4:
        return "a line must be name:hash:addresses:keys, with addresses and keys separated by commas"
    name = prepare(parts[0])
    if name is None or (fault := name_fault(name)):
        return fault if name is not None else "the account name holds characters that RFC 8265 does not allow"
    if parts[1] and (fault := hash_fault(parts[1])):
        return fault
    addresses: list[str] = []
    for written in parts[2].split(",") if len(parts) > 2 and parts[2].strip() else ():
        address = canonical_address(written.strip())
        if address is None:
            return f"{written.strip()!r} is neither a mailbox, nor *@domain, nor *"
        addresses.append(address)
    keys = _keys(parts[3]) if len(parts) == 4 else ()
    return keys if isinstance(keys, str) else Account(name, parts[1], tuple(addresses), keys)


def _keys(written: str) -> tuple[ScramKeys, ...] | str:
    found: dict[Hash, ScramKeys] = {}
    for text in written.split(",") if written.strip() else ():
        keys = scram_keys.parse_keys(text.strip())
        if keys is None:
            return "the SCRAM keys are not valid (SCRAM-SHA-256$iterations$salt$stored$server)"
        if keys.hash in found:
            return f"there are two sets of SCRAM-{keys.hash.value} keys"
        found[keys.hash] = keys
    return tuple(found.values())


def format_line(account: Account) -> str:
    """The line of an account, without a line end. `parse_line` of it is the account again."""
    line = f"{account.name}:{account.hash}:{','.join(account.addresses)}"
    return f"{line}:{','.join(map(scram_keys.format_keys, account.keys))}" if account.keys else line


def name_fault(name: str) -> str:
    """Why `name` can be no account name, or ""."""
    if not name or len(name) > NAME_MAX:
        return f"an account name must have 1 to {NAME_MAX} characters"
    if not name.isprintable() or ":" in name or name.startswith("#") or name != name.strip():
        return "an account name must not hold a colon or control character, begin or end with a space, or begin with #"
    return ""


def hash_fault(encoded: str) -> str:
    """Why `encoded` can be no hash, or ""."""
    if not _ENCODED.fullmatch(encoded):
        return "the hash is not an encoded argon2 hash ($argon2id$v=19$m=...,t=...,p=...$salt$hash)"
    try:
        parameters = argon2.extract_parameters(encoded)
    except InvalidHashError:
        return "the hash is not an encoded argon2 hash"
    if parameters.memory_cost > _MEMORY_MAX_KIB:
        return f"the hash asks for more than {_MEMORY_MAX_KIB} KiB of memory"
    return ""


def canonical_address(written: str) -> str | None:
    """``*``, ``*@domain`` or a mailbox with its local-part in lower case and its domain in A-labels; else None.

    Local-parts are compared without case: to lock a user out of ``Alice@`` because the file says ``alice@`` helps
    nobody, and the domains named here are the operator's own (RFC 5321 §2.4 leaves that to them).
    """
    if written == ANY:
        return ANY
    if written.startswith("*@"):
        domain = parse_domain(written[2:])
        return f"*@{domain}" if domain is not None else None
    mailbox = parse_mailbox(written)
    return f"{_lower(mailbox.local_part)}@{mailbox.domain}" if mailbox is not None else None


def _lower(local_part: str) -> str:
    return unicodedata.normalize("NFC", local_part).lower()


def owns(account: Account, address: Address, delimiter: str = DELIMITER) -> bool:
    """Whether the account may send from `address`: whose a mailbox is, his are the addresses with an extension behind
    it, too. `delimiter`: what begins one, "" for nothing."""
    addresses = account.addresses
    if not addresses:
        own = canonical_address(account.name)
        addresses = (own,) if own is not None and own[0] != ANY else ()
    if ANY in addresses or f"*@{address.domain}" in addresses:
        return True
    local_part = _lower(address.local_part)
    if f"{local_part}@{address.domain}" in addresses:
        return True
    at = extension_at(local_part, delimiter)
    return at > 0 and f"{local_part[:at]}@{address.domain}" in addresses


def hash_password(password: str) -> str:
    """An encoded Argon2id hash with a new salt. ValueError for a password that nobody could authenticate with."""
    prepared = prepare(password)
    if not prepared or len(prepared.encode()) > PASSWORD_MAX:
        raise ValueError(f"a password has 1 to {PASSWORD_MAX} octets and no control characters")
    hasher = argon2.PasswordHasher(time_cost=_PASSES, memory_cost=_MEMORY_KIB, parallelism=_LANES)
    return hasher.hash(prepared)


def scram_keys_of(password: str, hashes: Iterable[Hash]) -> tuple[ScramKeys, ...]:
    """SCRAM keys with new salts. Slow, as `hash_password` is, which refuses what can be no password."""
    prepared = prepare(password) or ""
    return tuple(scram_keys.derive(hash, prepared, os.urandom(scram_keys.SALT_SIZE)) for hash in hashes)


def prepare(text: str) -> str | None:
    """A name or password in the form in which it is compared (RFC 8265 §4.2.2), or None if that allows it not."""
    if text.isascii():
        return text if text.isprintable() else None
    mapped = "".join(" " if unicodedata.category(char) == "Zs" else char for char in text)
    normal = unicodedata.normalize("NFC", mapped)
    return None if any(unicodedata.category(char) in ("Cc", "Cs", "Cn") for char in normal) else normal


def decoy(accounts: dict[str, Account]) -> str:
    """A hash that no password has, with the parameters that most accounts have."""
    counted = collections.Counter(account.hash.rsplit("$", 2)[0] for account in accounts.values() if account.hash)
    common = counted.most_common(1)
    head = common[0][0] if common else f"$argon2id$v=19$m={_MEMORY_KIB},t={_PASSES},p={_LANES}"
    return f"{head}${_text(16)}${_text(32)}"


def _iterations(accounts: dict[str, Account]) -> dict[Hash, int]:
    """What most accounts have, so that a decoy does not stand out."""
    counted: dict[Hash, collections.Counter[int]] = collections.defaultdict(collections.Counter)
    for account in accounts.values():
        for keys in account.keys:
            counted[keys.hash][keys.iterations] += 1
    return {hash: counts.most_common(1)[0][0] for hash, counts in counted.items()}


def _complete(accounts: dict[str, Account]) -> frozenset[Hash]:
    with_password = [account for account in accounts.values() if account.hash]
    if not with_password:
        return frozenset()
    return frozenset(hash for hash in Hash if all(account.keys_for(hash) for account in with_password))


def _text(length: int) -> str:
    return base64.b64encode(os.urandom(length)).decode("ascii").rstrip("=")


def matches(encoded: str, password: str) -> bool:
    """Whether the password has this hash. Slow: for a thread. `encoded` was checked when the file was read."""
    try:
        return argon2.PasswordHasher().verify(encoded, password)
    except VerifyMismatchError:
        return False
    except (VerificationError, InvalidHashError):
        return False  # parameters that this machine cannot serve: nobody gets in by them


class Accounts:
    """The accounts of one users file, as it stands now.

    `faulty` is told once for each state of the file that could not be taken. `known`: whether one ever could.
    """

    def __init__(self, path: Path, faulty: Callable[[tuple[UsersFileFault, ...]], None]) -> None:
        self.path = path
        self.faulty = faulty
        self._accounts: dict[str, Account] = {}
        self._decoy = decoy({})
        self._iterations: dict[Hash, int] = {}  # what most have
        self._complete: frozenset[Hash] = frozenset()
        self._seen: tuple[int, int, int] | None = None
        self.known = False
        self.refresh()

    def refresh(self) -> None:
        """Read the file again if it changed since. One stat(2) if it did not."""
        try:
            found = self.path.stat()
            seen = (found.st_mtime_ns, found.st_size, found.st_ino)
            if seen == self._seen:
                return
            text = self.path.read_text("utf-8")
        except (OSError, UnicodeDecodeError) as error:
            if self._seen != (0, 0, 0):
                self._seen = (0, 0, 0)
                problem = unreadable(str(self.path), error) if isinstance(error, OSError) else None
                text = f"{problem.text}. {problem.remedy}" if problem is not None else "is not in UTF-8"
                self.faulty((UsersFileFault(0, text),))
            return
        self._seen = seen
        accounts, faults = parse(text)
        if faults:
            self.faulty(faults)
            return
        self._accounts = accounts
        self._decoy = decoy(accounts)
        self._iterations = _iterations(accounts)
        self._complete = _complete(accounts)
        self.known = True

    def find(self, name: str) -> Account | None:
        return self._accounts.get(canonical_account(name))

    def hash_of(self, name: str) -> str:
        """The hash to verify a password of `name` against: a decoy if there is no such account."""
        account = self.find(name)
        return account.hash if account is not None and account.hash else self._decoy

    def keys_of(self, name: str, hash: Hash, secret: bytes) -> ScramKeys:
        """The SCRAM keys of `name`: a decoy if there is no such account, or if it has none."""
        account = self.find(name)
        keys = account.keys_for(hash) if account is not None else None
        iterations = self._iterations.get(hash, scram_keys.ITERATIONS)
        return keys or scram_keys.decoy(hash, secret, canonical_account(name), iterations)

    def all_have(self, hash: Hash) -> bool:
        """Whether each account with a password has these keys, so that no client comes to grief that prefers SCRAM."""
        return hash in self._complete

    def owns(self, name: str, address: Address, delimiter: str = DELIMITER) -> bool:
        """Whether the account called `name` may send from `address`; an account that is gone may not."""
        account = self.find(name)
        return account is not None and owns(account, address, delimiter)
