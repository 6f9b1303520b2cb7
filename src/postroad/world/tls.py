"""TLS contexts from file names, for both sides, and a first certificate where there is none.

RFC 3207 (STARTTLS), RFC 8314, RFC 9325 (recommendations), RFC 6125 (names), RFC 7435 (opportunistic). The ciphers are
those of Mozilla's intermediate profile (guideline 5.7).

What always holds: a server presents the certificate whose names fit the name that the client sent (SNI), else the first
of its list. New files are taken as a whole or not at all: `reload` builds all contexts anew, and only when that went
well are new handshakes given them; sessions under way keep what they have. A private key that we make is for its owner
only from the first moment.

How it fails: with Problem values that name the file and the remedy; a bad file at a reload leaves the old contexts in
force. Handshakes that fail are the network's (`world.network`).
"""

from __future__ import annotations

import contextlib
import datetime
import enum
import ipaddress
import os
import ssl
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import msgspec
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from postroad.world.files import Stamp, stamp
from postroad.world.problem import Problem, unreadable

# Mozilla "intermediate", guideline 5.7: what every client of the last ten years has, all with forward secrecy. The
# ciphers of TLS 1.3 are OpenSSL's own and not set here.
INTERMEDIATE: Final = (
    "ECDHE-ECDSA-AES128-GCM-SHA256:ECDHE-RSA-AES128-GCM-SHA256:ECDHE-ECDSA-AES256-GCM-SHA384:"
    "ECDHE-RSA-AES256-GCM-SHA384:ECDHE-ECDSA-CHACHA20-POLY1305:ECDHE-RSA-CHACHA20-POLY1305:"
    "DHE-RSA-AES128-GCM-SHA256:DHE-RSA-AES256-GCM-SHA384:DHE-RSA-CHACHA20-POLY1305"
)


class Version(enum.Enum):
    TLS_1_0 = "TLSv1"
    TLS_1_1 = "TLSv1.1"
    TLS_1_2 = "TLSv1.2"
    TLS_1_3 = "TLSv1.3"


_VERSIONS: Final = {
    Version.TLS_1_0: ssl.TLSVersion.TLSv1,
    Version.TLS_1_1: ssl.TLSVersion.TLSv1_1,
    Version.TLS_1_2: ssl.TLSVersion.TLSv1_2,
    Version.TLS_1_3: ssl.TLSVersion.TLSv1_3,
}


class CertificateFiles(msgspec.Struct, frozen=True):
    """PEM files: `certificate` with its chain, leaf first; `key`, "" where it is in the same file."""

    certificate: str
    key: str = ""


class ClientCertificates(enum.Enum):
    """Whether a client is asked for a certificate."""

    NEVER = "never"
    ASKED = "asked"  # one that is sent must be good, none need be sent
    DEMANDED = "demanded"


class ServerTlsOptions(msgspec.Struct, frozen=True):
    """`certificates`: the first is for clients that send no name, or one that fits none. `ciphers`: OpenSSL's words for
    TLS 1.2 and below. `client_ca_file`: the roots that client certificates must lead to."""

    certificates: tuple[CertificateFiles, ...] = ()
    minimum: Version = Version.TLS_1_2
    ciphers: str = INTERMEDIATE
    client_certificates: ClientCertificates = ClientCertificates.NEVER
    client_ca_file: str = ""


class ClientTlsOptions(msgspec.Struct, frozen=True):
    """`ca_file`: the roots to trust, "" for the system's. `minimum`, `ciphers`: where proof is demanded; the others
    are for opportunistic TLS, where the alternative is no TLS at all. `certificate`: our own, where a remote asks."""

    ca_file: str = ""
    minimum: Version = Version.TLS_1_2
    ciphers: str = INTERMEDIATE
    opportunistic_minimum: Version = Version.TLS_1_0
    opportunistic_ciphers: str = "ALL:!aNULL:!eNULL:!EXP:!RC4:!3DES:@SECLEVEL=0"
    certificate: CertificateFiles | None = None


class Reload(msgspec.Struct, frozen=True):
    """`taken`: changed files are in force. `problems`: they changed, but cannot be used; the old ones are in force."""

    taken: bool = False
    problems: tuple[Problem, ...] = ()


class ServerTls:
    """The server's context. `context` is one for the whole life, given to listeners and to STARTTLS; what it presents
    is decided at each handshake."""

    def __init__(self, options: ServerTlsOptions, context: ssl.SSLContext, chosen: _Chosen) -> None:
        self.options = options
        self.context = context
        self._chosen = chosen
        context.sni_callback = self._choose

    def reload(self) -> Reload:
        """Take the files anew where one has changed. Cheap where none has: to be called now and then."""
        stamps = _stamps(self.options)
        if stamps == self._chosen.stamps:
            return Reload()
        match _load(self.options):
            case _Chosen() as chosen:
                self._chosen = chosen
                return Reload(taken=True)
            case problems:
                # Not said again before the files change again.
                self._chosen = msgspec.structs.replace(self._chosen, stamps=stamps)
                return Reload(problems=problems)

    def _choose(self, ssl_object: Any, name: str | None, context: ssl.SSLContext) -> None:
        """Called by OpenSSL in each handshake, with or without a name from the client."""
        ssl_object.context = self._chosen.for_name(name)


class _Chosen(msgspec.Struct, frozen=True):
    """The contexts in force: by name (``*.example.org`` for wildcards), and the first for all else."""

    first: ssl.SSLContext
    names: dict[str, ssl.SSLContext]
    stamps: tuple[Stamp, ...]

    def for_name(self, name: str | None) -> ssl.SSLContext:
        if not name:
            return self.first
        lowered = name.lower().removesuffix(".")
        found = self.names.get(lowered)
        if found is None:  # RFC 6125 §6.4.3: a wildcard stands for the whole left-most label
            found = self.names.get("*." + lowered.partition(".")[2])
        return found or self.first


def server_tls(options: ServerTlsOptions) -> ServerTls | tuple[Problem, ...]:
    """The server side made ready, or all that is wrong with its settings and files."""
    match _load(options):
        case _Chosen() as chosen:
            front = _server_context(options, options.certificates[0])
            return front if isinstance(front, tuple) else ServerTls(options, front, chosen)
        case problems:
            return problems


def _stamps(options: ServerTlsOptions) -> tuple[Stamp, ...]:
    paths = [path for files in options.certificates for path in (files.certificate, files.key) if path]
    if options.client_ca_file:
        paths.append(options.client_ca_file)
    return tuple(map(stamp, paths))


def _load(options: ServerTlsOptions) -> _Chosen | tuple[Problem, ...]:
    if not options.certificates:
        return (Problem("certificates", "there is none", "Name a certificate and its key, or turn TLS off."),)
    stamps = _stamps(options)  # before the files are read: a change in between is seen next time
    contexts: list[ssl.SSLContext] = []
    names: dict[str, ssl.SSLContext] = {}
    found: list[Problem] = []
    for files in options.certificates:
        context = _server_context(options, files)
        presented = _certificate(files.certificate)
        if isinstance(context, tuple):
            found += context
        elif isinstance(presented, Problem):
            found.append(presented)
        else:
            contexts.append(context)
            for name in certificate_names(presented):
                names.setdefault(name, context)
    return tuple(found) if found else _Chosen(contexts[0], names, stamps)


def _server_context(options: ServerTlsOptions, files: CertificateFiles) -> ssl.SSLContext | tuple[Problem, ...]:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.options |= ssl.OP_NO_RENEGOTIATION | ssl.OP_NO_COMPRESSION
    _set_minimum(context, options.minimum)
    problem = _set_ciphers(context, options.ciphers) or _load_certificate(context, files)
    if problem is None and options.client_certificates is not ClientCertificates.NEVER:
        demanded = options.client_certificates is ClientCertificates.DEMANDED
        context.verify_mode = ssl.CERT_REQUIRED if demanded else ssl.CERT_OPTIONAL
        problem = _load_roots(context, options.client_ca_file)
    return context if problem is None else (problem,)


class Proof(enum.Enum):
    """What a remote's certificate must show."""

    NOTHING = "nothing"  # opportunistic, or encryption for its own sake: any certificate
    NAME = "name"  # a chain to a trusted root, and the name that the connection is given as `server_name`


class ClientTls:
    """The client's contexts, made when first wanted and kept."""

    def __init__(self, options: ClientTlsOptions) -> None:
        self.options = options
        self._contexts: dict[tuple[Proof, str, bool], ssl.SSLContext] = {}

    def context(self, proof: Proof, ca_file: str = "", *, broad: bool = True) -> ssl.SSLContext | Problem:
        """`ca_file`: roots for this destination instead of those of the options. `broad`: where nothing is proved, old
        versions and ciphers will do, too."""
        key = (proof, ca_file or self.options.ca_file, broad)
        context = self._contexts.get(key)
        if context is None:
            made = self._make(*key)
            if isinstance(made, Problem):
                return made
            context = self._contexts[key] = made
        return context

    def problems(self) -> tuple[Problem, ...]:
        """What is wrong with the settings and their files, found by making the contexts."""
        made = (self.context(Proof.NOTHING), self.context(Proof.NAME))
        return tuple(dict.fromkeys(problem for problem in made if isinstance(problem, Problem)))

    def reload(self) -> None:
        """Read roots and certificate anew at the next use."""
        self._contexts.clear()

    def _make(self, proof: Proof, ca_file: str, broad: bool) -> ssl.SSLContext | Problem:
        options = self.options
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        problem: Problem | None
        if proof is Proof.NAME:
            _set_minimum(context, options.minimum)
            problem = _set_ciphers(context, options.ciphers) or _load_roots(context, ca_file)
        else:
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
            _set_minimum(context, options.opportunistic_minimum if broad else options.minimum)
            problem = _set_ciphers(context, options.opportunistic_ciphers if broad else options.ciphers)
        if problem is None and options.certificate is not None:
            problem = _load_certificate(context, options.certificate)
        return problem or context


def describe(transport: Any) -> str:
    """Version and cipher of a transport's TLS, as "TLSv1.3 TLS_AES_256_GCM_SHA384"; "" without TLS."""
    ssl_object = transport.get_extra_info("ssl_object")
    if ssl_object is None:
        return ""
    cipher = ssl_object.cipher()
    return f"{ssl_object.version() or 'TLS'} {cipher[0]}" if cipher else ""


def certificate_names(certificate: x509.Certificate) -> tuple[str, ...]:
    """The DNS names and addresses of a certificate, lower-case; the common name where it has no others."""
    try:
        alternatives = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        common = certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
        return tuple(str(attribute.value).lower() for attribute in common)
    names = [name.lower() for name in alternatives.get_values_for_type(x509.DNSName)]
    return (*names, *map(str, alternatives.get_values_for_type(x509.IPAddress)))


def expires_s(certificate_path: str) -> int | Problem:
    """Until when a certificate is good, in seconds since 1970."""
    certificate = _certificate(certificate_path)
    return certificate if isinstance(certificate, Problem) else int(certificate.not_valid_after_utc.timestamp())


def _certificate(path: str) -> x509.Certificate | Problem:
    """The first certificate in a file."""
    try:
        return x509.load_pem_x509_certificate(Path(path).read_bytes())
    except OSError as error:
        return unreadable(path, error)
    except ValueError:
        return Problem(path, "holds no certificate in PEM form", "Name the file of the certificate with its chain.")


def _set_minimum(context: ssl.SSLContext, version: Version) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # TLS 1.0 and 1.1, where an operator wants them
        context.minimum_version = _VERSIONS[version]


def _set_ciphers(context: ssl.SSLContext, ciphers: str) -> Problem | None:
    try:
        context.set_ciphers(ciphers)
    except ssl.SSLError:
        return Problem("ciphers", f"OpenSSL knows none of {ciphers!r}", "Try them with `openssl ciphers`.")
    return None


def _load_certificate(context: ssl.SSLContext, files: CertificateFiles) -> Problem | None:
    """Put a certificate and its key into a context."""
    certificate = _certificate(files.certificate)
    if isinstance(certificate, Problem):
        return certificate
    key = files.key or files.certificate
    problem = _readable(key)
    if problem is not None:
        return problem
    try:
        # The password is asked for by a function so that OpenSSL does not ask on the terminal.
        context.load_cert_chain(files.certificate, files.key or None, password=lambda: "")
    except ssl.SSLError as error:
        if error.reason == "KEY_VALUES_MISMATCH":
            return Problem(key, f"is not the key of {files.certificate}", "Name the two files that belong together.")
        if error.reason == "EE_KEY_TOO_SMALL":
            return Problem(files.certificate, "its key is too small", "Have a new one made: RSA 2048 or ECDSA P-256.")
        return Problem(key, "holds no private key in PEM form without a password", "Name the key's file, unencrypted.")
    return None


def _load_roots(context: ssl.SSLContext, ca_file: str) -> Problem | None:
    if not ca_file:
        context.load_default_certs()
        return None
    problem = _readable(ca_file)
    if problem is not None:
        return problem
    try:
        context.load_verify_locations(ca_file)
    except ssl.SSLError:
        return Problem(ca_file, "holds no certificates in PEM form", "Name a file of root certificates.")
    return None


def _readable(path: str) -> Problem | None:
    try:
        with open(path, "rb") as file:
            file.read(1)
    except OSError as error:
        return unreadable(path, error)
    return None


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
    """The key in the file, made where there is none."""
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
    return Problem(path, "is a key without its certificate", "Name the certificate that belongs to it, or remove it.")


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
