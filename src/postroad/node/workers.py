"""The worker processes of a node: started, started again when they die, and stopped.

What always holds: a worker that dies is started again, until the node stops; each worker inherits the lock of the node.
A worker has one link at a time, and a new process gets a new link.

How it fails: `start_all` raises OSError if no process can be made at the start; later this is said and tried again.
Not here: what is said over the links (`node.supervisor`).
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Final

from postroad.node.frames import FromWorker, Stop, ToWorker, read_from_worker
from postroad.node.link import Link
from postroad.node.state_dir import Say
from postroad.operate.requests import WorkerStatus

if TYPE_CHECKING:
    from postroad.config.settings import Settings

_RESTART_FIRST_S: Final = 0.05
_RESTART_MAX_S: Final = 5.0
_LIVED_S: Final = 10.0  # a worker that lived longer is started again at once
_NOT_OURS: Final = ("NOTIFY_SOCKET", "WATCHDOG_PID", "WATCHDOG_USEC")  # the service manager hears from the node alone


class Worker:
    """One worker process as the supervisor sees it. `settings`: those with which it was started, or which it has taken
    since."""

    def __init__(self, number: int) -> None:
        self.number = number
        self.process: subprocess.Popen[bytes] | None = None
        self.link: Link[FromWorker] | None = None
        self.ready = False
        self.started = 0.0
        self.restarts = 0
        self.settings: Settings | None = None
        self.ended = asyncio.Event()

    def status(self) -> WorkerStatus:
        """For operators."""
        pid = self.process.pid if self.process is not None else 0
        return WorkerStatus(self.number, pid, self.ready, round(time.monotonic() - self.started, 1))

    def send(self, frame: ToWorker) -> None:
        """Sends a frame, if the worker has a link."""
        if self.link is not None:
            self.link.send(frame)


class Workers:
    """All workers of a node, by number. Everything is called on the loop.

    - `porter()`: the socket to the process that delivers as other users, () if there is none.
    - `on_started(worker)`: called once for each new process, when it has its link; what is sent now comes first.
    - `on_frame(worker, frame)`: called for each frame of a worker.
    - `on_link_ended(worker, why)`: called once for each link; `why`: "" if the worker closed it.
    - `on_ended(worker)`: called once for each process, before it is started again.
    """

    def __init__(
        self,
        *,
        inherited: Callable[[], int],
        porter: Callable[[], tuple[int, ...]],
        on_started: Callable[[Worker], None],
        on_frame: Callable[[Worker, FromWorker], None],
        on_link_ended: Callable[[Worker, str], None],
        on_ended: Callable[[Worker], None],
        say: Say,
    ) -> None:
        self._inherited = inherited
        self._porter = porter
        self._on_started = on_started
        self._on_frame = on_frame
        self._on_link_ended = on_link_ended
        self._on_ended = on_ended
        self._say = say
        self._all: list[Worker] = []
        self._environment = {name: value for name, value in os.environ.items() if name not in _NOT_OURS}
        self.stopping = False

    def __iter__(self) -> Iterator[Worker]:
        return iter(self._all)

    def __len__(self) -> int:
        return len(self._all)

    def __getitem__(self, number: int) -> Worker:
        return self._all[number]

    @property
    def all_ready(self) -> bool:
        """Whether each worker serves."""
        return all(worker.ready for worker in self._all)

    def send(self, number: int, frame: ToWorker) -> None:
        """Sends a frame to a worker, if it has a link."""
        self._all[number].send(frame)

    def start_all(self, count: int) -> None:
        """Starts this number of workers. Raises OSError."""
        self._all = [Worker(number) for number in range(count)]
        for worker in self._all:
            self._start(worker)

    def _start(self, worker: Worker) -> None:
        ours, theirs = socket.socketpair()
        worker.started = time.monotonic()
        worker.ready = False
        worker.ended.clear()
        try:
            worker.process = subprocess.Popen(
                [sys.executable, "-m", "postroad.node.worker", str(theirs.fileno()), *map(str, self._porter())],
                pass_fds=(theirs.fileno(), self._inherited(), *self._porter()),
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
            lambda frame, descriptors: self._on_frame(worker, frame),
            lambda why: self._link_ended(worker, why),
        )
        self._on_started(worker)

    def _link_ended(self, worker: Worker, why: str) -> None:
        worker.link = None
        if why:  # the worker sees the end of its link, and ends; then it is started again
            self._say("error", f"the link to worker {worker.number} is closed: {why}")
        self._on_link_ended(worker, why)

    def reap(self) -> None:
        """SIGCHLD: finds the workers that have ended, and starts them again."""
        for worker in self._all:
            process = worker.process
            if process is None or process.poll() is None:
                continue
            worker.process = None
            worker.ready = False
            worker.ended.set()
            self._on_ended(worker)
            if worker.link is not None:
                worker.link.close()
            if not self.stopping:
                self._plan_start(worker, process.returncode)

    def _plan_start(self, worker: Worker, code: int) -> None:
        how = f"signal {-code}" if code < 0 else f"exit code {code}"
        lived_s = time.monotonic() - worker.started
        worker.restarts = worker.restarts + 1 if lived_s < _LIVED_S else 1
        wait_s = min(_RESTART_FIRST_S * 2 ** min(worker.restarts - 1, 16), _RESTART_MAX_S)
        self._say("error", f"worker {worker.number} ended with {how} after {lived_s:.1f} s; starting it again")
        asyncio.get_running_loop().call_later(wait_s, self._start_again, worker)

    def _start_again(self, worker: Worker) -> None:
        if self.stopping or worker.process is not None:
            return
        try:
            self._start(worker)
        except OSError as error:  # no memory, no process, no descriptor left for it: its shards must not wait for ever
            text = f"worker {worker.number} cannot be started ({error.strerror or error}); trying again"
            self._say("error", f"{text} in {_RESTART_MAX_S:g} s")
            asyncio.get_running_loop().call_later(_RESTART_MAX_S, self._start_again, worker)

    def tell_stop(self, shutdown_s: float) -> None:
        """Tells all workers to stop within this time. None is started again."""
        self.stopping = True
        for worker in self._all:
            worker.send(Stop(shutdown_s))

    async def wait_ended(self, limit_s: float) -> None:
        """Waits for the end of all workers, and kills those that take longer."""
        waits = [worker.ended.wait() for worker in self._all if worker.process is not None]
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(limit_s):
                await asyncio.gather(*waits)
        for worker in self._all:
            if worker.process is not None:
                self._say("warning", f"worker {worker.number} did not stop in time; its mail is safe in the spool")
                worker.process.kill()
                worker.process.wait()


def not_run(error: OSError, user: str) -> str:
    """Why no worker can be made, with the remedy."""
    text = f"the workers cannot be started: {sys.executable}: {error.strerror or error}"
    if not isinstance(error, PermissionError):
        return text
    who = f"the user {user!r}" if user else "this user"
    return f"{text}; give {who} the right to execute it and to enter the folders above it, or install it elsewhere"
