"""Delivery by HTTP POST: to a server that checks signatures with the library of Standard Webhooks, and to nginx."""

from __future__ import annotations

import base64
import http.server
import json
import smtplib
import ssl
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import trustme

from tests.peers.harness import dsn, need, ports
from tests.peers.harness.postroad import Node, Table, local_domain
from tests.peers.harness.process import Program, listens, until

webhooks = pytest.importorskip("standardwebhooks")

SECRET = "whsec_" + base64.b64encode(b"0123456789abcdef01234567").decode()


class Receiver:
    """An HTTPS server. `answers`: by the path of the URL, the answers to give, the last one for ever."""

    def __init__(self) -> None:
        self.requests: list[tuple[str, dict[str, str], bytes]] = []
        self.connections = 0
        self.answers: dict[str, list[tuple[int, dict[str, str], bytes]]] = {}
        self.authority = trustme.CA()
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        self.authority.issue_cert("localhost").configure_cert(context)
        receiver = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def setup(self) -> None:
                super().setup()
                receiver.connections += 1

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                receiver.requests.append((self.path, {k.lower(): v for k, v in self.headers.items()}, body))
                answers = receiver.answers.get(self.path, [(200, {}, b"")])
                status, fields, said = answers.pop(0) if len(answers) > 1 else answers[0]
                if status == 0:  # says nothing until the client is gone
                    self.connection.recv(1)
                    self.close_connection = True
                    return
                self.send_response(status)
                for name, value in {"Content-Length": str(len(said)), **fields}.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(said)

            def log_message(self, *_: Any) -> None:
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.server.socket = context.wrap_socket(self.server.socket, server_side=True, do_handshake_on_connect=False)
        self.port = int(self.server.server_address[1])
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def at(self, path: str, count: int = 1) -> list[tuple[dict[str, str], bytes]]:
        """Waits for that many requests."""
        until(lambda: len([each for each in self.requests if each[0] == path]) >= count, f"{count} requests at {path}")
        return [(fields, body) for where, fields, body in self.requests if where == path]


@pytest.fixture(scope="module")
def receiver() -> Iterator[Receiver]:
    made = Receiver()
    yield made
    made.server.shutdown()


@pytest.fixture(scope="module")
def node(place: Path, receiver: Receiver) -> Iterator[Node]:
    receiver.authority.cert_pem.write_to_path(str(place / "authority.pem"))
    (place / "secret").write_text(SECRET + "\n")
    (place / "authorization").write_text("Bearer abc\n")
    for name in ("secret", "authorization"):
        (place / name).chmod(0o600)

    def domain(name: str, host: str = "localhost", **more: Any) -> Table:
        return {"name": f"{name}.example", "recipients": "any", "deliver": "http",
                "url": f"https://{host}:{receiver.port}/{name}", "secret_file": str(place / "secret"), **more}

    domains = [
        domain("raw", authorization_file=str(place / "authorization")), domain("json", format="json"),
        domain("together", format="json", together=True), domain("gone"), domain("later"),
        domain("wrong-name", host="127.0.0.1"), domain("large", format="json"), local_domain("sender.example"),
    ]
    http_settings = {"ca_file": str(place / "authority.pem")}
    with Node(place / "node", {"domain": domains, "http": http_settings}) as made:
        yield made


def send(node: Node, *to: str, content: bytes = b"Subject: x\r\n\r\nhello\r\n") -> None:
    with smtplib.SMTP("127.0.0.1", node.port, timeout=60) as client:
        client.sendmail("sender@sender.example", to, content)


def test_the_message_itself(node: Node, receiver: Receiver) -> None:
    send(node, "ada@raw.example", "bob@raw.example")
    found = receiver.at("/raw", 2)
    for fields, body in found:
        webhooks.Webhook(SECRET).verify(body, fields, json_parse=False)
        assert fields["content-type"] == "message/rfc822"
        assert fields["authorization"] == "Bearer abc"
        assert fields["postroad-sender"] == "sender@sender.example"
        assert body.startswith(b"Return-Path: <sender@sender.example>\r\nDelivered-To: ")
        assert body.endswith(b"\r\nSubject: x\r\n\r\nhello\r\n")
    assert {fields["postroad-recipients"] for fields, _ in found} == {"ada@raw.example", "bob@raw.example"}
    assert len({fields["webhook-id"] for fields, _ in found}) == 2
    with pytest.raises(webhooks.WebhookVerificationError):
        webhooks.Webhook(SECRET).verify(found[0][1] + b"x", found[0][0], json_parse=False)


def test_as_json(node: Node, receiver: Receiver) -> None:
    send(node, "ada@json.example", content=b"Subject: y\r\n\r\n\xff\r\n")
    ((fields, body),) = receiver.at("/json")
    data = webhooks.Webhook(SECRET).verify(body, fields)["data"]
    assert [each["address"] for each in data["recipients"]] == ["ada@json.example"]
    assert data["recipients"][0]["id"] == fields["webhook-id"]
    assert base64.b64decode(data["message"]).endswith(b"\r\n\r\n\xff\r\n")
    assert data["client"]["address"] == "127.0.0.1"


def test_one_request_for_all(node: Node, receiver: Receiver) -> None:
    send(node, *(f"u{number}@together.example" for number in range(5)))
    ((_, body),) = receiver.at("/together")
    assert len(json.loads(body)["data"]["recipients"]) == 5


def test_a_large_message_and_kept_connections(node: Node, receiver: Receiver) -> None:
    before = receiver.connections
    content = b"Subject: large\r\n\r\n" + b"%s\r\n" % (b"z" * 70) * 100_000
    for number in range(3):
        send(node, "ada@large.example", content=content)
        node.wait_log("delivered for <ada@large.example>", number + 1)  # its connection is free again
    for fields, body in receiver.at("/large", 3):
        data = webhooks.Webhook(SECRET).verify(body, fields)["data"]
        assert base64.b64decode(data["message"]).endswith(content)
    assert receiver.connections - before <= 2, "one for each worker at most"


def test_what_4xx_says_fails(node: Node, receiver: Receiver) -> None:
    receiver.answers["/gone"] = [(404, {}, b"no such user\n")]
    send(node, "ada@gone.example")
    (report,) = dsn.wait(node.maildir("sender@sender.example"), "ada@gone.example")
    assert report.recipients[0]["Status"] == "5.1.1"
    assert "HTTP 404: no such user" in json.dumps(node.json("trace", "ada@gone.example"))


def test_retry_after_is_heeded_and_the_id_stays(node: Node, receiver: Receiver) -> None:
    receiver.answers["/later"] = [(503, {"Retry-After": "3"}, b""), (429, {}, b""), (200, {}, b"")]
    send(node, "ada@later.example")
    found = receiver.at("/later", 3)
    times = [int(fields["webhook-timestamp"]) for fields, _ in found]
    assert times[1] - times[0] >= 3
    assert len({fields["webhook-id"] for fields, _ in found}) == 1
    assert len({fields["webhook-signature"] for fields, _ in found}) >= 2


def test_a_server_that_says_nothing(node: Node, place: Path, receiver: Receiver) -> None:
    receiver.answers["/silent"] = [(0, {}, b""), (200, {}, b"")]
    url = f"https://localhost:{receiver.port}/silent"
    domain = {**node.config["domain"][0], "name": "silent.example", "url": url}
    settings = {"ca_file": str(place / "authority.pem"), "time_s": 5}
    with Node(place / "impatient", {"domain": [domain], "http": settings}) as impatient:
        send(impatient, "ada@silent.example")
        impatient.wait_log("did not answer in time")
        assert len(receiver.at("/silent", 2)) == 2


def test_a_certificate_that_does_not_prove_the_name(node: Node, receiver: Receiver) -> None:
    send(node, "ada@wrong-name.example")
    node.wait_log("its certificate does not prove its name")
    assert not [each for each in receiver.requests if each[0] == "/wrong-name"]


def test_nginx_refuses_what_is_too_large(place: Path) -> None:
    """It answers 413 and closes while the body is still being sent: the answer counts."""
    port = ports.port()
    folder = place / "nginx"
    folder.mkdir()
    (folder / "conf").write_text(
        f"daemon off; pid {folder}/pid; error_log {folder}/error.log; events {{}}\n"
        f"http {{ access_log off; client_body_temp_path {folder}/body; server {{ listen 127.0.0.1:{port};\n"
        "client_max_body_size 100k; location / { return 204; } } }\n"
    )
    nginx = Program([need.program("nginx"), "-c", str(folder / "conf")], folder / "log")
    domain = {"name": "web.example", "recipients": "any", "deliver": "http", "url": f"http://127.0.0.1:{port}/"}
    with Node(place / "node2", {"domain": [domain, local_domain("sender.example")]}) as node:
        nginx.start()
        nginx.ready(lambda: listens("127.0.0.1", port), "nginx listens")
        try:
            send(node, "small@web.example")
            node.wait_log("delivered for <small@web.example>")
            send(node, "big@web.example", content=b"Subject: large\r\n\r\n" + b"%s\r\n" % (b"z" * 70) * 100_000)
            (report,) = dsn.wait(node.maildir("sender@sender.example"), "big@web.example")
            assert report.recipients[0]["Status"] == "5.3.4"
        finally:
            nginx.stop()
