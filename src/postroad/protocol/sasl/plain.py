"""PLAIN, LOGIN and EXTERNAL, the server's side.

https://www.rfc-editor.org/rfc/rfc4616 (PLAIN), draft-murchison-sasl-login-00 (LOGIN), RFC 4422 Appendix A (EXTERNAL),
RFC 4954 §4. What always holds and how it fails: see `step`.
"""

from __future__ import annotations

from postroad.protocol.sasl.step import MALFORMED, CertificateClaim, Challenge, ExchangeRefused, Password, Step, word


class Plain:
    """PLAIN, RFC 4616 §2: message = [authzid] UTF8NUL authcid UTF8NUL passwd"""

    __slots__ = ()

    def begin(self, initial: bytes | None) -> Step:
        return Challenge(b"") if initial is None else self.respond(initial)

    def respond(self, response: bytes) -> Step:
        parts = response.split(b"\0", 3)
        words = [word(part) for part in parts]
        if len(words) != 3:
            return ExchangeRefused(MALFORMED)
        authzid, authcid, password = words
        if authzid is None or not authcid or not password:  # authcid and passwd: 1*SAFE
            return ExchangeRefused(MALFORMED)
        return Password(authcid, password, authzid)


class Login:
    """LOGIN, as clients speak it: a name, then a password, each for a prompt; the name may come at once."""

    __slots__ = ("_name",)

    def __init__(self) -> None:
        self._name: str | None = None

    def begin(self, initial: bytes | None) -> Step:
        return Challenge(b"Username:") if initial is None else self.respond(initial)

    def respond(self, response: bytes) -> Step:
        # The draft's clients end each word with NUL.
        said = word(response.removesuffix(b"\0"))
        if not said:
            return ExchangeRefused(MALFORMED)
        if self._name is None:
            self._name = said
            return Challenge(b"Password:")
        return Password(self._name, said)


class External:
    """EXTERNAL, RFC 4422 §A.1: initial-response = [ UTF8 without NUL ], the authorization identity."""

    __slots__ = ()

    def begin(self, initial: bytes | None) -> Step:
        return Challenge(b"") if initial is None else self.respond(initial)

    def respond(self, response: bytes) -> Step:
        authzid = word(response)
        return ExchangeRefused(MALFORMED) if authzid is None else CertificateClaim(authzid)
