"""What a recipient means that is written as a sender that we have signed (SRS, BATV, VERP): the rooms `route`, which
reads it, and `check`, which decides at RCPT, meet here."""

from __future__ import annotations

import msgspec

from postroad.mail.address import Address


class Returned(msgspec.Struct, frozen=True):
    """`address`: the mailbox that is meant. `code`, `status`, `text`: why it is refused; `code` 0 if it is not.
    `elsewhere`: it is no mailbox of ours, and mail for it is taken because we have signed it. `note`: what is wrong
    with it although it is taken, for the history."""

    address: Address
    code: int = 0
    status: str = ""
    text: str = ""
    elsewhere: bool = False
    note: str = ""
