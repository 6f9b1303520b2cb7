"""Ports and loopback addresses that no other test of any run on this machine has.

A port is taken by locking a file named after it for the life of this process, below the range from which the kernel
gives ports to clients: so neither a parallel worker nor a client's connection comes between the choice and the bind.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import socket
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final

_FIRST, _LAST = 10_100, 32_000
_folder = Path(tempfile.gettempdir()) / "postroad-test-ports"
_ALONE_S: Final = 250.0  # less than a test may take
_last = 0  # the port that was given last
_held: list[int] = []  # open files: their locks last as long as the process


def port() -> int:
    """A TCP and UDP port that is free on all of loopback."""
    global _last
    number = _last or _FIRST + (os.getpid() * 37) % (_LAST - _FIRST)
    for _ in range(_FIRST, _LAST):
        number = number + 1 if number + 1 < _LAST else _FIRST
        if _lock(str(number)) and _unused(number):
            _last = number
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


@contextlib.contextmanager
def alone(name: str) -> Iterator[None]:
    """For what is on this machine once: waits until no other test of any run has it."""
    end = time.monotonic() + _ALONE_S
    while not _lock(name):
        if time.monotonic() > end:
            raise RuntimeError(f"another test on this machine has the {name} for longer than {_ALONE_S:g} s")
        time.sleep(0.1)
    handle = _held.pop()
    try:
        yield
    finally:
        os.close(handle)


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
