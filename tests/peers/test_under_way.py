"""`postroad queue` while something is under way: a host that does not greet, one that does not answer."""

from __future__ import annotations

import smtplib
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.peers.harness import ports
from tests.peers.harness.postroad import Node, next_hop, relay_listener
from tests.peers.harness.process import until
from tests.peers.harness.remote import Dialog, Remote

_SENDER = "sender@example.test"


@pytest.fixture(scope="module")
def silent() -> Iterator[int]:
    """A host that takes connections and says nothing."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(8)
        yield listener.getsockname()[1]


@pytest.fixture(scope="module")
def stalls() -> Iterator[tuple[Remote, threading.Event]]:
    """A host that does not answer DATA until it is told."""
    go_on = threading.Event()

    def rule(dialog: Dialog, verb: str, argument: str) -> str | None:
        if verb == "DATA":
            go_on.wait(60)
        return None

    with Remote(rule) as remote:
        yield remote, go_on


@pytest.fixture(scope="module")
def node(place: Path, silent: int, stalls: tuple[Remote, threading.Event]) -> Iterator[Node]:
    with Node(place / "node", {
        "listener": [relay_listener(ports.port())],
        "next_hop": [next_hop("silent.example", silent), next_hop("stalls.example", stalls[0].port)],
        "dns": {"ipv6": False},
    }) as node:
        yield node


def _send(node: Node, to: str) -> str:
    with smtplib.SMTP("127.0.0.1", node.port, timeout=20) as client:
        client.ehlo("client.test")
        client.mail(_SENDER)
        client.rcpt(to)
        _, said = client.data(b"Subject: x\r\n\r\nhello\r\n")
    return said.decode().split()[-1]


def _shown(node: Node, wanted: str, *arguments: str) -> str:
    return until(lambda: said if wanted in (said := node.command("queue", *arguments)) else "", wanted)


def test_a_host_that_does_not_greet(node: Node, silent: int) -> None:
    name = _send(node, "a@silent.example")
    line = next(each for each in _shown(node, "waits for the greeting").splitlines() if "greeting" in each)
    assert line.startswith(f"[127.0.0.1]:{silent} ") and " s" in line
    assert "now: [127.0.0.1]" in _shown(node, "greeting", "show", name)
    (row,) = [each for each in node.json("queue") if each["doing"]]
    assert row["doing"][0]["what"].startswith(f"[127.0.0.1]:{silent}: waits for the greeting for ")


def test_a_transaction_that_is_under_way(node: Node, stalls: tuple[Remote, threading.Event]) -> None:
    remote, go_on = stalls
    name = _send(node, "a@stalls.example")
    line = next(each for each in _shown(node, "in a transaction").splitlines() if "transaction" in each)
    assert line.startswith(f"[127.0.0.1]:{remote.port} ") and "waits for the answer to DATA" in line
    assert "waits for the answer to DATA" in _shown(node, "in a transaction", "show", name)
    row = next(each for each in node.json("queue") if each["destination"].endswith(f":{remote.port}"))
    assert [each["message"] for each in row["doing"]] == [name]
    go_on.set()
    remote.wait()
