"""Verifies the DKIM signatures of one message (RFC 6376 §6, RFC 8601 §2.7.1).

Four steps: make a DkimVerification of the head, `feed` it the body as it arrives, `ask` for the keys (at any
time, best while the body arrives), and `conclude`. No I/O of its own: the resolver is handed in, and so is the time.

What always holds: keys are asked for side by side, each once. Signatures beyond `signatures_max` are not verified, and
their results say so. Only the last step uses much of the processor: about 0.1 ms for an RSA signature.

How it fails: never by an exception. A signature that cannot be verified is a DkimResult that says why.
"""

from __future__ import annotations

import asyncio
import hashlib
from typing import Annotated, Final, Protocol

import msgspec
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
from cryptography.hazmat.primitives.asymmetric.utils import Prehashed
from msgspec import Meta

from postroad.trust import results
from postroad.trust.dkim_body import BodyForm, BodyHash, BodyHashes
from postroad.trust.dkim_head import SignedHead
from postroad.trust.dkim_key import DkimKey, KeyFault, KeyKind, is_key, parse_key
from postroad.trust.dkim_signature import DkimSignature, SignatureFault, key_name, parse_signature
from postroad.world.dns import DnsAnswer, DnsStatus

FIELD_NAME: Final = b"dkim-signature"
KEYS_PER_NAME_MAX: Final = 4  # of several keys at one name these are tried (RFC 6376 §3.6.2.2 leaves it open)

_PADDING: Final = PKCS1v15()
_HASHED: Final = Prehashed(hashes.SHA256())

SHOWN_DATA: Final = 8  # characters of b= that tell signatures apart in a report (RFC 6008 §4)
NO_SIGNATURE: Final = results.Found(results.DKIM, results.NONE, "", (), "The message has no DKIM signature.")

PublicKeys = tuple[DkimKey | KeyFault, ...]


class Texts(Protocol):
    """Who is asked for keys: `world.dns.Resolver` can do it."""

    async def text(self, name: str) -> DnsAnswer[str]:
        """TXT records, the strings of each put together."""
        ...


class DkimOptions(msgspec.Struct, frozen=True):
    """What is verified, and how far clocks may differ."""

    signatures_max: Annotated[
        int, Meta(ge=1, le=100, description="The most DKIM signatures of a message that are verified.")
    ] = 10
    skew_s: Annotated[
        int,
        Meta(
            ge=0,
            description="How far the clocks of signers may differ from ours when the end of a signature is checked.",
        ),
    ] = 300


def found(verified: tuple[DkimResult, ...]) -> tuple[results.Found, ...]:
    """One for each signature; one that says so if there is none."""
    return tuple(each.found for each in verified) or (NO_SIGNATURE,)


class DkimResult(msgspec.Struct, frozen=True):
    """What became of one signature. `result`: a word of RFC 8601 §2.7.1. `reason`: in words, empty for a pass.

    `identity`: i=. `data_text`: b=. `testing`: the domain only tries DKIM, a failure counts for nothing. `unsigned`:
    octets at the end of the canonical body that l= leaves out; anybody may have written them. `bits`: of the key.
    `key`: the one that it was tried with.
    """

    result: str
    reason: str = ""
    domain: str = ""
    selector: str = ""
    identity: str = ""
    algorithm: str = ""
    data_text: str = ""
    testing: bool = False
    unsigned: int = 0
    bits: int = 0
    signature: DkimSignature | None = None
    key: DkimKey | None = None

    @property
    def passes(self) -> bool:
        return self.result == results.PASS

    @property
    def found(self) -> results.Found:
        """The same in the terms of Authentication-Results (RFC 8601 §2.7.1, RFC 6008)."""
        named = (
            ("d", self.domain),
            ("i", self.identity),
            ("s", self.selector),
            ("a", self.algorithm),
            ("b", self.data_text[:SHOWN_DATA]),
        )
        properties = tuple(("header", name, value) for name, value in named if value)
        return results.Found(results.DKIM, self.result, self.reason, properties, self._told())

    def _told(self) -> str:
        who = (
            f"of {self.domain} (selector {self.selector})" if self.domain and self.selector else "of an unknown domain"
        )
        if not self.passes:
            return f"The DKIM signature {who} does not count: {self.reason}."
        words = [f"The DKIM signature {who} is right: {self.algorithm}, a key of {self.bits} bits"]
        if self.unsigned:
            words.append(f"the last {self.unsigned} octets of the body are not signed (l=)")
        if self.testing:
            words.append("the domain only tests DKIM (t=y)")
        return "; ".join(words) + "."


class DkimVerification:
    """The signatures of one message."""

    __slots__ = ("_bodies", "_keys", "_options", "_signatures", "head")

    def __init__(self, head: SignedHead, options: DkimOptions, *, further: tuple[BodyForm, ...] = ()) -> None:
        """`head`: the header section as it came. `further`: forms of the body that others want, such as ARC's, so that
        the body is hashed once for all."""
        self.head = head
        self._options = options
        self._keys: dict[str, PublicKeys] = {}
        fields = self.head.fields(FIELD_NAME)
        limit = options.signatures_max
        beyond = SignatureFault(results.PERMERROR, f"the message has {len(fields)} signatures, more than {limit}")
        self._signatures: list[DkimSignature | SignatureFault] = [parse_signature(each) for each in fields[:limit]]
        if len(fields) > limit:
            self._signatures.append(beyond)
        forms = [each.body for each in self._signatures if isinstance(each, DkimSignature)]
        self._bodies = BodyHashes([*forms, *further])

    @property
    def wants_body(self) -> bool:
        """Whether there is anything to hash."""
        return self._bodies.wanted

    def feed(self, piece: bytes) -> None:
        """The next octets of the body, which begins behind the empty line."""
        self._bodies.feed(piece)

    async def ask(self, texts: Texts) -> None:
        """Asks for all keys side by side."""
        names = {
            key_name(each.selector, each.domain): None for each in self._signatures if isinstance(each, DkimSignature)
        }
        self._keys.update(await ask_keys(texts, tuple(names)))

    def conclude(self, now_s: int) -> tuple[tuple[DkimResult, ...], dict[BodyForm, BodyHash]]:
        """The result of each signature from the top, and the hashes of the body. Behind `ask` and the last `feed`."""
        bodies = self._bodies.results()
        return tuple(self._result(each, bodies, now_s) for each in self._signatures), bodies

    def _result(
        self, signature: DkimSignature | SignatureFault, bodies: dict[BodyForm, BodyHash], now_s: int
    ) -> DkimResult:
        if isinstance(signature, SignatureFault):
            return DkimResult(
                signature.result,
                signature.text,
                domain=signature.domain,
                selector=signature.selector,
                algorithm=signature.algorithm,
                data_text=signature.data_text,
            )
        keys = self._keys.get(key_name(signature.selector, signature.domain), ())
        outcome = _verified(signature, keys, self.head, bodies[signature.body], now_s, self._options)
        return msgspec.structs.replace(
            outcome,
            domain=signature.domain,
            selector=signature.selector,
            identity=signature.identity,
            algorithm=signature.algorithm,
            data_text=signature.data_text,
            signature=signature,
        )


async def ask_keys(texts: Texts, names: tuple[str, ...]) -> dict[str, PublicKeys]:
    """The keys at these names, asked for side by side. Each has at least one key or fault."""
    if len(names) == 1:  # as nearly always: no task is made
        return {names[0]: read_keys(names[0], await texts.text(names[0]))}
    answers = await asyncio.gather(*(texts.text(name) for name in names))
    return {name: read_keys(name, answer) for name, answer in zip(names, answers, strict=True)}


def read_keys(name: str, answer: DnsAnswer[str]) -> PublicKeys:
    """What the DNS says of a key. Records at its name that are no keys do not count."""
    match answer.status:
        case DnsStatus.ERROR:
            return (KeyFault(results.TEMPERROR, f"the key {name} cannot be looked up now: {answer.text}"),)
        case DnsStatus.NXDOMAIN:
            return (KeyFault(results.PERMERROR, f"the key {name} does not exist in the DNS"),)
        case DnsStatus.NODATA:
            return (KeyFault(results.PERMERROR, f"the name {name} has no TXT record in the DNS"),)
        case DnsStatus.FOUND:
            keys = tuple(parse_key(each) for each in answer.records if is_key(each))[:KEYS_PER_NAME_MAX]
            return keys or tuple(parse_key(each) for each in answer.records[:1])


def _verified(
    signature: DkimSignature,
    keys: PublicKeys,
    head: SignedHead,
    body: BodyHash,
    now_s: int,
    options: DkimOptions,
) -> DkimResult:
    """The result without the facts that the signature itself gives."""
    if signature.expires_s is not None and signature.expires_s + options.skew_s < now_s:
        return DkimResult(results.PERMERROR, "the signature has expired (x=)")
    key = chosen_key(keys, signature.kind)
    if isinstance(key, KeyFault):
        return DkimResult(key.result, key.text)
    if key.strict and signature.identity_domain != signature.domain:
        reason = f"the key does not speak for domains below {signature.domain} (t=s), but i= names one"
        return DkimResult(results.PERMERROR, reason, bits=key.bits, testing=key.testing)
    fault = body_fault(signature.body, signature.body_hash, body)
    if fault is None and not is_signed(key, signature.data, signed_data(head, signature)):
        fault = "the signature does not match: a signed field has changed, or another key was used"
    unsigned = 0 if signature.body.length is None else max(body.size - signature.body.length, 0)
    if fault is None:
        return DkimResult(results.PASS, unsigned=unsigned, bits=key.bits, testing=key.testing, key=key)
    if key.testing:
        return DkimResult(
            results.NEUTRAL, f"{fault}; the domain only tests DKIM (t=y)", bits=key.bits, testing=True, key=key
        )
    return DkimResult(results.FAIL, fault, bits=key.bits, key=key)


def chosen_key(keys: PublicKeys, kind: KeyKind) -> DkimKey | KeyFault:
    """The first key of this kind; if there is none, why."""
    for key in keys:
        if isinstance(key, DkimKey) and key.kind is kind:
            return key
    for key in keys:
        if isinstance(key, KeyFault):
            return key
    if not keys:
        return KeyFault(results.TEMPERROR, "nobody asked for its key")
    return KeyFault(results.PERMERROR, f"the key is not of the kind that the signature says ({kind.value})")


def signed_data(head: SignedHead, signature: DkimSignature) -> bytes:
    return head.data(signature.names, signature.field, signature.head)


def body_fault(form: BodyForm, expected: bytes, body: BodyHash) -> str | None:
    """Why the body is not the one that was signed."""
    if form.length is not None and form.length > body.size:
        return f"the body was cut: {form.length} octets are signed (l=), {body.size} are there"
    if body.digest != expected:
        return "the body has changed since it was signed (its hash is not bh=)"
    return None


def is_signed(key: DkimKey, signature: bytes, data: bytes) -> bool:
    """Whether the owner of the key has signed these data (RFC 6376 §3.3, RFC 8463 §3)."""
    return is_signed_digest(key, signature, hashlib.sha256(data).digest())


def is_signed_digest(key: DkimKey, signature: bytes, digest: bytes) -> bool:
    """The same of the SHA-256 of data."""
    try:
        if isinstance(key.public, Ed25519PublicKey):
            key.public.verify(signature, digest)
        else:
            key.public.verify(signature, digest, _PADDING, _HASHED)
    except InvalidSignature:
        return False
    return True
