"""The supervisor: binds, drops privileges, starts one worker per core, and stops them.

It carries no mail. It has parts for what must hold for the whole node, and brings each frame of a worker to its part:
the offices (`node.offices`) count, `Workers` starts processes again, `Reloading` takes a changed configuration,
`Control` answers operators. Workers are separate programs joined by a `Link`; each inherits its own listening sockets
and owns its shards of the spool.

What always holds: one node per state folder (`node.state_dir`); a worker that dies is started again and takes up its
shards; a configuration that is not valid as a whole changes nothing. How it fails: without its supervisor a worker ends
by itself; what it had accepted is in the spool.

Exit codes: 0 stopped as asked, 1 could not start, 78 the configuration is wrong.
"""

from __future__ import annotations

import asyncio
import os
import random
import signal
import socket
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, assert_never

from postroad import __version__
from postroad.check.banning import BanRequest, BanResult
from postroad.check.bans import Ban
from postroad.config import options
from postroad.config.carried import to_plain
from postroad.config.document import in_force
from postroad.mail.numbers import counted
from postroad.node import local_folder, porter_process
from postroad.node.control import Control
from postroad.node.frames import (
    ActivityTold,
    Alive,
    AskPermits,
    AskSts,
    AskTokens,
    FromWorker,
    KeysChanged,
    KeysTaken,
    Leaving,
    LimitReached,
    MapUse,
    Misconfigured,
    NoticeWanted,
    OpeningFailed,
    Operated,
    Paces,
    Prepared,
    QueueCounted,
    QueueStarted,
    Ready,
    ReleasePermit,
    SendingTold,
    Start,
    StartQueue,
    StsFetchDone,
    Succeeded,
    Synced,
    TallyTold,
    TicketSecretTold,
)
from postroad.node.loaded import LoadedConfiguration
from postroad.node.offices.guard import Guard
from postroad.node.offices.keys import KeyOffice
from postroad.node.offices.pacing import Ask, PaceReport
from postroad.node.offices.permits import PermitOffice
from postroad.node.offices.rates import RateOffice
from postroad.node.offices.sending import SendingOffice
from postroad.node.offices.sts import StsOffice
from postroad.node.offices.tickets import TicketSecret
from postroad.node.porter_process import PorterProcess
from postroad.node.questions import WorkerQuestions
from postroad.node.reloading import Load, Reloading
from postroad.node.sockets import LOCAL, ListeningSockets, Locate, endpoints
from postroad.node.state_dir import NodeLock, Say, make_folders, owner_of, shards_on_disk
from postroad.node.watchdog import BEAT_S, Watchdog
from postroad.node.workers import Worker, Workers, not_run
from postroad.operate import routes
from postroad.operate.requests import KeysSummary, LimitsAsked, Listening, NodeStatus, Paced, RouteQuestion, SentCount
from postroad.queue.pace import ScopeLimits
from postroad.store.sts import NAME as STS_STORE
from postroad.store.sts import StsStore
from postroad.world import system
from postroad.world.clock import SystemClock
from postroad.world.dns import DnsResolver
from postroad.world.problem import Problem

if TYPE_CHECKING:
    from postroad.config.settings import Settings

READY_S: Final = 60.0
OPEN_FILES: Final = 65_536
REMIND_S: Final = 1.0  # how often workers that hold permits hear of others that wait for one
_KILL_S: Final = 5.0  # workers that have not ended so long after `shutdown_s` are killed

Renew = Callable[["Settings"], None]  # what is said from here on is said as these settings want it


class Supervisor:
    """See the module. `load` reads and validates the configuration again: settings, or the problems as lines. `path`:
    of its file."""

    def __init__(
        self, settings: Settings, load: Load, say: Say, locate: Locate, renew: Renew, path: Path | None = None
    ) -> None:
        self._say = say
        self._renew_log = renew
        self._started_us = _now_us()
        self._pace = options.pace_table(settings)
        self._porter: PorterProcess | None = None  # delivers as other users
        self._lock = NodeLock(Path(settings.state_dir) / "run" / "node.lock", say)
        self._workers = Workers(
            inherited=lambda: self._lock.descriptor,
            porter=lambda: () if self._porter is None else (self._porter.descriptor,),
            on_started=self._on_started,
            on_frame=self._on_frame,
            on_link_ended=self._on_link_ended,
            on_ended=lambda worker: self._watchdog.forget(worker.number),
            say=say,
        )
        self._questions = WorkerQuestions(self._workers.send, self._ready)
        self._sockets = ListeningSockets(locate)
        self._manager = system.ServiceManager(os.environ)
        self._loaded = LoadedConfiguration(path, _now_us)
        self._reloading = Reloading(
            settings,
            load,
            workers=self._workers,
            questions=self._questions,
            sockets=self._sockets,
            loaded=self._loaded,
            manager=self._manager,
            on_taken=self._take,
            on_outdated=lambda worker: self._watchdog.forget(worker.number),
            say=say,
        )
        self._office = PermitOffice(self._limits, self._workers.send, time.monotonic)
        self._rates = RateOffice(
            self._limits,
            self._workers.send,
            time.monotonic,
            lambda s, work: asyncio.get_running_loop().call_later(s, work),
        )
        self._pacing = PaceReport(self.ask, self._office, self._rates)
        self._watchdog = Watchdog(time.monotonic)
        self._tickets = TicketSecret(time.monotonic)
        self._guard = Guard(
            lambda: self.settings,
            self._workers.send,
            self._ready,
            lambda: [worker.number for worker in self._workers if worker.link is not None],
            _now_us,
            say,
        )
        self._sending = SendingOffice(
            lambda: Path(self.settings.state_dir), self._workers.send, self._ready, _now_us, say
        )
        self._sts_disk = ThreadPoolExecutor(1, "policies")  # starts its thread when there is work
        self._sts = StsOffice(
            lambda: options.sts_options(self.settings), self._workers.send, self._ready, _now_us, say,
            random.SystemRandom(), self._sts_store, self._on_sts_disk,
        )
        self._keys = KeyOffice(
            lambda: self.settings,
            lambda dns: DnsResolver(dns, SystemClock(), random.SystemRandom()),
            self._tell_of_keys,
            self._tell_postmaster,
            _now_us,
            say,
        )
        self._misconfigured: list[str] = []  # what workers said of the settings and their files, each once
        self._served = False  # whether all workers were up once
        self._stop = asyncio.Event()
        self._loop: asyncio.AbstractEventLoop  # once it runs
        self._starting: set[asyncio.Task[None]] = set()  # queues that clients want started
        self._shards = 0
        self._local: socket.socket | None = None  # for the users of this machine

    @property
    def settings(self) -> Settings:
        """Those in force."""
        return self._reloading.settings

    def _take(self, settings: Settings) -> None:
        self._renew_log(settings)
        self._pace = options.pace_table(settings)
        self._tell_users()

    def _sts_store(self) -> StsStore:
        return StsStore(Path(self.settings.state_dir) / STS_STORE, self._say_from_thread)

    def _on_sts_disk(self, work: Callable[[], None]) -> None:
        def done() -> None:
            try:
                work()
            except Exception as error:
                self._say_from_thread(f"MTA-STS policies cannot be kept: {type(error).__name__}: {error}")

        self._sts_disk.submit(done)

    def _say_from_thread(self, text: str) -> None:
        self._loop.call_soon_threadsafe(self._say, "error", text)

    def _limits(self, scope: str) -> ScopeLimits:
        return self._pace.limits(scope)

    # -- start -------------------------------------------------------------------------------------------------------

    def prepare(self) -> str:
        """Everything that may fail before the first worker: folders, lock, sockets, privileges. "" or what is wrong."""
        settings = self.settings
        state_dir = Path(settings.state_dir)
        as_root = os.geteuid() == 0
        try:
            owner = owner_of(settings.user, settings.group) if as_root and settings.user else None
            make_folders(state_dir, owner)
        except KeyError:
            return f"there is no user {settings.user!r} or no group {settings.group!r}; make them, or name others"
        except OSError as error:
            return f"cannot use the state folder {state_dir}: {error.strerror}; create it, or set `state_dir`"
        problem = self._lock.take(owner)
        if problem:
            return problem
        shared = settings.sendmail.folder
        if shared is not None:
            unmade = local_folder.prepare(shared, owner)
            if unmade is not None:
                self._say("error", f"users cannot leave mail while the node does not take it: {unmade}")
        self._sending.load()
        problem = self._guard.load()
        if problem:
            return problem
        system.raise_file_limit(OPEN_FILES)
        bound, problems = self._sockets.bind_missing(settings, self._worker_count())
        self._sockets.add(bound)
        if problems:
            return "\n".join(problems)
        problem = self._start_porter() or self._drop_privileges(as_root=as_root)
        self._shards = max(self._worker_count(), shards_on_disk(state_dir / "spool"))
        return problem

    def _worker_count(self) -> int:
        return self.settings.workers or len(os.sched_getaffinity(0))

    def _start_porter(self) -> str:
        """While we are root still."""
        table = options.porter_table(self.settings)
        if table is None:
            return ""
        started = porter_process.start(table)
        if isinstance(started, str):
            return started
        self._porter = started
        return ""

    def _child_ended(self) -> None:
        self._workers.reap()
        if self._porter is not None and self._porter.has_just_ended():
            self._say("error", "the process that delivers as other users has ended: restart the node")

    def _drop_privileges(self, *, as_root: bool) -> str:
        if self.settings.user:
            refused = system.drop_privileges(self.settings.user, self.settings.group)
            if refused is not None:
                return str(refused)
        elif as_root:
            self._say("warning", "running as root: set `user`, so that the node drops its privileges")
        problem = self._serve_users()
        if problem:
            return problem
        restricted = system.restrict()
        if restricted is not None:
            self._say("warning", str(restricted))
        return ""

    def _serve_users(self) -> str:
        """The socket for the users of this machine, in the folder that they share with the node. "" or what is wrong.
        It is made without root's rights, because the folder is the node's user's."""
        shared = self.settings.sendmail.folder
        if shared is None:
            return ""
        bound = local_folder.serve(shared)
        if isinstance(bound, Problem):
            return str(bound)
        self._local = bound
        for doubt in local_folder.doubts(shared, os.getegid()):
            self._say("warning", doubt)
        self._tell_users()
        return ""

    def _tell_users(self) -> None:
        """What the program `sendmail` has to know; without it, it goes by defaults."""
        folder = self.settings.sendmail.folder
        if folder is not None:
            try:
                local_folder.tell(folder, self.settings.limits.size_max)
            except OSError as error:
                self._say("error", f"{folder}: cannot be written: {error.strerror}")

    async def run(self) -> int:
        """Start the workers, serve until SIGTERM, stop them; the exit code."""
        loop = self._loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._stop.set)
        loop.add_signal_handler(signal.SIGHUP, self._reloading.begin)
        loop.add_signal_handler(signal.SIGCHLD, self._child_ended)
        control = Control(Path(self.settings.state_dir) / "run" / "control", self)
        problem = await control.start()
        if problem:
            self._say("error", problem)
            return 1
        code = await self._start()
        if code is None:
            await self._serve(control)
            return 0
        return code

    async def _start(self) -> int | None:
        """Starts the workers and waits until they are ready. If they cannot be, they are stopped: the exit code."""
        try:
            self._workers.start_all(self._worker_count())
        except OSError as error:
            self._refuse(not_run(error, self.settings.user))
            await self._shut_down()
            return 1
        if await self._all_started():
            return None
        if self._misconfigured:
            await self._shut_down()
            for text in self._misconfigured:
                self._refuse(f"cannot start: {text}")
            return 78
        self._say("error", "a worker did not start; see the lines above")
        await self._shut_down()
        return 1

    async def _serve(self, control: Control) -> None:
        self._served = True
        self._manager.ready(counted(len(self._workers), "worker"))
        tasks = [asyncio.ensure_future(self._remind()), asyncio.ensure_future(self._listen_for_beats())]
        if self._manager.watchdog_s:
            tasks.append(asyncio.ensure_future(self._watch()))
        parts = f"{counted(len(self._workers), 'worker')}, {counted(self._shards, 'shard')}"
        self._say("info", f"ready: {parts}, pid {os.getpid()}")
        for endpoint in self._sockets.endpoints:
            self._say("info", f"listening on {endpoint}")
        await self._stop.wait()
        self._manager.stopping()
        self._say("info", "stopping")
        await control.stop()
        await self._shut_down()
        await self._guard.close()
        await self._sending.close()
        self._sts.close()
        await asyncio.to_thread(self._sts_disk.shutdown)
        await self._keys.close()
        for task in tasks:
            task.cancel()
        self._say("info", "stopped")

    def _refuse(self, text: str) -> None:
        """Says why there is no start. Whoever starts a node looks at stderr first."""
        self._say("error", text)
        if self.settings.log.path is not None:
            print(text, file=sys.stderr)

    async def _all_started(self) -> bool:
        until = time.monotonic() + READY_S
        while time.monotonic() < until and not self._stop.is_set():
            if self._workers.all_ready:
                return True
            if self._misconfigured or any(worker.restarts > 2 for worker in self._workers):
                return False
            await asyncio.sleep(0.01)
        return self._stop.is_set()

    async def _shut_down(self) -> None:
        self._workers.tell_stop(self.settings.shutdown_s)
        # While we hold them open the kernel goes on taking connections that nobody will greet.
        self._sockets.close()
        await self._workers.wait_ended(self.settings.shutdown_s + _KILL_S)

    # -- while the node runs -----------------------------------------------------------------------------------------

    async def _remind(self) -> None:
        while True:
            await asyncio.sleep(REMIND_S)
            self._office.remind()
            self._guard.look()
            self._sending.look()
            self._sts.look()
            self._keys.look()
            if self._tickets.renew(self.settings.tls.ticket_s):
                for worker in self._workers:
                    worker.send(TicketSecretTold(self._tickets.octets))

    async def _listen_for_beats(self) -> None:
        while True:
            await asyncio.sleep(BEAT_S)
            for silence in self._watchdog.look(self.settings.worker_hang_s):
                process = self._workers[silence.number].process
                if process is None or self._workers.stopping:
                    continue
                if silence.last:
                    process.kill()
                    continue
                self._say(
                    "error",
                    f"worker {silence.number} (process {process.pid}) has not answered for {silence.silent_s:.0f} s: "
                    "killing it; stderr shows where it hangs",
                )
                process.send_signal(signal.SIGABRT)

    async def _watch(self) -> None:
        while True:
            self._manager.alive()
            await asyncio.sleep(self._manager.watchdog_s)

    # -- workers -----------------------------------------------------------------------------------------------------

    def _ready(self) -> list[int]:
        return [worker.number for worker in self._workers if worker.link is not None and worker.ready]

    def _on_started(self, worker: Worker) -> None:
        """Sends a new process what it needs to begin: bans, keys of session tickets, settings, sockets, its shards."""
        worker.settings = self.settings
        self._guard.worker_starts(worker.number)
        shards = tuple(shard for shard in range(self._shards) if shard % len(self._workers) == worker.number)
        worker.send(TicketSecretTold(self._tickets.octets))
        served, descriptors = self._sockets.endpoints, self._sockets.descriptors(worker.number)
        if worker.number == 0 and self._local is not None:
            served, descriptors = (*served, LOCAL), [*descriptors, self._local.fileno()]
        assert worker.link is not None
        worker.link.send(Start(worker.number, shards, to_plain(self.settings), served), descriptors)

    def _on_frame(self, worker: Worker, frame: FromWorker) -> None:
        match frame:
            case AskPermits(scopes, count):
                self._office.ask(worker.number, scopes, count)
            case ReleasePermit(scopes):
                self._office.release(worker.number, scopes)
            case Succeeded(scopes, count):
                self._office.succeeded(scopes, count)
            case OpeningFailed(scopes, others):
                self._office.refused(scopes, others=others)
            case AskTokens(key, scopes, count):
                self._rates.ask(worker.number, key, scopes, count)
            case TallyTold(counts):
                self._guard.take_counts(worker.number, counts)
            case SendingTold(counts):
                self._sending.take_counts(worker.number, counts)
            case LimitReached(key, text):
                self._sending.reached(worker.number, key, text)
            case AskSts(domain, id):
                self._sts.ask(worker.number, domain, id)
            case StsFetchDone(question, found):
                self._sts.fetched(worker.number, question, found)
            case Alive():
                self._watchdog.heard(worker.number)
            case Leaving():
                self._watchdog.forget(worker.number)
            case Ready():
                self._on_ready(worker)
            case Misconfigured(text):
                self._on_misconfigured(text)
            case StartQueue():
                task = asyncio.ensure_future(self._start_queue(worker.number, frame))
                self._starting.add(task)
                task.add_done_callback(self._starting.discard)
            case (
                Prepared() | Synced() | Operated() | Paces() | MapUse() | ActivityTold() | QueueCounted() | KeysTaken()
            ):
                self._questions.on_answer(worker.number, frame.question, frame)
            case _:
                assert_never(frame)

    def _on_ready(self, worker: Worker) -> None:
        worker.ready = True
        self._watchdog.heard(worker.number)
        self._guard.worker_up(worker.number)
        self._sending.worker_up(worker.number)
        worker.send(KeysChanged(0))  # since it has read them, they may have changed
        if self._served:
            self._misconfigured.clear()
        self._reloading.renew(worker)

    def _on_misconfigured(self, text: str) -> None:
        if text not in self._misconfigured:
            self._misconfigured.append(text)
            if self._served:
                self._say("error", f"a worker cannot start again: {text}")

    async def _start_queue(self, number: int, wanted: StartQueue) -> None:
        """A client of one worker wants a queue started (ETRN). All workers have a part of the queue."""
        answers = await self.ask(lambda question: StartQueue(question, wanted.wish, wanted.by), QueueCounted)
        counts = tuple(None if answer is None else answer.count for _, answer in answers)
        self._workers.send(number, QueueStarted(wanted.question, counts))

    def _on_link_ended(self, worker: Worker, why: str) -> None:
        self._office.worker_died(worker.number)
        self._guard.worker_died(worker.number)
        self._sending.worker_died(worker.number)
        self._sts.worker_died(worker.number)
        self._rates.worker_died(worker.number)
        self._questions.on_worker_lost(worker.number)

    # -- what operators ask (`node.control.Node`) --------------------------------------------------------------------

    @property
    def ask(self) -> Ask:
        """Asks all workers that are ready (`node.questions`)."""
        return self._questions.ask

    def status(self) -> NodeStatus:
        """What the supervisor itself knows of the node."""
        return NodeStatus(
            pid=os.getpid(),
            version=__version__,
            state=self._state(),
            started_us=self._started_us,
            configuration=self._loaded.summary(),
            listeners=tuple(
                Listening(listener.name, str(endpoint), listener.role.value)
                for endpoint, listener in zip(
                    endpoints(self.settings), options.listener_options(self.settings), strict=True
                )
            ),
            shards=self._shards,
            workers=tuple(worker.status() for worker in self._workers),
            connections=self._office.counts(),
            sessions=self._guard.sessions,
            bans=self._guard.count,
            keys=self._keys.summary(),
        )

    @property
    def _is_stopping(self) -> bool:
        return self._workers.stopping or self._stop.is_set()

    def _state(self) -> str:
        if self._is_stopping:
            return "stopping"
        if not self._served:
            return "starting"
        if self._reloading.under_way:
            return "reloading"
        return "ready" if self._workers.all_ready else "restarting a worker"

    def configuration(self) -> dict[str, Any]:
        """All values in force, passwords hidden."""
        return in_force(self.settings)

    def routes(self, addresses: tuple[str, ...], asked: tuple[RouteQuestion, ...]) -> dict[str, str]:
        """Where mail for these addresses, and the mail that is asked about, would go."""
        return routes.answer(self.settings, asked, addresses)

    async def bans(self, asked: BanRequest) -> list[Ban] | list[BanResult] | str:
        """What an operator wants of the bans."""
        return await self._guard.asked(asked)

    def limits(self, asked: LimitsAsked) -> list[SentCount]:
        """What was sent, or has been set to nothing."""
        return self._sending.asked(asked)

    async def paces(self, destination_keys: tuple[str, ...]) -> list[Paced] | str:
        """What the mail of these destinations waits for."""
        return await self._pacing.asked(destination_keys)

    async def keys_changed(self, done: tuple[str, ...]) -> KeysSummary:
        """A command has changed the keys that sign mail."""
        await self._keys.changed(done)
        return self._keys.summary()

    async def _tell_of_keys(self) -> None:
        await self.ask(KeysChanged, KeysTaken)

    def _tell_postmaster(self, subject: str, lines: tuple[str, ...]) -> None:
        ready = self._ready()
        if ready:
            self._workers.send(ready[0], NoticeWanted(subject, lines))

    async def reload(self) -> list[str]:
        """Takes the configuration as its file has it now; why it was refused."""
        return await self._reloading.outcome()

    async def all_ready(self, limit_s: float, *, once: bool = False) -> str:
        """Waits until all workers are ready: what an operator asks for would miss the mail of the others. "" or why
        they are not. `once`: it is enough that they were so once, at the start."""
        until = time.monotonic() + limit_s
        while not (self._served and (once or self._workers.all_ready)):
            if self._is_stopping:
                return "the node is stopping"
            if time.monotonic() > until:
                return "the node's workers are not ready; look at its log, and try again"
            await asyncio.sleep(0.02)
        return ""


def _now_us() -> int:
    return time.time_ns() // 1000


def main(settings: Settings, load: Load, say: Say, locate: Locate, renew: Renew, path: Path | None = None) -> int:
    """Run a node until it is told to stop; the exit code."""
    supervisor = Supervisor(settings, load, say, locate, renew, path)
    problem = supervisor.prepare()
    if problem:
        for line in problem.split("\n"):
            say("error", line)
        if settings.log.path is not None:
            print(problem, file=sys.stderr)  # whoever starts a node looks there first
        return 1
    return asyncio.run(supervisor.run())
