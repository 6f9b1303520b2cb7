"""Logs in at a smart host (RFC 4954): credentials, the choice of a mechanism, and the exchange.

The strongest mechanism that both ends have is taken: SCRAM (RFC 5802, RFC 7677), with channel binding if the server
offers it and TLS gives one (RFC 9266, RFC 5929); then PLAIN (RFC 4616) and LOGIN; with a token OAUTHBEARER (RFC 7628),
then XOAUTH2. If a mechanism is set, only this one is used. CRAM-MD5 (RFC 2195) is taken only if a setting allows it and
nothing better is offered: after PLAIN and LOGIN under TLS, before them without.

What always holds: without TLS nothing secret is sent or used for a proof, unless the operator has allowed it; nothing
secret is part of a repr or of a text. With SCRAM, 235 counts only if the server has proved that it knows the account. A
token is read again for each session.
"""

from __future__ import annotations

import asyncio
import base64
import json
import random
import re
from collections.abc import Callable
from concurrent.futures import Executor
from pathlib import Path
from typing import Final, Protocol

import msgspec

from postroad.protocol.sasl import clients, scram_keys
from postroad.protocol.sasl.clients import Salting, ScramClient
from postroad.protocol.sasl.mechanisms import HASHES
from postroad.protocol.sasl.step import Hash
from postroad.world.programs import Programs

PLUS: Final = "-PLUS"
PASSWORDS: Final = (
    "SCRAM-SHA-256-PLUS", "SCRAM-SHA-1-PLUS", "SCRAM-SHA-256", "SCRAM-SHA-1", "PLAIN", "LOGIN",
)  # fmt: skip
CRAM_MD5: Final = "CRAM-MD5"
_CLEAR: Final = ("PLAIN", "LOGIN")  # they show the password to who reads along
TOKENS: Final = ("OAUTHBEARER", "XOAUTH2")
CERTIFICATES: Final = ("EXTERNAL",)

_TOKEN: Final = re.compile(r"[A-Za-z0-9._~+/-]+=*")  # RFC 6750 §2.1: b64token
_TOKEN_MAX: Final = 16_384
_TOKEN_S: Final = 30.0  # how long a command that makes one may take
_PATH: Final = "/usr/local/bin:/usr/bin:/bin"


class Credentials(msgspec.Struct, frozen=True):
    """`password`, or a token from the first line of `token_file` or of what `token_command` prints; for EXTERNAL none
    of them. `password_file`: its first line replaces `password` at the beginning of each session. `mechanism`: the only
    one to use, "" for the strongest. `without_tls`: all this may be done without TLS (a smart host on this machine).
    `cram_md5`: CRAM-MD5 will do if there is nothing better."""

    name: str
    password: str = ""
    without_tls: bool = False
    mechanism: str = ""
    token_file: str = ""
    token_command: tuple[str, ...] = ()
    cram_md5: bool = False

    password_file: str = ""

    def __repr__(self) -> str:
        return f"Credentials(name={self.name!r})"  # nothing secret in a log

    @property
    def by_token(self) -> bool:
        return bool(self.token_file or self.token_command)


class ClientExchange(Protocol):
    """One AUTH as its client. `problem`: what is wrong with it, as far as it has come; "" if nothing is."""

    mechanism: str
    initial: bytes | None

    @property
    def problem(self) -> str: ...

    async def respond(self, challenge: bytes) -> bytes | None:
        """The response, None to cancel."""


class ClientExchangeContext(msgspec.Struct, frozen=True):
    """What an exchange needs: the channel binding of the session (type and octets) if there is one, the server by
    name and port, chance for nonces, threads, programs."""

    binding: tuple[str, bytes] | None
    host: str
    port: int
    entropy: random.Random
    pool: Executor
    programs: Programs


async def current(credentials: Credentials, pool: Executor) -> Credentials:
    """The credentials with the password that the file holds now. If the file is empty (somebody may be writing it) or
    cannot be read, the password is the one that was there when the settings were read."""
    if not credentials.password_file:
        return credentials
    loop = asyncio.get_running_loop()
    password = (await loop.run_in_executor(pool, _read, credentials.password_file)).partition("\n")[0].rstrip("\r")
    return msgspec.structs.replace(credentials, password=password) if password else credentials


def choose(credentials: Credentials, offered: frozenset[str], *, tls: bool, bindable: bool) -> str:
    """The mechanism; a text with blanks says why there is none."""
    if not offered:
        return "credentials are set, but the remote does not offer AUTH"
    if not tls and not credentials.without_tls:
        return "credentials are set, but without TLS the password is not sent"
    fit = _fit(credentials, tls=tls)
    wanted = (credentials.mechanism,) if credentials.mechanism else fit
    for name in wanted:
        if name in offered and (bindable or not name.endswith(PLUS)):
            return name
    if credentials.mechanism.endswith(PLUS) and credentials.mechanism in offered:
        return f"{credentials.mechanism} is set, but this session has no channel binding"
    told = " ".join(sorted(offered))[:200]
    return f"the remote offers none of the mechanisms {', '.join(wanted)}, but {told}"


def _fit(credentials: Credentials, *, tls: bool) -> tuple[str, ...]:
    """The mechanisms that these credentials are for, best first."""
    if credentials.by_token:
        return TOKENS
    if not credentials.password:
        return CERTIFICATES
    if not credentials.cram_md5:
        return PASSWORDS
    if tls:
        return (*PASSWORDS, CRAM_MD5)
    return (*(name for name in PASSWORDS if name not in _CLEAR), CRAM_MD5, *_CLEAR)


async def exchange(
    credentials: Credentials, mechanism: str, offered: frozenset[str], around: ClientExchangeContext
) -> ClientExchange | str:
    """The exchange of a mechanism that was chosen, or why it cannot be begun."""
    name = credentials.name
    hash = HASHES.get(mechanism)
    if hash is not None:
        nonce = base64.b64encode(around.entropy.randbytes(18)).decode("ascii")
        bound = around.binding if mechanism.endswith(PLUS) else None
        # RFC 5802 §6: "y" says that we would have bound the channel; not where -PLUS was on offer and is not wanted
        could = around.binding is not None and not any(each.endswith(PLUS) for each in offered)
        kind, octets = bound or ("", b"")
        client = ScramClient(hash, name, nonce, binding_type=kind, binding=octets, could_bind=could)
        return _Scram(mechanism, client, lambda salting: _salted(hash, credentials.password, salting), around.pool)
    if mechanism in TOKENS:
        token = await _token(credentials, around)
        if token is None:
            return "no token could be read"
        if mechanism == "XOAUTH2":
            return _Single(mechanism, clients.xoauth2(name, token), b"")
        return _Single(mechanism, clients.oauthbearer(name, token, around.host, around.port), b"\x01")
    if mechanism == "EXTERNAL":
        return _Single(mechanism, name.encode(), None)
    if mechanism == "PLAIN":
        return _Single(mechanism, clients.plain(name, credentials.password), None)
    if mechanism == CRAM_MD5:
        return _CramMd5(name, credentials.password)
    return _Login(name, credentials.password)


class _Single:
    """A mechanism of one message. `last`: the answer to a challenge that tells of an error (RFC 7628 §3.2.3)."""

    def __init__(self, mechanism: str, initial: bytes, last: bytes | None) -> None:
        self.mechanism = mechanism
        self.initial: bytes | None = initial
        self.problem = ""
        self._last = last

    async def respond(self, challenge: bytes) -> bytes | None:
        last, self._last = self._last, None
        if last is not None:
            self.problem = f"it says {_status(challenge)!r} of the token"
        return last


class _Login:
    """draft-murchison-sasl-login §2.1: user name, then password; what the challenges say is ignored."""

    mechanism = "LOGIN"
    problem = ""

    def __init__(self, name: str, password: str) -> None:
        self.initial: bytes | None = None
        self._answers = [password.encode(), name.encode()]

    async def respond(self, challenge: bytes) -> bytes | None:
        return self._answers.pop() if self._answers else None


class _CramMd5:
    """RFC 2195 §2: one challenge, one answer."""

    mechanism = CRAM_MD5

    def __init__(self, name: str, password: str) -> None:
        self.initial: bytes | None = None
        self.problem = ""
        self._account: tuple[str, str] | None = (name, password)

    async def respond(self, challenge: bytes) -> bytes | None:
        account, self._account = self._account, None
        if account is None:
            self.problem = "it sends a second CRAM-MD5 challenge"
            return None
        answer = clients.cram_md5(*account, challenge)
        if isinstance(answer, str):
            self.problem = answer
            return None
        return answer


class _Scram:
    """SCRAM; the slow part on a thread."""

    def __init__(
        self, mechanism: str, client: ScramClient, salted: Callable[[Salting], bytes], pool: Executor
    ) -> None:
        self.mechanism = mechanism
        self.initial: bytes | None = client.initial
        self._client = client
        self._salted = salted
        self._pool = pool
        self._answered = False
        self._fault = ""

    @property
    def problem(self) -> str:
        return self._fault or ("" if self._client.proved else "it has not shown that it knows the account")

    async def respond(self, challenge: bytes) -> bytes | None:
        client = self._client
        if client.proved:  # nothing may follow; a server that goes on would have us go on for ever
            self._fault = "it goes on after its SCRAM proof"
            return None
        if self._answered:
            self._fault = client.server_final(challenge)
            return None if self._fault else b""
        found = client.server_first(challenge)
        if isinstance(found, str):
            self._fault = found
            return None
        self._answered = True
        return client.finish(await asyncio.get_running_loop().run_in_executor(self._pool, self._salted, found))


def _salted(hash: Hash, password: str, salting: Salting) -> bytes:
    return scram_keys.salted(hash, password, salting.salt, salting.iterations)


def _status(challenge: bytes) -> str:
    """What a refused token was refused for; only that member, for nobody knows what else a server may send."""
    try:
        told = json.loads(challenge)
    except ValueError:
        return "no"
    return str(told.get("status", "no"))[:50] if isinstance(told, dict) else "no"


async def _token(credentials: Credentials, around: ClientExchangeContext) -> str | None:
    """The token as it is now. What is no token is not shown: it may be a secret all the same."""
    if credentials.token_command:
        ended = await around.programs.run(
            credentials.token_command, environment={"PATH": _PATH}, timeout_s=_TOKEN_S, output_max=_TOKEN_MAX
        )
        text = ended.output.decode("utf-8", "replace") if ended.exit_code == 0 else ""
    else:
        loop = asyncio.get_running_loop()
        text = await loop.run_in_executor(around.pool, _read, credentials.token_file)
    token = text.partition("\n")[0].strip()
    return token if len(token) <= _TOKEN_MAX and _TOKEN.fullmatch(token) else None


def _read(path: str) -> str:
    try:
        with Path(path).open("rb") as file:
            return file.read(_TOKEN_MAX + 2).decode("utf-8", "replace")
    except OSError:
        return ""
