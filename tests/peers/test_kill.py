"""Ten thousand messages under kill -9 of a worker and of the whole node: what got its 250 arrives (promises 1, 2, 4).
"""

from __future__ import annotations

import collections
import random
import time
from functools import partial
from pathlib import Path

import pytest

from tests.peers.harness.counter import Counter
from tests.peers.harness.load import Load
from tests.peers.harness.postroad import Node, next_hop
from tests.peers.harness.process import NotReady, until

_MESSAGES = 10_000
_CRASHES = 8
# What may be between the remote's 250 and our commit at one crash: of each worker what waits for its commit (at most
# `queue.unsettled_max`, 500) and what its connections carry. Here it is far less, for a commit takes milliseconds.
# tests/crash/test_kill.py sets the limits low and holds them exactly.
_DUPLICATES_PER_CRASH = 250


def _size(number: int) -> int:
    """Mostly small; now and then one so large that it stands in a file of its own."""
    return 2_000_000 if number % 400 == 0 else 4096


def _renewed(node: Node, gone: int) -> bool:
    workers = node.workers()
    return gone not in workers and len(workers) == 2


def _has(load: Load, share: float) -> bool:
    return len(load.accepted) >= share


def _recipients(number: int) -> list[str]:
    return ["a@one.test", "b@two.test"] if number % 10 == 0 else ["a@one.test"]


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_what_got_its_250_arrives_through_crashes(place: Path) -> None:
    seed = random.randrange(1_000_000)
    chance = random.Random(seed)
    with Counter(place, record=True) as one, Counter(place, record=True) as two:
        sinks = {"one.test": one, "two.test": two}
        node = Node(place / "node", {
            "next_hop": [next_hop(domain, sink.port) for domain, sink in sinks.items()],
            "log": {"level": "warning"},
        })
        node.start()
        load = Load(node.port, _MESSAGES, size=_size, recipients=_recipients)
        load.start()
        crashes = []
        try:
            for number in range(_CRASHES):
                # A crash comes after a further share of the messages, at a random moment.
                share = _MESSAGES * (number + chance.random()) / _CRASHES
                until(partial(_has, load, share), f"{share:.0f} accepted", within_s=90)
                time.sleep(chance.random() * 0.05)
                if number % 2:
                    node.kill()
                    node.start()
                    crashes.append(f"node at {len(load.accepted)}")
                else:
                    gone = node.kill_worker(chance.randrange(2))
                    crashes.append(f"worker at {len(load.accepted)}")
                    until(partial(_renewed, node, gone), "the worker is started again")
            load.wait(180)
            for domain, sink in sinks.items():
                _check(load, domain, sink, len(crashes))
            until(lambda: node.json("queue") == [], "nothing is left in the queue", within_s=30, pause_s=0.5)
        except NotReady as error:
            pytest.fail(f"seed {seed}, {crashes}: {error}\n{node.log()}")
        finally:
            node.stop()
    print(f"seed {seed}: {load.unknown} unanswered, {len(load.refused)} refused; {crashes}")


def _check(load: Load, domain: str, sink: Counter, crashes: int) -> None:
    wanted = {message_id.encode() for message_id, recipients in load.accepted.items()
              if any(each.endswith(domain) for each in recipients)}
    def missing() -> set[bytes]:
        return wanted.difference(sink.message_ids())

    try:
        until(lambda: not missing(), "all accepted messages have arrived", within_s=60, pause_s=0.5)
    except NotReady as error:
        raise NotReady(f"{error}; {len(missing())} of {len(wanted)} for {domain} are missing") from None
    arrived = collections.Counter(sink.message_ids())
    twice = sum(count - 1 for count in arrived.values())
    assert twice <= crashes * _DUPLICATES_PER_CRASH, f"{twice} duplicates after {crashes} crashes"
    # What was not acknowledged may have arrived, too, but is never more than was under way.
    assert len(arrived) - len(wanted) <= crashes * load.sessions
    print(f"{domain}: {len(wanted)} accepted, {sum(arrived.values())} arrived, {twice} of them twice")
