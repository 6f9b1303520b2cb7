"""A worker process: one event loop, its shards of the spool, its listening sockets; it carries mail the whole way.

The supervisor starts it with the number of a socket as its only argument (`node.link`), and sends its settings over
this socket. What always holds: a worker whose supervisor is gone ends; SIGTERM ends it in the same way as `Stop` of the
supervisor; an exception that reaches the loop is logged with its traceback and ends one session or one job, never the
worker.
"""

from __future__ import annotations

import asyncio
import faulthandler
import gc
import logging
import os
import random
import signal
import socket
import sys
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final, assert_never

import uvloop
from msgspec import convert

from postroad.check.bans import Bans
from postroad.config import options
from postroad.config.carried import from_plain
from postroad.mail.event import Noted
from postroad.node.frames import (
    Abandon,
    ActivityTold,
    Alive,
    AskActivity,
    AskMapUse,
    AskPaces,
    BansTold,
    Commit,
    FetchSts,
    Granted,
    KeysChanged,
    KeysTaken,
    LanePace,
    Leaving,
    LimitReached,
    MapUse,
    Misconfigured,
    NoticeWanted,
    Operate,
    Operated,
    Paces,
    PermitWanted,
    Prepare,
    Prepared,
    QueueCounted,
    QueueStarted,
    Ready,
    SendingForgotten,
    SendingTold,
    Start,
    StartQueue,
    Stop,
    StsChanged,
    StsTold,
    Sync,
    Synced,
    TallyForgotten,
    TallyTold,
    TicketSecretTold,
    TokensGranted,
    ToReadyWorker,
    ToWorker,
    read_to_worker,
)
from postroad.node.link import Link
from postroad.node.offices.etrn import Counted
from postroad.node.offices.permits import WorkerPermits
from postroad.node.sockets import LOCAL, Endpoint
from postroad.node.watchdog import BEAT_S
from postroad.node.wiring.assembly import Assembly
from postroad.node.wiring.world import World, system_world
from postroad.protocol.etrn import Wish
from postroad.receive.submit import socket_path
from postroad.report.log import Log, LogHandler
from postroad.world.memory import tune_malloc
from postroad.world.porter_link import SystemPorter
from postroad.world.problem import Problem
from postroad.world.system import bind_unix

ORPHAN_S: Final = 3.0  # how long what is in flight may take to end if the supervisor is gone
ORPHAN_MAX_S: Final = 10.0  # and after which it is gone in any case
EX_CONFIG: Final = 78  # of sysexits.h: another start brings nothing before something is mended
_LOG: Final = logging.getLogger("postroad")
LOOK_S: Final = 5.0  # how often files that may change by themselves (certificates, users) are looked at


class WorkerProcess:
    """The worker's side of the link, and its life from start to stop."""

    def __init__(self, sock: socket.socket, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._link: Link[ToWorker] = Link(sock, loop, read_to_worker, self._received, self._link_ended)
        self._permits = WorkerPermits(self._link.send)
        self._assembly: Assembly | None = None  # once it serves
        self._made: Assembly | None = None  # once it is there
        self._bans = Bans()  # known before anybody is let in: the supervisor tells them ahead of the start
        self._log: Log | None = None
        self._ticket_secret = b""
        self._question = 0
        self._questions: dict[int, Counted] = {}  # asked of all workers, by number
        self._stopping = False
        self._shutdown_s = 0.0
        self._committing: asyncio.Task[Any] | None = None
        self.ended: asyncio.Future[int] = loop.create_future()

    def _received(self, frame: ToWorker, descriptors: list[int]) -> None:
        assembly = self._assembly
        match frame:
            case BansTold(added, lifted):
                self._bans.follow(added, lifted)
                if self._made is not None and any(not ban.is_account for ban in added):
                    self._made.banned()
            case TicketSecretTold(secret):
                self._ticket_secret = secret
            case Start():
                self._task(self._start(frame, _sockets(frame.endpoints, descriptors)))
            case Stop(limit_s):
                self._task(self.stop(limit_s))
            case Granted() | TokensGranted():
                self._permits.received(frame)
            case QueueStarted(question, counts):
                done = self._questions.pop(question, None)
                if done is not None:
                    done(counts)
            case StsTold() | StsChanged() | FetchSts():
                if self._made is not None:
                    self._made.hear_sts(frame)
            case Sync(question):
                self._task(self._synced(question))
            case (
                PermitWanted() | TallyTold() | TallyForgotten() | SendingTold() | SendingForgotten() | NoticeWanted()
                | KeysChanged() | Prepare() | Commit() | Abandon() | Operate()
                | AskPaces() | AskMapUse() | AskActivity() | StartQueue()
            ):  # fmt: skip
                if assembly is None:
                    _LOG.error("the supervisor sent %s before this worker was ready", type(frame).__name__)
                else:
                    self._serve(assembly, frame, descriptors)
            case _:
                assert_never(frame)

    def _serve(self, assembly: Assembly, frame: ToReadyWorker, descriptors: list[int]) -> None:
        """Handles the frames that only a worker that is ready gets."""
        send = self._link.send
        match frame:
            case PermitWanted(scope):
                assembly.queue.give_up_connection(scope)
            case TallyTold(counts):
                assembly.hear(counts)
            case TallyForgotten(keys):
                assembly.forget(keys)
            case SendingTold(counts):
                assembly.sending.hear(counts)
            case SendingForgotten(keys):
                assembly.sending.forget(keys)
            case NoticeWanted(text, lines):
                assembly.sending.tell_postmaster(text, lines)
            case KeysChanged(question):
                assembly.keys.look(lambda: send(KeysTaken(question)))
            case Prepare(question, values):
                send(Prepared(question, _prepared(assembly, values)))
            case Commit(new):
                self._committing = self._task(assembly.commit(_sockets(new, descriptors)))
            case Abandon():
                assembly.abandon()
                if self._log is not None:
                    self._log.reopen()  # a log that was rotated is let go of, whatever the configuration is worth
            case Operate(question, request):
                assembly.operate(request, lambda rows: send(Operated(question, tuple(rows))))
            case AskPaces(question, keys):
                send(Paces(question, convert(assembly.queue.status.paces(keys), dict[str, LanePace])))
            case AskMapUse(question, name):
                send(MapUse(question, assembly.tables.maps.used(name)))
            case AskActivity(question):
                send(ActivityTold(question, assembly.activity()))
            case StartQueue(question, wish, by):
                assembly.start_queue(wish, by, lambda count: send(QueueCounted(question, count)))
            case _:
                assert_never(frame)

    def _ask_all(self, wish: Wish, by: str, done: Counted) -> None:
        """ETRN: has all workers start a queue; `done` gets their counts."""
        self._question += 1
        self._questions[self._question] = done
        self._link.send(StartQueue(self._question, wish, by))

    def _task(self, work: Any) -> asyncio.Task[Any]:
        task = self._loop.create_task(work)
        task.add_done_callback(self._check)
        return task

    async def _synced(self, question: int) -> None:
        """Answers that everything asked before is done."""
        if self._committing is not None:
            await asyncio.wait({self._committing})
            self._committing = None
        self._link.send(Synced(question))

    def _check(self, task: asyncio.Task[Any]) -> None:
        if not task.cancelled() and task.exception() is not None:
            _LOG.error("a task failed", exc_info=task.exception())
            if self._assembly is None or self._stopping:
                self._end(1)

    async def _start(self, start: Start, sockets: dict[Endpoint, socket.socket]) -> None:
        settings = from_plain(start.settings)
        if isinstance(settings, str):
            self._misconfigured(settings)
            return
        self._shutdown_s = settings.shutdown_s
        local = sockets.pop(LOCAL, None)
        tune_malloc(options.memory_options(settings))
        world = system_world(random.Random(os.urandom(16)), _porter())
        try:
            self._log = Log(options.log_options(settings), self._loop, world.clock.now_us)
        except OSError as error:  # it was looked at before: somebody was faster
            self._misconfigured(f"log.path: {settings.log.path}: {error.strerror or error}")
            return
        _log_through(LogHandler(self._log, self._loop, world.clock.now_us))
        assembly = Assembly(
            settings,
            number=start.number,
            shards=start.shards,
            world=world,
            permits=self._permits,
            log=self._log,
            loop=self._loop,
            tell=lambda counts: self._link.send(TallyTold(counts)),
            tell_sent=lambda counts: self._link.send(SendingTold(counts)),
            limit_reached=lambda key, text: self._link.send(LimitReached(key, text)),
            ask_all=self._ask_all,
            ticket_secret=lambda: self._ticket_secret,
            bans=self._bans,
            ask_sts=self._link.send,
        )
        self._made = assembly
        problem = await assembly.start(sockets)
        if problem and assembly.misconfigured:  # as for all workers: the supervisor says it once
            self._misconfigured(problem)
            return
        if problem:
            self._log.write(Noted(world.clock.now_us(), 0, "error", f"worker {start.number} cannot start: {problem}"))
            self._log.flush()
            self._end(1)
            return
        self._assembly = assembly
        if local is not None:
            await assembly.local.serve_users(local)
        await self._take_submissions(assembly, Path(settings.state_dir), start.number)
        self._look(world)
        # What lives from here on lives long: it need not be looked through for garbage again and again.
        gc.collect()
        gc.freeze()
        gc.set_threshold(20_000, 20, 50)
        self._link.send(Ready())
        self._beat()

    def _misconfigured(self, text: str) -> None:
        """Tells the supervisor that another start fails, too, until the settings or their files are corrected."""
        self._link.send(Misconfigured(text))
        self._end(EX_CONFIG)

    async def _take_submissions(self, assembly: Assembly, state_dir: Path, number: int) -> None:
        """Opens the socket of `postroad submit`. If this fails, a line in the log says so, and mail still comes in
        by the listeners."""
        path = socket_path(state_dir, number)
        path.unlink(missing_ok=True)  # the node's lock is ours: what stands here is left over
        bound = bind_unix(str(path))
        if isinstance(bound, Problem):
            logging.getLogger("postroad").error("`postroad submit` cannot be used: %s", bound)
        else:
            await assembly.local.take_submissions(bound)

    def _beat(self) -> None:
        """Tells the supervisor's watchdog that the loop runs. While a worker stops, another limit counts."""
        if not self._stopping:
            self._link.send(Alive())
            self._loop.call_later(BEAT_S, self._beat)

    def _look(self, world: World) -> None:
        if self._assembly is not None and not self._stopping:
            self._assembly.look()
            self._loop.call_later(LOOK_S, self._look, world)

    async def stop(self, limit_s: float | None = None) -> None:
        """Stops the worker. `limit_s`: None for `shutdown_s` of the settings."""
        if self._stopping:
            return
        self._stopping = True
        self._link.send(Leaving())
        if self._assembly is not None:
            await self._assembly.stop(self._shutdown_s if limit_s is None else limit_s)
        self._end(0)

    def _link_ended(self, why: str) -> None:
        if not self._stopping:
            _LOG.error("%s; this worker ends", why or "the supervisor is gone")
            # Nobody is left who would end us if something does not: the next node waits for our lock.
            last = threading.Timer(ORPHAN_MAX_S, os._exit, (1,))
            last.daemon = True
            last.start()
            self._loop.create_task(self.stop(ORPHAN_S))

    def _end(self, code: int) -> None:
        if self._log is not None:
            self._log.close()
        if not self.ended.done():
            self.ended.set_result(code)


def _sockets(keys: Sequence[Endpoint], descriptors: list[int]) -> dict[Endpoint, socket.socket]:
    return {key: socket.socket(fileno=descriptor) for key, descriptor in zip(keys, descriptors, strict=True)}


def _porter() -> SystemPorter | None:
    """Who delivers as other users: the second argument of the process is the number of its socket."""
    return SystemPorter(socket.socket(fileno=int(sys.argv[2]))) if len(sys.argv) > 2 else None


def _prepared(assembly: Assembly, values: dict[str, Any]) -> str:
    settings = from_plain(values)
    return settings if isinstance(settings, str) else assembly.prepare(settings)


def _log_through(handler: logging.Handler) -> None:
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(logging.INFO)
    logging.getLogger("asyncio").setLevel(logging.WARNING)


def main() -> int:
    """The process. Its argument is the number of the socket to the supervisor; a second one that to the porter."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the terminal's Ctrl-C is the supervisor's to hear
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    faulthandler.enable()  # SIGABRT of the watchdog: where the threads stand
    sock = socket.socket(fileno=int(sys.argv[1]))
    loop = uvloop.new_event_loop()
    asyncio.set_event_loop(loop)
    worker = WorkerProcess(sock, loop)
    loop.add_signal_handler(signal.SIGTERM, lambda: loop.create_task(worker.stop()))
    try:
        return loop.run_until_complete(worker.ended)
    finally:
        loop.close()




if __name__ == "__main__":
    code = main()
    # Threads of libraries (password hashing, file writing) must not keep a stopped worker alive.
    sys.stdout.flush()
    os._exit(code)
