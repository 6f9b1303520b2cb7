"""All maps of a configuration: made from their options, found by name, kept up to date.

What always holds: a map is made once and has one name; maps of which another is made come before it; if two
configurations have a map with equal options, and its password file and roots have not changed, they share it, with its
caches, connections and counters. How it fails: if a map cannot be made or read, a Problem names it, and no map is put
into force. A node that starts again has no old maps: there such a map answers "not now" and the others work (`away`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from heapq import nlargest
from typing import BinaryIO, Final

from postroad.maps.databases import mysql_driver, postgres_driver, roots_of
from postroad.maps.face import Map, MapCounts, MapSource
from postroad.maps.files import FileEntries, FileSource, InBackground
from postroad.maps.function import function_driver
from postroad.maps.ldap import ldap_driver
from postroad.maps.options import MapKind, MapOptions
from postroad.maps.patterns import PatternDialect, parse_patterns
from postroad.maps.rules import UsedRules
from postroad.maps.services import http_driver, policy_driver, socketmap_driver, tcp_driver
from postroad.maps.simple import AwaySource, FirstSource, StaticSource, UnionSource, parse_cidr
from postroad.maps.sql import statement
from postroad.maps.steps import OWNER
from postroad.maps.tables import SQLITE, CdbTable, OpenTable, SqliteTable, TableSource, lmdb_opener
from postroad.maps.text import Parsed, TextSource, parse, parse_aliases, read
from postroad.maps.users import UsersDriver
from postroad.maps.waiting import Driver, WaitingSource
from postroad.world.clock import Clock
from postroad.world.files import Stamp, stamp
from postroad.world.problem import Problem

USED_MAX: Final = 500_000  # entries of which is told when they were used

Tell = Callable[[str, str], None]
"""Says something to the operator: a level of the log, and the text."""


class Maps:
    """The maps by name. Make them with `make`."""

    def __init__(
        self, options: tuple[MapOptions, ...], by_name: Mapping[str, Map], tell: Tell,
        secrets: tuple[tuple[Stamp, ...], ...],
    ) -> None:  # fmt: skip
        self.options = options
        self.secrets = secrets  # of each, the state of the files that were read once, when it was made
        self._by_name = by_name
        self._tell = tell

    def __getitem__(self, name: str) -> Map:
        return self._by_name[name]

    def __iter__(self) -> Iterator[Map]:
        return iter(self._by_name.values())

    def named(self, names: Iterable[str]) -> tuple[Map, ...]:
        return tuple(self._by_name[name] for name in names)

    def unchanged(self, now: Mapping[MapOptions, tuple[Stamp, ...]]) -> dict[MapOptions, Map]:
        """The maps by their options, but for those whose files that were read once are others `now`."""
        every = zip(self.options, self, self.secrets, strict=True)
        return {options: map for options, map, state in every if now.get(options, state) == state}

    def look(self, in_background: InBackground) -> None:
        """Read files that have changed."""
        for map in self:
            if isinstance(map.source, FileSource):
                map.source.look(in_background, partial(self._looked, map.name))

    def _looked(self, name: str, source: FileSource, problems: tuple[Problem, ...]) -> None:
        for problem in problems:
            self._tell("error" if source.refused else "warning", f"map {name}: {problem}")
        if source.away:
            self._tell("error", f"map {name} cannot be used: mail that needs it waits until its file is correct")
        elif source.refused:
            self._tell("error", f"the old entries of map {name} stay in force until its file is correct")
        else:
            self._tell("info", f"the changed file of map {name} is in force, with {len(source)} entries")

    def counts(self) -> tuple[MapCounts, ...]:
        return tuple(map(_counts, self))

    def used(self, name: str) -> dict[str, int]:
        """When entries of this map were last an answer, by key: up to `USED_MAX` of them, the latest ones. Empty if it
        is none that knows."""
        map = self._by_name.get(name)
        source = map.source if map is not None else None
        entries = source.current if isinstance(source, FileSource) else source
        if not isinstance(entries, TextSource | UsedRules):
            return {}
        used = entries.used.items()
        latest = used if len(used) <= USED_MAX else nlargest(USED_MAX, used, key=lambda each: each[1])
        return {key.decode(): at_us for key, at_us in latest}

    def close(self, but: Maps | None = None) -> None:
        """Let go of the maps, but for those that another configuration goes on with."""
        kept = set() if but is None else {id(map) for map in but}
        for map in self:
            if id(map) not in kept:
                map.source.close()


def _counts(map: Map) -> MapCounts:
    source = map.source
    entries = source.current if isinstance(source, FileSource) else source
    return MapCounts(
        map.name, map.kind, map.asked, map.found, map.not_now,
        len(source) if isinstance(source, FileSource | TextSource) else -1,
        len(entries.used) if isinstance(entries, TextSource | UsedRules) else -1,
        source.away if isinstance(source, WaitingSource | TableSource | FileSource | AwaySource) else "",
    )  # fmt: skip


def make(
    options: Sequence[MapOptions], clock: Clock, tell: Tell, before: Maps | None = None,
    away: list[Problem] | None = None,
) -> Maps | tuple[Problem, ...]:
    """The maps, or what is wrong with them. What is doubtful in their files is told. `before`: those in force. `away`:
    if given, what is wrong is put there, and a map that cannot be used answers "not now"."""
    secrets = tuple(_secrets(each) for each in options)
    kept = {} if before is None else before.unchanged(dict(zip(options, secrets, strict=True)))
    made: dict[str, Map] = {}
    problems: list[Problem] = []
    for each in options:
        old = kept.get(each)
        source = _old_source(old, each, made, kept) or _SOURCES[each.kind](each, clock, made, tell)
        problem = source if isinstance(source, Problem) else None
        if isinstance(source, TableSource) and (old is None or old.source is not source):
            problem = source.open()
        if problem is not None:
            (problems if away is None else away).append(problem)
            if away is None:
                continue
        if isinstance(source, Problem):
            source = AwaySource(f"{source.where}: {source.text}")
        map = made[each.name] = old if old is not None and old.source is source else _map(each, source, tell)
        if isinstance(source, FileSource):
            found = source.load()
            if source.refused:
                (problems if away is None else away).extend(found)
            else:
                for doubt in found:
                    tell("warning", f"map {map.name}: {doubt}")
    return tuple(problems) if problems else Maps(tuple(options), made, tell, secrets)


def _secrets(options: MapOptions) -> tuple[Stamp, ...]:
    """The state of the password file and of the roots: a map whose own have changed is made anew at a reload."""
    return tuple(stamp(path) for path in (options.password_file, options.ca_file, roots_of(options.url)) if path)


def _map(options: MapOptions, source: MapSource, tell: Tell) -> Map:
    return Map(options.name, options.kind.value, source, partial(tell, "error"))


def _old_source(
    old: Map | None, options: MapOptions, made: Mapping[str, Map], kept: Mapping[MapOptions, Map]
) -> MapSource | None:
    """The source in force, if it can stay: equal options, and all maps of which it is made stay, too."""
    # A module may have changed, and what could not be made may be there now.
    if old is None or options.kind is MapKind.PYTHON or isinstance(old.source, AwaySource):
        return None
    before = {map.name: map for map in kept.values()}
    return old.source if all(made.get(name) is before.get(name) for name in options.maps) else None


# ---- kinds ----------------------------------------------------------------------------------------------------------


def _inline(options: MapOptions, clock: Clock, made: Mapping[str, Map], tell: Tell) -> MapSource | Problem:
    parsed = parse([entry.encode() for entry in options.entries], f"map {options.name}")
    if parsed.problem is not None or parsed.doubts:
        return parsed.problem or parsed.doubts[0]
    return TextSource(parsed.table, clock.now_us)


def _text(options: MapOptions, clock: Clock, made: Mapping[str, Map], tell: Tell) -> MapSource:
    return FileSource(options.file, partial(_entries, read, clock))


def _aliases(options: MapOptions, clock: Clock, made: Mapping[str, Map], tell: Tell) -> MapSource:
    return FileSource(options.file, partial(_entries, parse_aliases, clock))


def _entries(
    read: Callable[[BinaryIO, str], Parsed], clock: Clock, file: BinaryIO, where: str
) -> FileEntries | Problem:
    parsed = read(file, where)
    if parsed.problem is not None:
        return parsed.problem
    source = TextSource(parsed.table, clock.now_us)
    source.may_begin(OWNER)  # here, because this may be a thread
    source.has_addresses()
    return FileEntries(source, len(parsed.table), tuple(parsed.doubts))


def _cidr(options: MapOptions, clock: Clock, made: Mapping[str, Map], tell: Tell) -> MapSource:
    return FileSource(options.file, partial(_cidr_entries, clock))


def _cidr_entries(clock: Clock, file: BinaryIO, where: str) -> FileEntries | Problem:
    parsed = parse_cidr(file, where, clock.now_us)
    return parsed if isinstance(parsed, Problem) else FileEntries(parsed[0], len(parsed[0]), tuple(parsed[1]))


def _patterns(options: MapOptions, clock: Clock, made: Mapping[str, Map], tell: Tell) -> MapSource:
    return FileSource(options.file, partial(_pattern_entries, PatternDialect(options.kind.value), clock))


def _pattern_entries(dialect: PatternDialect, clock: Clock, file: BinaryIO, where: str) -> FileEntries | Problem:
    parsed = parse_patterns(file, where, dialect, clock.now_us)
    return parsed if isinstance(parsed, Problem) else FileEntries(parsed[0], parsed[1], tuple(parsed[2]))


def _static(options: MapOptions, clock: Clock, made: Mapping[str, Map], tell: Tell) -> MapSource:
    return StaticSource(options.value)


def _first(options: MapOptions, clock: Clock, made: Mapping[str, Map], tell: Tell) -> MapSource | Problem:
    return _of(FirstSource, options, made)


def _union(options: MapOptions, clock: Clock, made: Mapping[str, Map], tell: Tell) -> MapSource | Problem:
    return _of(UnionSource, options, made)


def _cdb(options: MapOptions, clock: Clock, made: Mapping[str, Map], tell: Tell) -> MapSource | Problem:
    return _opened(options, CdbTable, clock)


def _lmdb(options: MapOptions, clock: Clock, made: Mapping[str, Map], tell: Tell) -> MapSource | Problem:
    opener = lmdb_opener(f"map {options.name}")
    return opener if isinstance(opener, Problem) else _opened(options, opener, clock)


def _sqlite(options: MapOptions, clock: Clock, made: Mapping[str, Map], tell: Tell) -> MapSource | Problem:
    query = statement(options.query, SQLITE)
    if isinstance(query, str):
        return Problem(f"map {options.name}", query, "Correct the query.")
    return _opened(options, lambda path: SqliteTable(path, query), clock)


def _opened(options: MapOptions, opened: Callable[[str], OpenTable], clock: Clock) -> MapSource | Problem:
    return TableSource(options.file, opened, clock)  # `make` opens it


def _postgresql(options: MapOptions, clock: Clock, made: Mapping[str, Map], tell: Tell) -> MapSource | Problem:
    where = f"map {options.name}"
    return _waiting(postgres_driver(where, options.url, options.password_file, options.query), options, tell)


def _mysql(options: MapOptions, clock: Clock, made: Mapping[str, Map], tell: Tell) -> MapSource | Problem:
    where = f"map {options.name}"
    return _waiting(mysql_driver(where, options.url, options.password_file, options.query), options, tell)


def _ldap(options: MapOptions, clock: Clock, made: Mapping[str, Map], tell: Tell) -> MapSource | Problem:
    driver = ldap_driver(
        f"map {options.name}", options.url, options.query, options.user, options.password_file, options.ca_file,
        starttls=options.starttls,
    )  # fmt: skip
    return _waiting(driver, options, tell)


def _http(options: MapOptions, clock: Clock, made: Mapping[str, Map], tell: Tell) -> MapSource | Problem:
    driver = http_driver(
        f"map {options.name}", options.url, options.password_file, options.ca_file, options.waiting.at_once_max,
        options.waiting.timeout_s,
    )  # fmt: skip
    return _waiting(driver, options, tell)


def _socketmap(options: MapOptions, clock: Clock, made: Mapping[str, Map], tell: Tell) -> MapSource | Problem:
    return _waiting(socketmap_driver(f"map {options.name}", options.url, options.table), options, tell)


def _tcp(options: MapOptions, clock: Clock, made: Mapping[str, Map], tell: Tell) -> MapSource | Problem:
    return _waiting(tcp_driver(f"map {options.name}", options.url), options, tell)


def _policy(options: MapOptions, clock: Clock, made: Mapping[str, Map], tell: Tell) -> MapSource | Problem:
    return _waiting(policy_driver(f"map {options.name}", options.url), options, tell)


def _python(options: MapOptions, clock: Clock, made: Mapping[str, Map], tell: Tell) -> MapSource | Problem:
    return _waiting(function_driver(options.function, options.waiting.at_once_max), options, tell)


def _users(options: MapOptions, clock: Clock, made: Mapping[str, Map], tell: Tell) -> MapSource | Problem:
    return _waiting(UsersDriver(options.uid_min, options.waiting.at_once_max), options, tell)


def _waiting(driver: Driver | Problem, options: MapOptions, tell: Tell) -> MapSource | Problem:
    if isinstance(driver, Problem):
        where = f"map {options.name}"
        text = driver.text if driver.where == where else f"{driver.where}: {driver.text}"
        return Problem(where, text, driver.remedy)
    return WaitingSource(driver, options.waiting, options.name, tell)


def _of(
    kind: Callable[[Sequence[Map]], MapSource], options: MapOptions, made: Mapping[str, Map]
) -> MapSource | Problem:
    missing = [name for name in options.maps if name not in made]
    if missing:
        text = f"there is no map {missing[0]!r} before it"
        return Problem(f"map {options.name}", text, "Write a map of several maps after these maps.")
    return kind([made[name] for name in options.maps])


_SOURCES: dict[MapKind, Callable[[MapOptions, Clock, Mapping[str, Map], Tell], MapSource | Problem]] = {
    MapKind.INLINE: _inline,
    MapKind.TEXT: _text,
    MapKind.ALIASES: _aliases,
    MapKind.REGEXP: _patterns,
    MapKind.PCRE: _patterns,
    MapKind.CIDR: _cidr,
    MapKind.STATIC: _static,
    MapKind.FIRST: _first,
    MapKind.UNION: _union,
    MapKind.CDB: _cdb,
    MapKind.LMDB: _lmdb,
    MapKind.SQLITE: _sqlite,
    MapKind.POSTGRESQL: _postgresql,
    MapKind.MYSQL: _mysql,
    MapKind.LDAP: _ldap,
    MapKind.HTTP: _http,
    MapKind.USERS: _users,
    MapKind.SOCKETMAP: _socketmap,
    MapKind.TCP: _tcp,
    MapKind.POLICY: _policy,
    MapKind.PYTHON: _python,
}
