"""What tables with `domain_maps`, and domains without mailboxes, say against the rest of the settings."""

from __future__ import annotations

from collections.abc import Iterator

from postroad.config.finding import Finding
from postroad.config.locate import Path
from postroad.config.routing import LocalDomainSection, RelayDomainSection
from postroad.config.settings import Settings
from postroad.maps.options import MapKind


def tables(settings: Settings) -> Iterator[tuple[Path, LocalDomainSection | RelayDomainSection]]:
    """All tables of local and relay domains, with their places."""
    for index, domain in enumerate(settings.domain):
        yield ("domain", index), domain
    for index, relayed in enumerate(settings.relay.domain):
        yield ("relay", "domain", index), relayed


def find(settings: Settings) -> Iterator[Finding]:
    """A table needs a name or maps of names; two tables with the same maps; a map that has every domain."""
    first: dict[tuple[str, ...], Path] = {}
    every = _maps_of_everything(settings)
    for here, domain in tables(settings):
        name, maps = (*here, "name"), (*here, "domain_maps")
        if not domain.name and not domain.domain_maps:
            yield Finding((name, here), "The table does not say for which domain it is", "Add name, or domain_maps")
        if domain.name and domain.domain_maps:
            yield Finding((maps, name), "The table has a name and also domain_maps", "Write two tables")
        if domain.domain_maps in first:
            yield Finding(
                (maps, (*first[domain.domain_maps], "domain_maps")),
                "Another table before this one has the same domain_maps, so this one is never used",
                "Remove one of the two tables, or name other maps",
            )
        if domain.domain_maps:
            first.setdefault(domain.domain_maps, here)
        for place, each in enumerate(domain.domain_maps):
            if each in every:
                whose = "local" if isinstance(domain, LocalDomainSection) else "a relay domain: an open relay"
                yield Finding(
                    ((*maps, place), maps),
                    f"The map {each!r} has a value for every key, so every domain would be {whose}",
                    "Name a map that has your own domains only",
                )


def _maps_of_everything(settings: Settings) -> set[str]:
    found: set[str] = set()
    for each in settings.map:
        if each.kind is MapKind.STATIC or not found.isdisjoint(each.maps):
            found.add(each.name)
    return found


def without_mailboxes(settings: Settings) -> Iterator[Finding]:
    """Domains with `deliver = "aliases"`."""
    for index, domain in enumerate(settings.domain):
        if domain.deliver != "aliases":
            continue
        here: Path = ("domain", index)
        for key in ("recipients", "recipients_file", "recipient_maps"):
            if key in domain.model_fields_set:
                yield Finding(
                    ((*here, key), (*here, "deliver")),
                    f'{domain.quoted} has no mailboxes (deliver = "aliases"), so this has no effect',
                    "Remove it, or choose another way of delivery",
                )
        if not settings.postmaster:
            yield Finding(
                ((*here, "deliver"), ("postmaster",)),
                f"{domain.quoted} has no mailbox for its postmaster, whose mail must be accepted",
                'Set postmaster at the top of the file, such as postmaster = "ada@example.org"',
            )
        if settings.aliases is None and not settings.alias_maps:
            yield Finding(
                ((*here, "deliver"),), f"{domain.quoted} has only aliases, but there are none",
                "Set aliases or alias_maps at the top of the file",
            )  # fmt: skip
