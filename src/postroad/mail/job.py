"""A job: one message for some of its recipients, to be carried to one destination, and the names that sender and
recipients have there.

Names that change once, and are stored, change when the message is accepted. Names that change for each attempt, and are
never stored, are in `Sent`: it says how sender and recipient are named to the next hop. Nothing else of the message
changes. Reports, history and retries use the names of the envelope.
"""

from __future__ import annotations

from collections.abc import Awaitable
from typing import Protocol

import msgspec

from postroad.mail.address import Address
from postroad.mail.envelope import Envelope, Recipient
from postroad.mail.message import Content
from postroad.mail.route import Destination


class Sent(msgspec.Struct, frozen=True):
    """How sender and recipient are named to a destination. `not_now`: why that cannot be told at the moment; "" if it
    is. The recipient is tried again later then."""

    reverse_path: Address | None
    forward_path: Address
    not_now: str = ""


class Outbound(Protocol):
    """How the sender and one recipient of a message are named to a destination.

    - **Who asks**: the queue, once for each recipient of a job, when a connection takes the job up; so again for each
      attempt. It asks nobody if the settings change no name.
    - **The answer** depends on what is asked with, and on the day if senders are signed; it comes at once, and nothing
      is raised.
    - Recipients of one job whose reverse-paths differ go in transactions of their own.
    """

    def __call__(self, envelope: Envelope, recipient: Recipient, destination: Destination) -> Sent: ...


class ChangedHead(msgspec.Struct, frozen=True):
    """The header section of a message as a destination gets it. `said`: what was changed, in words. `not_now`: why it
    cannot be told at the moment; "" if it is."""

    head: bytes
    said: tuple[str, ...] = ()
    not_now: str = ""


class WayOut(Protocol):
    """What is changed of the header section on the way to one destination.

    - **Who asks**: the connection, once for each job, before it says anything of it. It asks nobody if the settings
      change nothing.
    - **The answer** depends on what is asked with, and on maps, alone. An awaitable ends within the limits of the maps.
    """

    def __call__(self, head: bytes) -> ChangedHead | Awaitable[ChangedHead]: ...


class Job(msgspec.Struct, frozen=True):
    """`recipients` are indexes in `envelope.recipients`; the attempts that answer a job stand in the same order.
    `reverse_path`: the sender as the destination hears of it. `forward_paths`: the same of the recipients, in their
    order; () if all are named as in the envelope. `only_crlf`: this process has seen that the octets of `content` hold
    no CR and no LF outside a CRLF; False if it has not looked, as when they were read from the disk. `asks_only`: the
    remote is asked by MAIL and RCPT whether it would take the recipients; no content is sent."""

    envelope: Envelope
    recipients: tuple[int, ...]
    content: Content
    destination: Destination
    reverse_path: Address | None
    forward_paths: tuple[Address, ...] = ()
    only_crlf: bool = False
    asks_only: bool = False

    def named(self) -> list[Recipient]:
        """The recipients as the destination hears of them. If one has another name there, `given` is the mailbox of
        the envelope, or what was given before (RFC 3461 §5.2.1 (d): so ORCPT names it as it came to us)."""
        recipients = [self.envelope.recipients[index] for index in self.recipients]
        if not self.forward_paths:
            return recipients
        return [
            recipient
            if recipient.address == path
            else msgspec.structs.replace(recipient, address=path, given=recipient.given or recipient.address)
            for recipient, path in zip(recipients, self.forward_paths, strict=True)
        ]

    @property
    def is_renamed(self) -> bool:
        """Whether sender or recipients go by other names than in the envelope."""
        mine, theirs = self.reverse_path, self.envelope.reverse_path
        return self.forward_paths != () or (mine is not theirs and mine != theirs)
