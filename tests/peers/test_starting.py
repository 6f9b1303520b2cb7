"""A node whose files of aliases and mailboxes are broken when it, or one of its workers, starts again: mail that needs
them waits, nobody is refused, and all other mail goes on."""

from __future__ import annotations

import os
import signal
import smtplib
from pathlib import Path

import pytest

from tests.peers.harness import maildir, ports
from tests.peers.harness.postroad import Node, local_domain, mx_listener
from tests.peers.harness.process import replace, until

pytestmark = pytest.mark.peer


def _node(folder: Path) -> Node:
    (folder / "aliases").write_text(f"list: ada, :include:{folder}/members\nfriends: bob\n")
    (folder / "members").write_text("bob\n")
    (folder / "people").write_text("eve\n")
    return Node(folder, {
        "workers": 1, "aliases": "aliases", "alias_targets": {"includes": ["aliases"]},
        "listener": [mx_listener(ports.port(), tls="none")],
        "domain": [local_domain("example.org", ["ada", "bob"]),
                   local_domain("other.example", [], recipients_file="people")],
    })  # fmt: skip


def _codes(node: Node, *to: str) -> list[int]:
    with smtplib.SMTP("127.0.0.1", node.port, timeout=20) as client:
        client.ehlo()
        client.mail("sender@remote.example")
        return [client.rcpt(each)[0] for each in to]


ASKED = ("ada@example.org", "friends@example.org", "list@example.org", "eve@other.example", "nobody@example.org")


def test_a_worker_that_starts_again_holds_up_only_what_is_broken(place: Path) -> None:
    folder = place / "crash"
    folder.mkdir(parents=True)
    with _node(folder) as node:
        assert _codes(node, *ASKED) == [250, 250, 250, 250, 550]
        (folder / "members").unlink()
        (folder / "people").unlink()
        node.wait_log("Its old targets stay in force", within_s=60)
        assert _codes(node, *ASKED) == [250, 250, 250, 250, 550]
        old = node.workers()[0]
        os.kill(old, signal.SIGKILL)
        until(lambda: node.workers() not in ([], [old]), "another worker", within_s=60)
        node.ready()
        assert _codes(node, *ASKED) == [250, 250, 451, 451, 550]
        assert f"{folder}/members" in node.log(1000)
        with smtplib.SMTP("127.0.0.1", node.port, timeout=20) as client:
            client.sendmail("sender@remote.example", ["friends@example.org"], "Subject: hello\r\n\r\nhello\r\n")
        maildir.wait(node.maildir("bob@example.org"))
        replace(folder / "members", "bob\n")
        replace(folder / "people", "eve\n")
        until(lambda: _codes(node, *ASKED) == [250, 250, 250, 250, 550], "all is well", within_s=60, pause_s=0.5)


def test_a_node_starts_with_a_broken_alias_file_and_says_so(place: Path) -> None:
    folder = place / "boot"
    folder.mkdir(parents=True)
    node = _node(folder)
    (folder / "aliases").write_text("no colon\n")
    with node:
        assert _codes(node, "friends@example.org", "eve@other.example") == [451, 250]
        assert f"{folder}/aliases:1: 'no colon' has no colon after the name" in node.log(1000)
        replace(folder / "aliases", "friends: bob\n")
        until(lambda: _codes(node, "friends@example.org") == [250], "the file is taken", within_s=60, pause_s=0.5)
