"""The pace of destinations over a whole node of two workers: real smtp-source and program, remotes that count."""

from __future__ import annotations

import contextlib
import math
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.peers.harness import ports
from tests.peers.harness.postroad import Node, next_hop
from tests.peers.harness.process import until
from tests.peers.harness.remote import Dialog, Remote
from tests.peers.harness.smtptools import run_source, source_command

MESSAGES = 60


class Slow:
    """A remote's rule: each message takes a while; what the remote sees is counted. `most`: more connections are
    refused. `enough`: until that is true no message comes to its end."""

    def __init__(
        self, takes_s: float = 0.05, most: int = 1000, enough: Callable[[Slow], bool] = lambda slow: True
    ) -> None:
        self.takes_s = takes_s
        self.enough = enough
        self.most = most
        self.now: set[int] = set()
        self.at_work: set[int] = set()
        self.peak = 0
        self.refused = 0
        self.times: list[float] = []
        self.messages: dict[int, int] = {}
        self.recipients_most = 0
        self._lock = threading.Lock()

    def __call__(self, dialog: Dialog, verb: str, argument: str) -> str | None:
        with self._lock:
            match verb:
                case "EHLO" if len(self.now) >= self.most:
                    self.refused += 1
                    return "421 4.7.0 too many connections"
                case "EHLO":
                    self.now.add(id(dialog))
                case "MAIL":
                    self.at_work.add(id(dialog))  # a connection that is let go of may still be open on this side
                    self.peak = max(self.peak, len(self.at_work))
                    self.messages[id(dialog)] = self.messages.get(id(dialog), 0) + 1
                case "QUIT":
                    self.now.discard(id(dialog))
                case ".":
                    self.times.append(time.monotonic())
                    self.recipients_most = max(self.recipients_most, len(dialog.rcpt))
                case _:
                    pass
        if verb == ".":
            until(lambda: self.enough(self), "the node has done so much")
            time.sleep(self.takes_s)
            self.at_work.discard(id(dialog))
        return None


NAMES = ("four", "one", "two", "rated", "few", "busy", "hourly")


@pytest.fixture(scope="module")
def remotes() -> Iterator[dict[str, Remote]]:
    """Each at an address of its own, by which the tables [[pace]] know it."""
    made = {name: Remote(address=f"127.0.1.{number}", port=ports.port()) for number, name in enumerate(NAMES, 1)}
    with contextlib.ExitStack() as running:
        for remote in made.values():
            running.enter_context(remote)
        yield made


@pytest.fixture(scope="module")
def node(place: Path, remotes: dict[str, Remote]) -> Iterator[Node]:
    hops = [next_hop(f"{name}.example", remote.port, host=remote.address) for name, remote in remotes.items()]
    at = {name: remote.address for name, remote in remotes.items()}
    pace: list[dict[str, Any]] = [
        {"mx": at["four"], "connections_max": 4, "connections_start": 2},
        {"mx": [at["one"], at["two"]], "provider": "group", "connections_max": 3},
        {"mx": at["rated"], "rate": "20/2s"},
        {"mx": at["hourly"], "rate": "2/1h"},
        {"mx": at["few"], "messages_per_connection_max": 5, "recipients_max": 2},
    ]
    with Node(place / "node", {"next_hop": hops, "pace": pace}) as node:
        yield node


def _send(node: Node, domain: str, messages: int = MESSAGES, recipients: int = 1) -> None:
    run_source(
        source_command(
            node.port, messages=messages, sessions=10, size=200, recipients=recipients, recipient=f"a@{domain}"
        )
    )


def test_connections_of_both_workers_together_stay_below_the_limit(node: Node, remotes: dict[str, Remote]) -> None:
    slow = remotes["four"].rule = Slow(enough=lambda slow: slow.peak >= 2)
    _send(node, "four.example")
    remotes["four"].wait(MESSAGES, within_s=60)
    assert 2 <= slow.peak <= 4


def test_destinations_of_one_provider_share_its_limit(node: Node, remotes: dict[str, Remote]) -> None:
    slow = remotes["one"].rule = remotes["two"].rule = Slow()
    for _ in range(2):
        _send(node, "one.example", MESSAGES // 2)
        _send(node, "two.example", MESSAGES // 2)
    remotes["one"].wait(MESSAGES, within_s=60)
    remotes["two"].wait(MESSAGES, within_s=60)
    assert 1 <= slow.peak <= 3


def test_a_rate_holds_for_the_node_and_the_queue_says_that_it_waits(node: Node, remotes: dict[str, Remote]) -> None:
    slow = remotes["rated"].rule = Slow(0.0)
    began = time.monotonic()
    _send(node, "rated.example")
    remotes["rated"].wait(MESSAGES, within_s=60)
    until(lambda: len(slow.times) == MESSAGES, "all are noted")
    assert slow.times[-1] - slow.times[0] >= 3.0, "60 messages at 20 in 2 s: 4 s after the first ones"
    for count, at in enumerate(sorted(slow.times), 1):  # a machine that is busy makes them late, never early
        assert count <= 20 * math.ceil((at - began) / 2.0)

    _send(node, "hourly.example", 5)

    def told() -> list[Any]:
        return [line for line in node.json("queue") if "rate of" in line["waits_for"]]

    (line,) = until(told, "the queue tells of the rate")
    assert "2/1h" in line["waits_for"] and line["connections_max"] == 20


def test_messages_of_a_connection_and_recipients_of_a_transaction(node: Node, remotes: dict[str, Remote]) -> None:
    slow = remotes["few"].rule = Slow(0.0)
    _send(node, "few.example", 10, recipients=5)
    remotes["few"].wait(30, within_s=60)
    assert slow.recipients_most == 2 and max(slow.messages.values()) <= 5


def test_a_remote_that_takes_two_connections_gets_all_mail_by_these(node: Node, remotes: dict[str, Remote]) -> None:
    slow = remotes["busy"].rule = Slow(most=2, enough=lambda slow: slow.refused > 0)
    _send(node, "busy.example")
    remotes["busy"].wait(MESSAGES, within_s=60)
    assert slow.peak <= 2 and 0 < slow.refused < MESSAGES
