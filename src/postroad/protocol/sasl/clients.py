"""The client's side of SASL mechanisms, towards smart hosts: SCRAM, OAUTHBEARER, XOAUTH2, PLAIN, LOGIN, CRAM-MD5,
EXTERNAL.

A `ScramClient` is called step by step (`initial`, `server_first`, `finish`, `server_final`), because its host computes
`scram_keys.salted` between the second and the third, which is slow. The other mechanisms are one message, or two.

What always holds: nothing that a server says raises an exception; a server counts only after it has proved that it
knows the account's keys (`ScramClient.proved`); iterations have a least and a greatest number, so that no server gets a
proof that is cheap to attack (RFC 7677 §4), or makes us compute for minutes. RFC 5802, RFC 7628, RFC 4616, RFC 4422,
RFC 2195.
"""

from __future__ import annotations

import base64
import binascii
import hmac
from typing import Final

import msgspec

from postroad.protocol.sasl.prepare import saslprep
from postroad.protocol.sasl.scram_keys import ITERATIONS_MIN, digest, keyed
from postroad.protocol.sasl.step import Hash

ITERATIONS_MAX: Final = 2_000_000  # a second of work


class Salting(msgspec.Struct, frozen=True):
    """What `scram_keys.salted` is to be asked for."""

    salt: bytes
    iterations: int


class ScramClient:
    """One exchange. `nonce`: new each time. `binding_type` and `binding`: the channel binding, for -PLUS; without,
    `could_bind` tells the server that we would have bound the channel if it had offered that (RFC 5802 §6)."""

    __slots__ = ("_bare", "_final", "_first", "_hash", "_header", "_nonce", "_signature", "proved")

    def __init__(
        self,
        hash: Hash,
        name: str,
        nonce: str,
        *,
        binding_type: str = "",
        binding: bytes = b"",
        could_bind: bool = False,
    ) -> None:
        flag = f"p={binding_type}" if binding_type else "y" if could_bind else "n"
        self._hash = hash
        self._nonce = nonce
        self._header = f"{flag},,".encode() + binding
        prepared = saslprep(name)
        escaped = (name if prepared is None else prepared).replace("=", "=3D").replace(",", "=2C")
        self._bare = f"n={escaped},r={nonce}"
        self._first = self._final = ""
        self._signature = b""
        self.proved = False  # the server has shown that it knows the keys

    @property
    def initial(self) -> bytes:
        flag = self._header.partition(b",,")[0]
        return flag + b",," + self._bare.encode()

    def server_first(self, challenge: bytes) -> Salting | str:
        """What is to be computed, or what is wrong with the server's message."""
        attributes = _attributes(challenge)
        if attributes is None or "m" in attributes:
            return "its SCRAM message cannot be understood"
        nonce, salt, count = attributes.get("r", ""), _octets(attributes.get("s", "")), attributes.get("i", "")
        if not nonce.startswith(self._nonce) or len(nonce) == len(self._nonce):
            return "its SCRAM nonce is not made of ours"
        if not salt or not (count.isascii() and count.isdigit() and len(count) <= 9):
            return "its SCRAM message lacks salt or iterations"
        if not ITERATIONS_MIN <= int(count) <= ITERATIONS_MAX:
            return f"it asks for {int(count)} iterations; we compute {ITERATIONS_MIN} to {ITERATIONS_MAX}"
        self._first = challenge.decode()
        without_proof = base64.b64encode(self._header).decode("ascii")
        self._final = f"c={without_proof},r={nonce}"
        return Salting(salt, int(count))

    def finish(self, salted_password: bytes) -> bytes:
        """client-final-message."""
        hash = self._hash
        said = f"{self._bare},{self._first},{self._final}".encode()
        client_key = keyed(hash, salted_password, b"Client Key")
        signature = keyed(hash, digest(hash, client_key), said)
        self._signature = keyed(hash, keyed(hash, salted_password, b"Server Key"), said)
        proof = bytes(one ^ other for one, other in zip(client_key, signature, strict=True))
        return f"{self._final},p={base64.b64encode(proof).decode('ascii')}".encode()

    def server_final(self, challenge: bytes) -> str:
        """ "" if the server has proved itself, else what is wrong."""
        attributes = _attributes(challenge) or {}
        if "e" in attributes:
            return f"it says {attributes['e'][:100]!r}"
        signature = _octets(attributes.get("v", ""))
        if not self._signature or signature is None or not hmac.compare_digest(signature, self._signature):
            return "it has not shown that it knows the account"
        self.proved = True
        return ""


def plain(name: str, password: str) -> bytes:
    """RFC 4616 §2: message = [authzid] UTF8NUL authcid UTF8NUL passwd"""
    return b"\0".join((b"", name.encode(), password.encode()))


def cram_md5(name: str, password: str, challenge: bytes) -> bytes | str:
    """RFC 2195 §2: the name, a space, and the keyed MD5 (RFC 2104) of the challenge in hexadecimal; or why not."""
    if not challenge:
        return "its CRAM-MD5 challenge is empty"
    try:
        digest = hmac.new(password.encode(), challenge, "md5").hexdigest()
    except ValueError:  # a system whose policy has no MD5
        return "MD5 is switched off on this system, and so is CRAM-MD5"
    return f"{name} {digest}".encode()


def oauthbearer(name: str, token: str, host: str, port: int) -> bytes:
    """RFC 7628 §3.1; host and port as the server knows itself (§3.1: OPTIONAL for Bearer)."""
    authzid = name.replace("=", "=3D").replace(",", "=2C")
    place = f"host={host}\x01port={port}\x01" if host else ""
    return f"n,{f'a={authzid}' if name else ''},\x01{place}auth=Bearer {token}\x01\x01".encode()


def xoauth2(name: str, token: str) -> bytes:
    """As Google and Microsoft describe it."""
    return f"user={name}\x01auth=Bearer {token}\x01\x01".encode()


def _attributes(message: bytes) -> dict[str, str] | None:
    """By letter; None if it is not made of attributes, or one stands twice."""
    try:
        text = message.decode("utf-8")
    except UnicodeDecodeError:
        return None
    found: dict[str, str] = {}
    for part in text.split(","):
        if len(part) < 2 or part[1] != "=" or part[0] in found:
            return None
        found[part[0]] = part[2:]
    return found


def _octets(text: str) -> bytes | None:
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        return None
