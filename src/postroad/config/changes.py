"""Which keys differ between two configurations, and which of them a running node takes only when it starts again.

Both sides are values as `document.in_force` gives them, so that what a node tells over its control socket can be
compared with a file.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any, Final

# A reload that changes one of these is refused as a whole.
FIXED: Final = (
    "state_dir", "user", "group", "workers", "sendmail.folder", "limits.network_prefix_ipv4",
    "limits.network_prefix_ipv6",
)  # fmt: skip

# These sections a reload takes, but they have their effect from the next start on: the spool, its history and the
# memory of a worker are set up once.
AT_START: Final = ("store", "history", "memory")

_NONE: Final = object()


def differing(before: dict[str, Any], after: dict[str, Any]) -> list[tuple[str, Any, Any]]:
    """The keys whose values differ, in the order of the reference, with both values; None for what is not there."""
    one, other = dict(_flat(before, "")), dict(_flat(after, ""))
    keys = list(dict.fromkeys((*one, *other)))
    found = [(key, one.get(key, _NONE), other.get(key, _NONE)) for key in keys]
    return [(key, _or_none(a), _or_none(b)) for key, a, b in found if a is _NONE or b is _NONE or a != b]


def summed_up(before: dict[str, Any], after: dict[str, Any]) -> list[tuple[str, str]]:
    """What differs, for people: a table that is new or gone is one line, however many keys it has. With each key, or
    table, stands ``differs``, ``is new`` or ``is gone``."""
    there, coming = _tables(before), _tables(after)
    found: dict[str, str] = {}
    for key, *_ in differing(before, after):
        table = _TABLE.match(key)
        if table is None:
            if not any(name.startswith(f"{key}[") for name in (*there, *coming)):  # else it stands for "no table"
                found[key] = "differs"
        elif table[1] in there and table[1] in coming:
            found[key] = "differs"
        elif table[1] in coming:
            found[f"{table[1]} ({coming[table[1]]})"] = "is new"
        else:
            found[f"{table[1]} ({there[table[1]]})"] = "is gone"
    return list(found.items())


def _tables(values: dict[str, Any]) -> dict[str, str]:
    """Each table of which there may be several, ``next_hop[2]``, with its first key, which tells it from the others."""
    found: dict[str, str] = {}
    for key, value in _flat(values, ""):
        table = _TABLE.match(key)
        if table is not None:
            found.setdefault(table[1], f"{key.rpartition('.')[2]} = {json.dumps(value, ensure_ascii=False)}")
    return found


_TABLE: Final = re.compile(r"(.*?\[\d+\])\.")


_OTHER_USERS: Final = re.compile(
    r"other_users\.|alias_targets\.(user|as_owner)\Z|domain\[\d+\]\.(user(_group)?|forward_files)\Z"
)


def needs_restart(key: str) -> bool:
    """Whether a change of this key has its effect only when the node starts again."""
    return key in FIXED or _OTHER_USERS.match(key) is not None or key.partition(".")[0] in AT_START


def _flat(value: Any, path: str) -> Iterator[tuple[str, Any]]:
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from _flat(inner, f"{path}.{key}" if path else key)
    elif isinstance(value, list) and value and isinstance(value[0], dict):
        for index, inner in enumerate(value, 1):
            yield from _flat(inner, f"{path}[{index}]")
    else:
        yield path, value


def _or_none(value: Any) -> Any:
    return None if value is _NONE else value
