"""The control socket: operators' commands to a running node, one JSON line each way.

A Unix socket `STATE_DIR/run/control` with mode 0600: who may open it may operate the node. A request is an object
with "command"; the reply has "ok" and either "result" or "error". What cannot be parsed gets an error, not silence.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, Final, Protocol

import msgspec

REQUEST_MAX: Final = 1_048_576
IDLE_S: Final = 60.0
READY_S: Final = 60.0  # how long a request waits for workers that are being started
PACE_READY_S: Final = 2.0  # the same for what is only told

Ask = Callable[..., Awaitable[list[tuple[int, Any]]]]
Rows = Callable[[Any], Awaitable[list[dict[str, Any]] | str]]


class WaitReady(Protocol):
    def __call__(self, limit_s: float, *, once: bool = False) -> Awaitable[str]: ...


Reload = Callable[[], Awaitable[list[str]]]


class Control:
    """Serves the socket. `ask(kind, value)` reaches the workers, `status()` tells of the node, `bans(request)` does
    what an operator wants of the bans, `pace(destinations)` tells what these wait for. `ready(limit_s)`: until all
    workers are ready (`once`: were so once), "" or why they are not. `reload()`: takes the configuration, or tells why
    not. `configuration()`: the values in force. `routes(addresses)`: where their mail would go by these."""

    def __init__(
        self, path: Path, ask: Ask, status: Callable[[], dict[str, Any]], bans: Rows, pace: Rows, ready: WaitReady,
        reload: Reload, configuration: Callable[[], dict[str, Any]], routes: Callable[[list[str]], dict[str, str]],
    ) -> None:
        self._path = path
        self._ask = ask
        self._status = status
        self._bans = bans
        self._pace = pace
        self._ready = ready
        self._reload = reload
        self._configuration = configuration
        self._routes = routes
        self._server: asyncio.Server | None = None

    async def start(self) -> str:
        """"" or what is wrong."""
        # The node's lock is ours, so a socket that stands here is left over from a node that is gone.
        self._path.unlink(missing_ok=True)
        try:
            self._server = await asyncio.start_unix_server(self._serve, str(self._path), limit=REQUEST_MAX)
            self._path.chmod(0o600)
        except OSError as error:
            return f"cannot open the control socket {self._path}: {error.strerror or error}"
        return ""

    async def stop(self) -> None:
        if self._server is not None:
            self._server.close()
        self._path.unlink(missing_ok=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError, TimeoutError, ValueError, asyncio.IncompleteReadError):
            while True:
                async with asyncio.timeout(IDLE_S):
                    line = await reader.readline()
                if not line:
                    break
                writer.write(msgspec.json.encode(await self._answer(line)) + b"\n")
                await writer.drain()
        writer.close()

    async def _answer(self, line: bytes) -> dict[str, Any]:
        try:
            request = msgspec.json.decode(line, type=dict[str, Any])
        except msgspec.DecodeError as error:
            return {"ok": False, "error": f"not a JSON object: {error}"}
        match request.get("command"):
            case "status":
                workers = [{"number": number, **(answer or {})} for number, answer in await self._ask("status", None)]
                return {"ok": True, "result": {**self._status(), "activity": workers}}
            case "configuration":
                return {"ok": True, "result": self._configuration()}
            case "routes":
                return self._told_routes(request.get("request"))
            case "operate":
                missing = await self._ready(READY_S)
                return {"ok": False, "error": missing} if missing else await self._operate(request)
            case "reload":
                missing = await self._ready(READY_S, once=True)
                return {"ok": False, "error": missing} if missing else await self._reloaded()
            case "bans" | "pace" as command:
                if command == "pace":
                    await self._ready(PACE_READY_S)
                answer = await (self._bans if command == "bans" else self._pace)(request.get("request"))
                return {"ok": False, "error": answer} if isinstance(answer, str) else {"ok": True, "result": answer}
            case command:
                return {"ok": False, "error": f"unknown command {command!r}"}

    def _told_routes(self, addresses: Any) -> dict[str, Any]:
        if not isinstance(addresses, list) or not all(isinstance(each, str) for each in addresses):
            return {"ok": False, "error": "not a list of addresses"}
        return {"ok": True, "result": self._routes(addresses)}

    async def _reloaded(self) -> dict[str, Any]:
        problems = await self._reload()
        return {"ok": True, "result": {"taken": not problems, "problems": problems}}

    async def _operate(self, request: dict[str, Any]) -> dict[str, Any]:
        rows: list[Any] = []
        for number, answer in await self._ask("operate", request.get("request")):
            if answer is None:
                return {"ok": False, "error": f"worker {number} did not answer; look again with `postroad queue`"}
            if isinstance(answer, str):
                return {"ok": False, "error": answer}
            rows.extend(answer)
        return {"ok": True, "result": rows}
