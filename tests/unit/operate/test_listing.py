"""What `postroad queue` shows."""

from __future__ import annotations

import json

import msgspec

from postroad.mail import identifier
from postroad.mail.envelope import Body, Notify, Recipient, Ret
from postroad.operate import listing
from postroad.operate.operator import OperatorResult
from postroad.operate.requests import Doing, Paced
from postroad.operate.routes import question
from postroad.store.values import Backlog, Loaded
from tests.unit.operate.material import ACCEPTED_US, ID, NOW_US, TEXT, S, address, envelope, waiting

DUE_US = NOW_US + 12 * 60 * S


def test_the_route_as_it_is_now_stands_beside_the_one_that_was_tried() -> None:
    loaded = Loaded(envelope("bob@example.net"), (waiting(destination="[old]:25", due_us=NOW_US + 3600 * S),))
    ways = {question(loaded.envelope, loaded.waiting[0]).key: "[new]:25"}
    (row,) = listing.message_rows([loaded], NOW_US, {}, ways)
    assert row[-1].endswith("; goes to [new]:25 now, not to [old]:25")
    line = "      with the settings as they are now, the next attempt goes to [new]:25"
    assert line in listing.shown(loaded, b"", NOW_US, {}, ways)
    assert listing.message_line(loaded, NOW_US, {}, ways).recipients[0].route == "[new]:25"
    backlog = Backlog("[old]:25", 1, 0, NOW_US + 3600 * S)
    (row,) = listing.destination_rows([(backlog, loaded)], [], NOW_US, {}, ways)
    assert row[0] == "[old]:25, now [new]:25"
    same = {question(loaded.envelope, loaded.waiting[0]).key: "[old]:25"}
    assert listing.route_of_oldest(backlog, loaded, same) == ""


def test_mail_whose_destination_is_not_known_says_why() -> None:
    """A map did not answer: the recipient waits without a destination, and is asked about again."""
    row = waiting(destination="", text="the map does not answer", status="4.3.0", remote="", due_us=DUE_US)
    loaded = Loaded(envelope("a@x.example"), (row,))
    (line,) = listing.destination_rows([(Backlog("", 1, 0, DUE_US), loaded)], [], NOW_US)
    assert (line[0], line[-1]) == ("(destination not known yet)", "the map does not answer")
    shown = listing.shown(loaded, b"", NOW_US)
    assert any("to (destination not known yet), attempts" in each for each in shown)
    assert "      because: the map does not answer" in shown


def test_destinations() -> None:
    oldest = Loaded(
        envelope("a@example.net", "b@example.net", "c@other.example"),
        (waiting(0, last_us=1, text="old"), waiting(1, last_us=2, text="newer"),
         waiting(2, last_us=3, text="other", destination="other.example")),
    )  # fmt: skip
    rows = listing.destination_rows(
        [(Backlog("example.net", 2, 1, DUE_US), oldest), (Backlog("", 1, 1, 0), None)],
        listing.fresh_of([envelope("x@y", "z@y")], {}),
        NOW_US,
        {"example.net": Paced("example.net", 3, 5, 20, 7, "rate of example.net (5/1m), next in 2.0 s")},
    )  # fmt: skip
    assert rows == [
        ("example.net", "2", "1", "2 h", "in 12 min", "3/5", "rate of example.net (5/1m), next in 2.0 s", "newer"),
        ("(destination not known yet)", "1", "1", "", "held", "", "", ""),
        ("(not tried yet)", "2", "0", "2 h", "now", "", "", ""),
    ]
    line = listing.destination_line(Backlog("example.net", 2, 1, DUE_US), oldest)
    assert msgspec.to_builtins(line) == {
        "destination": "example.net", "count": 2, "held": 1, "oldest": "2026-09-21T12:13:20.000000Z",
        "next": "2026-09-21T14:25:20.000000Z", "reason": "newer",
        "connections": None, "connections_now_max": None, "connections_max": None, "waits_for": "",
        "doing": (), "route": "",
    }  # fmt: skip
    assert all(len(row) == len(listing.DESTINATION_HEADINGS) for row in rows)


def test_messages() -> None:
    names = [f"user{number}@example.net" for number in range(4)]
    mixed = Loaded(envelope(*names), (waiting(0), waiting(1), waiting(2, held=True), waiting(3, due_us=NOW_US)))
    fresh = Loaded(envelope("a@x", "b@x", reverse_path=None), ())
    rows = listing.message_rows([mixed, fresh], NOW_US)
    reason = "450 4.2.2 mailbox full"
    assert rows == [
        (TEXT, "2 h", "4.0 KB", "<alice@example.org>", "user0@example.net and 1 more", "3", "in 12 min", reason),
        ("", "", "", "", "user2@example.net", "3", "held", reason),
        ("", "", "", "", "user3@example.net", "3", "now", reason),
        (TEXT, "2 h", "4.0 KB", "<>", "a@x and 1 more", "0", "now", ""),
    ]
    assert all(len(row) == len(listing.MESSAGE_HEADINGS) for row in rows)
    line = listing.message_line(mixed, NOW_US)
    assert [each.state for each in line.recipients] == ["waiting", "waiting", "held", "due"]
    assert [each.next for each in line.recipients][2] is None
    assert [each.state for each in listing.message_line(fresh, NOW_US).recipients] == ["fresh", "fresh"]


HEAD = b"Subject: =?utf-8?Q?Gr=C3=BC=C3=9Fe?=\r\nX-Evil: \x1b[31m\r\nTo: a@x,\r\n b@x\r\n\r\n"


def test_one_in_full() -> None:
    about = envelope(
        "a@x", "b@x", "c@x", envid="QQ", ret=Ret.HDRS, body=Body.EIGHT_BIT_MIME, smtputf8=True, parent=ID,
        parameters=(("MT-PRIORITY", "3"), ("REQUIRETLS", "")),
    )  # fmt: skip
    to = Recipient(address("a@x"), Notify.SUCCESS | Notify.FAILURE, "rfc822;a@x", address("info@x"))
    about = msgspec.structs.replace(about, recipients=(to, *about.recipients[1:]))
    loaded = Loaded(about, (waiting(0, delay_reported=True), waiting(1, held=True, attempts=0, last_us=0, text="")))
    assert listing.shown(loaded, HEAD, NOW_US) == [
        f"Message {TEXT}",
        "  accepted    2026-09-21 12:13:20 UTC (2 h ago)",
        "  from        <alice@example.org>",
        "  size        4.0 KB (4096)",
        "  Message-ID  <1@example.org>",
        "  client      [192.0.2.7]:1234 \"client.example.org\", ESMTPSA, TLSv1.3 AES, authenticated as alice, at "
        "submission",
        f"  reports on  {TEXT}",
        "  parameters  BODY=8BITMIME SMTPUTF8 RET=HDRS ENVID=QQ MT-PRIORITY=3 REQUIRETLS",
        "",
        "  <a@x> (given as <info@x>): next attempt 2026-09-21 14:25:20 UTC (in 12 min)",
        "      to example.net, attempts 3, the last 2026-09-21 13:13:20 UTC (1 h ago)",
        "      because: mx.example.net: 450 4.2.2 mailbox full",
        "      the sender has got a delay report",
        "      NOTIFY=SUCCESS,FAILURE ORCPT=rfc822;a@x",
        "  <b@x>: held",
        "      to example.net, attempts 0",
        "  <c@x>: has ended",
        "",
        "Header:",
        "  Subject: Grüße",
        "  X-Evil: ?[31m",
        "  To: a@x, b@x",
    ]
    found = json.loads(msgspec.json.encode(listing.shown_line(loaded, HEAD, NOW_US)))
    assert found["header"][0] == ["Subject", "=?utf-8?Q?Gr=C3=BC=C3=9Fe?="]
    assert found["recipients"][0] == {
        "recipient": "a@x", "given": "info@x", "notify": ["SUCCESS", "FAILURE"], "orcpt": "rfc822;a@x",
        "state": "waiting", "parameters": {},
    }  # fmt: skip
    assert found["parameters"] == {"MT-PRIORITY": "3", "REQUIRETLS": ""} and found["parent"] == TEXT
    assert found["client"]["identity"] == "alice" and found["message"]["recipients"][1]["state"] == "held"


def test_a_fresh_message_in_full() -> None:
    shown = listing.shown(Loaded(envelope("a@x"), ()), b"", NOW_US)
    assert shown[-1] == "  <a@x>: not tried yet"


def test_hundreds_of_header_fields() -> None:
    head = b"".join(b"X-%d: y\r\n" % number for number in range(1000))
    shown = listing.shown(Loaded(envelope("a@x"), ()), head, NOW_US)
    assert shown[-1] == "  ..." and len(shown) < 120
    assert len(listing.shown_line(Loaded(envelope("a@x"), ()), head, NOW_US).header) == 100


def test_results() -> None:
    results = [
        OperatorResult(TEXT, "a@x", "x", True, "held"),
        OperatorResult(TEXT, "b@x", "x", False, "is being delivered now"),
        OperatorResult("", "", "y", True, "held", 50),
    ]
    assert listing.result_rows(results) == [
        (TEXT, "a@x", "x", "held"),
        (TEXT, "b@x", "x", "is being delivered now"),
        ("", "50 recipients", "y", "held"),
    ]
    assert listing.summary(results, False) == "51 recipients, 1 left unchanged"
    assert listing.summary(results[:1], True) == "1 recipient; nothing was changed (--dry-run)"


def test_fresh_line() -> None:
    messages = [envelope("a@x", "b@x"), envelope("c@x", id=identifier.make(NOW_US, 1, 0))]
    (line,) = map(listing.fresh_line, listing.fresh_of(messages, {}))
    assert (line.count, line.oldest) == (3, "2026-09-21T12:13:20.000000Z")
    assert ACCEPTED_US == NOW_US - 7200 * S


RATE = "rate of hop (1/1m by [[pace]]), next in 2.0 s"
HOP = Paced("hop", 1, 5, 20, 3, RATE, domains=("slow.example",))
PACES = {"hop": HOP, "idle": Paced("idle", 1, 5, 20, 0, "", domains=("idle.example",))}


def test_what_was_not_tried_yet_stands_with_what_holds_it_back_and_is_counted_once() -> None:
    messages = [envelope("a@slow.example", "b@idle.example"), envelope("c@slow.example"), envelope("d@idle.example")]
    fresh = listing.fresh_of(messages, PACES)
    assert listing.destination_rows([], fresh, NOW_US) == [
        ("hop", "2", "0", "2 h", "", "1/5", RATE, ""),
        ("(not tried yet)", "2", "0", "2 h", "now", "", "", ""),
    ]
    lines = list(map(listing.fresh_line, fresh))
    assert [(each.destination, each.count, each.waits_for, each.connections) for each in lines] == [
        ("hop", 2, RATE, 1), ("(not tried yet)", 2, "", None),
    ]  # fmt: skip


def test_a_message_tells_what_it_waits_for_tried_or_not() -> None:
    fresh = Loaded(envelope("a@slow.example", "b@idle.example"), ())
    due = Loaded(envelope("c@slow.example"), (waiting(0, due_us=NOW_US, destination="hop"),))
    later = Loaded(envelope("c@slow.example"), (waiting(0, destination="hop"),))
    rows = listing.message_rows([fresh, due, later], NOW_US, PACES)
    assert [row[4:] for row in rows] == [
        ("a@slow.example", "0", "", f"waits for: {RATE}"),
        ("b@idle.example", "0", "now", ""),
        ("c@slow.example", "3", "", f"waits for: {RATE}"),
        ("c@slow.example", "3", "in 12 min", "450 4.2.2 mailbox full"),
    ]
    told = [
        [each.waits_for for each in listing.message_line(message, NOW_US, PACES).recipients]
        for message in (fresh, due, later)
    ]
    assert told == [[RATE, ""], [RATE], [""]]
    shown = [[line.strip() for line in listing.shown(message, b"", NOW_US, PACES)] for message in (fresh, due, later)]
    assert [lines.count(f"waits for: {RATE}") for lines in shown] == [1, 1, 0]


def test_a_back_off_tells_its_reason_once() -> None:
    oldest = Loaded(envelope("a@example.net"), (waiting(0, last_us=1, text="no route"),))
    paced = Paced("example.net", 0, 1, 20, 0, "back-off after 3 failures in a row, 9 s more", "no route")
    backlog = Backlog("example.net", 1, 0, NOW_US)
    ((*_, waits_for, reason),) = listing.destination_rows([(backlog, oldest)], [], NOW_US, {"example.net": paced})
    assert (waits_for, reason) == (paced.waits_for, "no route")
    assert listing.destination_line(backlog, oldest, paced).waits_for == f"{paced.waits_for}: no route"
    ((*_, waits_for, reason),) = listing.destination_rows([(backlog, None)], [], NOW_US, {"example.net": paced})
    assert (waits_for, reason) == (f"{paced.waits_for}: no route", "")


# What is under way

AT_WORK = Paced(
    "hop", 1, 5, 20, 0, "", domains=("slow.example",),
    doing=(Doing("", "mx[192.0.2.1]:25: waits for the greeting for 12 s"), Doing("x", "another")),
)  # fmt: skip


def test_what_is_done_now_is_told_where_nothing_is_waited_for() -> None:
    """A host that does not greet, and mail that has never been tried: there is nothing of it on the disk."""
    ((name, count, _, _, due, connections, does, _),) = listing.destination_rows(
        [], [listing.FreshBacklog(2, NOW_US, AT_WORK)], NOW_US, {"hop": AT_WORK}
    )
    assert (name, count, due, connections) == ("hop", "2", "now", "1/5")
    assert does == "mx[192.0.2.1]:25: waits for the greeting for 12 s, and 1 more"
    assert listing.holding_back({"hop": AT_WORK}) == {"slow.example": AT_WORK}


def test_mail_that_was_tried_before_is_shown_where_it_is_now() -> None:
    """After a reload with another way the disk still has the destination of the last attempt."""
    row = waiting(0, due_us=NOW_US, text="no route", destination="[old.example]:587/*")
    loaded = Loaded(envelope("a@slow.example"), (row,))
    (*_, reason) = listing.message_rows([loaded], NOW_US, {"hop": AT_WORK})[0]
    assert reason == "mx[192.0.2.1]:25: waits for the greeting for 12 s"
    text = "\n".join(listing.shown(loaded, b"", NOW_US, {"hop": AT_WORK}))
    assert "now: mx[192.0.2.1]:25: waits for the greeting for 12 s" in text
    later = Loaded(loaded.envelope, (waiting(0, text="no route", destination="[old.example]:587/*"),))
    assert "waits for the greeting" not in "\n".join(listing.shown(later, b"", NOW_US, {"hop": AT_WORK}))
