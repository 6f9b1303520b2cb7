"""Reads what a server's certificate shows: names, fingerprints, and whether it stands within its time.

RFC 5280, RFC 6125 §6.4 (names), RFC 6698 §2.1.2 (selectors). What always holds: nothing here is believed because it is
in a certificate; who calls has proved it, or compares it with what is known otherwise. How it fails: `read` gives None
for octets that are no certificate. Not here: chains to the system's roots (OpenSSL does that), TLSA records (`dane`).
"""

from __future__ import annotations

import hashlib
from datetime import UTC, datetime
from functools import lru_cache
from typing import Final

from cryptography import x509
from cryptography.x509.oid import NameOID


@lru_cache(maxsize=256)
def read(der: bytes) -> x509.Certificate | None:
    """A certificate from its DER octets."""
    try:
        return x509.load_der_x509_certificate(der)
    except Exception:  # of what a stranger sends, the library promises nothing
        return None


@lru_cache(maxsize=256)
def key_of(der: bytes) -> bytes:
    """The public key of a certificate (SubjectPublicKeyInfo, DER) as it stands there, of whatever kind it is; b"" if
    it cannot be read."""
    found = read(der)
    return b"" if found is None else _key_in(found.tbs_certificate_bytes)


def _key_in(signed: bytes) -> bytes:
    """RFC 5280 §4.1: behind version, serial number, algorithm, issuer, validity and subject. The library has read the
    certificate, so it is well-formed that far."""
    at = _value_of(signed, 0)[0]
    fields = 6 if signed[at] == _VERSION else 5
    for _ in range(fields):
        at = _value_of(signed, at)[1]
    return signed[at : _value_of(signed, at)[1]]


_VERSION: Final = 0xA0  # the tag of the version, which certificates of version 1 do not have


def _value_of(octets: bytes, at: int) -> tuple[int, int]:
    """Where the value of a DER element begins and ends (X.690 §8.1.3)."""
    length, begins = octets[at + 1], at + 2
    if length > 0x7F:
        more = length & 0x7F
        length, begins = int.from_bytes(octets[begins : begins + more], "big"), begins + more
    return begins, begins + length


def names_of(certificate: x509.Certificate) -> tuple[str, ...]:
    """Its DNS names in lower case; the common name if it has none (RFC 7672 §3.2.3)."""
    try:
        found = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        names = found.get_values_for_type(x509.DNSName)
    except x509.ExtensionNotFound:
        names = []
    except Exception:  # an extension that cannot be read names nothing
        return ()
    if not names:
        try:
            names = [str(each.value) for each in certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)][:1]
        except Exception:  # a subject that cannot be read
            return ()
    return tuple(name.lower().removesuffix(".") for name in names)


def has_dns_names(certificate: x509.Certificate) -> bool:
    """Whether it has names besides its common name."""
    try:
        found = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except Exception:  # there is no such extension, or it cannot be read
        return False
    return bool(found.get_values_for_type(x509.DNSName))


def is_named(certificate: x509.Certificate, wanted: tuple[str, ...]) -> bool:
    """Whether it has one of these names. ``.example.org`` wants any name below that domain."""
    return any(_fits(name, want) for name in names_of(certificate) for want in wanted)


def _fits(name: str, want: str) -> bool:
    if want.startswith("."):
        return name.removeprefix("*").endswith(want) and len(name) > len(want)
    if name.startswith("*."):  # RFC 6125 §6.4.3: the whole left-most label, and no other
        return "." in name[2:] and want.partition(".")[2] == name[2:]
    return name == want


def fingerprints(der: bytes) -> tuple[str, ...]:
    """SHA-256 of the certificate and of its public key, lower-case hexadecimal."""
    key = key_of(der)
    whole = hashlib.sha256(der).hexdigest()
    return (whole, hashlib.sha256(key).hexdigest()) if key else (whole,)


def is_in_time(certificate: x509.Certificate, now_s: float) -> bool:
    """Whether it has begun and has not ended."""
    now = datetime.fromtimestamp(now_s, UTC)
    return certificate.not_valid_before_utc <= now <= certificate.not_valid_after_utc
