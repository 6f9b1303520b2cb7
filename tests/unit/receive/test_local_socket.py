"""The socket for the users of this machine: what a connection may do, how long, and how many there may be."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import msgspec
import pytest

from postroad.check.policy import PolicyOptions
from postroad.mail.policy import Role
from postroad.mail.reply import Reply, reply
from postroad.receive import local_socket
from postroad.receive.local_socket import LocalConnection, LocalConnections, is_of
from postroad.receive.local_users import LocalUser
from postroad.receive.options import ListenerOptions, LocalOptions, LocalSender
from postroad.receive.submit import Submissions, Submit
from tests.unit.receive.fakes import House, Transport

MESSAGE = b"Subject: x\r\n\r\nhello\r\n"


class Help:
    """The doors. `late`: users whose name is not known yet."""

    def __init__(self) -> None:
        self.uid = 1000
        self.late: list[Callable[[], None]] | None = None

    def uid_of(self, transport: asyncio.Transport) -> int:
        return self.uid

    def who(self, uid: int, found: Callable[[LocalUser], None]) -> None:
        user = LocalUser(uid, f"u{uid}")
        if self.late is None:
            found(user)
        else:
            self.late.append(lambda: found(user))

    async def listing(self, user: LocalUser) -> Reply:
        return Reply(250, "", (f"for {user.name}", "two\x1blines"))

    async def flush(self, user: LocalUser) -> Reply:
        await asyncio.sleep(3600)
        return reply(250, "", "never")

    async def verify(self, user: LocalUser, addresses: tuple[str, ...]) -> Reply:
        return Reply(550, "", addresses)

    async def aliases(self, user: LocalUser) -> Reply:
        return reply(553, "5.7.1", "no")


class Place:
    def __init__(self, *, loop: Any = None, options: LocalOptions | None = None) -> None:
        listener = ListenerOptions("sendmail", Role.SUBMISSION, trusted_networks=("unix",))
        self.house = House(listener=listener, policy_options=PolicyOptions(trust_network=True), loop=loop)
        self.help = Help()
        given = options or LocalOptions(domain="local.test")
        self.service = LocalConnections(self.house.listener.setup, given, self.help)

    def client(self, octets: bytes = b"", uid: int = 1000) -> tuple[LocalConnection, Transport]:
        self.help.uid = uid
        transport = Transport("")
        connection = self.service.connect()
        transport.protocol = connection
        connection.connection_made(transport)
        if octets and not transport.closed:
            connection.data_received(octets)
        return connection, transport


def request(message: bytes = MESSAGE, lines: str = "to ann\n") -> bytes:
    return f"submit 1\n{lines}size {len(message)}\n\n".encode() + message


def test_a_message_in_any_cut() -> None:
    octets = request()
    for cut in range(1, len(octets)):
        place = Place()
        connection, transport = place.client(octets[:cut])
        connection.data_received(octets[cut:])
        assert transport.written.startswith(b"354 ") and b"\r\n250 250 2.0.0 Ok: queued as" in transport.written
        assert transport.closed and len(place.house.spool.stored) == 1
        assert place.house.spool.message().endswith(b"\r\n\r\nhello\r\n")


def test_a_message_octet_by_octet_by_a_user_whose_name_comes_late() -> None:
    place = Place()
    place.help.late = []
    connection, transport = place.client()
    octets = request()
    for at in range(40):
        connection.data_received(octets[at : at + 1])
    place.help.late[0]()
    for at in range(40, len(octets)):
        connection.data_received(octets[at : at + 1])
    assert b"\r\n250 250 2.0.0" in transport.written
    (stored,) = place.house.spool.stored
    assert str(stored.envelope.reverse_path) == "u1000@local.test"


def test_octets_behind_the_message_are_not_heard() -> None:
    place = Place()
    place.client(request() + request(b"Subject: second\r\n\r\n"))
    assert len(place.house.spool.stored) == 1


@pytest.mark.parametrize(
    ("octets", "said"),
    [
        (b"x" * 1_048_577, b"501 "),
        (b"nonsense\n\n", b"501 "),
        (request(lines="to nobody\n"), b"550 <nobody@local.test>: 550 5.1.1"),
        (request(b"Subject: x\r\n\r\na\rb\r\n"), b"554 554 5.6.0"),
        (b"submit 1\nto ann\nsize 99999999999\n\n", b"552 552 5.3.4"),
        (request(lines="to ann\nfrom @@\n"), b"553 553 5.1.7"),
        (request(lines=""), b"554 554 5.1.3"),
    ],
)
def test_what_is_refused(octets: bytes, said: bytes) -> None:
    place = Place()
    _, transport = place.client(octets)
    assert transport.written.rpartition(b"354 send\r\n")[2].startswith(said), transport.written
    assert transport.closed and place.house.spool.stored == []


def test_who_says_nothing_and_who_is_slow_are_sent_away() -> None:
    place = Place()
    loop = place.house.loop
    _, silent = place.client()
    _, slow = place.client(request()[:-3])
    loop.pass_time(local_socket.REQUEST_S + 1)
    assert silent.written == b"451 451 4.4.2 The message did not come in time\r\n" and silent.closed
    assert not slow.closed
    loop.pass_time(place.house.options.message_s)
    assert slow.written.endswith(b"451 451 4.4.2 The message did not come in time\r\n") and slow.closed
    assert place.house.spool.stored == []


def test_connections_of_one_user_and_of_all_are_bounded() -> None:
    place = Place()
    kept = [place.client(uid=1000) for _ in range(local_socket.USER_CONNECTIONS_MAX)]
    assert place.client(uid=1000)[1].written.startswith(b"451 ")
    kept += [place.client(uid=2000 + number) for number in range(local_socket.CONNECTIONS_MAX - len(kept))]
    assert not any(transport.closed for _, transport in kept)
    assert place.client(uid=3000)[1].written.startswith(b"451 ")
    kept[0][0].connection_lost(None)
    assert not place.client(uid=3000)[1].closed


def test_messages_of_one_user_at_a_time_are_bounded() -> None:
    place = Place(options=LocalOptions(domain="local.test", at_once_max=2))
    kept = [place.client(request()[:-3]) for _ in range(2)]
    refused = place.client(request())[1]
    assert refused.written.startswith(b"451 451 4.7.0") and refused.closed
    kept[0][0].connection_lost(None)
    assert b"\r\n250 " in place.client(request())[1].written


def test_a_client_that_goes_away_leaves_nothing() -> None:
    place = Place()
    connection, _ = place.client(request()[:-3])
    connection.connection_lost(None)
    assert place.house.spool.stored == [] and place.house.loop.timers == 0


def test_a_client_that_goes_behind_the_last_octet_has_its_message_taken() -> None:
    place = Place()
    place.house.spool.patient = True
    connection, transport = place.client(request())
    assert transport.written == b"354 send\r\n"
    connection.connection_lost(None)
    place.house.spool.commit()
    assert len(place.house.spool.stored) == len(place.house.queued) == 1


async def test_a_node_that_stops_answers_who_has_not_said_all() -> None:
    place = Place()
    _, idle = place.client()
    _, half = place.client(request()[:-3])
    place.house.spool.patient = True
    _, whole = place.client(request())
    await place.service.stop(1.0)
    assert idle.written.startswith(b"421 ") and half.written.endswith(b"421 421 4.3.2 The service is shutting down\r\n")
    assert not whole.closed
    place.house.spool.commit()
    assert b"\r\n250 " in whole.written and whole.closed
    assert place.client()[1].written.startswith(b"451 ")


async def test_a_node_that_stops_waits_until_who_has_said_all_has_the_answer() -> None:
    place = Place(loop=asyncio.get_running_loop())
    place.house.spool.patient = True
    connection, whole = place.client(request())
    stopping = asyncio.create_task(place.service.stop(60.0))
    for _ in range(5):
        await asyncio.sleep(0)
    assert not stopping.done()
    place.house.spool.commit()
    assert b"\r\n250 " in whole.written and whole.closed
    connection.connection_lost(None)
    await stopping


def test_a_message_that_has_come_whole_is_not_too_slow() -> None:
    """It may be accepted already: a program that hears of no success would keep it, and it would come twice."""
    place = Place()
    place.house.spool.patient = True
    _, transport = place.client(request())
    place.house.loop.pass_time(place.house.options.message_s * 2)
    assert not transport.closed
    place.house.spool.commit()
    assert b"\r\n250 " in transport.written


async def test_the_same_holds_for_postroad_submit() -> None:
    place = Place()
    place.house.spool.patient = True
    submissions = Submissions(place.house.listener.setup)
    transport = Transport("")
    submission = transport.protocol = submissions.connect()
    submission.connection_made(transport)  # type: ignore[arg-type]
    told = Submit("eve@local.test", ("ann@local.test",), size=len(MESSAGE))
    submission.data_received(msgspec.json.encode(told) + b"\n")
    submission.data_received(MESSAGE)
    place.house.loop.pass_time(place.house.options.message_s * 2)
    stopping = asyncio.create_task(submissions.stop(60.0))
    for _ in range(5):
        await asyncio.sleep(0)
    assert not transport.closed and not stopping.done()
    place.house.spool.commit()
    assert b'"code":250' in transport.written
    submission.connection_lost(None)
    await stopping


def test_who_is_too_slow_is_not_heard_any_more() -> None:
    place = Place()
    place.help.late = []
    connection, transport = place.client(request())
    place.house.loop.pass_time(local_socket.REQUEST_S + 1)
    assert transport.written.startswith(b"451 ") and transport.closed
    place.help.late[0]()  # its name is known at last
    connection.data_received(request())
    assert place.house.spool.stored == [] and b"354" not in transport.written


async def test_sessions_of_smtp_count_as_connections() -> None:
    place = Place(loop=asyncio.get_running_loop())
    given: list[Any] = []
    for _ in range(local_socket.USER_CONNECTIONS_MAX):
        connection, transport = place.client()
        transport.set_protocol = given.append  # type: ignore[method-assign]
        connection.data_received(b"smtp 1\n\n")
    assert len(given) == local_socket.USER_CONNECTIONS_MAX
    assert place.client()[1].written.startswith(b"451 ") and not place.client(uid=2000)[1].closed
    given[0].connection_lost(None)
    await asyncio.sleep(0)
    assert not place.client()[1].closed


@pytest.mark.parametrize(
    ("sender", "named", "answer"),
    [
        (LocalSender.FORCED, "<u1000@local.test>", b"250"), (LocalSender.FORCED, "<eve@local.test>", b"553"),
        (LocalSender.FORCED, "<>", b"553"), (LocalSender.OWN, "<>", b"250"), (LocalSender.OWN, "<eve@x.test>", b"553"),
        (LocalSender.ANY, "<eve@x.test>", b"250"),
    ],
)  # fmt: skip
async def test_who_may_send_as_whom_in_a_session(sender: LocalSender, named: str, answer: bytes) -> None:
    place = Place(
        loop=asyncio.get_running_loop(), options=LocalOptions(domain="local.test", sender=sender)
    )
    connection, transport = place.client()
    given: list[Any] = []
    transport.set_protocol = given.append  # type: ignore[method-assign]
    connection.data_received(b"smtp 1\n\n")
    await asyncio.sleep(0)
    given[0].data_received(b"HELO x\r\n")
    transport.written = b""
    given[0].data_received(f"MAIL FROM:{named}\r\n".encode())
    assert transport.written.startswith(answer)


async def test_what_is_only_asked() -> None:
    place = Place(loop=asyncio.get_running_loop())

    async def asked(octets: bytes) -> bytes:
        _, transport = place.client(octets)
        for _ in range(5):
            await asyncio.sleep(0)
        assert transport.closed
        return transport.written

    assert await asked(b"list 1\n\n") == b"250-for u1000\r\n250 two?lines\r\n"
    assert await asked(b"verify 1\nto a\nto b\n\n") == b"550-a\r\n550 b\r\n"
    assert await asked(b"aliases 1\n\n") == b"553 no\r\n"


async def test_a_session_of_smtp_on_the_same_socket() -> None:
    place = Place(loop=asyncio.get_running_loop())
    connection, transport = place.client()
    given: list[Any] = []
    transport.set_protocol = given.append  # type: ignore[method-assign]
    connection.data_received(b"smtp 1\n\n")
    await asyncio.sleep(0)
    assert given and transport.written.startswith(b"220 ")
    session = given[0]
    for line in ("EHLO u2000/uid=2000", "MAIL FROM:<u1000@local.test>", "RCPT TO:<ann@local.test>", "DATA", "x\r\n."):
        session.data_received(f"{line}\r\n".encode())
    (stored,) = place.house.spool.stored
    peer = stored.envelope.peer
    assert peer.via is not None and peer.via.unique_id == "u1000/uid=1000"
    assert is_of(peer, LocalUser(1000, "u1000")) and not is_of(peer, LocalUser(2000, "u2000"))
