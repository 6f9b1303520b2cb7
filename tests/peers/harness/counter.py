"""A sink of our own that counts recipients and may keep every Message-ID: an SMTP server that takes all.

Run as a program (``python -m tests.peers.harness.counter PORT COUNTS [--record FILE]``) it keeps clear of the clients'
process. It counts transactions and accepted recipients in a small memory-mapped file, so that reading it costs nothing;
with `--record` it appends each message's Message-ID to a file *before* its 250, one line each, unbuffered.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import mmap
import os
import re
import struct
import sys
import tempfile
import time
from pathlib import Path
from typing import cast

from tests.peers.harness import ports
from tests.peers.harness.process import NotReady, Program, listens, until

_COUNTS = struct.Struct("=QQd")  # messages, recipients, time.monotonic() of the last


class Session(asyncio.Protocol):
    """One session. Works on whole chunks: pipelined RCPTs are counted, not parsed one by one where they all are."""

    def __init__(self, counts: mmap.mmap, record: int, lmtp: bool) -> None:
        self._counts = counts
        self._record = record
        self._lmtp = lmtp
        self._buffer = b""
        self._in_data = False
        self._recipients = 0
        self._tail = b""  # the last octets of content, in which its end may have begun
        self._head = b""  # the first octets of content, where it is recorded

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's are no subclass of it
        self._transport.write(b"220 counter.test ESMTP\r\n")

    def data_received(self, data: bytes) -> None:
        buffer = self._buffer + data if self._buffer else data
        out: list[bytes] = []
        while buffer:
            if self._in_data:
                buffer, ended = self._content(buffer, out)
                if not ended:
                    break
            else:
                line, found, rest = buffer.partition(b"\r\n")
                if not found:
                    break
                buffer = rest
                self._command(line, out)
        self._buffer = buffer
        if out:
            self._transport.write(b"".join(out))

    def _command(self, line: bytes, out: list[bytes]) -> None:
        verb = line[:4].upper()
        if verb == b"RCPT":
            self._recipients += 1
            out.append(b"250 2.1.5 ok\r\n")
        elif verb == b"MAIL":
            self._recipients = 0
            out.append(b"250 2.1.0 ok\r\n")
        elif verb == b"DATA":
            self._in_data = True
            self._tail = self._head = b"\r\n"
            out.append(b"354 go on\r\n")
        elif verb in (b"EHLO", b"LHLO"):
            out.append(_HELLO)
        elif verb == b"QUIT":
            out.append(b"221 2.0.0 bye\r\n")
            self._transport.write(b"".join(out))
            out.clear()
            self._transport.close()
        else:
            out.append(b"250 2.0.0 ok\r\n")

    def _content(self, buffer: bytes, out: list[bytes]) -> tuple[bytes, bool]:
        """Takes content; what is left behind its end, and whether it has ended."""
        joined = self._tail + buffer
        at = joined.find(b"\r\n.\r\n")
        end = len(buffer) if at < 0 else at + 5 - len(self._tail)
        if self._record >= 0 and len(self._head) < _HEAD_MAX:
            self._head += buffer[:end]
        if at < 0:
            self._tail = joined[-4:]
            return b"", False
        self._in_data = False
        self._ended(out)
        return buffer[end:], True

    def _ended(self, out: list[bytes]) -> None:
        if self._record >= 0:
            found = _MESSAGE_ID.search(self._head)
            os.write(self._record, (found[1] if found else b"?") + b"\n")
        messages, recipients, _ = _COUNTS.unpack_from(self._counts)
        _COUNTS.pack_into(self._counts, 0, messages + 1, recipients + self._recipients, time.monotonic())
        answer = b"250 2.0.0 kept\r\n"
        out.append(answer * self._recipients if self._lmtp else answer)


_HELLO = b"250-counter.test\r\n250-PIPELINING\r\n250-8BITMIME\r\n250-SMTPUTF8\r\n250-SIZE 0\r\n250 DSN\r\n"
_HEAD_MAX = 65_536
_MESSAGE_ID = re.compile(rb"\r\nMessage-ID:\s*(<[^>\r\n]*>)", re.IGNORECASE)


class Counter:
    """The program as a peer: start, read its counts, stop."""

    def __init__(self, directory: Path, *, record: bool = False, port: int = 0, lmtp: bool = False) -> None:
        self.port = port or ports.port()
        self.record_path = directory / f"counter-{self.port}.ids"
        handle, name = tempfile.mkstemp(dir=directory, prefix="counter-")
        os.ftruncate(handle, mmap.PAGESIZE)
        self._counts = mmap.mmap(handle, mmap.PAGESIZE)
        os.close(handle)
        command = [sys.executable, "-m", "tests.peers.harness.counter", str(self.port), name]
        if record:
            command += ["--record", str(self.record_path)]
        if lmtp:
            command.append("--lmtp")
        self._program = Program(command, directory / f"counter-{self.port}.log", directory=_ROOT)

    @property
    def pid(self) -> int:
        return self._program.pid

    @property
    def messages(self) -> int:
        return int(_COUNTS.unpack_from(self._counts)[0])

    @property
    def recipients(self) -> int:
        return int(_COUNTS.unpack_from(self._counts)[1])

    @property
    def counted_at(self) -> float:
        """When the last message came, time.monotonic()."""
        return float(_COUNTS.unpack_from(self._counts)[2])

    def message_ids(self) -> list[bytes]:
        """Every Message-ID that came, in order, as often as it came."""
        return self.record_path.read_bytes().split()

    def wait_recipients(self, count: int, within_s: float = 120.0) -> float:
        try:
            until(lambda: self.recipients >= count, f"{count} recipients", within_s=within_s)
        except NotReady as error:
            raise NotReady(f"{error}; there are {self.recipients}") from None
        return self.counted_at

    def start(self) -> None:
        self._program.start()
        self._program.ready(lambda: listens("127.0.0.1", self.port), "the counter listens")

    def stop(self) -> None:
        self._program.stop()

    def __enter__(self) -> Counter:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()


_ROOT = Path(__file__).resolve().parents[3]


async def _serve(port: int, counts: mmap.mmap, record: int, lmtp: bool) -> None:
    server = await asyncio.get_running_loop().create_server(
        lambda: Session(counts, record, lmtp), "127.0.0.1", port, backlog=1024
    )
    await server.serve_forever()


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("port", type=int)
    parser.add_argument("counts", type=Path)
    parser.add_argument("--record", type=Path)
    parser.add_argument("--lmtp", action="store_true")
    asked = parser.parse_args()
    with open(asked.counts, "r+b") as file:
        counts = mmap.mmap(file.fileno(), mmap.PAGESIZE)
    record = os.open(asked.record, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644) if asked.record else -1
    import uvloop

    with contextlib.suppress(KeyboardInterrupt):
        uvloop.run(_serve(asked.port, counts, record, asked.lmtp))


if __name__ == "__main__":
    main()
