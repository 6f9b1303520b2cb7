"""Header fields in place of parameters that the next host does not know. They are sent before the content, and never
stored.

MT-Priority (RFC 6758), Require-Recipient-Valid-Since (RFC 7293 §3.2, §7.1). What always holds: the fields are ASCII,
short, and end with CRLF, so that nothing after them is read otherwise. Pure.
"""

from __future__ import annotations

from collections.abc import Sequence

from postroad.mail import wishes
from postroad.mail.envelope import Envelope, Recipient
from postroad.mail.trace import date
from postroad.protocol.capability import Capabilities


def fields(
    envelope: Envelope, recipients: Sequence[Recipient], offered: Capabilities, *, priority: bool
) -> bytes:
    """What goes before the content for these recipients. `priority`: whether MT-PRIORITY is tunnelled at all."""
    made = _priority(envelope, offered) if priority else b""
    # A field names its recipient to all who read the message (RFC 5321 §7.6): only if there is no other one.
    if len(envelope.recipients) == 1 and recipients[0].parameters:
        made += _valid_since(recipients[0], offered)
    return made


def _priority(envelope: Envelope, offered: Capabilities) -> bytes:
    value = wishes.parameter(envelope.parameters, wishes.PRIORITY)
    if value is None or "MT-PRIORITY" in offered.keywords:
        return b""
    return f"MT-Priority: {wishes.parse_priority(value) or 0}\r\n".encode("ascii")


def _valid_since(recipient: Recipient, offered: Capabilities) -> bytes:
    asked = wishes.valid_since(recipient)
    if asked is None or asked.in_header or "RRVS" in offered.keywords or not recipient.address.is_ascii:
        return b""
    moment = date(asked.since_us // 1_000_000)
    return f"Require-Recipient-Valid-Since: {recipient.address};\r\n\t{moment}\r\n".encode("ascii")
