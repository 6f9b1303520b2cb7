"""The table of the mechanisms that we serve ourselves, the strongest first, and how to begin an exchange of each.

Clients are told the mechanisms in this order. By RFC 4422 §3.2 the order means nothing, but some clients take the first
that they know.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import msgspec

from postroad.protocol.sasl.bearer import Bearer
from postroad.protocol.sasl.plain import External, Login, Plain
from postroad.protocol.sasl.scram import Binding, Scram
from postroad.protocol.sasl.step import Hash, Mechanism


class ExchangeContext(msgspec.Struct, frozen=True):
    """What an exchange may need of its session. `nonce`: new each time (SCRAM). `offered`: the mechanisms that the
    client could choose from. `scope`: see `Bearer`."""

    nonce: str
    binding: Binding
    offered: tuple[str, ...] = ()
    scope: str = ""


def _scram(hash: Hash, *, plus: bool) -> Callable[[ExchangeContext], Mechanism]:
    name = f"SCRAM-{hash.value}-PLUS"
    return lambda around: Scram(
        hash, around.nonce, around.binding, plus=plus, plus_offered=name in around.offered
    )


MECHANISMS: Final[dict[str, Callable[[ExchangeContext], Mechanism]]] = {
    "EXTERNAL": lambda around: External(),
    "SCRAM-SHA-256-PLUS": _scram(Hash.SHA_256, plus=True),
    "SCRAM-SHA-1-PLUS": _scram(Hash.SHA_1, plus=True),
    "SCRAM-SHA-256": _scram(Hash.SHA_256, plus=False),
    "SCRAM-SHA-1": _scram(Hash.SHA_1, plus=False),
    "OAUTHBEARER": lambda around: Bearer(xoauth2=False, scope=around.scope),
    "XOAUTH2": lambda around: Bearer(xoauth2=True, scope=around.scope),
    "PLAIN": lambda around: Plain(),
    "LOGIN": lambda around: Login(),
}
"""By the name that AUTH gives, in capitals."""

HASHES: Final[dict[str, Hash]] = {
    name: hash for name in MECHANISMS for hash in Hash if name in (f"SCRAM-{hash.value}", f"SCRAM-{hash.value}-PLUS")
}
"""The hash of each SCRAM mechanism."""
