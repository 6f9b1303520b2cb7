"""Maps in services: a real postsrsd, a socketmap server that Postfix's own client understands, an HTTP server."""

from __future__ import annotations

import asyncio
import http.server
import threading
from collections.abc import Awaitable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import pytest

from postroad.maps.face import Answer, Map, NotNow
from postroad.maps.maps import Maps, make
from postroad.maps.options import MapKind, MapOptions
from postroad.maps.waiting import WaitingOptions
from postroad.world.clock import SystemClock
from tests.peers.harness import need, ports
from tests.peers.harness.process import Program, listens

pytestmark = pytest.mark.peer


def made(kind: MapKind, url: str, **more: Any) -> Maps:
    waiting = WaitingOptions(timeout_s=5.0, cache_s=0, cache_missing_s=0, failures_max=99, last_good_s=0)
    found = make([MapOptions("it", kind, url=url, waiting=waiting, **more)], SystemClock(), lambda level, text: None)
    assert isinstance(found, Maps), found
    return found


async def ask(map: Map, key: str) -> Answer:
    found: Answer | Awaitable[Answer] = map.look_up(key)
    return found if found is None or isinstance(found, str | NotNow) else await found


async def postmap(key: str, table: str) -> str | None:
    """What Postfix's own client finds."""
    done = await asyncio.create_subprocess_exec(
        need.program("postmap"), "-q", key, table, stdout=asyncio.subprocess.PIPE
    )
    return (await done.communicate())[0].decode().rstrip("\n") or None


# ---- tcp: postsrsd


@pytest.fixture(scope="module")
def postsrsd(place: Path) -> Iterator[tuple[int, int, Path]]:
    forward, reverse = ports.port(), ports.port()
    secret = place / "secret"
    secret.write_text("a secret for tests\n")
    program = Program(
        [need.program("postsrsd"), f"-s{secret}", "-dsrs.example", f"-f{forward}", f"-r{reverse}", "-4"],
        place / "postsrsd.log",
    )
    program.start()
    program.ready(lambda: listens("127.0.0.1", forward) and listens("127.0.0.1", reverse), "postsrsd listens")
    yield forward, reverse, place
    program.stop()


async def test_postsrsd(postsrsd: tuple[int, int, Path]) -> None:
    there, back = (made(MapKind.TCP, f"127.0.0.1:{port}") for port in postsrsd[:2])
    led = await ask(there["it"], "Ada@Remote.example")
    assert isinstance(led, str) and led.startswith("SRS0=") and led.endswith("=Remote.example=Ada@srs.example")
    assert await ask(back["it"], led) == "Ada@Remote.example"
    assert await ask(there["it"], "own@srs.example") == "own@srs.example"  # left as it is
    assert await ask(back["it"], "nobody@srs.example") is None
    keys = ("a b@x.example", "ä@x.example", "a%41@x.example", "a\n@x")
    odd = await asyncio.gather(*(ask(there["it"], key) for key in keys))
    assert not any(isinstance(each, NotNow) for each in odd), odd
    assert isinstance(odd[2], str) and "=a%41@" in odd[2]
    assert await postmap("Ada@Remote.example", f"tcp:127.0.0.1:{postsrsd[0]}") == led
    there.close()
    back.close()


# ---- socketmap


class SocketmapServer:
    """Answers from a table, one netstring after another; `raw` in their place."""

    def __init__(self, answers: dict[str, str]) -> None:
        self.answers = answers
        self.raw: bytes | None = None
        self.connections = 0

    async def __aenter__(self) -> SocketmapServer:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        try:
            while True:
                size = int((await reader.readuntil(b":"))[:-1])
                question = (await reader.readexactly(size + 1))[:-1].decode()
                answer = self.answers.get(question, "NOTFOUND ").encode()
                writer.write(self.raw if self.raw is not None else b"%d:%s," % (len(answer), answer))
        except (asyncio.IncompleteReadError, ConnectionError):
            writer.close()


SOCKETMAP = {
    "people ada@x.org": "OK ada and bob", "people empty@x.org": "OK ", "people t@x.org": "TEMP later",
    "people o@x.org": "TIMEOUT slow", "people p@x.org": "PERM never", "people u@x.org": "WHAT is this",
}  # fmt: skip


async def test_socketmap() -> None:
    async with SocketmapServer(SOCKETMAP) as server:
        maps = made(MapKind.SOCKETMAP, f"inet:127.0.0.1:{server.port}", table="people")
        assert [await ask(maps["it"], f"{name}@x.org") for name in ("ada", "nobody", "ada")] == [
            "ada and bob", None, "ada and bob",
        ]  # fmt: skip
        assert server.connections == 1
        for name, text in (("t", "TEMP later"), ("o", "TIMEOUT"), ("p", "PERM never"), ("u", "WHAT")):
            answer = await ask(maps["it"], f"{name}@x.org")
            assert isinstance(answer, NotNow) and text in answer.text
        for raw in (b"3:OK x,", b"hello:", b"9999999:", b"2000000:", b":,", b"5:OK x,"):
            server.raw = raw
            assert isinstance(await ask(maps["it"], "ada@x.org"), NotNow), raw
        server.raw = None
        assert await ask(maps["it"], "ada@x.org") == "ada and bob"
        # Postfix's own client finds the same: the server speaks what it speaks.
        for key in ("ada@x.org", "nobody@x.org"):
            assert await postmap(key, f"socketmap:inet:127.0.0.1:{server.port}:people") == await ask(maps["it"], key)
        maps.close()
    assert isinstance(await ask(made(MapKind.SOCKETMAP, "127.0.0.1:1", table="people")["it"], "a@x"), NotNow)


# ---- HTTP


class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.server.seen.append((self.path, self.headers.get("Authorization")))  # type: ignore[attr-defined]
        key = unquote(self.path.removeprefix("/people/"))
        status = {"ada@x.org": 200, "busy@x.org": 503, "bad@x.org": 400, "a/b?c#d@x.org": 200}.get(key, 404)
        body = f"value of {key}\n".encode() if status == 200 else b""
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *arguments: Any) -> None: ...


@pytest.fixture
def web() -> Iterator[Any]:
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.seen = []  # type: ignore[attr-defined]
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield server
    server.shutdown()
    server.server_close()


async def test_http(web: Any, tmp_path: Path) -> None:
    (tmp_path / "token").write_text("t0ken\n")
    url = f"http://127.0.0.1:{web.server_port}/people/{{key}}"
    maps = made(MapKind.HTTP, url, password_file=str(tmp_path / "token"))
    keys = ("Ada@x.org", "nobody@x.org", "a/b?c#d@x.org")
    assert [await ask(maps["it"], key) for key in keys] == ["value of ada@x.org", None, "value of a/b?c#d@x.org"]
    assert web.seen[0] == ("/people/ada%40x.org", "Bearer t0ken")
    for name in ("busy", "bad"):
        answer = await ask(maps["it"], f"{name}@x.org")
        assert isinstance(answer, NotNow) and "answers" in answer.text
    maps.close()


@pytest.mark.parametrize(
    ("kind", "url"),
    [(MapKind.HTTP, "http://x.example/"), (MapKind.HTTP, "ftp://x/{key}"), (MapKind.TCP, "x"), (MapKind.TCP, "unix:x")],
)
def test_places_that_are_none(kind: MapKind, url: str) -> None:
    assert isinstance(make([MapOptions("it", kind, url=url)], SystemClock(), lambda level, text: None), tuple)
