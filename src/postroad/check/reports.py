"""Limits how many reports go to strangers within a time, to one address and from the whole node.

A client that forges a sender can make a node send reports to a victim. So reports about mail of clients that are
neither trusted nor authenticated are counted (`check.tally`: over all workers). Beyond the limits no report is made,
and the history says so for each recipient. Addresses that differ only in case or extension count as one. Reports to
accounts and trusted networks are not counted: nothing of theirs is ever lost without a word. What always holds: a limit
of 0 means no limit. Not here: making reports (`report.dsn`).
"""

from __future__ import annotations

import unicodedata
from typing import Annotated, Final

import msgspec
from msgspec import Meta

from postroad.check.tally import REPORTS, Tally
from postroad.mail.address import Address

WINDOW: Final = 2  # of the tally
_DELIMITER: Final = "+"
_ADDRESS_MAX: Final = 320  # characters of an address that a key holds


class ReportLimits(msgspec.Struct, frozen=True):
    """How many reports on mail of strangers are made."""

    strangers_rate_s: Annotated[
        float,
        Meta(
            ge=1,
            description="The time span for which the two limits below count reports on mail of strangers. Strangers "
            "are clients that are neither trusted nor authenticated; their sender address may be forged. "
            "When a limit is reached, no report is made; the log and `postroad trace` say so.",
        ),
    ] = 3600.0
    strangers_address_max: Annotated[
        int,
        Meta(
            ge=0,
            description="The most such reports to one address within `strangers_rate_s`. 0: no limit.",
        ),
    ] = 20
    strangers_max: Annotated[
        int,
        Meta(
            ge=0,
            description="The most such reports of the whole node within `strangers_rate_s`. 0: no limit.",
        ),
    ] = 1000


class ReportRates:
    """Counts the reports of one worker."""

    def __init__(self, limits: ReportLimits, tally: Tally) -> None:
        self.limits = limits
        self._tally = tally

    def take(self, limits: ReportLimits) -> None:
        """Settings."""
        self.limits = limits

    def refusal(self, to: Address, now_us: int) -> str:
        """Count one more report to a stranger; why it is one too many, "" if it is not."""
        limits = self.limits
        key = REPORTS + _owner(to)[:_ADDRESS_MAX]
        if limits.strangers_address_max and self._tally.count(WINDOW, key, now_us) > limits.strangers_address_max:
            return self._text(limits.strangers_address_max, "reports to this address")
        if limits.strangers_max and self._tally.count(WINDOW, REPORTS, now_us) > limits.strangers_max:
            return self._text(limits.strangers_max, "reports to strangers")
        return ""

    def _text(self, most: int, what: str) -> str:
        return f"more than {most} {what} within {self.limits.strangers_rate_s:g} s, and the sender may be forged"


def _owner(to: Address) -> str:
    """Whose address it is, as far as can be told from here: elsewhere "+" begins an extension nearly everywhere."""
    local_part = unicodedata.normalize("NFC", to.local_part).lower()
    at = local_part.find(_DELIMITER, 1)
    return f"{local_part[:at] if at > 0 else local_part}@{to.domain}"


def limit_of(key: str, limits: ReportLimits) -> int:
    """The limit of a key of the tally that counts reports."""
    return limits.strangers_address_max if key != REPORTS else limits.strangers_max
