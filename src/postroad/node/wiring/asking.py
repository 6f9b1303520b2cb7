"""How a worker asks next hops about recipients: the rules, the way and the memory of it, put together.

It is made when the settings first have a domain with `verify`, and goes on over reloads.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path

from postroad.check.tally import Tally
from postroad.check.verified import RecipientQuestions, VerifyOptions
from postroad.deliver.asking import Asking, ConnectionPermits, Opens
from postroad.mail.address import Address
from postroad.mail.attempt import Attempt
from postroad.mail.envelope import Envelope, Recipient
from postroad.mail.route import Destination
from postroad.mail.routing import Answer
from postroad.protocol.grammar import parse_mailbox
from postroad.store.verified import NAME, VerifiedEntry, VerifiedStore


class NextHopQuestions:
    """See the module. `log`: a level, and a line for the log. `tally`: the counts of the node."""

    def __init__(
        self, options: VerifyOptions, state_dir: Path, *, opener: Opens, permits: ConnectionPermits,
        destination_of: Callable[[Envelope, Recipient], Answer],
        scopes_of: Callable[[Destination], tuple[str, ...]], now_us: Callable[[], int],
        loop: asyncio.AbstractEventLoop, log: Callable[[str, str], None], tally: Tally,
    ) -> None:
        self._store = VerifiedStore(state_dir / NAME, options.entries_max, lambda text: log("error", text))
        self._asking = Asking(
            opener=opener, permits=permits, destination_of=destination_of, scopes_of=scopes_of, now_us=now_us, loop=loop
        )
        self.ask = RecipientQuestions(
            options, get=self._store.get, put=self._put, ask=self._ask, now_us=now_us,
            log=lambda text: log("info", text), tally=tally,
        )

    def take(self, options: VerifyOptions) -> None:
        """Settings."""
        self.ask.take(options)
        self._store.entries_max = options.entries_max

    def _put(self, mailbox: str, found: bool, at_us: int, text: str, hop: str) -> None:
        self._store.put(VerifiedEntry(mailbox, found, at_us, text, hop))

    async def _ask(self, address: Address) -> Attempt:
        sender = self.ask.options.sender
        return await self._asking.ask(address, parse_mailbox(sender) if sender else None)

    async def close(self) -> None:
        await self.ask.close()
        self._store.close()
