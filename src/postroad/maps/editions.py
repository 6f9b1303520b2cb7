"""Whether answers of maps may be used again for a moment, and when they must not be.

A map may be kept from (`may_keep`) if its answers may be a second old (`route.fresh`): files that are read as a whole,
of which is known when they are replaced (`edition`); files that are opened, which are looked at once a second anyway;
servers whose answers are kept for longer (`maps.waiting`). Others, such as functions without a cache, are asked anew.
"""

from __future__ import annotations

from collections.abc import Iterable
from operator import attrgetter
from typing import Final

from postroad.maps.face import Map, MapSource
from postroad.maps.files import FileSource

_EDITION: Final = attrgetter("edition")


class Editions:
    """Of some maps."""

    __slots__ = ("_files", "may_keep")

    def __init__(self, maps: Iterable[Map]) -> None:
        sources = [source for map in maps for source in _sources(map.source)]
        self.may_keep = all(getattr(source, "may_keep", False) for source in sources)
        self._files = tuple(source for source in sources if isinstance(source, FileSource))

    def now(self) -> int:
        """Another number whenever a file was replaced."""
        return sum(map(_EDITION, self._files))


def _sources(source: MapSource) -> Iterable[MapSource]:
    """A source, or those of the maps of which it is made."""
    parts: tuple[Map, ...] | None = getattr(source, "maps", None)
    return (source,) if parts is None else (each for part in parts for each in _sources(part.source))
