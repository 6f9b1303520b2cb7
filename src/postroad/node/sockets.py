"""The listening sockets: bound by the supervisor before it drops privileges, inherited by the workers.

Each worker has its own SO_REUSEPORT socket of a TCP address, so that the kernel spreads connections; the supervisor
keeps all of them open, so that a worker's death loses no connection that waits in its accept queue. A Unix socket is
one for all workers. What cannot be bound is a value that names address, port and remedy.
"""

from __future__ import annotations

import errno
import os
import socket
import stat
from pathlib import Path

import msgspec

BACKLOG = 4096


class Endpoint(msgspec.Struct, frozen=True):
    """Where to listen: an IP address and port, or the path of a Unix socket."""

    address: str = ""
    port: int = 0
    path: str = ""

    def __str__(self) -> str:
        if self.path:
            return f"unix:{self.path}"
        return f"[{self.address}]:{self.port}" if ":" in self.address else f"{self.address}:{self.port}"


def bind(endpoint: Endpoint, count: int) -> list[socket.socket] | str:
    """`count` listening sockets for an endpoint (the same one `count` times for a Unix socket), or what is wrong."""
    try:
        if endpoint.path:
            return [_bind_unix(endpoint.path)] * count
        return _bind_tcp(endpoint, count)
    except OSError as error:
        return f"cannot listen on {endpoint}: {_remedy(error, endpoint)}"


def _bind_tcp(endpoint: Endpoint, count: int) -> list[socket.socket]:
    family = socket.AF_INET6 if ":" in endpoint.address else socket.AF_INET
    # A first socket without SO_REUSEPORT finds out whether another program (even one that shares its port) is there.
    _probe(family, endpoint)
    sockets: list[socket.socket] = []
    try:
        for _ in range(count):
            sock = _tcp_socket(family)
            sockets.append(sock)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            sock.bind((endpoint.address, endpoint.port))
        for sock in sockets:
            sock.listen(BACKLOG)
    except OSError:
        for sock in sockets:
            sock.close()
        raise
    return sockets


def _probe(family: socket.AddressFamily, endpoint: Endpoint) -> None:
    with _tcp_socket(family) as probe:
        probe.bind((endpoint.address, endpoint.port))


def _tcp_socket(family: socket.AddressFamily) -> socket.socket:
    sock = socket.socket(family, socket.SOCK_STREAM)
    sock.setblocking(False)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    if family == socket.AF_INET6:
        sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
    return sock


def _bind_unix(path: str) -> socket.socket:
    """A Unix socket; a stale one of a node that is gone is replaced, anything else at that path is not touched."""
    place = Path(path)
    place.parent.mkdir(parents=True, exist_ok=True)
    try:
        if stat.S_ISSOCK(place.lstat().st_mode):
            with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
                if probe.connect_ex(path) == 0:
                    raise OSError(errno.EADDRINUSE, os.strerror(errno.EADDRINUSE))
            place.unlink()
    except FileNotFoundError:
        pass
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    sock.setblocking(False)
    sock.bind(path)
    place.chmod(0o666)  # who may connect is the folder's to say
    sock.listen(BACKLOG)
    return sock


def _remedy(error: OSError, endpoint: Endpoint) -> str:
    match error.errno:
        case errno.EADDRINUSE:
            return "the address is in use; stop the program that listens there (see `ss -ltnp`) or set another port"
        case errno.EACCES | errno.EPERM if endpoint.port and endpoint.port < 1024:
            return "a port below 1024 needs root or CAP_NET_BIND_SERVICE; start as root with `user` set"
        case errno.EACCES | errno.EPERM:
            return f"permission denied; check the folder of {endpoint.path or endpoint}"
        case errno.EADDRNOTAVAIL:
            return "this machine has no such address; correct `address`"
        case _:
            return error.strerror or str(error)
