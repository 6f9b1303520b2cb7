"""Asks a next hop whether it would take mail for a recipient: MAIL and RCPT, and no content.

The question goes the way that mail goes: the same destination, hosts, TLS, credentials and connections
(`deliver.opener`), and it counts among the connections of the destination. What always holds: a question ends, with an
Attempt, within `QUESTION_S`; the connection is closed afterwards, and its permit given
back no sooner.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import partial
from itertools import count
from typing import Final, Protocol

from postroad.mail.address import Address
from postroad.mail.attempt import Attempt, Outcome, Reach
from postroad.mail.courier import Courier
from postroad.mail.envelope import Envelope, Recipient
from postroad.mail.job import Job
from postroad.mail.route import Destination, Transport, mailbox_itself
from postroad.mail.routing import Answer

QUESTION_S: Final = 60.0  # longer than any client waits; the answer is kept
_PROBE: Final = "question>"  # with a number the scope by which a question asks for its permit, beside the queue


class Opens(Protocol):
    def __call__(
        self, destination: Destination, opened: Callable[[Courier | Attempt], None], lost: Callable[[Courier], None]
    ) -> None: ...


class ConnectionPermits(Protocol):
    def acquire(self, scopes: tuple[str, ...], count: int, granted: Callable[[int], None]) -> None: ...
    def release(self, scopes: tuple[str, ...]) -> None: ...


class Asking:
    """`destination_of`: as for mail. `scopes_of`: in which a connection to a destination counts."""

    def __init__(
        self, *, opener: Opens, permits: ConnectionPermits, destination_of: Callable[[Envelope, Recipient], Answer],
        scopes_of: Callable[[Destination], tuple[str, ...]], now_us: Callable[[], int],
        loop: asyncio.AbstractEventLoop,
    ) -> None:
        self._opener = opener
        self._permits = permits
        self._destination_of = destination_of
        self._scopes_of = scopes_of
        self._now_us = now_us
        self._loop = loop
        self._numbers: set[int] = set()  # of the questions under way

    async def ask(self, address: Address, sender: Address | None) -> Attempt:
        """What the next hop says of the recipient."""
        try:
            async with asyncio.timeout(QUESTION_S):
                return await self._ask(address, sender)
        except TimeoutError:
            return _not_now(f"no answer in {QUESTION_S:g} s")

    async def _ask(self, address: Address, sender: Address | None) -> Attempt:
        now_us = self._now_us()
        envelope = Envelope(0, sender, (Recipient(address),), 0, now_us, smtputf8=not address.is_ascii)
        found = self._destination_of(envelope, envelope.recipients[0])
        if not isinstance(found, Destination | Attempt):
            found = await found
        if isinstance(found, Attempt):
            return found
        if found.reports:  # there is no mail in which to look for one
            found = mailbox_itself(found)
        if found.transport not in (Transport.SMTP, Transport.LMTP):
            return _not_now(f"its mail goes to no server ({found.transport.value})")
        number = next(each for each in count() if each not in self._numbers)
        self._numbers.add(number)
        return await self._permitted(found, envelope, number)

    async def _permitted(self, destination: Destination, envelope: Envelope, number: int) -> Attempt:
        """The number is taken as long as its permit is asked for or held."""
        scopes = (f"{_PROBE}{number}", *self._scopes_of(destination))
        granted: asyncio.Future[None] = self._loop.create_future()

        def got(permits: int) -> None:
            if granted.done():  # nobody waits any more
                self._give_back(number, scopes)
            else:
                granted.set_result(None)

        self._permits.acquire(scopes, 1, got)
        try:
            await granted
        except asyncio.CancelledError:
            if not granted.cancelled():  # it came in this very moment
                self._give_back(number, scopes)
            raise
        return await self._by(destination, envelope, partial(self._give_back, number, scopes))

    def _give_back(self, number: int, scopes: tuple[str, ...]) -> None:
        self._permits.release(scopes)
        self._numbers.discard(number)

    async def _by(self, destination: Destination, envelope: Envelope, give_back: Callable[[], None]) -> Attempt:
        """Whoever waits no longer leaves the permit with the connection: it may be there for some time still."""
        opening: asyncio.Future[Courier | Attempt] = self._loop.create_future()

        def opened(result: Courier | Attempt) -> None:
            if opening.done():
                _close(result)
                give_back()
            else:
                opening.set_result(result)

        self._opener(destination, opened, lambda courier: None)
        try:
            courier = await opening
        except asyncio.CancelledError:
            if not opening.cancelled():
                _close(opening.result())
                give_back()
            raise
        if isinstance(courier, Attempt):
            give_back()
            return courier
        job = Job(envelope, (0,), b"", destination, envelope.reverse_path, only_crlf=True, asks_only=True)
        return await self._carried(courier, job, give_back)

    async def _carried(self, courier: Courier, job: Job, give_back: Callable[[], None]) -> Attempt:
        answered: asyncio.Future[Attempt] = self._loop.create_future()

        def carried(job: Job, attempts: tuple[Attempt, ...]) -> None:
            if not answered.done():
                courier.close()
                answered.set_result(attempts[0])
            give_back()

        courier.carry(job, carried)
        try:
            return await answered
        except asyncio.CancelledError:
            if answered.cancelled():
                courier.close()  # it ends its job first
            raise


def _close(result: Courier | Attempt) -> None:
    if not isinstance(result, Attempt):
        result.close()


def _not_now(text: str) -> Attempt:
    return Attempt(Outcome.DEFERRED, Reach.RECIPIENT, "4.4.1", text)
