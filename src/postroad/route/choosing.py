"""Chooses the next hop for a recipient: by the recipient, then by account and sender. Pure.

The order in which tables count:

1. Tables for the recipient, the most exact first: ``user+detail@domain``, ``user@domain``, the domain, ``.parent``
   domains (the longest first), ``*``.
2. Among the tables for the same pattern of recipients: the one that names the account, then the ones that name the
   sender (``user+detail@domain``, ``user@domain``, the domain, ``.parent`` domains), then the one for all senders.
3. If none of these takes the mail of this sender, the tables for the next pattern of recipients count.

Postfix has the same order: a transport table comes before sender_dependent_relayhost_maps, and this comes before
relayhost. Local-parts are compared without regard to case. The null reverse-path is the sender ``<>``.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Final

from postroad.mail.account import canonical_account
from postroad.mail.address import Address
from postroad.route.domains import DomainTable
from postroad.route.options import NextHop
from postroad.route.recipients import fold

NULL_SENDER: Final = "<>"


class Choice:
    """The next hops for the same mail, of which sender and account choose one: those for one pattern of recipients."""

    __slots__ = ("_accounts", "_mailboxes", "_senders", "for_all", "hops")

    def __init__(self, hops: Iterable[NextHop]) -> None:
        self.hops = tuple(hops)
        self._accounts = {canonical_account(name): hop for hop in self.hops for name in hop.accounts}
        senders = [(name, hop) for hop in self.hops for name in hop.senders]
        self._mailboxes = {name: hop for name, hop in senders if "@" in name or name == NULL_SENDER}
        self._senders = DomainTable((name, hop) for name, hop in senders if name not in self._mailboxes)
        self.for_all = next((hop for hop in self.hops if hop.is_for_all), None)

    @property
    def depends_on_sender(self) -> bool:
        return any(not hop.is_for_all for hop in self.hops)

    def of(self, sender: Address | None, account: str, delimiter: str) -> NextHop | None:
        found = self._accounts.get(canonical_account(account)) if account else None
        if found is None and sender is None:
            found = self._mailboxes.get(NULL_SENDER)
        elif found is None and sender is not None:
            found = next(filter(None, map(self._mailboxes.get, mailboxes(sender, delimiter))), None)
            found = found or self._senders.find(sender.domain)
        return found or self.for_all


class NextHops:
    """All next hops of one configuration. `delimiter`: begins an address extension, "" for none."""

    def __init__(self, hops: Iterable[NextHop], delimiter: str) -> None:
        self._delimiter = delimiter
        by_domain: dict[str, list[NextHop]] = {}
        by_mailbox: dict[str, list[NextHop]] = {}
        for hop in hops:
            if hop.domain:
                by_domain.setdefault(hop.domain, []).append(hop)
            for name in hop.recipients:
                by_mailbox.setdefault(name, []).append(hop)
        self._domains = DomainTable((pattern, Choice(group)) for pattern, group in by_domain.items())
        self._mailboxes = {name: Choice(group) for name, group in by_mailbox.items()}
        self._mailbox_domains = frozenset(name.rpartition("@")[2] for name in by_mailbox)

    def has_mailboxes(self, domain: str) -> bool:
        """Whether single mailboxes of a domain have tables of their own."""
        return domain in self._mailbox_domains

    def depends_on_sender(self, domain: str) -> bool:
        """Whether the sender or the account may change the next hop of a domain's mail."""
        for choice in self._domains.matches(domain):
            if choice.depends_on_sender:
                return True
            if choice.for_all is not None:
                return False
        return False

    def for_mailbox(self, address: Address, sender: Address | None, account: str) -> NextHop | None:
        """By a table that names the recipient itself."""
        if address.domain in self._mailbox_domains:
            for name in mailboxes(address, self._delimiter):
                choice = self._mailboxes.get(name)
                hop = choice.of(sender, account, self._delimiter) if choice is not None else None
                if hop is not None:
                    return hop
        return None

    def for_domain(self, domain: str, sender: Address | None, account: str) -> NextHop | None:
        """By a table for the recipient's domain."""
        for choice in self._domains.matches(domain):
            hop = choice.of(sender, account, self._delimiter)
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
