"""What the node does for the users of this machine (`receive.local_socket`), in the worker that serves them."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from concurrent.futures import Executor
from typing import Final

from postroad.mail.reply import Reply, reply
from postroad.receive.local_users import LocalUser
from postroad.world import system

USERS_MAX: Final = 1024  # users whose names are remembered
NAMES_S: Final = 60.0  # for so long

_NOT_YET: Final = reply(554, "5.3.3", "The node does not do this")


class UserNames:
    """Names of users by their ids. The system's database may be slow (LDAP), so it is asked off the loop."""

    def __init__(
        self, loop: asyncio.AbstractEventLoop, pool: Executor,
        names: Callable[[int], tuple[str, str]] = system.user_names,
    ) -> None:
        self._loop = loop
        self._pool = pool
        self._names = names
        self._known: dict[int, tuple[float, LocalUser]] = {}
        self._node = os.geteuid()

    def find(self, uid: int, found: Callable[[LocalUser], None]) -> None:
        """`found` is called once, now or later, on the loop."""
        known = self._known.get(uid)
        if known is not None and known[0] > self._loop.time():
            found(known[1])
            return
        work = self._loop.run_in_executor(self._pool, self._names, uid)
        work.add_done_callback(lambda done: found(self._keep(uid, done)))

    def _keep(self, uid: int, done: asyncio.Future[tuple[str, str]]) -> LocalUser:
        failed = done.cancelled() or done.exception() is not None
        name, full_name = (str(uid), "") if failed else done.result()
        user = LocalUser(uid, name, full_name, uid in (0, self._node))
        if len(self._known) >= USERS_MAX:
            self._known.clear()
        self._known[uid] = (self._loop.time() + (0.0 if failed else NAMES_S), user)
        return user


class LocalHelp:
    """The doors of `receive.local_socket`."""

    def __init__(self, names: UserNames) -> None:
        self._names = names

    def uid_of(self, transport: asyncio.Transport) -> int:
        return system.peer_uid(transport.get_extra_info("socket").fileno())

    def who(self, uid: int, found: Callable[[LocalUser], None]) -> None:
        self._names.find(uid, found)

    async def listing(self, user: LocalUser) -> Reply:
        return _NOT_YET

    async def flush(self, user: LocalUser) -> Reply:
        return _NOT_YET

    async def verify(self, user: LocalUser, addresses: tuple[str, ...]) -> Reply:
        return _NOT_YET

    async def aliases(self, user: LocalUser) -> Reply:
        return _NOT_YET
