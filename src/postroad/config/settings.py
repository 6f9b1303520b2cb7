"""The whole configuration as one frozen value.

Its tables are declared in `listening`, `limits`, `receiving`, `certificates` and `accounts` (how mail comes in), in
`routing`, `outbound` and `pace` (where it goes), and in `running` (how the node works). What each room takes of it is
put together in `options`.
"""

from __future__ import annotations

from postroad.config.accounts import AuthSection, BansSection
from postroad.config.certificates import TlsSection
from postroad.config.checks import ChecksSection
from postroad.config.dkim import DkimSection
from postroad.config.feedback import FeedbackSection
from postroad.config.field import UNSET, Section, setting, several, table, tables
from postroad.config.limits import LimitsSection
from postroad.config.listening import ListenerSection
from postroad.config.maps import MapSection
from postroad.config.mta_sts import MtaStsSection
from postroad.config.outbound import (
    HttpSection,
    MaildirSection,
    MboxSection,
    OtherUsersSection,
    OutboundSection,
    ProgramSection,
)
from postroad.config.pace import PaceSection
from postroad.config.receiving import ExtensionsSection, ReceiveSection
from postroad.config.report_mailboxes import ReportMailboxesSection
from postroad.config.rewriting import RewriteSection
from postroad.config.routing import (
    AliasTargetsSection,
    LocalDomainSection,
    MxSection,
    NextHopSection,
    RelaySection,
    RoutingSection,
    VerifySection,
)
from postroad.config.running import (
    DnsSection,
    DsnSection,
    HistorySection,
    LogSection,
    MemorySection,
    QueueSection,
    StoreSection,
)
from postroad.config.senders import BatvSection, SrsSection
from postroad.config.sending import SendingSection
from postroad.config.sendmail import SendmailSection
from postroad.config.values import Domain, File, Mailbox, MapNames, Seconds
from postroad.receive.options import ListenerTls
from postroad.world.tls import NOBODY, ClientCertificatePolicy, ClientCertificates


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
        " logged. If there is no `[[domain]]`, it also gets the mail to postmaster and MAILER-DAEMON at `hostname`, "
        'which is never refused. "": that mail goes the way of all mail for `hostname` if a next hop or a relay domain '
        "is set for it, else into the Maildir `postmaster` in `state_dir`.",
        source="RFC 3461 §5.2, RFC 5321 §4.5.1",
        example='"postmaster@example.org"',
    )
    aliases: File | None = setting(
        None, "The alias file, with `name: mailbox, mailbox …` in each line (docs/aliases.md).", example='"aliases"'
    )
    alias_maps: MapNames = several(
        (),
        "Maps in which aliases are looked up that the alias file does not name. A value is a list of targets, as in "
        "the alias file.",
        example='["virtual"]',
    )
    listener: tuple[ListenerSection, ...] = tables()
    tls: TlsSection = table(TlsSection)
    limits: LimitsSection = table(LimitsSection)
    receive: ReceiveSection = table(ReceiveSection)
    checks: ChecksSection = table(ChecksSection)
    sendmail: SendmailSection = table(SendmailSection)
    sending: SendingSection = table(SendingSection)
    extensions: ExtensionsSection = table(ExtensionsSection)
    auth: AuthSection = table(AuthSection)
    bans: BansSection = table(BansSection)
    domain: tuple[LocalDomainSection, ...] = tables()
    alias_targets: AliasTargetsSection = table(AliasTargetsSection)
    relay: RelaySection = table(RelaySection)
    verify: VerifySection = table(VerifySection)
    rewrite: RewriteSection = table(RewriteSection)
    next_hop: tuple[NextHopSection, ...] = tables()
    map: tuple[MapSection, ...] = tables()
    routing: RoutingSection = table(RoutingSection)
    mx: MxSection = table(MxSection)
    srs: SrsSection = table(SrsSection)
    batv: BatvSection = table(BatvSection)
    dkim: DkimSection = table(DkimSection)
    outbound: OutboundSection = table(OutboundSection)
    maildir: MaildirSection = table(MaildirSection)
    mbox: MboxSection = table(MboxSection)
    http: HttpSection = table(HttpSection)
    other_users: OtherUsersSection = table(OtherUsersSection)
    program: ProgramSection = table(ProgramSection)
    dns: DnsSection = table(DnsSection)
    mta_sts: MtaStsSection = table(MtaStsSection)
    queue: QueueSection = table(QueueSection)
    pace: tuple[PaceSection, ...] = tables()
    store: StoreSection = table(StoreSection)
    history: HistorySection = table(HistorySection)
    report_mailboxes: ReportMailboxesSection = table(ReportMailboxesSection)
    dsn: DsnSection = table(DsnSection)
    feedback: FeedbackSection = table(FeedbackSection)
    log: LogSection = table(LogSection)
    memory: MemorySection = table(MemorySection)

    def tls_of(self, listener: ListenerSection) -> ListenerTls:
        """How much TLS a listener has, also if its own `tls` is unset."""
        if listener.tls is not None:
            return listener.tls
        return ListenerTls.NONE if self.tls.certificate is None else ListenerTls.STARTTLS

    def asking_of(self, listener: ListenerSection) -> ClientCertificatePolicy:
        """How a listener's clients are asked for a certificate, also if the listener itself says nothing of it."""
        wanted = listener.client_certificates or self.tls.client_certificates
        if wanted is ClientCertificates.NEVER or self.tls_of(listener) is ListenerTls.NONE:
            return NOBODY
        roots = listener.client_ca_file or self.tls.client_ca_file
        purpose = listener.client_certificate_purpose or self.tls.client_certificate_purpose
        return ClientCertificatePolicy(wanted, "" if roots is None else str(roots), purpose)
