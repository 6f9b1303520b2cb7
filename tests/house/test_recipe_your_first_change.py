"""docs/recipes/your-first-change.md: its patch fits the code as it is, and its test fails without the rule."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.peers.harness.recipe import Page

ROOT = Path(__file__).parents[2]
PAGE = Page("your-first-change")


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """The files that the change concerns, with what they need."""
    for name in ("src", "tests/unit", "tests/__init__.py", "tests/conftest.py", "pyproject.toml"):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        with contextlib.suppress(FileNotFoundError):
            if (ROOT / name).is_dir():
                shutil.copytree(ROOT / name, path, ignore=shutil.ignore_patterns("__pycache__"))
            else:
                shutil.copy(ROOT / name, path)
    return tmp_path


def _run(copy: Path, *command: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": f"{copy / 'src'}:{copy}"}
    return subprocess.run(command, cwd=copy, env=environment, capture_output=True, text=True, check=False, timeout=120)


def test_the_page_is_true(copy: Path) -> None:
    [patch] = [block.text for block in PAGE.blocks if block.kind == "diff"]
    [apply] = PAGE.commands("Change it")
    test = PAGE.commands("See that it works")[0].replace(".venv/bin/python", sys.executable).split()
    (copy / "first.patch").write_text(patch)

    only_test = _run(copy, *apply.split(), "--include=tests/*")
    assert only_test.returncode == 0, f"the patch does not fit the code: mend the page\n{only_test.stderr}"
    ran = _run(copy, *test)
    assert ran.returncode == 1 and "550 5.1.8" in ran.stdout, ran.stdout + ran.stderr

    rule = _run(copy, *apply.split(), "--include=src/*")
    assert rule.returncode == 0, f"the patch does not fit the code: mend the page\n{rule.stderr}"
    ran = _run(copy, *test)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    ran = _run(copy, sys.executable, "-m", "ruff", "check", "src", "tests")
    assert ran.returncode == 0, ran.stdout + ran.stderr
