"""Target `dkim`: a key record in the first line, then a message: DKIM-Signature, ARC fields, keys and the body.

What must hold: nothing raises; each result is a word of RFC 8601 and, unless it is a pass, says why without a control
character; where the body is cut changes nothing; a message that passed is no longer right when its signed body is
another one; what we sign ourselves, whatever it is, passes.
"""

from __future__ import annotations

import asyncio
import re

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from postroad.mail.message import joins
from postroad.trust import tags
from postroad.trust.arc import ArcResult, ArcVerification
from postroad.trust.dkim_body import Canonicalization
from postroad.trust.dkim_head import SignedHead, body_start
from postroad.trust.dkim_key import DkimKey, parse_key
from postroad.trust.dkim_sign import DkimSigner, SigningKey, SigningOptions, public_record
from postroad.trust.dkim_signature import DkimSignature, parse_signature
from postroad.trust.dkim_verify import DkimOptions, DkimResult, DkimVerification
from postroad.world.dns import DnsAnswer, DnsStatus
from tests.fuzz import choices

NOW_S = 1_764_600_000
KEY = SigningKey("example.org", "e1", Ed25519PrivateKey.from_private_bytes(bytes(range(32))))
RECORD = public_record(KEY.private)
_OPTIONS = DkimOptions(signatures_max=4)
_RESULTS = {"pass", "fail", "neutral", "policy", "temperror", "permerror"}
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
_SIGNERS = tuple(
    DkimSigner((KEY,), SigningOptions(head=head, body=body)) for head in Canonicalization for body in Canonicalization
)


class _Answers:
    def __init__(self, record: str) -> None:
        self._answer: DnsAnswer[str] = DnsAnswer(DnsStatus.FOUND, (record,))

    async def text(self, name: str) -> DnsAnswer[str]:
        assert 0 < len(name) <= 253 and name.isascii() and name == name.lower()
        return self._answer


def check(data: bytes, *, hasty: bool = False) -> None:
    """`hasty`: the body is cut in one way only."""
    read = choices.read(data)
    record, _, message = read.wire.partition(b"\r\n")
    _texts(record.decode("utf-8", "replace"), message)
    whole = _judged(record, message, [len(message)])
    if not hasty:
        assert _judged(record, message, list(read.cuts(len(message)))) == whole
        assert _judged(record, message, list(range(len(message)))) == whole
    results, chain = whole
    for result in results:
        assert result.result in _RESULTS and result.passes == (result.reason == "")
        assert not _CONTROL.search(result.reason + result.domain + result.selector + result.algorithm)
    assert chain.result in ("none", "pass", "fail") and (chain.result == "fail") == (chain.reason != "")
    assert not _CONTROL.search(chain.reason)
    _changed(record, message, results)
    _signed(message, read.mode)


def _texts(record: str, message: bytes) -> None:
    found, faults = tags.gather(record)
    assert (tags.parse(record) == found) == (not faults)
    key = parse_key(record)
    assert isinstance(key, DkimKey) or (key.text and key.result in _RESULTS and not _CONTROL.search(key.text))
    signature = parse_signature(message)
    assert isinstance(signature, DkimSignature) or (signature.text and signature.result in _RESULTS)


def _judged(record: bytes, message: bytes, cuts: list[int]) -> tuple[tuple[DkimResult, ...], ArcResult]:
    start = body_start(message)
    head = SignedHead(message[:start])
    chain = ArcVerification(head)
    verification = DkimVerification(head, _OPTIONS, further=chain.forms)
    for piece in choices.parted(message[start:], [cut - start for cut in cuts if cut > start]):
        verification.feed(piece)
    answers = _Answers(record.decode("utf-8", "replace"))

    async def ask() -> None:
        await verification.ask(answers)
        await chain.ask(answers)

    asyncio.run(ask())
    found, bodies = verification.conclude(NOW_S)
    return found, chain.conclude(bodies)


def _changed(record: bytes, message: bytes, results: tuple[DkimResult, ...]) -> None:
    """One octet more in the body."""
    if not any(each.passes for each in results) or body_start(message + b"z") != body_start(message):
        return
    after, _ = _judged(record, message + b"z", [])
    for before, now in zip(results, after, strict=True):
        if before.passes and before.signature is not None and before.signature.body.length is None:
            assert now.result in ("fail", "neutral"), now


def _signed(message: bytes, mode: int) -> None:
    """Content as it is kept has lines that end with CRLF, and may stand under fields."""
    if not joins(message):
        return
    whole = _SIGNERS[mode % len(_SIGNERS)].sign_content(message, NOW_S) + message
    results, _ = _judged(RECORD.encode(), whole, [])
    assert results[0].passes, results[0].reason
