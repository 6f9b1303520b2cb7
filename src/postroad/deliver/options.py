"""The settings of the sending side: each limit of promise 5 that concerns delivery has its name here."""

from __future__ import annotations

from typing import Final

import msgspec

from postroad.mail.message import LINE_MAX
from postroad.protocol.seven_bit import EightBit

# What may stand in braces: in the path of a Maildir, and as an argument of a command.
PATH_PLACEHOLDERS: Final = ("domain", "local_part")
COMMAND_PLACEHOLDERS: Final = ("recipient", "local_part", "domain", "sender")


class MaildirOptions(msgspec.Struct, frozen=True):
    """`fold_case`: the local-part names its folder in lower case. `detail_delimiter`: what stands behind the first of
    these in a local-part is an address extension and not part of the folder's name (``ada+lists``); "" for none.
    `make_folders`: folders that are missing are made; else the mail waits for them (a file system not mounted)."""

    fold_case: bool = True
    detail_delimiter: str = "+"
    make_folders: bool = True


class ProgramOptions(msgspec.Struct, frozen=True):
    """`time_s`: how long a program may take. `output_max`: octets of its output that are kept for the diagnostic.
    `path`: PATH of its environment. `return_path`: put Return-Path on top (RFC 5321 §4.4: final delivery)."""

    time_s: float = 1000.0
    output_max: int = 2048
    directory: str = "/"
    path: str = "/usr/local/bin:/usr/bin:/bin"
    return_path: bool = True


class DeliverOptions(msgspec.Struct, frozen=True):
    """Times in seconds, sizes in octets.

    The time limits from `greeting_s` to `data_termination_s` are those of RFC 5321 §4.5.3.2, whose values are minima.
    `transaction_s` bounds one transaction as a whole, for remotes that answer each command just in time. `idle_s`,
    `age_s`, `messages_max`: how long a connection is kept without work, in all, and for how many transactions.
    `hops_max`: hosts and addresses tried to open one connection (RFC 5321 §5.1: at least two). `hop_memory_s`: how long
    a hop that could not be reached is tried after all others. `tls_memory_s`: how long a hop whose TLS failed is spoken
    to in plaintext at once, where the demand allows that. `eight_bit`: what becomes of 8-bit mail where the server does
    not offer 8BITMIME, and of binary mail without BINARYMIME. `line_max`: octets of a line, without its CRLF, that is
    sent by SMTP; longer ones are broken, 0 for never. `bdat_memory_s`: how long
    one that refused BDAT gets DATA.
    """

    connect_s: float = 30.0
    handshake_s: float = 60.0
    greeting_s: float = 300.0
    hello_s: float = 300.0
    starttls_s: float = 300.0
    auth_s: float = 300.0
    reset_s: float = 300.0
    mail_s: float = 300.0
    rcpt_s: float = 300.0
    data_initiation_s: float = 120.0
    data_block_s: float = 180.0
    data_termination_s: float = 600.0
    transaction_s: float = 7200.0
    quit_s: float = 5.0
    idle_s: float = 30.0
    age_s: float = 600.0
    messages_max: int = 1000
    hops_max: int = 5
    hop_memory_s: float = 60.0
    tls_memory_s: float = 3600.0
    bdat_memory_s: float = 86_400.0
    source_ipv4: str = ""
    source_ipv6: str = ""
    reply_line_max: int = 4096
    reply_lines_max: int = 128
    reply_size_max: int = 65_536
    whole_max: int = 1_048_576  # content up to this size is written in one go, larger content in pieces
    piece_size: int = 262_144
    bdat_size_min: int = 1_048_576  # content from this size on goes by BDAT where the remote offers CHUNKING
    eight_bit: EightBit = EightBit.CONVERT
    line_max: int = LINE_MAX
    mt_priority_tunnel: bool = False  # MT-PRIORITY becomes a header field where the remote lacks it (RFC 6758)
    maildir: MaildirOptions = MaildirOptions()
    program: ProgramOptions = ProgramOptions()
