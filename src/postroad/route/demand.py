"""Applies the parameters of a message to its destination: more TLS, or less, or no delivery at all. Pure.

RFC 8689 §4.2 (REQUIRETLS, TLS-Required) and RFC 7293 (RRVS). What always holds: mail that requires TLS shares no
connection with other mail, because its key is another; equal keys still mean equal destinations. A header field of the
sender may relax the demand of the recipient's domain (DANE and MTA-STS, too) or of `routing.tls`. It never relaxes the
demand of a next hop that the operator has named, nor of one that gets our password.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Final

import msgspec

from postroad.mail import wishes
from postroad.mail.attempt import Attempt, Outcome, Reach
from postroad.mail.envelope import Envelope, Recipient
from postroad.mail.owned import Owned
from postroad.mail.route import REQUIRE_TLS, TLS_OPTIONAL, Destination, TlsDemand, Transport

_NEVER_RELAXED: Final = (TlsDemand.NONE, TlsDemand.MAY, TlsDemand.IMPLICIT)
# What has proofs of its own, which count for mail that requires TLS, too.
PROVING: Final = (
    TlsDemand.IMPLICIT, TlsDemand.DANE, TlsDemand.DANE_ONLY, TlsDemand.STS, TlsDemand.FINGERPRINT,
)  # fmt: skip
CHANGED: Final = "the mailbox has another owner than at the time that the sender named (RRVS)"


def refined(
    envelope: Envelope, recipient: Recipient, destination: Destination, owned: Owned | None
) -> Destination | Attempt:
    """The destination as this message needs it, or why it must not go there. `owned`: what is known of the owner of a
    mailbox of ours, None for others."""
    if owned is not None and recipient.parameters:
        asked = wishes.valid_since(recipient)
        status = "" if asked is None else owned.refusal(asked.since_us)
        if status:
            return Attempt(Outcome.FAILED, Reach.RECIPIENT, status, CHANGED, transport=destination.transport.value)
    if destination.transport is Transport.SMTP:
        if wishes.requires_tls(envelope):
            return _secured(destination)
        if wishes.tls_optional(envelope):
            return _relaxed(destination)
    return destination


@lru_cache(maxsize=4096)
def _secured(destination: Destination) -> Destination:
    tls = destination.tls if destination.tls in PROVING else TlsDemand.VERIFY
    return msgspec.structs.replace(destination, key=destination.key + REQUIRE_TLS, tls=tls, require_tls=True)


@lru_cache(maxsize=4096)
def _relaxed(destination: Destination) -> Destination:
    if destination.tls in _NEVER_RELAXED or destination.host or destination.servers or destination.credentials:
        return destination
    return msgspec.structs.replace(destination, key=destination.key + TLS_OPTIONAL, tls=TlsDemand.MAY)
