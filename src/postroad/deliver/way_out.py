"""A job with another header section, as its next hop gets it (`mail.job.WayOut`).

Only the header section is read and written anew; the body is sent from where it is. What always holds: the spool is not
touched; the job that the queue gave is the one it gets back. How it fails: OSError if the content cannot be read.
"""

from __future__ import annotations

from asyncio import AbstractEventLoop
from collections.abc import Awaitable
from concurrent.futures import Executor
from typing import Final

import msgspec

from postroad.mail import message
from postroad.mail.envelope import Body
from postroad.mail.job import ChangedHead, Job, WayOut
from postroad.mail.message import ContentFile
from postroad.store.content import head as read_head

_HEAD_MAX: Final = 2 * message.HEADER_MAX  # octets of a header section in a file, with what we have put on top


def head_of(job: Job) -> bytes:
    """The header section of a message, with all that we have put on top. Blocks for the disk if it is in a file."""
    content = job.content
    if isinstance(content, bytes):
        octets = job.envelope.prefix + content if job.envelope.prefix else content
    else:
        octets = read_head(job.envelope, content, len(job.envelope.prefix) + _HEAD_MAX)
    return octets[: message.header_end(octets)]


def with_head(job: Job, before: bytes, head: bytes) -> Job:
    """The job with another header section in the place of `before`, which `head_of` gave. It keeps its own if nothing
    would be left: then the body might be read as one."""
    envelope, content = job.envelope, job.content
    if head == before or not head:
        return job
    gone = max(len(before) - len(envelope.prefix), 0)
    if isinstance(content, bytes):
        content = head + content[gone:]
        envelope = msgspec.structs.replace(envelope, prefix=b"")
    else:
        content = ContentFile(content.path, content.size - gone, content.start + gone)
        envelope = msgspec.structs.replace(envelope, prefix=head)
    if not head.isascii() and before.isascii():
        body = Body.EIGHT_BIT_MIME if envelope.body is Body.SEVEN_BIT else envelope.body
        envelope = msgspec.structs.replace(envelope, smtputf8=True, body=body)
    return msgspec.structs.replace(job, envelope=envelope, content=content)


class OtherHead(msgspec.Struct, frozen=True):
    """The job as its next hop gets it, and what was changed, in words."""

    job: Job
    said: str = ""


def other_head(job: Job, way_out: WayOut) -> OtherHead | str | Awaitable[OtherHead | str]:
    """The job with its header section as the next hop gets it, or why that cannot be told now. For content in
    memory: no disk is read."""
    before = head_of(job)
    found = way_out(before)
    return _made(job, before, found) if isinstance(found, ChangedHead) else _awaited(job, before, found)


async def read_other_head(
    job: Job, way_out: WayOut, pool: Executor, loop: AbstractEventLoop
) -> OtherHead | str:
    """The same for content in a file."""
    try:
        before = await loop.run_in_executor(pool, head_of, job)
    except OSError as error:
        return f"the content could not be read: {error.strerror or error}"
    found = way_out(before)
    return _made(job, before, found if isinstance(found, ChangedHead) else await found)


async def _awaited(job: Job, before: bytes, found: Awaitable[ChangedHead]) -> OtherHead | str:
    return _made(job, before, await found)


def _made(job: Job, before: bytes, found: ChangedHead) -> OtherHead | str:
    if found.not_now:
        return found.not_now
    return OtherHead(with_head(job, before, found.head), ", ".join(found.said))
