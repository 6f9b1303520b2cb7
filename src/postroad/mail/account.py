"""Compares names of accounts: addresses without regard to case (RFC 5321 §2.4 leaves this to us).

What always holds: two ways to write one address mean one account, everywhere: at log-in, as the owner of senders, for
bans, in log and history. A name that is no address is compared as it is written (RFC 8265).
"""

from __future__ import annotations

import unicodedata
from functools import lru_cache

from postroad.mail.address import canonical_domain


@lru_cache(maxsize=4096)
def canonical_account(name: str) -> str:
    """The name as it is compared: of an address the local-part in lower case, the domain in A-labels."""
    local_part, _, domain = name.rpartition("@")
    if not local_part:
        return name
    try:
        domain = canonical_domain(domain)
    except ValueError:
        return name
    return f"{unicodedata.normalize('NFC', local_part).lower()}@{domain}"
