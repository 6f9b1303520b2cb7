"""The timeline: what is told, and what comes next for each recipient."""

from __future__ import annotations

import json
import typing
from typing import Any

import msgspec
import pytest

from postroad.cli.trace import find, held_up, rerouted, when_us
from postroad.mail import identifier
from postroad.mail.attempt import Attempt, Outcome, Reach, Try
from postroad.mail.envelope import Peer
from postroad.mail.evaluation import REJECT, Evaluation, Found
from postroad.mail.event import (
    Accepted,
    Attempted,
    Authenticated,
    Evaluated,
    Event,
    Expanded,
    Failed,
    Held,
    Inspected,
    Noted,
    Refused,
    Released,
    Removed,
    Reported,
    Rewritten,
    SessionEnded,
)
from postroad.mail.reply import Reply
from postroad.mail.route import HostProof
from postroad.operate.requests import RouteQuestion
from postroad.operate.timeline import Fate, RecipientStatus, Trail, json_of, lines, reports_of, trail
from postroad.report.notation import iso
from postroad.store.values import Loaded
from tests.unit.events import with_text
from tests.unit.operate.material import (
    ACCEPTED_US,
    DEFERRED,
    FAILED,
    HOUR,
    ID,
    NOW_US,
    PEER,
    RELAYED,
    TEXT,
    FakeHistory,
    FakeSpool,
    S,
    accepted,
    envelope,
    waiting,
)

DELIVERED = Outcome.DELIVERED
DSN = identifier.make(NOW_US - HOUR, 1, ID)


def told(events: list[Event], loaded: Loaded | None = None, **options: Any) -> list[str]:
    made = trail(ID, events, loaded, running=options.pop("running", True), now_us=NOW_US, **options)
    return list(lines(made, NOW_US))


def test_a_message_relayed_at_the_second_attempt() -> None:
    events: list[Event] = [
        accepted(),
        Attempted(ACCEPTED_US + S, ID, ("bob@example.net",), "example.net", DEFERRED, 1, ACCEPTED_US + HOUR),
        Attempted(ACCEPTED_US + HOUR, ID, ("bob@example.net",), "example.net", RELAYED, 2),
    ]
    assert told(events) == [
        f"Message {TEXT}  from <alice@example.org>, 4.0 KB, Message-ID <1@example.org>",
        "  2026-09-21",
        "  12:13:20.000  accepted   for <bob@example.net>",
        "                from [192.0.2.7]:1234 \"client.example.org\", ESMTPSA, TLSv1.3 AES, authenticated as alice, "
        "at listener submission",
        "                took 0.8 ms until it was safe",
        "  12:13:21.000  deferred   <bob@example.net> to example.net",
        "                at mx.example.net [192.0.2.9]:25, without TLS",
        "                said: 450 4.2.2 mailbox full",
        "                took 2.3 ms, connecting 10 ms",
        "  13:13:20.000  relayed    <bob@example.net> to example.net, attempt 2",
        "                at mx.example.net [192.0.2.9]:25, TLSv1.3 AES",
        "                said: 250 2.0.0 ok queued",
        "                took 2.3 ms, connecting 10 ms",
        "  What comes next:",
        "    <bob@example.net> was taken by mx.example.net [192.0.2.9]:25 at 2026-09-21 13:13:20 UTC",
    ]


@pytest.mark.parametrize(
    ("loaded", "running", "fate", "text"),
    [
        (
            Loaded(envelope(), (waiting(),)), True, Fate.WAITING,
            "will be tried at 2026-09-21 14:25:20 UTC (in 12 min) after 3 attempts, because: mx.example.net: 450 4.2.2 "
            "mailbox full",
        ),
        (
            Loaded(envelope(), (waiting(attempts=1, due_us=NOW_US - 1, remote=""),)), True, Fate.NOW,
            "is being delivered now, or about to be after 1 attempt, because: 450 4.2.2 mailbox full",
        ),
        (
            Loaded(envelope(), (waiting(attempts=0, due_us=NOW_US - 1, text=""),)), False, Fate.WAITING,
            "is due, and will be tried as soon as the node runs",
        ),
        (
            Loaded(envelope(), (waiting(held=True, text="looks odd", remote=""),)), True, Fate.HELD,
            "is held because: looks odd; `postroad queue release` lets it go on",
        ),
        (  # what a remote said before is not why
            Loaded(envelope(), (waiting(held=True),)), True, Fate.HELD,
            "is held; `postroad queue release` lets it go on",
        ),
        (Loaded(envelope(), ()), True, Fate.NOW, "is being delivered now, or waits for a free connection"),
        (Loaded(envelope(), ()), False, Fate.WAITING, "will be tried as soon as the node runs"),
    ],
)  # fmt: skip
def test_what_comes_next_is_what_the_spool_says(loaded: Loaded, running: bool, fate: Fate, text: str) -> None:
    """Whatever the events say: the spool is the truth."""
    all_events: list[Event] = [
        accepted(), Attempted(NOW_US - HOUR, ID, ("bob@example.net",), "example.net", RELAYED),
    ]  # fmt: skip
    for events in ([], all_events[:1], all_events):
        made = trail(ID, events, loaded, running=running, now_us=NOW_US)
        assert [(each.fate, each.text) for each in made.outlooks] == [(fate, text)]


BOB = ("bob@example.net",)


@pytest.mark.parametrize(
    ("event", "fate", "text"),
    [
        (None, Fate.UNKNOWN, "its end is unknown: the history does not hold it"),
        (Attempted(NOW_US, ID, BOB, "maildir:x", msgspec.structs.replace(RELAYED, outcome=DELIVERED)), Fate.DELIVERED,
         "was delivered to maildir:x at 2026-09-21 14:13:20 UTC"),
        (Attempted(NOW_US, ID, BOB, "x", FAILED), Fate.FAILED, "has failed at 2026-09-21 14:13:20 UTC: 550 5.1.1 no"),
        (Attempted(NOW_US, ID, BOB, "x", DEFERRED, 1, NOW_US + S), Fate.UNKNOWN,
         "was to be tried at 2026-09-21 14:13:21 UTC, because: 450 4.2.2 mailbox full"),
        (Failed(NOW_US, ID, BOB, "5.4.7", "given up", "root"), Fate.FAILED,
         "has failed at 2026-09-21 14:13:20 UTC by root: 5.4.7 given up"),
        (Removed(NOW_US, ID, BOB, "root", "spam"), Fate.REMOVED,
         "was removed at 2026-09-21 14:13:20 UTC by root: spam; nobody got a report"),
        (Held(NOW_US, ID, BOB, "root", "odd"), Fate.HELD, "is held by root: odd"),
        (Released(NOW_US, ID, BOB, "root"), Fate.WAITING, "will be tried now"),
        (Expanded(NOW_US, ID, "bob@example.net", ("x@y", "z@y")), Fate.EXPANDED, "was replaced by <x@y>, <z@y>"),
    ],
)  # fmt: skip
def test_what_has_ended_is_what_the_last_event_says(event: Event | None, fate: Fate, text: str) -> None:
    events: list[Event] = [accepted(), *([event] if event is not None else [])]
    made = trail(ID, events, None, running=True, now_us=NOW_US)
    assert [(each.recipient, each.fate, each.text) for each in made.outlooks] == [("bob@example.net", fate, text)]


def test_every_recipient_has_one_line_at_the_end() -> None:
    names = tuple(f"user{number}@example.net" for number in range(10))
    loaded = Loaded(envelope(*names), (waiting(3), waiting(7, held=True)))
    events: list[Event] = [
        accepted(*names),
        Attempted(NOW_US - HOUR, ID, names, "example.net", DEFERRED, 1, NOW_US),
        Attempted(NOW_US - S, ID, tuple(name for name in names if name[4] not in "37"), "example.net", RELAYED, 2),
    ]
    made = trail(ID, events, loaded, running=True, now_us=NOW_US)
    assert [each.recipient for each in made.outlooks] == list(names)
    assert [each.fate for each in made.outlooks].count(Fate.RELAYED) == 8
    assert (made.outlooks[3].fate, made.outlooks[7].fate) == (Fate.WAITING, Fate.HELD)
    shown = told(events, loaded)
    assert sum("and 7 more" in line for line in shown) == 2  # accepted, deferred
    assert any("and 5 more" in line for line in shown)


def test_each_host_that_was_tried_has_a_line() -> None:
    refused = Reply(421, "4.3.2", ("busy",))
    tries = (
        Try("mx1", "192.0.2.1", 25, Outcome.DEFERRED, "4.4.1", "no connection", took_us=30 * S),
        Try("mx2", "192.0.2.2", 25, Outcome.DEFERRED, "4.3.2", "busy", refused, "TLSv1.3 X", HostProof.NAME, 0, S),
    )
    failed = Attempt(
        Outcome.DEFERRED, Reach.DESTINATION, "4.4.1", "2 hosts tried: mx1: no connection; mx2: busy", tries=tries
    )
    shown = told([accepted(), Attempted(NOW_US, ID, BOB, "x", failed)])
    assert any(line.endswith("4.4.1 2 hosts tried") for line in shown)
    assert any(line.endswith("tried mx1 [192.0.2.1]:25: 4.4.1 no connection, 30 s") for line in shown), shown
    said = "tried mx2 [192.0.2.2]:25, TLSv1.3 X: 4.3.2 said: 421 4.3.2 busy, 1.0 s"
    assert any(line.endswith(said) for line in shown)
    relayed = msgspec.structs.replace(RELAYED, tries=tries[:1])  # and what came of it stands as ever
    shown = told([accepted(), Attempted(NOW_US, ID, BOB, "x", relayed)])
    assert any("tried mx1 [192.0.2.1]:25" in line for line in shown) and any("said: 250" in line for line in shown)


def test_only_what_concerns_one_recipient() -> None:
    loaded = Loaded(envelope("a@x", "b@x"), (waiting(0), waiting(1)))
    events: list[Event] = [
        accepted("a@x", "b@x"),
        Expanded(ACCEPTED_US, ID, "all@x", ("a@x", "b@x")),
        Expanded(ACCEPTED_US, ID, "other@x", ("c@x",)),
        Attempted(NOW_US, ID, ("a@x",), "x", DEFERRED),
        Attempted(NOW_US, ID, ("b@x",), "x", DEFERRED),
        Held(NOW_US, ID, ("b@x",)),
    ]
    made = trail(ID, events, loaded, running=True, now_us=NOW_US, recipient="B@x")
    assert list(made.events) == [events[0], events[1], events[4], events[5]]
    assert [each.recipient for each in made.outlooks] == ["b@x"]
    # An alias: what became of those whom it stands for.
    made = trail(ID, events, loaded, running=True, now_us=NOW_US, recipient="all@x")
    assert list(made.events) == [events[0], events[1], events[3], events[4], events[5]]
    assert sorted(each.recipient for each in made.outlooks) == ["a@x", "all@x", "b@x"]


def test_only_the_reports_that_concern_one_recipient() -> None:
    events: list[Event] = [
        accepted("a@x", "b@x"),
        Expanded(ACCEPTED_US, ID, "all@x", ("a@x", "b@x")),
        Reported(NOW_US, ID, ("a@x",), "failed", 1),
        Reported(NOW_US, ID, ("b@x",), "failed", 2),
        Reported(NOW_US, ID, ("b@x",), "failed", 0, "no"),
    ]
    assert reports_of(events) == reports_of(events, "ALL@x") == [1, 2]
    assert reports_of(events, "b@x") == [2]


EVALUATION = Evaluation(
    "192.0.2.7", found=(
        Found("spf", "fail", "", (("smtp", "mailfrom", "a.test"),), "a.test does not permit it"),
        Found("iprev", "pass", "", (("policy", "iprev", "192.0.2.7"),)),
    ), disposition=REJECT, believed="gw.test",
)  # fmt: skip
ALL: list[Event] = [
    accepted(),
    Accepted(ACCEPTED_US, ID, "", BOB, 10, "", Peer(listener="report"), "E1", DSN),
    Expanded(ACCEPTED_US, ID, "all@x", ("a@x",)),
    Attempted(ACCEPTED_US, ID, BOB, "x", FAILED),
    Failed(ACCEPTED_US, ID, BOB, "5.4.7", "given up", "root"),
    Reported(ACCEPTED_US, ID, BOB, "failed", DSN),
    Reported(ACCEPTED_US, ID, BOB, "failed", 0, "no return address"),
    Held(ACCEPTED_US, ID, BOB, "root", "odd"),
    Released(ACCEPTED_US, ID, BOB, "root"),
    Released(ACCEPTED_US, ID, BOB, "root", True),
    Removed(ACCEPTED_US, ID, BOB, "root"),
    Refused(ACCEPTED_US, ID, PEER, "RCPT", "550 no"),
    SessionEnded(ACCEPTED_US, ID, PEER, "quit"),
    Authenticated(ACCEPTED_US, ID, PEER, "PLAIN"),
    Noted(ACCEPTED_US, ID, "error", "content lost"),
    Inspected(ACCEPTED_US, ID, "virus", "clean", "0.1 s"),
    Rewritten(ACCEPTED_US, ID, ("set Subject", "added A")),
    Evaluated(ACCEPTED_US, ID, EVALUATION),
]


def test_every_kind_of_event_is_told() -> None:
    assert {type(event) for event in ALL} == set(typing.get_args(Event))
    for event in ALL:
        assert len(told([event])) >= 4
    shown = "\n".join(told(ALL))
    for text in ("envelope id E1", "a report on", f"failed for <bob@example.net>: message {identifier.text(DSN)}",
                 "unreported failed for <bob@example.net>: no return address", "retry now  <bob@example.net> by root",
                 "released   <bob@example.net> by root", "error      content lost", "refused    RCPT of",
                 "checked    virus: clean", "rewritten  set Subject; added A",
                 "evaluated  spf fail (a.test), iprev pass (192.0.2.7)", " a.test does not permit it",
                 "what was done: reject", "results of gw.test are believed"):  # fmt: skip
        assert text in shown, text


@pytest.mark.parametrize("text", ["a\r\nb", "\x1b[31m", "\u202e", "\x9b"])
def test_nothing_unprintable_is_shown(text: str) -> None:
    of = msgspec.structs.replace(FAILED, text=text, remote_name=text, remote_address=text, tls=text)
    events = with_text(text, ACCEPTED_US, ID, of)
    loaded = Loaded(envelope(), (waiting(text=text, remote=text, destination=text),))
    for event in events:
        assert all(line.isprintable() for line in told([event], loaded))
        assert json.loads(json_of([trail(ID, [event], loaded, running=True, now_us=NOW_US)]))


def test_a_client_that_gives_its_address_for_a_name_is_named_once() -> None:
    event = Refused(NOW_US, 0, Peer("192.0.2.7", 25, "[192.0.2.7]", "ESMTP"), "RCPT", "550 no")
    shown = "\n".join(lines(Trail(ID, (event,), ()), NOW_US))
    assert "refused    RCPT of [192.0.2.7]:25, ESMTP, without TLS\n" in shown and "was told: 550 no" in shown


def test_json() -> None:
    report = trail(DSN, [], None, running=True, now_us=NOW_US)
    loaded = Loaded(envelope(), (waiting(),))
    made = trail(ID, [accepted()], loaded, running=True, now_us=NOW_US, reports=[report])
    (found,) = json.loads(json_of([made]))
    assert found["id"] == TEXT
    assert found["events"][0]["kind"] == "accepted" and found["events"][0]["id"] == TEXT
    assert found["recipients"] == [
        {
            "recipient": "bob@example.net", "fate": "waiting", "destination": "example.net", "attempts": 3,
            "next": "2026-09-21T14:25:20.000000Z", "status": "4.2.2", "reason": "450 4.2.2 mailbox full",
            "text": made.outlooks[0].text, "route": "",
        }
    ]  # fmt: skip
    assert found["reports"] == [{"id": identifier.text(DSN), "events": [], "recipients": [], "reports": []}]


# Finding


OTHER = identifier.make(NOW_US - 60 * S, 1, ID)


def _views() -> tuple[FakeSpool, FakeHistory]:
    """A message that failed with a DSN under way, and one from bob that only the spool knows."""
    dsn = envelope("alice@example.org", id=DSN, reverse_path=None, message_id="<dsn@x>", parent=ID)
    other = envelope("alice@example.org", id=OTHER, message_id="<2@example.org>")
    spool = FakeSpool(Loaded(dsn, ()), Loaded(other, (waiting(),)))
    history = FakeHistory(
        accepted(),
        Attempted(NOW_US - HOUR, ID, BOB, "example.net", FAILED),
        Reported(NOW_US - HOUR, ID, BOB, "failed", DSN),
        accepted("alice@example.org", id=DSN, at_us=NOW_US - HOUR, reverse_path="", message_id="<dsn@x>", parent=ID),
    )
    return spool, history


@pytest.mark.parametrize(
    ("what", "ids"),
    [
        (TEXT, [ID]),
        (TEXT.upper(), [ID]),
        (identifier.text(OTHER), [OTHER]),
        (identifier.text(OTHER + 1024), []),
        ("<1@example.org>", [ID]),
        ("1@example.org", [ID]),
        ("<2@example.org>", [OTHER]),
        ("bob@example.net", [ID]),
        ("alice@example.org", [ID, OTHER]),  # the DSN within the message that it reports on
        ("nobody@example.org", []),
        ("word", []),
    ],
)
def test_finding(what: str, ids: list[int]) -> None:
    spool, history = _views()
    found = find(what, spool, history, running=True, now_us=NOW_US)
    assert [each.id for each in found] == ids
    for each in found:
        if each.id == ID:
            assert [report.id for report in each.reports] == [DSN]
            assert "Report on it:" in "\n".join(lines(each, NOW_US))


CLIENT = Peer("203.0.113.7", 1234, "client.example.org", "ESMTP", listener="mx")
REFUSALS = (
    Refused(NOW_US - 3 * HOUR, 0, CLIENT, "RCPT", "550 5.1.1 not here", "alice@example.org", "nobody@example.net"),
    Refused(
        NOW_US - S, 0, CLIENT, "DATA", "552 5.3.4 too big", "alice@example.org", recipients=("bob@example.net", "c@d.e")
    ),
    Refused(NOW_US - 2 * S, 0, CLIENT, "AUTH", "535 5.7.8 wrong", reason="ada"),
    Authenticated(NOW_US, 0, msgspec.structs.replace(CLIENT, identity="ada"), "PLAIN"),
)


@pytest.mark.parametrize(
    ("what", "ids", "refused"),
    [
        ("nobody@example.net", [0], ["RCPT"]),
        ("bob@example.net", [ID, 0], ["DATA"]),
        ("c@d.e", [0], ["DATA"]),
        ("alice@example.org", [0, ID, OTHER, 0], ["RCPT", "DATA"]),
        ("203.0.113.7", [0], ["RCPT", "AUTH", "DATA"]),
        ("[203.0.113.7]", [0], ["RCPT", "AUTH", "DATA"]),
        ("192.0.2.8", [], []),
        ("ada", [0], ["AUTH"]),
        ("<1@example.org>", [ID], []),
    ],
)
def test_what_was_refused_is_found_by_address_client_and_account(what: str, ids: list[int], refused: list[str]) -> None:
    spool, history = _views()
    history.all = (*history.all, *REFUSALS)
    found = find(what, spool, history, running=True, now_us=NOW_US)
    assert [each.id for each in found] == ids
    assert [event.phase for each in found for event in each.events if isinstance(event, Refused)] == refused


def test_what_was_refused_as_people_and_programs_read_it() -> None:
    shown = list(lines(Trail(0, REFUSALS, ()), NOW_US))
    assert shown[0] == "No message"
    text = "\n".join(shown)
    for part in (
        "refused    RCPT of [203.0.113.7]:1234 \"client.example.org\", ESMTP, without TLS, at listener mx",
        "was told: 550 5.1.1 not here", "from <alice@example.org>, for <nobody@example.net>",
        "from <alice@example.org>, for <bob@example.net>, <c@d.e>", "account ada",
        "a client that was answered 5xx does not try again",
    ):  # fmt: skip
        assert part in text, part
    assert "4xx" not in text
    (record,) = json.loads(json_of([Trail(0, REFUSALS, ())]))
    assert record["id"] == "" and record["recipients"] == [] and len(record["events"]) == 4


def test_a_log_in_that_was_right_is_not_told_as_refused() -> None:
    refused = Refused(NOW_US, 0, PEER, "AUTH", "535 5.7.8 wrong", reason="ada")
    right = Authenticated(NOW_US, 0, PEER, "PLAIN")
    assert list(lines(Trail(0, (right,), ()), NOW_US))[-1] == "    nothing: this is a log-in, no mail"
    assert list(lines(Trail(0, (refused,), ()), NOW_US))[-1] == "    nothing: only log-ins were refused, no mail"


def test_limit_and_since() -> None:
    spool, history = _views()
    found = find("alice@example.org", spool, history, running=True, now_us=NOW_US, limit=2)
    assert [each.id for each in found] == [DSN, OTHER]
    found = find("alice@example.org", spool, history, running=True, now_us=NOW_US, since_us=NOW_US - 120 * S)
    assert [each.id for each in found] == [OTHER]
    found = find("alice@example.org", spool, history, running=True, now_us=NOW_US, until_us=NOW_US - 120 * S)
    assert OTHER not in [each.id for each in found] and found


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        ("12h", "2026-09-21T02:13:20"), ("today", "2026-09-21T00:00:00"), ("yesterday", "2026-09-20T00:00:00"),
        ("2026-09-01", "2026-09-01T00:00:00"), ("2026-09-01T12:15", "2026-09-01T12:15:00"),
        ("2026-09-01 12:15:10", "2026-09-01T12:15:10"), ("2026-09-01T12:15:00+02:00", "2026-09-01T10:15:00"),
    ],
)  # fmt: skip
def test_moments_as_people_write_them(written: str, expected: str) -> None:
    at_us = when_us(written, NOW_US)
    assert iso(at_us).startswith(expected), iso(at_us)


def test_a_report_that_reports_on_itself_ends() -> None:
    history = FakeHistory(accepted(), Reported(NOW_US, ID, BOB, "failed", ID))
    (found,) = find(TEXT, FakeSpool(), history, running=True, now_us=NOW_US)
    depth = 0
    while found.reports:
        (found,) = found.reports
        depth += 1
    assert depth == 4
    assert reports_of(found.events) == [ID]


@pytest.mark.parametrize("key", ["example.net", "[smtp.isp.example]:25/@example.net", "example.net/requiretls"])
def test_mail_that_was_not_tried_yet_tells_what_it_waits_for(key: str) -> None:
    limit = f"rate of {key} (2/1m by [[pace]]), next in 9.0 s"
    asked: list[list[str]] = []

    def waits(destinations: list[str]) -> dict[str, str]:
        asked.append(destinations)
        return {key: limit}

    fresh = trail(ID, [accepted()], Loaded(envelope("bob@example.net", "eve@other.example"), ()),
                  running=True, now_us=NOW_US)  # fmt: skip
    (told,) = held_up([fresh], waits)
    texts = {each.recipient: each.text for each in told.outlooks}
    assert limit in texts["bob@example.net"] and "waits" in texts["bob@example.net"]
    assert "a free connection" in texts["eve@other.example"]
    assert asked == [["example.net", "other.example", "*"]]


def test_mail_whose_route_has_changed_says_where_it_goes_now() -> None:
    trail_ = Trail(ID, (accepted(),), (
        RecipientStatus("a@x.example", Fate.WAITING, "will be tried", "[old]:25"),
        RecipientStatus("b@x.example", Fate.WAITING, "will be tried", "[new]:25/requiretls"),
        RecipientStatus("c@x.example", Fate.RELAYED, "was taken", "[old]:25"),
        RecipientStatus("d@x.example", Fate.HELD, "is held", "[old]:25"),
        RecipientStatus("e@x.example", Fate.NOW, "is being delivered", ""),
    ))  # fmt: skip
    asked: list[list[RouteQuestion]] = []

    def routes(questions: list[RouteQuestion]) -> dict[str, str]:
        asked.append(questions)
        return {each.key: "[new]:25" for each in questions[:-1]} | {questions[-1].key: "(no such domain)"}

    (made,) = rerouted([trail_], routes)
    names = ("a@x.example", "b@x.example", "d@x.example")
    wanted = [RouteQuestion(name, "alice@example.org", "alice", 4096, "submission", whole=False) for name in names]
    assert asked == [wanted]
    assert [each.route for each in made.outlooks] == ["[new]:25", "", "", "(no such domain)", ""]
    assert made.outlooks[0].text == "will be tried. It was tried at [old]:25; the settings now send it to [new]:25"


def test_mail_that_waits_for_its_time_asks_the_node_for_nothing() -> None:
    later = trail(ID, [accepted()], Loaded(envelope(), (waiting(),)), running=True, now_us=NOW_US)
    assert held_up([later], lambda destinations: pytest.fail("asked")) == [later]


@pytest.mark.parametrize(
    ("tls", "reach", "line"),
    [
        ("", Reach.DESTINATION, "at mx.example.net [192.0.2.9]:25"),
        ("TLSv1.3 AES", Reach.DESTINATION, "at mx.example.net [192.0.2.9]:25, TLSv1.3 AES"),
        ("", Reach.RECIPIENT, "at mx.example.net [192.0.2.9]:25, without TLS"),
    ],
)
def test_of_a_session_that_was_never_set_up_no_lack_of_tls_is_told(tls: str, reach: Reach, line: str) -> None:
    of = msgspec.structs.replace(DEFERRED, tls=tls, reach=reach)
    shown = told([accepted(), Attempted(ACCEPTED_US, ID, ("bob@example.net",), "example.net", of)])
    assert line in [each.strip() for each in shown]


def test_a_reason_that_names_the_remote_does_not_have_it_twice() -> None:
    row = waiting(text="2 addresses of mx.example.net tried: no connection", remote="mx.example.net")
    shown = told([accepted()], Loaded(envelope(), (row,)))
    assert any(", because: 2 addresses of mx.example.net tried: no connection" in line for line in shown)


def test_what_we_have_done_to_a_message_is_not_told_as_the_remotes_words() -> None:
    converted = msgspec.structs.replace(RELAYED, text="converted to 7 bit")
    shown = [line.strip() for line in told([accepted(), Attempted(NOW_US - HOUR, ID, BOB, "example.net", converted)])]
    assert "converted to 7 bit" in shown, shown
    assert any(line.startswith("said: 250") for line in shown)
