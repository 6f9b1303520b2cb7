"""A Python function of the operator as a map: ``module:function``, or ``/path/file.py:function``.

    def look_up(key):                   # or async def
        return PEOPLE.get(key)          # a text, or None if there is no such key

A plain function runs on a thread, an async one on the loop. It gets the key as it is, not in lower case, and is asked
for parts of an address as well as for the whole. If it raises, the map cannot answer this key now.
"""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from postroad.world.functions import load
from postroad.world.problem import Problem


class FunctionDriver:
    """See the module."""

    folds = False

    def __init__(self, function: Callable[[str], Any], threads: int) -> None:
        self._function = function
        self._is_async = inspect.iscoroutinefunction(function)
        self._threads = threads
        self._pool: ThreadPoolExecutor | None = None

    async def fetch(self, key: str, part: bool) -> str | None:
        if self._is_async:
            answer = await self._function(key)
        else:
            if self._pool is None:
                self._pool = ThreadPoolExecutor(self._threads, thread_name_prefix="map")
            answer = await asyncio.get_running_loop().run_in_executor(self._pool, self._function, key)
        if answer is not None and not isinstance(answer, str):
            raise TypeError(f"the function returned {type(answer).__name__}, which is not a text")
        return answer

    def close(self) -> None:
        if self._pool is not None:
            self._pool.shutdown(wait=False, cancel_futures=True)


def function_driver(named: str, threads: int) -> FunctionDriver | Problem:
    function = load(named)
    if isinstance(function, str):
        return Problem(named, f"the function cannot be loaded: {function}", "Correct the module, or the name.")
    return FunctionDriver(function, threads)
