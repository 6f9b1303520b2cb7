"""The users of this machine as a map, as ``unix:passwd.byname`` of Postfix: the name of a user → his home.

Users are looked up as the machine does it (files, LDAP, sssd …), on threads, under the limits of `maps.waiting`. What
always holds: only a bare name is a key; a user whose number is below `uid_min` is none, nor is nobody (65534). How it
fails: a look-up that fails, because a directory of users is down, is no answer, and never "no such user".
"""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from typing import Final

from postroad.maps.waiting import Away
from postroad.world.identity import find_user

_NAME_MAX: Final = 255


class UsersDriver:
    """See the module. `threads`: look-ups at a time."""

    folds = True

    def __init__(self, uid_min: int, threads: int) -> None:
        self._uid_min = uid_min
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="users")

    async def fetch(self, key: str, part: bool) -> str | None:
        if "@" in key or not key.isprintable() or len(key) > _NAME_MAX:
            return None
        return await asyncio.get_running_loop().run_in_executor(self._pool, self._home, key)

    def _home(self, name: str) -> str | None:
        try:
            found = find_user(name)
        except OSError as error:
            raise Away(f"the user {name!r} cannot be looked up: {error.strerror or error}") from error
        return None if found is None or found.uid < self._uid_min or found.uid == NOBODY else found.home

    def close(self) -> None:
        self._pool.shutdown(wait=False, cancel_futures=True)


NOBODY: Final = 65_534
