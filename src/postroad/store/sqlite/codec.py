"""Encodes the values of a shard: MessagePack of the structs of `mail`, which encode as arrays.

Fields are only ever appended, with defaults, so that files of an older Postroad stay readable
(docs/decisions/0003-values.md). The events of a commit stand in one blob: an array of one array for each operation, put
together from parts that were encoded when the operation was asked for, so that the writer only joins them.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from typing import Final

import msgspec

from postroad.mail.envelope import Envelope
from postroad.mail.event import Event
from postroad.store.values import Waiting

_ENCODER: Final = msgspec.msgpack.Encoder()
_ENVELOPE: Final = msgspec.msgpack.Decoder(Envelope)
_WAITING: Final = msgspec.msgpack.Decoder(Waiting)
_JOURNAL: Final = msgspec.msgpack.Decoder(list[list[Event]])
_ANYTHING: Final = msgspec.msgpack.Decoder()
_ROWS: Final = msgspec.msgpack.Decoder(list[msgspec.Raw])
_ARRAY_32: Final = b"\xdd"  # msgpack: array 32, then its length in four octets, big-endian

Undecodable = msgspec.MsgspecError  # what the decoders raise


def encode_envelope(envelope: Envelope) -> bytes:
    return _ENCODER.encode(envelope)


def encode_waiting(waiting: Waiting) -> bytes:
    return _ENCODER.encode(waiting)


def encode_events(events: Sequence[Event]) -> bytes:
    """Encodes events as one part of a journal row."""
    return _ENCODER.encode(events)


def join_events(parts: Sequence[bytes]) -> bytes:
    """Joins parts into the blob of a journal row, or rows into a batch of the history."""
    return b"".join((_ARRAY_32, len(parts).to_bytes(4, "big"), *parts))


def decode_envelope(octets: bytes) -> Envelope:
    return _ENVELOPE.decode(octets)


def decode_waiting(octets: bytes) -> Waiting:
    return _WAITING.decode(octets)


def decode_journal(octets: bytes) -> list[Event]:
    """Decodes the events of one journal row, in order."""
    return [event for part in _JOURNAL.decode(octets) for event in part]


def split_events(octets: bytes) -> Iterator[list[Event]]:
    """Splits a batch of the history into its rows, and decodes their events. A row that cannot be read is left out."""
    for row in _ROWS.decode(octets):
        with contextlib.suppress(Undecodable):
            yield [event for part in _JOURNAL.decode(row) for event in part]


def is_readable(octets: bytes) -> bool:
    """Whether this is msgpack at all."""
    try:
        _ANYTHING.decode(octets)
    except Undecodable:
        return False
    return True


def id_octets(id: int) -> bytes:
    """The octets of a queue id within encoded events, so that it can be found without decoding them."""
    return _ENCODER.encode(id)
