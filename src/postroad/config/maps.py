"""Maps: where settings look things up, each declared once and meant by its name."""

from __future__ import annotations

from typing import Annotated

from pydantic import BeforeValidator

from postroad.config.field import Section, of
from postroad.config.values import File, MapNames, one_or_more
from postroad.maps.options import MapKind, MapOptions


class MapSection(Section):
    """A map: key → value, for settings that look something up, such as `alias_maps` and `recipient_maps`. Give one
    table `[[map]]` for each. docs/maps.md has examples."""

    name: str = of(MapOptions.name, example='"virtual"')
    kind: MapKind = of(MapOptions.kind, word=True, example='"text"')
    file: File | None = of(MapOptions.file, default=None, example='"virtual"')
    entries: Annotated[tuple[str, ...], BeforeValidator(one_or_more)] = of(
        MapOptions.entries, example='["sales@example.org  ada, bob@example.net"]'
    )
    value: str = of(MapOptions.value)
    maps: MapNames = of(MapOptions.maps, example='["virtual", "people"]')
