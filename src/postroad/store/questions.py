"""Questions to one shard of the spool, as values: every engine answers the same ones.

A question is answered from the state after all operations that were asked for before it. It changes nothing. Each
class says what its answer is.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from postroad.store.values import Selection


class Take(msgspec.Struct, frozen=True, gc=False):
    """Answer: `list[Loaded]`, the recipients of a destination that are due before `before_us` and not held, by message,
    the oldest due first, at most `limit` of them."""

    destination: str
    before_us: int
    limit: int


class NextDue(msgspec.Struct, frozen=True, gc=False):
    """Answer: `int`, when the first recipient of the destination that is not held is due after `after_us`; 0 if none
    waits."""

    destination: str
    after_us: int = 0


class Load(msgspec.Struct, frozen=True, gc=False):
    """Answer: `Loaded | None`, the message with all its waiting recipients (a fresh message has none), None if it has
    ended."""

    id: int


class Fresh(msgspec.Struct, frozen=True, gc=False):
    """Answer: `list[Envelope]`, messages accepted and never settled, with ids above `after`, the oldest first, at most
    `limit`."""

    after: int
    limit: int


class Ahead(msgspec.Struct, frozen=True, gc=False):
    """Answer: `list[tuple[int, str]]`, when a destination first has something due, and its key: after the pair `after`
    and up to `until_us`, in this order, at most `limit`. Held recipients do not count."""

    after: tuple[int, str]
    until_us: int
    limit: int


class FirstDue(msgspec.Struct, frozen=True, gc=False):
    """Answer: `dict[str, int]`, when each of these destinations first has something due; destinations that have nothing
    are left out."""

    destinations: Sequence[str]


class Contents(msgspec.Struct, frozen=True, gc=False):
    """Answer: `Content | None`, the octets or the file of the message, None if it has ended."""

    id: int


class Select(msgspec.Struct, frozen=True, gc=False):
    """Answer: `tuple[list[int], int | None]`, ids above `after` that the selection means, from a bounded number of
    rows, and the id after which to continue, None at the end."""

    selection: Selection
    after: int


Question = Take | NextDue | Load | Fresh | Ahead | FirstDue | Contents | Select
