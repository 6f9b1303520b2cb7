"""Settings of OpenDKIM (opendkim.conf) that people write into our configuration, and what stands in their place here.

The table in docs/signing.md says the same at greater length.
"""

from __future__ import annotations

from typing import Final

_IN_DKIM: Final = {
    "KeyTable": "key_table under [dkim]",
    "SigningTable": "signing_table under [dkim]",
    "MultipleSignatures": "all_matches under [dkim]",
    "Domain": "domain of a [[dkim.key]]",
    "Selector": "selector of a [[dkim.key]]",
    "KeyFile": "file of a [[dkim.key]]",
    "SubDomains": "parent_domains under [dkim]",
    "InternalHosts": "origins under [dkim], and trusted_networks of a [[listener]]",
    "Mode": "sign under [dkim], and dkim of a [[listener]] for verification",
    "Canonicalization": "header_canonicalization and body_canonicalization under [dkim]",
    "SignHeaders": "signed_fields under [dkim]",
    "OmitHeaders": "signed_fields under [dkim]",
    "OversignHeaders": "oversigned_fields under [dkim]",
    "SignatureTTL": "lifetime_s under [dkim]",
    "AuthservID": "authserv_id under [checks]",
    "ExternalIgnoreList": "exempt_networks under [checks]",
    "PeerList": "exempt_networks under [checks]",
    "ExemptDomains": "exempt_domains under [checks]",
    "MaximumSignaturesToVerify": "signatures_max under [checks]",
    "DNSTimeout": "waiting_max_s under [checks]",
    "ClockDrift": "clock_skew_s under [checks]",
}


def ours(name: str) -> str:
    """The advice for a setting of OpenDKIM; "" if `name` is none that is known here."""
    return f"This is a setting of OpenDKIM. In Postroad it is {_IN_DKIM[name]}" if name in _IN_DKIM else ""


def named() -> tuple[tuple[str, str], ...]:
    """Each known setting with ours, for tests."""
    return tuple(_IN_DKIM.items())
