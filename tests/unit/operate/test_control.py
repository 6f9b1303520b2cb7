"""The client of the control socket, against a server that says what it is told."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from postroad.node.control import Control
from postroad.operate import control
from postroad.operate.operator import OperatorAction, OperatorRequest, OperatorResult, read_request
from postroad.store.values import Selection
from tests.unit.rights import as_ordinary_user

REQUEST = OperatorRequest(OperatorAction.HOLD, (Selection(recipient="a@x"),), by="root")
ROW = OperatorResult("60yrc2q80001", "a@x", "x", True, "held")


class Server:
    """Takes one line on each connection and answers it."""

    def __init__(self, state_dir: Path) -> None:
        path = control.control_path(state_dir)
        path.parent.mkdir(parents=True, exist_ok=True)
        self.answer = b""
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
            with connection:
                line = connection.makefile("rb").readline()
                if line:
                    self.asked.append(line)
                    connection.sendall(self.answer)

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
    assert asked["command"] == "operate" and read_request(asked["request"]) == REQUEST
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


async def test_the_nodes_own_server(tmp_path: Path) -> None:
    """Both ends of the socket agree on its language."""
    import asyncio

    asked: list[Any] = []

    async def ask(kind: str, value: Any) -> list[tuple[int, Any]]:
        asked.append((kind, read_request(value)))
        row = {"id": ROW.id, "recipient": "a@x", "destination": "x", "done": True, "text": "held", "count": 1}
        return [(0, [row]), (1, [])]

    async def no_bans(value: Any) -> list[dict[str, Any]]:
        return []

    path = control.control_path(tmp_path)
    path.parent.mkdir()
    not_ready = ["the node's workers are not ready"]

    async def ready(limit_s: float, *, once: bool = False) -> str:
        return "" if once else not_ready[0]

    async def reload() -> list[str]:
        return ["a.toml:1: no"]

    served = Control(path, ask, dict, no_bans, no_bans, ready, reload, lambda: {"hostname": "a"},
                     lambda addresses: dict.fromkeys(addresses, "example.net"))  # fmt: skip
    assert await served.start() == ""
    loop = asyncio.get_running_loop()
    with pytest.raises(control.NodeRefused, match="not ready"):  # rather than an answer without the mail of some
        await loop.run_in_executor(None, control.operate, tmp_path, REQUEST)
    assert not asked
    told = await loop.run_in_executor(None, control.ask, tmp_path, {"command": "reload"}, 5.0)
    assert msgspec.json.decode(told) == {"taken": False, "problems": ["a.toml:1: no"]}
    told = await loop.run_in_executor(None, control.ask, tmp_path, {"command": "configuration"}, 5.0)
    assert msgspec.json.decode(told) == {"hostname": "a"}
    not_ready[0] = ""
    assert await loop.run_in_executor(None, control.operate, tmp_path, REQUEST) == [ROW]
    assert asked == [("operate", REQUEST)]
    await served.stop()
