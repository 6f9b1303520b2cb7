"""A job: one message for some of its recipients, to be carried to one destination in one transaction."""

from __future__ import annotations

import msgspec

from postroad.mail.envelope import Envelope
from postroad.mail.message import Content
from postroad.mail.route import Destination


class Job(msgspec.Struct, frozen=True):
    """`recipients` are indexes in `envelope.recipients`; the attempts that answer a job stand in the same order.
    `only_crlf`: this process has seen that the octets of `content` hold no CR and no LF outside a CRLF; False if it has
    not looked, as when they were read from the disk."""

    envelope: Envelope
    recipients: tuple[int, ...]
    content: Content
    destination: Destination
    only_crlf: bool = False
