"""How a setting is declared: a default, a description, a unit, bounds, and the RFC that they come from.

Most settings belong to a room: its Struct has the default, the bounds and the words, and the key of the file names the
field (`of`). A setting of the configuration itself, such as the path of a file of users, says all this here (`setting`,
`several`). Validation, the reference and the example are all made from the declaration. Every section is frozen,
refuses unknown keys, and never takes a value of the wrong type ("25" is no port).
"""

from __future__ import annotations

from functools import cache
from typing import Annotated, Any, Final, TypeVar, get_args, get_origin, get_type_hints, overload

import msgspec
from pydantic import BaseModel, ConfigDict, Field

UNSET: Final[Any] = ...
_THE_ROOMS: Final[Any] = object()  # the default of the field

_T = TypeVar("_T")


class Section(BaseModel):
    """One table of the configuration file."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, hide_input_in_errors=True)


def setting(
    default: Any,
    description: str,
    *,
    unit: str = "",
    least: float | None = None,
    most: float | None = None,
    source: str = "",
    example: str = "",
    secret: bool = False,
    word: bool = False,
) -> Any:
    """A pydantic Field. `default` UNSET: the key must be given. `source`: the RFC section that the value obeys or the
    least value comes from. `example`: what an example says, as TOML; needed if there is no default.
    `word`: the type is an Enum and one of its values stands in the file. `secret`: never printed."""
    return Field(
        default=default,
        description=description,
        ge=least,
        le=most,
        repr=not secret,
        strict=False if word else None,
        json_schema_extra={"unit": unit, "source": source, "example": example},
    )


@overload
def of(
    field: _T, *, unit: str = "", source: str = "", example: str = "", word: bool = False, secret: bool = False
) -> _T: ...


@overload
def of(
    field: Any, *, default: Any, unit: str = "", source: str = "", example: str = "", word: bool = False,
    secret: bool = False,
) -> Any: ...  # fmt: skip


def of(field: Any, *, default: Any = _THE_ROOMS, example: str = "", **more: Any) -> Any:
    """A setting that is a field of a room's Struct, such as ``of(ReceiveOptions.command_s)``: default, bounds and
    description are those of the Struct (`msgspec.Meta`), and `config.options` gives the value to this field. So the
    name of the field leads from the file to the room.

    `default`: the key's own, if it is not the room's: UNSET, or None if the room works out what that means. The other
    parameters are those of `setting`.
    """
    struct, name = _place(field)
    fallback = _default(struct, name) if default is _THE_ROOMS else default
    meta = _meta(struct, name)
    if not (meta.gt is None and meta.lt is None):
        raise TypeError(f"{struct.__name__}.{name}: only bounds by ge= and le= are handed on to the setting")
    description = meta.description or ""
    made = (
        several(fallback, description, least=meta.min_length, source=more.get("source", ""), example=example)
        if get_origin(_plain(_hints(struct)[name])) is tuple
        else setting(fallback, description, least=meta.ge, most=meta.le, example=example, **more)
    )
    made.json_schema_extra["field"] = field
    return made


def _place(field: Any) -> tuple[type[msgspec.Struct], str]:
    """The Struct and the name of one of its fields, which a class shows as a descriptor."""
    return field.__objclass__, field.__name__


@cache
def _hints(struct: type[msgspec.Struct]) -> dict[str, Any]:
    return get_type_hints(struct, include_extras=True)


def _plain(annotation: Any) -> Any:
    return get_args(annotation)[0] if get_origin(annotation) is Annotated else annotation


def _meta(struct: type[msgspec.Struct], name: str) -> msgspec.Meta:
    found = getattr(_hints(struct)[name], "__metadata__", ())
    return next((each for each in found if isinstance(each, msgspec.Meta)), msgspec.Meta())


@cache
def _defaults(struct: type[msgspec.Struct]) -> dict[str, Any]:
    """By field. Kept, because it takes as long as all else that a setting needs."""
    return {field.name: field.default for field in msgspec.structs.fields(struct)}


def _default(struct: type[msgspec.Struct], name: str) -> Any:
    default = _defaults(struct)[name]
    return UNSET if default is msgspec.NODEFAULT else default


@cache
def keys_of(section: type[Section], struct: type[msgspec.Struct]) -> dict[str, str]:
    """Which key of a section is which field of a room's Struct: the name of the key by the name of the field."""
    found = {}
    for key, info in section.model_fields.items():
        extra = info.json_schema_extra
        if isinstance(extra, dict) and "field" in extra and _place(extra["field"])[0] is struct:
            found[_place(extra["field"])[1]] = key
    return found


def table(model: type[Section]) -> Any:
    """A sub-table that may be left out: all its settings then have their defaults."""
    return Field(default_factory=model)


def tables() -> Any:
    """An array of tables, empty by default. TOML's lists become tuples, so that nobody changes them."""
    return Field(default=(), strict=False)


def several(
    default: tuple[Any, ...], description: str, *, least: int | None = None, source: str = "", example: str = ""
) -> Any:
    """A list of values. `least`: how many there must be."""
    return Field(
        default=default,
        strict=False,
        min_length=least,
        description=description,
        json_schema_extra={"unit": "", "source": source, "example": example},
    )
