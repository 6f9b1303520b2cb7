"""Doubts about the values of maps: what aliases, transport maps, canonical maps, maps of limits and of paths cannot
use, so that mail waits for it, and aliases that lead in a circle, so that their mail is refused.

Only values that can be listed are judged: those of `inline`, `text`, `aliases` and `static` maps, and no more than
`ENTRIES_MAX` of each map. What other maps hold shows when mail comes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from functools import partial
from itertools import islice
from typing import Final

from postroad.check.sending import Whose, limit_of
from postroad.config.finding import Finding
from postroad.config.options import alias_sources, map_options, outlet_options
from postroad.config.settings import Settings
from postroad.maps.files import FileSource
from postroad.maps.maps import Maps, make
from postroad.maps.options import MapKind, MapOptions
from postroad.maps.text import TextSource
from postroad.protocol.grammar import parse_mailbox
from postroad.route import alias_file, tls_maps, transport
from postroad.route.includes import IncludingTargets
from postroad.route.outlets import TargetSource
from postroad.route.path_maps import mailbox_path
from postroad.world.clock import SystemClock

ENTRIES_MAX: Final = 20_000  # of a map that are judged
FOUND_MAX: Final = 10  # of a map that are told
SHOWN_MAX: Final = 60  # characters of a value
_LISTED: Final = frozenset((MapKind.INLINE, MapKind.TEXT, MapKind.ALIASES, MapKind.STATIC))


def find(settings: Settings, now_s: float) -> Iterator[Finding]:
    sources = alias_sources(settings)
    reader = IncludingTargets(outlet_options(settings))
    hops = frozenset(each.name for each in settings.next_hop if each.name)
    rewrite = settings.rewrite
    canonical = {*rewrite.canonical_maps, *rewrite.sender_canonical_maps, *rewrite.recipient_canonical_maps}
    for index, each in enumerate(map_options(settings)):
        if each.kind not in _LISTED:
            continue
        if each.name in settings.alias_maps:
            yield from _judged(index, each, partial(_alias_fault, reader, sources[each.name]))
        if each.name in settings.routing.transport_maps:
            yield from _judged(index, each, partial(_transport_fault, hops))
        if each.name in settings.routing.tls_policy_maps:
            yield from _judged(index, each, _tls_policy_fault)
        if each.name in settings.sending.limit_maps:
            yield from _judged(index, each, _limit_fault)
        if each.name in canonical:
            yield from _judged(index, each, _address_fault)
        for domain in settings.domain:
            if each.name in domain.path_maps:
                yield from _judged(index, each, partial(_path_fault, str(domain.path_base or "")))
                break
    yield from _circles(settings, reader, sources)


def _circles(
    settings: Settings, reader: alias_file.Targets, sources: Mapping[str, TargetSource]
) -> Iterator[Finding]:
    """Aliases of maps that lead only to each other."""
    table: dict[str, tuple[alias_file.AliasTarget | alias_file.OutletTarget, ...]] = {}
    maps = {each.name: each for each in map_options(settings) if each.kind in _LISTED}
    for name in settings.alias_maps:
        for key, value in islice(listed(maps[name]), ENTRIES_MAX) if name in maps else ():
            targets = alias_file.targets_of(value, reader, sources[name])
            if not isinstance(targets, str):
                table.setdefault(key, targets)
    for key in islice(alias_file.circles(table), FOUND_MAX):
        text = f"The alias {key} of a map leads in a circle and never to a mailbox. Its mail is refused (550 5.4.6)"
        yield Finding((("alias_maps",),), text, "Let one of the aliases in the circle lead to a mailbox")


def _judged(index: int, map: MapOptions, fault: Callable[[str], str]) -> Iterator[Finding]:
    wrong = ((key, value, why) for key, value in islice(listed(map), ENTRIES_MAX) if (why := fault(value)))
    for key, value, why in islice(wrong, FOUND_MAX):
        shown = value if len(value) <= SHOWN_MAX else f"{value[:SHOWN_MAX]}…"
        text = f"Map {map.name} has {shown!r} for {key}: {why}. Until this is corrected, such mail waits"
        yield Finding((("map", index),), text, "Correct the value")


def listed(map: MapOptions) -> Iterator[tuple[str, str]]:
    """The entries of a map that can be listed, none of others."""
    if map.kind not in _LISTED:
        return
    if map.kind is MapKind.STATIC:
        yield "every key", map.value
        return
    made = make([map], SystemClock(), lambda level, text: None)
    if not isinstance(made, Maps):
        return  # what is wrong with a map is a problem, not a doubt
    try:
        source = made[map.name].source
        entries = source.current if isinstance(source, FileSource) else source
        if isinstance(entries, TextSource):
            for key, value, _ in entries.entries():
                yield key, value
    finally:
        made.close()


def _alias_fault(reader: alias_file.Targets, source: TargetSource, value: str) -> str:
    found = alias_file.targets_of(value, reader, source)
    return found if isinstance(found, str) else ""


def _transport_fault(hops: frozenset[str], value: str) -> str:
    found = transport.parse(value)
    if isinstance(found, str):
        return found
    missing = found.kind is transport.WayKind.NEXT_HOP and found.name not in hops
    return "no [[next_hop]] has this name" if missing else ""


def _tls_policy_fault(value: str) -> str:
    found = tls_maps.parse(value)
    return found if isinstance(found, str) else ""


def _limit_fault(value: str) -> str:
    found = limit_of(value, Whose.ACCOUNT)
    return found if isinstance(found, str) else ""


def _address_fault(value: str) -> str:
    """One address, a local-part, or ``@domain``."""
    written = value.strip()
    whole = f"x{written}" if written.startswith("@") else written if "@" in written else f"{written}@example.org"
    return "" if parse_mailbox(whole) is not None else "it is not a single address"


def _path_fault(base: str, value: str) -> str:
    if mailbox_path(value, base):
        return ""
    relative = not base and not value.strip().startswith("/")
    return "it is not a whole path, and path_base is not set" if relative else "it is not the path of a mailbox"
