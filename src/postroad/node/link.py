"""The link between the supervisor and one worker: frames both ways over a socket pair, file descriptors one way.

On the wire a frame is its length (four octets), the number of its descriptors (two octets), and its octets
(`node.frames`). What always holds: a frame is read whole or not at all; the end of the other side ends the link.
Descriptors (listening sockets) are sent before the frame that names them.

How it fails: octets that are no frame end the link, and `ended` hears why; descriptors that came with them are closed.
"""

from __future__ import annotations

import array
import asyncio
import os
import socket
import struct
from collections.abc import Callable, Sequence
from typing import Final, Generic, TypeVar

from postroad.node import frames
from postroad.node.frames import BadFrame, Frame, Reader

_LENGTH: Final = struct.Struct("!IH")  # octets of the frame, descriptors that come with it
FRAME_MAX: Final = 64 * 1024 * 1024

_Heard = TypeVar("_Heard")


class Link(Generic[_Heard]):
    """One end on an event loop. `read`: what this end may hear. `received(frame, descriptors)` is called for each
    frame, in order; `ended(why)` once, when the link is over: "" if the other side has ended or `close` was called,
    else what was wrong."""

    def __init__(
        self,
        sock: socket.socket,
        loop: asyncio.AbstractEventLoop,
        read: Reader[_Heard],
        received: Callable[[_Heard, list[int]], None],
        ended: Callable[[str], None],
    ) -> None:
        sock.setblocking(False)
        self._sock = sock
        self._loop = loop
        self._read = read
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
        body = frames.encode(frame)
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
                self._end(f"a frame of {length} octets is longer than {FRAME_MAX}")
                return
            end = _LENGTH.size + length
            if len(self._input) < end or len(self._descriptors) < count:
                return
            try:
                frame = self._read(bytes(self._input[_LENGTH.size : end]))
            except BadFrame as error:
                self._end(str(error))
                return
            del self._input[:end]
            descriptors, self._descriptors = self._descriptors[:count], self._descriptors[count:]
            self._received(frame, descriptors)

    def close(self) -> None:
        """End the link from here."""
        self._end("")

    def _end(self, why: str) -> None:
        if self._closed:
            return
        self._closed = True
        self._loop.remove_reader(self._sock.fileno())
        self._loop.remove_writer(self._sock.fileno())
        self._sock.close()
        for descriptor in self._descriptors:  # their frame will not come
            os.close(descriptor)
        self._descriptors.clear()
        self._ended(why)
