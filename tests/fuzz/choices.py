"""How an input of a target is read: a head of four octets that choose, and the wire behind it.

The head is small and of fixed size so that a mutation of the wire leaves the choices as they are, and a seed can be
made from any transcript by putting four octets before it.
"""

from __future__ import annotations

import itertools
import zlib
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import TypeVar

Each = TypeVar("Each")

HEAD = 4
WIRE_MAX = 4096  # octets of a wire that are looked at: more finds nothing new and takes long octet by octet


@dataclass(frozen=True)
class Choices:
    """`mode`: eight switches of the target. `stride`, `cut`: where the wire is cut."""

    mode: int
    stride: int
    cut: int
    wire: bytes

    def on(self, switch: int) -> bool:
        return bool(self.mode >> switch & 1)

    def cuts(self, size: int) -> Iterator[int]:
        """Places to cut a wire of `size` octets at, in order: one, and then every `stride` octets."""
        at = self.cut % (size + 1)
        while at < size:
            yield at
            at += self.stride


def read(data: bytes) -> Choices:
    head, wire = data[:HEAD].ljust(HEAD, b"\0"), data[HEAD : HEAD + WIRE_MAX]
    return Choices(head[0], head[1] + 1, int.from_bytes(head[2:4], "big"), wire)


def written(mode: int, stride: int, cut: int, wire: bytes) -> bytes:
    """The input that `read` takes apart again."""
    return bytes((mode, stride - 1)) + cut.to_bytes(2, "big") + wire


def parted(wire: bytes, cuts: Collection[int]) -> list[bytes]:
    """The wire cut at these places."""
    places = sorted({0, *(cut for cut in cuts if 0 < cut < len(wire)), len(wire)})
    return [wire[start:end] for start, end in itertools.pairwise(places)]


_LAST_EACH = 16


def lot(data: bytes, chances: int) -> bool:
    """One of so many inputs, always the same ones."""
    return zlib.crc32(data) % chances == 0


def sampled(ways: Sequence[Each], data: bytes) -> list[Each]:
    """One of the ways to play an input; the last, which takes long, for one input in `_LAST_EACH`.

    A guided run lives on the number of inputs that it tries: the path that a wire takes is the same in every cut, so
    that playing each input in all of them costs ten times as much and finds little more.
    """
    if lot(data, _LAST_EACH):
        return [ways[-1]]
    return [ways[zlib.crc32(data) % (len(ways) - 1)]]
