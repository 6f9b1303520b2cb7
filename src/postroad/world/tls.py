"""TLS contexts from file names, for both sides.

RFC 3207 (STARTTLS), RFC 8314, RFC 8446, RFC 9325 (recommendations), RFC 6066 §3 (SNI), RFC 6125 (names), RFC 7435
(opportunistic). The profiles are Mozilla's (guideline 5.7).

What always holds: a server presents the certificate whose names fit the name that the client sent (SNI), else the first
of its list. New files are taken as a whole or not at all: `reload` builds all contexts again, and new handshakes get
them only if all could be built; sessions under way keep theirs. A client certificate counts only if it is valid (it
leads to one of the roots, or is one of them). If the listener demands one, the handshake fails with any other; if the
listener only asks for one, another one counts as none. A handshake that fails sends its alert (`world.tls_alerts`).

Session tickets (RFC 8446 §4.6.1, RFC 5077) are sealed with keys made of a secret, if there is one that all workers
share: every worker accepts them. The keys differ for each way of asking for client certificates, and for each set of
files, so that a ticket never stands for a check that was not made. Without a secret, or if OpenSSL cannot be called
(`world.tls_session`), OpenSSL makes the keys, for one worker only. A new secret, or `rotate`, ends the tickets given
out before; see docs/decisions/0030-tls.md.

How it fails: with Problem values that name the file and the remedy; a bad file at a reload leaves the old contexts in
force. Not here: handshakes that fail (`world.network`).

Not here: what a handshake has shown (`world.tls_facts`), a first certificate (`world.self_signed`).
"""

from __future__ import annotations

import enum
import hashlib
import ssl
import warnings
from pathlib import Path
from typing import Annotated, Any, Final

import msgspec
from cryptography import x509
from cryptography.x509.oid import NameOID
from msgspec import Meta

from postroad.world.files import Stamp, stamp
from postroad.world.problem import Problem, unreadable
from postroad.world.tls_alerts import send_alerts
from postroad.world.tls_facts import NOTED, SniNote
from postroad.world.tls_session import set_lenient, set_purpose_any, set_ticket_keys

# The ciphers of TLS 1.3 are OpenSSL's own, for Python's ssl sets those of TLS 1.2 and below only.
INTERMEDIATE: Final = (
    "ECDHE-ECDSA-AES128-GCM-SHA256:ECDHE-RSA-AES128-GCM-SHA256:ECDHE-ECDSA-AES256-GCM-SHA384:"
    "ECDHE-RSA-AES256-GCM-SHA384:ECDHE-ECDSA-CHACHA20-POLY1305:ECDHE-RSA-CHACHA20-POLY1305:"
    "DHE-RSA-AES128-GCM-SHA256:DHE-RSA-AES256-GCM-SHA384:DHE-RSA-CHACHA20-POLY1305"
)
_OLD: Final = (
    INTERMEDIATE + ":ECDHE-ECDSA-AES128-SHA256:ECDHE-RSA-AES128-SHA256:ECDHE-ECDSA-AES128-SHA:ECDHE-RSA-AES128-SHA:"
    "ECDHE-ECDSA-AES256-SHA384:ECDHE-RSA-AES256-SHA384:ECDHE-ECDSA-AES256-SHA:ECDHE-RSA-AES256-SHA:"
    "DHE-RSA-AES128-SHA256:DHE-RSA-AES256-SHA256:AES128-GCM-SHA256:AES256-GCM-SHA384:AES128-SHA256:AES256-SHA256:"
    "AES128-SHA:AES256-SHA:DES-CBC3-SHA:@SECLEVEL=0"
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


class Profile(enum.Enum):
    """Mozilla's words for how old a client may be."""

    MODERN = "modern"  # TLS 1.3 only
    INTERMEDIATE = "intermediate"  # what every client of the last ten years has, all with forward secrecy
    OLD = "old"  # TLS 1.0 and what it had, if the alternative is no TLS at all

    @property
    def minimum(self) -> Version:
        return _PROFILES[self][0]

    @property
    def ciphers(self) -> str:
        return _PROFILES[self][1]


_PROFILES: Final = {
    Profile.MODERN: (Version.TLS_1_3, INTERMEDIATE),
    Profile.INTERMEDIATE: (Version.TLS_1_2, INTERMEDIATE),
    Profile.OLD: (Version.TLS_1_0, _OLD),
}


class CertificateFiles(msgspec.Struct, frozen=True):
    """PEM files: `certificate` with its chain, leaf first; `key`, "" if it is in the same file."""

    certificate: str
    key: str = ""


class ClientCertificates(enum.Enum):
    """Whether a client is asked for a certificate."""

    NEVER = "never"
    ASKED = "asked"  # none need be sent; one that is not good proves nothing
    DEMANDED = "demanded"


class Purpose(enum.Enum):
    """What a client's certificate must have been made for, as its extended key usage says."""

    CLIENT = "client"  # clientAuth, or nothing said
    ANY = "any"  # also serverAuth alone, which is all that public CAs issue now


class ClientCertificatePolicy(msgspec.Struct, frozen=True):
    """How the clients of a listener are asked for a certificate. `ca_file`: the roots that it must lead to, "" for the
    system's; a client's own certificate may stand among them. `purpose`: what it must have been made for."""

    client_certificates: Annotated[
        ClientCertificates,
        Meta(
            description="`never`: clients are not asked for a certificate. `asked`: clients are asked; an invalid "
            "certificate counts as none. `demanded`: without a valid certificate the TLS handshake "
            "fails.",
        ),
    ] = ClientCertificates.NEVER
    ca_file: str = ""
    purpose: Annotated[
        Purpose,
        Meta(
            description="The purpose that client certificates must have been issued for. `client`: for clients "
            "(clientAuth, or no extended key usage). `any`: also for servers only; public certificate "
            "authorities issue nothing else now.",
        ),
    ] = Purpose.CLIENT


NOBODY: Final = ClientCertificatePolicy()


class ServerTlsOptions(msgspec.Struct, frozen=True):
    """`certificates`: the first is for clients that send no name, or one that no certificate holds. `askings`: all ways
    in which listeners ask for client certificates."""

    certificates: tuple[CertificateFiles, ...] = ()
    profile: Annotated[
        Profile,
        Meta(
            description="Which TLS versions and ciphers are allowed, after Mozilla's guideline 5.7. `modern`: TLS "
            "1.3. `intermediate`: TLS 1.3, and TLS 1.2 with forward secrecy. `old`: also TLS 1.0 and its "
            "ciphers, for clients that have nothing better.",
        ),
    ] = Profile.INTERMEDIATE
    minimum: Annotated[
        Version | None,
        Meta(
            description="The oldest TLS version allowed. Unset: that of the profile.",
        ),
    ] = None
    ciphers: Annotated[
        str,
        Meta(
            description='OpenSSL\'s cipher list for TLS 1.2 and below. "": that of the profile.',
        ),
    ] = ""
    groups: Annotated[
        tuple[str, ...],
        Meta(
            description="The groups for the key exchange, the preferred one first. Empty: OpenSSL's choice (X25519, "
            "P-256 and more). More than one can be set with Python 3.15 or newer.",
        ),
    ] = ()
    tickets: Annotated[
        int,
        Meta(
            ge=0,
            le=8,
            description="How many session tickets a client gets. With a ticket, its next connection costs less. 0: "
            "none.",
        ),
    ] = 2
    ticket_s: Annotated[
        float,
        Meta(
            ge=60,
            description="How long the keys of session tickets are used before new keys are made.",
        ),
    ] = 43_200.0
    askings: tuple[ClientCertificatePolicy, ...] = (NOBODY,)


class ClientTlsOptions(msgspec.Struct, frozen=True):
    """Opportunistic TLS has limits of its own, because its alternative is no TLS at all. `certificate`: our own, if a
    remote asks for one."""

    ca_file: Annotated[
        str,
        Meta(
            description="The root certificates that the node trusts, PEM. Unset: the system's.",
        ),
    ] = ""
    minimum: Annotated[
        Version,
        Meta(
            description="The oldest TLS version allowed if TLS is demanded (`encrypt`, `verify`, `implicit`).",
        ),
    ] = Version.TLS_1_2
    ciphers: Annotated[
        str,
        Meta(
            description="OpenSSL's cipher list for TLS 1.2 and below if TLS is demanded.",
        ),
    ] = INTERMEDIATE
    opportunistic_minimum: Annotated[
        Version,
        Meta(
            description="The oldest TLS version allowed if mail may also be sent without TLS (`may`).",
        ),
    ] = Version.TLS_1_0
    opportunistic_ciphers: Annotated[
        str,
        Meta(
            description="OpenSSL's cipher list for TLS 1.2 and below if mail may also be sent without TLS (`may`).",
        ),
    ] = "ALL:!aNULL:!eNULL:!EXP:!RC4:!3DES:@SECLEVEL=0"
    certificate: CertificateFiles | None = None


class Reload(msgspec.Struct, frozen=True):
    """`taken`: changed files are in force. `problems`: they changed, but cannot be used; the old ones are in force."""

    taken: bool = False
    problems: tuple[Problem, ...] = ()


class ServerTls:
    """The server's contexts. `context` gives the one to begin a handshake with, which holds tickets and the wish for
    client certificates; which certificate is presented is decided within the handshake."""

    def __init__(
        self,
        options: ServerTlsOptions,
        chosen: _Chosen,
        fronts: dict[ClientCertificatePolicy, ssl.SSLContext],
        secret: bytes,
    ) -> None:
        self.options = options
        self._secret = secret
        self._chosen = chosen
        self._fronts = self._watched(fronts)
        self._rotated = 0.0

    def context(self, asking: ClientCertificatePolicy = NOBODY) -> ssl.SSLContext:
        """For a handshake that begins now. `asking`: one of those of the options."""
        return self._fronts[asking]

    def find(self, asking: ClientCertificatePolicy) -> ssl.SSLContext | None:
        """The same, for a session that may have begun before a reload; None if nobody is asked like that now."""
        return self._fronts.get(asking)

    def reload(self) -> Reload:
        """Take the files anew if one has changed. Cheap if none has: to be called now and then."""
        stamps = _stamps(self.options)
        if stamps == self._chosen.stamps:
            return Reload()
        chosen = _load(self.options)
        fronts = _fronts(self.options, self._secret) if isinstance(chosen, _Chosen) else chosen
        if isinstance(chosen, _Chosen) and isinstance(fronts, dict):
            # New fronts, too: what a ticket vouches for was looked at with the roots of its time.
            self._chosen, self._fronts = chosen, self._watched(fronts)
            return Reload(taken=True)
        # Not said again before the files change again.
        self._chosen = msgspec.structs.replace(self._chosen, stamps=stamps)
        return Reload(problems=fronts if isinstance(fronts, tuple) else ())

    def rotate(self, now: float, secret: bytes = b"") -> bool:
        """New keys for session tickets if the secret is another one, or, without one, if the old keys have served
        their time: tickets given out so far are of no use any more. `now`: loop time. To be called now and then; with
        files that cannot be read the old ones stay."""
        if not self._rotated:
            self._rotated = now
        old = secret != self._secret if secret else now - self._rotated >= self.options.ticket_s
        if not self.options.tickets or not old:
            return False
        fronts = _fronts(self.options, secret)
        if isinstance(fronts, tuple):
            return False
        self._fronts, self._rotated, self._secret = self._watched(fronts), now, secret
        return True

    def _watched(
        self, fronts: dict[ClientCertificatePolicy, ssl.SSLContext]
    ) -> dict[ClientCertificatePolicy, ssl.SSLContext]:
        for asking, context in fronts.items():
            context.sni_callback = _Chooser(self, asking)
        return fronts

    def choose(self, asking: ClientCertificatePolicy, ssl_object: Any, name: str | None) -> None:
        """Called by OpenSSL in each handshake, with or without a name from the client."""
        found = self._chosen.for_name(name)
        ssl_object.context = found.contexts[asking]
        setattr(ssl_object, NOTED, SniNote(name or ""))


class _Chooser:
    """The SNI callback of one front."""

    def __init__(self, server: ServerTls, asking: ClientCertificatePolicy) -> None:
        self._server, self._asking = server, asking

    def __call__(self, ssl_object: Any, name: str | None, context: ssl.SSLContext) -> None:
        self._server.choose(self._asking, ssl_object, name)


class _Presented(msgspec.Struct, frozen=True):
    """One certificate, in a context for each way of asking."""

    contexts: dict[ClientCertificatePolicy, ssl.SSLContext]


class _Chosen(msgspec.Struct, frozen=True):
    """The certificates in force: by name (``*.example.org`` for wildcards), and the first for all else."""

    first: _Presented
    names: dict[str, _Presented]
    stamps: tuple[Stamp, ...]

    def for_name(self, name: str | None) -> _Presented:
        if not name:
            return self.first
        lowered = name.lower().removesuffix(".")
        found = self.names.get(lowered)
        if found is None:  # RFC 6125 §6.4.3: a wildcard stands for the whole left-most label
            found = self.names.get("*." + lowered.partition(".")[2])
        return found or self.first


def server_tls(options: ServerTlsOptions, secret: bytes = b"") -> ServerTls | tuple[Problem, ...]:
    """The server side made ready, or all that is wrong with its settings and files. `secret`: of which the keys of
    tickets are made, b"" for OpenSSL's own."""
    chosen = _load(options)
    if not isinstance(chosen, _Chosen):
        return chosen
    fronts = _fronts(options, secret)
    return fronts if isinstance(fronts, tuple) else ServerTls(options, chosen, fronts, secret)


def _stamps(options: ServerTlsOptions) -> tuple[Stamp, ...]:
    paths = [path for files in options.certificates for path in (files.certificate, files.key) if path]
    paths += [asking.ca_file for asking in options.askings if asking.ca_file]
    return tuple(map(stamp, paths))


def _load(options: ServerTlsOptions) -> _Chosen | tuple[Problem, ...]:
    if not options.certificates:
        return (Problem("certificates", "there is none", "Set a certificate and its key, or turn TLS off."),)
    stamps = _stamps(options)  # before the files are read: a change in between is seen next time
    made: list[_Presented] = []
    names: dict[str, _Presented] = {}
    found: list[Problem] = []
    for files in options.certificates:
        contexts = {asking: _server_context(options, files, asking) for asking in options.askings}
        certificate = _certificate(files.certificate)
        good = {asking: each for asking, each in contexts.items() if isinstance(each, ssl.SSLContext)}
        problems = dict.fromkeys(each for each in contexts.values() if isinstance(each, Problem))
        found += problems
        if isinstance(certificate, Problem):
            found += () if certificate in problems else (certificate,)
        elif len(good) == len(contexts):
            made.append(_Presented(good))
            for name in certificate_names(certificate):
                names.setdefault(name, made[-1])
    return tuple(found) if found else _Chosen(made[0], names, stamps)


def _fronts(
    options: ServerTlsOptions, secret: bytes
) -> dict[ClientCertificatePolicy, ssl.SSLContext] | tuple[Problem, ...]:
    """The contexts that handshakes begin with. They present the first certificate if there is no TLS extension at
    all, which no client of this century leaves out."""
    # Before the files are taken: at worst, tickets of the new ones bear the mark of the old.
    purposes = {asking: _ticket_purpose(options, asking) for asking in options.askings} if secret else {}
    fronts = {asking: _server_context(options, options.certificates[0], asking) for asking in options.askings}
    problems = tuple(dict.fromkeys(each for each in fronts.values() if isinstance(each, Problem)))
    made = {asking: each for asking, each in fronts.items() if isinstance(each, ssl.SSLContext)}
    for asking, purpose in purposes.items():
        if options.tickets and asking in made:
            set_ticket_keys(made[asking], secret, purpose)
    return problems or made


def _ticket_purpose(options: ServerTlsOptions, asking: ClientCertificatePolicy) -> bytes:
    """What the tickets of one front vouch for, which is the same in all workers: the files as they are, and how clients
    were asked."""
    told = hashlib.sha256(msgspec.json.encode((asking, options.profile, options.minimum, options.ciphers)))
    for path in (*(files.certificate for files in options.certificates), asking.ca_file):
        try:
            told.update(hashlib.sha256(Path(path).read_bytes() if path else b"").digest())
        except OSError:
            told.update(b"-")  # found below
    return told.digest()


def _server_context(
    options: ServerTlsOptions, files: CertificateFiles, asking: ClientCertificatePolicy
) -> ssl.SSLContext | Problem:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.options |= ssl.OP_NO_RENEGOTIATION | ssl.OP_NO_COMPRESSION
    context.num_tickets = options.tickets
    if not options.tickets:
        context.options |= ssl.OP_NO_TICKET
    _set_minimum(context, options.minimum or options.profile.minimum)
    problem = (
        _set_ciphers(context, options.ciphers or options.profile.ciphers)
        or _set_groups(context, options.groups)
        or _load_certificate(context, files)
    )
    if problem is None and asking.client_certificates is not ClientCertificates.NEVER:
        demanded = asking.client_certificates is ClientCertificates.DEMANDED
        context.verify_mode = ssl.CERT_REQUIRED if demanded else ssl.CERT_OPTIONAL
        # One certificate of a client may stand among the roots by itself, without who signed it.
        context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
        problem = _load_roots(context, asking.ca_file, ssl.Purpose.CLIENT_AUTH) or _set_purpose(context, asking.purpose)
        if not demanded:
            set_lenient(context)
    send_alerts(context)
    return problem or context


def _set_purpose(context: ssl.SSLContext, purpose: Purpose) -> Problem | None:
    if purpose is Purpose.CLIENT or set_purpose_any(context):
        return None
    remedy = 'Write "client", or use a Python whose OpenSSL is a library of its own.'
    return Problem("client_certificate_purpose", "this Python cannot set it", remedy)


class Proof(enum.Enum):
    """What a remote's certificate must show."""

    NOTHING = "nothing"  # opportunistic, or encryption for its own sake: any certificate
    CHAIN = "chain"  # a chain to a trusted root; who calls compares the names
    NAME = "name"  # a chain to a trusted root, and the name that the connection is given as `server_name`


_ContextKey = tuple[Proof, str, bool, str, str]
_CONTEXTS_MAX: Final = 1_000  # ways of demanding TLS; then begun anew


class ClientTls:
    """The client's contexts, made when first wanted and kept."""

    def __init__(self, options: ClientTlsOptions) -> None:
        self.options = options
        self._contexts: dict[_ContextKey, ssl.SSLContext] = {}

    def context(
        self, proof: Proof, ca_file: str = "", *, broad: bool = True, minimum: str = "", ciphers: str = ""
    ) -> ssl.SSLContext | Problem:
        """`ca_file`: roots for this destination instead of those of the options. `broad`: if nothing is proved, old
        versions and ciphers will do, too. `minimum` (the value of a Version) and `ciphers`: for this destination, "":
        those of the options."""
        key = (proof, ca_file or self.options.ca_file, broad, minimum, ciphers)
        context = self._contexts.get(key)
        if context is None:
            made = self._make(*key)
            if isinstance(made, Problem):
                return made
            if len(self._contexts) >= _CONTEXTS_MAX:
                self._contexts.clear()
            context = self._contexts[key] = made
        return context

    def problems(self) -> tuple[Problem, ...]:
        """What is wrong with the settings and their files, found by making the contexts."""
        made = (self.context(Proof.NOTHING), self.context(Proof.NAME))
        return tuple(dict.fromkeys(problem for problem in made if isinstance(problem, Problem)))

    def reload(self) -> None:
        """Read roots and certificate anew at the next use."""
        self._contexts.clear()

    def _make(
        self, proof: Proof, ca_file: str, broad: bool, minimum: str, ciphers: str
    ) -> ssl.SSLContext | Problem:
        options = self.options
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        problem: Problem | None = None
        usual = (options.minimum, options.ciphers)
        if proof is Proof.NOTHING:
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
            if broad:
                usual = (options.opportunistic_minimum, options.opportunistic_ciphers)
        else:
            context.check_hostname = proof is Proof.NAME
            problem = _load_roots(context, ca_file)
        _set_minimum(context, Version(minimum) if minimum else usual[0])
        problem = problem or _set_ciphers(context, ciphers or usual[1])
        send_alerts(context)
        if problem is None and options.certificate is not None:
            problem = _load_certificate(context, options.certificate)
        return problem or context


def certificate_names(certificate: x509.Certificate) -> tuple[str, ...]:
    """The DNS names and addresses of a certificate, lower-case; the common name if it has no others."""
    try:
        alternatives = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        common = certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
        return tuple(str(attribute.value).lower() for attribute in common)
    names = [name.lower() for name in alternatives.get_values_for_type(x509.DNSName)]
    return (*names, *map(str, alternatives.get_values_for_type(x509.IPAddress)))


def validity_s(certificate_path: str) -> tuple[int, int] | Problem:
    """From when and until when a certificate is good, in seconds since 1970."""
    certificate = _certificate(certificate_path)
    if isinstance(certificate, Problem):
        return certificate
    return int(certificate.not_valid_before_utc.timestamp()), int(certificate.not_valid_after_utc.timestamp())


def _certificate(path: str) -> x509.Certificate | Problem:
    """The first certificate in a file."""
    try:
        return x509.load_pem_x509_certificate(Path(path).read_bytes())
    except OSError as error:
        return unreadable(path, error)
    except ValueError:
        return Problem(path, "holds no certificate in PEM form", "Set the file of the certificate with its chain.")


def _set_minimum(context: ssl.SSLContext, version: Version) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # TLS 1.0 and 1.1, if an operator wants them
        context.minimum_version = _VERSIONS[version]


def _set_ciphers(context: ssl.SSLContext, ciphers: str) -> Problem | None:
    try:
        context.set_ciphers(ciphers)
    except ssl.SSLError:
        return Problem("ciphers", f"OpenSSL knows none of {ciphers!r}", "Try them with `openssl ciphers`.")
    return None


def _set_groups(context: ssl.SSLContext, groups: tuple[str, ...]) -> Problem | None:
    """Several can be set from Python 3.15 on, one with any."""
    if not groups:
        return None
    try:
        if hasattr(context, "set_groups"):
            context.set_groups(":".join(groups))
        elif len(groups) == 1:
            context.set_ecdh_curve(groups[0])
        else:
            return Problem("groups", "this Python can set only one of them", "Set one, or use Python 3.15 or newer.")
    except (ssl.SSLError, ValueError):
        named = ", ".join(groups)
        return Problem("groups", f"OpenSSL does not know {named}", "Write names such as X25519 and prime256v1.")
    return None


def _load_certificate(context: ssl.SSLContext, files: CertificateFiles) -> Problem | None:
    """Put a certificate and its key into a context."""
    certificate = _certificate(files.certificate)
    if isinstance(certificate, Problem):
        return certificate
    key = files.key or files.certificate
    problem = readable(key)
    if problem is not None:
        return problem
    try:
        # The password is asked for by a function so that OpenSSL does not ask on the terminal.
        context.load_cert_chain(files.certificate, files.key or None, password=lambda: "")
    except ssl.SSLError as error:
        if error.reason == "KEY_VALUES_MISMATCH":
            return Problem(key, f"is not the key of {files.certificate}", "Set two files that belong together.")
        if error.reason == "EE_KEY_TOO_SMALL":
            return Problem(files.certificate, "its key is too small", "Get one with an RSA 2048 or ECDSA P-256 key.")
        return Problem(key, "holds no unencrypted private key in PEM form", "Set the key's file, without a password.")
    return None


def _load_roots(
    context: ssl.SSLContext, ca_file: str, purpose: ssl.Purpose = ssl.Purpose.SERVER_AUTH
) -> Problem | None:
    if not ca_file:
        context.load_default_certs(purpose)
        return None
    problem = readable(ca_file)
    if problem is not None:
        return problem
    try:
        context.load_verify_locations(ca_file)
    except ssl.SSLError:
        return Problem(ca_file, "holds no certificates in PEM form", "Set a file of root certificates.")
    return None


def readable(path: str) -> Problem | None:
    """Why a file cannot be read; None if it can."""
    try:
        with open(path, "rb") as file:
            file.read(1)
    except OSError as error:
        return unreadable(path, error)
    return None
