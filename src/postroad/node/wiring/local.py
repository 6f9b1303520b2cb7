"""What the node does for the users of this machine (`receive.local_socket`), in the worker that serves them.

What concerns all workers is asked of the node's own control socket. It blocks, so it is done on a thread.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Executor
from pathlib import Path
from typing import Final

from postroad.mail import identifier
from postroad.mail.address import Address
from postroad.mail.envelope import Peer, Recipient
from postroad.mail.expansion import Expansion
from postroad.mail.policy import Action, Phase, Question, Verdict
from postroad.mail.reply import Reply, reply, said
from postroad.operate import control, view
from postroad.operate.operator import OperatorAction, OperatorRequest
from postroad.operate.requests import Reloaded, ReloadRequest, RouteQuestion
from postroad.receive import local_socket, local_users
from postroad.receive.local_users import LocalUser
from postroad.receive.options import LocalListing, LocalOptions
from postroad.receive.setup import ListenerSetup
from postroad.store import engine
from postroad.store.values import Loaded, Selection
from postroad.world import system

USERS_MAX: Final = 1024  # users whose names are remembered
NAMES_S: Final = 60.0  # for so long
LISTED_MAX: Final = 10_000  # messages of the queue that are looked at for one list
ASKED_MAX: Final = 100  # addresses of one question
ENDS_MAX: Final = 20  # targets of an alias that are shown
FLUSH_S: Final = 60.0  # between two times when users have the queue tried
RELOAD_S: Final = 120.0

_NOT_ALLOWED: Final = reply(553, "5.7.1", "You may not do this")
_NOT_NOW: Final = reply(451, "4.3.0", "The node cannot say now")
_EMPTY: Final = Reply(250, "", ("Mail queue is empty",))
_TITLE: Final = "-Queue ID-   --Size-- ----Arrival Time---- -Sender/Recipient-------"


class UserNames:
    """Names of users by their ids. The system's database may be slow (LDAP), so it is asked off the loop."""

    def __init__(
        self, loop: asyncio.AbstractEventLoop, pool: Executor,
        names: Callable[[int], tuple[str, str]] = system.user_names,
    ) -> None:
        self._loop = loop
        self._pool = pool
        self._names = names
        self._known: dict[int, tuple[float, LocalUser]] = {}
        self._node = os.geteuid()

    def find(self, uid: int, found: Callable[[LocalUser], None]) -> None:
        """`found` is called once, now or later, on the loop."""
        known = self._known.get(uid)
        if known is not None and known[0] > self._loop.time():
            found(known[1])
            return
        work = self._loop.run_in_executor(self._pool, self._names, uid)
        work.add_done_callback(lambda done: found(self._keep(uid, done)))

    def _keep(self, uid: int, done: asyncio.Future[tuple[str, str]]) -> LocalUser:
        failed = done.cancelled() or done.exception() is not None
        name, full_name = (str(uid), "") if failed else done.result()
        user = LocalUser(uid, name, full_name, uid in (0, self._node))
        if len(self._known) >= USERS_MAX:
            self._known.clear()
        self._known[uid] = (self._loop.time() + (0.0 if failed else NAMES_S), user)
        return user


class LocalHelp:
    """The doors of `receive.local_socket`. `setup`, `options`: those in force."""

    def __init__(
        self, names: UserNames, state_dir: Path, loop: asyncio.AbstractEventLoop,
        setup: Callable[[], ListenerSetup], options: Callable[[], LocalOptions],
    ) -> None:
        self._names = names
        self._state_dir = state_dir
        self._loop = loop
        self._setup = setup
        self._options = options
        self._flushed = -FLUSH_S

    def uid_of(self, transport: asyncio.Transport) -> int:
        return system.peer_uid(transport.get_extra_info("socket").fileno())

    def who(self, uid: int, found: Callable[[LocalUser], None]) -> None:
        self._names.find(uid, found)

    async def listing(self, user: LocalUser) -> Reply:
        shown = LocalListing.ALL if user.unlimited else self._options().mailq
        if shown is LocalListing.NONE:
            return _NOT_ALLOWED
        whose = None if shown is LocalListing.ALL else user
        try:
            return await self._loop.run_in_executor(None, _list, self._state_dir, whose)
        except (OSError, view.CannotRead):
            return _NOT_NOW

    async def flush(self, user: LocalUser) -> Reply:
        if not (user.unlimited or self._options().flush):
            return _NOT_ALLOWED
        now = self._loop.time()
        if now < self._flushed + FLUSH_S and not user.unlimited:
            return reply(250, "", "The queue was tried a moment ago")
        self._flushed = now
        retry = OperatorRequest(
            OperatorAction.RETRY, (Selection(),), by=user.name, rows_max=0, before_release=False
        )
        try:
            await self._loop.run_in_executor(None, control.operate, self._state_dir, retry)
        except (control.NotRunning, control.NodeRefused) as error:
            return reply(451, "4.3.0", str(error))
        return reply(250, "", "The queue is being tried")

    async def aliases(self, user: LocalUser) -> Reply:
        if not user.unlimited:
            return _NOT_ALLOWED
        try:
            done = await self._loop.run_in_executor(
                None, control.ask, self._state_dir, ReloadRequest(), Reloaded, RELOAD_S
            )
        except (control.NotRunning, control.NodeRefused) as error:
            return reply(451, "4.3.0", str(error))
        if not done.taken:
            return Reply(554, "", tuple(line for problem in done.problems for line in problem.split("\n")))
        return reply(250, "", "The aliases and the configuration are in force as they stand in their files")

    async def verify(self, user: LocalUser, addresses: tuple[str, ...]) -> Reply:
        domain, lines = self._options().domain, []
        refused = 0
        asked = [(written, each) for written in addresses for each in local_users.mailboxes(written, domain)]
        if len(asked) > ASKED_MAX:
            return reply(501, "5.5.4", f"More than {ASKED_MAX} addresses")
        for written, address in asked:
            if address is None:
                lines.append(f"{written}: is not a mail address")
                refused += 1
                continue
            verdict = await self._judged(user, address)
            passes = verdict.action not in (Action.REJECT, Action.DEFER)
            refused += not passes
            told = await self._way(user, address) if passes else said(verdict.reply or _NOT_NOW)
            lines.append(f"{address}: {told}")
        return Reply(550 if refused else 250, "", tuple(lines))

    async def _judged(self, user: LocalUser, address: Address) -> Verdict:
        rule = self._setup().rules.rcpt
        if rule is None:
            return Verdict(Action.ACCEPT)
        peer = Peer(hello=user.label, listener=local_socket.LISTENER, trusted=True)
        sender = local_users.own_mailbox(user, self._options())
        verdict = rule(Question(peer, True, sender, 0, address, phase=Phase.RCPT))
        return verdict if isinstance(verdict, Verdict) else await verdict

    async def _way(self, user: LocalUser, address: Address) -> str:
        """What becomes of mail to an address that is not refused. Where it goes is not everybody's business."""
        if not user.unlimited:
            return "would be accepted"
        expanded = self._setup().doors.knowing.expand(0, 0, (Recipient(address),))
        expansion = expanded if isinstance(expanded, Expansion) else await expanded
        ends = [str(each.address) for each in expansion.recipients[:ENDS_MAX]]
        routes = await self._routes(user, expansion.recipients[:ENDS_MAX])
        if ends == [str(address)]:  # no alias
            return f"would be accepted{', and goes to ' + routes[0] if routes[0] else ''}"
        shown = [f"{end} (goes to {way})" if way else end for end, way in zip(ends, routes, strict=True)]
        more = len(expansion.recipients) - len(ends)
        shown += [f"{more} more"] if more > 0 else []
        return f"would be accepted, and leads to {', '.join(shown)}" if shown else "would be accepted"

    async def _routes(self, user: LocalUser, recipients: tuple[Recipient, ...]) -> list[str]:
        """Where mail to each of them goes. "" if that is not known: if maps say it, the node cannot tell without asking
        them."""
        sender = str(local_users.own_mailbox(user, self._options()))
        asked = [RouteQuestion(str(each.address), sender, stored=each.destination) for each in recipients]
        try:
            found = await self._loop.run_in_executor(None, control.routes, self._state_dir, asked)
        except (control.NotRunning, control.NodeRefused):
            found = {}
        return [found.get(each.key, "") for each in asked]


def _list(state_dir: Path, whose: LocalUser | None) -> Reply:
    """The queue as Postfix's mailq shows it. `whose`: only what this user has handed over."""
    spool = engine.spool_view(view.spool_directory(state_dir))
    lines: list[str] = []
    octets = count = 0
    ids = spool.select(Selection(limit=LISTED_MAX))
    for id in ids:
        loaded = spool.load(id)
        if loaded is None:
            continue
        if whose is not None and not local_socket.is_of(loaded.envelope.peer, whose):
            continue
        lines += [*_message_lines(loaded), ""]
        octets += loaded.envelope.size
        count += 1
    if len(ids) == LISTED_MAX:
        lines.append(f"(only the oldest {LISTED_MAX} messages of the queue were looked at)")
    if not count:
        return _EMPTY
    requests = "Request" if count == 1 else "Requests"
    return Reply(250, "", (_TITLE, *lines, f"-- {(octets + 1023) // 1024} Kbytes in {count} {requests}."))


def _message_lines(loaded: Loaded) -> Iterator[str]:
    """The lines of one message. Behind the id stands "!" if it is held, "*" if it was not tried yet or is due."""
    envelope, rows = loaded.envelope, loaded.waiting
    mark = "*" if not rows or all(row.due_us <= time.time_ns() // 1000 for row in rows) else " "
    mark = "!" if rows and all(row.held for row in rows) else mark
    arrived = time.strftime("%a %b %e %H:%M:%S", time.localtime(envelope.accepted_us / 1e6))
    sender = str(envelope.reverse_path) if envelope.reverse_path is not None else "MAILER-DAEMON"
    yield f"{identifier.text(envelope.id)}{mark}{envelope.size:>8} {arrived:<22} {sender}"
    if not rows:
        yield from (f"{'':41}{recipient.address}" for recipient in envelope.recipients)
    for row in rows:
        if row.text:
            yield f"({row.text})"
        yield f"{'':41}{envelope.recipients[row.index].name}"
