"""Judges a host by its TLS policy, once the handshake is done and before anything else is said (RFC 7672, RFC 8461).

What OpenSSL proves by itself (a chain to a trusted root, the host's name) was proved in the handshake. Here is what it
does not know: TLSA records, other names, fingerprints. What always holds: a session whose host does not show what the
policy wants is ended before EHLO is said under TLS, so no mail goes there. Pure, but for the facts of a transport.
"""

from __future__ import annotations

import ssl
from typing import Any, Final, assert_never

from postroad.mail.route import HostProof
from postroad.mail.tls_policy import HostPolicy, PolicyKind, TlsFailure
from postroad.trust import certificate, dane
from postroad.trust.dane import Fault
from postroad.world.tls import Proof
from postroad.world.tls_facts import chain

# What OpenSSL must prove in the handshake.
IN_HANDSHAKE: Final = {
    HostProof.NOTHING: Proof.NOTHING, HostProof.NAME: Proof.NAME, HostProof.NAMES: Proof.CHAIN,
    HostProof.DANE: Proof.NOTHING, HostProof.FINGERPRINT: Proof.NOTHING,
}  # fmt: skip
_EXPIRED: Final = frozenset({9, 10})  # X509_V_ERR_CERT_NOT_YET_VALID, X509_V_ERR_CERT_HAS_EXPIRED
_NOT_TRUSTED: Final = frozenset({2, 18, 19, 20, 21, 24, 27})  # no way to a trusted root
_OTHER_NAME: Final = frozenset({62, 64})  # X509_V_ERR_HOSTNAME_MISMATCH, X509_V_ERR_IP_ADDRESS_MISMATCH


def fault_of(policy: HostPolicy | None, proof: HostProof, transport: Any, now_us: int) -> Fault | None:
    """None if the host has shown what the policy wants, as far as the handshake has not proved it."""
    if policy is None:
        return None
    match proof:
        case HostProof.NAME if policy.kind is PolicyKind.STS:
            return _without_dns_names(chain(transport))
        case HostProof.NOTHING | HostProof.NAME:
            return None
        case HostProof.DANE:
            return dane.fault_of(policy.tlsa, chain(transport), policy.names, now_us / 1_000_000)
        case HostProof.NAMES:
            return _other_names(policy, chain(transport))
        case HostProof.FINGERPRINT:
            return _other_fingerprint(policy, chain(transport))
        case _ as unknown:
            assert_never(unknown)


def is_judged_here(proof: HostProof) -> bool:
    """Whether the handshake alone does not prove it."""
    return proof not in (HostProof.NOTHING, HostProof.NAME)


def failure_of(error: OSError) -> TlsFailure:
    """RFC 8460's word for a handshake that failed."""
    if not isinstance(error, ssl.SSLCertVerificationError):
        return TlsFailure.VALIDATION_FAILURE
    if error.verify_code in _EXPIRED:
        return TlsFailure.CERTIFICATE_EXPIRED
    if error.verify_code in _OTHER_NAME:
        return TlsFailure.CERTIFICATE_HOST_MISMATCH
    return TlsFailure.CERTIFICATE_NOT_TRUSTED if error.verify_code in _NOT_TRUSTED else TlsFailure.VALIDATION_FAILURE


def _other_names(policy: HostPolicy, shown: tuple[bytes, ...]) -> Fault | None:
    found = certificate.read(shown[0]) if shown else None
    if found is None:
        return Fault(TlsFailure.VALIDATION_FAILURE, "its certificate cannot be read")
    if certificate.is_named(found, policy.names):
        return None
    names = ", ".join(certificate.names_of(found)[:5]) or "no name"
    text = f"its certificate is for {names}, not for {' or '.join(policy.names)}"
    return Fault(TlsFailure.CERTIFICATE_HOST_MISMATCH, text)


def _without_dns_names(shown: tuple[bytes, ...]) -> Fault | None:
    """RFC 8461 §4.2: the name must be a DNS name of the certificate; OpenSSL would take its common name, too."""
    found = certificate.read(shown[0]) if shown else None
    if found is None or certificate.has_dns_names(found):
        return None
    return Fault(TlsFailure.CERTIFICATE_HOST_MISMATCH, "its certificate has no DNS names, and its common name is none")


def _other_fingerprint(policy: HostPolicy, shown: tuple[bytes, ...]) -> Fault | None:
    if not shown:
        return Fault(TlsFailure.CERTIFICATE_NOT_TRUSTED, "it showed no certificate")
    found = certificate.fingerprints(shown[0])
    if any(each in policy.fingerprints for each in found):
        return None
    text = f"neither its certificate (SHA-256 {found[0]}) nor its key is one that the settings name"
    return Fault(TlsFailure.CERTIFICATE_NOT_TRUSTED, text)
