"""Seals a message with an ARC set (RFC 8617 §5.1). Pure: the time is handed in, and what was found of the message.

What always holds: the three fields of a set are made together, and stand on top of the message in the order seal,
signature, results. A chain that fails is sealed as failed once, and never again (§5.1.2, step 2 of §5.1); one with
SETS_MAX sets is not sealed. One key signs: a set has one algorithm (§4.2.1), and most validators know RSA alone.
"""

from __future__ import annotations

import base64
import hashlib
from typing import Final

from postroad.trust import results
from postroad.trust.arc import SEAL_NAME, SETS_MAX, SIGNATURE_NAME, ArcResult, seal_lines
from postroad.trust.dkim_body import BodyForm, Canonicalization
from postroad.trust.dkim_head import SignedHead, canonical
from postroad.trust.dkim_sign import (
    SigningKey,
    SigningOptions,
    folded_data,
    folded_names,
    sign_digest,
    signed_names,
    taken_names,
)

_RELAXED: Final = Canonicalization.RELAXED
# These must not be signed (RFC 8617 §4.1.2): they are taken away on the way, or belong to the chain.
_NEVER: Final = (b"authentication-results", b"arc-authentication-results", SIGNATURE_NAME, SEAL_NAME)


class ArcSealer:
    """Seals with one key."""

    __slots__ = ("_names", "form", "key")

    def __init__(self, key: SigningKey, options: SigningOptions) -> None:
        self.form = BodyForm(options.body)
        self.key = key
        names = {**signed_names(options), b"dkim-signature": 0}
        self._names = {name: more for name, more in names.items() if name not in _NEVER}

    def seal(self, section: bytes, body_hash: bytes, payload: bytes, chain: ArcResult, now_s: int) -> bytes:
        """The fields to put on top, each with its CRLF; nothing if this chain cannot be sealed.

        `section`: the header section as it leaves, with all its fields. `body_hash`: the digest of the body in `form`.
        `payload`: what stands in our Authentication-Results, from the authserv-id on. `chain`: what was found when the
        message came.
        """
        instance = chain.instances + 1
        if chain.sealed_as_failed or instance > SETS_MAX:
            return b""
        found = b"ARC-Authentication-Results: i=%d; %s" % (instance, payload.strip())
        signature = self._signature(section, body_hash, instance, now_s)
        before = seal_lines(chain.sets) if chain.result == results.PASS else b""
        seal = b"ARC-Seal: i=%d; a=%s; t=%d; cv=%s;\r\n d=%s; s=%s;\r\n b=" % (
            instance,
            self._algorithm,
            now_s,
            chain.result.encode(),
            self.key.domain.encode(),
            self.key.selector.encode(),
        )
        lines = [canonical(each, _RELAXED) for each in (found, signature, seal)]
        seal += folded_data(sign_digest(self.key, hashlib.sha256(before + b"\r\n".join(lines)).digest()))
        return b"".join([each + b"\r\n" for each in (seal, signature, found)])

    @property
    def _algorithm(self) -> bytes:
        return f"{self.key.kind.value}-sha256".encode()

    def _signature(self, section: bytes, body_hash: bytes, instance: int, now_s: int) -> bytes:
        head = SignedHead(section)
        names = taken_names(head, self._names, _RELAXED)
        field = (
            b"ARC-Message-Signature: i=%d; a=%s; c=relaxed/%s;\r\n d=%s; s=%s; t=%d;\r\n h=%s;\r\n bh=%s;\r\n b="
            % (
                instance,
                self._algorithm,
                self.form.canonicalization.value.encode(),
                self.key.domain.encode(),
                self.key.selector.encode(),
                now_s,
                folded_names(names),
                base64.b64encode(body_hash),
            )
        )
        data = b"\r\n".join([*head.taken(names, _RELAXED), canonical(field, _RELAXED)])
        return field + folded_data(sign_digest(self.key, hashlib.sha256(data).digest()))
