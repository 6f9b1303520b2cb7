"""The wiring of one worker: every room's doors are made here, and only here.

`Assembly` is a whole node's way of a message without the process around it, so that a simulation can build one with a
`World` of its own. What always holds: settings that can be reloaded are in `Tables` and in the listeners' settings,
both replaced as a whole; a reload is prepared first, which may fail, then committed, which cannot.
"""

from __future__ import annotations

import asyncio
import logging
import ssl
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import msgspec

from postroad.accounts.accounts import Accounts, UsersFileFault
from postroad.accounts.authenticate import Authenticator
from postroad.accounts.places import Places
from postroad.check.bans import Bans
from postroad.check.client import Clients
from postroad.check.reports import ReportRates
from postroad.check.tally import Tally, TallyFrame
from postroad.config import options
from postroad.deliver.opener import Opener
from postroad.deliver.program import ProgramCourier
from postroad.mail.address import Address
from postroad.mail.attempt import Attempt, Outcome, Reach
from postroad.mail.envelope import Envelope, Recipient
from postroad.mail.event import Event, Expanded, Noted
from postroad.mail.loop import Marks
from postroad.mail.message import Content
from postroad.mail.policy import Inspector, Role
from postroad.mail.report import DsnAction, RecipientReport
from postroad.mail.route import Destination, Route
from postroad.node.offices.etrn import Ask, Counted, QueueStarter
from postroad.node.sockets import BACKLOG, Endpoint, endpoints
from postroad.node.wiring.authentication import authenticator, placed, read_accounts
from postroad.node.wiring.inspectors import inspectors
from postroad.node.wiring.room import DescriptorRoom
from postroad.node.wiring.secret import node_secret
from postroad.node.wiring.tables import Tables, build
from postroad.node.wiring.world import World
from postroad.operate.operator import Operator, OperatorRequest, OperatorResult
from postroad.operate.requests import Activity, HistoryBehind, LeftAlone
from postroad.protocol.etrn import Wish
from postroad.queue.queue import Permits, Queue
from postroad.receive import submit
from postroad.receive.budget import Budget
from postroad.receive.doors import Doors
from postroad.receive.listener import Listener
from postroad.receive.options import ListenerOptions
from postroad.receive.refusal_notes import SEVERAL, RefusalNotes
from postroad.receive.setup import ListenerSetup, listener_setup
from postroad.receive.submit import Submissions
from postroad.receive.turns import Turns
from postroad.report.counting import Counting
from postroad.report.dsn import Reporter
from postroad.report.log import Log
from postroad.report.stream import Stream
from postroad.store.face import READERS, SpoolError
from postroad.store.sqlite.history import Historian
from postroad.store.sqlite.journal import SqliteJournal
from postroad.store.sqlite.spool import SqliteSpool
from postroad.store.values import Stored, Waiting
from postroad.world.network import Server
from postroad.world.system import file_limit
from postroad.world.tls import ClientCertificatePolicy, ClientTls, ServerTls, server_tls

if TYPE_CHECKING:
    import socket

    from postroad.config.settings import Settings

FILE_THREADS: Final = 4  # threads that write Maildirs and read large content
COUNT_S: Final = 5.0  # between looks for what is to be counted
OUTCOMES_S: Final = 1.0  # for the outcomes of programs that were ended at shutdown to be committed
_LOG: Final = logging.getLogger("postroad")


class PreparedReload(msgspec.Struct, frozen=True):
    """A reload that is ready to be committed."""

    settings: Any
    tables: Tables
    server_tls: ServerTls | None
    accounts: Accounts | None
    authenticator: Authenticator | None
    inspectors: dict[str, Inspector]


class Assembly:
    """One worker's rooms, joined. Everything runs on `loop`."""

    def __init__(
        self,
        settings: Settings,
        *,
        number: int,
        shards: Sequence[int],
        world: World,
        permits: Permits,
        log: Log,
        loop: asyncio.AbstractEventLoop,
        tell: Callable[[TallyFrame], None] = lambda told: None,
        ask_all: Ask | None = None,
        ticket_secret: Callable[[], bytes] = lambda: b"",
        bans: Bans | None = None,
    ) -> None:
        """`bans`: those in force, which the caller keeps."""
        self.number = number
        self.misconfigured = False  # whether it cannot start as the settings and their files are
        self._settings = settings
        self._shards = tuple(shards)
        self._world = world
        self._permits = permits
        self._log = log
        self.stream = Stream(self._reader_broke)
        self.stream.subscribe(log.write_all)
        self._loop = loop
        self._ask_all = ask_all  # the workers, this one among them; None: there is no other
        self._ticket_secret = ticket_secret  # the node's, as it is now; b"" where there is none
        self._listeners: dict[Endpoint, Listener] = {}
        self._closing: dict[Listener, asyncio.Task[None]] = {}  # removed: their sessions come to an end
        self._counts: asyncio.Task[None] | None = None
        self._count_step: asyncio.Future[bool] | None = None
        self._lookups: set[asyncio.Task[Route | Attempt]] = set()
        self._prepared: PreparedReload | None = None
        self._server_tls: ServerTls | None = None
        self._accounts: Accounts | None = None
        self._authenticator: Authenticator | None = None
        self._submissions: Submissions | None = None
        self._submit_server: Server | None = None
        self._inspectors: dict[str, Inspector] = {}
        self._has_room = DescriptorRoom(file_limit(), lambda: self._settings.limits.files_reserved)
        self._tally = Tally(options.window_lengths_s(settings), tell, loop.call_later)
        self._turns = Turns()
        self._turned = RefusalNotes(SEVERAL)
        self._rates = ReportRates(options.report_limits(settings), self._tally)
        self._budget = Budget(settings.limits.content_memory_max)
        self._clients = Clients(options.client_options(settings), self._tally, bans, world.clock.now_us)
        self._places = Places(options.auth_options(settings), self._clients.names_of, self._clients.is_known)
        self._programs_busy: set[ProgramCourier] = set()
        self._pool = ThreadPoolExecutor(FILE_THREADS, thread_name_prefix="files")
        self.tables: Tables
        self.spool: SqliteSpool
        self.queue: Queue
        self.historian: Historian
        self.counting: Counting

    # -- start and stop -------------------------------------------------------------------------------------------

    async def start(self, sockets: dict[Endpoint, socket.socket]) -> str:
        """Open everything and begin to serve. "" or what is wrong."""
        settings, world = self._settings, self._world
        prepared = self._make(settings)
        if isinstance(prepared, str):
            self.misconfigured = True
            return prepared
        self.tables = prepared.tables
        self._server_tls, self._accounts = prepared.server_tls, prepared.accounts
        self._inspectors = prepared.inspectors
        self._take_authenticator(prepared.authenticator)
        state_dir = Path(settings.state_dir)
        self._marks = Marks(node_secret(state_dir, world.entropy))
        self.spool = SqliteSpool(
            state_dir / "spool",
            self._shards,
            options.spool_options(settings),
            world.clock,
            self._loop,
            log=self._note,
            published=self.stream.published,
            readers=READERS,
            connect=world.disk.connect,
            threads=world.disk.threads,
            free=world.disk.free,
            posix=world.disk.posix,
            commit_s=world.disk.commit_s,
        )
        self.stream.keep = self.spool.record
        try:
            self.spool.start()
        except SpoolError as error:
            return str(error)
        self.historian = Historian(
            state_dir / "spool",
            state_dir / "history",
            self.spool,
            options.history_options(settings),
            world.clock,
            log=self._note_from_thread,
        )
        self._journal = SqliteJournal(state_dir / "spool", self.spool)
        self.counting = Counting(state_dir / "counts", self._journal, world.clock)
        self._resolver = world.resolver(options.dns_options(settings))
        self._client_tls = ClientTls(options.client_tls_options(settings))
        self._opener = self._make_opener()
        self._reporter = self._make_reporter()
        self.queue = Queue(
            spool=self.spool,
            options=options.queue_options(settings),
            clock=world.clock,
            chance=world.chance,
            destination_of=self.tables.destination,
            opener=lambda destination, opened, lost: self._opener(destination, opened, lost),
            permits=self._permits,
            report=self._report,
            stream=self.stream,
            loop=self._loop,
            refine=self.tables.refined,
            pace=options.pace_table(settings),
            hosts_of=self._hosts_of,
            openings=lambda key: self._opener.doing(key),
        )
        self._operator = Operator(
            spool=self.spool,
            shards=self._shards,
            report=self._report,
            destination_of=lambda address: self.tables.destination(address),
            clock=world.clock,
            withdraw=self.queue.withdraw,
            changed=self.queue.changed,
            add=self.queue.add,
            tell=self.stream.tell,
        )
        self._starter = QueueStarter(
            options=options.etrn_options(settings),
            routing=self.tables.routing,
            spool=self.spool,
            operator=self._operator,
            ask=self._ask_all or self._ask_itself,
            now=self._loop.time,
            later=self._loop.call_later,
        )
        self.queue.start(self._shards)
        if world.disk.threads:
            self.historian.start()
            self._counts = self._loop.create_task(self._count())
        await self._listen(settings, sockets)
        return ""

    async def stop(self, limit_s: float) -> None:
        """No new sessions; what is in flight ends within the limit; what is not done stays in the spool."""
        if self._submissions is not None and self._submit_server is not None:
            self._submit_server.close()
            self._submissions.stop()
        # At the same time, so that all is over within the limit, after which the supervisor ends us. What sessions
        # still accept stays in the spool.
        sessions = [listener.stop(limit_s) for listener in (*self._listeners.values(), *self._closing)]
        quiet, *_ = await asyncio.gather(self.queue.drain(limit_s), *sessions, return_exceptions=True)
        if quiet is not True:
            self._note(Noted(self._world.clock.now_us(), 0, "warning", "some deliveries did not end in time"))
            await self._opener.end_programs()
            await self.queue.drain(OUTCOMES_S)
        self._opener.cancel()
        if self._counts is not None:
            self._counts.cancel()
            await asyncio.wait([self._counts])
        if self._count_step is not None:
            await asyncio.wait([self._count_step])
        self._journal.close()
        await self._loop.run_in_executor(None, self.historian.close)
        if self._authenticator is not None:
            self._authenticator.close()
        self.spool.close()
        self._log.flush()

    async def take_submissions(self, sock: socket.socket) -> None:
        """Take mail over this Unix socket, too (`postroad submit`)."""
        self._submissions = Submissions(self._submit_setup())
        self._submit_server = await self._world.network.serve(self._submissions.connect, sock)

    def _submit_setup(self) -> ListenerSetup:
        listener = ListenerOptions(submit.LISTENER, role=Role.SUBMISSION, trusted_networks=("unix",))
        rules = self.tables.rules(options.submit_policy(self._settings), listener, self._owns)
        return listener_setup(listener, options.receive_options(self._settings), rules, self._doors())

    async def _listen(self, settings: Settings, sockets: dict[Endpoint, socket.socket]) -> None:
        made = self._listener_settings(settings)
        for endpoint, sock in sockets.items():
            listener = Listener(made[endpoint])
            self._listeners[endpoint] = listener
            await listener.serve(sock, BACKLOG)

    # -- what is made of the settings -----------------------------------------------------------------------------

    def _make(self, settings: Settings) -> PreparedReload | str:
        """All that can be made without touching what runs. A text says what is wrong."""
        tables = build(settings)
        if isinstance(tables, str):
            return tables
        tls: ServerTls | None = None
        wanted = options.server_tls_options(settings)
        if wanted is not None:
            made = server_tls(wanted, self._ticket_secret())
            if isinstance(made, tuple):
                return "; ".join(map(str, made))
            tls = made
        outward = ClientTls(options.client_tls_options(settings)).problems()
        if outward:
            return "; ".join(map(str, outward))
        accounts = read_accounts(settings, self._accounts_faulty)
        if isinstance(accounts, str):
            return accounts
        world = self._world
        made_auth = authenticator(
            settings, accounts, loop=self._loop, clock=world.clock, entropy=world.entropy, network=world.network,
            fetcher=world.fetcher, log=self._warn,
        )
        if isinstance(made_auth, str):
            return made_auth
        made_inspectors = inspectors(name for listener in settings.listener for name in listener.inspectors)
        if isinstance(made_inspectors, str):
            if made_auth is not None:
                made_auth.close()
            return made_inspectors
        return PreparedReload(settings, tables, tls, accounts, made_auth, made_inspectors)

    def _accounts_faulty(self, path: Path, faults: tuple[UsersFileFault, ...]) -> None:
        for fault in faults:
            text = f"the old accounts stay: {placed(path, fault)}"
            self._note(Noted(self._world.clock.now_us(), 0, "error", text))

    def _warn(self, text: str) -> None:
        self._note(Noted(self._world.clock.now_us(), 0, "error", text))

    def _make_opener(self) -> Opener:
        settings = self._settings
        return Opener(
            name=settings.hostname,
            options=options.deliver_options(settings),
            network=self._world.network,
            tls=self._client_tls,
            hops=self._hops,
            credentials=self._credentials,
            programs=self._world.programs,
            clock=self._world.clock,
            loop=self._loop,
            pool=self._pool,
            busy=self._programs_busy,
            entropy=self._world.entropy,
            posix=self._world.disk.posix,
            marks=self._marks,
        )

    def _make_reporter(self) -> Reporter:
        self._rates.limits = options.report_limits(self._settings)
        return Reporter(
            options.report_options(self._settings), self._world.clock.now_us, self.spool.new_id,
            refusal=self._rates.refusal,
        )

    def _report(
        self,
        envelope: Envelope,
        outcomes: Sequence[tuple[int, Attempt]],
        *,
        delayed: bool,
        content: Content | None,
        until_us: int,
    ) -> tuple[tuple[Stored, ...], tuple[Event, ...]]:
        return self._reporter(envelope, outcomes, delayed=delayed, content=content, until_us=until_us)

    async def _hops(self, destination: Destination) -> Route | Attempt:
        return await self.tables.hops(destination, self._resolver, self._world.chance)

    def _hosts_of(self, destination: Destination, found: Callable[[tuple[str, ...]], None]) -> None:
        """The names of the hosts that serve a destination; none where they cannot be found now."""
        task = self._loop.create_task(self._hops(destination))
        self._lookups.add(task)  # the loop alone would not keep it
        task.add_done_callback(partial(self._hosts_found, found))

    def _hosts_found(
        self, found: Callable[[tuple[str, ...]], None], task: asyncio.Task[Route | Attempt]
    ) -> None:
        self._lookups.discard(task)
        broken = task.cancelled() or task.exception() is not None
        if not task.cancelled() and broken:
            _LOG.error("looking up the hosts of a destination", exc_info=task.exception())
        route = None if broken else task.result()
        found(tuple(hop.name for hop in route.hops) if isinstance(route, Route) else ())

    def _credentials(self, name: str) -> Any:
        return self.tables.credentials.get(name)

    def _listener_settings(self, settings: Settings) -> dict[Endpoint, ListenerSetup]:
        """The setting of each listener. The doors are made for it, so that all of it is of one configuration."""
        made = {}
        receive = options.receive_options(settings)
        doors = self._doors()
        sections = [listener for listener in settings.listener for _ in listener.address]
        for endpoint, section, listener in zip(
            endpoints(settings), sections, options.listener_options(settings), strict=True
        ):
            rules = self.tables.rules(options.policy_options(settings, section), listener, self._owns)
            made[endpoint] = listener_setup(
                listener, receive, self._clients.limited(rules), doors,
                tuple(self._inspectors[name] for name in listener.inspectors),
            )  # fmt: skip
        return made

    def _doors(self) -> Doors:
        tables, spool = self.tables, self.spool
        return Doors(
            loop=self._loop,
            now_us=self._world.clock.now_us,
            join=spool.arrivals.join,
            new_id=spool.new_id,
            accept=spool.accept,
            incoming=spool.incoming,
            queued=self.queue.add,
            expand=tables.expand,
            reports=self._expanded_reports,
            held=self._held,
            waiting=self.queue.wait,
            record=self.stream.record,
            log=self.stream.tell,
            admit=self._clients.admit,
            left=self._clients.left,
            offended=self._clients.offended,
            has_room=self._has_room,
            budget=self._budget,
            turns=self._turns,
            turned=self._turned,
            known=tables.known,
            members=tables.members,
            owns=self._owns,
            network=self._world.network,
            tls_context=self._tls_context,
            authenticator=self._authenticator,
            etrn=self._starter if self._starter.options.rows else None,
            marks=self._marks,
        )

    async def _count(self) -> None:
        """Has the counts follow the journal, a step at a time."""
        told = ""
        while True:
            step = self._count_step = self._loop.run_in_executor(self._pool, self.counting.step)
            try:
                more = await asyncio.shield(step)
            except Exception:
                _LOG.exception("counting")
                more = False
            if self.counting.failure and self.counting.failure != told:
                self._note(Noted(self._world.clock.now_us(), 0, "error", self.counting.failure))
            told = self.counting.failure
            if not more:
                await asyncio.sleep(COUNT_S)

    # -- doors ------------------------------------------------------------------------------------------------------

    def _tls_context(self, asking: ClientCertificatePolicy) -> ssl.SSLContext | None:
        return self._server_tls.find(asking) if self._server_tls is not None else None

    def _take_authenticator(self, authenticator: Authenticator | None) -> None:
        """From here on it is this one that listeners ask."""
        self._authenticator = authenticator
        if authenticator is not None:
            authenticator.delay_s = lambda tried: self._clients.failed(tried.address, tried.name)
            authenticator.barred = self._clients.is_barred
            authenticator.succeeded = self._clients.succeeded
            self._places.limits = authenticator.options
            authenticator.places = self._places

    def _owns(self, account: str, address: Address) -> bool:
        return self._authenticator is not None and self._authenticator.owns(account, address)

    def _note(self, event: Event) -> None:
        self.stream.tell((event,))

    def _reader_broke(self, error: Exception) -> None:
        self._loop.call_exception_handler({"message": "a reader of the stream of events", "exception": error})

    def _note_from_thread(self, event: Event) -> None:
        self._loop.call_soon_threadsafe(self._note, event)

    def _held(self, envelope: Envelope, text: str) -> tuple[Waiting, ...]:
        """All recipients of a message that a rule holds."""
        rows = []
        for place, recipient in enumerate(envelope.recipients):
            destination = self.tables.destination(recipient.address)
            key = destination.key if isinstance(destination, Destination) else ""
            rows.append(Waiting(place, envelope.accepted_us, key, held=True, text=text))
        return tuple(rows)

    def _expanded_reports(
        self, stored: Stored, given: tuple[Recipient, ...], events: tuple[Event, ...]
    ) -> tuple[tuple[Stored, ...], tuple[Event, ...]]:
        """The "expanded" DSNs for those whose aliases became several mailboxes (RFC 3461 §5.2.7.3)."""
        by_name = {str(recipient.address): recipient for recipient in given}
        reached = Attempt(Outcome.DELIVERED, Reach.RECIPIENT, "2.0.0", "the alias was expanded", transport="")
        reports = [
            RecipientReport(by_name[event.recipient], DsnAction.EXPANDED, reached, into_count=len(event.into))
            for event in events
            if isinstance(event, Expanded) and len(event.into) > 1
        ]
        return self._reporter.make(reports, stored.envelope, stored.content)

    # -- reload -----------------------------------------------------------------------------------------------------

    def prepare(self, settings: Settings) -> str:
        """Make ready for new settings. "" or why they cannot be taken."""
        prepared = self._make(settings)
        if isinstance(prepared, str):
            self._drop_prepared()
            return prepared
        self._prepared = prepared
        return ""

    def abandon(self) -> None:
        self._drop_prepared()

    def _drop_prepared(self) -> None:
        prepared, self._prepared = self._prepared, None
        if prepared is not None and prepared.authenticator is not None:
            prepared.authenticator.close()

    async def commit(self, sockets: dict[Endpoint, socket.socket]) -> None:
        """Take what was prepared; sessions and connections go on. `sockets`: those of new endpoints."""
        prepared, self._prepared = self._prepared, None
        if prepared is None:
            return
        settings = self._settings = prepared.settings
        self.tables = prepared.tables
        self._server_tls = prepared.server_tls
        self._accounts = prepared.accounts
        self._inspectors = prepared.inspectors
        self._clients.options = options.client_options(settings)
        self._budget.most = settings.limits.content_memory_max
        self._tally.resize(options.window_lengths_s(settings))
        self._client_tls = ClientTls(options.client_tls_options(settings))
        self._resolver = self._world.resolver(options.dns_options(settings))
        self._opener = self._make_opener()
        self._reporter = self._make_reporter()
        self.queue.renew(options.queue_options(settings), self.tables.destination, options.pace_table(settings))
        self._starter.options, self._starter.routing = options.etrn_options(settings), self.tables.routing
        self.queue.refine = self.tables.refined
        before = self._authenticator
        if before is not None and prepared.authenticator is not None:
            prepared.authenticator.follow(before)
        self._take_authenticator(prepared.authenticator)
        if before is not None:  # exchanges under way with it end by themselves, those with Dovecot in a 454
            before.close()
        self._log.renew(options.log_options(settings))
        wanted = self._listener_settings(settings)
        if self._submissions is not None:
            self._submissions.setup = self._submit_setup()
        for endpoint in [endpoint for endpoint in self._listeners if endpoint not in wanted]:
            listener = self._listeners.pop(endpoint)
            self._close_listener(listener, settings.shutdown_s)
        for endpoint, listener in self._listeners.items():
            if listener.renew(wanted[endpoint]):
                await listener.serve_again(BACKLOG)
        for endpoint, sock in sockets.items():
            listener = Listener(wanted[endpoint])
            self._listeners[endpoint] = listener
            await listener.serve(sock, BACKLOG)

    def _close_listener(self, listener: Listener, limit_s: float) -> None:
        task = self._closing[listener] = self._loop.create_task(listener.stop(limit_s, "the listener was removed"))
        task.add_done_callback(lambda _: self._closing.pop(listener, None))

    def look(self) -> None:
        """Files that change by themselves: certificates, accounts, aliases, recipients; keys that grow old."""
        if self._server_tls is not None:
            self._server_tls.rotate(self._loop.time(), self._ticket_secret())
            reloaded = self._server_tls.reload()
            for problem in reloaded.problems:
                self._note(Noted(self._world.clock.now_us(), 0, "error", f"the old certificates stay: {problem}"))
            if reloaded.taken:
                self._note(Noted(self._world.clock.now_us(), 0, "info", "new certificates are in force"))
        if self._accounts is not None:
            self._accounts.refresh()
        self._look_at_tables()

    def _look_at_tables(self) -> None:
        now_us, refused = self._world.clock.now_us(), self.tables.aliases_refused
        problems = self.tables.look()
        for problem in problems:
            self._note(Noted(now_us, 0, "error", str(problem)))
        if problems and self.tables.aliases_refused:
            self._note(Noted(now_us, 0, "error", "the old aliases stay in force until the alias file is correct"))
        elif refused and not self.tables.aliases_refused:
            self._note(Noted(now_us, 0, "info", "the changed aliases are in force"))

    # -- what holds for the whole node ------------------------------------------------------------------------------

    def hear(self, told: TallyFrame) -> None:
        """What the other workers have counted."""
        self._tally.hear(told, self._world.clock.now_us())

    def banned(self) -> None:
        """Clients are banned that were not (`bans`): their sessions end."""
        for listener in (*self._listeners.values(), *self._closing):
            listener.turn_out(self._clients.is_banned)

    def forget(self, keys: tuple[str, ...]) -> None:
        self._tally.forget(keys)

    # -- operators --------------------------------------------------------------------------------------------------

    def operate(self, request: OperatorRequest, done: Callable[[list[OperatorResult]], None]) -> None:
        """What an operator wants done to the queue; `done` gets rows."""
        self._operator.operate(request, done)

    def start_queue(self, wish: Wish, by: str, done: Callable[[int | None], None]) -> None:
        """A client of one of the workers wants a queue started (ETRN); `done` gets the count of its messages here, or
        None."""
        self._starter.start(wish, by, done)

    def _ask_itself(self, wish: Wish, by: str, done: Counted) -> None:
        self.start_queue(wish, by, lambda count: done([count]))

    def activity(self) -> Activity:
        return Activity(
            number=self.number,
            sessions=self._clients.sessions,
            in_memory=self.queue.in_memory,
            carrying=self.queue.carrying,
            left_alone=tuple(LeftAlone(key, *trouble) for key, trouble in self.queue.troubles().items()),
            counts=self.counting.counts(),
            readers_missed=tuple(self.spool.missed()),
            history_behind=tuple(
                HistoryBehind(each.shard, each.since_us, each.why) for each in self.historian.backlog()
            ),
        )
