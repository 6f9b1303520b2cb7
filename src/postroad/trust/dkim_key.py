"""Keys as the DNS has them (RFC 6376 §3.6.1, RFC 8301, RFC 8463, RFC 8616). Pure.

What always holds: equal records are read once, and the newest KEYS_MAX of them are kept. For how long a record counts
is the resolver's to say: it is asked each time, and has a cache of its own. RSA keys have RSA_MIN to RSA_MAX bits.

How it fails: a record that is no usable key is a KeyFault.
"""

from __future__ import annotations

import binascii
import enum
from functools import lru_cache
from typing import Final

import msgspec
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from cryptography.hazmat.primitives.serialization import load_der_public_key

from postroad.trust import results, tags

RSA_MIN: Final = 1_024  # bits; RFC 8301 §3.2
RSA_MAX: Final = 4_096
EXPONENT_MAX: Final = 64  # bits of the public exponent; usual ones have 17, and long ones take much longer to verify
RECORD_MAX: Final = 4_096  # characters of a record; a key of 4096 bits has 736
KEYS_MAX: Final = 2_048  # that stay parsed


class KeyKind(enum.Enum):
    RSA = "rsa"
    ED25519 = "ed25519"


class KeyFault(msgspec.Struct, frozen=True):
    """Why there is no key. `result`: what that makes of a signature, in a word of RFC 8601 §2.7.1."""

    result: str
    text: str


class DkimKey(msgspec.Struct, frozen=True):
    """`strict`: i= must have the very domain of d= (t=s). `testing`: the domain only tries DKIM (t=y). `notes`: what
    the record says for people (n=)."""

    kind: KeyKind
    public: RSAPublicKey | Ed25519PublicKey
    bits: int
    strict: bool = False
    testing: bool = False
    notes: str = ""


def is_key(record: str) -> bool:
    """Whether a TXT record means to be a key: v= is absent or DKIM1 (§3.6.1), and there is a p=."""
    found, _ = tags.gather(record[: RECORD_MAX + 1])
    return "p" in found and found.get("v", "DKIM1") == "DKIM1"


def parse_key(record: str) -> DkimKey | KeyFault:
    """A TXT record, its strings put together."""
    if len(record) > RECORD_MAX:  # it is not remembered, either
        return _broken(f"the key record has {len(record)} characters, more than {RECORD_MAX}")
    return _parsed(record)


@lru_cache(maxsize=KEYS_MAX)
def _parsed(record: str) -> DkimKey | KeyFault:
    found = tags.parse(record)
    if isinstance(found, tags.TagFault):
        return _broken(f"the key record cannot be read: {found.text}")
    fault = _unfit(found)
    if fault is not None:
        return fault
    kind = found.get("k", "rsa").lower()
    data = tags.compact(found["p"])
    flags = _list(found.get("t", ""))
    public = _public(kind, data)
    if isinstance(public, KeyFault):
        return public
    return DkimKey(
        kind=KeyKind(kind),
        public=public,
        bits=public.key_size if isinstance(public, RSAPublicKey) else 256,
        strict="s" in flags,
        testing="y" in flags,
        notes=found.get("n", ""),
    )


def _unfit(found: dict[str, str]) -> KeyFault | None:
    """Why a record that can be read is no key for mail, or none that we know."""
    version = found.get("v")
    if version is not None and (version != "DKIM1" or next(iter(found)) != "v"):
        return _broken("the key record has v= but does not begin with v=DKIM1")
    if "p" not in found:
        return _broken("the key record has no key (p= is missing)")
    if not found["p"]:
        return _broken("the key was revoked (p= is empty)")
    if "h" in found and "sha256" not in _list(found["h"]):
        return _broken(f"the key record allows only the hash {tags.compact(found['h'])} (h=), not sha256")
    if not {"*", "email"} & set(_list(found.get("s", "*"))):
        return _broken("the key record is not for mail (s=)")
    if found.get("k", "rsa").lower() not in ("rsa", "ed25519"):
        return KeyFault(results.NEUTRAL, f"the key is of a kind that is not known (k={_shown(found['k'])})")
    return None


def _public(kind: str, data: str) -> RSAPublicKey | Ed25519PublicKey | KeyFault:
    try:
        octets = binascii.a2b_base64(data.encode("ascii"), strict_mode=True)
    except (ValueError, UnicodeError):
        return _broken("the key (p=) is no base64")
    if kind == "ed25519":
        if len(octets) != 32:
            return _broken(f"the Ed25519 key has {len(octets)} octets, not 32")
        try:
            return Ed25519PublicKey.from_public_bytes(octets)
        except ValueError:
            return _broken("the Ed25519 key (p=) cannot be read")
    try:
        public = load_der_public_key(octets)  # with or without its outer structure (RFC 6376 errata 3017)
    except (ValueError, UnsupportedAlgorithm):
        return _broken("the RSA key (p=) cannot be read")
    if not isinstance(public, RSAPublicKey):
        return _broken("the key (p=) is not of the kind that k= says")
    if public.key_size < RSA_MIN:
        return KeyFault(results.POLICY, f"the RSA key has {public.key_size} bits, fewer than {RSA_MIN}")
    if public.key_size > RSA_MAX:
        return KeyFault(results.POLICY, f"the RSA key has {public.key_size} bits, more than {RSA_MAX}")
    exponent = public.public_numbers().e.bit_length()
    if exponent > EXPONENT_MAX:
        return KeyFault(results.POLICY, f"the exponent of the RSA key has {exponent} bits, more than {EXPONENT_MAX}")
    return public


def _broken(text: str) -> KeyFault:
    return KeyFault(results.PERMERROR, text)


def _list(value: str) -> list[str]:
    return tags.compact(value).lower().split(":")


def _shown(text: str) -> str:
    return ascii(text[:40])[1:-1]
