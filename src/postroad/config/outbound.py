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


class OutboundTlsSection(Section):
    """TLS as a client. Each `[[next_hop]]` says how much TLS is demanded."""

    ca_file: File | None = setting(
        None, "The root certificates that the node trusts, PEM. Unset: the system's.", example='"tls/roots.pem"'
    )
    minimum: Version = setting(
        _TLS.minimum,
        "The oldest TLS version allowed if TLS is demanded (`encrypt`, `verify`, `implicit`).",
        source="RFC 9325",
        word=True,
    )
    ciphers: str = setting(_TLS.ciphers, "OpenSSL's cipher list for TLS 1.2 and below if TLS is demanded.")
    opportunistic_minimum: Version = setting(
        _TLS.opportunistic_minimum,
        "The oldest TLS version allowed if mail may also be sent without TLS (`may`).",
        source="RFC 7435",
        word=True,
    )
    opportunistic_ciphers: str = setting(
        _TLS.opportunistic_ciphers,
        "OpenSSL's cipher list for TLS 1.2 and below if mail may also be sent without TLS (`may`).",
    )
    certificate: File | None = setting(
        None, "The node's own certificate for servers that ask for one, PEM.", example='"tls/client.pem"'
    )
    key: File | None = setting(
        None,
        "The private key of the certificate, PEM. Unset: it is in the certificate's file.",
        example='"tls/client.key"',
    )


class OutboundSection(Section):
    """The SMTP and LMTP client. Its time limits cannot be set below those of RFC 5321 §4.5.3.2."""

    source_ipv4: IpAddress = setting(_DELIVER.source_ipv4, 'The IPv4 address that the node connects from. "": any.')
    source_ipv6: IpAddress = setting(_DELIVER.source_ipv6, 'The IPv6 address that the node connects from. "": any.')
    connect_s: Seconds = setting(_DELIVER.connect_s, "How long a connection attempt may take.", least=1)
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
        _DELIVER.data_block_s,
        "How long the server may take to read more of the content.",
        least=180,
        source="RFC 5321 §4.5.3.2.5",
    )
    data_termination_s: Seconds = setting(
        _DELIVER.data_termination_s,
        "How long the answer to the end of the content may take.",
        least=600,
        source="RFC 5321 §4.5.3.2.6",
    )
    transaction_s: Seconds = setting(_DELIVER.transaction_s, "How long a transaction may take as a whole.", least=600)
    quit_s: Seconds = setting(_DELIVER.quit_s, "How long the node waits for the answer to QUIT.", least=0)
    idle_s: Seconds = setting(_DELIVER.idle_s, "How long a connection without work is kept open.", least=0)
    age_s: Seconds = setting(_DELIVER.age_s, "How long after its start a connection may get a new message.", least=1)
    messages_max: int = setting(
        _DELIVER.messages_max, "The most messages sent over one connection.", unit="messages", least=1
    )
    hops_max: int = setting(
        _DELIVER.hops_max,
        "The most hosts and addresses that the node tries to open one connection.",
        unit="addresses",
        least=2,
        source="RFC 5321 §5.1",
    )
    hop_memory_s: Seconds = setting(
        _DELIVER.hop_memory_s, "How long a host that could not be reached is tried only after all others.", least=0
    )
    tls_memory_s: Seconds = setting(
        _DELIVER.tls_memory_s,
        "After TLS with a host has failed, how long the node sends to this host without trying TLS, if mail may be "
        "sent without TLS (`may`).",
        least=0,
    )
    bdat_memory_s: Seconds = setting(
        _DELIVER.bdat_memory_s,
        "After a host has offered CHUNKING but refused the command BDAT, how long the node sends all mail to this "
        "host with DATA.",
        least=60,
        source="RFC 3030",
    )
    reply_line_max: Octets = setting(
        _DELIVER.reply_line_max, "The longest line of a reply.", least=512, source="RFC 5321 §4.5.3.1.5"
    )
    reply_lines_max: int = setting(_DELIVER.reply_lines_max, "The most lines of a reply.", unit="lines", least=16)
    reply_size_max: Octets = setting(_DELIVER.reply_size_max, "The largest reply with all its lines.", least=8192)
    whole_max: Octets = setting(_DELIVER.whole_max, "Content up to this size is written in one go.", least=0)
    piece_size: Octets = setting(_DELIVER.piece_size, "Larger content is written in pieces of this size.", least=4096)
    bdat_size_min: Octets = setting(
        _DELIVER.bdat_size_min,
        "Content of at least this size is sent with BDAT if the server offers it. On a connection that has carried a "
        "message before, the node says EHLO again first: the answer shows that replies and commands still match.",
        least=0,
        source="RFC 3030",
    )
    eight_bit: EightBit = setting(
        _DELIVER.eight_bit,
        "What happens to 8-bit mail if the server does not offer 8BITMIME. `convert`: the node encodes its parts in "
        "quoted-printable or base64; this breaks a DKIM signature of the body. `return`: the message is returned "
        "(5.6.3). `send`: the message is sent as it is, against the RFC. Binary mail for a server without BINARYMIME"
        " is converted with `convert`, otherwise returned (5.6.1).",
        source="RFC 6152 §3, RFC 3030 §3",
        word=True,
    )
    line_max: Octets = setting(
        _DELIVER.line_max,
        "The longest line, without its CRLF, that the node sends by SMTP. A longer line is broken before a space or "
        "tab; if there is none, CRLF and a space are inserted, as Postfix does. This breaks a DKIM signature of the "
        "body. 0: lines are sent as they are. Mail by LMTP, into Maildirs and to programs, and binary mail, always "
        "keeps its lines.",
        least=0,
        source="RFC 5321 §4.5.3.1.6",
    )
    tls: OutboundTlsSection = table(OutboundTlsSection)


class MaildirSection(Section):
    """Delivery into Maildirs. Each `[[domain]]` names its folder."""

    fold_case: bool = setting(_MAILDIR.fold_case, "Whether the local-part is put in lower case to name its folder.")
    make_folders: bool = setting(_MAILDIR.make_folders, "Whether missing folders are created.")


class ProgramSection(Section):
    """Delivery to programs. Each `[[domain]]` names its command. All programs run as the user of the node and with its
    rights to files, including the queue. So name only programs that you trust with all mail."""

    time_s: Seconds = setting(_PROGRAM.time_s, "How long a program may run.", least=1)
    output_max: Octets = setting(_PROGRAM.output_max, "How much of the program's output is kept for reports.", least=0)
    directory: str = setting(_PROGRAM.directory, "The working directory of the program.")
    path: str = setting(_PROGRAM.path, "The PATH of the program.")
    return_path: bool = setting(
        _PROGRAM.return_path,
        "Whether the program gets a Return-Path field at the top of the message.",
        source="RFC 5321 §4.4",
    )
