"""The keys with which this node signs mail, domain by domain, as values. Pure: files are in `trust.key_store`.

A domain has several keys: each of a kind (RSA, Ed25519), under a selector of its own. A key goes through these states:

- waiting: it was made, and its record has not been seen in the DNS yet. It does not sign.
- signing: it signs.
- retired: another key of its kind signs in its place. Its record must stay in the DNS for a while, because mail that it
  has signed is still on its way.
- removable: this time is over; the key and its record may be removed.

`trust.rotation` says when a key goes from one state to the next. What always holds: selectors of a domain are distinct;
names are A-labels in lower case. How it fails: octets that are no keys of a domain are a KeyringFault.
"""

from __future__ import annotations

import enum
import re
from functools import lru_cache
from typing import Final

import msgspec
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey, generate_private_key
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)

from postroad.mail.address import canonical_domain
from postroad.trust.dkim_key import KeyKind
from postroad.trust.dkim_sign import SigningKey, public_record

Private = RSAPrivateKey | Ed25519PrivateKey

FORMAT: Final = 1  # of the file; a reader refuses a later one
KEYS_MAX: Final = 50  # of a domain
OCTETS_MAX: Final = 262_144  # of the keys of a domain as a file
NAME_MAX: Final = 253  # of the name of a record
RSA_BITS: Final = (1_024, 2_048, 3_072, 4_096)
_BETWEEN: Final = "._domainkey."
_SELECTOR: Final = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?(?:\.[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?)*")


class KeyState(enum.Enum):
    WAITING = "waiting"
    SIGNING = "signing"
    RETIRED = "retired"
    REMOVABLE = "removable"


class StoredKey(msgspec.Struct, frozen=True, omit_defaults=True):
    """A key with its state. `private`: in PEM (PKCS #8). Times in microseconds since 1970, 0: not yet.

    `since_us`: when the state began. `seen_us`: since when its record has been seen in the DNS, without a look that
    missed it. `ttl_s`: the longest time to live that the record had.
    `removable_us`: of a key that is retired, when the record may go. `trouble`: what was wrong with the record at the
    last look, in words.
    """

    selector: str
    kind: KeyKind
    private: str
    state: KeyState
    made_us: int
    since_us: int
    seen_us: int = 0
    ttl_s: int = 0
    removable_us: int = 0
    trouble: str = ""

    def __repr__(self) -> str:
        return f"StoredKey({self.selector!r}, {self.kind.value}, {self.state.value})"  # never the private part


class DomainKeys(msgspec.Struct, frozen=True):
    """All keys of a domain, the oldest first."""

    domain: str
    keys: tuple[StoredKey, ...] = ()
    format: int = FORMAT

    def key(self, selector: str) -> StoredKey | None:
        return next((each for each in self.keys if each.selector == selector), None)

    def in_state(self, *states: KeyState) -> tuple[StoredKey, ...]:
        return tuple(each for each in self.keys if each.state in states)


class KeyringFault(msgspec.Struct, frozen=True):
    """Why something cannot be. `text`: for people."""

    text: str


def encode(keys: DomainKeys) -> bytes:
    """As the file has it: JSON, so that people can look at it."""
    return msgspec.json.format(msgspec.json.encode(keys), indent=1) + b"\n"


def decode(octets: bytes) -> DomainKeys | KeyringFault:
    """What `encode` wrote."""
    try:
        found = msgspec.json.decode(octets, type=DomainKeys)
    except (msgspec.DecodeError, RecursionError) as error:
        return KeyringFault(f"is no file of keys: {error}")
    if found.format > FORMAT:
        return KeyringFault("was written by a later version of Postroad")
    return fault_of(found) or found


def fault_of(keys: DomainKeys) -> KeyringFault | None:
    """What is wrong with keys that were read; their private parts are looked at when they are used."""
    if canonical(keys.domain) != keys.domain:
        return KeyringFault(f"{keys.domain[:NAME_MAX]!r} is no domain name in its canonical form")
    if len(keys.keys) > KEYS_MAX:
        return KeyringFault(f"has more than {KEYS_MAX} keys")
    selectors = [each.selector for each in keys.keys]
    if len(set(selectors)) != len(selectors):
        return KeyringFault("has two keys of one selector")
    return next((fault for each in selectors if (fault := selector_fault(each, keys.domain))), None)


def canonical(domain: str) -> str | None:
    """A domain as the keyring names it; None if it is no domain name. IP addresses are none: no name ends with a number
    (RFC 3696 §2)."""
    try:
        found = canonical_domain(domain)
    except ValueError:
        return None
    return None if found.startswith("[") or found.rpartition(".")[2].isdigit() else found


def selector_fault(selector: str, domain: str) -> KeyringFault | None:
    """Why a selector cannot be used (RFC 6376 §3.1)."""
    if not _SELECTOR.fullmatch(selector):
        return KeyringFault(f"{selector[:NAME_MAX]!r} is no selector: write letters, digits and hyphens")
    if len(record_name(selector, domain)) > NAME_MAX:
        return KeyringFault(f"the name of the record of {selector[:NAME_MAX]} has more than {NAME_MAX} characters")
    return None


def record_name(selector: str, domain: str) -> str:
    """Where the DNS has the public part (RFC 6376 §3.6.2.1)."""
    return f"{selector}{_BETWEEN}{domain}"


def record_text(key: StoredKey) -> str | KeyringFault:
    """The TXT record with the public part."""
    private = private_of(key)
    return private if isinstance(private, KeyringFault) else public_record(private)


def signing_keys(keys: DomainKeys) -> tuple[SigningKey, ...] | KeyringFault:
    """The keys that sign now, ready for use: RSA first."""
    found = []
    for each in sorted(keys.in_state(KeyState.SIGNING), key=lambda key: (key.kind is not KeyKind.RSA, key.since_us)):
        private = private_of(each)
        if isinstance(private, KeyringFault):
            return private
        found.append(SigningKey(keys.domain, each.selector, private))
    return tuple(found)


def private_of(key: StoredKey) -> Private | KeyringFault:
    """The private part, parsed."""
    found = _parsed(key.private)
    if isinstance(found, KeyringFault):
        return KeyringFault(f"the private part of {key.selector} {found.text}")
    if isinstance(found, RSAPrivateKey) is not (key.kind is KeyKind.RSA):
        return KeyringFault(f"the private part of {key.selector} is not of the kind {key.kind.value}")
    return found


@lru_cache(maxsize=256)
def _parsed(pem: str) -> Private | KeyringFault:
    # A key was checked when it came into the store. Checking an RSA key again takes 40 ms, reading it 0.1 ms.
    try:
        found = load_pem_private_key(pem.encode(), None, unsafe_skip_rsa_key_validation=True)
    except (TypeError, ValueError, UnsupportedAlgorithm):
        return KeyringFault("cannot be read")
    return found if isinstance(found, RSAPrivateKey | Ed25519PrivateKey) else KeyringFault("is of no known kind")


def generate(kind: KeyKind, bits: int) -> Private:
    """A new private key. `bits`: of an RSA key. An RSA key takes some 100 ms, one of 4096 bits up to some seconds."""
    if kind is KeyKind.ED25519:
        return Ed25519PrivateKey.generate()
    return generate_private_key(65_537, bits)


def made(selector: str, private: Private, now_us: int) -> StoredKey:
    """A key that waits for its record."""
    kind = KeyKind.RSA if isinstance(private, RSAPrivateKey) else KeyKind.ED25519
    pem = private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()
    return StoredKey(selector, kind, pem, KeyState.WAITING, now_us, now_us)
