"""Times, spans, sizes, tables."""

from __future__ import annotations

from typing import Any

import click
import pytest

from postroad.cli.table import print_table
from postroad.operate.present import clock_time, duration, fitting, moment, octets, plain_table, span, when
from postroad.report.text import shorten_reason

S = 1_000_000
NOW_US = 1_790_000_000_123_456


@pytest.mark.parametrize(
    ("length_us", "text"),
    [
        (0, "0.0 ms"), (1_234, "1.2 ms"), (40_000, "40 ms"), (1_200_000, "1.2 s"), (59 * S, "59 s"), (60 * S, "1 min"),
        (3599 * S, "59 min"), (3600 * S, "1 h"), (3661 * S, "1 h 1 min"), (86_400 * S, "1 d"),
        (5 * 86_400 * S + 4 * 3600 * S, "5 d 4 h"), (-2 * S, "-2.0 s"),
    ],
)  # fmt: skip
def test_span(length_us: int, text: str) -> None:
    assert span(length_us) == text


@pytest.mark.parametrize(
    ("size", "text"),
    [(0, "0 B"), (1023, "1023 B"), (1024, "1.0 KB"), (4096, "4.0 KB"), (20_480, "20 KB"), (1 << 20, "1.0 MB"),
     (5 << 30, "5.0 GB"), (5 << 50, "5120 TB")],
)  # fmt: skip
def test_octets(size: int, text: str) -> None:
    assert octets(size) == text


def test_times() -> None:
    assert moment(NOW_US) == "2026-09-21 14:13:20 UTC"
    assert clock_time(NOW_US) == "14:13:20.123"
    assert when(NOW_US + 720 * S, NOW_US) == "2026-09-21 14:25:20 UTC (in 12 min)"
    assert when(NOW_US - 720 * S, NOW_US) == "2026-09-21 14:01:20 UTC (12 min ago)"


@pytest.mark.parametrize(
    ("text", "length_us"),
    [("90s", 90 * S), ("30m", 1800 * S), ("12h", 43_200 * S), ("7d", 604_800 * S), ("2w", 1_209_600 * S),
     ("", None), ("d", None), ("7", None), ("-1d", None), ("1.5d", None), ("1y", None), ("9" * 10 + "d", None)],
)  # fmt: skip
def test_duration(text: str, length_us: int | None) -> None:
    assert duration(text) == length_us


def test_plain_table() -> None:
    rows = [("a.example", "1", "why\r\nnot"), ("much.longer.example", "1000", "")]
    assert list(plain_table(("NAME", "COUNT", "REASON"), rows, frozenset({1}))) == [
        "NAME                 COUNT  REASON",
        "a.example                1  why  not",
        "much.longer.example   1000",
    ]
    assert list(plain_table(("A",), [], frozenset())) == ["A"]


@pytest.mark.parametrize(
    ("widths", "available", "expected"),
    [
        ([10, 5, 100], 121, [10, 5, 100]),
        ([10, 5, 100], 60, [10, 5, 41]),
        ([40, 5, 30], 60, [35, 5, 16]),
        ([40, 40, 5, 3], 60, [23, 23, 5, 3]),
        ([10, 10, 10], 16, [5, 6, 1]),
    ],
)
def test_columns_fit_the_terminal(widths: list[int], available: int, expected: list[int]) -> None:
    found = fitting(widths, available)
    assert found == expected and sum(found) + 2 * (len(found) - 1) <= available


def test_a_table_on_a_terminal_has_a_line_for_each_row(monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    monkeypatch.setenv("COLUMNS", "60")
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    reason = "450 4.2.2 " + "full " * 20 + "end"
    print_table(("ID", "TO", "REASON"), [("6662dax8he01", "somebody@long.example.org", reason)])
    heading, row = click.unstyle(capsys.readouterr().out).splitlines()
    assert heading.split() == ["ID", "TO", "REASON"]
    assert row.startswith("6662dax8he01  somebody@long.example.org  450 4.2.2 ...") and row.rstrip().endswith("end")
    assert len(row) <= 60


@pytest.mark.parametrize(
    ("text", "length_max", "shown"),
    [
        ("short", 10, "short"),
        ("no connection to mx.example.org[192.0.2.1]:25: Connection refused", 24, "... : Connection refused"),
        ("450 4.2.2 mx.example.org is busy, the mailbox is full", 34, "450 4.2.2 ... , the mailbox is full"[-34:]),
        ("450 4.2.2 a long text", 12, "... ong text"),
        ("abcdef", 3, "def"),
    ],
)
def test_a_long_reason_keeps_its_end_and_its_code(text: str, length_max: int, shown: str) -> None:
    made = shorten_reason(text, length_max)
    assert len(made) <= length_max
    assert made.endswith(text[-3:])
    assert made == shown or made.startswith("450 4.2.2 ... ")
