"""A simulated node: the supervisor's part, and workers that are whole `Assembly`s, each in a process that can die.

The supervisor's office of permits and the workers' side of it are the real ones; the link between them is a delay. A
worker that dies is started again after a while from its files, as they were at that moment; so is the node. A graceful
stop and a reload go the ways that the supervisor goes.
"""

from __future__ import annotations

import asyncio
import random
import sqlite3
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from postroad.check.bans import Bans
from postroad.config import options
from postroad.config.load import parse
from postroad.config.settings import Settings
from postroad.mail import identifier
from postroad.mail.event import Accepted, Attempted, Event, Failed, Noted, Removed
from postroad.node.frames import (
    AskPermits,
    AskSts,
    AskTokens,
    BansTold,
    FetchSts,
    Frame,
    Granted,
    NoticeWanted,
    OpeningFailed,
    PermitWanted,
    ReleasePermit,
    SendingTold,
    StsChanged,
    StsFetchDone,
    StsTold,
    Succeeded,
    TallyForgotten,
    TallyTold,
    TokensGranted,
    ToWorker,
    encode,
    read_from_worker,
    read_to_worker,
)
from postroad.node.offices.guard import Guard
from postroad.node.offices.permits import PermitOffice, WorkerPermits
from postroad.node.offices.rates import RateOffice
from postroad.node.offices.sending import SendingOffice
from postroad.node.offices.sts import StsOffice
from postroad.node.sockets import endpoints
from postroad.node.wiring.assembly import Assembly
from postroad.node.wiring.world import Disk, World
from postroad.operate.operator import OperatorAction, OperatorRequest, OperatorResult, read_request
from postroad.report.line import human_line
from postroad.report.log import Log
from postroad.world.http import fetcher
from postroad.world.programs import ProgramResult
from tests.sim import signing, targets
from tests.sim.by_http import Link
from tests.sim.disk import SimDisk, SimQuickness, crash_image, rows
from tests.sim.inspecting import ON_PURPOSE
from tests.sim.ledger import Delivery, message_id_of
from tests.sim.names import SimResolver
from tests.sim.plan import toml
from tests.sim.process import Process
from tests.sim.routing import slowed
from tests.sim.sts import StsDomain
from tests.sim.users import SimPorter
from tests.sim.virtual import VirtualClock
from tests.sim.wire import SimNetwork, Socket

if TYPE_CHECKING:
    from tests.sim.house import House

LOCAL_DESTINATIONS = 7  # of Maildirs, mbox files, programs, by HTTP, by the porter; a program and a file of aliases
STS_LOOK_S = 600.0  # how often the office of MTA-STS looks
GUARD_S = 0.001  # how long a frame of the guard takes
IN_FLIGHT_S = 60.0  # a delivery whose 250 came longer ago than this before a crash must have been committed
_WRONG = ("broke:", "internal error", "Traceback", "without their message", "is damaged", "first settlement")


class Ear(Log):
    """The log, listened to: errors that can only be bugs are faults of the run."""

    house: House

    def write(self, event: Event) -> None:
        self._hear(event)
        super().write(event)

    def write_all(self, events: Iterable[Event]) -> None:
        kept = tuple(events)
        for event in kept:
            self._hear(event)
        super().write_all(kept)

    def _hear(self, event: Event) -> None:
        self.house.crowd.heard(event)
        self._in_order(event)
        if isinstance(event, Noted) and any(word in event.text for word in _WRONG) and ON_PURPOSE not in event.text:
            self.house.ledger.fault(f"the log says: {event.text}")
        if isinstance(event, Noted):
            for part in self.house.parts:
                part.noted(event.text)
        if self.house.tracing:
            self.house.say(human_line(event).decode())


    def _in_order(self, event: Event) -> None:
        """Of a message the first that is heard is that it was accepted, and that once."""
        ledger = self.house.ledger
        if isinstance(event, Accepted):
            if event.id in ledger.heard:
                ledger.fault(f"the stream says out of order, or twice, that {identifier.text(event.id)} was accepted")
            ledger.heard[event.id] = True
        elif event.id and isinstance(event, Attempted | Failed | Removed):
            ledger.heard.setdefault(event.id, False)


class SimPrograms:
    """`postroad.world.programs.Programs`: one program, which keeps what it is given, or fails."""

    def __init__(self, house: House, owner: str) -> None:
        self._house = house
        self._owner = owner

    async def run(self, command: Any, *, stdin: bytes | Path = b"", environment: Any, **more: Any) -> ProgramResult:
        house = self._house
        if command[0] == targets.PROGRAM:
            return await self._run_target(command, stdin, environment)
        await asyncio.sleep(house.chance.random())
        if not house.healed and house.chance.random() < 0.2:
            return ProgramResult(house.chance.choice((75, 69, -1)), output=b"cannot")
        content = stdin if isinstance(stdin, bytes) else stdin.read_bytes()
        delivery = Delivery(
            message_id_of(content), command[1], house.base.now, "program", content, self._owner,
            signing.plain(environment["SENDER"]), path=environment["SENDER"],
        )
        house.taken(delivery)
        await asyncio.sleep(house.chance.random())
        return ProgramResult(0)


    async def _run_target(self, command: Any, stdin: bytes | Path, environment: Any) -> ProgramResult:
        """The program of an alias (`targets`)."""
        house = self._house
        part = next(each for each in house.parts if isinstance(each, targets.Targets))
        await asyncio.sleep(part.chance.random())
        ended = await part.runs()
        if ended is not None:
            return ended
        content = stdin if isinstance(stdin, bytes) else stdin.read_bytes()
        house.taken(Delivery(
            message_id_of(content), f"|{' '.join(command)}", house.base.now, "program", content, self._owner,
            environment["SENDER"],
        ))  # fmt: skip
        await asyncio.sleep(part.chance.random())
        return ProgramResult(0)


class Worker:
    """One worker and its present life."""

    def __init__(self, number: int) -> None:
        self.number = number
        self.life = 0
        self.up = False
        self.process: Process | None = None
        self.assembly: Assembly | None = None
        self.permits: WorkerPermits | None = None
        self.disk: SimDisk | None = None
        self.link_at = 0.0  # when the last frame to or from it arrives: frames keep their order
        self.bans = Bans()


class Node:
    def __init__(self, house: House) -> None:
        self.house = house
        self.clock = VirtualClock(house.base)
        self.variant = 0
        self.settings = self._read(0)
        self.workers = [Worker(number) for number in range(house.plan.workers)]
        self.office = self._new_office()
        self.guard = self._new_guard()
        self.sending = house.counts.open(self)
        self.sts_domain = next((part for part in house.parts if isinstance(part, StsDomain)), None)
        self.sts = self._new_sts()
        self.well_since = 0.0  # since when all workers are up, the disk is sound and the clock steady
        self.disk_trouble = ""
        self.operated_at = self.died_at = 0.0  # when an operator asked for something, and when a worker ended
        self.dead: list[Process] = []  # kept, so that no object of theirs is collected while the world runs
        self._reminding = False
        self._remind_s = 1.0

    @property
    def spool(self) -> Path:
        return Path(self.settings.state_dir) / "spool"

    @property
    def history(self) -> Path:
        return Path(self.settings.state_dir) / "history"

    def _read(self, variant: int) -> Settings:
        house = self.house
        written = toml(house.plan, house.folder, variant=variant)
        for part in house.parts:
            written = part.settings(written)
        found = parse(written, house.folder / "postroad.toml", files=False)
        if isinstance(found, list):
            raise AssertionError("\n".join(map(str, found)))
        return found

    def shards_of(self, worker: Worker) -> list[int]:
        return [worker.number]

    # -- the supervisor's part --------------------------------------------------------------------------------

    def _new_office(self) -> PermitOffice:
        self.rates = RateOffice(self._limits, self._tell, self.house.base.time, self.house.base.call_later)
        return PermitOffice(self._limits, self._tell, self.house.base.time)

    def _new_guard(self) -> Guard:
        return Guard(
            lambda: self.settings, self._tell_of_clients, lambda: [each.number for each in self.workers if each.up],
            lambda: [each.number for each in self.workers if each.process is not None], self.clock.now_us,
            lambda level, text: self.house.trace(f"guard: {text}"),
        )  # fmt: skip

    def _new_sts(self) -> StsOffice:
        """It has its turns as long as it is the node's."""
        domain = self.sts_domain
        made = StsOffice(
            lambda: options.sts_options(self.settings), self._tell_of_clients,
            lambda: [each.number for each in self.workers if each.up], self.clock.now_us,
            lambda level, text: self.house.trace(f"sts: {text}"), random.Random(f"sts {self.house.plan.seed}"),
            lambda: domain.store(Path(self.settings.state_dir)) if domain is not None else None,
        )  # fmt: skip
        if domain is not None:
            self.house.base.call_later(STS_LOOK_S, self._look_at_sts, made)
        return made

    def _look_at_sts(self, office: StsOffice) -> None:
        if office is self.sts and not self.house.closing:
            office.look()
            self.house.base.call_later(STS_LOOK_S, self._look_at_sts, office)

    def _ask_sts(self, office: StsOffice, worker: Worker, life: int, octets: bytes) -> None:
        if office is not self.sts or worker.life != life or worker.process is None:
            return
        match read_from_worker(octets):
            case AskSts(domain, id):
                office.ask(worker.number, domain, id)
            case StsFetchDone(question, found):
                office.fetched(worker.number, question, found)

    def _tell_of_clients(self, number: int, frame: ToWorker) -> None:
        """Takes no chance: the times of other frames, and so what a seed means, are as without it."""
        worker = self.workers[number]
        self.house.base.call_later(GUARD_S, self._heard_of_clients, worker, worker.life, encode(frame))

    def _heard_of_clients(self, worker: Worker, life: int, octets: bytes) -> None:
        process, assembly = worker.process, worker.assembly
        if worker.life != life or process is None:
            return
        match read_to_worker(octets):
            case BansTold(added, lifted):
                worker.bans.follow(added, lifted)
                if worker.up and assembly is not None and added:
                    process.run(assembly.banned)
            case TallyTold(counts) if worker.up and assembly is not None:
                process.run(assembly.hear, counts)
            case TallyForgotten(keys) if worker.up and assembly is not None:
                process.run(assembly.forget, keys)
            case NoticeWanted(text) if worker.up and assembly is not None:
                process.run(assembly.sending.tell_postmaster, text)
            case SendingTold(counts) if worker.up and assembly is not None:
                process.run(assembly.sending.hear, counts)
            case (StsTold() | StsChanged() | FetchSts()) as frame if assembly is not None:
                process.run(assembly.hear_sts, frame)

    def _reached(self, office: SendingOffice, number: int, key: str, text: str) -> None:
        self.house.base.call_later(GUARD_S, self.house.counts.reached, office, number, key, text)

    def _told_of_clients(self, guard: Guard, number: int, told: Any) -> None:
        if guard is self.guard:
            guard.take_counts(number, told)

    def _limits(self, scope: str) -> Any:
        return options.pace_table(self.settings).limits(scope)

    def _tell(self, number: int, frame: ToWorker) -> None:
        worker = self.workers[number]
        self._frame(worker, self._heard_by_worker, worker, worker.life, encode(frame))

    def _frame(self, worker: Worker, callback: Callable[..., None], *arguments: Any) -> None:
        house = self.house
        worker.link_at = max(worker.link_at + 1e-6, house.base.now + 0.0001 + 0.002 * house.chance.random())
        house.base.call_at(worker.link_at, callback, *arguments)

    def _heard_by_worker(self, worker: Worker, life: int, octets: bytes) -> None:
        if worker.life != life or worker.process is None or worker.permits is None:
            return
        match read_to_worker(octets):
            case (Granted() | TokensGranted()) as granted:
                worker.process.run(worker.permits.received, granted)
            case PermitWanted(scope):
                if worker.up and worker.assembly is not None:
                    worker.process.run(worker.assembly.queue.give_up_connection, scope)
            case frame:
                raise AssertionError(f"no office sends {frame}")

    def _heard_by_office(self, office: PermitOffice, number: int, octets: bytes) -> None:
        if office is not self.office:
            return
        match read_from_worker(octets):
            case AskPermits(scopes, count):
                office.ask(number, scopes, count)
                self._remind_s = 1.0
                if not self._reminding:
                    self._reminding = True
                    self.house.base.call_later(1.0, self._remind)
            case ReleasePermit(scopes):
                office.release(number, scopes)
            case Succeeded(scopes, count):
                office.succeeded(scopes, count)
            case OpeningFailed(scopes, others):
                office.refused(scopes, others=others)
            case AskTokens(key, scopes, count):
                self.rates.ask(number, key, scopes, count)
            case frame:
                raise AssertionError(f"no office hears {frame}")

    def _remind(self) -> None:
        """The supervisor does this each second; here only while somebody asks, and ever less often while he asks."""
        self.office.remind()
        self._reminding = any(count.asking for count in self.office._counts.values())
        self._remind_s = min(2 * self._remind_s, 120.0)
        if self._reminding:
            self.house.base.call_later(self._remind_s, self._remind)

    # -- workers ----------------------------------------------------------------------------------------------

    def start(self) -> None:
        for worker in self.workers:
            self._spawn(worker)

    def _spawn(self, worker: Worker) -> None:
        house = self.house
        worker.life += 1
        name = f"w{worker.number}.{worker.life}"
        chance = random.Random(f"{house.plan.seed} {name}")
        process = Process(
            house.base, name, work_s=lambda: 0.02 * chance.random() ** 2, fault=house.ledger.fault,
            worked=house.crowd.worked,
        )  # fmt: skip
        disk = SimDisk(random.Random(f"disk {house.plan.seed} {name}"), house.ledger, name, house.base.time)
        disk.trouble = self.disk_trouble
        disk.quota_share = 0.04 if house.plan.trouble and not house.healed else 0.0
        world = World(
            clock=self.clock,
            chance=chance,
            network=SimNetwork(house.wires, process, "192.0.2.1", house.tls_fails),
            programs=SimPrograms(house, name),
            http_link=partial(Link, house, name),
            porter=SimPorter(house, name, disk.posix()) if "users" in house.plan.parts else None,
            entropy=random.Random(f"entropy {house.plan.seed} {name}"),
            resolver=lambda dns: SimResolver(house.names),
            fetcher=partial(self.sts_domain.fetcher, process) if self.sts_domain is not None else fetcher,
            disk=Disk(
                connect=disk.connect, posix=disk.posix(), free=disk.free, threads=False,
                commit_s=lambda: 0.0005 + 0.02 * chance.random() ** 3,
                quickness=SimQuickness(random.Random(f"quickness {house.plan.seed} {name}")),
            ),
        )
        link = partial(self._frame, worker, self._heard_by_office, self.office, worker.number)
        worker.process, worker.disk = process, disk
        worker.permits = WorkerPermits(lambda frame: link(encode(frame)) if process.alive else None)
        log = Ear(options.log_options(self.settings), process, self.clock.now_us)
        log.house = house
        worker.bans = Bans()
        told = partial(house.base.call_later, GUARD_S, self._told_of_clients, self.guard, worker.number)
        assembly = worker.assembly = Assembly(
            self.settings, number=worker.number, shards=self.shards_of(worker), world=world, permits=worker.permits,
            log=log, loop=process, tell=lambda what: (told(what), None)[1], bans=worker.bans,
            tell_sent=partial(house.base.call_later, GUARD_S, house.counts.take, self.sending, worker.number),
            limit_reached=partial(self._reached, self.sending, worker.number),
            ask_sts=self._asks_sts(worker, process) if self.sts_domain is not None else None,
        )
        if house.sts is not None:
            assembly._sts = house.sts.beside(assembly._sts)
        if house.plan.looked_up:
            lookups, make = random.Random(f"map {house.plan.seed} {name}"), assembly._make
            assembly._make = (  # type: ignore[method-assign]
                lambda settings: slowed(make(settings), lookups, lambda: house.healed)
            )
        self.guard.worker_starts(worker.number)
        process.run(lambda: process.create_task(self._start(worker, process, assembly)))

    def _asks_sts(self, worker: Worker, process: Process) -> Callable[[Frame], None]:
        later, office, life = self.house.base.call_later, self.sts, worker.life

        def ask(frame: Frame) -> None:
            if process.alive:
                later(GUARD_S, self._ask_sts, office, worker, life, encode(frame))

        return ask

    async def _start(self, worker: Worker, process: Process, assembly: Assembly) -> None:
        sockets: Any = {endpoint: Socket(str(endpoint)) for endpoint in endpoints(self.settings)}
        settings = self.settings
        problem = await assembly.start(sockets)
        if problem:
            if not self.disk_trouble:
                self.house.ledger.fault(f"worker {worker.number} cannot start: {problem}")
            self.house.base.call_soon(self.crash, worker, "the start failed")
            return
        if worker.number == 0 and self.house.plan.dropped:
            await assembly.local.serve_users(Socket("users"))  # type: ignore[arg-type]
        worker.up = True
        self.guard.worker_up(worker.number)
        self.sending.worker_up(worker.number)
        self.well_since = self.house.base.now
        if settings is not self.settings:  # as the supervisor: it is started again with the new settings
            self.house.base.call_soon(self.restart, worker)
        self._step_history(process, assembly)
        self._look(process, assembly)

    def _step_history(self, process: Process, assembly: Assembly) -> None:
        try:
            assembly.historian.step()
            if self.house.chance.random() < 0.5:  # else a crash may come first: the counts are behind the history
                assembly.counting.step()
        except (sqlite3.Error, OSError) as error:
            self.house.ledger.fault(f"history: {error!r}")
        process.call_later(20.0 + 5000.0 * self.house.chance.random() ** 2, self._step_history, process, assembly)

    def _look(self, process: Process, assembly: Assembly) -> None:
        assembly.look()
        process.call_later(1800.0, self._look, process, assembly)

    # -- ends -------------------------------------------------------------------------------------------------

    def crash(self, worker: Worker, why: str, *, silent: bool = False, again_s: float | None = None) -> None:
        """The worker is gone in this very moment. `silent`: its machine, too."""
        house, process = self.house, worker.process
        if process is None:
            return
        house.trace(f"crash of {process.name}: {why}")
        self._gone(worker, excused=True, silent=silent)
        if again_s is None:
            again_s = 0.05 + 5.0 * house.chance.random() ** 3
        house.base.call_later(again_s, self._spawn_again, worker)

    def _spawn_again(self, worker: Worker) -> None:
        if worker.process is None:
            self._spawn(worker)

    def _gone(self, worker: Worker, *, excused: bool, silent: bool) -> None:
        """A process has ended; its files are left as they were."""
        process, assembly, disk = worker.process, worker.assembly, worker.disk
        assert process is not None and assembly is not None and disk is not None
        # Outcomes that wait for their commit, and what is on connections, or with the writers of local mail.
        ends = sum(end.process is process for end in self.house.wires.ends)
        writers = LOCAL_DESTINATIONS * max(self.settings.queue.concurrency, 3 if self.house.plan.reloads else 0)
        most = self.settings.queue.unsettled_max + ends + writers
        process.kill()
        self.dead.append(process)
        worker.process = worker.assembly = worker.permits = worker.disk = None
        worker.up = False
        self.house.wires.died(process, silent=silent)
        self._frame(worker, self._link_ended, self.office, worker.number)
        self.guard.worker_died(worker.number)
        self.sending.worker_died(worker.number)
        self.house.counts.died.append(self.clock.now_us())
        self.died_at = self.house.base.now
        crash_image(self.spool, self.shards_of(worker), partial(_close_files, assembly, disk))
        waits = {(message_id, recipient) for _, message_id, recipient, _, _ in rows(self.spool, self.shards_of(worker))}
        in_flight = set()
        for delivery in self.house.ledger.deliveries:
            if delivery.owner == process.name and (delivery.message_id, delivery.recipient) in waits and excused:
                late = self.house.base.now - delivery.at > IN_FLIGHT_S
                if delivery.known:
                    in_flight.add((delivery.message_id, delivery.place))
                delivery.excused = delivery.excused or not late or disk.troubled_until >= delivery.at
        if len(in_flight) > most:
            self.house.ledger.fault(f"{process.name}: {len(in_flight)} outcomes went with it, at most {most} may")

    def _link_ended(self, office: PermitOffice, number: int) -> None:
        office.worker_died(number)
        self.sts.worker_died(number)

    def power_cut(self, again_s: float) -> None:
        """The whole machine, supervisor included."""
        self.house.trace("power cut")
        for worker in self.workers:
            if worker.process is not None:
                self._gone(worker, excused=True, silent=True)
        self.office = self._new_office()
        self.guard = self._new_guard()
        self.house.counts.cuts.append(self.clock.now_us())
        self.sending = self.house.counts.open(self)
        self.sts.close()
        self.sts = self._new_sts()
        self._reminding = False
        for worker in self.workers:
            self.house.base.call_later(again_s, self._spawn_again, worker)

    def restart(self, worker: Worker) -> None:
        """Stop as asked, and start again."""
        process, assembly = worker.process, worker.assembly
        if process is None or assembly is None or not worker.up:
            return
        worker.up = False
        self.house.trace(f"restart of {process.name}")
        process.run(lambda: process.create_task(self._stop(worker, process, assembly)))

    async def _stop(self, worker: Worker, process: Process, assembly: Assembly) -> None:
        begun, limit_s = process.time(), 30.0
        await assembly.stop(limit_s)
        # What did not end within the limit was in flight.
        in_time = process.time() - begun < limit_s
        self.house.base.call_soon(self._stopped, worker, process, in_time)

    def _stopped(self, worker: Worker, process: Process, in_time: bool) -> None:
        if worker.process is not process:
            return
        self._gone(worker, excused=not in_time, silent=False)
        if not self.house.closing:
            self.house.base.call_later(0.5, self._spawn_again, worker)

    # -- operators, reload, disk, clock -----------------------------------------------------------------------

    def operate(self, written: dict[str, Any]) -> None:
        self.house.trace(f"operator: {written}")
        self.operated_at = self.house.base.now
        request = read_request(written)
        assert isinstance(request, OperatorRequest), request
        for worker in self.workers:
            process, assembly = worker.process, worker.assembly
            if worker.up and process is not None and assembly is not None:
                process.run(assembly.operate, request, partial(self._operated, request))

    def _operated(self, request: OperatorRequest, answer: list[OperatorResult]) -> None:
        for row in answer:
            if row.done and request.action is OperatorAction.REMOVE:
                self.house.removed.add((row.id, row.recipient))
            if row.done and request.action is OperatorAction.RELEASE:
                self.house.released.add((row.id, row.recipient))

    def reload(self) -> None:
        self.variant += 1
        found = self._read(self.variant % 4)
        self.house.trace(f"reload, variant {self.variant % 4}")
        ready = [worker for worker in self.workers if worker.up]
        for worker in ready:
            process, assembly = worker.process, worker.assembly
            if process is None or assembly is None:
                continue  # it has died at a step of this
            answers: list[str] = []
            process.run(lambda assembly=assembly, answers=answers: answers.append(assembly.prepare(found)))
            if process.alive and answers != [""]:
                self.house.ledger.fault(f"a reload was refused: {answers}")
        self.settings = found
        for worker in ready:
            process, assembly = worker.process, worker.assembly
            if process is None or assembly is None:
                continue
            process.run(lambda process=process, assembly=assembly: process.create_task(assembly.commit({})))

    def set_disk(self, trouble: str) -> None:
        self.house.trace(f"disk: {trouble or 'sound'}")
        self.disk_trouble = trouble
        self.well_since = self.house.base.now
        for worker in self.workers:
            if worker.disk is not None:
                worker.disk.trouble = trouble

    def jump(self, seconds: float) -> None:
        self.house.trace(f"the clock jumps by {seconds:.0f} s")
        self.clock.offset_us += round(seconds * 1_000_000)
        self.well_since = self.house.base.now

    # -- looking from outside ---------------------------------------------------------------------------------

    def waiting(self) -> list[tuple[int, str, str, int, bool]]:
        return rows(self.spool, [shard for worker in self.workers for shard in self.shards_of(worker)])


def _close_files(assembly: Assembly, disk: SimDisk) -> None:
    """What the system does for a process that is no more."""
    disk.close()
    if assembly._questions is not None:
        assembly._questions._store.close()
    if hasattr(assembly, "historian"):
        assembly.historian.close()
    if hasattr(assembly, "_journal"):
        assembly._journal.close()
    if hasattr(assembly, "spool"):
        for shard in assembly.spool._shards.values():
            shard.close()
    assembly._log.close()
