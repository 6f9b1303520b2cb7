"""Whether a message is larger than the servers of its recipients take: size limits joined with aliases and routing.

What always holds: a message counts as too large only if every destination has a server that has said so, and all
destinations are known at once. So a message that may fit somewhere is never refused.
"""

from __future__ import annotations

from typing import Final

from postroad.mail.envelope import Envelope, Recipient
from postroad.mail.policy import Question
from postroad.mail.routing import key_of
from postroad.mail.size_limits import SizeLimits
from postroad.node.wiring.tables import Tables

TARGETS_MAX: Final = 100  # of an alias that is followed at RCPT


class Fitting:
    """Asks the tables of one edition. `limits` goes on over all of them."""

    def __init__(self, limits: SizeLimits, tables: Tables) -> None:
        self.limits = limits
        self._tables = tables

    def at_rcpt(self, question: Question) -> int:
        """The limit that the declared size exceeds at all destinations of this recipient; 0 if it may fit. Addresses
        that may still be rewritten, aliases with many targets, and those that must be waited for are judged at the end
        of the content only: a client may name any number of recipients."""
        if self._tables.rewriter is not None:
            return 0
        assert question.recipient is not None
        recipient = Recipient(question.recipient, parameters=question.parameters)
        expansion = self._tables.expand_at_once(0, 0, (recipient,), TARGETS_MAX)
        if expansion is None:
            return 0
        envelope = Envelope(0, question.reverse_path, expansion.recipients, question.size, 0, question.peer)
        return self.of_message(envelope)

    def of_message(self, envelope: Envelope) -> int:
        """The largest limit that the message exceeds, if it exceeds one at every destination; 0 if it may fit."""
        largest = 0
        for recipient in envelope.recipients:
            key = key_of(self._tables.destination(envelope, recipient))
            limit = self.limits.exceeded(key, envelope.size)
            if not limit:
                return 0
            largest = max(largest, limit)
        return largest
