"""Workers that come and go, restarts and crashes of the node: counts of what was sent are never doubled, and lost only
as far as the documents say: what a worker had not told yet, and what was not in the file yet."""

from __future__ import annotations

import heapq
import random
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest

from postroad.check.sending import WINDOWS_S, SendingLimit, SendingLimits, SendingOptions, Whose
from postroad.check.tally import TELL_S, Tally, TallyFrame
from postroad.mail.envelope import Peer
from postroad.node.frames import SendingTold, ToWorker
from postroad.node.offices.sending import FILE, KEEP_S, SendingOffice
from postroad.operate.requests import LimitsAsked
from postroad.world import files

LATE_S = 0.05  # the longest that a frame takes
PEER = Peer(identity="ada")


class World:
    """A node on a clock of its own."""

    def __init__(self, folder: Path, seed: int, workers: int) -> None:
        self.chance = random.Random(seed)
        self.folder = folder
        self.now_s = 1_000 * 86_400.0 + 60.0  # all of it within one day
        self.todo: list[tuple[float, int, Callable[[], None]]] = []
        self.place = 0
        self.counted: list[tuple[float, int]] = []  # when, and how many recipients
        self.losses: list[tuple[float, float]] = []  # what was counted in between may be lost
        self.numbers = range(workers)
        self.open()

    def now_us(self) -> int:
        return int(self.now_s * 1e6)

    def later(self, seconds: float, call: Callable[[], None]) -> None:
        self.place += 1
        heapq.heappush(self.todo, (self.now_s + seconds, self.place, call))

    def open(self) -> None:
        self.life = getattr(self, "life", 0) + 1
        self.office = SendingOffice(
            lambda: self.folder, self.send, lambda: list(self.numbers), self.now_us, lambda level, text: None
        )
        self.office.load()
        self.workers: dict[int, tuple[Tally, SendingLimits]] = {}
        self.links: dict[int, float] = {}
        for number in self.numbers:
            self.start(number)
        self.keep(self.life)

    def keep(self, life: int) -> None:
        """What the supervisor's look does each second, without a thread."""
        if life == self.life:
            if self.office._changed and self.now_us() >= self.office._next_us:
                self.write()
            self.later(1.0, lambda: self.keep(life))

    def write(self) -> None:
        self.office._changed = False
        self.office._next_us = self.now_us() + int(KEEP_S * 1e6)
        files.replace(str(self.folder / FILE), msgspec.msgpack.encode(self.office.state()))

    def start(self, number: int) -> None:
        office, life = self.office, self.life

        def told(counts: TallyFrame) -> None:
            self.arrive(number, lambda: office.take_counts(number, counts), tally, life)

        tally = Tally(WINDOWS_S, told, lambda seconds, call: self.later(seconds, call))
        limits = SendingLimits(tally, self.now_us, lambda key, text: None)
        limits.take(SendingOptions((SendingLimit(Whose.ACCOUNT, messages_per_day=10**9),)), ())
        self.workers[number] = tally, limits
        office.worker_up(number)

    def arrive(self, number: int, call: Callable[[], None], tally: Tally, life: int) -> None:
        """A frame is on its way; frames of one link keep their order."""
        at = max(self.links.get(number, 0.0), self.now_s + self.chance.uniform(0.0, LATE_S))
        self.links[number] = at

        def comes() -> None:
            if life == self.life and self.workers[number][0] is tally:
                call()

        self.later(at - self.now_s, comes)

    def send(self, number: int, frame: ToWorker) -> None:
        if isinstance(frame, SendingTold) and number in self.workers:
            tally = self.workers[number][0]
            self.arrive(number, lambda: tally.hear(frame.counts, self.now_us()), tally, self.life)

    def step(self) -> None:
        what = self.chance.choices(("message", "failed", "worker", "crash", "stop"), (90, 4, 3, 1, 1))[0]
        number = self.chance.choice(self.numbers)
        recipients = self.chance.randint(1, 5)
        match what:
            case "message":
                self.workers[number][1].count(PEER, None, recipients)
                self.counted.append((self.now_s, recipients))
            case "failed":  # the commit failed: it is taken back
                self.workers[number][1].count(PEER, None, recipients)
                self.workers[number][1].count(PEER, None, -recipients, -1)
            case "worker":
                self.losses.append((self.now_s - TELL_S - LATE_S - 0.001, self.now_s))
                self.office.worker_died(number)
                self.start(number)
            case "crash":
                self.losses.append((self.now_s - KEEP_S - 1 - TELL_S - LATE_S, self.now_s))
                self.open()
            case "stop":
                self.pass_s(1.0)  # the workers end, and have told all
                self.write()
                self.open()

    def pass_s(self, seconds: float) -> None:
        end = self.now_s + seconds
        while self.todo and self.todo[0][0] <= end:
            self.now_s, _, call = heapq.heappop(self.todo)
            call()
        self.now_s = end


@pytest.mark.parametrize("seed", range(30))
def test_counts_are_lost_only_as_far_as_the_documents_say_and_never_doubled(tmp_path: Path, seed: int) -> None:
    world = World(tmp_path, seed, workers=1 + seed % 3)
    for _ in range(400):
        world.step()
        world.pass_s(world.chance.choice((0.0, 0.01, 0.2, 5.0)))
    world.pass_s(2.0)
    sent, recipients = len(world.counted), sum(count for _, count in world.counted)
    may_be_lost = [count for at, count in world.counted if any(since <= at <= until for since, until in world.losses)]
    rows = world.office.asked(LimitsAsked())
    messages, told = (rows[0].messages_per_day, rows[0].recipients_per_day) if rows else (0, 0)
    assert sent - len(may_be_lost) <= messages <= sent
    assert recipients - sum(may_be_lost) <= told <= recipients
    for tally, _ in world.workers.values():  # each worker knows what the office knows
        assert tally.windows[1].total("maada", world.now_us()) == messages
