"""The settings of a map, with their defaults."""

from __future__ import annotations

import enum
from typing import Annotated

import msgspec
from msgspec import Meta


class MapKind(enum.Enum):
    """What answers."""

    INLINE = "inline"
    TEXT = "text"
    ALIASES = "aliases"
    REGEXP = "regexp"
    PCRE = "pcre"
    CIDR = "cidr"
    STATIC = "static"
    FIRST = "first"
    UNION = "union"


class MapOptions(msgspec.Struct, frozen=True):
    """One map. Which fields count depends on its kind: `NEEDED`."""

    name: Annotated[str, Meta(description="The name by which settings and `postroad map` mean this map.")]
    kind: Annotated[
        MapKind,
        Meta(
            description="What the map is. `inline`: `entries`. `text`: a file of lines `key value`, as postmap reads "
            "them. `aliases`: a file in the format of aliases(5). `regexp`, `pcre`: a file of patterns with values. "
            "`cidr`: a file of networks with values. `static`: `value` for every key. `first`: the first of `maps` "
            "that has the key. `union`: the values of all `maps`, with commas between them. docs/maps.md describes "
            "each.",
        ),
    ]
    file: Annotated[
        str,
        Meta(
            description="text, aliases, regexp, pcre, cidr: the file. The node reads it again when it changes. If it "
            "cannot be read, the old entries stay in force, and the log says so.",
        ),
    ] = ""
    entries: Annotated[
        tuple[str, ...], Meta(description="inline: the entries, each written `key value`, as in a file.")
    ] = ()
    value: Annotated[str, Meta(description="static: the value.")] = ""
    maps: Annotated[tuple[str, ...], Meta(description="first, union: the names of the maps.")] = ()


# By kind: the fields that must be given; all others but `name` and `kind` must not be.
NEEDED: dict[MapKind, tuple[str, ...]] = {
    MapKind.INLINE: ("entries",),
    MapKind.TEXT: ("file",),
    MapKind.ALIASES: ("file",),
    MapKind.REGEXP: ("file",),
    MapKind.PCRE: ("file",),
    MapKind.CIDR: ("file",),
    MapKind.STATIC: ("value",),
    MapKind.FIRST: ("maps",),
    MapKind.UNION: ("maps",),
}
