"""How much of a stranger's report is read."""

from __future__ import annotations

from typing import Annotated, Final

import msgspec
from msgspec import Meta

from postroad.protocol.mime import MimeLimits


class InboundLimits(msgspec.Struct, frozen=True):
    """Limits for one mail with reports."""

    size_max: Annotated[
        int,
        Meta(
            ge=65_536,
            le=268_435_456,
            description="The largest mail in which reports are looked for. A larger mail goes on to its mailbox "
            "unread.",
        ),
    ] = 33_554_432
    expanded_max: Annotated[
        int,
        Meta(
            ge=1_048_576,
            le=1_073_741_824,
            description="The most octets into which the archives of one mail may expand, all together.",
        ),
    ] = 67_108_864
    records_max: Annotated[
        int,
        Meta(
            ge=100,
            le=10_000_000,
            description="The most records that one report may have: rows of a DMARC report, policies and failures of "
            "a TLS report.",
        ),
    ] = 100_000


DEFAULT_LIMITS: Final = InboundLimits()
MIME: Final = MimeLimits(depth_max=20, parts_max=500, lines_max=1_000_000)
REPORTS_MAX: Final = 50  # of one mail
PROBLEMS_MAX: Final = 10  # that are told of one report or mail


class UnreadableReport(Exception):
    """A report cannot be read; the text says why."""
