"""Who may send as whom by map, beside Postfix with the same table (smtpd_sender_login_maps)."""

from __future__ import annotations

import contextlib
import smtplib
import socketserver
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.peers.harness import ports
from tests.peers.harness.postfix import Postfix
from tests.peers.harness.postroad import Node, local_domain, mx_listener
from tests.peers.harness.process import until

pytestmark = pytest.mark.peer

TABLE = "ada@x.test ada\nteam@x.test ada, bob\n@y.test boss\nown@y.test ada\n"


@dataclass(frozen=True)
class Pair:
    node: Node
    postfix: Postfix
    gate: Path


@pytest.fixture(scope="module")
def pair(place: Path) -> Iterator[Pair]:
    folder = place / "node"
    folder.mkdir(parents=True)
    (folder / "senders").write_text(TABLE)
    gate = folder / "gate"
    gate.touch()
    (folder / "maps.py").write_text(
        "import pathlib\n"
        "def look_up(key):\n"
        f"    if not pathlib.Path({str(gate)!r}).exists():\n"
        "        raise OSError('the gate is closed')\n"
        "    return 'ada' if key == 'slow@x.test' else None\n"
    )
    table = place / "postfix-senders"
    table.write_text(TABLE + "slow@x.test ada\n")
    table.chmod(0o644)
    node = Node(folder, {
        "listener": [
            mx_listener(ports.port(), xclient_networks=["127.0.0.1"], owned_senders_by_login=True, auth=True,
                        auth_without_tls=True),
        ],
        "auth": {"users": "users", "sender_maps": ["senders", "slow"]},
        "map": [
            {"name": "senders", "kind": "text", "file": "senders"},
            {"name": "slow", "kind": "python", "function": f"{folder}/maps.py:look_up", "pause_s": 0.1,
             "last_good_s": 0, "cache_s": 0, "cache_missing_s": 0},
        ],
        "domain": [local_domain("home.test", ["eve"])],
    })  # fmt: skip
    node.add_user("ada", "secret", "extra@z.test")
    postfix = Postfix(place / "postfix", settings={
        "smtpd_sender_login_maps": f"texthash:{table}", "smtpd_authorized_xclient_hosts": "127.0.0.1",
        "smtpd_sender_restrictions": "reject_sender_login_mismatch", "recipient_delimiter": "+",
        "smtpd_delay_reject": "no", "mynetworks": "192.0.2.99", "smtpd_sasl_auth_enable": "yes",
        "smtpd_sasl_type": "dovecot", "smtpd_sasl_path": str(place / "auth"),
    })  # fmt: skip
    with auth_server(place / "auth"):
        postfix.start()
        with node:
            yield Pair(node, postfix, gate)
    postfix.stop()


@contextlib.contextmanager
def auth_server(path: Path) -> Iterator[None]:
    """Without a server for passwords, Postfix has no accounts at all. This one greets and knows nobody."""

    class Greeting(socketserver.StreamRequestHandler):
        def handle(self) -> None:
            self.wfile.write(b"VERSION\t1\t2\nMECH\tPLAIN\tplaintext\nSPID\t1\nCUID\t1\nCOOKIE\tx\nDONE\n")
            self.rfile.read()

    class Server(socketserver.ThreadingUnixStreamServer):
        daemon_threads = True

    with Server(str(path), Greeting) as server:
        path.chmod(0o666)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield
        server.shutdown()


def mail(port: int, login: str, sender: str) -> str:
    with smtplib.SMTP("127.0.0.1", port, timeout=20) as client:
        client.ehlo("client.test")
        client.docmd("XCLIENT", f"ADDR=192.0.2.7 NAME=client.test{f' LOGIN={login}' if login else ''}")
        client.ehlo("client.test")
        code, text = client.docmd("MAIL", f"FROM:<{sender}>")
        return f"{code} {text.decode().split()[0]}"


@pytest.mark.parametrize(
    ("login", "sender", "expected"),
    [
        ("ada", "ada@x.test", "250 2.1.0"),
        ("ada", "Ada+tag@x.test", "250 2.1.0"),
        ("ada", "team@x.test", "250 2.1.0"),
        ("bob", "team@x.test", "250 2.1.0"),
        ("bob", "ada@x.test", "553 5.7.1"),
        ("bob", "nobody@x.test", "553 5.7.1"),
        ("boss", "who@y.test", "250 2.1.0"),
        ("boss", "own@y.test", "553 5.7.1"),
        ("ada", "own@y.test", "250 2.1.0"),
        ("", "ada@x.test", "553 5.7.1"),
        ("", "nobody@x.test", "250 2.1.0"),
        ("", "", "250 2.1.0"),
    ],
)
def test_the_same_table_gives_the_same_answers_as_in_postfix(
    pair: Pair, login: str, sender: str, expected: str
) -> None:
    assert mail(pair.node.port, login, sender) == expected
    assert mail(pair.postfix.port, login, sender)[:3] == expected[:3]


def test_an_account_may_use_what_the_users_file_gives_it_too(pair: Pair) -> None:
    assert mail(pair.node.port, "ada", "extra@z.test") == "250 2.1.0"
    assert mail(pair.node.port, "bob", "extra@z.test") == "553 5.7.1"


def test_a_map_that_cannot_answer_makes_the_client_try_again(pair: Pair) -> None:
    assert mail(pair.node.port, "ada", "slow@x.test") == "250 2.1.0"
    pair.gate.unlink()
    assert mail(pair.node.port, "ada", "slow@x.test") == "451 4.3.0"
    pair.gate.touch()
    until(lambda: mail(pair.node.port, "ada", "slow@x.test") == "250 2.1.0", "the map answers again")
