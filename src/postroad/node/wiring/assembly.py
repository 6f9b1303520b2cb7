"""The wiring of one worker: every room's doors are made here, and only here.

`Assembly` is all that a worker does, without the process around it, so a simulation can build one with a `World` of its
own. What always holds: the settings come as an `Edition`, at the start and at each reload; each room takes its part of
it by its `take`, and in no other way. A reload is first prepared, which may fail, and then committed, which cannot.
"""

from __future__ import annotations

import asyncio
import logging
import ssl
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeVar

from msgspec import structs

from postroad.accounts.accounts import UsersFileFault
from postroad.accounts.authenticate import Authenticator
from postroad.accounts.places import Places
from postroad.accounts.sender_maps import MaySend
from postroad.check.bans import Bans
from postroad.check.client import Clients
from postroad.check.fitting import fitting
from postroad.check.origin import OriginInspector
from postroad.check.policy import PolicyOptions
from postroad.check.reports import ReportRates
from postroad.check.tally import Tally, TallyFrame
from postroad.config import options
from postroad.deliver.opener import Opener
from postroad.deliver.quota import QuotaTable
from postroad.deliver.room import is_full
from postroad.deliver.signing import Signing
from postroad.deliver.stream import as_it_leaves
from postroad.mail.address import Address
from postroad.mail.attempt import Attempt
from postroad.mail.envelope import Envelope, Recipient
from postroad.mail.event import Event, Noted
from postroad.mail.loop import Marks
from postroad.mail.policy import Inspector, Role, Rules
from postroad.mail.report import RecipientReport, of_expansion
from postroad.mail.route import Destination, Route
from postroad.mail.routing import key_of
from postroad.mail.size_limits import SizeLimits
from postroad.mail.tls_policy import no_sts
from postroad.node.frames import FetchSts, Frame, StsChanged, StsTold
from postroad.node.offices.etrn import Ask, Counted, QueueStarter
from postroad.node.sockets import BACKLOG, Endpoint
from postroad.node.wiring import report_way
from postroad.node.wiring.asking import NextHopQuestions
from postroad.node.wiring.authentication import placed
from postroad.node.wiring.edition import Edition, ListenerPart, make
from postroad.node.wiring.feedback import FeedbackReports
from postroad.node.wiring.fitting import Fitting
from postroad.node.wiring.keys import WorkerKeys
from postroad.node.wiring.machine_doors import MachineDoors
from postroad.node.wiring.room import DescriptorRoom
from postroad.node.wiring.secret import node_secret
from postroad.node.wiring.sending import Reached, Sending, Tell
from postroad.node.wiring.sts import WorkerSts
from postroad.node.wiring.tables import Tables
from postroad.node.wiring.world import World
from postroad.operate.operator import Operator, OperatorRequest, OperatorResult
from postroad.operate.requests import Activity, HistoryBehind, LeftAlone
from postroad.protocol.etrn import Wish
from postroad.queue.queue import Permits, Queue
from postroad.receive.budget import NO_MEMORY, Budget
from postroad.receive.doors import Doors, Knowing, Limiting, Storing
from postroad.receive.listener import Listener
from postroad.receive.options import ListenerOptions
from postroad.receive.refusal_notes import SEVERAL, RefusalNotes
from postroad.receive.setup import ListenerSetup, listener_setup
from postroad.receive.turns import Turns
from postroad.report.counting import Counting
from postroad.report.dsn import Reporter
from postroad.report.failure_sending import FailureDoors, FailureReports
from postroad.report.log import Log
from postroad.report.stream import Stream
from postroad.store.face import HISTORY, READERS, SpoolError
from postroad.store.kept_reports import ReportStore
from postroad.store.sqlite.history import Historian
from postroad.store.sqlite.journal import SqliteJournal
from postroad.store.sqlite.spool import SqliteSpool
from postroad.store.values import Stored, Waiting
from postroad.trust.asking import DnsQuestions
from postroad.world.system import file_limit
from postroad.world.tls import ClientCertificatePolicy

if TYPE_CHECKING:
    import socket

    from postroad.config.settings import Settings

T = TypeVar("T")
FILE_THREADS: Final = 4  # threads that write Maildirs and read large content
CLOSE_MAPS_S: Final = 900.0  # after a reload, until maps that it removed are closed
COUNT_S: Final = 5.0  # between two times at which the counts are kept
OUTCOMES_S: Final = 1.0  # for the outcomes of programs that were ended at shutdown to be committed
_LOG: Final = logging.getLogger("postroad")


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
        tell_sent: Tell = lambda told: None,
        limit_reached: Reached = lambda key, text: None,
        ask_all: Ask | None = None,
        ticket_secret: Callable[[], bytes] = lambda: b"",
        bans: Bans | None = None,
        ask_sts: Callable[[Frame], None] | None = None,
    ) -> None:
        """`bans`: those in force, which the caller keeps. `ask_sts`: to the office of MTA-STS policies; None: nobody
        asks for such policies."""
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
        self._ticket_secret = ticket_secret  # the node's, as it is now; b"" if there is none
        self._listeners: dict[Endpoint, Listener] = {}
        self._closing: dict[Listener, asyncio.Task[None]] = {}  # removed: their sessions come to an end
        self._counts: asyncio.Task[None] | None = None
        self._count_step: asyncio.Future[bool] | None = None
        self._lookups: set[asyncio.Task[Route | Attempt]] = set()
        self._edition: Edition  # in force
        self._prepared: Edition | None = None
        self._tables: Tables | None = None  # those in force, once there are any
        self._bans = bans
        self._tell_counts = tell
        self._tell_sent, self._limit_reached = tell_sent, limit_reached
        self._turns = Turns()
        self._turned = RefusalNotes(SEVERAL)
        self._authenticator: Authenticator | None = None
        self._quotas = QuotaTable()
        self._questions: NextHopQuestions | None = None  # None: no recipient is asked about
        self._pool = ThreadPoolExecutor(FILE_THREADS, thread_name_prefix="files")
        self._sts = WorkerSts(ask_sts, world.clock.now_us, loop, world.fetcher) if ask_sts is not None else None
        self.local = MachineDoors(
            world=world, loop=loop, pool=self._pool, edition=lambda: self._edition, setup=self._submit_setup,
            say=self._note_text, say_once=self._note_once,
        )
        self.keys = WorkerKeys(world.clock.now_us, self._in_background, self._note_once)
        self.spool: SqliteSpool
        self.queue: Queue
        self.historian: Historian
        self.counting: Counting

    # -- start and stop -------------------------------------------------------------------------------------------

    async def start(self, sockets: dict[Endpoint, socket.socket]) -> str:
        """Open everything and begin to serve. "" or what is wrong."""
        edition = self._make(self._settings)
        if isinstance(edition, str):
            self.misconfigured = True
            return edition
        self._edition = edition
        try:
            self._open_spool(self._settings)
        except SpoolError as error:
            return str(error)
        self._make_rooms(edition)
        await self.local.recover(self.spool, self._shards)
        await self.take(edition, sockets, begin=self._begin)
        return ""

    def _open_spool(self, settings: Settings) -> None:
        """Opens what is taken at the start only. Raises SpoolError."""
        world, state_dir = self._world, Path(settings.state_dir)
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
            quickness=world.disk.quickness,
        )
        self.stream.keep = self.spool.record
        self.spool.start()
        self._journal = SqliteJournal(state_dir / "spool", self.spool)
        self.counting = Counting(
            state_dir / "counts", self._journal, world.clock, self._loop.time, leader=HISTORY.name
        )
        self.historian = Historian(
            state_dir / "spool",
            state_dir / "history",
            self.spool,
            options.history_options(settings),
            world.clock,
            log=self._note_from_thread,
            on_moved=self.counting.on_moved,
        )

    def _make_rooms(self, edition: Edition) -> None:
        """Makes all rooms, each once. `take` gives them their settings."""
        world, loop = self._world, self._loop
        self._kept_reports = ReportStore(
            Path(edition.settings.state_dir) / "history", edition.deliver.reports.kept,
            lambda text: self._note_from_thread(Noted(world.clock.now_us(), 0, "error", text)),
        )
        self._has_room = DescriptorRoom(file_limit(), edition.files_reserved)
        self._tally = Tally(edition.windows_s, self._tell_counts, loop.call_later)
        self._rates = ReportRates(edition.report_limits, self._tally)
        self._budget = Budget(edition.content_memory_max)
        self._clients = Clients(edition.clients, self._tally, self._bans, world.clock.now_us)
        self._places = Places(edition.auth, self._clients.names_of, self._clients.is_known)
        self._sizes = SizeLimits(edition.deliver.size_memory_s, loop.time)
        self._reporter = Reporter(
            edition.report, world.clock.now_us, self.spool.new_id, refusal=self._rates.refusal,
            expand=lambda id, now_us, recipients: report_way.expand(self.tables, id, now_us, recipients),
        )
        self._signing = Signing(
            clock=world.clock, loop=loop, pool=self._pool,
            pieces=lambda form: as_it_leaves(
                form.envelope, form.content, self._edition.deliver.piece_size, form.plan, form.line_max
            ),
        )
        self.keys.on_change = lambda: self._signing.take_stored(self.keys.domains)
        self._opener = Opener(
            name=edition.hostname,
            options=edition.deliver,
            network=world.network,
            tls=edition.client_tls,
            hops=self._hops,
            credentials=self._credentials,
            programs=world.programs,
            make_link=world.http_link,
            clock=world.clock,
            loop=loop,
            pool=self._pool,
            entropy=world.entropy,
            posix=world.disk.posix,
            marks=self._marks,
            porter=world.porter,
            sizes=self._sizes,
            ways_out=lambda destination: self.tables.way_out(destination),
            kept_reports=self._kept_reports,
            signing=self._signing,
        )
        self.queue = Queue(
            spool=self.spool,
            options=edition.queue,
            clock=world.clock,
            random=world.chance,
            destination_of=edition.tables.destination,
            outbound=edition.tables.outbound,
            opener=self._opener,
            permits=self._permits,
            report=self._reporter,
            stream=self.stream,
            loop=loop,
            pace=edition.pace,
            hosts_of=self._hosts_of,
            openings=self._opener.doing,
        )
        self._operator = Operator(
            spool=self.spool,
            shards=self._shards,
            report=self._reporter,
            destination_of=lambda envelope, recipient: self.tables.destination(envelope, recipient),
            clock=world.clock,
            withdraw=self.queue.withdraw,
            changed=self.queue.changed,
            add=self.queue.add,
            tell=self.stream.tell,
        )
        self.sending = Sending(
            tell=self._tell_sent,
            reached=self._limit_reached,
            later=loop.call_later,
            now_us=world.clock.now_us,
            new_id=self.spool.new_id,
            accept=self.spool.accept,
            queued=self.queue.add,
            log=self._note,
        )
        self._failures = FailureReports(
            FailureDoors(
                names=lambda: DnsQuestions(self._edition.resolver), new_id=self.spool.new_id, accept=self.spool.accept,
                queued=self.queue.add, log=self._note_level,
                secret=node_secret(Path(edition.settings.state_dir), world.entropy),
            ),
            edition.feedback,
        )  # fmt: skip
        self.feedback: FeedbackReports | None = None
        if self.number == 0:
            self.feedback = FeedbackReports(
                world=world, loop=loop, state_dir=Path(edition.settings.state_dir),
                resolver=lambda: self._edition.resolver, new_id=self.spool.new_id, accept=self.spool.accept,
                queued=self.queue.add, log=self._note_level,
            )
        self._starter = QueueStarter(
            options=edition.etrn,
            routing=edition.tables.routing,
            spool=self.spool,
            operator=self._operator,
            ask=self._ask_all or self._ask_itself,
            now=loop.time,
            later=loop.call_later,
        )

    def _begin(self) -> None:
        """Begins everything that must run before a client is let in."""
        self.queue.start(self._shards)
        if self._world.disk.threads:
            self.historian.start()
            self._counts = self._loop.create_task(self._count())

    # -- the settings, at the start and at each reload -----------------------------------------------------------------

    async def take(
        self, edition: Edition, sockets: dict[Endpoint, socket.socket], begin: Callable[[], None] = lambda: None
    ) -> None:
        """Has every room take its part of the edition; sessions, connections and counts go on. `sockets`: those of
        new endpoints; `begin` is called before the listeners take theirs."""
        self._edition = edition
        self._take_tables(edition.tables)
        self.keys.take(edition.keys.folder)
        self._take_questions(edition)
        self._log.take(edition.log)
        self._has_room.take(edition.files_reserved)
        self._tally.take(edition.windows_s)
        self._rates.take(edition.report_limits)
        self._budget.take(edition.content_memory_max)
        self._clients.take(edition.clients)
        self._places.take(edition.auth)
        self.sending.take(edition.sending, edition.tables.sending_maps, edition.report)
        self._take_authenticator(edition.authenticator)
        self._reporter.take(edition.report)
        if self._sts is not None:
            self._sts.take(edition.sts, edition.resolver)
        self._signing.take(edition.dkim, edition.signing_keys)
        self._signing.take_stored(self.keys.domains)
        signs = edition.signing_keys is not None
        self._opener.take(edition.hostname, edition.deliver, edition.client_tls, signs=signs)
        self._sizes.take(edition.deliver.size_memory_s)
        self.queue.take(edition.queue, edition.tables.destination, edition.pace, edition.tables.outbound)
        self._starter.take(edition.etrn, edition.tables.routing)
        begin()
        self._failures.take(edition.feedback)
        if self.feedback is not None:
            self.feedback.take(edition.feedback)
        await self._take_listeners(edition, sockets)

    def _take_tables(self, tables: Tables) -> None:
        before, self._tables = self._tables, tables
        if before is not None:  # transactions under way go on with them
            self._loop.call_later(CLOSE_MAPS_S, before.maps.close, tables.maps)

    def _take_questions(self, edition: Edition) -> None:
        """Recipients about whom next hops are asked."""
        if self._questions is None and edition.tables.verifies:
            self._questions = NextHopQuestions(
                edition.verify, Path(edition.settings.state_dir), opener=self._opener, permits=self._permits,
                destination_of=lambda envelope, recipient: self.tables.destination(envelope, recipient),
                scopes_of=lambda destination: self._edition.pace.of(destination).scopes,
                now_us=self._world.clock.now_us, loop=self._loop, log=self._note_level, tally=self._tally,
            )
        if self._questions is not None:
            self._questions.take(edition.verify)
            edition.tables.ask_next_hop = self._questions.ask
        if edition.tables.room is not None:
            edition.tables.room.is_full = partial(self._is_full, edition)

    async def _is_full(self, edition: Edition, address: Address, size: int) -> bool:
        """Whether the Maildir of a mailbox of ours has no room for so many octets."""
        mailbox = edition.tables.routing.home(address)
        destination = edition.tables.destination(Envelope(0, None, (), 0, 0), Recipient(mailbox))
        if not isinstance(destination, Destination | Attempt):
            destination = await destination
        if isinstance(destination, Attempt):
            return False
        look = partial(
            is_full, destination, mailbox, size, self._world.clock.now_us(), edition.deliver.maildir,
            self._world.disk.posix, self._quotas,
        )  # fmt: skip
        return await self._loop.run_in_executor(self._pool, look)

    def _note_level(self, level: str, text: str) -> None:
        self._note(Noted(self._world.clock.now_us(), 0, level, text))

    async def _take_listeners(self, edition: Edition, sockets: dict[Endpoint, socket.socket]) -> None:
        setups = self._setups(edition)
        self.local.take(edition)
        for endpoint in [endpoint for endpoint in self._listeners if endpoint not in setups]:
            self._close_listener(self._listeners.pop(endpoint), edition.shutdown_s)
        for endpoint, listener in self._listeners.items():
            if listener.take(setups[endpoint]):
                await listener.serve_again(BACKLOG)
        for endpoint, sock in sockets.items():
            listener = self._listeners[endpoint] = Listener(setups[endpoint])
            await listener.serve(sock, BACKLOG)

    def _close_listener(self, listener: Listener, limit_s: float) -> None:
        task = self._closing[listener] = self._loop.create_task(listener.stop(limit_s, "the listener was removed"))
        task.add_done_callback(lambda _: self._closing.pop(listener, None))

    def _take_authenticator(self, authenticator: Authenticator | None) -> None:
        """Replaces the authenticator that listeners ask. What the old one has remembered goes on."""
        before, self._authenticator = self._authenticator, authenticator
        if authenticator is not None:
            authenticator.delay_s = lambda tried: self._clients.failed(tried.address, tried.name)
            authenticator.barred = self._clients.is_barred
            authenticator.succeeded = self._clients.succeeded
            authenticator.places = self._places
            if before is not None:
                authenticator.follow(before)
        if before is not None:  # exchanges under way with it end by themselves, those with Dovecot in a 454
            before.close()

    def _setups(self, edition: Edition) -> dict[Endpoint, ListenerSetup]:
        """The setup of each listener. The doors are made for it, so that all of it is of one edition."""
        doors = self._doors()
        return {
            part.endpoint: listener_setup(
                part.listener,
                edition.receive,
                self.sending.limits.limited(
                    self._clients.limited(self._rules(edition.tables, part.policy, part.listener))
                ),
                doors,
                self._inspectors(edition, part),
            )
            for part in edition.listeners
        }

    def _inspectors(self, edition: Edition, part: ListenerPart) -> tuple[Inspector, ...]:
        """Those of a listener. The checks where mail comes from see it as it came."""
        named = tuple(edition.inspectors[name] for name in part.inspectors)
        if not part.checks.wanted:
            return named
        origin = OriginInspector(
            part.checks, edition.origin, edition.resolver, self._world.clock.now_us, self.stream.record,
            self._failures if edition.feedback.tells_failures else None,
        )  # fmt: skip
        return origin, *named

    def _submit_setup(self, edition: Edition, name: str) -> ListenerSetup:
        """How mail of this machine is taken."""
        fields = edition.local
        listener = ListenerOptions(
            name, role=Role.SUBMISSION, trusted_networks=("unix",), remove_fields=fields.remove_fields,
            replace_fields=fields.replace_fields, add_fields=fields.add_fields,
        )  # fmt: skip
        rules = self.sending.limits.limited(self._rules(edition.tables, edition.submit, listener))
        return listener_setup(listener, edition.receive, rules, self._doors())

    def _rules(self, tables: Tables, policy: PolicyOptions, listener: ListenerOptions) -> Rules:
        """The rules of a listener. Behind those for recipients stands the question whether the message fits."""
        rules = tables.rules(policy, listener, self._may_send)
        return structs.replace(rules, rcpt=fitting(rules.rcpt, self._sizes, Fitting(self._sizes, tables).at_rcpt))

    def prepare(self, settings: Settings) -> str:
        """Makes the next edition. "" or why it cannot be taken."""
        self.abandon()
        edition = self._make(settings)
        if isinstance(edition, str):
            return edition
        self._prepared = edition
        return ""

    def abandon(self) -> None:
        """Drops what was prepared."""
        prepared, self._prepared = self._prepared, None
        if prepared is not None:
            prepared.close()
            prepared.tables.maps.close(self.tables.maps)

    async def commit(self, sockets: dict[Endpoint, socket.socket]) -> None:
        """Takes what was prepared. `sockets`: those of new endpoints."""
        prepared, self._prepared = self._prepared, None
        if prepared is not None:
            await self.take(prepared, sockets)

    def _make(self, settings: Settings) -> Edition | str:
        return make(
            settings,
            world=self._world,
            loop=self._loop,
            ticket_secret=self._ticket_secret(),
            faulty=self._accounts_faulty,
            warn=self._warn,
            tell=self._note_once,
            note=self._note_text,
            note_from_thread=self._note_once_from_thread,
            before=self._tables,
        )

    @property
    def tables(self) -> Tables:
        """Those in force."""
        return self._edition.tables

    async def stop(self, limit_s: float) -> None:
        """Lets no new session in. What is under way ends within the limit; the rest stays in the spool."""
        self.local.close()
        # At the same time, so that all is over within the limit, after which the supervisor ends us. What sessions
        # still accept stays in the spool, and so do our own reports: a large one takes seconds to make.
        own = [self._failures.close(), *(() if self.feedback is None else (self.feedback.stop(),))]
        sessions = [listener.stop(limit_s) for listener in (*self._listeners.values(), *self._closing)]
        others = self.local.stop(limit_s)
        quiet, *_ = await asyncio.gather(self.queue.drain(limit_s), *sessions, *others, *own, return_exceptions=True)
        if quiet is not True:
            self._note(Noted(self._world.clock.now_us(), 0, "warning", "some deliveries did not end in time"))
            await self._opener.end_programs()
            await self.queue.drain(OUTCOMES_S)
        if self._questions is not None:
            await self._questions.close()
        self._opener.cancel()
        if self._sts is not None:
            self._sts.close()
        await self._loop.run_in_executor(None, self._kept_reports.close)
        if self._counts is not None:
            self._counts.cancel()
            await asyncio.wait([self._counts])
        if self._count_step is not None:
            await asyncio.wait([self._count_step])
        await self._loop.run_in_executor(None, self.historian.close)
        await self._loop.run_in_executor(None, self.counting.step)
        self._journal.close()
        if self._authenticator is not None:
            self._authenticator.close()
        self.spool.close()
        self.tables.maps.close()
        self._log.flush()

    def _accounts_faulty(self, path: Path, faults: tuple[UsersFileFault, ...]) -> None:
        for fault in faults:
            self._note_once("error", f"the old accounts stay: {placed(path, fault)}")

    def _warn(self, text: str) -> None:
        self._note(Noted(self._world.clock.now_us(), 0, "error", text))

    async def _hops(self, destination: Destination) -> Route | Attempt:
        return await self.tables.hops(destination, self._edition.resolver, self._world.chance, self._sts or no_sts)

    def _hosts_of(self, destination: Destination, found: Callable[[tuple[str, ...]], None]) -> None:
        """The names of the hosts that serve a destination; none if they cannot be found now."""
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

    def _doors(self) -> Doors:
        tables, spool = self.tables, self.spool
        return Doors(
            loop=self._loop,
            now_us=self._world.clock.now_us,
            record=self.stream.record,
            log=self.stream.tell,
            network=self._world.network,
            tls_context=self._tls_context,
            storing=Storing(
                join=spool.arrivals.join,
                new_id=spool.new_id,
                accept=spool.accept,
                incoming=spool.incoming,
                queued=self.queue.add,
                reports=self._expanded_reports,
                held=self._held,
                waiting=self.queue.wait,
                report=self._refused_reports,
            ),
            knowing=Knowing(
                expand=tables.expand,
                known=tables.verified,
                members=tables.members,
                owns=self._owns,
                sends_as=self._may_send,
                authenticator=self._authenticator,
                etrn=self._starter if self._starter.options.rows else None,
                sizes=self._sizes,
                exceeded=Fitting(self._sizes, tables).of_message,
                marks=self._marks,
                rewrite=tables.rewriter,
                is_here=tables.is_here,
            ),
            limiting=Limiting(
                admit=self._clients.admit,
                left=self._clients.left,
                offended=self._clients.offended,
                has_room=self._has_room,
                budget=self._budget,
                turns=self._turns,
                turned=self._turned,
                sent=self.sending.limits.count if self.sending.limits.is_on else None,
                over=self.sending.limits.over if self.sending.limits.is_on else None,
            ),
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
        tls = self._edition.server_tls
        return tls.find(asking) if tls is not None else None

    def _owns(self, account: str, address: Address) -> bool:
        """As far as it is known at once."""
        if self._authenticator is not None and self._authenticator.owns(account, address):
            return True
        maps = self.tables.sender_maps
        return maps is not None and maps.owns_now(account, address)

    def _may_send(self, account: str, address: Address) -> MaySend:
        if self._authenticator is not None and self._authenticator.owns(account, address):
            return True
        maps = self.tables.sender_maps
        return False if maps is None else maps.owns(account, address)

    def _note(self, event: Event) -> None:
        self.stream.tell((event,))

    def _reader_broke(self, error: Exception) -> None:
        self._loop.call_exception_handler({"message": "a reader of the stream of events", "exception": error})

    def _note_text(self, level: str, text: str) -> None:
        """Logs what only this worker has found."""
        self._note(Noted(self._world.clock.now_us(), 0, level, text))

    def _note_once(self, level: str, text: str) -> None:
        """Logs what all workers find by themselves, because they read the same files: only the first worker logs it."""
        if self.number == 0:
            self._note_text(level, text)

    def _note_from_thread(self, event: Event) -> None:
        self._loop.call_soon_threadsafe(self._note, event)

    def _note_once_from_thread(self, level: str, text: str) -> None:
        self._loop.call_soon_threadsafe(self._note_once, level, text)

    def _held(self, envelope: Envelope, text: str) -> tuple[Waiting, ...]:
        """All recipients of a message that a rule holds."""
        rows = []
        for place, recipient in enumerate(envelope.recipients):
            key = key_of(self.tables.destination(envelope, recipient))
            rows.append(Waiting(place, envelope.accepted_us, key, held=True, text=text))
        return tuple(rows)

    def _expanded_reports(
        self, stored: Stored, given: tuple[Recipient, ...], events: tuple[Event, ...]
    ) -> tuple[tuple[Stored, ...], tuple[Event, ...]]:
        return self._reporter.make(of_expansion(given, events), stored.envelope, stored.content)

    def _refused_reports(
        self, reports: Sequence[RecipientReport], stored: Stored, new_id: Callable[[int], int] | None = None
    ) -> tuple[tuple[Stored, ...], tuple[Event, ...]]:
        return self._reporter.make(reports, stored.envelope, stored.content, new_id)

    # -- now and then ------------------------------------------------------------------------------------------------

    def look(self) -> None:
        """Looks at files that change by themselves (certificates, accounts, aliases, recipients), and at keys that
        grow old."""
        tls, accounts = self._edition.server_tls, self._edition.accounts
        if tls is not None:
            tls.rotate(self._loop.time(), self._ticket_secret())
            reloaded = tls.reload()
            for problem in reloaded.problems:
                self._note_once("error", f"the old certificates stay: {problem}")
            if reloaded.taken:
                self._note_once("info", "new certificates are in force")
        if accounts is not None:
            accounts.refresh()
        self._signing.look()
        self.local.look()
        self.keys.look()
        self._look_at_tables()

    def _look_at_tables(self) -> None:
        self.tables.maps.look(self._in_background)
        refused = self.tables.aliases_refused
        problems = self.tables.look()
        for problem in problems:
            self._note_once("error", str(problem))
        if problems and self.tables.aliases_refused:
            self._note_once("error", "the old aliases stay in force until the alias file is correct")
        elif refused and not self.tables.aliases_refused:
            self._note_once("info", "the changed aliases are in force")

    def _in_background(self, work: Callable[[], T], done: Callable[[T], None]) -> None:
        """Reads a file on a thread, and hands it to the loop."""
        if not self._world.disk.threads:
            done(work())
            return
        future = self._loop.run_in_executor(self._pool, work)
        future.add_done_callback(lambda read: done(read.result()) if not read.cancelled() else None)

    # -- what holds for the whole node ------------------------------------------------------------------------------

    def hear(self, told: TallyFrame) -> None:
        """Takes the counts of the other workers."""
        self._tally.hear(told, self._world.clock.now_us())

    def hear_sts(self, frame: StsTold | StsChanged | FetchSts) -> None:
        """Takes what the office of MTA-STS policies says."""
        if self._sts is not None:
            self._sts.hear(frame)

    def banned(self) -> None:
        """Ends the sessions of clients that have just been banned (`bans`)."""
        for listener in (*self._listeners.values(), *self._closing):
            listener.turn_out(self._clients.is_banned)

    def forget(self, keys: tuple[str, ...]) -> None:
        self._tally.forget(keys)

    # -- operators --------------------------------------------------------------------------------------------------

    def operate(self, request: OperatorRequest, done: Callable[[list[OperatorResult]], None]) -> None:
        """Does what an operator wants done to the queue; `done` gets the results."""
        self._operator.operate(request, done)

    def start_queue(self, wish: Wish, by: str, done: Callable[[int | None], None]) -> None:
        """Starts a queue because a client of one of the workers wants it (ETRN). `done` gets the count of its
        messages in this worker, or None."""
        self._starter.start(wish, by, done)

    def _ask_itself(self, wish: Wish, by: str, done: Counted) -> None:
        self.start_queue(wish, by, lambda count: done([count]))

    def activity(self) -> Activity:
        return Activity(
            number=self.number,
            sessions=self._clients.sessions,
            sessions_admitted=self._clients.admitted,
            in_memory=self.queue.status.in_memory,
            carrying=self.queue.status.carrying,
            left_alone=tuple(LeftAlone(key, *trouble) for key, trouble in self.queue.status.troubles().items()),
            counts=self.counting.counts(),
            readers_missed=tuple(self.spool.missed()),
            refuses=self.spool.refuses() or (NO_MEMORY if self._budget.spent else ""),
            maps=self.tables.maps.counts(),
            history_behind=tuple(
                HistoryBehind(each.shard, each.since_us, each.why) for each in self.historian.backlog()
            ),
        )
