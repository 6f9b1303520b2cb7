"""An edition: all that the rooms of a worker take of one configuration, made or refused as a whole.

`make` reads the files that the settings name (certificates, accounts, aliases, tables) and touches nothing that runs.
So a reload first makes an edition, which may fail; then every room takes its part of it, which cannot. The first
edition is taken at the start, in the same way (`node.wiring.assembly.Assembly.take`).

What always holds: a room gets its options from an edition and from nowhere else; two editions of equal settings and
files give every room equal options. Not here: the settings that are taken only at the start, of spool and history.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from postroad.accounts.accounts import Accounts, UsersFileFault
from postroad.accounts.authenticate import Authenticator, AuthOptions
from postroad.check.client import ClientOptions
from postroad.check.etrn import EtrnOptions
from postroad.check.origin_options import OriginChecks, OriginOptions
from postroad.check.policy import PolicyOptions
from postroad.check.reports import ReportLimits
from postroad.check.sending import SendingOptions
from postroad.check.verified import VerifyOptions
from postroad.config import options
from postroad.deliver.options import DeliverOptions
from postroad.deliver.signing_keys import SigningKeys
from postroad.deliver.signing_options import DkimOutOptions
from postroad.mail.policy import Inspector
from postroad.node.sockets import Endpoint, endpoints
from postroad.node.wiring.authentication import authenticator, read_accounts
from postroad.node.wiring.inspectors import inspectors
from postroad.node.wiring.signing import signing_keys
from postroad.node.wiring.tables import Tables, build
from postroad.node.wiring.world import World
from postroad.queue.options import QueueOptions
from postroad.queue.pace import PaceTable
from postroad.receive.options import ListenerOptions, LocalOptions, ReceiveOptions
from postroad.report.feedback_options import FeedbackOptions
from postroad.report.options import LogOptions, ReportOptions
from postroad.trust.key_store import KeyOptions
from postroad.trust.sts_fetch import StsOptions
from postroad.world.tls import ClientTls, ServerTls, server_tls

if TYPE_CHECKING:
    from postroad.config.settings import Settings


class ListenerPart(msgspec.Struct, frozen=True):
    """What one endpoint takes."""

    endpoint: Endpoint
    listener: ListenerOptions
    policy: PolicyOptions
    inspectors: tuple[str, ...] = ()
    checks: OriginChecks = OriginChecks()


class Edition(msgspec.Struct, frozen=True):
    """See the module."""

    settings: Any
    tables: Tables
    server_tls: ServerTls | None
    client_tls: ClientTls
    accounts: Accounts | None
    authenticator: Authenticator | None
    resolver: Any
    log: LogOptions
    clients: ClientOptions
    auth: AuthOptions
    windows_s: tuple[float, ...]
    content_memory_max: int
    files_reserved: int
    report_limits: ReportLimits
    report: ReportOptions
    feedback: FeedbackOptions
    hostname: str
    deliver: DeliverOptions
    sts: StsOptions
    dkim: DkimOutOptions
    signing_keys: SigningKeys | None
    queue: QueueOptions
    pace: PaceTable
    etrn: EtrnOptions
    receive: ReceiveOptions
    listeners: tuple[ListenerPart, ...]
    inspectors: dict[str, Inspector]
    origin: OriginOptions
    sending: SendingOptions
    submit: PolicyOptions
    verify: VerifyOptions
    keys: KeyOptions
    local: LocalOptions
    shutdown_s: float

    def close(self) -> None:
        """Closes an edition that is not taken, or not in force any more."""
        if self.authenticator is not None:
            self.authenticator.close()


def make(
    settings: Settings,
    *,
    world: World,
    loop: asyncio.AbstractEventLoop,
    ticket_secret: bytes,
    faulty: Callable[[Path, tuple[UsersFileFault, ...]], None],
    warn: Callable[[str], None],
    tell: Callable[[str, str], None],
    note: Callable[[str, str], None],
    note_from_thread: Callable[[str, str], None],
    before: Tables | None = None,
) -> Edition | str:
    """The edition of these settings, or what is wrong with them or their files. `faulty`: hears of accounts that become
    wrong later; `warn`: of trouble with log-ins; `tell`: of the files of maps, as every worker does; `note`: of files
    that only this worker has read; `note_from_thread`: of keys, and threads call it. `before`: the tables in force."""
    tables = build(settings, world.clock, tell, before, world.porter, note, starting=before is None)
    if isinstance(tables, str):
        return tables
    tls: ServerTls | None = None
    wanted = options.server_tls_options(settings)
    if wanted is not None:
        made = server_tls(wanted, ticket_secret)
        if isinstance(made, tuple):
            return "; ".join(map(str, made))
        tls = made
    client_tls = ClientTls(options.client_tls_options(settings))
    outward = client_tls.problems()
    if outward:
        return "; ".join(map(str, outward))
    accounts = read_accounts(settings, faulty)
    if isinstance(accounts, str):
        return accounts
    made_auth = authenticator(
        settings, accounts, loop=loop, clock=world.clock, entropy=world.entropy, network=world.network,
        fetcher=world.fetcher, log=warn,
    )
    if isinstance(made_auth, str):
        return made_auth
    made_inspectors = inspectors(name for listener in settings.listener for name in listener.inspectors)
    if isinstance(made_inspectors, str):
        if made_auth is not None:
            made_auth.close()
        return made_inspectors
    keys = signing_keys(settings, note_from_thread)
    if isinstance(keys, str):
        if made_auth is not None:
            made_auth.close()
        return keys
    return Edition(
        settings=settings,
        tables=tables,
        server_tls=tls,
        client_tls=client_tls,
        accounts=accounts,
        authenticator=made_auth,
        resolver=world.resolver(options.dns_options(settings)),
        log=options.log_options(settings),
        clients=options.client_options(settings),
        auth=options.auth_options(settings),
        windows_s=options.window_lengths_s(settings),
        content_memory_max=settings.limits.content_memory_max,
        files_reserved=settings.limits.files_reserved,
        report_limits=options.report_limits(settings),
        report=options.report_options(settings),
        feedback=options.feedback_options(settings),
        hostname=settings.hostname,
        deliver=options.deliver_options(settings),
        sts=options.sts_options(settings),
        dkim=options.dkim_out_options(settings),
        signing_keys=keys,
        queue=options.queue_options(settings),
        pace=options.pace_table(settings),
        etrn=options.etrn_options(settings),
        receive=options.receive_options(settings),
        listeners=_listeners(settings),
        inspectors=made_inspectors,
        origin=options.origin_options(settings),
        sending=options.sending_options(settings),
        submit=options.submit_policy(settings),
        verify=options.verify_options(settings),
        keys=options.key_options(settings),
        local=options.local_options(settings),
        shutdown_s=settings.shutdown_s,
    )


def _listeners(settings: Settings) -> tuple[ListenerPart, ...]:
    sections = [listener for listener in settings.listener for _ in listener.address]
    return tuple(
        ListenerPart(
            endpoint, listener, options.policy_options(settings, section), tuple(section.inspectors),
            options.origin_checks(section),
        )
        for endpoint, section, listener in zip(
            endpoints(settings), sections, options.listener_options(settings), strict=True
        )
    )
