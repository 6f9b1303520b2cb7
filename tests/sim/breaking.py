"""Promises broken on purpose: each of these changes the node's code in one place, as a mistake could.

They are sorted by the promise that they break. `test_bites` holds that the simulator finds each of them.
"""

from __future__ import annotations

import itertools
import re
import sqlite3
from collections.abc import Callable
from typing import Any

import msgspec

from postroad.accounts.authenticate import Authenticator
from postroad.accounts.pending import PendingQuestion
from postroad.accounts.places import Places
from postroad.check import origin, sending, verified
from postroad.check.client import Clients
from postroad.check.origin_options import CheckMode
from postroad.check.sending import SendingLimits
from postroad.check.verified import RecipientQuestions
from postroad.deliver import delegated, folders, http, porter, program, session, signing, stream
from postroad.deliver.mbox import MboxWriter
from postroad.deliver.reports import ReportReader
from postroad.deliver.signing import Signing
from postroad.deliver.smtp import SmtpCourier
from postroad.mail import loop, verp
from postroad.mail.address import Address
from postroad.mail.attempt import Attempt, Outcome, Reach
from postroad.mail.envelope import Notify, Recipient
from postroad.mail.event import Accepted, Attempted, Released
from postroad.mail.job import Sent
from postroad.mail.loop import Marks
from postroad.mail.policy import ACCEPT, reject
from postroad.mail.returned import Returned
from postroad.mail.route import Fallback, SetServer, TlsDemand
from postroad.mail.size_limits import SizeLimits
from postroad.mail.tls_policy import NO_STS, StsMode, StsPolicy
from postroad.maps import tables
from postroad.maps.editions import MapAnswers
from postroad.maps.fresh import FreshAnswers
from postroad.node.frames import NoticeWanted
from postroad.node.offices.permits import PermitOffice
from postroad.node.offices.sending import SendingOffice
from postroad.node.offices.sts import StsOffice
from postroad.node.wiring import forwards
from postroad.node.wiring.sending import Sending
from postroad.node.wiring.sts import WorkerSts
from postroad.protocol import sending as wire_sending
from postroad.protocol import seven_bit, stuffing
from postroad.protocol.client import ClientMachine
from postroad.protocol.data import ChunkReader, DataReader, Scrutiny
from postroad.protocol.encoding import Base64, QuotedPrintable
from postroad.protocol.line_breaking import Breaker
from postroad.protocol.sending import Result
from postroad.protocol.server import ServerMachine
from postroad.protocol.stuffing import Stuffer
from postroad.queue import schedule
from postroad.queue.agenda import Agenda
from postroad.queue.awaiting import Awaiting
from postroad.queue.capacity import Capacity
from postroad.queue.carrying import Carrying
from postroad.queue.loading import Loading
from postroad.queue.lookahead import Lookahead
from postroad.queue.queue import Queue
from postroad.receive import changing, drop, loops, rewriting
from postroad.receive.dialog import Dialog
from postroad.receive.drop import Drop, DropFiles
from postroad.receive.inspecting import Inspections
from postroad.receive.session import ClientConnection
from postroad.report import dsn, feedback_sending
from postroad.report.counting import Counting
from postroad.report.feedback_sending import FeedbackSending
from postroad.route import batv, securing, srs
from postroad.route.alias_file import PlainTargets
from postroad.route.aliases import Aliases
from postroad.route.domain_maps import MappedDomains
from postroad.route.includes import IncludingTargets
from postroad.route.senders import Senders
from postroad.route.table import RoutingTable
from postroad.sendmail import places
from postroad.store import content as contents
from postroad.store import feedback_days, kept_reports
from postroad.store.kept_reports import KeptMail
from postroad.store.reserve import Reserve
from postroad.store.sqlite import day_events, shard, spool
from postroad.store.sqlite.journal import SqliteJournal
from postroad.store.sqlite.operation import Accept
from postroad.store.sqlite.shard import Shard
from postroad.store.sqlite.space import Space
from postroad.store.sqlite.spool import SqliteSpool
from postroad.store.sts import StsStore
from postroad.store.verified import VerifiedStore
from postroad.trust import authres_reading, dkim_verify
from postroad.trust.sts_fetch import ask_record

Patch = Callable[[Any, str, Any], None]
replace = msgspec.structs.replace
_LINE_END = re.compile(rb"\r\n|\r|\n")


def _of(part: str) -> Callable[[Callable[[Patch], None]], Callable[[Patch], None]]:
    """The mutation breaks a promise of this part (`part`): it is looked for in runs that have this one alone."""

    def named(mutation: Callable[[Patch], None]) -> Callable[[Patch], None]:
        mutation.part = part  # type: ignore[attr-defined]
        return mutation

    return named


def _accepting(patch: Patch, change: Callable[[Any], Any]) -> None:
    real = SqliteSpool.accept
    patch(SqliteSpool, "accept", lambda self, stored, *more: real(self, change(stored), *more))


def _settling(patch: Patch, change: Callable[[Any], Any]) -> None:
    real = SqliteSpool.settle
    patch(SqliteSpool, "settle", lambda self, settlement, done: real(self, change(settlement), done))


def _carried(patch: Patch, change: Callable[[tuple[Any, ...]], tuple[Any, ...]]) -> None:
    real = Carrying._carried
    patch(Carrying, "_carried", lambda self, slot, job, attempts: real(self, slot, job, change(attempts)))


# -- 1. no 250 before all is on stable storage ----------------------------------------------------------------


def the_250_comes_before_the_commit(patch: Patch) -> None:
    real = SqliteSpool.accept

    def accept(self: SqliteSpool, stored: Any, events: Any, done: Any, *more: Any) -> None:
        self._loop.call_soon(done, None)
        real(self, stored, events, lambda failure: None, *more)

    patch(SqliteSpool, "accept", accept)


def the_250_comes_though_the_commit_failed(patch: Patch) -> None:
    real = SqliteSpool.accept
    patch(
        SqliteSpool, "accept",
        lambda self, stored, events, done, *more: real(self, stored, events, lambda failure: done(None), *more),
    )  # fmt: skip


def outcomes_and_reports_count_before_their_commit(patch: Patch) -> None:
    real = SqliteSpool.settle

    def settle(self: SqliteSpool, settlement: Any, done: Any) -> None:
        self._loop.call_soon(done, None)
        self._loop.call_later(2.0, real, self, settlement, lambda failure: None)

    patch(SqliteSpool, "settle", settle)


def a_commit_on_the_loop_counts_though_it_failed(patch: Patch) -> None:
    real = Shard.finish

    def finish(self: Shard, staged: Any) -> Any:
        try:
            return real(self, staged)
        except sqlite3.Error:
            self._disconnect()
            return staged

    patch(Shard, "finish", finish)


def what_a_failed_commit_has_ended_is_not_written_again(patch: Patch) -> None:
    """Who asked for it hears of a failure, and may not ask again."""
    real = Shard._fail

    def fail(self: Shard, error: Exception, operations: Any) -> Any:
        try:
            return real(self, error, operations)
        finally:
            self._redo.clear()

    patch(Shard, "_fail", fail)


# -- 2. each recipient comes to one end, or has a next event ---------------------------------------------------


def a_recipient_that_was_deferred_vanishes(patch: Patch) -> None:
    def change(settlement: Any) -> Any:
        ended = (*settlement.ended, *(row.index for row in settlement.waiting if row.attempts == 1))
        return replace(settlement, ended=ended, waiting=tuple(row for row in settlement.waiting if row.attempts != 1))

    _settling(patch, change)


def a_retry_is_not_scheduled(patch: Patch) -> None:
    real = Agenda.schedule

    def schedule(self: Agenda, shard: int, key: str, due_us: int) -> None:
        if due_us <= self._clock.now_us() + 1_000_000:
            real(self, shard, key, due_us)

    patch(Agenda, "schedule", schedule)


def a_retry_is_scheduled_for_never(patch: Patch) -> None:
    patch(schedule, "next_due_us", lambda options, envelope, delay_reported, now_us, chance: now_us + 10**15)


def a_settlement_is_lost(patch: Patch) -> None:
    real, count = SqliteSpool.settle, itertools.count()

    def settle(self: SqliteSpool, settlement: Any, done: Any) -> None:
        if next(count) % 5 == 4:
            self._loop.call_soon(done, None)
        else:
            real(self, settlement, done)

    patch(SqliteSpool, "settle", settle)


def what_was_released_is_not_looked_at(patch: Patch) -> None:
    patch(Queue, "changed", lambda self, number, keys: self._loading.withdrawn.pop(number, None))


def what_was_held_is_delivered_all_the_same(patch: Patch) -> None:
    def withdraw(self: Queue, number: int) -> tuple[int, ...]:
        self._loading.withdrawn.setdefault(number, set())
        return ()

    patch(Queue, "withdraw", withdraw)


def a_restart_forgets_fresh_mail(patch: Patch) -> None:
    patch(Loading, "_resume_fresh", lambda self, shard, boundary, envelopes: None)


def a_restart_forgets_what_waits(patch: Patch) -> None:
    patch(Lookahead, "_read", lambda self, reading, now_us: None)


def what_waits_is_looked_at_only_when_it_starts(patch: Patch) -> None:
    real = Lookahead._read

    def read(self: Lookahead, reading: Any, now_us: int) -> None:
        if reading.far or not reading.until_us:
            real(self, reading, now_us)

    patch(Lookahead, "_read", read)


def a_destination_that_came_late_is_forgotten(patch: Patch) -> None:
    patch(Awaiting, "_hand_on", lambda self, asked: None)


def not_now_is_taken_for_never(patch: Patch) -> None:
    real = Queue._send_out

    def send_out(self: Queue, mail: Any, answers: Any) -> None:
        def never(answer: Any) -> Any:
            deferred = isinstance(answer, Attempt) and answer.outcome is Outcome.DEFERRED
            return replace(answer, outcome=Outcome.FAILED, status="5.1.2") if deferred else answer

        real(self, mail, [(index, never(answer)) for index, answer in answers])

    patch(Queue, "_send_out", send_out)


def a_domain_of_ours_is_a_foreign_one_while_its_map_is_asked(patch: Patch) -> None:
    patch(MappedDomains, "make_known", lambda self, domain: None)
    patch(MappedDomains, "is_known", lambda self, domain: True)


def aliases_that_cannot_be_looked_up_lead_nowhere(patch: Patch) -> None:
    real = loops.refusal
    patch(loops, "refusal", lambda expansion: None if expansion.not_now else real(expansion))


def mail_goes_on_under_the_old_address_if_its_map_is_away(patch: Patch) -> None:
    real = rewriting.refusal
    patch(rewriting, "refusal", lambda found: None if found.not_now else real(found))


def other_addresses_are_asked_for_and_forgotten(patch: Patch) -> None:
    patch(rewriting, "recipients", lambda draft, given: given)


def a_report_is_stored_and_never_sent(patch: Patch) -> None:
    real = Queue.add
    patch(Queue, "add", lambda self, stored: None if stored.envelope.parent else real(self, stored))


# -- 3. a failure, its report and the removal are one commit ---------------------------------------------------


def _reporting(patch: Patch, change: Callable[[Any, Any], Any]) -> None:
    real = dsn.Reporter.__call__
    patch(dsn.Reporter, "__call__", lambda self, *given, **named: change(real(self, *given, **named), named))


def a_report_is_lost(patch: Patch) -> None:
    _reporting(patch, lambda made, named: ((), made[1]))


def no_report_is_made(patch: Patch) -> None:
    _reporting(patch, lambda made, named: ((), ()))


def no_notice_of_a_delay_is_made(patch: Patch) -> None:
    _reporting(patch, lambda made, named: ((), ()) if named["delayed"] else made)


def a_delay_is_told_again_and_again(patch: Patch) -> None:
    _settling(
        patch,
        lambda settlement: replace(
            settlement, waiting=tuple(replace(row, delay_reported=False) for row in settlement.waiting)
        ),
    )


def the_report_is_committed_after_the_failure(patch: Patch) -> None:
    real = SqliteSpool.settle

    def settle(self: SqliteSpool, settlement: Any, done: Any) -> None:
        def behind(failure: Any) -> None:
            if failure is not None or not settlement.accepted:
                done(failure)
                return
            *others, last = settlement.accepted
            for stored in others:
                self._loop.call_later(1.0, self.accept, stored, (), lambda failure: None)
            self._loop.call_later(1.0, self.accept, last, (), done)

        real(self, replace(settlement, accepted=()), behind)

    patch(SqliteSpool, "settle", settle)


def the_report_is_committed_before_the_failure(patch: Patch) -> None:
    real = SqliteSpool.settle

    def settle(self: SqliteSpool, settlement: Any, done: Any) -> None:
        told = tuple(each for each in settlement.events if each.id != settlement.id)
        rest = tuple(each for each in settlement.events if each.id == settlement.id)
        if not settlement.accepted:
            real(self, settlement, done)
            return
        for stored in settlement.accepted:
            self.accept(stored, tuple(each for each in told if each.id == stored.envelope.id), lambda failure: None)
        later = replace(settlement, accepted=(), events=rest)
        self._loop.call_later(5.0, real, self, later, done)

    patch(SqliteSpool, "settle", settle)


def a_report_answers_the_null_reverse_path(patch: Patch) -> None:
    real = dsn.Reporter.__call__

    def call(self: Any, envelope: Any, outcomes: Any, **named: Any) -> Any:
        if envelope.reverse_path is None:
            envelope = replace(envelope, reverse_path=envelope.recipients[0].address)
        return real(self, envelope, outcomes, **named)

    patch(dsn.Reporter, "__call__", call)


def a_report_comes_though_nobody_wants_it(patch: Patch) -> None:
    patch(dsn, "wants", lambda notify, action, dsn_passed: True)


def a_report_names_another_recipient(patch: Patch) -> None:
    real = dsn.Reporter.__call__

    def call(self: Any, envelope: Any, outcomes: Any, **named: Any) -> Any:
        count = len(envelope.recipients)
        return real(self, envelope, [((place + 1) % count, attempt) for place, attempt in outcomes], **named)

    patch(dsn.Reporter, "__call__", call)


# -- 4. duplicates only between the remote's 250 and its commit ------------------------------------------------


def the_remotes_250_is_forgotten(patch: Patch) -> None:
    count = itertools.count()

    def change(attempts: tuple[Any, ...]) -> tuple[Any, ...]:
        if next(count) % 3 or attempts[0].outcome is not Outcome.RELAYED:
            return attempts
        return tuple(replace(each, outcome=Outcome.DEFERRED, reach=Reach.MESSAGE) for each in attempts)

    _carried(patch, change)


def a_transaction_that_went_well_is_repeated(patch: Patch) -> None:
    real, count = SmtpCourier._finished, itertools.count()

    def finished(self: SmtpCourier, event: Any) -> None:
        well = any(each.outcome is Outcome.RELAYED for each in event.results)
        work = self._work
        if work is not None and well and self._alive and not work.rest and next(count) % 4 == 3:
            work.rest = work.round
            self._begin(work)
        else:
            real(self, event)

    patch(SmtpCourier, "_finished", finished)


def outcomes_are_committed_late(patch: Patch) -> None:
    real = SqliteSpool.settle
    patch(
        SqliteSpool, "settle",
        lambda self, settlement, done: self._loop.call_later(600.0, real, self, settlement, done) and None,
    )  # fmt: skip


def more_is_carried_while_outcomes_wait_for_their_commit(patch: Patch) -> None:
    """Not with the limit on them: the disk is slow, and a crash takes them all."""
    real = SqliteSpool.settle

    def carry(self: Carrying, slot: Any, _real: Any = Carrying._carry) -> None:
        options, self.options = self.options, replace(self.options, unsettled_max=1 << 30)
        _real(self, slot)
        self.options = options

    patch(Carrying, "_carry", carry)
    patch(
        SqliteSpool, "settle",
        lambda self, settlement, done: self._loop.call_later(30.0, real, self, settlement, done) and None,
    )  # fmt: skip


# -- 5. limits ------------------------------------------------------------------------------------------------


def there_is_no_limit_on_connections(patch: Patch) -> None:
    patch(PermitOffice, "_window", lambda self, scope, count: 1000)


def permits_do_not_come_back(patch: Patch) -> None:
    real, count = PermitOffice.release, itertools.count()
    patch(
        PermitOffice, "release",
        lambda self, worker, scopes: None if next(count) % 10 == 9 else real(self, worker, scopes),
    )  # fmt: skip


def permits_of_the_dead_do_not_come_back(patch: Patch) -> None:
    patch(PermitOffice, "worker_died", lambda self, worker: None)


def octets_in_memory_are_not_counted_out(patch: Patch) -> None:
    real = Queue._forget

    def forget(self: Queue, mail: Any, indexes: Any) -> None:
        mail.octets = max(0, mail.octets - 1)
        real(self, mail, indexes)

    patch(Queue, "_forget", forget)


def there_is_no_limit_on_memory(patch: Patch) -> None:
    real = Queue._take_up

    def take_up(self: Queue, mail: Any) -> None:
        content = mail.content
        real(self, mail)
        if mail.envelope.id in self._capacity.mails:
            mail.content = content

    patch(Queue, "_take_up", take_up)


def there_is_no_limit_on_what_is_ready(patch: Patch) -> None:
    patch(Capacity, "may_wait", lambda self, lane, item: True)


def sessions_are_not_counted_out(patch: Patch) -> None:
    patch(Clients, "left", lambda self, address: None)


def a_silent_remote_is_waited_for_without_end(patch: Patch) -> None:
    patch(SmtpCourier, "_wait", lambda self: None)


# -- a full disk ----------------------------------------------------------------------------------------------


def the_reserve_is_never_given_up(patch: Patch) -> None:
    patch(Reserve, "release", lambda self: False)


def the_reserve_holds_no_space(patch: Patch) -> None:
    patch(Reserve, "_allocate", lambda self, handle: None)


def the_reserve_is_not_made_again(patch: Patch) -> None:
    patch(Space, "_fill_reserve", lambda self, shard: None)


def new_mail_takes_the_space_of_the_reserve(patch: Patch) -> None:
    patch(Space, "room", lambda self, shard: None)


# -- a crowd --------------------------------------------------------------------------------------------------


def who_has_hung_up_has_not_failed(patch: Patch) -> None:
    real = Authenticator.fails

    def fails(self: Authenticator, tried: Any, outcome: Any, told: Any, failed: Any, place: Any) -> None:
        if told is None:
            place.leave()
        else:
            real(self, tried, outcome, told, failed, place)

    patch(Authenticator, "fails", fails)


def what_is_looked_into_is_dropped_when_its_client_goes(patch: Patch) -> None:
    def drop(self: PendingQuestion) -> bool:
        self._house.drop(self)
        self._done = lambda result, account: None
        return True

    patch(PendingQuestion, "drop", drop)


def failures_lead_to_no_ban(patch: Patch) -> None:
    patch(Clients, "failed", lambda self, address, account: 1.0)


def a_ban_holds_for_everybody(patch: Patch) -> None:
    patch(Clients, "is_banned", lambda self, address, auth=True: bool(list(self.bans)))


def guesses_take_all_places_until_they_are_answered(patch: Patch) -> None:
    """And nobody waits for one."""
    def fails(self: Authenticator, tried: Any, outcome: Any, told: Any, failed: Any, place: Any) -> None:
        self.noted(tried)
        if failed is not None:
            failed(tried.name)
        self.loop.call_later(self.delay_s(tried), self._say, told, outcome, place)

    patch(Authenticator, "fails", fails)
    patch(Places, "wait", lambda self, address, ready: None)


def a_client_with_many_commands_does_not_take_turns(patch: Patch) -> None:
    real = ClientConnection._run
    patch(ClientConnection, "_run", lambda self, first=None, most=0: real(self, first, 1 << 30))


# -- the history ----------------------------------------------------------------------------------------------


def an_end_is_not_in_the_history(patch: Patch) -> None:
    def change(settlement: Any) -> Any:
        kept = tuple(each for each in settlement.events if not isinstance(each, Attempted) or each.next_us)
        return replace(settlement, events=kept)

    _settling(patch, change)


def an_end_is_in_the_history_twice(patch: Patch) -> None:
    _settling(patch, lambda settlement: replace(settlement, events=settlement.events * 2))


def the_history_says_relayed_of_what_failed(patch: Patch) -> None:
    def told(event: Any) -> Any:
        if isinstance(event, Attempted) and event.attempt.outcome is Outcome.FAILED:
            return replace(event, attempt=replace(event.attempt, outcome=Outcome.RELAYED))
        return event

    _settling(patch, lambda settlement: replace(settlement, events=tuple(map(told, settlement.events))))


def hosts_that_were_tried_are_forgotten(patch: Patch) -> None:
    def told(event: Any) -> Any:
        if isinstance(event, Attempted):
            return replace(event, attempt=replace(event.attempt, tries=event.attempt.tries[:1]))
        return event

    _settling(patch, lambda settlement: replace(settlement, events=tuple(map(told, settlement.events))))


# -- the stream and the journal's readers -----------------------------------------------------------------------


def an_event_is_published_before_its_commit(patch: Patch) -> None:
    real = SqliteSpool.accept

    def accept(self: SqliteSpool, stored: Any, events: Any, *more: Any) -> None:
        self._writer._on_published(0, events)
        real(self, stored, events, *more)

    patch(SqliteSpool, "accept", accept)
    patch(spool, "Accept", lambda *given: Accept(*given[:5]))  # and not once more after it


def an_event_is_published_though_its_commit_failed(patch: Patch) -> None:
    real = SqliteSpool.accept

    def accept(self: SqliteSpool, stored: Any, events: Any, done: Any, *more: Any) -> None:
        def answered(failure: Any) -> None:
            if failure is not None:
                self._writer._on_published(0, events)
            done(failure)

        real(self, stored, events, answered, *more)

    patch(SqliteSpool, "accept", accept)


def a_mark_runs_ahead(patch: Patch) -> None:
    real = SqliteSpool.mark
    patch(SqliteSpool, "mark", lambda self, reader, shard, seq, *more: real(self, reader, shard, seq + 3, *more))


def what_one_reader_has_is_taken_from_the_others(patch: Patch) -> None:
    patch(shard, "_had_by_all", lambda marks: max(marks.values()))


def the_journal_is_read_out_of_order(patch: Patch) -> None:
    real = SqliteJournal.read
    patch(SqliteJournal, "read", lambda self, shard, after, limit: real(self, shard, after, limit)[::-1])


def a_reader_marks_what_it_has_not_kept(patch: Patch) -> None:
    patch(Counting, "_keep", lambda self, shard, file: None)


def a_gap_before_what_is_handed_over_is_not_noticed(patch: Patch) -> None:
    patch(Counting, "on_moved", lambda self, shard, after, rows: (self._add(shard, 0, rows), None)[1])


# -- recipients and content -----------------------------------------------------------------------------------


def outcomes_of_a_job_are_mixed_up(patch: Patch) -> None:
    _carried(patch, lambda attempts: attempts[::-1])


def a_refused_recipient_counts_as_relayed(patch: Patch) -> None:
    def change(attempts: tuple[Any, ...]) -> tuple[Any, ...]:
        if not any(each.outcome is Outcome.RELAYED for each in attempts):
            return attempts
        return tuple(replace(each, outcome=Outcome.RELAYED) for each in attempts)

    _carried(patch, change)


def a_refused_sender_is_told_of_the_next_message(patch: Patch) -> None:
    """And no reply is doubted."""
    real = ClientMachine.begin

    def forget(self: ClientMachine) -> None:
        self._results = []

    def begin(self: ClientMachine, *given: Any, **more: Any) -> None:
        before = self._mail_refusal
        real(self, *given, **more)
        self._mail_refusal = before

    patch(ClientMachine, "_forget", forget)
    patch(ClientMachine, "begin", begin)


def a_full_maildir_counts_as_delivered(patch: Patch) -> None:
    patch(folders, "failed", lambda error, box: Result(Outcome.DELIVERED, Reach.RECIPIENT, "2.0.0", "delivered"))


def a_failed_delivery_leaves_half_a_message_in_the_mbox_file(patch: Patch) -> None:
    real = MboxWriter._append

    def append(self: MboxWriter, handle: int, lock: int, *more: Any) -> None:
        posix = self._posix
        self._posix = replace(posix, ftruncate=lambda at, size: posix.ftruncate(at, size) if at == lock else None)
        try:
            real(self, handle, lock, *more)
        finally:
            self._posix = posix

    patch(MboxWriter, "_append", append)


def an_octet_of_the_content_is_changed(patch: Patch) -> None:
    def change(stored: Any) -> Any:
        if not isinstance(stored.content, bytes):
            return stored
        return replace(stored, content=stored.content[:-3] + b"~\r\n")

    _accepting(patch, change)


def the_fields_on_top_of_large_content_are_lost(patch: Patch) -> None:
    _accepting(patch, lambda stored: replace(stored, envelope=replace(stored.envelope, prefix=b"")))


def the_fields_on_top_are_sent_twice(patch: Patch) -> None:
    real = contents.pieces

    def pieces(envelope: Any, content: Any, *size: int) -> Any:
        yield from real(replace(envelope, prefix=envelope.prefix * 2), content, *size)

    patch(stream, "pieces", pieces)


def an_effect_of_a_rule_is_lost(patch: Patch) -> None:
    _with_effects(patch, lambda effects: effects[1:])


def effects_are_applied_backwards(patch: Patch) -> None:
    _with_effects(patch, lambda effects: effects[::-1])


def _with_effects(patch: Patch, change: Callable[[Any], Any]) -> None:
    real = changing.change

    def changed(draft: Any, octets: Any, now_us: int) -> Any:
        draft.changes.effects = change(draft.changes.effects)
        return real(draft, octets, now_us)

    patch(changing, "change", changed)


def an_inspection_is_ended_twice(patch: Patch) -> None:
    real = Inspections.ended
    patch(Inspections, "ended", lambda self: (real(self), real(self)))


def an_inspection_is_never_ended(patch: Patch) -> None:
    patch(Inspections, "ended", lambda self: self.aborted())


def an_inspection_does_not_hear_that_a_transaction_came_to_nothing(patch: Patch) -> None:
    patch(Inspections, "aborted", lambda self: None)


def the_content_is_that_of_the_message_before(patch: Patch) -> None:
    before: list[Any] = []

    def change(stored: Any) -> Any:
        before.append(stored.content)
        return replace(stored, content=before[-2] if len(before) > 1 else stored.content)

    _accepting(patch, change)


def chunks_behind_a_refused_one_hear_something_else(patch: Patch) -> None:
    patch(ServerMachine, "_remember_refusal", lambda self, answer, swallowed, *, last: None)


def the_last_octet_of_a_refused_chunk_is_taken_for_a_command(patch: Patch) -> None:
    real = ChunkReader.read

    def read(self: ChunkReader, octets: bytes, at: int) -> tuple[int, bytes, bool]:
        behind, piece, done = real(self, octets, at)
        return behind - (done and self.scrutiny.fault is not None), piece, done

    patch(ChunkReader, "read", read)


def dots_are_not_stuffed(patch: Patch) -> None:
    patch(stuffing, "_dots", lambda octets, at_line_start: octets)


def the_end_of_data_is_said_before_the_content(patch: Patch) -> None:
    real = stuffing.stuffed

    def stuffed(content: bytes, *, seen: bool = False) -> Any:
        made = real(content, seen=seen)
        return None if made is None else (made[0][: made[0].find(b"\r\n\r\n") + 4], made[1])

    patch(stuffing, "stuffed", stuffed)


# -- 8-bit mail ------------------------------------------------------------------------------------------------


def what_is_converted_loses_its_end(patch: Patch) -> None:
    patch(QuotedPrintable, "end", lambda self: b"")
    patch(Base64, "end", lambda self: b"")


def a_part_is_named_converted_and_is_not(patch: Patch) -> None:
    patch(seven_bit, "_encoder", lambda change: None)


def a_host_is_sent_what_it_does_not_offer(patch: Patch) -> None:
    patch(wire_sending, "must_inspect", lambda envelope, offered: False)


# -- rights ---------------------------------------------------------------------------------------------------


def a_session_keeps_the_settings_that_it_began_with(patch: Patch) -> None:
    patch(Dialog, "take_settings", lambda self: None)
    patch(Dialog, "_has_lost_a_right", lambda self, current: False)


def a_message_under_way_ends_by_trust_that_is_gone(patch: Patch) -> None:
    patch(Dialog, "_has_lost_a_right", lambda self, current: False)


# -- loops ----------------------------------------------------------------------------------------------------


def an_alias_does_not_know_what_has_been_through_it(patch: Patch) -> None:
    count = itertools.count()
    patch(Marks, "expanded", lambda self, alias, message_id: f"{next(count):016}")


def a_mailbox_does_not_know_what_it_has(patch: Patch) -> None:
    count = itertools.count()
    patch(Marks, "delivered", lambda self, mailbox, message_id: f"{next(count):016}")


def marks_are_not_looked_for(patch: Patch) -> None:
    patch(loop, "found", lambda section: frozenset())


# -- stray line ends and long lines ---------------------------------------------------------------------------


def cr_cr_lf_is_two_line_ends(patch: Patch) -> None:
    patch(Scrutiny, "_mended", lambda self, piece: _LINE_END.sub(b"\r\n", piece))


def a_cr_at_the_end_of_a_piece_is_forgotten(patch: Patch) -> None:
    real = Scrutiny._mended

    def mended(self: Scrutiny, piece: bytes) -> bytes:
        self._strays = 0
        return real(self, piece)

    patch(Scrutiny, "_mended", mended)


def a_cr_alone_becomes_a_line_end(patch: Patch) -> None:
    real = Scrutiny._mended
    patch(Scrutiny, "_mended", lambda self, piece: real(self, re.sub(rb"\r(?![\r\n])", b"\r\n", piece)))


def line_ends_of_strangers_are_repaired(patch: Patch) -> None:
    patch(ServerMachine, "_repairs", lambda self: True)


def line_ends_of_nobody_are_repaired(patch: Patch) -> None:
    patch(ServerMachine, "_repairs", lambda self: False)


def a_look_alike_ends_the_data(patch: Patch) -> None:
    real = DataReader.read

    def read(self: DataReader, octets: bytes, at: int) -> tuple[int, bytes, bool]:
        found = octets.find(b"\n.\r\n", at)
        if found <= 0 or octets[found - 1 : found] == b"\r":
            return real(self, octets, at)
        _, piece, _ = real(self, octets[:found] + b"\r\n.\r\n", at)
        return found + 4, piece, True

    patch(DataReader, "read", read)


def a_look_alike_is_unstuffed(patch: Patch) -> None:
    real = DataReader._unstuff
    patch(DataReader, "_unstuff", lambda self, lines, stuffed: real(self, lines, stuffed).replace(b"\n..", b"\n."))


def long_lines_go_as_they_are(patch: Patch) -> None:
    _accepting(patch, lambda stored: replace(stored, envelope=replace(stored.envelope, long_lines=False)))


def a_line_is_forgotten_at_the_end_of_a_piece(patch: Patch) -> None:
    real = Breaker.piece

    def piece(self: Breaker, octets: bytes) -> bytes:
        self._line = 0
        return real(self, octets)

    patch(Breaker, "piece", piece)


def an_octet_is_lost_where_a_long_line_is_held(patch: Patch) -> None:
    real = Breaker.piece

    def piece(self: Breaker, octets: bytes) -> bytes:
        given = real(self, octets)
        self._rest = self._rest[1:]
        return given

    patch(Breaker, "piece", piece)


def a_break_takes_the_white_space_away(patch: Patch) -> None:
    real = Breaker._pieces
    patch(
        Breaker, "_pieces",
        lambda self, line, **more: (lambda made: (made[0].replace(b"\r\n ", b"\r\n"), made[1]))(
            real(self, line, **more)
        ),
    )  # fmt: skip


def lines_for_mailboxes_are_broken(patch: Patch) -> None:
    real = SmtpCourier._begin

    def begin(self: SmtpCourier, work: Any) -> None:
        session = self._session
        self._session = replace(session, security=replace(session.security, final=False))
        real(self, work)

    patch(SmtpCourier, "_begin", begin)


def a_dot_at_the_edge_of_a_piece_is_not_stuffed(patch: Patch) -> None:
    real = Stuffer.piece

    def piece(self: Stuffer, octets: bytes) -> bytes:
        self._at_line_start = False
        return real(self, octets)

    patch(Stuffer, "piece", piece)


# -- Several servers


def a_fallback_gets_the_account_of_its_destination(patch: Patch) -> None:
    def fallback(self: RoutingTable, server: SetServer) -> Fallback:
        named = next((hop.credentials for hop in self.options.next_hops if hop.credentials), "")
        return Fallback(server, TlsDemand.NONE, named)

    patch(RoutingTable, "_fallback", fallback)


# -- TLS policies


@_of("policies")
def no_answer_counts_as_no_records(patch: Patch) -> None:
    real = securing.find_tlsa

    async def find(host: str, port: int, resolver: Any) -> Any:
        found = await real(host, port, resolver)
        return securing.NO_TLSA if found.trouble else found

    patch(securing, "find_tlsa", find)


@_of("policies")
def any_certificate_fits_the_records(patch: Patch) -> None:
    patch(session, "fault_of", lambda policy, proof, transport, now_us: None)


@_of("policies")
def records_demand_no_encryption(patch: Patch) -> None:
    real = securing.Securing._with
    patch(
        securing.Securing, "_with",
        staticmethod(lambda hop, demand, proof, policy: real(hop, TlsDemand.MAY, proof, policy)),
    )  # fmt: skip


@_of("published")
def a_policy_that_cannot_be_renewed_is_gone(patch: Patch) -> None:
    real = securing.Securing._by_sts

    def by_sts(self: Any, hop: Any, found: Any, sts: Any) -> Any:
        return self._by_settings(hop, sts) if sts.failure.value else real(self, hop, found, sts)

    patch(securing.Securing, "_by_sts", by_sts)


@_of("published")
def a_host_that_the_policy_does_not_name_is_tried(patch: Patch) -> None:
    patch(StsPolicy, "names", lambda self, host: True)


@_of("published")
def every_policy_is_for_testing(patch: Patch) -> None:
    real = securing.Securing._by_sts

    def by_sts(self: Any, hop: Any, found: Any, sts: Any) -> Any:
        return real(self, hop, replace(found, mode=StsMode.TESTING), sts)

    patch(securing.Securing, "_by_sts", by_sts)


# -- Senders that are signed


def forwarded_mail_keeps_its_sender(patch: Patch) -> None:
    patch(srs, "forward", lambda sender, *more: sender)


def senders_of_strangers_are_signed(patch: Patch) -> None:
    real = Senders._tagged

    def tagged(self: Senders, sender: Any, envelope: Any, *more: Any) -> Any:
        return real(self, sender, replace(envelope, peer=replace(envelope.peer, trusted=True)), *more)

    patch(Senders, "_tagged", tagged)


def only_the_key_that_signs_verifies(patch: Patch) -> None:
    back, read = srs.back, batv.read
    patch(srs, "back", lambda local_part, options, keys, now_us: back(local_part, options, keys[:1], now_us))
    patch(batv, "read", lambda address, keys, days, now_us: read(address, keys[:1], days, now_us))


def any_hash_of_srs_is_right(patch: Patch) -> None:
    patch(srs, "_is_right", lambda hashed, options, keys, *parts: True)


def the_case_of_a_hash_matters(patch: Patch) -> None:
    patch(
        srs, "_is_right",
        lambda hashed, options, keys, *parts: hashed in {srs._hash(key, len(hashed), *parts) for key in keys},
    )  # fmt: skip


def a_report_without_a_valid_tag_is_taken(patch: Patch) -> None:
    patch(Senders, "_untagged", staticmethod(lambda address, wanted, why: Returned(address, note=why)))


def a_report_stays_with_the_signed_sender(patch: Patch) -> None:
    patch(Senders, "resolve", lambda self, id, now_us, recipients: (recipients, ()))


# -- What may be sent


def there_is_no_limit_on_what_is_sent(patch: Patch) -> None:
    patch(SendingLimits, "_over", lambda self, *question: "")


def limits_hold_only_until_filters_and_maps_have_answered(patch: Patch) -> None:
    patch(SendingLimits, "over", lambda self, *question: ACCEPT)


def workers_do_not_hear_what_others_have_taken(patch: Patch) -> None:
    patch(Sending, "hear", lambda self, told: None)


def who_is_over_a_limit_is_refused_for_good(patch: Patch) -> None:
    patch(sending, "defer", lambda code, *texts: reject(550, *texts))


@_of("limited")
def recipients_do_not_count_for_a_limit(patch: Patch) -> None:
    real = SendingLimits.count
    patch(SendingLimits, "count", lambda self, peer, sender, recipients, *more: real(self, peer, sender, 0, *more))


@_of("limited")
def the_postmaster_is_told_of_a_limit_again_and_again(patch: Patch) -> None:
    patch(SendingOffice, "reached", lambda self, number, key, text: self._send(number, NoticeWanted(text)))


@_of("limited")
def the_postmaster_is_not_told_of_a_limit(patch: Patch) -> None:
    patch(Sending, "tell_postmaster", lambda self, text: None)


# -- Recipients that only the next hop knows


@_of("verified")
def who_cannot_be_verified_does_not_exist(patch: Patch) -> None:
    patch(verified, "_found", lambda attempt: attempt.outcome in (Outcome.RELAYED, Outcome.DELIVERED))


@_of("verified")
def answers_of_next_hops_are_forgotten(patch: Patch) -> None:
    patch(VerifiedStore, "put", lambda self, entry: None)


@_of("verified")
def next_hops_are_asked_without_end(patch: Patch) -> None:
    patch(RecipientQuestions, "_may", lambda self, what, most: True)


# -- Delivery by HTTP


@_of("http")
def an_answer_that_means_later_fails(patch: Patch) -> None:
    patch(http, "_AGAIN", ())


@_of("http")
def a_refusal_by_http_is_tried_again(patch: Patch) -> None:
    patch(http, "_AGAIN", range(400, 500))


@_of("http")
def a_post_without_an_answer_counts_as_delivered(patch: Patch) -> None:
    real = http._deferred

    def deferred(status: str, text: str) -> Attempt:
        made = real(status, text)
        return replace(made, outcome=Outcome.DELIVERED) if status == "4.4.2" else made

    patch(http, "_deferred", deferred)


@_of("http")
def each_post_has_an_id_of_its_own(patch: Patch) -> None:
    count = itertools.count()
    patch(http, "message_key", lambda *given: f"msg_{next(count)}")


@_of("http")
def nobody_heeds_retry_after(patch: Patch) -> None:
    patch(http, "retry_after_s", lambda field, now_us: 0.0)


# -- Mail that a route holds


@_of("held")
def what_a_route_holds_is_sent(patch: Patch) -> None:
    def hold(self: Queue, mail: Any, held: Any) -> None:
        recipients = mail.envelope.recipients
        released = [(index, replace(recipients[index], released=True)) for index, _ in held]
        self._send_out(mail, [(index, self.destination_of(mail.envelope, each)) for index, each in released])

    patch(Queue, "_hold", hold)


@_of("held")
def what_was_released_is_held_again(patch: Patch) -> None:
    def change(settlement: Any) -> Any:
        return replace(settlement, waiting=tuple(replace(row, released=False) for row in settlement.waiting))

    _settling(patch, change)


@_of("held")
def a_release_is_told_before_it_is_stored(patch: Patch) -> None:
    real = SqliteSpool.settle

    def settle(self: SqliteSpool, settlement: Any, done: Any) -> None:
        if not any(isinstance(event, Released) and not event.now for event in settlement.events):
            real(self, settlement, done)
            return
        self._loop.call_soon(done, None)
        self._loop.call_later(2.0, real, self, settlement, lambda failure: None)

    patch(SqliteSpool, "settle", settle)


# -- Sizes of messages that hosts take


@_of("sized")
def a_limit_on_sizes_is_remembered_for_ever(patch: Patch) -> None:
    def exceeded(self: SizeLimits, key: str, size: int) -> int:
        limit, _ = self._entries.get(key, (size, 0.0))
        return limit if limit < size else 0

    patch(SizeLimits, "exceeded", exceeded)


@_of("sized")
def a_limit_on_sizes_counts_for_every_host(patch: Patch) -> None:
    patch(SizeLimits, "exceeded", lambda self, key, size: self.least if self.least < size else 0)


@_of("sized")
def limits_on_sizes_are_not_remembered(patch: Patch) -> None:
    patch(SizeLimits, "note", lambda self, key, size_max: None)


# -- Senders that name a recipient


@_of("verp")
def all_recipients_have_one_sender(patch: Patch) -> None:
    patch(verp, "_named", lambda sent, envelope, recipient: sent)


@_of("verp")
def the_sender_names_whom_an_alias_led_to(patch: Patch) -> None:
    real = verp.named
    patch(verp, "named", lambda sender, recipient, *more: real(sender, replace(recipient, given=None), *more))


@_of("verp")
def recipients_of_one_host_share_the_first_sender(patch: Patch) -> None:
    def of_one_sender(self: Carrying, outbound: Any, lane: Any, item: Any) -> Any:
        envelope, first = item.mail.envelope, item.indexes[0]
        path = outbound(envelope, envelope.recipients[first], lane.destination).reverse_path
        item.sent = tuple(Sent(path, envelope.recipients[index].address) for index in item.indexes)
        return item

    patch(Carrying, "_of_one_sender", of_one_sender)


@_of("verp")
def a_report_goes_to_the_sender_of_all(patch: Patch) -> None:
    patch(dsn, "_heard", lambda envelope, recipient, delimiters: envelope)


@_of("verp")
def one_report_tells_of_several_who_have_a_sender_each(patch: Patch) -> None:
    patch(dsn, "_groups", lambda told, apart: list(told.items()))


# -- Copies


@_of("copied")
def copies_are_forgotten(patch: Patch) -> None:
    patch(rewriting, "copies", lambda draft, has_had: ())


@_of("copied")
def reports_are_copied(patch: Patch) -> None:
    copy = Recipient(Address("kept", "r1.test"), Notify.NEVER)

    def stored(each: Any) -> Any:
        return replace(each, envelope=replace(each.envelope, recipients=(*each.envelope.recipients, copy)))

    def told(event: Any) -> Any:
        return replace(event, recipients=(*event.recipients, copy.name)) if isinstance(event, Accepted) else event

    _reporting(patch, lambda made, named: (tuple(map(stored, made[0])), tuple(map(told, made[1]))))


@_of("copied")
def senders_hear_of_copies(patch: Patch) -> None:
    real = rewriting.copies
    patch(
        rewriting, "copies",
        lambda *given: tuple(replace(each, notify=Notify.FAILURE) for each in real(*given)),
    )  # fmt: skip


# -- DKIM signatures


@_of("dkim")
def mail_is_signed_before_it_is_converted(patch: Patch) -> None:
    real = Signing.of

    def of(self: Any, job: Any, content: Any, plan: Any, *more: Any, **named: Any) -> Any:
        return real(self, job, job.content, None, *more, **named)

    patch(Signing, "of", of)


@_of("dkim")
def mail_of_strangers_is_signed(patch: Patch) -> None:
    patch(Signing, "_concerns", lambda self, envelope, final: not final)


@_of("dkim")
def mail_that_ends_here_is_signed(patch: Patch) -> None:
    real = Signing._concerns
    patch(Signing, "_concerns", lambda self, envelope, final: real(self, envelope, False))


@_of("dkim")
def reports_are_not_signed(patch: Patch) -> None:
    patch(signing, "_OWN_LISTENERS", frozenset())


@_of("dkim")
def one_signature_does_for_all_messages(patch: Patch) -> None:
    kept: list[Any] = []

    def signed(chosen: Any, keys: Any, head: Any, body: Any, now_s: int) -> Any:
        kept.append(real(chosen, keys, head, body, now_s))
        return kept[0]

    real = signing._signed
    patch(signing, "_signed", signed)


# -- Programs of aliases, owners of lists, and users with .forward files


@_of("targets")
def a_program_that_cannot_now_counts_as_delivered(patch: Patch) -> None:
    patch(program, "_EXITS", program._EXITS | {75: "2.0.0"})


@_of("targets")
def a_program_that_cannot_now_fails(patch: Patch) -> None:
    patch(program, "_EXITS", program._EXITS | dict.fromkeys((71, 74, 75, 78), "5.3.0"))


@_of("targets")
def an_owner_is_not_heeded(patch: Patch) -> None:
    patch(Aliases, "_owner", lambda self, address, before, asked: None)


@_of("targets")
def an_owner_is_no_return_address(patch: Patch) -> None:
    patch(dsn, "_by_sender", lambda envelope, reports: [(envelope, reports)])


@_of("targets")
def included_files_are_read_once(patch: Patch) -> None:
    patch(IncludingTargets, "changes", lambda self: ())


@_of("users")
def a_child_without_an_answer_has_delivered(patch: Patch) -> None:
    real = delegated.read_answer
    done = Result(Outcome.DELIVERED, Reach.RECIPIENT, "2.0.0", "")
    patch(delegated, "read_answer", lambda octets: real(octets) if octets else done)


@_of("users")
def mail_fails_without_the_porter(patch: Patch) -> None:
    patch(delegated, "deferred", lambda status, text: Result(Outcome.FAILED, Reach.RECIPIENT, "5.3.0", text))


@_of("users")
def all_mail_is_delivered_as_one_user(patch: Patch) -> None:
    patch(porter, "mailbox_name", lambda local_part, options: "fay")


@_of("users")
def a_file_that_cannot_be_read_now_counts_as_none(patch: Patch) -> None:
    real = forwards.read_forward
    patch(forwards, "read_forward", lambda octets: replace(real(octets), not_now=""))


@_of("users")
def what_is_sound_in_a_broken_forward_file_counts(patch: Patch) -> None:
    real = PlainTargets.read

    def read(self: PlainTargets, word: str, source: Any) -> Any:
        found = real(self, word, source)
        return () if isinstance(found, str) and source.place == "forwards" else found

    patch(PlainTargets, "read", read)


@_of("users")
def a_forward_file_is_read_once(patch: Patch) -> None:
    patch(forwards, "_OPTIONS", replace(forwards._OPTIONS, cache_s=1e6, cache_missing_s=1e6))


@_of("leading")
def where_an_alias_leads_is_kept_for_ever(patch: Patch) -> None:
    patch(FreshAnswers, "_grow_old", lambda self, loop: None)


@_of("leading")
def a_replaced_file_ends_no_answer(patch: Patch) -> None:
    """Neither does time, which would hide it."""
    real = FreshAnswers.keep

    def keep(self: Any, key: Any, value: Any) -> None:
        if getattr(key, "local_part", "text") == "text":
            real(self, key, value)

    patch(FreshAnswers, "keep", keep)
    patch(FreshAnswers, "_grow_old", lambda self, loop: None)
    patch(MapAnswers, "get", lambda self, key: self._fresh(key))


@_of("leading")
def a_map_that_was_opened_is_not_opened_anew(patch: Patch) -> None:
    patch(tables, "CHECK_US", 10**18)


@_of("leading")
def who_is_gone_meanwhile_gets_nothing(patch: Patch) -> None:
    real = Aliases.expand

    def expand(self: Aliases, id: int, now_us: int, recipients: Any, *more: Any, **named: Any) -> Any:
        found = real(self, id, now_us, recipients, *more, **named)
        return replace(found, recipients=tuple(each for each in found.recipients if each.address.domain != "led.test"))

    patch(Aliases, "expand", expand)


# -- Reports of others


@_of("reporting")
def a_mail_is_delivered_before_its_report_is_kept(patch: Patch) -> None:
    """And it never is."""
    patch(ReportReader, "_keep", lambda self, job, now_us: KeptMail(job.envelope.id, now_us))


@_of("reporting")
def a_report_is_kept_at_each_attempt(patch: Patch) -> None:
    numbers = itertools.count(1)
    real = kept_reports._put

    def put(connection: Any, mail: Any, reports: Any) -> Any:
        number = next(numbers)
        named = [replace(each, name=f"{each.name} {number}") for each in reports]
        return real(connection, replace(mail, id=mail.id + (number << 40)), named)

    patch(kept_reports, "_mail_of", lambda connection, id: None)
    patch(kept_reports, "_put", put)


# -- Where mail comes from


def _results(patch: Patch, before: str, after: str) -> None:
    """What DKIM has found is told as something else."""
    real = dkim_verify.found

    def found(verified: Any) -> Any:
        return tuple(replace(each, result=after) if each.result == before else each for each in real(verified))

    patch(dkim_verify, "found", found)


@_of("origin")
def a_policy_is_not_heeded(patch: Patch) -> None:
    real = origin.of_message
    patch(
        origin, "of_message", lambda checks, *more: real(replace(checks, dmarc=CheckMode.MARK), *more)
    )  # fmt: skip


@_of("origin")
def any_signature_is_right(patch: Patch) -> None:
    _results(patch, "fail", "pass")


@_of("origin")
def a_key_that_is_not_told_now_makes_a_signature_wrong(patch: Patch) -> None:
    _results(patch, "temperror", "fail")


@_of("origin")
def results_that_others_forged_stay(patch: Patch) -> None:
    patch(authres_reading, "forged", lambda head, ours: False)


@_of("origin")
def the_address_of_another_client_is_checked(patch: Patch) -> None:
    real = origin.SpfClient
    patch(origin, "SpfClient", lambda address, *more: real("198.51.105.1", *more))


@_of("origin")
def the_results_are_not_told(patch: Patch) -> None:
    real = origin._Transaction._marked
    patch(
        origin._Transaction, "_marked",
        lambda self, question, marked, *more: real(self, question, (), *more),
    )  # fmt: skip


# -- Reports to other domains


@_of("feedback")
def what_was_reported_is_forgotten_at_a_start(patch: Patch) -> None:
    real = FeedbackSending.__init__

    def begin(self: FeedbackSending, doors: Any, options: Any) -> None:
        for date in feedback_days.days(doors.folder):
            feedback_days.remove(doors.folder, date)
        real(self, doors, options)

    patch(FeedbackSending, "__init__", begin)


@_of("feedback")
def only_the_first_destination_of_a_report_counts(patch: Patch) -> None:
    real = feedback_sending.dmarc_places

    async def places(*given: Any, **named: Any) -> Any:
        found = await real(*given, **named)
        return msgspec.structs.replace(found, found=found.found[:1])

    patch(feedback_sending, "dmarc_places", places)


@_of("feedback")
def a_report_counts_only_what_has_left_the_journal(patch: Patch) -> None:
    patch(day_events, "_unmoved", lambda path, day: [])


@_of("feedback")
def a_report_counts_twice_what_has_just_left_the_journal(patch: Patch) -> None:
    real = day_events._open

    def unmarked(path: Any) -> Any:
        reader = real(path)
        if reader is not None:
            reader.mark = 0
        return reader

    patch(day_events, "_open", unmarked)


@_of("feedback")
def a_report_is_given_up_if_the_dns_does_not_answer_once(patch: Patch) -> None:
    patch(feedback_sending, "GIVE_UP_S", -1.0)


# -- The drop folder


def who_recovers_does_not_ask_the_spool(patch: Patch) -> None:
    """A file that was taken by a worker that is gone is taken again, whatever became of its message."""

    async def recover(files: DropFiles, is_mine: Any, known: Any, failed: Any) -> None:
        for name in files.names(drop.TAKEN, 1000):
            files.rename(name, places.WHOLE + name.rpartition("-")[2])

    patch(drop, "recover", recover)


def the_queue_hears_of_left_mail_while_its_file_is_there(patch: Patch) -> None:
    async def gone(self: Drop, name: str) -> bool:
        self._setup.doors.loop.call_later(30.0, self._files.remove, name)
        self._forget(name)
        return True

    patch(Drop, "_gone", gone)


# -- Policies of MTA-STS


@_of("sts")
def a_policy_is_forgotten_if_it_cannot_be_renewed(patch: Patch) -> None:
    real = StsOffice._failed

    def failed(self: StsOffice, flight: Any, found: Any, before: Any, now_us: int) -> None:
        real(self, flight, found, before, now_us)
        if before is not None:
            self._forget(self._entries[flight.domain])

    patch(StsOffice, "_failed", failed)


@_of("sts")
def a_policy_ends_with_its_record(patch: Patch) -> None:
    real = WorkerSts.__call__

    async def asked(self: WorkerSts, domain: str) -> Any:
        found = await ask_record(domain, self._resolver)
        return await real(self, domain) if found.id else NO_STS

    patch(WorkerSts, "__call__", asked)


@_of("sts")
def policies_are_not_kept_over_a_restart(patch: Patch) -> None:
    patch(StsStore, "entries", lambda self: [])


@_of("sts")
def a_policy_is_for_testing_only(patch: Patch) -> None:
    real = WorkerSts._as_set

    def as_set(self: WorkerSts, answer: Any) -> Any:
        self._options = replace(self._options, testing=True)
        return real(self, answer)

    patch(WorkerSts, "_as_set", as_set)


@_of("sts")
def any_host_is_one_of_a_policy(patch: Patch) -> None:
    patch(StsPolicy, "names", lambda self, host: True)
