"""Policies of MTA-STS from a real HTTPS server: valid, and wrong in every way that RFC 8461 §3.3 names."""

from __future__ import annotations

import asyncio
import datetime
import http.server
import socket
import ssl
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import trustme

from postroad.mail.tls_policy import StsMode, TlsFailure
from postroad.trust.sts import FILE_MAX
from postroad.trust.sts_fetch import StsFetched, StsOptions, fetch
from postroad.world.http import fetcher
from tests.unit.trust.zones import ZoneResolver

HOST = "mta-sts.a.example"
POLICY = b"version: STSv1\r\nmode: enforce\r\nmx: mx.a.example\r\nmax_age: 86400\r\n"
FETCH, PKIX = TlsFailure.STS_POLICY_FETCH_ERROR, TlsFailure.STS_WEBPKI_INVALID


class Web:
    """One HTTPS server on 127.0.0.1. `answer`: the octets behind the request, b"" for silence; `cut`: the connection
    ends without TLS's word."""

    def __init__(self, authority: trustme.CA, certificate: trustme.LeafCert | None) -> None:
        self.answer = _answer(POLICY)
        self.cut = False
        self.drip_s = 0.0
        self.requests: list[tuple[bytes, str]] = []
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.sni_callback = lambda tls, name, _: setattr(self, "asked", name)
        (certificate or authority.issue_cert(HOST)).configure_cert(context)
        self.asked: str | None = None
        web = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def handle(self) -> None:
                web.handle(self.connection, context)

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.port = int(self.server.server_address[1])
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def handle(self, sock: socket.socket, context: ssl.SSLContext) -> None:
        try:
            with context.wrap_socket(sock, server_side=True) as tls:
                request = b""
                while b"\r\n\r\n" not in request:
                    octets = tls.recv(4096)
                    if not octets:
                        return
                    request += octets
                self.requests.append((request, self.asked or ""))
                if not self.answer:
                    tls.recv(1)
                    return
                if self.drip_s:
                    for octet in self.answer:
                        tls.send(bytes((octet,)))
                        threading.Event().wait(self.drip_s)
                tls.sendall(self.answer)
                if not self.cut:
                    tls.unwrap()
                else:
                    tls.shutdown(socket.SHUT_WR)
        except OSError:
            pass


def _answer(body: bytes, status: str = "200 OK", *fields: str, length: int | None = -1) -> bytes:
    head = [f"HTTP/1.1 {status}", *(fields or ("Content-Type: text/plain; charset=utf-8",))]
    if length is not None:
        head.append(f"Content-Length: {len(body) if length < 0 else length}")
    return "\r\n".join((*head, "", "")).encode() + body


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture
def roots(authority: trustme.CA, tmp_path: Path) -> str:
    path = tmp_path / "roots.pem"
    authority.cert_pem.write_to_path(str(path))
    return str(path)


@pytest.fixture
def web(authority: trustme.CA) -> Iterator[Web]:
    made = Web(authority, None)
    yield made
    made.server.shutdown()


async def ask(web: Web, roots: str, time_s: float = 20.0, host: str = HOST, **zones: Any) -> StsFetched:
    resolver = ZoneResolver({host: {"A": ["127.0.0.1"]}, **zones})
    options = StsOptions(time_s=time_s, port=web.port, loopback=True)
    with ThreadPoolExecutor(2) as pool:
        return await fetch(host.removeprefix("mta-sts."), "1", resolver, fetcher(pool, roots), options)


async def test_a_valid_policy(web: Web, roots: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("https_proxy", "http://127.0.0.1:1")
    monkeypatch.setenv("ALL_PROXY", "http://127.0.0.1:1")
    found = await ask(web, roots)
    assert found.policy is not None, found
    assert (found.policy.domain, found.policy.mode, found.policy.id) == ("a.example", StsMode.ENFORCE, "1")
    ((request, asked),) = web.requests
    lines = request.decode().split("\r\n")
    assert lines[0] == "GET /.well-known/mta-sts.txt HTTP/1.1" and asked == HOST
    assert f"Host: {HOST}:{web.port}" in lines and "Accept-Encoding: identity" in lines


@pytest.mark.parametrize("answer", [
    _answer(POLICY, "200 OK", "Content-Type: text/plain", "Connection: close", length=None),
    _answer(b"%x\r\n%s\r\n0\r\n\r\n" % (len(POLICY), POLICY), "200 OK", "Content-Type: TEXT/PLAIN",
            "Transfer-Encoding: chunked", length=None),
    b"HTTP/1.1 100 Continue\r\n\r\n" + _answer(POLICY),
    _answer(POLICY, "200 OK", "content-type:text/plain;charset=us-ascii", "Cache-Control: no-store, max-age=0"),
    _answer(POLICY + b"#" * (FILE_MAX - len(POLICY))),
])  # fmt: skip
async def test_other_forms_of_answers(web: Web, roots: str, answer: bytes) -> None:
    web.answer = answer
    found = await ask(web, roots)
    assert found.policy is not None, found


@pytest.mark.parametrize(("answer", "failure", "text"), [
    (_answer(b"", "404 Not Found"), FETCH, "status 404"),
    (_answer(POLICY, "404 Not Found"), FETCH, "status 404"),
    (_answer(b"", "301 Moved", "Location: https://localhost/.well-known/mta-sts.txt"), FETCH, "not followed"),
    (_answer(b"", "302 Found", "Location: /other"), FETCH, "not followed"),
    (_answer(b"", "304 Not Modified"), FETCH, "status 304"),
    (_answer(POLICY, "206 Partial Content"), FETCH, "status 206"),
    (_answer(b"", "503 Busy"), FETCH, "status 503"),
    (_answer(POLICY, "200 OK", "Content-Type: text/html"), FETCH, "media type"),
    (_answer(POLICY, "200 OK", "X: y"), FETCH, "media type"),
    (_answer(POLICY, "200 OK", "Content-Type: text/plain", "Content-Encoding: gzip"), FETCH, "encoded"),
    (_answer(b"#" * (FILE_MAX + 1)), FETCH, "more than 65536 octets"),
    (_answer(b"#" * 10_000_000), FETCH, "more than 65536 octets"),
    (_answer(POLICY, length=len(POLICY) + 30), FETCH, "in the middle of its answer"),
    (_answer(b"%x\r\n%s" % (len(POLICY) + 9, POLICY), "200 OK", "Content-Type: text/plain",
             "Transfer-Encoding: chunked", length=None), FETCH, "IncompleteRead"),
    (b"SSH-2.0-OpenSSH_9.2\r\n", FETCH, "BadStatusLine"),
    (b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 200 + b"\r\n", FETCH, "HTTPException"),
    (b"HTTP/1.1 200 OK\r\nX: " + b"y" * 70_000 + b"\r\n\r\n", FETCH, "LineTooLong"),
    (_answer(b"<html>no policy</html>"), TlsFailure.STS_POLICY_INVALID, "no version"),
    (_answer(POLICY.replace(b"enforce", b"report")), TlsFailure.STS_POLICY_INVALID, "'report'"),
])  # fmt: skip
async def test_answers_that_are_no_policy(web: Web, roots: str, answer: bytes, failure: TlsFailure, text: str) -> None:
    web.answer = answer
    found = await ask(web, roots)
    assert found.policy is None and found.failure is failure and text in found.text
    assert len(web.requests) == 1


async def test_an_answer_whose_end_somebody_has_cut_off(web: Web, roots: str) -> None:
    """Without a length, only TLS's own word says where an answer ends: a shorter list of hosts could be forged."""
    web.answer, web.cut = _answer(POLICY, "200 OK", "Content-Type: text/plain", length=None), True
    found = await ask(web, roots)
    assert found.policy is None and found.failure is FETCH


@pytest.mark.parametrize("drip_s", [0.0, 0.05])
async def test_a_server_that_takes_too_long(web: Web, roots: str, drip_s: float) -> None:
    web.drip_s = drip_s
    if not drip_s:
        web.answer = b""
    found = await ask(web, roots, time_s=0.5)
    assert found.policy is None and found.failure is FETCH and "did not answer" in found.text


def _past() -> datetime.datetime:
    return datetime.datetime.now(datetime.UTC) - datetime.timedelta(days=1)


@pytest.mark.parametrize(("case", "text"), [
    ("expired", "expired"), ("another name", "mismatch"), ("its common name only", "mismatch"),
    ("the domain's name", "mismatch"), ("signed by itself", "self-signed"), ("a wildcard too deep", "mismatch"),
    ("another authority", "unable to get local issuer"),
])  # fmt: skip
async def test_certificates_that_prove_nothing(authority: trustme.CA, roots: str, case: str, text: str) -> None:
    certificate = {
        "expired": lambda: authority.issue_cert(HOST, not_after=_past()),
        "another name": lambda: authority.issue_cert("mta-sts.b.example"),
        "its common name only": lambda: authority.issue_cert("a@a.example", common_name=HOST),
        "the domain's name": lambda: authority.issue_cert("a.example"),
        "signed by itself": lambda: _self_signed(),
        "a wildcard too deep": lambda: authority.issue_cert("*.example"),
        "another authority": lambda: trustme.CA().issue_cert(HOST),
    }[case]()
    web = Web(authority, certificate)
    found = await ask(web, roots)
    web.server.shutdown()
    assert found.policy is None and found.failure is PKIX, found
    assert "its certificate does not prove its name" in found.text and text in found.text.lower()
    assert not web.requests


def _self_signed() -> Any:
    """trustme's authority as its own leaf: a certificate that signs itself."""
    root = trustme.CA()

    class Own:
        def configure_cert(self, context: ssl.SSLContext) -> None:
            with root.cert_pem.tempfile() as certificate, root.private_key_pem.tempfile() as key:
                context.load_cert_chain(certificate, key)

    return Own()


@pytest.mark.parametrize("name", [HOST, "*.a.example"])
async def test_certificates_that_prove_the_name(authority: trustme.CA, roots: str, name: str) -> None:
    web = Web(authority, authority.issue_cert(name))
    found = await ask(web, roots)
    web.server.shutdown()
    assert found.policy is not None, found


async def test_a_dead_address_before_the_good_one(web: Web, roots: str) -> None:
    found = await ask(web, roots, **{HOST: {"A": ["127.0.0.2", "127.0.0.1"]}})
    assert found.policy is not None, found


async def test_nobody_listens(web: Web, roots: str) -> None:
    web.server.server_close()
    await asyncio.sleep(0)
    found = await ask(web, roots, **{HOST: {"A": ["127.0.0.3"]}})
    assert found.policy is None and found.failure is FETCH
