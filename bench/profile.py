"""Where a worker's time goes: ``python -m bench.profile [--mode kept|connection|large] [--native]``.

Starts smtp-sink and a Postroad node, loads it with smtp-source and has py-spy look at one worker meanwhile. Prints the
functions by their own time and writes the stacks to bench/results/. py-spy is looked for beside this Python and in
PATH; ``uv tool install py-spy`` brings it.
"""

from __future__ import annotations

import argparse
import collections
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

from tests.peers.harness import need
from tests.peers.harness.smtptools import Sink, run_source, source_command

from bench.compare import MODES
from bench.servers import PostroadServer

_LOOP = "node/worker.py"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--mode", default="kept", choices=[mode.name for mode in MODES if mode.recipients == 1])
    parser.add_argument("--seconds", type=int, default=10)
    parser.add_argument("--native", action="store_true", help="C functions, too (slower)")
    parser.add_argument("--folder", type=Path, default=Path("/var/tmp"))
    asked = parser.parse_args()
    mode = next(mode for mode in MODES if mode.name == asked.mode)
    spy = need.find("py-spy", str(Path(sys.executable).with_name("py-spy")), str(Path.home() / ".local/bin/py-spy"))
    if spy is None or need.find("smtp-source") is None:
        print("profile: py-spy (uv tool install py-spy) and smtp-source (Debian's postfix) are needed", file=sys.stderr)
        return 1
    results = need.ROOT / "bench" / "results"
    results.mkdir(parents=True, exist_ok=True)
    raw = results / f"profile-{asked.mode}.raw"
    with tempfile.TemporaryDirectory(prefix="postroad-profile-", dir=asked.folder) as base, Sink() as sink, \
            PostroadServer(Path(base) / "node", sink.port) as node:
        stop = threading.Event()
        loader = threading.Thread(target=_load, args=(node.port, mode.sessions, mode.size, mode.keep, stop))
        loader.start()
        time.sleep(1)
        before, started = sink.count, time.monotonic()
        _record(spy, node.workers()[0], asked.seconds, raw, native=asked.native)
        print(f"{(sink.count - before) / (time.monotonic() - started):.0f} messages/s while looked at")
        stop.set()
        loader.join()
    print(own_time(raw))
    print(f"Stacks: {raw} (for speedscope.app or flamegraph.pl)")
    return 0


def _load(port: int, sessions: int, size: int, keep: bool, stop: threading.Event) -> None:
    messages = max(sessions * 4, 20_000_000 // size)
    while not stop.is_set():
        run_source(source_command(port, messages=messages, sessions=sessions, size=size, keep=keep))


def _record(spy: str, pid: int, seconds: int, output: Path, *, native: bool) -> None:
    command = [spy, "record", "--pid", str(pid), "--duration", str(seconds), "--rate", "500", "--format", "raw",
               "--output", str(output), "--threads", *(["--native"] if native else [])]
    subprocess.run(command, check=True, capture_output=True)


def own_time(raw: Path, most: int = 45) -> str:
    """The functions of the loop's thread by the samples taken in them, most first, and by those taken below them.

    Other threads are left out: py-spy takes a thread that waits in C for one that works.
    """
    own: collections.Counter[str] = collections.Counter()
    below: collections.Counter[str] = collections.Counter()
    total = 0
    for line in raw.read_text().splitlines():
        stack, _, count = line.rpartition(" ")
        frames = [frame for frame in stack.split(";") if not frame.startswith(("thread (", "process "))]
        if not any(_LOOP in frame for frame in frames):
            continue
        own[frames[-1]] += int(count)
        for frame in set(frames):
            below[frame] += int(count)
        total += int(count)
    lines = [f"{'own %':>7} {'total %':>8}  function"]
    lines += [f"{count / total:>7.1%} {below[frame] / total:>8.1%}  {frame}" for frame, count in own.most_common(most)]
    return f"{total} samples of the loop's thread at work\n" + "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
