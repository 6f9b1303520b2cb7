"""A message as the body of an HTTP request, and its signature as the Standard Webhooks specification has it. Pure.

https://github.com/standard-webhooks/standard-webhooks. The signature is HMAC-SHA-256 over id, time and body. The id
stays the same at each attempt for the same message and recipients, so that a receiver can tell a second copy.

Two formats. Raw: the message itself (``message/rfc822``) with Return-Path and Delivered-To on top, and the envelope in
header fields of the request, percent-encoded. JSON: ``{"type", "timestamp", "data"}``, in which the message is Base64.
Large content is never in memory as a whole: the body is made piece by piece, twice, once for its signature.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import chain
from typing import Any, Final
from urllib.parse import quote

import msgspec

from postroad.mail import identifier
from postroad.mail.address import Address
from postroad.mail.envelope import Envelope
from postroad.mail.job import Job

SECRET_PREFIX: Final = "whsec_"
SECRET_MIN: Final = 16  # octets of a secret; the specification wants 24 to 64
_TRIPLE: Final = 3 * 16_384  # octets that are encoded at a time
_ADDRESS_SAFE: Final = "@!#$&'*+-/=?^_`{|}~. \"(),:;<>[]\\"


class HttpBody(msgspec.Struct, frozen=True):
    """`read`: begins to make the octets; `length`: how many there are."""

    read: Callable[[], Iterator[bytes]]
    length: int
    content_type: str
    fields: dict[str, str] = {}


def secret_of(line: str) -> bytes | None:
    """The secret that a line says, as Base64 with or without ``whsec_``; None if it is none."""
    try:
        secret = base64.b64decode(line.strip().removeprefix(SECRET_PREFIX), validate=True)
    except ValueError:
        return None
    return secret if len(secret) >= SECRET_MIN else None


def message_key(host: str, envelope: Envelope, recipients: Iterable[int]) -> str:
    """The id of a request: of this node's message and these recipients."""
    said = f"{host}\0{identifier.text(envelope.id)}\0{','.join(map(str, recipients))}"
    return "msg_" + hashlib.blake2b(said.encode(), digest_size=16).hexdigest()


def signature(secret: bytes, key: str, at_s: int, body: Iterable[bytes]) -> str:
    """The value of ``webhook-signature``."""
    made = hmac.new(secret, f"{key}.{at_s}.".encode(), hashlib.sha256)
    for piece in body:
        made.update(piece)
    return "v1," + base64.b64encode(made.digest()).decode()


def raw_body(
    job: Job, recipients: Mapping[int, Address], top: bytes, read: Callable[[], Iterator[bytes]], size: int
) -> HttpBody:
    """`recipients`: their addresses, by index. `top`: the fields of this delivery; `size`: octets with them."""
    to = ", ".join(map(_encoded, recipients.values()))
    fields = {
        "Postroad-Queue-Id": identifier.text(job.envelope.id),
        "Postroad-Sender": _encoded(job.reverse_path),
        "Postroad-Recipients": to,
    }
    return HttpBody(lambda: chain((top,), read()), size, "message/rfc822", fields)


def _encoded(address: Address | None) -> str:
    return quote(str(address) if address is not None else "", safe=_ADDRESS_SAFE.replace("%", "").replace(",", ""))


def json_body(
    host: str, job: Job, recipients: Mapping[int, Address], at: str, top: bytes,
    read: Callable[[], Iterator[bytes]], size: int,
) -> HttpBody:
    """`host`: ours. `at`: the time, in ISO 8601."""
    data = _data(host, job, recipients)
    document = msgspec.json.encode({"type": "mail.delivery", "timestamp": at, "data": data})
    before = document[:-2] + b',"message":"'  # into the object `data`
    after = b'"}}'
    length = len(before) + 4 * ((size + 2) // 3) + len(after)
    return HttpBody(
        lambda: chain((before,), _base64(chain((top,), read())), (after,)), length, "application/json"
    )


def _data(host: str, job: Job, recipients: Mapping[int, Address]) -> dict[str, Any]:
    envelope, sender = job.envelope, job.reverse_path
    peer = envelope.peer
    return {
        "queue_id": identifier.text(envelope.id),
        "node": host,
        "sender": str(sender) if sender is not None else "",
        "recipients": [
            {"address": str(address), "id": message_key(host, envelope, (index,))}
            for index, address in recipients.items()
        ],
        "message_id": envelope.message_id,
        "client": {
            "address": peer.address, "name": peer.name, "hello": peer.hello, "account": peer.identity,
            "protocol": peer.protocol, "tls": peer.tls,
        },
    }


def _base64(read: Iterable[bytes]) -> Iterator[bytes]:
    held = bytearray()
    for piece in read:
        held += piece
        whole = len(held) - len(held) % 3
        if whole >= _TRIPLE:
            yield base64.b64encode(bytes(held[:whole]))
            del held[:whole]
    yield base64.b64encode(bytes(held))
