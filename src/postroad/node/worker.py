"""A worker process: one event loop, its shards of the spool, its listening sockets; it carries mail the whole way.

Started by the supervisor with the number of a socket as its only argument (`node.link`), over which it gets its
settings. What always holds: a worker whose supervisor is gone ends; SIGTERM ends it as the supervisor's word does;
an exception that reaches the loop is logged with its traceback and ends one session or one job, never the worker.
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
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

import uvloop

from postroad.check.bans import Bans
from postroad.config import options
from postroad.mail.event import Noted
from postroad.node.link import Frame, Link
from postroad.node.offices.permits import WorkerPermits
from postroad.node.sockets import Endpoint
from postroad.node.watchdog import BEAT_S
from postroad.node.wiring.assembly import Assembly
from postroad.node.wiring.world import World, system_world
from postroad.report.log import Log, LogHandler
from postroad.world.memory import tune_malloc

if TYPE_CHECKING:
    from postroad.config.settings import Settings

ORPHAN_S: Final = 3.0  # how long what is in flight may take to end where the supervisor is gone
ORPHAN_MAX_S: Final = 10.0  # and after which it is gone in any case
EX_CONFIG: Final = 78  # of sysexits.h: another start brings nothing before something is mended
LOOK_S: Final = 5.0  # how often files that may change by themselves (certificates, users) are looked at


class WorkerProcess:
    """The worker's side of the link, and its life from start to stop."""

    def __init__(self, sock: socket.socket, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._link = Link(sock, loop, self._received, self._link_ended)
        self._permits = WorkerPermits(self._link.send)
        self._assembly: Assembly | None = None  # once it serves
        self._made: Assembly | None = None  # once it is there
        self._bans = Bans()  # known before anybody is let in: the supervisor tells them ahead of the start
        self._log: Log | None = None
        self._ticket_secret = b""
        self._question = 0
        self._questions: dict[int, Callable[[list[Any]], None]] = {}  # asked of all workers, by number
        self._stopping = False
        self._shutdown_s = 0.0
        self._committing: asyncio.Task[Any] | None = None
        self.ended: asyncio.Future[int] = loop.create_future()

    def _received(self, frame: Frame, descriptors: list[int]) -> None:
        assembly = self._assembly
        match frame:
            case ("granted" | "paid", _, _):
                self._permits.received(frame)
            case ("wanted", key) if assembly is not None:
                assembly.queue.give_up_connection(key)
            case ("others", told) if assembly is not None:
                assembly.hear(told)
            case ("bans", added, lifted):
                self._bans.follow(added, lifted)
                if self._made is not None and any(not ban.is_account for ban in added):
                    self._made.banned()
            case ("forget", keys) if assembly is not None:
                assembly.forget(keys)
            case ("tickets", secret):
                self._ticket_secret = secret
            case ("start", number, shards, settings, keys):
                sockets = _sockets(keys, descriptors)
                self._task(self._start(number, shards, settings, sockets))
            case ("stop", limit_s):
                self._task(self.stop(limit_s))
            case ("prepare", question, settings) if assembly is not None:
                self._link.send(("answer", question, assembly.prepare(settings)))
            case ("commit", keys) if assembly is not None:
                self._committing = self._task(assembly.commit(_sockets(keys, descriptors)))
            case ("abandon",) if assembly is not None:
                assembly.abandon()
                if self._log is not None:
                    self._log.reopen()  # a log that was rotated is let go of, whatever the configuration is worth
            case ("sync", question, _):
                self._task(self._synced(question))
            case ("operate", question, value) if assembly is not None:
                assembly.operate(value, lambda rows: self._link.send(("answer", question, rows)))
            case ("start queue", question, told) if assembly is not None:
                assembly.start_queue(told, lambda count: self._link.send(("answer", question, count)))
            case ("queue started", question, counts):
                done = self._questions.pop(question, None)
                if done is not None:
                    done(counts)
            case ("pace", question, keys) if assembly is not None:
                self._link.send(("answer", question, assembly.queue.paces(keys)))
            case ("status", question, _) if assembly is not None:
                self._link.send(("answer", question, assembly.status()))
            case _:
                logging.getLogger("postroad").error("the supervisor sent %r too early", frame[0])

    def _ask_all(self, told: tuple[str, str, str], done: Callable[[list[Any]], None]) -> None:
        """ETRN: have all workers start a queue; `done` gets their counts."""
        self._question += 1
        self._questions[self._question] = done
        self._link.send(("start queue", self._question, told))

    def _task(self, work: Any) -> asyncio.Task[Any]:
        task = self._loop.create_task(work)
        task.add_done_callback(self._check)
        return task

    async def _synced(self, question: int) -> None:
        """What was asked before is done: answer."""
        if self._committing is not None:
            await asyncio.wait({self._committing})
            self._committing = None
        self._link.send(("answer", question, ""))

    def _check(self, task: asyncio.Task[Any]) -> None:
        if not task.cancelled() and task.exception() is not None:
            logging.getLogger("postroad").error("a task failed", exc_info=task.exception())
            if self._assembly is None or self._stopping:
                self._end(1)

    async def _start(
        self, number: int, shards: list[int], settings: Settings, sockets: dict[Endpoint, socket.socket]
    ) -> None:
        self._shutdown_s = settings.shutdown_s
        tune_malloc(options.memory_options(settings))
        world = system_world(random.Random(os.urandom(16)))
        try:
            self._log = Log(options.log_options(settings), self._loop, world.clock.now_us)
        except OSError as error:  # it was looked at before: somebody was faster
            self._link.send(("misconfigured", f"log.path: {settings.log.path}: {error.strerror or error}"))
            self._end(EX_CONFIG)
            return
        _log_through(LogHandler(self._log, self._loop, world.clock.now_us))
        assembly = Assembly(
            settings,
            number=number,
            shards=shards,
            world=world,
            permits=self._permits,
            log=self._log,
            loop=self._loop,
            tell=lambda told: self._link.send(("tally", told)),
            ask_all=self._ask_all,
            ticket_secret=lambda: self._ticket_secret,
            bans=self._bans,
        )
        self._made = assembly
        problem = await assembly.start(sockets)
        if problem and assembly.misconfigured:  # as for all workers: the supervisor says it once
            self._link.send(("misconfigured", problem))
            self._end(EX_CONFIG)
            return
        if problem:
            self._log.write(Noted(world.clock.now_us(), 0, "error", f"worker {number} cannot start: {problem}"))
            self._log.flush()
            self._end(1)
            return
        self._assembly = assembly
        self._look(world)
        # What lives from here on lives long: it need not be looked through for garbage again and again.
        gc.collect()
        gc.freeze()
        gc.set_threshold(20_000, 20, 50)
        self._link.send(("ready",))
        self._beat()

    def _beat(self) -> None:
        """Tell the supervisor's watchdog that the loop goes round; a worker that stops has a limit of its own."""
        if not self._stopping:
            self._link.send(("alive",))
            self._loop.call_later(BEAT_S, self._beat)

    def _look(self, world: World) -> None:
        if self._assembly is not None and not self._stopping:
            self._assembly.look()
            self._loop.call_later(LOOK_S, self._look, world)

    async def stop(self, limit_s: float | None = None) -> None:
        """`limit_s`: None for what the settings say."""
        if self._stopping:
            return
        self._stopping = True
        self._link.send(("leaving",))
        if self._assembly is not None:
            await self._assembly.stop(self._shutdown_s if limit_s is None else limit_s)
        self._end(0)

    def _link_ended(self) -> None:
        if not self._stopping:
            logging.getLogger("postroad").error("the supervisor is gone; this worker ends")
            # Nobody is left who would end us where something does not: the next node waits for our lock.
            last = threading.Timer(ORPHAN_MAX_S, os._exit, (1,))
            last.daemon = True
            last.start()
            self._loop.create_task(self.stop(ORPHAN_S))

    def _end(self, code: int) -> None:
        if self._log is not None:
            self._log.close()
        if not self.ended.done():
            self.ended.set_result(code)


def _sockets(keys: list[Endpoint], descriptors: list[int]) -> dict[Endpoint, socket.socket]:
    return {key: socket.socket(fileno=descriptor) for key, descriptor in zip(keys, descriptors, strict=True)}


def _log_through(handler: logging.Handler) -> None:
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(logging.INFO)
    logging.getLogger("asyncio").setLevel(logging.WARNING)


def main() -> int:
    """The process. Its only argument is the number of the socket to the supervisor."""
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
