"""What a session says to each command: commands in, replies out.

What always holds: each command that the machine hands over is answered once, at once or after a wait. The `intake`
owns the transaction and asks the rules about it. New settings hold from the next command that does not belong to a
transaction. A transaction ends under the rules under which it began, but it cannot use a right that its client has lost
since then: it is answered 451, and the client comes again.

Not here: octets, time, the connection (`receive.session`); transactions and rules (`receive.intake`).
RFC 5321 §4.1, RFC 2033 §4.2, RFC 3207, RFC 4954, RFC 6409.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any, Final, Protocol, assert_never

from postroad.accounts import authenticate
from postroad.accounts.authenticate import Exchange, SessionFacts
from postroad.mail.address import Address
from postroad.mail.envelope import Peer
from postroad.mail.event import Authenticated, Noted
from postroad.mail.policy import ACCEPT, Action, Phase, Verdict
from postroad.mail.reply import Reply, reply
from postroad.protocol import command as commands
from postroad.protocol import etrn
from postroad.protocol.offer import Offer
from postroad.protocol.server import ServerMachine
from postroad.protocol.state import State
from postroad.receive import forwarding, refusals, replies, verifying
from postroad.receive.client import Client, obstacle
from postroad.receive.intake import Intake, OnReply, Refusal, passes
from postroad.receive.options import EarlyTalker
from postroad.receive.setup import ListenerSetup
from postroad.receive.turns import REFUSAL
from postroad.world.tls import NOBODY, ClientCertificatePolicy
from postroad.world.tls_facts import TlsFacts
from postroad.world.tls_session import channel_binding

UNKNOWN: Final = "5.1.1"  # the status code of a recipient that does not exist
_RIGHT_GONE: Final = Verdict(Action.DEFER, replies.RIGHT_GONE, "the settings have changed")
_BETWEEN: Final = (State.GREETED, State.READY)  # no transaction is under way, and no exchange


class Connection(Protocol):
    """The connection of a dialog, as the dialog sees it. `receive.session` implements it; its docstrings say more."""

    @property
    def current(self) -> ListenerSetup:
        """The settings of the listener that are in force now."""

    @property
    def transport(self) -> asyncio.Transport: ...

    @property
    def ended(self) -> bool:
        """Whether the client is gone, or has heard its last words."""

    @property
    def leaving(self) -> bool:
        """Whether the session ends before the next command that would begin something."""

    @property
    def leaving_for(self) -> str:
        """Why sessions end, while they do."""

    def hold(self) -> None:
        """Reads no further command until `resume`: the answer to the last one comes later."""

    def resume(self, first: Callable[[], None]) -> None:
        """Ends `hold`: calls `first`, which answers, then reads on."""

    def wait_for(self, pending: Awaitable[Verdict], judged: Callable[[Verdict], None]) -> None:
        """Calls `judged` once with the verdict; commands wait until then."""

    def fall_behind(self) -> None:
        """Stops reading from the client until `catch_up`: the disk is too slow for it."""

    def catch_up(self) -> None: ...

    def start_tls(self) -> None: ...

    def move(self, before: Client, client: Client) -> Verdict:
        """XCLIENT: makes the session another client's. Returns whether this client may come in."""

    def refuse(self, answer: Reply, reason: str) -> None:
        """Says this without being asked, and ends the session."""

    def end(self, reason: str) -> None:
        """Ends the session as soon as its client has all replies."""


class Dialog:
    """The server's side of the talk with one client. One writer: its session."""

    __slots__ = (
        "_exchange",
        "_may_speak_for",
        "_session",
        "_speaker",
        "_via_proxy",
        "client",
        "intake",
        "machine",
        "outdated",
        "setup",
    )

    def __init__(self, session: Connection, setup: ListenerSetup, client: Client) -> None:
        self.setup = setup
        self.outdated = False  # others are in force, and a transaction that is under way ends under these
        self.client = client
        self._speaker, self._via_proxy = client.address, client.via  # the other end of the connection, whoever it names
        self._may_speak_for = setup.may_speak_for_others(client.address)
        self.machine = ServerMachine(setup.listener.protocol, self._offer(), setup.options.limits)
        self.intake = Intake(setup, client, session, self._on_refusal)
        self._session = session
        self._exchange: Exchange | None = None  # an AUTH under way

    # ---- Facts

    def who(self) -> Peer:
        """The client, as the facts are now."""
        return self.client.who(self.setup)

    def _offer(self) -> Offer:
        """The extensions that the session is offered now."""
        client = self.client
        xclient, xforward = self._may_speak_for
        if client.address != self._speaker:  # XCLIENT named it: it needs the right, too, as its octets may come to us
            also = self.setup.may_speak_for_others(client.address)
            xclient, xforward = xclient and also[0], xforward and also[1]
        return self.setup.offer(
            tls=client.tls is not None, bindable=client.bindable, certificate=bool(client.certificate),
            xclient=xclient, xforward=xforward, trusted=client.trusted, known=client.is_known,
        )

    def drop(self) -> None:
        """Lets go of the transaction, with what it has in the spool."""
        self.intake.reset()

    def secured(self, tls: TlsFacts, asking: ClientCertificatePolicy = NOBODY, *, from_the_start: bool) -> None:
        """TLS is on, and this is how clients were asked for a certificate. `from_the_start`: nothing was said before
        TLS; otherwise a new session begins (RFC 3207 §4.2)."""
        self.drop()
        self.end_auth()
        setup, client = self.setup, self.client
        transport = self._session.transport
        client.secured(tls, asking, bindable=transport.get_extra_info("ssl_object") is not None)
        client.certificate = setup.certificate_names(transport)
        client.look(setup)
        offer = self._offer()
        if from_the_start:
            self.machine = ServerMachine(setup.listener.protocol, offer, setup.options.limits)
        else:
            self.machine.tls_started(offer)

    # ---- New settings

    def take_settings(self) -> None:
        """Takes new settings, if no transaction is under way. A client that cannot go on under them is answered 421
        and comes again."""
        self.outdated = True
        if self.intake.draft is None and self.machine.state in _BETWEEN:
            self._take_settings()

    def _take_settings(self) -> bool:
        """Returns whether the session goes on."""
        before, setup = self.setup, self._session.current
        client = self.client
        self.setup = self.intake.setup = setup
        self.outdated = False
        self._may_speak_for = setup.may_speak_for_others(self._speaker)
        xclient, xforward = self._may_speak_for
        why = obstacle(client, setup, before, proxy=self._via_proxy, xclient=xclient)
        if why:
            self.machine.refuse(replies.CHANGED)
            self._session.end(why)
            return False
        client.look(setup)
        client.changed()
        if not xforward:
            client.forwards(None)
        if client.identity and not client.is_logged_in(setup):
            client.forget_login()
        self.machine.renew(self._offer(), setup.options.limits, client.identity)
        return True

    def _has_lost_a_right(self, current: ListenerSetup) -> bool:
        xclient, _ = current.may_speak_for_others(self._speaker)
        return self.client.has_lost_a_right(current) or bool(
            obstacle(self.client, current, self.setup, proxy=self._via_proxy, xclient=xclient)
        )

    # ---- Verdicts

    def _refuse(
        self, verdict: Verdict, phase: str, answered: OnReply, sender: Address | None = None,
        recipient: Address | None = None,
    ) -> None:
        """The reply of a verdict that refuses, and its event. One refusal too many ends the session."""
        answer = verdict.reply or replies.UNSURE
        last = None if self.client.is_known else self._last_refusal(answer)
        self.note_refusal(last or answer, verdict.reason, phase, sender, recipient)
        answered(last or answer)
        if last is not None:
            self._offended()
            unknown = last is replies.TOO_MANY_UNKNOWN
            self._session.end("too many unknown recipients" if unknown else "too many refusals")
        elif verdict.disconnect or answer.code == 421:
            self._session.end(verdict.reason)

    def _last_refusal(self, answer: Reply) -> Reply | None:
        """The last reply to a stranger who was refused too often: one that tries names until it finds a mailbox
        (directory harvest), or one that does not give up."""
        options, client = self.setup.options, self.client
        client.refusals += 1
        client.unknown += answer.status == UNKNOWN
        if options.unknown_recipients_max and client.unknown > options.unknown_recipients_max:
            return replies.TOO_MANY_UNKNOWN
        return replies.TOO_MANY_REFUSALS if client.refusals > options.refusals_max else None

    def _offended(self) -> None:
        """Ends the session because of what the client did: this counts towards a ban."""
        if not self.client.is_known:
            self.setup.doors.limiting.offended(self.client.address)

    def spoke_early(self, said: bytes) -> bool:
        """The client spoke before the greeting. Returns whether it may go on; if not, the caller answers."""
        if self.setup.listener.early_talker is EarlyTalker.REFUSE:
            self._offended()
            return False
        doors = self.setup.doors
        text = f"[{self.client.address}] spoke before the greeting: {said!r}"
        doors.record((Noted(doors.now_us(), 0, "warning", text),))
        return True

    def note_refusal(
        self, answer: Reply | None, reason: str, phase: str, sender: Address | None = None,
        recipient: Address | None = None, recipients: tuple[str, ...] = (), why: str = "",
    ) -> None:
        """Records the event of a refusal. `answer`: the client's reply, None if it gets none."""
        self.machine.spend(REFUSAL)
        self.intake.note_refusal(answer, reason, phase, sender, recipient, recipients, why)

    def _tell(
        self, answer: Reply, reason: str, phase: str, sender: str = "", recipients: tuple[str, ...] = (), why: str = ""
    ) -> None:
        """Logs a refusal that a client can cause any number of times."""
        if refusals.tell(
            self.setup.doors, self.who(), answer, reason, phase, known=self.client.is_known, sender=sender,
            recipients=recipients, why=why,
        ):
            self.machine.spend(REFUSAL)

    def tell_declined(self) -> None:
        """Records what the machine has refused by itself."""
        declined = self.machine.declined
        for each in declined:
            path = str(each.reverse_path) if each.reverse_path is not None else ""
            written = refusals.path_of(each) if each.verb in ("MAIL", "RCPT") else ""
            if each.verb == "MAIL":
                path, written = path or written, ""
            self._tell(each.answer, "", each.verb, path, (written,) if written else ())
        declined.clear()

    def cut_off(self, answer: Reply, reason: str) -> None:
        """The session ends with this answer. In the middle of a message, the refusal of the message is recorded."""
        draft = self.intake.draft
        if draft is not None:
            phase = "DATA" if draft.id else "MAIL"
            self._tell(answer, reason, phase, str(draft.mail.reverse_path), draft.names)

    # ---- The session

    def connected(self, command: commands.Connected) -> None:
        self.intake.visit()
        self.intake.ask(self.setup.rules.connect, Phase.CONNECT, self._connect_judged)

    def _connect_judged(self, verdict: Verdict) -> None:
        if passes(verdict):
            self.intake.join()
            self.machine.reply(self.setup.greeting)
        else:  # after 554 the machine serves QUIT (RFC 5321 §3.1)
            self._refuse(verdict, "CONNECT", self.machine.reply)

    def hello(self, command: commands.Hello) -> None:
        client = self.client
        before = (client.hello, client.esmtp)
        client.greeted(command.name, esmtp=command.verb != "HELO")
        rule = self._session.current.rules.hello
        self.intake.ask(rule, Phase.HELLO, partial(self._hello_judged, command, before))

    def _hello_judged(self, command: commands.Hello, before: tuple[str, bool], verdict: Verdict) -> None:
        if passes(verdict):
            self.drop()  # RFC 5321 §4.1.4: as RSET
            if self.setup is self._session.current or self._take_settings():
                self.machine.reply(self.setup.hello)
        else:
            self._refuse(verdict, command.verb, self.machine.reply)
            self.client.greeted(before[0], esmtp=before[1])

    def start_tls(self, command: commands.StartTls) -> None:
        self.drop()
        self._session.start_tls()

    # ---- The transaction

    def mail(self, command: commands.Mail) -> None:
        session, client = self._session, self.client
        if session.leaving:
            self._tell(replies.LEAVING, session.leaving_for, "MAIL", str(command.reverse_path))
            self.machine.reply(replies.LEAVING)
            session.end(session.leaving_for)
            return
        if client.identity and not client.is_logged_in(self.setup):  # the account is gone since
            client.forget_login()
            self.machine.renew(self._offer(), self.setup.options.limits, "")
        self.intake.mail(command, self.machine.reply)

    def rcpt(self, command: commands.Rcpt) -> None:
        if self.outdated and self._has_lost_a_right(self._session.current):
            self.intake.refuse(_RIGHT_GONE, "RCPT", self.machine.reply, command.forward_path)
        else:
            self.intake.rcpt(command, self.machine.reply)

    def data(self, command: commands.Data) -> None:
        if self.outdated and self._has_lost_a_right(self._session.current):
            self.intake.refuse(_RIGHT_GONE, "DATA", self.machine.reply)
        else:
            self.intake.data(self.machine.reply)

    def content(self, command: commands.Content) -> None:
        intake = self.intake
        if not intake.content(command.octets, last=command.last):
            self._session.fall_behind()
        if command.last:
            draft = intake.draft
            if draft is None:  # it was ended for want of memory
                return
            answered = partial(self._content_answered, len(draft.recipients) if self.setup.lmtp else 1)
            if self.outdated and self._has_lost_a_right(self._session.current):
                intake.refuse_content(_RIGHT_GONE, answered)
            else:
                intake.end(answered)

    def chunk(self, command: commands.Chunk) -> None:
        self.machine.reply(replies.CHUNK_OK)

    def overflow(self, command: commands.Overflow) -> None:
        """The machine has refused content that was still arriving, and has answered."""
        draft = self.intake.draft
        if draft is not None:
            answer = command.answer
            self.note_refusal(answer, answer.text, "DATA", draft.mail.reverse_path, recipients=draft.names)
        self.drop()

    def reset(self, command: commands.Reset) -> None:
        self.drop()

    def _on_refusal(self, refusal: Refusal, answered: OnReply) -> None:
        """The intake refuses: the event, the reply, and the end of a session that was refused too often."""
        answer, verdict = refusal.answer, refusal.verdict
        if refusal.often:
            self._tell(answer, verdict.reason, refusal.phase, str(refusal.sender))
            answered(answer)
        elif refusal.recipients:  # content: all its answers come first
            self.note_refusal(answer, verdict.reason, refusal.phase, refusal.sender, recipients=refusal.recipients)
            answered(answer)
            last = None if self.client.is_known else self._last_refusal(answer)
            if verdict.disconnect:
                self._session.end(verdict.reason)
            elif last is not None and not self._session.ended:
                self._offended()
                self._session.refuse(last, "too many refusals")
        else:
            self._refuse(verdict, refusal.phase, answered, refusal.sender, refusal.recipient)

    def _content_answered(self, count: int, answer: Reply) -> None:
        """The outcome of the message. The client may be gone."""
        if answer.ok:
            self.client.messages += 1
            self.client.refusals = 0
        session = self._session
        if not session.ended:
            simple = count == 1 and answer.code != 421
            session.resume(partial(self.machine.reply, answer) if simple else partial(self._answer_all, count, answer))

    def _answer_all(self, count: int, answer: Reply) -> None:
        """The answer to the end of data; over LMTP one for each accepted recipient (RFC 2033 §4.2)."""
        reply = self.machine.reply
        for _ in range(count):
            reply(answer)
        if answer.code == 421:
            self._session.end("shutdown" if answer is replies.LEAVING else answer.text)

    # ---- AUTH (RFC 4954)

    def auth(self, command: commands.Auth) -> None:
        authenticator = self.setup.doors.knowing.authenticator
        exchange: Exchange | None = None
        if authenticator is not None:
            failed = partial(self._auth_failed, self.client)
            exchange = authenticator.exchange(command.mechanism, self._facts(), failed)
        if exchange is None:
            self._not_now("the mechanism was switched off since EHLO")
            return
        self._exchange, self.client.mechanism = exchange, command.mechanism
        self._session.hold()
        exchange.begin(command.initial, partial(self._auth_told, exchange))

    def auth_response(self, command: commands.AuthResponse) -> None:
        exchange = self._exchange
        assert exchange is not None
        self._session.hold()
        exchange.respond(command.response, partial(self._auth_told, exchange))

    def auth_cancelled(self, command: commands.AuthCancelled) -> None:
        self.end_auth()

    def end_auth(self) -> None:
        """Stops the exchange: nobody waits for its outcome any more."""
        exchange, self._exchange = self._exchange, None
        if exchange is not None:
            exchange.cancel()

    def _facts(self) -> SessionFacts:
        transport = self._session.transport
        name = transport.get_extra_info("sockname")
        local_address, local_port = (str(name[0]), int(name[1])) if isinstance(name, tuple) else ("", 0)
        client = self.client
        return SessionFacts(
            client.address, client.port, local_address, local_port, client.hello, self.setup.listener.name,
            "" if client.tls is None else client.tls.text,
            client.certificate, partial(channel_binding, transport, server_side=True), self.machine.offer.auth,
        )  # fmt: skip

    def _auth_told(self, exchange: Exchange, outcome: authenticate.Outcome) -> bool:
        """Returns False if the client hears nothing any more."""
        if exchange is not self._exchange or self._session.ended:
            return False
        self._session.resume(partial(self._auth_answer, outcome))
        return True

    def _auth_answer(self, outcome: authenticate.Outcome) -> None:
        if isinstance(outcome, authenticate.Challenged):
            self.machine.challenge(outcome.octets)
            return
        self._exchange = None
        match outcome:
            case authenticate.Right():
                self._authenticated(outcome.account.name, outcome.source)
            case authenticate.Busy():
                self._not_now(outcome.reason or "the backend that verifies passwords could not be asked", outcome.name)
            case authenticate.Improper():
                self._tell(outcome.reply, "", "AUTH")
                self.machine.reply(outcome.reply)
            case authenticate.Wrong():
                self._not_authenticated()
            case _:
                assert_never(outcome)

    def _not_now(self, why: str, account: str = "") -> None:
        """Answers that the account cannot be checked now, or that the result must not be shown."""
        self._tell(replies.AUTH_BUSY, account, "AUTH", why=why)
        self.machine.reply(replies.AUTH_BUSY)

    def _authenticated(self, identity: str, source: str) -> None:
        self.client.authenticated(identity, source)
        self.machine.authenticated(identity, replies.AUTHENTICATED, self._offer())
        doors = self.setup.doors
        doors.record((Authenticated(doors.now_us(), 0, self.who(), self.client.mechanism),))

    def _auth_failed(self, client: Client, name: str) -> None:
        """A log-in has failed. The client hears it later, if it is still there."""
        client.auth_failures += 1
        self.note_refusal(self._failure() if self._exchange is not None else None, name, "AUTH")

    def _failure(self) -> Reply:
        last = self.client.auth_failures >= self.setup.options.auth_failures_max
        return replies.TOO_MANY_FAILURES if last else replies.WRONG_CREDENTIALS

    def _not_authenticated(self) -> None:
        answer = self._failure()
        self.machine.reply(answer)
        if answer is replies.TOO_MANY_FAILURES:
            self._session.end("too many failed authentications")

    # ---- Clients that speak for others (XCLIENT, XFORWARD)

    def xclient(self, command: commands.Xclient) -> None:
        """Another client is here: everything that was known and counted of the one before is forgotten."""
        self.drop()
        setup, before = self.setup, self.client
        doors = setup.doors
        client = before.named(command, self.who(), since=doors.loop.time(), since_us=doors.now_us())
        another = command.address is not None
        verdict = ACCEPT
        if another:
            client.trusted = setup.trusts(client.address)
            verdict = self._session.move(before, client)
        if another:
            self.intake.ended()
        self.client = self.intake.client = client
        if another:
            self.intake.visit()
        if verdict is not ACCEPT:
            self._xclient_judged(another, verdict)
        else:
            self.intake.ask(setup.rules.connect, Phase.CONNECT, partial(self._xclient_judged, another))

    def _xclient_judged(self, another: bool, verdict: Verdict) -> None:
        passed = passes(verdict)
        answer = self.setup.greeting if passed else verdict.reply or replies.UNSURE
        told = self.machine.begin_anew(self.client.identity, answer, self._offer(), another=another)
        if told and not passed:
            self.note_refusal(answer, verdict.reason, "CONNECT")
        if answer.code == 421 or verdict.disconnect:
            self._session.end(verdict.reason)

    def xforward(self, command: commands.Xforward) -> None:
        self.client.forwards(forwarding.forwarded(command, self.client.forwarded))
        self.machine.reply(replies.FORWARDED)

    # ---- The rest

    def vrfy(self, command: commands.Vrfy) -> None:
        answer = verifying.answer(
            self.setup, command, trusted=self.client.trusted, identity=self.client.identity
        )
        if isinstance(answer, Reply):
            self.machine.reply(answer)
        else:
            self._session.wait_for(answer, self._vrfy_found)

    def _vrfy_found(self, verdict: Verdict) -> None:
        self.machine.reply(verdict.reply or replies.UNSURE)

    def help(self, command: commands.Help) -> None:
        self.machine.reply(reply(214, "2.0.0", self.setup.options.help))

    def etrn(self, command: commands.Etrn) -> None:
        start, wish = self.setup.doors.knowing.etrn, etrn.parse(command.argument)
        if start is None or isinstance(wish, Reply):
            self.machine.reply(wish if isinstance(wish, Reply) else replies.NOT_OFFERED)
            return
        self._session.hold()
        start(self.who(), wish, self._etrn_told)

    def _etrn_told(self, answer: Reply) -> None:
        """Answers whether the queue is being started. The client may be gone."""
        if not self._session.ended:
            self._session.resume(partial(self._etrn_answer, answer))

    def _etrn_answer(self, answer: Reply) -> None:
        if answer.code == 459:
            self._refuse(Verdict(Action.REJECT, answer, "ETRN not allowed"), "ETRN", self.machine.reply)
        else:
            self.machine.reply(answer)

    def quit(self, command: commands.Quit) -> None:
        self._session.end("quit")

    def too_many_errors(self, command: commands.TooManyErrors) -> None:
        if command.offence:
            self._offended()
        if command.answer is not None:
            self.cut_off(command.answer, "")
        self._session.end(command.text)


HANDLERS: Final[dict[type, Callable[[Dialog, Any], None]]] = {
    commands.Connected: Dialog.connected,
    commands.Hello: Dialog.hello,
    commands.Mail: Dialog.mail,
    commands.Rcpt: Dialog.rcpt,
    commands.Data: Dialog.data,
    commands.Content: Dialog.content,
    commands.Chunk: Dialog.chunk,
    commands.Overflow: Dialog.overflow,
    commands.Reset: Dialog.reset,
    commands.StartTls: Dialog.start_tls,
    commands.Auth: Dialog.auth,
    commands.AuthResponse: Dialog.auth_response,
    commands.AuthCancelled: Dialog.auth_cancelled,
    commands.Vrfy: Dialog.vrfy,
    commands.Help: Dialog.help,
    commands.Etrn: Dialog.etrn,
    commands.Xclient: Dialog.xclient,
    commands.Xforward: Dialog.xforward,
    commands.Quit: Dialog.quit,
    commands.TooManyErrors: Dialog.too_many_errors,
}
