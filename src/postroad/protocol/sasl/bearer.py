"""OAUTHBEARER (RFC 7628) and XOAUTH2 (Google's and Microsoft's older form of it), the server's side.

    client-resp = (gs2-header kvsep *kvpair kvsep) / kvsep       kvsep = %x01      kvpair = key "=" value kvsep
    XOAUTH2: "user=" name %x01 "auth=Bearer " token %x01 %x01

If a token is not valid, the server sends one more challenge with JSON that says so; the client answers it with kvsep
(XOAUTH2: with nothing), and only then comes 535 (RFC 7628 §3.2.3).

What always holds and how it fails: see `step`. The host finds out who owns a token, and whether it is valid.
"""

from __future__ import annotations

import json
import re
from typing import Final

from postroad.protocol.sasl.step import MALFORMED, WORD_MAX, Challenge, ExchangeRefused, ProofFailed, Step, Token

_KVSEP: Final = "\x01"
_BEARER: Final = re.compile(r"(?i:bearer) +([A-Za-z0-9._~+/-]+=*) *")  # RFC 6750 §2.1: b64token
_KEY: Final = re.compile(r"[A-Za-z]+")
_GS2: Final = re.compile(r"[ny],(?:a=([^,\x00\x01]{1,1024}))?,")  # no channel binding: "p=" is not for us


class Bearer:
    """One exchange of either mechanism. `scope`: what a client is told to ask for when its token is refused."""

    __slots__ = ("_authcid", "_denied", "_scope", "_xoauth2")

    def __init__(self, *, xoauth2: bool, scope: str = "") -> None:
        self._xoauth2 = xoauth2
        self._scope = scope
        self._denied = False
        self._authcid = ""

    def begin(self, initial: bytes | None) -> Step:
        return Challenge(b"") if initial is None else self.respond(initial)

    def respond(self, response: bytes) -> Step:
        if self._denied:  # whatever it says, it is over
            return ProofFailed(self._authcid)
        try:
            message = response.decode("utf-8")
        except UnicodeDecodeError:
            return ExchangeRefused(MALFORMED)
        found = _xoauth2(message) if self._xoauth2 else _oauthbearer(message)
        if found is None:
            return ExchangeRefused(MALFORMED)
        self._authcid = found.authcid
        return found

    def denied(self) -> Step:
        """The token is no good: what the client is told (RFC 7628 §3.2.2)."""
        self._denied = True
        told = {"status": "400", "schemes": "bearer"} if self._xoauth2 else {"status": "invalid_token"}
        if self._scope:
            told["scope"] = self._scope
        return Challenge(json.dumps(told, separators=(",", ":")).encode())


def _oauthbearer(message: str) -> Token | None:
    header, separator, rest = message.partition(_KVSEP)
    gs2 = _GS2.fullmatch(header)
    if gs2 is None or not separator or not rest.endswith(_KVSEP + _KVSEP):
        return None
    authzid = (gs2[1] or "").replace("=2C", ",").replace("=3D", "=")  # RFC 5801 §4
    token = _token(rest[:-2])
    return Token(token, authzid) if token else None


def _xoauth2(message: str) -> Token | None:
    if not message.startswith("user=") or not message.endswith(_KVSEP + _KVSEP):
        return None
    user, _, rest = message[5:-2].partition(_KVSEP)
    token = _token(rest)
    if not token or not user or "\0" in user or len(user.encode()) > WORD_MAX:
        return None
    return Token(token, user)


def _token(pairs: str) -> str:
    """The token of the pairs' ``auth``, "" if there is none; a key that stands twice is an error."""
    found: dict[str, str] = {}
    for pair in pairs.split(_KVSEP):
        key, separator, value = pair.partition("=")
        if not separator or not _KEY.fullmatch(key) or key in found:
            return ""
        found[key] = value
    bearer = _BEARER.fullmatch(found.get("auth", ""))
    return bearer[1] if bearer is not None else ""
