"""What a server mechanism gives to its host: a challenge to send, a question to answer, or the end (RFC 4422 §3).

A mechanism begins with the initial response (None: there was none) and is given each further response. After a question
it is the host's turn. The host itself answers the client after `Password`, `Token` and `CertificateClaim` (235, 535
5.7.8, 454 4.7.0); only a refused token goes back to the mechanism (`Bearer.denied`), because the client is told more
before the end. The host looks up `Keys` and hands them to `Scram.keyed`, which goes on with the exchange.

What always holds: nothing raises, whatever the octets; names and passwords are strings without NUL, of at most
`WORD_MAX` octets, as the client sent them; whoever compares them prepares them. No password or token is part of a repr.
"""

from __future__ import annotations

import enum
from typing import Final, Protocol

import msgspec

from postroad.mail.reply import Reply, reply

WORD_MAX: Final = 1024  # octets; RFC 4616 §2 demands 255 for each part

MALFORMED: Final = reply(501, "5.5.2", "Malformed authentication response")


class Hash(enum.Enum):
    """The hash functions of SCRAM, by the names that mechanisms have (RFC 5802 §4, RFC 7677)."""

    SHA_1 = "SHA-1"
    SHA_256 = "SHA-256"


class Challenge(msgspec.Struct, frozen=True):
    """Send this: `ServerMachine.challenge`."""

    octets: bytes


class Password(msgspec.Struct, frozen=True):
    """Is this the password of `authcid`, and may it act as `authzid` ("": as itself; RFC 4616 §2)?"""

    authcid: str
    password: str
    authzid: str = ""

    def __repr__(self) -> str:
        return f"Password(authcid={self.authcid!r}, password=…, authzid={self.authzid!r})"


class Keys(msgspec.Struct, frozen=True):
    """What are the SCRAM keys of `authcid`? `authzid` as above."""

    authcid: str
    hash: Hash
    authzid: str = ""


class Token(msgspec.Struct, frozen=True):
    """Whose is this bearer token (RFC 6750)? `authcid`: whose the client says it is, "" if it says nothing."""

    token: str
    authcid: str = ""

    def __repr__(self) -> str:
        return f"Token(token=…, authcid={self.authcid!r})"


class CertificateClaim(msgspec.Struct, frozen=True):
    """Whose is the certificate of the client's TLS, and may they act as `authzid` ("": as themselves)?"""

    authzid: str = ""


class Proved(msgspec.Struct, frozen=True):
    """The client has shown that it knows the password that the keys were made of."""

    authcid: str
    authzid: str = ""


class ProofFailed(msgspec.Struct, frozen=True):
    """The proof was wrong, or a refused client has heard why: 535. `authcid`: who was tried."""

    authcid: str = ""


class ExchangeRefused(msgspec.Struct, frozen=True):
    """The exchange is over: answer with this."""

    reply: Reply


Step = Challenge | Password | Keys | Token | CertificateClaim | Proved | ProofFailed | ExchangeRefused


class Mechanism(Protocol):
    """One exchange."""

    def begin(self, initial: bytes | None) -> Step: ...

    def respond(self, response: bytes) -> Step: ...


def word(octets: bytes) -> str | None:
    """A name or password: UTF-8 without NUL."""
    if len(octets) > WORD_MAX or b"\0" in octets:
        return None
    try:
        return octets.decode("utf-8")
    except UnicodeDecodeError:
        return None
