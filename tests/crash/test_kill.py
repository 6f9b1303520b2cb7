"""A hundred times and more kill -9, of workers, of the supervisor, of the whole node, under load (promises 1, 2, 4).

What got its 250 arrives, at each of two destinations and in a Maildir; nothing is left in the queue. Duplicates are
counted. Their bound is what was in flight: at each crash a worker has delivered at most what waits for its commit
(`queue.unsettled_max`) and what is on its connections (`queue.concurrency` for each destination); nothing else may come
twice. Both are set low here, so that the bound says something.
"""

from __future__ import annotations

import collections
import contextlib
import os
import random
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.peers.harness import maildir
from tests.peers.harness.counter import Counter
from tests.peers.harness.load import Load
from tests.peers.harness.postroad import Node, local_domain, next_hop
from tests.peers.harness.process import NotReady, folder, until

pytestmark = [pytest.mark.slow, pytest.mark.peer, pytest.mark.timeout(600)]

WORKERS = 2
WORKER_KILLS = 6  # of each round, before its node is killed
KILLS = int(os.environ.get("POSTROAD_TEST_KILLS", "105"))  # each needs a new process: half a second of a core
UNSETTLED_MAX = 20
CONCURRENCY = 5


@pytest.fixture
def place() -> Iterator[Path]:
    with folder("kill") as path:
        yield path


def _recipients(number: int) -> list[str]:
    return ["a@one.test", "b@two.test", "c@home.test"] if number % 5 == 0 else ["a@one.test"]


def _size(number: int) -> int:
    return 1_200_000 if number % 200 == 0 else 2048


class Crashes:
    """Kills as it is told, and counts the workers that went down with it."""

    def __init__(self, node: Node, chance: random.Random) -> None:
        self.node = node
        self.chance = chance
        self.kills = 0
        self.workers = 0
        self.done: collections.Counter[str] = collections.Counter()

    def one_round(self) -> None:
        """Workers, as they come up again; then the supervisor, or all at once; then a new node."""
        for _ in range(WORKER_KILLS):
            self._pause()
            running = self.node.workers()
            if running:
                with contextlib.suppress(ProcessLookupError):  # it had ended, and nobody has started another one yet
                    os.kill(self.chance.choice(running), signal.SIGKILL)
                    self._count("worker", 1)
        self._pause()
        if self.chance.random() < 0.5:
            self._count("node", WORKERS)
            self.node.kill()
        else:
            # Its workers end by themselves; what they carry at that moment ends first.
            self._count("supervisor", WORKERS)
            os.kill(self.node.pid, signal.SIGKILL)
            self.node.program.wait()
        self.node.start()

    def _count(self, what: str, workers: int) -> None:
        self.kills += 1
        self.done[what] += 1
        self.workers += workers

    def _pause(self) -> None:
        time.sleep(self.chance.random() * 0.3)


def test_a_hundred_crashes(place: Path) -> None:
    seed = random.randrange(1_000_000)
    with Counter(place, record=True) as one, Counter(place, record=True) as two:
        node = Node(place / "node", {
            "workers": WORKERS,
            "next_hop": [next_hop("one.test", one.port), next_hop("two.test", two.port)],
            "domain": [local_domain("home.test")],
            "queue": {"unsettled_max": UNSETTLED_MAX, "concurrency": CONCURRENCY},
            "log": {"level": "warning"},
        })
        node.start()
        load = Load(node.port, 1 << 30, sessions=12, size=_size, recipients=_recipients)
        load.start()
        crashes = Crashes(node, random.Random(seed))
        try:
            while crashes.kills < KILLS:
                crashes.one_round()
            until(lambda: len(load.accepted) > 200, "mail is accepted at all", within_s=60)
            load.count = 0  # enough
            load.wait(60)
            report = _check(load, {"one.test": one, "two.test": two}, crashes)
            _check_maildir(load, node)
            until(lambda: node.json("queue") == [], "nothing is left in the queue", within_s=60, pause_s=0.5)
        except NotReady as error:
            pytest.fail(f"seed {seed}, {crashes.done}: {error}\n{node.log()}")
        finally:
            load.count = 0
            node.stop()
        node.command("spool", "check")
    print(f"seed {seed}: {dict(crashes.done)}; {len(load.accepted)} accepted, {load.unknown} unanswered, "
          f"{len(load.refused)} refused; {report}")  # fmt: skip


def _check(load: Load, sinks: dict[str, Counter], crashes: Crashes) -> str:
    said = []
    for domain, sink in sinks.items():
        wanted = {id.encode() for id, recipients in load.accepted.items()
                  if any(each.endswith(domain) for each in recipients)}  # fmt: skip
        until(lambda wanted=wanted, sink=sink: wanted <= set(sink.message_ids()),  # type: ignore[misc]
              f"all that was accepted for {domain} arrives", within_s=120, pause_s=0.5)  # fmt: skip
        arrived = collections.Counter(sink.message_ids())
        twice = sum(count - 1 for count in arrived.values())
        # Of each worker: what waits for its commit, and what its connections carry.
        bound = crashes.workers * (UNSETTLED_MAX + CONCURRENCY)
        assert twice <= bound, f"{domain}: {twice} duplicates, at most {bound} were in flight"
        said.append(f"{domain}: {sum(arrived.values())} arrived, {twice} of them twice, at most {bound} were in flight")
    return "; ".join(said)


def _check_maildir(load: Load, node: Node) -> None:
    wanted = {id for id, recipients in load.accepted.items() if "c@home.test" in recipients}
    box = node.maildir("c@home.test")

    def missing() -> set[str]:
        found = {line.split(b":", 1)[1].strip().decode() for each in maildir.raw(box)
                 for line in each[:600].split(b"\n") if line.lower().startswith(b"message-id:")}  # fmt: skip
        return wanted - found

    until(lambda: not missing(), "all that was accepted for the Maildir is there", within_s=60, pause_s=1.0)
