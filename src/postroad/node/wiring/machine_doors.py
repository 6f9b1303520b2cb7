"""How mail of this machine comes in: the socket of `postroad submit`, the socket of the program sendmail, and its drop
folder.

What always holds: each is there only if the worker was told to serve it; all of them take new settings by `take`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import Executor
from pathlib import Path
from typing import TYPE_CHECKING

from postroad.mail import identifier
from postroad.node.wiring.edition import Edition
from postroad.node.wiring.local import LocalHelp, UserNames
from postroad.node.wiring.world import World
from postroad.receive import drop, local_socket, submit
from postroad.receive.drop import Drop, DropFiles
from postroad.receive.local_socket import LocalConnections
from postroad.receive.setup import ListenerSetup
from postroad.receive.submit import Submissions
from postroad.sendmail import places
from postroad.store.sqlite.spool import SqliteSpool
from postroad.world.network import Server

if TYPE_CHECKING:
    import socket

Say = Callable[[str, str], None]
"""Tells the log, with a level and a text."""


class MachineDoors:
    """`edition()`: the one in force. `setup(edition, name)`: how mail is taken from whoever the name says. `say_once`:
    of what all workers find by themselves."""

    def __init__(
        self,
        *,
        world: World,
        loop: asyncio.AbstractEventLoop,
        pool: Executor,
        edition: Callable[[], Edition],
        setup: Callable[[Edition, str], ListenerSetup],
        say: Say,
        say_once: Say,
    ) -> None:
        self._world = world
        self._loop = loop
        self._pool = pool
        self._edition = edition
        self._setup = setup
        self._say = say
        self._say_once = say_once
        self._submissions: Submissions | None = None
        self._users: LocalConnections | None = None
        self._drop: Drop | None = None
        self._servers: list[Server] = []

    async def recover(self, spool: SqliteSpool, shards: Sequence[int]) -> None:
        """Files of the drop folder whose messages a worker before us may have accepted, before the queue starts."""
        files = self._drop_files()
        if files is None:
            return

        async def known(id: int) -> bool:
            found: asyncio.Future[bool] = self._loop.create_future()
            spool.load(id, lambda loaded: found.set_result(loaded is not None))
            return await found

        try:
            await drop.recover(
                files, lambda id: identifier.shard_of(id) in shards, known, lambda text: self._say("error", text)
            )
        except OSError as error:
            self._say_once("error", f"mail in the drop folder is not taken: {error}")

    async def take_submissions(self, sock: socket.socket) -> None:
        """Takes mail over this Unix socket, too (`postroad submit`)."""
        self._submissions = Submissions(self._setup(self._edition(), submit.LISTENER))
        self._servers.append(await self._world.network.serve(self._submissions.connect, sock))

    async def serve_users(self, sock: socket.socket) -> None:
        """Takes mail of the users of this machine over this Unix socket, and from the drop folder."""
        edition = self._edition()
        setup = self._users_setup(edition)
        help = LocalHelp(
            UserNames(self._loop, self._pool), Path(edition.settings.state_dir), self._loop,
            lambda: self._users_setup(self._edition()), lambda: self._edition().local,
        )
        self._users = LocalConnections(setup, edition.local, help)
        files = self._drop_files()
        if files is not None:
            self._drop = Drop(
                files, setup, edition.local, self._users.counts, who=help.who, pool=self._pool,
                clock=self._world.clock, lifetime_s=edition.queue.lifetime_s,
            )
            self._drop.look()
        self._servers.append(await self._world.network.serve(self._users.connect, sock))

    def take(self, edition: Edition) -> None:
        """Settings."""
        if self._submissions is not None:
            self._submissions.take(self._setup(edition, submit.LISTENER))
        if self._users is not None:
            self._users.take(self._users_setup(edition), edition.local)
        if self._drop is not None:
            self._drop.take(self._users_setup(edition), edition.local, edition.queue.lifetime_s)

    def look(self) -> None:
        """Now and then: what lies in the drop folder is taken."""
        if self._drop is not None:
            self._drop.look()

    def close(self) -> None:
        """Lets nobody new in."""
        for server in self._servers:
            server.close()

    def stop(self, limit_s: float) -> list[Awaitable[object]]:
        """What is under way ends within the limit."""
        return [
            each.stop(limit_s) for each in (self._submissions, self._users, self._drop) if each is not None
        ]

    def _users_setup(self, edition: Edition) -> ListenerSetup:
        return self._setup(edition, local_socket.LISTENER)

    def _drop_files(self) -> DropFiles | None:
        folder = self._edition().local.folder
        return DropFiles(Path(folder) / places.DROP, self._world.disk.posix) if folder else None
