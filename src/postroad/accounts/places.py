"""Places: how many log-ins may be checked at a time, for one client, for its network, and in all.

What always holds: a place that was taken is left once. Strangers never take the last quarter of all places: it is kept
for clients that have logged in lately, and these have no limit of their network, which others may have filled. If a
stranger's log-in has failed, its place still counts towards the limits of client and network until the answer is due,
even if the client has gone: hanging up does not help a client that guesses. It does not count towards the limit in all
then.

A client that finds no place may wait for one: an office whose clients all come back at once from one address should not
hear 454. At most `waiting_max` wait. Of these, one client that has not logged in lately may have a quarter, its network
half, and all such clients together three quarters. When a place is left, it goes to the client that has the fewest
places, and among equals to the one that waits the longest.

Not here: who has logged in lately (`check.client`), how long the answer is kept back and how long one may wait for a
place (`accounts.authenticate`).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, Protocol

_KEPT: Final = 4  # the part of all places that is kept for those who have logged in lately: one in so many
_KNOWN: Final = 2  # the part that one client of these may take
_WAITS: Final = 4  # the part of those who wait that may be of one other client: one in so many
_NETWORK_WAITS: Final = 2  # and of its network


class PlaceLimits(Protocol):
    """What `authenticate.AuthOptions` says."""

    @property
    def queue_max(self) -> int: ...
    @property
    def client_max(self) -> int: ...
    @property
    def network_max(self) -> int: ...
    @property
    def waiting_max(self) -> int: ...


def _itself(address: str) -> tuple[str, str]:
    return address, ""


def _nobody(address: str) -> bool:
    return False


class Places:
    """The places of a worker. `names_of(address)`: by what names a client and its
    network are counted, "" for no limit of it. `is_known(address)`: whether it has logged in lately."""

    def __init__(
        self,
        limits: PlaceLimits,
        names_of: Callable[[str], tuple[str, str]] = _itself,
        is_known: Callable[[str], bool] = _nobody,
    ) -> None:
        self.limits = limits
        self._names_of = names_of
        self._is_known = is_known
        self._all = 0
        self._counts: dict[str, int] = {}
        self._waiting: dict[WaitingLogin, None] = {}  # in the order of coming
        self._waits: dict[str, int] = {}

    def take(self, limits: PlaceLimits) -> None:
        """Settings; places that are taken stay so."""
        self.limits = limits

    @property
    def taken(self) -> int:
        return self._all

    def admit(self, address: str) -> Place | None:
        """A place for a client of this address, "" for one of a Unix socket; None if it can have none now."""
        client, network = self._names_of(address) if address else ("", "")
        return self._take(address, client, network)

    def wait(self, address: str, ready: Callable[[Place], None]) -> WaitingLogin | None:
        """For who can have no place now: `ready` gets it once, when others have left theirs. It must not do anything
        but take note of it. None: too many wait already."""
        client, network = self._names_of(address) if address else ("", "")
        most, waits = self.limits.waiting_max, self._waits.get
        if self._is_known_here(address):
            full = len(self._waiting) >= most or waits(client, 0) >= most // _KNOWN
        else:
            full = (
                len(self._waiting) >= most - most // _KEPT
                or waits(client, 0) >= most // _WAITS
                or (network != "" and waits(network, 0) >= most // _NETWORK_WAITS)
            )
        return None if full else WaitingLogin(self, address, client, network, ready)

    def _is_known_here(self, address: str) -> bool:
        return not address or self._is_known(address)

    def _take(self, address: str, client: str, network: str) -> Place | None:
        limits = self.limits
        if self._all >= limits.queue_max:
            return None
        if not address:
            return Place(self, (), known=True)
        count = self._counts.get
        if self._is_known(address):
            of_client = max(limits.client_max, limits.queue_max // _KNOWN)
            return None if count(client, 0) >= of_client else Place(self, (client,), known=True)
        full = (
            self._all >= limits.queue_max - limits.queue_max // _KEPT
            or count(client, 0) >= limits.client_max
            or (network != "" and count(network, 0) >= limits.network_max)
        )
        return None if full else Place(self, (client, network) if network else (client,), known=False)

    def _left(self) -> None:
        """A place is free, or counts for less: those who wait may have it."""
        while self._waiting and self._all < self.limits.queue_max and self._serve_one():
            pass

    def _serve_one(self) -> bool:
        """Whether anybody could have a place."""
        for waiting in sorted(self._waiting, key=self._count_of):
            place = self._take(waiting.address, waiting.client, waiting.network)
            if place is not None:
                waiting.stop()
                waiting.ready(place)
                return True
        return False

    def _count_of(self, waiting: WaitingLogin) -> int:
        return self._counts.get(waiting.client, 0)


def _count(counts: dict[str, int], keys: tuple[str, ...], by: int) -> None:
    for key in keys:
        left = counts.get(key, 0) + by
        if left:
            counts[key] = left
        else:
            del counts[key]


class Place:
    """One place. `known`: its client has logged in lately."""

    __slots__ = ("_in_all", "_keys", "_places", "known")

    def __init__(self, places: Places, keys: tuple[str, ...], *, known: bool) -> None:
        self._places, self._keys, self.known = places, keys, known
        self._in_all = True
        places._all += 1
        _count(places._counts, keys, 1)

    def found(self) -> None:
        """The work is over; the client's own limits count it still."""
        if self._in_all:
            self._in_all = False
            self._places._all -= 1
            self._places._left()

    def leave(self) -> None:
        keys, self._keys = self._keys, ()
        _count(self._places._counts, keys, -1)
        if self._in_all:
            self.found()
        elif keys:
            self._places._left()


class WaitingLogin:
    """One that waits for a place."""

    __slots__ = ("_keys", "_places", "address", "client", "network", "ready")

    def __init__(
        self, places: Places, address: str, client: str, network: str, ready: Callable[[Place], None]
    ) -> None:
        self._places, self.address, self.client, self.network, self.ready = places, address, client, network, ready
        self._keys = (client, network) if network else (client,)
        places._waiting[self] = None
        _count(places._waits, self._keys, 1)

    def stop(self) -> None:
        """It waits no longer; once."""
        del self._places._waiting[self]
        _count(self._places._waits, self._keys, -1)
