"""docs/recipes/application-mailer.md: an account that sends, and answers that come by HTTP."""

from __future__ import annotations

import base64
import http.server
import json
import threading
from pathlib import Path

from tests.peers.harness import need, ports
from tests.peers.harness.certificates import Authority
from tests.peers.harness.recipe import Machine, Page
from tests.peers.harness.remote import Remote


class Application(http.server.BaseHTTPRequestHandler):
    came: list[dict[str, object]] = []  # noqa: RUF012  # of all requests

    def do_POST(self) -> None:
        self.came.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
        assert self.headers["webhook-signature"]
        self.send_response(200)
        self.send_header("Content-Length", "5")
        self.end_headers()
        self.wfile.write(b"taken")

    def log_message(self, *_: object) -> None:
        pass


def test_the_page_is_true(place: Path, authority: Authority) -> None:
    need.program("swaks")
    chain, key = authority.certificate("mail.app.example", "localhost", "127.0.0.1")
    submission, mx = ports.port(), ports.port()
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Application)
    threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
    with Remote(address=ports.address(), port=ports.port()) as world:
        machine = Machine(Page("application-mailer"), place / "machine", {
            "/var/lib/postroad": str(place / "machine/state"),
            "/etc/postroad/webhook": str(place / "machine/etc/postroad/webhook"),
            'user = "postroad"\n': "",
            '"tls/mail.pem"': f'"{chain}"',
            '"tls/mail.key"': f'"{key}"',
            "https://app.example/mail": f"http://127.0.0.1:{server.server_port}/mail",
            "port = 587\n": f"port = {submission}\n", "--port 587": f"--port {submission}",
            "port = 25\n": f"port = {mx}\n", "--port 25": f"--port {mx}",
            "--server mail.app.example": "--server 127.0.0.1",
        }, added=f'\n[[next_hop]]\ndomain = "*"\nhost = "{world.address}"\nport = {world.port}\ntls = "never"\n')
        with machine:
            machine.play("Commands")
            send, trace, answer, trace_of_answer = machine.page.commands("How to see that it works")
            machine.run(send)
            machine.until(trace, "relayed")
            assert world.wait()[0].mail.startswith("FROM:<bounce-1@app.example>")
            machine.run(answer)
            assert "taken" in machine.until(trace_of_answer, "delivered")
    server.shutdown()
    server.server_close()
    (came,) = Application.came
    data = came["data"]
    assert isinstance(data, dict) and data["recipients"][0]["address"] == "bounce-1@app.example"
    assert b"From: carol@example.net" in base64.b64decode(data["message"])
