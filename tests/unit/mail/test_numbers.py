"""A number and its noun."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from postroad.mail.numbers import counted

SOURCE = Path(__file__).parents[3] / "src/postroad"


@pytest.mark.parametrize(
    ("number", "thing", "said"),
    [
        (0, "message", "0 messages"), (1, "message", "1 message"), (2, "message", "2 messages"),
        (1, "line of the log", "1 line of the log"), (2, "line of the log", "2 lines of the log"),
    ],
)  # fmt: skip
def test_a_number_and_its_noun(number: int, thing: str, said: str) -> None:
    assert counted(number, thing) == said


PLURAL = re.compile(
    r"\{(?:len\([^{}]+\)|[a-z_.]*(?:count|number|messages|recipients|sessions|workers|shards|lines|errors))\} "
    r"(?:messages|recipients|destinations|sessions|errors|workers|shards|findings|accounts|files|attempts|commands)\b"
)


def test_no_number_that_can_be_one_is_written_before_a_plural() -> None:
    """"1 workers". A limit, or a number that is more than one by what stands before it, may be."""
    found = [
        f"{path.name}: {match[0]}"
        for path in sorted(SOURCE.rglob("*.py"))
        for match in PLURAL.finditer(path.read_text())
    ]
    assert found == [
        "explain.py: {len(facts.reports)} recipients",  # two at least
        "explain.py: {len(facts.reports)} recipients",
        "memory.py: {count} recipients",  # of an error that tells a bug
        "gathering.py: {count} recipients",
    ]
