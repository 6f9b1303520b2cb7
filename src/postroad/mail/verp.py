"""Variable envelope return paths (VERP): a sender of its own for each recipient, so that a report names the recipient
whatever it says itself.

    list@example.org to ada@example.net       list+ada=example.net@example.org

The first delimiter begins the extension, the second stands for the "@" of the recipient. As in Postfix, the recipient
is the one that the client named. Pure; the envelope's parameter XVERP has the delimiters, and nothing else of it is
stored.
"""

from __future__ import annotations

from typing import Final

from postroad.mail import wishes
from postroad.mail.address import Address
from postroad.mail.envelope import Envelope, Recipient
from postroad.mail.job import Outbound, Sent
from postroad.mail.route import Destination

XVERP: Final = "XVERP"
DEFAULT: Final = "+="
ALLOWED: Final = "-=+"  # characters that may be delimiters (verp_delimiter_filter of Postfix)


def fault(delimiters: str) -> str:
    """What is wrong with delimiters; "" for nothing."""
    if len(delimiters) == len(DEFAULT) and all(delimiter in ALLOWED for delimiter in delimiters):
        return ""
    return f"the delimiters are two characters, each one of {ALLOWED}"


def delimiters(envelope: Envelope) -> str:
    """Those that the client wants; "" if it wants no such senders."""
    if not envelope.parameters or envelope.reverse_path is None:
        return ""
    return wishes.parameter(envelope.parameters, XVERP) or ""


def named(sender: Address, recipient: Recipient, delimiters: str) -> Address:
    """The sender for this recipient."""
    to = recipient.given or recipient.address
    own = f"{sender.local_part}{delimiters[0]}{to.local_part}{delimiters[1]}{to.domain}"
    return Address(own, sender.domain)


def outbound(envelope: Envelope, recipient: Recipient, destination: Destination) -> Sent:
    """These names alone (`mail.job.Outbound`)."""
    return _named(Sent(envelope.reverse_path, recipient.address), envelope, recipient)


def after(before: Outbound) -> Outbound:
    """These names behind others."""

    def both(envelope: Envelope, recipient: Recipient, destination: Destination) -> Sent:
        sent = before(envelope, recipient, destination)
        return _named(sent, envelope, recipient) if envelope.parameters else sent

    return both


def _named(sent: Sent, envelope: Envelope, recipient: Recipient) -> Sent:
    wanted = delimiters(envelope)
    if not wanted or sent.not_now or sent.reverse_path is None:
        return sent
    return Sent(named(sent.reverse_path, recipient, wanted), sent.forward_path)
