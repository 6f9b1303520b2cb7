"""Every reply that is written in the source agrees with itself: the class of the enhanced status code is the first
digit of the reply code (RFC 2034 §4)."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

SOURCE = Path(__file__).parents[2] / "src/postroad"
STATUS = re.compile(r"\d\.\d{1,3}\.\d{1,3}")


def written(file: Path) -> Iterator[tuple[str, int, str]]:
    """Place, code and enhanced code of each call with both as its first arguments: `reply(452, "4.5.3", …)`."""
    for node in ast.walk(ast.parse(file.read_text())):
        if not isinstance(node, ast.Call):
            continue
        match node.args:
            case [ast.Constant(value=int(code)), ast.Constant(value=str(status)), *_] if STATUS.fullmatch(status):
                yield f"{file.relative_to(SOURCE)}:{node.lineno}", code, status
            case _:
                pass


FOUND = [each for file in sorted(SOURCE.rglob("*.py")) for each in written(file)]


def test_they_are_found() -> None:
    assert len(FOUND) > 80


@pytest.mark.parametrize(("code", "status"), [each[1:] for each in FOUND], ids=[each[0] for each in FOUND])
def test_the_class_is_that_of_the_code(code: int, status: str) -> None:
    assert status[0] == str(code)[0]
