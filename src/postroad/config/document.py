"""The reference of all settings and the example file, made from the settings' own declaration. Text in, text out."""

from __future__ import annotations

import textwrap
from typing import Any, Final

from postroad.config import schema
from postroad.config.schema import Key, Table
from postroad.config.settings import Settings

_WIDTH: Final = 100

_REFERENCE_HEAD: Final = """\
# Configuration

Postroad reads one TOML file: the one that `--config` or the environment variable `POSTROAD_CONFIG` names, otherwise
`postroad.toml` in the working directory, otherwise `/etc/postroad/postroad.toml`. `postroad check` lists every problem
in the file. `postroad config example` prints a file to begin with. `postroad config show` prints the settings in force.
A running node reads a changed file on SIGHUP, and accepts either all of it or nothing.

Durations are texts such as `"30s"`, `"5m"`, `"4h"`, `"5d"`, or numbers of seconds. Sizes are texts such as `"64K"`,
`"50M"`, `"1G"` (powers of 1024), or numbers of octets. Relative paths start from the folder of the file.

This page is made from the settings themselves (`make docs`). If you change it by hand, the change is lost.
"""

_EXAMPLE_HEAD: Final = """\
# A configuration of Postroad to begin with. "# " begins an explanation. "#" without a space begins a setting: with its
# default, or with an example if it has no default. docs/configuration.md has the same as a page. `postroad check`
# lists the problems of a file.
"""


# ---- reference ------------------------------------------------------------------------------------------------------


def reference() -> str:
    """All settings, in Markdown."""
    return "\n".join([_REFERENCE_HEAD, *(_section(table) for table in schema.tables(Settings))])


def _section(table: Table) -> str:
    title = f"## `{table.header}`" if table.header else "## Before the first table"
    return "\n".join([title, "", _flowing(table.description), "", *(_entry(key) for key in table.keys)])


def _entry(key: Key) -> str:
    facts = [_kind(key)]
    facts.append("must be given" if key.required else f"default `{key.default}`" if key.default else "unset by default")
    if bounds := schema.span(key):
        facts.append(bounds)
    if key.source and key.source not in key.description:
        facts.append(key.source)
    return f"- **`{key.name}`** ({'; '.join(facts)})  \n  {_flowing(key.description)}\n"


def _kind(key: Key) -> str:
    one = " | ".join(f'`"{choice}"`' for choice in key.choices) if key.choices else key.kind
    unit = f" of {key.unit}" if key.unit else ""
    return f"list of {one}" if key.many else f"{one}{unit}"


def records() -> list[dict[str, Any]]:
    """All settings for programs, one record for each key."""
    return [
        {
            "table": ".".join(table.path),
            "many": table.many,
            "key": key.name,
            "kind": key.kind,
            "list": key.many,
            "choices": list(key.choices),
            "required": key.required,
            "default": key.default,
            "unit": key.unit,
            "least": key.least,
            "most": key.most,
            "source": key.source,
            "description": key.description,
        }
        for table in schema.tables(Settings)
        for key in table.keys
    ]


# ---- example --------------------------------------------------------------------------------------------------------

# What stands in the example; all other keys and tables are there as comments. The keys of a table that has several
# entries here are explained at the first.
_ACTIVE: Final[dict[str, tuple[dict[str, str], ...]]] = {
    "": ({"hostname": "", "state_dir": "", "postmaster": ""},),
    "listener": (
        {"name": "", "address": "", "port": "25", "role": '"mx"'},
        {"name": '"submission"', "port": "587", "role": '"submission"', "tls": '"required"'},
        {"name": '"submissions"', "port": "465", "role": '"submission"', "tls": '"implicit"'},
    ),
    "tls": ({"certificate": "", "key": ""},),
    "auth": ({"users": ""},),
    "domain": ({"name": "", "recipients": "", "deliver": "", "path": ""},),
}


def example() -> str:
    """A configuration with each key: what most will set stands there, the rest as comments with the defaults."""
    return "\n".join([_EXAMPLE_HEAD, *(_example_table(table) for table in schema.tables(Settings))])


def _example_table(table: Table) -> str:
    entries = _ACTIVE.get(".".join(table.path), ({},))
    commented = table.many and entries == ({},)
    lines = _comment(table.description) if table.header else []
    for place, active in enumerate(entries):
        if table.header:
            lines.append(f"#{table.header}" if commented else table.header)
        for key in table.keys:
            if place == 0:
                lines += _comment(_told(key))
                lines.append(_pair(key, active, shown=commented and key.name == "name"))
            elif key.name in active:
                lines.append(_pair(key, active))
        lines.append("")
    return "\n".join(lines)


def _pair(key: Key, active: dict[str, str], *, shown: bool = False) -> str:
    """`shown`: the example says more than an empty default."""
    if key.name in active:
        return f"{key.name} = {active[key.name] or key.example or key.default}"
    return f"#{key.name} = {key.example if shown and key.default == _EMPTY else key.default or key.example}"


_EMPTY: Final = '""'


def _told(key: Key) -> str:
    source = "" if key.source in key.description else key.source
    facts = [fact for fact in (schema.span(key), key.unit if not key.many else "", source) if fact]
    return f"{_plain(key.description)} ({'; '.join(facts)})" if facts else _plain(key.description)


def _plain(text: str) -> str:
    return text.replace("`", "")


def _comment(text: str) -> list[str]:
    return [f"# {line}" for line in textwrap.wrap(_flowing(_plain(text)), _WIDTH)]


def _flowing(text: str) -> str:
    return " ".join(text.split())


# ---- what is in force -----------------------------------------------------------------------------------------------

_HIDDEN: Final = "(hidden)"


def in_force(settings: Settings) -> dict[str, Any]:
    """All values as JSON knows them, passwords hidden."""
    values: dict[str, Any] = settings.model_dump(mode="json")
    for hop in values["next_hop"]:
        hop["password"] = _HIDDEN if hop["password"] else ""
    return values
