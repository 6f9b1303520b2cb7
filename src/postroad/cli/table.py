"""A table on standard output: drawn by rich if that is a terminal, else plain columns.

Plain columns have one row to a line, which `grep`, `awk` and `less` can use. rich is imported only if it is needed.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Literal

import click

from postroad.operate.present import fitting, plain_table
from postroad.report.text import clean, shorten_reason


def print_table(headings: Sequence[str], rows: Sequence[Sequence[str]], right: frozenset[int] = frozenset()) -> None:
    """To standard output, in the form that fits it."""
    if not sys.stdout.isatty():
        for line in plain_table(headings, rows, right):
            click.echo(line)
        return
    from rich.cells import cell_len
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    console = Console()
    cells = [[clean(cell) for cell in row] for row in rows]
    widths = fitting([max(map(cell_len, column)) for column in zip(headings, *cells, strict=True)], console.width)
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for place, (heading, width) in enumerate(zip(headings, widths, strict=True)):
        side: Literal["left", "right"] = "right" if place in right else "left"
        table.add_column(heading, justify=side, width=width, no_wrap=True, overflow="ellipsis")
    for row in cells:
        table.add_row(*map(Text, (*row[:-1], shorten_reason(row[-1], widths[-1]))))
    console.print(table)
