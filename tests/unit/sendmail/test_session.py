"""A session on standard input and output: commands one by one, content as it comes, whatever the line ends."""

from __future__ import annotations

import os
import socket
import threading
from pathlib import Path

import pytest

from postroad.sendmail import places
from postroad.sendmail.node_socket import NodeConnection
from postroad.sendmail.session import StandardSession


class Node:
    """Answers each line with the next reply, once nothing more comes behind it: so a command that came too early shows.
    `takes`: octets behind a line that are content."""

    def __init__(self, folder: Path, replies: list[str], takes: dict[bytes, int] | None = None) -> None:
        self.got: list[bytes] = []
        self._replies, self._takes = replies, takes or {}
        self._server = socket.socket(socket.AF_UNIX)
        self._server.bind(str(folder / places.SOCKET))
        self._server.listen()
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()

    def _serve(self) -> None:
        client, _ = self._server.accept()
        with client, client.makefile("rb") as file:
            client.sendall(self._replies.pop(0).encode())
            content = False
            for line in file:
                if line in self._takes:
                    line += file.read(self._takes[line])
                self.got.append(line)
                if content and line != b".\r\n":
                    continue
                if not self._replies:
                    return
                answer = self._replies.pop(0)
                content = answer.startswith("354")
                client.sendall(answer.encode())

    def end(self) -> None:
        self._thread.join(10)
        self._server.close()


def _run(folder: Path, node: Node, said: bytes) -> bytes:
    source, given = os.pipe()
    told, sink = os.pipe()
    os.write(given, said)
    os.close(given)
    StandardSession(NodeConnection(str(folder)), source, sink).run()
    os.close(sink)
    node.end()
    with os.fdopen(told, "rb") as file:
        heard = file.read()
    os.close(source)
    return heard


@pytest.mark.parametrize("end", [b"\n", b"\r\n"])
def test_commands_that_come_all_at_once(tmp_path: Path, end: bytes) -> None:
    node = Node(tmp_path, ["220 hi\r\n", "250-host\r\n250 SIZE\r\n", "354 go\r\n", "250 ok\r\n", "221 bye\r\n"])
    heard = _run(tmp_path, node, end.join([b"EHLO x", b"DATA", b"a", b"..b", b".", b"QUIT", b"NOOP", b""]))
    assert heard == b"220 hi\r\n250-host\r\n250 SIZE\r\n354 go\r\n250 ok\r\n221 bye\r\n"
    assert b"".join(node.got) == b"EHLO x\r\nDATA\r\na\r\n..b\r\n.\r\nQUIT\r\n"


def test_chunks_are_passed_on_as_they_are(tmp_path: Path) -> None:
    node = Node(tmp_path, ["220 hi\r\n", "250 ok\r\n", "221 bye\r\n"], {b"BDAT 7 LAST\r\n": 7})
    assert _run(tmp_path, node, b"BDAT 7 LAST\na\nb\r\n.\nQUIT\n") == b"220 hi\r\n250 ok\r\n221 bye\r\n"
    assert node.got == [b"BDAT 7 LAST\r\na\nb\r\n.\n", b"QUIT\r\n"]


def test_content_that_is_cut_off_ends_the_session(tmp_path: Path) -> None:
    node = Node(tmp_path, ["220 hi\r\n", "354 go\r\n", "250 never\r\n"])
    assert _run(tmp_path, node, b"DATA\nhalf") == b"220 hi\r\n354 go\r\n"
    assert b"".join(node.got) == b"DATA\r\nhalf\r\n"


def test_a_node_that_ends_the_session(tmp_path: Path) -> None:
    node = Node(tmp_path, ["421 stopping\r\n"])
    assert _run(tmp_path, node, b"NOOP\nNOOP\n") == b"421 stopping\r\n"
