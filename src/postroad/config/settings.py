"""The whole configuration as one frozen value.

A section is a module's worth of keys: `listening` (how mail comes in), `routing` (where it goes), `running` (how the
node works). What each room takes of it is put together in `options`.
"""

from __future__ import annotations

from postroad.config.field import UNSET, Section, setting, table, tables
from postroad.config.listening import Auth, Bans, Extensions, Limits, Listener, Receive, Tls
from postroad.config.outbound import Maildir, Outbound, Program
from postroad.config.pace import Pace
from postroad.config.routing import LocalDomain, Mx, NextHop, Relay, Routing
from postroad.config.running import Dns, Dsn, History, Log, Memory, Queue, Store
from postroad.config.values import Domain, File, Mailbox, Seconds
from postroad.receive.options import Tls as ListenerTls
from postroad.world.tls import NOBODY, Asking, ClientCertificates


class Settings(Section):
    """The node as a whole; these keys stand before the first table."""

    hostname: Domain = setting(
        UNSET,
        "The node's own full name, in greetings, EHLO, trace fields and reports. It should have an address in DNS that "
        "leads here, and that address should lead back to it.",
        source="RFC 5321 §2.3.5, §4.1.4",
        example='"mail.example.org"',
    )
    state_dir: File = setting(
        UNSET, "The folder of spool and history. It must keep what is synced to it.", example='"/var/lib/postroad"'
    )
    user: str = setting("", 'The user to become after binding the ports, where the node is started as root; "": stay.')
    group: str = setting("", 'The group to become with it; "": the user\'s own.')
    workers: int = setting(0, "Worker processes; 0: one for each core.", unit="processes", least=0, most=1024)
    shutdown_s: Seconds = setting(30.0, "How long, at shutdown, what is in flight may take to end.", least=0)
    worker_hang_s: Seconds = setting(
        60.0, "A worker that does not answer for so long is ended and started again; 0: never.", least=0
    )
    postmaster: Mailbox = setting(
        "",
        'Who gets the report when a message without a return address fails; "": nobody, it is only logged.',
        source="RFC 3461 §5.2",
        example='"postmaster@example.org"',
    )
    aliases: File | None = setting(
        None, "A file of aliases, `name: mailbox, mailbox …` in each line (docs/aliases.md).", example='"aliases"'
    )
    listener: tuple[Listener, ...] = tables()
    tls: Tls = table(Tls)
    limits: Limits = table(Limits)
    receive: Receive = table(Receive)
    extensions: Extensions = table(Extensions)
    auth: Auth = table(Auth)
    bans: Bans = table(Bans)
    domain: tuple[LocalDomain, ...] = tables()
    relay: Relay = table(Relay)
    next_hop: tuple[NextHop, ...] = tables()
    routing: Routing = table(Routing)
    mx: Mx = table(Mx)
    outbound: Outbound = table(Outbound)
    maildir: Maildir = table(Maildir)
    program: Program = table(Program)
    dns: Dns = table(Dns)
    queue: Queue = table(Queue)
    pace: tuple[Pace, ...] = tables()
    store: Store = table(Store)
    history: History = table(History)
    dsn: Dsn = table(Dsn)
    log: Log = table(Log)
    memory: Memory = table(Memory)

    def tls_of(self, listener: Listener) -> ListenerTls:
        """How much TLS a listener has, where its own `tls` is unset, too."""
        if listener.tls is not None:
            return listener.tls
        return ListenerTls.NONE if self.tls.certificate is None else ListenerTls.STARTTLS

    def asking_of(self, listener: Listener) -> Asking:
        """How a listener's clients are asked for a certificate, where it says nothing itself, too."""
        wanted = listener.client_certificates or self.tls.client_certificates
        if wanted is ClientCertificates.NEVER or self.tls_of(listener) is ListenerTls.NONE:
            return NOBODY
        roots = listener.client_ca_file or self.tls.client_ca_file
        purpose = listener.client_certificate_purpose or self.tls.client_certificate_purpose
        return Asking(wanted, "" if roots is None else str(roots), purpose)
