"""The worker's part of reports to other domains: POSTs to real HTTPS servers; what the history says after a crash."""

from __future__ import annotations

import asyncio
import http.server
import random
import ssl
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import trustme

from postroad.node.wiring.feedback import FeedbackReports
from postroad.node.wiring.world import system_world
from postroad.report.feedback import FeedbackKind, Period
from postroad.report.feedback_mail import Compressed
from postroad.report.feedback_options import FeedbackOptions
from tests.unit.store.sqlite.test_history import place
from tests.unit.trust.zones import ZoneResolver

REPORT = Compressed(FeedbackKind.TLS, "example.com", Period(20_787), b"gzip")


class Server:
    """Answers each POST with `status`."""

    def __init__(self, folder: Path, name: str = "localhost") -> None:
        self.got: list[tuple[str, bytes]] = []
        self.status = 201
        authority = trustme.CA()
        self.roots = str(folder / "roots.pem")
        authority.cert_pem.write_to_path(self.roots)
        server = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                server.got.append((self.headers["Content-Type"], self.rfile.read(int(self.headers["Content-Length"]))))
                self.send_response(server.status)
                said = b"" if server.status == 204 else b"said"
                self.send_header("Location", "https://elsewhere.example/")
                self.send_header("Content-Length", str(len(said)))
                self.end_headers()
                self.wfile.write(said)

            def log_message(self, *_: Any) -> None:
                pass

        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        authority.issue_cert(name).configure_cert(context)
        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.socket = context.wrap_socket(self._server.socket, server_side=True)
        self.url = f"https://localhost:{self._server.server_address[1]}/tls"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def close(self) -> None:
        self._server.shutdown()


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    made = Server(tmp_path)
    yield made
    made.close()


ZONES = {"localhost": {"A": ["127.0.0.1"]}, "mapped.example": {"AAAA": ["::ffff:10.0.0.1"]}}


def reports(directory: Path, **options: Any) -> FeedbackReports:
    made = FeedbackReports(
        world=system_world(random.Random(1)), loop=asyncio.get_running_loop(), state_dir=directory,
        resolver=lambda: ZoneResolver(ZONES),
        new_id=lambda: 1, accept=lambda *_: None, queued=lambda stored: None, log=lambda level, text: None,
    )  # fmt: skip
    made.take(FeedbackOptions(hostname="mx.node.example", **options))
    return made


async def test_any_2xx_is_a_success(tmp_path: Path, server: Server) -> None:
    # RFC 8460 §5.4
    made = reports(tmp_path, post_ca_file=server.roots, post_private=True)
    for status in (200, 201, 204):
        server.status = status
        assert await made._post(server.url, REPORT) == ""
    assert server.got[0] == ("application/tlsrpt+gzip", b"gzip")
    for status in (302, 404, 503):
        server.status = status
        assert f"answered {status}" in await made._post(server.url, REPORT)
    await made.stop()


async def test_a_server_with_a_private_address_is_not_asked(tmp_path: Path, server: Server) -> None:
    made = reports(tmp_path, post_ca_file=server.roots)
    assert "no public address" in await made._post(server.url, REPORT)
    assert "no public address" in await made._post("https://mapped.example/", REPORT)
    assert await made._post("https://unknown.example/", REPORT)
    assert not server.got
    await made.stop()


async def test_a_server_must_prove_its_name(tmp_path: Path, server: Server) -> None:
    other = tmp_path / "other"
    other.mkdir()
    wrong = Server(other, "another.example")
    made = reports(tmp_path, post_ca_file=wrong.roots, post_private=True)
    assert await made._post(wrong.url, REPORT)  # its name
    assert await made._post(server.url, REPORT)  # who issued it
    assert not server.got and not wrong.got
    wrong.close()
    made.take(FeedbackOptions(post_ca_file=str(tmp_path / "nothing.pem"), post_private=True))
    assert "nothing.pem" in await made._post(server.url, REPORT)
    await made.stop()


async def test_the_history_says_whether_a_message_was_accepted(tmp_path: Path) -> None:
    with place(tmp_path) as where:
        made = reports(tmp_path)
        stored = await where.desk.accept("reports@example.com")
        assert await made._was_accepted(stored.envelope.id) is True  # still in the journal
        await where.move_all()
        assert await made._was_accepted(stored.envelope.id) is True
        assert await made._was_accepted(stored.envelope.id + 1024) is False
        (history,) = (tmp_path / "history").glob("*.db")
        history.with_name(f"{history.name}-wal").unlink()
        history.write_bytes(b"no database" * 1_000)
        assert await made._was_accepted(stored.envelope.id + 1024) is None  # nobody knows
        await made.stop()
