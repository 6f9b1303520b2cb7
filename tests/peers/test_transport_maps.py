"""A node whose transport map says where mail goes: a file, and a database that goes away meanwhile."""

from __future__ import annotations

import re
import smtplib
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.peers.harness import maildir, ports
from tests.peers.harness.postroad import Node, local_domain
from tests.peers.harness.process import until
from tests.peers.harness.remote import Dialog, Remote

pytestmark = pytest.mark.peer


def _answer(dialog: Dialog, verb: str, argument: str) -> str | None:
    return None


@pytest.fixture(scope="module")
def remotes() -> Iterator[tuple[int, int]]:
    one, other = ports.port(), ports.port()
    with Remote(_answer, port=one), Remote(_answer, port=other):
        yield one, other


def test_a_node_sends_mail_where_its_transport_map_says(remotes: tuple[int, int], place: Path) -> None:
    one, other = remotes
    folder = place / "node"
    folder.mkdir(parents=True)
    (folder / "transport").write_text(
        f"a.example smtp:[127.0.0.1]:{one}\n.a.example smtp:[127.0.0.1]:{other}\n"
        f"ada@a.example smtp:[127.0.0.1]:{other}\nmoved.example error:5.1.6 moved away\n* :\n"
        f"here.example smtp:[127.0.0.1]:{one}\nleft@here.example smtp:[127.0.0.1]:{other}\n"
    )
    node = Node(folder, {
        "routing": {"transport_maps": ["transport"]}, "postmaster": "eve@here.example",
        "map": [{"name": "transport", "kind": "text", "file": "transport"}],
        "next_hop": [{"domain": "*", "host": "127.0.0.1", "port": one}],
        "domain": [local_domain("here.example", ["eve", "left"])],
    })  # fmt: skip
    with node:
        ways = {"bob@sub.a.example": f"[127.0.0.1]:{other}", "eve@here.example": "maildir:here.example"}
        for address, key in ways.items():
            (way,) = node.json("route", address)
            assert way["destination"] == key
        with smtplib.SMTP("127.0.0.1", node.port, timeout=20) as client:
            refused = client.sendmail(
                "eve@here.example",
                ["bob@a.example", "ada+x@a.example", "bob@sub.a.example", "x@moved.example", "y@rest.example",
                 "eve@here.example", "left@here.example"],
                "Subject: hello\r\n\r\nhello\r\n",
            )  # fmt: skip
        assert {name: text[:5] for name, (_, text) in refused.items()} == {"x@moved.example": b"5.1.6"}
        maildir.wait(node.maildir("eve@here.example"))
        for recipient, port in (("bob@a.example", one), ("ada+x@a.example", other), ("bob@sub.a.example", other),
                                ("y@rest.example", one), ("left@here.example", other)):  # fmt: skip
            line = re.compile(rf"relayed for [^:]*<{re.escape(recipient)}>[^:]* to \[127.0.0.1\]:{port} ")
            until(lambda line=line: line.search(node.log(500)), line.pattern, pause_s=0.2)
        node.wait_log("moved away")


def test_a_map_that_cannot_answer_makes_mail_wait(remotes: tuple[int, int], place: Path) -> None:
    folder = place / "waiting"
    folder.mkdir(parents=True)
    gate = folder / "gate"
    (folder / "maps.py").write_text(
        "import pathlib\n"
        "def look_up(key):\n"
        f"    if not pathlib.Path({str(gate)!r}).exists():\n"
        "        raise OSError('the gate is closed')\n"
        f"    return 'smtp:[127.0.0.1]:{remotes[1]}' if key == 'late.example' else None\n"
    )
    node = Node(folder, {
        "routing": {"transport_maps": ["late"]},
        "map": [{"name": "late", "kind": "python", "function": f"{folder}/maps.py:look_up", "pause_s": 0.1,
                 "last_good_s": 0}],
    })  # fmt: skip
    with node:
        with smtplib.SMTP("127.0.0.1", node.port, timeout=20) as client:
            client.sendmail("eve@here.example", ["bob@late.example"], "Subject: hello\r\n\r\nhello\r\n")
        node.wait_log("the gate is closed")
        until(lambda: "4.3.0" in node.command("queue", "--messages") + node.log(100), "it is deferred")
        gate.touch()
        node.wait_log(f"relayed for <bob@late.example> to [127.0.0.1]:{remotes[1]}")
