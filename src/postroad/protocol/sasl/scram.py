"""SCRAM-SHA-1, SCRAM-SHA-256 and their -PLUS, the server's side (RFC 5802, RFC 7677).

    client-first-message = gs2-header client-first-message-bare        gs2-header = gs2-cbind-flag "," [authzid] ","
    server-first-message = nonce "," salt "," iteration-count
    client-final-message = channel-binding "," nonce ["," extensions] "," proof
    server-final-message = verifier

The server's last message goes as one more challenge, which the client answers with nothing: SMTP has no room for data
in its 235 (RFC 4954 §4). A wrong proof is answered 535 at once; SCRAM's own error values would tell no more.

What always holds: nothing raises; a proof holds only for this exchange (both nonces are in it) and, with channel
binding, only for this TLS connection; a client that supports channel binding, but was made to believe that we do not,
is refused (RFC 5802 §6: "y" to a server that offers -PLUS). Proofs are compared in constant time.
"""

from __future__ import annotations

import base64
import binascii
import hmac
import re
from collections.abc import Callable
from typing import Final

from postroad.mail.reply import reply
from postroad.protocol.sasl.scram_keys import ScramKeys, digest, keyed
from postroad.protocol.sasl.step import (
    MALFORMED,
    WORD_MAX,
    Challenge,
    ExchangeRefused,
    Hash,
    Keys,
    ProofFailed,
    Proved,
    Step,
)

# RFC 5802 §6
NO_BINDING: Final = reply(535, "5.7.8", "Channel binding of a type that is not to be had here")
MISMATCH: Final = reply(535, "5.7.8", "Channel binding and mechanism do not belong together")

MESSAGE_MAX: Final = 4096  # octets of a client's message
NONCE_MAX: Final = 512  # characters of the client's nonce

_PRINTABLE: Final = re.compile(r"[!-+\--~]+")  # RFC 5802 §7: printable = %x21-2B / %x2D-7E
_BINDING_NAME: Final = re.compile(r"p=([A-Za-z0-9.-]{1,64})")  # cb-name
_ATTRIBUTE: Final = re.compile(r"[A-Za-z]=")

Binding = Callable[[str], bytes | None]
"""The octets of a channel binding type (RFC 5056 §2.1: ``tls-exporter``), None if it is not to be had."""


class Scram:
    """One exchange. `nonce`: ours, new each time, of printable characters. `plus`: it was asked for as -PLUS.
    `binding`: see Binding. `plus_offered`: whether the client could have asked for -PLUS."""

    __slots__ = (
        "_authcid", "_authzid", "_bare", "_binding", "_first", "_hash", "_header", "_keys", "_nonce", "_plus",
        "_plus_offered", "_stage",
    )  # fmt: skip

    def __init__(self, hash: Hash, nonce: str, binding: Binding, *, plus: bool, plus_offered: bool) -> None:
        self._hash, self._nonce, self._binding = hash, nonce, binding
        self._plus, self._plus_offered = plus, plus_offered
        self._stage = self._client_first
        self._authcid = self._authzid = self._bare = self._first = ""
        self._header = b""  # gs2-header, and behind it the octets of the binding: what "c=" has to say
        self._keys: ScramKeys | None = None

    def begin(self, initial: bytes | None) -> Step:
        return Challenge(b"") if initial is None else self.respond(initial)

    def respond(self, response: bytes) -> Step:
        if len(response) > MESSAGE_MAX:
            return ExchangeRefused(MALFORMED)
        try:
            return self._stage(response.decode("utf-8"))
        except UnicodeDecodeError:
            return ExchangeRefused(MALFORMED)

    def keyed(self, keys: ScramKeys) -> Step:
        """The answer to `Keys`: those of the account, or a decoy's."""
        self._keys = keys
        salt = base64.b64encode(keys.salt).decode("ascii")
        self._first = f"r={self._nonce},s={salt},i={keys.iterations}"
        self._stage = self._client_final
        return Challenge(self._first.encode())

    # ---- client-first-message

    def _client_first(self, message: str) -> Step:
        parts = message.split(",", 2)
        if len(parts) != 3 or "\0" in message:
            return ExchangeRefused(MALFORMED)
        flag, authzid, self._bare = parts
        refused = self._bind(flag, f"{flag},{authzid},")
        if refused is not None:
            return refused
        if authzid:
            found = _name(authzid[2:]) if authzid.startswith("a=") else None
            if not found:
                return ExchangeRefused(MALFORMED)
            self._authzid = found
        attributes = self._bare.split(",")
        # client-first-message-bare = [reserved-mext ","] username "," nonce ["," extensions]; an "m=" that we do not
        # know must end the exchange (RFC 5802 §5.1), and we know none.
        if len(attributes) < 2 or not attributes[0].startswith("n=") or not attributes[1].startswith("r="):
            return ExchangeRefused(MALFORMED)
        name, nonce = _name(attributes[0][2:]), attributes[1][2:]
        if not name or len(nonce) > NONCE_MAX or not _PRINTABLE.fullmatch(nonce):
            return ExchangeRefused(MALFORMED)
        if not all(map(_ATTRIBUTE.match, attributes[2:])):
            return ExchangeRefused(MALFORMED)
        self._authcid = name
        self._nonce = nonce + self._nonce
        self._stage = _out_of_turn
        return Keys(name, self._hash, self._authzid)

    def _bind(self, flag: str, header: str) -> Step | None:
        """gs2-cbind-flag = ("p=" cb-name) / "n" / "y". RFC 5802 §6."""
        bound = b""
        named = _BINDING_NAME.fullmatch(flag)
        if named is not None:
            if not self._plus:
                return ExchangeRefused(MISMATCH)
            found = self._binding(named[1])
            if found is None:
                return ExchangeRefused(NO_BINDING)
            bound = found
        elif flag not in ("n", "y"):
            return ExchangeRefused(MALFORMED)
        elif self._plus or (flag == "y" and self._plus_offered):
            return ExchangeRefused(MISMATCH)
        self._header = header.encode() + bound
        return None

    # ---- client-final-message

    def _client_final(self, message: str) -> Step:
        keys = self._keys
        without_proof, found, proof_text = message.rpartition(",p=")
        attributes = without_proof.split(",")
        if keys is None or not found or len(attributes) < 2 or not all(map(_ATTRIBUTE.match, attributes)):
            return ExchangeRefused(MALFORMED)
        if not attributes[0].startswith("c=") or not attributes[1].startswith("r="):
            return ExchangeRefused(MALFORMED)
        bound, proof = _octets(attributes[0][2:]), _octets(proof_text)
        if bound is None or proof is None:
            return ExchangeRefused(MALFORMED)
        said = f"{self._bare},{self._first},{without_proof}".encode()
        right = _proves(keys, said, proof)
        # What is to be equal is looked at as a whole, so that the answer tells nothing of where it differs.
        right &= hmac.compare_digest(bound, self._header)
        right &= hmac.compare_digest(attributes[1][2:].encode(), self._nonce.encode())
        self._stage = _out_of_turn
        if not right:
            return ProofFailed(self._authcid)
        self._stage = self._last
        signature = keyed(self._hash, keys.server, said)
        return Challenge(b"v=" + base64.b64encode(signature))

    def _last(self, message: str) -> Step:
        """The client has seen that we know the keys, and has nothing to add."""
        self._stage = _out_of_turn
        return ExchangeRefused(MALFORMED) if message else Proved(self._authcid, self._authzid)


def _out_of_turn(message: str) -> Step:
    return ExchangeRefused(MALFORMED)


def _proves(keys: ScramKeys, said: bytes, proof: bytes) -> bool:
    """RFC 5802 §3: ClientKey := ClientProof XOR ClientSignature, and its hash is the StoredKey."""
    signature = keyed(keys.hash, keys.stored, said)
    if len(proof) != len(signature):
        return False
    client_key = bytes(one ^ other for one, other in zip(proof, signature, strict=True))
    return hmac.compare_digest(digest(keys.hash, client_key), keys.stored)


def _name(text: str) -> str | None:
    """saslname = 1*(value-safe-char / "=2C" / "=3D"); any other "=" fails the exchange (RFC 5802 §5.1)."""
    if len(text.encode()) > WORD_MAX:
        return None
    name = text.replace("=2C", ",").replace("=3D", "\0")
    return None if "=" in name else name.replace("\0", "=")


def _octets(text: str) -> bytes | None:
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        return None
