"""A map of a million entries: how long its file takes to be read, what an entry takes of memory, what a look-up costs.

    python -m bench.maps [ENTRIES]

Times are CPU time, so that other work on the machine does not count.
"""

from __future__ import annotations

import gc
import sys
import tempfile
import time
from pathlib import Path

from postroad.maps.maps import Maps, make
from postroad.maps.options import MapKind, MapOptions
from postroad.world.clock import SystemClock

LOOK_UPS = 200_000


def main() -> int:
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 1_000_000
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "map"
        with path.open("w") as file:
            for number in range(count):
                key = f"user{number:07}@example{number % 100}.example.org"
                file.write(f"{key}  box{number:07}@backend{number % 7}.example.net\n")
        gc.collect()
        before, begun = _memory(), time.process_time()
        made = make([MapOptions("bench", MapKind.TEXT, file=str(path))], SystemClock(), lambda level, text: None)
        took_s, memory = time.process_time() - begun, _memory() - before
        assert isinstance(made, Maps), made
        size = path.stat().st_size
    print(f"{count} entries, {size / 1e6:.0f} MB: read in {took_s:.2f} s, {memory / count:.0f} octets of memory each")
    map = made["bench"]
    keys = [f"user{number % count:07}@example{number % count % 100}.example.org" for number in range(LOOK_UPS)]
    begun = time.process_time()
    for key in keys:
        map.look_up(key)
    print(f"a look-up: {(time.process_time() - begun) / LOOK_UPS * 1e6:.2f} µs")
    return 0


def _memory() -> int:
    """Octets of memory that this process has in use."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096


if __name__ == "__main__":
    sys.exit(main())
