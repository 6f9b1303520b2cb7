"""The words of what checks find, in the terms of Authentication-Results (RFC 8601 §2.2, §2.7).

`mail.evaluation.Found` is the value that they stand in.
"""

from __future__ import annotations

from typing import Final

from postroad.mail.evaluation import Found as Found
from postroad.mail.evaluation import PropertyValue as PropertyValue

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
