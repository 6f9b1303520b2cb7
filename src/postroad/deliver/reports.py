"""The courier of report mailboxes: it reads the reports in a mail, keeps them, and has the mail delivered if it is to.

What always holds: reading and keeping come first, on one thread of their own, within limits, and with rests, so that
other mail does not wait for them. A mail is kept once: if it was read at an earlier attempt, it is not read again. A
mail goes on to its mailbox if all are to, and otherwise if anything of it could not be read; the delivery is that of
the mailbox, whatever it is. Mail is never lost: it ends as delivered only after its reports are on the disk.

How it fails: mail is deferred if the reports cannot be kept (4.3.1 if the disk is full, else 4.3.0). A fault of ours in
reading is logged, and the mail goes on to its mailbox as one that could not be read.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from functools import partial
from typing import Any, Final

import msgspec

from postroad.deliver.courier_context import CourierContext
from postroad.deliver.folders import deferred
from postroad.deliver.on_a_task import TaskCourier
from postroad.deliver.options import ReportCopies, ReportMailboxOptions
from postroad.mail.attempt import Attempt, Outcome, Reach
from postroad.mail.courier import Courier
from postroad.mail.job import Job
from postroad.mail.message import size
from postroad.mail.route import Destination, mailbox_itself
from postroad.protocol.sending import Result
from postroad.store.content import pieces
from postroad.store.kept_reports import KeepingFailed, KeptMail, KeptReport, MailState, ReportStore
from postroad.trust.inbound import keeping, report_mail
from postroad.trust.inbound.report_mail import InboundMail
from postroad.trust.inbound.values import TEXT_MAX, InboundTls, tidy

_LOG: Final = logging.getLogger(__name__)
_DAY_US: Final = 86_400_000_000
_WORK_S: Final = 0.005  # of reading, then a rest
_REST: Final = 3.0  # after t seconds of work, a rest of 3t: a quarter of a core
_NAMED_MAX: Final = 3  # reports that the text of an attempt names
_UNSIGNED: Final = "a TLS report without a valid DKIM signature of its reporter (RFC 8460 §3)"

class _Stopped(Exception):
    """The worker stops: what is being read is given up."""


_Opened = Callable[[Courier | Attempt], None]
Open = Callable[[Destination, _Opened, Callable[[Courier], None]], None]


class ReportReader:
    """The work itself; blocks. `name`: of this node, as its Authentication-Results have it. `now`: in seconds, for
    rests."""

    def __init__(
        self, store: ReportStore, name: str, options: ReportMailboxOptions, now: Callable[[], float],
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._store = store
        self._now = now
        self._sleep = sleep
        self._begun = 0.0
        self._stopped = False
        self.take(name, options)

    def take(self, name: str, options: ReportMailboxOptions) -> None:
        """Settings: what is read from here on goes by them."""
        self._authserv_ids = (options.authserv_id or name,)
        self.options = options
        self._store.options = options.kept

    def read(self, job: Job, now_us: int) -> KeptMail | Result:
        """What the mail holds, now that this is kept; or why it is tried again later."""
        try:
            found = self._store.find(job.envelope.id)
            return found if found is not None else self._keep(job, now_us)
        except _Stopped:
            return deferred("4.3.2", "the reading of its reports was broken off")
        except KeepingFailed as error:
            return deferred("4.3.1" if error.full else "4.3.0", f"its reports cannot be kept: {error}")
        except OSError as error:
            return deferred("4.3.0", f"the content cannot be read: {error.strerror or error}")

    def stop(self) -> None:
        """Gives up what is being read: the worker stops, and would wait for the thread. It may be called anywhere."""
        self._stopped = True

    def _keep(self, job: Job, now_us: int) -> KeptMail:
        envelope = job.envelope
        client = envelope.peer.address or "local"
        kept = KeptMail(
            envelope.id, now_us, client, "" if envelope.reverse_path is None else str(envelope.reverse_path),
            recipient=str(envelope.recipients[job.recipients[0]].address),
        )
        octets, most = size(envelope, job.content), self.options.limits.size_max
        if octets > most:
            text = f"it has {octets} octets, more than {most} (size_max)"
            return self._store.put(msgspec.structs.replace(kept, state=MailState.UNREADABLE, text=text), ())
        mails_max = self.options.kept.client_mails_max
        if self._store.sent_by(client, now_us - _DAY_US) >= mails_max:
            text = f"{client} has sent {mails_max} mails within a day (client_mails_max)"
            return self._store.put(msgspec.structs.replace(kept, state=MailState.NOT_READ, text=text), ())
        found, reports = self._read(job)
        state, text = _judged(found)
        kept = msgspec.structs.replace(
            kept, state=state, text=text, author=found.author[:255], subject=found.subject[:TEXT_MAX]
        )
        return self._store.put(kept, reports)

    def _read(self, job: Job) -> tuple[InboundMail, tuple[KeptReport, ...]]:
        self._begun = self._now()
        try:
            found = without_unsigned(report_mail.read(
                pieces(job.envelope, job.content), self.options.limits, self._breathe, self._authserv_ids
            ))
            return found, tuple(keeping.kept(found, job.envelope.id))
        except (OSError, _Stopped):
            raise
        except Exception as error:  # a fault of ours must not keep the mail from its mailbox
            _LOG.exception("reading a report")
            return InboundMail(problems=(f"internal error: {type(error).__name__}",)), ()

    def _breathe(self) -> None:
        if self._stopped:
            raise _Stopped
        worked_s = self._now() - self._begun
        if worked_s >= _WORK_S:
            self._sleep(worked_s * _REST)
            self._begun = self._now()


def without_unsigned(mail: InboundMail) -> InboundMail:
    """RFC 8460 §3: TLS reports that lack a valid signature of their reporter must be ignored. If this node did not look
    at the signatures, nobody can tell, and they are taken."""
    if not mail.standing.is_checked or mail.standing.is_signed:
        return mail
    reports = tuple(each for each in mail.reports if not isinstance(each, InboundTls))
    if len(reports) == len(mail.reports):
        return mail
    return msgspec.structs.replace(mail, reports=reports, problems=(*mail.problems, _UNSIGNED))


def _judged(found: InboundMail) -> tuple[int, str]:
    """The state of a mail, and what it holds in words."""
    named = [keeping.in_words(each) for each in found.reports[:_NAMED_MAX]]
    if len(found.reports) > _NAMED_MAX:
        named.append(f"{len(found.reports) - _NAMED_MAX} more")
    held = " and ".join(named)
    if found.problems:
        wrong = "; ".join(found.problems)
        return MailState.UNREADABLE, tidy(f"{wrong} (beside {held})" if held else wrong)
    return (MailState.READ, tidy(held)) if held else (MailState.ORDINARY, "")


class ReportCourier(TaskCourier):
    """Carries one job at a time. `open`: how couriers of the mailbox itself are opened. `busy`: where those stand that
    carry a job."""

    def __init__(
        self, shared: CourierContext, pool: Executor, reader: ReportReader, open: Open, busy: set[Any]
    ) -> None:
        super().__init__(shared.loop, busy)
        self._shared = shared
        self._pool = pool
        self._reader = reader
        self._open = open
        self._inner: Courier | None = None

    @property
    def doing(self) -> str:
        return "reads reports" if self._inner is None else self._inner.doing

    async def _attempts(self, job: Job) -> Sequence[Attempt]:
        started_us = self._shared.clock.now_us()
        try:
            found = await self._shared.loop.run_in_executor(self._pool, self._reader.read, job, started_us)
            if isinstance(found, KeptMail) and not _goes_on(found, self._reader.options):
                found = Result(Outcome.DELIVERED, Reach.RECIPIENT, "2.0.0", f"read: {_told(found)}")
            if isinstance(found, Result):
                return self._ended(job, found, started_us)
            attempts = await self._deliver(msgspec.structs.replace(job, destination=mailbox_itself(job.destination)))
            note = f"read: {_told(found)}" if found.state == MailState.READ else _told(found)
            return [_noted(attempt, note) for attempt in attempts]
        except asyncio.CancelledError:
            return self._ended(job, deferred("4.3.2", "the delivery was broken off"), started_us)
        except Exception as error:
            _LOG.exception("delivery by %s", job.destination.key)
            return self._ended(job, deferred("4.3.0", f"internal error: {type(error).__name__}"), started_us)
        finally:
            inner, self._inner = self._inner, None
            if inner is not None:
                inner.close()

    async def _deliver(self, job: Job) -> Sequence[Attempt]:
        """Has the mailbox itself get the mail."""
        loop = self._shared.loop
        opening: asyncio.Future[Courier | Attempt] = loop.create_future()
        self._open(job.destination, partial(_settle, opening), lambda courier: None)
        opened = await opening
        if isinstance(opened, Attempt):
            return [opened] * len(job.recipients)
        self._inner = opened
        carried: asyncio.Future[tuple[Attempt, ...]] = loop.create_future()
        opened.carry(job, lambda job, attempts: None if carried.done() else carried.set_result(attempts))
        return await carried

    def _ended(self, job: Job, result: Result, started_us: int) -> list[Attempt]:
        took_us = max(0, self._shared.clock.now_us() - started_us)
        attempt = Attempt(
            result.outcome, result.reach, result.status, result.text, started_us=started_us, took_us=took_us,
            transport=job.destination.transport.value,
        )
        return [attempt] * len(job.recipients)


def _goes_on(found: KeptMail, options: ReportMailboxOptions) -> bool:
    return options.deliver is ReportCopies.ALL or found.state != MailState.READ


def _told(found: KeptMail) -> str:
    match found.state:
        case MailState.READ:
            more = f" ({found.duplicates} known before)" if found.duplicates else ""
            return f"{found.text}{more}"
        case MailState.ORDINARY:
            return "no report in it"
        case MailState.NOT_READ:
            return f"not looked at for reports: {found.text}"
        case _:
            return f"its report could not be read: {found.text}"


def _noted(attempt: Attempt, note: str) -> Attempt:
    text = f"{attempt.text}; {note}" if attempt.text else note
    return msgspec.structs.replace(attempt, text=text[: TEXT_MAX * 2])


def _settle(opening: asyncio.Future[Courier | Attempt], found: Courier | Attempt) -> None:
    if not opening.cancelled():
        opening.set_result(found)
    elif not isinstance(found, Attempt):  # it comes too late
        found.close()
