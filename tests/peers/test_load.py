"""smtp-source through Postroad to smtp-sink: many sessions, many recipients, large messages; all arrives, once."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.peers.harness.counter import Counter
from tests.peers.harness.postroad import Node, next_hop
from tests.peers.harness.smtptools import Sink, run_source, source_command


@pytest.fixture(scope="module")
def ends(place: Path) -> Iterator[tuple[Node, Sink, Counter]]:
    with Sink() as sink, Counter(place) as counter:
        node = Node(place / "node", {
            "next_hop": [next_hop("sink.test", sink.port), next_hop("counter.test", counter.port)],
        })
        with node:
            yield node, sink, counter


@pytest.mark.parametrize("keep", [False, True])
def test_fifty_sessions(ends: tuple[Node, Sink, Counter], keep: bool) -> None:
    node, sink, _ = ends
    before = sink.count
    run_source(source_command(node.port, messages=2000, sessions=50, keep=keep))
    sink.wait(before + 2000, within_s=60)
    assert sink.count == before + 2000


def test_one_message_to_a_thousand(ends: tuple[Node, Sink, Counter]) -> None:
    node, _, counter = ends
    run_source(source_command(node.port, messages=5, sessions=2, recipients=1000, recipient="r@counter.test"))
    counter.wait_recipients(5000, within_s=60)
    assert counter.recipients == 5000


def test_large_messages(ends: tuple[Node, Sink, Counter]) -> None:
    node, sink, _ = ends
    before = sink.count
    run_source(source_command(node.port, messages=8, sessions=4, size=10_000_000))
    sink.wait(before + 8, within_s=60)
