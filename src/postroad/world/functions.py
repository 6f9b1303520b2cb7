"""Loads a Python function of the operator, named ``module:function`` or ``/path/file.py:function``."""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Callable
from pathlib import Path
from typing import Any


def load(named: str) -> Callable[..., Any] | str:
    """The function, or what is wrong with its name, its module or itself. What the module does on import, it does."""
    place, _, name = named.rpartition(":")
    try:
        if place.endswith(".py"):
            specification = importlib.util.spec_from_file_location(f"postroad_{Path(place).stem}", place)
            if specification is None or specification.loader is None:
                return f"{place} cannot be loaded"
            module = importlib.util.module_from_spec(specification)
            specification.loader.exec_module(module)
        else:
            module = importlib.import_module(place)
    except Exception as error:
        return f"{named}: {type(error).__name__}: {error}"
    function = getattr(module, name, None)
    return function if callable(function) else f"{named}: there is no such function"
