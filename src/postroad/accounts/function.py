"""A Python function of the operator as the source of accounts: ``module:function``, or ``/path/file.py:function``.

    def check(question):            # or async def
        if question.password is not None and ldap_bind(question.name, question.password):
            return Account(question.name, addresses=("ada@example.org",))
        return None

It is called with a `LoginQuestion` and returns an `Account`, the account's name, or None for nobody. For SCRAM there is
no password: the account that it returns has `keys` (`protocol.sasl.scram_keys`). If the question has a bearer token or
a client's certificate, it returns the owner's account.

What always holds: a plain function runs on a thread, an async one on the loop. If the function takes longer than
`timeout_s`, if it raises, or if no thread is free for so long, the client hears 454 4.7.0, and the log says why. If the
client goes before the function was called, the question is dropped (`accounts.pending`). What the function returns is
checked.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import inspect
import traceback
from collections.abc import Callable
from functools import partial
from typing import Any

import msgspec

from postroad.accounts.accounts import NAME_MAX, Account, canonical_address
from postroad.accounts.authenticate import PASSWORDS, AuthOptions, CertificateName, Found, Match, SessionFacts
from postroad.accounts.exchange import Drop, KeysFound
from postroad.accounts.pending import PendingQuestions
from postroad.mail.account import canonical_account
from postroad.protocol.sasl import scram_keys
from postroad.protocol.sasl.mechanisms import MECHANISMS
from postroad.protocol.sasl.step import Hash
from postroad.world.functions import load

__all__ = ["Account", "FunctionSource", "LoginQuestion", "load"]



class LoginQuestion(msgspec.Struct, frozen=True):
    """Who is this? `name`: who the client says it is ("" if a token or certificate says it). One of `password`,
    `token` and `certificate` (the names in it) is there; none for SCRAM, whose keys are wanted. `address`: the
    client's. `tls`: version and cipher, "" without."""

    mechanism: str
    name: str
    password: str | None = None
    token: str | None = None
    certificate: tuple[str, ...] = ()
    address: str = ""
    tls: str = ""
    listener: str = ""

    def __repr__(self) -> str:
        return f"Question(mechanism={self.mechanism!r}, name={self.name!r}, address={self.address!r})"


Function = Callable[[LoginQuestion], Any]


class FunctionSource:
    """The source. See the module."""

    def __init__(
        self,
        function: Function,
        options: AuthOptions,
        loop: asyncio.AbstractEventLoop,
        executor: concurrent.futures.Executor,
        secret: bytes,
        log: Callable[[str], None],
    ) -> None:
        self._function = function
        self._options = options
        self._loop = loop
        self._executor = executor
        self._secret = secret
        self._log = log
        self._is_async = inspect.iscoroutinefunction(function)
        at_once = options.queue_max if self._is_async else options.threads
        self._asking = PendingQuestions(
            loop, at_once, options.timeout_s, log, "asking the authentication function broke"
        )

    def mechanisms(self) -> tuple[str, ...]:
        """PLAIN and LOGIN; others if the operator names them, who knows what the function can answer."""
        named = self._options.mechanisms
        if not named:
            external = () if self._options.certificate_name is CertificateName.NONE else ("EXTERNAL",)
            return (*external, *PASSWORDS)
        return tuple(name for name in named if name in MECHANISMS)

    def password(self, name: str, password: str, facts: SessionFacts, done: Found) -> Drop:
        return self._ask(_question("PLAIN", name, facts, password=password), done)

    def keys(self, name: str, hash: Hash, facts: SessionFacts, done: KeysFound) -> Drop:
        def found(finding: Match, account: Account | None) -> None:
            keys = account.keys_for(hash) if account is not None else None
            if finding is Match.BUSY:
                done(finding, None, None)
            elif keys is None:
                done(Match.WRONG, None, scram_keys.decoy(hash, self._secret, name, scram_keys.ITERATIONS))
            else:
                done(Match.RIGHT, account, keys)

        return self._ask(_question(f"SCRAM-{hash.value}", name, facts), found)

    def token(self, mechanism: str, token: str, name: str, facts: SessionFacts, done: Found) -> Drop:
        return self._ask(_question(mechanism, name, facts, token=token), done)

    def certificate(self, authzid: str, facts: SessionFacts, done: Found) -> Drop:
        return self._ask(_question("EXTERNAL", authzid, facts), done)

    def close(self) -> None:
        self._asking.close()

    def _ask(self, question: LoginQuestion, done: Found) -> Drop:
        return self._asking.ask(partial(self._asked, question), done).drop

    async def _asked(self, question: LoginQuestion) -> tuple[Match, Account | None]:
        try:
            async with asyncio.timeout(self._options.timeout_s):
                if self._is_async:
                    answer = await self._function(question)
                else:
                    answer = await self._loop.run_in_executor(self._executor, self._function, question)
        except TimeoutError:
            self._log(f"the authentication function did not answer within {self._options.timeout_s:g} s")
            return Match.BUSY, None
        except Exception:
            self._log(f"the authentication function broke: {traceback.format_exc()}")
            return Match.BUSY, None
        account = _account(answer)
        if isinstance(account, str):
            self._log(f"the authentication function answered with {account}")
            return Match.BUSY, None
        return Match.WRONG if account is None else Match.RIGHT, account


def _question(
    mechanism: str, name: str, facts: SessionFacts, *, password: str | None = None, token: str | None = None
) -> LoginQuestion:
    certificate = facts.certificate if mechanism == "EXTERNAL" else ()
    name = canonical_account(name)
    return LoginQuestion(mechanism, name, password, token, certificate, facts.address, facts.tls, facts.listener)


def _account(answer: Any) -> Account | str | None:
    """The account of an answer; a text says what is wrong with it."""
    if answer is None or answer is False:
        return None
    account = Account(answer) if isinstance(answer, str) else answer
    if not isinstance(account, Account):
        return f"a {type(answer).__name__}, which is neither an Account, a name nor None"
    name = account.name
    if not isinstance(name, str) or not name or len(name) > NAME_MAX or not name.isprintable():
        return "an account name that is not valid"
    addresses = tuple(canonical_address(str(address)) for address in account.addresses)
    if None in addresses:
        return "an address that is neither a mailbox nor *@domain nor *"
    return msgspec.structs.replace(account, addresses=tuple(each for each in addresses if each is not None))
