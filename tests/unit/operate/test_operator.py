"""What an operator does to the queue, on a spool in memory."""

from __future__ import annotations

import email
import itertools
from typing import Any

import msgspec
import pytest

from postroad.mail import identifier
from postroad.mail.envelope import Notify, Recipient
from postroad.mail.event import Accepted, Failed, Held, Noted, Released, Removed, Reported
from postroad.operate.operator import (
    FAILED_STATUS,
    FAILED_TEXT,
    OperatorAction,
    OperatorRequest,
    OperatorResult,
    read_request,
)
from postroad.report.dsn import Reporter
from postroad.report.options import ReportOptions
from postroad.store.values import Failure, FailureKind, Selection
from tests.unit.operate.fakes import HOUR_US, NOW_US, World, address

RETRY, HOLD, RELEASE, REMOVE, FAIL = OperatorAction
ACTIONS = list(OperatorAction)


@pytest.fixture(params=[False, True], ids=["later", "at once"])
def world(request: pytest.FixtureRequest) -> World:
    return World(at_once=request.param)


def row(id: int, recipient: str, text: str, done: bool = True) -> OperatorResult:
    return OperatorResult(identifier.text(id), recipient, recipient.partition("@")[2], done, text)


# Each action


def test_retry(world: World) -> None:
    id = world.waiting("a@one.example", "b@two.example")
    rows = world.ask(RETRY, Selection(ids=(id,)))
    assert rows == [row(id, "a@one.example", "will be tried now"), row(id, "b@two.example", "will be tried now")]
    states = world.spool.rows[id]
    assert states is not None and [state.due_us for state in states.values()] == [NOW_US, NOW_US]
    assert states[0].attempts == 1 and states[0].text == "450 4.2.2 mailbox full"
    assert world.logged == [Released(NOW_US, id, ("a@one.example", "b@two.example"), "root", now=True)]
    assert world.changed == [(id, ("one.example", "two.example"))]


@pytest.mark.parametrize("before_release", [True, False])
def test_what_is_to_be_released_later_is_not_a_clients_to_try(world: World, before_release: bool) -> None:
    """ETRN starts queues; it does not undo FUTURERELEASE (RFC 4865)."""
    id = world.waiting("a@one.example")
    envelope = world.spool.envelopes[id]
    world.spool.envelopes[id] = msgspec.structs.replace(envelope, parameters=(("HOLDFOR", "86400"),))
    answer = world.ask(RETRY, Selection(ids=(id,)), before_release=before_release)
    text = "will be tried now" if before_release else "is to be released later, as its sender asked"
    assert answer == [row(id, "a@one.example", text, before_release)]
    assert bool(world.spool.commits) is before_release


def test_the_reason_of_an_operator_is_not_a_remotes(world: World) -> None:
    id = world.waiting("a@one.example")
    states = world.spool.rows[id]
    assert states is not None
    said = states[0] = msgspec.structs.replace(states[0], status="4.2.2", remote="mx.one.example")
    world.ask(HOLD, Selection(ids=(id,)))
    assert states[0] == msgspec.structs.replace(said, held=True)
    world.ask(RELEASE, Selection(ids=(id,)))
    world.ask(HOLD, Selection(ids=(id,)), text="looks odd")
    assert (states[0].status, states[0].text, states[0].remote) == ("", "looks odd", "")


def test_hold_and_release(world: World) -> None:
    id = world.waiting("a@one.example")
    assert world.ask(HOLD, Selection(ids=(id,)), text="looks odd") == [row(id, "a@one.example", "held")]
    assert world.changed == [(id, ())]  # nothing is due, so no back-off is to end
    states = world.spool.rows[id]
    assert states is not None and states[0].held and states[0].text == "looks odd"
    assert world.logged == [Held(NOW_US, id, ("a@one.example",), "root", "looks odd")]
    assert world.ask(HOLD, Selection(ids=(id,))) == [row(id, "a@one.example", "is held already", False)]
    assert world.ask(RETRY, Selection(ids=(id,))) == [row(id, "a@one.example", "is held: release it", False)]
    assert len(world.spool.commits) == 1
    assert world.ask(RELEASE, Selection(ids=(id,))) == [row(id, "a@one.example", "released")]
    assert not states[0].held and states[0].due_us == NOW_US
    assert world.logged[1:] == [Released(NOW_US, id, ("a@one.example",), "root")]
    assert world.ask(RELEASE, Selection(ids=(id,))) == [row(id, "a@one.example", "is not held", False)]
    assert len(world.spool.commits) == 2


def test_hold_without_a_reason_keeps_that_of_the_last_attempt(world: World) -> None:
    id = world.waiting("a@one.example")
    world.ask(HOLD, Selection(ids=(id,)))
    states = world.spool.rows[id]
    assert states is not None and states[0].text == "450 4.2.2 mailbox full"


def test_remove_tells_nobody(world: World) -> None:
    id = world.waiting("a@one.example", "b@two.example")
    assert world.ask(REMOVE, Selection(ids=(id,)), text="spam") == [
        row(id, "a@one.example", "removed"), row(id, "b@two.example", "removed"),
    ]  # fmt: skip
    assert world.spool.envelopes == {} and world.added == []
    assert world.logged == [Removed(NOW_US, id, ("a@one.example", "b@two.example"), "root", "spam")]


def test_fail_tells_the_sender_in_the_same_commit(world: World) -> None:
    id = world.waiting("a@one.example", "b@two.example")
    assert world.ask(FAIL, Selection(ids=(id,)), status="5.7.1", text="not wanted") == [
        row(id, "a@one.example", "failed"), row(id, "b@two.example", "failed"),
    ]  # fmt: skip
    (commit,) = world.spool.commits
    (dsn,) = commit.accepted
    assert world.added == [dsn] and dsn.envelope.parent == id
    assert commit.ended == (0, 1)
    assert [type(event) for event in commit.events] == [Failed, Reported, Accepted]
    assert commit.events[0] == Failed(NOW_US, id, ("a@one.example", "b@two.example"), "5.7.1", "not wanted", "root")
    assert isinstance(dsn.content, bytes)
    status = email.message_from_bytes(dsn.content).get_payload(1).get_payload()  # type: ignore[union-attr]
    assert [str(part["Status"]) for part in status[1:]] == ["5.7.1", "5.7.1"]  # type: ignore[index]
    diagnostic = " ".join(str(status[1]["Diagnostic-Code"]).split())  # type: ignore[index]
    assert diagnostic == "x-postroad; not wanted; the last attempt: 450 4.2.2 mailbox full"
    assert b"Subject: x\r\n\r\nbody" in dsn.content
    assert b"The administrator of this mail system has ended" in dsn.content
    assert list(world.spool.envelopes) == [dsn.envelope.id]


def test_fail_by_default_and_for_a_sender_who_does_not_want_to_know(world: World) -> None:
    id = world.waiting("a@one.example")
    quiet = Recipient(address("a@one.example"), Notify.NEVER)
    world.spool.envelopes[id] = msgspec.structs.replace(world.spool.envelopes[id], recipients=(quiet,))
    world.ask(FAIL, Selection(ids=(id,)))
    failed, reported = world.logged
    assert failed == Failed(NOW_US, id, ("a@one.example",), FAILED_STATUS, FAILED_TEXT, "root")
    assert isinstance(reported, Reported) and reported.report == 0
    assert world.added == [] and world.spool.envelopes == {}


class Ticking:
    """A clock that goes on with each look."""

    def __init__(self) -> None:
        self.at_us = NOW_US

    def now_us(self) -> int:
        self.at_us += 1
        return self.at_us


def test_the_failure_stands_before_its_report_in_time(world: World) -> None:
    id = world.waiting("a@one.example")
    clock = Ticking()
    world.operator.clock = clock
    world.operator.report = Reporter(ReportOptions(hostname="mx.example.org"), clock.now_us, world.spool.new_id)
    world.ask(FAIL, Selection(ids=(id,)))
    times = [event.at_us for event in world.logged]
    assert times == sorted(times) and isinstance(world.logged[0], Failed)


# Whom


def test_only_the_recipients_meant(world: World) -> None:
    id = world.waiting("a@one.example", "b@two.example", "c@one.example")
    other = world.waiting("a@one.example")
    third = world.waiting("d@three.example")
    rows = world.ask(HOLD, Selection(destination="one.example"))
    assert [(each.id, each.recipient) for each in rows] == [
        (identifier.text(id), "a@one.example"), (identifier.text(id), "c@one.example"),
        (identifier.text(other), "a@one.example"),
    ]  # fmt: skip
    states = world.spool.rows[id]
    assert states is not None and [states[place].held for place in range(3)] == [True, False, True]
    rows = world.ask(HOLD, Selection(recipient="D@three.example"), Selection(recipient="@two.example"))
    assert rows == [row(id, "b@two.example", "held"), row(third, "d@three.example", "held")]
    rows = world.ask(RELEASE, Selection(held=True))
    assert len(rows) == 5 and all(each.done for each in rows)


def test_by_sender_and_message_id(world: World) -> None:
    one = world.waiting("a@one.example")
    two = world.message("b@one.example", sender="mallory@example.com")
    assert [each.id for each in world.ask(REMOVE, Selection(sender="mallory@example.com"))] == [identifier.text(two)]
    assert [each.id for each in world.ask(REMOVE, Selection(message_id="0@example.org"))] == [identifier.text(one)]


def test_selections_that_overlap_mean_each_recipient_once(world: World) -> None:
    id = world.waiting("a@one.example", "b@two.example")
    rows = world.ask(HOLD, Selection(ids=(id,)), Selection(destination="one.example"), Selection())
    assert [each.recipient for each in rows] == ["a@one.example", "b@two.example"]


def test_a_recipient_by_the_address_that_was_given(world: World) -> None:
    id = world.waiting("hidden@one.example")
    aliased = Recipient(address("hidden@one.example"), given=address("info@example.org"))
    world.spool.envelopes[id] = msgspec.structs.replace(world.spool.envelopes[id], recipients=(aliased,))
    assert [each.done for each in world.ask(HOLD, Selection(recipient="info@example.org"))] == [True]


def test_nobody_and_everybody(world: World) -> None:
    ids = [world.waiting("a@one.example"), world.message("b@two.example")]
    assert world.ask(REMOVE) == []
    assert len(world.spool.envelopes) == 2
    assert [each.id for each in world.ask(REMOVE, Selection())] == list(map(identifier.text, ids))


def test_what_is_gone_is_not_found(world: World) -> None:
    id = world.waiting("a@one.example")
    world.ask(REMOVE, Selection(ids=(id,)))
    assert world.ask(HOLD, Selection(ids=(id,))) == []
    assert world.ask(HOLD, Selection(recipient="a@one.example")) == []


def test_a_message_that_ends_between_search_and_load() -> None:
    world = World()
    id = world.waiting("a@one.example")
    answers: list[list[OperatorResult]] = []
    world.operator.operate(OperatorRequest(HOLD, (Selection(ids=(id,)),)), answers.append)
    world.spool.calls.popleft()()  # the search
    del world.spool.envelopes[id]
    world.spool.run()
    assert answers == [[OperatorResult(identifier.text(id), "", "", False, "is no longer in the queue")]]
    assert world.changed == [(id, ())]


# Fresh messages


@pytest.mark.parametrize("action", ACTIONS)
def test_the_first_settlement_names_all(world: World, action: OperatorAction) -> None:
    id = world.message("a@one.example", "b@two.example", "c@nowhere.example")
    rows = world.ask(action, Selection(recipient="b@two.example"))
    assert [each.recipient for each in rows] == ["b@two.example"]
    if action is RELEASE:
        assert not rows[0].done and world.spool.commits == []
        return
    assert rows[0].done
    states = world.spool.rows[id]
    assert states is not None
    assert sorted(states) == ([0, 2] if action in (REMOVE, FAIL) else [0, 1, 2])
    assert (states[0].due_us, states[0].destination, states[0].held) == (NOW_US, "one.example", False)
    assert states[2].destination == ""


def test_fresh_messages_are_found_by_destination(world: World) -> None:
    ids = [world.message("a@one.example", "b@two.example") for _ in range(1203)]
    rows = world.ask(HOLD, Selection(destination="two.example"))
    assert [each.id for each in rows] == list(map(identifier.text, ids))
    assert {each.recipient for each in rows} == {"b@two.example"}
    assert world.ask(HOLD, Selection(destination="three.example")) == []
    sender = Selection(destination="one.example", sender="nobody@example.org")
    world.message("a@one.example")
    assert world.ask(HOLD, sender) == []


# Beside a running queue


@pytest.mark.parametrize("action", ACTIONS)
def test_what_is_being_delivered_is_left_alone(world: World, action: OperatorAction) -> None:
    id = world.waiting("a@one.example", "b@two.example", held=action is RELEASE)
    world.busy[id] = (1,)
    rows = world.ask(action, Selection(ids=(id,)))
    assert [(each.done, each.text) for each in rows][1] == (False, "is being delivered now")
    assert rows[0].done
    (commit,) = world.spool.commits
    assert [*commit.ended, *(state.index for state in commit.waiting)] == [0]


def test_a_message_wholly_in_flight(world: World) -> None:
    id = world.waiting("a@one.example")
    world.busy[id] = (0,)
    assert [each.done for each in world.ask(FAIL, Selection(ids=(id,)))] == [False]
    assert world.spool.commits == [] and world.changed == [(id, ())]


@pytest.mark.parametrize(("action", "fresh"), list(itertools.product(ACTIONS, [True, False])))
def test_dry_run_changes_nothing(world: World, action: OperatorAction, fresh: bool) -> None:
    if fresh:
        id = world.message("a@one.example")
    else:
        id = world.waiting("a@one.example", held=action is RELEASE)
    dry = world.ask(action, Selection(ids=(id,)), dry_run=True)
    assert world.spool.commits == [] and world.logged == [] and world.withdrawn == []
    assert world.ask(action, Selection(ids=(id,))) == dry


def test_a_commit_that_fails(world: World) -> None:
    id = world.waiting("a@one.example", "b@two.example")
    world.busy[id] = (1,)
    world.spool.failure = Failure(FailureKind.FULL, "no space left")
    rows = world.ask(REMOVE, Selection(ids=(id,)))
    assert rows == [
        row(id, "a@one.example", "could not be stored: no space left", False),
        row(id, "b@two.example", "is being delivered now", False),
    ]
    assert world.logged == [] and world.added == [] and world.changed == [(id, ())]


def test_requests_are_done_one_after_the_other() -> None:
    world = World()
    id = world.waiting("a@one.example")
    answers: list[Any] = []
    for action in (FAIL, FAIL, HOLD):
        world.operator.operate(OperatorRequest(action, (Selection(ids=(id,)),)), answers.append)
    world.spool.run()
    assert [[each.done for each in rows] for rows in answers] == [[True], [], []]
    assert len(world.added) == 1


def test_many_messages_at_a_time_but_not_all(world: World) -> None:
    ids = [world.waiting("a@one.example") for _ in range(3000)]
    answers: list[list[OperatorResult]] = []
    world.operator.operate(OperatorRequest(HOLD, (Selection(),), rows_max=100), answers.append)
    most = 0
    while world.spool.calls:
        most = max(most, len(world.spool.calls))
        world.spool.calls.popleft()()
    (rows,) = answers
    assert most <= 65
    assert len(rows) == 101 and [each.id for each in rows[:100]] == sorted(each.id for each in rows[:100])
    assert rows[100] == OperatorResult("", "", "one.example", True, "held", 2900)
    assert all((world.spool.rows[id] or {})[0].held for id in ids)


# The request


@pytest.mark.parametrize(
    ("value", "wrong"),
    [
        ({"action": "hold", "selections": [{}]}, ""),
        ({"action": "fail", "selections": [], "status": "5.7.1", "text": "no"}, ""),
        ({"action": "fail", "selections": [], "status": "4.4.7"}, ""),
        ({"action": "fail", "selections": [], "status": "2.0.0"}, "not the status code of a failure"),
        ({"action": "fail", "selections": [], "status": "5.7.1\r\n"}, "not the status code of a failure"),
        ({"action": "burn", "selections": []}, "not a request"),
        ({"action": "hold"}, "not a request"),
        ({"action": "hold", "selections": [{"ids": ["x"]}]}, "not a request"),
        ({"action": "hold", "selections": [], "text": "a\r\nb"}, "one line"),
        ("hold", "not a request"),
        (None, "not a request"),
    ],
)
def test_requests_from_json(value: Any, wrong: str) -> None:
    found = read_request(value)
    if wrong:
        assert isinstance(found, str) and wrong in found
    else:
        assert isinstance(found, OperatorRequest)
        assert read_request(msgspec.json.decode(msgspec.json.encode(found))) == found


def test_age_is_not_touched(world: World) -> None:
    id = world.waiting("a@one.example")
    world.ask(RETRY, Selection(ids=(id,)))
    states = world.spool.rows[id]
    assert states is not None and states[0].last_us == NOW_US - HOUR_US


# Bugs: an exception in one request must leave nothing behind


class Bug(Exception):
    pass


def _broken(*_: Any, **__: Any) -> Any:
    raise Bug


@pytest.mark.parametrize("door", ["withdraw", "changed", "destination_of", "report", "add"])
def test_a_bug_in_a_request_ends_only_its_message(world: World, monkeypatch: pytest.MonkeyPatch, door: str) -> None:
    """Whichever door breaks: the request is answered, each message is given back, the next request is served."""
    fresh, waiting = world.message("a@one.example"), world.waiting("b@two.example")
    with monkeypatch.context() as patch:
        patch.setattr(world.operator, door, _broken)
        rows: list[list[OperatorResult]] = []
        for _ in range(2):
            request = OperatorRequest(FAIL, (Selection(destination="one.example"), Selection()))
            world.operator.operate(request, rows.append)
            world.spool.run()
        assert len(rows) == 2
        noted = [event for event in world.logged if isinstance(event, Noted)]
        assert noted and "Bug" in noted[0].text
    given_back = {id for id, _ in world.changed}
    assert door == "changed" or {fresh, waiting} & set(world.spool.envelopes) <= given_back
    third = world.waiting("c@three.example")
    answers: list[list[OperatorResult]] = []
    world.operator.operate(OperatorRequest(RETRY, (Selection(ids=(third,)),)), answers.append)
    world.spool.run()
    assert answers == [[row(third, "c@three.example", "will be tried now")]]


@pytest.mark.parametrize("call", ["select", "fresh", "load", "content", "settle"])
def test_a_spool_that_breaks_does_not_end_the_operator(
    world: World, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    id = world.waiting("a@one.example")
    answers: list[list[OperatorResult]] = []
    with monkeypatch.context() as patch:
        patch.setattr(world.spool, call, _broken)
        world.operator.operate(
            OperatorRequest(FAIL, (Selection(ids=(id,)), Selection(destination="one.example"))), answers.append
        )
        world.spool.run()
    assert len(answers) == 1
    assert call in ("select", "fresh") or id in {each for each, _ in world.changed}
    text = "some messages could not be searched: " if call in ("select", "fresh") else ""
    assert f"{text}internal error; see the log" in [each.text for each in answers[0]]
    world.operator.operate(OperatorRequest(RETRY, (Selection(),)), answers.append)
    world.spool.run()
    assert len(answers) == 2


def test_a_caller_that_breaks_does_not_hold_up_the_next_request(world: World) -> None:
    id = world.waiting("a@one.example")
    world.operator.operate(OperatorRequest(HOLD, (Selection(ids=(id,)),)), _broken)
    world.spool.run()
    assert world.ask(RELEASE, Selection(ids=(id,))) == [row(id, "a@one.example", "released")]


def test_a_bug_behind_the_commit_is_told_and_gives_the_message_back(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The DSN is committed, the queue breaks as it hears of it."""
    id = world.waiting("a@one.example")
    monkeypatch.setattr(world.operator, "add", _broken)
    world.ask(FAIL, Selection(ids=(id,)))
    assert [type(event) for event in world.logged].count(Noted) == 1


# Many that ask the same


def test_the_same_request_is_done_once_for_all_who_ask(world: World) -> None:
    ids = [world.waiting("a@one.example") for _ in range(3)]
    answers: list[list[OperatorResult]] = []
    requests = [OperatorRequest(RETRY, (Selection(recipient="@one.example"),), by="ETRN")] * 50
    world.spool.at_once = False
    for request in requests:
        world.operator.operate(request, answers.append)
    world.spool.run()
    assert len(answers) == 50 and all(len(rows) == 3 for rows in answers)
    # The first was under way when the second came; that one serves all others, and finds them due.
    assert sorted(commit.id for commit in world.spool.commits) == ids
    assert {keys for _, keys in world.changed} == {("one.example",)}, "the queue is told all the same"


def test_what_is_asked_once_more_after_its_opposite_is_done_last() -> None:
    world = World()
    id = world.waiting("a@one.example")
    answers: list[Any] = []
    meant = (Selection(ids=(id,)),)
    for action in (RETRY, HOLD, RELEASE, RETRY, HOLD):  # the first is under way, the others wait
        world.operator.operate(OperatorRequest(action, meant, by="root"), answers.append)
    world.spool.run()
    assert len(answers) == 5
    rows = world.spool.rows[id]
    assert rows is not None and rows[0].held


def test_requests_without_number_are_refused(world: World) -> None:
    world.spool.at_once = False
    answers: list[list[OperatorResult]] = []
    for number in range(1002):
        world.operator.operate(OperatorRequest(RETRY, (Selection(ids=(number + 1,)),)), answers.append)
    ((refused,),) = answers
    assert not refused.done and "too many" in refused.text
    world.spool.run()
    assert len(answers) == 1002
