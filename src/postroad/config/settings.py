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
    """The node as a whole. These keys stand before the first table."""

    hostname: Domain = setting(
        UNSET,
        "The node's own full name, in greetings, EHLO, trace fields and reports. It should have an address in DNS "
        "that leads to this node, and the reverse DNS of this address should give the name.",
        source="RFC 5321 §2.3.5, §4.1.4",
        example='"mail.example.org"',
    )
    state_dir: File = setting(
        UNSET,
        "The folder of the spool and the history. Its file system must really keep data that has been synced.",
        example='"/var/lib/postroad"',
    )
    user: str = setting(
        "",
        'The user that the node becomes after it has bound its ports, if it is started as root. "": the user stays '
        "the same.",
    )
    group: str = setting("", 'The group that the node becomes together with `user`. "": the user\'s own group.')
    workers: int = setting(0, "Worker processes. 0: one for each core.", unit="processes", least=0, most=1024)
    shutdown_s: Seconds = setting(
        30.0, "At shutdown, how long sessions and deliveries that are under way may take to end.", least=0
    )
    worker_hang_s: Seconds = setting(
        60.0, "A worker that has not answered for this time is stopped and started again. 0: never.", least=0
    )
    postmaster: Mailbox = setting(
        "",
        'The mailbox that gets a report if a message without a return address fails. "": nobody; the failure is only'
        " logged.",
        source="RFC 3461 §5.2",
        example='"postmaster@example.org"',
    )
    aliases: File | None = setting(
        None, "The alias file, with `name: mailbox, mailbox …` in each line (docs/aliases.md).", example='"aliases"'
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
