"""Sends the daily reports to other domains: which day is counted when, and which report goes where and when.

One worker of a node does it. When a day (UTC) has ended, its events are counted once (`Doors.collect`, off the loop and
out of the worker) into the file of the day (`store.feedback_days`). Each report then has its turn at a moment of the
day's first hours that follows from its domain and day alone. First it is found out where it goes, which is then fixed.
Then it is made and sent: as mail of our own through queue and history, or by POST.

What always holds: mail with a report is accepted once for each domain, day and destination, whatever crashes when.
Before it is accepted, the file of the day has its queue id (BEGUN); the history has this id if and only if the
commit of its acceptance succeeded. So after a crash the history is asked, and only what it does not have is sent. A
POST cannot be made so: if nobody knows whether the server has it, it is sent again with the same report id.

How it fails: what cannot be done now is tried again later, with growing pauses, for a day; then it is FAILED with its
reason. A fault of ours at one report is logged and counts as such a failure, so that it keeps back no other report.
Nothing here ever concerns other mail.
"""

from __future__ import annotations

import asyncio
import logging
import sqlite3
from collections.abc import Awaitable, Callable, Iterable
from functools import partial
from pathlib import Path
from typing import Final, Protocol, TypeVar

import msgspec

from postroad.mail.address import is_within
from postroad.mail.event import Event
from postroad.report.feedback import DAY_S, FeedbackKind, date_of, day_of
from postroad.report.feedback_mail import Compressed, feedback_mail
from postroad.report.feedback_making import ROWS_MAX, compressed
from postroad.report.feedback_options import FeedbackOptions
from postroad.report.feedback_places import ReportPlaces, dmarc_places, mailbox_of, tls_places
from postroad.report.own_mail import acceptance
from postroad.store import feedback_days
from postroad.store.feedback_days import DayReport, DaySending, FeedbackDay, ReportState, SendingState
from postroad.store.values import Failure, Stored
from postroad.trust import dmarc_record
from postroad.trust.dmarc_walk import Names

DAY_US: Final = DAY_S * 1_000_000
COLLECT_AFTER_S: Final = 600.0  # after the day's end, until its events are in the history
LATE_DAYS: Final = 3  # days that are still reported on if the node was down meanwhile
SERVED_DAYS: Final = 6  # days whose reports are still sent, as after a longer pause: LATE_DAYS, and what is tried again
AT_ONCE: Final = 20  # reports in one turn
POSTS_AT_ONCE: Final = 2  # of them by POST: a server may take a minute to say nothing
IDLE_S: Final = 60.0  # between two looks
NEXT_S: Final = 0.2  # between two turns if more is due
AGAIN_S: Final = 600.0  # after a failure; twice as long after each further one
AGAIN_MAX_S: Final = 14_400.0
GIVE_UP_S: Final = 86_400.0  # RFC 8460 §5.5
_TEXT_MAX: Final = 500
_LOG: Final = logging.getLogger("postroad")

T = TypeVar("T")


class OffLoop(Protocol):
    """Runs work on a thread, and gives what it returned."""

    def __call__(self, work: Callable[[], T], /) -> Awaitable[T]: ...


class FeedbackDoors(msgspec.Struct, frozen=True):
    """What it needs. `collect(day)`: makes the file of a day; "" or why it could not. `was_accepted(id)`: whether the
    history has the acceptance of this message; None if it cannot tell now. `post(uri, report)`: "" or why it was not
    taken. `off_loop(work)`: runs it on a thread. `folder`: of the days' files."""

    folder: Path
    now_us: Callable[[], int]
    names: Callable[[], Names]
    new_id: Callable[[], int]
    accept: Callable[[Stored, tuple[Event, ...], Callable[[Failure | None], None]], None]
    queued: Callable[[Stored], None]
    post: Callable[[str, Compressed], Awaitable[str]]
    collect: Callable[[int], Awaitable[str]]
    was_accepted: Callable[[int], Awaitable[bool | None]]
    off_loop: OffLoop
    log: Callable[[str, str], None]


class FeedbackSending:
    """See the module. `run` on a task, or `turn` now and then."""

    def __init__(self, doors: FeedbackDoors, options: FeedbackOptions) -> None:
        self._doors = doors
        self._options = options
        self._finished: set[str] = set()
        self._collect_us: dict[int, int] = {}  # days that could not be counted, and when they are tried again
        self._told_full = ""

    def take(self, options: FeedbackOptions) -> None:
        """Settings."""
        self._options = options

    async def run(self) -> None:
        while True:
            try:
                pause_s = await self.turn()
            except (sqlite3.Error, OSError) as error:
                self._doors.log("error", f"reports to other domains: {error}; tried again in {AGAIN_S:.0f} s")
                pause_s = AGAIN_S
            except Exception:
                _LOG.exception("reports to other domains")
                pause_s = AGAIN_S
            await asyncio.sleep(pause_s)

    async def turn(self) -> float:
        """Does what is due, a bounded part of it. Returns how long to wait then. Raises sqlite3.Error, OSError."""
        if not self._options.kinds:
            return IDLE_S
        now_us = self._doors.now_us()
        today = now_us // DAY_US
        there = await self._doors.off_loop(lambda: feedback_days.days(self._doors.folder))
        for day in range(today - LATE_DAYS, today):
            if date_of(day) not in there and await self._collect(day, now_us):
                there.append(date_of(day))
        there = await self._doors.off_loop(lambda: self._without_old(there, today))
        pause_s = IDLE_S
        for date in there:
            if date not in self._finished and date >= date_of(today - SERVED_DAYS):
                pause_s = min(pause_s, await self._served(date))
        return pause_s

    async def _served(self, date: str) -> float:
        """A file that is damaged must not keep back the reports of other days."""
        try:
            return await self._serve(date)
        except sqlite3.DatabaseError as error:
            if not feedback_days.is_damage(error):
                raise
            self._doors.log("error", f"the reports for {date} cannot be sent any more: their file is damaged: {error}")
            self._finished.add(date)
            return IDLE_S

    # --- days

    async def _collect(self, day: int, now_us: int) -> bool:
        if now_us < (day + 1) * DAY_US + int(COLLECT_AFTER_S * 1e6) or now_us < self._collect_us.get(day, 0):
            return False
        why = await self._doors.collect(day)
        if why:
            self._collect_us[day] = now_us + int(AGAIN_S * 1e6)
            self._doors.log("error", f"the reports for {date_of(day)} cannot be made yet: {why}")
        return not why

    def _without_old(self, there: Iterable[str], today: int) -> list[str]:
        """Forgets days that are too old."""
        oldest = date_of(today - max(self._options.keep_days, LATE_DAYS + 1))
        for date in [each for each in there if each < oldest]:
            feedback_days.remove(self._doors.folder, date)
            self._finished.discard(date)
        return [each for each in there if each >= oldest]

    async def _serve(self, date: str) -> float:
        """Does what is due of one day. Returns how long until more is."""
        path = feedback_days.path_of(self._doors.folder, date)
        file = await self._doors.off_loop(lambda: FeedbackDay(path, writes=True))
        day = day_of(date)
        assert day is not None
        try:
            return await _Day(self, self._doors, self._options, file, day).turn()
        finally:
            file.close()

    def finished(self, day: int) -> None:
        self._finished.add(date_of(day))

    def tell_full(self, day: int) -> None:
        """More reports than may be sent: said once for each day."""
        date = date_of(day)
        if date != self._told_full:
            self._told_full = date
            most = self._options.per_day_max
            self._doors.log("warning", f"not all reports for {date} are sent: `per_day_max` is {most}")


class _Day:
    """The work of one turn on the reports of one day."""

    def __init__(
        self, whole: FeedbackSending, doors: FeedbackDoors, options: FeedbackOptions, file: FeedbackDay, day: int
    ) -> None:
        self._whole = whole
        self._doors = doors
        self._options = options
        self._file = file
        self._day = day

    async def turn(self) -> float:
        now_us = self._doors.now_us()
        for report in await self._doors.off_loop(lambda: self._file.due_reports(now_us, AT_ONCE)):
            await self._safely(self._plan(report), partial(self._not_planned, report))
        sendings = await self._doors.off_loop(lambda: self._file.due_sendings(now_us, AT_ONCE))
        posts = [each for each in sendings if _is_post(each)]
        for sending in [each for each in sendings if not _is_post(each)] + posts[:POSTS_AT_ONCE]:
            await self._safely(self._send(sending), partial(self._not_sent, sending))
        due_us = await self._doors.off_loop(self._file.next_due_us)
        if due_us is None:
            if await self._doors.off_loop(self._file.finish):
                self._whole.finished(self._day)
            return IDLE_S
        return min(IDLE_S, max(NEXT_S, (due_us - self._doors.now_us()) / 1e6))

    async def _safely(self, work: Awaitable[None], broken: Callable[[str], Awaitable[None]]) -> None:
        """Work on one report; `broken` notes that it failed by a fault of ours."""
        try:
            await work
        except (sqlite3.Error, OSError):  # the file of the day: nothing else can be done either
            raise
        except Exception as error:
            _LOG.exception("a report to another domain for %s", date_of(self._day))
            await broken(f"internal error: {type(error).__name__}")

    # --- where a report goes

    async def _plan(self, report: DayReport) -> None:
        places = await self._places(report)
        now_us = self._doors.now_us()
        sendings = [
            DaySending(report.kind, report.domain, place.uri, due_us=now_us, size_max=place.size_max)
            for place in places.found
        ]
        sendings += [
            DaySending(report.kind, report.domain, uri, SendingState.FAILED, text=why[:_TEXT_MAX])
            for uri, why in places.refused
            if uri
        ]
        await self._doors.off_loop(lambda: self._file.plan(_planned(report, places, now_us), sendings))

    async def _not_planned(self, report: DayReport, why: str) -> None:
        known = _planned(report, ReportPlaces(failed=why), self._doors.now_us())
        await self._doors.off_loop(lambda: self._file.plan(known, ()))

    async def _places(self, report: DayReport) -> ReportPlaces:
        if any(is_within(report.domain, each) for each in self._options.except_domains):
            return ReportPlaces(refused=(("", "the settings except this domain"),))
        names = self._doors.names()
        if report.kind == FeedbackKind.TLS.value:
            return await tls_places(names, report.domain)
        if not dmarc_record.is_record(report.record):
            return ReportPlaces(refused=(("", "its DMARC record was not kept"),))
        record = dmarc_record.parse(report.record)
        if not record.aggregate:
            return ReportPlaces(refused=(("", "its DMARC record asks for no aggregate reports"),))
        return await dmarc_places(names, report.domain, record)

    # --- sending

    async def _send(self, sending: DaySending) -> None:
        if sending.state is SendingState.BEGUN and sending.id:
            accepted = await self._doors.was_accepted(sending.id)
            if accepted is None:
                await self._again(sending, "the history cannot be asked whether it was sent", begun=True)
                return
            if accepted:
                await self._note(msgspec.structs.replace(sending, state=SendingState.SENT, text=""))
                return
        elif await self._doors.off_loop(self._file.sent_count) >= self._options.per_day_max:
            self._whole.tell_full(self._day)
            await self._fail(sending, f"more than {self._options.per_day_max} reports on one day")
            return
        report = await self._doors.off_loop(lambda: self._made(sending))
        if isinstance(report, str):
            await self._fail(sending, report)
        elif _is_post(sending):
            await self._post(sending, report)
        else:
            await self._mail(sending, report)

    def _made(self, sending: DaySending) -> Compressed | str:
        """The report, made again for each destination: they take different sizes, and few have several."""
        kind, domain = sending.kind, sending.domain
        known = self._file.report(kind, domain)
        limits = [each for each in (sending.size_max, self._options.size_max) if each]
        made = compressed(
            FeedbackKind(kind), domain, self._day, self._options.reporter, self._file.rows(kind, domain, ROWS_MAX),
            rows_in_all=self._file.rows_count(kind, domain), record=known.record if known is not None else "",
            size_max=min(limits),
        )  # fmt: skip
        return made or f"not even one record of it fits into {min(limits)} octets"

    async def _mail(self, sending: DaySending, report: Compressed) -> None:
        to = mailbox_of(sending.destination)
        if to is None:
            await self._fail(sending, "it is no mailto: address")
            return
        now_us, id = self._doors.now_us(), self._doors.new_id()
        stored = feedback_mail(report, self._options.reporter, to, sending.destination, id=id, now_us=now_us)
        begun = msgspec.structs.replace(
            sending, state=SendingState.BEGUN, at_us=now_us, id=id, size=len(report.octets), due_us=now_us
        )
        await self._note(begun)
        failure = await self._accepted(stored)
        if failure is not None:
            waiting = msgspec.structs.replace(begun, state=SendingState.WAITING, id=0)
            await self._again(waiting, f"it could not be stored: {failure.text}")
            return
        await self._note(msgspec.structs.replace(begun, state=SendingState.SENT, text=""))

    def _accepted(self, stored: Stored) -> asyncio.Future[Failure | None]:
        done: asyncio.Future[Failure | None] = asyncio.get_running_loop().create_future()

        def answer(failure: Failure | None) -> None:
            if failure is None:
                self._doors.queued(stored)
            if not done.done():  # else the node stops
                done.set_result(failure)

        self._doors.accept(stored, (acceptance(stored.envelope),), answer)
        return done

    async def _post(self, sending: DaySending, report: Compressed) -> None:
        now_us = self._doors.now_us()
        begun = msgspec.structs.replace(
            sending, state=SendingState.BEGUN, at_us=now_us, id=0, size=len(report.octets), due_us=now_us
        )
        await self._note(begun)
        why = await self._doors.post(sending.destination, report)
        if why:
            await self._again(msgspec.structs.replace(begun, state=SendingState.WAITING), why)
        else:
            await self._note(msgspec.structs.replace(begun, state=SendingState.SENT, text=""))

    async def _again(self, sending: DaySending, why: str, *, begun: bool = False) -> None:
        """A failure that need not be the last. `begun`: it may have been sent, so it is never given up."""
        tries = sending.tries + 1
        if _pauses_s(tries) > GIVE_UP_S and not begun:
            await self._fail(sending, why)
            return
        due_us = self._doors.now_us() + _pause_us(tries)
        await self._note(msgspec.structs.replace(sending, tries=tries, due_us=due_us, text=why[:_TEXT_MAX]))

    async def _not_sent(self, sending: DaySending, why: str) -> None:
        """What the file says of it now counts: its mail may have been accepted."""
        known = await self._doors.off_loop(lambda: self._file.sendings_of(sending.kind, sending.domain))
        for each in known:
            if each.destination == sending.destination and each.state in (SendingState.WAITING, SendingState.BEGUN):
                begun = each.state is SendingState.BEGUN and each.id > 0
                waiting = each if begun else msgspec.structs.replace(each, state=SendingState.WAITING)
                await self._again(waiting, why, begun=begun)

    async def _fail(self, sending: DaySending, why: str) -> None:
        self._doors.log(
            "warning",
            f"the {sending.kind} report on {sending.domain} for {date_of(self._day)} is not sent to"
            f" {sending.destination}: {why}",
        )
        await self._note(
            msgspec.structs.replace(
                sending, state=SendingState.FAILED, at_us=self._doors.now_us(), text=why[:_TEXT_MAX]
            )
        )

    async def _note(self, sending: DaySending) -> None:
        await self._doors.off_loop(lambda: self._file.note(sending))


def _is_post(sending: DaySending) -> bool:
    return sending.destination.partition(":")[0].lower() == "https"


def _planned(report: DayReport, places: ReportPlaces, now_us: int) -> DayReport:
    """The report when this is known of its destinations. If the DNS did not answer about some of them, it is asked
    again; what is known is sent meanwhile."""
    tries = report.tries + 1
    whys = [why for _, why in places.refused]
    state = ReportState.PLANNED if places.found else ReportState.NONE
    due_us = report.due_us
    if places.failed:
        whys.insert(0, places.failed)
        if _pauses_s(tries) <= GIVE_UP_S:
            state, due_us = ReportState.OPEN, now_us + _pause_us(tries)
    return msgspec.structs.replace(
        report, state=state, text="; ".join(whys)[:_TEXT_MAX], tries=tries, due_us=due_us
    )


def _pause_us(tries: int) -> int:
    return int(min(AGAIN_MAX_S, AGAIN_S * 2 ** min(tries - 1, 20)) * 1e6)


def _pauses_s(tries: int) -> float:
    """How long all pauses have been together by now."""
    return sum(_pause_us(each) / 1e6 for each in range(1, tries))
