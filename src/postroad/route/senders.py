"""Senders that are signed on the way out, and recognised when replies and reports come back (docs/senders.md).

On the way out, per attempt, never stored, in this order: the names of the next hop (`route.outbound`), VERP
(`mail.verp`), then either SRS, for the sender of another domain whose mail is forwarded (`route.srs`), or, for a sender
of ours, BATV (`route.batv`). On the way in `returned` says at RCPT what such a recipient means, and `resolve` puts it
in place when the message is accepted, with an event; so history shows both, and `given` keeps what the client named.

What always holds: mail for our own and for relay domains, the null reverse-path, and mail of authenticated clients get
no SRS sender; only mail of known clients, of lists with an owner and of the node itself gets a BATV tag, so that nobody
has a forged sender signed. While a file of keys is wrong, the keys from before stay.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import msgspec

from postroad.mail.address import Address
from postroad.mail.envelope import Envelope, Recipient
from postroad.mail.event import Expanded
from postroad.mail.job import Outbound, Sent
from postroad.mail.returned import Returned
from postroad.mail.route import Destination, Transport
from postroad.route import batv, srs
from postroad.route.batv import Batv, BatvOptions
from postroad.route.domains import DomainTable
from postroad.route.key_files import KeyFile, numbered_secrets_of, secrets_of
from postroad.route.recipients import fold
from postroad.route.srs import SrsOptions
from postroad.route.table import RoutingTable
from postroad.world.problem import Problem

POSTMASTER: Final = "postmaster"
_FORGED: Final = "5.1.1"
_REFUSED: Final = "5.7.1"


class Senders:
    """All of one configuration. Make it with `senders`; `load` reads the keys again if their files have changed."""

    def __init__(
        self, srs_options: SrsOptions, batv_options: BatvOptions, routing: RoutingTable, now_us: Callable[[], int]
    ) -> None:
        self._srs, self._batv = srs_options, batv_options
        self._routing = routing
        self._now_us = now_us
        self._delimiter = routing.options.detail_delimiter
        self._srs_keys = KeyFile(srs_options.keys_file, secrets_of) if srs_options.domain else None
        self._batv_keys = KeyFile(batv_options.keys_file, numbered_secrets_of) if _is_any_signed(routing) else None
        self._excluded = DomainTable((name, True) for name in srs_options.excluded_domains)
        self._plain_to = DomainTable((name, True) for name in batv_options.plain_to)
        self._plain_next_hops = frozenset(name.strip("[]").lower() for name in batv_options.plain_next_hops)
        self._unsigned = frozenset(batv_options.unsigned)

    def load(self) -> tuple[Problem, ...]:
        """Take files of keys that have changed. What is wrong with them, once."""
        files = (self._srs_keys, self._batv_keys)
        return tuple(problem for file in files if file is not None for problem in file.load())

    # ---- On the way out

    def outbound(self, before: Outbound | None) -> Outbound:
        """The names of the next hop, then these."""

        def named(envelope: Envelope, recipient: Recipient, destination: Destination) -> Sent:
            if before is None:
                sent = Sent(envelope.reverse_path, recipient.address)
            else:
                sent = before(envelope, recipient, destination)
            sender = sent.reverse_path
            if sender is None or sent.not_now or destination.transport is not Transport.SMTP:
                return sent
            signed = self._signed(sender, envelope, recipient, destination)
            return sent if signed is sender else Sent(signed, sent.forward_path)

        return named

    def _signed(self, sender: Address, envelope: Envelope, recipient: Recipient, destination: Destination) -> Address:
        if self._routing.is_local(sender.domain):
            return self._tagged(sender, envelope, recipient, destination)
        keys = self._srs_keys
        if keys is None or envelope.peer.identity or sender.domain == self._srs.domain:
            return sender
        if self._excluded.find(sender.domain) or self._is_ours(recipient.address.domain):
            return sender
        return srs.forward(sender, self._srs, keys.keys[0], self._now_us())

    def _is_ours(self, domain: str) -> bool:
        return self._routing.is_local(domain) or self._routing.is_relay(domain)

    def _tagged(self, sender: Address, envelope: Envelope, recipient: Recipient, destination: Destination) -> Address:
        keys, domain = self._batv_keys, recipient.address.domain
        if keys is None or self._wanted(sender.domain) is Batv.OFF or self._routing.is_local(domain):
            return sender
        peer = envelope.peer
        is_true = peer.is_known or not peer.address or recipient.sender is not None  # that of a list is ours
        if not is_true or batv.is_tagged(sender.local_part) or self._is_unsigned(sender):
            return sender
        if self._plain_to.find(domain) or not self._plain_next_hops.isdisjoint(destination.hosts):
            return sender
        return batv.sign(sender, keys.keys[0], self._batv.days, self._now_us())

    def _wanted(self, domain: str) -> Batv:
        """What is wanted for the senders of a domain."""
        local = self._routing.local(domain)
        return Batv.OFF if local is None else local.batv

    def _is_unsigned(self, address: Address) -> bool:
        if not self._unsigned:
            return False
        return f"{fold(address.local_part, self._delimiter)}@{address.domain}" in self._unsigned

    # ---- On the way in

    def returned(self, address: Address, *, is_report: bool = True) -> Returned | None:
        """What a recipient means that may be one of these senders; None: nothing but itself. `is_report`: the mail has
        the null reverse-path."""
        if self._srs_keys is not None and address.domain == self._srs.domain and srs.is_srs(address.local_part):
            found = srs.back(address.local_part, self._srs, self._srs_keys.keys, self._now_us())
            if isinstance(found, str):
                return Returned(address, 550, _FORGED, found)
            return Returned(found, elsewhere=not self._routing.is_local(found.domain))
        wanted = Batv.OFF if self._batv_keys is None else self._wanted(address.domain)
        if wanted is Batv.OFF or self._batv_keys is None:
            return None
        tag = batv.read(address, self._batv_keys.keys, self._batv.days, self._now_us())
        if tag is None:
            if not is_report or self._needs_no_tag(address):
                return None
            return self._untagged(address, wanted, "a report to it must have its tag (BATV)")
        if not tag.wrong or not is_report or self._needs_no_tag(tag.address):
            return Returned(tag.address)
        return self._untagged(tag.address, wanted, tag.wrong)

    def _needs_no_tag(self, address: Address) -> bool:
        return fold(address.local_part, self._delimiter) == POSTMASTER or self._is_unsigned(address)

    @staticmethod
    def _untagged(address: Address, wanted: Batv, why: str) -> Returned:
        if wanted is Batv.REQUIRE:
            return Returned(address, 550, _REFUSED, why)
        return Returned(address, note=why)

    def resolve(
        self, id: int, now_us: int, recipients: tuple[Recipient, ...]
    ) -> tuple[tuple[Recipient, ...], tuple[Expanded, ...]]:
        """The recipients with what they mean in their place, and the events that tell of it."""
        found = [self._resolved(recipient) for recipient in recipients]
        if all(new is old for new, old in zip(found, recipients, strict=True)):
            return recipients, ()
        events = tuple(
            Expanded(now_us, id, str(old.given or old.address), (str(new.address),))
            for new, old in zip(found, recipients, strict=True)
            if new is not old
        )
        return tuple(found), events

    def meant(self, address: Address) -> Address:
        """What an address means that may be one of these senders; itself if it is none."""
        found = self.returned(address, is_report=False)
        return address if found is None or found.code else found.address

    def _resolved(self, recipient: Recipient) -> Recipient:
        meant = self.meant(recipient.address)
        if meant == recipient.address:
            return recipient
        return msgspec.structs.replace(recipient, address=meant, given=recipient.given or recipient.address)


def _is_any_signed(routing: RoutingTable) -> bool:
    domains = (*routing.options.local, *routing.options.mapped_local)
    return any(each.batv is not Batv.OFF for each in domains)


def senders(
    srs_options: SrsOptions, batv_options: BatvOptions, routing: RoutingTable, now_us: Callable[[], int]
) -> Senders | tuple[Problem, ...] | None:
    """None if no sender is ever signed; Problems if a file of keys is wrong."""
    if not srs_options.domain and not _is_any_signed(routing):
        return None
    made = Senders(srs_options, batv_options, routing, now_us)
    problems = made.load()
    return problems or made
