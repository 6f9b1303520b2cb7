"""The supervisor: binds, drops privileges, starts one worker per core, starts them again, reloads and stops them.

It carries no mail. What must hold for the whole node is asked of it: permits per destination (`permits`), what an
operator wants done (`control`). Workers are separate programs joined by a `Link`; each inherits its own listening
sockets and owns its shards of the spool.

What always holds: one node per state folder (a lock that workers inherit, so that it is held until the last is gone);
a worker that dies is started again and takes up its shards; a configuration that is not valid as a whole changes
nothing. How it fails: without its supervisor a worker ends by itself; what it had accepted is in the spool.

Exit codes: 0 stopped as asked, 1 could not start, 78 the configuration is wrong.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import grp
import os
import pwd
import signal
import socket
import stat
import subprocess
import sys
import time
from collections.abc import Callable
from operator import attrgetter
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeVar, assert_never

from postroad import __version__
from postroad.check.banning import BanRequest, BanResult
from postroad.check.bans import Ban
from postroad.config import options
from postroad.config.carried import to_plain
from postroad.config.changes import AT_START, FIXED
from postroad.config.document import in_force
from postroad.mail.numbers import counted
from postroad.node import local_folder
from postroad.node.control import Control
from postroad.node.frames import (
    Abandon,
    ActivityTold,
    Alive,
    Answer,
    AskPermits,
    AskTokens,
    Commit,
    FromWorker,
    Leaving,
    Misconfigured,
    OpeningFailed,
    Operated,
    Paces,
    Prepare,
    Prepared,
    QueueCounted,
    QueueStarted,
    Ready,
    ReleasePermit,
    Start,
    StartQueue,
    Stop,
    Succeeded,
    Sync,
    Synced,
    TallyTold,
    TicketSecretTold,
    ToWorker,
    read_from_worker,
)
from postroad.node.link import Link
from postroad.node.loaded import LoadedConfiguration
from postroad.node.offices.guard import Guard
from postroad.node.offices.pacing import PaceReport
from postroad.node.offices.permits import PermitOffice
from postroad.node.offices.rates import RateOffice
from postroad.node.offices.tickets import TicketSecret
from postroad.node.sockets import LOCAL, Endpoint, bind, close_all, endpoints
from postroad.node.watchdog import BEAT_S, Watchdog
from postroad.operate import routes
from postroad.operate.requests import Listening, NodeStatus, Paced, RouteQuestion, WorkerStatus
from postroad.queue.pace import ScopeLimits
from postroad.world import system
from postroad.world.problem import Problem

if TYPE_CHECKING:
    from postroad.config.settings import Settings

LOCK_WAIT_S: Final = 15.0
HOLDER_SIZE: Final = 32  # octets of the lock file, which names the process that holds it
READY_S: Final = 60.0
OPEN_FILES: Final = 65_536
PREPARE_S: Final = 30.0
STARTING_S: Final = 10.0  # how long a reload waits for workers that are being started
REMIND_S: Final = 1.0  # how often workers that hold permits hear of others that wait for one
_RESTART_FIRST_S: Final = 0.05
_RESTART_MAX_S: Final = 5.0

_Answer = TypeVar("_Answer", bound=Answer)
_Gathered = list[tuple[int, Answer | None]]
_Question = tuple[set[int], _Gathered, "asyncio.Future[_Gathered]"]  # workers that have not answered; answers so far

Say = Callable[[str, str], None]  # level, text
Locate = Callable[["Settings", Endpoint, Problem], str]  # a place that cannot be listened on, at its line of the file
Renew = Callable[["Settings"], None]  # what is said from here on is said as these settings want it


class Worker:
    """One worker process as the supervisor sees it."""

    def __init__(self, number: int) -> None:
        self.number = number
        self.process: subprocess.Popen[bytes] | None = None
        self.link: Link[FromWorker] | None = None
        self.ready = False
        self.started = 0.0
        self.restarts = 0
        self.settings: Settings | None = None  # with which it was started, or which it has taken since
        self.ended = asyncio.Event()


class Supervisor:
    """See the module. `load` reads and validates the configuration again: settings, or the problems as lines. `path`:
    of its file."""

    def __init__(
        self, settings: Settings, load: Callable[[], Settings | list[str]], say: Say, locate: Locate, renew: Renew,
        path: Path | None = None,
    ) -> None:
        self.settings = settings
        self._loaded = LoadedConfiguration(path, lambda: time.time_ns() // 1000)
        self._started_us = time.time_ns() // 1000
        self._reload_waits: list[asyncio.Future[list[str]]] = []  # operators who want to know what becomes of it
        self._renew_log = renew
        self._locate = locate
        self._load = load
        self._say = say
        self._workers: list[Worker] = []
        self._sockets: dict[Endpoint, list[socket.socket]] = {}
        self._pace = options.pace_table(settings)
        self._office = PermitOffice(self._limits, self._send, time.monotonic)
        self._rates = RateOffice(
            self._limits, self._send, time.monotonic, lambda s, work: asyncio.get_running_loop().call_later(s, work)
        )
        self._pacing = PaceReport(self.ask, self._office, self._rates)
        self._watchdog = Watchdog(time.monotonic)
        self._tickets = TicketSecret(time.monotonic)
        self._guard = Guard(
            lambda: self.settings,
            self._send,
            lambda: [worker.number for worker in self._workers if worker.ready],
            lambda: [worker.number for worker in self._workers if worker.link is not None],
            lambda: time.time_ns() // 1000,
            say,
        )
        self._misconfigured: list[str] = []  # what workers said of the settings and their files, each once
        self._served = False  # whether all workers were up once
        self._stopping = False
        self._stop = asyncio.Event()
        self._lock = -1
        self._local: socket.socket | None = None  # for the users of this machine
        self._starting: set[asyncio.Task[None]] = set()  # queues that clients want started
        self._answers: dict[int, _Question] = {}
        self._question = 0
        self._reloading = False
        self._reload_again = False
        self._shards = 0
        self._manager = system.ServiceManager(os.environ)
        self._environment = {
            name: value
            for name, value in os.environ.items()
            if name not in ("NOTIFY_SOCKET", "WATCHDOG_PID", "WATCHDOG_USEC")
        }

    def _limits(self, scope: str) -> ScopeLimits:
        return self._pace.limits(scope)

    # -- start -------------------------------------------------------------------------------------------------------

    def prepare(self) -> str:
        """Everything that may fail before the first worker: folders, lock, sockets, privileges. "" or what is wrong."""
        settings = self.settings
        state_dir = Path(settings.state_dir)
        as_root = os.geteuid() == 0
        try:
            owner = _owner(settings.user, settings.group) if as_root and settings.user else None
            _make_folders(state_dir, owner)
        except KeyError:
            return f"there is no user {settings.user!r} or no group {settings.group!r}; make them, or name others"
        except OSError as error:
            return f"cannot use the state folder {state_dir}: {error.strerror}; create it, or set `state_dir`"
        problem = self._take_lock(state_dir / "run" / "node.lock", owner)
        if problem:
            return problem
        shared = settings.sendmail.folder
        if shared is not None:
            unmade = local_folder.prepare(shared, owner)
            if unmade is not None:
                self._say("error", f"mail of users is not kept while the node does not take it: {unmade}")
        problem = self._guard.load()
        if problem:
            return problem
        system.raise_file_limit(OPEN_FILES)
        problems = self._bind_all()
        if problems:
            return "\n".join(problems)
        if settings.user:
            refused = system.drop_privileges(settings.user, settings.group)
            if refused is not None:
                return str(refused)
        elif as_root:
            self._say("warning", "running as root: set `user`, so that the node drops its privileges")
        if shared is not None:
            bound = local_folder.serve(shared)
            if isinstance(bound, Problem):
                return str(bound)
            self._local = bound
            self._tell_users()
        restricted = system.restrict()
        if restricted is not None:
            self._say("warning", str(restricted))
        self._shards = max(self._worker_count(), _shards_on_disk(state_dir / "spool"))
        return ""

    def _tell_users(self) -> None:
        """What the program `sendmail` has to know; without it, it goes by defaults."""
        folder = self.settings.sendmail.folder
        if folder is not None:
            try:
                local_folder.tell(folder, self.settings.limits.size_max)
            except OSError as error:
                self._say("error", f"{folder}: cannot be written: {error.strerror}")

    def _worker_count(self) -> int:
        return self.settings.workers or len(os.sched_getaffinity(0))

    def _take_lock(self, path: Path, owner: tuple[int, int] | None) -> str:
        # The folder is the node's user's, we may be root: nothing in it leads us to a file elsewhere.
        try:
            folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
            try:
                flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
                self._lock = os.open(path.name, flags, 0o644, dir_fd=folder)
            finally:
                os.close(folder)
            found = os.fstat(self._lock)
            if not stat.S_ISREG(found.st_mode) or found.st_nlink != 1:
                return f"{path} is no lock file of a node: remove it"
            if owner is not None:
                os.fchown(self._lock, *owner)  # for a later start by that user himself
        except OSError as error:
            return f"cannot lock {path}: {error.strerror}; make the state folder the user's, or set `state_dir`"
        waited_until = time.monotonic() + LOCK_WAIT_S
        told = False
        while True:
            try:
                fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                holder = os.pread(self._lock, HOLDER_SIZE, 0).decode("ascii", "replace").strip()
                alive = holder.isdigit() and Path(f"/proc/{holder}").exists()
                if alive or time.monotonic() > waited_until:
                    return (
                        f"another node (process {holder or 'unknown'}) uses {path.parent.parent}; stop it first, "
                        "or set another `state_dir`"
                    )
                if not told:
                    told = True
                    self._say("info", "waiting until the workers of the previous node have ended")
                time.sleep(0.1)
            else:
                self._write_holder()
                return ""

    def _write_holder(self) -> None:
        """Who holds the lock, for people. In place and of one size: on a full disk no block must be given back and then
        missed. What counts is the lock: without the number the node starts all the same."""
        with contextlib.suppress(OSError):
            os.pwrite(self._lock, f"{os.getpid():<{HOLDER_SIZE - 1}}\n".encode(), 0)
            os.ftruncate(self._lock, HOLDER_SIZE)

    def _bind_all(self) -> list[str]:
        problems = []
        for endpoint in endpoints(self.settings):
            bound = bind(endpoint, self._worker_count())
            if isinstance(bound, Problem):
                problems.append(self._locate(self.settings, endpoint, bound))
            else:
                self._sockets[endpoint] = bound
        return problems

    async def run(self) -> int:
        """Start the workers, serve until SIGTERM, stop them."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._stop.set)
        loop.add_signal_handler(signal.SIGHUP, self._reload_asked)
        loop.add_signal_handler(signal.SIGCHLD, self._reap)
        control = Control(Path(self.settings.state_dir) / "run" / "control", self)
        problem = await control.start()
        if problem:
            self._say("error", problem)
            return 1
        self._workers = [Worker(number) for number in range(self._worker_count())]
        try:
            for worker in self._workers:
                self._spawn(worker)
        except OSError as error:
            self._refuse(_not_run(error, self.settings.user))
            await self._shut_down()
            return 1
        ready = await self._all_ready()
        if not ready and self._misconfigured:
            await self._shut_down()
            for text in self._misconfigured:
                self._refuse(f"cannot start: {text}")
            return 78
        if not ready:
            self._say("error", "a worker did not start; see the lines above")
            await self._shut_down()
            return 1
        self._served = True
        self._manager.ready(counted(len(self._workers), "worker"))
        watchdog = asyncio.ensure_future(self._watch()) if self._manager.watchdog_s else None
        reminder = asyncio.ensure_future(self._remind())
        beats = asyncio.ensure_future(self._listen_for_beats())
        parts = f"{counted(len(self._workers), 'worker')}, {counted(self._shards, 'shard')}"
        self._say("info", f"ready: {parts}, pid {os.getpid()}")
        for endpoint in self._sockets:
            self._say("info", f"listening on {endpoint}")
        await self._stop.wait()
        self._manager.stopping()
        self._say("info", "stopping")
        await control.stop()
        await self._shut_down()
        await self._guard.close()
        reminder.cancel()
        beats.cancel()
        if watchdog is not None:
            watchdog.cancel()
        self._say("info", "stopped")
        return 0

    def _refuse(self, text: str) -> None:
        """Why there is no start. Whoever starts a node looks at stderr first."""
        self._say("error", text)
        if self.settings.log.path is not None:
            print(text, file=sys.stderr)

    async def _remind(self) -> None:
        while True:
            await asyncio.sleep(REMIND_S)
            self._office.remind()
            self._guard.look()
            if self._tickets.renew(self.settings.tls.ticket_s):
                for worker in self._workers:
                    self._send(worker.number, TicketSecretTold(self._tickets.octets))

    async def _listen_for_beats(self) -> None:
        while True:
            await asyncio.sleep(BEAT_S)
            for silence in self._watchdog.look(self.settings.worker_hang_s):
                process = self._workers[silence.number].process
                if process is None or self._stopping:
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

    async def _all_ready(self) -> bool:
        until = time.monotonic() + READY_S
        while time.monotonic() < until and not self._stop.is_set():
            if all(worker.ready for worker in self._workers):
                return True
            if self._misconfigured or any(worker.restarts > 2 for worker in self._workers):
                return False
            await asyncio.sleep(0.01)
        return self._stop.is_set()

    # -- workers -----------------------------------------------------------------------------------------------------

    def _spawn(self, worker: Worker) -> None:
        ours, theirs = socket.socketpair()
        worker.started = time.monotonic()
        worker.ready = False
        worker.ended.clear()
        worker.settings = self.settings
        try:
            worker.process = subprocess.Popen(
                [sys.executable, "-m", "postroad.node.worker", str(theirs.fileno())],
                pass_fds=(theirs.fileno(), self._lock),
                stdin=subprocess.DEVNULL,
                env=self._environment,
            )
        except OSError:
            ours.close()
            raise
        finally:
            theirs.close()
        worker.link = Link(
            ours,
            asyncio.get_running_loop(),
            read_from_worker,
            lambda frame, descriptors: self._received(worker, frame),
            lambda why: self._link_ended(worker, why),
        )
        self._guard.worker_starts(worker.number)
        shards = tuple(shard for shard in range(self._shards) if shard % len(self._workers) == worker.number)
        worker.link.send(TicketSecretTold(self._tickets.octets))
        served = {endpoint: sockets[worker.number] for endpoint, sockets in self._sockets.items()}
        if worker.number == 0 and self._local is not None:
            served[LOCAL] = self._local
        worker.link.send(
            Start(worker.number, shards, to_plain(self.settings), tuple(served)),
            [sock.fileno() for sock in served.values()],
        )

    def _send(self, number: int, frame: ToWorker) -> None:
        link = self._workers[number].link
        if link is not None:
            link.send(frame)

    def _received(self, worker: Worker, frame: FromWorker) -> None:
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
            case Alive():
                self._watchdog.heard(worker.number)
            case Leaving():
                self._watchdog.forget(worker.number)
            case Ready():
                self._is_ready(worker)
            case Misconfigured(text):
                self._cannot_start(text)
            case StartQueue():
                task = asyncio.ensure_future(self._start_queue(worker.number, frame))
                self._starting.add(task)
                task.add_done_callback(self._starting.discard)
            case Prepared() | Synced() | Operated() | Paces() | ActivityTold() | QueueCounted():
                self._answered(worker.number, frame.question, frame)
            case _:
                assert_never(frame)

    def _is_ready(self, worker: Worker) -> None:
        worker.ready = True
        self._watchdog.heard(worker.number)
        self._guard.worker_up(worker.number)
        if self._served:
            self._misconfigured.clear()
        self._renew(worker)

    def _cannot_start(self, text: str) -> None:
        if text not in self._misconfigured:
            self._misconfigured.append(text)
            if self._served:
                self._say("error", f"a worker cannot start again: {text}")

    async def _start_queue(self, number: int, wanted: StartQueue) -> None:
        """A client of one worker wants a queue started (ETRN), which lies with all of them."""
        answers = await self.ask(lambda question: StartQueue(question, wanted.wish, wanted.by), QueueCounted)
        counts = tuple(None if answer is None else answer.count for _, answer in answers)
        self._send(number, QueueStarted(wanted.question, counts))

    def _link_ended(self, worker: Worker, why: str) -> None:
        worker.link = None
        if why:  # the worker sees the end of its link, and ends; then it is started again
            self._say("error", f"the link to worker {worker.number} is closed: {why}")
        self._office.worker_died(worker.number)
        self._guard.worker_died(worker.number)
        self._rates.worker_died(worker.number)
        for question in list(self._answers):
            self._answered(worker.number, question, None)

    def _reap(self) -> None:
        """SIGCHLD: a worker has ended."""
        for worker in self._workers:
            process = worker.process
            if process is None or process.poll() is None:
                continue
            worker.process = None
            worker.ready = False
            worker.ended.set()
            self._watchdog.forget(worker.number)
            if worker.link is not None:
                worker.link.close()
            if self._stopping:
                continue
            how = f"signal {-process.returncode}" if process.returncode < 0 else f"exit code {process.returncode}"
            lived_s = time.monotonic() - worker.started
            worker.restarts = worker.restarts + 1 if lived_s < 10 else 1
            wait_s = min(_RESTART_FIRST_S * 2 ** min(worker.restarts - 1, 16), _RESTART_MAX_S)
            self._say("error", f"worker {worker.number} ended with {how} after {lived_s:.1f} s; starting it again")
            asyncio.get_running_loop().call_later(wait_s, self._spawn_again, worker)

    def _spawn_again(self, worker: Worker) -> None:
        if self._stopping or worker.process is not None:
            return
        try:
            self._spawn(worker)
        except OSError as error:  # no memory, no process, no descriptor left for it: its shards must not wait for ever
            text = f"worker {worker.number} cannot be started ({error.strerror or error}); trying again"
            self._say("error", f"{text} in {_RESTART_MAX_S:g} s")
            asyncio.get_running_loop().call_later(_RESTART_MAX_S, self._spawn_again, worker)

    def _renew(self, worker: Worker) -> None:
        """A worker that came up while a reload went on has the old settings: it is started again with the new ones."""
        if worker.settings is not self.settings and not self._reloading and not self._stopping:
            self._say("info", f"worker {worker.number} started with outdated settings: starting it again")
            self._watchdog.forget(worker.number)
            self._send(worker.number, Stop(self.settings.shutdown_s))

    async def _shut_down(self) -> None:
        self._stopping = True
        for worker in self._workers:
            self._send(worker.number, Stop(self.settings.shutdown_s))
        # While we hold them open the kernel goes on taking connections that nobody will greet.
        for sockets in self._sockets.values():
            close_all(sockets)
        waits = [worker.ended.wait() for worker in self._workers if worker.process is not None]
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self.settings.shutdown_s + 5.0):
                await asyncio.gather(*waits)
        for worker in self._workers:
            if worker.process is not None:
                self._say("warning", f"worker {worker.number} did not stop in time; its mail is safe in the spool")
                worker.process.kill()
                worker.process.wait()

    # -- questions to workers: operators, reload ---------------------------------------------------------------------

    async def ask(self, make: Callable[[int], ToWorker], answer: type[_Answer]) -> list[tuple[int, _Answer | None]]:
        """Ask all workers that are ready and gather (worker, answer); None from one that died or took too long. `make`:
        the frame with the number of the question; `answer`: what it is answered by."""
        return [
            (number, value if isinstance(value, answer) else None) for number, value in await self._answers_to(make)
        ]

    async def _answers_to(self, make: Callable[[int], ToWorker]) -> list[tuple[int, Answer | None]]:
        self._question += 1
        question = self._question
        asked = {
            worker.number
            for worker in self._workers
            if worker.link is not None and worker.ready
        }
        if not asked:
            return []
        future: asyncio.Future[list[tuple[int, Answer | None]]] = asyncio.get_running_loop().create_future()
        self._answers[question] = (set(asked), [], future)
        frame = make(question)
        for number in asked:
            self._send(number, frame)
        try:
            async with asyncio.timeout(PREPARE_S):
                return await future
        except TimeoutError:
            return [*self._answers[question][1], *((number, None) for number in self._answers[question][0])]
        finally:
            del self._answers[question]

    def _answered(self, number: int, question: int, value: Answer | None) -> None:
        entry = self._answers.get(question)
        if entry is None or number not in entry[0]:
            return
        waiting, answers, future = entry
        waiting.discard(number)
        answers.append((number, value))
        if not waiting and not future.done():
            future.set_result(answers)

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
            workers=tuple(_state_of(worker) for worker in self._workers),
            connections=self._office.counts(),
            sessions=self._guard.sessions,
            bans=self._guard.count,
        )

    def _state(self) -> str:
        if self._stopping or self._stop.is_set():
            return "stopping"
        if not self._served:
            return "starting"
        if self._reloading:
            return "reloading"
        return "ready" if all(worker.ready for worker in self._workers) else "restarting a worker"

    def configuration(self) -> dict[str, Any]:
        """All values in force, passwords hidden."""
        return in_force(self.settings)

    def routes(self, addresses: tuple[str, ...], asked: tuple[RouteQuestion, ...]) -> dict[str, str]:
        """Where mail for these addresses, and the mail that is asked about, would go."""
        return routes.answer(self.settings, asked, addresses)

    async def bans(self, asked: BanRequest) -> list[Ban] | list[BanResult] | str:
        """What an operator wants of the bans."""
        return await self._guard.asked(asked)

    async def paces(self, destination_keys: tuple[str, ...]) -> list[Paced] | str:
        """What the mail of these destinations waits for."""
        return await self._pacing.asked(destination_keys)

    async def all_ready(self, limit_s: float, *, once: bool = False) -> str:
        """Wait until all workers are ready: what an operator asks for would miss the mail of the others. "" or why they
        are not. `once`: it is enough that they were so once, at the start."""
        until = time.monotonic() + limit_s
        while not (self._served and (once or all(worker.ready for worker in self._workers))):
            if self._stopping or self._stop.is_set():
                return "the node is stopping"
            if time.monotonic() > until:
                return "the node's workers are not ready; look at its log, and try again"
            await asyncio.sleep(0.02)
        return ""

    # -- reload --------------------------------------------------------------------------------------------------------

    def _reload_asked(self) -> None:
        if self._reloading:
            self._reload_again = True
            return
        self._reloading = True
        asyncio.ensure_future(self._reload())

    async def reload(self) -> list[str]:
        """Take the configuration as its file has it now, behind a reload that is under way; why it was refused."""
        done: asyncio.Future[list[str]] = asyncio.get_running_loop().create_future()
        self._reload_waits.append(done)
        self._reload_asked()
        return await done

    async def _reload(self) -> None:
        waits, self._reload_waits = self._reload_waits, []
        problems = ["the reload broke: see the log"]
        try:
            self._manager.reloading()
            self._loaded.reading()
            problems = await self._reload_once()
            if problems:
                self._loaded.refused(problems)
            else:
                self._loaded.taken()
            for problem in problems:
                self._say("error", f"not reloaded: {problem}")
            if problems:
                self._say("error", "the new configuration is refused; the old one stays in force")
            else:
                self._say("info", "reloaded: the new configuration is in force")
        finally:
            self._manager.ready()
            self._reloading = False
            for done in waits:
                if not done.done():
                    done.set_result(problems)
            for worker in self._workers:
                if worker.ready:
                    self._renew(worker)
            if self._reload_again:
                self._reload_again = False
                self._reload_asked()

    async def _reload_once(self) -> list[str]:
        found = await asyncio.to_thread(self._load)
        if isinstance(found, list):
            return found
        fixed = [key for key in FIXED if attrgetter(key)(found) != attrgetter(key)(self.settings)]
        if fixed:
            return [f"`{key}` is taken at start only: restart the node for it" for key in fixed]
        await self._all_up(STARTING_S)
        added, problems = self._bind_added(found)
        prepared: set[int] = set()
        if not problems:
            before = {worker.number: worker.link for worker in self._workers}
            values = to_plain(found)
            answers = await self.ask(lambda question: Prepare(question, values), Prepared)
            prepared = {number for number, _ in answers if self._workers[number].link is before[number]}
            problems = sorted({
                f"worker {number} did not answer" if answer is None else f"worker {number}: {answer.problem}"
                for number, answer in answers
                if answer is None or answer.problem
            })
        if problems:
            for sockets in added.values():
                close_all(sockets)
            for worker in self._workers:
                self._send(worker.number, Abandon())
            return problems
        later = [name for name in AT_START if getattr(found, name) != getattr(self.settings, name)]
        self.settings = found
        self._renew_log(found)
        self._tell_users()
        for name in later:
            self._say("warning", f"`[{name}]` has changed: the change takes effect when the node starts again")
        self._pace = options.pace_table(found)
        wanted = set(endpoints(found))
        removed = [endpoint for endpoint in self._sockets if endpoint not in wanted]
        self._sockets.update(added)
        keys = tuple(added)
        for worker in self._workers:
            if worker.link is not None and worker.number in prepared:
                worker.link.send(Commit(keys), [added[key][worker.number].fileno() for key in keys])
                worker.settings = found
        # The workers have stopped accepting there by then; ours are the last descriptors of those sockets.
        await self.ask(Sync, Synced)
        for endpoint in removed:
            close_all(self._sockets.pop(endpoint))
        return []

    async def _all_up(self, limit_s: float) -> None:
        """Wait for workers that are just starting, so that they take part; who takes longer is started again later."""
        until = time.monotonic() + limit_s
        while not all(worker.ready for worker in self._workers) and time.monotonic() < until:
            await asyncio.sleep(0.02)

    def _bind_added(self, settings: Settings) -> tuple[dict[Endpoint, list[socket.socket]], list[str]]:
        added: dict[Endpoint, list[socket.socket]] = {}
        problems = []
        for endpoint in endpoints(settings):
            if endpoint in self._sockets or endpoint in added:
                continue
            bound = bind(endpoint, len(self._workers))
            if isinstance(bound, Problem):
                problems.append(self._locate(settings, endpoint, bound))
            else:
                added[endpoint] = bound
        return added, problems


def _state_of(worker: Worker) -> WorkerStatus:
    pid = worker.process.pid if worker.process is not None else 0
    return WorkerStatus(worker.number, pid, worker.ready, round(time.monotonic() - worker.started, 1))


def _not_run(error: OSError, user: str) -> str:
    """Why no worker can be made, with the remedy."""
    text = f"the workers cannot be started: {sys.executable}: {error.strerror or error}"
    if not isinstance(error, PermissionError):
        return text
    who = f"the user {user!r}" if user else "this user"
    return f"{text}; give {who} the right to execute it and to enter the folders above it, or install it elsewhere"


def _owner(user: str, group: str) -> tuple[int, int]:
    """User and group id; KeyError where there is no such user or group."""
    account = pwd.getpwnam(user)
    return account.pw_uid, grp.getgrnam(group).gr_gid if group else account.pw_gid


def _make_folders(state_dir: Path, owner: tuple[int, int] | None) -> None:
    for folder in (state_dir, state_dir / "run", state_dir / "spool", state_dir / "history"):
        made = not folder.exists()
        folder.mkdir(mode=0o750, parents=True, exist_ok=True)
        if made and owner is not None:
            os.chown(folder, *owner, follow_symlinks=False)


def _shards_on_disk(spool: Path) -> int:
    """One more than the highest shard there is: a node with fewer workers than before still takes up all shards."""
    numbers = [int(path.stem) for path in spool.glob("*.db") if path.stem.isdigit()]
    return max(numbers, default=-1) + 1


def main(
    settings: Settings, load: Callable[[], Settings | list[str]], say: Say, locate: Locate, renew: Renew,
    path: Path | None = None,
) -> int:
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
