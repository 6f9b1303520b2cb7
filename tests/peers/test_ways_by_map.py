"""Where mail goes by transport maps: a SQLite table and a slow HTTP service, with two real Postfix as servers."""

from __future__ import annotations

import http.server
import json
import smtplib
import sqlite3
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import unquote

import pytest

from tests.peers.harness import ports
from tests.peers.harness.postfix import Postfix
from tests.peers.harness.postroad import Node, local_domain, relay_listener
from tests.peers.harness.process import until
from tests.peers.harness.remote import Remote

pytestmark = pytest.mark.peer


class Service(http.server.ThreadingHTTPServer):
    """Answers after a while, or not: `away`."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.values: dict[str, str] = {}
        self.away = False
        self.asked: list[str] = []


class _Handler(http.server.BaseHTTPRequestHandler):
    server: Service

    def do_GET(self) -> None:
        key = unquote(self.path.removeprefix("/"))
        self.server.asked.append(key)
        time.sleep(0.1)
        value = self.server.values.get(key)
        body = f"{value}\n".encode() if value and not self.server.away else b""
        self.send_response(503 if self.server.away else 404 if value is None else 200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *arguments: Any) -> None: ...


class Road(NamedTuple):
    node: Node
    alpha: Postfix
    beta: Postfix
    lmtp: Remote
    service: Service

    def write(self, **values: str) -> None:
        """Entries of the SQLite table; `__` in a name stands for @, `_` for a dot."""
        with sqlite3.connect(self.node.directory / "ways.db") as database:
            for name, value in values.items():
                database.execute("INSERT OR REPLACE INTO ways VALUES (?, ?)", (_key(name), value))
        database.close()


def _key(name: str) -> str:
    return name.replace("__", "@").replace("_", ".")


@pytest.fixture(scope="module")
def road(place: Path) -> Iterator[Road]:
    alpha, beta = (
        Postfix(place / name, settings={
            "default_transport": "discard:", "myhostname": f"{name}.test", "mynetworks": "127.0.0.0/8",
        })
        for name in ("alpha", "beta")
    )  # fmt: skip
    service, lmtp = Service(), Remote(lmtp=True)
    thread = threading.Thread(target=service.serve_forever, daemon=True)
    thread.start()
    folder = place / "node"
    folder.mkdir(parents=True)
    with sqlite3.connect(folder / "ways.db") as database:
        database.execute("CREATE TABLE ways (name TEXT PRIMARY KEY COLLATE NOCASE, way TEXT)")
    database.close()
    (folder / "ways.db").chmod(0o644)
    node = Node(folder, {
        "listener": [relay_listener(ports.port())],
        "routing": {"transport_maps": ["ways", "slow"]},
        "map": [
            {"name": "ways", "kind": "sqlite", "file": "ways.db", "query": "SELECT way FROM ways WHERE name = '%s'"},
            {"name": "slow", "kind": "http", "url": f"http://127.0.0.1:{service.server_port}/{{key}}", "pause_s": 0.5,
             "cache_s": 1, "cache_missing_s": 1, "last_good_s": 0},
        ],
        "domain": [local_domain("home.test", ["ada", "gone", "led"])],
        "next_hop": [{"name": "beta", "host": "127.0.0.1", "port": beta.port, "tls": "never"}],
    })  # fmt: skip
    with alpha, beta, lmtp, node:
        found = Road(node, alpha, beta, lmtp, service)
        found.write(
            one_test=f"smtp:[127.0.0.1]:{alpha.port}", _one_test="next_hop:beta",
            special__one_test=f"relay:[127.0.0.1]:{beta.port}", gone__home_test="error:5.1.6 moved away",
            led__home_test=f"lmtp:inet:127.0.0.1:{lmtp.port}", gone_test="discard:", odd_test="dovecot:",
            x__bad_test="error:5.7.9 not to there",
            g__one_test=f"smtp:[127.0.0.1]:{alpha.port}",
        )  # fmt: skip
        service.values["slow.test"] = f"smtp:[127.0.0.1]:{beta.port}"
        yield found
    service.shutdown()
    service.server_close()


def _send(road: Road, *to: str) -> dict[str, tuple[int, bytes]]:
    with smtplib.SMTP("127.0.0.1", road.node.port, timeout=20) as client:
        try:
            return client.sendmail("sender@remote.test", to, "Subject: x\r\n\r\nhello\r\n")
        except smtplib.SMTPRecipientsRefused as refused:
            return refused.recipients


def _has(postfix: Postfix, recipient: str) -> bool:
    return f"to=<{recipient}>" in postfix.log_path.read_text()


def test_each_recipient_goes_where_the_maps_say(road: Road) -> None:
    refused = _send(
        road, "a@one.test", "special+x@one.test", "b@sub.one.test", "c@slow.test", "led@home.test", "nobody@home.test",
    )  # fmt: skip
    assert {name: code for name, (code, _) in refused.items()} == {"nobody@home.test": 550}
    for postfix, recipient in (
        (road.alpha, "a@one.test"), (road.beta, "special+x@one.test"), (road.beta, "b@sub.one.test"),
        (road.beta, "c@slow.test"),
    ):  # fmt: skip
        until(lambda p=postfix, r=recipient: _has(p, r), f"{recipient} at its server")
    (taken,) = until(lambda: road.lmtp.transactions, "the message at the LMTP server")
    assert taken.rcpt[0].startswith("TO:<led@home.test>")
    assert "slow.test" in road.service.asked and "special@one.test" not in road.service.asked


def test_other_outcomes(road: Road) -> None:
    """`error:` is refused at RCPT if the map answers at once. `discard:` ends as delivered, and trace says so."""
    refused = _send(road, "gone@home.test", "x@bad.test", "d@gone.test")
    assert {name: (code, text[:5]) for name, (code, text) in refused.items()} == {
        "gone@home.test": (550, b"5.1.6"), "x@bad.test": (550, b"5.7.9"),
    }  # fmt: skip
    until(lambda: "thrown away" in road.node.command("trace", "d@gone.test"), "the end of it in the history")
    assert "delivered" in road.node.command("trace", "d@gone.test")


def test_what_means_nothing_waits_until_it_is_corrected(road: Road) -> None:
    assert _send(road, "e@odd.test") == {}
    text = "map ways has 'dovecot:' for odd.test, but there is no transport 'dovecot'"
    until(lambda: text in road.node.command("trace", "e@odd.test"), "why it waits")
    assert "4.3.0" in road.node.command("trace", "e@odd.test")
    road.write(odd_test=f"smtp:[127.0.0.1]:{road.alpha.port}")
    road.node.wait_log("relayed for <e@odd.test>", within_s=60)
    until(lambda: _has(road.alpha, "e@odd.test"), "it at its server")


def test_mail_waits_while_a_map_is_away_and_other_mail_does_not(road: Road) -> None:
    time.sleep(1.1)  # what was kept of it is old
    road.service.away = True
    assert _send(road, "f@slow.test", "g@one.test") == {}
    road.node.wait_log("relayed for <g@one.test>")
    until(lambda: "its destination is not known: map slow" in road.node.command("trace", "f@slow.test"), "why it waits")
    assert not _has(road.beta, "f@slow.test")
    road.service.away = False
    road.node.wait_log("relayed for <f@slow.test>", within_s=60)


def test_what_waits_survives_a_restart(road: Road) -> None:
    time.sleep(1.1)
    road.service.away = True
    assert _send(road, "h@slow.test") == {}
    until(lambda: "not known: map slow" in road.node.command("trace", "h@slow.test"), "why it waits")
    road.node.restart()
    road.service.away = False
    road.node.wait_log("relayed for <h@slow.test>", within_s=60)


def test_an_operator_asks(road: Road) -> None:
    ways = road.node.json("route", "x@one.test", "x@slow.test", "x@sub.one.test")
    assert [each["destination"] for each in ways] == [
        f"[127.0.0.1]:{port}" for port in (road.alpha.port, road.beta.port, road.beta.port)
    ]  # fmt: skip
    (bad,) = json.loads(road.node.command("route", "--json", "x@bad.test", code=1))
    assert bad["problem"] == "not to there"
    steps = road.node.json("map", "test", "ways", "special+x@one.test")
    assert [(each["key"], each["value"]) for each in steps] == [
        ("special+x@one.test", None), ("special@one.test", f"relay:[127.0.0.1]:{road.beta.port}"),
        ("one.test", f"smtp:[127.0.0.1]:{road.alpha.port}"), (".test", None), ("*", None),
    ]  # fmt: skip

