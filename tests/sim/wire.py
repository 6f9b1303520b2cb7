"""The simulated network: connections between ends of which each belongs to a process or to the outside.

A connection carries octets both ways, in order, cut into segments at random places, each after a delay by chance. It
can be refused, black-holed, reset, and stalled for a while or for ever; a process that dies leaves ends behind of which
the other side hears by a reset, by an end of file, or never. A writer is told to pause while more than `_HIGH` octets
are under way, so a reader that has paused stops it. `End.received` counts what the protocol of this end has really been
given: by that, tests know which replies came through.
"""

from __future__ import annotations

import asyncio
import errno
import random
import ssl
from collections import deque
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

from tests.sim.process import Process
from tests.sim.virtual import VirtualLoop

_HIGH = 65_536
_LOW = 16_384

Listening = tuple[Process | None, Callable[[], asyncio.BaseProtocol]]


class Wires:
    """All connections of the simulated world, and who listens where."""

    def __init__(self, base: VirtualLoop, chance: random.Random) -> None:
        self.base = base
        self.chance = chance
        self.listening: dict[str, list[Listening]] = {}
        self.gates: dict[str, str] = {}  # place → how connections to it fail: "refuse", "blackhole", "unreachable"
        self.ends: dict[End, None] = {}
        self.certificates: dict[str, bytes] = {}  # place → what its host shows in a handshake
        self.untrusted: set[str] = set()  # places whose certificate leads to no trusted root
        self.stall_share = 0.0  # of all new connections, how many stall some time
        self.reset_share = 0.0  # and how many are reset
        self.wrote: Callable[[End, bytes], None] = lambda end, octets: None  # is told what a process writes
        self.opening: Callable[[str], None] = lambda place: None  # is told where a node's connection is made to
        self._ports = 20_000

    def latency(self) -> float:
        return 0.001 + 0.08 * self.chance.random() ** 3

    def listen(self, place: str, process: Process | None, factory: Callable[[], asyncio.BaseProtocol]) -> None:
        self.listening.setdefault(place, []).append((process, factory))

    def close_listener(self, place: str, factory: Any) -> None:
        self.listening[place] = [each for each in self.listening.get(place, []) if each[1] is not factory]

    def forget(self, process: Process) -> None:
        """A process has died: it listens no more."""
        for place, found in self.listening.items():
            self.listening[place] = [each for each in found if each[0] is not process]

    def reach(
        self,
        place: str,
        process: Process | None,
        factory: Callable[[], Any],
        ours: tuple[str, int] | str,
        done: Callable[[End | OSError, Any], None],
    ) -> None:
        """Connect: `done(end, protocol)` or `done(error, None)` after a while; never where nobody answers."""
        gate = self.gates.get(place, "")
        if gate == "blackhole":
            return
        self.base.call_later(2 * self.latency(), self._reached, place, process, factory, ours, done)

    def _reached(
        self,
        place: str,
        process: Process | None,
        factory: Callable[[], Any],
        ours: tuple[str, int] | str,
        done: Callable[[End | OSError, Any], None],
    ) -> None:
        if process is not None and not process.alive:
            return
        found = [each for each in self.listening.get(place, []) if each[0] is None or each[0].alive]
        gate = self.gates.get(place, "")
        if gate == "unreachable":
            done(OSError(errno.ENETUNREACH, "Network is unreachable"), None)
            return
        if gate or not found:
            done(ConnectionRefusedError(errno.ECONNREFUSED, "Connection refused"), None)
            return
        server, server_factory = found[self.chance.randrange(len(found))]
        near = End(self, process, place)
        far = End(self, server, ours)
        near.peer, far.peer = far, near
        self.ends[near] = self.ends[far] = None
        self._plan_trouble(near, far)
        if process is not None:
            near.place = place
            self.opening(place)
        near.open_by(factory)
        done(near, near.protocol)
        self.base.call_later(self.latency(), far.open_by, server_factory)

    def _plan_trouble(self, near: End, far: End) -> None:
        chance = self.chance
        if chance.random() < self.reset_share:
            self.base.call_later(chance.random() ** 2 * 20, self._reset, near, far)
        if chance.random() < self.stall_share:
            until = self.base.now + chance.choice((5.0, 90.0, 700.0, float("inf")))
            self.base.call_later(chance.random() ** 2 * 5, self._stall, near, far, until)

    def _reset(self, near: End, far: End) -> None:
        error = ConnectionResetError(errno.ECONNRESET, "Connection reset by peer")
        near.lose(error)
        far.lose(error)

    @staticmethod
    def _stall(near: End, far: End, until: float) -> None:
        near.stalled_until = far.stalled_until = until

    def port(self) -> int:
        self._ports = 20_000 + (self._ports - 19_999) % 40_000
        return self._ports

    def died(self, process: Process, *, silent: bool) -> None:
        """A process is gone. `silent`: its machine with it, so that nobody tells the other sides."""
        self.forget(process)
        for end in [end for end in self.ends if end.process is process]:
            self.ends.pop(end, None)
            end.closed = True
            peer = end.peer
            if peer is None or peer.closed:
                continue
            if silent:
                end.silent = True
            elif self.chance.random() < 0.5:
                end.send(b"", last=True)
            else:
                self.base.call_later(self.latency(), peer.lose, ConnectionResetError(errno.ECONNRESET, "reset by peer"))


class End(asyncio.Transport):
    """One end of a connection, as a transport."""

    _SEGMENT = 1460

    def __init__(self, wires: Wires, process: Process | None, peername: tuple[str, int] | str) -> None:
        super().__init__({"peername": peername})
        self.process = process
        self.peer: End | None = None
        self.protocol: asyncio.Protocol | None = None
        self.received = 0  # octets given to the protocol
        self.written = 0  # octets taken from it
        self.closed = False
        self.stalled_until = 0.0
        self.silent = False  # its machine has gone: nothing is answered from here
        self.tls = False
        self.leaving = False  # the last that was said here is QUIT
        self.place = ""  # where the node has connected to
        self._wires = wires
        self._flight: deque[bytes | None] = deque()  # on the way to the peer
        self._inbox: deque[bytes | None] = deque()
        self._closing = False
        self._reading = True
        self._blocked = False
        self._under_way = 0
        self._arrives = 0.0

    # -- life -------------------------------------------------------------------------------------------------

    def shows(self, tls: SimTls) -> None:
        """The handshake is done."""
        self._extra["ssl_object"] = tls

    def open(self, protocol: asyncio.BaseProtocol) -> None:
        self.protocol = protocol  # type: ignore[assignment]
        self._run(protocol.connection_made, self)
        self._deliver()

    def open_by(self, factory: Callable[[], asyncio.BaseProtocol]) -> None:
        if self.closed:
            return
        if self.process is not None and not self.process.alive:
            self.lose(ConnectionResetError(errno.ECONNRESET, "reset"))
            return
        self._run(lambda: self.open(factory()))

    def _run(self, callback: Callable[..., Any], *arguments: Any) -> None:
        if self.process is not None:
            self.process.run(callback, *arguments)
        else:
            callback(*arguments)

    def lose(self, error: Exception | None) -> None:
        """The connection is over for this end."""
        if self.closed:
            return
        self.closed = self._closing = True
        self._wires.ends.pop(self, None)
        self._inbox.clear()
        if self.protocol is not None:
            self._run(self.protocol.connection_lost, error)

    # -- out --------------------------------------------------------------------------------------------------

    def write(self, data: Any) -> None:
        octets = bytes(data)
        if not octets or self._closing or self.closed:
            return
        self.written += len(octets)
        if self.process is not None:
            self._wires.wrote(self, octets)
        self.leaving = octets.endswith(b"QUIT\r\n")
        self._under_way += len(octets)
        self._cut(octets)
        if self._under_way > _HIGH and not self._blocked:
            self._blocked = True
            if self.protocol is not None:
                self._run(self.protocol.pause_writing)

    def writelines(self, list_of_data: Any) -> None:
        self.write(b"".join(list_of_data))

    def _cut(self, octets: bytes) -> None:
        chance = self._wires.chance
        if len(octets) > 1 and chance.random() < 0.15:
            at = chance.randrange(1, len(octets))
            self.send(octets[:at])
            octets = octets[at:]
        self.send(octets)

    def send(self, octets: bytes, *, last: bool = False) -> None:
        """Put a segment on its way; `last`: the end of file."""
        wires = self._wires
        peer = self.peer
        assert peer is not None
        arrives = max(wires.base.now + wires.latency(), self._arrives, self.stalled_until)
        if arrives == float("inf"):
            return
        self._arrives = arrives
        # Timers of one moment come in any order: what lands is the oldest in flight, whichever timer it was.
        self._flight.append(None if last else octets)
        wires.base.call_at(arrives, peer.land)

    def _taken(self, count: int) -> None:
        """The other side's protocol has it."""
        self._under_way -= count
        if self._blocked and self._under_way <= _LOW and not self.closed:
            self._blocked = False
            if self.protocol is not None:
                self._run(self.protocol.resume_writing)
        if self._closing and not self.closed and self._under_way <= _HIGH:
            self.lose(None)

    # -- in ---------------------------------------------------------------------------------------------------

    def land(self) -> None:
        """A segment arrives."""
        peer = self.peer
        assert peer is not None
        if self.stalled_until > self._wires.base.now + 1e-6:
            if self.stalled_until < float("inf"):
                self._wires.base.call_at(self.stalled_until, self.land)
            return
        octets = peer._flight.popleft()
        if self.closed or self._closing:
            if octets and not peer.closed and not self.silent:  # nobody reads here any more
                error = ConnectionResetError(errno.ECONNRESET, "Connection reset by peer")
                self._wires.base.call_later(self._wires.latency(), peer.lose, error)
            return
        self._inbox.append(octets)
        self._deliver()

    def _deliver(self) -> None:
        while self._inbox and self._reading and self.protocol is not None and not self.closed:
            octets = self._inbox.popleft()
            if octets is None:
                self._eof()
                continue
            peer = self.peer
            assert peer is not None
            if not self._closing:
                self.received += len(octets)
                self._run(self.protocol.data_received, octets)
            peer._taken(len(octets))

    def _eof(self) -> None:
        kept: list[Any] = []
        assert self.protocol is not None
        protocol = self.protocol
        self._run(lambda: kept.append(protocol.eof_received()))
        if not (kept and kept[0]):
            self.close()

    # -- the transport's face ---------------------------------------------------------------------------------

    def close(self) -> None:
        if self._closing:
            return
        self._closing = True
        if not self.closed:
            self.send(b"", last=True)
            if self._under_way <= _HIGH:
                self._soon(None)

    def abort(self) -> None:
        if self.closed:
            return
        if not self._closing:
            self._closing = True
        peer = self.peer
        if peer is not None and not peer.closed and self.stalled_until != float("inf"):
            error = ConnectionResetError(errno.ECONNRESET, "Connection reset by peer")
            self._wires.base.call_later(self._wires.latency(), peer.lose, error)
        self._soon(None)

    def _soon(self, error: Exception | None) -> None:
        self._wires.base.call_soon(self.lose, error)

    def is_closing(self) -> bool:
        return self._closing

    def pause_reading(self) -> None:
        self._reading = False

    def resume_reading(self) -> None:
        if not self._reading:
            self._reading = True
            self._wires.base.call_soon(self._deliver)

    def is_reading(self) -> bool:
        return self._reading

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        self.protocol = protocol  # type: ignore[assignment]

    def get_protocol(self) -> asyncio.BaseProtocol:
        assert self.protocol is not None
        return self.protocol

    def get_write_buffer_size(self) -> int:
        return self._under_way

    def can_write_eof(self) -> bool:
        return False


class Socket:
    """What stands for a bound, listening socket."""

    family = 2

    def __init__(self, place: str) -> None:
        self.place = place

    def dup(self) -> Socket:
        return Socket(self.place)

    def setblocking(self, flag: bool) -> None: ...

    def close(self) -> None: ...


class SimTls:
    """What an SSL object tells of a handshake, in which a host has shown these octets as its certificate."""

    server_side = False
    session_reused = False
    context = SimpleNamespace(verify_mode=ssl.CERT_NONE, check_hostname=False)

    def __init__(self, shown: bytes, server_hostname: str) -> None:
        self._shown = shown
        self.server_hostname = server_hostname

    def getpeercert(self, binary_form: bool = False) -> bytes:
        return self._shown

    def get_unverified_chain(self) -> list[bytes]:
        return [self._shown]

    def cipher(self) -> tuple[str, str, int]:
        return "SIM", "TLSv1.3", 128

    def version(self) -> str:
        return "TLSv1.3"


class SimNetwork:
    """`postroad.world.network.Network` of one process."""

    def __init__(self, wires: Wires, process: Process, address: str, tls_fails: Callable[[], str]) -> None:
        self._wires = wires
        self._process = process
        self._address = address
        self._tls_fails = tls_fails  # how the next handshake fails: "", "error", "stall", "reset"

    async def connect(
        self,
        protocol_factory: Callable[[], Any],
        address: str,
        port: int,
        *,
        path: str = "",
        source: str = "",
        timeout_s: float,
        context: ssl.SSLContext | None = None,
        server_name: str = "",
    ) -> tuple[asyncio.Transport, Any]:
        place = path or f"{address}:{port}"
        found: asyncio.Future[tuple[asyncio.Transport, Any]] = self._process.create_future()

        def done(end: End | OSError, protocol: Any) -> None:
            if isinstance(end, OSError):
                if not found.done():
                    found.set_exception(end)
            elif found.done():
                end.abort()
            else:
                found.set_result((end, protocol))

        self._wires.reach(place, self._process, protocol_factory, (self._address, self._wires.port()), done)
        async with asyncio.timeout(timeout_s):
            return await found

    async def start_tls(
        self,
        transport: asyncio.Transport,
        protocol: asyncio.BaseProtocol,
        context: ssl.SSLContext,
        *,
        server_side: bool = False,
        server_name: str = "",
        timeout_s: float,
    ) -> asyncio.Transport:
        assert isinstance(transport, End)
        fault = self._tls_fails()
        try:
            async with asyncio.timeout(timeout_s):
                await asyncio.sleep(timeout_s + 1 if fault == "stall" else 4 * self._wires.latency())
            if fault == "error":
                raise ssl.SSLError(1, "handshake failure")
            if context.check_hostname and transport.place in self._wires.untrusted:
                error = ssl.SSLCertVerificationError(1, "certificate verify failed")
                error.verify_code, error.verify_message = 20, "unable to get local issuer certificate"
                raise error
            if fault == "reset" or transport.closed:
                raise ConnectionResetError(errno.ECONNRESET, "reset during the handshake")
        except BaseException:
            transport.abort()
            raise
        transport.tls = True
        shown = self._wires.certificates.get(transport.place)
        if shown is not None:
            transport.shows(SimTls(shown, server_name))
        return transport

    async def serve(
        self,
        protocol_factory: Callable[[], asyncio.BaseProtocol],
        sock: Any,
        *,
        context: ssl.SSLContext | None = None,
        backlog: int = 512,
        handshake_s: float = 60.0,
    ) -> Server:
        self._wires.listen(sock.place, self._process, protocol_factory)
        return Server(self._wires, sock.place, protocol_factory)


class Server:
    def __init__(self, wires: Wires, place: str, factory: Callable[[], asyncio.BaseProtocol]) -> None:
        self._wires = wires
        self._place = place
        self._factory = factory

    def close(self) -> None:
        self._wires.close_listener(self._place, self._factory)
