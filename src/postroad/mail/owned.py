"""Since when a mailbox has its present owner, if that is known (RFC 7293)."""

from __future__ import annotations

import msgspec


class Owned(msgspec.Struct, frozen=True):
    """Microseconds since 1970, 0 if nobody has said it. `mailbox_us`: since when the mailbox has its owner,
    `domain_us`: since when the domain has."""

    mailbox_us: int = 0
    domain_us: int = 0

    def refusal(self, asked_us: int) -> str:
        """The status for mail to who must have been the owner at that time; "" if nothing speaks against it.

        What nobody has said speaks against nothing: RFC 7293 leaves that to the receiver.
        """
        if self.domain_us > asked_us:
            return "5.7.18"
        return "5.7.17" if self.mailbox_us > asked_us else ""
