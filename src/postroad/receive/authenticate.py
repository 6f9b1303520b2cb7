"""Verifying passwords without holding up the loop: threads, a bounded queue, a short memory of what was right.

An argon2 hash costs tens of milliseconds of a core. So it is computed on a few threads; when more than `queue_max`
clients wait for one, the next is told to come back (454 4.7.0, RFC 4954 §6). What was verified once is remembered for
`cache_s` by a keyed hash of name and password, which is forgotten as soon as the account's hash in the file changes.

What always holds: `done` is called exactly once, never before `verify` has returned its turn to the loop for a
password that had to be computed; names known and unknown take the same work; a failure is only told after
`failure_delay_s`. No password is kept.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import enum
import hashlib
import random
from collections import OrderedDict
from collections.abc import Callable

import msgspec

from postroad.receive import accounts
from postroad.receive.accounts import Account, Accounts


class AuthOptions(msgspec.Struct, frozen=True):
    """`threads`: hashes computed at a time; `queue_max`: clients that wait for one at most, these included.
    `cache_s`, `cache_max`: how long and how many right passwords are remembered (0 s: never).
    `failure_delay_s`: from the finding that a password is wrong to the answer."""

    threads: int = 2
    queue_max: int = 64
    cache_s: float = 60.0
    cache_max: int = 4096
    failure_delay_s: float = 1.0


class Finding(enum.Enum):
    """What was found of a name and a password."""

    RIGHT = "right"
    WRONG = "wrong"
    BUSY = "busy"  # too many wait already, or no accounts could be read: nothing was looked at


Done = Callable[[Finding, str], None]
"""What was found, and the name of the account as the file writes it ("" unless RIGHT)."""


class _Remembered(msgspec.Struct, frozen=True):
    account: Account
    until: float  # loop time


class Authenticator:
    """Verifies names and passwords against the accounts of one users file."""

    def __init__(
        self,
        known: Accounts,
        options: AuthOptions,
        loop: asyncio.AbstractEventLoop,
        chance: random.Random,
        executor: concurrent.futures.Executor | None = None,
    ) -> None:
        self.accounts = known
        self.options = options  # may be replaced at reload; the number of threads stays
        self._loop = loop
        self._key = chance.randbytes(32)
        self._executor = executor or concurrent.futures.ThreadPoolExecutor(options.threads, "password")
        self._waiting = 0
        self._remembered: OrderedDict[bytes, _Remembered] = OrderedDict()

    def verify(self, name: str, password: str, done: Done) -> None:
        """Find out whether `password` is that of the account `name`."""
        self.accounts.refresh()
        if not self.accounts.known:  # nothing can be said of any password (RFC 4954 §6: 454)
            done(Finding.BUSY, "")
            return
        prepared_name = accounts.prepare(name)
        prepared = accounts.prepare(password)
        fit = prepared_name is not None and prepared is not None and len(prepared.encode()) <= accounts.PASSWORD_MAX
        # What cannot be a password is verified as another wrong one, so that it takes as long.
        name, password = (prepared_name or "", prepared or "") if fit else ("", "-")
        key = self._digest(name, password)
        if self._recall(key):
            done(Finding.RIGHT, name)
            return
        if self._waiting >= self.options.queue_max:
            done(Finding.BUSY, "")
            return
        self._waiting += 1
        account = self.accounts.find(name)
        future = self._loop.run_in_executor(
            self._executor, accounts.matches, self.accounts.hash_of(name), password
        )
        future.add_done_callback(lambda ended: self._verified(ended, account, key, done))

    def close(self) -> None:
        """Let the threads end; what they compute now is still answered."""
        self._executor.shutdown(wait=False, cancel_futures=False)

    def _verified(self, ended: asyncio.Future[bool], account: Account | None, key: bytes, done: Done) -> None:
        self._waiting -= 1
        if ended.cancelled():  # the loop is going down
            return
        if ended.result() and account is not None:
            self._remember(key, account)
            done(Finding.RIGHT, account.name)
        else:
            self._loop.call_later(self.options.failure_delay_s, done, Finding.WRONG, "")

    def _digest(self, name: str, password: str) -> bytes:
        return hashlib.blake2b(f"{name}\0{password}".encode(), key=self._key, digest_size=32).digest()

    def _recall(self, key: bytes) -> bool:
        remembered = self._remembered.get(key)
        if remembered is None:
            return False
        if self._loop.time() < remembered.until and self.accounts.find(remembered.account.name) == remembered.account:
            return True
        del self._remembered[key]
        return False

    def _remember(self, key: bytes, account: Account) -> None:
        if self.options.cache_s <= 0:
            return
        self._remembered[key] = _Remembered(account, self._loop.time() + self.options.cache_s)
        self._remembered.move_to_end(key)
        while len(self._remembered) > self.options.cache_max:
            self._remembered.popitem(last=False)
