"""How mail goes out: the SMTP and LMTP client, its TLS, Maildirs, programs."""

from __future__ import annotations

from typing import Final

from postroad.config.field import Section, setting, table
from postroad.config.values import File, IpAddress, Octets, Seconds
from postroad.deliver.options import DeliverOptions, MaildirOptions, ProgramOptions
from postroad.protocol.seven_bit import EightBit
from postroad.world.tls import ClientTlsOptions, Version

_DELIVER: Final = DeliverOptions()
_MAILDIR: Final = MaildirOptions()
_PROGRAM: Final = ProgramOptions()
_TLS: Final = ClientTlsOptions()


class OutboundTls(Section):
    """TLS as a client. How much of it is demanded is said for each `[[next_hop]]`."""

    ca_file: File | None = setting(
        None, "The roots that are trusted, PEM; unset: the system's.", example='"tls/roots.pem"'
    )
    minimum: Version = setting(
        _TLS.minimum, "The oldest version where proof is demanded.", source="RFC 9325", word=True
    )
    ciphers: str = setting(_TLS.ciphers, "OpenSSL's list of ciphers for TLS 1.2 and below, where proof is demanded.")
    opportunistic_minimum: Version = setting(
        _TLS.opportunistic_minimum,
        "The oldest version where the alternative is no TLS at all.",
        source="RFC 7435",
        word=True,
    )
    opportunistic_ciphers: str = setting(
        _TLS.opportunistic_ciphers, "The ciphers where the alternative is no TLS at all."
    )
    certificate: File | None = setting(
        None, "Our own certificate for servers that ask for one, PEM.", example='"tls/client.pem"'
    )
    key: File | None = setting(None, "Its private key, PEM; unset: in the same file.", example='"tls/client.key"')


class Outbound(Section):
    """The SMTP and LMTP client. Its time limits cannot be set below those of RFC 5321 §4.5.3.2."""

    source_ipv4: IpAddress = setting(_DELIVER.source_ipv4, 'The IPv4 address that connections come from; "": any.')
    source_ipv6: IpAddress = setting(_DELIVER.source_ipv6, 'The IPv6 address that connections come from; "": any.')
    connect_s: Seconds = setting(_DELIVER.connect_s, "How long it may take to connect.", least=1)
    handshake_s: Seconds = setting(_DELIVER.handshake_s, "How long a TLS handshake may take.", least=1)
    greeting_s: Seconds = setting(
        _DELIVER.greeting_s, "How long the greeting may take.", least=300, source="RFC 5321 §4.5.3.2.1"
    )
    hello_s: Seconds = setting(_DELIVER.hello_s, "How long the answer to EHLO may take.", least=1)
    starttls_s: Seconds = setting(_DELIVER.starttls_s, "How long the answer to STARTTLS may take.", least=1)
    auth_s: Seconds = setting(_DELIVER.auth_s, "How long each answer to AUTH may take.", least=1)
    reset_s: Seconds = setting(_DELIVER.reset_s, "How long the answer to RSET may take.", least=1)
    mail_s: Seconds = setting(
        _DELIVER.mail_s, "How long the answer to MAIL may take.", least=300, source="RFC 5321 §4.5.3.2.2"
    )
    rcpt_s: Seconds = setting(
        _DELIVER.rcpt_s, "How long the answer to RCPT may take.", least=300, source="RFC 5321 §4.5.3.2.3"
    )
    data_initiation_s: Seconds = setting(
        _DELIVER.data_initiation_s, "How long the answer to DATA may take.", least=120, source="RFC 5321 §4.5.3.2.4"
    )
    data_block_s: Seconds = setting(
        _DELIVER.data_block_s, "How long the server may not read on.", least=180, source="RFC 5321 §4.5.3.2.5"
    )
    data_termination_s: Seconds = setting(
        _DELIVER.data_termination_s,
        "How long the answer to the end of the content may take.",
        least=600,
        source="RFC 5321 §4.5.3.2.6",
    )
    transaction_s: Seconds = setting(_DELIVER.transaction_s, "How long a transaction may take as a whole.", least=600)
    quit_s: Seconds = setting(_DELIVER.quit_s, "How long the answer to QUIT is waited for.", least=0)
    idle_s: Seconds = setting(_DELIVER.idle_s, "How long a connection without work is kept.", least=0)
    age_s: Seconds = setting(_DELIVER.age_s, "How long a connection is used in all.", least=1)
    messages_max: int = setting(
        _DELIVER.messages_max, "How many messages go over one connection.", unit="messages", least=1
    )
    hops_max: int = setting(
        _DELIVER.hops_max,
        "Hosts and addresses tried to open one connection.",
        unit="addresses",
        least=2,
        source="RFC 5321 §5.1",
    )
    hop_memory_s: Seconds = setting(
        _DELIVER.hop_memory_s, "How long a host that could not be reached is tried after all others.", least=0
    )
    tls_memory_s: Seconds = setting(
        _DELIVER.tls_memory_s,
        "How long a host whose TLS failed is spoken to without it at once, where the demand allows that.",
        least=0,
    )
    bdat_memory_s: Seconds = setting(
        _DELIVER.bdat_memory_s,
        "How long a host that offered CHUNKING, and then refused BDAT as a command, gets all mail by DATA.",
        least=60,
        source="RFC 3030",
    )
    reply_line_max: Octets = setting(
        _DELIVER.reply_line_max, "A line of a reply.", least=512, source="RFC 5321 §4.5.3.1.5"
    )
    reply_lines_max: int = setting(_DELIVER.reply_lines_max, "Lines of a reply.", unit="lines", least=16)
    reply_size_max: Octets = setting(_DELIVER.reply_size_max, "A reply as a whole.", least=8192)
    whole_max: Octets = setting(_DELIVER.whole_max, "Content up to this size is written in one go.", least=0)
    piece_size: Octets = setting(_DELIVER.piece_size, "Larger content is written in pieces of this size.", least=4096)
    bdat_size_min: Octets = setting(
        _DELIVER.bdat_size_min,
        "Content from this size on goes by BDAT where that is offered.",
        least=0,
        source="RFC 3030",
    )
    eight_bit: EightBit = setting(
        _DELIVER.eight_bit,
        "What becomes of 8-bit mail where the server does not offer 8BITMIME. `convert`: its parts are encoded in "
        "quoted-printable or base64; a DKIM signature of the body does not hold after it. `return`: it is returned "
        "(5.6.3). `send`: it is sent as it is, against the RFC. Binary mail for a server without BINARYMIME is "
        "converted with `convert`, else returned (5.6.1).",
        source="RFC 6152 §3, RFC 3030 §3",
        word=True,
    )
    line_max: Octets = setting(
        _DELIVER.line_max,
        "The longest line, without its CRLF, that is sent by SMTP. A longer one is broken in front of a space or tab, "
        "or else CRLF and a space are put in, as Postfix does it; a DKIM signature of the body does not hold after it. "
        "0: lines go as they are. By LMTP, into Maildirs and to programs they always do, and so does binary mail.",
        least=0,
        source="RFC 5321 §4.5.3.1.6",
    )
    tls: OutboundTls = table(OutboundTls)


class Maildir(Section):
    """Delivery into Maildirs. Their folders are named for each `[[domain]]`."""

    fold_case: bool = setting(_MAILDIR.fold_case, "Whether the local-part names its folder in lower case.")
    make_folders: bool = setting(_MAILDIR.make_folders, "Whether missing folders are made.")


class Program(Section):
    """Delivery to programs. Their commands are named for each `[[domain]]`. All run as the user of the node, with its
    rights to files, the queue among them: name only programs that you trust with all mail."""

    time_s: Seconds = setting(_PROGRAM.time_s, "How long a program may run.", least=1)
    output_max: Octets = setting(_PROGRAM.output_max, "How much of its output is kept for reports.", least=0)
    directory: str = setting(_PROGRAM.directory, "The folder that it runs in.")
    path: str = setting(_PROGRAM.path, "Its PATH.")
    return_path: bool = setting(
        _PROGRAM.return_path, "Whether it gets a Return-Path field on top.", source="RFC 5321 §4.4"
    )
