"""What one check found, in the terms of Authentication-Results (RFC 8601 §2.2, §2.7). Pure values.

The fields of the message, traces, reports and rules all read this one value. What is in it comes partly from strangers
(domains, selectors, texts of records): whoever writes it into a field or shows it escapes it (`authres.written`).
"""

from __future__ import annotations

from typing import Final

import msgspec

PropertyValue = tuple[str, str, str]
"""ptype, property and value: ("smtp", "mailfrom", "example.org") is written `smtp.mailfrom=example.org`."""

# The methods (RFC 8601 §2.7, RFC 8617 §8).
SPF: Final = "spf"
DKIM: Final = "dkim"
DMARC: Final = "dmarc"
ARC: Final = "arc"
IPREV: Final = "iprev"
AUTH: Final = "auth"

# The results that more than one method has. Those of one method alone stand with it.
NONE: Final = "none"
PASS: Final = "pass"
FAIL: Final = "fail"
NEUTRAL: Final = "neutral"
POLICY: Final = "policy"
SOFTFAIL: Final = "softfail"
TEMPERROR: Final = "temperror"
PERMERROR: Final = "permerror"


class Found(msgspec.Struct, frozen=True):
    """What one check found.

    `method`, `result`: as RFC 8601 names them. `reason`: a few words that stand in the field; "": none. `properties`:
    what was checked, in the order in which the field has it. `told`: the whole of it in plain words, for traces and
    operators; it names the domain and what decided.
    """

    method: str
    result: str
    reason: str = ""
    properties: tuple[PropertyValue, ...] = ()
    told: str = ""

    def value(self, ptype: str, name: str) -> str:
        """The first value of this property; "": there is none."""
        for each_ptype, each_name, value in self.properties:
            if each_ptype == ptype and each_name == name:
                return value
        return ""
