"""Compare two checkouts of Postroad, side by side in one run: ``python -m bench.builds OTHER-CHECKOUT``.

OTHER-CHECKOUT is a folder with its own `.venv` (`make .venv/.installed` there). In each round both builds are started
anew, since two runs of one process can differ by more than the builds do; who goes first changes from round to round.
The figure to look at is CPU per message: rates on a busy machine say little. The ratio is this checkout's figure
divided by the other's, the median over the rounds; above 1.00 this checkout costs more.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import statistics
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

from tests.peers.harness import need, ports
from tests.peers.harness.counter import Counter
from tests.peers.harness.postroad import Node, next_hop, relay_listener
from tests.peers.harness.smtptools import Sink

from bench.compare import MODES, Mode, Turn, measure, running, warm

THIS: Final = "this"
OTHER: Final = "other"


class Build(Node):
    """A node of one of the two builds. `python`: the interpreter of its checkout."""

    def __init__(self, name: str, directory: Path, next_port: int, python: str) -> None:
        self.name = name
        settings = {
            "listener": [relay_listener(ports.port(), tls="none")],
            "next_hop": [next_hop("*", next_port)],
        }
        super().__init__(
            directory, settings, python=python, defaults={"hostname": "postroad.test", "state_dir": "state"}
        )


def one_round(
    number: int, pythons: Mapping[str, str], modes: Sequence[Mode], base: Path, sink: Sink, counter: Counter, *,
    quick: bool,
) -> list[Turn]:
    """Each build once, from its start to its end, in each mode."""
    order = list(pythons)[:: 1 if number % 2 else -1]
    turns = []
    for name in order:
        for mode in modes:
            end = counter if mode.recipients > 1 else sink
            folder = base / f"{name}-{mode.name}-{number}"
            with running(Build(name, folder, end.port, pythons[name])) as server:
                measure(server, warm(mode, THIS), 0, end, quick=quick)
                turn = measure(server, mode, number, end, quick=quick)
            turns.append(turn)
            print(f"  {mode.name:<11} round {number}  {name:<6} {turn.cpu_us:>9.1f} µs CPU  {turn.rate:>10.1f}/s",
                  flush=True)  # fmt: skip
    return turns


def table(turns: Sequence[Turn], modes: Sequence[Mode]) -> str:
    """For each mode the medians of both builds, and the median of the ratios of each round."""
    lines = [f"{'mode':<12}{'other µs CPU':>14}{'this µs CPU':>14}{'ratio CPU':>11}{'ratio rate':>12}"]
    for mode in modes:
        pairs = [(by[OTHER], by[THIS]) for by in _rounds(turns, mode.name) if len(by) == 2]
        if pairs:
            other = statistics.median(pair[0].cpu_us for pair in pairs)
            this = statistics.median(pair[1].cpu_us for pair in pairs)
            cpu = statistics.median(pair[1].cpu_us / pair[0].cpu_us for pair in pairs)
            rate = statistics.median(pair[1].rate / pair[0].rate for pair in pairs)
            lines.append(f"{mode.name:<12}{other:>14.1f}{this:>14.1f}{cpu:>11.3f}{rate:>12.3f}")
    return "\n".join(lines)


def _rounds(turns: Sequence[Turn], mode: str) -> list[dict[str, Turn]]:
    found: dict[int, dict[str, Turn]] = {}
    for turn in turns:
        if turn.mode == mode:
            found.setdefault(turn.round, {})[turn.server] = turn
    return list(found.values())


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("other", type=Path, help="the folder of the other checkout")
    parser.add_argument("--rounds", type=int, default=5, help="starts of each build (5)")
    parser.add_argument("--quick", action="store_true", help="few messages: a look, not a result")
    parser.add_argument("--mode", action="append", choices=[mode.name for mode in MODES],
                        help="only this mode; may be given again")  # fmt: skip
    parser.add_argument("--folder", type=Path, default=Path("/var/tmp"),
                        help="where the queues stand: a real disk (/var/tmp)")  # fmt: skip
    asked = parser.parse_args()
    python = asked.other / ".venv" / "bin" / "python"
    missing = [name for name in ("smtp-source", "smtp-sink") if need.find(name) is None]
    if missing or not python.exists():
        print(f"bench: {', '.join(missing)} must be installed (Debian's package postfix)" if missing
              else f"bench: there is no {python}; `make .venv/.installed` makes it", file=sys.stderr)  # fmt: skip
        return 1
    pythons = {THIS: sys.executable, OTHER: str(python.absolute())}
    modes = [mode for mode in MODES if not asked.mode or mode.name in asked.mode]
    turns: list[Turn] = []
    print(f"load before: {os.getloadavg()[0]:.2f}", flush=True)
    with contextlib.ExitStack() as stack:
        base = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="postroad-builds-", dir=asked.folder)))
        sink, counter = stack.enter_context(Sink()), stack.enter_context(Counter(base))
        for number in range(1, asked.rounds + 1):
            turns += one_round(number, pythons, modes, base, sink, counter, quick=asked.quick)
    print(f"\n{table(turns, modes)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
