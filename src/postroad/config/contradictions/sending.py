"""What the tables [[sending.limit]] say."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator

from pydantic_core import PydanticCustomError

from postroad.check.sending import Over, Whose
from postroad.config.finding import Finding
from postroad.config.locate import Path
from postroad.config.settings import Settings
from postroad.config.values import sender_pattern


def find(settings: Settings) -> Iterator[Finding]:
    """Tables without a limit, numbers without effect, names that are none of their kind, and names that two tables
    have."""
    seen: dict[tuple[Whose, str], int] = {}
    for index, each in enumerate(settings.sending.limit):
        here: Path = ("sending", "limit", index)
        hour, day = each.messages_per_hour + each.recipients_per_hour, each.messages_per_day + each.recipients_per_day
        if not (hour or day or each.who):
            text = "This table limits nothing"
            yield Finding(((*here, "whose"), here), text, "Add messages_per_hour, or another of the four limits")
        for key in ("held_max", "held_size_max"):
            if key in each.model_fields_set and each.over is not Over.HOLD:
                text = 'This has no effect without over = "hold"'
                yield Finding(((*here, key),), text, f'Add over = "hold", or remove {key}')
        for place, name in enumerate(each.who or ("",)):
            path: Path = (*here, "who", place) if each.who else (*here, "whose")
            wrong = _wrong(each.whose, name) if name else None
            if wrong is not None:
                yield Finding((path,), *wrong)
            elif (each.whose, name) in seen:
                whom = f"{name!r} is" if name else f"All others of {each.whose.value!r} are"
                text = f"{whom} limited twice; the first time in sending.limit[{seen[each.whose, name] + 1}]"
                yield Finding((path,), text, "Remove one of the two")
            else:
                seen[each.whose, name] = index


def _wrong(whose: Whose, name: str) -> tuple[str, str] | None:
    """What is wrong with a name, and what to write."""
    if whose is Whose.CLIENT:
        try:
            ipaddress.ip_network(name)
        except ValueError:
            return f"{name!r} is not an IP network", 'Write an address or a network, such as "192.0.2.0/24"'
    if whose is Whose.SENDER:
        try:
            sender_pattern(name)
        except PydanticCustomError as error:
            context = error.context or {}
            return str(context["text"]), str(context["remedy"])
        if name == "<>":
            return "The null sender has no limit", "Limit the account or the client"
    return None
