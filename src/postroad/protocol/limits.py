"""The limits of one server session, each with its name, its default and the least that an RFC allows.

What always holds: nothing that a peer sends makes the machine hold more than `command_line_max` (or `auth_line_max`)
of a line, or `piece_size` with 8 KB of a line of content, beside what the host fed to it at once. Numbers only: what
happens when one is broken stands at the code that obeys it. Limits in time are the host's.
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


class Limits(msgspec.Struct, frozen=True):
    """Sizes are octets. A value below its `ge` breaks an RFC's minimum: `config` refuses it."""

    command_line_max: Annotated[
        int,
        Meta(ge=1536, description="A command line with its CRLF. RFC 5321 §4.5.3.1.4 demands 512, and the extensions"
             " add to it; the sum for all that Postroad knows is below 1,536."),
    ] = 2_048
    auth_line_max: Annotated[
        int, Meta(ge=12_288, description="A line of an AUTH exchange with its CRLF (RFC 4954 §4.5)."),
    ] = 12_290
    text_line_max: Annotated[
        int,
        Meta(ge=1_000, description="A line of content with its CRLF, RFC 5321 §4.5.3.1.6 demands 1,000. Much software"
             " sends longer ones, and no buffer of ours depends on it. How they go on: `outbound.line_max`."),
    ] = 1_048_576
    size_max: Annotated[
        int,
        Meta(ge=65_536, description="The content of a message (RFC 5321 §4.5.3.1.7, RFC 1870); announced as SIZE."),
    ] = 104_857_600
    header_size_max: Annotated[
        int, Meta(ge=65_536, le=HEADER_MAX, description="The header section of a message."),
    ] = HEADER_MAX
    header_fields_max: Annotated[int, Meta(ge=100, description="Header fields of a message.")] = 1_000
    recipients_max: Annotated[
        int, Meta(ge=100, description="Accepted recipients of one transaction (RFC 5321 §4.5.3.1.8)."),
    ] = 1_000
    transactions_max: Annotated[
        int,
        Meta(ge=0, le=999_999, description="Transactions (MAIL) of one session, 0 for any number; the next one is"
             " answered 421 4.7.0. Announced as MAILMAX (RFC 9422)."),
    ] = 0
    recipient_domains_max: Annotated[
        int,
        Meta(ge=0, le=999_999, description="Domains of the accepted recipients of one session, 0 for any number; a"
             " recipient of one more gets 452 4.5.3. Announced as RCPTDOMAINMAX (RFC 9422)."),
    ] = 0
    path_max: Annotated[
        int,
        Meta(ge=256, description="A reverse-path or forward-path with its brackets (RFC 5321 §4.5.3.1.3). Local-parts"
             " longer than 64 octets are in use (VERP, SRS), so only the whole is bounded."),
    ] = 512
    errors_max: Annotated[
        int,
        Meta(ge=1, description="Errors of protocol since the last accepted message; the next one ends the session."),
    ] = 20
    idle_commands_max: Annotated[
        int, Meta(ge=10, description="Commands that carry no mail (NOOP, RSET, VRFY, EHLO, …) since the last accepted"
                  " message; the next one ends the session."),
    ] = 100
    commands_max: Annotated[
        int, Meta(ge=1_000, description="Commands of any kind since the last accepted message, beyond recipients_max;"
                  " the next one ends the session. A BDAT of 64 octets or more does not count."),
    ] = 10_000
    swallow_max: Annotated[
        int, Meta(ge=1_048_576, description="Octets that are thrown away since the last accepted message, while the"
                  " end of refused content or of an endless line is looked for; then the session ends."),
    ] = 1_073_741_824
    piece_size: Annotated[
        int,
        Meta(ge=4_096, description="Content is handed on in pieces of this size or more; smaller messages as one."),
    ] = 65_536
    stray_line_ends: Annotated[
        StrayLineEnds, Meta(description="A bare CR or LF in content. `refuse`: 550 5.5.2. `repair`: an LF becomes CRLF,"
                            " together with all CRs in front of it; a CR alone becomes a space. `known`: repaired for"
                            " accounts and trusted networks, refused to strangers. Whatever it says, content ends at"
                            " CRLF . CRLF and nowhere else."),
    ] = StrayLineEnds.KNOWN
    nul_refused: Annotated[
        bool, Meta(description="Refuse NUL in content that is not BINARYMIME (550 5.5.2; RFC 5322 §4 forbids it)."),
    ] = True
    pipelining_strict: Annotated[
        bool, Meta(description="End the session (554 5.5.0) when a client sends on without waiting where RFC 2920 §3.1"
                   " demands that it waits: behind EHLO, HELO, LHLO, AUTH and DATA, and in a session begun with HELO."),
    ] = True
