"""A changed configuration is taken while the node runs: by all workers, or by none.

What always holds: one reload at a time; one that is asked for meanwhile follows. All workers prepare the new settings
before any of them takes them, so a configuration that one worker cannot use changes nothing. A worker that comes up
during a reload has the old settings and is started again.

How it fails: the problems are said as lines, and the old configuration stays in force.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from operator import attrgetter
from typing import TYPE_CHECKING, Final

from postroad.config import options
from postroad.config.carried import to_plain
from postroad.config.changes import AT_START, FIXED
from postroad.node.frames import Abandon, Commit, Prepare, Prepared, Stop, Sync, Synced
from postroad.node.loaded import LoadedConfiguration
from postroad.node.questions import WorkerQuestions
from postroad.node.sockets import Endpoint, ListeningSockets
from postroad.node.state_dir import Say
from postroad.node.workers import Worker, Workers
from postroad.world import system

if TYPE_CHECKING:
    from postroad.config.settings import Settings

STARTING_S: Final = 10.0  # how long a reload waits for workers that are being started
_LOOK_S: Final = 0.02

Load = Callable[[], "Settings | list[str]"]  # the settings of the file as it is now, or its problems as lines


class Reloading:
    """`settings`: those in force. `on_taken(settings)`: the node takes them; called once, before the workers do.
    `on_outdated(worker)`: called before a worker with outdated settings is told to stop."""

    def __init__(
        self,
        settings: Settings,
        load: Load,
        *,
        workers: Workers,
        questions: WorkerQuestions,
        sockets: ListeningSockets,
        loaded: LoadedConfiguration,
        manager: system.ServiceManager,
        on_taken: Callable[[Settings], None],
        on_outdated: Callable[[Worker], None],
        say: Say,
    ) -> None:
        self.settings = settings
        self.under_way = False
        self._load = load
        self._workers = workers
        self._questions = questions
        self._sockets = sockets
        self._loaded = loaded
        self._manager = manager
        self._on_taken = on_taken
        self._on_outdated = on_outdated
        self._say = say
        self._again = False
        self._waits: list[asyncio.Future[list[str]]] = []  # operators who want to know the outcome

    def begin(self) -> None:
        """SIGHUP: takes the configuration as its file has it now; after a reload that is under way, once more."""
        if self.under_way:
            self._again = True
            return
        self.under_way = True
        asyncio.ensure_future(self._reload())

    async def outcome(self) -> list[str]:
        """The same, and why it was refused."""
        done: asyncio.Future[list[str]] = asyncio.get_running_loop().create_future()
        self._waits.append(done)
        self.begin()
        return await done

    def renew(self, worker: Worker) -> None:
        """Stops a worker that came up with outdated settings. It is started again with the new ones."""
        if worker.settings is not self.settings and not self.under_way and not self._workers.stopping:
            self._say("info", f"worker {worker.number} started with outdated settings: starting it again")
            self._on_outdated(worker)
            worker.send(Stop(self.settings.shutdown_s))

    async def _reload(self) -> None:
        waits, self._waits = self._waits, []
        problems = ["the reload broke: see the log"]
        try:
            self._manager.reloading()
            self._loaded.reading()
            problems = await self._once()
            self._tell(problems)
        finally:
            self._manager.ready()
            self.under_way = False
            for done in waits:
                if not done.done():
                    done.set_result(problems)
            for worker in self._workers:
                if worker.ready:
                    self.renew(worker)
            if self._again:
                self._again = False
                self.begin()

    def _tell(self, problems: list[str]) -> None:
        if not problems:
            self._loaded.taken()
            self._say("info", "reloaded: the new configuration is in force")
            return
        self._loaded.refused(problems)
        for problem in problems:
            self._say("error", f"not reloaded: {problem}")
        self._say("error", "the new configuration is refused; the old one stays in force")

    async def _once(self) -> list[str]:
        found = await asyncio.to_thread(self._load)
        if isinstance(found, list):
            return found
        fixed = [key for key in FIXED if attrgetter(key)(found) != attrgetter(key)(self.settings)]
        if fixed:
            return [f"a change of `{key}` needs a restart of the node" for key in fixed]
        if options.porter_table(found) != options.porter_table(self.settings):
            return ["a change of deliveries as other users needs a restart of the node"]
        await self._wait_for_workers()
        added, problems = self._sockets.bind_missing(found, len(self._workers))
        prepared: set[int] = set()
        if not problems:
            prepared, problems = await self._prepare(found)
        if problems:
            added.close()
            for worker in self._workers:
                worker.send(Abandon())
            return problems
        await self._take(found, added, prepared)
        return []

    async def _wait_for_workers(self) -> None:
        """Waits for workers that are just starting, so that they take part; the others are started again later."""
        until = time.monotonic() + STARTING_S
        while not self._workers.all_ready and time.monotonic() < until:
            await asyncio.sleep(_LOOK_S)

    async def _prepare(self, found: Settings) -> tuple[set[int], list[str]]:
        """The workers that could take these settings, and the problems of those that cannot."""
        before = {worker.number: worker.link for worker in self._workers}
        values = to_plain(found)
        answers = await self._questions.ask(lambda question: Prepare(question, values), Prepared)
        problems = {
            f"worker {number} did not answer" if answer is None else f"worker {number}: {answer.problem}"
            for number, answer in answers
            if answer is None or answer.problem
        }
        # A worker that was started again in the meantime has prepared nothing.
        return {number for number, _ in answers if self._workers[number].link is before[number]}, sorted(problems)

    async def _take(self, found: Settings, added: ListeningSockets, prepared: set[int]) -> None:
        later = [name for name in AT_START if getattr(found, name) != getattr(self.settings, name)]
        self.settings = found
        self._on_taken(found)
        for name in later:
            self._say("warning", f"`[{name}]` has changed: the change takes effect when the node starts again")
        keys: tuple[Endpoint, ...] = added.endpoints
        removed = self._sockets.not_in(found)
        self._sockets.add(added)
        for worker in self._workers:
            if worker.link is not None and worker.number in prepared:
                worker.link.send(Commit(keys), added.descriptors(worker.number))
                worker.settings = found
        # The workers have stopped accepting there by then; ours are the last descriptors of those sockets.
        await self._questions.ask(Sync, Synced)
        self._sockets.close_some(removed)
