"""How fast mail may go where: limits for domains, for MX hosts, for providers (docs/pace.md)."""

from __future__ import annotations

import contextlib
from typing import Annotated, Any, Final

from pydantic import BeforeValidator
from pydantic_core import PydanticCustomError

from postroad.config.field import Section, setting, several
from postroad.config.values import DomainPattern, ValueKind, domain_pattern, ip_address, one_or_more, wrong
from postroad.queue.pace import AUTOMATIC, parse_rate

_RATE: Final = ValueKind("rate", '`"100/1m"`, `"5/1s"`, `"2000/1h"`')


def rate(written: Any) -> str:
    """Messages and a time; "" for none."""
    if written == "" or (isinstance(written, str) and parse_rate(written) is not None):
        return str(written)
    raise wrong(f"{written!r} is not a rate", 'Write messages and a time, such as "100/1m" or "2000/1h"')


def host_pattern(written: Any) -> str:
    """As a pattern of domains, or an address; ``*.example.com`` is ``.example.com``."""
    with contextlib.suppress(PydanticCustomError):
        return ip_address(written)
    return domain_pattern(written[1:] if isinstance(written, str) and written.startswith("*.") else written)


HostPattern = Annotated[
    str,
    BeforeValidator(host_pattern),
    ValueKind("host pattern", '`"mx1.example.net"`, `"*.example.net"` for all names below it, `"*"` for all'),
]
Rate = Annotated[str, BeforeValidator(rate), _RATE]


class PaceSection(Section):
    """Limits for some destinations, for the whole node, in addition to those of `[queue]` (docs/pace.md). Give one
    table `[[pace]]` for each. If several tables match a destination, the one with the most exact `domain` applies to
    it, and the tables that match its MX hosts and providers apply, too."""

    domain: Annotated[tuple[DomainPattern, ...], BeforeValidator(one_or_more)] = several(
        (), "Recipients' domains. Each one gets these limits for itself.", example='["example.com"]'
    )
    mx: Annotated[tuple[HostPattern, ...], BeforeValidator(one_or_more)] = several(
        (), "MX hosts and next hops. Each one gets these limits for itself.", example='["*.google.com"]'
    )
    provider: str = setting(
        "",
        "A name: all domains and hosts of this table share the limits. "
        f'"{AUTOMATIC}": domains with the same MX hosts share them.',
        example='"google"',
    )
    connections_max: int = setting(
        0, "The most connections at a time. 0: as without this table.", unit="connections", least=0, most=100_000
    )
    connections_start: int = setting(
        0,
        "The most connections at first. Success raises this number; failure lowers it. 0: as without this table.",
        unit="connections",
        least=0,
        most=100_000,
    )
    messages_per_connection_max: int = setting(
        0,
        "The most messages over one connection. 0: as many as `outbound.messages_max` allows.",
        unit="messages",
        least=0,
    )
    recipients_max: int = setting(
        0, "The most recipients of a message in one transaction. 0: as without this table.", unit="recipients", least=0
    )
    rate: Rate = setting("", 'The most messages within a time span. "": no limit.', example='"100/1m"')
