"""Floods: commands without end, pipelined. How much is handled in one turn, and that every kind comes to an end."""

from __future__ import annotations

import asyncio
import ssl
from typing import Any

import pytest

from postroad.mail.event import Refused, SessionEnded
from postroad.mail.policy import ACCEPT, Question, Role, Rules, Verdict, reject
from postroad.protocol.limits import ProtocolLimits
from postroad.protocol.offer import Dialect
from postroad.receive.options import ExtensionOptions, ListenerOptions, ListenerTls, ReceiveOptions, Telling
from postroad.receive.turns import AT_ONCE, MUCH, PER_TURN, Turns
from tests.unit.receive.fakes import Client, House, Loop, opened
from tests.unit.receive.test_session import MESSAGE
from tests.unit.receive.test_wire import Run, client_context, run, serving

__all__ = ["run"]

MAIL = "MAIL FROM:<flood@flood.test>"
RCPT = "RCPT TO:<ann@local.test>"
COMMANDS = 200_000
LIMITS = ProtocolLimits()
BARREN_MAX = LIMITS.commands_max + LIMITS.recipients_max

# What is said before, the flood, how many of its commands are answered before the session ends, and with what.
ERRORS, IDLE = LIMITS.errors_max, LIMITS.idle_commands_max - 1  # EHLO was the first idle one
SMTP = {
    "NOOP": ((), "NOOP", IDLE, "421 4.7.0"),
    "RSET": ((), "RSET", IDLE, "421 4.7.0"),
    "EHLO": ((), "EHLO client.test", 0, "554 5.5.0"),
    "HELO": ((), "HELO client.test", 0, "554 5.5.0"),
    "VRFY": ((), "VRFY ann", IDLE, "421 4.7.0"),
    "EXPN": ((), "EXPN staff", IDLE, "421 4.7.0"),
    "HELP": ((), "HELP", IDLE, "421 4.7.0"),
    "MAIL, refused": ((), "MAIL FROM:<ann@>", ERRORS, "421 4.7.0"),
    "MAIL again": ((MAIL,), MAIL, ERRORS, "421 4.7.0"),
    "MAIL and RSET": ((), MAIL + "\r\nRSET", 2 * IDLE + 1, "421 4.7.0"),
    "RCPT, refused": ((MAIL,), "RCPT TO:<x@elsewhere.test>", 100, "421 4.7.0"),
    "RCPT, unknown": ((MAIL,), "RCPT TO:<nobody@local.test>", 50, "421 4.7.0"),
    "RCPT beyond recipients_max": ((MAIL,), RCPT, BARREN_MAX - 2, "421 4.7.0"),
    "BDAT 0": ((MAIL, RCPT), "BDAT 0", IDLE, "421 4.7.0"),
    "BDAT 1": ((MAIL, RCPT), "BDAT 1\r\nx", BARREN_MAX - 3, "421 4.7.0"),
    "BDAT 2": ((MAIL, RCPT), "BDAT 2\r\n\r\n", BARREN_MAX - 3, "421 4.7.0"),
    "BDAT, refused": ((), "BDAT 1\r\nx", BARREN_MAX - 1, "421 4.7.0"),  # the first is an error, the rest its pipeline
    "DATA, refused": ((), "DATA", ERRORS, "421 4.7.0"),
    "unknown": ((), "XYZZY", ERRORS, "421 4.7.0"),
    "an empty line": ((), "", ERRORS, "421 4.7.0"),
    "AUTH, garbage": ((), "AUTH PLAIN !", ERRORS, "421 4.7.0"),
    "STARTTLS": ((), "STARTTLS", ERRORS, "421 4.7.0"),
    "ETRN": ((), "ETRN local.test", ERRORS, "421 4.7.0"),
    "XCLIENT": ((), "XCLIENT ADDR=192.0.2.1", ERRORS, "421 4.7.0"),
    "LHLO": ((), "LHLO client.test", ERRORS, "421 4.7.0"),
}  # fmt: skip
LMTP = {
    "NOOP": ((), "NOOP", IDLE, "421 4.7.0"),
    "EHLO": ((), "EHLO client.test", ERRORS, "421 4.7.0"),
    "LHLO": ((), "LHLO client.test", 0, "554 5.5.0"),
    "RCPT beyond recipients_max": ((MAIL,), RCPT, BARREN_MAX - 2, "421 4.7.0"),
    "BDAT 0": ((MAIL, RCPT), "BDAT 0", IDLE, "421 4.7.0"),
    "BDAT 1": ((MAIL, RCPT), "BDAT 1\r\nx", BARREN_MAX - 3, "421 4.7.0"),
}  # fmt: skip
KINDS = [(Dialect.SMTP, *row) for row in SMTP.items()] + [(Dialect.LMTP, *row) for row in LMTP.items()]


def house_of(dialect: Dialect = Dialect.SMTP, **more: Any) -> House:
    return House(listener=ListenerOptions("front", Role.MX, dialect, auth=False, expn=Telling.TRUSTED), **more)


def begun(house: House, before: tuple[str, ...]) -> Client:
    lmtp = house.listener_options.protocol is Dialect.LMTP
    client = opened(house, "LHLO client.test" if lmtp else "EHLO client.test")
    for line in before:
        assert client.say(line + "\r\n").startswith("250")
    return client


@pytest.mark.parametrize(
    ("dialect", "name", "row"), KINDS, ids=[f"{dialect.value}-{name}" for dialect, name, _ in KINDS]
)
def test_a_flood_is_handled_in_turns_and_comes_to_an_end(
    dialect: Dialect, name: str, row: tuple[tuple[str, ...], str, int, str]
) -> None:
    before, flood, answered, last = row
    house = house_of(dialect)
    client = begun(house, before)
    octets = flood if flood[:4] == "BDAT" and flood != "BDAT 0" else f"{flood}\r\n"  # a chunk has no end of a line
    client.session.data_received(octets.encode() * COMMANDS)
    answers: list[bytes] = []
    most = AT_ONCE
    while True:
        found = client.heard().split(b"\r\n")[:-1]
        answers += found
        assert len(found) <= most, "one turn has handled too much"
        if not house.loop.turn():
            break
        most = PER_TURN
    assert client.transport.closed
    assert len(answers) == answered + 1
    assert answers[-1].decode().startswith(last)
    assert house.clients.sessions == 1  # until the transport tells that it is closed
    client.hang_up()
    [ended] = [event for event in house.logged if isinstance(event, SessionEnded)]
    assert ended.reason


def test_between_two_turns_everybody_else_is_heard_and_one_flood_is_served_at_a_time() -> None:
    house = house_of()
    honest = begun(house, ())
    floods = [begun(house, (MAIL,)) for _ in range(20)]
    for flood in floods:
        flood.session.data_received(f"{RCPT}\r\n".encode() * 1000)
        assert flood.heard().count(b"\r\n") == AT_ONCE
    for line in (MAIL, RCPT, "DATA"):
        honest.session.data_received(f"{line}\r\n".encode())
        assert honest.heard(), "an honest client is answered before any flood goes on"
        assert house.loop.turn()
        assert sum(flood.heard().count(b"\r\n") for flood in floods) == PER_TURN
    while house.loop.turn():
        pass
    assert all(flood.say("NOOP\r\n") == "250 2.0.0 Ok" for flood in floods)


def test_a_pipeline_of_a_thousand_recipients_has_its_answers_in_order_and_its_message_is_taken() -> None:
    house = house_of()
    client = begun(house, ())
    client.session.data_received(f"{MAIL}\r\n{(RCPT + chr(13) + chr(10)) * 1000}DATA\r\n".encode())
    while house.loop.turn():
        pass
    answers = client.heard().split(b"\r\n")[:-1]
    assert [line[:9] for line in answers] == [b"250 2.1.0"] + [b"250 2.1.5"] * 1000 + [b"354 Send "]
    assert client.say(MESSAGE + b".\r\n").startswith("250 2.0.0")


def test_recipients_beyond_the_limit_are_told_452_and_the_message_goes_to_the_others() -> None:
    house = house_of(options=ReceiveOptions(hostname="mx.local.test", limits=ProtocolLimits(recipients_max=100)))
    client = begun(house, (MAIL,))
    heard = client.say(f"{RCPT}\r\n" * 3000)
    assert heard.count("250 2.1.5") == 100 and heard.count("452 4.5.3") == 2900
    assert client.codes("DATA") == ["354 Send"]
    assert client.say(MESSAGE + b".\r\n").startswith("250 2.0.0")


def test_a_kept_connection_with_many_messages_counts_anew_after_each() -> None:
    limits = ProtocolLimits(commands_max=1_000, recipients_max=100)
    house = house_of(options=ReceiveOptions(hostname="mx.local.test", limits=limits))
    client = begun(house, ())
    for _ in range(1_000):
        assert client.codes(MAIL, RCPT, "DATA")[-1] == "354 Send"
        assert client.say(MESSAGE + b".\r\n").startswith("250 2.0.0")
    assert len(house.spool.stored) == 1_000


def test_chunks_of_a_real_client_do_not_count_however_many_they_are() -> None:
    """A line to a chunk: nobody is known to send so little at a time, and it is mail."""
    limits = ProtocolLimits(commands_max=1_000, recipients_max=100)
    house = house_of(options=ReceiveOptions(hostname="mx.local.test", limits=limits))
    client = begun(house, (MAIL, RCPT))
    chunk = "BDAT 78\r\n" + "x" * 76 + "\r\n"
    client.say("BDAT 12\r\nSubject: a\r\n" + "BDAT 2\r\n\r\n")
    assert client.say(chunk * 5_000).count("250") == 5_000
    assert client.say("BDAT 0 LAST\r\n").startswith("250 2.0.0")


def held(client: Client) -> int:
    """Octets of content that a session and its machine hold; -1 where no content is on its way."""
    dialog = client.session._dialog
    transaction = None if dialog is None else dialog.machine._transaction
    if dialog is None or dialog.intake.draft is None or transaction is None or transaction.chunks is None:
        return -1
    reader = transaction.chunks
    return sum(map(len, dialog.intake.draft.pieces)) + len(reader._held) + len(reader._passed)


CHUNKS = [b"BDAT 0\r\n", b"BDAT 1\r\nx", b"BDAT 1\r\n\n", b"BDAT 2\r\n\r\n", b"BDAT 2\r\nxy"]


@pytest.mark.parametrize(
    "count", [pytest.param(20_000, id="some"), pytest.param(1_000_000, id="million", marks=pytest.mark.slow)]
)
@pytest.mark.parametrize("chunk", CHUNKS)
@pytest.mark.parametrize("body", ["", " BODY=BINARYMIME"])
def test_tiny_chunks_hold_no_more_than_their_octets_and_end_in_a_file(chunk: bytes, body: str, count: int) -> None:
    """The limits of their number set aside: what is held stays below what a message may have in memory, and one piece
    and one line; the number of pieces is that of a large message."""
    limits = ProtocolLimits(commands_max=10**9, idle_commands_max=10**9, piece_size=4_096)
    extensions = ExtensionOptions(binarymime=True)
    options = ReceiveOptions(
        hostname="mx.local.test", limits=limits, extensions=extensions, memory_content_max=10_000, input_max=10**9
    )
    house = house_of(options=options)
    client = begun(house, (MAIL + body, RCPT))
    most, before = 0, b"BDAT 14\r\nSubject: a\r\n\r\n"
    for _ in range(count // 1_000):
        client.session.data_received(before + chunk * 1_000)
        while house.loop.turn():
            pass
        client.heard()
        now, before = held(client), b""
        if now < 0:
            break  # refused: a bare LF, a line too long
        most = max(most, now)
    assert most <= options.memory_content_max + limits.piece_size + limits.text_line_max


# ---- Content that is refused, and octets that are thrown away


def refusing(context: Question) -> Verdict:
    return reject(550, "5.7.1", "Not this", "a rule")


def test_content_that_rules_refuse_counts_as_a_refusal() -> None:
    offended: list[str] = []
    options = ReceiveOptions(hostname="mx.local.test", refusals_max=3)
    house = House(rules=Rules(message=refusing), options=options, offended=offended.append)
    client = begun(house, ())
    for _ in range(3):
        assert client.codes(MAIL, RCPT, "DATA")[-1] == "354 Send"
        assert client.say(MESSAGE + b".\r\n") == "550 5.7.1 Not this"
    client.codes(MAIL, RCPT, "DATA")
    said = client.say(MESSAGE + b".\r\n").splitlines()
    assert said[0] == "550 5.7.1 Not this" and said[1].startswith("421 4.7.0")
    assert client.transport.closed and offended == ["192.0.2.1"]
    assert len([event for event in house.recorded if isinstance(event, Refused)]) == 4


def test_an_accepted_message_forgives_refusals() -> None:
    verdicts = [reject(550, "5.7.1", "Not this", "a rule")] * 3 + [ACCEPT]
    turn = iter(verdicts * 10)
    options = ReceiveOptions(hostname="mx.local.test", refusals_max=3)
    house = House(rules=Rules(message=lambda context: next(turn)), options=options)
    client = begun(house, ())
    for _ in range(40):
        assert client.codes(MAIL, RCPT, "DATA")[-1] == "354 Send"
        client.say(MESSAGE + b".\r\n")
    assert len(house.spool.stored) == 10


@pytest.mark.parametrize("kind", ["lines", "chunks", "content"])
def test_what_is_thrown_away_is_bounded_over_all_of_a_session(kind: str) -> None:
    limits = ProtocolLimits(swallow_max=1_048_576, size_max=65_536)
    house = house_of(options=ReceiveOptions(hostname="mx.local.test", limits=limits))
    client = begun(house, ())
    thrown = 0
    while not client.transport.closed:
        assert thrown < 4 * limits.swallow_max
        match kind:
            case "lines":
                client.say(b"x" * 300_000)
                client.say("\r\n")
            case "chunks":
                client.say(b"BDAT 300000\r\n")
                client.say(b"x" * 300_000)
            case _:
                client.say(f"{MAIL}\r\n{RCPT}\r\nDATA\r\n")
                for _ in range(5):
                    client.say((b"x" * 76 + b"\r\n") * 1_000)
                client.say(b".\r\n")
        thrown += 300_000
    assert thrown > limits.swallow_max


def test_a_line_without_an_end_does_not_put_the_deadline_off() -> None:
    client = begun(house_of(), ())
    for _ in range(40):
        if not client.transport.closed:
            client.say(b"x" * 3_000)
            client.house.loop.pass_time(10)
    assert client.transport.closed, "octets that are no command and no content are no step"


# ---- The end of who waits for its turn


def test_a_client_that_closes_its_side_is_answered_to_the_end() -> None:
    house = house_of()
    client = begun(house, (MAIL,))
    client.session.data_received(f"{RCPT}\r\n".encode() * 500)
    assert client.session.eof_received(), "the way back stays open while it waits for its turn"
    while house.loop.turn():
        pass
    assert client.heard().count(b"250 2.1.5") == 500 and client.transport.closed


def test_a_client_that_is_gone_takes_no_turn() -> None:
    house = house_of()
    client = begun(house, (MAIL,))
    client.session.data_received(f"{RCPT}\r\n".encode() * 500)
    client.hang_up()
    client.heard()
    while house.loop.turn():
        pass
    assert client.heard() == b""


def test_a_client_that_waits_for_its_turn_is_not_timed_out_and_is_not_read_from_without_a_bound() -> None:
    house = house_of()
    client = begun(house, (MAIL,))
    client.session.data_received(f"{RCPT}\r\n".encode() * 5_000)
    assert client.transport.paused, "what it has said already is enough"
    while house.loop.turn():
        pass
    assert not client.transport.paused and not client.transport.closed


def test_behind_many_octets_of_content_others_are_heard_first() -> None:
    """A fast client's octets come in one read after the other, for as long as it is read from."""
    house = house_of()
    client = begun(house, (MAIL, RCPT))
    client.codes("DATA")
    client.session.data_received((b"x" * 76 + b"\r\n") * (MUCH // 78 + 1))
    assert client.transport.paused, "after each read of so many"
    assert house.loop.turn()
    assert not client.transport.paused
    client.session.data_received(b"x" * 76 + b"\r\n")
    assert not client.transport.paused
    assert client.say(".\r\n").startswith("250 2.0.0")


def test_a_node_that_stops_does_not_wait_for_a_flood() -> None:
    house = house_of()
    client = begun(house, ())
    client.session.data_received(f"{MAIL}\r\n{RCPT}\r\nRSET\r\n".encode() * 500)
    client.session.leave()
    while house.loop.turn() and not client.transport.closed:
        pass
    assert client.heard().rpartition(b"421 4.3.2")[1], "as soon as no transaction is open"


def test_one_that_breaks_does_not_hold_up_the_others() -> None:
    loop: Any = Loop()
    turns, served = Turns(), []
    turns.wait(loop, lambda: 1 / 0)  # type: ignore[arg-type,return-value]
    turns.wait(loop, lambda: served.append(1))
    with pytest.raises(ZeroDivisionError):
        loop.turn()
    loop.turn()
    assert served == [1]


# ---- Real sockets, and TLS


@pytest.mark.parametrize("tls", [ListenerTls.NONE, ListenerTls.IMPLICIT])
def test_over_a_socket_an_honest_client_is_heard_between_turns(run: Run, tls: ListenerTls) -> None:
    """Counted, not timed: a flood of a thousand recipients came first, and another client's recipient is looked at
    before the last of them."""

    async def main() -> None:
        seen: list[str] = []

        def noting(context: Question) -> Verdict:
            seen.append(context.peer.hello)
            return ACCEPT

        async with serving(ListenerOptions("front", tls=tls), rules=Rules(rcpt=noting)) as (_, address):
            context: ssl.SSLContext | None = client_context() if tls is ListenerTls.IMPLICIT else None
            flood = await asyncio.open_connection(*address, ssl=context)
            honest = await asyncio.open_connection(*address, ssl=context)
            for (reader, writer), name in ((flood, "flood"), (honest, "honest")):
                assert (await reader.readline()).startswith(b"220")
                writer.write(f"EHLO {name}.test\r\n".encode())
                while (await reader.readline())[3:4] == b"-":
                    pass
            flood[1].write(f"{MAIL}\r\n".encode() + f"{RCPT}\r\n".encode() * 1000)
            honest[1].write(f"{MAIL}\r\n{RCPT}\r\n".encode())
            for (reader, writer), count in ((honest, 1), (flood, 1000)):
                assert (await reader.readline()).startswith(b"250 2.1.0")
                for _ in range(count):
                    assert (await reader.readline()).startswith(b"250 2.1.5")
                writer.close()
        assert seen.count("flood.test") == 1000
        assert seen.index("honest.test") < 999

    run(main)
