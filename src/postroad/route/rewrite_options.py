"""The settings of rewriting (`route.rewriting`), with their defaults."""

from __future__ import annotations

import enum
from typing import Annotated, Final, Literal

import msgspec
from msgspec import Meta

from postroad.mail.header_clients import HeaderClients

AddressClass = Literal["envelope_sender", "envelope_recipient", "header_sender", "header_recipient"]
"""Where an address stands."""

ENVELOPE_SENDER: Final = "envelope_sender"
ENVELOPE_RECIPIENT: Final = "envelope_recipient"
HEADER_SENDER: Final = "header_sender"
HEADER_RECIPIENT: Final = "header_recipient"


class RelocatedReply(enum.Enum):
    """How a client hears that a mailbox has moved (RFC 5321 §3.4)."""

    TRY = "551"
    MOVED = "550"


class RewriteOptions(msgspec.Struct, frozen=True):
    """Other addresses for senders and recipients when mail is accepted, and copies of it."""

    canonical_maps: Annotated[
        tuple[str, ...],
        Meta(
            description="Maps of other addresses, for senders and recipients. The value is a mailbox, or "
            "`@example.org` to change only the domain. The result is looked up again. docs/rewriting.md has the keys.",
        ),
    ] = ()
    canonical_classes: Annotated[
        tuple[AddressClass, ...], Meta(description="Where `canonical_maps` change addresses.")
    ] = ("envelope_sender", "envelope_recipient", "header_sender", "header_recipient")
    sender_canonical_maps: Annotated[
        tuple[str, ...], Meta(description="The same for senders, asked before `canonical_maps`.")
    ] = ()
    sender_canonical_classes: Annotated[
        tuple[AddressClass, ...], Meta(description="Where `sender_canonical_maps` change addresses.")
    ] = ("envelope_sender", "header_sender")
    recipient_canonical_maps: Annotated[
        tuple[str, ...], Meta(description="The same for recipients, asked before `canonical_maps`.")
    ] = ()
    recipient_canonical_classes: Annotated[
        tuple[AddressClass, ...], Meta(description="Where `recipient_canonical_maps` change addresses.")
    ] = ("envelope_recipient", "header_recipient")
    propagate_extensions: Annotated[
        bool,
        Meta(
            description="Whether an address extension that is not in a map stays: with `ada` → `ada.lovelace`, "
            "`ada+lists` becomes `ada.lovelace+lists`.",
        ),
    ] = True
    masquerade_domains: Annotated[
        tuple[str, ...],
        Meta(
            description="Domains whose hosts are hidden: with `example.org`, `ada@host.example.org` becomes "
            "`ada@example.org`. `!lab.example.org` leaves this domain and those below it as they are. The first entry "
            "that fits counts.",
        ),
    ] = ()
    masquerade_exceptions: Annotated[
        tuple[str, ...], Meta(description="Local-parts that masquerading never changes, such as `root`.")
    ] = ()
    masquerade_classes: Annotated[
        tuple[AddressClass, ...], Meta(description="Where `masquerade_domains` change addresses.")
    ] = ("envelope_sender", "header_sender", "header_recipient")
    header_clients: Annotated[
        HeaderClients,
        Meta(
            description="In whose mail header fields are rewritten; the envelope is rewritten in any case. `none`: "
            "in nobody's. `local`: in that of programs of this machine, and of clients at its own addresses. `known`: "
            "these, trusted networks and accounts. `all`: also in that of strangers.",
        ),
    ] = HeaderClients.KNOWN
    signed_fields: Annotated[
        bool,
        Meta(
            description="Whether fields are rewritten that a DKIM or ARC signature covers, which breaks the signature. "
            "This also holds for `generic` of a `[[next_hop]]`.",
        ),
    ] = False
    relocated_maps: Annotated[
        tuple[str, ...],
        Meta(
            description="Maps of mailboxes that have moved: the value is the new address, or a text that says where "
            "the user has gone. Their mail is refused at RCPT. If an alias or a copy leads to one, its mail fails, "
            "and the report names the new address.",
        ),
    ] = ()
    relocated_reply: Annotated[
        RelocatedReply,
        Meta(
            description="How such mail is refused. `551`: `551 5.1.6 User not local; please try <new@example.net>`, if "
            "the value is an address. `550`: `550 5.1.6 User has moved to new@example.net`, as Postfix says it.",
        ),
    ] = RelocatedReply.TRY
    always_bcc: Annotated[
        tuple[str, ...], Meta(description="Mailboxes that get a copy of all mail that the node takes.")
    ] = ()
    sender_bcc_maps: Annotated[
        tuple[str, ...], Meta(description="Maps: sender → mailboxes that get a copy of the mail.")
    ] = ()
    recipient_bcc_maps: Annotated[
        tuple[str, ...],
        Meta(description="Maps: recipient → mailboxes that get a copy of the mail. They are asked before aliases."),
    ] = ()
