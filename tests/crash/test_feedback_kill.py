"""kill -9 of workers and of the node while it sends the reports of a day: each is accepted once, none is left out."""

from __future__ import annotations

import collections
import contextlib
import os
import random
import signal
import time
from pathlib import Path

import pytest

from postroad.mail import identifier
from postroad.mail.evaluation import DmarcFacts, Evaluation
from postroad.mail.event import Accepted, Evaluated
from postroad.report.own_mail import LISTENER_FEEDBACK
from postroad.store.sqlite import codec
from postroad.store.sqlite.day_events import day_events
from postroad.store.sqlite.dayfile import DAY_US, DayFile, path_of
from tests.peers.harness import ports
from tests.peers.harness.knot import Knot
from tests.peers.harness.postroad import Node, next_hop
from tests.peers.harness.process import folder, until

pytestmark = [pytest.mark.slow, pytest.mark.peer, pytest.mark.timeout(600)]

DOMAINS = 300
KILLS = 12


def _record(number: int) -> str:
    return f"v=DMARC1; p=none; rua=mailto:r@d{number}.example"


def _write_history(directory: Path, day: int) -> None:
    directory.mkdir(parents=True)
    at_us = day * DAY_US + 3_600_000_000
    file = DayFile(path_of(directory, at_us, 0))
    rows = []
    for number in range(DOMAINS):
        name = f"d{number}.example"
        facts = DmarcFacts(name, "pass", name, name, _record(number), dkim_aligned=True)
        event = Evaluated(at_us, 0, Evaluation("192.0.2.1", "mx", name, (), (facts,)))
        rows.append((number + 1, at_us, codec.join_events([codec.encode_events([event])])))
    file.append(rows)
    file.close()


def _accepted(node: Node) -> collections.Counter[str]:
    """How often a message with this Message-ID was accepted, of mail that carries reports."""
    found: collections.Counter[str] = collections.Counter()
    today = int(time.time()) // 86_400
    for day in (today - 1, today):
        for events in day_events(node.state / "history", node.state / "spool", day):
            found.update(
                each.message_id
                for each in events
                if isinstance(each, Accepted) and each.peer.listener == LISTENER_FEEDBACK
            )
    return found


def test_each_report_is_accepted_once() -> None:
    chance = random.Random(11)
    with folder("feedback") as place:
        zone = "\n".join(f'_dmarc.d{number} IN TXT "{_record(number).replace(";", chr(92) + ";")}"'
                         for number in range(DOMAINS))  # fmt: skip
        with Knot(place / "knot", {"example": zone}) as knot:
            node = Node(place / "node", {
                "hostname": "mx.node.example",
                "dns": {"servers": [f"127.0.0.1:{knot.port}"], "timeout_s": 3, "total_s": 6},
                "next_hop": [next_hop("*", ports.port())],  # nobody listens there: all stays in the queue
                "feedback": {"organization": "Node", "contact": "reports@node.example"},
            })  # fmt: skip
            _write_history(node.state / "history", int(time.time()) // 86_400 - 2)
            node.start()
            try:
                for number in range(KILLS):
                    time.sleep(chance.uniform(0.05, 0.8))
                    if number % 4 == 3:
                        node.kill()
                        node.start()
                        continue
                    for pid in node.workers():
                        with contextlib.suppress(ProcessLookupError):  # it had just ended
                            os.kill(pid, signal.SIGKILL)
                    until(lambda: node.json("status")["state"] == "ready", "new workers", within_s=60, pause_s=0.1)

                def states() -> set[str]:
                    return {each["state"] for each in node.json("reports", "sent")}

                until(lambda: states() == {"sent"}, "all is sent", within_s=120, pause_s=0.5)
                rows = node.json("reports", "sent")
                node.stop()
                accepted = _accepted(node)
            finally:
                node.stop()
            assert len(rows) == len(accepted) == DOMAINS
            assert set(accepted.values()) == {1}
            assert all(identifier.parse(row["id"]) for row in rows)
