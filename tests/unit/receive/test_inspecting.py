"""Inspections of sessions: what they are asked and told, in which order, how often, and what their effects change."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from postroad.mail.address import Address
from postroad.mail.envelope import Peer
from postroad.mail.event import Inspected, Noted, Removed, Rewritten
from postroad.mail.message import ContentFile
from postroad.mail.policy import (
    ACCEPT,
    Action,
    AddRecipient,
    Answer,
    Append,
    DropRecipient,
    Effect,
    Inspection,
    Phase,
    Prepend,
    Question,
    Record,
    Redirect,
    RemoveField,
    ReplaceBody,
    SetField,
    SetReversePath,
    Verdict,
    accept,
    defer,
    reject,
)
from postroad.receive.options import ReceiveOptions
from postroad.store.values import Stored
from tests.unit.receive.fakes import House, opened

MAIL, RCPT = "MAIL FROM:<a@b.test>\r\n", "RCPT TO:<ann@local.test>\r\n"
MESSAGE = "Subject: one\r\nX-Old: 1\r\n\r\nbody\r\n.\r\n"
LONG = ("0123456789" * 7 + "\r\n") * 300
Judge = Callable[[Question], Answer]


class Seen:
    """An inspection that writes down what it is told. `judges`: its answer by phase."""

    reads_content = True

    def __init__(self, **judges: Judge) -> None:
        self.calls: list[str] = []
        self.octets = b""
        self.questions: list[Question] = []
        self.judges = judges

    def ask(self, question: Question) -> Answer:
        self.calls.append(question.phase.name)
        self.questions.append(question)
        judge = self.judges.get(question.phase.name)
        return ACCEPT if judge is None else judge(question)

    def content(self, octets: bytes) -> None:
        if not self.calls or self.calls[-1] != "content":
            self.calls.append("content")
        self.octets += octets

    def aborted(self) -> None:
        self.calls.append("aborted")

    def ended(self) -> None:
        self.calls.append("ended")


class Visitor:
    """An inspector that hands out these inspections."""

    def __init__(self, *inspections: Inspection | None) -> None:
        self.inspections = list(inspections)
        self.peers: list[Peer] = []

    def visit(self, peer: Peer) -> Inspection | None:
        self.peers.append(peer)
        return self.inspections.pop(0)


def house_of(*inspections: Inspection, file: bool = False, **more: Any) -> House:
    options = ReceiveOptions(hostname="mx.local.test", memory_content_max=20 if file else 1_000_000)
    return House(inspectors=tuple(map(Visitor, inspections)), options=options, **more)


def always(*effects: Effect) -> Judge:
    return lambda question: accept(*effects)


def stored(house: House) -> tuple[Stored, bytes]:
    (kept,) = house.spool.stored
    content = kept.content
    if isinstance(content, ContentFile):
        return kept, kept.envelope.prefix + house.spool.incomings[0].octets
    return kept, kept.envelope.prefix + content


def sent(house: House, body: str = "body\r\n") -> str:
    """The answer to a message with this body. A long one goes to a file where `house_of` was told so."""
    client = opened(house)
    client.say(MAIL + RCPT + "DATA\r\n")
    return client.say(MESSAGE.replace("body\r\n", body))


# ---- What is asked and told


def test_a_session_is_told_each_step_once_and_in_order() -> None:
    seen = Seen()
    house = house_of(seen)
    client = opened(house)
    client.say(MAIL + RCPT + "DATA\r\n")
    client.say(MESSAGE[:20])
    assert client.say(MESSAGE[20:]).startswith("250")
    client.say("QUIT\r\n")
    client.hang_up()
    assert seen.calls == ["CONNECT", "HELLO", "MAIL", "RCPT", "DATA", "content", "MESSAGE", "ended"]
    assert seen.octets == MESSAGE.removesuffix(".\r\n").encode()
    mail, rcpt, data, message = seen.questions[2:]
    assert mail.reverse_path == Address("a", "b.test") and rcpt.recipient == Address("ann", "local.test")
    assert data.recipients == 1 and data.id and message.id == data.id
    assert message.head == b"Subject: one\r\nX-Old: 1\r\n" and message.size == len(seen.octets)


def test_chunks_are_asked_about_when_they_are_complete() -> None:
    seen = Seen()
    client = opened(house_of(seen))
    client.say(MAIL + RCPT)
    client.say("BDAT 10\r\nSubject: x")
    assert client.say("BDAT 8 LAST\r\n\r\n\r\nbody").rpartition("\n")[2].startswith("250")
    assert seen.calls[2:] == ["MAIL", "RCPT", "content", "DATA", "MESSAGE"]


@pytest.mark.parametrize(
    "ending",
    ["RSET\r\n", "EHLO again.test\r\n", "DATA\r\n" + MESSAGE, "hang up", "QUIT\r\n"],
    ids=["RSET", "EHLO", "refused", "lost", "QUIT"],
)
def test_a_transaction_that_comes_to_nothing_is_aborted_once(ending: str) -> None:
    seen = Seen(MESSAGE=lambda question: reject(550, "5.7.1", "no"))
    client = opened(house_of(seen))
    client.say(MAIL + RCPT)
    if ending == "hang up":
        client.hang_up()
    else:
        client.say(ending)
        client.hang_up()
    assert seen.calls.count("aborted") == 1 and seen.calls.count("ended") == 1 and seen.calls[-1] == "ended"


@pytest.mark.parametrize("phase", ["CONNECT", "HELLO", "MAIL", "RCPT", "DATA", "MESSAGE"])
def test_a_refusal_of_each_phase_is_heard_and_is_an_event(phase: str) -> None:
    later, seen = Seen(), Seen(**{phase: lambda question: reject(554, "5.7.1", "not you")})
    house = house_of(seen, later)
    client = house.client()
    heard = client.heard().decode()
    for line in ("EHLO c.test\r\n", MAIL, RCPT, "DATA\r\n", MESSAGE):
        if "not you" not in heard:
            heard += client.say(line)
    assert "not you" in heard and house.recorded and not house.spool.stored
    assert phase not in later.calls, "nobody is asked after a refusal"
    client.hang_up()
    assert seen.calls.count("aborted") == (phase not in ("CONNECT", "HELLO")) and seen.calls[-1] == "ended"


def test_who_is_not_interested_is_not_asked() -> None:
    house = House(inspectors=(Visitor(None),))
    assert sent(house).startswith("250")


def test_another_client_by_xclient_is_another_session() -> None:
    from postroad.mail.policy import Role
    from postroad.receive.options import ListenerOptions

    first, second = Seen(), Seen()
    visitor = Visitor(first, second)
    listener = ListenerOptions("front", Role.MX, xclient_networks=("192.0.2.0/24",))
    client = opened(House(inspectors=(visitor,), listener=listener))
    client.say(MAIL + "RSET\r\n")
    assert client.say("XCLIENT ADDR=198.51.100.7\r\n").startswith("220")
    client.hang_up()
    assert first.calls == ["CONNECT", "HELLO", "MAIL", "aborted", "ended"]
    assert second.calls == ["CONNECT", "ended"] and visitor.peers[1].address == "198.51.100.7"


# ---- What goes wrong


@pytest.mark.parametrize("phase", ["MAIL", "RCPT", "DATA", "MESSAGE"])
def test_an_inspection_that_raises_lets_nothing_through(phase: str) -> None:
    seen = Seen(**{phase: lambda question: Verdict(1 / 0)})  # type: ignore[arg-type]
    house = house_of(seen)
    client = opened(house)
    heard = [client.say(line).rpartition("\n")[2] for line in (MAIL, RCPT, "DATA\r\n")]
    if phase == "MESSAGE":
        heard.append(client.say(MESSAGE))
    assert any(each.startswith("451 4.3.0") for each in heard)
    assert client.say("RSET\r\n").startswith("250") and client.say(MAIL).startswith("451 4.3.0")
    client.hang_up()
    assert not house.spool.stored and seen.calls.count(phase) == 1 and seen.calls.count("ended") == 1
    assert any(isinstance(event, Noted) and "ZeroDivisionError" in event.text for event in house.logged)


def test_one_that_raises_over_content_is_not_passed_by() -> None:
    seen = Seen()
    seen.content = lambda octets: 1 / 0  # type: ignore[assignment,method-assign]
    house = house_of(seen)
    assert sent(house).startswith("451 4.3.0") and not house.spool.stored


def test_an_inspector_that_raises_lets_nobody_in() -> None:
    house = House(inspectors=(Visitor(),))
    assert house.client().heard().startswith(b"451")


def test_a_verdict_may_be_waited_for_and_the_client_may_go_meanwhile() -> None:
    async def run() -> None:
        verdict: asyncio.Future[Verdict] = asyncio.get_running_loop().create_future()
        seen = Seen(MESSAGE=lambda question: verdict)
        house = house_of(seen)
        client = opened(house)
        client.say(MAIL + RCPT + "DATA\r\n")
        assert client.say(MESSAGE) == ""
        await asyncio.sleep(0)
        client.hang_up()
        await asyncio.sleep(0)
        assert verdict.cancelled()
        assert not house.spool.stored and seen.calls[-2:] == ["aborted", "ended"]

    asyncio.run(run())


@pytest.mark.parametrize("effect", [Append("no name", b"1"), ReplaceBody(b"a\nb"), Prepend("A", b"1\r\nB: 2")])
def test_an_effect_that_would_break_the_message_refuses_it(effect: Effect) -> None:
    house = house_of(Seen(MESSAGE=always(Append("Good", b"1"), effect)))
    assert sent(house).startswith("451 4.3.0") and not house.spool.stored
    assert any(isinstance(event, Noted) and "cannot be done" in event.text for event in house.logged)


# ---- What effects change


@pytest.mark.parametrize("file", [False, True], ids=["memory", "file"])
def test_effects_change_the_message_in_their_order(file: bool) -> None:
    changes = always(SetField("Subject", b"two"), RemoveField("X-Old"))
    first = Seen(MAIL=always(Append("From-Mail", b"1")), MESSAGE=changes)
    second = Seen(MESSAGE=always(Prepend("On-Top", b"x"), SetField("Subject", b"three"), Append("End", "ä".encode())))
    house = house_of(first, second, file=file)
    assert sent(house, LONG).startswith("250") and len(house.spool.incomings) == file
    kept, octets = stored(house)
    head, _, body = octets.partition(b"\r\n\r\n")
    assert head.startswith(b"On-Top: x\r\nReceived: ") and body == LONG.encode()
    assert head.endswith("\r\nSubject: three\r\nFrom-Mail: 1\r\nEnd: ä".encode())
    assert kept.envelope.size == len(octets) and kept.envelope.body.value == "8BITMIME"
    assert second.questions[-1].head == b"Subject: two\r\n", "the later one sees what the earlier one has changed"
    (event,) = [each for each in house.spool.events if isinstance(each, Rewritten)]
    assert event.changes == (
        "added From-Mail", "set Subject", "removed X-Old", "added On-Top", "set Subject", "added End"
    )


@pytest.mark.parametrize("file", [False, True], ids=["memory", "file"])
def test_a_body_is_replaced(file: bool) -> None:
    long = b"x" * 2000 + b"\r\n"
    house = house_of(Seen(MESSAGE=always(ReplaceBody(b"not this\r\n"), ReplaceBody(long))), file=file)
    assert sent(house, LONG).startswith("250") and len(house.spool.incomings) == file
    kept, octets = stored(house)
    assert octets.partition(b"\r\n\r\n")[2] == long and b"\r\nSubject: one\r\nX-Old: 1\r\n\r\n" in octets
    assert kept.envelope.long_lines and kept.envelope.size == len(octets)


def test_a_field_on_top_leaves_content_in_a_file_alone() -> None:
    house = house_of(Seen(MESSAGE=always(Prepend("A", b"1"))), file=True)
    assert sent(house, LONG).startswith("250")
    kept, _ = stored(house)
    assert house.spool.incomings[0].octets == MESSAGE.removesuffix(".\r\n").replace("body\r\n", LONG).encode()
    assert kept.envelope.prefix.startswith(b"A: 1\r\nReceived: ")


def test_the_envelope_is_changed_and_the_history_says_so() -> None:
    effects = (
        SetReversePath(None), AddRecipient(Address("bob", "local.test")), DropRecipient(Address("ann", "local.test")),
        Record("virus", "clean", "0.1 s"),
    )
    house = house_of(Seen(MESSAGE=always(*effects)))
    assert sent(house).startswith("250")
    kept, _ = stored(house)
    assert kept.envelope.reverse_path is None
    assert [str(each.address) for each in kept.envelope.recipients] == ["bob@local.test"]
    (checked,) = [each for each in house.spool.events if isinstance(each, Inspected)]
    assert (checked.rule, checked.result, checked.text) == ("virus", "clean", "0.1 s")
    (removed,) = [each for each in house.spool.events if isinstance(each, Removed)]
    assert removed.recipients == ("ann@local.test",)


def test_a_message_is_redirected_in_place_of_all_whom_the_client_named() -> None:
    junk = Redirect(Address("junk", "local.test"))
    seen = Seen(MAIL=always(AddRecipient(Address("copy", "local.test"))), MESSAGE=always(junk, Record("spam", "1")))
    house = house_of(seen)
    client = opened(house)
    client.say(MAIL + RCPT + RCPT.replace("ann", "bob") + RCPT + "DATA\r\n")
    assert client.say(MESSAGE).startswith("250")
    kept, _ = stored(house)
    assert [str(each.address) for each in kept.envelope.recipients] == ["copy@local.test", "junk@local.test"]
    removed = [each for each in house.spool.events if isinstance(each, Removed)]
    assert {each.text for each in removed} == {"redirected to <junk@local.test>"}
    assert {name for each in removed for name in each.recipients} == {"ann@local.test", "bob@local.test"}
    (changed,) = [each for each in house.spool.events if isinstance(each, Rewritten)]
    assert changed.changes[-1] == "redirected to <junk@local.test>"


def test_a_sender_that_is_changed_at_mail_is_the_sender_at_rcpt() -> None:
    seen = Seen(MAIL=always(SetReversePath(Address("other", "b.test"))))
    house = house_of(seen)
    assert sent(house).startswith("250")
    assert [each.reverse_path for each in seen.questions[3:]] == [Address("other", "b.test")] * 3


@pytest.mark.parametrize("action", [Action.HOLD, Action.DISCARD])
def test_a_message_may_be_held_or_discarded_with_effects(action: Action) -> None:
    house = house_of(Seen(MESSAGE=lambda question: Verdict(action, reason="so", effects=(Append("A", b"1"),))))
    assert sent(house).startswith("250")
    if action is Action.HOLD:
        assert b"\r\nA: 1\r\n" in stored(house)[1] and house.spool.waiting[0][0].held
    else:
        assert not house.spool.stored


def test_a_refusal_applies_no_effects() -> None:
    refusing = Verdict(Action.DEFER, defer(451, "4.7.1", "later").reply, effects=(Append("A", b"1"),))
    house = house_of(Seen(MESSAGE=lambda question: refusing))
    assert sent(house).startswith("451 4.7.1") and not house.spool.stored


def test_phases_are_named_as_in_the_history() -> None:
    assert [each.value for each in Phase] == ["CONNECT", "EHLO", "MAIL", "RCPT", "DATA", "MESSAGE"]
