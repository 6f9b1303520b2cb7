"""How a setting is declared: a default, a description, a unit, the least value and where the RFC says so.

The declaration is the only place where a setting is written down: validation, the reference and the example are all
made from it. Every section is frozen, refuses keys that it does not know, and takes no value of the wrong type for a
right one ("25" is no port).
"""

from __future__ import annotations

from typing import Any, Final, get_type_hints

import msgspec
from pydantic import BaseModel, ConfigDict, Field

UNSET: Final[Any] = ...


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
    least value comes from. `example`: what an example says, as TOML; needed where there is no default.
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


def of(
    struct: type[msgspec.Struct],
    name: str,
    description: str = "",
    *,
    unit: str = "",
    source: str = "",
    word: bool = False,
) -> Any:
    """A setting that a room declares as a field of its Struct: the default, the bounds and, unless one is given here,
    the description are taken from there (`msgspec.Meta`)."""
    default = next(field.default for field in msgspec.structs.fields(struct) if field.name == name)
    annotation = get_type_hints(struct, include_extras=True)[name]
    meta = next((each for each in getattr(annotation, "__metadata__", ()) if isinstance(each, msgspec.Meta)), None)
    least, most = (meta.ge, meta.le) if meta else (None, None)
    told = description or (meta.description if meta else "") or ""
    return setting(default, told, unit=unit, least=least, most=most, source=source, word=word)


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
