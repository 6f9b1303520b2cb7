"""Waiting for the verdict of a rule, so that there is always one.

What always holds: every wait ends with a verdict. How it fails: the verdict is a deferral if a rule breaks, or is
cancelled by somebody else (for example because a reload closes the service that it asks).
"""

from __future__ import annotations

import asyncio
import traceback
from collections.abc import Awaitable, Callable

from postroad.mail.policy import Action, Verdict
from postroad.receive import replies


async def verdict_of(pending: Awaitable[Verdict], on_broken: Callable[[str], None]) -> Verdict:
    """The verdict. `on_broken` hears why there is none. Raises CancelledError only if the task that waits is
    cancelled."""
    try:
        return await pending
    except asyncio.CancelledError:
        task = asyncio.current_task()
        if task is not None and task.cancelling():
            raise
        on_broken("what a rule asked was broken off")
    except Exception:
        on_broken(f"a rule broke: {traceback.format_exc()}")
    return Verdict(Action.DEFER, replies.UNSURE, "a rule broke")
