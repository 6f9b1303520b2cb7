"""Compare Postroad with Postfix, side by side in one run: `make bench`, or ``python -m bench.compare --help``.

Each mode is measured in rounds, in each of which the servers have their turn one after the other; the ratios are those
of the medians. What is measured: messages (or recipients, or megaoctets) per second from the start of the client until
the next hop has all of them, and the CPU time for each of all the server's processes. The last modes look at memory,
at Postroad with idle sessions (`bench.idle`) and at TLS handshakes (`bench.handshakes`) instead.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent import futures
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from pathlib import Path

from tests.peers.harness import need
from tests.peers.harness.counter import Counter
from tests.peers.harness.smtptools import Sink, run_source, source_command

from bench import handshakes, idle
from bench.processes import MemoryWatch, cpu_s
from bench.servers import PostfixServer, PostroadServer, Server

_RESULTS = need.ROOT / "bench" / "results"


@dataclass(frozen=True)
class Mode:
    """One kind of load. `messages` by server, so that a turn takes seconds with each; `quick` for a short look."""

    name: str
    what: str
    unit: str
    sessions: int
    messages: dict[str, int]
    quick: dict[str, int]
    size: int = 4096
    recipients: int = 1
    keep: bool = False
    per_message: float = 1.0
    """How many units one message makes."""
    recipient: str = "recipient@sink.test"
    numbered: bool = False
    """A number of its own before each recipient's name."""
    mix: tuple[tuple[str, bool], ...] = ()
    """If there are any: these recipients, each with its `numbered`, by as many clients at once, instead."""

    def count(self, server: str, quick: bool) -> int:
        counts = self.quick if quick else self.messages
        return counts.get(server, counts["*"])


MODES: Sequence[Mode] = (
    Mode("connection", "4 KB messages, a connection per message", "messages/s", 50,
         {"*": 20_000, "postfix": 4_000}, {"*": 4_000, "postfix": 1_000}),
    Mode("kept", "4 KB messages over kept connections", "messages/s", 50,
         {"*": 30_000, "postfix": 4_000}, {"*": 6_000, "postfix": 1_000}, keep=True),
    Mode("large", "10 MB messages", "MB/s", 4,
         {"*": 60}, {"*": 12}, size=10_000_000, keep=True, per_message=10.0),
    Mode("recipients", "4 KB messages to 1,000 recipients each", "recipients/s", 4,
         {"*": 80, "postfix": 20}, {"*": 12, "postfix": 4}, recipients=1000, keep=True, per_message=1000.0),
)
MEMORY = Mode("memory", "50 sessions sending 50 MB each at once", "MB", 50, {"*": 50}, {"*": 50}, size=50_000_000)


@dataclass(frozen=True)
class Turn:
    """One server, one mode, one round."""

    server: str
    mode: str
    round: int
    messages: int
    accepted_s: float
    """Until the client had its last 250."""
    relayed_s: float
    """Until the next hop had all."""
    rate: float
    """Units per second, end to end; of several clients at once, while all of them send."""
    cpu_us: float
    """CPU of the server's processes per unit, microseconds."""
    memory_peak: int = 0


@dataclass
class Results:
    at: str
    machine: dict[str, object]
    bare: dict[str, float] = field(default_factory=dict)
    turns: list[Turn] = field(default_factory=list)
    idle: idle.Idle | None = None
    handshakes: handshakes.Handshakes | None = None


def run_sources(commands: Sequence[Sequence[str]], have: Callable[[], int]) -> tuple[float, float, int]:
    """Runs them at once; the seconds until the last one and until the first one ended, and what the next hop had then
    (`have`)."""
    with ThreadPoolExecutor(len(commands)) as pool:
        started = time.monotonic()
        running = [pool.submit(run_source, command) for command in commands]
        futures.wait(running, return_when=futures.FIRST_COMPLETED)
        first_s, had = time.monotonic() - started, have()
        return max(each.result() for each in running), first_s, had


def measure(
    server: Server, mode: Mode, number: int, counter: Counter | Sink, *, quick: bool, watch: bool = False
) -> Turn:
    """One turn: sends, and waits until the next hop has all. If several clients send at once (`Mode.mix`), the rate is
    that of the time in which all of them send: after that, fewer sessions are open."""
    parts = mode.mix or ((mode.recipient, mode.numbered),)
    messages = mode.count(server.name, quick) // len(parts) * len(parts)
    before = _have(counter)
    expected = before + messages * (mode.recipients if isinstance(counter, Counter) else 1)
    commands = [
        source_command(
            server.port, messages=messages // len(parts), sessions=mode.sessions // len(parts), size=mode.size,
            recipients=mode.recipients, keep=mode.keep, recipient=recipient, options=["-N"] if numbered else (),
        )
        for recipient, numbered in parts
    ]
    cpu_before = used_s(server)
    started = time.monotonic()
    with MemoryWatch(server.pid) if watch else contextlib.nullcontext() as memory:
        accepted_s, first_s, had = run_sources(commands, lambda: _have(counter))
        ended = counter.wait_recipients(expected) if isinstance(counter, Counter) else counter.wait(expected)
    relayed_s = ended - started
    units = messages * mode.per_message
    rate = (had - before) / first_s if mode.mix else units / relayed_s
    # What ends a message (its removal from the queue) is work too: the CPU is read when the server is idle again.
    cpu = settled_s(server) - cpu_before
    return Turn(
        server.name, mode.name, number, messages, round(accepted_s, 3), round(relayed_s, 3),
        round(rate, 1), round(cpu / units * 1e6, 1),
        memory.peak if isinstance(memory, MemoryWatch) else 0,
    )


def _have(counter: Counter | Sink) -> int:
    return counter.recipients if isinstance(counter, Counter) else counter.count


def used_s(server: Server) -> float:
    """CPU time of its processes, and of those that stand beside it."""
    return sum(map(cpu_s, (server.pid, *getattr(server, "beside", ()))))


def settled_s(server: Server) -> float:
    """The same once it has used none for 0.3 s (ten seconds at most)."""
    before = used_s(server)
    for _ in range(33):
        time.sleep(0.3)
        now = used_s(server)
        if now - before < 0.02:
            return now
        before = now
    return before


def bare(quick: bool) -> dict[str, float]:
    """What client and next hop alone can do: were a server near it, they would be what is measured."""
    found = {}
    with Sink() as sink:
        for mode in MODES[:2]:
            count = 5_000 if quick else 20_000
            before, started = sink.count, time.monotonic()
            run_source(source_command(sink.port, messages=count, sessions=mode.sessions, keep=mode.keep))
            found[mode.name] = round(count / (sink.wait(before + count) - started), 1)
    return found


def machine() -> dict[str, object]:
    return {
        "processors": os.cpu_count(),
        "model": next((line.partition(":")[2].strip() for line in Path("/proc/cpuinfo").read_text().splitlines()
                       if line.startswith("model name")), platform.machine()),
        "kernel": platform.release(),
        "python": platform.python_version(),
        "load": os.getloadavg()[0],
        "postfix": subprocess.run([need.program("postconf"), "-dh", "mail_version"], capture_output=True, text=True,
                                  check=True).stdout.strip(),
        "commit": subprocess.run(["git", "-C", str(need.ROOT), "rev-parse", "--short", "HEAD"], capture_output=True,
                                 text=True, check=False).stdout.strip(),
    }


@contextlib.contextmanager
def running(server: Server) -> Iterator[Server]:
    server.start()
    try:
        yield server
    finally:
        server.stop()


def make_server(name: str, directory: Path, next_port: int, settings: Sequence[str]) -> Server:
    if name == "postfix":
        return PostfixServer(directory / name, next_port, dict(line.split("=", 1) for line in settings))
    return PostroadServer(directory / name, next_port)


def compare(names: Sequence[str], modes: Sequence[Mode], rounds: int, *, quick: bool, memory: bool, base: Path,
            settings: Sequence[str]) -> Results:
    results = Results(time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()), machine(), bare(quick))
    print(f"client and next hop alone: {results.bare}", flush=True)
    with contextlib.ExitStack() as stack:
        sink = stack.enter_context(Sink())
        counter = stack.enter_context(Counter(base))
        servers = {
            counts: [stack.enter_context(running(make_server(name, base / counts, port, settings))) for name in names]
            for counts, port in _next_hops(modes, memory, sink, counter).items()
        }
        for mode in modes:
            kind, end = ("recipients", counter) if mode.recipients > 1 else ("messages", sink)
            for server in servers[kind]:
                measure(server, warm(mode, server.name), 0, end, quick=quick)
            for number in range(1, rounds + 1):
                for server in servers[kind]:
                    _note(results, measure(server, mode, number, end, quick=quick))
        if memory:
            for server in servers["messages"]:
                _note(results, measure(server, MEMORY, 1, sink, quick=quick, watch=True))
    return results


def _next_hops(modes: Sequence[Mode], memory: bool, sink: Sink, counter: Counter) -> dict[str, int]:
    """The next hops that are needed. smtp-sink counts messages; where a server may split one, recipients count."""
    hops = {}
    if memory or any(mode.recipients == 1 for mode in modes):
        hops["messages"] = sink.port
    if any(mode.recipients > 1 for mode in modes):
        hops["recipients"] = counter.port
    return hops


def warm(mode: Mode, server: str) -> Mode:
    """A tenth of the mode, so that processes are there and caches filled when the first round begins."""
    fewer = max(mode.sessions, mode.count(server, False) // 10)
    return Mode(**{**asdict(mode), "messages": {"*": fewer}, "quick": {"*": fewer}})


def _note(results: Results, turn: Turn) -> None:
    results.turns.append(turn)
    memory = f"  peak {turn.memory_peak / 1e6:.0f} MB" if turn.memory_peak else ""
    print(
        f"  {turn.mode:<11} round {turn.round}  {turn.server:<9} {turn.rate:>10.1f}/s  {turn.cpu_us:>9.1f} µs CPU each"
        f"  250 after {turn.accepted_s:.2f} s, all after {turn.relayed_s:.2f} s{memory}",
        flush=True,
    )


def table(results: Results, names: Sequence[str]) -> str:
    """Medians by mode; with two servers the ratio of the second to the first."""
    head = f"{'mode':<12}{'unit':<14}" + "".join(f"{name + ' rate':>16}{name + ' µs CPU':>18}" for name in names)
    lines = [head + ("   ratio: rate    CPU" if len(names) > 1 else "")]
    for mode in MODES:
        medians = [found for name in names if (found := _medians(results, name, mode.name)) is not None]
        if len(medians) == len(names):
            line = f"{mode.name:<12}{mode.unit:<14}" + "".join(f"{rate:>16.1f}{cpu:>18.1f}" for rate, cpu in medians)
            if len(names) > 1:
                line += f"{medians[-1][0] / medians[0][0]:>15.2f}{medians[-1][1] / medians[0][1]:>7.2f}"
            lines.append(line)
    peaks = {turn.server: turn.memory_peak for turn in results.turns if turn.mode == MEMORY.name}
    if peaks:
        shown = ", ".join(f"{name} {peak / 1e6:.0f} MB" for name, peak in peaks.items())
        lines.append(f"memory at its peak, {MEMORY.what}: {shown}")
    return "\n".join(lines)


def _medians(results: Results, server: str, mode: str) -> tuple[float, float] | None:
    turns = [turn for turn in results.turns if turn.server == server and turn.mode == mode]
    if not turns:
        return None
    return statistics.median(turn.rate for turn in turns), statistics.median(turn.cpu_us for turn in turns)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3, help="rounds of each mode (3)")
    parser.add_argument("--quick", action="store_true", help="few messages: a look, not a result")
    parser.add_argument("--only", choices=["postfix", "postroad"], help="measure this server alone")
    parser.add_argument("--mode", action="append",
                        choices=[*(mode.name for mode in (*MODES, MEMORY)), "idle", "handshakes"],
                        help="only this mode; may be given again")
    parser.add_argument("--folder", type=Path, default=Path("/var/tmp"),
                        help="where the queues stand: a real disk (/var/tmp)")
    parser.add_argument("--postfix", action="append", default=[], metavar="NAME=VALUE",
                        help="a setting of main.cf to try; may be given again")
    asked = parser.parse_args()
    missing = [name for name in ("postfix", "smtp-source", "smtp-sink") if need.find(name) is None]
    if missing or os.geteuid() != 0:
        print(f"bench: {', '.join(missing)} must be installed (Debian's package postfix; make peers does it)" if missing
              else "bench: a private Postfix can only be started by root", file=sys.stderr)
        return 1
    names = [asked.only] if asked.only else ["postfix", "postroad"]
    modes = [mode for mode in MODES if not asked.mode or mode.name in asked.mode]
    memory = not asked.mode or MEMORY.name in asked.mode
    with tempfile.TemporaryDirectory(prefix="postroad-bench-", dir=asked.folder) as base:
        Path(base).chmod(0o755)
        results = compare(names, modes, 1 if asked.quick else asked.rounds, quick=asked.quick, memory=memory,
                          base=Path(base), settings=asked.postfix)
        if "postroad" in names and (not asked.mode or "idle" in asked.mode):
            results.idle = idle.measure(Path(base), messages=2_000 if asked.quick else 4_000)
        if len(names) > 1 and (not asked.mode or "handshakes" in asked.mode):
            results.handshakes = handshakes.measure(
                Path(base), count=400 if asked.quick else 1_600, rounds=1 if asked.quick else asked.rounds
            )
    print()
    print(table(results, names))
    if results.handshakes is not None:
        print(results.handshakes)
    if results.idle is not None:
        print(results.idle)
    _RESULTS.mkdir(parents=True, exist_ok=True)
    path = _RESULTS / f"{results.at.replace(':', '')}.json"
    path.write_text(json.dumps(asdict(results), indent=1))
    print(f"\nAll turns: {path.relative_to(need.ROOT)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
