"""Maps: settings look things up in them. Each map is declared once, and settings use its name."""

from __future__ import annotations

from typing import Annotated

from pydantic import BeforeValidator

from postroad.config.field import Section, of
from postroad.config.values import File, MapNames, Seconds, one_or_more
from postroad.maps.options import MapKind, MapOptions
from postroad.maps.waiting import WaitingOptions


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
    query: str = of(MapOptions.query, example="\"SELECT goto FROM alias WHERE address = '%s'\"")
    url: str = of(MapOptions.url, example='"postgresql://postroad@127.0.0.1/mail"', secret=True)
    password_file: File | None = of(MapOptions.password_file, default=None, example='"mail-db.password"')
    user: str = of(MapOptions.user, example='"cn=postroad,dc=example,dc=org"')
    starttls: bool = of(MapOptions.starttls)
    ca_file: File | None = of(MapOptions.ca_file, default=None, example='"roots.pem"')
    table: str = of(MapOptions.table)
    uid_min: int = of(MapOptions.uid_min, unit="uid")
    function: str = of(MapOptions.function, example='"/etc/postroad/maps.py:look_up"')
    timeout_s: Seconds = of(WaitingOptions.timeout_s)
    at_once_max: int = of(WaitingOptions.at_once_max, unit="look-ups")
    cache_s: Seconds = of(WaitingOptions.cache_s)
    cache_missing_s: Seconds = of(WaitingOptions.cache_missing_s)
    cache_max: int = of(WaitingOptions.cache_max, unit="answers")
    last_good_s: Seconds = of(WaitingOptions.last_good_s)
    failures_max: int = of(WaitingOptions.failures_max, unit="failures")
    pause_s: Seconds = of(WaitingOptions.pause_s)
