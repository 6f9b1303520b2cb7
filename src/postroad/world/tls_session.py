"""Calls OpenSSL for what Python's `ssl` does not tell, and for what it cannot set.

It tells channel bindings, the names of a client's certificate, and whether an accepted certificate proves anything. It
sets the keys of session tickets, and what happens to a client certificate that is not valid.

RFC 9266 (tls-exporter), RFC 5929 §4 (tls-server-end-point), RFC 5280 §4.2.1.6 (names). Python's `ssl` has no call for
exported keying material, nor for ticket keys (RFC 5077 §4), so we call OpenSSL itself, in the same library that `ssl`
uses.

What always holds: no pointer is followed before it is checked: an SSL object of `ssl` holds a pointer to OpenSSL's
object beside one to its context, and the latter must be the context that Python names, at the place where CPython 3.11
to 3.14 keep it. A certificate's names are given only if the handshake has verified it.

How it fails: with None, or False. A Python whose OpenSSL cannot be called from outside (linked into it without symbols)
has no `tls-exporter`, which `bindable` says, and the ticket keys stay those that OpenSSL has made. RFC 9266 §2 forbids
`tls-exporter` in TLS 1.2 without the extended master secret.
"""

from __future__ import annotations

import ctypes
import ssl
from functools import lru_cache
from typing import Any, Final

import msgspec
from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from cryptography.x509.oid import NameOID

EXPORTER: Final = "tls-exporter"
END_POINT: Final = "tls-server-end-point"

_LABEL: Final = b"EXPORTER-Channel-Binding"  # RFC 9266 §2
_SIZE: Final = 32
_GET_EXTENDED_MASTER_SECRET: Final = 122  # SSL_CTRL_GET_EXTMS_SUPPORT
_CERTIFICATE_MAX: Final = 1_048_576
_SET_TICKET_KEYS: Final = 59  # SSL_CTRL_SET_TLSEXT_TICKET_KEYS; without keys it tells how many octets they have
_TICKET_KEYS_MAX: Final = 1024
_PURPOSE_ANY: Final = 7  # X509_PURPOSE_ANY
_VERIFIED: Final = 0  # X509_V_OK
_LENIENT: Final = "postroad_lenient"  # the attribute of a context whose handshakes go on
_VERIFY: Final = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_int, ctypes.c_void_p)


class CertificateNames(msgspec.Struct, frozen=True):
    """Who a verified certificate says that it is for: its mailboxes (rfc822Name), and the subject's common name."""

    mailboxes: tuple[str, ...] = ()
    common_name: str = ""


def channel_binding(transport: Any, kind: str, *, server_side: bool) -> bytes | None:
    """The octets of a channel binding of this transport's TLS; None if that type is not to be had."""
    ssl_object = transport.get_extra_info("ssl_object")
    if ssl_object is None:
        return None
    match kind:
        case "tls-exporter":
            return _exported(ssl_object)
        case "tls-server-end-point":
            certificate = _own_certificate(ssl_object) if server_side else ssl_object.getpeercert(True)
            return end_point(certificate) if certificate else None
        case _:
            return None


def best_binding(transport: Any) -> tuple[str, bytes] | None:
    """As a client: the strongest binding that there is, RFC 9266's before the older one."""
    for kind in (EXPORTER, END_POINT):
        found = channel_binding(transport, kind, server_side=False)
        if found is not None:
            return kind, found
    return None


def bindable() -> bool:
    """Whether channel bindings can be had as a server."""
    return _openssl() is not None


def set_ticket_keys(context: ssl.SSLContext, secret: bytes, purpose: bytes) -> bool:
    """Have the tickets of a server's context sealed with keys made of a secret, so that whoever knows it takes them up
    again; for another `purpose` they are others. Whether it went well; if not, the keys stay OpenSSL's own."""
    library, inner = _openssl(), _context(context)
    if not inner:
        return False
    size = library.SSL_CTX_ctrl(inner, _SET_TICKET_KEYS, 0, None)
    if not 0 < size <= _TICKET_KEYS_MAX:
        return False
    keys = HKDF(hashes.SHA256(), size, None, purpose).derive(secret)
    return bool(library.SSL_CTX_ctrl(inner, _SET_TICKET_KEYS, size, keys) == 1)


def set_purpose_any(context: ssl.SSLContext) -> bool:
    """Have a server take client certificates that were made for any purpose, not for clients alone. Whether it could be
    set."""
    library, inner = _openssl(), _context(context)
    return bool(inner) and library.SSL_CTX_set_purpose(inner, _PURPOSE_ANY) == 1


def set_lenient(context: ssl.SSLContext) -> bool:
    """Have handshakes of a server go on if a client's certificate is not good (RFC 8446 §4.4.2.4): `is_proved` then
    says that it proves nothing. Whether it could be set; if not, such a handshake fails."""
    library, inner = _openssl(), _context(context)
    if not inner:
        return False
    library.SSL_CTX_set_verify(inner, int(context.verify_mode), _go_on())
    setattr(context, _LENIENT, True)
    return True


def is_proved(ssl_object: Any) -> bool:
    """Whether the certificate that the other side has shown was verified; also if it showed none: ask for that."""
    context = ssl_object.context
    if context.verify_mode is ssl.CERT_NONE or not (ssl_object.server_side or context.check_hostname):
        return False
    library = _openssl()
    pointer = _pointer(ssl_object) if library is not None else None
    if pointer is None:  # without leniency no other handshake ends well
        return not getattr(context, _LENIENT, False)
    return bool(library.SSL_get_verify_result(pointer) == _VERIFIED)


@lru_cache(maxsize=1)
def _go_on() -> Any:
    """What OpenSSL asks about each certificate of a chain. It keeps the error that it has found."""
    return _VERIFY(lambda good, store: 1)


def end_point(certificate: bytes) -> bytes | None:
    """RFC 5929 §4.1: the hash of the certificate (DER) by the function of its signature, SHA-256 for MD5 and SHA-1."""
    try:
        parsed = x509.load_der_x509_certificate(certificate)
        function = parsed.signature_hash_algorithm
    except (ValueError, UnsupportedAlgorithm):
        return None
    if function is None:  # Ed25519 and Ed448: undefined
        return None
    if isinstance(function, hashes.MD5 | hashes.SHA1):
        function = hashes.SHA256()
    hashing = hashes.Hash(function)
    hashing.update(certificate)
    return hashing.finalize()


def client_names(transport: Any) -> CertificateNames | None:
    """The names of the client's certificate; None without one that was verified."""
    ssl_object = transport.get_extra_info("ssl_object")
    if ssl_object is None or not is_proved(ssl_object):
        return None
    octets = ssl_object.getpeercert(True)
    return certificate_names(octets) if octets else None


def certificate_names(certificate: bytes) -> CertificateNames | None:
    """The names of a certificate (DER)."""
    try:
        parsed = x509.load_der_x509_certificate(certificate)
        common = parsed.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
        try:
            alternatives = parsed.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
            mailboxes = tuple(alternatives.get_values_for_type(x509.RFC822Name))
        except x509.ExtensionNotFound:
            mailboxes = ()
    except ValueError:
        return None
    return CertificateNames(mailboxes, str(common[0].value) if len(common) == 1 else "")


# ---- OpenSSL ------------------------------------------------------------------------------------------------------


@lru_cache(maxsize=1)
def _openssl() -> Any:
    """The library that `ssl` runs on; None if it cannot be called."""
    import _ssl

    if object.__basicsize__ != 2 * ctypes.sizeof(ctypes.c_void_p):  # another object header, so another layout
        return None
    try:
        library = ctypes.CDLL(getattr(_ssl, "__file__", None))
        version = library.OpenSSL_version
        export, control = library.SSL_export_keying_material, library.SSL_ctrl
        own, encode = library.SSL_get_certificate, library.i2d_X509
        context, context_control = library.SSL_get_SSL_CTX, library.SSL_CTX_ctrl
        verify, purpose, result = library.SSL_CTX_set_verify, library.SSL_CTX_set_purpose, library.SSL_get_verify_result
    except (OSError, AttributeError):
        return None
    version.restype = ctypes.c_char_p
    version.argtypes = [ctypes.c_int]
    if version(0) != ssl.OPENSSL_VERSION.encode():
        return None
    pointer, text, size = ctypes.c_void_p, ctypes.c_char_p, ctypes.c_size_t
    export.argtypes = [pointer, text, size, text, size, text, size, ctypes.c_int]
    export.restype = ctypes.c_int
    control.argtypes, control.restype = [pointer, ctypes.c_int, ctypes.c_long, pointer], ctypes.c_long
    own.argtypes, own.restype = [pointer], pointer
    context.argtypes, context.restype = [pointer], pointer
    context_control.argtypes = [pointer, ctypes.c_int, ctypes.c_long, text]
    context_control.restype = ctypes.c_long
    verify.argtypes, verify.restype = [pointer, ctypes.c_int, _VERIFY], None
    purpose.argtypes, purpose.restype = [pointer, ctypes.c_int], ctypes.c_int
    result.argtypes, result.restype = [pointer], ctypes.c_long
    encode.argtypes, encode.restype = [pointer, pointer], ctypes.c_int
    return library


def _pointer(ssl_object: Any) -> int | None:
    """OpenSSL's SSL of an object of `ssl`: behind the object's header and a reference, in front of the context's."""
    inner = getattr(ssl_object, "_sslobj", None)
    if inner is None or type(inner).__basicsize__ < object.__basicsize__ + 3 * ctypes.sizeof(ctypes.c_void_p):
        return None
    words = (ctypes.c_void_p * 3).from_address(id(inner) + object.__basicsize__)
    return words[1] if words[1] and words[2] == id(inner.context) else None


def _context(context: ssl.SSLContext) -> int | None:
    """OpenSSL's SSL_CTX of a server's context; None if it cannot be had."""
    library = _openssl()
    if library is None:
        return None
    pointer = _pointer(context.wrap_bio(ssl.MemoryBIO(), ssl.MemoryBIO(), server_side=True))
    found: int | None = library.SSL_get_SSL_CTX(pointer) if pointer is not None else None
    return found


def _exported(ssl_object: Any) -> bytes | None:
    library = _openssl()
    pointer = _pointer(ssl_object) if library is not None else None
    if pointer is None or ssl_object.version() is None:
        return None
    if ssl_object.version() != "TLSv1.3" and library.SSL_ctrl(pointer, _GET_EXTENDED_MASTER_SECRET, 0, None) != 1:
        return None
    output = ctypes.create_string_buffer(_SIZE)
    # RFC 9266 §2: a zero-length context, which TLS 1.2 distinguishes from none
    ended = library.SSL_export_keying_material(pointer, output, _SIZE, _LABEL, len(_LABEL), b"", 0, 1)
    return output.raw if ended == 1 else None


def _own_certificate(ssl_object: Any) -> bytes | None:
    """The certificate that we have shown, DER."""
    library = _openssl()
    pointer = _pointer(ssl_object) if library is not None else None
    certificate = library.SSL_get_certificate(pointer) if pointer is not None else None
    if not certificate:
        return None
    size = library.i2d_X509(certificate, None)
    if not 0 < size <= _CERTIFICATE_MAX:
        return None
    output = ctypes.create_string_buffer(size)
    place = ctypes.c_void_p(ctypes.addressof(output))
    return output.raw if library.i2d_X509(certificate, ctypes.byref(place)) == size else None
