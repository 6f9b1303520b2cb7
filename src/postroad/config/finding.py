"""A finding: what is wrong at which keys, before it is known in which line of which file they stand."""

from __future__ import annotations

import pathlib

import msgspec

from postroad.config.locate import Path


class Finding(msgspec.Struct, frozen=True):
    """`about`: the keys that took part; the first is the one to blame. A finding falls away if one of them is
    itself wrong or unknown, because it may then be nothing but a consequence. `file` and `line`: the place within a
    file that the configuration names, if this file is to blame; else None."""

    about: tuple[Path, ...]
    text: str
    remedy: str
    file: pathlib.Path | None = None
    line: int = 0


def touches(one: Path, other: Path) -> bool:
    """Whether one of the two stands within the other, or both are the same."""
    length = min(len(one), len(other))
    return one[:length] == other[:length]


def written(path: Path) -> str:
    """The path as people read it: ``listener[2].port`` is that of the second listener."""
    text = ""
    for part in path:
        if isinstance(part, int):
            text += f"[{part + 1}]"
        else:
            text += f".{part}" if text else part
    return text
