"""Local delivery into Maildirs (https://cr.yp.to/proto/maildir.html), on threads.

A message is written to ``tmp``, synced, moved to ``new``, and ``new`` is synced; only then it is delivered. The fields
on top of it are those of `deliver.letter`.

Files that a crash left in ``tmp`` are removed when they are older than 36 hours, as the specification asks. Only files
with our names are removed. We look for them when mail comes for the mailbox, at most once in `_SWEEP_US`.

What always holds: a file name is used once (time, process, count, queue id, host); nothing half written is ever in
``new``; folders below the operator's part of the path are safe (`deliver.folders`).

A mailbox has a quota (`deliver.quota`) and subfolders for address extensions if the rules of the domain say so.

How it fails: if the mailbox is full, mail is deferred (4.2.2) or fails (5.2.2), as the rules say; a message that is
larger than the whole quota fails (5.2.3). Mail is deferred if the disk is full (4.3.1), if the user's quota of the
system is full (4.2.2), if a folder is not as it should be (4.3.5), and at any other error of the system (4.3.0), each
time with the reason; the file in ``tmp`` is removed. If the name of a mailbox makes no path, mail fails (5.1.3). Not
here: who exists (`route`, `check`).
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import logging
import os
import re
from collections.abc import Callable
from typing import Final

from postroad.deliver.courier_context import CourierContext
from postroad.deliver.files import write_message
from postroad.deliver.folders import FolderOpener, guarded
from postroad.deliver.letter import Letter, letter
from postroad.deliver.mailbox import Folder, detail_folder, folder, mailbox_name
from postroad.deliver.options import MaildirOptions
from postroad.deliver.quota import QuotaTable, Usage, add, exceeds, share, usage_with
from postroad.mail import identifier
from postroad.mail.address import Address
from postroad.mail.attempt import Attempt, Outcome, Reach
from postroad.mail.job import Job
from postroad.mail.loop import Marks
from postroad.mail.route import MailboxRules, Quota, Transport
from postroad.protocol.sending import Result
from postroad.world.files import Posix

_LOG: Final = logging.getLogger(__name__)
_NO_RULES: Final = MailboxRules()
_NO_QUOTA: Final = Quota()
_LEFT_US: Final = 36 * 3_600_000_000  # https://cr.yp.to/proto/maildir.html: "safely deletes" 36 hours old files
_SWEEP_US: Final = 6 * 3_600_000_000  # between two looks for leftovers in a mailbox
_SWEEP_MAX: Final = 10_000  # files that one look looks at
_SWEPT_MAX: Final = 100_000  # mailboxes of which the last look is remembered
_CREATE: Final = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC


class MaildirCourier:
    """Delivers one job at a time, one recipient after the other. Always usable until closed."""

    def __init__(
        self, shared: CourierContext, posix: Posix, marks: Marks | None = None, quotas: QuotaTable | None = None
    ) -> None:
        self._shared = shared
        self._writer = Writer(shared.name, shared.options.maildir, posix, marks, quotas)
        self._busy = False
        self._closed = False

    @property
    def usable(self) -> bool:
        return not self._busy and not self._closed

    @property
    def elsewhere(self) -> bool:
        return False

    @property
    def doing(self) -> str:
        return "writes into Maildirs"

    def carry(self, job: Job, done: Callable[[Job, tuple[Attempt, ...]], None]) -> None:
        """Carry a job. One at a time."""
        assert not self._busy, "one job at a time"
        self._busy = True
        started_us = self._shared.clock.now_us()

        def ended(future: asyncio.Future[tuple[Result, ...]]) -> None:
            self._busy = False
            took_us = max(0, self._shared.clock.now_us() - started_us)
            done(job, tuple(_attempt(result, started_us, took_us) for result in future.result()))

        work = self._shared.loop.run_in_executor(self._shared.pool, self._writer.deliver, job, started_us)
        work.add_done_callback(ended)

    def close(self) -> None:
        self._closed = True


def _attempt(result: Result, started_us: int, took_us: int) -> Attempt:
    return Attempt(
        result.outcome, result.reach, result.status, result.text, started_us=started_us, took_us=took_us,
        transport=Transport.MAILDIR.value,
    )


class Writer:
    """The work itself; blocks. `host`: ours, for file names. `marks`: None if none are made."""

    def __init__(
        self, host: str, options: MaildirOptions, posix: Posix, marks: Marks | None = None,
        quotas: QuotaTable | None = None,
    ) -> None:
        self._host = host.replace("/", "\\057").replace(":", "\\072")  # as the specification has it
        self._options = options
        self._posix = posix
        self._folders = FolderOpener(posix, make=options.make_folders)
        self._present = FolderOpener(posix, make=False)
        self._quotas = quotas or QuotaTable()
        self._marks = marks
        self._own = re.compile(rf"(\d{{1,12}})\.M\d{{6}}P\d+Q\d+_[0-9a-z]{{12}}\.{re.escape(self._host)}")
        self._swept: dict[Folder, int] = {}  # when the leftovers of a mailbox were looked for
        self._count = itertools.count(1)

    def deliver(self, job: Job, now_us: int) -> tuple[Result, ...]:
        """One result for each recipient of the job, in order."""
        return tuple(self._deliver(job, recipient.address, now_us) for recipient in job.named())

    def _deliver(self, job: Job, address: Address, now_us: int) -> Result:
        box = folder(job.destination.path, address, job.destination.domain, self._options)
        if isinstance(box, str):
            return Result(Outcome.FAILED, Reach.RECIPIENT, "5.1.3", f"there can be no such mailbox: its {box}")
        rules = job.destination.rules
        name = mailbox_name(address.local_part, self._options)
        quota = self._quotas.of(rules.quota_file, name, rules.quota)
        below = detail_folder(address.local_part, self._options) if rules.detail_folders else ""
        return guarded(box, lambda: self.put(box, below, letter(job, address, self._marks), now_us, rules, quota))

    def put(
        self, box: Folder, below: str, letter: Letter, now_us: int, rules: MailboxRules = _NO_RULES,
        quota: Quota = _NO_QUOTA,
    ) -> Result:
        """Deliver into one Maildir, or into its subfolder `below` if that is there. Raises OSError."""
        with contextlib.ExitStack() as stack:
            root = self._folders.open(box.base, box.names, stack)
            at, place = root, str(box)
            if below:
                with contextlib.suppress(FileNotFoundError):
                    at, place = self._present.open_below(below, root, stack), f"{box}/{below}"
            meter = _Meter(self._posix, root, str(box), rules, quota) if quota != _NO_QUOTA else None
            name = self._write(box, at, letter, now_us, stack, meter)
        if isinstance(name, Result):
            return name
        return Result(Outcome.DELIVERED, Reach.RECIPIENT, "2.0.0", f"delivered to {place}/new/{name}")

    def _write(
        self, box: Folder, at: int, letter: Letter, now_us: int, stack: contextlib.ExitStack, meter: _Meter | None
    ) -> str | Result:
        posix = self._posix
        temporary = self._name(letter.id, now_us)
        opened = {name: self._folders.open_below(name, at, stack) for name in ("cur", "tmp", "new")}
        tmp, new = opened["tmp"], opened["new"]
        if now_us - self._swept.get(box, -_SWEEP_US) >= _SWEEP_US:
            self._sweep(box, tmp, now_us)
        try:
            handle = posix.open(temporary, _CREATE, 0o600, dir_fd=tmp)
            try:
                written = write_message(posix, handle, letter.octets(), binary=letter.binary)
                full = meter.full(written, now_us) if meter is not None else None
                if full is None:
                    posix.fsync(handle)
            finally:
                posix.close(handle)
            if full is not None:
                posix.unlink(temporary, dir_fd=tmp)
                return full
            # S: octets of the file, W: octets with CRLF line ends; mail readers take both from the name
            name = f"{temporary},S={written},W={letter.size}"
            posix.rename(temporary, name, src_dir_fd=tmp, dst_dir_fd=new)
        except BaseException:
            with contextlib.suppress(OSError):
                posix.unlink(temporary, dir_fd=tmp)
            raise
        try:
            posix.fsync(new)
        except OSError:
            with contextlib.suppress(OSError):  # it will be delivered again
                posix.unlink(name, dir_fd=new)
            raise
        if meter is not None:
            meter.count(written)
        return name

    def _sweep(self, box: Folder, tmp: int, now_us: int) -> None:
        """Remove what a crash has left of us in ``tmp``. How it fails: it is tried again some other time."""
        if len(self._swept) >= _SWEPT_MAX:
            self._swept.clear()
        self._swept[box] = now_us
        before_s = (now_us - _LEFT_US) // 1_000_000
        with contextlib.suppress(OSError), os.scandir(tmp) as entries:
            for entry in itertools.islice(entries, _SWEEP_MAX):
                made = self._own.fullmatch(entry.name)
                # Both by the time in the name and by that of the last write: a clock may have been wrong.
                if made is None or int(made[1]) >= before_s or entry.stat(follow_symlinks=False).st_mtime >= before_s:
                    continue
                self._posix.unlink(entry.name, dir_fd=tmp)

    def _name(self, id: int, now_us: int) -> str:
        seconds, microseconds = divmod(now_us, 1_000_000)
        return (
            f"{seconds}.M{microseconds:06}P{os.getpid()}Q{next(self._count)}_{identifier.text(id)}.{self._host}"
        )


class _Meter:
    """The quota of one mailbox, while one message comes into it. `box`: its descriptor."""

    def __init__(self, posix: Posix, box: int, place: str, rules: MailboxRules, quota: Quota) -> None:
        self._posix = posix
        self._box = box
        self._place = place
        self._rules = rules
        self._quota = quota
        self._usage = Usage(0, 0)

    def full(self, size: int, now_us: int) -> Result | None:
        """Why there is no room for the message; None if there is."""
        quota = self._quota
        if quota.size and size > quota.size:
            text = f"{self._place}: the message has {size} octets, and the mailbox may hold {quota.size}"
            return Result(Outcome.FAILED, Reach.RECIPIENT, "5.2.3", text)
        self._usage = usage_with(self._posix, self._box, quota, size, now_us)
        if not exceeds(self._usage, quota):
            return None
        return over_quota(self._place, self._rules)

    def count(self, size: int) -> None:
        """The message is there."""
        add(self._posix, self._box, size)
        usage, warning = self._usage, self._rules.quota_warning / 100
        before = Usage(usage.size - size, usage.messages - 1)
        if warning and share(before, self._quota) < warning <= share(usage, self._quota):
            _LOG.warning("%s uses %d %% of its quota", self._place, share(usage, self._quota) * 100)


def over_quota(place: str, rules: MailboxRules) -> Result:
    """What becomes of a message for a mailbox that is full."""
    if rules.over_quota_fails:
        return Result(Outcome.FAILED, Reach.RECIPIENT, "5.2.2", f"{place}: the mailbox is full")
    return Result(Outcome.DEFERRED, Reach.RECIPIENT, "4.2.2", f"{place}: the mailbox is full")
