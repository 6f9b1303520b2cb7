"""What root may do hides what an ordinary user may not: tests of rights run as one."""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

NOBODY = 65_534


@contextlib.contextmanager
def as_ordinary_user() -> Iterator[None]:
    """The rights of nobody for a while, where we are root; else our own."""
    if os.geteuid() != 0:
        yield
        return
    os.seteuid(NOBODY)
    try:
        yield
    finally:
        os.seteuid(0)


@contextlib.contextmanager
def folder_for_all() -> Iterator[Path]:
    """A folder that every user may enter: those of `tmp_path` are closed to others, by every run of pytest anew."""
    path = Path(tempfile.mkdtemp(prefix="pr-", dir="/tmp"))
    path.chmod(0o755)
    try:
        yield path
    finally:
        shutil.rmtree(path, ignore_errors=True)
