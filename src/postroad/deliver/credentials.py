"""How we prove who we are to a smart host (RFC 4954): credentials, and the exchange made from them.

What always holds: a password is sent in the clear only under TLS, unless its owner has said that it may be. PLAIN
(RFC 4616) goes before LOGIN, which is for servers that have nothing else.
"""

from __future__ import annotations

import msgspec

from postroad.protocol.client import Exchange


class Credentials(msgspec.Struct, frozen=True):
    """`without_tls`: the password may be sent without TLS (a smart host on the same machine)."""

    name: str
    password: str
    without_tls: bool = False

    def __repr__(self) -> str:
        return f"Credentials(name={self.name!r})"  # no password in a log


def exchange(credentials: Credentials, mechanisms: frozenset[str], *, tls: bool) -> Exchange | str:
    """The exchange to begin with these mechanisms on offer, or why there is none."""
    if not mechanisms:
        return "credentials are set, but the remote does not offer AUTH"
    if not tls and not credentials.without_tls:
        return "credentials are set, but without TLS the password is not sent"
    if "PLAIN" in mechanisms:
        return _plain(credentials)
    if "LOGIN" in mechanisms:
        return _login(credentials)
    return f"the remote offers none of the mechanisms PLAIN and LOGIN, but {' '.join(sorted(mechanisms))[:200]}"


def _plain(credentials: Credentials) -> Exchange:
    """RFC 4616 §2: message = [authzid] UTF8NUL authcid UTF8NUL passwd"""
    message = b"\0".join((b"", credentials.name.encode(), credentials.password.encode()))
    return Exchange("PLAIN", message, lambda challenge: None)


def _login(credentials: Credentials) -> Exchange:
    """draft-murchison-sasl-login §2.1: user name, then password; what the challenges say is ignored."""
    answers = [credentials.password.encode(), credentials.name.encode()]
    return Exchange("LOGIN", None, lambda challenge: answers.pop() if answers else None)
