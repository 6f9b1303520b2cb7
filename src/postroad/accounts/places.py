"""Places of those whose authentication is being looked into: how many at a time, for a client, for its network, in all.

What always holds: a place that was taken is left once. Strangers never take the last quarter of all places: it is kept
for clients that have logged in lately, and these have no limit of their network, which others may have filled. A place
of a stranger who was wrong stays taken towards the limits of client and network until the answer is due, whether or not
anybody waits for it: so it is of no use to hang up instead of waiting. It does not stand in the way of others then.

Not here: who has logged in lately (`check.client`), how long the answer is kept back (`accounts.authenticate`).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, Protocol

_KEPT: Final = 4  # the part of all places that is kept for those who have logged in lately: one in so many
_KNOWN: Final = 2  # the part that one client of these may take


class Limits(Protocol):
    """What `authenticate.AuthOptions` says."""

    @property
    def queue_max(self) -> int: ...
    @property
    def client_max(self) -> int: ...
    @property
    def network_max(self) -> int: ...


def _itself(address: str) -> tuple[str, str]:
    return address, ""


def _nobody(address: str) -> bool:
    return False


class Places:
    """The places of a worker. `limits` is replaced at reload. `names_of(address)`: by what names a client and its
    network are counted, "" for no limit of it. `is_known(address)`: whether it has logged in lately."""

    def __init__(
        self,
        limits: Limits,
        names_of: Callable[[str], tuple[str, str]] = _itself,
        is_known: Callable[[str], bool] = _nobody,
    ) -> None:
        self.limits = limits
        self._names_of = names_of
        self._is_known = is_known
        self._all = 0
        self._counts: dict[str, int] = {}

    @property
    def taken(self) -> int:
        return self._all

    def take(self, address: str) -> Place | None:
        """A place for a client of this address, "" for one of a Unix socket; None where it can have none now."""
        limits = self.limits
        if not address:
            return Place(self, (), known=True) if self._all < limits.queue_max else None
        known = self._is_known(address)
        client, network = self._names_of(address)
        count = self._counts.get
        if known:
            of_client = max(limits.client_max, limits.queue_max // _KNOWN)
            full = self._all >= limits.queue_max or count(client, 0) >= of_client
            return None if full else Place(self, (client,), known=True)
        full = (
            self._all >= limits.queue_max - limits.queue_max // _KEPT
            or count(client, 0) >= limits.client_max
            or (network != "" and count(network, 0) >= limits.network_max)
        )
        return None if full else Place(self, (client, network) if network else (client,), known=False)

    def _count(self, keys: tuple[str, ...], by: int) -> None:
        for key in keys:
            left = self._counts.get(key, 0) + by
            if left:
                self._counts[key] = left
            else:
                del self._counts[key]


class Place:
    """One place. `known`: its client has logged in lately."""

    __slots__ = ("_house", "_in_all", "_keys", "known")

    def __init__(self, house: Places, keys: tuple[str, ...], *, known: bool) -> None:
        self._house, self._keys, self.known = house, keys, known
        self._in_all = True
        house._all += 1
        house._count(keys, 1)

    def found(self) -> None:
        """The work is over; the client's own limits count it still."""
        if self._in_all:
            self._in_all = False
            self._house._all -= 1

    def leave(self) -> None:
        self.found()
        keys, self._keys = self._keys, ()
        self._house._count(keys, -1)
