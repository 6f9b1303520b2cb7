"""What a session does about clients that ask too much: early talkers, no room, no memory, names tried out."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from postroad.mail.event import Noted, Refused, SessionEnded
from postroad.protocol.limits import ProtocolLimits
from postroad.receive.budget import UNCOUNTED, Budget
from postroad.receive.options import EarlyTalker, ListenerOptions, ReceiveOptions
from postroad.receive.refusal_notes import CLIENTS_MAX, PAUSE_S, RefusalNotes
from tests.unit.receive.fakes import House, opened

# Early talkers (RFC 5321 §3.1)


def delayed(early_talker: EarlyTalker, **more: Any) -> House:
    return House(listener=ListenerOptions("front", greet_delay_s=2.0, early_talker=early_talker), **more)


@pytest.mark.parametrize("early_talker", EarlyTalker)
def test_who_waits_is_greeted_after_the_pause(early_talker: EarlyTalker) -> None:
    house = delayed(early_talker)
    client = house.client()
    house.loop.pass_time(1.9)
    assert client.heard() == b""
    house.loop.pass_time(0.2)
    assert client.heard().startswith(b"220 ")
    assert client.codes("EHLO client.test") == ["250 SMTPUTF8"] or client.codes("NOOP") == ["250 2.0.0"]
    assert house.recorded == []


def test_an_early_talker_is_refused() -> None:
    offended: list[str] = []
    house = delayed(EarlyTalker.REFUSE, offended=offended.append)
    client = house.client()
    assert client.say("EHLO client.test\r\nMAIL FROM:<>\r\n") == ""
    house.loop.pass_time(2.1)
    assert client.heard() == b"554 5.5.1 You spoke before the greeting (RFC 5321 section 3.1)\r\n"
    assert client.transport.closed
    [refused] = [event for event in house.recorded if isinstance(event, Refused)]
    assert refused.phase == "CONNECT" and "EHLO client.test" in refused.reason
    assert offended == ["192.0.2.1"]


def test_an_early_talker_is_noted_and_served() -> None:
    house = delayed(EarlyTalker.NOTE)
    client = house.client()
    client.say(b"HELO \x1b[31m\r\n")
    house.loop.pass_time(2.1)
    heard = client.heard()
    assert heard.startswith(b"220 ") and heard.count(b"\r\n") == 2
    assert client.codes("EHLO client.test")[0].startswith("250 ")
    [noted] = [event for event in house.recorded if isinstance(event, Noted)]
    assert noted.text == "[192.0.2.1] spoke before the greeting: b'HELO \\x1b[31m\\r\\n'"


def test_the_trusted_and_those_of_a_unix_socket_do_not_wait() -> None:
    trusting = ListenerOptions("front", greet_delay_s=2.0, trusted_networks=("192.0.2.0/24",))
    assert House(listener=trusting).client().heard().startswith(b"220")
    assert House(listener=ListenerOptions("front", greet_delay_s=2.0)).client("").heard().startswith(b"220")


def test_without_a_pause_nobody_is_early() -> None:
    house = House(listener=ListenerOptions("front", early_talker=EarlyTalker.REFUSE))
    client = house.client()
    assert client.heard().startswith(b"220") and client.say("EHLO client.test\r\n").startswith("250")
    assert house.recorded == []


def test_a_client_that_goes_during_the_pause_leaves_nothing() -> None:
    house = delayed(EarlyTalker.REFUSE)
    client = house.client()
    client.hang_up()
    house.loop.pass_time(5)
    assert house.recorded == [] and house.clients.sessions == 0


# Turned away


def test_no_descriptors_left() -> None:
    house = House(has_room=lambda transport: False)
    client = house.client()
    assert client.heard() == b"421 4.3.2 Too many connections here now, come back later\r\n"
    assert client.transport.closed
    client.hang_up()
    assert house.clients.sessions == 0
    assert not [event for event in house.logged if isinstance(event, SessionEnded)]


def test_a_flood_of_refused_clients_does_not_fill_the_log() -> None:
    house = House(has_room=lambda transport: False)
    for _ in range(1000):
        house.client().hang_up()
    house.client(("192.0.2.2", 1)).hang_up()
    assert len(house.recorded) == 2 and house.logged == house.recorded
    house.loop.pass_time(PAUSE_S + 1)
    house.client().hang_up()
    assert isinstance(house.recorded[-1], Refused) and "999 more" in house.recorded[-1].reason


def test_who_was_turned_away_is_forgotten() -> None:
    turned = RefusalNotes()
    for number in range(CLIENTS_MAX + 10):
        assert turned.left_out(str(number), "why", 1000.0, stranger=False) == 0
    assert len(turned._told) == CLIENTS_MAX


# Names tried out


def test_unknown_recipients_end_the_session_and_count_for_a_ban() -> None:
    offended: list[str] = []
    options = ReceiveOptions(hostname="mx.local.test", unknown_recipients_max=2)
    house = House(options=options, offended=offended.append)
    client = opened(house)
    client.say("MAIL FROM:<>\r\n")
    assert client.codes("RCPT TO:<a@local.test>", "RCPT TO:<ann@local.test>", "RCPT TO:<x@away.test>") == [
        "550 5.1.1", "250 2.1.5", "550 5.7.1",
    ]  # fmt: skip
    assert client.codes("RCPT TO:<b@local.test>", "RCPT TO:<c@local.test>") == ["550 5.1.1", "421 4.7.0"]
    assert client.transport.closed and offended == ["192.0.2.1"]


def test_zero_is_no_limit_of_unknown_recipients() -> None:
    house = House(options=ReceiveOptions(hostname="mx.local.test", unknown_recipients_max=0, refusals_max=1000))
    client = opened(house)
    client.say("MAIL FROM:<>\r\n")
    assert set(client.codes(*["RCPT TO:<a@local.test>"] * 200)) == {"550 5.1.1"}


def test_too_many_errors_count_for_a_ban() -> None:
    offended: list[str] = []
    options = ReceiveOptions(hostname="mx.local.test", limits=ProtocolLimits(errors_max=2))
    client = opened(House(options=options, offended=offended.append))
    client.codes(*["EAT"] * 5)
    assert client.transport.closed and offended == ["192.0.2.1"]


# Memory

PIECES = ReceiveOptions(hostname="mx.local.test", limits=ProtocolLimits(piece_size=4096))
HEAD = b"Subject: x\r\n\r\n"
LINE = b"x" * 70 + b"\r\n"


def begun(house: House) -> Any:
    client = opened(house)
    assert client.codes("MAIL FROM:<>", "RCPT TO:<ann@local.test>", "DATA")[-1] == "354 Send"
    return client


def test_small_messages_are_not_counted_and_larger_ones_are_given_back() -> None:
    budget = Budget(1_000_000)
    house = House(budget=budget, options=PIECES)
    client = begun(house)
    client.say(HEAD + LINE * 100)
    assert budget.held == 0
    client.say(LINE * 300)
    assert UNCOUNTED < budget.held <= len(HEAD + LINE * 400)
    assert client.say(b".\r\n").startswith("250")
    assert budget.held == 0


@pytest.mark.parametrize("end", ["hang up", "file"])
def test_what_is_dropped_or_in_a_file_is_given_back(end: str) -> None:
    budget = Budget(1_000_000)
    options = msgspec.structs.replace(PIECES, memory_content_max=30_000)
    house = House(budget=budget, options=options)
    client = begun(house)
    client.say(HEAD + LINE * 300)
    assert budget.held > UNCOUNTED
    if end == "file":
        client.say(LINE * 300)
        assert budget.held == 0 and house.spool.incomings
    client.hang_up()
    assert budget.held == 0


def test_past_the_budget_content_goes_to_files_and_new_mail_is_told_to_come_back() -> None:
    budget = Budget(30_000)
    house = House(budget=budget, options=PIECES)
    first, second = begun(house), begun(house)
    first.say(HEAD + LINE * 300)
    assert not house.spool.incomings
    second.say(HEAD + LINE * 300)  # together they are past it: this one goes to a file
    assert len(house.spool.incomings) == 1 and UNCOUNTED < budget.held <= len(HEAD + LINE * 300)
    budget.take(10_000)
    third = opened(house)
    assert third.codes("MAIL FROM:<>") == ["452 4.3.1"]
    first.say(LINE * 100)
    assert len(house.spool.incomings) == 2 and budget.held == 0
    assert third.codes("MAIL FROM:<>") == ["250 2.1.0"]
    for client in (first, second):
        assert client.say(b".\r\n") != "" or house.spool.incomings


def test_a_header_section_without_end_cannot_hold_the_memory() -> None:
    budget = Budget(30_000)
    house = House(budget=budget, options=PIECES)
    client = begun(house)
    client.say(b"X: y\r\n" * 100)
    heard = client.say(b"".join(b"X%d: " % number + LINE for number in range(600)))
    assert heard.startswith("421 4.3.1") and client.transport.closed
    assert budget.held == 0
