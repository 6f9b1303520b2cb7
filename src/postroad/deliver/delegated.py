"""The courier for mail that is delivered as another user: it asks the porter, one recipient after the other.

What always holds: no thread waits, and no other job does. How it fails: as `deliver.porter` says; without a porter, or
if it does not answer, mail is deferred. `end` breaks off a delivery at shutdown: the porter's child then ends its
program.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import logging
import os
from functools import partial
from typing import Final

import msgspec

from postroad.deliver.courier_context import CourierContext
from postroad.deliver.folders import deferred
from postroad.deliver.mailbox import mailbox_name
from postroad.deliver.on_a_task import TaskCourier
from postroad.deliver.porter import FRAME_MAX, PREFIX_MAX, PorterOutlet, PorterRequest, read_answer
from postroad.deliver.quota import QuotaTable
from postroad.mail.address import Address
from postroad.mail.attempt import Attempt, Outcome
from postroad.mail.envelope import Body, Recipient
from postroad.mail.job import Job
from postroad.mail.loop import Marks
from postroad.mail.route import Destination
from postroad.protocol.sending import Result
from postroad.store.content import pieces
from postroad.world.porter_link import Porter
from postroad.world.problem import Problem

_SEALS: Final = fcntl.F_SEAL_WRITE | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL
_LOG: Final = logging.getLogger(__name__)


class DelegatedCourier(TaskCourier):
    """Delivers one job at a time. Always usable until closed. `busy`: where those stand that carry a job."""

    def __init__(
        self, shared: CourierContext, porter: Porter | None, busy: set[DelegatedCourier], quotas: QuotaTable,
        marks: Marks | None = None,
    ) -> None:
        super().__init__(shared.loop, busy)
        self._shared = shared
        self._porter = porter
        self._quotas = quotas
        self._marks = marks

    @property
    def doing(self) -> str:
        return "delivers as another user"

    async def _attempts(self, job: Job) -> list[Attempt]:
        attempts: list[Attempt] = []
        left = "the delivery was broken off"
        try:
            with contextlib.ExitStack() as stack:
                content, prefix, size = await self._shared.loop.run_in_executor(
                    self._shared.pool, partial(_opened, job)
                )
                stack.callback(os.close, content)
                for recipient in job.named():
                    attempts += [await self._deliver(job, recipient, content, prefix, size)]
        except asyncio.CancelledError:
            pass
        except OSError as error:
            left = f"the content could not be made ready: {error.strerror or error}"
        except Exception as error:
            _LOG.exception("delivery by %s", job.destination.key)
            left = f"internal error: {type(error).__name__}"
        missing = len(job.recipients) - len(attempts)
        return attempts + [self._attempt(job, deferred("4.3.0", left), 0, 0)] * missing

    async def _deliver(self, job: Job, recipient: Recipient, content: int, prefix: bytes, size: int) -> Attempt:
        started_us = self._shared.clock.now_us()
        result = await self._asked(job, recipient, content, prefix, size, started_us)
        return self._attempt(job, result, started_us, max(0, self._shared.clock.now_us() - started_us))

    async def _asked(
        self, job: Job, recipient: Recipient, content: int, prefix: bytes, size: int, now_us: int
    ) -> Result:
        address = recipient.address
        if self._porter is None:
            return deferred("4.3.5", "delivery as another user needs a node that was started as root")
        rules, maildir = job.destination.rules, self._shared.options.maildir
        name = mailbox_name(address.local_part, maildir)
        quota = await self._shared.loop.run_in_executor(
            self._shared.pool, self._quotas.of, rules.quota_file, name, rules.quota
        )
        sender = job.reverse_path
        mark = self._marks.delivered(address, job.envelope.message_id) if self._marks is not None else ""
        frame = msgspec.msgpack.encode(PorterRequest(
            rules.table or job.destination.domain, address.local_part, address.domain,
            _pair(sender), mark, job.envelope.id, now_us,
            job.envelope.body is Body.BINARY_MIME, prefix, size, quota, _outlet(job.destination),
            _pair(recipient.given) if job.destination.outlet else None,
        ))
        if len(frame) > FRAME_MAX:
            return deferred("4.3.0", "the envelope is too long to be handed over")
        found = await self._porter.ask(frame, content)
        return deferred("4.3.5", str(found)) if isinstance(found, Problem) else read_answer(found)

    def _attempt(self, job: Job, result: Result, started_us: int, took_us: int) -> Attempt:
        assert result.outcome is not Outcome.RELAYED
        return Attempt(
            result.outcome, result.reach, result.status, result.text, started_us=started_us, took_us=took_us,
            transport=job.destination.transport.value,
        )


def _pair(address: Address | None) -> tuple[str, str] | None:
    return None if address is None else (address.local_part, address.domain)


def _outlet(destination: Destination) -> PorterOutlet | None:
    """What an alias names in the place of a mailbox; None if it is not of an alias."""
    if not destination.outlet:
        return None
    return PorterOutlet(destination.transport, destination.path, destination.command)


def _opened(job: Job) -> tuple[int, bytes, int]:
    """A descriptor of the content, the fields in front of it, and its size. On a thread."""
    envelope, content = job.envelope, job.content
    if not isinstance(content, bytes) and len(envelope.prefix) <= PREFIX_MAX:
        return os.open(content.path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW), envelope.prefix, content.size
    handle = os.memfd_create("postroad", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    try:
        size = 0
        for piece in pieces(envelope, content):
            view = memoryview(piece)
            while view:
                written = os.write(handle, view)
                view, size = view[written:], size + written
        fcntl.fcntl(handle, fcntl.F_ADD_SEALS, _SEALS)  # what one recipient's child does, the next one does not see
    except BaseException:
        os.close(handle)
        raise
    return handle, b"", size
