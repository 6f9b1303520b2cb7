"""Maps: one notion for every look-up, key → value. The stages see a `Map`; a kind of map (`MapSource`) is what answers.

The contract of `look_up(key, part)`, of a Map and of a MapSource:

1. It is called on the event loop, with any text, as often as needed, also for a key that is being looked up at this
   moment.
2. It answers at once: with the value, with None (the map has no such key), or with `NotNow` (nobody can tell now). Or
   it returns an awaitable of one of these, which is awaited once or not at all, and which ends within a time limit of
   its own. A source that never returns an awaitable says so by `waits`.
3. NotNow means that mail waits (4.3.0). It never counts as None: mail is neither refused nor lost because a server is
   away.
4. It never raises. Keys are compared without regard to case, unless the kind says otherwise (patterns).
5. `part`: the key is only a part of the thing looked up, such as the domain of an address. Kinds whose entries are
   patterns match whole keys only, and have no answer for a part (as in Postfix).
6. `known(key, part)` is for callers that do not want to wait: it begins nothing, and answers NO_ANSWER if `look_up`
   would return an awaitable. Only sources with `waits` need it.
7. `close()` is called once, when the map is not needed any more; nothing is looked up after it.

A value is text as it stands in the source. Its meaning is the caller's: the targets of an alias, or only that the key
is there. Which keys are looked up for an address, and in which order, is in `maps.steps`.
"""

from __future__ import annotations

import enum
from collections.abc import Awaitable, Callable
from typing import Final, Protocol, cast

import msgspec


class NotNow(msgspec.Struct, frozen=True):
    """There is no answer at the moment. `text`: why, for the log and for operators, not for clients."""

    text: str


Answer = str | None | NotNow


class NoAnswer(enum.Enum):
    """There is no answer yet, or not now."""

    NO_ANSWER = "no answer"


NO_ANSWER: Final = NoAnswer.NO_ANSWER


class LookUp(Protocol):
    """A look-up as a MapSource has it."""

    def __call__(self, key: str, part: bool = False, /) -> Answer | Awaitable[Answer]: ...


class MapSource(Protocol):
    """What a kind of map must do. See the module."""

    waits: bool  # whether it may return an awaitable

    @property
    def look_up(self) -> LookUp: ...

    def close(self) -> None: ...


class WaitingMapSource(MapSource, Protocol):
    """One with `waits`."""

    def known(self, key: str, part: bool = False) -> Answer | NoAnswer: ...


class WithKey(str):
    """A value with parts of the key in it, as patterns make them. Who acts upon its words must know that: a stranger
    may have written the key. `of_local_part`: a part comes from what stands before the last ``@`` of the key."""

    of_local_part = False


class MapCounts(msgspec.Struct, frozen=True):
    """What a map has been asked since it was made. `entries`: how many it has, -1 if it does not know. `used`: how many
    of them were an answer, -1 if it does not know. `away`: why it cannot answer now, "" if it can."""

    name: str
    kind: str
    asked: int = 0
    found: int = 0
    not_now: int = 0
    entries: int = -1
    used: int = -1
    away: str = ""


class Map:
    """A source with its name, its counters, and its contract kept whatever the source does."""

    __slots__ = ("_broke", "asked", "found", "kind", "name", "not_now", "source", "waits")

    def __init__(self, name: str, kind: str, source: MapSource, broke: Callable[[str], None]) -> None:
        """`broke`: hears of a source that raised, which is a bug."""
        self.name = name
        self.kind = kind
        self.source = source
        self.waits = source.waits
        self.asked = 0
        self.found = 0
        self.not_now = 0
        self._broke = broke

    def look_up(self, key: str, part: bool = False) -> Answer | Awaitable[Answer]:
        self.asked += 1
        try:
            answer = self.source.look_up(key, part)
        except Exception as error:
            return self._not_now(error)
        if answer is None:
            return None
        if isinstance(answer, str):
            self.found += 1
            return answer
        if isinstance(answer, NotNow):
            self.not_now += 1
            return answer
        return self._awaited(answer)

    def known(self, key: str, part: bool = False) -> Answer | NoAnswer:
        """The answer if it is there; nothing is begun."""
        if not self.waits:
            found = self.look_up(key, part)
            return found if found is None or isinstance(found, str | NotNow) else NO_ANSWER
        try:
            answer = cast(WaitingMapSource, self.source).known(key, part)
        except Exception as error:
            return self._not_now(error)
        if not isinstance(answer, NoAnswer):
            self.asked += 1
            self.found += isinstance(answer, str)
            self.not_now += isinstance(answer, NotNow)
        return answer

    def may_begin(self, prefix: str) -> bool:
        """Whether keys may begin so, as far as the source can tell without a look-up."""
        asked = getattr(self.source, "may_begin", None)
        return True if asked is None else bool(asked(prefix))

    def has_addresses(self) -> bool:
        """Whether there may be keys of mailboxes with their domains, as far as the source can tell without a
        look-up."""
        asked = getattr(self.source, "has_addresses", None)
        return True if asked is None else bool(asked())

    async def _awaited(self, pending: Awaitable[Answer]) -> Answer:
        try:
            answer = await pending
        except Exception as error:
            return self._not_now(error)
        if isinstance(answer, str):
            self.found += 1
        elif answer is not None:
            self.not_now += 1
        return answer

    def _not_now(self, error: Exception) -> NotNow:
        self.not_now += 1
        text = f"the map {self.name} broke: {type(error).__name__}: {error}"
        self._broke(text)
        return NotNow(text)
