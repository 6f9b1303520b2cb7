"""A DNS server on a loopback port that answers as a test tells it: real datagrams, real connections, no real DNS."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable

import dns.flags
import dns.message
import dns.rcode
import dns.rdatatype
import dns.rrset

from tests.peers.harness import ports

Answering = Callable[[dns.message.Message, bool], "bytes | list[bytes] | None"]
"""The query and whether it came over TCP → the datagrams (or the message) to send; None for silence."""


def records(*lines: str) -> list[dns.rrset.RRset]:
    """Record sets from lines as ``mx.example.org. 300 IN A 192.0.2.1``; lines of one name and type make one set."""
    sets: dict[tuple[str, str], list[str]] = {}
    ttls: dict[tuple[str, str], int] = {}
    for line in lines:
        owner, ttl, _, kind, data = line.split(None, 4)
        sets.setdefault((owner, kind), []).append(data)
        ttls[owner, kind] = int(ttl)
    return [
        dns.rrset.from_text(owner, ttls[owner, kind], "IN", kind, *data) for (owner, kind), data in sets.items()
    ]


def answer(
    query: dns.message.Message,
    *lines: str,
    rcode: int = dns.rcode.NOERROR,
    authority: Iterable[str] = (),
    additional: Iterable[str] = (),
    flags: int = 0,
) -> dns.message.Message:
    made = dns.message.make_response(query, recursion_available=True)
    made.set_rcode(dns.rcode.Rcode(rcode))
    made.flags |= flags
    made.answer = records(*lines)
    made.authority = records(*authority)
    made.additional = records(*additional)
    return made


class Zone:
    """Answers from a table ``(name, type) → lines``; names that are in it for another type have NODATA."""

    soa = "example. 600 IN SOA ns.example. root.example. 1 2 3 4 60"

    def __init__(self, table: dict[tuple[str, str], list[str]], flags: int = 0) -> None:
        self.table = table
        self.flags = flags

    def __call__(self, query: dns.message.Message, tcp: bool) -> bytes:
        question = query.question[0]
        name = question.name.to_text(omit_final_dot=True).lower()
        kind = dns.rdatatype.to_text(question.rdtype)
        lines = self.table.get((name, kind)) or self.table.get((name, "CNAME"))
        if lines:
            made = answer(query, *lines, flags=self.flags)
        elif any(known == name for known, _ in self.table):
            made = answer(query, authority=[self.soa], flags=self.flags)
        else:
            made = answer(query, rcode=dns.rcode.NXDOMAIN, authority=[self.soa], flags=self.flags)
        octets = made.to_wire(max_size=65535)
        if not tcp and len(octets) > max(512, query.payload):
            made.answer = []
            made.flags |= dns.flags.TC
            return made.to_wire()
        return octets


class FakeServer:
    """Listens on UDP and TCP of one port; `queries` is what it was asked, as (name, type, "udp" | "tcp")."""

    def __init__(self, answering: Answering) -> None:
        self.answering = answering
        self.queries: list[tuple[str, str, str]] = []
        self.messages: list[dns.message.Message] = []
        self.ports: list[int] = []
        self.address = ""

    async def __aenter__(self) -> FakeServer:
        loop = asyncio.get_running_loop()
        port = ports.port()  # free for TCP and UDP
        self._tcp = await asyncio.start_server(self._connected, "127.0.0.1", port)
        self._udp, _ = await loop.create_datagram_endpoint(lambda: _Datagrams(self), local_addr=("127.0.0.1", port))
        self.address = f"127.0.0.1:{port}"
        return self

    async def __aexit__(self, *_: object) -> None:
        self._udp.close()
        self._tcp.close()

    def answers(self, octets: bytes, port: int, tcp: bool) -> list[bytes]:
        query = dns.message.from_wire(octets)
        question = query.question[0]
        kind = dns.rdatatype.to_text(question.rdtype)
        self.queries.append((question.name.to_text(omit_final_dot=True), kind, "tcp" if tcp else "udp"))
        self.messages.append(query)
        self.ports.append(port)
        made = self.answering(query, tcp)
        return [made] if isinstance(made, bytes) else made or []

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        length = int.from_bytes(await reader.readexactly(2), "big")
        octets = await reader.readexactly(length)
        for made in self.answers(octets, writer.get_extra_info("peername")[1], True):
            writer.write(len(made).to_bytes(2, "big") + made)
        writer.close()


class _Datagrams(asyncio.DatagramProtocol):
    def __init__(self, server: FakeServer) -> None:
        self._server = server

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        for made in self._server.answers(data, addr[1], False):
            self._transport.sendto(made, addr)  # type: ignore[attr-defined]


def closed_port() -> int:
    """A port on which nobody listens."""
    return ports.port()
