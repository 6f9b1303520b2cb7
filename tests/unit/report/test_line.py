"""Lines of the log: what they say, and what they never hold."""

from __future__ import annotations

import json
import typing
from typing import Any

import msgspec
import pytest

from postroad.mail import identifier
from postroad.mail.attempt import Attempt, Outcome, Reach
from postroad.mail.envelope import Forwarded, Peer
from postroad.mail.evaluation import QUARANTINE, DmarcFacts, Evaluation, Found
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
from postroad.report.line import DEBUG, ERROR, INFO, WARNING, human_line, json_line, rank_of
from tests.unit.events import with_text

AT_US = 1_790_000_000_123_456
ID = identifier.make(AT_US, 3, 0)
ID_TEXT = identifier.text(ID)
PEER = Peer("192.0.2.7", 1234, "client.example.org", "ESMTPSA", "TLSv1.3 AES", "alice", "submission")
RELAYED = Attempt(
    Outcome.RELAYED, Reach.RECIPIENT, "2.0.0", "", Reply(250, "2.0.0", ("ok queued",)), "mx.example.net", "192.0.2.9",
    25, "TLSv1.3 AES", took_us=2300, connect_us=10_000,
)  # fmt: skip
DEFERRED = msgspec.structs.replace(RELAYED, outcome=Outcome.DEFERRED, status="4.2.2", reply=None, text="mailbox full")
FAILED = msgspec.structs.replace(DEFERRED, outcome=Outcome.FAILED, reply=Reply(550, "", ("no", "never")), tls="")

EVALUATION = Evaluation(
    "192.0.2.7", "mx.a.test", "a.test",
    (Found("spf", "pass", "", (("smtp", "mailfrom", "a.test"),), "a.test permits it"),
     Found("dmarc", "fail", "", (("header", "from", "b.test"), ("header", "from", "c.test"))), Found("arc", "none")),
    (DmarcFacts("b.test", "fail", "b.test", "", "v=DMARC1; p=quarantine", "p", QUARANTINE, QUARANTINE),),
    QUARANTINE, comment="the policy of b.test", queries=3,
)  # fmt: skip

EVENTS: list[tuple[Event, int, str, dict[str, Any]]] = [
    (
        Accepted(AT_US, ID, "alice@example.org", ("bob@example.net",), 4096, "<1@example.org>", PEER, "QQ", 0, 800),
        INFO,
        "accepted from <alice@example.org> for <bob@example.net>, 4096 octets by [192.0.2.7]:1234 "
        "\"client.example.org\" ESMTPSA (TLSv1.3 AES) as alice at submission, Message-ID <1@example.org>, "
        "ENVID QQ, in 0.8 ms",
        {"kind": "accepted", "reverse_path": "alice@example.org", "recipients": ["bob@example.net"], "size": 4096,
         "recipient_count": 1, "message_id": "<1@example.org>", "envid": "QQ", "parent": "", "took_us": 800,
         "client": {"address": "192.0.2.7", "port": 1234, "hello": "client.example.org", "protocol": "ESMTPSA",
                    "tls": "TLSv1.3 AES", "identity": "alice", "listener": "submission", "name": "",
                    "via": None, "forwarded": None, "tls_details": None}},
    ),
    (
        Accepted(AT_US, ID, "", ("a@b",), 10, "", Peer(listener="report"), parent=ID),
        INFO,
        f"accepted from <> for <a@b>, 10 octets, reports on {ID_TEXT}",
        {"kind": "accepted", "parent": ID_TEXT},
    ),
    (
        Attempted(AT_US, ID, ("bob@example.net",), "example.net", RELAYED),
        INFO,
        "relayed for <bob@example.net> to example.net at mx.example.net[192.0.2.9]:25 (TLSv1.3 AES): 2.0.0 "
        '"250 2.0.0 ok queued", in 2.3 ms + 10.0 ms to connect',
        {"kind": "attempted", "recipients": ["bob@example.net"], "recipient_count": 1, "destination": "example.net",
         "outcome": "relayed", "reach": "recipient", "status": "2.0.0", "text": "", "reply": "250 2.0.0 ok queued",
         "transport": "smtp", "remote_name": "mx.example.net", "remote_address": "192.0.2.9", "remote_port": 25,
         "tls": "TLSv1.3 AES", "took_us": 2300, "connect_us": 10_000, "attempts": 1, "next": None},
    ),
    (
        Attempted(AT_US, ID, ("a@b", "c@d"), "b", DEFERRED, 3, AT_US + 60_000_000),
        INFO,
        "deferred for <a@b>, <c@d> to b at mx.example.net[192.0.2.9]:25 (TLSv1.3 AES): 4.2.2 mailbox full, in 2.3 ms + "
        "10.0 ms to connect, attempt 3, next 2026-09-21T14:14:20.123456Z",
        {"kind": "attempted", "recipients": ["a@b", "c@d"], "recipient_count": 2, "attempts": 3, "reply": "",
         "next": "2026-09-21T14:14:20.123456Z"},
    ),
    (
        Attempted(AT_US, ID, ("a@b",), "b", FAILED),
        WARNING,
        'failed for <a@b> to b at mx.example.net[192.0.2.9]:25: 4.2.2 "550 no never" mailbox full, in 2.3 ms + '
        "10.0 ms to connect",
        {"kind": "attempted", "outcome": "failed", "reply": "550 no never"},
    ),
    (
        Failed(AT_US, ID, ("a@b",), "5.4.7", "given up", "root"),
        WARNING,
        "failed for <a@b>: 5.4.7 given up, by root",
        {"kind": "failed", "recipients": ["a@b"], "recipient_count": 1, "status": "5.4.7", "text": "given up",
         "by": "root"},
    ),
    (
        Reported(AT_US, ID, ("a@b",), "failed", ID + 1024),
        INFO,
        f"reported failed for <a@b> in {identifier.text(ID + 1024)}",
        {"kind": "reported", "recipients": ["a@b"], "action": "failed", "report": identifier.text(ID + 1024),
         "text": ""},
    ),
    (
        Reported(AT_US, ID, ("a@b",), "failed", 0, "no return address"),
        INFO,
        "not reported failed for <a@b>: no return address",
        {"kind": "reported", "report": "", "text": "no return address"},
    ),
    (Expanded(AT_US, ID, "all@x", ("a@x", "b@x")), INFO, "expanded <all@x> into <a@x>, <b@x>",
     {"kind": "expanded", "recipient": "all@x", "into": ["a@x", "b@x"], "into_count": 2}),
    (Held(AT_US, ID, ("a@b",), "root", "looks odd"), INFO, "held for <a@b>, by root: looks odd",
     {"kind": "held", "recipients": ["a@b"], "by": "root", "text": "looks odd"}),
    (Released(AT_US, ID, ("a@b",), "root"), INFO, "released for <a@b>, by root",
     {"kind": "released", "recipients": ["a@b"], "by": "root", "now": False}),
    (Released(AT_US, ID, ("a@b",), "", True), INFO, "to be tried now for <a@b>", {"kind": "released", "now": True}),
    (Removed(AT_US, ID, ("a@b",), "root"), INFO, "removed for <a@b>, by root",
     {"kind": "removed", "recipients": ["a@b"], "by": "root", "text": ""}),
    (
        Refused(AT_US, 0, PEER, "RCPT", "550 5.7.1 no relay", "a@b", "c@d"),
        INFO,
        "refused RCPT of [192.0.2.7]:1234 \"client.example.org\" ESMTPSA (TLSv1.3 AES) as alice at submission: "
        "550 5.7.1 no relay; from <a@b>; for <c@d>",
        {"kind": "refused", "phase": "RCPT", "reply": "550 5.7.1 no relay", "reverse_path": "a@b", "recipient": "c@d",
         "id": ""},
    ),
    (
        Refused(AT_US, 0, Peer("192.0.2.7", 1, "[192.0.2.7]", "ESMTPS"), "AUTH", "535 5.7.8 wrong", reason="al\x1b[1m"),
        INFO,
        "refused AUTH of [192.0.2.7]:1 ESMTPS: 535 5.7.8 wrong; account \"al\\x1b[1m\"",
        {"kind": "refused", "phase": "AUTH", "reason": "al\x1b[1m"},
    ),
    (
        SessionEnded(AT_US, 0, Peer("192.0.2.7", 1, "", "SMTP"), "quit", 2, 0, 12_000_000),
        DEBUG,
        "session of [192.0.2.7]:1 SMTP ended: quit; 2 messages, 0 errors, 12.0 s",
        {"kind": "session", "reason": "quit", "messages": 2, "errors": 0, "took_us": 12_000_000, "refusal": ""},
    ),
    (
        SessionEnded(AT_US, 0, Peer("192.0.2.7", 1, "", "SMTP"), "quit", 0, 1, 12_000_000, "530 5.7.0 no"),
        INFO,
        "session of [192.0.2.7]:1 SMTP ended: quit; 0 messages, 1 error, 12.0 s, the last: 530 5.7.0 no",
        {"kind": "session", "errors": 1, "refusal": "530 5.7.0 no"},
    ),
    (  # XCLIENT told no port
        SessionEnded(AT_US, 0, Peer("192.0.2.7", 0, "", "SMTP"), "quit", 1, 0, 12_000_000),
        DEBUG,
        "session of [192.0.2.7] SMTP ended: quit; 1 message, 0 errors, 12.0 s",
        {"kind": "session", "messages": 1},
    ),
    (
        Authenticated(AT_US, 0, Peer("192.0.2.7", 1, "a.test", "ESMTPSA", identity="ada"), "SCRAM-SHA-256"),
        INFO,
        "authenticated [192.0.2.7]:1 \"a.test\" ESMTPSA as ada by SCRAM-SHA-256",
        {"kind": "authenticated", "mechanism": "SCRAM-SHA-256"},
    ),
    (Inspected(AT_US, ID, "virus", "clean", "0.1 s"), INFO, "checked by virus: clean: 0.1 s",
     {"kind": "checked", "rule": "virus", "result": "clean", "text": "0.1 s"}),
    (Rewritten(AT_US, ID, ("set Subject", "added A")), INFO, "rewritten: set Subject; added A",
     {"kind": "rewritten", "changes": ["set Subject", "added A"], "changes_count": 2}),
    (Evaluated(AT_US, ID, EVALUATION), INFO,
     "evaluated: spf pass (a.test), dmarc fail (b.test), arc none; what was done: quarantine; the policy of b.test",
     {"kind": "evaluated", "address": "192.0.2.7", "hello": "mx.a.test", "sender_domain": "a.test",
      "found": [{"method": "spf", "result": "pass", "reason": "", "properties": {"smtp.mailfrom": "a.test"},
                 "told": "a.test permits it"},
                {"method": "dmarc", "result": "fail", "reason": "", "properties": {"header.from": "b.test"},
                 "told": ""},
                {"method": "arc", "result": "none", "reason": "", "properties": {}, "told": ""}],
      "dmarc": [{"author": "b.test", "result": "fail", "policy_domain": "b.test", "organizational": "",
                 "record": "v=DMARC1; p=quarantine", "tag": "p", "asked": "quarantine", "applied": "quarantine",
                 "spf_aligned": False, "dkim_aligned": False}],
      "disposition": "quarantine", "override": "", "comment": "the policy of b.test", "believed": "", "queries": 3}),
    (Noted(AT_US, 0, "error", "disk full"), ERROR, "disk full", {"kind": "noted", "text": "disk full"}),
    (Noted(AT_US, 0, "strange", "x"), INFO, "x", {"kind": "noted", "level": "info"}),
]  # fmt: skip


@pytest.mark.parametrize(("event", "rank", "said", "record"), EVENTS)
def test_lines(event: Event, rank: int, said: str, record: dict[str, Any]) -> None:
    level = ("debug", "info", "warning", "error")[rank]
    assert rank_of(event) == rank
    id_text = ID_TEXT if event.id else "-"
    assert human_line(event).decode() == f"2026-09-21T14:13:20.123456Z {level} {id_text} {said}"
    found = json.loads(json_line(event))
    expected = {"time": "2026-09-21T14:13:20.123456Z", "level": level, "id": ID_TEXT if event.id else "", **record}
    assert {key: found[key] for key in expected} == expected


def test_every_kind_of_event_is_there() -> None:
    assert {type(event) for event, *_ in EVENTS} == set(typing.get_args(Event))


def test_keys_are_the_same_for_every_event_of_a_kind() -> None:
    keys: dict[str, list[str]] = {}
    for event, *_ in EVENTS:
        record = json.loads(json_line(event))
        assert list(record)[:4] == ["time", "level", "kind", "id"]
        assert keys.setdefault(record["kind"], list(record)) == list(record)


HOSTILE = [
    "a\r\nb", "\x1b[31m", "a\0b", "\x7f", "\x9b31m", "\u2028", "\u202e", "\U000e0001", "\ud800", '"\\', "ünï", "\t",
]  # fmt: skip


@pytest.mark.parametrize("text", HOSTILE)
def test_nothing_unprintable_gets_into_a_line(text: str) -> None:
    of = Attempt(Outcome.FAILED, Reach.HOP, text, text, Reply(550, text, (text,)), text, text, 25, text)
    events = with_text(text, AT_US, ID, of)
    assert {type(event) for event in events} == set(typing.get_args(Event))
    for event in events:
        assert human_line(event).decode().isprintable()
        line = json_line(event).decode()
        assert line.isprintable()
        found = json.dumps(json.loads(line), ensure_ascii=False)
        if text != "\ud800":
            assert json.dumps(text, ensure_ascii=False)[1:-1] in found


def test_each_value_of_an_attempt_stands_under_its_name() -> None:
    of = Attempt(
        Outcome.RELAYED, Reach.RECIPIENT, "status", "text", Reply(250, "2.0.0", ("reply",)), "remote_name",
        "remote_address", 25, "tls", took_us=1, connect_us=2, transport="transport", auth="auth",
    )  # fmt: skip
    found = json.loads(json_line(Attempted(AT_US, ID, ("recipients",), "destination", of, 3, AT_US)))
    texts = ("status", "text", "remote_name", "remote_address", "tls", "transport", "auth", "destination")
    assert [found[name] for name in texts] == list(texts)
    assert (found["recipients"], found["reply"]) == (["recipients"], "250 2.0.0 reply")
    assert [found[name] for name in ("took_us", "connect_us", "attempts", "remote_port")] == [1, 2, 3, 25]


def test_each_value_of_an_accepted_message_stands_under_its_name() -> None:
    accepted = Accepted(AT_US, ID, "reverse_path", ("recipients",), 1, "message_id", PEER, "envid", 0, 2)
    found = json.loads(json_line(accepted))
    assert [found[name] for name in ("reverse_path", "message_id", "envid")] == ["reverse_path", "message_id", "envid"]
    assert (found["recipients"], found["size"], found["took_us"]) == (["recipients"], 1, 2)


def test_a_mailing_names_its_first_recipients() -> None:
    everyone = tuple(f"user{number}@example.net" for number in range(1000))
    event = Attempted(AT_US, ID, everyone, "example.net", RELAYED)
    line = human_line(event).decode()
    assert "<user99@example.net> and 900 more to" in line and "user100@" not in line
    record = json.loads(json_line(event))
    assert len(record["recipients"]) == 100 and record["recipient_count"] == 1000


@pytest.mark.parametrize(
    ("hello", "shown"),
    [
        ("[198.51.100.1]:25", '"[198.51.100.1]:25"'),
        ('x" [198.51.100.1]:25 "', '"x\\" [198.51.100.1]:25 \\""'),
        ("x\\", '"x\\\\"'),
        ("B\u00fcro", '"B\u00fcro"'),
        ("a\u0085b", '"a\\x85b"'),
    ],
)
def test_what_a_client_calls_itself_cannot_pass_for_its_address(hello: str, shown: str) -> None:
    """Who bans clients by the log takes the first address of a line: it is ours."""
    refused = Refused(AT_US, 0, Peer("192.0.2.7", 1, hello, "ESMTP"), "RCPT", "550 5.7.1 no")
    assert f"refused RCPT of [192.0.2.7]:1 {shown} ESMTP: 550 5.7.1 no" in human_line(refused).decode()
    forwarded = Forwarded("name", "192.0.2.9", 0, "ESMTP", hello)
    refused = Refused(AT_US, 0, Peer("192.0.2.7", 1, "", "ESMTP", forwarded=forwarded), "RCPT", "550 5.7.1 no")
    assert f", forwarded for name[192.0.2.9] {shown} ESMTP: 550" in human_line(refused).decode()


def test_an_account_that_was_tried_cannot_pass_for_more() -> None:
    refused = Refused(AT_US, 0, Peer("192.0.2.7", 1), "AUTH", "535 5.7.8 no", reason='ada"; from <b@c>')
    assert human_line(refused).decode().endswith('; account "ada\\"; from <b@c>"')


@pytest.mark.parametrize(
    ("reason", "rank"),
    [
        ("TLS handshake failed: TLS failed: unsupported protocol", INFO),
        ("TLS handshake failed: closed by the client", INFO),
        ("TLS handshake failed: timed out", INFO),
        ("closed by the client in place of a TLS handshake", INFO),
        ("TLS is not spoken at once on this port", INFO),
        ("closed by the client", DEBUG),
        ("quit", DEBUG),
    ],
)
def test_a_client_that_cannot_get_tls_is_told_at_the_usual_level(reason: str, rank: int) -> None:
    """It is what people look for first."""
    event = SessionEnded(AT_US, 0, Peer("192.0.2.7", 1, "", "SMTP", listener="in"), reason)
    assert rank_of(event) == rank
    assert reason in human_line(event).decode()
