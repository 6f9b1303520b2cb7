"""What the outside saw: who was told 250 for what, and what came where. The promises are checked against this alone."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tests.sim.wire import End

_MESSAGE_ID = re.compile(rb"^Message-ID:\s*(\S+)", re.IGNORECASE | re.MULTILINE)


@dataclass
class Delivery:
    """A remote, a Maildir or a program has taken a message for a recipient.

    `reply_end`: octets that the other end must have got so that it knows (by SMTP). `excused`: the node may not know of
    it, so that it may come again: the reply was unfit, or a crash came before the commit.
    """

    message_id: str
    recipient: str
    at: float
    place: str
    content: bytes
    owner: str = ""  # the worker that brought it
    sender: str = ""
    dsn_offered: bool = False
    eight_bit_offered: bool = True
    final: bool = True  # a mailbox or program of ours, or LMTP: lines are not broken
    end: End | None = None
    reply_end: int = 0
    excused: bool = False
    path: str = ""  # the sender as it came
    signatures: bytes = b""  # DKIM signatures that stood on top of `content`
    said: str | None = None  # the sender as a host has heard it; None at mailboxes and programs of ours

    @property
    def known(self) -> bool:
        """Whether the node was told, and has no excuse for not knowing it."""
        return not self.excused and (self.end is None or self.end.received >= self.reply_end)


@dataclass
class Submitted:
    """A message that a client tried to hand over, once. `told`: recipients for which the client has a 250 for the
    message; `taken`: those whose RCPT was accepted. `queue_id`: as the 250 named it."""

    message_id: str
    sender: str
    content: bytes  # as it was sent, with its header section
    kept: bytes | None  # the same with its stray line ends repaired; None where it must be refused for them
    taken: dict[str, str] = field(default_factory=dict)  # recipient → NOTIFY
    told: list[str] = field(default_factory=list)
    queue_id: str = ""
    at: float = 0.0
    is_known: bool = False  # its client is trusted, or has logged in
    verp: str = ""  # delimiters
    is_left: bool = False  # in the drop folder: no queue id is told, and no inspector sees it


class Ledger:
    def __init__(self) -> None:
        self.submitted: list[Submitted] = []
        self.deliveries: list[Delivery] = []
        self.faults: list[str] = []  # what must never happen, as it was seen
        self.heard: dict[int, bool] = {}  # messages that the stream told of; whether it told that they were accepted
        self.refused = 0
        self.refusals: list[tuple[str, str]] = []  # by number: of which sender they were said, and of which recipient
        self.on_fault: Callable[[], None] | None = None

    def fault(self, text: str) -> None:
        if self.on_fault is not None:
            self.on_fault()
        if len(self.faults) < 50:
            self.faults.append(text)


def message_id_of(content: bytes) -> str:
    """The Message-ID in the header section, "" for none."""
    head = content.replace(b"\r\n", b"\n").partition(b"\n\n")[0]
    found = _MESSAGE_ID.search(head)
    return found[1].decode() if found else ""
