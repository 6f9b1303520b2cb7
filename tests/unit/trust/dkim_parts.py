"""Keys, a DNS of texts, and messages for the tests of DKIM and ARC."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import re
from collections.abc import Iterable
from functools import cache

from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey, generate_private_key
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from postroad.trust.dkim_body import BodyForm, BodyHash, BodyHashes, Canonicalization
from postroad.trust.dkim_head import SignedHead, body_start
from postroad.trust.dkim_sign import SigningKey, public_record
from postroad.trust.dkim_verify import DkimOptions, DkimResult, DkimVerification
from postroad.world.dns import DnsAnswer, DnsStatus

NOW_S = 1_764_600_000

MESSAGE = (
    b"Received: from a.example by b.example; Mon, 1 Dec 2025 14:40:00 +0000\r\n"
    b"From: Ada <ada@example.org>\r\n"
    b"To: bob@example.net,\r\n\tcarol@example.net\r\n"
    b"Subject: A  message \r\n"
    b"Date: Mon, 1 Dec 2025 14:40:00 +0000\r\n"
    b"Message-ID: <1@example.org>\r\n"
    b"List-Unsubscribe: <https://example.org/u>\r\n"
    b"List-Unsubscribe-Post: List-Unsubscribe=One-Click\r\n"
    b"\r\n"
    b"Hello,\r\n\r\nthis is  a line with\t white space \t\r\nand the last one.\r\n\r\n\r\n"
)


@cache
def rsa(bits: int = 2048) -> RSAPrivateKey:
    return generate_private_key(65_537, bits)


@cache
def ed25519() -> Ed25519PrivateKey:
    return Ed25519PrivateKey.from_private_bytes(bytes(range(32)))


def pem(key: RSAPrivateKey | Ed25519PrivateKey | EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


def secret(key: SigningKey) -> bytes:
    """The private key as dkimpy takes it."""
    if isinstance(key.private, Ed25519PrivateKey):
        return base64.b64encode(key.private.private_bytes(Encoding.Raw, PrivateFormat.Raw, NoEncryption()))
    return key.private.private_bytes(Encoding.PEM, PrivateFormat.TraditionalOpenSSL, NoEncryption())


def keys(domain: str = "example.org") -> tuple[SigningKey, ...]:
    return (SigningKey(domain, "r1", rsa()), SigningKey(domain, "e1", ed25519()))


class Zone:
    """Answers for TXT records. `asked`: each name, in order; `most`: how many questions were open at a time."""

    def __init__(self, records: dict[str, str | tuple[str, ...] | DnsStatus]) -> None:
        self.records = records
        self.asked: list[str] = []
        self.open = self.most = 0

    async def text(self, name: str) -> DnsAnswer[str]:
        self.asked.append(name)
        self.open += 1
        self.most = max(self.most, self.open)
        await asyncio.sleep(0)
        self.open -= 1
        found = self.records.get(name, DnsStatus.NXDOMAIN)
        if isinstance(found, DnsStatus):
            return DnsAnswer(found, (), f"{found.value} for {name}", name=name)
        return DnsAnswer(DnsStatus.FOUND, (found,) if isinstance(found, str) else found, name=name)


def zone_of(signing: Iterable[SigningKey]) -> Zone:
    return Zone({f"{each.selector}._domainkey.{each.domain}": public_record(each.private) for each in signing})


def verify(
    message: bytes, zone: Zone, *, now_s: int = NOW_S, piece: int = 65_536, options: DkimOptions | None = None
) -> tuple[DkimResult, ...]:
    """All steps for a message, its body in pieces of this size."""
    start = body_start(message)
    section = message[:start].removesuffix(b"\r\n\r\n") + b"\r\n"
    verification = DkimVerification(SignedHead(section), options or DkimOptions())
    for at in range(start, len(message), piece):
        verification.feed(message[at : at + piece])
    asyncio.run(verification.ask(zone))
    return verification.conclude(now_s)[0]


def canonical_body(body: bytes, form: BodyForm) -> bytes:
    """By the letter of the RFC, for comparison; checked against what the stream hashes."""
    lines = body.split(b"\r\n")
    if form.canonicalization is Canonicalization.RELAXED:
        lines = [re.sub(rb"[ \t]+", b" ", line).removesuffix(b" ") for line in lines]
    while lines and not lines[-1]:
        lines.pop()
    made = b"".join(line + b"\r\n" for line in lines)
    if not made and form.canonicalization is Canonicalization.SIMPLE:
        made = b"\r\n"
    assert body_hash([body], form) == BodyHash(hashlib.sha256(made[: form.length]).digest(), len(made))
    return made


def body_hash(pieces: list[bytes], form: BodyForm) -> BodyHash:
    bodies = BodyHashes([form])
    for piece in pieces:
        bodies.feed(piece)
    return bodies.results()[form]
