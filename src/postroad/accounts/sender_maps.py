"""Who may send as whom, by map: an address leads to the accounts that may use it (`sender_maps`).

The keys are the whole address, the address without its extension, and ``@domain``; the first one that is there counts,
and its value is a list of accounts, with commas or white space between them. What always holds: accounts are compared
as at log-in (`mail.account`). How it fails: with NotNow if a map cannot answer.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import partial

from postroad.mail.account import canonical_account
from postroad.mail.address import Address
from postroad.maps.asked import Asked, Known, answered
from postroad.maps.face import NO_ANSWER, Map, NotNow
from postroad.maps.steps import sender_steps

MaySend = bool | NotNow | Awaitable[bool | NotNow]
Owns = Callable[[str, Address], MaySend]
"""Whether an account may send from an address. An awaitable if a map must be waited for; NotNow if nobody can tell
now."""


class SenderMaps:
    """`delimiter`: begins an address extension, "" for none."""

    def __init__(self, maps: tuple[Map, ...], delimiter: str) -> None:
        self._maps = maps
        self._delimiter = delimiter

    def owns(self, account: str, address: Address) -> MaySend:
        """Whether the account may send from the address."""
        return answered(partial(self._owns, canonical_account(account), address))

    def owns_now(self, account: str, address: Address) -> bool:
        """The same with what is known without waiting."""
        return self._owns(canonical_account(account), address, Known())

    def has_owner(self, address: Address) -> MaySend:
        """Whether any account may."""
        return answered(partial(self._has_owner, address))

    def _owns(self, account: str, address: Address, asked: Asked) -> bool:
        return account in self._owners(address, asked)

    def _has_owner(self, address: Address, asked: Asked) -> bool:
        return bool(self._owners(address, asked))

    def _owners(self, address: Address, asked: Asked) -> tuple[str, ...]:
        found = asked.first(sender_steps(address.local_part, address.domain, self._delimiter), self._maps)
        if found is None or found is NO_ANSWER:
            return ()
        return tuple([canonical_account(name) for name in found[0].replace(",", " ").split()])
