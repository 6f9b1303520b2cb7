"""Validates the chain of ARC sets of one message (RFC 8617 §5.2).

Made like `dkim_verify`: make an ArcVerification of the head, give its `forms` to the DkimVerification of the same head
(`further`), `ask` for the keys, and `conclude` with the hashes that the other one gives. No I/O of its own.

What always holds: all seals of a chain are verified, and the newest signature of the message; older ones are tried to
find out since when the message has not changed. Work is linear in the size of the header section. A chain has at most
SETS_MAX sets.

How it fails: any fault makes the chain `fail`, and a failed look-up does, too (§5.2.1); the ArcResult says which set
and why. A message whose chain failed is to be treated as one without a chain.
"""

from __future__ import annotations

import hashlib
import re
from typing import Final, TypeVar

import msgspec

from postroad.trust import results
from postroad.trust.dkim_body import BodyForm, BodyHash, Canonicalization
from postroad.trust.dkim_head import SignedHead, canonical, without_signature_data
from postroad.trust.dkim_key import DkimKey, KeyFault, KeyKind
from postroad.trust.dkim_signature import (
    DkimSignature,
    FaultyTagError,
    SignatureTags,
    key_name,
    read_tags,
    signature_of,
)
from postroad.trust.dkim_verify import (
    PublicKeys,
    Texts,
    ask_keys,
    body_fault,
    chosen_key,
    is_signed,
    is_signed_digest,
    signed_data,
)

T = TypeVar("T")

SETS_MAX: Final = 50  # RFC 8617 §4.2.1

RESULTS_NAME: Final = b"arc-authentication-results"
SIGNATURE_NAME: Final = b"arc-message-signature"
SEAL_NAME: Final = b"arc-seal"

_NAMES: Final = (RESULTS_NAME, SIGNATURE_NAME, SEAL_NAME)
_PRINTED: Final = {
    RESULTS_NAME: "ARC-Authentication-Results",
    SIGNATURE_NAME: "ARC-Message-Signature",
    SEAL_NAME: "ARC-Seal",
}
_RELAXED: Final = Canonicalization.RELAXED
_INSTANCE: Final = re.compile(r"0*+([1-9][0-9]?)")
# arc-info = instance [CFWS] ";" authres-payload
_RESULTS: Final = re.compile(
    rb"[^:]*+:[ \t\r\n]*+i[ \t\r\n]*+=[ \t\r\n]*+([0-9]{1,4})[ \t\r\n]*+(?:\([^()]{0,200}\)[ \t\r\n]*+){0,9};(.*)",
    re.DOTALL,
)


_ROUGH_INSTANCE: Final = re.compile(rb"(?s:.*?)[:; \t\n]i[ \t\r\n]*+=[ \t\r\n]*+0*+([0-9]{1,2})[ \t\r\n]*+(?:;|\Z)")


class ArcSeal(msgspec.Struct, frozen=True):
    """The field ARC-Seal, read. `validation`: cv=."""

    field: bytes
    kind: KeyKind
    domain: str
    selector: str
    validation: str
    data: bytes


class ArcSet(msgspec.Struct, frozen=True):
    """What one host added. `results`: the field ARC-Authentication-Results; `payload`: what stands behind its i=."""

    instance: int
    results: bytes
    payload: bytes
    signature: DkimSignature
    seal: ArcSeal


class ArcResult(msgspec.Struct, frozen=True):
    """`result`: none, pass or fail. `reason`: why it fails. `sets`: of a chain that passes, the oldest first.

    `oldest_pass`: the oldest set from which on the message did not change; 0: from the first one on (§5.2 step 5).
    `temporary`: it fails because a key could not be looked up now. `instances`: the highest i= that could be read.
    `sealed_as_failed`: its newest seal says so already.
    """

    result: str
    reason: str = ""
    sets: tuple[ArcSet, ...] = ()
    oldest_pass: int = 0
    temporary: bool = False
    instances: int = 0
    sealed_as_failed: bool = False

    @property
    def domains(self) -> tuple[str, ...]:
        """Who sealed a chain that passes, the oldest first."""
        return tuple(each.seal.domain for each in self.sets)

    @property
    def found(self) -> results.Found:
        """The same in the terms of Authentication-Results (RFC 8617 §10.2)."""
        if self.result == results.NONE:
            return results.Found(results.ARC, self.result, "", (), "The message has no ARC chain.")
        if self.result != results.PASS:
            told = f"The ARC chain does not count: {self.reason}."
            return results.Found(results.ARC, self.result, self.reason, (), told)
        properties = (("header", "oldest-pass", str(self.oldest_pass)),)
        since = f"since set {self.oldest_pass}" if self.oldest_pass else "since it was sealed first"
        told = f"The ARC chain is whole: sealed by {', then by '.join(self.domains)}; not changed {since}."
        return results.Found(results.ARC, self.result, "", properties, told)


class _BrokenChainError(Exception):
    """It never leaves this module."""

    def __init__(self, text: str, temporary: bool = False) -> None:
        super().__init__(text)
        self.text, self.temporary = text, temporary


class ArcVerification:
    """The chain of one message. What can be seen without keys: `sets`, the oldest first; `broken`: why there are none,
    although there are fields of ARC; `failed`: the newest seal says that the chain fails."""

    __slots__ = ("_head", "_keys", "broken", "failed", "instances", "sets")

    def __init__(self, head: SignedHead) -> None:
        self._head = head
        self._keys: dict[str, PublicKeys] = {}
        self.sets: tuple[ArcSet, ...] = ()
        self.broken = ""
        self.failed = False
        self.instances = 0
        try:
            self.sets = self._read()
        except _BrokenChainError as error:
            self.broken = error.text

    @property
    def is_whole(self) -> bool:
        return bool(self.sets) and not self.broken

    @property
    def forms(self) -> tuple[BodyForm, ...]:
        """The forms of the body whose hashes `conclude` needs."""
        return tuple(dict.fromkeys(each.signature.body for each in self._tried()))

    async def ask(self, texts: Texts) -> None:
        """Asks for all keys side by side."""
        names = [key_name(each.seal.selector, each.seal.domain) for each in self.sets]
        names += [key_name(each.signature.selector, each.signature.domain) for each in self._tried()]
        if names:
            self._keys = await ask_keys(texts, tuple(dict.fromkeys(names)))

    def conclude(self, bodies: dict[BodyForm, BodyHash]) -> ArcResult:
        """Behind `ask`; `bodies` has all the `forms`."""
        if not self.sets and not self.broken:
            return ArcResult(results.NONE)
        try:
            if self.broken:
                raise _BrokenChainError(self.broken)
            self._check_signature(self.sets[-1], bodies)
            self._check_seals()
        except _BrokenChainError as error:
            return ArcResult(
                results.FAIL,
                error.text,
                temporary=error.temporary,
                instances=self.instances,
                sealed_as_failed=self.failed,
            )
        return ArcResult(results.PASS, sets=self.sets, oldest_pass=self._oldest_pass(bodies), instances=self.instances)

    def _tried(self) -> tuple[ArcSet, ...]:
        """The sets whose signature of the message is tried. Old ones with l= would each need a hash of their own."""
        return tuple(
            each for each in self.sets if each.instance == self.instances or each.signature.body.length is None
        )

    def _read(self) -> tuple[ArcSet, ...]:
        """The sets, checked for all that can be seen without keys (§5.2 steps 1 to 3)."""
        fields = {name: self._head.fields(name) for name in _NAMES}
        if not any(fields.values()):
            return ()
        self.instances = max(_rough_instance(field) for of_name in fields.values() for field in of_name)
        for name, of_name in fields.items():
            if len(of_name) > SETS_MAX:
                raise _BrokenChainError(f"there are {len(of_name)} fields {_PRINTED[name]}, more than {SETS_MAX}")
        seals: dict[int, ArcSeal] = {}
        signatures: dict[int, DkimSignature] = {}
        found: dict[int, tuple[bytes, bytes]] = {}
        for field in fields[SEAL_NAME]:
            _put(seals, *_read_seal(field), SEAL_NAME)
        for field in fields[SIGNATURE_NAME]:
            _put(signatures, *_read_signature(field), SIGNATURE_NAME)
        for field in fields[RESULTS_NAME]:
            instance, payload = _read_results(field)
            _put(found, instance, (field, payload), RESULTS_NAME)
        self.failed = self.instances in seals and seals[self.instances].validation == "fail"
        return _sets(self.instances, seals, signatures, found)

    def _check_signature(self, of: ArcSet, bodies: dict[BodyForm, BodyHash]) -> None:
        signature, where = of.signature, f"the ARC-Message-Signature of set {of.instance}"
        fault = body_fault(signature.body, signature.body_hash, bodies[signature.body])
        if fault is not None:
            raise _BrokenChainError(f"{where}: {fault}")
        key = self._key(signature.selector, signature.domain, signature.kind, where)
        if not is_signed(key, signature.data, signed_data(self._head, signature)):
            raise _BrokenChainError(f"{where} does not match: a signed field has changed, or another key was used")

    def _check_seals(self) -> None:
        """Each seal signs all sets up to its own (§5.1.1); what they have in common is hashed once."""
        digests = seal_digests(self.sets)
        for of, digest in zip(reversed(self.sets), reversed(digests), strict=True):
            where = f"the ARC-Seal of set {of.instance}"
            key = self._key(of.seal.selector, of.seal.domain, of.seal.kind, where)
            if not is_signed_digest(key, of.seal.data, digest):
                raise _BrokenChainError(f"{where} does not match: a field of the chain has changed")

    def _key(self, selector: str, domain: str, kind: KeyKind, where: str) -> DkimKey:
        key = chosen_key(self._keys.get(key_name(selector, domain), ()), kind)
        if isinstance(key, KeyFault):
            raise _BrokenChainError(f"{where}: {key.text}", key.result == results.TEMPERROR)
        return key

    def _oldest_pass(self, bodies: dict[BodyForm, BodyHash]) -> int:
        tried = {each.instance: each for each in self._tried()}
        for instance in range(self.instances - 1, 0, -1):
            try:
                if instance not in tried:
                    return instance + 1
                self._check_signature(tried[instance], bodies)
            except _BrokenChainError:
                return instance + 1
        return 0


def as_judged(head: SignedHead, result: str) -> ArcResult:
    """The chain of a message about which a host that we believe (ourselves) found `result` when the message came. What
    can be seen without keys is looked at again: the message may have changed since."""
    chain = ArcVerification(head)
    if chain.is_whole and result == results.PASS:
        return ArcResult(results.PASS, sets=chain.sets, instances=chain.instances)
    if not chain.sets and not chain.broken and result == results.NONE:
        return ArcResult(results.NONE)
    return ArcResult(
        results.FAIL, chain.broken or "it failed when the message came", instances=chain.instances,
        sealed_as_failed=chain.failed,
    )


def seal_digests(sets: tuple[ArcSet, ...]) -> list[bytes]:
    """The SHA-256 of what each seal signs."""
    running, digests = hashlib.sha256(), []
    for each in sets:
        running.update(_line(each.results) + _line(each.signature.field))
        own = running.copy()
        own.update(canonical(without_signature_data(each.seal.field), _RELAXED))
        digests.append(own.digest())
        running.update(_line(each.seal.field))
    return digests


def seal_lines(sets: tuple[ArcSet, ...]) -> bytes:
    """What the seal of a further set signs of these."""
    return b"".join([_line(field) for each in sets for field in (each.results, each.signature.field, each.seal.field)])


def _line(field: bytes) -> bytes:
    return canonical(field, _RELAXED) + b"\r\n"


def _sets(
    count: int, seals: dict[int, ArcSeal], signatures: dict[int, DkimSignature], found: dict[int, tuple[bytes, bytes]]
) -> tuple[ArcSet, ...]:
    """All fields in sets, none missing, each seal with the cv= that it must have."""
    if count in seals and seals[count].validation == "fail":
        raise _BrokenChainError(f"the host of set {count} found that it fails ({seals[count].domain})")
    sets = []
    for instance in range(1, count + 1):
        for name, of in ((SEAL_NAME, seals), (SIGNATURE_NAME, signatures), (RESULTS_NAME, found)):
            if instance not in of:
                raise _BrokenChainError(f"set {instance} has no {_PRINTED[name]}")
        wanted, seal = "none" if instance == 1 else "pass", seals[instance]
        if seal.validation != wanted:
            raise _BrokenChainError(f"the seal of set {instance} says cv={seal.validation} instead of cv={wanted}")
        sets.append(ArcSet(instance, *found[instance], signatures[instance], seal))
    return tuple(sets)


def _put(into: dict[int, T], instance: int, value: T, name: bytes) -> None:
    if instance in into:
        raise _BrokenChainError(f"set {instance} has more than one {_PRINTED[name]}")
    into[instance] = value


def _read_results(field: bytes) -> tuple[int, bytes]:
    found = _RESULTS.match(field)
    if found is None:
        raise _BrokenChainError("an ARC-Authentication-Results does not begin with the number of its set (i=)")
    return _instance(found[1].decode(), RESULTS_NAME), found[2]


def _read_signature(field: bytes) -> tuple[int, DkimSignature]:
    try:
        read = SignatureTags(read_tags(field))
        instance = _instance(read.required("i"), SIGNATURE_NAME)
        signature = signature_of(field, read, "")
    except FaultyTagError as error:
        raise _BrokenChainError(f"an ARC-Message-Signature cannot be used: {error.text}") from None
    if SEAL_NAME in signature.names:
        raise _BrokenChainError(f"the ARC-Message-Signature of set {instance} signs ARC-Seal, which is not allowed")
    return instance, signature


def _read_seal(field: bytes) -> tuple[int, ArcSeal]:
    try:
        read = SignatureTags(read_tags(field))
        instance = _instance(read.required("i"), SEAL_NAME)
        if "h" in read.found:  # §4.1.3
            raise _BrokenChainError(f"the ARC-Seal of set {instance} has a list of fields (h=), which is not allowed")
        _, kind = read.algorithm()
        domain, selector = read.key_place()
        read.time_s("t")
        validation = read.required("cv").lower()
        if validation not in ("none", "pass", "fail"):
            raise _BrokenChainError(f"the ARC-Seal of set {instance} has a cv= that is not known")
        return instance, ArcSeal(field, kind, domain, selector, validation, read.octets("b"))
    except FaultyTagError as error:
        raise _BrokenChainError(f"an ARC-Seal cannot be used: {error.text}") from None


def _rough_instance(field: bytes) -> int:
    """i= of a field that may be broken in other ways; 0 if there is none."""
    found = _ROUGH_INSTANCE.match(field)
    return int(found[1]) if found else 0


def _instance(value: str, name: bytes) -> int:
    found = _INSTANCE.fullmatch(value)
    if found is None or int(found[1]) > SETS_MAX:
        raise _BrokenChainError(f"the number of a set (i=) in {_PRINTED[name]} is not 1 to {SETS_MAX}")
    return int(found[1])
