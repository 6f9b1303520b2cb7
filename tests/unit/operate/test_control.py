"""The client of the control socket, against a server that says what it is told."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
import threading
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from postroad.check.banning import BanRequest, BanResult
from postroad.check.bans import Ban
from postroad.mail.route import Destination, Transport
from postroad.node.control import Control
from postroad.node.frames import ActivityTold, AskActivity, Operate, Operated
from postroad.operate import control
from postroad.operate.operator import OperatorAction, OperatorRequest, OperatorResult
from postroad.operate.requests import (
    VERSION,
    Activity,
    BansRequest,
    ConfigurationRequest,
    ControlHello,
    Greeting,
    NodeStatus,
    OperateRequest,
    Paced,
    Reloaded,
    ReloadRequest,
    RouteQuestion,
    RoutesRequest,
    StatusRequest,
    answer,
    encode,
    other_version,
    read_request,
)
from postroad.store.values import Selection
from tests.unit.rights import as_ordinary_user

REQUEST = OperatorRequest(OperatorAction.HOLD, (Selection(recipient="a@x"),), by="root")
FAIL = OperatorRequest(OperatorAction.FAIL, (Selection(),))
BAN = Ban("192.0.2.1/32", 1, 0, "spam", "root")
ROW = OperatorResult("60yrc2q80001", "a@x", "x", True, "held")


class Server:
    """Takes one line on each connection and answers it."""

    def __init__(self, state_dir: Path) -> None:
        path = control.control_path(state_dir)
        path.parent.mkdir(parents=True, exist_ok=True)
        self.answer = b""
        self.greeting = encode(answer(Greeting(VERSION, "1.0")))
        self.asked: list[bytes] = []
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.socket.bind(str(path))
        self.socket.listen(8)
        self.thread = threading.Thread(target=self._serve, daemon=True)
        self.thread.start()

    def _serve(self) -> None:
        while True:
            try:
                connection, _ = self.socket.accept()
            except OSError:
                return
            with connection, connection.makefile("rb") as lines:
                if self._greeted(connection, lines.readline()) and (line := lines.readline()):
                    self.asked.append(line)
                    connection.sendall(self.answer)

    def _greeted(self, connection: socket.socket, line: bytes) -> bool:
        if line:
            assert isinstance(read_request(line), ControlHello)
            connection.sendall(self.greeting)
        return bool(line and self.greeting)

    def close(self) -> None:
        self.socket.shutdown(socket.SHUT_RDWR)
        self.socket.close()
        self.thread.join()


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    server = Server(tmp_path)
    yield server
    server.close()


def test_a_request_and_its_rows(tmp_path: Path, server: Server) -> None:
    row = {"id": ROW.id, "recipient": "a@x", "destination": "x", "done": True, "text": "held"}
    server.answer = json.dumps({"ok": True, "result": [row, {**row, "count": 7}]}).encode() + b"\n"
    rows = control.operate(tmp_path, REQUEST)
    assert rows[0] == ROW and rows[1].count == 7
    asked = json.loads(server.asked[0])
    assert asked["command"] == "operate" and read_request(server.asked[0]) == OperateRequest(REQUEST)
    assert server.asked[0].endswith(b"\n") and server.asked[0].count(b"\n") == 1
    assert control.is_running(tmp_path)


def test_a_large_answer(tmp_path: Path, server: Server) -> None:
    row = {"id": ROW.id, "recipient": "a@x", "destination": "x", "done": True, "text": "held"}
    server.answer = json.dumps({"ok": True, "result": [row] * 20_000}).encode() + b"\n"
    assert len(control.operate(tmp_path, REQUEST)) == 20_000


@pytest.mark.parametrize(
    ("answer", "text"),
    [
        (b'{"ok":false,"error":"worker 1 did not answer"}\n', "worker 1 did not answer"),
        (b"", "without an answer"),
        (b"nonsense\n", "without an answer"),
        (b'{"ok":true,"result":[{"id":1}]}\n', "cannot be read"),
        (b'{"ok":true}\n', "cannot be read"),
    ],
)
def test_refusals(tmp_path: Path, server: Server, answer: bytes, text: str) -> None:
    server.answer = answer
    with pytest.raises(control.NodeRefused, match=text):
        control.operate(tmp_path, REQUEST)


def test_no_node(tmp_path: Path) -> None:
    assert not control.is_running(tmp_path)
    with pytest.raises(control.NotRunning):
        control.operate(tmp_path, REQUEST)
    left_over = Server(tmp_path)
    left_over.close()  # its socket stays in the file system
    assert control.control_path(tmp_path).exists()
    with pytest.raises(control.NotRunning):
        control.operate(tmp_path, REQUEST)


def test_a_socket_that_we_may_not_open(tmp_path: Path, server: Server) -> None:
    control.control_path(tmp_path).chmod(0)
    with as_ordinary_user():
        with pytest.raises(control.NodeRefused, match="Permission denied"):
            control.operate(tmp_path, REQUEST)
        assert control.is_running(tmp_path)


def test_a_path_that_is_too_long(tmp_path: Path) -> None:
    with pytest.raises(control.NodeRefused, match="cannot reach the node"):
        control.operate(tmp_path / ("x" * 120), REQUEST)


@pytest.mark.parametrize(
    ("greeting", "text"),
    [
        (b'{"ok":false,"error":"unknown command \'hello\'"}\n', "before .* restart the node"),
        (
            encode(answer(other_version(ControlHello(VERSION + 1, "9.9"), "1.0"))),
            "of Postroad 9.9: they do not understand",
        ),
        (b"", "without an answer"),
        (b"nonsense\n", "without an answer"),
        (b'{"ok":true}\n', "cannot be read"),
    ],
)
def test_a_node_of_another_version(tmp_path: Path, server: Server, greeting: bytes, text: str) -> None:
    server.greeting = greeting
    with pytest.raises(control.NodeRefused, match=text):
        control.operate(tmp_path, REQUEST)
    assert not server.asked, "nothing was asked of it"


class Node:
    """What the server needs of the supervisor. `why_not`: why its workers are not ready."""

    def __init__(self) -> None:
        self.asked: list[Any] = []
        self.why_not = "the node's workers are not ready"

    async def ask(self, make: Any, answer: Any) -> list[tuple[int, Any]]:
        frame = make(3)
        self.asked.append(frame)
        if isinstance(frame, AskActivity):
            return [(0, ActivityTold(3, Activity(0, 7))), (1, None)]
        return [(0, Operated(3, (ROW,))), (1, Operated(3, ()))]

    def status(self) -> NodeStatus:
        return NodeStatus(pid=9, version="1.0", state="ready")

    def configuration(self) -> dict[str, Any]:
        return {"hostname": "a"}

    def routes(self, addresses: tuple[str, ...], asked: tuple[RouteQuestion, ...]) -> dict[str, str]:
        return dict.fromkeys((*addresses, *(each.key for each in asked)), "example.net")

    async def bans(self, asked: BanRequest) -> list[Ban] | list[BanResult] | str:
        return [BAN] if asked.action == "list" else "no"

    async def paces(self, destination_keys: tuple[str, ...]) -> list[Paced] | str:
        return [Paced(key, 1, 2, 3, 4, "rate") for key in destination_keys]

    async def all_ready(self, limit_s: float, *, once: bool = False) -> str:
        return "" if once else self.why_not

    async def reload(self) -> list[str]:
        return ["a.toml:1: no"]


@contextlib.asynccontextmanager
async def _served(state_dir: Path) -> AsyncIterator[Node]:
    path, node = control.control_path(state_dir), Node()
    path.parent.mkdir()
    served = Control(path, node)
    assert await served.start() == ""
    yield node
    await served.stop()


async def test_the_nodes_own_server(tmp_path: Path) -> None:
    """Both ends of the socket agree on each request and its answer."""

    async def ask(request: Any, result: Any) -> Any:
        return await asyncio.to_thread(control.ask, tmp_path, request, result, 5.0)

    async with _served(tmp_path) as node:
        with pytest.raises(control.NodeRefused, match="not ready"):  # rather than an answer without the mail of some
            await asyncio.to_thread(control.operate, tmp_path, REQUEST)
        assert not node.asked
        assert await ask(ReloadRequest(), Reloaded) == Reloaded(False, ("a.toml:1: no",))
        assert await ask(ConfigurationRequest(), dict[str, Any]) == {"hostname": "a"}
        assert await ask(RoutesRequest(("a@x",)), dict[str, str]) == {"a@x": "example.net"}
        assert await ask(BansRequest(BanRequest("list")), list[Ban]) == [BAN]
        with pytest.raises(control.NodeRefused, match="no"):
            await ask(BansRequest(BanRequest("lift", ("192.0.2.1",))), list[BanResult])
        assert await asyncio.to_thread(control.pace, tmp_path, ["x"]) == {"x": Paced("x", 1, 2, 3, 4, "rate")}
        stored = Destination("program:|/x", Transport.PROGRAM, command=("/x",), outlet="|/x")
        question = RouteQuestion("a@x", "b@y", "ada", stored=stored)
        assert await asyncio.to_thread(control.routes, tmp_path, [question]) == {question.key: "example.net"}
        status = await ask(StatusRequest(), NodeStatus)
        assert status.state == "ready" and status.activity == (Activity(0, 7), Activity(1))
        node.why_not = ""
        assert await asyncio.to_thread(control.operate, tmp_path, REQUEST) == [ROW]
        assert node.asked[-1] == Operate(3, REQUEST)
        with pytest.raises(control.NodeRefused, match="not the status code of a failure"):
            await asyncio.to_thread(control.operate, tmp_path, msgspec.structs.replace(FAIL, status="2.0.0"))


@pytest.mark.parametrize(
    ("lines", "errors"),
    [
        ([b'{"command":"status"}'], ["the first request must be hello"]),
        ([b"nonsense"], ["not a request"]),
        ([b'{"command":"hello","version":99,"program":"9.9"}', b'{"command":"status"}'],
         ["is of Postroad 9.9", "the first request must be hello"]),
        ([b'{"command":"hello","version":1}', b'{"command":"eat"}'], ["", "Invalid value 'eat'"]),
        ([b'{"command":"hello","version":1}', b'{"command":"pace","request":[1]}', b'{"command":"configuration"}'],
         ["", "Expected `str`, got `int`", ""]),
        ([b"[" * 5000], ["not a request"]),
    ],
)  # fmt: skip
async def test_what_the_server_says_to_others(tmp_path: Path, lines: list[bytes], errors: list[str]) -> None:
    async with _served(tmp_path) as node:
        reader, writer = await asyncio.open_unix_connection(str(control.control_path(tmp_path)))
        for line, error in zip(lines, errors, strict=True):
            writer.write(line + b"\n")
            reply = json.loads(await reader.readline())
            assert reply["ok"] is not bool(error) and error in reply["error"]
        writer.close()
        assert not node.asked
