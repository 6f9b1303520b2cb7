"""Doubts about domains whose names come from maps: a map that has every domain, and a domain that two tables have.

Only maps that answer at once are asked: files, SQLite, `inline`. The order in which tables count is that of
`route.domain_maps`.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from postroad.config.contradictions.many_domains import tables
from postroad.config.finding import Finding
from postroad.config.locate import Path
from postroad.config.options import map_options
from postroad.config.routing import LocalDomainSection, RelayDomainSection
from postroad.config.settings import Settings
from postroad.maps.face import Map
from postroad.maps.files import FileSource
from postroad.maps.maps import Maps, make
from postroad.maps.options import MapOptions
from postroad.maps.steps import domain_steps
from postroad.maps.text import TextSource
from postroad.world.clock import SystemClock

NOBODYS: Final = "nobodys-domain.invalid"  # RFC 6761: no domain is called so
OVERLAPS_MAX: Final = 20  # that are told


def find(settings: Settings, now_s: float) -> Iterator[Finding]:
    wanted = {name for _, each in tables(settings) for name in each.domain_maps}
    made = _made(settings, wanted) if wanted else None
    if made is None:
        return
    try:
        yield from _every_domain(settings, made)
        for place, finding in enumerate(_twice(settings, made)):
            if place < OVERLAPS_MAX:
                yield finding
    finally:
        made.close()


def _made(settings: Settings, wanted: set[str]) -> Maps | None:
    """The maps with these names, as far as they answer at once."""
    chosen: list[MapOptions] = []
    for each in reversed(map_options(settings)):
        if each.name in wanted:
            wanted.update(each.maps)
            chosen.insert(0, each)
    found = make([each for each in chosen if not each.function], SystemClock(), lambda level, text: None)
    return found if isinstance(found, Maps) else None  # what is wrong with a map is a problem, not a doubt


def _of(domain: LocalDomainSection | RelayDomainSection, made: Maps) -> list[Map]:
    there = {map.name for map in made}
    return [made[name] for name in domain.domain_maps if name in there and not made[name].waits]


def _has(map: Map, name: str, *, relayed: bool) -> bool:
    keys = [(step.key, step.part) for step in domain_steps(name, part=False)]
    return any(isinstance(map.look_up(*key), str) for key in (keys if relayed else keys[:1]))


def _every_domain(settings: Settings, made: Maps) -> Iterator[Finding]:
    for here, domain in tables(settings):
        for map in _of(domain, made):
            if _has(map, NOBODYS, relayed=here[0] == "relay"):
                what = "a relay domain, so the node would be an open relay" if here[0] == "relay" else "local"
                yield Finding(
                    ((*here, "domain_maps"),),
                    f"The map {map.name!r} has a value for domains that do not exist: every domain would be {what}",
                    "Correct the map so that it has your own domains only",
                )


def _twice(settings: Settings, made: Maps) -> Iterator[Finding]:
    """Domains that have a table of their own, or are in the maps of an earlier table, too."""
    named: list[tuple[Path, str]] = [
        *((("domain", index, "name"), each.name) for index, each in enumerate(settings.domain)),
        *((("relay", "domains", index), name) for index, name in enumerate(settings.relay.domains)),
        *((("relay", "domain", index, "name"), each.name) for index, each in enumerate(settings.relay.domain)),
    ]
    many = [(here, each) for here, each in tables(settings) if each.domain_maps]
    for path, name in named:
        if not name or name == "*" or name.startswith("."):
            continue
        for here, each in many:
            local = path[0] == "relay" and here[0] == "domain"
            why = "it is local, and not a relay domain" if local else "it has a table of its own, which counts"
            yield from _told(name, here, each, made, (path,), why)
    for place, (_, first) in enumerate(many):
        for name in _names(first, made):
            for here, each in many[place + 1 :]:
                why = f"{first.called} has it, too, and counts"
                yield from _told(name, here, each, made, (), why)


def _told(
    name: str, here: Path, domain: LocalDomainSection | RelayDomainSection, made: Maps, also: tuple[Path, ...], why: str
) -> Iterator[Finding]:
    for map in _of(domain, made):
        if _has(map, name, relayed=here[0] == "relay"):
            text = f"The map {map.name!r} has the domain {name!r}, but {why}"
            yield Finding(((*here, "domain_maps"), *also), text, "Remove the domain from one of the two places")


def _names(domain: LocalDomainSection | RelayDomainSection, made: Maps) -> Iterator[str]:
    """The domains that a table has by maps that can be listed."""
    for map in _of(domain, made):
        source = map.source.current if isinstance(map.source, FileSource) else map.source
        if isinstance(source, TextSource):
            yield from (key for key, _, _ in source.entries() if "@" not in key and not key.startswith("."))
