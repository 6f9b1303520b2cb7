"""Finds settings that should name a Python function or class, but whose text cannot be such a name."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final

from postroad.config.finding import Finding
from postroad.config.settings import Settings


def inspectors(settings: Settings) -> Iterator[Finding]:
    """The inspectors of listeners."""
    for place, listener in enumerate(settings.listener):
        for named in listener.inspectors:
            if not _FUNCTION.fullmatch(named):
                yield Finding(
                    (("listener", place, "inspectors"),),
                    f"{named!r} is not the name of an inspector",
                    'Write "module:name" or "/path/file.py:name"',
                )


def function(settings: Settings) -> Iterator[Finding]:
    """The function that verifies accounts."""
    named = settings.auth.function
    if named and not _FUNCTION.fullmatch(named):
        yield Finding(
            (("auth", "function"),),
            f"{named!r} is not the name of a function",
            'Write "module:function" or "/path/file.py:function"',
        )


_FUNCTION: Final = re.compile(r"(?:/[^\0]*\.py|[A-Za-z_]\w*(?:\.[A-Za-z_]\w*)*):[A-Za-z_]\w*")
