"""How sessions are answered, and which extensions they are offered."""

from __future__ import annotations

from postroad.check.policy import PolicyOptions
from postroad.config.field import Section, of
from postroad.config.values import (
    Domain,
    HelpText,
    Seconds,
)
from postroad.receive.options import (
    ExtensionOptions,
    PriorityProfile,
    ReceiveOptions,
)


class ReceiveSection(Section):
    """How the node answers sessions, beyond the rules of the protocol."""

    repair: bool = of(ReceiveOptions.repair, source="RFC 6409 §8")
    single_fields: bool = of(PolicyOptions.single_fields, source="RFC 5322 §3.6")
    help: HelpText = of(ReceiveOptions.help, source="RFC 5321 §4.1.1.8")
    default_domain: Domain | None = of(
        ReceiveOptions.default_domain, default=None, source="RFC 5321 §4.1.1.3", example='"example.org"'
    )


class ExtensionsSection(Section):
    """Which further extensions of SMTP the listeners offer, and their limits. As a client, the node uses every
    extension that the next host offers and that the message asks for."""

    binarymime: bool = of(ExtensionOptions.binarymime, source="RFC 3030")
    limits: bool = of(ExtensionOptions.limits, source="RFC 9422")
    requiretls: bool = of(ExtensionOptions.requiretls, source="RFC 8689")
    deliver_by: bool = of(ExtensionOptions.deliver_by, source="RFC 2852")
    deliver_by_min_s: Seconds = of(ExtensionOptions.deliver_by_min_s, source="RFC 2852")
    future_release_max_s: Seconds = of(ExtensionOptions.future_release_max_s, source="RFC 4865")
    mt_priority: bool = of(ExtensionOptions.mt_priority, source="RFC 6710")
    mt_priority_profile: PriorityProfile = of(ExtensionOptions.mt_priority_profile, source="RFC 6710")
    mt_priority_max: int = of(ExtensionOptions.mt_priority_max, unit="priority")
    mt_priority_strangers_max: int = of(ExtensionOptions.mt_priority_strangers_max, unit="priority")
    mt_priority_tunnel: bool = of(ExtensionOptions.mt_priority_tunnel, source="RFC 6758")
    rrvs: bool = of(ExtensionOptions.rrvs, source="RFC 7293")
    xverp: bool = of(ExtensionOptions.xverp, source="Postfix, VERP_README")
