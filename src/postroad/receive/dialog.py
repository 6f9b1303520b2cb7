"""What a session says to each command: the facts of its client, rules asked, the transaction built up.

What always holds: each command that the machine hands over is answered once, now or when what it waits for has come;
policy is asked of `check`'s rules and never decided here. New settings hold from the next command on that is not of a
transaction: one that is under way ends under the rules under which it began, but never by a right that its client has
lost meanwhile (451 then, and the client comes again).

Not here: octets, time, the connection (`receive.session`); what becomes of a complete message (`receive.acceptance`).
RFC 5321 §4.1, RFC 2033 §4.2, RFC 3207, RFC 4954, RFC 6409.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any, Final, Protocol, assert_never

from postroad.accounts import authenticate
from postroad.accounts.authenticate import Exchange, Facts
from postroad.mail import identifier
from postroad.mail.address import Address
from postroad.mail.envelope import Peer, Recipient
from postroad.mail.event import Authenticated, Noted, Refused
from postroad.mail.message import HEADER_MAX, header_is_whole
from postroad.mail.policy import ACCEPT, Action, Question, Rule, Verdict
from postroad.mail.reply import Reply, reply, said
from postroad.protocol import command as commands
from postroad.protocol import etrn
from postroad.protocol.offer import Offer
from postroad.protocol.server import ServerMachine
from postroad.protocol.state import State
from postroad.receive import acceptance, asked, forwarding, loops, refusals, repair, replies, verifying
from postroad.receive import transaction as transactions
from postroad.receive.budget import UNCOUNTED
from postroad.receive.client import Client, obstacle
from postroad.receive.doors import Place
from postroad.receive.options import EarlyTalker
from postroad.receive.setting import Mending, Setting
from postroad.receive.transaction import Transaction
from postroad.receive.turns import REFUSAL
from postroad.world.tls import NOBODY, Asking
from postroad.world.tls_facts import TlsFacts
from postroad.world.tls_session import channel_binding

UNKNOWN: Final = "5.1.1"  # the status code of a recipient that does not exist
_NO_MEMORY: Final = "no memory left for content (limits.content_memory_max)"
_BETWEEN: Final = (State.GREETED, State.READY)  # no transaction is under way, and no exchange
# Members of an Enum by plain names: on Python 3.11 each access through its class costs a look-up more.
_NOTHING: Final = Mending.NOTHING


class Connection(Protocol):
    """The connection of a dialog, as the dialog sees it. `receive.session` has it; its docstrings say more."""

    @property
    def current(self) -> Setting:
        """The settings of the listener that are in force now."""

    @property
    def transport(self) -> asyncio.Transport: ...

    @property
    def ended(self) -> bool:
        """Whether the client is gone, or has heard its last words."""

    @property
    def leaving(self) -> bool:
        """Whether the session ends with the next command that begins something."""

    @property
    def leaving_for(self) -> str:
        """Why sessions end, while they do."""

    def hold(self) -> None:
        """The answer to the last command comes later: no further command is read."""

    def resume(self, first: Callable[[], None]) -> None:
        """After `hold`: calls `first`, which answers, then reads on."""

    def wait_for(self, pending: Awaitable[Verdict], judged: Callable[[Verdict], None]) -> None:
        """Calls `judged` once with the verdict; commands wait until then."""

    def fall_behind(self) -> None:
        """The disk is behind: nothing is read from the client until `catch_up`."""

    def catch_up(self) -> None: ...

    def start_tls(self) -> None: ...

    def move(self, before: Client, client: Client) -> Verdict:
        """XCLIENT: the session is another client's now; whether that one may come in."""

    def refuse(self, answer: Reply, reason: str) -> None:
        """Says this unasked, and ends the session."""

    def end(self, reason: str) -> None:
        """Ends the session as soon as its client has all replies."""


class Dialog:
    """The server's side of the talk with one client. One writer: its session."""

    __slots__ = (
        "_exchange",
        "_may_speak_for",
        "_place",
        "_session",
        "_speaker",
        "_via_proxy",
        "client",
        "machine",
        "outdated",
        "setting",
        "transaction",
    )

    def __init__(self, session: Connection, setting: Setting, client: Client) -> None:
        self.setting = setting
        self.outdated = False  # others are in force, and a transaction that is under way ends under these
        self.client = client
        self._speaker, self._via_proxy = client.address, client.via  # the other end of the connection, whoever it names
        self._may_speak_for = setting.may_speak_for_others(client.address)
        self.machine = ServerMachine(setting.listener.protocol, self._offer(), setting.options.limits)
        self.transaction: Transaction | None = None
        self._session = session
        self._place: Place | None = None  # among those who are on their way with a message
        self._exchange: Exchange | None = None  # an AUTH under way

    # ---- Facts

    def who(self) -> Peer:
        """The client, as the facts are now."""
        return self.client.who(self.setting)

    def _offer(self) -> Offer:
        """What the session is offered as it is now."""
        client = self.client
        xclient, xforward = self._may_speak_for
        return self.setting.offer(
            tls=client.tls is not None, bindable=client.bindable, certificate=bool(client.certificate),
            xclient=xclient, xforward=xforward, trusted=client.trusted, known=client.is_known,
        )

    def drop(self) -> None:
        """Let go of the transaction, with what it has in the spool."""
        if self.client.forwarded is not None:
            self.client.forwards(None)
        transaction = self.transaction
        if transaction is not None:
            self.transaction = None
            self.leave()
            if transaction.counted:
                self._give_back(transaction)
            transaction.abort()

    def leave(self) -> None:
        """The client is not on its way with a message any more."""
        if self._place is not None:
            self._place.leave()
            self._place = None

    def secured(self, tls: TlsFacts, asking: Asking = NOBODY, *, from_the_start: bool) -> None:
        """TLS is on, and clients were asked so for a certificate. `from_the_start`: nothing was said before it; else a
        new session begins (RFC 3207 §4.2)."""
        self.drop()
        self.end_auth()
        setting, client = self.setting, self.client
        transport = self._session.transport
        client.secured(tls, asking, bindable=transport.get_extra_info("ssl_object") is not None)
        client.certificate = setting.certificate_names(transport)
        client.look(setting)
        offer = self._offer()
        if from_the_start:
            self.machine = ServerMachine(setting.listener.protocol, offer, setting.options.limits)
        else:
            self.machine.tls_started(offer)

    # ---- New settings

    def take_settings(self) -> None:
        """New settings are in force: they hold from here on, where no transaction is under way. A client that cannot
        go on under them is told to come again."""
        self.outdated = True
        if self.transaction is None and self.machine.state in _BETWEEN:
            self._take_settings()

    def _take_settings(self) -> bool:
        """Whether the session goes on."""
        before, setting = self.setting, self._session.current
        client = self.client
        self.setting, self.outdated = setting, False
        self._may_speak_for = setting.may_speak_for_others(self._speaker)
        xclient, xforward = self._may_speak_for
        why = obstacle(client, setting, before, proxy=self._via_proxy, xclient=xclient)
        if why:
            self.machine.refuse(replies.CHANGED)
            self._session.end(why)
            return False
        client.look(setting)
        client.changed()
        if not xforward:
            client.forwards(None)
        if client.identity and not client.is_logged_in(setting):
            client.forget_login()
        self.machine.renew(self._offer(), setting.options.limits, client.identity)
        return True

    def _stands(self, phase: str, recipient: Address | None = None) -> bool:
        """New settings are in force: whether the transaction under way still stands. It ends under the settings under
        which it began, but not by a right that the client has lost meanwhile. If not, the client has its answer."""
        if not self._has_lost_a_right(self._session.current):
            return True
        transaction = self.transaction
        sender = transaction.mail.reverse_path if transaction is not None else None
        self._refuse(Verdict(Action.DEFER, replies.RIGHT_GONE, "the settings have changed"), phase, sender, recipient)
        return False

    def _has_lost_a_right(self, current: Setting) -> bool:
        xclient, _ = current.may_speak_for_others(self._speaker)
        return self.client.has_lost_a_right(current) or bool(
            obstacle(self.client, current, self.setting, proxy=self._via_proxy, xclient=xclient)
        )

    # ---- Verdicts

    def _judge(self, rule: Rule | None, context: Question, judged: Callable[[Verdict], None]) -> None:
        verdict = ACCEPT if rule is None else rule(context)
        if isinstance(verdict, Verdict):
            judged(verdict)
        else:
            self._session.wait_for(verdict, judged)

    def _refuse(
        self, verdict: Verdict, phase: str, sender: Address | None = None, recipient: Address | None = None
    ) -> None:
        """The reply of a verdict that says no, and its event; the refusal that is one too many ends the session."""
        answer = verdict.reply or replies.UNSURE
        last = None if self.client.is_known else self._last_refusal(answer)
        self.note_refusal(last or answer, verdict.reason, phase, sender, recipient)
        self.machine.reply(last or answer)
        if last is not None:
            self._offended()
            unknown = last is replies.TOO_MANY_UNKNOWN
            self._session.end("too many unknown recipients" if unknown else "too many refusals")
        elif verdict.disconnect or answer.code == 421:
            self._session.end(verdict.reason)

    def _last_refusal(self, answer: Reply) -> Reply | None:
        """What to say instead to a stranger who has been refused too often: who tries names until one is there
        (directory harvest), or does not give up."""
        options, client = self.setting.options, self.client
        client.refusals += 1
        client.unknown += answer.status == UNKNOWN
        if options.unknown_recipients_max and client.unknown > options.unknown_recipients_max:
            return replies.TOO_MANY_UNKNOWN
        return replies.TOO_MANY_REFUSALS if client.refusals > options.refusals_max else None

    def _offended(self) -> None:
        """The session ends for what the client did: it counts towards a ban."""
        if not self.client.is_known:
            self.setting.doors.offended(self.client.address)

    def spoke_early(self, said: bytes) -> bool:
        """The client spoke before the greeting. Whether it may go on; where not, that is the caller's to say."""
        if self.setting.listener.early_talker is EarlyTalker.REFUSE:
            self._offended()
            return False
        doors = self.setting.doors
        text = f"[{self.client.address}] spoke before the greeting: {said!r}"
        doors.record((Noted(doors.now_us(), 0, "warning", text),))
        return True

    def note_refusal(
        self, answer: Reply | None, reason: str, phase: str, sender: Address | None = None,
        recipient: Address | None = None, recipients: tuple[str, ...] = (), why: str = "",
    ) -> None:
        """The event of a refusal. `answer`: what the client is told of it, None where it is told nothing."""
        doors = self.setting.doors
        self.machine.spend(REFUSAL)
        refused = Refused(
            doors.now_us(),
            0,
            self.who(),
            phase,
            "" if answer is None else said(answer),
            str(sender) if sender is not None else "",
            str(recipient) if recipient is not None else "",
            reason,
            recipients,
            why,
        )
        doors.record((refused,))

    def _tell(
        self, answer: Reply, reason: str, phase: str, sender: str = "", recipients: tuple[str, ...] = (), why: str = ""
    ) -> None:
        """The event of a refusal of which a client can bring about any number."""
        if refusals.tell(
            self.setting.doors, self.who(), answer, reason, phase, known=self.client.is_known, sender=sender,
            recipients=recipients, why=why,
        ):
            self.machine.spend(REFUSAL)

    def tell_declined(self) -> None:
        """What the machine has refused by itself."""
        declined = self.machine.declined
        for each in declined:
            path = str(each.reverse_path) if each.reverse_path is not None else ""
            written = refusals.path_of(each) if each.verb in ("MAIL", "RCPT") else ""
            if each.verb == "MAIL":
                path, written = path or written, ""
            self._tell(each.answer, "", each.verb, path, (written,) if written else ())
        declined.clear()

    def cut_off(self, answer: Reply, reason: str) -> None:
        """The session is ended with this answer; if that is in the midst of a message, its refusal is told."""
        transaction = self.transaction
        if transaction is not None:
            phase = "DATA" if transaction.id else "MAIL"
            self._tell(answer, reason, phase, str(transaction.mail.reverse_path), transaction.names)

    # ---- The session

    def connected(self, command: commands.Connected) -> None:
        rule = self.setting.rules.connect
        if rule is None:
            self._connect_judged(ACCEPT)
        else:
            self._judge(rule, Question(self.who(), self.client.trusted), self._connect_judged)

    def _connect_judged(self, verdict: Verdict) -> None:
        if _passes(verdict):
            self._place = self.setting.doors.join()
            self.machine.reply(self.setting.greeting)
        else:  # after 554 the machine serves QUIT (RFC 5321 §3.1)
            self._refuse(verdict, "CONNECT")

    def hello(self, command: commands.Hello) -> None:
        client = self.client
        before = (client.hello, client.esmtp)
        client.greeted(command.name, esmtp=command.verb != "HELO")
        rule = self._session.current.rules.hello
        if rule is None:
            self._hello_judged(command, before, ACCEPT)
        else:
            self._judge(rule, Question(self.who(), self.client.trusted), partial(self._hello_judged, command, before))

    def _hello_judged(self, command: commands.Hello, before: tuple[str, bool], verdict: Verdict) -> None:
        if _passes(verdict):
            self.drop()  # RFC 5321 §4.1.4: as RSET
            if self.setting is self._session.current or self._take_settings():
                self.machine.reply(self.setting.hello)
        else:
            self._refuse(verdict, command.verb)
            self.client.greeted(before[0], esmtp=before[1])

    def start_tls(self, command: commands.StartTls) -> None:
        self.drop()
        self._session.start_tls()

    # ---- The transaction

    def mail(self, command: commands.Mail) -> None:
        session, setting, client = self._session, self.setting, self.client
        if session.leaving:
            self._tell(replies.LEAVING, session.leaving_for, "MAIL", str(command.reverse_path))
            self.machine.reply(replies.LEAVING)
            session.end(session.leaving_for)
            return
        if setting.doors.budget.spent:  # RFC 5321 §4.3.2: 452 to MAIL
            self._tell(replies.NO_MEMORY, _NO_MEMORY, "MAIL", str(command.reverse_path))
            self.machine.reply(replies.NO_MEMORY)
            return
        if client.identity and not client.is_logged_in(setting):  # the account is gone since
            client.forget_login()
            self.machine.renew(self._offer(), setting.options.limits, "")
        rule = setting.rules.mail
        if rule is None:
            self._mail_judged(command, ACCEPT)
            return
        peer = client.peer or client.who(setting)
        verdict = rule(Question(peer, client.trusted, command.reverse_path, command.size))
        if isinstance(verdict, Verdict):
            self._mail_judged(command, verdict)
        else:
            session.wait_for(verdict, partial(self._mail_judged, command))

    def _mail_judged(self, command: commands.Mail, verdict: Verdict) -> None:
        if not _passes(verdict):
            self._refuse(verdict, "MAIL", command.reverse_path)
            return
        setting = self.setting
        doors = setting.doors
        answer = replies.SENDER_OK
        if command.parameters:
            granted = asked.at_mail(command, setting.options.extensions, doors.now_us(), known=self.client.is_known)
            if isinstance(granted, Reply):
                self._refuse(Verdict(Action.REJECT, granted, granted.text), "MAIL", command.reverse_path)
                return
            command, answer = granted
        client = self.client
        peer = client.describe(setting, smtputf8=True) if command.smtputf8 else (client.peer or client.who(setting))
        transaction = Transaction(command, peer, doors.now_us(), doors.loop.time() + setting.options.message_s)
        self.transaction = transaction
        if self._place is None:
            self._place = doors.join()
        if verdict is not ACCEPT:
            _keep(transaction, verdict)
        self.machine.reply(answer)

    def rcpt(self, command: commands.Rcpt) -> None:
        transaction = self.transaction
        assert transaction is not None
        address = command.forward_path
        setting = self.setting
        if not address.domain:  # RFC 5321 §4.1.1.3: the bare <Postmaster>
            address = Address(address.local_part, setting.options.default_domain)
        if self.outdated and not self._stands("RCPT", address):
            return
        recipient = Recipient(address, command.notify, command.orcpt, None, command.parameters)
        rule = setting.rules.rcpt
        if rule is None:
            self._rcpt_judged(recipient, ACCEPT)
            return
        mail = transaction.mail
        client = self.client
        context = Question(
            client.peer or client.who(setting), client.trusted, mail.reverse_path, mail.size, address,
            len(transaction.recipients), parameters=command.parameters,
        )
        verdict = rule(context)
        if isinstance(verdict, Verdict):
            self._rcpt_judged(recipient, verdict)
        else:
            self._session.wait_for(verdict, partial(self._rcpt_judged, recipient))

    def _rcpt_judged(self, recipient: Recipient, verdict: Verdict) -> None:
        transaction = self.transaction
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
        self.machine.reply(replies.RECIPIENT_OK)

    def data(self, command: commands.Data) -> None:
        assert self.transaction is not None
        if self.outdated and not self._stands("DATA"):
            return
        self.transaction.id = self.setting.doors.new_id()
        self.machine.reply(replies.GO_AHEAD)

    def content(self, command: commands.Content) -> None:
        transaction = self.transaction
        assert transaction is not None
        if not transaction.id:  # BDAT
            transaction.id = self.setting.doors.new_id()
        if transaction.incoming is None:
            transaction.add(command.octets)
            if transaction.size > UNCOUNTED:
                self._weigh(transaction, last=command.last)
                if self.transaction is None:
                    return
        elif not transactions.stream(transaction, command.octets):
            self._session.fall_behind()
        if command.last:
            self._end_of_data(transaction)

    def chunk(self, command: commands.Chunk) -> None:
        self.machine.reply(replies.CHUNK_OK)

    def overflow(self, command: commands.Overflow) -> None:
        """The machine has refused the content on its way, and answered."""
        transaction = self.transaction
        if transaction is not None:
            self.note_refusal(
                command.answer, command.answer.text, "DATA", transaction.mail.reverse_path, recipients=transaction.names
            )
        self.drop()

    def reset(self, command: commands.Reset) -> None:
        self.drop()

    # ---- The end of data

    def _mend(self, transaction: Transaction) -> Callable[[bytes], bytes] | None:
        """How the message is mended; None where it is left as it is."""
        setting = self.setting
        mending = setting.mending
        if mending is _NOTHING or (mending is Mending.DATED and not self.client.is_known):
            return None
        message_id = f"<{identifier.text(transaction.id)}@{setting.options.hostname}>"
        if mending is Mending.DATED:
            return partial(repair.dated, message_id=message_id, submitted_us=transaction.started_us)
        identity = transaction.peer.identity
        return partial(
            repair.repaired,
            reverse_path=transaction.mail.reverse_path,
            owns=partial(setting.doors.owns, identity) if identity else None,
            message_id=message_id,
            submitted_us=transaction.started_us,
        )

    def _weigh(self, transaction: Transaction, *, last: bool) -> None:
        """Content that counts: into a file with it where it is large, or where memory is short."""
        budget = self.setting.doors.budget
        budget.held += transaction.size - transaction.counted
        transaction.counted = transaction.size
        if transaction.size > self.setting.options.memory_content_max:
            if last or _has_header(transaction):
                self._spill(transaction)
        elif budget.spent and not last:
            if _has_header(transaction):
                self._spill(transaction)
            else:
                self._session.refuse(replies.NO_MEMORY_LAST, _NO_MEMORY)
                self.drop()

    def _give_back(self, transaction: Transaction) -> None:
        self.setting.doors.budget.held -= transaction.counted
        transaction.counted = 0

    def _spill(self, transaction: Transaction) -> None:
        """Too much for memory: the content goes into a file from here on."""
        setting = self.setting
        incoming = setting.doors.incoming(transaction.id)
        incoming.resumed = self._session.catch_up
        now_us = setting.doors.now_us()
        read = self._read_header if setting.reads_header else None
        mend = self._mend(transaction)
        lead = partial(loops.lead, setting, now_us)
        if not transactions.spill(transaction, incoming, setting.options.hostname, now_us, mend, read, lead):
            self._session.fall_behind()
        self._give_back(transaction)

    def _read_header(self, transaction: Transaction, octets: bytes) -> bytes:
        client = self.client
        known = client.trusted or client.identity != ""
        return asked.read_header(transaction, octets, self.setting.options.extensions, known=known)

    def _end_of_data(self, transaction: Transaction) -> None:
        setting = self.setting
        if self.outdated and self._has_lost_a_right(self._session.current):
            verdict = Verdict(Action.DEFER, replies.RIGHT_GONE, "the settings have changed")
            self._message_judged(transaction, None, verdict)
            return
        octets: bytes | None = None
        if transaction.incoming is None:
            now_us = setting.doors.now_us()
            read = self._read_header if setting.reads_header else None
            octets = transactions.finished(
                transaction, setting.options.hostname, now_us, self._mend(transaction), read,
                partial(loops.lead, setting, now_us),
            )  # fmt: skip
        expansion = transaction.expansion
        if expansion is not None and (expansion.excess or expansion.stopped):
            refused = loops.refusal(expansion)
            if refused is not None:
                self._message_judged(transaction, octets, refused)
                return
        rule = setting.rules.message
        if rule is None:
            self._message_judged(transaction, octets, ACCEPT)
            return
        context = Question(
            transaction.peer,
            self.client.trusted,
            transaction.mail.reverse_path,
            transaction.size,
            None,
            len(transaction.recipients),
            transaction.sent_head,
        )
        self._judge(rule, context, partial(self._message_judged, transaction, octets))

    def _message_judged(self, transaction: Transaction, octets: bytes | None, verdict: Verdict) -> None:
        if verdict is not ACCEPT:
            if not _passes(verdict):
                self._content_refused(transaction, verdict)
                return
            _keep(transaction, verdict)
        # From here on the message is not the session's any more: it is kept even where the client goes away.
        self.transaction = None
        if self.client.forwarded is not None:
            self.client.forwards(None)
        self.leave()
        if transaction.counted:
            self._give_back(transaction)
        self._session.hold()
        acceptance.accept(self.setting, transaction, octets, partial(self._told, transaction))

    def _content_refused(self, transaction: Transaction, verdict: Verdict) -> None:
        """The answer to content that a rule refused; the refusal that is one too many ends the session."""
        answer = verdict.reply or replies.UNSURE
        self.note_refusal(
            answer, verdict.reason, "DATA", transaction.mail.reverse_path, recipients=transaction.names
        )
        self.drop()
        self._answer_all(transaction, answer)
        last = None if self.client.is_known else self._last_refusal(answer)
        if verdict.disconnect:
            self._session.end(verdict.reason)
        elif last is not None and not self._session.ended:
            self._offended()
            self._session.refuse(last, "too many refusals")

    def _told(self, transaction: Transaction, answer: Reply) -> None:
        """What became of the message. The client may be gone."""
        if answer.ok:
            self.client.messages += 1
            self.client.refusals = 0
        if not self._session.ended:
            self._session.resume(partial(self._answer_all, transaction, answer))

    def _answer_all(self, transaction: Transaction, answer: Reply) -> None:
        """The answer to the end of data; over LMTP one for each accepted recipient (RFC 2033 §4.2)."""
        for _ in transaction.recipients if self.setting.lmtp else (None,):
            self.machine.reply(answer)
        if answer.code == 421:
            self._session.end("shutdown" if answer is replies.LEAVING else answer.text)

    # ---- AUTH (RFC 4954)

    def auth(self, command: commands.Auth) -> None:
        authenticator = self.setting.doors.authenticator
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
        """Whoever looks into an exchange need not go on."""
        exchange, self._exchange = self._exchange, None
        if exchange is not None:
            exchange.cancel()

    def _facts(self) -> Facts:
        transport = self._session.transport
        name = transport.get_extra_info("sockname")
        local_address, local_port = (str(name[0]), int(name[1])) if isinstance(name, tuple) else ("", 0)
        client = self.client
        return Facts(
            client.address, client.port, local_address, local_port, client.hello, self.setting.listener.name,
            "" if client.tls is None else client.tls.text,
            client.certificate, partial(channel_binding, transport, server_side=True), self.machine.offer.auth,
        )  # fmt: skip

    def _auth_told(self, exchange: Exchange, outcome: authenticate.Outcome) -> bool:
        """False: the client hears nothing any more."""
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
                self._not_now(outcome.reason or "who verifies could not be asked", outcome.name)
            case authenticate.Improper():
                self._tell(outcome.reply, "", "AUTH")
                self.machine.reply(outcome.reply)
            case authenticate.Wrong():
                self._not_authenticated()
            case _:
                assert_never(outcome)

    def _not_now(self, why: str, account: str = "") -> None:
        """Who the client is cannot be found out now, or must not be told."""
        self._tell(replies.AUTH_BUSY, account, "AUTH", why=why)
        self.machine.reply(replies.AUTH_BUSY)

    def _authenticated(self, identity: str, source: str) -> None:
        self.client.authenticated(identity, source)
        self.machine.authenticated(identity, replies.AUTHENTICATED, self._offer())
        doors = self.setting.doors
        doors.log((Authenticated(doors.now_us(), 0, self.who(), self.client.mechanism),))

    def _auth_failed(self, client: Client, name: str) -> None:
        """A failure was found; it is told later, where the client is still there."""
        client.auth_failures += 1
        self.note_refusal(self._failure() if self._exchange is not None else None, name, "AUTH")

    def _failure(self) -> Reply:
        last = self.client.auth_failures >= self.setting.options.auth_failures_max
        return replies.TOO_MANY_FAILURES if last else replies.WRONG_CREDENTIALS

    def _not_authenticated(self) -> None:
        answer = self._failure()
        self.machine.reply(answer)
        if answer is replies.TOO_MANY_FAILURES:
            self._session.end("too many failed authentications")

    # ---- Clients that speak for others (XCLIENT, XFORWARD)

    def xclient(self, command: commands.Xclient) -> None:
        """Another client is here, with nothing of what was known and counted of the one before."""
        self.drop()
        setting, before = self.setting, self.client
        doors = setting.doors
        client = before.named(command, self.who(), since=doors.loop.time(), since_us=doors.now_us())
        another = command.address is not None
        verdict = ACCEPT
        if another:
            client.trusted = setting.trusts(client.address)
            verdict = self._session.move(before, client)
        self.client = client
        if verdict is not ACCEPT:
            self._xclient_judged(another, verdict)
        else:
            context = Question(self.who(), client.trusted)
            self._judge(setting.rules.connect, context, partial(self._xclient_judged, another))

    def _xclient_judged(self, another: bool, verdict: Verdict) -> None:
        passes = _passes(verdict)
        answer = self.setting.greeting if passes else verdict.reply or replies.UNSURE
        told = self.machine.begin_anew(self.client.identity, answer, self._offer(), another=another)
        if told and not passes:
            self.note_refusal(answer, verdict.reason, "CONNECT")
        if answer.code == 421 or verdict.disconnect:
            self._session.end(verdict.reason)

    def xforward(self, command: commands.Xforward) -> None:
        self.client.forwards(forwarding.forwarded(command, self.client.forwarded))
        self.machine.reply(replies.FORWARDED)

    # ---- The rest

    def vrfy(self, command: commands.Vrfy) -> None:
        answer = verifying.answer(
            self.setting, command, trusted=self.client.trusted, identity=self.client.identity
        )
        if isinstance(answer, Reply):
            self.machine.reply(answer)
        else:
            self._session.wait_for(answer, self._vrfy_found)

    def _vrfy_found(self, verdict: Verdict) -> None:
        self.machine.reply(verdict.reply or replies.UNSURE)

    def help(self, command: commands.Help) -> None:
        self.machine.reply(reply(214, "2.0.0", self.setting.options.help))

    def etrn(self, command: commands.Etrn) -> None:
        start, wish = self.setting.doors.etrn, etrn.parse(command.argument)
        if start is None or isinstance(wish, Reply):
            self.machine.reply(wish if isinstance(wish, Reply) else replies.NOT_OFFERED)
            return
        self._session.hold()
        start(self.who(), wish, self._etrn_told)

    def _etrn_told(self, answer: Reply) -> None:
        """The queue is being started, or is not. The client may be gone."""
        if not self._session.ended:
            self._session.resume(partial(self._etrn_answer, answer))

    def _etrn_answer(self, answer: Reply) -> None:
        if answer.code == 459:
            self._refuse(Verdict(Action.REJECT, answer, "ETRN not allowed"), "ETRN")
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


def _has_header(transaction: Transaction) -> bool:
    """Whether the header section is in memory as a whole, as it must be where content goes to a file."""
    if transaction.size > HEADER_MAX:  # all that may belong to it
        return True
    transaction.pieces[:] = [b"".join(transaction.pieces)]
    return header_is_whole(transaction.pieces[0])


def _passes(verdict: Verdict) -> bool:
    """Whether the way goes on. HOLD and DISCARD are acceptance to the client."""
    return verdict.action is not Action.REJECT and verdict.action is not Action.DEFER


def _keep(transaction: Transaction, verdict: Verdict) -> None:
    """What a verdict on MAIL or on the content means for the whole message."""
    if verdict.action is Action.HOLD:
        transaction.held = transaction.held or verdict.reason or "held by a rule"
    elif verdict.action is Action.DISCARD:
        transaction.dropped = transaction.dropped or verdict.reason or "discarded by a rule"
