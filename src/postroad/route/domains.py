"""Finds the domain of a name, by exact name, by suffix, or by default; and knows which names are our own."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Iterator
from typing import Generic, TypeVar

import msgspec

from postroad.mail.address import is_ip_address, is_loopback
from postroad.mail.envelope import Peer

T = TypeVar("T")


class DomainTable(Generic[T]):
    """Values by domain pattern: ``example.org``, ``.example.org`` (all names below it) and ``*`` (all).

    What always holds: the most exact pattern counts: the name itself, then the longest suffix, then ``*``.
    """

    __slots__ = ("_exact", "_fallback", "_suffixes")

    def __init__(self, rows: Iterable[tuple[str, T]]) -> None:
        self._exact: dict[str, T] = {}
        self._suffixes: dict[str, T] = {}  # keys without their first dot
        self._fallback: T | None = None
        for pattern, value in rows:
            if pattern == "*":
                self._fallback = value
            elif pattern.startswith("."):
                self._suffixes[pattern[1:]] = value
            else:
                self._exact[pattern] = value

    def find(self, domain: str) -> T | None:
        """The value for a canonical domain."""
        found = self._exact.get(domain)
        if found is not None or domain.startswith("["):
            return found  # a suffix or the default says nothing of an address literal
        rest = domain
        while self._suffixes and rest:
            rest = rest.partition(".")[2]
            found = self._suffixes.get(rest)
            if found is not None:
                return found
        return self._fallback

    def matches(self, domain: str) -> Iterator[T]:
        """All values for a canonical domain, the most exact first."""
        found = self._exact.get(domain)
        if found is not None:
            yield found
        if domain.startswith("["):
            return
        rest = domain
        while self._suffixes and rest:
            rest = rest.partition(".")[2]
            found = self._suffixes.get(rest)
            if found is not None:
                yield found
        if self._fallback is not None:
            yield self._fallback


class OwnNames(msgspec.Struct, frozen=True):
    """The names and addresses by which this node is known in mail transactions (RFC 5321 §5.1), and its ports.

    A server on another port of this machine is somebody else: an address is ours only on a port of ours. Addresses as
    `ipaddress` writes them, names in canonical form.
    """

    names: frozenset[str] = frozenset()
    addresses: frozenset[str] = frozenset()
    ports: frozenset[int] = frozenset({25})

    def is_host(self, name: str) -> bool:
        return name in self.names

    def is_address(self, address: str, port: int) -> bool:
        return port in self.ports and address in self.addresses


def literal_address(domain: str) -> str | None:
    """The IP address of an address literal, ``[192.0.2.1]`` or ``[IPv6:2001:db8::1]`` (RFC 5321 §4.1.3); None if it
    is none, or of another kind."""
    if not (domain.startswith("[") and domain.endswith("]")):
        return None
    inner = domain[1:-1]
    tagged = inner[:5].lower() == "ipv6:"
    try:
        address = ipaddress.ip_address(inner[5:] if tagged else inner)
    except ValueError:
        return None
    return str(address) if tagged == (address.version == 6) else None


def is_here(ourselves: OwnNames, peer: Peer) -> bool:
    """Whether a client is this machine."""
    address = peer.address
    if not address:  # a program, or a Unix socket; with `via` a client whose address nobody knows
        return peer.via is None
    return address in ourselves.addresses or (is_ip_address(address) and is_loopback(address))
