"""Mailboxes that have moved, by `relocated_maps`, when their mail is sent on.

`check.moved` refuses such mailboxes at RCPT. But aliases, copies and files ``.forward`` also lead to mailboxes, and a
mailbox may move while its mail waits. So the map is asked for each destination, too: the recipient fails with 5.1.6,
and the report tells the sender the new address, as in Postfix.

What always holds: `postmaster` of a domain has never moved. How it fails: a map that cannot answer is `not_now`:
the mail waits.
"""

from __future__ import annotations

from functools import partial

from postroad.mail.address import Address
from postroad.mail.attempt import Attempt, Outcome, Reach
from postroad.mail.envelope import Envelope, Recipient
from postroad.mail.moved import has_moved
from postroad.mail.route import Destination
from postroad.mail.routing import Answer, DestinationOf, Found, not_now
from postroad.maps.asked import Asked, Known, answered
from postroad.maps.face import NO_ANSWER, NotNow
from postroad.route.later import Later
from postroad.route.recipients import POSTMASTER
from postroad.route.rewriting import AddressKeys


class Relocated:
    """The maps."""

    def __init__(self, keys: AddressKeys) -> None:
        self._keys = keys
        self.waits = keys.waits

    def find(self, address: Address, asked: Asked) -> str | None:
        """Where a mailbox has gone, in the words of the map; None if it has not, or if `asked` has stopped."""
        if address.local_part.lower() == POSTMASTER:
            return None
        found = self._keys.find(address, asked)
        return None if found is None or found is NO_ANSWER else found[0].strip()

    def has_moved(self, address: Address, asked: Asked) -> bool | None:
        """Whether a mailbox has moved; None if nobody can tell at once."""
        found = self._keys.find(address, asked)
        return None if found is NO_ANSWER else found is not None


class RelocatedRoute:
    """Destinations by `route`, but for mailboxes that have moved (`mail.routing.DestinationOf`)."""

    def __init__(self, relocated: Relocated, route: DestinationOf) -> None:
        self._relocated = relocated
        self._route = route

    def __call__(self, envelope: Envelope, recipient: Recipient) -> Answer:
        if recipient.destination is not None:
            return self._route(envelope, recipient)
        known = Known()
        value = self._relocated.find(recipient.address, known)
        if known.not_now is not None:
            return _unknown(known.not_now)
        if known.stopped:
            return Later(partial(self._wait, envelope, recipient))
        return self._route(envelope, recipient) if value is None else _moved(value)

    async def _wait(self, envelope: Envelope, recipient: Recipient) -> Found:
        found = answered(partial(self._relocated.find, recipient.address))
        value = found if found is None or isinstance(found, str | NotNow) else await found
        if isinstance(value, NotNow):
            return _unknown(value)
        if value is not None:
            return _moved(value)
        way = self._route(envelope, recipient)
        return way if isinstance(way, Destination | Attempt) else await way


def _moved(value: str) -> Attempt:
    return Attempt(Outcome.FAILED, Reach.RECIPIENT, "5.1.6", has_moved(value), transport="")


def _unknown(answer: NotNow) -> Attempt:
    return not_now(f"whether the mailbox has moved is not known: {answer.text}")
