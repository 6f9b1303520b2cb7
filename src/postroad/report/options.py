"""Settings of delivery status notifications and of the log."""

from __future__ import annotations

import enum
from typing import Annotated

import msgspec
from msgspec import Meta


class ReportOptions(msgspec.Struct, frozen=True):
    """How DSNs are made. `hostname`: the node's own name, the Reporting-MTA. `postmaster`: who gets a report if a
    message without a return address fails, "" for nobody (RFC 3461 §5.2 asks for the postmaster)."""

    hostname: str = "localhost"
    sender: Annotated[
        str,
        Meta(
            description='The From address of reports. "": MAILER-DAEMON at `hostname`.',
        ),
    ] = ""
    contact: Annotated[
        str,
        Meta(
            description='The mailbox that the text of a report names for questions. "": postmaster at `hostname`.',
        ),
    ] = ""
    postmaster: str = ""
    full_max: Annotated[
        int,
        Meta(
            ge=0,
            description="A failed message up to this size is returned whole. Of a larger message only the header "
            "section is returned.",
        ),
    ] = 65_536
    full_asked_max: Annotated[
        int,
        Meta(
            ge=0,
            description="The same limit if the sender asked for the whole message.",
        ),
    ] = 1_048_576
    header_max: Annotated[
        int,
        Meta(
            ge=1024,
            description="The largest part of a header section that is returned.",
        ),
    ] = 65_536


class LogFormat(enum.Enum):
    HUMAN = "human"
    JSON = "json"


class LogLevel(enum.Enum):
    """How much a line matters; only lines of the set level and above are written."""

    DEBUG = "debug"
    INFO = "info"
    WARNING = "warning"
    ERROR = "error"


class LogOptions(msgspec.Struct, frozen=True):
    """Where the log goes and how. When lines are dropped, their number is logged."""

    format: Annotated[
        LogFormat,
        Meta(
            description="`human`: for people. `json`: one object in each line.",
        ),
    ] = LogFormat.HUMAN
    level: Annotated[LogLevel, Meta(description="The lowest level that is written.")] = LogLevel.INFO
    path: Annotated[
        str,
        Meta(
            description="The log file. Unset: standard error. The file is opened again on SIGHUP.",
        ),
    ] = ""
    flush_s: Annotated[float, Meta(ge=0, description="The longest time that lines wait to be written together.")] = 0.1
    batch_max: Annotated[int, Meta(ge=1024, description="Lines are written at once when this much waits.")] = 65_536
    buffer_max: Annotated[
        int,
        Meta(
            ge=65_536,
            description="The most that may wait if the log cannot be written. Further lines are dropped and counted.",
        ),
    ] = 1_048_576
    line_max: Annotated[
        int,
        Meta(
            ge=1024,
            description="The longest line. The rest of a longer line is cut off.",
        ),
    ] = 65_536
