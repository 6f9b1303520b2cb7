"""A job: one message for some of its recipients, to be carried to one destination in one transaction."""

from __future__ import annotations

import msgspec

from postroad.mail.envelope import Envelope
from postroad.mail.message import Content
from postroad.mail.route import Destination


class Job(msgspec.Struct, frozen=True):
    """`recipients` are indexes in `envelope.recipients`; the attempts that answer a job stand in the same order."""

    envelope: Envelope
    recipients: tuple[int, ...]
    content: Content
    destination: Destination
