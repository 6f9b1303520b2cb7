"""The link between the supervisor and one worker: values both ways over a socket pair, file descriptors one way.

Frames are a four-octet length and a pickled tuple ``(kind, ...)``: both ends are the same program, started by the
same user, on a socket that nobody else can reach. What always holds: a frame is read whole or not at all; the end of
the other side ends the link. Descriptors (listening sockets) go ahead of the frame that tells of them.

The supervisor sends, in this order to a worker that starts:
- ("bans", added, lifted): all bans in force, then each change;
- ("tickets", octets): the secret for keys of TLS session tickets, then each new one;
- ("start", number, shards, settings, endpoints), with the listening sockets; once.
Later, as often as needed:
- ("others", counts), ("forget", keys); ("granted", …), ("paid", …), ("wanted", scope): answers on permits and rates;
- ("prepare", question, settings), then ("commit", endpoints) or ("abandon",), then ("sync", question, None): a reload;
- ("operate", …), ("status", …), ("pace", …), ("start queue", …), each (kind, question, value): for operators and ETRN;
- ("queue started", question, counts): what came of an ETRN of this worker's client;
- ("stop", limit_s): the last one.

A worker sends:
- ("ready",) when it serves, or ("misconfigured", text); then ("alive",) each second; ("leaving",) when it stops;
- ("ask", …), ("release", …), ("succeeded", …), ("refused", …), ("tokens", …): permits and rates; ("tally", counts);
- ("start queue", question, names): ETRN; ("answer", question, value): once for each frame that has a question.
"""

from __future__ import annotations

import array
import asyncio
import pickle
import socket
import struct
from collections.abc import Callable, Sequence
from typing import Any, Final

_LENGTH: Final = struct.Struct("!IH")  # octets of the frame, descriptors that come with it
FRAME_MAX: Final = 64 * 1024 * 1024

Frame = tuple[Any, ...]


class Link:
    """One end on an event loop. `received(frame, descriptors)` for each frame; `ended()` once, when it is over."""

    def __init__(
        self,
        sock: socket.socket,
        loop: asyncio.AbstractEventLoop,
        received: Callable[[Frame, list[int]], None],
        ended: Callable[[], None],
    ) -> None:
        sock.setblocking(False)
        self._sock = sock
        self._loop = loop
        self._received = received
        self._ended = ended
        self._input = bytearray()
        self._descriptors: list[int] = []
        self._output: list[tuple[bytes, list[int]]] = []
        self._closed = False
        loop.add_reader(sock.fileno(), self._readable)

    def send(self, frame: Frame, descriptors: Sequence[int] = ()) -> None:
        """Send a frame; what the socket does not take now goes when it can."""
        if self._closed:
            return
        body = pickle.dumps(frame, protocol=5)
        waiting = bool(self._output)
        self._output.append((_LENGTH.pack(len(body), len(descriptors)) + body, list(descriptors)))
        if not waiting:
            self._writable()

    def _writable(self) -> None:
        while self._output:
            octets, descriptors = self._output[0]
            try:
                if descriptors:
                    rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", descriptors))]
                    sent = self._sock.sendmsg([octets], rights)
                else:
                    sent = self._sock.send(octets)
            except (BlockingIOError, InterruptedError):
                self._loop.add_writer(self._sock.fileno(), self._writable)
                return
            except OSError:
                self.close()
                return
            if sent < len(octets):
                self._output[0] = (octets[sent:], [])
            else:
                self._output.pop(0)
        self._loop.remove_writer(self._sock.fileno())

    def _readable(self) -> None:
        try:
            octets, ancillary, _, _ = self._sock.recvmsg(262_144, socket.CMSG_SPACE(256 * 4))
        except (BlockingIOError, InterruptedError):
            return
        except OSError:
            octets, ancillary = b"", []
        for level, kind, data in ancillary:
            if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
                numbers = array.array("i")
                numbers.frombytes(data[: len(data) - len(data) % numbers.itemsize])
                self._descriptors.extend(numbers)
        if not octets:
            self.close()
            return
        self._input += octets
        while not self._closed and len(self._input) >= _LENGTH.size:
            length, count = _LENGTH.unpack_from(self._input)
            if length > FRAME_MAX:
                self.close()
                return
            end = _LENGTH.size + length
            if len(self._input) < end or len(self._descriptors) < count:
                return
            frame = pickle.loads(bytes(self._input[_LENGTH.size : end]))
            del self._input[:end]
            descriptors, self._descriptors = self._descriptors[:count], self._descriptors[count:]
            self._received(frame, descriptors)

    def close(self) -> None:
        if self._closed:
            return
        self._closed = True
        self._loop.remove_reader(self._sock.fileno())
        self._loop.remove_writer(self._sock.fileno())
        self._sock.close()
        self._ended()
