"""The field DKIM-Signature, read (RFC 6376 §3.5, §6.1.1). ARC's fields have the same tags (RFC 8617 §4.1). Pure.

What always holds: a DkimSignature has all that is required, in canonical form, and its parts agree with each other.

How it fails: a field that is none is a SignatureFault: what is wrong in words, what it means in RFC 8601's terms, and
what could be read all the same, so that a report can name the signer.
"""

from __future__ import annotations

import binascii
import re
from typing import Final

import msgspec

from postroad.mail.address import canonical_domain, is_within
from postroad.trust import results, tags
from postroad.trust.dkim_body import BodyForm, Canonicalization
from postroad.trust.dkim_key import KeyKind

FIELD_MAX: Final = 16_384  # octets of a field
NAMES_MAX: Final = 1_000  # names of fields in h=
KEY_NAME_MAX: Final = 253  # characters of the name of a key in the DNS (RFC 1035 §2.3.4)
IDENTITY_MAX: Final = 320  # characters of i=: 64, "@", 255 (RFC 5321 §4.5.3.1)

_ALGORITHMS: Final = {"rsa-sha256": KeyKind.RSA, "ed25519-sha256": KeyKind.ED25519}
_FORMS: Final = {each.value: each for each in Canonicalization}
_LENGTH: Final = re.compile(r"[0-9]{1,76}")
_TIME: Final = re.compile(r"[0-9]{1,12}")
_FIELD_NAMES: Final = re.compile(r"[!-9<-~]++(?::[!-9<-~]++)*+")
_AROUND_COLON: Final = re.compile(r"[ \t\r\n]*+:[ \t\r\n]*+")
_ENCODED: Final = re.compile(r"(?:=[0-9A-F]{2})+")


class DkimSignature(msgspec.Struct, frozen=True):
    """A signature. `field`: as it came, without its last CRLF. `domain` and `selector` as A-labels in lower case.
    `identity`: i=, decoded. `names`: h=, in lower case. `head`: the canonicalization of the header section."""

    field: bytes
    kind: KeyKind
    algorithm: str
    domain: str
    selector: str
    identity: str
    names: tuple[bytes, ...]
    head: Canonicalization
    body: BodyForm
    body_hash: bytes
    data: bytes
    data_text: str
    signed_s: int | None = None
    expires_s: int | None = None

    @property
    def identity_domain(self) -> str:
        return self.identity.rpartition("@")[2]


class SignatureFault(msgspec.Struct, frozen=True):
    """Why a field is no signature. `result`: a word of RFC 8601 §2.7.1. The others: what could be read, or empty."""

    result: str
    text: str
    domain: str = ""
    selector: str = ""
    algorithm: str = ""
    data_text: str = ""


class FaultyTagError(Exception):
    """A tag is wrong. It never leaves the functions that read a whole field."""

    def __init__(self, text: str, result: str = results.NEUTRAL) -> None:
        super().__init__(text)
        self.text, self.result = text, result


def key_name(selector: str, domain: str) -> str:
    """Where the DNS has the key (RFC 6376 §3.6.2.1)."""
    return f"{selector}._domainkey.{domain}"


def parse_signature(field: bytes) -> DkimSignature | SignatureFault:
    """A whole field, without its last CRLF."""
    found: dict[str, str] = {}
    try:
        found = read_tags(field)
        return _signature(field, SignatureTags(found))
    except FaultyTagError as error:
        return SignatureFault(
            error.result,
            error.text,
            domain=_name_or_nothing(found.get("d", "")),
            selector=_name_or_nothing(found.get("s", "")),
            algorithm=_shown(found.get("a", "")),
            data_text=_shown(tags.compact(found.get("b", ""))),
        )


def read_tags(field: bytes) -> dict[str, str]:
    """The tags of a field's value. Raises FaultyTagError."""
    if len(field) > FIELD_MAX:
        raise FaultyTagError(f"the field has {len(field)} octets, more than {FIELD_MAX}", results.PERMERROR)
    try:
        text = field.partition(b":")[2].decode("utf-8")
    except UnicodeDecodeError:
        raise FaultyTagError("the field is not in UTF-8") from None
    found = tags.parse(text)
    if isinstance(found, tags.TagFault):
        raise FaultyTagError(found.text)
    return found


class SignatureTags:
    """What the tags of a signature mean. Each method raises FaultyTagError if its tag is wrong."""

    __slots__ = ("found",)

    def __init__(self, found: dict[str, str]) -> None:
        self.found = found

    def required(self, name: str) -> str:
        value = self.found.get(name)
        if not value:
            raise FaultyTagError(f"the tag {name}= is {'missing' if value is None else 'empty'}", results.PERMERROR)
        return value

    def algorithm(self) -> tuple[str, KeyKind]:
        value = self.required("a").lower()
        kind = _ALGORITHMS.get(value)
        if kind is not None:
            return value, kind
        if value == "rsa-sha1":
            raise FaultyTagError("it was made with SHA-1, which nobody may trust any more (RFC 8301)", results.POLICY)
        raise FaultyTagError(f"its algorithm is not known (a={_shown(value)})")

    def key_place(self) -> tuple[str, str]:
        """Domain and selector."""
        domain, selector = self._name("d"), self._name("s")
        if len(key_name(selector, domain)) > KEY_NAME_MAX:
            raise FaultyTagError("the name of its key is longer than a name in the DNS (d=, s=)", results.PERMERROR)
        return domain, selector

    def names(self) -> tuple[bytes, ...]:
        value = _AROUND_COLON.sub(":", self.required("h"))
        if not _FIELD_NAMES.fullmatch(value):
            raise FaultyTagError("the list of signed fields cannot be read (h=)")
        if value.count(":") >= NAMES_MAX:
            raise FaultyTagError(f"it names more than {NAMES_MAX} fields (h=)", results.PERMERROR)
        return tuple(value.lower().encode("ascii").split(b":"))

    def canonicalizations(self) -> tuple[Canonicalization, Canonicalization]:
        """Of the header section and of the body."""
        value = self.found.get("c", "simple/simple")
        head, slash, body = value.partition("/")
        found = _FORMS.get(head.strip().lower()), _FORMS.get(body.strip().lower() if slash else "simple")
        if found[0] is None or found[1] is None:
            raise FaultyTagError(f"its canonicalization is not known (c={_shown(value)})")
        return found[0], found[1]

    def length(self) -> int | None:
        value = self.found.get("l")
        if value is None:
            return None
        if not _LENGTH.fullmatch(value):
            raise FaultyTagError(f"the length of the body is no number (l={_shown(value)})")
        return int(value)

    def time_s(self, name: str) -> int | None:
        value = self.found.get(name)
        if value is None:
            return None
        if not _TIME.fullmatch(value):
            raise FaultyTagError(f"the time is no number of up to 12 digits ({name}={_shown(value)})")
        return int(value)

    def octets(self, name: str) -> bytes:
        """What stands in base64."""
        try:
            return binascii.a2b_base64(tags.compact(self.required(name)).encode("ascii"), strict_mode=True)
        except (ValueError, UnicodeError):
            raise FaultyTagError(f"the tag {name}= is no base64") from None

    def body_hash(self) -> bytes:
        value = self.octets("bh")
        if len(value) != 32:
            raise FaultyTagError(f"the hash of the body has {len(value)} octets, not 32 (bh=)", results.PERMERROR)
        return value

    def identity(self, domain: str) -> str:
        """i=: whom the domain speaks for, in this domain or one below it."""
        value = self.found.get("i")
        if value is None:
            return "@" + domain
        local_part, at, written = tags.compact(value).rpartition("@")
        if not at or len(value) > IDENTITY_MAX:
            raise FaultyTagError(f"the identity is no address (i={_shown(value)})")
        try:
            name = canonical_domain(written)
        except ValueError:
            raise FaultyTagError(f"the identity has no domain name (i={_shown(value)})") from None
        if not is_within(name, domain):
            raise FaultyTagError(
                f"the identity is not in its domain (i={_shown(value)}, d={domain})", results.PERMERROR
            )
        return f"{_ENCODED.sub(_decoded, local_part)}@{name}"

    def _name(self, tag: str) -> str:
        value = self.required(tag)
        try:
            return canonical_domain(value)
        except ValueError:
            raise FaultyTagError(f"the tag {tag}= is no domain name: {_shown(value)}") from None


def _signature(field: bytes, read: SignatureTags) -> DkimSignature:
    version = read.required("v")
    if version != "1":
        raise FaultyTagError(f"its version is not known (v={_shown(version)})")
    domain, _ = read.key_place()
    return signature_of(field, read, read.identity(domain))


def signature_of(field: bytes, read: SignatureTags, identity: str) -> DkimSignature:
    """What DKIM-Signature and ARC-Message-Signature have in common. Raises FaultyTagError."""
    ways = read.found.get("q")
    if ways is not None and "dns/txt" not in tags.compact(ways).lower().split(":"):
        raise FaultyTagError(f"its key cannot be asked for in this way (q={_shown(ways)})")
    algorithm, kind = read.algorithm()
    domain, selector = read.key_place()
    names = read.names()
    if b"from" not in names:
        raise FaultyTagError("it does not sign the field From (h=)", results.PERMERROR)
    head, body = read.canonicalizations()
    signed_s, expires_s = read.time_s("t"), read.time_s("x")
    if signed_s is not None and expires_s is not None and expires_s <= signed_s:
        raise FaultyTagError("it ends before it was made (x= is not behind t=)", results.PERMERROR)
    return DkimSignature(
        field=field,
        kind=kind,
        algorithm=algorithm,
        domain=domain,
        selector=selector,
        identity=identity,
        names=names,
        head=head,
        body=BodyForm(body, read.length()),
        body_hash=read.body_hash(),
        data=read.octets("b"),
        data_text=tags.compact(read.found["b"]),
        signed_s=signed_s,
        expires_s=expires_s,
    )


def _decoded(encoded: re.Match[str]) -> str:
    """DKIM's quoted-printable (RFC 6376 §2.11)."""
    return bytes.fromhex(encoded[0].replace("=", "")).decode("utf-8", "backslashreplace")


def _name_or_nothing(text: str) -> str:
    try:
        return canonical_domain(text)
    except ValueError:
        return ""


def _shown(text: str) -> str:
    """Text of strangers, short and harmless."""
    return ascii(text[:200])[1:-1]
