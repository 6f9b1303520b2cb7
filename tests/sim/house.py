"""One run: the world that a seed makes, the node in it, what happens to both, and the end, when all is well again.

    1. for some days: mail comes, hosts, names, network and disk fail and recover, the node is killed and operated
    2. then everything is healed, and nothing is restarted any more: what is stuck stays stuck, and is seen
    3. when the queue is empty, or could be, the promises are checked from outside (`promises`)
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
import random
import shutil
import tempfile
from collections import Counter
from collections.abc import Callable, Coroutine
from pathlib import Path

from tests.sim import crowd, dropping, full_disk, returning, sending_limits
from tests.sim import plan as plans
from tests.sim.ledger import Delivery, Ledger, Submitted
from tests.sim.measure import Measure
from tests.sim.names import Names, Zone
from tests.sim.node import Node
from tests.sim.parts import parts
from tests.sim.plan import DEAD_ADDRESS, Plan
from tests.sim.published import PublishedPolicies
from tests.sim.remote import Host, listen
from tests.sim.sender import hand_back, submit
from tests.sim.staying import stay
from tests.sim.virtual import TURNS_MAX, VirtualLoop
from tests.sim.wire import Wires

_HANDED_BACK_MAX = 40  # of one message; without loops two, and a few more for 250s that were lost
_OVERDUE_S = 12 * 3600.0  # more than any chain of time limits in this world
_TASKS_END_S = 60


class House:
    """See the module. After `run` what went wrong is in `ledger.faults`."""

    def __init__(self, made: Plan, folder: Path, *, trace: bool = False) -> None:
        self.plan = made
        self.folder = folder
        self.tracing = trace
        self.base = VirtualLoop()
        self.chance = random.Random(f"world {made.seed}")
        self.ledger = Ledger()
        self.wires = Wires(self.base, random.Random(f"wires {made.seed}"))
        self.names = Names(random.Random(f"names {made.seed}"))
        self.healed = False
        self.closing = False
        self.removed: set[tuple[str, str]] = set()  # what an operator was told is removed: (queue id, recipient)
        self.released: set[tuple[str, str]] = set()  # the same of what is released
        self.signed = 0  # messages that hosts took from a sender that was signed
        self.lines: list[str] = []
        self._digest = hashlib.blake2b(digest_size=8)
        self._senders: dict[asyncio.Task[None], None] = {}
        self.hosts, zones = plans.hosts(made, self.chance)
        self.sts: PublishedPolicies | None = None  # answers which MTA-STS policy a domain has
        self.parts = parts(self, made.parts)
        for part in self.parts:
            self.hosts += part.hosts()
        for host in self.hosts:
            listen(self, host)
            dead = (DEAD_ADDRESS,) if made.dead_address and not host.lmtp else ()
            self.names.hosts[host.name] = (*dead, host.address)
        listen(self, Host("ring", plans.RING_HOST, offers=("PIPELINING", "8BITMIME")))
        self._handed_back: Counter[str] = Counter()
        for domain, records in zones.items():
            self.names.zones[domain] = Zone(records)
        if made.dropped:
            dropping.make(folder)
        self.wires.stall_share = made.network
        self.wires.reset_share = made.network
        self.crowd = crowd.Crowd(self)
        self.wires.wrote = self.crowd.wrote
        self.counts = sending_limits.Counts(self)
        self.node = Node(self)
        self.measure = Measure(self)

    # -- what is told -----------------------------------------------------------------------------------------

    def trace(self, text: str) -> None:
        """Something that happened outside the node. The digest of all of it tells whether two runs are the same."""
        self.measure.look()
        line = f"{self.base.now:.6f} {text}"
        self._digest.update(line.encode())
        if self.tracing:
            self.lines.append(line)

    def say(self, text: str) -> None:
        self.lines.append(f"{self.base.now:.6f} | {text}")

    @property
    def digest(self) -> str:
        return self._digest.hexdigest()

    # -- what the world answers -------------------------------------------------------------------------------

    def judge(self, host: Host, sender: str, recipient: str) -> str:
        """A host's answer to RCPT."""
        name = recipient.partition("@")[0]
        if name.startswith("bad"):
            return "550 5.1.1 no such user"
        if not self.healed:
            if name.startswith("later") or self.chance.random() < 0.02:
                return "450 4.2.1 try later"
            if self.chance.random() < 0.01:
                return "452 4.5.3 too many recipients"
        if host.grey_s:
            first = host.seen.setdefault((sender, recipient), self.base.now)
            if self.base.now < first + host.grey_s:
                return "451 4.7.1 greylisted"
        return "250 2.1.5 ok"

    def heard(self, order: plans.Order, submitted: Submitted, to: str, answer: str) -> None:
        """A client has heard an answer to RCPT, or to its content."""
        for part in self.parts:
            part.heard(order, submitted, to, answer)

    def tls_fails(self) -> str:
        if self.healed or self.chance.random() < 0.6:
            return ""
        return self.chance.choice(("error", "stall", "reset"))

    # -- the run ----------------------------------------------------------------------------------------------

    def run(self) -> None:
        asyncio.set_event_loop(None)
        self.base.set_exception_handler(self._broke)
        handler = _Listening(self.ledger.fault)
        logging.getLogger().addHandler(handler)
        try:
            self.base.run_until_complete(self._run())
        except BaseException as error:
            if not isinstance(error, Exception):
                raise
            self.ledger.fault(f"the run broke: {error!r}")
            raise
        finally:
            logging.getLogger().removeHandler(handler)
            for worker in self.node.workers:
                if worker.process is not None:
                    self.node._gone(worker, excused=False, silent=True)
            self._end()
            self.base.close()

    def _end(self) -> None:
        """Clients of a run that a fault has ended leave as long as there is a loop."""
        self.ledger.on_fault = None
        self.base.turns_max += TURNS_MAX
        if tasks := asyncio.all_tasks(self.base):
            for task in tasks:
                task.cancel()
            self.base.run_until_complete(asyncio.wait(tasks, timeout=_TASKS_END_S))

    def _broke(self, loop: asyncio.AbstractEventLoop, context: dict[str, object]) -> None:
        error = context.get("exception")
        where = ""
        if isinstance(error, BaseException) and error.__traceback__ is not None:
            last = error.__traceback__
            while last.tb_next is not None:
                last = last.tb_next
            where = f" at {last.tb_frame.f_code.co_filename}:{last.tb_lineno}"
        self.ledger.fault(f"the loop's handler: {context.get('message')}: {error!r}{where}")

    async def _run(self) -> None:
        from tests.sim import promises

        self.node.start()
        self._schedule()
        for part in self.parts:
            part.begin()
        await asyncio.sleep(self.plan.days * 86_400)
        self._heal()
        await self._drained()
        for part in self.parts:
            await part.come()
            await self._drained()
        if self.plan.packed:
            await full_disk.come(self)
            await self._drained()
        if self.plan.crowd:
            await crowd.come(self)
            await self._drained()
        await asyncio.sleep(2 * 3600.0)  # clients and idle connections end
        await self._tasks_end()
        self._let_go()
        promises.check_counts(self)
        self.closing = True
        for worker in self.node.workers:
            self.node.restart(worker)
        await asyncio.sleep(120.0)
        promises.check(self)

    def _schedule(self) -> None:
        made, base, chance = self.plan, self.base, self.chance
        domains = [name for name in self.names.zones if name != "null.test"]
        span = made.days * 86_400
        for at, order, tries in plans.orders(made, domains, random.Random(f"orders {made.seed}")):
            base.call_later(at, self._send, order, tries)
        for at, order, tries in (*plans.looping(made), *plans.odd(made, domains), *sending_limits.orders(made)):
            base.call_later(at, self._send, order, tries)

        for part in self.parts:
            for at, order, tries in part.orders():
                base.call_later(at, self._send, order, tries)

        later = random.Random(f"left {made.seed}")
        for number in range(made.dropped):
            base.call_later(span * later.random() ** 2, dropping.leave, self, number)

        def often(count: int, what: Callable[[], None]) -> None:
            for _ in range(count):
                base.call_later(span * chance.random(), what)

        often(made.crashes, self._crash)
        often(made.power_cuts, self._power_cut)
        often(made.restarts, self._restart)
        often(made.disk, self._disk)
        often(made.reloads, self._reload)
        often(made.operators, self._operate_soon)
        often(made.jumps, self._jump)
        often(round(6 * made.days) if made.trouble else 0, self._mood)
        often(round(6 * made.days) if made.dns else 0, self._rename)
        base.call_later(3600.0, self._look_for_overdue)

    def _reload(self) -> None:
        self.begin(stay(self))

    def _send(self, order: plans.Order, tries: int) -> None:
        self.begin(submit(self, order, tries))

    def begin(self, coming: Coroutine[None, None, None]) -> None:
        """Somebody who hands something over; the end of the run waits for him."""
        task = self.base.create_task(coming)
        self._senders[task] = None
        task.add_done_callback(lambda task: self._senders.pop(task, None))

    def taken(self, delivery: Delivery) -> None:
        """A mailbox has a message. Some hand it back to where it came from, each time that they get it."""
        self.ledger.deliveries.append(delivery)
        returning.taken(self, delivery)
        to = plans.RING if delivery.place == "ring" else plans.AGAIN
        if self.closing or (delivery.place != "ring" and delivery.recipient != plans.AGAIN):
            return
        self._handed_back[delivery.message_id] += 1
        if self._handed_back[delivery.message_id] > _HANDED_BACK_MAX:
            self.ledger.fault(f"{delivery.message_id} goes round without end")
            return
        self.begin(hand_back(self, delivery, to, plans.DOORS["mx"]))

    # -- what happens -----------------------------------------------------------------------------------------

    def _crash(self) -> None:
        if self.healed:
            return
        worker = self.chance.choice(self.node.workers)
        if worker.process is None:
            return
        # A crash is most telling when something is under way: wait for a moment of traffic, for a while.
        self._crash_soon(worker.number, worker.life, 600)

    def _crash_soon(self, number: int, life: int, tries: int) -> None:
        worker = self.node.workers[number]
        if worker.life != life or worker.process is None or self.healed:
            return
        busy = any(end.process is worker.process for end in self.wires.ends)
        if busy or not tries:
            self.base.call_later(0.2 * self.chance.random(), self._crash_now, number, life)
        else:
            wait_s = 30.0 * self.chance.random() if tries % 2 else 0.05
            self.base.call_later(wait_s, self._crash_soon, number, life, tries - 1)

    def _crash_now(self, number: int, life: int) -> None:
        worker = self.node.workers[number]
        if worker.life != life or self.healed or worker.process is None:
            return
        if self.chance.random() < 0.3:
            self.node.crash(worker, "killed")
            return
        # Many steps come at one and the same moment of the clock: one of the next.
        step = 1 + int(150 * self.chance.random() ** 2)
        worker.process.die_at(step, lambda: self.node.crash(worker, f"killed at step {step}"))

    def _power_cut(self) -> None:
        if not self.healed:
            self.node.power_cut(self.chance.choice((1.0, 60.0, 7200.0)))

    def _restart(self) -> None:
        if not self.healed:
            self.node.restart(self.chance.choice(self.node.workers))

    def _disk(self) -> None:
        if not self.healed and not self.node.disk_trouble:
            self.node.set_disk(self.chance.choice(("budget", "full", "io")))
            self.base.call_later(self.chance.choice((2.0, 60.0, 3600.0)), self.node.set_disk, "")

    def _jump(self) -> None:
        if not self.healed:
            self.node.jump(self.chance.choice((-7200.0, -60.0, 60.0, 7200.0)))

    def _operate_soon(self, tries: int = 300) -> None:
        """Half of all requests come while something is on its way, where that is soon."""
        busy = any(end.process is not None for end in self.wires.ends)
        if tries == 300 and self.chance.random() < 0.5:
            self._operate()
        elif busy or not tries:
            self.base.call_later(0.1 * self.chance.random(), self._operate)
        else:
            self.base.call_later(30.0 if tries % 2 else 0.05, self._operate_soon, tries - 1)

    def _operate(self) -> None:
        if self.healed:
            return
        chance = self.chance
        action = chance.choice(("hold", "release", "retry", "remove", "fail"))
        domains = ["@home.test", "@box.test", *(f"@{name}" for name in self.names.zones)]
        selection = chance.choice((
            {"recipient": chance.choice(domains)},
            {"sender": chance.choice(("ann@home.test", "<>"))},
            {"held": True},
            {},
        ))  # fmt: skip
        if action in ("remove", "fail") and not selection:
            selection = {"recipient": chance.choice(domains)}
        self.node.operate({"action": action, "selections": [selection], "by": "op", "text": "as asked"})

    def _mood(self) -> None:
        """A host comes, goes, or changes its mind."""
        if self.healed:
            return
        chance, host = self.chance, self.chance.choice(self.hosts)
        place = f"{host.address}:{24 if host.lmtp else 25}"
        if chance.random() < 0.5:
            self.wires.gates[place] = chance.choice(("refuse", "blackhole", "unreachable", ""))
            self.base.call_later(chance.choice((60.0, 3600.0, 40_000.0)), self.wires.gates.pop, place, None)
        else:
            host.trouble = chance.choice((0.0, self.plan.trouble, 1.0))

    def _rename(self) -> None:
        """A zone changes, or fails for a while."""
        if self.healed:
            return
        chance, names = self.chance, self.names
        if chance.random() < 0.15:
            names.down = True
            self.base.call_later(chance.choice((60.0, 3600.0)), setattr, names, "down", False)
            return
        if chance.random() < 0.15:
            host = chance.choice(list(names.hosts))
            names.host_states[host] = chance.choice(("servfail", "timeout", "nodata", "nxdomain"))
            self.base.call_later(chance.choice((60.0, 3600.0, 20_000.0)), names.host_states.pop, host, None)
            return
        zone = names.zones[chance.choice(list(names.zones))]
        if chance.random() < 0.3 and zone.mx:
            other = names.zones[chance.choice(list(names.zones))]
            zone.mx = other.mx or zone.mx
            self.measure.led(names.zones)
            return
        names.share = chance.choice((0.0, 0.1, 0.5))
        zone.state = chance.choice(("servfail", "timeout", "nodata", "servfail", "nxdomain"))
        self.base.call_later(chance.choice((60.0, 3600.0, 20_000.0)), setattr, zone, "state", "")

    # -- the end ----------------------------------------------------------------------------------------------

    def _heal(self) -> None:
        self.trace("healed")
        self.healed = True
        node, names = self.node, self.names
        for host in self.hosts:
            host.trouble = 0.0
        self.wires.gates.clear()
        self.wires.stall_share = self.wires.reset_share = 0.0
        names.share, names.down = 0.0, False
        names.host_states.clear()
        for zone in names.zones.values():
            zone.state = ""
        node.set_disk("")
        plans.mend_ways(self.folder)
        for worker in node.workers:
            if worker.process is not None and worker.disk is not None:
                worker.process.spare()
                worker.disk.quota_share = 0.0

    async def calm(self) -> None:
        """From here on nothing excuses the node: all workers are up, and no inspection raises on purpose."""
        while not all(worker.up for worker in self.node.workers):
            await asyncio.sleep(1.0)
        for worker in self.node.workers:
            assert worker.assembly is not None
            for each in worker.assembly._edition.inspectors.values():
                each.calm = True  # type: ignore[attr-defined]

    async def _drained(self) -> None:
        """Wait until the queue is empty; it must be when all lifetimes are over, and no connection is stalled."""
        node = self.node
        limit = self.base.now + 2 * self.plan.lifetime_days * 86_400 + 2 * 86_400
        while self.base.now < limit:
            await asyncio.sleep(1800.0)
            held = [row for row in node.waiting() if row[4]]
            if held:
                node.operate({"action": "release", "selections": [{"held": True}], "by": "op", "text": ""})
            if not self._senders and not node.waiting():
                return
        for id, message_id, recipient, due_us, held_now in node.waiting():
            self.ledger.fault(f"stuck: {message_id} for {recipient} ({id}), due {due_us}, held {held_now}")

    def _look_for_overdue(self) -> None:
        """A recipient whose time has come long ago, while all was well: nobody will ever try it."""
        node = self.node
        now_us = node.clock.now_us()
        if self.base.now - node.well_since > _OVERDUE_S and all(worker.up for worker in node.workers):
            for _, message_id, recipient, due_us, held in node.waiting():
                if due_us and not held and due_us < now_us - _OVERDUE_S * 1_000_000:
                    self.ledger.fault(f"overdue: {message_id} for {recipient} since {(now_us - due_us) / 3.6e9:.1f} h")
        if not self.closing:
            self.base.call_later(6 * 3600.0, self._look_for_overdue)

    async def _tasks_end(self) -> None:
        """A worker may be looking through its drop folder at this very moment. Such a task ends soon."""
        for _ in range(_TASKS_END_S):
            if not any(worker.process is not None and worker.process.tasks for worker in self.node.workers):
                return
            await asyncio.sleep(1.0)

    def _let_go(self) -> None:
        """With nothing left to do, nothing is held."""
        fault = self.ledger.fault
        node = self.node
        held = {key: count for key, count in node.office.counts().items() if not _is_local(key)}
        asked = [key for key, count in node.office._counts.items() if count.asking and not _is_local(key)]
        if held or asked:
            fault(f"permits are still held: {held}, asked for: {asked}")
        for worker in node.workers:
            process, assembly = worker.process, worker.assembly
            if process is None or assembly is None or not worker.up:
                fault(f"worker {worker.number} is not up at the end")
                continue
            activity = assembly.activity()
            for name in ("sessions", "in_memory", "carrying"):
                if left := getattr(activity, name):
                    fault(f"worker {worker.number}: {name} is {left} at the end")
            if process.tasks:
                fault(f"worker {worker.number}: tasks at the end: {list(process.tasks)}")
            if any(end.process is process for end in self.wires.ends):
                fault(f"worker {worker.number}: connections are open at the end")
            open_inspections = sum(each.open for each in assembly._edition.inspectors.values())  # type: ignore[attr-defined]
            if open_inspections:
                fault(f"worker {worker.number}: {open_inspections} inspections have not ended")
            queue = assembly.queue
            if any(not _is_local(key) for key in queue._capacity.lanes):
                fault(f"worker {worker.number}: lanes at the end: {list(queue._capacity.lanes)}")
            if assembly._budget.held:
                fault(f"worker {worker.number}: {assembly._budget.held} octets of content are counted at the end")
            left_over = {
                "octets": queue._capacity.octets, "withdrawn": queue._loading.withdrawn,
                "loading": queue._loading._loading, "awaiting": len(queue._awaiting),
            }  # fmt: skip
            for name, value in left_over.items():
                if value:
                    fault(f"worker {worker.number}: the queue's {name} at the end: {value!r}"[:300])
            settling = queue._settling
            if settling.unsettled or settling._under_way:
                fault(f"worker {worker.number}: outcomes not committed at the end: {settling._under_way!r}"[:300])


def _is_local(key: str) -> bool:
    """A writer of local mail, once made, is kept for the next one: it holds nothing but itself."""
    return key.startswith(("maildir:", "mbox:", "program:", "http:"))


class _Listening(logging.Handler):
    """What the code logs as an error of its own is a fault."""

    def __init__(self, fault: Callable[[str], None]) -> None:
        super().__init__(logging.ERROR)
        self._fault = fault

    def emit(self, record: logging.LogRecord) -> None:
        text = self.format(record)
        self._fault(f"logged: {text[-1500:]}")


def folder_in_memory() -> Path:
    """A folder for one run, in memory where the machine has such a file system."""
    memory = Path("/dev/shm")
    return Path(tempfile.mkdtemp(prefix="postroad-sim-", dir=memory if memory.is_dir() else None))


def simulate(
    seed: int, *, days: float | None = None, trace: bool = False, made: Plan | None = None, turns_max: int = TURNS_MAX
) -> House:
    """Run a seed. What went wrong is in `ledger.faults`."""
    folder = folder_in_memory()
    try:
        house = House(made or plans.plan(seed, days), folder, trace=trace)
        house.base.turns_max = turns_max
        house.run()
        return house
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def replay(seed: int) -> str:
    return f"python -m tests.sim --seed {seed} --trace"
