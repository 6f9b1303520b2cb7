"""Settings of delivery status notifications and of the log."""

from __future__ import annotations

import enum

import msgspec


class ReportOptions(msgspec.Struct, frozen=True):
    """How DSNs are made. Sizes in octets.

    `hostname`: the node's own name, the Reporting-MTA. `sender`: the mailbox in From, "" for MAILER-DAEMON at the
    host; `contact`: the mailbox that the text names for questions, "" for postmaster at the host. `postmaster`: who is
    told when a message without a return address fails, "" for nobody (RFC 3461 §5.2 asks to tell the postmaster).
    `full_max`: where the sender did not say what to return with a failure, the whole message up to this size, else
    its header section; `full_asked_max`: the same where RET=FULL asked for it. `header_max`: most of a header section
    that is returned; a longer one is cut at a line's end.
    """

    hostname: str = "localhost"
    sender: str = ""
    contact: str = ""
    postmaster: str = ""
    full_max: int = 65_536
    full_asked_max: int = 1_048_576
    header_max: int = 65_536


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
    """Where the log goes and how. `path`: a file, "" for standard error.

    Lines are written together after `flush_s`, or as soon as `batch_max` octets wait. Where they cannot be written
    (a stuck pipe, a full disk) at most `buffer_max` octets wait, what comes on top is dropped and counted, and the
    count is logged. `line_max`: longest line; the rest of a longer one is cut.
    """

    format: LogFormat = LogFormat.HUMAN
    level: LogLevel = LogLevel.INFO
    path: str = ""
    flush_s: float = 0.1
    batch_max: int = 65_536
    buffer_max: int = 1_048_576
    line_max: int = 65_536
