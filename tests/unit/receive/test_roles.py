"""What each role of a listener refuses, over the dialog; verdicts of all kinds; aliases; new settings."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from postroad.check.policy import PolicyOptions
from postroad.mail.address import Address
from postroad.mail.envelope import Notify, Recipient
from postroad.mail.event import Accepted, Event, Expanded, Held, Noted, Refused, Removed, Reported
from postroad.mail.policy import ACCEPT, Action, Question, Role, Rule, Rules, Verdict, reject
from postroad.protocol.offer import WITHHELD, Dialect
from postroad.receive.doors import Expansion
from postroad.receive.options import ExtensionOptions, ListenerOptions, ReceiveOptions
from postroad.receive.setup import listener_setup
from postroad.store.values import Stored
from tests.unit.receive.fakes import House, opened
from tests.unit.receive.test_session import MESSAGE, begun, content

LOCAL, UNKNOWN, ELSEWHERE = "RCPT TO:<ann@local.test>", "RCPT TO:<no@local.test>", "RCPT TO:<x@elsewhere.test>"


def test_mx_takes_mail_for_its_own_domains_only() -> None:
    house = House()
    client = opened(house)
    assert client.codes(
        "MAIL FROM:<eve@elsewhere.test>", LOCAL, UNKNOWN, ELSEWHERE, "RCPT TO:<x@relay.test>",
        "RCPT TO:<Postmaster>", "RCPT TO:<POSTMASTER@local.test>",
    ) == ["250 2.1.0", "250 2.1.5", "550 5.1.1", "550 5.7.1", "250 2.1.5", "250 2.1.5", "250 2.1.5"]  # fmt: skip
    refused = [event for event in house.recorded if isinstance(event, Refused)]
    assert [(event.phase, event.recipient) for event in refused] == [
        ("RCPT", "no@local.test"),
        ("RCPT", "x@elsewhere.test"),
    ]
    assert {event.reverse_path for event in refused} == {"eve@elsewhere.test"}
    client.say("DATA\r\n")
    client.say(MESSAGE + b".\r\n")
    assert [str(each.address) for each in house.spool.stored[0].envelope.recipients] == [
        "ann@local.test", "x@relay.test", "postmaster@local.test", "POSTMASTER@local.test",
    ]  # fmt: skip


def test_no_valid_recipients_no_data() -> None:
    assert opened(House()).codes("MAIL FROM:<>", UNKNOWN, "DATA")[-1] == "554 5.5.1"


def test_mx_leaves_the_message_as_it_is() -> None:
    house = House()
    client = begun(house)
    odd = b"X: 1\r\nFROM : a\r\n\r\nno date, no id\r\n"
    client.say(odd + b".\r\n")
    assert content(house).endswith(b"\r\n" + odd)
    assert content(house).count(b"\r\n\r\n") == 1


@pytest.mark.parametrize(
    ("network", "expected"),
    [("192.0.2.0/24", "250 2.1.5"), ("192.0.2.1", "250 2.1.5"), ("198.51.100.0/24", "550 5.7.1")],
)
def test_relay_serves_trusted_networks(network: str, expected: str) -> None:
    house = House(listener=ListenerOptions("relay", Role.RELAY, trusted_networks=("2001:db8::/32", network)))
    assert opened(house).codes("MAIL FROM:<eve@elsewhere.test>", ELSEWHERE)[-1] == expected


def test_relay_may_be_closed_to_strangers() -> None:
    house = House(listener=ListenerOptions("relay", Role.RELAY), policy_options=PolicyOptions(strangers=False))
    assert opened(house).codes("MAIL FROM:<eve@elsewhere.test>", LOCAL, "RCPT TO:<Postmaster>") == [
        "250 2.1.0", "554 5.7.1", "250 2.1.5",
    ]  # fmt: skip


def test_clients_of_a_unix_socket_are_trusted_where_it_says_so() -> None:
    for trusted, expected in (("unix",), "250 2.1.5"), ((), "550 5.7.1"):
        house = House(listener=ListenerOptions("relay", Role.RELAY, trusted_networks=trusted))
        client = house.client("")
        assert client.codes("EHLO c.test", "MAIL FROM:<>", ELSEWHERE)[-1] == expected


def test_submission_demands_authentication() -> None:
    house = House(Role.SUBMISSION)
    client = opened(house)
    assert client.codes("MAIL FROM:<ann@local.test>", "RCPT TO:<bob@local.test>") == ["530 5.7.0", "503 5.5.1"]
    (event,) = house.recorded
    assert isinstance(event, Refused)
    assert (event.phase, event.reverse_path, event.reply[:9]) == ("MAIL", "ann@local.test", "530 5.7.0")


def test_lmtp_takes_local_recipients_only() -> None:
    house = House(Role.RELAY, Dialect.LMTP)
    client = opened(house, "LHLO client.test")
    assert client.codes("MAIL FROM:<>", LOCAL, UNKNOWN, ELSEWHERE, "RCPT TO:<x@relay.test>") == [
        "250 2.1.0", "250 2.1.5", "550 5.1.1", "550 5.7.1", "550 5.7.1",
    ]  # fmt: skip


def test_loops_are_refused() -> None:
    house = House(policy_options=PolicyOptions(hops_max=3))
    client = begun(house)
    assert client.say(b"Received: x\r\n" * 4 + MESSAGE + b".\r\n").startswith("554 5.4.6")
    assert not house.spool.stored
    (event,) = house.recorded
    assert isinstance(event, Refused) and event.phase == "DATA" and event.reason == "mail loop"
    assert client.codes("MAIL FROM:<>") == ["250 2.1.0"]


def test_loops_in_large_messages_are_refused_and_leave_no_file() -> None:
    house = House(
        policy_options=PolicyOptions(hops_max=3),
        options=ReceiveOptions(hostname="mx.local.test", memory_content_max=1_000),
    )
    client = begun(house)
    assert client.say(b"Received: x\r\n" * 4 + MESSAGE + b"x\r\n" * 10_000 + b".\r\n").startswith("554 5.4.6")
    assert not house.spool.stored and house.spool.incomings[0].aborted


def test_a_loop_refused_over_lmtp_is_told_to_each_recipient() -> None:
    house = House(dialect=Dialect.LMTP, policy_options=PolicyOptions(hops_max=3))
    client = opened(house, "LHLO client.test")
    client.say("MAIL FROM:<>\r\nRCPT TO:<ann@local.test>\r\nRCPT TO:<bob@local.test>\r\nDATA\r\n")
    answers = client.say(b"Received: x\r\n" * 4 + MESSAGE + b".\r\n").split("\n")
    assert [answer[:9] for answer in answers] == ["554 5.4.6", "554 5.4.6"]


# ---- Verdicts: REJECT, DEFER, HOLD, DISCARD; at once and later

PHASES = ("mail", "rcpt", "message")


def rules(phase: str, verdict: Verdict, *, slow: bool) -> Rules:
    def at_once(context: Question) -> Verdict:
        return verdict

    async def later(context: Question) -> Verdict:
        await asyncio.sleep(0)
        return verdict

    rule: Rule = later if slow else at_once
    return Rules(**{phase: rule})


async def settle() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


async def dialog(house: House) -> list[str]:
    """The codes of a whole message, each command sent when the one before is answered or never will be."""
    client = opened(house)
    answers = []
    for octets in (b"MAIL FROM:<e@f.test>\r\n", b"RCPT TO:<ann@local.test>\r\n", b"DATA\r\n", MESSAGE + b".\r\n"):
        heard = client.say(octets)
        await settle()
        heard += client.heard().decode()
        answers.append(heard[:9])
        if heard[:1] in "45":
            break
    return answers


@pytest.mark.parametrize("slow", [False, True])
@pytest.mark.parametrize("phase", PHASES)
async def test_a_rule_that_rejects(phase: str, slow: bool) -> None:
    house = House(rules=rules(phase, reject(550, "5.7.1", "No", "because"), slow=slow))
    answers = await dialog(house)
    assert answers[-1] == "550 5.7.1" and len(answers) == {"mail": 1, "rcpt": 2, "message": 4}[phase]
    assert not house.spool.stored
    assert [event.reason for event in house.recorded if isinstance(event, Refused)] == ["because"]


@pytest.mark.parametrize("slow", [False, True])
@pytest.mark.parametrize("phase", PHASES)
async def test_a_rule_that_holds(phase: str, slow: bool) -> None:
    house = House(rules=rules(phase, Verdict(Action.HOLD, reason="looks odd"), slow=slow))
    assert (await dialog(house))[-1] == "250 2.0.0"
    assert not house.queued
    ((waiting,),) = house.spool.waiting
    assert waiting.held and waiting.text == "looks odd"
    assert [type(event) for event in house.spool.events] == [Accepted, Held]


@pytest.mark.parametrize("slow", [False, True])
@pytest.mark.parametrize("phase", PHASES)
async def test_a_rule_that_discards(phase: str, slow: bool) -> None:
    house = House(rules=rules(phase, Verdict(Action.DISCARD, reason="rubbish"), slow=slow))
    assert (await dialog(house))[-1] == "250 2.0.0"
    assert not house.queued and not house.spool.stored
    accepted, removed = house.recorded
    assert isinstance(accepted, Accepted) and accepted.recipients == ("ann@local.test",)
    assert isinstance(removed, Removed) and (removed.recipients, removed.text) == (("ann@local.test",), "rubbish")


def test_one_of_two_recipients_is_discarded() -> None:
    def rcpt(context: Question) -> Verdict:
        assert context.recipient is not None
        return Verdict(Action.DISCARD, reason="left") if context.recipient.local_part == "bob" else ACCEPT

    house = House(rules=Rules(rcpt=rcpt))
    client = opened(house)
    client.say("MAIL FROM:<>\r\nRCPT TO:<bob@local.test>\r\nRCPT TO:<ann@local.test>\r\nDATA\r\n")
    assert client.say(MESSAGE + b".\r\n").startswith("250 2.0.0")
    assert [str(each.address) for each in house.spool.stored[0].envelope.recipients] == ["ann@local.test"]
    removed = house.spool.events[1]
    assert isinstance(removed, Removed) and removed.recipients == ("bob@local.test",)
    assert len(house.queued) == 1


async def test_commands_behind_a_rule_that_waits_wait_too() -> None:
    house = House(rules=rules("rcpt", ACCEPT, slow=True))
    client = opened(house)
    answer = client.say("MAIL FROM:<>\r\nRCPT TO:<ann@local.test>\r\nRCPT TO:<bob@local.test>\r\nDATA\r\n")
    assert answer == "250 2.1.0 Sender OK"
    for _ in range(5):
        await settle()
    assert [line[:9] for line in client.heard().decode().split("\r\n")] == ["250 2.1.5", "250 2.1.5", "354 Send ", ""]


async def test_a_rule_that_breaks_defers() -> None:
    async def broken(context: Question) -> Verdict:
        await asyncio.sleep(0)
        raise ZeroDivisionError

    house = House(rules=Rules(rcpt=broken))
    assert (await dialog(house))[-1] == "451 4.3.0"
    assert any(isinstance(event, Noted) and "ZeroDivisionError" in event.text for event in house.logged)


async def test_a_rule_whose_question_is_cancelled_by_others_defers() -> None:
    """As by a reload that closes the map which the rule asks."""
    asked: asyncio.Future[Verdict] = asyncio.get_running_loop().create_future()
    house = House(rules=Rules(rcpt=lambda context: asked))
    client = opened(house)
    client.say(b"MAIL FROM:<>\r\nRCPT TO:<ann@local.test>\r\n")
    await settle()
    asked.cancel()
    await settle()
    assert client.heard()[:9] == b"451 4.3.0"
    assert any(isinstance(event, Noted) and "broken off" in event.text for event in house.logged)


@pytest.mark.parametrize("phase", PHASES)
async def test_a_client_that_goes_away_while_a_rule_waits_leaves_nothing(phase: str) -> None:
    cancelled = []

    async def endless(context: Question) -> Verdict:
        try:
            await asyncio.sleep(3600)
        except asyncio.CancelledError:
            cancelled.append(True)
            raise
        return ACCEPT

    house = House(rules=Rules(**{phase: endless}))
    client = opened(house)
    for octets in (b"MAIL FROM:<>\r\n", b"RCPT TO:<ann@local.test>\r\n", b"DATA\r\n", MESSAGE + b".\r\n"):
        client.say(octets)
        await settle()
        if client.session._phase.value == "waiting":
            break
    client.hang_up()
    await settle()
    assert cancelled and not house.spool.stored and house.listener.sessions == 0


@pytest.mark.parametrize("slow", [False, True])
async def test_a_refused_ehlo_changes_nothing(slow: bool) -> None:
    async def later(verdict: Verdict) -> Verdict:
        await asyncio.sleep(0)
        return verdict

    def hello(context: Question) -> object:
        verdict = reject(550, "5.7.1", "No") if context.peer.hello == "bad.test" else ACCEPT
        return later(verdict) if slow else verdict

    house = House(rules=Rules(hello=hello))  # type: ignore[arg-type]
    client = house.client()
    for octets in ("EHLO client.test", "MAIL FROM:<>", "EHLO bad.test", "RCPT TO:<ann@local.test>", "DATA"):
        client.say(octets + "\r\n")
        await settle()
    client.say(MESSAGE + b".\r\n")
    assert house.spool.stored[0].envelope.peer.hello == "client.test"


# ---- Aliases


def test_aliases_turn_one_into_others_in_the_same_commit() -> None:
    made: list[tuple[Stored, tuple[Recipient, ...], tuple[Event, ...]]] = []

    def expand(id: int, now_us: int, recipients: tuple[Recipient, ...], passed: Any = None) -> Expansion:
        given = recipients[0].address
        into = tuple(Recipient(Address(name, "relay.test"), given=given) for name in ("x", "y"))
        return Expansion(into, (Expanded(now_us, id, str(given), ("x@relay.test", "y@relay.test")),))

    def reports(
        stored: Stored, given: tuple[Recipient, ...], events: tuple[Event, ...]
    ) -> tuple[tuple[Stored, ...], tuple[Event, ...]]:
        made.append((stored, given, events))
        return (stored,), (Reported(events[0].at_us, stored.envelope.id, ("ann@local.test",), "expanded", 7),)

    house = House(expand=expand, reports=reports)
    begun(house).say(MESSAGE + b".\r\n")
    recipients = house.spool.stored[0].envelope.recipients
    assert [str(each.address) for each in recipients] == ["x@relay.test", "y@relay.test"]
    assert [type(event) for event in house.spool.events] == [Accepted, Expanded]
    assert not made, "nobody asked for a report"

    house.spool.events.clear()
    house.logged.clear()
    begun(house, rcpt=" NOTIFY=SUCCESS").say(MESSAGE + b".\r\n")
    ((_, given, _),) = made
    assert given[0].notify is Notify.SUCCESS and str(given[0].address) == "ann@local.test"
    assert len(house.spool.reports) == 1 and len(house.queued) == 3
    assert [type(event) for event in house.spool.events] == [Accepted, Expanded, Reported]
    assert house.logged == house.spool.events, "the log hears what was committed"


def test_aliases_into_nothing() -> None:
    house = House(expand=lambda id, now_us, recipients: Expansion((), (Expanded(now_us, id, "ann@local.test", ()),)))
    assert begun(house).say(MESSAGE + b".\r\n").startswith("250 2.0.0")
    assert not house.spool.stored and not house.queued
    assert [type(event) for event in house.recorded] == [Accepted, Expanded]


# ---- New settings


def test_a_transaction_ends_under_the_rules_under_which_it_began() -> None:
    house = House()
    client = opened(house)
    client.say("MAIL FROM:<>\r\n")
    strict = Rules(rcpt=lambda context: reject(550, "5.7.1", "New rules"))
    house.listener.take(listener_setup(house.listener_options, house.options, strict, house.doors))
    assert client.codes("RCPT TO:<ann@local.test>", "RSET", "MAIL FROM:<>", "RCPT TO:<ann@local.test>") == [
        "250 2.1.5", "250 2.0.0", "250 2.1.0", "550 5.7.1",
    ]  # fmt: skip


def test_a_bad_trusted_network_is_an_error() -> None:
    house = House()
    with pytest.raises(ValueError, match=r"192\.0\.2\.1/24"):
        listener_setup(
            ListenerOptions("x", trusted_networks=("192.0.2.1/24",)), house.options, house.rules, house.doors
        )


# ---- Strangers and reports


@pytest.mark.parametrize(
    ("role", "trusted", "offered", "announced"),
    [
        (Role.MX, False, False, False),
        (Role.MX, False, True, True),
        (Role.MX, True, False, True),
        (Role.RELAY, False, False, True),
        (Role.SUBMISSION, False, False, True),
    ],
)
def test_whom_dsn_is_offered(role: Role, trusted: bool, offered: bool, announced: bool) -> None:
    """By NOTIFY=SUCCESS, RET=FULL and BY= with T strangers can have us report to whom they like."""
    networks = ("192.0.2.0/24",) if trusted else ()
    house = House(listener=ListenerOptions("front", role, trusted_networks=networks, dsn_for_strangers=offered))
    client = house.client()
    client.say("")
    said = client.say("EHLO client.test\r\n")
    assert ("DSN" in said) is announced and ("DELIVERBY" in said) is announced
    if role is Role.MX:
        answers = client.codes(
            "MAIL FROM:<a@b.test> RET=FULL", "RSET", "MAIL FROM:<a@b.test>", f"{LOCAL} NOTIFY=SUCCESS"
        )
        assert (answers[0][:3] == "250", answers[3][:3] == "250") == (announced, announced)


@pytest.mark.parametrize("trusted", [False, True])
def test_the_envelope_tells_strangers_from_others(trusted: bool) -> None:
    networks = ("192.0.2.0/24",) if trusted else ()
    house = House(listener=ListenerOptions("front", trusted_networks=networks))
    begun(house).say(MESSAGE + b".\r\n")
    assert house.spool.stored[0].envelope.peer.is_known is trusted


# ---- Extensions that are withheld


USES = {
    "PIPELINING": (), "SIZE": ("MAIL FROM:<> SIZE=10",), "8BITMIME": ("MAIL FROM:<> BODY=8BITMIME",),
    "SMTPUTF8": ("MAIL FROM:<> SMTPUTF8", "MAIL FROM:<\u00fc@elsewhere.test>"), "DSN": ("MAIL FROM:<> RET=FULL",),
    "ENHANCEDSTATUSCODES": (), "CHUNKING": ("BDAT 0",), "BINARYMIME": ("MAIL FROM:<> BODY=BINARYMIME",),
    "HELP": ("HELP",), "ETRN": ("ETRN relay.test",), "LIMITS": (), "REQUIRETLS": ("MAIL FROM:<> REQUIRETLS",),
    "DELIVERBY": ("MAIL FROM:<> BY=100;R",), "FUTURERELEASE": ("MAIL FROM:<> HOLDFOR=100",),
    "MT-PRIORITY": ("MAIL FROM:<> MT-PRIORITY=3",), "RRVS": (), "XVERP": ("MAIL FROM:<a@b.test> XVERP",),
}  # fmt: skip


@pytest.mark.parametrize("keyword", WITHHELD)
def test_what_is_withheld_is_not_offered_and_refused(keyword: str) -> None:
    """RFC 5321 §4.1.1.11: parameters of extensions that were not offered are refused, commands are unknown."""
    everything = ReceiveOptions(extensions=ExtensionOptions(binarymime=True))
    for withheld in ((), (keyword,)):
        listener = ListenerOptions("mx", withheld_extensions=withheld, dsn_for_strangers=True)
        house = House(listener=listener, options=everything)
        client = house.client()
        offered = client.say("EHLO c.test\r\n")
        if keyword not in ("ETRN", "FUTURERELEASE", "REQUIRETLS", "XVERP"):  # of other listeners or clients, or of TLS
            assert (f"250-{keyword}" in offered or f"250 {keyword}" in offered) is not bool(withheld)
        if withheld:
            for use in USES[keyword]:
                assert client.codes(use)[0][:3] in ("500", "501", "502", "503", "504", "550", "553", "555"), use
    if keyword == "8BITMIME":
        assert "SMTPUTF8" not in offered  # RFC 6531 §3.1
    if keyword == "CHUNKING":
        assert "BINARYMIME" not in offered  # RFC 3030 §3


def test_withheld_extensions_leave_the_others() -> None:
    house = House(listener=ListenerOptions("mx", withheld_extensions=("SMTPUTF8", "DSN")))
    client = house.client()
    offered = client.say("EHLO c.test\r\n")
    assert "8BITMIME" in offered and "CHUNKING" in offered and "DSN" not in offered
    assert client.codes("MAIL FROM:<> BODY=8BITMIME", "RCPT TO:<ann@local.test> NOTIFY=NEVER", LOCAL) == [
        "250 2.1.0", "555 5.5.4", "250 2.1.5"
    ]
