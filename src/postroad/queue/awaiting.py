"""Recipients whose destination must be looked up first (`mail.routing`): each question is asked once, within limits.

Most destinations are known at once and never come here. For the others a task waits for the answer.

What always holds:
- A recipient that was taken comes back exactly once, by `on_found`, unless it is withdrawn or the worker stops. Then
  the spool has it as before: fresh, or due.
- At most `UNDER_WAY_MAX` questions are under way and `WAITING_MAX` more wait; `room` says how many may be added.
- Recipients of one message whose answers come within `GATHER_S` come back together, so that one transaction can carry
  them. No answer delays those of other messages, and none delays those of its own message for longer.

How it fails: an answer that does not come within `LOOKUP_S`, is cancelled by somebody else, or breaks (a bug, which
`on_bug` hears of), is `not_now`.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from operator import itemgetter
from typing import Final

from postroad.mail.numbers import counted
from postroad.mail.routing import Found, let_go, not_now
from postroad.queue.lane import QueuedMessage

UNDER_WAY_MAX: Final = 200
WAITING_MAX: Final = 2_000
LOOKUP_S: Final = 60.0
GATHER_S: Final = 0.5

Pending = Sequence[tuple[int, Awaitable[Found]]]  # by the recipient's index


class _Asked:
    """The questions about one message. `open`: recipients without an answer. `found`: answers that were not handed on
    yet."""

    __slots__ = ("found", "mail", "open", "tasks", "timer")

    def __init__(self, mail: QueuedMessage) -> None:
        self.mail = mail
        self.open: set[int] = set()
        self.found: list[tuple[int, Found]] = []
        self.tasks: set[asyncio.Task[None]] = set()
        self.timer: asyncio.TimerHandle | None = None


class Awaiting:
    """See the module. `on_found(mail, answers)` gets recipients with their answers. `on_bug(mail, doing)` is called
    within the handler of an exception."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        *,
        on_found: Callable[[QueuedMessage, list[tuple[int, Found]]], None],
        on_bug: Callable[[QueuedMessage, str], None],
    ) -> None:
        self._loop = loop
        self._on_found = on_found
        self._on_bug = on_bug
        self._asked: dict[int, _Asked] = {}  # by queue id
        self._waiting: deque[tuple[_Asked, int, Awaitable[Found]]] = deque()
        self._under_way = 0

    def __len__(self) -> int:
        """The number of questions without an answer."""
        return self._under_way + len(self._waiting)

    @property
    def room(self) -> int:
        """How many more questions may be added."""
        return max(0, UNDER_WAY_MAX + WAITING_MAX - len(self))

    def ask(self, mail: QueuedMessage, pending: Pending) -> None:
        """Waits for these answers. Until they come, the recipients are in memory (`QueuedMessage.active`)."""
        asked = self._asked.get(mail.envelope.id)
        if asked is None:
            asked = self._asked[mail.envelope.id] = _Asked(mail)
        for index, answer in pending:
            asked.open.add(index)
            self._waiting.append((asked, index, answer))
        self._go_on()

    def _go_on(self) -> None:
        while self._waiting and self._under_way < UNDER_WAY_MAX:
            asked, index, answer = self._waiting.popleft()
            self._under_way += 1
            task = self._loop.create_task(self._wait(asked, index, answer))
            asked.tasks.add(task)
            task.add_done_callback(partial(self._task_ended, asked, index, answer))

    async def _wait(self, asked: _Asked, index: int, answer: Awaitable[Found]) -> None:
        try:
            async with asyncio.timeout(LOOKUP_S):
                found = await answer
        except TimeoutError:
            found = not_now(f"its destination is not known: there was no answer within {LOOKUP_S:.0f} s")
        except Exception:
            self._on_bug(asked.mail, "finding its destination")
            found = not_now("its destination is not known: the look-up broke; the log says how")
        self._answered(asked, index, found)

    def _task_ended(self, asked: _Asked, index: int, answer: Awaitable[Found], task: asyncio.Task[None]) -> None:
        asked.tasks.discard(task)
        self._under_way -= 1
        if task.cancelled():
            let_go(answer)  # it may not even have begun
            # Not by us: those that are not waited for any more are not open.
            self._answered(asked, index, not_now("its destination is not known: the look-up was interrupted"))
        self._go_on()

    def _answered(self, asked: _Asked, index: int, found: Found) -> None:
        if index not in asked.open:
            return  # it was withdrawn meanwhile
        asked.open.remove(index)
        asked.found.append((index, found))
        if not asked.open:
            self._hand_on(asked)
        elif asked.timer is None:
            asked.timer = self._loop.call_later(GATHER_S, self._hand_on, asked)

    def _hand_on(self, asked: _Asked) -> None:
        if asked.timer is not None:
            asked.timer.cancel()
            asked.timer = None
        if not asked.open:
            self._asked.pop(asked.mail.envelope.id, None)
        found, asked.found = sorted(asked.found, key=itemgetter(0)), []
        if found:
            self._on_found(asked.mail, found)

    # -- recipients that are not waited for any more

    def withdraw(self, number: int) -> tuple[int, ...]:
        """Stops waiting for a message. Returns those of its recipients that were not handed on; they will not be."""
        asked = self._asked.pop(number, None)
        if asked is None:
            return ()
        indexes = (*asked.open, *(index for index, _ in asked.found))
        self._drop(asked)
        kept = [each for each in self._waiting if each[0] is not asked]
        for each in self._waiting:
            if each[0] is asked:
                let_go(each[2])
        self._waiting = deque(kept)
        return indexes

    def stop(self) -> None:
        """Stops waiting for all answers."""
        for _, _, answer in self._waiting:
            let_go(answer)
        self._waiting.clear()
        for asked in self._asked.values():
            self._drop(asked)
        self._asked.clear()

    def _drop(self, asked: _Asked) -> None:
        if asked.timer is not None:
            asked.timer.cancel()
            asked.timer = None
        asked.open.clear()
        asked.found.clear()
        for task in list(asked.tasks):
            task.cancel()

    # -- for operators

    def summary(self) -> str:
        """Says in words what is waited for; "" if nothing is."""
        return f"its destination is being looked up ({counted(len(self), 'look-up')} under way)" if len(self) else ""

    def domains(self, most: int) -> list[str]:
        """Returns at most `most` domains of the recipients."""
        mails = self._asked.values()
        found = {each.mail.envelope.recipients[index].address.domain for each in mails for index in each.open}
        return sorted(found)[:most]
