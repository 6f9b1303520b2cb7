"""One client's session: an asyncio protocol around a server machine (RFC 5321, RFC 6409, RFC 2033).

The octets go into the machine, its commands are handled, and all its output of one turn leaves in one write. Where
nothing must be waited for, nothing is: no task, no future. What must be waited for (a commit, a rule that asks outside,
a password, a handshake) makes the session *busy*; the machine then holds what comes, up to a limit, beyond which the
client is not read from.

What always holds:
- No 250 for content before `doors.accept` has reported its commit. What was handed to it is ours from then on: it goes
  to the queue even where the client is gone when the commit comes.
- A client that is gone before the end of data leaves nothing behind.
- Every session has a deadline at all times; it can only be put off by octets from the client or by our own work.
- An exception in here is a bug: it is logged, answered 421 4.3.0 and ends this session, no other.

Rules of policy are not here (`check`), neither is syntax or sequence (`protocol.server`), nor what makes the message
(`receive.transaction`).
"""

from __future__ import annotations

import asyncio
import ssl
import traceback
from collections.abc import Awaitable, Callable
from functools import partial
from typing import TYPE_CHECKING, Any, Final, assert_never

from postroad.mail import identifier, message
from postroad.mail.address import Address
from postroad.mail.context import Context, Role, Rule
from postroad.mail.envelope import Notify, Peer, Recipient
from postroad.mail.event import Event, Held, Noted, Refused
from postroad.mail.event import Session as Ended
from postroad.mail.message import Content, ContentFile
from postroad.mail.reply import Reply, encode, reply
from postroad.mail.verdict import ACCEPT, Action, Verdict
from postroad.protocol import command as commands
from postroad.protocol import sasl
from postroad.protocol.grammar import parse_mailbox
from postroad.protocol.server import ServerMachine
from postroad.receive import repair
from postroad.receive import transaction as transactions
from postroad.receive.authenticate import Finding
from postroad.receive.doors import Expansion
from postroad.receive.options import Tls
from postroad.receive.transaction import Transaction, with_type
from postroad.store.values import Failure, FailureKind, Stored, Waiting
from postroad.world.network import why
from postroad.world.tls import describe

if TYPE_CHECKING:
    from postroad.receive.listener import Listener

_SENDER_OK: Final = reply(250, "2.1.0", "Sender OK")
_RECIPIENT_OK: Final = reply(250, "2.1.5", "Recipient OK")
_GO_AHEAD: Final = reply(354, "", "Send the message, end with <CRLF>.<CRLF>")
_CHUNK_OK: Final = reply(250, "2.0.0", "Chunk OK")
_TLS_FIRST: Final = reply(530, "5.7.0", "Must issue a STARTTLS command first")  # RFC 3207 §4
_TIMEOUT: Final = reply(421, "4.4.2", "Timeout, closing the connection")
_LEAVING: Final = reply(421, "4.3.2", "The service is shutting down")
_BROKEN: Final = reply(421, "4.3.0", "Internal error, closing the connection")
_UNSURE: Final = reply(451, "4.3.0", "Local error, try again later")
_NO_TLS: Final = reply(454, "4.7.0", "TLS not available due to a temporary reason")  # RFC 3207 §4
_TOO_MANY_FAILURES: Final = reply(421, "4.7.0", "Too many failed authentications")
_TOO_MANY_REFUSALS: Final = reply(421, "4.7.0", "Too many refused commands")
_WRONG: Final = reply(535, "5.7.8", "Authentication credentials invalid")  # RFC 4954 §6
_BUSY: Final = reply(454, "4.7.0", "Temporary authentication failure, try again later")
_RIGHT: Final = reply(235, "2.7.0", "Authentication succeeded")
_NOT_OFFERED: Final = reply(502, "5.5.1", "Command not implemented")
_CANNOT_VERIFY: Final = reply(252, "2.5.2", "Cannot verify, but will take mail and try to deliver it")
_HELP: Final = reply(214, "2.0.0", "See RFC 5321; the postmaster helps with what this server does")
_FAILURES: Final = {
    FailureKind.FULL: reply(452, "4.3.1", "Not enough space, try again later"),
    FailureKind.IO: reply(451, "4.3.0", "Could not store the message, try again later"),
    FailureKind.CLOSED: _LEAVING,
    FailureKind.INVALID: reply(554, "5.3.0", "The message cannot be stored"),
}




class Session(asyncio.Protocol):
    """One connection. Its listener makes it and hears of its end."""

    __slots__ = (
        "_address",
        "_admitted",
        "_armed",
        "_auth_failures",
        "_behind",
        "_blocked",
        "_busy",
        "_early",
        "_ending",
        "_eof",
        "_esmtp",
        "_hello",
        "_identity",
        "_leaving",
        "_listener",
        "_machine",
        "_messages",
        "_paused",
        "_peer",
        "_port",
        "_reason",
        "_refusals",
        "_running",
        "_sasl",
        "_setting",
        "_started",
        "_started_us",
        "_task",
        "_timer",
        "_tls",
        "_transaction",
        "_transport",
        "_trusted",
        "_wait_until",
    )

    def __init__(self, listener: Listener) -> None:
        self._listener = listener
        self._setting = listener.setting
        self._machine: ServerMachine | None = None
        self._transport: asyncio.Transport | None = None
        # The peer
        self._address, self._port = "", 0
        self._trusted = self._admitted = False
        self._started, self._started_us = 0.0, 0
        # The session (RFC 3207 §4.2: a new one after STARTTLS)
        self._hello, self._identity, self._tls = "", "", ""
        self._esmtp = False
        self._peer: Peer | None = None  # of the facts above, made when wanted
        self._sasl: sasl.Mechanism | None = None
        # The transaction
        self._transaction: Transaction | None = None
        # How things stand
        self._busy = False  # something is waited for: no command is handled
        self._running = False  # the loop over commands is at work
        self._behind = False  # the disk has too much to write
        self._blocked = False  # the client does not take what we say
        self._paused = False  # the client is not read from
        self._early: list[bytes] | None = None  # what came under TLS before the handshake was told done
        self._ending = False  # closing, when the output is flushed
        self._eof = False  # the client has closed its side
        self._leaving = False  # to be closed when idle
        self._messages = self._auth_failures = self._refusals = 0
        self._reason = ""
        self._task: asyncio.Task[None] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._armed = self._wait_until = 0.0

    # ---- What the transport tells

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        setting = self._setting
        self._transport = transport
        self._address, self._port = _peer_name(transport)
        self._trusted = setting.trusts(self._address)
        self._started = setting.doors.loop.time()
        self._started_us = setting.doors.now_us()
        self._listener.joined(self)
        verdict = setting.doors.admit(self._address, self._trusted)
        if verdict is not ACCEPT:
            self._turn_away(verdict)
            return
        self._admitted = True
        if setting.listener.tls is Tls.IMPLICIT:
            self._start_tls()
            return
        self._begin()
        self._run()

    def data_received(self, data: bytes) -> None:
        if self._early is not None:
            self._early.append(data)
            return
        machine = self._machine
        if machine is None or self._ending:
            return
        machine.feed(data)
        if not self._busy:
            self._run()
        elif machine.buffered > self._setting.options.input_max:
            self._regulate()

    def eof_received(self) -> bool:
        """A client that has said all still waits for our answers, so the way back stays open while we are at work."""
        self._eof = True
        self._reason = self._reason or "closed by the client"
        return self._busy and not self._ending and not self._tls

    def connection_lost(self, exc: Exception | None) -> None:
        if exc is not None and not self._reason:
            self._reason = f"connection lost: {exc}"
        self._lost()

    def pause_writing(self) -> None:
        self._blocked = True

    def resume_writing(self) -> None:
        self._blocked = False
        if self._machine is not None and not self._running:
            self._run()

    # ---- The loop over commands

    def _run(self, first: Callable[[], None] | None = None) -> None:
        """Handle what there is, write what came of it. `first` is done before, under the same care."""
        machine = self._machine
        transport = self._transport
        if transport is None or self._ending:
            return
        self._running = True
        handled = False
        try:
            if first is not None:
                first()
                handled = True
            if machine is not None:
                while not (self._busy or self._blocked or self._ending):
                    command = machine.next_command()
                    if command is None:
                        break
                    _HANDLERS[command.__class__](self, command)
                    handled = True
                output = machine.take_output()
                if output:
                    transport.write(output)
        except Exception:
            self._broken()
        finally:
            self._running = False
        if self._ending:
            self._close()
            return
        if handled:
            self._put_off()
        if self._paused or (machine is not None and machine.buffered > self._setting.options.input_max):
            self._regulate()
        if self._busy or self._blocked:
            return
        if self._eof:
            self._end("closed by the client")
        elif self._leaving and self._transaction is None:
            self._say_last(_LEAVING, "shutdown")

    def _put_off(self) -> None:
        """The client has got a step further: the deadline of the next one counts from now."""
        options = self._setting.options
        transaction = self._transaction
        limit_s = options.command_s if transaction is None or not transaction.id else options.data_block_s
        self._wait_until = self._setting.doors.loop.time() + limit_s
        deadline = self._deadline()
        if deadline < self._armed or self._timer is None:
            self._arm(deadline)

    def _deadline(self) -> float:
        """Loop time at which we have waited long enough."""
        if self._transaction is not None:
            return min(self._wait_until, self._transaction.deadline)
        return min(self._wait_until, self._started + self._setting.options.session_s)

    def _arm(self, when: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._armed = when
        self._timer = self._setting.doors.loop.call_at(when, self._due)

    def _due(self) -> None:
        """The timer: put off without a word where the deadline has moved meanwhile, or we are what is waited for."""
        self._timer = None
        loop = self._setting.doors.loop
        if self._ending:
            self._abort()
        elif self._busy:
            self._arm(loop.time() + self._setting.options.command_s)
        elif self._deadline() > loop.time():
            self._arm(self._deadline())
        else:
            self._say_last(_TIMEOUT, "timeout")

    def _regulate(self) -> None:
        """Read from the client, or do not, by what is held already."""
        transport, machine = self._transport, self._machine
        if transport is None or transport.is_closing():
            return
        held = machine.buffered if machine is not None else 0
        pause = self._behind or ((self._busy or self._blocked) and held > self._setting.options.input_max)
        if pause and not self._paused:
            transport.pause_reading()
        elif self._paused and not pause:
            transport.resume_reading()
        self._paused = pause

    # ---- Beginning and end

    def _begin(self) -> None:
        setting = self._setting
        dialect = setting.listener.protocol
        self._machine = ServerMachine(dialect, setting.offer(tls=bool(self._tls)), setting.options.limits)

    def _turn_away(self, verdict: Verdict) -> None:
        """No session for this client: our words in place of a greeting (RFC 5321 §3.1, §4.3.2)."""
        assert self._transport is not None
        self._note_refusal(verdict, "CONNECT")
        if self._setting.listener.tls is not Tls.IMPLICIT:
            self._transport.write(encode(verdict.reply or _LEAVING))
        self._end(verdict.reason)

    def _end(self, reason: str) -> None:
        """Close when the output is flushed; `_run` does the rest where it is at work."""
        self._reason = self._reason or reason
        self._ending = True
        if not self._running:
            self._close()

    def _say_last(self, answer: Reply, reason: str) -> None:
        """An unasked 421 and the end."""
        if self._transport is None or self._ending:
            return
        if self._machine is not None and self._early is None:
            self._machine.refuse(answer)
            self._transport.write(self._machine.take_output())
        self._end(reason)

    def _close(self) -> None:
        """The output is written to the transport: close it, and break it off where the client does not take it."""
        if self._transport is None:
            return
        if not self._transport.is_closing():
            self._transport.close()
        if self._transport is not None:  # a transport may tell of its end at once
            self._arm(self._setting.doors.loop.time() + self._setting.options.close_s)

    def _abort(self) -> None:
        if self._transport is not None:
            self._transport.abort()

    def _broken(self) -> None:
        """A bug: tell the log all, the client nothing, and end this session."""
        self._log_error(f"session of {self._address or 'a Unix socket'} broke: {traceback.format_exc()}")
        self._busy = False
        if self._machine is not None and self._transport is not None:
            self._machine.refuse(_BROKEN)
            self._transport.write(self._machine.take_output())
        self._reason = self._reason or "internal error"
        self._ending = True

    def _lost(self) -> None:
        """The connection is gone. What was not handed to the spool is dropped; what was is ours. Only once."""
        if self._transport is None:
            return
        self._transport = None
        self._ending = True
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._task is not None:
            self._task.cancel()
            self._task = None
        self._drop()
        doors = self._setting.doors
        if self._admitted:
            doors.left(self._address)
        self._listener.gone(self)
        now_us = doors.now_us()
        errors = self._machine.errors if self._machine is not None else 0
        reason = self._reason or "closed by the client"
        doors.log((Ended(now_us, 0, self._who(), reason, self._messages, errors, now_us - self._started_us),))
        self._machine = None

    def leave(self) -> None:
        """The node stops: say 421 now where nothing is under way, else when it has come to its end."""
        self._leaving = True
        if not self._busy and self._transaction is None:
            self._say_last(_LEAVING, "shutdown")

    def break_off(self) -> None:
        """The node stops, and has waited long enough."""
        self._reason = self._reason or "shutdown"
        self._abort()

    # ---- Waiting

    def _await(self, pending: Awaitable[Verdict], judged: Callable[[Verdict], None]) -> None:
        """Go on with `judged` when a rule has come to its verdict."""
        self._busy = True
        self._task = self._setting.doors.loop.create_task(self._waited(pending, judged))

    async def _waited(self, pending: Awaitable[Verdict], judged: Callable[[Verdict], None]) -> None:
        try:
            verdict = await pending
        except Exception:
            self._log_error(f"a rule broke: {traceback.format_exc()}")
            verdict = Verdict(Action.DEFER, _UNSURE, "a rule broke")
        self._resume(partial(judged, verdict))

    def _resume(self, first: Callable[[], None]) -> None:
        """What was waited for has come."""
        self._busy = False
        self._task = None
        if not self._running:
            self._run(first)
        else:
            first()

    def _judge(self, rule: Rule | None, context: Context, judged: Callable[[Verdict], None]) -> None:
        verdict = ACCEPT if rule is None else rule(context)
        if isinstance(verdict, Verdict):
            judged(verdict)
        else:
            self._await(verdict, judged)

    # ---- Facts

    def _who(self) -> Peer:
        """The peer as the facts are now."""
        peer = self._peer
        if peer is None:
            peer = self._peer = self._peer_of(smtputf8=False)
        return peer

    def _peer_of(self, *, smtputf8: bool) -> Peer:
        setting = self._setting
        protocol = with_type(setting.lmtp, self._esmtp, bool(self._tls), bool(self._identity), smtputf8)
        return Peer(
            self._address, self._port, self._hello, protocol, self._tls, self._identity, setting.listener.name
        )

    def _reply(self, answer: Reply) -> None:
        assert self._machine is not None
        self._machine.reply(answer)

    def _refuse(
        self, verdict: Verdict, phase: str, sender: Address | None = None, recipient: Address | None = None
    ) -> None:
        """The reply of a verdict that says no, and its event; the refusal that is one too many ends the session."""
        self._note_refusal(verdict, phase, sender, recipient)
        answer = verdict.reply or _UNSURE
        self._refusals += 1
        if self._refusals > self._setting.options.refusals_max and not (self._trusted or self._identity):
            answer = _TOO_MANY_REFUSALS
        self._reply(answer)
        if verdict.disconnect or answer.code == 421:
            self._end(verdict.reason if answer is verdict.reply else "too many refusals")

    def _note_refusal(
        self, verdict: Verdict, phase: str, sender: Address | None = None, recipient: Address | None = None
    ) -> None:
        doors = self._setting.doors
        refused = Refused(
            doors.now_us(),
            0,
            self._who(),
            phase,
            str(verdict.reply or _UNSURE),
            str(sender) if sender is not None else "",
            str(recipient) if recipient is not None else "",
            verdict.reason,
        )
        doors.record((refused,))

    def _log_error(self, text: str) -> None:
        doors = self._setting.doors
        doors.log((Noted(doors.now_us(), 0, "error", text),))

    def _drop(self) -> None:
        """Let go of the transaction, with what it has in the spool."""
        transaction = self._transaction
        if transaction is not None:
            self._transaction = None
            transaction.abort()

    # ---- Commands: hello

    def _on_connected(self, command: commands.Connected) -> None:
        self._judge(self._setting.rules.connect, Context(self._who(), self._trusted), self._connect_judged)

    def _connect_judged(self, verdict: Verdict) -> None:
        if _passes(verdict):
            self._reply(self._setting.greeting)
        else:  # after 554 the machine serves QUIT (RFC 5321 §3.1)
            self._refuse(verdict, "CONNECT")

    def _on_hello(self, command: commands.Hello) -> None:
        before = (self._hello, self._esmtp)
        self._hello, self._esmtp, self._peer = command.name, command.verb != "HELO", None
        rule = self._listener.setting.rules.hello
        self._judge(rule, Context(self._who(), self._trusted), partial(self._hello_judged, command, before))

    def _hello_judged(self, command: commands.Hello, before: tuple[str, bool], verdict: Verdict) -> None:
        if _passes(verdict):
            self._drop()  # RFC 5321 §4.1.4: as RSET
            self._setting = self._listener.setting
            self._reply(self._setting.hello)
        else:
            self._refuse(verdict, command.verb)
            (self._hello, self._esmtp), self._peer = before, None

    def _on_starttls(self, command: commands.StartTls) -> None:
        self._drop()
        assert self._machine is not None and self._transport is not None
        self._transport.write(self._machine.take_output())
        self._start_tls()

    def _start_tls(self) -> None:
        """The handshake; the session after it is a new one (RFC 3207 §4.2). Plaintext is not read from here on."""
        assert self._transport is not None
        self._busy = True
        self._transport.pause_reading()
        context = self._setting.doors.tls_context()
        if context is None:  # the certificate went away since EHLO
            self._end("no TLS certificate")
            return
        self._early = []
        self._task = self._setting.doors.loop.create_task(self._handshake(self._transport, context))

    async def _handshake(self, transport: asyncio.Transport, context: ssl.SSLContext) -> None:
        setting = self._setting
        try:
            started = await setting.doors.network.start_tls(
                transport, self, context, server_side=True, timeout_s=setting.options.handshake_s
            )
        except OSError as error:
            self._reason = self._reason or f"TLS handshake failed: {why(error)}"
            transport.abort()
            self._lost()  # the transport may have forgotten us by now
            return
        self._transport = started
        self._resume(self._secured)

    def _secured(self) -> None:
        assert self._transport is not None
        self._tls = describe(self._transport) or "TLS"
        self._hello, self._identity, self._esmtp, self._peer, self._sasl = "", "", False, None, None
        self._paused = False
        early, self._early = self._early or [], None
        if self._machine is None:
            self._begin()
        else:
            self._machine.tls_started(self._setting.offer(tls=True))
        assert self._machine is not None
        for octets in early:
            self._machine.feed(octets)

    # ---- Commands: the transaction

    def _on_mail(self, command: commands.Mail) -> None:
        setting = self._setting = self._listener.setting
        if self._leaving:
            self._reply(_LEAVING)
            self._end("shutdown")
            return
        rule = setting.rules.mail
        if rule is None:
            self._mail_judged(command, ACCEPT)
            return
        context = Context(self._who(), self._trusted, command.reverse_path, command.size)
        verdict = rule(context)
        if verdict is ACCEPT:
            self._mail_judged(command, ACCEPT)
        elif isinstance(verdict, Verdict):
            self._mail_judged(command, verdict)
        else:
            self._await(verdict, partial(self._mail_judged, command))

    def _mail_judged(self, command: commands.Mail, verdict: Verdict) -> None:
        if not _passes(verdict):
            self._refuse(verdict, "MAIL", command.reverse_path)
            return
        setting = self._setting
        doors = setting.doors
        peer = self._peer_of(smtputf8=True) if command.smtputf8 else self._who()
        transaction = Transaction(command, peer, doors.now_us(), doors.loop.time() + setting.options.message_s)
        self._transaction = transaction
        _keep(transaction, verdict)
        self._reply(_SENDER_OK)

    def _on_rcpt(self, command: commands.Rcpt) -> None:
        transaction = self._transaction
        assert transaction is not None
        address = command.forward_path
        setting = self._setting
        if not address.domain:  # RFC 5321 §4.1.1.3: the bare <Postmaster>
            address = Address(address.local_part, setting.options.default_domain)
        recipient = Recipient(address, command.notify, command.orcpt, None, command.parameters)
        rule = setting.rules.rcpt
        if rule is None:
            self._rcpt_judged(recipient, ACCEPT)
            return
        verdict = rule(
            Context(
                self._who(),
                self._trusted,
                transaction.mail.reverse_path,
                transaction.mail.size,
                address,
                len(transaction.recipients),
            )
        )
        if isinstance(verdict, Verdict):
            self._rcpt_judged(recipient, verdict)
        else:
            self._await(verdict, partial(self._rcpt_judged, recipient))

    def _rcpt_judged(self, recipient: Recipient, verdict: Verdict) -> None:
        transaction = self._transaction
        assert transaction is not None
        if verdict is not ACCEPT:
            if not _passes(verdict):
                self._refuse(verdict, "RCPT", transaction.mail.reverse_path, recipient.address)
                return
            if verdict.action is Action.DISCARD:
                transaction.discarded[len(transaction.recipients)] = verdict.reason
            elif verdict.action is Action.HOLD:
                transaction.held = transaction.held or verdict.reason or "held by a rule"
        transaction.recipients.append(recipient)
        self._reply(_RECIPIENT_OK)

    def _on_data(self, command: commands.Data) -> None:
        assert self._transaction is not None
        self._transaction.id = self._setting.doors.new_id()
        self._reply(_GO_AHEAD)

    def _on_content(self, command: commands.Content) -> None:
        transaction = self._transaction
        assert transaction is not None
        if not transaction.id:  # BDAT
            transaction.id = self._setting.doors.new_id()
        if transaction.incoming is None:
            transaction.add(command.octets)
            if transaction.size > self._setting.options.memory_content_max:
                self._spill(transaction)
        elif not transactions.stream(transaction, command.octets):
            self._fall_behind()
        if command.last:
            self._end_of_data(transaction)

    def _on_chunk(self, command: commands.Chunk) -> None:
        self._reply(_CHUNK_OK)

    def _on_overflow(self, command: commands.Overflow) -> None:
        transaction = self._transaction
        if transaction is not None:
            code = 552 if command.status == "5.3.4" else 550
            verdict = Verdict(Action.REJECT, Reply(code, command.status, (command.text,)), command.text)
            self._note_refusal(verdict, "DATA", transaction.mail.reverse_path)
        self._drop()

    def _on_reset(self, command: commands.Reset) -> None:
        self._drop()

    # ---- The end of data

    def _mend(self, transaction: Transaction) -> Callable[[bytes], bytes] | None:
        """How a submission server repairs the message; None where it is left as it is."""
        setting = self._setting
        if not setting.repair:
            return None
        identity = transaction.peer.identity
        message_id = f"<{identifier.text(transaction.id)}@{setting.options.hostname}>"
        return partial(
            repair.repaired,
            reverse_path=transaction.mail.reverse_path,
            owns=partial(setting.doors.owns, identity) if identity else None,
            message_id=message_id,
            submitted_us=transaction.started_us,
        )

    def _spill(self, transaction: Transaction) -> None:
        """Too much for memory: the content goes into a file from here on."""
        setting = self._setting
        incoming = setting.doors.incoming(transaction.id)
        incoming.resumed = self._catch_up
        now_us = setting.doors.now_us()
        if not transactions.spill(transaction, incoming, setting.options.hostname, now_us, self._mend(transaction)):
            self._fall_behind()

    def _fall_behind(self) -> None:
        self._behind = True
        self._regulate()

    def _catch_up(self) -> None:
        self._behind = False
        if not self._ending:
            self._put_off()
            self._regulate()

    def _end_of_data(self, transaction: Transaction) -> None:
        setting = self._setting
        octets: bytes | None = None
        if transaction.incoming is None:
            now_us = setting.doors.now_us()
            octets = transactions.finished(transaction, setting.options.hostname, now_us, self._mend(transaction))
        rule = setting.rules.message
        if rule is None:
            self._message_judged(transaction, octets, ACCEPT)
            return
        verdict = rule(
            Context(
                self._who(),
                self._trusted,
                transaction.mail.reverse_path,
                transaction.size,
                None,
                len(transaction.recipients),
                transaction.head,
            )
        )
        if isinstance(verdict, Verdict):
            self._message_judged(transaction, octets, verdict)
        else:
            self._await(verdict, partial(self._message_judged, transaction, octets))

    def _message_judged(self, transaction: Transaction, octets: bytes | None, verdict: Verdict) -> None:
        if not _passes(verdict):
            self._note_refusal(verdict, "DATA", transaction.mail.reverse_path)
            self._drop()
            self._reply_all(transaction, verdict.reply or _UNSURE)
            if verdict.disconnect:
                self._end(verdict.reason)
            return
        _keep(transaction, verdict)
        # From here on the message is not the session's any more: it is kept even where the client goes away.
        self._transaction = None
        if transaction.incoming is not None:
            self._busy = True
            transaction.incoming.finish(partial(self._filed, transaction))
        else:
            assert octets is not None
            self._accept(transaction, octets)

    def _filed(self, transaction: Transaction, answer: ContentFile | Failure) -> None:
        """Large content is on stable storage, or is not."""
        if isinstance(answer, Failure):
            self._failed(transaction, answer)
        else:
            self._resume_or_do(partial(self._accept, transaction, answer))

    def _accept(self, transaction: Transaction, content: Content) -> None:
        """Hand the message to the spool, with all that goes into the same commit."""
        doors = self._setting.doors
        now_us = doors.now_us()
        given = transactions.wanted(transaction)
        expansion = doors.expand(transaction.id, now_us, given) if given else Expansion(())
        recipients = expansion.recipients
        named = recipients or tuple(transaction.recipients)
        envelope = transactions.envelope(transaction, named, message.size(content), now_us)
        events: tuple[Event, ...] = (transactions.accepted(envelope, transaction.started_us), *expansion.events)
        if transaction.discarded or transaction.dropped:
            events += transactions.removed(transaction, now_us)
        if not recipients:
            self._vanish(transaction, events)
            return
        stored = Stored(envelope, content)
        waiting: tuple[Waiting, ...] = ()
        reports: tuple[Stored, ...] = ()
        if transaction.held:
            waiting = doors.held(envelope, transaction.held)
            names = tuple(str(recipient.address) for recipient in recipients)
            events += (Held(now_us, transaction.id, names, "", transaction.held),)
        if expansion.events and any(recipient.notify & Notify.SUCCESS for recipient in given):
            reports = doors.reports(stored, given, expansion.events)
        self._busy = True
        done = partial(self._committed, transaction, stored, reports)
        if waiting or reports:
            doors.accept(stored, events, done, waiting, reports)
        else:
            doors.accept(stored, events, done)

    def _committed(
        self, transaction: Transaction, stored: Stored, reports: tuple[Stored, ...], failure: Failure | None
    ) -> None:
        """The commit has come, or failed. The queue hears of it first: this message is ours, whatever happens here."""
        if failure is not None:
            self._failed(transaction, failure)
            return
        doors = self._setting.doors
        if not transaction.held:
            doors.queued(stored)
        for report in reports:
            doors.queued(report)
        self._messages += 1
        self._refusals = 0
        self._resume_or_do(partial(self._reply_all, transaction, _queued(transaction.id)))

    def _failed(self, transaction: Transaction, failure: Failure) -> None:
        """Nothing of the message is stored: the client shall come back with it. The session goes on."""
        transaction.abort()
        self._log_error(f"{identifier.text(transaction.id)} not stored: {failure.text}")
        self._resume_or_do(partial(self._tell_failure, transaction, failure.kind))

    def _tell_failure(self, transaction: Transaction, kind: FailureKind) -> None:
        self._reply_all(transaction, _FAILURES[kind])
        if kind is FailureKind.CLOSED:
            self._end("shutdown")

    def _vanish(self, transaction: Transaction, events: tuple[Event, ...]) -> None:
        """Nobody is left to deliver to: rules or aliases let the message go. Its events say so."""
        transaction.abort()
        self._setting.doors.record(events)
        self._messages += 1
        self._reply_all(transaction, _queued(transaction.id))

    def _resume_or_do(self, first: Callable[[], None]) -> None:
        if self._transport is None or self._ending:
            first()
        else:
            self._resume(first)

    def _reply_all(self, transaction: Transaction, answer: Reply) -> None:
        """The answer to the end of data; over LMTP one for each accepted recipient (RFC 2033 §4.2)."""
        machine = self._machine
        if machine is None or self._ending:
            return
        for _ in transaction.recipients if self._setting.lmtp else (None,):
            machine.reply(answer)

    # ---- Commands: AUTH (RFC 4954)

    def _on_auth(self, command: commands.Auth) -> None:
        self._sasl = sasl.MECHANISMS[command.mechanism]()
        self._step(self._sasl.begin(command.initial))

    def _on_auth_response(self, command: commands.AuthResponse) -> None:
        assert self._sasl is not None
        self._step(self._sasl.respond(command.response))

    def _on_auth_cancelled(self, command: commands.AuthCancelled) -> None:
        self._sasl = None

    def _step(self, step: sasl.Step) -> None:
        match step:
            case sasl.Challenge():
                assert self._machine is not None
                self._machine.challenge(step.octets)
            case sasl.Refused():
                self._sasl = None
                self._reply(step.reply)
            case sasl.Verify():
                self._sasl = None
                self._verify(step)
            case _:
                assert_never(step)

    def _verify(self, step: sasl.Verify) -> None:
        authenticator = self._setting.doors.authenticator
        if authenticator is None:  # AUTH was switched off since EHLO
            self._reply(_BUSY)
            return
        self._busy = True
        authenticator.verify(step.authcid, step.password, partial(self._verified, step.authcid, step.authzid))

    def _verified(self, authcid: str, authzid: str, finding: Finding, identity: str) -> None:
        if self._transport is None or self._ending:
            return
        self._resume(partial(self._tell_finding, authcid, authzid, finding, identity))

    def _tell_finding(self, authcid: str, authzid: str, finding: Finding, identity: str) -> None:
        assert self._machine is not None
        # RFC 4616 §2: an account acts as itself here, never as another.
        if finding is Finding.RIGHT and authzid not in ("", authcid, identity):
            finding = Finding.WRONG
        match finding:
            case Finding.RIGHT:
                self._identity, self._peer = identity, None
                self._machine.authenticated(identity, _RIGHT, self._setting.offer(tls=bool(self._tls)))
            case Finding.BUSY:
                self._reply(_BUSY)
            case Finding.WRONG:
                self._auth_failures += 1
                last = self._auth_failures >= self._setting.options.auth_failures_max
                answer = _TOO_MANY_FAILURES if last else _WRONG
                self._note_refusal(Verdict(Action.REJECT, answer, authcid), "AUTH")
                self._reply(answer)
                if last:
                    self._end("too many failed authentications")
            case _:
                assert_never(finding)

    # ---- Commands: the rest

    def _on_vrfy(self, command: commands.Vrfy) -> None:
        """VRFY where it tells, EXPN where it is answered (RFC 5321 §3.5). Strangers learn nothing on a submission
        listener."""
        setting = self._setting
        stranger = setting.listener.role is Role.SUBMISSION and not (self._identity or self._trusted)
        mailbox = parse_mailbox(command.argument.strip().removeprefix("<").removesuffix(">"))
        if command.verb != "VRFY" or stranger or mailbox is None:
            self._reply(_CANNOT_VERIFY)
            return
        known = setting.doors.known(mailbox)
        if known is None or isinstance(known, bool):
            self._reply(_verified(mailbox, known))
        else:
            self._await(_as_verdict(mailbox, known), self._vrfy_found)

    def _vrfy_found(self, verdict: Verdict) -> None:
        self._reply(verdict.reply or _UNSURE)

    def _on_help(self, command: commands.Help) -> None:
        self._reply(_HELP)

    def _on_etrn(self, command: commands.Etrn) -> None:
        etrn = self._setting.doors.etrn
        self._reply(etrn(self._who(), command.argument) if etrn is not None else _NOT_OFFERED)

    def _on_quit(self, command: commands.Quit) -> None:
        self._end("quit")

    def _on_too_many_errors(self, command: commands.TooManyErrors) -> None:
        self._end(command.text)


_HANDLERS: Final[dict[type, Callable[[Session, Any], None]]] = {
    commands.Connected: Session._on_connected,
    commands.Hello: Session._on_hello,
    commands.Mail: Session._on_mail,
    commands.Rcpt: Session._on_rcpt,
    commands.Data: Session._on_data,
    commands.Content: Session._on_content,
    commands.Chunk: Session._on_chunk,
    commands.Overflow: Session._on_overflow,
    commands.Reset: Session._on_reset,
    commands.StartTls: Session._on_starttls,
    commands.Auth: Session._on_auth,
    commands.AuthResponse: Session._on_auth_response,
    commands.AuthCancelled: Session._on_auth_cancelled,
    commands.Vrfy: Session._on_vrfy,
    commands.Help: Session._on_help,
    commands.Etrn: Session._on_etrn,
    commands.Quit: Session._on_quit,
    commands.TooManyErrors: Session._on_too_many_errors,
}


def _passes(verdict: Verdict) -> bool:
    """Whether the way goes on. HOLD and DISCARD are acceptance to the client."""
    return verdict.action is not Action.REJECT and verdict.action is not Action.DEFER


def _keep(transaction: Transaction, verdict: Verdict) -> None:
    """What a verdict on MAIL or on the content means for the whole message."""
    if verdict.action is Action.HOLD:
        transaction.held = transaction.held or verdict.reason or "held by a rule"
    elif verdict.action is Action.DISCARD:
        transaction.dropped = transaction.dropped or verdict.reason or "discarded by a rule"


def _queued(queue_id: int) -> Reply:
    return Reply(250, "2.0.0", (f"Ok: queued as {identifier.text(queue_id)}",))


def _verified(mailbox: Address, known: bool | None) -> Reply:
    if known is None:
        return _CANNOT_VERIFY
    if known:
        return reply(250, "2.1.5", f"<{mailbox}>")
    return reply(550, "5.1.1", f"<{mailbox}>: no such user here")


async def _as_verdict(mailbox: Address, known: Awaitable[bool | None]) -> Verdict:
    return Verdict(Action.ACCEPT, _verified(mailbox, await known))


def _peer_name(transport: asyncio.Transport) -> tuple[str, int]:
    """IP address as text and port of the client; ("", 0) for a Unix socket."""
    name = transport.get_extra_info("peername")
    if not isinstance(name, tuple):
        return "", 0
    address = str(name[0]).partition("%")[0]  # the zone of a link-local address is ours, not the client's
    if address.startswith("::ffff:") and "." in address:  # an IPv4 client on a socket for both
        address = address[7:]
    return address, int(name[1])
