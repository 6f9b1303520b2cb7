"""Makes DKIM signatures (RFC 6376 §5, RFC 8301, RFC 8463, RFC 8058 §4). Pure: the time is handed in.

A DkimSigner has the keys of one domain, usually RSA and Ed25519 side by side, and makes one field with each. The body
is made canonical and hashed once for all of them, and so are the signed fields of the header section.

What always holds: every instance of a field that is signed is signed. A field that is *oversigned* is named once more
than it is there, so that nobody can add another one. The time that the processor needs for an RSA-2048 signature, some
0.3 ms, is spent outside the interpreter's lock: a thread can do it.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import re
from functools import lru_cache
from typing import Annotated, Final, NamedTuple

import msgspec
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
from cryptography.hazmat.primitives.asymmetric.utils import Prehashed
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    PublicFormat,
    load_der_private_key,
    load_pem_private_key,
)
from msgspec import Meta

from postroad.trust.dkim_body import BodyForm, BodyHashes, Canonicalization
from postroad.trust.dkim_head import SignedHead, body_start, canonical, unfolded
from postroad.trust.dkim_key import RSA_MAX, RSA_MIN, KeyKind
from postroad.trust.dkim_signature import DkimSignature, key_name, parse_signature

PLANS_MAX: Final = 1_000  # kinds of header sections of which is remembered what is signed
PLAN_FIELDS_MAX: Final = 100  # names of fields of such a header section
PLAN_OCTETS_MAX: Final = 8_192  # of such a header section
NAMES_MAX: Final = 200  # names in h= of a field that we write; more instances of a field are not signed
FIELD_NAME: Final = b"dkim-signature"
_LINE: Final = 76  # columns to which a field is folded

_PADDING: Final = PKCS1v15()
_HASHED: Final = Prehashed(hashes.SHA256())
_IN_ONE_LINE: Final = re.compile(
    r"-----BEGIN [A-Z ]{0,40}PRIVATE KEY-----(.*)-----END [A-Z ]{0,40}PRIVATE KEY-----", re.DOTALL
)
_WHITE_SPACE: Final = re.compile(r"\s+|\\n")

# RFC 6376 §5.4.1, and what decides about how a message is read. None of them is changed on the usual way.
OVERSIGNED: Final = (
    "From", "Reply-To", "Subject", "Date", "To", "Cc", "Message-ID", "MIME-Version", "Content-Type",
    "Content-Transfer-Encoding",
)  # fmt: skip
# A mailing list may add these: they are signed only when they are there (RFC 8058 §4 demands the first two, RFC 8460
# §5.3 asks for the last two).
SIGNED: Final = (
    "List-Unsubscribe", "List-Unsubscribe-Post", "List-Id", "List-Help", "List-Subscribe", "List-Post", "List-Owner",
    "List-Archive", "Sender", "In-Reply-To", "References", "Resent-From", "Resent-Sender", "Resent-To", "Resent-Cc",
    "Resent-Date", "Resent-Message-ID", "Feedback-ID", "Autocrypt", "Openpgp", "TLS-Report-Domain",
    "TLS-Report-Submitter",
)  # fmt: skip


class SigningOptions(msgspec.Struct, frozen=True):
    """What is signed, and how."""

    oversigned: Annotated[
        tuple[str, ...],
        Meta(
            description="The header fields that are signed so that nobody can add another one, whether they are there "
            "or not."
        ),
    ] = OVERSIGNED
    signed: Annotated[tuple[str, ...], Meta(description="The header fields that are signed if they are there.")] = (
        SIGNED
    )
    head: Annotated[
        Canonicalization, Meta(description="What may change in the header section on the way without harm.")
    ] = Canonicalization.RELAXED
    body: Annotated[Canonicalization, Meta(description="What may change in the body on the way without harm.")] = (
        Canonicalization.RELAXED
    )
    lifetime_s: Annotated[int, Meta(ge=0, description="How long a signature counts (x=). 0: without an end.")] = 0


class SigningKey(msgspec.Struct, frozen=True):
    """A key of a domain, parsed. `domain` and `selector` as A-labels in lower case. `identity`: i=, "" for none; in the
    domain or below it."""

    domain: str
    selector: str
    private: RSAPrivateKey | Ed25519PrivateKey
    identity: str = ""

    @property
    def kind(self) -> KeyKind:
        return KeyKind.RSA if isinstance(self.private, RSAPrivateKey) else KeyKind.ED25519


class PrivateKeyFault(msgspec.Struct, frozen=True):
    """Why octets are no private key to sign with. `text`: for people."""

    text: str


def parse_private_key(pem: bytes, *, checked: bool = True) -> RSAPrivateKey | Ed25519PrivateKey | PrivateKeyFault:
    """A key in PEM, PKCS #8 or PKCS #1. `checked`: whether the numbers of an RSA key are looked at, which takes some
    40 ms; if not, the key makes one signature, and it is verified. This takes 1 ms and finds a damaged key, too."""
    try:
        key = load_pem_private_key(pem, password=None, unsafe_skip_rsa_key_validation=not checked)
    except TypeError:
        return PrivateKeyFault("the key is encrypted with a password")
    except (ValueError, UnsupportedAlgorithm):
        return PrivateKeyFault("this is no private key in PEM")
    return _usable(key, checked)


def parse_key_data(written: str) -> RSAPrivateKey | Ed25519PrivateKey | PrivateKeyFault:
    """A key as a line of a table has it: PEM without its line ends, or the base64 of DER."""
    plain = _WHITE_SPACE.sub(" ", written).strip()
    found = _IN_ONE_LINE.fullmatch(plain)
    data = (found[1] if found else plain).replace(" ", "")
    try:
        key = load_der_private_key(binascii.a2b_base64(data.encode("ascii"), strict_mode=True), None)
    except (TypeError, ValueError, UnicodeError, UnsupportedAlgorithm):
        return PrivateKeyFault("this is no private key in PEM or base64")
    return _usable(key, checked=True)


def _usable(key: object, checked: bool) -> RSAPrivateKey | Ed25519PrivateKey | PrivateKeyFault:
    if isinstance(key, Ed25519PrivateKey):
        return key
    if not isinstance(key, RSAPrivateKey):
        return PrivateKeyFault("the key is neither an RSA nor an Ed25519 key")
    if not RSA_MIN <= key.key_size <= RSA_MAX:
        return PrivateKeyFault(f"the RSA key has {key.key_size} bits, not {RSA_MIN} to {RSA_MAX} (RFC 8301)")
    if not checked and not _proves_itself(key):
        return PrivateKeyFault("the RSA key is damaged: what it signs cannot be verified")
    return key


def _proves_itself(key: RSAPrivateKey) -> bool:
    digest = hashlib.sha256().digest()
    try:
        key.public_key().verify(key.sign(digest, _PADDING, _HASHED), digest, _PADDING, _HASHED)
    except (InvalidSignature, ValueError):
        return False
    return True


def public_record(private: RSAPrivateKey | Ed25519PrivateKey) -> str:
    """The text of the TXT record for this key (RFC 6376 §3.6.1, RFC 8463 §4)."""
    public = private.public_key()
    if isinstance(private, RSAPrivateKey):
        octets = public.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
        return f"v=DKIM1; k=rsa; p={base64.b64encode(octets).decode()}"
    octets = public.public_bytes(Encoding.Raw, PublicFormat.Raw)
    return f"v=DKIM1; k=ed25519; p={base64.b64encode(octets).decode()}"


class _Plan(NamedTuple):
    """`picks`: the name and place of each field that is signed, in the order of h=."""

    picks: tuple[tuple[bytes, int], ...]
    folded: bytes


Plans = dict[tuple[tuple[bytes, int], ...], _Plan]
"""What is signed of each kind of header section. Signers with the same options can share them."""


class DkimSigner:
    """Signs for one domain with all its keys. `plans`: those of all signers with these options."""

    __slots__ = ("_first", "_forms", "_lifetime_s", "_names", "_plans", "form", "key_names", "keys")

    def __init__(self, keys: tuple[SigningKey, ...], options: SigningOptions, plans: Plans | None = None) -> None:
        self.form = BodyForm(options.body)
        self.keys = keys
        self.key_names = tuple([key_name(key.selector, key.domain) for key in keys])  # where the DNS has them
        self._plans = {} if plans is None else plans
        self._forms = options.head
        self._lifetime_s = options.lifetime_s
        self._names = signed_names(options)
        first = [_first_line(key, options) for key in keys]
        self._first = [(each, canonical(each, options.head)) for each in first]

    def sign(self, head: SignedHead, body_hash: bytes, now_s: int) -> bytes:
        """The fields to put on top of the message, each with its CRLF. `head`: the header section as it leaves,
        `body_hash`: the digest of the body in `form`."""
        counts = head.counts(self._forms)
        plan = self._plans.get(counts) or self._plan(head, counts)
        ends = b" x=%d;" % (now_s + self._lifetime_s) if self._lifetime_s else b""
        rest = b"\r\n t=%d;%s\r\n h=%s;\r\n bh=%s;\r\n b=" % (
            now_s, ends, plan.folded, base64.b64encode(body_hash)
        )  # fmt: skip
        of_all = hashlib.sha256(b"".join([line + b"\r\n" for line in head.picked(plan.picks, self._forms)]))
        last = rest if self._forms is Canonicalization.SIMPLE else unfolded(rest)
        fields: list[bytes] = []
        for key, (first, canonical_first) in zip(self.keys, self._first, strict=True):
            of_key = of_all.copy()
            of_key.update(canonical_first + last)
            fields += (first, rest, folded_data(sign_digest(key, of_key.digest())), b"\r\n")
        return b"".join(fields)

    def _plan(self, head: SignedHead, counts: tuple[tuple[bytes, int], ...]) -> _Plan:
        """What is signed of a header section with so many fields of each name, and how h= says it."""
        names = taken_names(head, self._names, self._forms)
        made = _Plan(tuple(head.picks(names, self._forms)), folded_names(names))
        if len(counts) <= PLAN_FIELDS_MAX and len(head.section) <= PLAN_OCTETS_MAX:
            if len(self._plans) >= PLANS_MAX:
                self._plans.clear()
            self._plans[counts] = made
        return made

    def sign_content(self, content: bytes, now_s: int) -> bytes:
        """`sign` for a whole message that is in memory."""
        start = body_start(content)
        bodies = BodyHashes([self.form])
        bodies.feed(content[start:] if start else content)
        return self.sign(SignedHead(content[:start]), bodies.results()[self.form].digest, now_s)


def has_signed(key: SigningKey, head: SignedHead, form: BodyForm, body_hash: bytes, now_s: int) -> bool:
    """Whether the message has a signature of this very key that is right, and has not expired. `body_hash`: the digest
    of the body in `form`. A signature over another form of the body counts for none."""
    mark = b"d=" + key.domain.encode()
    for line, field in zip(head.relaxed(FIELD_NAME), head.fields(FIELD_NAME), strict=True):
        if mark not in line.lower():
            continue
        found = parse_signature(field)
        if (
            isinstance(found, DkimSignature)
            and (found.domain, found.selector, found.kind) == (key.domain, key.selector, key.kind)
            and (found.body, found.body_hash) == (form, body_hash)
            and (found.expires_s is None or found.expires_s > now_s)
            and _is_own(key, found.data, hashlib.sha256(head.data(found.names, field, found.head)).digest())
        ):
            return True
    return False


def _is_own(key: SigningKey, signature: bytes, digest: bytes) -> bool:
    try:
        if isinstance(key.private, RSAPrivateKey):
            key.private.public_key().verify(signature, digest, _PADDING, _HASHED)
        else:
            key.private.public_key().verify(signature, digest)
    except InvalidSignature:
        return False
    return True


def taken_names(head: SignedHead, names: dict[bytes, int], form: Canonicalization) -> tuple[bytes, ...]:
    """h=: each name as often as there are such fields, and as many more as `names` says. From is always there."""
    taken: list[bytes] = []
    lines = head.lines(form)
    for name, more in names.items():
        if name in lines:
            taken += [name] * min(len(lines[name]) + more, NAMES_MAX)
        elif more:
            taken.append(name)
    if b"from" not in taken:  # whether there is such a field or not
        taken.insert(0, b"from")
    return tuple(taken[:NAMES_MAX])


def signed_names(options: SigningOptions) -> dict[bytes, int]:
    """What is signed in this order, and how often beyond what is there. From comes first (RFC 6376 §5.4)."""
    names = {b"from": 0}
    names.update({each.lower().encode("ascii"): 0 for each in options.signed})
    names.update({each.lower().encode("ascii"): 1 for each in options.oversigned})
    return dict(sorted(names.items(), key=lambda item: (item[0] != b"from", -item[1])))


def _first_line(key: SigningKey, options: SigningOptions) -> bytes:
    forms = f"{options.head.value}/{options.body.value}"
    speaks_for = f"\r\n i={key.identity};" if key.identity else ""
    first = f"DKIM-Signature: v=1; a={key.kind.value}-sha256; c={forms};\r\n d={key.domain}; s={key.selector};"
    return f"{first}{speaks_for}".encode()


def sign_digest(key: SigningKey, digest: bytes) -> bytes:
    """The signature of the SHA-256 of what is signed (RFC 6376 §3.3.2, RFC 8463 §3)."""
    if isinstance(key.private, RSAPrivateKey):
        return key.private.sign(digest, _PADDING, _HASHED)
    return key.private.sign(digest)


@lru_cache(maxsize=1024)
def folded_names(names: tuple[bytes, ...]) -> bytes:
    lines, line = [], b""
    for name in names:
        if line and len(line) + len(name) > _LINE - 5:
            lines.append(line)
            line = b""
        line += name + b":"
    return b"\r\n  ".join([*lines, line]).removesuffix(b":")


def folded_data(signature: bytes) -> bytes:
    text = base64.b64encode(signature)
    return b"\r\n  ".join([text[at : at + _LINE - 4] for at in range(0, len(text), _LINE - 4)])
