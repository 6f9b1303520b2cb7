"""`postroad submit`: a message from standard input to the running node, with the exit codes of sysexits.h."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.peers.harness import maildir, ports
from tests.peers.harness.postroad import Node, local_domain, relay_listener
from tests.peers.harness.process import folder

pytestmark = pytest.mark.peer
MESSAGE = b"Subject: by hand\n\nhello\n"


@pytest.fixture(scope="module")
def node() -> Iterator[Node]:
    with folder("submit") as home:
        settings = {
            "domain": [local_domain("example.test", ["ann", "bob"])], "limits": {"size_max": 3_000_000},
            "listener": [relay_listener(ports.port())],
        }
        with Node(home / "n", settings) as made:
            yield made


def submit(node: Node, *arguments: str, message: bytes = MESSAGE) -> tuple[int, str]:
    command = [sys.executable, "-m", "postroad", "submit", "--config", str(node.config_path), *arguments]
    ended = subprocess.run(command, input=message, capture_output=True, check=False, timeout=60)
    return ended.returncode, (ended.stdout + ended.stderr).decode()


def test_a_message_is_stored_before_the_command_ends_and_is_delivered(node: Node) -> None:
    code, said = submit(node, "-f", "me@example.test", "ann@example.test", "bob@example.test")
    assert code == 0 and "Ok: queued as " in said
    id = said.rpartition(" ")[2].strip()
    for name in ("ann", "bob"):
        (octets,) = maildir.wait(node.maildir(f"{name}@example.test"), of="by hand")
        text = octets.decode()
        assert "Message-ID: <" in text and "Date: " in text and "From: <me@example.test>" in text
    assert "accepted" in node.command("trace", id)


def test_a_large_message_goes_by_a_file(node: Node) -> None:
    lines = b"Subject: large by hand\r\n\r\n" + b"0123456789" * 7 + b"\n"
    code, said = submit(node, "ann@example.test", message=lines + b"x" * 70 + b"\n" + (b"y" * 70 + b"\r\n") * 36_000)
    assert code == 0, said
    (octets,) = maildir.wait(node.maildir("ann@example.test"), of="large by hand")
    assert octets.count(b"y" * 70 + b"\n") == 36_000


@pytest.mark.parametrize(
    ("arguments", "message", "code", "said"),
    [
        (("nobody@example.test",), MESSAGE, 67, "<nobody@example.test>: 550 5.1.1"),
        (("ann@example.test", "nobody@example.test"), MESSAGE, 67, "nobody"),
        (("not an address",), MESSAGE, 64, "not a mail address"),
        (("ann@example.test",), b"Subject: x\n\n" + b"z" * 3_000_001, 65, "more than 3000000 octets"),
        (("ann@example.test",), b"Subject: x\n\na\rb\n", 65, "CR"),
        (("ann@example.test",), b"Date: x\nDate: y\n\n", 69, "More than one Date"),
    ],
)  # fmt: skip
def test_what_cannot_be_taken_is_taken_for_nobody(
    node: Node, arguments: tuple[str, ...], message: bytes, code: int, said: str
) -> None:
    before = len(list(node.maildir("ann@example.test").glob("new/*")))
    found = submit(node, "-f", "", *arguments, message=message)
    assert found[0] == code and said in found[1], found
    assert len(list(node.maildir("ann@example.test").glob("new/*"))) == before


def test_without_a_node_it_says_so_and_may_be_tried_again(tmp_path: Path) -> None:
    node = Node(tmp_path / "n", {"domain": [local_domain("example.test")]})
    assert submit(node, "ann@example.test") == (75, "The node is not running.\n")


@pytest.mark.skipif(os.getuid() != 0, reason="only root can become another user")
def test_another_user_may_not(node: Node) -> None:
    command = [sys.executable, "-m", "postroad", "submit", "--config", str(node.config_path), "ann@example.test"]
    ended = subprocess.run(
        command, input=MESSAGE, capture_output=True, check=False, timeout=60, user=65534, group=65534, extra_groups=[]
    )
    assert ended.returncode in (75, 77, 78), ended.stderr  # which depends on what of the way it may see
