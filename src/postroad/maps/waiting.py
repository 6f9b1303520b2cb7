"""Maps that ask a server: answers are kept for a while, the number of questions is limited, and a server that is down
is left alone.

A kind of map is a `Driver`, which only fetches one value. All else is here, once for all kinds. What always holds:

- A look-up ends within `timeout_s`, also if it waits for a free place. Equal look-ups under way are one.
- No more than `at_once_max` fetches are under way; no more than `waiting_max` look-ups wait.
- Answers are kept: values for `cache_s`, "no such key" for `cache_missing_s`. At most `cache_max` of them.
- After `failures_max` failures in a row the driver is left alone for `pause_s`; then one look-up tries it again. So
  look-ups do not wait for the time limit again and again while a server is down.
- If a map is closed, for example by a reload, its waiting look-ups are answered NotNow; none is cancelled.
- While the driver fails, an answer of the last `last_good_s` (a value or "no such key") is given again.

How it fails: NotNow, with the words of the driver. A fetch that fails because of its key alone (`Driver.fetch` raises
anything but `Away` or an OSError) does not count as a failure of the driver, so that nobody outside can turn a map off
by asking for odd keys.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict, deque
from collections.abc import Awaitable, Callable
from typing import Annotated, Final, Protocol

import msgspec
from msgspec import Meta

from postroad.maps.face import NO_ANSWER, Answer, NoAnswer, NotNow
from postroad.maps.folding import fold
from postroad.maps.fresh import FRESH_S

KEY_MAX: Final = 1_024  # characters of a key that is asked for
VALUE_MAX: Final = 16 * 1024 * 1024  # characters of a value
WAITING_MAX: Final = 10_000  # look-ups of one map that may be under way
_CLOSED: Final = "it is closed"


class Away(Exception):
    """The driver cannot answer at all now: no connection, a refusal to log in, a server that is starting."""


class Driver(Protocol):
    """What a kind does. It may be called as often at once as `at_once_max` says."""

    folds: bool  # whether keys are looked up in lower case

    async def fetch(self, key: str, part: bool) -> str | None:
        """The value, or None. Raises Away or OSError if nothing can be asked now, any other exception if this key
        cannot. It may be cancelled at any time."""

    def close(self) -> None: ...


class WaitingOptions(msgspec.Struct, frozen=True):
    """Limits of one map."""

    timeout_s: Annotated[
        float, Meta(ge=0.001, description="How long a look-up may take. After that the map cannot answer (451 4.3.0).")
    ] = 5.0
    at_once_max: Annotated[
        int, Meta(ge=1, le=1000, description="Look-ups, and connections, of each worker at a time. Others wait.")
    ] = 16
    cache_s: Annotated[float, Meta(ge=0, description="How long a value is kept. 0: not at all.")] = 30.0
    cache_missing_s: Annotated[
        float, Meta(ge=0, description="How long the node remembers that a key does not exist. 0: not at all.")
    ] = 10.0
    cache_max: Annotated[int, Meta(ge=0, description="Answers that each worker keeps.")] = 10_000
    last_good_s: Annotated[
        float,
        Meta(ge=0, description="While the map cannot answer: for how long its last answer to a key is used again."),
    ] = 3_600.0
    failures_max: Annotated[
        int, Meta(ge=1, description="After so many failures in a row, the map is not asked for the time `pause_s`.")
    ] = 3
    pause_s: Annotated[float, Meta(ge=0, description="How long a map that fails is not asked.")] = 10.0


class _Kept(msgspec.Struct):
    value: str | None
    fresh_until: float
    good_until: float


Place = tuple[str, bool]
"""A key, and whether it is a part of the thing looked up."""


class _UnderWay:
    """A look-up. `waiters`: each who asked has a future of its own, so that one may give up and the others go on.
    `is_over`: they have their answer. The fetch may still be under way then, and keeps its place until it ends."""

    __slots__ = ("is_over", "task", "until", "waiters")

    def __init__(self, until: float) -> None:
        self.until = until
        self.is_over = False
        self.task: asyncio.Task[None] | None = None  # None while it is queued
        self.waiters: list[asyncio.Future[Answer]] = []


class WaitingSource:
    """A driver under these limits. `tell`: hears when the map goes away, and when it is back."""

    waits = True

    def __init__(self, driver: Driver, options: WaitingOptions, name: str, tell: Callable[[str, str], None]) -> None:
        self._driver = driver
        self._options = options
        self._name = name
        self._tell = tell
        self.may_keep = options.cache_max > 0 and min(options.cache_s, options.cache_missing_s) >= FRESH_S
        self._kept: OrderedDict[Place, _Kept] = OrderedDict()
        self._under_way: dict[Place, _UnderWay] = {}  # the oldest first
        self._queued: deque[Place] = deque()  # those that wait until fewer are fetched
        self._fetched = 0  # how many are fetched now
        self._timer: asyncio.TimerHandle | None = None  # for the oldest that is not late
        self._failures = 0  # in a row
        self._paused_until = 0.0
        self._why = ""
        self._closed = False

    @property
    def away(self) -> str:
        """Why the driver is left alone now; "" if it is not."""
        return self._why if self._failures >= self._options.failures_max else ""

    def look_up(self, key: str, part: bool = False) -> Answer | Awaitable[Answer]:
        if len(key) > KEY_MAX:
            return None
        place = (fold(key) if self._driver.folds else key, part)
        loop = asyncio.get_running_loop()
        now = loop.time()
        kept = self._kept.get(place)
        if kept is not None and now < kept.fresh_until:
            self._kept.move_to_end(place)
            return kept.value
        found = self._under_way.get(place)
        if found is None:
            refused = self._refused(now)
            if refused is not None:
                return self._last_good(place, now, refused)
            found = self._under_way[place] = _UnderWay(now + self._options.timeout_s)
            if self._timer is None:
                self._timer = loop.call_at(found.until, self._look_at_late_ones, loop)
            if self._fetched < self._options.at_once_max:
                self._fetched += 1
                found.task = loop.create_task(self._fetch(place, found))
            else:
                self._queued.append(place)
        waiter = loop.create_future()
        found.waiters.append(waiter)
        return waiter

    def known(self, key: str, part: bool = False) -> Answer | NoAnswer:
        if len(key) > KEY_MAX:
            return None
        place = (fold(key) if self._driver.folds else key, part)
        kept = self._kept.get(place)
        if kept is None or asyncio.get_running_loop().time() >= kept.fresh_until:
            return NO_ANSWER
        self._kept.move_to_end(place)
        return kept.value

    def _refused(self, now: float) -> str | None:
        """Why the driver is not asked."""
        if self._closed:
            return _CLOSED
        if len(self._under_way) >= WAITING_MAX:
            return f"{WAITING_MAX} look-ups are waiting"
        if self._failures >= self._options.failures_max:
            if now < self._paused_until:
                return self._why
            self._paused_until = now + self._options.pause_s  # this look-up tries it for all
        return None

    def _last_good(self, place: Place, now: float, why: str) -> Answer:
        kept = self._kept.get(place)
        if kept is not None and now < kept.good_until:
            return kept.value
        return NotNow(f"map {self._name}: {why}")

    async def _fetch(self, place: Place, found: _UnderWay) -> None:
        loop = asyncio.get_running_loop()
        answer: Answer = None
        try:
            value = await self._driver.fetch(*place)
            if value is not None and len(value) > VALUE_MAX:
                raise ValueError(f"the answer has more than {VALUE_MAX:,} characters")
        except (Exception, asyncio.CancelledError) as error:
            if not found.is_over:
                if _is_loop_ending(error):
                    self._fetched -= 1
                    self._end(place, None)
                    raise
                answer = self._went_wrong(place, error)
        else:
            if not found.is_over:
                self._answered(place, value, loop.time())
                answer = value
        if not found.is_over:
            self._end(place, (answer,))
        self._fetched -= 1
        if self._queued:
            self._fetch_next(loop)

    def _went_wrong(self, place: Place, error: BaseException) -> Answer:
        text = str(error)
        if isinstance(error, TimeoutError) and not text:
            return self._too_late(place)
        if isinstance(error, Away | OSError):
            return self._failed(place, text or type(error).__name__)
        # Of this key alone. CancelledError: something that the driver waited for was cancelled, not this look-up.
        return self._last_good(place, asyncio.get_running_loop().time(), f"{type(error).__name__}: {text}")

    def _fetch_next(self, loop: asyncio.AbstractEventLoop) -> None:
        while self._queued and self._fetched < self._options.at_once_max:
            place = self._queued.popleft()
            found = self._under_way.get(place)
            if found is not None and found.task is None:  # else it was too late
                self._fetched += 1
                found.task = loop.create_task(self._fetch(place, found))

    def _end(self, place: Place, answer: tuple[Answer] | None) -> None:
        """All who wait get the answer; None: there is none, because the loop ends."""
        found = self._under_way.pop(place)
        found.is_over = True
        for waiter in found.waiters:
            if answer is None:
                waiter.cancel()
            elif not waiter.done():
                waiter.set_result(answer[0])

    def _look_at_late_ones(self, loop: asyncio.AbstractEventLoop) -> None:
        """End what has taken too long. One timer serves all: they end in the order in which they began. Nobody waits
        until a fetch has been cancelled: a driver may take its time for that."""
        self._timer = None
        now = loop.time()
        late: list[Place] = []
        for place, found in self._under_way.items():
            if found.until > now:
                self._timer = loop.call_at(found.until, self._look_at_late_ones, loop)
                break
            late.append(place)
        for place in late:
            self._cut_off(place, self._too_late(place))
        if late:
            self._queued = deque(place for place in self._queued if place in self._under_way)

    def _cut_off(self, place: Place, answer: Answer) -> None:
        task = self._under_way[place].task
        self._end(place, (answer,))
        if task is not None:
            task.get_loop().call_soon(task.cancel)  # not before it has begun: only then it gives its place back

    def _too_late(self, place: Place) -> Answer:
        return self._failed(place, f"no answer in {self._options.timeout_s:g} s")

    def _answered(self, place: Place, value: str | None, now: float) -> None:
        if self._failures >= self._options.failures_max:
            self._tell("info", f"map {self._name} answers again")
        self._failures = 0
        fresh_s = self._options.cache_s if value is not None else self._options.cache_missing_s
        if self._options.cache_max and (fresh_s or self._options.last_good_s):
            self._kept[place] = _Kept(value, now + fresh_s, now + max(fresh_s, self._options.last_good_s))
            self._kept.move_to_end(place)
            if len(self._kept) > self._options.cache_max:
                self._kept.popitem(last=False)

    def _failed(self, place: Place, why: str) -> Answer:
        now = asyncio.get_running_loop().time()
        self._failures += 1
        self._why = why
        if self._failures == self._options.failures_max:
            self._tell("error", f"map {self._name} cannot answer: {why}. Mail that needs it waits")
        if self._failures >= self._options.failures_max:
            self._paused_until = now + self._options.pause_s
        return self._last_good(place, now, why)

    def close(self) -> None:
        self._closed = True
        if self._timer is not None:
            self._timer.cancel()
        for place, found in list(self._under_way.items()):
            self._cut_off(place, self._last_good(place, found.until, _CLOSED))
        self._driver.close()


def _is_loop_ending(error: BaseException) -> bool:
    """Whether a task, which nobody else would cancel now, ends with its loop."""
    task = asyncio.current_task()
    return isinstance(error, asyncio.CancelledError) and task is not None and task.cancelling() > 0
