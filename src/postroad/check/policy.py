"""Which rules a listener has, by its role.

                connect  hello         mail                           rcpt                            message
    mx                   hello_syntax                                 relay_control, null_sender      hop_limit
    submission                         authenticated, qualified,      qualified, relay_control        hop_limit,
                                       sender_owned                                                   single_fields
    relay                hello_syntax  sender_owned                   relay_control, null_sender      hop_limit
    LMTP, any role                                                    local_only                      hop_limit

If the listener's `header_from` says so, author_owned stands in the message phase, too. Wherever relay_control or
local_only is asked, the rule about the owner of the mailbox is asked, too (`owner`, RFC 7293), and before them the
question what a recipient means that is a signed sender (`returning`). After them comes the question whether the mailbox
has moved (`moved`).
"""

from __future__ import annotations

import enum
from collections.abc import Callable
from typing import Annotated, assert_never

import msgspec
from msgspec import Meta

from postroad.accounts.sender_maps import MaySend, Owns
from postroad.check import message, owner, relay, sender
from postroad.check.moved import Moved, unless_moved
from postroad.check.returning import Returning, returning
from postroad.mail.address import Address
from postroad.mail.judging import compose
from postroad.mail.owned import Owned
from postroad.mail.policy import Role, Rule, Rules


class HeaderFrom(enum.Enum):
    """Whom the From field of an authenticated client may name."""

    ANY = "any"  # anybody; a submission listener adds Sender (RFC 6409 §8.1)
    OWNED = "owned"  # addresses of its account only


class PolicyOptions(msgspec.Struct, frozen=True):
    """Settings of the rules of one listener."""

    hops_max: Annotated[
        int,
        Meta(
            ge=100,
            description="The most Received fields of a message. A message with more is in a mail loop and is refused.",
        ),
    ] = 100
    hello_syntax: Annotated[
        bool,
        Meta(
            description="Whether EHLO is refused if its argument is neither a domain nor an address literal.",
        ),
    ] = False
    null_sender_recipients_max: Annotated[
        int,
        Meta(
            ge=0,
            description="The most recipients of a message with the null reverse-path. 0: no limit.",
        ),
    ] = 0
    auth_relays: Annotated[
        bool,
        Meta(
            description="Whether authenticated accounts may relay on a listener that is not for submission.",
        ),
    ] = True
    trust_network: Annotated[
        bool,
        Meta(
            description="On a submission listener: whether clients of trusted networks may send without "
            "authentication.",
        ),
    ] = False
    strangers: Annotated[
        bool,
        Meta(
            description="On a relay listener: whether clients of other networks may send to our own domains.",
        ),
    ] = True
    untrusted_routing: Annotated[
        bool,
        Meta(
            description="Whether strangers may name a further route beyond a relay domain: "
            "`user%other@relay.example`, `other!user@relay.example`; also by way of an alias for a whole domain that "
            "leads to another host. If that host follows such a route, strangers can relay through it to anywhere.",
        ),
    ] = False
    single_fields: Annotated[
        bool,
        Meta(
            description="Whether submission listeners refuse (550 5.6.0) a message that has more than one Date, "
            "From, Sender, Reply-To, To, Cc, Bcc, Message-ID, In-Reply-To, References or Subject field. "
            "Different programs read such a message in different ways.",
        ),
    ] = True
    header_from: Annotated[
        HeaderFrom,
        Meta(
            description="Which addresses an authenticated client may put in the header field From. `any`: any "
            "address; a submission listener then adds Sender with the account's address "
            "(`receive.repair`). `owned`: each mailbox in From must belong to the account, otherwise the "
            "message is refused (550 5.7.1). The reverse-path must belong to the account in any case.",
        ),
    ] = HeaderFrom.ANY
    owned_senders_by_login: Annotated[
        bool,
        Meta(
            description="Whether an address that `sender_maps` gives to accounts may be used as a sender only by a "
            "client that has logged in (otherwise 553 5.7.1). Clients of trusted networks are exempt. A host that "
            "forwards mail of your users to you without changing the sender is refused, too.",
        ),
    ] = False


class Directory(msgspec.Struct, frozen=True):
    """What rules ask of other rooms. Domains are in canonical form (`mail.address`). `owned`: since when a mailbox of
    ours has its owner, None for others. `nowhere`: why nothing can ever come to a mailbox, None if it can. `is_own`:
    mailboxes of the node itself, to which answers to its own mail go. `returned`: what recipients mean that are senders
    which we have signed; None if we sign none. `has_owner`: whether a sender belongs to accounts, by map; None if no
    map says so. `verify`: `check.relay`; None: nothing is asked. `leads_on`: `check.relay`. `moved`, `try_new`:
    `check.moved`; None: there is no map of mailboxes that have moved."""

    is_local: Callable[[str], bool]
    is_relay: Callable[[str], bool]
    recipient: relay.Exists
    owns: Owns
    owned: Callable[[Address], Owned | None] = lambda address: None
    nowhere: relay.Nowhere = lambda address: None
    is_own: Callable[[Address], bool] = lambda address: False
    returned: Returning | None = None
    has_owner: Callable[[Address], MaySend] | None = None
    moved: Moved | None = None
    try_new: bool = True
    verify: relay.Verify | None = None
    leads_on: relay.LeadsOn = lambda address: False


def rules(role: Role, options: PolicyOptions, known: Directory, *, lmtp: bool) -> Rules:
    """The composed rules of a listener."""
    return Rules(
        hello=compose(_hello(role, options)),
        mail=compose(_mail(role, options, known, lmtp)),
        rcpt=compose(_rcpt(role, options, known, lmtp)),
        message=compose(_message(role, options, known, lmtp)),
    )


def _hello(role: Role, options: PolicyOptions) -> tuple[Rule, ...]:
    # User agents call themselves anything: RFC 6409 §4.2 leaves it to us, and a user is known by the account.
    return (sender.hello_syntax,) if options.hello_syntax and role is not Role.SUBMISSION else ()


def _mail(role: Role, options: PolicyOptions, known: Directory, lmtp: bool) -> tuple[Rule, ...]:
    if lmtp:
        return ()
    by_login: tuple[Rule, ...] = ()
    if options.owned_senders_by_login and known.has_owner is not None:
        by_login = (sender.owned_by_login(known.has_owner),)
    match role:
        case Role.SUBMISSION:
            return (
                sender.authenticated(trust_network=options.trust_network),
                sender.qualified_sender(known.is_local),
                sender.sender_owned(known.owns),
            )
        case Role.RELAY | Role.MX:
            return (sender.sender_owned(known.owns), *by_login) if options.auth_relays else by_login
        case _:
            assert_never(role)


def _rcpt(role: Role, options: PolicyOptions, known: Directory, lmtp: bool) -> tuple[Rule, ...]:
    if lmtp:
        local = relay.local_only(
            is_local=known.is_local, known=known.recipient, nowhere=known.nowhere, is_own=known.is_own
        )
        return (_returning(owner.same_owner(_unless_moved(local, known), known.owned), known),)
    control = owner.same_owner(_unless_moved(_relay_control(role, options, known), known), known.owned)
    control = _returning(control, known)
    if role is Role.SUBMISSION:
        return sender.qualified_recipient(known.is_local), control
    if options.null_sender_recipients_max:
        return control, sender.null_sender_recipients(options.null_sender_recipients_max)
    return (control,)


def _returning(rule: Rule, known: Directory) -> Rule:
    return rule if known.returned is None else returning(rule, known.returned)


def _unless_moved(rule: Rule, known: Directory) -> Rule:
    return rule if known.moved is None else unless_moved(rule, known.moved, try_new=known.try_new)


def _message(role: Role, options: PolicyOptions, known: Directory, lmtp: bool) -> tuple[Rule, ...]:
    wanted: list[Rule] = [message.hop_limit(options.hops_max)]
    if options.single_fields and role is Role.SUBMISSION and not lmtp:
        wanted.append(message.single_fields)
    if options.header_from is HeaderFrom.OWNED:
        wanted.append(message.author_owned(known.owns))
    return tuple(wanted)


def _relay_control(role: Role, options: PolicyOptions, known: Directory) -> Rule:
    return relay.relay_control(
        is_local=known.is_local,
        is_relay=known.is_relay,
        known=known.recipient,
        trust_network=role is Role.RELAY or (role is Role.SUBMISSION and options.trust_network),
        trust_identity=role is Role.SUBMISSION or options.auth_relays,
        strangers=role is Role.MX or (role is Role.RELAY and options.strangers),
        nowhere=known.nowhere,
        is_own=known.is_own,
        untrusted_routing=options.untrusted_routing,
        verify=known.verify,
        leads_on=known.leads_on,
    )
