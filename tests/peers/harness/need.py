"""Which peer programs are there. Where one is missing its tests are skipped with a word; with CI set they fail."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]
"""The checkout."""


def in_ci() -> bool:
    return os.environ.get("CI", "").lower() in ("1", "true", "yes")


def missing(reason: str) -> None:
    """Skips the test, or fails it where nothing may be skipped."""
    if in_ci():
        pytest.fail(f"CI: nothing may be skipped, but {reason}", pytrace=False)
    pytest.skip(reason)


def root() -> None:
    """The test needs to be root: private instances of servers that change their user, ports below 1024, mounts."""
    if os.geteuid() != 0:
        missing("the test must run as root")


def find(name: str, *places: str) -> str | None:
    """The path of a program; `places` are looked at before PATH and the folders of system programs."""
    for place in places:
        if os.access(place, os.X_OK):
            return place
    return shutil.which(name, path=os.pathsep.join((os.environ.get("PATH", ""), "/usr/sbin", "/sbin", "/usr/bin")))


def program(name: str, *places: str) -> str:
    """As `find`; where it is not there the test cannot run."""
    found = find(name, *places)
    if found is None:
        missing(f"the program {name} is not installed (make peers installs it)")
        raise AssertionError("unreachable")
    return found
