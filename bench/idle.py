"""Idle sessions: what one takes of memory, and what they cost the traffic beside them.

``python -m bench.idle [--sessions 10000]``, and part of `make bench`. A node in its default configuration relays 4 KB
messages from smtp-source to smtp-sink, kept connections, in turns: beside idle sessions, and without. The
idle sessions are sockets of this process that have had their greeting and said EHLO. The figures: the growth of the
workers' RSS per session, in a node that has done nothing before, and the ratio of the rates beside them and without.
"""

from __future__ import annotations

import argparse
import resource
import socket
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

from tests.peers.harness import need
from tests.peers.harness.smtptools import Sink, run_source, source_command

from bench.processes import cpu_s
from bench.servers import PostroadServer

SESSIONS = 10_000
TARGET_OCTETS = 16 * 1024
TARGET_RATIO = 0.8
_PAGE = resource.getpagesize()


@dataclass(frozen=True)
class Idle:
    """`octets`: RSS of the workers per idle session. Rates in messages per second, CPU in µs per message."""

    sessions: int
    octets: float
    rate_without: float
    rate_beside: float
    cpu_without_us: float
    cpu_beside_us: float

    @property
    def ratio(self) -> float:
        return self.rate_beside / self.rate_without

    def __str__(self) -> str:
        return (
            f"{self.sessions} idle sessions: {self.octets / 1024:.1f} KB of the workers' memory each (target "
            f"{TARGET_OCTETS // 1024}); beside them {self.rate_beside:.0f} messages/s, without them "
            f"{self.rate_without:.0f} (ratio {self.ratio:.2f}, target {TARGET_RATIO}); CPU for each "
            f"{self.cpu_beside_us:.0f} and {self.cpu_without_us:.0f} µs"
        )


def measure(base: Path, sessions: int = SESSIONS, *, messages: int = 4_000, rounds: int = 3) -> Idle:
    """Bounded by the messages sent and the time that connecting takes: well under a minute."""
    _raise_limit(sessions)
    octets = 0.0
    without: list[tuple[float, float]] = []
    beside: list[tuple[float, float]] = []
    with Sink() as sink, PostroadServer(base / "idle", sink.port) as node:
        before = _rss(node)  # nothing has been freed yet that a session could take
        for number in range(rounds):  # in turns: the machine may have other work, and more or less of it
            with _held(node.port, sessions):
                time.sleep(1)
                if not number:
                    octets = (_rss(node) - before) / sessions
                    _send(node, sink, messages // 4)  # warm
                beside.append(_send(node, sink, messages))
            time.sleep(2)
            without.append(_send(node, sink, messages))
    return Idle(
        sessions, round(octets, 1), *(round(statistics.median(turn[place] for turn in turns), 1)
                                      for place in (0, 1) for turns in (without, beside)),
    )  # fmt: skip


def _send(node: PostroadServer, sink: Sink, messages: int) -> tuple[float, float]:
    """Messages per second and CPU of the node per message."""
    expected, cpu, started = sink.count + messages, cpu_s(node.pid), time.monotonic()
    run_source(source_command(node.port, messages=messages, sessions=50, keep=True))
    took_s = sink.wait(expected) - started
    time.sleep(0.5)
    return messages / took_s, (cpu_s(node.pid) - cpu) / messages * 1e6


def _rss(node: PostroadServer) -> int:
    return sum(int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * _PAGE for pid in node.workers())


@contextmanager
def _held(port: int, count: int) -> Iterator[None]:
    """So many clients that have said EHLO and nothing since."""
    clients: list[socket.socket] = []
    try:
        for number in range(count):
            client = socket.create_connection(("127.0.0.1", port), 30, source_address=(_source(number), 0))
            clients.append(client)
            if number % 100 == 99:
                _greet(clients[-100:])
        _greet(clients[count - count % 100 :])
        yield
    finally:
        for client in clients:
            client.close()


def _source(number: int) -> str:
    """An address of loopback, so that local ports do not run out."""
    return f"127.0.{1 + number // 250 % 250}.{1 + number % 250}"


def _greet(clients: list[socket.socket]) -> None:
    for client in clients:
        if not client.recv(512).startswith(b"220"):
            raise RuntimeError("a session was refused")
        client.sendall(b"EHLO idle.test\r\n")
    for client in clients:
        if not client.recv(4096).startswith(b"250"):
            raise RuntimeError("EHLO was refused")


def _raise_limit(sessions: int) -> None:
    """For this process and, by inheritance, for the node."""
    wanted = sessions + 2048
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < wanted:
        within = hard == resource.RLIM_INFINITY or hard >= wanted
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard if within else wanted))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sessions", type=int, default=SESSIONS)
    parser.add_argument("--messages", type=int, default=4_000, help="messages of each turn (4000)")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--folder", type=Path, default=Path("/var/tmp"))
    asked = parser.parse_args()
    if need.find("smtp-source") is None:
        print("idle: smtp-source (Debian's postfix) is needed", file=sys.stderr)
        return 1
    with tempfile.TemporaryDirectory(prefix="postroad-idle-", dir=asked.folder) as base:
        found = measure(Path(base), asked.sessions, messages=asked.messages, rounds=asked.rounds)
    print(found)
    print(asdict(found))
    return 0


if __name__ == "__main__":
    sys.exit(main())
