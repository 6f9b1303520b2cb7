"""Sends prepared messages as fast as a server takes them, over kept connections: a process of its own, with little work
for each message. What stands behind MAIL, RCPT and DATA goes in one write, as RFC 2920 allows it.

    python -m bench.sending PORT SESSIONS FILE RECIPIENT

FILE holds pairs of sender and content, in MessagePack. Exit code 1 with the answer if the server refuses anything.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Final, cast

import msgspec
import uvloop

Prepared = tuple[str, bytes]
HELO: Final = b"client.bench.test"


class _Session(asyncio.Protocol):
    """`work`: what all sessions have left."""

    def __init__(self, work: Iterator[Prepared], recipient: str) -> None:
        self._work = work
        self._recipient = recipient.encode()
        self._said = b""
        self._content = b""
        self._expected = 1  # last lines of replies that are awaited
        self._step = self._hello
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)

    def data_received(self, octets: bytes) -> None:
        self._said += octets
        if not self._said.endswith(b"\r\n"):
            return
        lines = [line for line in self._said.splitlines() if line[3:4] != b"-"]
        if len(lines) < self._expected:
            return
        if any(line[:1] not in (b"2", b"3") for line in lines):
            self.done.set_exception(RuntimeError(self._said.decode("utf-8", "replace")))
            self._transport.abort()
            return
        self._said = b""
        self._step()

    def connection_lost(self, error: Exception | None) -> None:
        if not self.done.done():
            self.done.set_exception(RuntimeError(f"the connection has ended: {error}"))

    def _hello(self) -> None:
        self._transport.write(b"EHLO %s\r\n" % HELO)
        self._step = self._next

    def _next(self) -> None:
        found = next(self._work, None)
        if found is None:
            self.done.set_result(None)
            self._transport.write(b"QUIT\r\n")
            self._transport.close()
            return
        sender, self._content = found
        self._transport.write(b"MAIL FROM:<%s>\r\nRCPT TO:<%s>\r\nDATA\r\n" % (sender.encode(), self._recipient))
        self._expected, self._step = 3, self._send

    def _send(self) -> None:
        self._transport.write(self._content + b".\r\n")
        self._expected, self._step = 1, self._next


async def send(port: int, sessions: int, messages: list[Prepared], recipient: str) -> None:
    work = iter(messages)
    loop = asyncio.get_running_loop()
    opened = [
        (await loop.create_connection(lambda: _Session(work, recipient), "127.0.0.1", port))[1]
        for _ in range(sessions)
    ]
    await asyncio.gather(*(each.done for each in opened))


def main() -> int:
    port, sessions, file, recipient = sys.argv[1:]
    messages = msgspec.msgpack.decode(Path(file).read_bytes(), type=list[Prepared])
    try:
        uvloop.run(send(int(port), int(sessions), messages, recipient))
    except RuntimeError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
