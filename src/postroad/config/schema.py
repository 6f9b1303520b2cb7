"""All keys that a section knows, read from its declaration: for the reference, the example and for suggestions."""

from __future__ import annotations

import difflib
import enum
import inspect
import typing
from collections.abc import Iterator
from functools import lru_cache
from typing import Any, Final, Literal, get_args, get_origin

import msgspec
from annotated_types import Ge, Le, MinLen
from pydantic.fields import FieldInfo

from postroad.config.field import Section
from postroad.config.values import ValueKind, show

_BASIC: Final = {str: "text", int: "number", float: "number", bool: "true or false"}


class Key(msgspec.Struct, frozen=True):
    """One key. `default` as TOML, "" if it must be given. `choices`: the words that it may be, if only such may."""

    name: str
    kind: str
    written: str
    choices: tuple[str, ...]
    many: bool
    required: bool
    default: str
    unit: str
    least: str
    most: str
    source: str
    example: str
    description: str


class Table(msgspec.Struct, frozen=True):
    """One table of the file: `path` is empty for the keys before the first header; `many`: an array of tables."""

    path: tuple[str, ...]
    many: bool
    description: str
    keys: tuple[Key, ...]

    @property
    def header(self) -> str:
        """``[limits]``, ``[[listener]]``, or "" for the top."""
        name = ".".join(self.path)
        return (f"[[{name}]]" if self.many else f"[{name}]") if name else ""


def tables(section: type[Section], path: tuple[str, ...] = (), many: bool = False) -> Iterator[Table]:
    """The table of this section, then those within it, in the order of their declaration."""
    fields = list(section.model_fields.items())
    keys = tuple(_key(name, info) for name, info in fields if not _inner(info))
    yield Table(path, many, inspect.cleandoc(section.__doc__ or ""), keys)
    for name, info in fields:
        if inner := _inner(info):
            yield from tables(inner[0], (*path, name), inner[1])


@lru_cache(maxsize=4)
def _known(section: type[Section]) -> dict[tuple[str, ...], tuple[str, ...]]:
    """The names that each table knows, of keys and of tables within it."""
    known: dict[tuple[str, ...], list[str]] = {}
    for each in tables(section):
        known.setdefault(each.path, []).extend(key.name for key in each.keys)
        if each.path:
            known.setdefault(each.path[:-1], []).append(each.path[-1])
    return {path: tuple(names) for path, names in known.items()}


def is_many(section: type[Section], path: tuple[str | int, ...]) -> bool:
    """Whether there may be several tables of this name."""
    return any(table.many and table.path == path for table in tables(section))


def header(section: type[Section], path: tuple[str | int, ...]) -> str:
    """The header of the table of this name: ``[limits]``, ``[[listener]]``; "" if there is none."""
    return next((table.header for table in tables(section) if table.path == path), "")


def suggestion(section: type[Section], path: tuple[str | int, ...]) -> str:
    """What to do about the unknown key at `path`: the nearest known one, or where a key of this name belongs."""
    names = tuple(part for part in path if isinstance(part, str))
    table, name = names[:-1], names[-1]
    known = _known(section)
    if near := difflib.get_close_matches(name, known.get(table, ()), n=1):
        return f"Did you mean {near[0]!r}?"
    places = [header(section, other) for other, keys in known.items() if name in keys and (*other, name) not in known]
    if places:
        return f"{name!r} belongs {' or '.join(map(_place, places))}. Move it there"
    if (table_name := header(section, (name,))) and table:
        return f"{table_name} is a table with its own header. The keys known here are {', '.join(sorted(known[table]))}"
    everywhere = {key: ".".join((*other, key)) for other, keys in known.items() for key in keys}
    if near := difflib.get_close_matches(name, everywhere, n=1, cutoff=0.8):
        return f"Did you mean {everywhere[near[0]]!r}?"
    return f"Remove it. The keys known here are {', '.join(sorted(known.get(table, ())))}"


def _place(table_header: str) -> str:
    return f"under {table_header}" if table_header else "at the top of the file, before the first [table]"


def meant(section: type[Section], path: tuple[str | int, ...]) -> tuple[str | int, ...] | None:
    """The key that the unknown one at `path` was probably meant to be, in the same table; None if none is near."""
    names = tuple(part for part in path if isinstance(part, str))
    near = difflib.get_close_matches(names[-1], _known(section).get(names[:-1], ()), n=1)
    return (*path[:-1], near[0]) if near else None


def bounds(section: type[Section], path: tuple[str | int, ...]) -> str:
    """The bounds of the value at `path`, for a value that exceeds them."""
    names = tuple(part for part in path if isinstance(part, str))
    found = next(table for table in tables(section) if table.path == names[:-1])
    key = next(key for key in found.keys if key.name == names[-1])
    source = f" ({key.source})" if key.source else ""
    return f"Write {span(key)}{source}"


def choices(section: type[Section], path: tuple[str | int, ...]) -> tuple[str, ...]:
    """The words that the key at `path` may be, if only such may."""
    names = tuple(part for part in path if isinstance(part, str))
    keys = next((table.keys for table in tables(section) if table.path == names[:-1]), ())
    return next((key.choices for key in keys if key.name == names[-1]), ())


def span(key: Key) -> str:
    """``1 to 65535``, ``300 or more``, ``at most 10``; "" without bounds."""
    if key.least and key.most:
        return f"{key.least} to {key.most}"
    return f"{key.least} or more" if key.least else f"at most {key.most}" if key.most else ""


def _inner(info: FieldInfo) -> tuple[type[Section], bool] | None:
    """The section that a field holds, and whether it holds many of them."""
    annotation = info.annotation
    if isinstance(annotation, type) and issubclass(annotation, Section):
        return annotation, False
    arguments = get_args(annotation)
    if get_origin(annotation) is tuple and isinstance(arguments[0], type) and issubclass(arguments[0], Section):
        return arguments[0], True
    return None


def _key(name: str, info: FieldInfo) -> Key:
    base, kind, many = _type(info.annotation, info.metadata)
    choices = tuple(get_args(base)) if get_origin(base) is Literal else ()
    extra = info.json_schema_extra if isinstance(info.json_schema_extra, dict) else {}
    bounds = {type(each): each for each in info.metadata}
    return Key(
        name=name,
        kind=kind.name if kind else "choice" if choices else _BASIC[base],
        written=kind.written if kind else "",
        choices=choices,
        many=many,
        required=info.is_required(),
        default="" if info.is_required() else show(info.default, kind),
        unit=str(extra["unit"]),
        least=_bound(bounds.get(Ge), "ge", kind, many) or _bound(bounds.get(MinLen), "min_length", None, many),
        most=_bound(bounds.get(Le), "le", kind, many),
        source=str(extra["source"]),
        example=str(extra["example"]),
        description=info.description or "",
    )


def _bound(bound: Any, attribute: str, kind: ValueKind | None, many: bool) -> str:
    if bound is None:
        return ""
    value = show(getattr(bound, attribute), kind).strip('"')
    return f"{value} of them" if many else value


def _type(annotation: Any, metadata: list[Any]) -> tuple[Any, ValueKind | None, bool]:
    """The plain type, its kind, and whether the key takes a list."""
    kind = next((each for each in metadata if isinstance(each, ValueKind)), None)
    arguments = get_args(annotation)
    if get_origin(annotation) is tuple and kind is None:
        base, inner, _ = _type(arguments[0], [])
        return base, inner, True
    if get_origin(annotation) is typing.Annotated:
        return _type(arguments[0], list(arguments[1:]))
    if type(None) in arguments and get_origin(annotation) is not Literal:
        return _type(next(each for each in arguments if each is not type(None)), metadata)
    if isinstance(annotation, type) and issubclass(annotation, enum.Enum):
        return Literal[tuple(each.value for each in annotation)], kind, False
    return annotation, kind, False
