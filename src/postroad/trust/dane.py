"""DANE for SMTP: whether what a server has shown in its handshake is what TLSA records allow (RFC 7672, 7671, 6698).

Usage 3 (DANE-EE): the server's certificate or key is the one of the record; neither names nor time count (RFC 7671
§5.1). Usage 2 (DANE-TA): the certificate leads to the authority of the record, which the server sends or the record
holds; all certificates on the way must stand within their time, and the server's must have one of the names (RFC 7671
§5.2, RFC 7672 §3.2.2). Other usages are unusable for SMTP (RFC 7672 §3.1.3).

What always holds: a record of which anything is unknown is unusable, never a match; roots of the system count for
nothing; the work is bounded, whatever the server sends. How it fails: with a Fault that says why. Not here: look-ups
and whether DNSSEC protects them (`route.securing`), the handshake (`deliver.session`).
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from typing import Final

import msgspec
from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric import ec, ed448, ed25519, padding, rsa
from cryptography.hazmat.primitives.serialization import load_der_public_key
from cryptography.x509.oid import ExtendedKeyUsageOID

from postroad.mail.tls_policy import Tlsa, TlsFailure
from postroad.trust import certificate

TRUST_ANCHOR: Final = 2
END_ENTITY: Final = 3
_WHOLE: Final = 0  # selector: the certificate
_KEY: Final = 1
_EXACT: Final = 0  # matching type
_SIZES: Final = {1: 32, 2: 64}  # of digests
CHAIN_MAX: Final = 10  # certificates of a server that are looked at
_STEPS_MAX: Final = 50  # signatures that are checked


class Fault(msgspec.Struct, frozen=True):
    """What is wrong with a server, in RFC 8460's word and in ours."""

    failure: TlsFailure
    text: str


def is_usable(record: Tlsa) -> bool:
    """RFC 7672 §3.1, RFC 6698 §4.1."""
    if record.usage not in (TRUST_ANCHOR, END_ENTITY) or record.selector not in (_WHOLE, _KEY):
        return False
    if record.matching_type != _EXACT:
        return len(record.data) == _SIZES.get(record.matching_type)
    if record.selector == _WHOLE:
        return certificate.read(record.data) is not None
    return _public_key(record.data) is not None


def usable(records: Sequence[Tlsa]) -> tuple[Tlsa, ...]:
    """Those that can be used, of each usage and selector the strongest digest and the exact ones (RFC 7671 §9)."""
    good = [record for record in records if is_usable(record)]
    strongest: dict[tuple[int, int], int] = {}
    for record in good:
        kind = (record.usage, record.selector)
        strongest[kind] = max(strongest.get(kind, 0), record.matching_type)
    return tuple(
        record
        for record in good
        if record.matching_type in (_EXACT, strongest[record.usage, record.selector])
    )


def fault_of(records: Sequence[Tlsa], chain: Sequence[bytes], names: tuple[str, ...], now_s: float) -> Fault | None:
    """None if a record allows the server. `records`: usable ones. `chain`: what it has shown, DER, its own certificate
    first. `names`: those it may have, for usage 2."""
    if not chain:
        return Fault(TlsFailure.CERTIFICATE_NOT_TRUSTED, "it showed no certificate")
    if any(matches(record, chain[0]) for record in records if record.usage == END_ENTITY):
        return None
    anchors = [record for record in records if record.usage == TRUST_ANCHOR]
    if not anchors:
        return Fault(TlsFailure.VALIDATION_FAILURE, "no TLSA record fits its certificate")
    return _Path(anchors, chain[:CHAIN_MAX], now_s).fault_of(names)


def matches(record: Tlsa, der: bytes) -> bool:
    """Whether a record means this certificate."""
    octets = der if record.selector == _WHOLE else certificate.key_of(der)
    match record.matching_type:
        case 0:
            return bool(octets) and octets == record.data
        case 1:
            return bool(octets) and hashlib.sha256(octets).digest() == record.data
        case 2:
            return bool(octets) and hashlib.sha512(octets).digest() == record.data
        case _:
            return False


class _Path:
    """The way from a server's certificate to an authority that a record names."""

    def __init__(self, anchors: Sequence[Tlsa], chain: Sequence[bytes], now_s: float) -> None:
        self._anchors = anchors
        self._now_s = now_s
        self._leaf = certificate.read(chain[0])
        whole = [each.data for each in anchors if each.selector == _WHOLE and each.matching_type == _EXACT]
        self._issuers = [
            (der, found) for der in dict.fromkeys([*chain[1:], *whole]) if (found := certificate.read(der)) is not None
        ]
        keys = (each for each in anchors if each.selector == _KEY and each.matching_type == _EXACT)
        self._keys = [key for each in keys if (key := _public_key(each.data)) is not None]
        self._steps = 0
        self._expired = False

    def fault_of(self, names: tuple[str, ...]) -> Fault | None:
        leaf = self._leaf
        if leaf is None:
            return Fault(TlsFailure.VALIDATION_FAILURE, "its certificate cannot be read")
        if not self._leads_on(leaf, (leaf,)):
            if self._expired:
                return Fault(TlsFailure.CERTIFICATE_EXPIRED, "a certificate on its way to the TLSA record has expired")
            text = "its certificate does not lead to an authority that a TLSA record names"
            return Fault(TlsFailure.CERTIFICATE_NOT_TRUSTED, text)
        if not certificate.is_in_time(leaf, self._now_s):
            return Fault(TlsFailure.CERTIFICATE_EXPIRED, "its certificate has expired, or is not valid yet")
        if not _is_for_servers(leaf):
            return Fault(TlsFailure.CERTIFICATE_NOT_TRUSTED, "its certificate is not made for servers")
        if not certificate.is_named(leaf, names):
            shown = ", ".join(certificate.names_of(leaf)[:5]) or "no name"
            text = f"its certificate is for {shown}, not for {' or '.join(names)}"
            return Fault(TlsFailure.CERTIFICATE_HOST_MISMATCH, text)
        return None

    def _leads_on(self, last: x509.Certificate, way: tuple[x509.Certificate, ...]) -> bool:
        """Whether the certificate at the end of a way leads to an authority of a record. `way`: from the leaf on."""
        if any(self._is_signed(last, key) for key in self._keys):
            return True
        for der, issuer in self._signers(last):
            if issuer in way or not _may_sign(issuer, len(way) - 1) or not _allows(issuer, way[0]):
                continue
            if not certificate.is_in_time(issuer, self._now_s):
                self._expired = True
                continue
            if any(matches(record, der) for record in self._anchors):
                return True
            if len(way) < CHAIN_MAX and self._leads_on(issuer, (*way, issuer)):
                return True
        return False

    def _signers(self, last: x509.Certificate) -> Iterator[tuple[bytes, x509.Certificate]]:
        for der, issuer in self._issuers:
            if self._steps >= _STEPS_MAX or not _names(last, issuer):
                continue
            self._steps += 1
            try:
                last.verify_directly_issued_by(issuer)
            except Exception:  # not signed by it, or by a way that the library does not know
                continue
            yield der, issuer

    def _is_signed(self, last: x509.Certificate, key: object) -> bool:
        self._steps += 1
        return self._steps <= _STEPS_MAX and is_signed(last, key)


def _names(last: x509.Certificate, issuer: x509.Certificate) -> bool:
    """Whether a certificate names an issuer as its own."""
    try:
        return issuer.subject == last.issuer
    except Exception:  # a name is read when it is first asked for, and may be none
        return False


def is_signed(last: x509.Certificate, key: object) -> bool:
    """Whether a bare key has signed a certificate."""
    signature, signed = last.signature, last.tbs_certificate_bytes
    try:
        parameters, digest = last.signature_algorithm_parameters, last.signature_hash_algorithm
        match key:
            case rsa.RSAPublicKey() if digest is not None and isinstance(
                parameters, padding.PKCS1v15 | padding.PSS
            ):
                key.verify(signature, signed, parameters, digest)
            case ec.EllipticCurvePublicKey() if isinstance(parameters, ec.ECDSA):
                key.verify(signature, signed, parameters)
            case ed25519.Ed25519PublicKey() | ed448.Ed448PublicKey():
                key.verify(signature, signed)
            case _:
                return False
    except (InvalidSignature, ValueError, TypeError):
        return False
    except Exception:  # an algorithm that the library does not know
        return False
    return True


def _public_key(octets: bytes) -> object | None:
    try:
        return load_der_public_key(octets)
    except Exception:  # of what stands in a zone, the library promises nothing
        return None


_KNOWN: Final = (
    x509.BasicConstraints, x509.KeyUsage, x509.ExtendedKeyUsage, x509.NameConstraints, x509.SubjectAlternativeName,
    x509.AuthorityKeyIdentifier, x509.SubjectKeyIdentifier, x509.CertificatePolicies,
)  # fmt: skip


def _may_sign(issuer: x509.Certificate, below: int) -> bool:
    """RFC 5280 §4.2.1.9 and §4.2.1.3. `below`: how many authorities stand between it and the server."""
    try:
        extensions = issuer.extensions
        constraints = extensions.get_extension_for_class(x509.BasicConstraints).value
    except Exception:  # without them it is no authority
        return False
    if not constraints.ca or (constraints.path_length is not None and constraints.path_length < below):
        return False
    if any(each.critical and not isinstance(each.value, _KNOWN) for each in extensions):
        return False
    try:
        return extensions.get_extension_for_class(x509.KeyUsage).value.key_cert_sign
    except x509.ExtensionNotFound:
        return True


def _allows(issuer: x509.Certificate, leaf: x509.Certificate) -> bool:
    """RFC 5280 §4.2.1.10: the names for which an authority may stand."""
    try:
        limits = issuer.extensions.get_extension_for_class(x509.NameConstraints).value
    except x509.ExtensionNotFound:
        return True
    names = certificate.names_of(leaf)
    permitted = [each.value.lower() for each in limits.permitted_subtrees or () if isinstance(each, x509.DNSName)]
    excluded = [each.value.lower() for each in limits.excluded_subtrees or () if isinstance(each, x509.DNSName)]
    if any(_is_below(name, each) for name in names for each in excluded):
        return False
    return not permitted or all(any(_is_below(name, each) for each in permitted) for name in names)


def _is_below(name: str, domain: str) -> bool:
    plain, top = name.removeprefix("*."), domain.removeprefix(".")
    return not top or plain == top or plain.endswith("." + top)


def _is_for_servers(leaf: x509.Certificate) -> bool:
    try:
        purposes = leaf.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    except x509.ExtensionNotFound:
        return True
    except Exception:  # extensions that cannot be read allow nothing
        return False
    return ExtendedKeyUsageOID.SERVER_AUTH in purposes or ExtendedKeyUsageOID.ANY_EXTENDED_KEY_USAGE in purposes
