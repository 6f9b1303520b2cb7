"""The operator's inspectors: Python objects that see sessions and change messages (`mail.policy.Inspector`).

A setting names a class or function, ``module:name`` or ``/path/file.py:name``, which makes an inspector when it is
called without arguments. One is made for each name at start and at each reload; sessions that are open keep the ones
with which they began. How it fails: with a text, and the node does not start, or keeps its old settings.
"""

from __future__ import annotations

from collections.abc import Iterable

from postroad.mail.policy import Inspector
from postroad.world.functions import load


def inspectors(named: Iterable[str]) -> dict[str, Inspector] | str:
    """An inspector for each name, or what is wrong."""
    made: dict[str, Inspector] = {}
    for name in named:
        if name in made:
            continue
        make = load(name)
        if isinstance(make, str):
            return make
        try:
            inspector = make()
        except Exception as error:
            return f"{name}: {type(error).__name__}: {error}"
        if not callable(getattr(inspector, "visit", None)):
            return f"{name}: it makes a {type(inspector).__name__}, which has no method visit"
        made[name] = inspector
    return made
