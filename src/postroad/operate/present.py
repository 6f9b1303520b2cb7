"""How facts are written for people: times, spans, sizes, columns. Pure.

What always holds: text that others supplied is cleaned before it is shown (`report.text.clean`), so no terminal acts
upon it. Not here: how a table is drawn on a terminal (`cli.table`).
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from typing import Final

from postroad.report.text import clean


def moment(at_us: int) -> str:
    """``2026-11-23 12:15:00 UTC``."""
    return time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(at_us // 1_000_000))


def clock_time(at_us: int) -> str:
    """``12:15:00.123``."""
    return time.strftime("%H:%M:%S", time.gmtime(at_us // 1_000_000)) + f".{at_us // 1000 % 1000:03}"


def span(length_us: int) -> str:
    """A length of time in one or two units: ``3 d 4 h``, ``12 min``, ``1.2 s``, ``40 ms``."""
    if length_us < 0:
        return f"-{span(-length_us)}"
    if length_us < 1_000_000:
        return f"{length_us / 1000:.0f} ms" if length_us >= 10_000 else f"{length_us / 1000:.1f} ms"
    seconds = length_us // 1_000_000
    if seconds < 60:
        return f"{length_us / 1_000_000:.1f} s" if seconds < 10 else f"{seconds} s"
    minutes, hours, days = seconds // 60, seconds // 3600, seconds // 86_400
    if minutes < 60:
        return f"{minutes} min"
    if hours < 24:
        return f"{hours} h {minutes % 60} min" if minutes % 60 else f"{hours} h"
    return f"{days} d {hours % 24} h" if hours % 24 else f"{days} d"


def when(at_us: int, now_us: int) -> str:
    """A time with its distance from now: ``2026-11-23 12:15:00 UTC (in 12 min)``."""
    distance = at_us - now_us
    side = f"in {span(distance)}" if distance >= 0 else f"{span(-distance)} ago"
    return f"{moment(at_us)} ({side})"


def octets(size: int) -> str:
    """``512 B``, ``4.0 KB``, ``12 MB``; powers of 1024."""
    if size < 1024:
        return f"{size} B"
    number = float(size)
    for unit in ("KB", "MB", "GB", "TB"):
        number /= 1024
        if number < 1024 or unit == "TB":
            break
    return f"{number:.1f} {unit}" if number < 10 else f"{number:.0f} {unit}"


def duration(text: str) -> int | None:
    """Microseconds in ``90s``, ``30m``, ``12h``, ``7d``, ``2w``; None if it is no length of time."""
    number, unit = text[:-1], text[-1:]
    factor = {"s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 604_800}.get(unit)
    if factor is None or not number.isdecimal() or len(number) > 9:
        return None
    return int(number) * factor * 1_000_000


def plain_table(headings: Sequence[str], rows: Sequence[Sequence[str]], right: frozenset[int]) -> Iterator[str]:
    """Lines of columns two spaces apart; `right` are the columns set to the right. The last one is not padded."""
    cells = [list(map(clean, row)) for row in rows]
    widths = [max(len(row[place]) for row in [list(headings), *cells]) for place in range(len(headings))]
    for row in [list(headings), *cells]:
        shown = [
            cell.rjust(width) if place in right else cell.ljust(width)
            for place, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        yield "  ".join(shown).rstrip()


def fitting(widths: Sequence[int], available: int) -> list[int]:
    """Widths of columns two spaces apart that fit: a line of the table is a line of the terminal. The last column, a
    reason, is cut first, and from its beginning; then the widest."""
    found = list(widths)
    excess = sum(found) + 2 * (len(found) - 1) - available
    for least in (_READABLE_MIN, 1):
        cut = min(max(excess, 0), max(found[-1] - least, 0))
        found[-1], excess = found[-1] - cut, excess - cut
        while excess > 0 and max(found) > least:
            widest = found.index(max(found))
            found[widest], excess = found[widest] - 1, excess - 1
    return found


_READABLE_MIN: Final = 16  # columns; less is cut only if the terminal is too narrow for all else
