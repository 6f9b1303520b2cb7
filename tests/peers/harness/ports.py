"""Ports and loopback addresses that no other test of any run on this machine has.

A port is taken by locking a file named after it for the life of this process, below the range from which the kernel
gives ports to clients: so neither a parallel worker nor a client's connection comes between the choice and the bind.
"""

from __future__ import annotations

import fcntl
import os
import socket
import tempfile
from pathlib import Path

_FIRST, _LAST = 10_100, 32_000
_folder = Path(tempfile.gettempdir()) / "postroad-test-ports"
_held: list[int] = []  # open files: their locks last as long as the process


def port() -> int:
    """A TCP and UDP port that is free on all of loopback."""
    number = _FIRST + (os.getpid() * 37) % (_LAST - _FIRST)
    for _ in range(_FIRST, _LAST):
        number = number + 1 if number + 1 < _LAST else _FIRST
        if _lock(str(number)) and _unused(number):
            return number
    raise RuntimeError("no free port is left")


def address() -> str:
    """A loopback address such as 127.77.3.9 of its own: for servers that must share one port number."""
    number = (os.getpid() * 101) % 60_000
    for _ in range(60_000):
        number = (number + 1) % 60_000
        text = f"127.77.{number // 250}.{number % 250 + 1}"
        if _lock(text):
            return text
    raise RuntimeError("no free loopback address is left")


def _lock(name: str) -> bool:
    _folder.mkdir(exist_ok=True)
    if os.stat(_folder).st_uid == os.geteuid():
        _folder.chmod(0o1777)
    try:
        handle = os.open(_folder / name, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
    except PermissionError:
        return False
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(handle)
        return False
    _held.append(handle)
    return True


def _unused(number: int) -> bool:
    for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM):
        with socket.socket(socket.AF_INET, kind) as probe:
            if kind == socket.SOCK_STREAM:
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("0.0.0.0", number))
            except OSError:
                return False
    return True
