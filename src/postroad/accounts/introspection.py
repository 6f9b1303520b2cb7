"""Asks the authorization server who owns a bearer token, by OAuth 2.0 Token Introspection (RFC 7662).

What always holds: a token counts only if the server says ``"active": true``, names the account in the claim that is
set, and grants the scope and audience that are set. A token whose `exp` is over is refused in any case. A right token
is remembered by a keyed hash after the client was told, for at most `cache_s` and never beyond `exp`. No token is
logged. If the client goes before the server was asked, the question is dropped (`accounts.pending`).

How it fails: if the authorization server cannot be reached, or its answer is anything but 200 with such an object, the
client hears 454 4.7.0, and the log says why.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import random
from collections import OrderedDict
from collections.abc import Callable
from functools import partial
from typing import Annotated, Any, Final
from urllib.parse import quote_plus, urlencode

import msgspec
from msgspec import Meta

from postroad.accounts import accounts
from postroad.accounts.accounts import Account
from postroad.accounts.authenticate import TOKENS, AuthOptions, Found, Match, SessionFacts
from postroad.accounts.exchange import Drop, KeysFound
from postroad.accounts.pending import PendingQuestions
from postroad.protocol.sasl.step import Hash
from postroad.world.clock import Clock
from postroad.world.http import Fetch, HttpRequest
from postroad.world.problem import Problem

_TOKEN_MAX: Final = 16_384


class IntrospectionOptions(msgspec.Struct, frozen=True):
    """How tokens are introspected. `client_secret`: that of `client_id` (RFC 6749 §2.3.1)."""

    url: Annotated[str, Meta(description="The introspection endpoint. Unset: no tokens are checked in this way.")]
    client_id: Annotated[
        str,
        Meta(
            description='The name by which the node authenticates at the endpoint. "": it does not authenticate.',
        ),
    ] = ""
    client_secret: str = ""
    account_claim: Annotated[
        str,
        Meta(
            description="The member of the endpoint's answer that names the account.",
        ),
    ] = "username"
    scope: Annotated[
        str,
        Meta(
            description='The scopes that a token must have, separated by spaces. "": any.',
        ),
    ] = ""
    audience: Annotated[
        str,
        Meta(
            description='The audience that a token must be meant for. "": any.',
        ),
    ] = ""
    ca_file: Annotated[
        str,
        Meta(
            description="The root certificates for the endpoint's certificate, PEM. Unset: the system's.",
        ),
    ] = ""

    def __repr__(self) -> str:
        return f"IntrospectionOptions(url={self.url!r})"


class _Remembered(msgspec.Struct, frozen=True):
    account: Account
    until: float  # loop time


class Introspection:
    """The source of tokens."""

    def __init__(
        self,
        options: IntrospectionOptions,
        auth: AuthOptions,
        loop: asyncio.AbstractEventLoop,
        clock: Clock,
        entropy: random.Random,
        fetch: Fetch,
        log: Callable[[str], None],
        at_once: int = 8,
    ) -> None:
        self._options = options
        self._auth = auth
        self._loop = loop
        self._clock = clock
        self._key = entropy.randbytes(32)
        self._fetch = fetch
        self._log = log
        self._asking = PendingQuestions(loop, at_once, auth.timeout_s, log, "introspecting a token broke")
        self._remembered: OrderedDict[bytes, _Remembered] = OrderedDict()

    def mechanisms(self) -> tuple[str, ...]:
        return TOKENS

    def password(self, name: str, password: str, facts: SessionFacts, done: Found) -> None:
        raise LookupError("introspection knows no passwords")

    def keys(self, name: str, hash: Hash, facts: SessionFacts, done: KeysFound) -> None:
        raise LookupError("introspection knows no keys")

    def certificate(self, authzid: str, facts: SessionFacts, done: Found) -> None:
        raise LookupError("introspection knows no certificates")

    def token(self, mechanism: str, token: str, name: str, facts: SessionFacts, done: Found) -> Drop | None:
        if len(token) > _TOKEN_MAX:
            done(Match.WRONG, None)
            return None
        key = hashlib.blake2b(token.encode(), key=self._key, digest_size=32).digest()
        remembered = self._remembered.get(key)
        if remembered is not None:
            if self._loop.time() < remembered.until:
                done(Match.RIGHT, remembered.account)
                return None
            del self._remembered[key]
        until: list[float] = []  # as long as the answer may be remembered
        return self._asking.ask(partial(self._ask, token, until), partial(self._found, key, until, done)).drop

    def close(self) -> None:
        self._asking.close()

    def _found(self, key: bytes, until: list[float], done: Found, finding: Match, account: Account | None) -> bool:
        told = done(finding, account) is not False
        if told and account is not None and until:
            self._remember(key, _Remembered(account, until[0]))
        return told

    async def _ask(self, token: str, until: list[float]) -> tuple[Match, Account | None]:
        answer = await self._fetch(_request(self._options, token, self._auth.timeout_s))
        if isinstance(answer, Problem):
            self._log(f"a token could not be introspected: {answer}")
            return Match.BUSY, None
        claims = _claims(answer.body) if answer.status == 200 else None
        if claims is None:
            self._log(f"{self._options.url} answered the introspection of a token with status {answer.status}")
            return Match.BUSY, None
        now_s = self._clock.now_us() / 1_000_000
        account = owner(claims, self._options, now_s)
        if account is None:
            return Match.WRONG, None
        expires, left_s = claims.get("exp"), self._auth.cache_s
        if expires is not None:
            left_s = float(min(left_s, expires - now_s))
        until.append(self._loop.time() + left_s)
        return Match.RIGHT, account

    def _remember(self, key: bytes, remembered: _Remembered) -> None:
        self._remembered[key] = remembered
        self._remembered.move_to_end(key)
        while len(self._remembered) > self._auth.cache_max:
            self._remembered.popitem(last=False)


def _request(options: IntrospectionOptions, token: str, timeout_s: float) -> HttpRequest:
    """RFC 7662 §2.1."""
    headers = [("Content-Type", "application/x-www-form-urlencoded"), ("Accept", "application/json")]
    if options.client_id:  # RFC 6749 §2.3.1: both are form-encoded before they are joined
        pair = f"{quote_plus(options.client_id)}:{quote_plus(options.client_secret)}"
        headers.append(("Authorization", f"Basic {base64.b64encode(pair.encode()).decode('ascii')}"))
    body = urlencode({"token": token, "token_type_hint": "access_token"}).encode()
    return HttpRequest(options.url, body, tuple(headers), timeout_s)


def _claims(body: bytes) -> dict[str, Any] | None:
    """The members of the answer, if it is one (RFC 7662 §2.2)."""
    try:
        claims = msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None
    return claims if isinstance(claims, dict) and isinstance(claims.get("active"), bool) else None


def owner(claims: dict[str, Any], options: IntrospectionOptions, now_s: float) -> Account | None:
    """The account that a token's claims name; None if it does not count."""
    if claims["active"] is not True:
        return None
    expires = claims.get("exp")
    if expires is not None and (not isinstance(expires, int | float) or expires <= now_s):
        return None
    if options.scope and not set(options.scope.split()) <= set(str(claims.get("scope", "")).split()):
        return None
    audience = claims.get("aud")
    if options.audience and options.audience not in (audience if isinstance(audience, list) else [audience]):
        return None
    name = claims.get(options.account_claim)
    prepared = accounts.prepare(name) if isinstance(name, str) else None
    return Account(prepared) if prepared and not accounts.name_fault(prepared) else None
