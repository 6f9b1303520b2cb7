"""What this node found of a mail with a report when it came: whether its author is who it says.

It is read from the Authentication-Results that this node wrote on top of the mail. Fields of others are not believed:
only those above the first Received count, and only with a name of this node. RFC 9990 §3.5 wants reports to pass DMARC;
RFC 8460 §3 has readers ignore a TLS report without a valid signature of the reporting domain.
"""

from __future__ import annotations

from typing import Final

import msgspec

from postroad.mail.address import is_within
from postroad.mail.message import raw_fields
from postroad.trust import authres_reading

_RECEIVED: Final = b"received"


class Standing(msgspec.Struct, frozen=True):
    """`is_checked`: this node looked at the mail's signatures. `has_passed`: DMARC passed for the author, or a
    signature of the author's domain is valid. `is_signed`: a signature of the reporting domain is valid."""

    is_checked: bool = False
    has_passed: bool = False
    is_signed: bool = False


def standing(section: bytes, author: str, submitter: str, authserv_ids: tuple[str, ...]) -> Standing:
    """`section`: the header section of the mail. `author`: the domain of its From; `submitter`: that which its
    TLS-Report-Submitter names, "" for none."""
    readings = authres_reading.trusted(_above_received(section), authserv_ids)
    if not readings:
        return Standing()
    results = [each for reading in readings for each in reading.results]
    signers = [_property(each.properties, "header", "d") for each in results
               if each.method == "dkim" and each.result == "pass"]
    by_author = any(_belongs(signer, author) for signer in signers)
    has_dmarc = any(each.method == "dmarc" and each.result == "pass" for each in results)
    is_checked = any(each.method in ("dkim", "dmarc") for each in results)
    is_signed = by_author or any(_belongs(signer, submitter) for signer in signers)
    return Standing(is_checked, has_dmarc or by_author, is_signed)


def _above_received(section: bytes) -> bytes:
    for name, begins, _, _ in raw_fields(section):
        if name == _RECEIVED:
            return section[:begins]
    return b""  # no Received: it did not come by us


def _property(properties: tuple[tuple[str, str, str], ...], ptype: str, name: str) -> str:
    return next((value.lower().rstrip(".") for kind, key, value in properties if (kind, key) == (ptype, name)), "")


def _belongs(signer: str, domain: str) -> bool:
    """Whether one is the other, or below it. A name of one label belongs to nobody."""
    if "." not in signer or "." not in domain:
        return False
    return is_within(signer, domain) or is_within(domain, signer)
