"""What was found by maps is used again for a moment (`maps.fresh`), as long as the maps allow it.

What always holds: an answer ends when a file of the maps is replaced. It is kept only if all the maps allow it: files
that are read as a whole (they have an `edition`), files that are opened (they are looked at once a second anyway), and
servers whose answers are kept for at least as long (`maps.waiting`). What a file said before another map was waited
for is not kept, because the file may be another one by then. A question counts once in the counters of a map,
for all who use its answer.
"""

from __future__ import annotations

from collections.abc import Iterable
from operator import attrgetter
from typing import Final, Generic, TypeVar

from postroad.maps.asked import AT_ONCE, Asked
from postroad.maps.face import Map, MapSource
from postroad.maps.files import FileSource
from postroad.maps.fresh import FreshAnswers
from postroad.maps.tables import TableSource

K = TypeVar("K")
V = TypeVar("V")

_EDITION: Final = attrgetter("edition")


class MapAnswers(Generic[K, V]):
    """What was found by some maps: at most `most` answers."""

    __slots__ = ("_answers", "_edition", "_files", "_fresh", "_has_files", "may_keep")

    def __init__(self, most: int, maps: Iterable[Map]) -> None:
        sources = [source for map in maps for source in _sources(map.source)]
        self.may_keep = all(getattr(source, "may_keep", False) for source in sources)
        self._files = tuple(source for source in sources if isinstance(source, FileSource))
        self._has_files = any(isinstance(source, FileSource | TableSource) for source in sources)
        self._edition = -1  # of the files by which the answers were found
        self._answers: FreshAnswers[K, V] = FreshAnswers(most)
        self._fresh = self._answers.get

    def get(self, key: K) -> V | None:
        edition = sum(map(_EDITION, self._files))
        if edition != self._edition:
            self._edition = edition
            self._answers.clear()
        return self._fresh(key)

    def keep(self, key: K, value: V, asked: Asked) -> None:
        """`asked`: by whom it was found. It is not kept if an answer was missing, or if a file may have been replaced
        while another map was waited for (also one that is opened: it was looked at before the wait)."""
        if self.may_keep and asked is not AT_ONCE and not asked.stopped and not (asked.waited and self._has_files):
            self.get(key)  # throws away what was found by other files
            self._answers.keep(key, value)

    def forget(self, key: K) -> None:
        self._answers.forget(key)

    def clear(self) -> None:
        self._answers.clear()


def _sources(source: MapSource) -> Iterable[MapSource]:
    """A source, or those of the maps of which it is made."""
    parts: tuple[Map, ...] | None = getattr(source, "maps", None)
    return (source,) if parts is None else (each for part in parts for each in _sources(part.source))
