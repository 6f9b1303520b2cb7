"""One client's session: an asyncio protocol around a server machine and the dialog with its client.

Octets go into the machine, its commands are handled, and all output of one turn leaves in one write. If nothing must be
waited for, there is no task and no future. A wait (for a commit, for a rule that asks outside, for a password, for a
handshake) makes the session *busy*: the machine then holds what arrives, up to a limit; beyond it the session reads no
more from the client. A client that sends more than is handled at once waits for its turn (`receive.turns`), and the
session does not read from it until then.

What always holds:
- No client keeps the loop to itself: a session handles a limited number of commands and octets at once, and the rest
  when its turn comes.
- A client that is lost before the end of data leaves nothing in the spool. If it is lost later, its message is
  accepted.
- Every session has a deadline at all times. A client moves it by a whole command, or by octets of content up to the
  deadline of the whole message; apart from this only our own work moves it. Refused content, which is read to its end
  before the client hears of it, has a deadline of its own: the next deadline moves only by `REFUSED_STEP` octets of it,
  so a steady client reaches the end, and one that drips does not.
- An exception here is a bug: it is logged, answered 421 4.3.0, and ends this session only.

Not here: the answers (`receive.dialog`), syntax and sequence (`protocol.server`).
"""

from __future__ import annotations

import asyncio
import enum
import ssl
import traceback
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Final, Protocol, cast

from postroad.mail.event import BROKEN_OFF, Noted, SessionEnded
from postroad.mail.policy import ACCEPT, Action, Verdict
from postroad.mail.reply import Reply, encode
from postroad.protocol.server import ServerMachine
from postroad.receive import replies
from postroad.receive.client import Client
from postroad.receive.dialog import HANDLERS, Dialog
from postroad.receive.letting_go import let_go
from postroad.receive.options import ListenerTls, ReceiveOptions
from postroad.receive.proxied import Named
from postroad.receive.refusal_notes import RefusalNotes
from postroad.receive.setup import ListenerSetup
from postroad.receive.turns import AT_ONCE, MUCH, PER_TURN
from postroad.receive.verdicts import verdict_of
from postroad.world.handshakes import is_whole
from postroad.world.network import why
from postroad.world.tls import NOBODY
from postroad.world.tls_facts import TlsFacts, facts

LOOK_LEAST_S: Final = 0.01  # between two looks at the deadline, however short the limits are
LAST_WORDS_S: Final = 1.0  # how long a client that is broken off may take to hear it
REFUSED_STEP: Final = 4_096  # octets of refused content that are a step: within `data_block_s` as many must come
EARLY_MAX: Final = 64  # octets of what an early talker said that are told
_HANDSHAKE: Final = "TLS handshake"  # in the reason of a session that ended in one
_NO_TLS: Final = f"{_HANDSHAKE} failed"
_NO_ROOM: Final = Verdict(Action.DEFER, replies.NO_ROOM, "no file descriptors left", disconnect=True)


class ConnectionPhase(enum.Enum):
    """The state of a connection. It is in one of these at a time."""

    PREFACE = "preface"  # nothing was said yet: the greeting is kept back
    HANDSHAKE = "handshake"  # of TLS: what comes is its, or is kept
    OPEN = "open"  # commands are handled
    WAITING = "waiting"  # for an answer of ours: no command is handled
    QUEUED = "queued"  # until the others have been heard: no command is handled
    CLOSING = "closing"  # when the output is flushed: nothing more is heard
    GONE = "gone"


# Members of an Enum by plain names: on Python 3.11 each access through its class costs a look-up more.
_OPEN: Final = ConnectionPhase.OPEN
_WAITING: Final = ConnectionPhase.WAITING
_QUEUED: Final = ConnectionPhase.QUEUED
_HANDSHAKING: Final = ConnectionPhase.HANDSHAKE
_CLOSING: Final = ConnectionPhase.CLOSING
_GONE: Final = ConnectionPhase.GONE


class Flow:
    """Why octets do not flow. `behind`: the disk has too much to write; `blocked`: the client does not read our
    replies; `paused`: the session does not read from the client."""

    __slots__ = ("behind", "blocked", "paused")

    def __init__(self) -> None:
        self.behind = self.blocked = self.paused = False


class Door(Protocol):
    """The listener by which the client has come, as the session sees it. `receive.listener` implements it."""

    setup: ListenerSetup
    turned: RefusalNotes
    leaving_for: str

    def joined(self, session: ClientConnection) -> None:
        """A session has begun. Called once for each."""

    def gone(self, session: ClientConnection) -> None:
        """A session has ended. Called once for each that has joined."""


class ClientConnection(asyncio.Protocol):
    """One connection. Its listener makes it, and is told when it ends."""

    __slots__ = (
        "_asking",
        "_client_hello",
        "_dialog",
        "_early",
        "_eof",
        "_flow",
        "_listener",
        "_named",
        "_phase",
        "_reason",
        "_refused_at",
        "_refused_until",
        "_running",
        "_secure",
        "_stepped_at",
        "_task",
        "_time",
        "_timer",
        "_transport",
        "leaving",
    )

    def __init__(self, listener: Door, named: Named | None = None) -> None:
        self._listener = listener
        self._named = named  # of whom a proxy told us
        self._dialog: Dialog | None = None
        self._transport: asyncio.Transport | None = None
        self._secure = False  # under TLS
        self._asking = NOBODY  # how the client is asked for a certificate in its handshake
        self._phase = ConnectionPhase.PREFACE
        self._flow = Flow()
        self._time = listener.setup.doors.loop.time
        self._running = False  # the loop over commands is at work
        self._client_hello: bytearray | None = None  # what came of it, while it is waited for
        self._early: list[bytes] | None = None  # what came under TLS before the handshake was told done
        self._eof = False  # the client has closed its side
        self.leaving = False  # to be closed when idle
        self._reason = ""
        self._task: asyncio.Task[None] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._stepped_at = 0.0  # when the client last got a step further
        self._refused_until = 0.0  # until when refused content must have ended; 0.0: there is none
        self._refused_at = 0  # octets of it that had come when the deadline was last put off

    @property
    def current(self) -> ListenerSetup:
        """The settings in force. A transaction keeps those of its dialog."""
        return self._listener.setup

    @property
    def address(self) -> str:
        """The client's IP address, "" for a Unix socket."""
        return self._dialog.client.address if self._dialog is not None else ""

    @property
    def leaving_for(self) -> str:
        """Why the session is `leaving`."""
        return self._listener.leaving_for or "shutdown"

    @property
    def transport(self) -> asyncio.Transport:
        """The connection. Only while it exists."""
        assert self._transport is not None
        return self._transport

    @property
    def ended(self) -> bool:
        """Whether the client hears nothing more."""
        return self._phase is _CLOSING or self._phase is _GONE

    # ---- What the transport tells

    def connection_made(self, given: asyncio.BaseTransport) -> None:
        transport = cast(asyncio.Transport, given)  # uvloop's transports are of no class of asyncio
        setup = self._listener.setup
        doors = setup.doors
        self._transport = transport
        named = self._named
        address, port = peer_name(transport.get_extra_info("peername")) if named is None else named.end
        trusted = setup.trusts(address)
        client = Client(
            address, port, None if named is None else named.via, trusted=trusted, since=doors.loop.time(),
            since_us=doors.now_us(),
        )  # fmt: skip
        self._listener.joined(self)
        limiting = doors.limiting
        verdict = (
            limiting.admit(address, trusted, setup.listener.auth) if limiting.has_room(transport) else _NO_ROOM
        )
        client.admitted = verdict is ACCEPT
        self._dialog = Dialog(self, setup, client)
        if verdict is not ACCEPT:
            self._turn_away(verdict)
        else:
            if setup.listener.tls is ListenerTls.IMPLICIT:  # RFC 8314 §3.3
                self._begin_tls()
                return
            if named is not None and named.tls is not None:  # the handshake was the proxy's
                self._dialog.secured(named.tls, from_the_start=True)
            if setup.listener.greet_delay_s and address and not trusted and not self._secure:
                doors.loop.call_later(setup.listener.greet_delay_s, self._greet)
            else:
                self._phase = _OPEN
                self._run()

    def _greet(self) -> None:
        """The pause before the greeting is over. A client that has not waited for it is no mail server (RFC 5321
        §3.1, §4.3.1)."""
        dialog = self._dialog
        if dialog is None or self._phase is _CLOSING:
            return
        said = dialog.machine.peek(EARLY_MAX)
        if said and not dialog.spoke_early(said):
            self._turn_away(Verdict(Action.REJECT, replies.EARLY_TALKER, f"spoke before the greeting: {said!r}"))
        else:
            self.resume(_nothing)

    def data_received(self, data: bytes) -> None:
        dialog = self._dialog
        if self._phase is not _OPEN or dialog is None:
            self._keep(data)
            return
        dialog.machine.feed(data)
        self._run()
        if len(data) >= MUCH and self._phase is _OPEN:
            self._wait_for_turn(dialog)

    def _keep(self, data: bytes) -> None:
        """Keeps octets that arrive while no command is handled."""
        dialog = self._dialog
        if self._phase is _HANDSHAKING:
            self._take_handshake(data)
        elif dialog is not None and self._phase is not _CLOSING:
            dialog.machine.feed(data)
            if dialog.machine.buffered > dialog.setup.options.input_max:
                self._regulate()

    def _take_handshake(self, data: bytes) -> None:
        if self._early is not None:
            self._early.append(data)
        elif self._client_hello is not None:
            self._gather(self._client_hello, data)

    def eof_received(self) -> bool:
        """A client that has sent everything may still wait for answers: the connection stays open for them while we
        work."""
        self._eof = True
        if self._client_hello is not None:
            self._reason = "closed by the client in place of a TLS handshake"
            return False
        under_tls = self._secure or self._early is not None  # it has no way back that stays open
        return self._phase not in (_OPEN, _CLOSING, _GONE) and not under_tls

    def connection_lost(self, exc: Exception | None) -> None:
        if not self._reason:
            if self._early is not None:
                failed = why(exc) if isinstance(exc, OSError) else "closed by the client"
                self._reason = f"{_NO_TLS}: {failed}"
            elif exc is not None:
                self._reason = f"connection lost: {exc}"
        self._lost()

    def pause_writing(self) -> None:
        self._flow.blocked = True

    def resume_writing(self) -> None:
        self._flow.blocked = False
        if not (self._running or self._phase is _QUEUED):
            self._run()

    # ---- The loop over commands

    def _wait_for_turn(self, dialog: Dialog) -> None:
        """The client has had its share: the others come first."""
        self._phase = _QUEUED
        dialog.setup.doors.limiting.turns.wait(dialog.setup.doors.loop, self._turn)
        self._regulate()

    def _turn(self) -> None:
        """The others have had their turn: goes on."""
        if self._phase is _QUEUED:
            self._phase = _OPEN
        self._run(most=PER_TURN)

    def _run(self, first: Callable[[], None] | None = None, most: int = AT_ONCE) -> None:
        """Handles what has arrived, at most `most` commands of it, and writes the output. `first` is called before
        that; an exception in it is caught in the same way."""
        dialog, transport, phase = self._dialog, self._transport, self._phase
        if dialog is None or transport is None or phase is _CLOSING:
            return
        flow = self._flow
        self._running = True
        handled = False
        try:
            if first is not None:
                handled = True
                first()
            machine = dialog.machine
            machine.turn = most
            # What is written leaves below, so a client that does not take it is found out between two runs only.
            if not flow.blocked and self._phase is _OPEN:
                listener = self._listener
                while dialog.setup is listener.setup or self._takes_settings(dialog):
                    command = machine.next_command()
                    if command is None:
                        break
                    handled = True
                    HANDLERS[command.__class__](dialog, command)
                    if self._phase is not _OPEN or not (machine.unread or machine.loose):
                        break
            if machine.declined:
                dialog.tell_declined()
            output = machine.take_output()
            if output:
                transport.write(output)
                handled = True  # what the machine answers by itself is a step, too
        except Exception:
            self._broken(dialog, transport)
        finally:
            self._running = False
        if self._phase is _CLOSING:
            self._close()
            return
        if handled or (machine.in_content and not flow.blocked and self._comes_on(machine.swallowed)):
            self._put_off(dialog, machine)
        if machine.unread and self._phase is _OPEN and machine.interrupted and not flow.blocked:
            self._wait_for_turn(dialog)
        if flow.paused or (machine.unread and machine.buffered > dialog.setup.options.input_max):
            self._regulate()
        if self._eof or self.leaving:
            self._end_if_idle(dialog)

    def _takes_settings(self, dialog: Dialog) -> bool:
        """Takes new settings if they are in force. Returns whether to handle further commands."""
        dialog.take_settings()
        if self._phase is not _OPEN:
            return False
        self._look_again(dialog, self._time())  # the limits may be shorter now
        return True

    def _end_if_idle(self, dialog: Dialog) -> None:
        """Ends the session if the client has sent everything, or must leave, and nothing is under way."""
        if self._flow.blocked or self._phase not in (_OPEN, _QUEUED):
            return
        if self._eof and self._phase is _OPEN:
            self.end("closed by the client")
        elif self.leaving and dialog.intake.draft is None:
            self._say_last(replies.LEAVING, self.leaving_for)

    def _broken(self, dialog: Dialog, transport: asyncio.Transport) -> None:
        """A bug: logs all of it, tells the client nothing of it, and ends this session."""
        self._log_error(f"the session of {self.address or 'a Unix socket'} broke: {traceback.format_exc()}")
        dialog.cut_off(replies.BROKEN, "internal error")
        dialog.machine.refuse(replies.BROKEN)
        transport.write(dialog.machine.take_output())
        self.end("internal error")

    def _log_error(self, text: str) -> None:
        doors = self._listener.setup.doors
        doors.log((Noted(doors.now_us(), 0, "error", text),))

    # ---- Time (RFC 5321 §4.5.3.2.7)

    def _comes_on(self, swallowed: int) -> bool:
        """Whether octets of content count as a step although the dialog made none."""
        return not swallowed or swallowed - self._refused_at >= REFUSED_STEP or not self._refused_until

    def _put_off(self, dialog: Dialog, machine: ServerMachine) -> None:
        """The client has made a step: the deadline of the next one counts from now. The timer notices this when it
        goes off."""
        if self._refused_until or machine.refusing:
            self._bound_refused(machine.swallowed, dialog.setup.options.refused_content_s)
        self._stepped_at = self._time()
        if self._timer is None:
            self._look_again(dialog, self._stepped_at)

    def _bound_refused(self, swallowed: int, limit_s: float) -> None:
        """Refused content has begun, gone on or ended."""
        self._refused_at = swallowed
        if not swallowed:
            self._refused_until = 0.0
        elif not self._refused_until:
            self._refused_until = self._time() + limit_s

    def _deadline(self) -> float:
        """The loop time at which the session has waited long enough."""
        dialog = self._dialog
        if dialog is None:
            return self._stepped_at
        draft, options = dialog.intake.draft, dialog.setup.options
        limit_s = options.command_s if draft is None or not draft.id else options.data_block_s
        if self._refused_until:
            until = self._refused_until
        elif draft is not None:
            until = draft.deadline
        else:
            until = dialog.client.since + options.session_s
        return min(self._stepped_at + limit_s, until)

    def _look_again(self, dialog: Dialog, now: float) -> None:
        """Sets the timer to the deadline, but no later than the shortest limit from now: then no later step needs an
        earlier timer, and none has to move it."""
        self._arm(min(self._deadline(), now + _shortest_s(dialog.setup.options)))

    def _disarm(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _arm(self, when: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self._listener.setup.doors.loop.call_at(when, self._due)

    def _due(self) -> None:
        """The timer went off. If the deadline has moved since then, or if the client waits for us, it is only set
        again."""
        self._timer = None
        dialog, now = self._dialog, self._time()
        if self._phase is _CLOSING or dialog is None:
            self._abort()
        elif self._client_hello is not None:
            self.end(f"{_NO_TLS}: timed out")
        elif self._phase is not _OPEN or self._flow.behind:
            self._arm(now + _shortest_s(dialog.setup.options))
        elif self._deadline() > now:
            self._look_again(dialog, now)
        else:
            self._say_last(replies.TIMEOUT, "timeout")

    # ---- Flow

    def _regulate(self) -> None:
        """Reads from the client, or stops reading, by how much is held already."""
        transport, dialog = self._transport, self._dialog
        if transport is None or dialog is None or transport.is_closing():
            return
        flow, phase = self._flow, self._phase
        stopped = phase is not _OPEN or flow.blocked
        much = dialog.machine.buffered > dialog.setup.options.input_max
        pause = flow.behind or phase is _QUEUED or (stopped and much)
        if pause and not flow.paused:
            transport.pause_reading()
        elif flow.paused and not pause:
            transport.resume_reading()
        flow.paused = pause

    def fall_behind(self) -> None:
        """Reads no more for now: the disk has enough to write."""
        self._flow.behind = True
        self._regulate()

    def catch_up(self) -> None:
        """The disk has caught up."""
        self._flow.behind = False
        dialog = self._dialog
        if dialog is not None and self._phase is not _CLOSING:
            self._put_off(dialog, dialog.machine)
            self._regulate()

    # ---- Waiting

    def hold(self) -> None:
        """Handles no command until `resume`."""
        if self._phase is _OPEN:
            self._phase = _WAITING

    def resume(self, first: Callable[[], None]) -> None:
        """The wait is over: calls `first` and goes on. Does nothing after the end (`ended`)."""
        phase = self._phase
        if phase is not _CLOSING and phase is not _GONE:
            self._phase = _OPEN
        if self._running:  # it came at once
            first()
        else:
            self._run(first)

    def wait_for(self, pending: Awaitable[Verdict], judged: Callable[[Verdict], None]) -> None:
        """Calls `judged` with the verdict of a rule when it is there; never, if the client is gone by then."""
        self.hold()
        self._task = self._listener.setup.doors.loop.create_task(self._waited(pending, judged))

    async def _waited(self, pending: Awaitable[Verdict], judged: Callable[[Verdict], None]) -> None:
        verdict = await verdict_of(pending, self._log_error)
        self._task = None
        if not self.ended:
            self.resume(partial(judged, verdict))

    # ---- TLS

    def move(self, before: Client, client: Client) -> Verdict:
        """XCLIENT: the client is another from here on, and is counted as that one. Not if the other one is refused."""
        doors = self._listener.setup.doors
        dialog = self._dialog
        assert dialog is not None
        if before.messages or dialog.machine.errors:
            self._tell_end(dialog, "another client by XCLIENT")
        if before.admitted:
            doors.limiting.left(before.address)
        verdict = doors.limiting.admit(client.address, client.trusted, dialog.setup.listener.auth)
        client.admitted = verdict is ACCEPT
        return verdict

    def start_tls(self) -> None:
        """Begins the handshake. The machine throws away what arrived before it; what arrives from here on belongs to
        the handshake and is no command (RFC 3207 §4.2, CVE-2011-0411)."""
        transport, dialog = self._transport, self._dialog
        assert transport is not None and dialog is not None
        output = dialog.machine.take_output() if self._running else b""
        if output:
            transport.write(output)
        if self._flow.paused:
            transport.resume_reading()
            self._flow.paused = False
        self._begin_tls()

    def _begin_tls(self) -> None:
        """Waits for the ClientHello: until it arrives, a client costs no more than a silent one."""
        setup = self._listener.setup
        self._phase = _HANDSHAKING
        self._client_hello = bytearray()
        self._arm(setup.doors.loop.time() + setup.options.handshake_s)

    def _gather(self, gathered: bytearray, octets: bytes) -> None:
        gathered += octets
        transport, dialog = self._transport, self._dialog
        if not is_whole(gathered) or transport is None or dialog is None or self.ended:
            return
        self._client_hello = None
        setup = self._listener.setup  # as clients are asked now: a reload may have come since EHLO
        self._asking = setup.listener.asking
        context = setup.doors.tls_context(self._asking)
        if context is None:  # the certificate went away since EHLO
            self.end("no TLS certificate")
            return
        transport.pause_reading()
        # The transport tells TLS from now on: what it gives us before we run again came encrypted, and is kept.
        self._early = []
        self._task = setup.doors.loop.create_task(self._handshake(dialog, transport, context, bytes(gathered)))

    async def _handshake(
        self, dialog: Dialog, transport: asyncio.Transport, context: ssl.SSLContext, octets: bytes
    ) -> None:
        network, limit_s = dialog.setup.doors.network, dialog.setup.options.handshake_s
        try:
            started = await network.start_tls(
                transport, self, context, server_side=True, octets=octets, timeout_s=limit_s
            )
        except OSError as error:
            self._reason = self._reason or f"{_NO_TLS}: {why(error)}"
            self._task = None
            transport.abort()
            self._lost()  # the transport may have forgotten us by now
            return
        self._task = None
        if self._transport is None or self.ended:
            started.abort()
            self._lost()
            return
        self._transport = started
        self.resume(self._secured)

    def _secured(self) -> None:
        dialog, transport = self._dialog, self._transport
        assert dialog is not None and transport is not None
        self._secure, self._flow.paused = True, False
        early, self._early = self._early or [], None
        implicit = dialog.setup.listener.tls is ListenerTls.IMPLICIT
        dialog.secured(facts(transport) or TlsFacts(), self._asking, from_the_start=implicit)
        for octets in early:
            dialog.machine.feed(octets)

    # ---- The end

    def _turn_away(self, verdict: Verdict) -> None:
        """Refuses this client: a reply in place of the greeting (RFC 5321 §3.1, §3.8)."""
        dialog, transport = self._dialog, self._transport
        assert dialog is not None and transport is not None
        answer: Reply | None = verdict.reply or replies.LEAVING
        if dialog.setup.listener.tls is ListenerTls.IMPLICIT:  # nothing can be said before the handshake
            answer = None
        left_out = self._listener.turned.left_out(dialog.client.address, verdict.reason[:40], dialog.client.since)
        if left_out is not None:
            more = f" ({left_out} more since the last one logged)" if left_out else ""
            dialog.note_refusal(answer, verdict.reason + more, "CONNECT")
        if answer is not None:
            transport.write(encode(answer))
        self.end(verdict.reason)

    def end(self, reason: str) -> None:
        """Closes when the output is flushed. If `_run` is at work, it does this."""
        self._reason = self._reason or reason
        if self._phase is not _GONE:
            self._phase = _CLOSING
        if not self._running:
            self._close()

    def refuse(self, answer: Reply, reason: str) -> None:
        """Says 421 in the middle of content, without being asked, and ends the session."""
        dialog = self._dialog
        assert dialog is not None
        dialog.cut_off(answer, reason)
        dialog.machine.refuse(answer)
        self.end(reason)

    def _say_last(self, answer: Reply, reason: str) -> None:
        """Says 421 without being asked, and ends the session."""
        dialog, transport = self._dialog, self._transport
        if dialog is None or transport is None or self._phase is _CLOSING:
            return
        if self._early is None and self._client_hello is None:  # in a handshake nothing can be said
            dialog.cut_off(answer, reason)
            dialog.machine.refuse(answer)
            transport.write(dialog.machine.take_output())
        self.end(reason)

    def _close(self) -> None:
        """Closes the transport, which has all output. Breaks it off if the client does not read it in time."""
        transport = self._transport
        if transport is None:
            return
        if not transport.is_closing():
            transport.close()
        if self._transport is None:  # a transport may tell of its end at once
            return
        if self._secure or transport.get_write_buffer_size():  # else the system has all of it, and there is no wait
            setup = self._listener.setup
            self._arm(setup.doors.loop.time() + setup.options.close_s)

    def _abort(self) -> None:
        if self._transport is not None:
            self._transport.abort()

    def _lost(self) -> None:
        """The connection is gone. What was not handed to the spool is dropped; what was handed over is ours. Runs
        once."""
        if self._transport is None:
            return
        self._transport = None
        self._phase = _GONE
        self._disarm()
        if self._task is not None:
            let_go(self._task)
            self._task = None
        dialog, self._dialog = self._dialog, None
        assert dialog is not None
        dialog.intake.ended()
        dialog.end_auth()
        client = dialog.client
        if client.admitted:  # of the others their refusal says it all
            self._listener.setup.doors.limiting.left(client.address)
            reason = self._reason or "closed by the client"
            if _HANDSHAKE in reason:
                self._tell_handshake(dialog, reason)
            else:
                self._tell_end(dialog, reason)
        self._listener.gone(self)

    def _tell_handshake(self, dialog: Dialog, reason: str) -> None:
        """Logs a handshake that has failed. A client that fails again and again does not fill the log."""
        listener, address = self._listener, dialog.client.address
        left_out = listener.turned.left_out(address, reason[:80], listener.setup.doors.loop.time())
        if left_out is not None:
            self._tell_end(dialog, f"{reason} ({left_out} more since the last one logged)" if left_out else reason)

    def _tell_end(self, dialog: Dialog, reason: str) -> None:
        """Records the end of a client's session. If its mail was logged and nothing went wrong, the event is only
        logged."""
        doors, client, machine = self._listener.setup.doors, dialog.client, dialog.machine
        now_us = doors.now_us()
        refusal = str(machine.last_error) if machine.last_error is not None else ""
        took_us = now_us - client.since_us
        ended = SessionEnded(now_us, 0, dialog.who(), reason, client.messages, machine.errors, took_us, refusal)
        if client.messages and not machine.errors and not refusal:
            doors.log((ended,))  # its mail tells of it: a session for each message would double the history
        else:
            doors.record((ended,))

    def leave(self) -> None:
        """The node stops: says 421 now if nothing is under way, otherwise when that has ended."""
        self.leaving = True
        if self._client_hello is not None:
            self.end(self.leaving_for)
            return
        dialog = self._dialog
        if self._phase in (_OPEN, _QUEUED) and dialog is not None and dialog.intake.draft is None:
            self._say_last(replies.LEAVING, self.leaving_for)

    def turn_out(self) -> None:
        """The client has been banned. If its message is on the way to the disk, this is answered first."""
        if self.current.trusts(self.address):
            return
        if self._phase not in (_OPEN, _QUEUED):
            self.leaving = True
        else:
            self._say_last(replies.BANNED, "banned")

    def break_off(self) -> None:
        """The node stops, and has waited long enough. A client in the middle of content hears 421 (RFC 5321 §3.8). A
        client whose message is on its way to the disk does not, because the message may have been accepted."""
        self._reason = self._reason or (BROKEN_OFF if self._in_transaction else self.leaving_for)
        if self._phase not in (_OPEN, _QUEUED) or self._transport is None:
            if self._phase is not _GONE:
                self._phase = _CLOSING
            self._abort()
            return
        self._say_last(replies.LEAVING, self._reason)
        self._listener.setup.doors.loop.call_later(LAST_WORDS_S, self._abort)

    @property
    def _in_transaction(self) -> bool:
        return self._dialog is not None and self._dialog.intake.draft is not None


def _shortest_s(options: ReceiveOptions) -> float:
    """The shortest of the limits that a step of the client may bring about."""
    shortest_s = min(options.command_s, options.data_block_s, options.message_s, options.refused_content_s)
    return max(shortest_s, LOOK_LEAST_S)


def _nothing() -> None:
    """Does nothing; the session goes on."""


def peer_name(name: object) -> tuple[str, int]:
    """The IP address and port of the client, from the name of its end of the connection; ("", 0) for a Unix socket."""
    if not isinstance(name, tuple):
        return "", 0
    address = str(name[0]).partition("%")[0]  # the zone of a link-local address is ours, not the client's
    if address.startswith("::ffff:") and "." in address:  # an IPv4 client on a socket for both
        address = address[7:]
    return address, int(name[1])
