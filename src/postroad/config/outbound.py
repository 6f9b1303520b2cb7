"""How mail goes out: the SMTP and LMTP client, its TLS, Maildirs, mbox files, programs."""

from __future__ import annotations

from postroad.config.field import Section, of, setting, table
from postroad.config.values import File, HelloName, IpAddress, Octets, Seconds
from postroad.deliver.options import (
    DeliverOptions,
    HttpOptions,
    MaildirOptions,
    MboxOptions,
    MboxQuoting,
    PorterOptions,
    ProgramOptions,
)
from postroad.protocol.seven_bit import EightBit
from postroad.world.tls import ClientTlsOptions, Version


class OutboundTlsSection(Section):
    """TLS as a client. Each `[[next_hop]]` says how much TLS is demanded."""

    ca_file: File | None = of(ClientTlsOptions.ca_file, default=None, example='"tls/roots.pem"')
    minimum: Version = of(ClientTlsOptions.minimum, source="RFC 9325", word=True)
    ciphers: str = of(ClientTlsOptions.ciphers)
    opportunistic_minimum: Version = of(ClientTlsOptions.opportunistic_minimum, source="RFC 7435", word=True)
    opportunistic_ciphers: str = of(ClientTlsOptions.opportunistic_ciphers)
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

    source_ipv4: IpAddress = of(DeliverOptions.source_ipv4)
    source_ipv6: IpAddress = of(DeliverOptions.source_ipv6)
    hello: HelloName = of(DeliverOptions.hello, source="RFC 5321 §4.1.1.1", example='"mail.example.org"')
    connect_s: Seconds = of(DeliverOptions.connect_s)
    handshake_s: Seconds = of(DeliverOptions.handshake_s)
    greeting_s: Seconds = of(DeliverOptions.greeting_s, source="RFC 5321 §4.5.3.2.1")
    hello_s: Seconds = of(DeliverOptions.hello_s)
    starttls_s: Seconds = of(DeliverOptions.starttls_s)
    auth_s: Seconds = of(DeliverOptions.auth_s)
    reset_s: Seconds = of(DeliverOptions.reset_s)
    mail_s: Seconds = of(DeliverOptions.mail_s, source="RFC 5321 §4.5.3.2.2")
    rcpt_s: Seconds = of(DeliverOptions.rcpt_s, source="RFC 5321 §4.5.3.2.3")
    data_initiation_s: Seconds = of(DeliverOptions.data_initiation_s, source="RFC 5321 §4.5.3.2.4")
    data_block_s: Seconds = of(DeliverOptions.data_block_s, source="RFC 5321 §4.5.3.2.5")
    data_termination_s: Seconds = of(DeliverOptions.data_termination_s, source="RFC 5321 §4.5.3.2.6")
    transaction_s: Seconds = of(DeliverOptions.transaction_s)
    quit_s: Seconds = of(DeliverOptions.quit_s)
    idle_s: Seconds = of(DeliverOptions.idle_s)
    age_s: Seconds = of(DeliverOptions.age_s)
    messages_max: int = of(DeliverOptions.messages_max, unit="messages")
    hops_max: int = of(DeliverOptions.hops_max, unit="addresses", source="RFC 5321 §5.1")
    hop_memory_s: Seconds = of(DeliverOptions.hop_memory_s)
    size_memory_s: Seconds = of(DeliverOptions.size_memory_s, source="RFC 1870 §6.1")
    tls_memory_s: Seconds = of(DeliverOptions.tls_memory_s)
    bdat_memory_s: Seconds = of(DeliverOptions.bdat_memory_s, source="RFC 3030")
    reply_line_max: Octets = of(DeliverOptions.reply_line_max, source="RFC 5321 §4.5.3.1.5")
    reply_lines_max: int = of(DeliverOptions.reply_lines_max, unit="lines")
    reply_size_max: Octets = of(DeliverOptions.reply_size_max)
    whole_max: Octets = of(DeliverOptions.whole_max)
    piece_size: Octets = of(DeliverOptions.piece_size)
    bdat_size_min: Octets = of(DeliverOptions.bdat_size_min, source="RFC 3030")
    eight_bit: EightBit = of(DeliverOptions.eight_bit, source="RFC 6152 §3, RFC 3030 §3", word=True)
    line_max: Octets = of(DeliverOptions.line_max, source="RFC 5321 §4.5.3.1.6")
    tls: OutboundTlsSection = table(OutboundTlsSection)


class MaildirSection(Section):
    """Delivery into Maildirs. Each `[[domain]]` names its folder."""

    fold_case: bool = of(MaildirOptions.fold_case)
    make_folders: bool = of(MaildirOptions.make_folders)


class MboxSection(Section):
    """Delivery into mbox files. Each `[[domain]]` names its file. `fold_case` and `make_folders` of `[maildir]` hold
    for them, too."""

    dotlock: bool = of(MboxOptions.dotlock, source="Debian policy §11.6")
    lock_s: Seconds = of(MboxOptions.lock_s)
    stale_lock_s: Seconds = of(MboxOptions.stale_lock_s)
    quoting: MboxQuoting = of(MboxOptions.quoting, source="RFC 4155", word=True)


class HttpSection(Section):
    """Delivery by HTTP POST. Each `[[domain]]` names its URL."""

    time_s: Seconds = of(HttpOptions.time_s)
    answer_max: Octets = of(HttpOptions.answer_max)
    retry_after_max_s: Seconds = of(HttpOptions.retry_after_max_s, source="RFC 9110 §10.2.3")
    ca_file: File | None = of(HttpOptions.ca_file, default=None, example='"authorities.pem"')


class OtherUsersSection(Section):
    """Delivery as other users of this machine: for a `[[domain]]` with `user`."""

    uid_min: int = of(PorterOptions.uid_min, unit="uid")
    gain_rights: bool = of(PorterOptions.gain_rights)
    processes_max: int = of(PorterOptions.processes_max, unit="processes")


class ProgramSection(Section):
    """Delivery to programs. Each `[[domain]]` names its command. Without `user` in its `[[domain]]`, a program runs as
    the user of the node and with its rights to files, including the queue. So name only programs that you trust with
    all mail, or a user."""

    time_s: Seconds = of(ProgramOptions.time_s)
    output_max: Octets = of(ProgramOptions.output_max)
    directory: str = of(ProgramOptions.directory)
    path: str = of(ProgramOptions.path)
    return_path: bool = of(ProgramOptions.return_path, source="RFC 5321 §4.4")
    delivered_to: bool = of(ProgramOptions.delivered_to, source="Postfix, prepend_delivered_header")
