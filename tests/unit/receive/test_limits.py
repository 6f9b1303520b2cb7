"""Limits in time and number: every wait has its end, and the session tells why."""

from __future__ import annotations

import msgspec
import pytest

from postroad.check.client import ClientOptions
from postroad.mail.event import Refused, SessionEnded
from postroad.mail.policy import ACCEPT, Question, Rules, Verdict, defer, reject
from postroad.protocol.limits import ProtocolLimits
from postroad.receive.options import ListenerOptions, ListenerTls, ReceiveOptions
from postroad.receive.turns import AT_ONCE
from tests.unit.receive.fakes import Client, House, opened
from tests.unit.receive.test_session import DIALOG, MESSAGE, begun

OPTIONS = ReceiveOptions(hostname="mx.local.test", default_domain="local.test")


def ended(house: House) -> SessionEnded:
    (found,) = [event for event in house.logged if isinstance(event, SessionEnded)]
    return found


# ---- Time


def test_a_silent_client_hears_421_after_its_time_and_not_before() -> None:
    house = House()
    client = opened(house)
    house.loop.pass_time(299)
    assert not client.transport.closed
    house.loop.pass_time(2)
    assert client.heard().startswith(b"421 4.4.2") and client.transport.closed
    client.hang_up()
    assert ended(house).reason == "timeout"


def test_a_client_that_says_nothing_at_all() -> None:
    house = House()
    client = house.client()
    client.heard()
    house.loop.pass_time(301)
    assert client.heard().startswith(b"421 4.4.2")


def test_where_the_system_has_our_last_words_the_end_costs_no_timer() -> None:
    house = House()
    client = opened(house)
    client.transport.get_write_buffer_size = lambda: 0  # type: ignore[method-assign]
    armed = len(house.loop._timers)
    assert client.say("QUIT\r\n").startswith("221") and client.transport.closed
    assert len(house.loop._timers) == armed, "another one"
    client.hang_up()
    house.loop.pass_time(400)
    assert not client.transport.aborted and ended(house).reason == "quit"


def test_each_command_puts_the_deadline_off() -> None:
    house = House()
    client = opened(house)
    for _ in range(10):
        house.loop.pass_time(250)
        assert client.codes("NOOP") == ["250 2.0.0"]
    house.loop.pass_time(301)
    assert client.transport.closed


def test_single_octets_do_not_put_the_deadline_off() -> None:
    house = House()
    client = opened(house)
    for octet in "MAIL FROM:<aaaaaaaaaaaa":
        if client.transport.closed:
            break
        client.say(octet)
        house.loop.pass_time(20)
    assert client.transport.closed
    assert house.loop.now < 1000 + 350


def test_content_that_does_not_come() -> None:
    house = House()
    client = begun(house)
    house.loop.pass_time(179)
    client.say("Subject: x\r\n")  # not a whole piece: the machine holds it
    house.loop.pass_time(179)
    assert not client.transport.closed
    house.loop.pass_time(2)
    assert client.heard().startswith(b"421 4.4.2")
    client.hang_up()
    assert not house.spool.stored


@pytest.mark.parametrize("begin", ["DATA", "BDAT"])
def test_slow_content_that_goes_on_is_taken(begin: str) -> None:
    """RFC 5321 §4.5.3.2.5: the limit is for a client that sends nothing. Here a line comes each second."""
    house, line = House(), b"a" * 58 + b"\r\n"
    client = begun(house) if begin == "DATA" else opened(house)
    if begin == "BDAT":
        client.say("MAIL FROM:<>\r\nRCPT TO:<ann@local.test>\r\n")
        client.say(f"BDAT {len(MESSAGE) + 60 * 500} LAST\r\n")
    client.say(MESSAGE)
    for _ in range(500):
        house.loop.pass_time(1)
        client.say(line)
    if begin == "DATA":
        client.say(".\r\n")
    assert len(house.spool.stored) == 1 and not client.transport.closed


def refused(house: House, kind: str) -> tuple[Client, bytes]:
    """A client in the midst of content that is refused already; what ends it, and its answer."""
    if kind == "chunks":
        client = opened(house)
        client.say("MAIL FROM:<>\r\nRCPT TO:<ann@local.test>\r\n")
        assert client.say(b"BDAT 3\r\nx\ny").startswith("550 5.5.2")
        client.say("BDAT 500000000 LAST\r\n")
        return client, b""
    client = begun(house)
    client.say(b"Subject: x\r\n\r\nx\ny\r\n" + (b"z" * 70 + b"\r\n") * 1_000)
    return client, b"\r\n.\r\n"


@pytest.mark.parametrize("kind", ["data", "chunks"])
def test_refused_content_that_comes_on_is_read_to_its_end(kind: str) -> None:
    """20 kB each second for ten minutes: the client hears why, instead of 421 after which it would come again."""
    house = House()
    client, end = refused(house, kind)
    octets = (b"b" * 70 + b"\r\n") * 280
    sent = 0
    for _ in range(600):
        house.loop.pass_time(1)
        assert client.say(octets) == ""
        sent += len(octets)
    answer = client.say(end) if end else client.say(b"x" * (500_000_000 - sent))
    assert answer.startswith("550 5.5.2") and not client.transport.closed
    assert client.codes("NOOP") == ["250 2.0.0"]


@pytest.mark.parametrize("kind", ["data", "chunks"])
def test_refused_content_that_drips_ends_soon(kind: str) -> None:
    house = House()
    client, _ = refused(house, kind)
    begun_at = house.loop.now
    for _ in range(100):
        house.loop.pass_time(20)
        if client.transport.closed:
            break
        client.say(b"x" * 100)  # less than 4,096 octets in the time of `data_block_s`
    assert client.heard().startswith(b"421 4.4.2") or client.transport.closed
    assert house.loop.now - begun_at <= 500


@pytest.mark.parametrize("kind", ["data", "chunks"])
def test_refused_content_has_a_time_of_its_own(kind: str) -> None:
    """It counts from the refusal; `message_s` has nearly gone by then."""
    house = House(options=msgspec.structs.replace(OPTIONS, message_s=1_000, refused_content_s=1_500))
    client, _ = refused(house, kind)
    begun_at = house.loop.now
    while not client.transport.closed and house.loop.now < begun_at + 3_000:
        client.say(b"x" * 8_192)
        house.loop.pass_time(100)
    assert 1_400 <= house.loop.now - begun_at <= 1_600
    client.hang_up()
    assert ended(house).reason == "timeout"


def test_the_time_of_refused_content_is_none_of_the_next_message() -> None:
    house = House(options=msgspec.structs.replace(OPTIONS, message_s=1_000, refused_content_s=600))
    client, end = refused(house, "data")
    assert client.say(end).startswith("550")
    client.say(DIALOG[1])
    for _ in range(9):
        house.loop.pass_time(100)
        client.say(b"x" * 70 + b"\r\n")
    assert client.say(b".\r\n").startswith("250 2.0.0")


def test_content_that_drips_ends_with_the_message_deadline() -> None:
    options = ReceiveOptions(hostname="mx.local.test", message_s=1_000, limits=ProtocolLimits(piece_size=4096))
    house = House(options=options)
    client = begun(house)
    for _ in range(100):
        if client.transport.closed:
            break
        client.say(b"x" * 70 + b"\r\n" + (b"y" * 70 + b"\r\n") * 100)
        house.loop.pass_time(100)
    assert client.transport.closed
    assert 1_900 < house.loop.now < 2_200
    assert client.heard() == b"" or True


def test_a_session_ends_between_two_messages_after_its_time() -> None:
    house = House(options=ReceiveOptions(hostname="mx.local.test", session_s=1_000))
    client = opened(house)
    for _ in range(10):
        house.loop.pass_time(200)
        if client.transport.closed:
            break
        client.say(DIALOG[1])
        client.say(DIALOG[2])
    assert client.transport.closed
    assert len(house.spool.stored) == 4


def test_a_client_that_does_not_take_our_last_words_is_broken_off() -> None:
    house = House()
    client = opened(house)
    client.say("QUIT\r\n")
    assert client.transport.closed and not client.transport.aborted
    house.loop.pass_time(11)
    assert client.transport.aborted
    assert house.listener.sessions == 0


def test_a_slow_commit_is_no_fault_of_the_client() -> None:
    house = House()
    house.spool.patient = True
    client = begun(house)
    client.say(MESSAGE + b".\r\n")
    house.loop.pass_time(5_000)
    assert not client.transport.closed
    house.spool.commit()
    assert client.heard().startswith(b"250 2.0.0")
    house.loop.pass_time(299)
    assert not client.transport.closed
    house.loop.pass_time(2)
    assert client.transport.closed


def test_a_client_that_does_not_read_is_not_answered_and_ends() -> None:
    house = House()
    client = opened(house)
    client.session.pause_writing()
    assert client.say("NOOP\r\n" * 5) == ""
    client.session.resume_writing()
    assert client.heard().count(b"250 2.0.0") == 5
    client.session.pause_writing()
    client.say("NOOP\r\n")
    house.loop.pass_time(301)
    assert client.transport.closed
    house.loop.pass_time(11)
    assert client.transport.aborted


def test_what_a_client_sends_without_reading_is_bounded() -> None:
    house = House(options=ReceiveOptions(hostname="mx.local.test", input_max=1_000))
    client = opened(house)
    client.session.pause_writing()
    for _ in range(30):
        client.say(b"NOOP " + b"x" * 93 + b"\r\n")
    assert client.transport.paused
    client.session.resume_writing()
    assert client.heard().count(b"250") == AT_ONCE
    while house.loop.turn():
        pass
    assert not client.transport.paused
    assert client.heard().count(b"250") == 30 - AT_ONCE


# ---- Number


def test_too_many_errors() -> None:
    house = House(options=ReceiveOptions(hostname="mx.local.test", limits=ProtocolLimits(errors_max=3)))
    client = opened(house)
    assert client.codes(*["NONSENSE"] * 4) == ["500 5.5.2"] * 3 + ["421 4.7.0"]
    assert client.transport.closed
    client.hang_up()
    event = ended(house)
    assert (event.reason, event.errors, event.refusal[:9]) == ("Too many errors", 4, "500 5.5.2")


def test_what_the_protocol_refuses_by_itself_is_told_at_the_end_of_the_session() -> None:
    house = House(listener=ListenerOptions("mx", tls=ListenerTls.REQUIRED))
    client = opened(house)
    assert client.codes("MAIL FROM:<a@x.test>", "QUIT") == ["530 5.7.0", "221 2.0.0"]
    client.hang_up()
    event = ended(house)
    assert (event.errors, event.refusal) == (1, "530 5.7.0 Must issue a STARTTLS command first")
    assert event.peer.address == client.transport.get_extra_info("peername")[0]


def test_too_many_refused_recipients() -> None:
    house = House(options=ReceiveOptions(hostname="mx.local.test", refusals_max=3))
    client = opened(house)
    client.say("MAIL FROM:<>\r\n")
    assert client.codes(*["RCPT TO:<no@local.test>"] * 4) == ["550 5.1.1"] * 3 + ["421 4.7.0"]
    assert client.transport.closed
    client.hang_up()
    assert ended(house).reason == "too many refusals"
    assert len(house.recorded) == 4


def test_an_accepted_message_makes_good_for_refusals() -> None:
    house = House(options=ReceiveOptions(hostname="mx.local.test", refusals_max=3))
    client = opened(house)
    for _ in range(3):
        assert client.codes("MAIL FROM:<>", *["RCPT TO:<no@local.test>"] * 3)[-1] == "550 5.1.1"
        assert client.codes("RCPT TO:<ann@local.test>", "DATA")[-1] == "354 Send"
        assert client.say(MESSAGE + b".\r\n").startswith("250")


def test_trusted_clients_may_be_refused_as_often_as_they_like() -> None:
    options = ReceiveOptions(hostname="mx.local.test", refusals_max=3)
    house = House(options=options, listener=ListenerOptions("front", trusted_networks=("192.0.2.0/24",)))
    client = opened(house)
    client.say("MAIL FROM:<>\r\n")
    assert client.codes(*["RCPT TO:<no@local.test>"] * 10) == ["550 5.1.1"] * 10


def test_too_many_recipients() -> None:
    house = House(options=ReceiveOptions(hostname="mx.local.test", limits=ProtocolLimits(recipients_max=100)))
    client = opened(house)
    client.say("MAIL FROM:<>\r\n")
    answers = client.say("".join(f"RCPT TO:<x{number}@relay.test>\r\n" for number in range(101))).split("\n")
    assert {answer[:9] for answer in answers[:100]} == {"250 2.1.5"} and answers[100].startswith("452 ")
    assert client.codes("DATA") == ["354 Send"]
    client.say(MESSAGE + b".\r\n")
    assert len(house.spool.stored[0].envelope.recipients) == 100


def test_too_many_sessions_of_one_client() -> None:
    house = House(clients=ClientOptions(sessions_per_client_max=2))
    clients = [house.client() for _ in range(2)]
    refused = house.client()
    assert refused.heard().startswith(b"421 4.7.0") and refused.transport.closed
    assert house.client(("192.0.2.2", 1)).heard().startswith(b"220 ")
    refused.hang_up()
    assert house.clients.sessions == 3
    clients[0].hang_up()
    assert house.client().heard().startswith(b"220 ")
    (event,) = house.recorded
    assert isinstance(event, Refused) and event.phase == "CONNECT"


# ---- Rules of the greeting


@pytest.mark.parametrize(
    ("verdict", "greeting", "closed"),
    [
        (reject(554, "5.7.1", "Go away"), b"554 5.7.1 Go away\r\n", False),
        (defer(421, "4.7.0", "Not now"), b"421 4.7.0 Not now\r\n", True),
        (defer(450, "4.7.0", "Not now", disconnect=True), b"450 4.7.0 Not now\r\n", True),
        (ACCEPT, b"220 mx.local.test ESMTP Postroad\r\n", False),
    ],
)
def test_greetings(verdict: Verdict, greeting: bytes, closed: bool) -> None:
    def connect(context: Question) -> Verdict:
        assert context.peer.address == "192.0.2.1"
        return verdict

    house = House(rules=Rules(connect=connect))
    client = house.client()
    assert client.heard() == greeting
    assert client.transport.closed is closed
    if verdict.reply and not closed:  # RFC 5321 §3.1
        assert client.codes("EHLO client.test", "QUIT") == ["503 5.5.1", "221 2.0.0"]


# ---- The end of the node


async def test_idle_sessions_are_told_and_busy_ones_come_to_their_end() -> None:
    house = House()
    house.spool.patient = True
    idle, open_one, busy = opened(house), begun(house), begun(house)
    busy.say(MESSAGE + b".\r\n")
    for client in (idle, open_one, busy):
        client.session.leave()
    assert idle.heard().startswith(b"421 4.3.2") and idle.transport.closed
    assert not open_one.transport.closed and not busy.transport.closed
    open_one.say(MESSAGE + b".\r\n")
    house.spool.commit()
    for client in (open_one, busy):
        lines = client.heard().split(b"\r\n")
        assert [line[:9] for line in lines] == [b"250 2.0.0", b"421 4.3.2", b""]
        assert client.transport.closed
    assert len(house.queued) == 2


def test_no_new_transaction_is_begun_by_a_session_that_is_to_leave() -> None:
    house = House()
    house.spool.patient = True
    client = begun(house)
    client.say(MESSAGE + b".\r\nMAIL FROM:<>\r\n")
    client.session.leave()
    house.spool.commit()
    assert [line[:9] for line in client.heard().decode().split("\r\n")] == ["250 2.0.0", "421 4.3.2", ""]


def test_what_is_left_is_broken_off_and_its_message_kept() -> None:
    house = House()
    house.spool.patient = True
    client = begun(house)
    client.say(MESSAGE + b".\r\n")
    client.session.leave()
    client.session.break_off()
    assert client.transport.aborted and house.listener.sessions == 0
    house.spool.commit()
    assert len(house.queued) == 1
