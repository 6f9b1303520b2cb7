"""What root may do hides what an ordinary user may not: tests of rights run as one."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator

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
