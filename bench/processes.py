"""CPU time and memory of a server's processes, read from /proc.

The time of a child that has ended is in its parent's account once the parent has reaped it, so the sum over the living
tree misses nothing but what runs at the moment of reading. Linux counts in ticks of 10 ms per process: use differences
over seconds.
"""

from __future__ import annotations

import os
import threading
from pathlib import Path

_TICK_S = 1 / os.sysconf("SC_CLK_TCK")
_PAGE = os.sysconf("SC_PAGE_SIZE")


def tree(root: int) -> list[int]:
    """The process `root` and all below it."""
    children: dict[int, list[int]] = {}
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            fields = _stat(int(entry))
            if fields:
                children.setdefault(int(fields[1]), []).append(int(entry))
    found = [root]
    for pid in found:
        found.extend(children.get(pid, ()))
    return found


def cpu_s(root: int) -> float:
    """User and system time of the tree, its reaped children included."""
    ticks = 0
    for pid in tree(root):
        fields = _stat(pid)
        if fields:
            ticks += sum(map(int, fields[11:15]))  # utime, stime, cutime, cstime
    return ticks * _TICK_S


def memory(root: int) -> int:
    """Octets in memory, pages shared between processes counted once (PSS), or RSS where that cannot be read."""
    total = 0
    for pid in tree(root):
        try:
            rollup = Path(f"/proc/{pid}/smaps_rollup").read_text()
            total += next(int(line.split()[1]) for line in rollup.splitlines() if line.startswith("Pss:")) * 1024
        except (OSError, StopIteration):
            try:
                total += int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * _PAGE
            except OSError:
                continue
    return total


class MemoryWatch:
    """Looks at the tree's memory as long as it is entered; `peak` is the most it saw."""

    def __init__(self, root: int, pause_s: float = 0.1) -> None:
        self.peak = 0
        self._root = root
        self._pause_s = pause_s
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def _watch(self) -> None:
        while not self._stop.wait(self._pause_s):
            self.peak = max(self.peak, memory(self._root))

    def __enter__(self) -> MemoryWatch:
        self.peak = memory(self._root)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()


def _stat(pid: int) -> list[str]:
    """The fields of /proc/PID/stat behind the name, from the state on; empty where the process has gone."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return []
