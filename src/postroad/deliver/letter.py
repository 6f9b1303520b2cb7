"""One message for one mailbox of this machine, ready to be written: the fields of this delivery, and the content.

The fields on top are Return-Path (RFC 5321 §4.4), Delivered-To, and the mark by which the node recognises the message
if it comes back (`mail.loop`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from itertools import chain

import msgspec

from postroad.mail import loop
from postroad.mail.address import Address
from postroad.mail.envelope import Body
from postroad.mail.job import Job
from postroad.mail.loop import Marks
from postroad.mail.message import size
from postroad.mail.trace import return_path
from postroad.store.content import pieces


class Letter(msgspec.Struct, frozen=True):
    """`id`: of the message. `top`: the fields of this delivery, with CRLF. `read`: begins to read the message; `size`:
    all octets, with CRLF. `binary`: BINARYMIME, whose line ends are not ours to change (RFC 3030 §3). `sender`: the
    reverse-path, None for the null one."""

    id: int
    top: bytes
    read: Callable[[], Iterator[bytes]]
    size: int
    binary: bool
    sender: Address | None

    def octets(self) -> Iterator[bytes]:
        """All of it, in pieces."""
        return chain((self.top,), self.read())


def letter(job: Job, address: Address, marks: Marks | None) -> Letter:
    """What a recipient of a job gets. `address`: as the job names it. `marks`: None if none are made."""
    envelope = job.envelope
    fields = top(job, (address,), marks)
    return Letter(
        envelope.id, fields, partial(pieces, envelope, job.content), len(fields) + size(envelope, job.content),
        envelope.body is Body.BINARY_MIME, job.reverse_path,
    )


def top(job: Job, addresses: Sequence[Address], marks: Marks | None) -> bytes:
    """The fields of a delivery to these recipients."""
    fields = return_path(job.reverse_path)
    fields += "".join(f"Delivered-To: {address}\r\n" for address in addresses).encode()
    if marks is None:
        return fields
    return fields + loop.field(marks.delivered(address, job.envelope.message_id) for address in addresses)
