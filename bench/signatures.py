"""Signs and verifies by DKIM, beside dkimpy, on one core: ``python -m bench.signatures``.

Each figure is CPU time of this process for a message: the best of some rounds, as other work of the machine can only
add to it. Both have the key parsed or at hand, and no DNS is asked. Relaxed forms, RSA-2048; our Ed25519 beside it.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Any, Final

import dkim
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.rsa import generate_private_key
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from postroad.trust.dkim_head import SignedHead, body_start
from postroad.trust.dkim_sign import DkimSigner, SigningKey, SigningOptions, public_record
from postroad.trust.dkim_verify import DkimOptions, DkimVerification
from postroad.world.dns import DnsAnswer, DnsStatus

SIZES: Final = (4_096, 100_000)
SIGN_MIN, VERIFY_MIN = 15, 4  # times dkimpy
_ROUNDS: Final = 5
_NOW_S: Final = 1_764_600_000
_PIECE: Final = 65_536
_LINE: Final = b"This is a line of  words, of usual length, with some white space in it and none at its end.\r\n"
_HEAD: Final = (
    b"Received: from client.example (client.example [192.0.2.1])\r\n\tby mx.example with ESMTPS id 1;\r\n"
    b"\tMon, 1 Dec 2025 14:40:00 +0000\r\n"
    b"From: Ada <ada@example.org>\r\nTo: bob@example.net\r\nSubject: A message of usual size\r\n"
    b"Date: Mon, 1 Dec 2025 14:40:00 +0000\r\nMessage-ID: <1@example.org>\r\nMIME-Version: 1.0\r\n"
    b"Content-Type: text/plain; charset=utf-8\r\nContent-Transfer-Encoding: 8bit\r\n\r\n"
)


class _Answers:
    """A DNS that has one text for every name."""

    def __init__(self, record: str) -> None:
        self._answer: DnsAnswer[str] = DnsAnswer(DnsStatus.FOUND, (record,))

    async def text(self, name: str) -> DnsAnswer[str]:
        return self._answer


def main() -> int:
    private = generate_private_key(65_537, 2048)
    small = SigningKey("example.org", "e1", Ed25519PrivateKey.generate())
    large = SigningKey("example.org", "r1", private)
    pem = private.private_bytes(Encoding.PEM, PrivateFormat.TraditionalOpenSSL, NoEncryption())
    reached = True
    for size in SIZES:
        message = _HEAD + _LINE * ((size - len(_HEAD)) // len(_LINE))
        ours, other = _signing(message, large), _best_us(lambda m=message: _dkimpy_sign(m, pem), 20)
        reached &= _print(size, "sign", ours, other, SIGN_MIN, _signing(message, small))
        signed = DkimSigner((large,), SigningOptions()).sign_content(message, _NOW_S) + message
        record = public_record(private)
        other = _best_us(lambda m=signed, r=record: _dkimpy_verify(m, r), 40)
        beside = DkimSigner((small,), SigningOptions()).sign_content(message, _NOW_S) + message
        reached &= _print(
            size, "verify", _verifying(signed, record), other, VERIFY_MIN,
            _verifying(beside, public_record(small.private)),
        )  # fmt: skip
    return 0 if reached else 1


def _print(size: int, what: str, ours_us: float, other_us: float, least: int, ed25519_us: float) -> bool:
    ratio = other_us / ours_us
    print(
        f"{size:7} octets  {what:6}  RSA-2048 {ours_us:7.1f} µs, dkimpy {other_us:8.1f} µs: {ratio:5.1f} times as fast "
        f"(at least {least})  Ed25519 {ed25519_us:7.1f} µs"
    )
    return ratio >= least


def _signing(message: bytes, key: SigningKey) -> float:
    signer = DkimSigner((key,), SigningOptions())
    return _best_us(lambda: signer.sign_content(message, _NOW_S), 200)


def _verifying(message: bytes, record: str) -> float:
    answers, options, start = _Answers(record), DkimOptions(), body_start(message)

    async def verify() -> None:
        verification = DkimVerification(SignedHead(message[: start - 2]), options)
        for at in range(start, len(message), _PIECE):
            verification.feed(message[at : at + _PIECE])
        await verification.ask(answers)
        assert verification.conclude(_NOW_S)[0][0].passes

    async def many(count: int) -> float:
        started = time.process_time()
        for _ in range(count):
            await verify()
        return (time.process_time() - started) / count * 1e6

    return min(asyncio.run(many(300)) for _ in range(_ROUNDS))


def _dkimpy_sign(message: bytes, pem: bytes) -> Any:
    return dkim.sign(message, b"r1", b"example.org", pem, canonicalize=(b"relaxed", b"relaxed"))


def _dkimpy_verify(message: bytes, record: str) -> None:
    assert dkim.verify(message, dnsfunc=lambda name, timeout=5: record.encode())


def _best_us(run: Callable[[], Any], count: int) -> float:
    best = float("inf")
    for _ in range(_ROUNDS):
        started = time.process_time()
        for _ in range(count):
            run()
        best = min(best, (time.process_time() - started) / count * 1e6)
    return best


if __name__ == "__main__":
    raise SystemExit(main())
