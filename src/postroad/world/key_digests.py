"""The public keys of certificates in files, as DANE names them: SHA-256 of SubjectPublicKeyInfo (RFC 6698, 3 1 1).

How it fails: with a Problem that says what is wrong with the file.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any, Final

import msgspec
from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    PublicFormat,
    load_pem_private_key,
    load_pem_public_key,
)

from postroad.world.problem import Problem, unreadable
from postroad.world.tls import certificate_names

FILE_MAX: Final = 1_048_576
CHAIN_MAX: Final = 20
_REMEDY: Final = "Name a certificate, a request for one, or a key, in PEM."


class KeyDigest(msgspec.Struct, frozen=True):
    """`sha256`: in lower-case hexadecimal. `names`: those of the certificate; `chain`: all certificates of the file, in
    DER; () if the file has none."""

    path: str
    sha256: str
    names: tuple[str, ...] = ()
    chain: tuple[bytes, ...] = ()


def key_digest(path: str) -> KeyDigest | Problem:
    """Of the first certificate, request or key in a file."""
    try:
        with Path(path).open("rb") as file:
            octets = file.read(FILE_MAX)
    except OSError as error:
        return unreadable(path, error)
    try:
        public, certificates = _public(octets)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        return Problem(path, "has no certificate and no key that can be read", _REMEDY)
    digest = hashlib.sha256(public.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)).hexdigest()
    names = certificate_names(certificates[0]) if certificates else ()
    return KeyDigest(path, digest, names, tuple(each.public_bytes(Encoding.DER) for each in certificates))


def _public(octets: bytes) -> tuple[Any, list[x509.Certificate]]:
    """The public key, and the certificates. In a file with keys, too, the first certificate counts."""
    if b"-----BEGIN CERTIFICATE-----" in octets:
        certificates = x509.load_pem_x509_certificates(octets)[:CHAIN_MAX]
        return certificates[0].public_key(), certificates
    if b" REQUEST-----" in octets:
        return x509.load_pem_x509_csr(octets).public_key(), []
    if b"PRIVATE KEY-----" in octets:
        return load_pem_private_key(octets, None).public_key(), []
    return load_pem_public_key(octets), []
