"""What SPF, DKIM, DMARC, ARC and iprev found about one message, and what was done with it. Pure values.

The fields of the message, log, history, `trace` and reports all read these values. What is in them comes partly from
strangers (domains, selectors, texts of records): who writes it into a field or shows it escapes it.
"""

from __future__ import annotations

from typing import Final

import msgspec

PropertyValue = tuple[str, str, str]
"""ptype, property and value: ("smtp", "mailfrom", "example.org") is written `smtp.mailfrom=example.org`."""

RECORD_MAX: Final = 2_000  # characters of a DMARC record that the history keeps

# What was done with a message, in the words of DMARC reports (RFC 9990 §3.1.1.10).
NONE: Final = "none"
QUARANTINE: Final = "quarantine"
REJECT: Final = "reject"

# Why it was not done what the policy asks for (RFC 9990 §3.1.1.11).
LOCAL_POLICY: Final = "local_policy"
TRUSTED_FORWARDER: Final = "trusted_forwarder"
TEST_MODE: Final = "policy_test_mode"


class Found(msgspec.Struct, frozen=True, array_like=True):
    """What one check found, in the terms of Authentication-Results (RFC 8601 §2.2, §2.7).

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


class DmarcFacts(msgspec.Struct, frozen=True, array_like=True):
    """What DMARC found for one author domain (RFC 9989 §5.3).

    `policy_domain`: where the record was found; "": nowhere. `record`: its text, the first RECORD_MAX characters.
    `organizational`: of the author domain; "": it was not needed. `tag`: which of p, sp and np applies; `asked`: its
    value; `applied`: what is to be done, after t= and only if the result is fail.
    """

    author: str
    result: str
    policy_domain: str = ""
    organizational: str = ""
    record: str = ""
    tag: str = ""
    asked: str = NONE
    applied: str = NONE
    spf_aligned: bool = False
    dkim_aligned: bool = False


class Evaluation(msgspec.Struct, frozen=True, array_like=True):
    """All that was found about one message.

    `client`: the IP address that the message came from; `hello`: its EHLO argument; `sender_domain`: of the
    reverse-path, "" for the null reverse-path. `found`: each check, also those that are not marked. `dmarc`: one for
    each author domain, the decisive one first; empty if DMARC was not looked at. `disposition`: what was done with the
    message; `override`: why this is not what the policy asks for, a word of RFC 9990, "" if it is; `comment`: the same
    in plain words. `believed`: whose Authentication-Results took the place of checks of ours, "" for nobody's.
    `queries`: DNS queries that the message has cost.
    """

    client: str
    hello: str = ""
    sender_domain: str = ""
    found: tuple[Found, ...] = ()
    dmarc: tuple[DmarcFacts, ...] = ()
    disposition: str = NONE
    override: str = ""
    comment: str = ""
    believed: str = ""
    queries: int = 0


class JudgedMessage(msgspec.Struct, frozen=True):
    """A message that DMARC has judged, for who tells the domains of it at once (RFC 9991). `header`: its header
    section. `sender`: the reverse-path as text, "" for <>."""

    at_us: int
    evaluation: Evaluation
    header: bytes
    sender: str = ""


def fails_somewhere(evaluation: Evaluation) -> bool:
    """Whether DMARC failed for an author domain, or one of its two methods brought no aligned identifier."""
    return any(not (each.spf_aligned and each.dkim_aligned) for each in evaluation.dmarc)
