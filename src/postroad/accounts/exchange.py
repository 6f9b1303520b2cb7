"""Joins our own mechanisms with a `Source`, which knows passwords, keys, tokens or certificates.

What always holds: the contract of `authenticate.Exchange`; an account acts as itself, never as another (RFC 4616 §2: an
authorization identity that is not the account's is refused); a proof that was made with the keys of a decoy is never
right. After a client has gone, no new work begins for it; work that has begun is finished, so that it counts.
"""

from __future__ import annotations

import base64
import random
from collections.abc import Callable
from functools import partial
from typing import Protocol, assert_never

from postroad.accounts.accounts import Account
from postroad.accounts.authenticate import (
    Busy,
    Challenged,
    Exchange,
    Found,
    Improper,
    Match,
    OnOutcome,
    Right,
    SessionFacts,
    Wrong,
)
from postroad.mail.account import canonical_account
from postroad.protocol.sasl import step as steps
from postroad.protocol.sasl.bearer import Bearer
from postroad.protocol.sasl.mechanisms import MECHANISMS, ExchangeContext
from postroad.protocol.sasl.scram import Scram
from postroad.protocol.sasl.scram_keys import ScramKeys

KeysFound = Callable[[Match, Account | None, ScramKeys | None], bool | None]
"""As Found; keys there are unless it is BUSY: those of a decoy if the account is None."""


Drop = Callable[[], bool]
"""The client has gone. True: the work had not begun, and nothing is told any more."""


class Source(Protocol):
    """Who knows. Only what its mechanisms need is ever asked. What must be waited for can be dropped."""

    def mechanisms(self) -> tuple[str, ...]: ...

    def password(self, name: str, password: str, facts: SessionFacts, done: Found) -> Drop | None: ...

    def keys(self, name: str, hash: steps.Hash, facts: SessionFacts, done: KeysFound) -> Drop | None: ...

    def token(self, mechanism: str, token: str, name: str, facts: SessionFacts, done: Found) -> Drop | None: ...

    def certificate(self, authzid: str, facts: SessionFacts, done: Found) -> Drop | None: ...

    def close(self) -> None: ...


class OwnMechanisms:
    """A backend of our own mechanisms and one source. `scope`: what clients are told whose token is refused."""

    def __init__(self, source: Source, chance: random.Random, scope: str = "") -> None:
        self.source = source
        self._chance = chance
        self._scope = scope

    def mechanisms(self) -> tuple[str, ...]:
        return self.source.mechanisms()

    def exchange(self, mechanism: str, facts: SessionFacts) -> Exchange:
        nonce = base64.b64encode(self._chance.randbytes(18)).decode("ascii")
        around = ExchangeContext(nonce, facts.binding, facts.offered, self._scope)
        return OwnExchange(mechanism, MECHANISMS[mechanism](around), self.source, facts)

    def close(self) -> None:
        self.source.close()


class OwnExchange:
    """One exchange."""

    __slots__ = ("_account", "_drop", "_facts", "_mechanism", "_name", "_source", "_waits")

    def __init__(self, name: str, mechanism: steps.Mechanism, source: Source, facts: SessionFacts) -> None:
        self._name, self._mechanism, self._source, self._facts = name, mechanism, source, facts
        self._account: Account | None = None  # whose keys the proof is made with
        self._waits = False  # for the source
        self._drop: Drop | None = None  # of what is waited for, if that can be dropped

    def begin(self, initial: bytes | None, on_outcome: OnOutcome) -> None:
        self._take(self._mechanism.begin(initial), on_outcome)

    def respond(self, response: bytes, on_outcome: OnOutcome) -> None:
        self._take(self._mechanism.respond(response), on_outcome)

    def cancel(self) -> bool:
        if not self._waits:
            return True
        return self._drop is not None and self._drop()

    def _take(self, step: steps.Step, on_outcome: OnOutcome) -> bool:
        """False: nobody was told, or nothing was found yet."""
        source, facts = self._source, self._facts
        match step:
            case steps.Challenge():
                return on_outcome(Challenged(step.octets)) is not False
            case steps.ExchangeRefused():
                return on_outcome(Improper(step.reply)) is not False
            case steps.ProofFailed():
                return on_outcome(Wrong(step.authcid)) is not False
            case steps.Proved():
                finding = Match.RIGHT if self._account is not None else Match.WRONG
                return self._found(on_outcome, step.authcid, step.authzid, finding, self._account)
        self._waits = True
        drop: Drop | None
        match step:
            case steps.Password():
                found = partial(self._found, on_outcome, step.authcid, step.authzid)
                drop = source.password(step.authcid, step.password, facts, found)
            case steps.CertificateClaim():
                drop = source.certificate(step.authzid, facts, partial(self._found, on_outcome, "", step.authzid))
            case steps.Token():
                found = partial(self._token_found, on_outcome, step)
                drop = source.token(self._name, step.token, step.authcid, facts, found)
            case steps.Keys():
                drop = source.keys(step.authcid, step.hash, facts, partial(self._keys_found, on_outcome))
            case _:
                assert_never(step)
        self._drop = drop
        return False

    def _found(self, on_outcome: OnOutcome, name: str, authzid: str, finding: Match, account: Account | None) -> bool:
        self._waits = False
        match finding:
            case Match.RIGHT if account is not None and (not authzid or _is_one(authzid, name, account.name)):
                return on_outcome(Right(account)) is not False
            case Match.BUSY:
                return on_outcome(Busy()) is not False
            case _:
                return on_outcome(Wrong(name or authzid)) is not False

    def _keys_found(
        self, on_outcome: OnOutcome, finding: Match, account: Account | None, keys: ScramKeys | None
    ) -> bool:
        self._waits = False
        mechanism = self._mechanism
        if finding is Match.BUSY or keys is None or not isinstance(mechanism, Scram):
            return on_outcome(Busy()) is not False
        self._account = account
        return self._take(mechanism.keyed(keys), on_outcome)

    def _token_found(self, on_outcome: OnOutcome, step: steps.Token, finding: Match, account: Account | None) -> bool:
        self._waits = False
        mechanism = self._mechanism
        named = account is not None and (not step.authcid or _is_one(step.authcid, account.name))
        if finding is Match.BUSY:
            return on_outcome(Busy()) is not False
        if finding is Match.RIGHT and account is not None and named:
            return on_outcome(Right(account)) is not False
        if isinstance(mechanism, Bearer):
            denied = mechanism.denied()
            octets = denied.octets if isinstance(denied, steps.Challenge) else b""
            return on_outcome(Challenged(octets, True, step.authcid)) is not False  # the client hears why, then 535
        return on_outcome(Wrong(step.authcid)) is not False


def _is_one(name: str, *names: str) -> bool:
    """Whether a name means one of these accounts."""
    return canonical_account(name) in map(canonical_account, names)
