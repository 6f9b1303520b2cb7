"""Chooses the next hop for a recipient: by the recipient, then by account and sender. Pure.

The order in which tables count:

1. Tables for the recipient, the most exact first: ``user+detail@domain``, ``user@domain``, the domain, ``.parent``
   domains (the longest first), ``*``.
2. Among the tables for the same pattern of recipients: the one that names the account, then the ones that name the
   sender (``user+detail@domain``, ``user@domain``, the domain, ``.parent`` domains), then the one for all senders.
   Among tables that are equal in this, those with conditions of size, class, listener and priority come first.
3. If none of these takes the mail, the tables for the next pattern of recipients count.

Postfix has the same order: a transport table comes before sender_dependent_relayhost_maps, and this comes before
relayhost. Local-parts are compared without regard to case. The null reverse-path is the sender ``<>``.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Final

import msgspec

from postroad.mail import wishes
from postroad.mail.account import canonical_account
from postroad.mail.address import Address
from postroad.mail.classes import REPORT
from postroad.mail.envelope import Envelope
from postroad.route.domains import DomainTable
from postroad.route.options import NextHop
from postroad.route.recipients import fold

NULL_SENDER: Final = "<>"
_NONE: Final[frozenset[int]] = frozenset()


class RoutedMail(msgspec.Struct, frozen=True):
    """What of a message its route may depend on. `taken_by`: numbers of the tables with conditions that take it
    (`NextHops.mail`). `released`: an operator lets it go on, so that tables that only hold mail do not count."""

    sender: Address | None
    account: str = ""
    taken_by: frozenset[int] = _NONE
    released: bool = False


NOBODYS: Final = RoutedMail(Address("", ""))  # mail of which only the recipient is known: no table names its sender

Numbered = tuple[int, NextHop]  # a table and its place among all


def takes(hop: NextHop, envelope: Envelope) -> bool:
    """Whether a message is as large and of the kind that a table demands."""
    if envelope.size < hop.size_min:
        return False
    if hop.listeners and envelope.peer.listener not in hop.listeners:
        return False
    if hop.priority_max is not None and wishes.priority(envelope.parameters) > hop.priority_max:
        return False
    if hop.priority_min is not None and wishes.priority(envelope.parameters) < hop.priority_min:
        return False
    if not (hop.classes or hop.fields):
        return True
    if REPORT in hop.classes and envelope.reverse_path is None:
        return True
    return any(each in envelope.classes for each in (*hop.classes, *hop.fields))


class Choice:
    """The next hops for the same mail, of which the message chooses one: those for one pattern of recipients."""

    __slots__ = ("_accounts", "_everybody", "_mailboxes", "_senders", "for_all", "hops")

    def __init__(self, entries: Iterable[Numbered]) -> None:
        # Those with conditions come before those without, in the order of the file.
        ordered = sorted(entries, key=lambda entry: not entry[1].has_conditions)
        self.hops = tuple(hop for _, hop in ordered)
        self._accounts = _grouped((canonical_account(name), each) for each in ordered for name in each[1].accounts)
        senders = _grouped((name, each) for each in ordered for name in each[1].senders)
        self._mailboxes = {name: each for name, each in senders.items() if "@" in name or name == NULL_SENDER}
        self._senders = DomainTable((name, each) for name, each in senders.items() if name not in self._mailboxes)
        self._everybody = tuple(each for each in ordered if not (each[1].senders or each[1].accounts))
        self.for_all = next((hop for hop in self.hops if hop.is_for_all), None)

    @property
    def depends_on_message(self) -> bool:
        return any(not hop.is_for_all for hop in self.hops)

    def of(self, mail: RoutedMail, delimiter: str) -> NextHop | None:
        sender = mail.sender
        found = _first(self._accounts.get(canonical_account(mail.account)), mail) if mail.account else None
        if found is None and sender is None:
            found = _first(self._mailboxes.get(NULL_SENDER), mail)
        elif found is None and sender is not None:
            found = next(filter(None, (_first(each, mail) for each in self._of_sender(sender, delimiter))), None)
        return found or _first(self._everybody, mail)

    def _of_sender(self, sender: Address, delimiter: str) -> Iterator[Sequence[Numbered] | None]:
        yield from map(self._mailboxes.get, mailboxes(sender, delimiter))
        yield from self._senders.matches(sender.domain)


def _grouped(named: Iterable[tuple[str, Numbered]]) -> dict[str, list[Numbered]]:
    groups: dict[str, list[Numbered]] = {}
    for name, each in named:
        groups.setdefault(name, []).append(each)
    return groups


def _first(entries: Sequence[Numbered] | None, mail: RoutedMail) -> NextHop | None:
    for number, hop in entries or ():
        if (not hop.has_conditions or number in mail.taken_by) and not (mail.released and hop.only_holds):
            return hop
    return None


class NextHops:
    """All next hops of one configuration. `delimiter`: begins an address extension, "" for none."""

    def __init__(self, hops: Iterable[NextHop], delimiter: str) -> None:
        self._delimiter = delimiter
        by_domain: dict[str, list[Numbered]] = {}
        by_mailbox: dict[str, list[Numbered]] = {}
        numbered = tuple(enumerate(hops))
        for each in numbered:
            if each[1].domain:
                by_domain.setdefault(each[1].domain, []).append(each)
            for name in each[1].recipients:
                by_mailbox.setdefault(name, []).append(each)
        self._conditional = tuple(each for each in numbered if each[1].has_conditions)
        self._domains = DomainTable((pattern, Choice(group)) for pattern, group in by_domain.items())
        self._mailboxes = {name: Choice(group) for name, group in by_mailbox.items()}
        self._mailbox_domains = frozenset(name.rpartition("@")[2] for name in by_mailbox)

    def mail(self, envelope: Envelope, *, released: bool = False) -> RoutedMail:
        """What the route of this message may depend on."""
        taken_by = _NONE
        if self._conditional:
            taken_by = frozenset(number for number, hop in self._conditional if takes(hop, envelope))
        return RoutedMail(envelope.reverse_path, envelope.peer.identity, taken_by, released)

    def has_mailboxes(self, domain: str) -> bool:
        """Whether single mailboxes of a domain have tables of their own."""
        return domain in self._mailbox_domains

    def depends_on_message(self, domain: str) -> bool:
        """Whether the sender, or what else is known of a message, may change the next hop of a domain's mail."""
        for choice in self._domains.matches(domain):
            if choice.depends_on_message:
                return True
            if choice.for_all is not None:
                return False
        return False

    def for_mailbox(self, address: Address, mail: RoutedMail) -> NextHop | None:
        """By a table that names the recipient itself."""
        if address.domain in self._mailbox_domains:
            for name in mailboxes(address, self._delimiter):
                choice = self._mailboxes.get(name)
                hop = choice.of(mail, self._delimiter) if choice is not None else None
                if hop is not None:
                    return hop
        return None

    def for_domain(self, domain: str, mail: RoutedMail) -> NextHop | None:
        """By a table for the recipient's domain."""
        for choice in self._domains.matches(domain):
            hop = choice.of(mail, self._delimiter)
            if hop is not None:
                return hop
        return None

    def for_all(self, domain: str) -> NextHop | None:
        """The table that takes the domain's mail of all senders that no other table names."""
        return next((choice.for_all for choice in self._domains.matches(domain) if choice.for_all is not None), None)

    def any_for(self, domain: str) -> Iterator[NextHop]:
        """All tables that may take mail for a domain, of whatever sender and mailbox."""
        for choice in self._domains.matches(domain):
            yield from choice.hops
            if choice.for_all is not None:
                break
        for name, choice in self._mailboxes.items():
            if name.rpartition("@")[2] == domain:
                yield from choice.hops


def mailboxes(address: Address, delimiter: str) -> Iterator[str]:
    """How a mailbox may be named: with its address extension, and without it."""
    whole = fold(address.local_part, "")
    yield f"{whole}@{address.domain}"
    plain = fold(whole, delimiter)
    if plain != whole:
        yield f"{plain}@{address.domain}"
