"""How many sessions a worker serves at a time, in all and for one client.

A client is an IPv4 address, or an IPv6 /64 (what one customer is given, RFC 6177). What always holds: `admit` that
gave ACCEPT is balanced by one `left`; counters of clients that are gone take no memory. Trusted networks are counted,
but only the limit for all holds for them. What holds for the whole node, over all workers, is not here.
"""

from __future__ import annotations

import ipaddress
from functools import lru_cache

import msgspec

from postroad.mail.verdict import ACCEPT, Verdict, defer


class ClientOptions(msgspec.Struct, frozen=True):
    """`sessions_max`: sessions at a time in one worker; `sessions_per_client_max`: of these, for one client."""

    sessions_max: int = 10_000
    sessions_per_client_max: int = 100


# RFC 5321 §3.8, §4.3.2: 421 in place of the greeting
_FULL = defer(421, "4.7.0", "Too many sessions here now, come back later", "too many sessions", disconnect=True)
_CLIENT = defer(421, "4.7.0", "Too many sessions from your address", "too many sessions of client", disconnect=True)


class Clients:
    """Counts the sessions of one worker."""

    def __init__(self, options: ClientOptions) -> None:
        self.options = options  # replaced as a whole at reload
        self._counts: dict[str, int] = {}
        self._all = 0

    @property
    def sessions(self) -> int:
        return self._all

    def admit(self, address: str, trusted: bool) -> Verdict:
        """Count a new session in, or say why not. `address` "" is a Unix socket: only the limit for all holds."""
        if self._all >= self.options.sessions_max:
            return _FULL
        if address:
            client = client_of(address)
            count = self._counts.get(client, 0)
            if count >= self.options.sessions_per_client_max and not trusted:
                return _CLIENT
            self._counts[client] = count + 1
        self._all += 1
        return ACCEPT

    def left(self, address: str) -> None:
        """A session that was admitted has ended."""
        self._all -= 1
        if not address:
            return
        client = client_of(address)
        count = self._counts[client] - 1
        if count:
            self._counts[client] = count
        else:
            del self._counts[client]


@lru_cache(maxsize=4096)
def client_of(address: str) -> str:
    """What counts as one client: the IPv4 address itself, the /64 of an IPv6 address."""
    if ":" not in address:
        return address
    whole = ipaddress.IPv6Address(address.partition("%")[0])
    mapped = whole.ipv4_mapped
    return str(mapped) if mapped is not None else f"{ipaddress.IPv6Address(int(whole) >> 64 << 64)}/64"
