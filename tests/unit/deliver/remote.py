"""A remote server on loopback that answers as it is told, with STARTTLS and AUTH, and remembers what it was told."""

from __future__ import annotations

import asyncio
import base64
import ssl
from collections.abc import Callable
from typing import Any

from postroad.protocol.sasl.bearer import Bearer
from postroad.protocol.sasl.scram import Scram
from postroad.protocol.sasl.scram_keys import derive
from postroad.protocol.sasl.step import Challenge, ExchangeRefused, Keys, Mechanism, Password, ProofFailed, Step, Token

Answer = bytes | None  # None: close the connection
CLOSE = b"\0close"  # behind an answer: then close the connection


class Remote:
    """`answers`: verb, or whole line → what to say instead of the usual; ``"END"`` for the end of data, ``"GREETING"``
    for the first.

    `commands`: all that was said, over all connections; `mails`: contents received, dots unstuffed. `within`: answers
    under TLS that come before those of `answers`. `slow_s`: verb → how long its answer takes. `forgets`: a verb;
    what has come behind it is thrown away.
    """

    def __init__(
        self, offered: str = "PIPELINING", answers: dict[str, Answer] | None = None, tls: ssl.SSLContext | None = None
    ) -> None:
        self.offered = offered.split()
        self.answers = answers or {}
        self.within: dict[str, Answer] = {}
        self.slow_s: dict[str, float] = {}
        self.forgets = ""
        self.tls = tls
        self.sasl: Callable[[str, Any], Mechanism] | None = None  # by the mechanism's name and the transport
        self.believed = False  # 235 comes without the last word of the mechanism
        self.commands: list[str] = []
        self.mails: list[bytes] = []
        self.connections = 0
        self.peers: list[str] = []  # the address that each connection came from
        self.port = 0
        self.heard = asyncio.Event()  # a connection or a command
        self._server: Any = None
        self._open: set[asyncio.BaseTransport] = set()

    async def start(self, *, implicit: bool = False, path: str = "") -> Remote:
        loop = asyncio.get_running_loop()
        context = self.tls if implicit else None
        if path:
            self._server = await loop.create_unix_server(lambda: _Session(self), path)
        else:
            self._server = await loop.create_server(lambda: _Session(self), "127.0.0.1", 0, ssl=context)
            self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def stop(self) -> None:
        self._server.close()
        for transport in list(self._open):
            transport.close()
        await asyncio.sleep(0)

    async def until(self, met: Callable[[], bool]) -> None:
        """Wait until that is so; it is looked at with each connection and command."""
        while not met():
            self.heard.clear()
            await self.heard.wait()

    def drop(self) -> None:
        """Close all connections as a server that is restarted does."""
        for transport in list(self._open):
            transport.close()


class _Session(asyncio.Protocol):
    def __init__(self, remote: Remote) -> None:
        self.remote = remote
        self.buffer = b""
        self.in_data = False
        self.mechanism: Mechanism | None = None  # AUTH is under way
        self.secure = False
        self.starting = False  # TLS is; what comes with its last octets waits

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport: Any = transport
        self.remote.connections += 1
        peer = transport.get_extra_info("peername")
        self.remote.peers.append(peer[0] if isinstance(peer, tuple) else "")
        self.remote.heard.set()
        self.remote._open.add(transport)
        self.secure = transport.get_extra_info("ssl_object") is not None
        self.say(self.remote.answers.get("GREETING", b"220 remote ESMTP\r\n"))

    def connection_lost(self, exc: Exception | None) -> None:
        self.remote._open.discard(self.transport)

    def say(self, answer: Answer) -> None:
        if answer is None:
            self.transport.close()
        else:
            self.transport.write(answer.removesuffix(CLOSE))

    def data_received(self, data: bytes) -> None:
        self.buffer += data
        while not self.starting and not self.transport.is_closing():
            end = self.buffer.find(b"\r\n.\r\n") if self.in_data else self.buffer.find(b"\r\n")
            if self.in_data and self.buffer.startswith(b".\r\n"):
                end = -2
            if end == -1:
                return
            width = 5 if self.in_data else 2
            taken, self.buffer = self.buffer[: max(end, 0)], self.buffer[end + width :]
            if self.in_data:
                self.in_data = False
                content = (b"\r\n" + taken + b"\r\n").replace(b"\r\n.", b"\r\n")[2:]
                self.remote.mails.append(content)
                self.say(self.remote.answers.get("END", b"250 2.0.0 ok\r\n"))
            else:
                self.command(taken.decode())

    def command(self, line: str) -> None:
        remote = self.remote
        remote.commands.append(line)
        remote.heard.set()
        if self.mechanism is not None:
            self.step(ProofFailed() if line == "*" else self.mechanism.respond(base64.b64decode(line)))
            return
        verb = line.split(" ")[0].upper()
        if verb in remote.slow_s:
            self.starting = True  # nothing else is heard
            asyncio.get_running_loop().call_later(remote.slow_s[verb], self.answer_late, verb, line)
        else:
            self.answer(verb, line)
        if verb == remote.forgets:
            self.buffer = b""

    def answer_late(self, verb: str, line: str) -> None:
        if not self.transport.is_closing():
            self.starting = False
            self.answer(verb, line)
            self.data_received(b"")

    def answer(self, verb: str, line: str) -> None:
        remote = self.remote
        answers = remote.answers | remote.within if self.secure else remote.answers
        key = line if line in answers else verb
        if key in answers:
            said = answers[key]
            self.say(said)
            self.in_data = verb == "DATA" and (said or b"").startswith(b"354")
            if said is not None and said.endswith(CLOSE):
                self.say(None)
            return
        match verb:
            case "EHLO" | "LHLO":
                offered = [*remote.offered, *(["STARTTLS"] if remote.tls and not self.secure else [])]
                lines = ["remote", *(word.replace(":", " ").replace("_", " ") for word in offered)]
                text = "".join(f"250-{line}\r\n" for line in lines[:-1]) + f"250 {lines[-1]}\r\n"
                self.say(text.encode())
            case "DATA":
                self.in_data = True
                self.say(b"354 go\r\n")
            case "STARTTLS":
                self.say(b"220 ready\r\n")
                self.starting = True
                asyncio.get_running_loop().create_task(self.start_tls())
            case "QUIT":
                self.say(b"221 bye\r\n")
                self.say(None)
            case "AUTH" if remote.sasl is not None:
                _, name, *initial = line.split(" ")
                self.mechanism = remote.sasl(name, self.transport)
                octets = base64.b64decode(initial[0]) if initial else None
                self.step(self.mechanism.begin(b"" if initial == ["="] else octets))
            case "AUTH":
                self.say(b"235 2.7.0 ok\r\n")
            case _:
                self.say(b"250 2.0.0 ok\r\n")

    def step(self, step: Step) -> None:
        """The account is ada, its password "secret", its token "token"."""
        mechanism = self.mechanism
        if isinstance(step, Keys):
            assert isinstance(mechanism, Scram)
            step = mechanism.keyed(derive(step.hash, "secret", b"0123456789abcdef", 4096))
        if isinstance(step, Token) and step.token != "token":
            assert isinstance(mechanism, Bearer)
            step = mechanism.denied()
        if isinstance(step, Challenge) and not (self.remote.believed and step.octets.startswith(b"v=")):
            self.say(b"334 " + base64.b64encode(step.octets) + b"\r\n")
            return
        self.mechanism = None
        wrong = isinstance(step, ProofFailed | ExchangeRefused) or (
            isinstance(step, Password) and step.password != "secret"
        )
        self.say(b"535 5.7.8 no\r\n" if wrong else b"235 2.7.0 ok\r\n")

    async def start_tls(self) -> None:
        loop = asyncio.get_running_loop()
        try:
            transport = await loop.start_tls(self.transport, self, self.remote.tls, server_side=True)
        except OSError:
            return
        if transport is None:
            return
        self.remote._open.discard(self.transport)
        self.remote._open.add(transport)
        self.transport, self.secure, self.starting = transport, True, False
        self.data_received(b"")
