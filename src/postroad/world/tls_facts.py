"""The facts of a connection's TLS: version, cipher, the name that was asked for, the other side's certificate.

RFC 8446, RFC 6066 §3 (SNI), RFC 4514 (names as text). The facts are taken once,
when a handshake is done, and never change. A certificate is parsed once for all connections that show it.

What always holds: `verified` is true only if the certificate led to a trusted root and, on a connection of ours, held
the name that we asked for. All text is printable, whatever the certificate holds. Nothing here raises: if a certificate
cannot be read, only its fingerprint is known.

Not here: contexts and files (`world.tls`), log-in by a certificate (SASL EXTERNAL: `accounts.exchange`).
"""

from __future__ import annotations

import hashlib
import ipaddress
from functools import lru_cache
from typing import Any, Final

import msgspec
from cryptography import x509
from cryptography.x509.oid import NameOID

from postroad.world.tls_session import is_proved

_TEXT_MAX: Final = 200  # characters of a name that a stranger may have written


class Certificate(msgspec.Struct, frozen=True):
    """A certificate that the other side has shown.

    `subject`, `issuer`: distinguished names as RFC 4514 writes them, at most 200 characters. `common_name`: of the
    subject, "" without one. `names`: its DNS names, lower-case; `mailboxes`: its e-mail addresses (RFC 5280 §4.2.1.6
    rfc822Name). `sha256`: fingerprint of the DER octets, lower-case hexadecimal.
    """

    subject: str = ""
    issuer: str = ""
    common_name: str = ""
    names: tuple[str, ...] = ()
    mailboxes: tuple[str, ...] = ()
    sha256: str = ""
    der: bytes = b""


class TlsFacts(msgspec.Struct, frozen=True):
    """One connection's TLS.

    `server_name`: what the client asked for (SNI), "" for none. `certificate`: of the other side, None if it showed
    none. `resumed`: a session was taken up again, so the certificate is that of the first handshake.
    """

    version: str = ""
    cipher: str = ""
    bits: int = 0
    server_name: str = ""
    certificate: Certificate | None = None
    verified: bool = False
    resumed: bool = False

    @property
    def text(self) -> str:
        """Version and cipher: "TLSv1.3 TLS_AES_256_GCM_SHA384"."""
        return f"{self.version} {self.cipher}".strip() or "TLS"


class SniNote(msgspec.Struct, frozen=True):
    """What a server noted in the handshake: put on the SSL object by `world.tls`, read back by `facts`."""

    server_name: str = ""


NOTED: Final = "postroad_asked"  # the attribute of the SSL object


def facts(transport: Any) -> TlsFacts | None:
    """The facts of a transport's TLS; None without TLS."""
    ssl_object = transport.get_extra_info("ssl_object")
    return None if ssl_object is None else facts_of(ssl_object)


def facts_of(ssl_object: Any) -> TlsFacts:
    """The same of an SSL object whose handshake is done."""
    asked: SniNote = getattr(ssl_object, NOTED, None) or SniNote(server_name=_sent(ssl_object.server_hostname))
    cipher = ssl_object.cipher()
    der = _shown(ssl_object)
    return TlsFacts(
        ssl_object.version() or "TLS",
        cipher[0] if cipher else "",
        cipher[2] if cipher else 0,
        _printable(asked.server_name),
        read_certificate(der) if der else None,
        bool(der) and is_proved(ssl_object),
        bool(ssl_object.session_reused),
    )


def _sent(name: str | None) -> str:
    """The name that went out: an address never does (RFC 6066 §3), though a certificate is checked against it."""
    try:
        ipaddress.ip_address((name or "").strip("[]"))
    except ValueError:
        return name or ""
    return ""


def _shown(ssl_object: Any) -> bytes | None:
    """The other side's certificate, DER; None if there is none, or the session has ended."""
    try:
        der: bytes | None = ssl_object.getpeercert(True)
    except ValueError:  # "handshake not done yet": so says a session that the other side has refused behind it
        return None
    return der


def chain(transport: Any) -> tuple[bytes, ...]:
    """The certificates that the other side has shown, DER, its own first, whether or not anything proves them; none
    without TLS."""
    ssl_object = transport.get_extra_info("ssl_object")
    if ssl_object is None:
        return ()
    own = _shown(ssl_object)
    found: list[bytes] = []
    if hasattr(ssl_object, "get_unverified_chain"):  # from Python 3.13 on
        found = ssl_object.get_unverified_chain() or []
    else:
        inner = getattr(ssl_object, "_sslobj", None)
        if inner is not None and hasattr(inner, "get_unverified_chain"):
            found = [each.public_bytes(_DER) for each in inner.get_unverified_chain() or []]
    return tuple(found) if found and found[0] == own else (own, *found) if own else ()


_DER: Final = 2  # X509_FILETYPE_ASN1, `_ssl.ENCODING_DER`


def describe(transport: Any) -> str:
    """Version and cipher of a transport's TLS, as "TLSv1.3 TLS_AES_256_GCM_SHA384"; "" without TLS."""
    found = facts(transport)
    return found.text if found is not None else ""


@lru_cache(maxsize=256)
def read_certificate(der: bytes) -> Certificate:
    """A certificate from its DER octets."""
    sha256 = hashlib.sha256(der).hexdigest()
    try:
        found = x509.load_der_x509_certificate(der)
        common = found.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
        subject, issuer = found.subject.rfc4514_string(), found.issuer.rfc4514_string()
        names, mailboxes = _alternatives(found)
    except Exception:  # an unreadable name or extension: of what a stranger sends, the library promises nothing
        return Certificate(sha256=sha256, der=der)
    common_name = str(common[0].value) if common else ""
    return Certificate(_printable(subject), _printable(issuer), _printable(common_name), names, mailboxes, sha256, der)


def _alternatives(certificate: x509.Certificate) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """DNS names and e-mail addresses."""
    try:
        found = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return (), ()
    names = tuple(_printable(name).lower() for name in found.get_values_for_type(x509.DNSName))
    return names, tuple(map(_printable, found.get_values_for_type(x509.RFC822Name)))


def _printable(text: str) -> str:
    return "".join(char if char.isprintable() else "?" for char in text[:_TEXT_MAX])
