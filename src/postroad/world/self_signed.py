"""Makes a self-signed certificate for a first start, if there is none.

What always holds: nothing is overwritten; from the first moment only its owner can read a private key.

How it fails: with a Problem that names the file.
"""

from __future__ import annotations

import contextlib
import datetime
import ipaddress
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from postroad.world.problem import Problem

_SELF_SIGNED_DAYS: Final = 3650


def make_self_signed(
    names: Sequence[str], certificate_path: str, key_path: str, now: datetime.datetime
) -> Problem | None:
    """A certificate signed by itself, ECDSA P-256, for a first start. The key's file has mode 0600.

    Nothing is overwritten: a certificate that is there stays, and so does a key, which then gets its certificate.
    `names`: DNS names or IP addresses, the first is the subject. `now`: from when it is good, with time zone.
    """
    if os.path.exists(certificate_path):
        return None
    try:
        Path(key_path).parent.mkdir(parents=True, exist_ok=True)
        Path(certificate_path).parent.mkdir(parents=True, exist_ok=True)
        key = _key(key_path)
        if isinstance(key, Problem):
            return key
        pem = _self_signed(names, key, now).public_bytes(serialization.Encoding.PEM)
        _write_once(certificate_path, pem, 0o644)
    except OSError as error:
        where = error.filename or certificate_path
        remedy = "Give the user that Postroad runs as the right to write there."
        return Problem(str(where), f"cannot be written ({error.strerror or error})", remedy)
    return None


def _key(path: str) -> ec.EllipticCurvePrivateKey | Problem:
    """The key in the file, made if there is none."""
    if not os.path.exists(path):
        key = ec.generate_private_key(ec.SECP256R1())
        pem = key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        _write_once(path, pem, 0o600)
        return key
    try:
        found = serialization.load_pem_private_key(Path(path).read_bytes(), None)
    except (ValueError, TypeError):
        found = None
    if isinstance(found, ec.EllipticCurvePrivateKey):
        return found
    return Problem(path, "is a key without its certificate", "Set the certificate of this key, or remove the key.")


def _self_signed(names: Sequence[str], key: ec.EllipticCurvePrivateKey, now: datetime.datetime) -> x509.Certificate:
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, names[0][:64])])
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(hours=1))
        .not_valid_after(now + datetime.timedelta(days=_SELF_SIGNED_DAYS))
        .add_extension(x509.SubjectAlternativeName([_general_name(name) for name in names]), critical=False)
        # As a root of its own, so that a client that trusts this very file can verify it.
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .sign(key, hashes.SHA256())
    )


def _general_name(name: str) -> x509.GeneralName:
    with contextlib.suppress(ValueError):
        return x509.IPAddress(ipaddress.ip_address(name))
    return x509.DNSName(name)


def _write_once(path: str, octets: bytes, mode: int) -> None:
    """The whole file or none, with its mode from the first moment, never over another file."""
    unfinished = f"{path}.{os.getpid()}.new"
    with contextlib.suppress(FileNotFoundError):
        os.unlink(unfinished)
    descriptor = os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
    try:
        with open(descriptor, "wb") as file:
            os.fchmod(descriptor, mode)
            file.write(octets)
            file.flush()
            os.fsync(descriptor)
        os.link(unfinished, path)
    finally:
        os.unlink(unfinished)
