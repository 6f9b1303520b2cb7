"""A sender of many messages that knows of each whether it got its 250, through crashes of the server.

Each message has a Message-ID of its own and is sent once: one whose answer was never seen counts as unknown, and
another takes its place. So what is in `accepted` is exactly what the server has taken responsibility for, and whatever
arrives twice was sent twice by the server.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from tests.peers.harness.process import NotReady

Sized = Callable[[int], int]
Addressed = Callable[[int], Sequence[str]]


@dataclass
class Load:
    """Sends until `count` messages were accepted, over `sessions` connections; runs on a thread of its own.

    `size(number)` is the size of a message's body, `recipients(number)` to whom it goes.
    """

    port: int
    count: int
    sessions: int = 20
    size: Sized = lambda number: 4096
    recipients: Addressed = lambda number: ["a@one.test"]
    per_session: int = 100
    accepted: dict[str, Sequence[str]] = field(default_factory=dict)
    """Message-ID → recipients of what got its 250."""
    unknown: int = 0
    """Messages of which the answer was never seen."""
    refused: list[str] = field(default_factory=list)
    _number: int = 0
    _thread: threading.Thread | None = None
    _failed: BaseException | None = None
    _stop: bool = False

    def start(self) -> None:
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def wait(self, within_s: float = 120.0) -> None:
        """Until `count` were accepted."""
        assert self._thread is not None
        self._thread.join(within_s)
        if self._thread.is_alive():
            self._stop = True
            raise NotReady(f"{len(self.accepted)} of {self.count} accepted within {within_s:g} s; "
                           f"refused: {self.refused[-3:]}")
        if self._failed is not None:
            raise self._failed

    def _run(self) -> None:
        try:
            asyncio.run(self._all())
        except BaseException as error:
            self._failed = error

    async def _all(self) -> None:
        await asyncio.gather(*(self._session() for _ in range(self.sessions)))

    @property
    def _done(self) -> bool:
        return self._stop or len(self.accepted) >= self.count

    async def _session(self) -> None:
        while not self._done:
            try:
                reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
            except OSError:
                await asyncio.sleep(0.05)
                continue
            with contextlib.suppress(OSError, EOFError):
                await self._dialog(reader, writer)
            writer.close()

    async def _dialog(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if not (await _reply(reader)).startswith("220"):
            await asyncio.sleep(0.05)
            return
        writer.write(b"EHLO load.test\r\n")
        await _reply(reader)
        for _ in range(self.per_session):
            if self._done:
                break
            self._number += 1
            await self._message(self._number, reader, writer)
        writer.write(b"QUIT\r\n")
        await _reply(reader)

    async def _message(self, number: int, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        message_id = f"<{number}.{id(self):x}@load.test>"
        recipients = self.recipients(number)
        commands = ["MAIL FROM:<load@source.test>", *(f"RCPT TO:<{each}>" for each in recipients), "DATA"]
        writer.write("".join(f"{each}\r\n" for each in commands).encode())
        replies = [await _reply(reader) for _ in commands]
        if not replies[-1].startswith("354"):
            self.refused.append(replies[-1])
            writer.write(b"RSET\r\n")
            await _reply(reader)
            await asyncio.sleep(0.02)
            return
        lines = self.size(number) // 80
        head = f"Message-ID: {message_id}\r\nSubject: load {number}\r\n\r\n".encode()
        writer.write(head + (b"x" * 78 + b"\r\n") * lines + b".\r\n")
        self.unknown += 1
        answer = await _reply(reader)
        self.unknown -= 1
        if answer.startswith("250"):
            self.accepted[message_id] = recipients
        else:
            self.refused.append(answer)


async def _reply(reader: asyncio.StreamReader) -> str:
    """The last line of a reply; EOFError where the connection ends."""
    while True:
        line = await reader.readline()
        if not line.endswith(b"\n"):
            raise EOFError
        if line[3:4] != b"-":
            return line.decode("utf-8", "replace").strip()


def quiet(count: Callable[[], int], for_s: float, within_s: float) -> int:
    """Waits until `count()` has not changed for `for_s`; its value."""
    end = time.monotonic() + within_s
    last, since = count(), time.monotonic()
    while time.monotonic() - since < for_s:
        if time.monotonic() > end:
            raise NotReady(f"still changing after {within_s:g} s")
        time.sleep(0.05)
        now = count()
        if now != last:
            last, since = now, time.monotonic()
    return last
