"""Sessions over a stand-in transport: the way of a message, and every point at which it may end."""

from __future__ import annotations

import gc
import tracemalloc

import pytest

from postroad.check.bans import Ban
from postroad.mail.envelope import Body, Notify
from postroad.mail.event import Accepted, Noted, SessionEnded
from postroad.protocol.limits import ProtocolLimits
from postroad.protocol.offer import Dialect
from postroad.receive.options import ListenerOptions, ReceiveOptions
from postroad.store.values import Failure
from tests.unit.receive.fakes import CLOSED, FULL, INVALID, IO, NOW_US, Client, House, opened

MESSAGE = b"Subject: hi\r\nMessage-ID: <1@client.test>\r\n\r\nHello\r\n"
DIALOG = (
    b"EHLO client.test\r\n",
    b"MAIL FROM:<eve@elsewhere.test>\r\nRCPT TO:<ann@local.test>\r\nDATA\r\n",
    MESSAGE + b".\r\n",
    b"QUIT\r\n",
)


def content(house: House, place: int = -1) -> bytes:
    octets = house.spool.stored[place].content
    assert isinstance(octets, bytes)
    return octets


def begun(house: House, mail: str = "", rcpt: str = "") -> Client:
    """A client that may send the content."""
    client = opened(house, "LHLO client.test" if house.listener.setup.lmtp else "EHLO client.test")
    assert client.codes(f"MAIL FROM:<eve@elsewhere.test>{mail}", f"RCPT TO:<ann@local.test>{rcpt}", "DATA") == [
        "250 2.1.0", "250 2.1.5", "354 Send",
    ]  # fmt: skip
    return client


# ---- The way of a message


def test_a_message_comes_in() -> None:
    house = House()
    client = house.client()
    assert client.heard() == b"220 mx.local.test ESMTP Postroad\r\n"
    assert client.say(DIALOG[0]).startswith("250-mx.local.test\n250-")
    assert [line[:9] for line in client.say(DIALOG[1]).split("\n")] == ["250 2.1.0", "250 2.1.5", "354 Send "]
    assert client.transport.writes == 3  # one for each turn
    answer = client.say(DIALOG[2])
    (stored,) = house.spool.stored
    assert house.queued == [stored]
    assert answer.startswith("250 2.0.0 Ok: queued as ")
    head, _, rest = content(house).partition(b"Subject")
    assert head.startswith(b"Received: from client.test ([192.0.2.1])\r\n\tby mx.local.test (Postroad) with ESMTP id ")
    assert head.endswith(b"\r\n\tfor <ann@local.test>;\r\n\tWed, 18 Nov 2026 11:06:40 +0000\r\n")
    assert b"Subject" + rest == MESSAGE
    envelope = stored.envelope
    assert (envelope.size, envelope.accepted_us) == (len(content(house)), NOW_US)
    assert (str(envelope.reverse_path), envelope.message_id) == ("eve@elsewhere.test", "<1@client.test>")
    assert [str(each.address) for each in envelope.recipients] == ["ann@local.test"]
    assert (envelope.peer.hello, envelope.peer.listener, envelope.peer.port) == ("client.test", "front", 50_000)
    (event,) = house.spool.events
    assert isinstance(event, Accepted)
    assert (event.id, event.recipients, event.size) == (envelope.id, ("ann@local.test",), envelope.size)
    assert client.say(DIALOG[3]).startswith("221 2.0.0")
    assert client.transport.closed
    client.hang_up()
    first, ended = house.logged
    assert first == event and isinstance(ended, SessionEnded)
    assert (ended.reason, ended.messages, ended.errors) == ("quit", 1, 0)
    assert (house.clients.sessions, house.listener.sessions, house.loop.timers) == (0, 0, 0)


def test_where_the_octets_are_split_changes_nothing() -> None:
    house = House()
    client = house.client()
    for turn in DIALOG:
        for place in range(len(turn)):
            client.say(turn[place : place + 1])
    assert content(house).endswith(b"\r\n" + MESSAGE)
    assert client.transport.closed


@pytest.mark.parametrize("cut", range(1, len(DIALOG[2])))
def test_the_end_of_data_at_every_split_with_the_next_message_behind(cut: int) -> None:
    house = House()
    client = begun(house)
    behind = b"MAIL FROM:<>\r\nRCPT TO:<bob@local.test>\r\n"
    octets = DIALOG[2] + behind
    first, second = client.say(octets[:cut]), client.say(octets[cut:])
    assert first == ""
    assert [line[:9] for line in second.split("\n")] == ["250 2.0.0", "250 2.1.0", "250 2.1.5"]
    assert content(house).endswith(b"\r\n" + MESSAGE)


def test_several_messages_have_ids_of_their_own() -> None:
    house = House()
    client = opened(house)
    for _ in range(3):
        client.say(DIALOG[1])
        client.say(DIALOG[2])
    assert len({stored.envelope.id for stored in house.spool.stored}) == 3


def test_parameters_reach_the_envelope() -> None:
    house = House()
    client = opened(house)
    client.say("MAIL FROM:<eve@elsewhere.test> SIZE=100 BODY=8BITMIME RET=HDRS ENVID=a+2Bb\r\n")
    client.say("RCPT TO:<ann@local.test> NOTIFY=SUCCESS,DELAY ORCPT=rfc822;x+2By@z.test\r\n")
    client.say("DATA\r\n")
    client.say(b"\r\n\xe4\r\n.\r\n")
    envelope = house.spool.stored[0].envelope
    assert (envelope.envid, envelope.ret.value, envelope.body) == ("a+b", "HDRS", Body.EIGHT_BIT_MIME)
    assert envelope.recipients[0].notify == Notify.SUCCESS | Notify.DELAY
    assert envelope.recipients[0].orcpt == "rfc822;x+y@z.test"


def test_the_for_clause_names_a_single_recipient_only() -> None:
    house = House()
    client = opened(house)
    client.say("MAIL FROM:<>\r\nRCPT TO:<ann@local.test>\r\nRCPT TO:<bob@local.test>\r\nDATA\r\n")
    client.say(MESSAGE + b".\r\n")
    assert b"for <" not in content(house)
    assert house.spool.stored[0].envelope.reverse_path is None


def test_a_mailbox_named_twice_gets_one_copy() -> None:
    house = House()
    client = opened(house)
    client.say("MAIL FROM:<>\r\nRCPT TO:<ann@local.test>\r\nRCPT TO:<ann@LOCAL.test>\r\nDATA\r\n")
    client.say(MESSAGE + b".\r\n")
    assert [str(each.address) for each in house.spool.stored[0].envelope.recipients] == ["ann@local.test"]


@pytest.mark.parametrize(
    ("declared", "octets", "expected"),
    [
        ("", b"\r\nplain\r\n", Body.SEVEN_BIT),
        ("", b"\r\n\xc3\xa4\r\n", Body.EIGHT_BIT_MIME),
        (" BODY=7BIT", b"\r\n\xc3\xa4\r\n", Body.EIGHT_BIT_MIME),
        (" BODY=8BITMIME", b"\r\nplain\r\n", Body.SEVEN_BIT),
        (" BODY=8BITMIME", b"\r\n\xc3\xa4\r\n", Body.EIGHT_BIT_MIME),
    ],
)
def test_the_body_is_called_what_it_is(declared: str, octets: bytes, expected: Body) -> None:
    house = House()
    begun(house, declared).say(octets + b".\r\n")
    assert house.spool.stored[0].envelope.body is expected


def test_chunks() -> None:
    house = House()
    client = opened(house)
    client.say("MAIL FROM:<>\r\nRCPT TO:<ann@local.test>\r\n")
    half = len(MESSAGE) // 2
    assert client.say(b"BDAT %d\r\n" % half + MESSAGE[:half]).startswith("250 2.0.0 Chunk")
    assert client.say(b"BDAT %d\r\n" % (len(MESSAGE) - half) + MESSAGE[half:]).startswith("250 2.0.0 Chunk")
    assert client.say("BDAT 0 LAST\r\n").startswith("250 2.0.0 Ok: queued")
    assert content(house).endswith(b"\r\n" + MESSAGE)
    assert house.spool.stored[0].envelope.id != 0


def test_rset_drops_the_transaction() -> None:
    house = House()
    client = opened(house)
    assert client.codes("MAIL FROM:<>", "RCPT TO:<ann@local.test>", "RSET", "RCPT TO:<ann@local.test>") == [
        "250 2.1.0", "250 2.1.5", "250 2.0.0", "503 5.5.1",
    ]  # fmt: skip
    client.say("MAIL FROM:<>\r\nRCPT TO:<bob@local.test>\r\nDATA\r\n")
    client.say(MESSAGE + b".\r\n")
    assert [str(each.address) for each in house.spool.stored[0].envelope.recipients] == ["bob@local.test"]


def test_ehlo_drops_the_transaction() -> None:
    house = House()
    client = opened(house)
    assert client.codes("MAIL FROM:<>", "EHLO again.test", "RCPT TO:<ann@local.test>")[2] == "503 5.5.1"


@pytest.mark.parametrize(
    ("hello", "lmtp", "mail", "expected"),
    [
        ("HELO client.test", False, "", "SMTP"),
        ("EHLO client.test", False, "", "ESMTP"),
        ("EHLO client.test", False, " SMTPUTF8", "UTF8SMTP"),
        ("LHLO client.test", True, "", "LMTP"),
        ("LHLO client.test", True, " SMTPUTF8", "UTF8LMTP"),
    ],
)
def test_with_types(hello: str, lmtp: bool, mail: str, expected: str) -> None:
    house = House(dialect=Dialect.LMTP if lmtp else Dialect.SMTP)
    client = opened(house, hello)
    for line in (f"MAIL FROM:<>{mail}", "RCPT TO:<ann@local.test>", "DATA"):
        client.say(line + "\r\n")
    client.say(MESSAGE + b".\r\n")
    assert f" with {expected} id ".encode() in content(house)


def test_the_trace_stays_ascii_so_that_it_demands_smtputf8_of_nobody() -> None:
    """RFC 6531 §3.7.3: an alias may lead the message to where it can go on without."""
    house = House()
    client = opened(house)
    client.codes("MAIL FROM:<> SMTPUTF8")
    assert client.codes("RCPT TO:<ännchen@relay.test>") == ["250 2.1.5"]
    client.say("DATA\r\n")
    client.say(MESSAGE + b".\r\n")
    assert content(house).isascii() and b"\r\n\tfor " not in content(house)
    assert b" with UTF8SMTP id " in content(house)
    assert house.spool.stored[0].envelope.smtputf8


@pytest.mark.parametrize(
    ("peer", "address", "clause"),
    [
        (("192.0.2.9", 1), "192.0.2.9", b"([192.0.2.9])"),
        (("::ffff:192.0.2.9", 1, 0, 0), "192.0.2.9", b"([192.0.2.9])"),
        (("2001:db8::1", 1, 0, 0), "2001:db8::1", b"([IPv6:2001:db8::1])"),
        (("fe80::1%eth0", 1, 0, 2), "fe80::1", b"([IPv6:fe80::1])"),
        ("", "", b"Received: from client.test\r\n\tby"),  # a Unix socket: FROM, but no TCP-info
    ],
)
def test_where_the_client_comes_from(peer: tuple[str, int] | str, address: str, clause: bytes) -> None:
    house = House()
    client = house.client(peer)
    for turn in DIALOG:
        client.say(turn)
    assert house.spool.stored[0].envelope.peer.address == address
    assert clause in content(house)


@pytest.mark.parametrize(
    ("hello", "word"),
    [("[192.0.2.1]", "[192.0.2.1]"), ("a;b", "ab"), ('"x"<y>', "xy"), ("(;)", "unknown"), ("a(b)\\,c", "abc")],
)
def test_what_a_client_calls_itself_cannot_change_the_meaning_of_the_trace(hello: str, word: str) -> None:
    """RFC 5321 §4.4: a semicolon begins the date."""
    house = House()
    client = opened(house, f"EHLO {hello}")
    for turn in DIALOG[1:]:
        client.say(turn)
    assert content(house).startswith(f"Received: from {word} ([192.0.2.1])\r\n\tby".encode())


# ---- When the spool cannot


@pytest.mark.parametrize(
    ("failure", "expected"), [(FULL, "452 4.3.1"), (IO, "451 4.3.0"), (INVALID, "554 5.3.0")]
)
def test_a_message_that_cannot_be_stored_is_refused_and_the_session_goes_on(failure: Failure, expected: str) -> None:
    house = House()
    house.spool.failure = failure
    client = begun(house)
    assert client.say(MESSAGE + b".\r\n").startswith(expected)
    assert not house.queued and not house.spool.stored
    (noted,) = [event for event in house.logged if isinstance(event, Noted)]
    assert failure.text in noted.text
    house.spool.failure = None
    client.say(DIALOG[1])
    assert client.say(DIALOG[2]).startswith("250 2.0.0")
    assert len(house.queued) == 1


def test_a_closing_spool_ends_the_session() -> None:
    house = House()
    house.spool.failure = CLOSED
    client = begun(house)
    assert client.say(MESSAGE + b".\r\n").startswith("421 4.3.2")
    assert client.transport.closed


# ---- Waiting for the commit


def test_nothing_is_answered_before_the_commit() -> None:
    house = House()
    house.spool.patient = True
    client = begun(house)
    assert client.say(MESSAGE + b".\r\nMAIL FROM:<>\r\nRCPT TO:<bob@local.test>\r\nNOOP\r\n") == ""
    assert not house.queued
    house.spool.commit()
    assert [line[:9] for line in client.heard().decode().split("\r\n")] == [
        "250 2.0.0", "250 2.1.0", "250 2.1.5", "250 2.0.0", "",
    ]  # fmt: skip
    assert client.transport.writes == 6  # the greeting, EHLO, three commands, and these in one
    assert len(house.queued) == 1


def test_a_client_is_not_read_from_while_much_waits_behind_a_commit() -> None:
    house = House(options=ReceiveOptions(hostname="mx.local.test", input_max=1000))
    house.spool.patient = True
    client = begun(house)
    noop = b"NOOP " + b"x" * 93 + b"\r\n"
    client.say(MESSAGE + b".\r\n" + noop * 9)
    assert not client.transport.paused
    for _ in range(10):
        client.say(noop)
    assert client.transport.paused
    house.spool.commit()
    assert not client.transport.paused and not client.transport.closed
    assert client.heard().count(b"250") == 1 + 19


def test_a_client_that_goes_away_before_the_commit_has_its_message_accepted() -> None:
    house = House()
    house.spool.patient = True
    client = begun(house)
    client.say(MESSAGE + b".\r\n")
    client.hang_up(ConnectionResetError())
    assert house.clients.sessions == 0
    house.spool.commit()
    assert len(house.queued) == 1


def test_a_client_that_said_all_and_closed_its_side_hears_the_answer() -> None:
    house = House()
    house.spool.patient = True
    client = begun(house)
    client.say(MESSAGE + b".\r\nQUIT\r\n")
    assert client.session.eof_received()
    house.spool.commit()
    assert [line[:9] for line in client.heard().decode().split("\r\n")] == ["250 2.0.0", "221 2.0.0", ""]
    assert client.transport.closed


def test_a_client_that_closed_its_side_without_quit_is_closed_after_its_answer() -> None:
    house = House()
    house.spool.patient = True
    client = begun(house)
    client.say(MESSAGE + b".\r\n")
    assert client.session.eof_received()
    house.spool.commit()
    assert client.heard().startswith(b"250 2.0.0") and client.transport.closed


def test_a_client_that_closes_its_side_when_nothing_waits_is_let_go() -> None:
    assert not opened(House()).session.eof_received()


@pytest.mark.parametrize("failure", [FULL, CLOSED])
def test_a_failed_commit_after_the_client_is_gone_harms_nobody(failure: Failure) -> None:
    house = House()
    house.spool.patient = True
    client = begun(house)
    client.say(MESSAGE + b".\r\n")
    client.hang_up()
    house.spool.failure = failure
    house.spool.commit()
    assert not house.queued


ALL = b"".join(DIALOG[:3])


@pytest.mark.parametrize("large", [False, True])
@pytest.mark.parametrize("cut", range(0, len(ALL), 3))
def test_a_client_that_goes_away_before_the_end_of_data_leaves_nothing(cut: int, large: bool) -> None:
    options = ReceiveOptions(hostname="mx.local.test", memory_content_max=8 if large else 1 << 20)
    house = House(options=options)
    client = house.client()
    sent = 0
    for turn in DIALOG[:3]:
        client.say(turn[: max(0, cut - sent)])
        sent += len(turn)
    client.hang_up()
    assert not house.spool.stored and not house.queued
    assert all(incoming.aborted for incoming in house.spool.incomings)
    assert (house.clients.sessions, house.listener.sessions, house.loop.timers) == (0, 0, 0)
    assert len([event for event in house.logged if isinstance(event, SessionEnded)]) == 1


# ---- Large content


LARGE = ReceiveOptions(hostname="mx.local.test", memory_content_max=100_000, limits=ProtocolLimits(piece_size=4096))


def large_message(size: int) -> bytes:
    line = b"0123456789" * 7 + b"\r\n"
    return b"Subject: large\r\nMessage-ID: <2@client.test>\r\n\r\n" + line * (size // len(line))


@pytest.mark.parametrize("step", [1_000, 65_536, 10_000_000])
def test_large_content_goes_into_a_file(step: int) -> None:
    house = House(options=LARGE)
    client = begun(house)
    octets = large_message(300_000)
    wire = octets + b".\r\n"
    answers = [client.say(wire[at : at + step]) for at in range(0, len(wire), step)]
    assert "".join(answers).startswith("250 2.0.0")
    (incoming,) = house.spool.incomings
    assert incoming.octets == octets
    (stored,) = house.spool.stored
    assert stored.envelope.prefix.startswith(b"Received: from client.test")
    assert not isinstance(stored.content, bytes)
    assert stored.envelope.size == stored.content.size + len(stored.envelope.prefix) == len(house.spool.message())
    assert stored.envelope.message_id == "<2@client.test>"
    assert stored.envelope.body is Body.SEVEN_BIT
    assert not incoming.aborted


def test_eight_bit_octets_far_behind_are_noticed() -> None:
    house = House(options=LARGE)
    client = begun(house)
    octets = large_message(300_000) + b"\xff\r\n.\r\n"
    for at in range(0, len(octets), 50_000):
        client.say(octets[at : at + 50_000])
    assert house.spool.stored[0].envelope.body is Body.EIGHT_BIT_MIME


def test_a_slow_disk_stops_the_client() -> None:
    house = House(options=LARGE)
    house.spool.slow = True
    client = begun(house)
    client.say(large_message(120_000))
    assert client.transport.paused
    (incoming,) = house.spool.incomings
    house.loop.pass_time(1_000)  # the time of the disk is not the client's
    assert not client.transport.closed
    house.spool.slow = False
    assert incoming.resumed is not None
    incoming.resumed()
    assert not client.transport.paused
    assert client.say(b".\r\n").startswith("250 2.0.0")


@pytest.mark.parametrize(("failure", "expected"), [(FULL, "452 4.3.1"), (IO, "451 4.3.0")])
def test_a_file_that_cannot_be_written(failure: Failure, expected: str) -> None:
    house = House(options=LARGE)
    house.spool.file_failure = failure
    client = begun(house)
    assert client.say(large_message(200_000) + b".\r\n").startswith(expected)
    assert not house.spool.stored and house.spool.incomings[0].aborted
    assert client.codes("NOOP") == ["250 2.0.0"]


@pytest.mark.parametrize("trusted", [True, False])
def test_a_ban_ends_what_is_under_way_with_its_answer_but_not_for_who_is_trusted(trusted: bool) -> None:
    networks = ("192.0.2.0/24",) if trusted else ()
    house = House(options=LARGE, listener=ListenerOptions("front", trusted_networks=networks))
    house.spool.patient = True
    client = begun(house)
    client.say(large_message(200_000) + b".\r\n")
    house.listener.turn_out(lambda address, auth: True)
    house.spool.finishing[0]()
    house.spool.commit()
    heard = client.heard()
    assert heard.startswith(b"250 2.0.0 Ok: queued")
    assert (b"421" in heard) is not trusted and client.transport.closed is not trusted


@pytest.mark.parametrize("auth", [True, False])
def test_a_ban_of_a_network_for_its_guesses_holds_where_one_can_guess(auth: bool) -> None:
    asked: list[bool] = []
    house = House(listener=ListenerOptions("front", auth=auth))
    house.clients.bans.add(Ban("192.0.2.0/24", 0, 0))
    assert house.client().heard().startswith(b"421 4.7.0" if auth else b"220")
    house.listener.turn_out(lambda address, there: bool(asked.append(there)))
    assert asked == [auth]


def test_a_failed_commit_takes_the_file_away() -> None:
    house = House(options=LARGE)
    house.spool.failure = FULL
    client = begun(house)
    assert client.say(large_message(200_000) + b".\r\n").startswith("452 4.3.1")
    assert house.spool.incomings[0].aborted


def test_a_client_that_goes_away_while_its_file_is_synced_has_its_message_accepted() -> None:
    house = House(options=LARGE)
    house.spool.patient = True
    client = begun(house)
    client.say(large_message(200_000) + b".\r\n")
    client.hang_up()
    house.spool.finishing[0]()
    house.spool.commit()
    assert len(house.queued) == 1 and not house.spool.incomings[0].aborted


def test_large_content_in_chunks() -> None:
    house = House(options=LARGE)
    client = opened(house)
    client.say("MAIL FROM:<>\r\nRCPT TO:<ann@local.test>\r\n")
    octets = large_message(300_000)
    half = len(octets) // 2
    assert client.say(b"BDAT %d\r\n" % half + octets[:half]).startswith("250 2.0.0 Chunk")
    answer = client.say(b"BDAT %d LAST\r\n" % (len(octets) - half) + octets[half:])
    assert answer.startswith("250 2.0.0 Ok: queued")
    assert house.spool.incomings[0].octets.endswith(octets)


@pytest.mark.parametrize("memory", [100_000, 10_000_000])
def test_content_above_the_limit_is_refused_and_leaves_nothing(memory: int) -> None:
    limits = ProtocolLimits(size_max=200_000, piece_size=4096)
    house = House(options=ReceiveOptions(hostname="mx.local.test", memory_content_max=memory, limits=limits))
    client = begun(house)
    octets = large_message(300_000) + b".\r\n"
    answers = [client.say(octets[at : at + 10_000]) for at in range(0, len(octets), 10_000)]
    assert "".join(answers).startswith("552 5.3.4")
    assert not house.spool.stored and all(incoming.aborted for incoming in house.spool.incomings)
    assert len(house.recorded) == 1
    client.say(DIALOG[1])
    assert client.say(DIALOG[2]).startswith("250 2.0.0")


# ---- LMTP


def test_lmtp_answers_for_each_recipient() -> None:
    house = House(dialect=Dialect.LMTP)
    client = opened(house, "LHLO client.test")
    assert client.codes(
        "MAIL FROM:<>", "RCPT TO:<ann@local.test>", "RCPT TO:<no@local.test>", "RCPT TO:<bob@local.test>", "DATA"
    ) == ["250 2.1.0", "250 2.1.5", "550 5.1.1", "250 2.1.5", "354 Send"]
    answers = client.say(MESSAGE + b".\r\n").split("\n")
    assert [answer[:9] for answer in answers] == ["250 2.0.0", "250 2.0.0"]
    assert len(house.spool.stored) == 1
    assert b" with LMTP id " in content(house)


def test_lmtp_tells_each_recipient_of_a_failure() -> None:
    house = House(dialect=Dialect.LMTP)
    house.spool.failure = FULL
    client = opened(house, "LHLO client.test")
    client.say("MAIL FROM:<>\r\nRCPT TO:<ann@local.test>\r\nRCPT TO:<bob@local.test>\r\nDATA\r\n")
    assert [answer[:9] for answer in client.say(MESSAGE + b".\r\n").split("\n")] == ["452 4.3.1", "452 4.3.1"]
    assert client.codes("NOOP") == ["250 2.0.0"]


def test_lmtp_greets_as_lmtp_and_knows_no_ehlo() -> None:
    house = House(dialect=Dialect.LMTP)
    client = house.client()
    assert client.heard() == b"220 mx.local.test LMTP Postroad\r\n"
    assert client.codes("EHLO client.test") == ["500 5.5.1"]


# ---- Bugs


def test_a_bug_ends_its_session_with_421_and_a_traceback_in_the_log() -> None:
    def expand(*arguments: object) -> None:
        raise ZeroDivisionError("a bug")

    house = House(expand=expand)  # type: ignore[arg-type]
    client = begun(house)
    assert client.say(MESSAGE + b".\r\n").startswith("421 4.3.0")
    assert client.transport.closed
    noted = [event for event in house.logged if isinstance(event, Noted)]
    assert "ZeroDivisionError: a bug" in noted[0].text and noted[0].level == "error"
    client.hang_up()
    other = begun(House())
    assert other.say(MESSAGE + b".\r\n").startswith("250")


# ---- What else is asked


def test_the_memory_of_an_idle_session() -> None:
    house = House()
    opened(house)  # what is made once
    gc.collect()
    tracemalloc.start()
    before = tracemalloc.get_traced_memory()[0]
    clients = [opened(house) for _ in range(50)]
    gc.collect()
    each = (tracemalloc.get_traced_memory()[0] - before) / len(clients)
    tracemalloc.stop()
    assert each < 8_192, f"{each:.0f} octets for a session and its stand-in transport"
