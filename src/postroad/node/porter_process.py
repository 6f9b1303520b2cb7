"""The supervisor's end of the porter: it is started before the node gives up the rights of root.

What always holds: the porter gets its table at its start and never another one; it ends when the last process that has
the socket is gone. How it fails: with a text.
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys

import msgspec

from postroad.deliver.porter import PorterTable


class PorterProcess:
    """The process, and the socket that workers inherit."""

    def __init__(self, process: subprocess.Popen[bytes], sock: socket.socket) -> None:
        self._process = process
        self._sock = sock
        self._gone = False

    @property
    def descriptor(self) -> int:
        return self._sock.fileno()

    def has_just_ended(self) -> bool:
        """True once, when it has ended."""
        if self._gone or self._process.poll() is None:
            return False
        self._gone = True
        return True

    def close(self) -> None:
        self._sock.close()


def start(table: PorterTable) -> PorterProcess | str:
    """Needs the rights of root."""
    if os.geteuid() != 0:
        return "only a node that is started as root can deliver as other users: start it as root, with `user` set"
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    ours.setblocking(False)
    theirs.setblocking(True)
    try:
        process = subprocess.Popen(
            [sys.executable, "-m", "postroad.node.porter", str(theirs.fileno())],
            pass_fds=(theirs.fileno(),),
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            cwd=os.getcwd(),
        )
        assert process.stdin is not None
        process.stdin.write(msgspec.msgpack.encode(table))
        process.stdin.close()
    except OSError as error:
        ours.close()
        return f"the process that delivers as other users cannot be started: {error.strerror or error}"
    finally:
        theirs.close()
    return PorterProcess(process, ours)
