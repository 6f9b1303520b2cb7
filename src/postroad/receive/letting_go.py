"""Lets go of a task that nobody waits for any more, because its client has gone or the node stops."""

from __future__ import annotations

import asyncio
from typing import Any


def let_go(task: asyncio.Task[Any]) -> None:
    """Cancel it, but not before it has begun. A task that is cancelled earlier never awaits what it was made to wait
    for, such as the verdict of a rule: that stays half made, and Python warns of a coroutine that nobody awaited. The
    task may come to its end instead, so it must look whether somebody still waits."""
    task.get_loop().call_soon(task.cancel)
