"""The accounts of the users file as a source: passwords, SCRAM keys, certificates.

An argon2 hash costs tens of milliseconds of a core. So it is computed on a few threads; if the client goes while its
hash waits for a thread, the hash is dropped (`accounts.pending`). A right password is remembered for `cache_s` after
the client was told, by a keyed hash of name and password. It is forgotten as soon as the account's hash in the file
changes. SCRAM's keys need no such work: the client does it.

What always holds: known and unknown names take the same work, for passwords and for keys. No password is kept.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import hashlib
import random
from collections import OrderedDict
from collections.abc import Callable
from functools import partial

import msgspec

from postroad.accounts import accounts
from postroad.accounts.accounts import Account, Accounts
from postroad.accounts.authenticate import (
    PASSWORDS,
    AuthOptions,
    CertificateName,
    Found,
    Match,
    SessionFacts,
    scram_names,
)
from postroad.accounts.exchange import Drop, KeysFound
from postroad.accounts.pending import PendingQuestion, PendingQuestions
from postroad.mail.account import canonical_account
from postroad.protocol.sasl.step import Hash


class _Remembered(msgspec.Struct, frozen=True):
    account: Account
    until: float  # loop time


class Users:
    """The source. `secret`: of the node, so that decoys stay the same; `passwords`: False if passwords are verified
    by somebody else, and the file only says what accounts may send from."""

    def __init__(
        self,
        known: Accounts,
        options: AuthOptions,
        loop: asyncio.AbstractEventLoop,
        chance: random.Random,
        secret: bytes,
        executor: concurrent.futures.Executor,
        *,
        passwords: bool = True,
        log: Callable[[str], None] = lambda text: None,
    ) -> None:
        self.accounts = known
        self._options = options
        self._loop = loop
        self._key = chance.randbytes(32)
        self._secret = secret
        self._executor = executor
        self._passwords = passwords
        self._asking = PendingQuestions(loop, options.threads, options.timeout_s, log, "verifying a password broke")
        self._remembered: OrderedDict[bytes, _Remembered] = OrderedDict()

    def mechanisms(self) -> tuple[str, ...]:
        """SCRAM is offered if every password has its keys, or if the operator names it."""
        external = () if self._options.certificate_name is CertificateName.NONE else ("EXTERNAL",)
        if not self._passwords:
            return external
        asked = scram_names(tuple(hash.value for hash in Hash if self.accounts.all_have(hash)))
        named = [name for name in self._options.mechanisms if name.startswith("SCRAM-") and name not in asked]
        return (*external, *asked, *named, *PASSWORDS)

    def password(self, name: str, password: str, facts: SessionFacts, done: Found) -> Drop | None:
        """Find out whether `password` is that of the account `name`."""
        self.accounts.refresh()
        if not self.accounts.known:  # nothing can be said of any password (RFC 4954 §6: 454)
            done(Match.BUSY, None)
            return None
        prepared_name = accounts.prepare(name)
        prepared = accounts.prepare(password)
        fit = prepared_name is not None and prepared is not None and len(prepared.encode()) <= accounts.PASSWORD_MAX
        # What cannot be a password is verified as another wrong one, so that it takes as long.
        name, password = (prepared_name or "", prepared or "") if fit else ("", "-")
        key = self._digest(name, password)
        remembered = self._recall(key)
        if remembered is not None:
            done(Match.RIGHT, remembered)
            return None
        found = partial(self._found, key, done)
        return self._asking.begin(partial(self._verify, name, password), found).drop

    def keys(self, name: str, hash: Hash, facts: SessionFacts, done: KeysFound) -> None:
        self.accounts.refresh()
        if not self.accounts.known:
            done(Match.BUSY, None, None)
            return
        prepared = accounts.prepare(name) or ""
        keys = self.accounts.keys_of(prepared, hash, self._secret)
        account = self.accounts.find(prepared)
        real = account is not None and account.keys_for(hash) is not None
        done(Match.RIGHT if real else Match.WRONG, account if real else None, keys)

    def token(self, mechanism: str, token: str, name: str, facts: SessionFacts, done: Found) -> None:
        raise LookupError("the users file knows no tokens")

    def certificate(self, authzid: str, facts: SessionFacts, done: Found) -> None:
        """The account of the certificate: the one that the client names, if the certificate does, too."""
        self.accounts.refresh()
        wanted = canonical_account(authzid)
        names = [name for name in facts.certificate if not wanted or canonical_account(name) == wanted]
        account = next((found for name in names if (found := self.accounts.find(name)) is not None), None)
        done(Match.WRONG if account is None else Match.RIGHT, account)

    def close(self) -> None:
        """The threads are not ours."""

    def _verify(self, name: str, password: str, asked: PendingQuestion) -> None:
        """A thread is free: the account is looked up now, the hash computed there."""
        account = self.accounts.find(name)
        future = self._loop.run_in_executor(self._executor, accounts.matches, self.accounts.hash_of(name), password)
        future.add_done_callback(partial(_verified, account, asked))

    def _found(self, key: bytes, done: Found, finding: Match, account: Account | None) -> bool:
        told = done(finding, account) is not False
        if told and account is not None:
            self._remember(key, account)
        return told

    def _digest(self, name: str, password: str) -> bytes:
        octets = f"{canonical_account(name)}\0{password}".encode()
        return hashlib.blake2b(octets, key=self._key, digest_size=32).digest()

    def _recall(self, key: bytes) -> Account | None:
        remembered = self._remembered.get(key)
        if remembered is None:
            return None
        account = remembered.account
        if self._loop.time() < remembered.until and self.accounts.find(account.name) == account:
            return account
        del self._remembered[key]
        return None

    def _remember(self, key: bytes, account: Account) -> None:
        if self._options.cache_s <= 0:
            return
        self._remembered[key] = _Remembered(account, self._loop.time() + self._options.cache_s)
        self._remembered.move_to_end(key)
        while len(self._remembered) > self._options.cache_max:
            self._remembered.popitem(last=False)


def _verified(account: Account | None, asked: PendingQuestion, ended: asyncio.Future[bool]) -> None:
    if ended.cancelled():  # the loop is going down
        return
    if (error := ended.exception()) is not None:
        asked.break_off(error)
    elif ended.result() and account is not None:
        asked.end(Match.RIGHT, account)
    else:
        asked.end(Match.WRONG, None)
