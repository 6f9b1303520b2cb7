"""Other addresses for mail that is accepted, and copies of it."""

from __future__ import annotations

from typing import Annotated

from pydantic import BeforeValidator

from postroad.config.field import Section, of
from postroad.config.values import HiddenDomain, Mailbox, MapNames, one_or_more
from postroad.mail.header_clients import HeaderClients
from postroad.route.rewrite_options import AddressClass, RelocatedReply, RewriteOptions

Classes = Annotated[tuple[AddressClass, ...], BeforeValidator(one_or_more)]


class RewriteSection(Section):
    """Other addresses for senders and recipients, once, when mail is accepted, and copies of mail. docs/rewriting.md
    shows the order. For other addresses on the way out see `generic` of a `[[next_hop]]`."""

    canonical_maps: MapNames = of(
        RewriteOptions.canonical_maps, source="Postfix, canonical(5)", example='["canonical"]'
    )
    canonical_classes: Classes = of(RewriteOptions.canonical_classes, example='["envelope_recipient"]')
    sender_canonical_maps: MapNames = of(RewriteOptions.sender_canonical_maps, example='["sender_canonical"]')
    sender_canonical_classes: Classes = of(RewriteOptions.sender_canonical_classes, example='["envelope_sender"]')
    recipient_canonical_maps: MapNames = of(RewriteOptions.recipient_canonical_maps, example='["recipient_canonical"]')
    recipient_canonical_classes: Classes = of(
        RewriteOptions.recipient_canonical_classes, example='["envelope_recipient"]'
    )
    propagate_extensions: bool = of(RewriteOptions.propagate_extensions)
    masquerade_domains: Annotated[tuple[HiddenDomain, ...], BeforeValidator(one_or_more)] = of(
        RewriteOptions.masquerade_domains, source="Postfix, ADDRESS_REWRITING_README",
        example='["!lab.example.org", "example.org"]',
    )  # fmt: skip
    masquerade_exceptions: Annotated[tuple[str, ...], BeforeValidator(one_or_more)] = of(
        RewriteOptions.masquerade_exceptions, example='["root"]'
    )
    masquerade_classes: Classes = of(RewriteOptions.masquerade_classes, example='["envelope_sender", "header_sender"]')
    header_clients: HeaderClients = of(RewriteOptions.header_clients, word=True)
    signed_fields: bool = of(RewriteOptions.signed_fields, source="RFC 6376, RFC 8617")
    relocated_maps: MapNames = of(RewriteOptions.relocated_maps, source="RFC 5321 §3.4", example='["relocated"]')
    relocated_reply: RelocatedReply = of(RewriteOptions.relocated_reply, source="RFC 5321 §3.4", word=True)
    always_bcc: Annotated[tuple[Mailbox, ...], BeforeValidator(one_or_more)] = of(
        RewriteOptions.always_bcc, example='["archive@example.org"]'
    )
    sender_bcc_maps: MapNames = of(RewriteOptions.sender_bcc_maps, example='["sender_bcc"]')
    recipient_bcc_maps: MapNames = of(RewriteOptions.recipient_bcc_maps, example='["recipient_bcc"]')
