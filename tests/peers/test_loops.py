"""Mail that would go round for ever: between two real nodes, and through a program that hands back what it gets."""

from __future__ import annotations

import smtplib
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.peers.harness import dsn, maildir, ports
from tests.peers.harness.postroad import Node, local_domain, mx_listener, next_hop
from tests.peers.harness.process import until

MAIL = "Message-ID: <{name}@a.example>\r\nSubject: {name}\r\n\r\nround and round\r\n"
BACK = """
import smtplib, sys
with smtplib.SMTP("127.0.0.1", {port}) as client:
    client.sendmail(sys.argv[1], [sys.argv[2]], sys.stdin.buffer.read().replace(b"\\n", b"\\r\\n"))
"""


@pytest.fixture(scope="module")
def nodes(place: Path) -> Iterator[tuple[Node, Node]]:
    """At a.example `list` leads to two mailboxes of b.example; both lead back to it."""
    one, other = ports.port(), ports.port()
    made = []
    for name, port, domain, hop, aliases in (
        ("a", one, "a.example", next_hop("b.example", other), "list: u@b.example, v@b.example\n"),
        ("b", other, "b.example", next_hop("a.example", one), "u: list@a.example\nv: list@a.example, keep\n"),
    ):
        (place / name).mkdir(parents=True)
        (place / name / "aliases").write_text(aliases)
        program = place / name / "back.py"
        program.write_text(BACK.format(port=port))
        made.append(Node(place / name, {
            "hostname": f"mx.{domain}", "aliases": "aliases", "next_hop": [hop], "log": {"format": "json"},
            "listener": [mx_listener(port, tls="none")],
            "domain": [
                local_domain(domain),
                {"name": f"prog.{domain}", "recipients": "any", "deliver": "program",
                 "command": [sys.executable, str(program), "{sender}", "{recipient}"]},
            ],
        }))  # fmt: skip
    with made[0], made[1]:
        yield made[0], made[1]


def _send(node: Node, to: str, name: str) -> None:
    with smtplib.SMTP("127.0.0.1", node.port, timeout=20) as client:
        client.sendmail("sender@a.example", [to], MAIL.format(name=name))


def _accepted(node: Node, name: str) -> list[Any]:
    return node.logged("accepted", message_id=f"<{name}@a.example>")


def test_two_nodes_whose_aliases_lead_to_each_other(nodes: tuple[Node, Node]) -> None:
    one, other = nodes
    _send(one, "list@a.example", "ring")
    (report,) = dsn.wait(one.maildir("sender@a.example"), of="ring")
    assert [each["Status"] for each in report.recipients] == ["5.4.6"]
    assert "Mail loop" in report.recipients[0]["Diagnostic-Code"]
    # Each node has had it once, and whoever was no part of the circle has it once.
    until(lambda: _accepted(one, "ring") and _accepted(other, "ring"), "both logs tell of it")
    assert (len(_accepted(one, "ring")), len(_accepted(other, "ring"))) == (1, 1)
    assert len(maildir.wait(other.maildir("keep@b.example"), of="ring")) == 1


def test_a_program_that_hands_back_what_it_gets(nodes: tuple[Node, Node]) -> None:
    """The program fails, for its client is refused; the sender hears of it."""
    one, _ = nodes
    _send(one, "gus@prog.a.example", "again")
    (report,) = dsn.wait(one.maildir("sender@a.example"), of="again")
    assert "5.4.6" in report.recipients[0]["Diagnostic-Code"]
    until(lambda: _accepted(one, "again"), "the log tells of the message")
    assert len(_accepted(one, "again")) == 1
