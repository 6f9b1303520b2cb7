"""The limits of one server session, each with its name, its default and the least that an RFC allows.

What always holds: whatever a peer sends, the machine holds at most `command_line_max` (or `auth_line_max`) octets of a
line, or `piece_size` octets and 8 KB of a line of content, besides the octets that the host fed at once. Not here: what
happens when a limit is exceeded (the code that obeys it), and limits in time (the host's).
"""

from __future__ import annotations

import enum
from typing import Annotated

import msgspec
from msgspec import Meta

from postroad.mail.message import HEADER_MAX


class StrayLineEnds(enum.Enum):
    """What becomes of a CR or LF in content that is not part of a CRLF. The end of data stays CRLF "." CRLF.

    Repaired, an LF becomes one CRLF together with all CRs in front of it, and a CR alone becomes a space.
    """

    REFUSE = "refuse"  # 550 5.5.2 at the end (RFC 5321 §2.3.8; what SMTP smuggling lives on)
    KNOWN = "known"  # repaired for clients that have authenticated or are of a trusted network, refused to others
    REPAIR = "repair"  # repaired for everyone


class ProtocolLimits(msgspec.Struct, frozen=True):
    """Sizes are octets. A value below its `ge` breaks an RFC's minimum: `config` refuses it."""

    command_line_max: Annotated[
        int,
        Meta(
            ge=1536,
            description="The longest command line with its CRLF. RFC 5321 §4.5.3.1.4 demands 512, and extensions add "
            "to this; for all that Postroad knows, the sum is below 1,536.",
        ),
    ] = 2_048
    auth_line_max: Annotated[
        int,
        Meta(ge=12_288, description="The longest line of an AUTH exchange with its CRLF (RFC 4954 §4.5)."),
    ] = 12_290
    text_line_max: Annotated[
        int,
        Meta(
            ge=1_000,
            description="The longest line of content with its CRLF. RFC 5321 §4.5.3.1.6 demands 1,000. Much software "
            "sends longer lines, and no buffer of Postroad depends on this limit. `outbound.line_max` "
            "says how long lines are sent on.",
        ),
    ] = 1_048_576
    size_max: Annotated[
        int,
        Meta(
            ge=65_536,
            description="The largest content of a message (RFC 5321 §4.5.3.1.7, RFC 1870). EHLO announces it as SIZE.",
        ),
    ] = 104_857_600
    header_size_max: Annotated[
        int,
        Meta(ge=65_536, le=HEADER_MAX, description="The largest header section of a message."),
    ] = HEADER_MAX
    header_fields_max: Annotated[int, Meta(ge=100, description="The most header fields of a message.")] = 1_000
    recipients_max: Annotated[
        int,
        Meta(ge=100, description="The most accepted recipients of one transaction (RFC 5321 §4.5.3.1.8)."),
    ] = 1_000
    transactions_max: Annotated[
        int,
        Meta(
            ge=0,
            le=999_999,
            description="The most transactions (MAIL) of one session. 0: no limit. The next one is answered 421 "
            "4.7.0. EHLO announces the limit as MAILMAX (RFC 9422).",
        ),
    ] = 0
    recipient_domains_max: Annotated[
        int,
        Meta(
            ge=0,
            le=999_999,
            description="The most domains that the accepted recipients of one session may have. 0: no limit. A "
            "recipient of one more domain is answered 452 4.5.3. EHLO announces the limit as "
            "RCPTDOMAINMAX (RFC 9422).",
        ),
    ] = 0
    path_max: Annotated[
        int,
        Meta(
            ge=256,
            description="The longest reverse-path or forward-path with its brackets (RFC 5321 §4.5.3.1.3). "
            "Local-parts longer than 64 octets are in use (VERP, SRS), so only the whole path has a "
            "limit.",
        ),
    ] = 512
    errors_max: Annotated[
        int,
        Meta(
            ge=1, description="Protocol errors allowed since the last accepted message. The next one ends the session."
        ),
    ] = 20
    idle_commands_max: Annotated[
        int,
        Meta(
            ge=10,
            description="Commands that carry no mail (NOOP, RSET, VRFY, EHLO, …) allowed since the last accepted "
            "message. The next one ends the session.",
        ),
    ] = 100
    commands_max: Annotated[
        int,
        Meta(
            ge=1_000,
            description="Commands of any kind allowed since the last accepted message, in addition to "
            "recipients_max. The next one ends the session. A BDAT of 64 octets or more does not count.",
        ),
    ] = 10_000
    swallow_max: Annotated[
        int,
        Meta(
            ge=1_048_576,
            description="The most octets that the node reads and throws away since the last accepted message, while "
            "it waits for the end of refused content or of an endless line. One more octet ends the "
            "session.",
        ),
    ] = 1_073_741_824
    piece_size: Annotated[
        int,
        Meta(
            ge=4_096,
            description="Content is passed on in pieces of at least this size; a smaller message is passed on as one "
            "piece.",
        ),
    ] = 65_536
    stray_line_ends: Annotated[
        StrayLineEnds,
        Meta(
            description="What happens to a bare CR or LF in content. `refuse`: the message is refused (550 5.5.2). "
            "`repair`: an LF, together with all CRs before it, becomes CRLF; a CR alone becomes a space. "
            "`known`: content from accounts and trusted networks is repaired, content from strangers is "
            "refused. With every value, content ends at CRLF . CRLF and nowhere else."
        ),
    ] = StrayLineEnds.KNOWN
    nul_refused: Annotated[
        bool,
        Meta(
            description="Whether NUL is refused in content that is not BINARYMIME (550 5.5.2; RFC 5322 §4 forbids it)."
        ),
    ] = True
    pipelining_strict: Annotated[
        bool,
        Meta(
            description="Whether the session ends (554 5.5.0) if a client sends on without waiting when RFC 2920 "
            "§3.1 demands that it waits: after EHLO, HELO, LHLO, AUTH and DATA, and in a session that "
            "began with HELO."
        ),
    ] = True
