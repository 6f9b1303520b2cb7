"""A queue as large as the disk: what a node with a million deferred messages costs, and how its new mail fares.

    python -m bench.queue [--deferred N] [--domains N] [--messages N] [--overdue] [--directory DIR]

Fills the spool of a node directly (two shards), deferred to many domains of one recipient each, then shows: how long
the node takes to start; its memory; how long `postroad queue` takes; the throughput of new mail to a healthy next hop
against that of an empty queue, in turns; with `--overdue` all are due at once, as after an outage, and nobody answers
for them in DNS, so that new mail is measured while retries are taken up, and how many destinations are tried in each
second is told. Last, a mailing of `--mailing` recipients to a
next hop of its own while single messages come: the time from their 250 until the next hop has them.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import random
import re
import shutil
import smtplib
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

from tests.peers.harness import ports
from tests.peers.harness.counter import Counter
from tests.peers.harness.postroad import Node, next_hop, relay_listener
from tests.peers.harness.remote import Remote
from tests.peers.harness.smtptools import run_source, source_command

from bench.processes import memory, tree
from bench.spool import stored
from postroad.store.sqlite import codec, schema
from postroad.store.sqlite.spool import SpoolOptions, SqliteSpool
from postroad.store.values import Waiting
from postroad.world.clock import SystemClock

_BATCH = 2_000
_DEFERRED = re.compile(r"(\S{19})\S* info \S+ deferred for .*? to (\S+): ")
_OCTETS = b"Subject: deferred\r\n\r\n" + b"x" * 200


def fill(directory: Path, messages: int, domains: int, *, overdue: bool, shards: int = 2) -> float:
    """Deferred messages, one recipient each, in the shards of a node that does not run. Seconds."""
    clock, loop = SystemClock(), asyncio.new_event_loop()
    begun = time.monotonic()
    spool = SqliteSpool(directory, range(shards), SpoolOptions(), clock, loop)
    spool.start()
    ids = [[spool.new_id(shard) for _ in range(messages // shards)] for shard in range(shards)]
    spool.close()
    loop.close()
    chance = random.Random(1)
    for shard in range(shards):
        connection = schema.connect(schema.database(directory, shard))
        connection.execute("PRAGMA synchronous=OFF")
        for start in range(0, len(ids[shard]), _BATCH):
            _insert(connection, ids[shard][start : start + _BATCH], domains, clock.now_us(), overdue, chance)
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
        connection.close()
    return time.monotonic() - begun


def _insert(
    connection: Any, ids: list[int], domains: int, now_us: int, overdue: bool, chance: random.Random
) -> None:
    envelopes, contents, rows = [], [], []
    for id in ids:
        domain = f"d{chance.randrange(domains)}.example"
        due_us = now_us - 60_000_000 if overdue else now_us + 600_000_000 + chance.randrange(14_400_000_000)
        waiting = Waiting(0, due_us, domain, 3, False, False, "4.4.1", "connection refused", "mx", now_us)
        envelopes.append((id, codec.encode_envelope(stored(id, now_us, _OCTETS, domain).envelope)))
        contents.append((id, _OCTETS))
        rows.append((id, 0, domain, 0, due_us, codec.encode_waiting(waiting)))
    connection.execute("BEGIN")
    connection.executemany("INSERT INTO message VALUES (?,?)", envelopes)
    connection.executemany("INSERT INTO content VALUES (?,?)", contents)
    connection.executemany("INSERT INTO recipient VALUES (?,?,?,?,?,?)", rows)
    connection.execute("COMMIT")


def _node(directory: Path, healthy: int, bulk: int) -> Node:
    """All other domains are dead: nobody answers for them in DNS."""
    hops = [next_hop("healthy.test", healthy), next_hop("bulk.test", bulk)]
    dns = {"servers": [f"127.0.0.1:{ports.port()}"], "timeout_s": 0.5, "total_s": 1, "attempts": 1}
    return Node(
        directory, {"listener": [relay_listener(ports.port(), tls="none")], "next_hop": hops, "dns": dns},
        defaults={"hostname": "postroad.test", "state_dir": "state", "workers": 2},
    )


def _rate(node: Node, counter: Counter, messages: int) -> float:
    before, begun = counter.recipients, time.monotonic()
    command = source_command(node.port, sessions=50, messages=messages, recipient="a@healthy.test", keep=True)
    run_source(command)
    counter.wait_recipients(before + messages)
    return messages / (time.monotonic() - begun)


def _queue_s(node: Node) -> float:
    begun = time.monotonic()
    command = [sys.executable, "-m", "postroad", "queue", "--config", str(node.config_path)]
    subprocess.run(command, check=True, capture_output=True)
    return time.monotonic() - begun


def _told_rss(node: Node) -> str:
    total = sum(int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * 4096 for pid in tree(node.pid))
    return f"RSS {total / 1e6:.0f} MB, PSS {memory(node.pid) / 1e6:.0f} MB"


def _told_retries(node: Node) -> str:
    """How many destinations were tried again in each second, by the log; without the first and the last second."""
    seconds: dict[str, set[str]] = {}
    for line in node.log_path.read_text().splitlines():
        found = _DEFERRED.match(line)
        if found is not None:
            seconds.setdefault(found[1], set()).add(found[2])
    counts = [len(names) for _, names in sorted(seconds.items())][1:-1]
    if not counts:
        return "nothing was tried again"
    return f"tried again: {statistics.median(counts):.0f} destinations/s, at most {max(counts)} in a second"


def _mailing(node: Node, recipients: int, probe: Remote, bulk: Counter) -> list[float]:
    """Seconds from the 250 to a single message until the next hop has it, until the last of a mailing has arrived."""
    def send() -> None:
        run_source(
            source_command(node.port, sessions=4, messages=recipients // 1000, size=4096, recipients=1000,
                           recipient="m@bulk.test", keep=True)
        )

    mailing = threading.Thread(target=send)
    mailing.start()
    took = []
    with smtplib.SMTP("127.0.0.1", node.port, timeout=60) as client:
        while mailing.is_alive() or bulk.recipients < recipients:
            count = len(probe.transactions)
            client.sendmail("ada@single.test", ["b@healthy.test"], b"Subject: one\r\n\r\nhello\r\n")
            begun = time.monotonic()
            while len(probe.transactions) == count and time.monotonic() - begun < 30:
                time.sleep(0.0005)
            took.append(time.monotonic() - begun)
            time.sleep(0.02)
    mailing.join()
    return took


def run(options: argparse.Namespace, directory: Path) -> None:
    with Counter(directory) as counter, Counter(directory) as bulk:
        rates: dict[str, list[float]] = {"empty": [], "full": []}
        empty = _node(directory / "empty", counter.port, bulk.port)
        full = _node(directory / "full", counter.port, bulk.port)
        spool = full.state / "spool"
        spool.mkdir(parents=True, mode=0o750)
        took = fill(spool, options.deferred, options.domains, overdue=options.overdue)
        os.sync()  # else the kernel writes gigabytes behind the measurement's back
        print(f"filled: {options.deferred} messages to {options.domains} domains in {took:.1f} s", flush=True)
        begun = time.monotonic()
        full.start()
        print(f"start until the greeting: {time.monotonic() - begun:.2f} s; {_told_rss(full)}", flush=True)
        time.sleep(2.0)
        print(f"postroad queue: {_queue_s(full):.2f} s; {_told_rss(full)}", flush=True)
        if options.overdue:
            time.sleep(10.0)
            print(_told_retries(full), flush=True)
        full.stop()
        for _ in range(options.rounds):
            for name, node in (("empty", empty), ("full", full)):
                with node:
                    time.sleep(1.0)
                    _rate(node, counter, options.messages // 10)
                    rates[name].append(_rate(node, counter, options.messages))
                    if name == "full":
                        print(f"under load: {_told_rss(node)}", flush=True)
        medians = {name: statistics.median(found) for name, found in rates.items()}
        print(f"new mail: empty {medians['empty']:.0f}/s, full {medians['full']:.0f}/s, "
              f"ratio {medians['full'] / medians['empty']:.2f}", flush=True)  # fmt: skip
    with Remote() as probe, Counter(directory) as bulk:
        node = _node(directory / "mailing", probe.port, bulk.port)
        with node:
            found = _mailing(node, options.mailing, probe, bulk)
            print(f"while a mailing of {options.mailing} runs: {len(found)} single messages, from the 250 to the next "
                  f"hop median {statistics.median(found) * 1e3:.1f} ms, worst {max(found) * 1e3:.0f} ms")  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--deferred", type=int, default=1_000_000)
    parser.add_argument("--domains", type=int, default=100_000)
    parser.add_argument("--messages", type=int, default=10_000, help="new mail in each turn")
    parser.add_argument("--mailing", type=int, default=100_000, help="recipients of the mailing")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--overdue", action="store_true", help="all are due at once")
    parser.add_argument("--directory", type=Path, default=None)
    options = parser.parse_args()
    directory = Path(tempfile.mkdtemp(prefix="queue-", dir=options.directory))
    try:
        run(options, directory)
    finally:
        shutil.rmtree(directory, ignore_errors=True)


if __name__ == "__main__":
    main()
