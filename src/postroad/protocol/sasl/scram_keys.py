"""The keys of SCRAM (RFC 5802 §3): made from a password, written as text, and decoys for unknown names.

What always holds: the password can be found from the keys only by guessing, and each guess costs all the iterations;
`derive` takes as long, so call it on a thread. Keys are never part of a repr. A decoy always has the same salt for the
same name, so that nobody learns from it which accounts exist (RFC 5802 §9).

How it fails: None, if a text holds no keys.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
from typing import Final

import msgspec

from postroad.protocol.sasl.prepare import saslprep
from postroad.protocol.sasl.step import Hash

ITERATIONS: Final = 50_000  # of new keys: some tens of milliseconds for a client
ITERATIONS_MIN: Final = 4096  # RFC 5802 §5.1, RFC 7677 §4
ITERATIONS_MAX: Final = 10_000_000
SALT_SIZE: Final = 16

_NAMES: Final = {Hash.SHA_1: "sha1", Hash.SHA_256: "sha256"}
_SIZES: Final = {Hash.SHA_1: 20, Hash.SHA_256: 32}


class ScramKeys(msgspec.Struct, frozen=True):
    """What a server keeps of a password: `stored` proves the client, `server` proves us."""

    hash: Hash
    iterations: int
    salt: bytes
    stored: bytes
    server: bytes

    def __repr__(self) -> str:
        return f"ScramKeys({self.hash.value}, iterations={self.iterations}, …)"


def digest(hash: Hash, octets: bytes) -> bytes:
    """H(str) of RFC 5802 §2.2."""
    return hashlib.new(_NAMES[hash], octets).digest()


def keyed(hash: Hash, key: bytes, octets: bytes) -> bytes:
    """HMAC(key, str) of RFC 5802 §2.2."""
    return hmac.digest(key, octets, _NAMES[hash])


def salted(hash: Hash, password: str, salt: bytes, iterations: int) -> bytes:
    """SaltedPassword := Hi(Normalize(password), salt, i). Slow; it does not hold the interpreter's lock."""
    return hashlib.pbkdf2_hmac(_NAMES[hash], prepared(password).encode(), salt, iterations)


def prepared(password: str) -> str:
    """RFC 5802 §2.2: Normalize. A password that SASLprep forbids is taken as it is: the other end did no better."""
    normal = saslprep(password)
    return password if normal is None else normal


def keys_of(hash: Hash, salted_password: bytes, salt: bytes, iterations: int) -> ScramKeys:
    """RFC 5802 §3: ClientKey, StoredKey, ServerKey."""
    client_key = keyed(hash, salted_password, b"Client Key")
    server_key = keyed(hash, salted_password, b"Server Key")
    return ScramKeys(hash, iterations, salt, digest(hash, client_key), server_key)


def derive(hash: Hash, password: str, salt: bytes, iterations: int = ITERATIONS) -> ScramKeys:
    """The keys of a password."""
    return keys_of(hash, salted(hash, password, salt, iterations), salt, iterations)


def decoy(hash: Hash, secret: bytes, name: str, iterations: int) -> ScramKeys:
    """Keys for a name that has none. `secret` is the node's own and stays."""
    salt, stored, server = (
        hmac.digest(secret, f"{what}\0{hash.value}\0{name}".encode("utf-8", "surrogatepass"), "sha256")
        for what in ("salt", "stored", "server")
    )
    size = _SIZES[hash]
    return ScramKeys(hash, iterations, salt[:SALT_SIZE], stored[:size], server[:size])


def format_keys(keys: ScramKeys) -> str:
    """``SCRAM-SHA-256$50000$salt$stored$server``, the octets in base64: nothing in it is a colon or a comma."""
    parts = (base64.b64encode(octets).decode("ascii") for octets in (keys.salt, keys.stored, keys.server))
    return "$".join((f"SCRAM-{keys.hash.value}", str(keys.iterations), *parts))


def parse_keys(text: str) -> ScramKeys | None:
    """The keys that `format_keys` wrote."""
    parts = text.split("$")
    if len(parts) != 5 or not parts[0].startswith("SCRAM-"):
        return None
    try:
        hash = Hash(parts[0].removeprefix("SCRAM-"))
        salt, stored, server = (base64.b64decode(part, validate=True) for part in parts[2:])
    except (ValueError, binascii.Error):
        return None
    if not (parts[1].isascii() and parts[1].isdigit() and len(parts[1]) <= 8):
        return None
    iterations = int(parts[1])
    if not ITERATIONS_MIN <= iterations <= ITERATIONS_MAX or not 8 <= len(salt) <= 128:
        return None
    if len(stored) != _SIZES[hash] or len(server) != _SIZES[hash]:
        return None
    return ScramKeys(hash, iterations, salt, stored, server)
