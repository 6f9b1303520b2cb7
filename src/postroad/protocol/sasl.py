"""The server's side of SASL mechanisms without I/O: responses in, steps out (RFC 4422 §3).

A mechanism is begun with the initial response (None: there was none) and fed with each response; it gives a Step:
`Challenge` to send (334), `Verify` for the host to look into, or `Refused` with the reply that ends the exchange. The
host answers `Verify` by itself (235, 535 5.7.8, 454 4.7.0): PLAIN and LOGIN end there. A mechanism that goes on after a
look-up (SCRAM) would get its own step beside `Verify`; one without a password (EXTERNAL, OAUTHBEARER) likewise.

What always holds: nothing raises, whatever the octets; after `Verify` or `Refused` a mechanism gives no further step;
names and passwords are strings without NUL, of at most `WORD_MAX` octets, as the client sent them: preparing them
(RFC 4013) is for who compares them. A password is never part of a repr.

https://www.rfc-editor.org/rfc/rfc4616 (PLAIN), draft-murchison-sasl-login-00 (LOGIN), RFC 4954 §4, §6.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, Protocol

import msgspec

from postroad.mail.reply import Reply, reply

WORD_MAX: Final = 1024  # RFC 4616 §2 demands 255 octets for each part

MALFORMED: Final = reply(501, "5.5.2", "Malformed authentication response")


class Challenge(msgspec.Struct, frozen=True):
    """Send this: `ServerMachine.challenge`."""

    octets: bytes


class Verify(msgspec.Struct, frozen=True):
    """Is this the password of `authcid`, and may it act as `authzid` ("": as itself; RFC 4616 §2)?"""

    authcid: str
    password: str
    authzid: str = ""

    def __repr__(self) -> str:
        return f"Verify(authcid={self.authcid!r}, password=…, authzid={self.authzid!r})"


class Refused(msgspec.Struct, frozen=True):
    """The exchange is over: answer with this."""

    reply: Reply


Step = Challenge | Verify | Refused


class Mechanism(Protocol):
    """One exchange."""

    def begin(self, initial: bytes | None) -> Step: ...

    def respond(self, response: bytes) -> Step: ...


class Plain:
    """PLAIN, RFC 4616 §2: message = [authzid] UTF8NUL authcid UTF8NUL passwd"""

    __slots__ = ()

    def begin(self, initial: bytes | None) -> Step:
        return Challenge(b"") if initial is None else self.respond(initial)

    def respond(self, response: bytes) -> Step:
        parts = response.split(b"\0")
        words = [_word(part) for part in parts]
        if len(words) != 3:
            return Refused(MALFORMED)
        authzid, authcid, password = words
        if authzid is None or not authcid or not password:  # authcid and passwd: 1*SAFE
            return Refused(MALFORMED)
        return Verify(authcid, password, authzid)


class Login:
    """LOGIN, as clients speak it: a name, then a password, each for a prompt; the name may come at once."""

    __slots__ = ("_name",)

    def __init__(self) -> None:
        self._name: str | None = None

    def begin(self, initial: bytes | None) -> Step:
        return Challenge(b"Username:") if initial is None else self.respond(initial)

    def respond(self, response: bytes) -> Step:
        # The draft's clients end each word with NUL.
        word = _word(response.removesuffix(b"\0"))
        if not word:
            return Refused(MALFORMED)
        if self._name is None:
            self._name = word
            return Challenge(b"Password:")
        return Verify(self._name, word)


def _word(octets: bytes) -> str | None:
    """A name or password: UTF-8 without NUL."""
    if len(octets) > WORD_MAX or b"\0" in octets:
        return None
    try:
        return octets.decode("utf-8")
    except UnicodeDecodeError:
        return None


MECHANISMS: Final[dict[str, Callable[[], Mechanism]]] = {"PLAIN": Plain, "LOGIN": Login}
"""By the name that AUTH gives, in capitals. What an Offer names must be in here."""
