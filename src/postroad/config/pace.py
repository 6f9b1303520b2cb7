"""How fast mail may go where: limits for domains, for MX hosts, for providers (docs/pace.md)."""

from __future__ import annotations

import contextlib
from typing import Annotated, Any, Final

from pydantic import BeforeValidator
from pydantic_core import PydanticCustomError

from postroad.config.field import Section, of
from postroad.config.values import DomainPattern, ValueKind, domain_pattern, ip_address, one_or_more, wrong
from postroad.queue.pace import PaceRule, parse_rate

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

    domain: Annotated[tuple[DomainPattern, ...], BeforeValidator(one_or_more)] = of(
        PaceRule.domain, example='["example.com"]'
    )
    mx: Annotated[tuple[HostPattern, ...], BeforeValidator(one_or_more)] = of(PaceRule.mx, example='["*.google.com"]')
    provider: str = of(PaceRule.provider, example='"google"')
    connections_max: int = of(PaceRule.connections_max, unit="connections")
    connections_start: int = of(PaceRule.connections_start, unit="connections")
    messages_per_connection_max: int = of(PaceRule.messages_per_connection_max, unit="messages")
    recipients_max: int = of(PaceRule.recipients_max, unit="recipients")
    rate: Rate = of(PaceRule.rate, default="", example='"100/1m"')
