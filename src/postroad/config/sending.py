"""How much accounts, senders and trusted clients may send (docs/limits.md)."""

from __future__ import annotations

from typing import Annotated

from pydantic import BeforeValidator

from postroad.check.sending import Over, SendingLimit, SendingOptions, Whose
from postroad.config.field import UNSET, Section, of, tables
from postroad.config.values import MapNames, Octets, one_or_more


class SendingLimitSection(Section):
    """How much each account, sender or trusted client may send. Give one table `[[sending.limit]]` for each limit. A
    table with `who` holds for those that it names; a table without `who` holds for all others."""

    whose: Whose = of(SendingLimit.whose, default=UNSET, word=True, example='"account"')
    who: Annotated[tuple[str, ...], BeforeValidator(one_or_more)] = of(SendingLimit.who, example='["ada@example.org"]')
    messages_per_hour: int = of(SendingLimit.messages_per_hour, unit="messages")
    recipients_per_hour: int = of(SendingLimit.recipients_per_hour, unit="recipients")
    messages_per_day: int = of(SendingLimit.messages_per_day, unit="messages")
    recipients_per_day: int = of(SendingLimit.recipients_per_day, unit="recipients")
    over: Over = of(SendingLimit.over, word=True)
    held_max: int = of(SendingLimit.held_max, unit="messages")
    held_size_max: Octets = of(SendingLimit.held_size_max)


class SendingSection(Section):
    """How much mail the node takes from its own users and clients, within an hour and within a day."""

    limit_maps: MapNames = of(SendingOptions.limit_maps, example='["limits"]')
    limit: tuple[SendingLimitSection, ...] = tables()
