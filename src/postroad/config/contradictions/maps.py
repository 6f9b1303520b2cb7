"""Finds contradictions among the tables [[map]] and the settings that name maps."""

from __future__ import annotations

from collections.abc import Iterator

from postroad.config.finding import Finding
from postroad.config.locate import Path
from postroad.config.maps import MapSection
from postroad.config.settings import Settings
from postroad.maps.options import NEEDED, OPTIONAL


def find(settings: Settings) -> Iterator[Finding]:
    """Keys that a kind needs and does not have, or has and does not use; names that are no map's."""
    before: dict[str, int] = {}
    for index, each in enumerate(settings.map):
        here: Path = ("map", index)
        yield from _keys(here, each)
        if each.name in before:
            yield Finding(
                ((*here, "name"), ("map", before[each.name], "name")), f"{each.name!r} is used twice",
                "Give one of the two maps another name",
            )  # fmt: skip
        for place, name in enumerate(each.maps):
            if name not in before:
                yield Finding(
                    ((*here, "maps", place),), f"There is no map {name!r} before this one",
                    "Write a map of several maps after these maps, or correct the name",
                )  # fmt: skip
        before.setdefault(each.name, index)
    for path, name in _named(settings):
        if name not in before:
            known = ", ".join(before) or "none"
            remedy = f"Add a [[map]] of this name; the maps are: {known}"
            if ":" in name:  # as Postfix writes a table
                remedy = 'Declare a table of Postfix as a [[map]], with a kind such as "text" and its file, and name it'
            yield Finding((path, ("map",)), f"There is no map {name!r}", remedy)


def _keys(here: Path, section: MapSection) -> Iterator[Finding]:
    needed = NEEDED[section.kind]
    given = section.model_fields_set - {"name", "kind"}
    for key in needed:
        if key not in given:
            yield Finding(((*here, key), here), f"A map of kind {section.kind.value!r} needs {key}", f"Add {key}")
        elif not getattr(section, key):
            yield Finding(((*here, key), here), f"A map of kind {section.kind.value!r} needs {key}", f"Set {key}")
    allowed = (*needed, *OPTIONAL.get(section.kind, ()))
    for key in sorted(given.difference(allowed)):
        used = ", ".join(allowed)
        yield Finding(
            ((*here, key),), f"A map of kind {section.kind.value!r} does not use {key}", f"Remove it; it uses {used}"
        )


def _named(settings: Settings) -> Iterator[tuple[Path, str]]:
    """All places where a map is named."""
    for place, name in enumerate(settings.alias_maps):
        yield ("alias_maps", place), name
    for place, name in enumerate(settings.sending.limit_maps):
        yield ("sending", "limit_maps", place), name
    for place, name in enumerate(settings.auth.sender_maps):
        yield ("auth", "sender_maps", place), name
    for place, name in enumerate(settings.routing.transport_maps):
        yield ("routing", "transport_maps", place), name
    for place, name in enumerate(settings.routing.tls_policy_maps):
        yield ("routing", "tls_policy_maps", place), name
    for index, hop in enumerate(settings.next_hop):
        for place, name in enumerate(hop.generic_maps):
            yield ("next_hop", index, "generic_maps", place), name
    for key, value in settings.rewrite:
        if key.endswith("_maps"):
            for place, name in enumerate(value):
                yield ("rewrite", key, place), name
    for index, domain in enumerate(settings.domain):
        for place, name in enumerate(domain.recipient_maps):
            yield ("domain", index, "recipient_maps", place), name
        for place, name in enumerate(domain.path_maps):
            yield ("domain", index, "path_maps", place), name
        for place, name in enumerate(domain.quota_maps):
            yield ("domain", index, "quota_maps", place), name
        for place, name in enumerate(domain.domain_maps):
            yield ("domain", index, "domain_maps", place), name
    for index, relayed in enumerate(settings.relay.domain):
        for place, name in enumerate(relayed.recipient_maps):
            yield ("relay", "domain", index, "recipient_maps", place), name
        for place, name in enumerate(relayed.domain_maps):
            yield ("relay", "domain", index, "domain_maps", place), name
