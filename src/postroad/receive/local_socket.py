"""The socket for the users of this machine, which the program `sendmail` calls; one worker serves it.

`sendmail.places` describes the requests; the kernel says which user asks (SO_PEERCRED). Every user may connect, so
everything has a limit: the lines of a request, the connections of one user and of all users, and the time of a
connection (that of a message). A question (`LocalDoors`) is answered with what the user may know.

How it fails: 451 if the node stops or is busy; the program then keeps the message in the drop folder.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Final, Protocol, cast

import msgspec

from postroad.mail.envelope import Peer, Via
from postroad.mail.policy import ACCEPT, Action, Question, Rule, Verdict
from postroad.mail.reply import Reply, reply, said
from postroad.receive import local_request, local_users, replies
from postroad.receive.listener import Listener
from postroad.receive.local_mail import LocalMail
from postroad.receive.local_request import LocalRequest
from postroad.receive.local_users import LocalCounts, LocalUser
from postroad.receive.options import LocalOptions
from postroad.receive.proxied import Named
from postroad.receive.session import ClientConnection
from postroad.receive.setup import ListenerSetup
from postroad.sendmail import places

CONNECTIONS_MAX: Final = 100  # of all users together
USER_CONNECTIONS_MAX: Final = 20  # of one user
REQUEST_S: Final = 30.0  # for the lines of a request
ANSWER_S: Final = 60.0  # for the answer to what is only asked
LISTENER: Final = "sendmail"  # the name in log and history
SESSION: Final = "sendmail -bs"  # by which a client of a session is known

_BUSY: Final = reply(451, "4.3.2", "Too many users are sending; try again")
_NOT_READ: Final = reply(501, "5.5.4", "The request cannot be read")
_TOO_SLOW: Final = reply(451, "4.4.2", "The message did not come in time")
_NO_ANSWER: Final = reply(451, "4.3.0", "The node cannot say now")


def is_of(peer: Peer, user: LocalUser) -> bool:
    """Whether mail of this client was handed over by this user: what a client calls itself in a session counts for
    nothing."""
    if peer.listener != LISTENER:
        return False
    return user.label == (peer.hello if peer.via is None else peer.via.unique_id)


class LocalDoors(Protocol):
    """What the node does for users beyond taking mail. Each answer is a reply whose lines are for the user."""

    def uid_of(self, transport: asyncio.Transport) -> int:
        """The user id of who has connected, from the kernel."""

    def who(self, uid: int, found: Callable[[LocalUser], None]) -> None:
        """`found` is called once, now or later, on the loop."""

    def listing(self, user: LocalUser) -> Awaitable[Reply]:
        """The queue, as far as the user may see it."""

    def flush(self, user: LocalUser) -> Awaitable[Reply]:
        """Try what waits."""

    def verify(self, user: LocalUser, addresses: tuple[str, ...]) -> Awaitable[Reply]:
        """What would become of mail to these addresses."""

    def aliases(self, user: LocalUser) -> Awaitable[Reply]:
        """Look at the alias file now."""


class LocalConnections:
    """All connections of the worker that serves the socket."""

    def __init__(self, setup: ListenerSetup, options: LocalOptions, doors: LocalDoors) -> None:
        self.setup = setup
        self.options = options
        self.doors = doors
        self.counts = LocalCounts(setup.doors.loop.time)
        self.stopping = False
        self._open: set[LocalConnection] = set()
        self._gone = asyncio.Event()  # one of them, since somebody waits for it
        self._sessions: dict[Listener, LocalUser] = {}

    def take(self, setup: ListenerSetup, options: LocalOptions) -> None:
        """Settings: what comes from here on goes by them."""
        self.setup, self.options = setup, options
        for listener, user in self._sessions.items():
            listener.take(self._setup_of(user))

    def connect(self) -> LocalConnection:
        """The protocol of a new connection."""
        return LocalConnection(self)

    def joined(self, connection: LocalConnection, uid: int) -> bool:
        """Whether there is room for one more of this user."""
        uids = [each.uid for each in self._open]
        for listener, user in self._sessions.items():
            uids += [user.uid] * listener.sessions
        if self.stopping or len(uids) >= CONNECTIONS_MAX or uids.count(uid) >= USER_CONNECTIONS_MAX:
            return False
        self._open.add(connection)
        return True

    def gone(self, connection: LocalConnection) -> None:
        self._open.discard(connection)
        self._gone.set()

    async def stop(self, limit_s: float) -> None:
        """The node stops: what is not complete has to come again. What is complete has its answer first: a program that
        hears none leaves the message in the drop folder, and it would be taken twice."""
        self.stopping = True
        for connection in tuple(self._open):
            connection.leave()
        await asyncio.gather(self._empty(limit_s), *(listener.stop(limit_s) for listener in self._sessions))

    async def _empty(self, limit_s: float) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(limit_s):
                while self._open:
                    self._gone.clear()
                    await self._gone.wait()

    # ---- Sessions of SMTP on standard input and output (-bs)

    def session(self, user: LocalUser) -> asyncio.Protocol:
        """The protocol of a session of SMTP with this user."""
        listener = Listener(self._setup_of(user))
        for other in [each for each in self._sessions if not each.sessions]:
            del self._sessions[other]
        self._sessions[listener] = user
        return ClientConnection(listener, Named(("", 0), Via(SESSION, unique_id=user.label)))

    def _setup_of(self, user: LocalUser) -> ListenerSetup:
        rules = self.setup.rules
        rules = msgspec.structs.replace(rules, mail=partial(self._mail_of, user, rules.mail))
        return dataclasses.replace(self.setup, rules=rules)

    def _mail_of(self, user: LocalUser, rule: Rule | None, question: Question) -> Verdict | Awaitable[Verdict]:
        """The rule for MAIL in a session of this user."""
        answer = self.counts.enter(user, self.options)
        if answer is not None:
            return Verdict(Action.DEFER, answer, answer.text)
        self.counts.leave(user, self.options, taken=True)
        may_send = self.setup.doors.knowing.may_send
        refused = local_users.refusal(user, question.reverse_path, self.options, may_send)
        if refused is not None and not isinstance(refused, Reply):
            return _waited(user, refused, rule, question)
        return _judged(user, refused, rule, question)


def _judged(
    user: LocalUser, refused: Reply | None, rule: Rule | None, question: Question
) -> Verdict | Awaitable[Verdict]:
    if refused is not None:
        action = Action.REJECT if refused.permanent else Action.DEFER
        return Verdict(action, refused, f"user {user.name}")
    return ACCEPT if rule is None else rule(question)


async def _waited(
    user: LocalUser, refused: Awaitable[Reply | None], rule: Rule | None, question: Question
) -> Verdict:
    answer = _judged(user, await refused, rule, question)
    return answer if isinstance(answer, Verdict) else await answer


class LocalConnection(asyncio.Protocol):
    """One connection of a user."""

    def __init__(self, service: LocalConnections) -> None:
        self._service = service
        self._setup, self._options = service.setup, service.options
        self._transport: asyncio.Transport | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._task: asyncio.Task[None] | None = None
        self.uid = -1
        self._user: LocalUser | None = None
        self._lines: bytearray | None = bytearray()  # of the request; None once it is read
        self._mail: LocalMail | None = None
        self._missing = 0  # octets of content that are still to come
        self._is_whole = False  # all of it has come
        self._is_counted = False

    # ---- The connection

    def connection_made(self, given: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, given)
        loop = self._setup.doors.loop
        self.uid = self._service.doors.uid_of(self._transport)
        if not self._service.joined(self, self.uid):
            self._say_last(_BUSY)
            return
        self._timer = loop.call_later(REQUEST_S, self._say_last, _TOO_SLOW)
        self._service.doors.who(self.uid, self._known)

    def _known(self, user: LocalUser) -> None:
        self._user = user
        self._read_request()

    def data_received(self, data: bytes) -> None:
        if self._transport is None:
            return
        if self._mail is not None:
            self._content(data)
        elif self._lines is not None:
            self._lines += data
            self._read_request()

    def eof_received(self) -> bool:
        """A client that has said all may still wait for the answer."""
        if self._lines is not None:  # who it is, is still to be found out
            return local_request.end(self._lines) >= 0
        return self._mail is None or self._is_whole

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport = None
        if self._timer is not None:
            self._timer.cancel()
        if self._task is not None:
            self._task.cancel()
        mail, self._mail = self._mail, None
        if mail is not None:
            mail.gone()
            self._leave_counts(taken=False)
        self._service.gone(self)

    def leave(self) -> None:
        """The node stops. A message that is on its way to the disk has its answer first."""
        if self._mail is not None:
            self._mail.leave()
        else:
            self._say_last(replies.LEAVING)

    # ---- The request

    def _read_request(self) -> None:
        lines, user, transport = self._lines, self._user, self._transport
        if lines is None or user is None or transport is None:
            return
        end = local_request.end(lines)
        if end < 0:
            if len(lines) > places.REQUEST_MAX:
                self._say_last(_NOT_READ)
            return
        request = local_request.read(bytes(lines[:end]))
        rest = bytes(lines[end:])
        self._lines = None
        if isinstance(request, str):
            self._say_last(reply(501, "5.5.4", request))
        elif request.verb == places.SUBMIT:
            self._submit(user, request, rest)
        elif request.verb == places.SMTP:
            self._session(user, transport, rest)
        else:
            self._ask(user, request)

    def _submit(self, user: LocalUser, request: LocalRequest, rest: bytes) -> None:
        limits, loop = self._setup.options.limits, self._setup.doors.loop
        if request.size > limits.size_max:
            self._say_last(reply(552, "5.3.4", f"The message has more than {limits.size_max} octets"))
            return
        refused = self._service.counts.enter(user, self._options)
        if refused is not None:
            self._say_last(refused)
            return
        self._is_counted = True
        if self._timer is not None:
            self._timer.cancel()
        self._timer = loop.call_later(self._setup.options.message_s, self._say_last, _TOO_SLOW)
        self._missing = request.size
        self._mail = LocalMail(
            self._setup, self._options, user, request, self._answered, self._resume, reports=request.mail_errors
        )
        self._write(b"354 send\r\n")
        if rest or not self._missing:
            self._content(rest)

    def _content(self, data: bytes) -> None:
        mail = self._mail
        assert mail is not None
        if self._is_whole:
            return
        data = data[: self._missing]
        self._missing -= len(data)
        self._is_whole = not self._missing
        if self._is_whole and self._timer is not None:
            self._timer.cancel()  # from here on the time is ours, and the message may be accepted already
        if not mail.content(data, last=self._is_whole) and self._transport is not None:
            self._transport.pause_reading()

    def _resume(self) -> None:
        if self._transport is not None and not self._transport.is_closing():
            self._transport.resume_reading()

    def _answered(self, answer: Reply, recipient: str) -> None:
        self._mail = None
        self._leave_counts(taken=answer.ok)
        self._say_last(answer, recipient)

    def _leave_counts(self, *, taken: bool) -> None:
        if self._is_counted and self._user is not None:
            self._is_counted = False
            self._service.counts.leave(self._user, self._options, taken=taken)

    # ---- What is only asked

    def _session(self, user: LocalUser, transport: asyncio.Transport, rest: bytes) -> None:
        """From here on the connection is a session of SMTP's."""
        session = self._service.session(user)
        self.connection_lost(None)
        transport.set_protocol(session)
        session.connection_made(transport)
        if rest:
            session.data_received(rest)

    def _ask(self, user: LocalUser, request: LocalRequest) -> None:
        doors = self._service.doors
        if request.verb == places.LIST:
            answer = doors.listing(user)
        elif request.verb == places.FLUSH:
            answer = doors.flush(user)
        elif request.verb == places.ALIASES:
            answer = doors.aliases(user)
        else:
            answer = doors.verify(user, request.recipients)
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self._setup.doors.loop.call_later(ANSWER_S, self._say_last, _NO_ANSWER)
        self._task = self._setup.doors.loop.create_task(self._told(answer))

    async def _told(self, answer: Awaitable[Reply]) -> None:
        told = await answer
        self._task = None
        self._write(_lines(told))
        self._close()

    # ---- Words

    def _write(self, octets: bytes) -> None:
        if self._transport is not None:
            self._transport.write(octets)

    def _say_last(self, answer: Reply, recipient: str = "") -> None:
        mail, self._mail = self._mail, None
        self._lines = None  # what comes from here on is not heard
        if mail is not None:
            mail.gone()
            self._leave_counts(taken=False)
        text = said(answer)
        self._write(f"{answer.code} {f'<{recipient}>: ' if recipient else ''}{text}\r\n".encode())
        self._close()

    def _close(self) -> None:
        if self._transport is not None:
            self._transport.close()


def _lines(answer: Reply) -> bytes:
    """A reply of any number of lines, each as it is but for control characters."""
    lines = ["".join(char if char.isprintable() else "?" for char in line) for line in answer.lines]
    last = len(lines) - 1
    return "".join(f"{answer.code}{' ' if at == last else '-'}{line}\r\n" for at, line in enumerate(lines)).encode()
