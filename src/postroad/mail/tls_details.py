"""Details of the TLS of a client or a remote for log, history and `trace`, besides version and cipher (RFC 8446)."""

from __future__ import annotations

from typing import Protocol

import msgspec


class TlsDetails(msgspec.Struct, frozen=True, array_like=True):
    """`bits` of the cipher's key, 0 if a proxy told us of TLS. `server_name`: what the connecting side asked for
    (SNI), "" for none. `subject`, `issuer` (RFC 4514) and `sha256` (of the DER octets, hexadecimal): the certificate of
    the other side, "" if it showed none. `verified`: it led to a trusted root and, where we connected, held the name
    that we wanted."""

    bits: int = 0
    server_name: str = ""
    subject: str = ""
    issuer: str = ""
    sha256: str = ""
    verified: bool = False

    @property
    def text(self) -> str:
        """``256 bits, SNI mx.example.org, certificate CN=a issued by CN=b (SHA-256 0123…), verified``."""
        parts = [f"{self.bits} bits"] if self.bits else []
        if self.server_name:
            parts.append(f"SNI {self.server_name}")
        if self.sha256:
            issuer = "signed by itself" if self.subject == self.issuer else f"issued by {self.issuer or '?'}"
            parts.append(f"certificate {self.subject or '-'} {issuer} (SHA-256 {self.sha256})")
            parts.append("verified" if self.verified else "not verified")
        return ", ".join(parts)


class CertificateFacts(Protocol):
    @property
    def subject(self) -> str: ...
    @property
    def issuer(self) -> str: ...
    @property
    def sha256(self) -> str: ...


class NegotiatedTls(Protocol):
    """`world.tls_facts.TlsFacts`, as far as it is wanted here."""

    @property
    def bits(self) -> int: ...
    @property
    def server_name(self) -> str: ...
    @property
    def certificate(self) -> CertificateFacts | None: ...
    @property
    def verified(self) -> bool: ...


def details(facts: NegotiatedTls) -> TlsDetails:
    """What of a connection's facts is kept."""
    shown = facts.certificate
    if shown is None:
        return TlsDetails(facts.bits, facts.server_name)
    return TlsDetails(facts.bits, facts.server_name, shown.subject, shown.issuer, shown.sha256, facts.verified)
