"""Carries out the actions of an operator on the queue: retry, hold, release, remove, fail, for the recipients that he
means.

The same code serves a running worker (through the control socket) and a spool that no node has open. All changes go
through `Spool.settle`, one commit for each message, with their events and DSNs (promise 3).

What always holds: a request is answered once, after its commits, with a row for each recipient that was meant. A
recipient that is being carried or settled at this moment is left alone, and its row says so. Requests are done one
after the other, a bounded number of messages at a time. If the same retry is asked for again while it waits, and only
retries wait after it, it is done once for all who ask; recipients that are due already are not stored again. Recipients
that are not named do not change: the first settlement of a fresh message names them, too, but as due now.

While a message changes, the queue must not act on its own copy in memory: `withdraw` tells it to let go of the message,
and each `withdraw` is followed by one `changed`, whatever happened.

How it fails: if a commit fails, the rows say so; earlier commits stay. If a failed commit may be on the disk all the
same, the request waits until the disk works again (`store.sqlite.spool`). An exception is a bug: it is logged with its
traceback, its message is given back to the queue, its row says so, and the rest of the request and the requests after
it are done. Not here: who may ask (`node.control`), how a request is written by hand and shown (`cli.actions`).
"""

from __future__ import annotations

import enum
import traceback
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, Final, assert_never

import msgspec

from postroad.mail import identifier, wishes
from postroad.mail import status as codes
from postroad.mail.attempt import Attempt, Outcome, Reach
from postroad.mail.envelope import Envelope, Recipient
from postroad.mail.event import Event, Failed, Held, Noted, Released, Removed
from postroad.mail.message import Content
from postroad.mail.routing import DestinationOf, key_of
from postroad.store.face import Spool
from postroad.store.reports import MakeReports
from postroad.store.selection import names
from postroad.store.values import Failure, Loaded, Selection, Settlement, Stored, Waiting

if TYPE_CHECKING:
    from postroad.world.clock import Clock

_AT_ONCE: Final = 64  # messages worked on together; they share commits
_ASKED_MAX: Final = 1000  # requests that wait for the one that is done
_FRESH_PAGE: Final = 500  # fresh messages looked at in one step
FAILED_STATUS: Final = "5.4.7"
BROKEN_TEXT: Final = "internal error; see the log"
FAILED_TEXT: Final = "the administrator of this mail system has ended the attempts"


class OperatorAction(enum.Enum):
    RETRY = "retry"  # try now what waits for its time
    HOLD = "hold"  # do not try until released
    RELEASE = "release"  # try now what was held
    REMOVE = "remove"  # discard, nobody is told
    FAIL = "fail"  # give up, the sender is told

    @property
    def is_final(self) -> bool:
        """Whether the mail is out of the queue afterwards."""
        return self in (OperatorAction.REMOVE, OperatorAction.FAIL)

    @property
    def tries_now(self) -> bool:
        """Whether a running node tries the mail at once."""
        return self in (OperatorAction.RETRY, OperatorAction.RELEASE)


class OperatorRequest(msgspec.Struct, frozen=True):
    """What to do to whom. A recipient is meant by any of `selections`; none means nobody, ``Selection()`` everybody.

    `by`: who asks, `text`: why; both go into the events, the text of FAIL into the DSN as well. `status`: for FAIL.
    `rows_max`: most rows of the answer that name a recipient; what goes beyond is counted by destination.
    `before_release`: whether RETRY tries what its sender wants released later (RFC 4865), too.
    """

    action: OperatorAction
    selections: tuple[Selection, ...]
    dry_run: bool = False
    by: str = ""
    text: str = ""
    status: str = FAILED_STATUS
    rows_max: int = 10_000
    before_release: bool = True


class OperatorResult(msgspec.Struct, frozen=True):
    """What was done (or with `dry_run` would be) to one recipient, or why not.

    `id`: the queue id as text. `count`: recipients that the row stands for; `id` and `recipient` are "" if it is
    more than one.
    """

    id: str
    recipient: str
    destination: str
    done: bool
    text: str
    count: int = 1


Done = Callable[[list[OperatorResult]], None]


def read_request(value: Any) -> OperatorRequest | str:
    """The request in what JSON gave, or what is wrong with it."""
    try:
        request = msgspec.convert(value, OperatorRequest)
    except msgspec.ValidationError as error:
        return f"not a request: {error}"
    return fault_of(request) or request


def checked(request: OperatorRequest) -> OperatorRequest | str:
    """The request as a node reads it, or what is wrong with it."""
    return read_request(msgspec.to_builtins(request))


def fault_of(request: OperatorRequest) -> str:
    """What is wrong with a request; "" for nothing."""
    if request.action is OperatorAction.FAIL and (codes.parse(request.status) is None or request.status[0] == "2"):
        return f"{request.status!r} is not the status code of a failure, such as 5.7.1"
    if not request.text.isprintable() or not request.by.isprintable():
        return "the text must be one line of printable characters"
    return ""


class Operator:
    """See the module. Everything is called on the loop.

    `destination_of`: where a recipient of a fresh message would go. `withdraw(id)`: the queue lets go of the message
    and names the recipients that it cannot let go of now. `changed(id, keys)`: the message is the queue's again, and
    rows of these destinations are due now. `add`: a DSN that was accepted; `tell`: takes what an operator should read.
    """

    def __init__(
        self,
        *,
        spool: Spool,
        shards: Sequence[int],
        report: MakeReports,
        destination_of: DestinationOf,
        clock: Clock,
        withdraw: Callable[[int], Sequence[int]] = lambda id: (),
        changed: Callable[[int, Sequence[str]], None] = lambda id, keys: None,
        add: Callable[[Stored], None] = lambda stored: None,
        tell: Callable[[tuple[Event, ...]], None] = lambda events: None,
    ) -> None:
        self.spool = spool
        self.shards = tuple(shards)
        self.report = report
        self.destination_of = destination_of
        self.clock = clock
        self.withdraw = withdraw
        self.changed = changed
        self.add = add
        self.tell = tell
        self._asked: deque[tuple[OperatorRequest, list[Done]]] = deque()
        # Those of them that may be done for more who ask: nothing but retries stands behind them.
        self._joinable: dict[OperatorRequest, list[Done]] = {}
        self._busy = False

    def operate(self, request: OperatorRequest, done: Done) -> None:
        """`done` gets the rows, in the order of the queue ids."""
        waiting = self._joinable.get(request)
        if waiting is not None:
            waiting.append(done)
            return
        if len(self._asked) >= _ASKED_MAX:
            done([OperatorResult("", "", "", False, "too many requests wait; ask again later")])
            return
        if request.action is not OperatorAction.RETRY:
            self._joinable.clear()  # to ask once more for what stood before it undoes it: hold, release, hold
        tell = self._joinable[request] = [done]
        self._asked.append((request, tell))
        self._next()

    def key_of(self, envelope: Envelope, recipient: Recipient) -> str:
        """The destination's key; "" if there is none, or it is not known at once: the queue finds it then."""
        return key_of(self.destination_of(envelope, recipient))

    def broke(self, id: int) -> None:
        """In an exception's handler: a bug came up with this message (0: while messages were looked for)."""
        self.tell((Noted(self.clock.now_us(), id, "error", f"an operator's request broke: {traceback.format_exc()}"),))

    def _next(self) -> None:
        if self._busy or not self._asked:
            return
        self._busy = True
        request, tell = self._asked.popleft()
        if self._joinable.get(request) is tell:
            del self._joinable[request]

        def answered(rows: list[OperatorResult]) -> None:
            self._busy = False
            for done in tell:
                try:
                    done(rows)
                except Exception:
                    self.broke(0)
            self._next()

        def found(messages: dict[int, list[Selection]], whole: bool) -> None:
            _Work(self, request, messages, answered, whole=whole).start()

        _Search(self, request.selections, found).start()


class _Search:
    """Finds the messages of all selections: id → the selections that found it, and whether none was missed by a bug."""

    def __init__(
        self,
        operator: Operator,
        selections: Sequence[Selection],
        done: Callable[[dict[int, list[Selection]], bool], None],
    ) -> None:
        self._operator = operator
        self._selections = selections
        self._done = done
        self._whole = True
        self._found: dict[int, list[Selection]] = {}
        self._open = 1

    def start(self) -> None:
        for selection in self._selections:
            self._ask(partial(self._operator.spool.select, selection, partial(self._selected, selection)))
        # Fresh messages have no destination in the spool: it is worked out for each.
        by_destination = [selection for selection in self._selections if selection.destination and not selection.held]
        if by_destination:
            for shard in self._operator.shards:
                looked = partial(self._looked, shard, by_destination)
                self._ask(partial(self._operator.spool.fresh, shard, 0, _FRESH_PAGE, looked))
        self._closed()

    def _ask(self, question: Callable[[], None]) -> None:
        """One more question, whose answer calls `_closed`; it counts as answered if it cannot even be put."""
        self._open += 1
        try:
            question()
        except Exception:
            self._missed()

    def _missed(self) -> None:
        self._operator.broke(0)
        self._whole = False
        self._closed()

    def _selected(self, selection: Selection, ids: list[int]) -> None:
        for id in ids:
            self._found.setdefault(id, []).append(selection)
        self._closed()

    def _looked(self, shard: int, selections: list[Selection], envelopes: list[Envelope]) -> None:
        try:
            for envelope in envelopes:
                self._look(selections, envelope)
        except Exception:
            self._missed()
            return
        if len(envelopes) == _FRESH_PAGE:
            after, looked = envelopes[-1].id, partial(self._looked, shard, selections)
            self._ask(partial(self._operator.spool.fresh, shard, after, _FRESH_PAGE, looked))
        self._closed()

    def _look(self, selections: list[Selection], envelope: Envelope) -> None:
        keys = {self._operator.key_of(envelope, recipient) for recipient in envelope.recipients}
        for selection in selections:
            if selection.destination in keys and _is_meant(selection, envelope):
                self._found.setdefault(envelope.id, []).append(selection)

    def _closed(self) -> None:
        self._open -= 1
        if not self._open:
            self._done(self._found, self._whole)


def _is_meant(selection: Selection, envelope: Envelope) -> bool:
    """What a selection says of the message as a whole."""
    return (
        (not selection.ids or envelope.id in selection.ids)
        and (not selection.sender or names(selection.sender, envelope.reverse_path))
        and (not selection.message_id or selection.message_id.strip("<>") == envelope.message_id.strip("<>"))
    )


class _Plan(msgspec.Struct):
    """What is to happen to one message."""

    now_us: int
    ended: list[int]
    waiting: list[Waiting]
    names: list[str]
    rows: list[OperatorResult]
    attempts: list[tuple[int, Attempt]]
    due: list[str]  # destinations of what is to be tried and was due before


class _Work:
    """One request at work on the messages found."""

    def __init__(
        self,
        operator: Operator,
        request: OperatorRequest,
        found: dict[int, list[Selection]],
        done: Done,
        *,
        whole: bool,
    ) -> None:
        self._operator = operator
        self._request = request
        self._found = found
        self._ids = deque(sorted(found))
        self._done = done
        self._whole = whole
        self._active: set[int] = set()  # withdrawn, and not given back yet
        self._starting = False
        self._rows: dict[int, list[OperatorResult]] = {}
        self._named = 0
        self._counts: dict[tuple[str, bool, str], int] = {}
        self._answered = False

    def start(self) -> None:
        if self._starting:
            return  # a spool that answers at once: the loop below goes on
        self._starting = True
        while self._ids and len(self._active) < _AT_ONCE:
            id = self._ids.popleft()
            self._active.add(id)
            self._step(id, partial(self._take, id))
        self._starting = False
        if not self._active and not self._answered:
            self._answered = True
            self._done(self._result())

    def _step(self, id: int, step: Callable[[], None]) -> None:
        """One step of the work on a message; a bug in it ends that message's part only."""
        try:
            step()
        except Exception:
            self._operator.broke(id)
            if id in self._active:
                self._ended(id, (), [OperatorResult(identifier.text(id), "", "", False, BROKEN_TEXT)])

    def _take(self, id: int) -> None:
        operator = self._operator
        busy = () if self._request.dry_run else operator.withdraw(id)
        operator.spool.load(
            id, lambda loaded: self._step(id, partial(self._loaded, id, frozenset(busy), loaded))
        )

    def _loaded(self, id: int, busy: frozenset[int], loaded: Loaded | None) -> None:
        if loaded is None:
            self._ended(id, (), _gone(id) if any(selection.ids for selection in self._found[id]) else [])
            return
        request, now_us = self._request, self._operator.clock.now_us()
        envelope, fresh = loaded.envelope, not loaded.waiting
        states = loaded.waiting
        if fresh:
            states = tuple(
                Waiting(index, now_us, self._operator.key_of(envelope, recipient))
                for index, recipient in enumerate(envelope.recipients)
            )
        meant = [row for row in states if self._means(id, envelope, row)]
        plan = _plan(request, envelope, meant, busy, now_us, fresh=fresh)
        if request.dry_run or not (plan.ended or plan.waiting):
            self._ended(id, tuple(dict.fromkeys(plan.due)), plan.rows)
            return
        if fresh:
            touched = {*plan.ended, *(row.index for row in plan.waiting)}
            plan.waiting.extend(row for row in states if row.index not in touched)
        if plan.attempts:
            self._operator.spool.content(
                id, lambda content: self._step(id, partial(self._content_loaded, envelope, plan, content))
            )
        else:
            self._settle(envelope, plan, (), ())

    def _means(self, id: int, envelope: Envelope, row: Waiting) -> bool:
        recipient = envelope.recipients[row.index]
        return any(
            (not selection.destination or selection.destination == row.destination)
            and (selection.held is None or selection.held is row.held)
            and (
                not selection.recipient
                or names(selection.recipient, recipient.address)
                or (recipient.given is not None and names(selection.recipient, recipient.given))
            )
            for selection in self._found[id]
        )

    def _content_loaded(self, envelope: Envelope, plan: _Plan, content: Content | None) -> None:
        accepted, events = self._operator.report(envelope, plan.attempts, delayed=False, content=content, until_us=0)
        self._settle(envelope, plan, accepted, events)

    def _settle(
        self, envelope: Envelope, plan: _Plan, accepted: tuple[Stored, ...], reported: tuple[Event, ...]
    ) -> None:
        event = _event(self._request, envelope.id, tuple(plan.names), plan.now_us)
        settlement = Settlement(
            envelope.id, tuple(plan.ended), tuple(plan.waiting), accepted, (event, *reported)
        )
        self._operator.spool.settle(
            settlement, lambda failure: self._step(envelope.id, partial(self._settled, settlement, plan, failure))
        )

    def _settled(self, settlement: Settlement, plan: _Plan, failure: Failure | None) -> None:
        if failure is not None:
            why = f"could not be stored: {failure.text}"
            rows = [msgspec.structs.replace(row, done=False, text=why) if row.done else row for row in plan.rows]
            self._ended(settlement.id, (), rows)
            return
        # It is committed: whatever breaks here, the DSNs must come to the queue.
        for stored in settlement.accepted:
            try:
                self._operator.add(stored)
            except Exception:
                self._operator.broke(settlement.id)
        due = [row.destination for row in settlement.waiting if not row.held and row.due_us <= plan.now_us]
        self._ended(settlement.id, tuple(dict.fromkeys(plan.due + due)), plan.rows)

    def _ended(self, id: int, keys: tuple[str, ...], rows: list[OperatorResult]) -> None:
        self._active.discard(id)
        if not self._request.dry_run:
            try:
                self._operator.changed(id, keys)
            except Exception:
                self._operator.broke(id)
        kept = rows[: max(0, self._request.rows_max - self._named)]
        self._named += len(kept)
        if kept:
            self._rows[id] = kept
        for row in rows[len(kept) :]:
            counted = (row.destination, row.done, row.text)
            self._counts[counted] = self._counts.get(counted, 0) + 1
        self.start()

    def _result(self) -> list[OperatorResult]:
        rows = [row for id in sorted(self._rows) for row in self._rows[id]]
        if not self._whole:
            rows.append(OperatorResult("", "", "", False, f"some messages could not be searched: {BROKEN_TEXT}"))
        return rows + [
            OperatorResult("", "", destination, was_done, text, count)
            for (destination, was_done, text), count in self._counts.items()
        ]


def _gone(id: int) -> list[OperatorResult]:
    return [OperatorResult(identifier.text(id), "", "", False, "is no longer in the queue")]


def _plan(
    request: OperatorRequest, envelope: Envelope, meant: Iterable[Waiting], busy: frozenset[int], now_us: int,
    *, fresh: bool,
) -> _Plan:
    plan = _Plan(now_us, [], [], [], [], [], [])
    for row in meant:
        recipient = envelope.recipients[row.index].name
        why_not = "is being delivered now" if row.index in busy else _why_not(request.action, row)
        if not (why_not or request.before_release) and wishes.release_us(envelope) > now_us:
            why_not = "is to be released later, as its sender asked"
        text = why_not or _PAST[request.action]
        plan.rows.append(
            OperatorResult(identifier.text(envelope.id), recipient, row.destination, not why_not, text)
        )
        if why_not:
            continue
        if request.action is OperatorAction.RETRY and row.due_us <= now_us and not fresh:
            plan.due.append(row.destination)
            continue
        plan.names.append(recipient)
        match request.action:
            case OperatorAction.RETRY:
                plan.waiting.append(msgspec.structs.replace(row, due_us=now_us))
            case OperatorAction.HOLD:
                plan.waiting.append(_held(row, request.text))
            case OperatorAction.RELEASE:
                plan.waiting.append(msgspec.structs.replace(row, held=False, due_us=now_us, released=True))
            case OperatorAction.REMOVE:
                plan.ended.append(row.index)
            case OperatorAction.FAIL:
                plan.ended.append(row.index)
                plan.attempts.append((row.index, _failure(request, row)))
            case _:
                assert_never(request.action)
    return plan


def _held(row: Waiting, reason: str) -> Waiting:
    """Held; a reason takes the place of what the last attempt said, which was a remote's word."""
    if not reason:
        return msgspec.structs.replace(row, held=True)
    return msgspec.structs.replace(row, held=True, status="", text=reason, remote="")


def _why_not(action: OperatorAction, row: Waiting) -> str:
    match action:
        case OperatorAction.RETRY:
            return "is held: release it" if row.held else ""
        case OperatorAction.HOLD:
            return "is held already" if row.held else ""
        case OperatorAction.RELEASE:
            return "" if row.held else "is not held"
        case _:
            return ""


_PAST: Final = {
    OperatorAction.RETRY: "will be tried now",
    OperatorAction.HOLD: "held",
    OperatorAction.RELEASE: "released",
    OperatorAction.REMOVE: "removed",
    OperatorAction.FAIL: "failed",
}


def _failure(request: OperatorRequest, row: Waiting) -> Attempt:
    """What the DSN prints: the operator's words, and what had stood in the way until then."""
    texts = [request.text] if request.text else []
    texts += [f"the last attempt: {row.text}"] if row.attempts and row.text else []
    text = "; ".join(texts) or FAILED_TEXT
    return Attempt(Outcome.FAILED, Reach.RECIPIENT, request.status, text, started_us=row.last_us, transport="operator")


def _event(request: OperatorRequest, id: int, recipients: tuple[str, ...], now_us: int) -> Event:
    match request.action:
        case OperatorAction.RETRY:
            return Released(now_us, id, recipients, request.by, now=True)
        case OperatorAction.RELEASE:
            return Released(now_us, id, recipients, request.by)
        case OperatorAction.HOLD:
            return Held(now_us, id, recipients, request.by, request.text)
        case OperatorAction.REMOVE:
            return Removed(now_us, id, recipients, request.by, request.text)
        case OperatorAction.FAIL:
            return Failed(now_us, id, recipients, request.status, request.text or FAILED_TEXT, request.by)
        case _:
            assert_never(request.action)
