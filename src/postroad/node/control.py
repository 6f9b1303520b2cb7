"""The control socket: operators' commands to a running node, one JSON line each way (`operate.requests`).

A Unix socket `STATE_DIR/run/control` with mode 0600: who may open it may operate the node. What always holds: each line
gets one reply; what cannot be read, and what is asked before `ControlHello`, gets an error, not silence. A command of
another version of the protocol is told so, and nothing is done for it.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable
from pathlib import Path
from typing import Any, Final, Protocol, assert_never

from msgspec.structs import replace

from postroad import __version__
from postroad.check.banning import BanRequest, BanResult
from postroad.check.bans import Ban
from postroad.node.frames import ActivityTold, AskActivity, AskMapUse, MapUse, Operate, Operated
from postroad.node.offices.pacing import Ask
from postroad.operate.operator import OperatorRequest, OperatorResult, fault_of
from postroad.operate.requests import (
    VERSION,
    Activity,
    BansRequest,
    ConfigurationRequest,
    ControlHello,
    Greeting,
    KeysRequest,
    KeysSummary,
    LimitsAsked,
    LimitsRequest,
    MapUseRequest,
    NodeStatus,
    OperateRequest,
    Paced,
    PaceRequest,
    Reloaded,
    ReloadRequest,
    Request,
    RouteQuestion,
    RoutesRequest,
    SentCount,
    StatusRequest,
    answer,
    encode,
    other_version,
    read_request,
)

REQUEST_MAX: Final = 1_048_576
IDLE_S: Final = 60.0
READY_S: Final = 60.0  # how long a request waits for workers that are being started
PACE_READY_S: Final = 2.0  # the same for what is only told
_NO_HELLO: Final = "the first request must be hello, with the version of the protocol; use the command of this version"


class Node(Protocol):
    """What the control socket needs of the supervisor. A text as an answer says why there is none."""

    @property
    def ask(self) -> Ask: ...
    def status(self) -> NodeStatus: ...
    def configuration(self) -> dict[str, Any]: ...
    def routes(self, addresses: tuple[str, ...], asked: tuple[RouteQuestion, ...]) -> dict[str, str]: ...
    def bans(self, asked: BanRequest) -> Awaitable[list[Ban] | list[BanResult] | str]: ...
    def limits(self, asked: LimitsAsked) -> list[SentCount]: ...
    def paces(self, destination_keys: tuple[str, ...]) -> Awaitable[list[Paced] | str]: ...

    def keys_changed(self, done: tuple[str, ...]) -> Awaitable[KeysSummary]: ...

    def all_ready(self, limit_s: float, *, once: bool = False) -> Awaitable[str]:
        """Wait until all workers are ready (`once`: were so once); "" or why they are not."""

    def reload(self) -> Awaitable[list[str]]:
        """Take the configuration as its file has it now; why it was refused, as lines."""


class Control:
    """Serves the socket for a node."""

    def __init__(self, path: Path, node: Node) -> None:
        self._path = path
        self._node = node
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
        greeted = False
        with contextlib.suppress(OSError, TimeoutError, ValueError, asyncio.IncompleteReadError):
            while True:
                async with asyncio.timeout(IDLE_S):
                    line = await reader.readline()
                if not line:
                    break
                request = read_request(line)
                if not greeted and not isinstance(request, ControlHello):
                    request = request if isinstance(request, str) else _NO_HELLO
                result = request if isinstance(request, str) else await self._answer(request)
                greeted = greeted or isinstance(result, Greeting)
                writer.write(encode(answer(result)))
                await writer.drain()
        writer.close()

    async def _answer(self, request: Request) -> Any:
        """The result, or as a text why there is none."""
        node = self._node
        match request:
            case ControlHello():
                return other_version(request, __version__) or Greeting(VERSION, __version__)
            case StatusRequest():
                return await self._status()
            case ConfigurationRequest():
                return node.configuration()
            case RoutesRequest(addresses, asked):
                return node.routes(addresses, asked)
            case OperateRequest(wanted):
                return fault_of(wanted) or await node.all_ready(READY_S) or await self._operate(wanted)
            case ReloadRequest():
                return await node.all_ready(READY_S, once=True) or await self._reload()
            case BansRequest(wanted):
                return await node.bans(wanted)
            case LimitsRequest(wanted):
                return node.limits(wanted)
            case KeysRequest(done):
                await node.all_ready(READY_S)
                return await node.keys_changed(done)
            case MapUseRequest(name):
                return await self._map_use(name)
            case PaceRequest(keys):
                await node.all_ready(PACE_READY_S)
                return await node.paces(keys)
            case _:
                assert_never(request)

    async def _status(self) -> NodeStatus:
        answers = await self._node.ask(AskActivity, ActivityTold)
        return replace(
            self._node.status(),
            activity=tuple(Activity(number) if each is None else each.activity for number, each in answers),
        )

    async def _map_use(self, name: str) -> dict[str, int]:
        used: dict[str, int] = {}
        for _, each in await self._node.ask(lambda question: AskMapUse(question, name), MapUse):
            for key, at_us in each.used.items() if each is not None else ():
                used[key] = max(at_us, used.get(key, 0))
        return used

    async def _reload(self) -> Reloaded:
        problems = await self._node.reload()
        return Reloaded(not problems, tuple(problems))

    async def _operate(self, request: OperatorRequest) -> list[OperatorResult] | str:
        rows: list[OperatorResult] = []
        for number, each in await self._node.ask(lambda question: Operate(question, request), Operated):
            if each is None:
                return f"worker {number} did not answer; look again with `postroad queue`"
            rows.extend(each.results)
        return rows
