"""The listening sockets: the supervisor binds them before it gives up its rights; the workers inherit them.

Each worker has its own SO_REUSEPORT socket for each TCP address, so that the kernel spreads connections. The supervisor
keeps all of them open, so that no connection in the accept queue of a worker is lost if the worker dies. All workers
share a Unix socket.
"""

from __future__ import annotations

import socket
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

import msgspec

from postroad.sendmail import places
from postroad.world import system
from postroad.world.problem import Problem

if TYPE_CHECKING:
    from postroad.config.settings import Settings

BACKLOG: Final = 4096

Locate = Callable[["Settings", "Endpoint", Problem], str]


class Endpoint(msgspec.Struct, frozen=True):
    """Where to listen: an IP address and port, or the path of a Unix socket."""

    address: str = ""
    port: int = 0
    path: str = ""

    def __str__(self) -> str:
        if self.path:
            return f"unix:{self.path}"
        return f"[{self.address}]:{self.port}" if ":" in self.address else f"{self.address}:{self.port}"


LOCAL: Final = Endpoint(path=places.SOCKET)  # of the users of this machine, in the folder that they share with the node


def endpoints(settings: Settings) -> list[Endpoint]:
    """Every endpoint of every listener, in the order of the file, as `config.options.listener_options` has it."""
    found = []
    for listener in settings.listener:
        for address in listener.address:
            path = address.removeprefix("unix:")
            found.append(Endpoint(path=path) if path != address else Endpoint(address, listener.port))
    return found


def bind(endpoint: Endpoint, count: int) -> list[socket.socket] | Problem:
    """`count` listening sockets for an endpoint (for a Unix socket the same one, `count` times)."""
    if endpoint.path:
        # Who may connect is the folder's to say: a mail delivery agent or a web server has a user of its own.
        bound = system.bind_unix(endpoint.path, mode=0o666, backlog=BACKLOG)
        return bound if isinstance(bound, Problem) else [bound] * count
    # Alone first: with SO_REUSEPORT the kernel would let us share the port with another node of the same user.
    probe = system.bind(endpoint.address, endpoint.port, backlog=1)
    if isinstance(probe, Problem):
        return probe
    probe.close()
    sockets: list[socket.socket] = []
    for _ in range(count):
        bound = system.bind(endpoint.address, endpoint.port, reuse_port=True, backlog=BACKLOG)
        if isinstance(bound, Problem):
            close_all(sockets)
            return bound
        sockets.append(bound)
    return sockets


class ListeningSockets:
    """The sockets of endpoints: one of each for every worker. `locate`: a place that cannot be listened on, said with
    its line of the file."""

    def __init__(self, locate: Locate) -> None:
        self._locate = locate
        self._bound: dict[Endpoint, list[socket.socket]] = {}

    @property
    def endpoints(self) -> tuple[Endpoint, ...]:
        """In the order in which they were bound."""
        return tuple(self._bound)

    def descriptors(self, worker: int) -> list[int]:
        """The sockets of this worker, in the order of `endpoints`."""
        return [sockets[worker].fileno() for sockets in self._bound.values()]

    def bind_missing(self, settings: Settings, count: int) -> tuple[ListeningSockets, list[str]]:
        """Sockets of the endpoints that these settings have and we have not, for this number of workers; and what is
        wrong with the others."""
        added, problems = ListeningSockets(self._locate), []
        for endpoint in endpoints(settings):
            if endpoint in self._bound or endpoint in added._bound:
                continue
            bound = bind(endpoint, count)
            if isinstance(bound, Problem):
                problems.append(self._locate(settings, endpoint, bound))
            else:
                added._bound[endpoint] = bound
        return added, problems

    def add(self, added: ListeningSockets) -> None:
        """They are ours from now on."""
        self._bound.update(added._bound)

    def not_in(self, settings: Settings) -> list[Endpoint]:
        """Our endpoints that these settings do not have."""
        wanted = set(endpoints(settings))
        return [endpoint for endpoint in self._bound if endpoint not in wanted]

    def close_some(self, which: list[Endpoint]) -> None:
        for endpoint in which:
            close_all(self._bound.pop(endpoint))

    def close(self) -> None:
        """Closes all; the endpoints are still known."""
        for sockets in self._bound.values():
            close_all(sockets)


def close_all(sockets: list[socket.socket]) -> None:
    for sock in set(sockets):
        sock.close()
