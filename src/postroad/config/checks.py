"""The checks where mail comes from (docs/checks.md). Which of them a listener makes stands in its own table."""

from __future__ import annotations

from typing import Annotated

from pydantic import BeforeValidator

from postroad.check.origin_options import OriginOptions
from postroad.config.field import Section, of
from postroad.config.values import DomainOrNone, DomainPattern, Network, Seconds, one_or_more
from postroad.trust.asking import AskingLimits
from postroad.trust.dkim_verify import DkimOptions


class ChecksSection(Section):
    """How the node checks where mail comes from, by SPF, DKIM, DMARC, ARC and iprev. Which of these checks a listener
    makes, and what it does with them, stands in its `[[listener]]` table. docs/checks.md says more."""

    authserv_id: DomainOrNone = of(OriginOptions.authserv_id, source="RFC 8601 §2.5", example='"mx.example.org"')
    believed_authserv_ids: Annotated[tuple[str, ...], BeforeValidator(one_or_more)] = of(
        OriginOptions.believed_authserv_ids, source="RFC 8601 §4.1", example='["gateway.example.org"]'
    )
    exempt_networks: Annotated[tuple[Network, ...], BeforeValidator(one_or_more)] = of(
        OriginOptions.exempt_networks, example='["127.0.0.0/8", "::1", "192.0.2.0/24"]'
    )
    exempt_accounts: Annotated[tuple[str, ...], BeforeValidator(one_or_more)] = of(
        OriginOptions.exempt_accounts, example='["scanner@example.org"]'
    )
    exempt_domains: Annotated[tuple[DomainPattern, ...], BeforeValidator(one_or_more)] = of(
        OriginOptions.exempt_domains, example='["partner.example"]'
    )
    arc_forwarders: Annotated[tuple[DomainPattern, ...], BeforeValidator(one_or_more)] = of(
        OriginOptions.arc_forwarders, source="RFC 8617 §7.2", example='["lists.example.net"]'
    )
    received_spf: bool = of(OriginOptions.received_spf, source="RFC 7208 §9.1")
    signatures_max: int = of(DkimOptions.signatures_max, source="RFC 6376 §8.4", unit="signatures")
    clock_skew_s: Seconds = of(DkimOptions.skew_s, source="RFC 6376 §3.5")
    queries_max: int = of(AskingLimits.queries_max, unit="queries")
    waiting_max_s: Seconds = of(AskingLimits.waiting_max_s)
