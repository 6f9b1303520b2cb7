"""The start-up of `sendmail`: what one call costs, beside Postfix's sendmail and beside Python alone.

``python -m bench.sendmail [--calls 100]``, as root. Each call hands over a small message; the programs take turns. The
figures are the medians of the wall time and the mean CPU time of the calling process with its children, in
milliseconds. The nodes keep the mail: nothing is sent on.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.peers.harness import need, ports
from tests.peers.harness.postfix import Postfix
from tests.peers.harness.postroad import Node, next_hop
from tests.peers.harness.sendmail import Sendmail, system_python

CALLS = 100
TARGET_MS = 80.0
MESSAGE = b"Subject: measured\nFrom: me@host.test\nTo: x@far.test\n\nhello\n"


def measure(base: Path, calls: int = CALLS) -> dict[str, tuple[float, float]]:
    """By program: median wall time and mean CPU time of a call, in milliseconds."""
    with _programs(base) as programs:
        walls: dict[str, list[float]] = {name: [] for name in programs}
        cpus: dict[str, float] = dict.fromkeys(programs, 0.0)
        for turn in range(calls + 3):
            for name, command in programs.items():
                before, began = os.times(), time.perf_counter()
                subprocess.run(command, input=MESSAGE, check=True, stdout=subprocess.DEVNULL)
                took, after = time.perf_counter() - began, os.times()
                if turn >= 3:  # the first calls fill caches
                    walls[name].append(1000 * took)
                    cpus[name] += 1000 * (after.children_user + after.children_system)
                    cpus[name] -= 1000 * (before.children_user + before.children_system)
        return {name: (statistics.median(walls[name]), cpus[name] / calls) for name in programs}


@contextmanager
def _programs(base: Path) -> Iterator[dict[str, list[str]]]:
    """What is called, with the nodes that take the mail."""
    sendmail, away = Sendmail(base / "up"), Sendmail(base / "down")
    drop = away.folder / "drop"
    drop.mkdir(parents=True)
    drop.chmod(0o3733)
    to = ["-i", "-f", "me@host.test", "x@far.test"]
    programs = {
        "python -IS alone": [system_python(), "-IS", "-c", "pass"],
        "Postroad's sendmail": [str(sendmail.path), *to],
        "Postroad's, node down": [str(away.path), *to],
    }
    settings = {
        "hostname": "host.test",
        "next_hop": [next_hop("*", ports.port())],
        "sendmail": {"folder": str(sendmail.folder)},
    }
    with Node(base / "n", settings):
        if need.find("postfix") is None or os.geteuid() != 0:
            yield programs
            return
        relay = {"relayhost": "[127.0.0.1]:1", "defer_transports": "smtp"}
        with Postfix(base / "p", hostname="host.test", settings=relay) as postfix:
            theirs = [need.program("sendmail"), "-C", str(postfix.directory / "etc"), *to]
            yield {**programs, "Postfix's sendmail": theirs}


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.sendmail")
    parser.add_argument("--calls", type=int, default=CALLS)
    calls = parser.parse_args().calls
    with tempfile.TemporaryDirectory(prefix="pr-bench-", dir="/tmp") as folder:
        Path(folder).chmod(0o755)
        found = measure(Path(folder), calls)
    for name, (wall, cpu) in found.items():
        print(f"{name:24} {wall:6.1f} ms, {cpu:6.1f} ms of CPU")
    ours = found["Postroad's sendmail"][0]
    print(f"target: below {TARGET_MS:g} ms: {'met' if ours < TARGET_MS else 'not met'}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
