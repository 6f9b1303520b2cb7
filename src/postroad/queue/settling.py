"""Outcomes become settlements: ends, new due times, DSNs and events of one message, committed together (promise 3).

What always holds:
- Settlements of one message reach the spool one after the other; the first names all recipients. Those that come while
  one is under way wait, and are then one commit.
- A settlement that fails (disk full) is tried again until it succeeds; `unsettled` counts all that are not committed.
  If the commit may be on the disk all the same, the spool itself writes it again.
- A failure is never settled without its DSN: if making it broke (a bug), the recipient is kept and tried much later.
- Failures of one message that come within `gather_s` are told of in one report. Until then they are, to the spool,
  recipients that were not tried yet.

Not here: when and where a recipient is tried (`queue.carrying`), what a DSN says (`report`), the intervals
(`queue.schedule`).
"""

from __future__ import annotations

import asyncio
import random
import traceback
from collections.abc import Callable, Sequence
from functools import partial
from typing import Final

import msgspec

from postroad.mail import wishes
from postroad.mail.attempt import Attempt, Outcome
from postroad.mail.envelope import Envelope, Notify
from postroad.mail.event import Attempted, Event, Held, Noted
from postroad.mail.message import Content
from postroad.mail.route import Retry
from postroad.mail.routing import HOLD
from postroad.mail.seldom import Seldom
from postroad.queue import schedule
from postroad.queue.lane import QueuedMessage
from postroad.queue.options import QueueOptions
from postroad.store.face import Spool
from postroad.store.reports import MakeReports
from postroad.store.values import Failure, Settlement, Stored, Waiting
from postroad.world.clock import Clock

ENDS: Final = (Outcome.DELIVERED, Outcome.RELAYED)

Outcomes = Sequence[tuple[int, Attempt]]  # by the recipient's index
Keys = dict[int, str]  # the key of each recipient's destination, by its index


class Settling:
    """See the module. `rows_of(mail, indexes, due_us)` returns rows for recipients that have none in the spool yet.
    `on_committed(mail, settlement, removed_from_memory, settling_next)` is called when the settlement is durable. Then
    some recipients have left memory, and the next settlement of the message, about others, is under way."""

    def __init__(
        self,
        *,
        spool: Spool,
        options: QueueOptions,
        clock: Clock,
        random: random.Random,
        loop: asyncio.AbstractEventLoop,
        report: MakeReports,
        tell: Callable[[tuple[Event, ...]], None],
        rows_of: Callable[[QueuedMessage, Sequence[int], int], tuple[Waiting, ...]],
        on_committed: Callable[[QueuedMessage, Settlement, set[int], set[int]], None],
    ) -> None:
        self._spool = spool
        self.options = options
        self._clock = clock
        self._random = random
        self._loop = loop
        self._report = report
        self._tell = tell
        self._rows_of = rows_of
        self._on_committed = on_committed
        self._seldom = Seldom(clock.now_us)
        self._under_way: dict[int, list[Settlement]] = {}  # id → settlements that wait for the one under way
        self._of_retry: dict[Retry, QueueOptions] = {}  # those that the settings name
        self._stopping = False
        self.unsettled = 0  # outcomes whose commit has not come

    def take(self, options: QueueOptions) -> None:
        """Takes new settings."""
        self.options = options
        self._of_retry.clear()

    def options_for(self, retry: Retry | None) -> QueueOptions:
        """Returns the settings for mail to a destination with these pauses and lifetimes."""
        if retry is None:
            return self.options
        found = self._of_retry.get(retry)
        if found is None:
            said = {name: value for name, value in msgspec.structs.asdict(retry).items() if value is not None}
            found = msgspec.structs.replace(self.options, **said)
            longest_s = found.retry_max_s
            if retry.retry_max_s is not None:  # the back-off of the destination does not exceed it
                found = msgspec.structs.replace(
                    found, backoff_first_s=min(found.backoff_first_s, longest_s),
                    backoff_max_s=min(found.backoff_max_s, longest_s),
                )
            self._of_retry[retry] = found
        return found

    def is_under_way(self, number: int) -> bool:
        """Whether a settlement of the message waits for its commit."""
        return number in self._under_way

    def stop(self, mails: Sequence[QueuedMessage]) -> None:
        """Stops keeping failures back: from here on each is settled at once."""
        self._stopping = True
        for mail in mails:
            self.tell_failures(mail)

    # -- what became of recipients -----------------------------------------------------------------------------------

    def finish(
        self, mail: QueuedMessage, results: Outcomes, destination_key: str, not_before_us: int = 0,
        retry: Retry | None = None,
    ) -> None:
        """Turns outcomes of one destination into one settlement. Failures may wait for other failures of their message.
        `retry`: the pauses of the destination."""
        if len(results) == 1 and results[0][1].outcome in ENDS:
            index, attempt = results[0]
            if not _is_wanted(mail.envelope, index, attempt):  # so end nearly all recipients: nobody is to be told
                self._settle_end(mail, index, attempt, destination_key)
                return
        options = self.options_for(retry)
        if len(mail.active) > len(results) and not self._stopping and options.gather_s > 0:
            results = self._gather(mail, results, destination_key, options)
        if results:
            destination_keys = dict.fromkeys((index for index, _ in results), destination_key)
            self._finish_now(mail, results, destination_keys, not_before_us, options)

    def _settle_end(self, mail: QueuedMessage, index: int, attempt: Attempt, destination_key: str) -> None:
        envelope, now_us = mail.envelope, self._clock.now_us()
        names = (envelope.recipients[index].name,)
        attempted = Attempted(now_us, envelope.id, names, destination_key, attempt, _attempts(mail, index), 0)
        self.settle(mail, Settlement(envelope.id, (index,), (), (), (attempted,)), (index,))

    def _gather(
        self, mail: QueuedMessage, results: Outcomes, destination_key: str, options: QueueOptions
    ) -> Outcomes:
        """Keeps failures back for `gather_s` while other recipients of the message are under way, so that a message to
        a thousand dead domains brings one report and not a thousand. In the spool these recipients count as not tried
        yet: after a crash they are tried, and fail, again. Returns what is not kept back."""
        now_us = self._clock.now_us()
        late = now_us >= schedule.expires_us(options, mail.envelope)
        failed = [
            (index, attempt if attempt.outcome is _FAILED else _expired(attempt, mail.envelope, now_us))
            for index, attempt in results
            if attempt.outcome is _FAILED or (late and attempt.outcome is _DEFERRED)
        ]
        if not failed:
            return results
        if not mail.failing:
            self._loop.call_later(options.gather_s, self.tell_failures, mail)
        mail.failing += [(index, attempt, destination_key) for index, attempt in failed]
        if len(mail.failing) == len(mail.active):
            self.tell_failures(mail)
        kept = {index for index, _ in failed}
        return [each for each in results if each[0] not in kept]

    def tell_failures(self, mail: QueuedMessage) -> None:
        """Makes one settlement, with one report, of the failures that were kept back."""
        failing, mail.failing = mail.failing, []
        if failing:
            results = [(index, attempt) for index, attempt, _ in failing]
            destination_keys = {index: destination_key for index, _, destination_key in failing}
            self._finish_now(mail, results, destination_keys, 0, self.options)

    def _finish_now(
        self, mail: QueuedMessage, results: Outcomes, destination_keys: Keys, not_before_us: int, options: QueueOptions
    ) -> None:
        """Settles. If a DSN needs content that is not in memory, reads it first."""
        if mail.content is None and self._needs_content(mail, results, options):
            self.unsettled += 1
            self._spool.content(
                mail.envelope.id, partial(self._finish_with, mail, results, destination_keys, not_before_us, options)
            )
        else:
            self._settle_results(mail, results, destination_keys, not_before_us, options, mail.content or b"")

    def _finish_with(
        self,
        mail: QueuedMessage,
        results: Outcomes,
        destination_keys: Keys,
        not_before_us: int,
        options: QueueOptions,
        content: Content | None,
    ) -> None:
        self.unsettled -= 1
        self._settle_results(
            mail, results, destination_keys, not_before_us, options, content if content is not None else b""
        )

    def _needs_content(self, mail: QueuedMessage, results: Outcomes, options: QueueOptions) -> bool:
        envelope, now_us = mail.envelope, self._clock.now_us()
        late = _may_report(options, envelope, now_us)
        return any(
            attempt.outcome is _FAILED
            or (attempt.outcome is _DEFERRED and late)
            or (attempt.outcome in ENDS and _is_wanted(envelope, index, attempt))
            for index, attempt in results
        )

    def _settle_results(
        self, mail: QueuedMessage, results: Outcomes, destination_keys: Keys, not_before_us: int,
        options: QueueOptions, content: Content,
    ) -> None:
        envelope, now_us = mail.envelope, self._clock.now_us()
        found = self._judge(mail, results, destination_keys, not_before_us, options, now_us)
        events: list[Event] = [
            Attempted(now_us, envelope.id, tuple(names), destination_key, attempt, attempts, due_us)
            for (attempt, attempts, due_us, destination_key), names in found.groups.items()
        ]
        accepted: tuple[Stored, ...] = ()
        if found.to_report:
            made = self._reported(mail, found.to_report, delayed=False, content=content, until_us=0)
            if made is None:
                # Nobody may fail without a word: who has is kept, and it is tried again much later.
                unsaid = {index: attempt for index, attempt in found.to_report if attempt.outcome is _FAILED}
                found.ended = [index for index in found.ended if index not in unsaid]
                found.waiting.extend(self._unsaid(mail, unsaid, destination_keys, now_us))
            else:
                accepted, reported = made
                events.extend(reported)
        if found.delayed:
            until_us = schedule.expires_us(options, envelope)
            made = self._reported(mail, found.delayed, delayed=True, content=content, until_us=until_us)
            if made is not None:
                accepted += made[0]
                events.extend(made[1])
        indexes = tuple(index for index, _ in results)
        self.settle(
            mail, Settlement(envelope.id, tuple(found.ended), tuple(found.waiting), accepted, tuple(events)), indexes
        )

    def _judge(
        self, mail: QueuedMessage, results: Outcomes, destination_keys: Keys, not_before_us: int,
        options: QueueOptions, now_us: int,
    ) -> _Judged:
        """Finds which recipients have ended, when the others are due, and which reports are needed."""
        envelope = mail.envelope
        found = _Judged()
        expires_us = schedule.expires_us(options, envelope)
        notice_us = schedule.delay_due_us(options, envelope)
        for index, attempt in results:
            destination_key = destination_keys[index]
            state = mail.states.get(index) if mail.states else None
            attempts = _attempts(mail, index)
            recipient = envelope.recipients[index]
            due_us = 0
            if attempt.outcome in ENDS:
                found.ended.append(index)
                if _is_wanted(envelope, index, attempt):
                    found.to_report.append((index, attempt))
            elif attempt.outcome is _FAILED or now_us >= expires_us:
                if attempt.outcome is not _FAILED:
                    attempt = _expired(attempt, envelope, now_us)
                found.ended.append(index)
                found.to_report.append((index, attempt))
            else:
                was_reported = state is not None and state.delay_reported
                tell = not was_reported and 0 < notice_us <= now_us and schedule.wants_delay(recipient)
                if tell:
                    found.delayed.append((index, _late(attempt, envelope)))
                due_us = schedule.next_due_us(options, envelope, was_reported or tell, now_us, self._random)
                if due_us < attempt.not_before_us:
                    due_us = min(attempt.not_before_us, max(expires_us, now_us + 1_000_000))
                if due_us < not_before_us:
                    # Its destination is left alone for now; come a little after that, not all at one moment.
                    spread_us = int(self._random.random() * options.backoff_first_s * 1_000_000)
                    due_us = min(not_before_us + spread_us, max(expires_us, now_us + 1_000_000))
                found.waiting.append(
                    Waiting(
                        index,
                        due_us,
                        destination_key,
                        attempts,
                        delay_reported=was_reported or tell,
                        status=attempt.status,
                        text=attempt.reason,
                        remote=attempt.remote_name,
                        last_us=now_us,
                        released=state is not None and state.released,
                    )
                )
            found.groups.setdefault((attempt, attempts, due_us, destination_key), []).append(recipient.name)
        return found

    def _reported(
        self, mail: QueuedMessage, outcomes: Outcomes, *, delayed: bool, content: Content, until_us: int
    ) -> tuple[tuple[Stored, ...], tuple[Event, ...]] | None:
        """Makes the DSNs. Returns None if that broke: a bug, which is logged and must not leave the recipients without
        a next attempt."""
        try:
            return self._report(mail.envelope, outcomes, delayed=delayed, content=content, until_us=until_us)
        except Exception:
            text = f"making a report broke: {traceback.format_exc()}"
            self._tell((Noted(self._clock.now_us(), mail.envelope.id, "error", text),))
            return None

    def _unsaid(
        self, mail: QueuedMessage, unsaid: dict[int, Attempt], destination_keys: Keys, now_us: int
    ) -> list[Waiting]:
        """Rows for recipients that have failed, but whose DSN could not be made."""
        due_us = now_us + int(self.options.retry_max_s * 1_000_000)
        rows = []
        for index, attempt in unsaid.items():
            attempts = _attempts(mail, index)
            text = f"failed, but the report of it could not be made: {attempt.text}"
            rows.append(
                Waiting(
                    index,
                    due_us,
                    destination_keys[index],
                    attempts,
                    delay_reported=True,
                    status=attempt.status,
                    text=text,
                    last_us=now_us,
                    released=bool(mail.states and index in mail.states and mail.states[index].released),
                )
            )
        return rows

    def hold(self, mail: QueuedMessage, held: Outcomes) -> None:
        """Holds recipients because their route says so, with the reason."""
        envelope, now_us, states = mail.envelope, self._clock.now_us(), mail.states or {}
        rows, names_of = [], dict[str, list[str]]()
        for index, attempt in held:
            state = states.get(index) or Waiting(index, now_us, HOLD)
            rows.append(
                msgspec.structs.replace(
                    state, destination=HOLD, held=True, status="", text=attempt.text, remote="", last_us=now_us
                )
            )
            names_of.setdefault(attempt.text, []).append(str(envelope.recipients[index].address))
        events = tuple(Held(now_us, envelope.id, tuple(names), "", text) for text, names in names_of.items())
        indexes = tuple(index for index, _ in held)
        self.settle(mail, Settlement(envelope.id, waiting=tuple(rows), events=events), indexes)

    # -- commits ------------------------------------------------------------------------------------------------------

    def settle(self, mail: QueuedMessage, settlement: Settlement, indexes: Sequence[int]) -> None:
        """Commits a settlement. `indexes`: the recipients that leave memory with it. A message has one settlement at a
        time."""
        if mail.states is None:
            if len(settlement.ended) + len(settlement.waiting) < len(mail.envelope.recipients):
                named = {*settlement.ended, *(row.index for row in settlement.waiting)}
                others = [index for index in range(len(mail.envelope.recipients)) if index not in named]
                settlement = Settlement(
                    settlement.id, settlement.ended,
                    settlement.waiting + self._rows_of(mail, others, self._clock.now_us()),
                    settlement.accepted, settlement.events,
                )
            mail.states = {row.index: row for row in settlement.waiting}
        else:
            for row in settlement.waiting:
                mail.states[row.index] = row
        for index in settlement.ended:
            mail.states.pop(index, None)
        self.unsettled += 1
        behind = self._under_way.get(settlement.id)
        if behind is not None:
            behind.append(settlement)
            mail.removed_next.append(indexes)
            return
        self._under_way[settlement.id] = []
        self._spool.settle(settlement, partial(self._settled, mail, settlement, [indexes]))

    def _settled(
        self, mail: QueuedMessage, settlement: Settlement, indexes: list[Sequence[int]], failure: Failure | None
    ) -> None:
        if failure is not None:
            # The disk is full: the outcome is not lost, it is committed as soon as that works again.
            text = self._seldom.to_write(f"an outcome cannot be committed yet: {failure.text}")
            if text:
                self._tell((Noted(self._clock.now_us(), settlement.id, "error", text),))
            self._loop.call_later(
                self.options.settle_retry_s,
                partial(self._spool.settle, settlement, partial(self._settled, mail, settlement, indexes)),
            )
            return
        self.unsettled -= len(indexes)
        removed_from_memory = {index for group in indexes for index in group}
        behind = self._under_way.pop(settlement.id)
        if behind:
            self._under_way[settlement.id] = []
            merged = _merge(behind)
            groups, mail.removed_next = mail.removed_next, []
            self._spool.settle(merged, partial(self._settled, mail, merged, groups))
            settling_next = {row.index for row in merged.waiting} | set(merged.ended)
        else:
            settling_next = set()
        self._on_committed(mail, settlement, removed_from_memory, settling_next)


# Members of an Enum by plain names: on Python 3.11 each access through its class costs a look-up more.
_FAILED: Final = Outcome.FAILED
_DEFERRED: Final = Outcome.DEFERRED
_UNSET: Final = Notify.UNSET  # what nearly all recipients have; flags are slow to combine


class _Judged:
    """What became of the recipients of one message. `to_report`: ends that want a DSN. `delayed`: deferrals that want
    one. `groups`: names of recipients with the same attempt, number of attempts, due time and destination."""

    __slots__ = ("delayed", "ended", "groups", "to_report", "waiting")

    def __init__(self) -> None:
        self.ended: list[int] = []
        self.waiting: list[Waiting] = []
        self.to_report: list[tuple[int, Attempt]] = []
        self.delayed: list[tuple[int, Attempt]] = []
        self.groups: dict[tuple[Attempt, int, int, str], list[str]] = {}


def _merge(settlements: Sequence[Settlement]) -> Settlement:
    """Joins settlements of one message, in their order."""
    if len(settlements) == 1:
        return settlements[0]
    ended = tuple(index for one in settlements for index in one.ended)
    gone = set(ended)
    rows = {row.index: row for one in settlements for row in one.waiting if row.index not in gone}
    return Settlement(
        settlements[0].id,
        ended,
        tuple(rows.values()),
        tuple(stored for one in settlements for stored in one.accepted),
        tuple(event for one in settlements for event in one.events),
    )


def _attempts(mail: QueuedMessage, index: int) -> int:
    """How many attempts there were, with the one that has just ended."""
    state = mail.states.get(index) if mail.states else None
    return state.attempts + 1 if state is not None else 1


def _is_wanted(envelope: Envelope, index: int, attempt: Attempt) -> bool:
    """Whether a success may bring a DSN."""
    recipient = envelope.recipients[index]
    return (recipient.notify is not _UNSET and bool(recipient.notify & Notify.SUCCESS)) or (
        bool(envelope.parameters) and wishes.traces_relay(envelope, recipient, attempt)
    )


def _may_report(options: QueueOptions, envelope: Envelope, now_us: int) -> bool:
    """Whether a deferral now may bring a DSN."""
    notice_us = schedule.delay_due_us(options, envelope)
    return now_us >= schedule.expires_us(options, envelope) or (0 < notice_us <= now_us)


def _late(attempt: Attempt, envelope: Envelope) -> Attempt:
    """The attempt as the report of a delay shows it: with BY= in notify mode the news is that the time is over (RFC
    2852)."""
    if not envelope.parameters or not wishes.deadline_us(envelope, wishes.ByMode.NOTIFY):
        return attempt
    return msgspec.structs.replace(attempt, status="4.4.7")


def _expired(attempt: Attempt, envelope: Envelope, now_us: int) -> Attempt:
    """The last attempt of a recipient whose time is over. It keeps the code of the actual problem (RFC 3463 §3.5,
    X.4.7: "the code for the actual problem found … should be returned rather than this code"), unless the sender has
    set the time (RFC 2852)."""
    if envelope.parameters and schedule.is_overdue(envelope, now_us):
        text = f"it could not be delivered within the time that the sender has set; the last attempt: {attempt.text}"
        return msgspec.structs.replace(attempt, outcome=_FAILED, status="5.4.7", text=text)
    age_us = now_us - wishes.begin_us(envelope)
    days = age_us / 86_400_000_000
    span = f"{days:.1f} days" if days >= 1 else f"{age_us / 3_600_000_000:.1f} hours"
    text = f"given up after {span}; the last attempt: {attempt.text or attempt.reply or 'no answer'}"
    return msgspec.structs.replace(attempt, outcome=_FAILED, text=text, by_passed=False)
