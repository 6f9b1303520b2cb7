"""The courier for mbox files: it writes on a thread, and comes again for mailboxes that somebody else has locked.

What always holds: no thread waits for a lock. How it fails: mail is deferred (4.2.0) if its mailbox is locked for
longer than `lock_s`, or is locked when the courier is closed.
"""

from __future__ import annotations

import logging
import random
from collections.abc import Callable
from typing import Final

from postroad.deliver.courier_context import CourierContext
from postroad.deliver.folders import deferred, guarded
from postroad.deliver.letter import letter
from postroad.deliver.mailbox import mailbox_name, mbox_file
from postroad.deliver.mbox import Locked, MboxGate, MboxWriter
from postroad.deliver.quota import QuotaTable
from postroad.mail.address import Address
from postroad.mail.attempt import Attempt, Outcome, Reach
from postroad.mail.job import Job
from postroad.mail.loop import Marks
from postroad.mail.route import Transport
from postroad.protocol.sending import Result
from postroad.world.files import Posix

_LOG: Final = logging.getLogger(__name__)
AGAIN_FIRST_S: Final = 0.05  # after which a locked mailbox is tried again; then twice as long
AGAIN_MAX_S: Final = 1.0


class MboxCourier:
    """Delivers one job at a time. Always usable until closed. `gate`: that of the process. `chance`: two who wait for
    one lock do not come at the same time."""

    def __init__(
        self, shared: CourierContext, posix: Posix, gate: MboxGate, chance: random.Random, marks: Marks | None = None,
        quotas: QuotaTable | None = None,
    ) -> None:
        self._shared = shared
        self._writer = MboxWriter(shared.options.mbox, posix, gate, make_folders=shared.options.maildir.make_folders)
        self._chance = chance
        self._quotas = quotas or QuotaTable()
        self._marks = marks
        self._carrying: _Carrying | None = None
        self._closed = False

    @property
    def usable(self) -> bool:
        return self._carrying is None and not self._closed

    @property
    def elsewhere(self) -> bool:
        return False

    @property
    def doing(self) -> str:
        locked = self._carrying.locked() if self._carrying is not None else ""
        return f"waits for a mailbox that is locked: {locked}" if locked else "writes into mbox files"

    def carry(self, job: Job, done: Callable[[Job, tuple[Attempt, ...]], None]) -> None:
        """Carry a job. One at a time."""
        assert self._carrying is None, "one job at a time"
        self._carrying = _Carrying(job, done, self._shared.loop.time(), self._shared.clock.now_us())
        self._write(self._carrying)

    def close(self) -> None:
        self._closed = True

    def _write(self, carrying: _Carrying) -> None:
        work = self._shared.loop.run_in_executor(self._shared.pool, self._put_all, carrying)
        work.add_done_callback(lambda future: self._written(carrying, future.exception()))

    def _written(self, carrying: _Carrying, bug: BaseException | None) -> None:
        if bug is not None:
            _LOG.error("delivery by %s", carrying.job.destination.key, exc_info=bug)
        over = self._shared.loop.time() - carrying.since >= self._shared.options.mbox.lock_s or self._closed
        if carrying.locked() and not over:
            wait_s = carrying.wait_s * self._chance.uniform(0.5, 1.0)
            carrying.wait_s = min(AGAIN_MAX_S, carrying.wait_s * 2)
            self._shared.loop.call_later(wait_s, self._write, carrying)
            return
        self._carrying = None
        took_us = max(0, self._shared.clock.now_us() - carrying.started_us)
        results = (self._ended(carrying.results.get(index)) for index in carrying.job.recipients)
        carrying.done(carrying.job, tuple(_attempt(result, carrying.started_us, took_us) for result in results))

    def _ended(self, result: Result | Locked | None) -> Result:
        if isinstance(result, Result):
            return result
        if result is None:
            return deferred("4.3.0", "internal error")
        return deferred("4.2.0", f"the mailbox is locked: {result.by}")

    def _put_all(self, carrying: _Carrying) -> None:
        """On a thread: all that have no result yet."""
        job = carrying.job
        for index, recipient in zip(job.recipients, job.named(), strict=True):
            if not isinstance(carrying.results.get(index), Result):
                carrying.results[index] = self._put(job, recipient.address, carrying.started_us)

    def _put(self, job: Job, address: Address, now_us: int) -> Result | Locked:
        maildir = self._shared.options.maildir
        box = mbox_file(job.destination.path, address, job.destination.domain, maildir)
        if isinstance(box, str):
            return Result(Outcome.FAILED, Reach.RECIPIENT, "5.1.3", f"there can be no such mailbox: its {box}")
        rules = job.destination.rules
        quota = self._quotas.of(rules.quota_file, mailbox_name(address.local_part, maildir), rules.quota)
        return guarded(box, lambda: self._writer.put(box, letter(job, address, self._marks), now_us, rules, quota.size))


class _Carrying:
    """A job under way. `results`: by recipient."""

    def __init__(
        self, job: Job, done: Callable[[Job, tuple[Attempt, ...]], None], since: float, started_us: int
    ) -> None:
        self.job = job
        self.done = done
        self.since = since
        self.started_us = started_us
        self.wait_s = AGAIN_FIRST_S
        self.results: dict[int, Result | Locked] = {}

    def locked(self) -> str:
        """Which lock it waits for; "" for none."""
        return next((each.by for each in list(self.results.values()) if isinstance(each, Locked)), "")


def _attempt(result: Result, started_us: int, took_us: int) -> Attempt:
    return Attempt(
        result.outcome, result.reach, result.status, result.text, started_us=started_us, took_us=took_us,
        transport=Transport.MBOX.value,
    )
