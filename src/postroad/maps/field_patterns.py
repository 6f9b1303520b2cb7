"""Rules for header fields as they stand in the configuration: names, patterns, new texts (`mail.field_rules`).

    remove    User-Agent    or    /^Received: .*with ESMTPSA/
    change    /^User-Agent: (.*)/ X-Agent: $1
    add       Reply-To: help@example.org

Patterns are those of pcre_table(5), as `maps.patterns` reads them, but only such as RE2 can match, so that no field can
take long: no back-references, no look-around. They are matched with the whole field, "Name: value".
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import lru_cache
from typing import Final

from postroad.mail.field_rules import FieldRules
from postroad.mail.message import FIELD_NAME_MAX, LINE_MAX
from postroad.maps.patterns import PatternDialect, PatternRule, one_rule, substituted

_NAME: Final = re.compile(rf"(?![!/])[!-9;-~]{{1,{FIELD_NAME_MAX}}}")  # "/" and "!" begin a pattern
_ADDED: Final = re.compile(rf"([!-9;-~]{{1,{FIELD_NAME_MAX}}}):[ \t]*([^\r\n\0]*[^\s\0])")


def wrong_removal(written: str) -> str:
    """What is wrong with an entry of fields that go; "" if nothing is."""
    if _NAME.fullmatch(written):
        return ""
    if not written.startswith(("/", "!")):
        return "it is neither the name of a header field, without a colon, nor a pattern between slashes"
    found = _rule(written)
    if isinstance(found, str):
        return found
    return "there is text after the pattern" if found.value else ""


def wrong_change(written: str) -> str:
    """The same of fields that change."""
    found = _rule(written)
    if isinstance(found, str):
        return found
    if found.negated:
        return "a negated pattern cannot change a field"
    return "" if found.value else "there is no new text after the pattern"


def wrong_addition(written: str) -> str:
    """The same of fields that come."""
    found = _ADDED.fullmatch(written)
    if found is None:
        return 'it is not a header field, "Name: value"'
    return "" if len(written.encode()) <= LINE_MAX else f"it has more than {LINE_MAX} octets"


def rules(remove: Sequence[str], change: Sequence[str], add: Sequence[str]) -> FieldRules | None:
    """The rules of entries with which nothing is wrong; None for none."""
    if not (remove or change or add):
        return None
    names = frozenset(each.lower().encode() for each in remove if _NAME.fullmatch(each))
    removed = [_rule(each) for each in remove if not _NAME.fullmatch(each)]
    changed = [_rule(each) for each in change]
    added = [(each.partition(":")[0].lower().encode(), each.encode() + b"\r\n") for each in add]
    return FieldRules(
        names,
        tuple([Matching(rule) for rule in removed if isinstance(rule, PatternRule)]),
        tuple([Changing(rule) for rule in changed if isinstance(rule, PatternRule)]),
        tuple(added),
    )


@lru_cache(maxsize=1_000)
def _rule(written: str) -> PatternRule | str:
    found = one_rule(written, PatternDialect.PCRE)
    if isinstance(found, PatternRule) and found.limited:
        return "the pattern has what cannot be matched in linear time (a back-reference, look-around or the flag x)"
    return found


class Matching:
    """Whether a pattern fits."""

    def __init__(self, rule: PatternRule) -> None:
        self._rule = rule

    def __call__(self, text: str) -> bool:
        return (self._rule.pattern.search(text) is not None) is not self._rule.negated


class Changing:
    """The new text, if a pattern fits."""

    def __init__(self, rule: PatternRule) -> None:
        self._rule = rule

    def __call__(self, text: str) -> str | None:
        return substituted(self._rule, text)
