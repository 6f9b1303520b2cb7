"""One transaction and the rules about it, whoever brings it: a dialog over a connection, or `receive.submit`.

Who calls what:

1. `visit` once, when a session begins (and again when XCLIENT names another client); `ended` once, at its end.
2. `ask` for the phases CONNECT and HELLO, one question at a time.
3. `mail`, then `rcpt` for each recipient, `data`, `content` for each piece, `end`; each only after the last call was
   answered. After a refused `mail`, `mail` may be called again; the other commands need a `draft`.
4. `reset` at any time: nothing of the transaction is left. After `end` was answered there is no transaction either.

What always holds: each `answered` is called exactly once, on the loop, at once or after a wait; never after `reset` or
`ended`. Only the `answered` of `end` is called even if the client is gone, because the node has the message by then. If
an answer is a refusal, `refused` gets it with what was refused, and calls `answered`. During a wait `Waits.hold` or
`Waits.wait_for` has been called. Policy is asked of `check`'s rules and of inspections, never decided here.

Not here: commands and replies (`receive.dialog`), what becomes of a complete message (`receive.acceptance`).
RFC 5321 §3.3, §4.1.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import partial
from typing import Final, Protocol

import msgspec

from postroad.mail import identifier
from postroad.mail.address import Address
from postroad.mail.effects import fault
from postroad.mail.envelope import Recipient
from postroad.mail.event import Noted, Refused
from postroad.mail.message import HEADER_MAX, header_is_whole
from postroad.mail.policy import ACCEPT, Action, Phase, Question, Rule, SetReversePath, Verdict
from postroad.mail.reply import Reply, said
from postroad.protocol.command import Mail, Rcpt
from postroad.receive import acceptance, changing, inspecting, loops, repair, replies, rewriting, wishes_in
from postroad.receive import draft as drafts
from postroad.receive.budget import NO_MEMORY, UNCOUNTED
from postroad.receive.client import Client
from postroad.receive.doors import ArrivingClient
from postroad.receive.draft import Changes, Draft
from postroad.receive.inspecting import Inspections
from postroad.receive.setup import ListenerSetup, Mending

_FAULTY: Final = Verdict(Action.DEFER, replies.UNSURE, "a rule asks for something that cannot be done")
_MEMORY_SPENT: Final = Verdict(Action.DEFER, replies.NO_MEMORY, NO_MEMORY)
# Members of an Enum by plain names: on Python 3.11 each access through its class costs a look-up more.
_NOTHING: Final = Mending.NOTHING
_HOLD: Final = Action.HOLD
_DISCARD: Final = Action.DISCARD
_MAIL: Final = Phase.MAIL
_RCPT: Final = Phase.RCPT
_MESSAGE: Final = Phase.MESSAGE

OnReply = Callable[[Reply], None]


class Waits(Protocol):
    """How an intake makes who brings the mail wait."""

    def hold(self) -> None:
        """The answer comes later: bring nothing more until it is there."""

    def wait_for(self, pending: Awaitable[Verdict], judged: Callable[[Verdict], None]) -> None:
        """Calls `judged` once with the verdict, or never if the client is gone by then. Bring nothing until then."""

    def catch_up(self) -> None:
        """After `content` gave False: content can be taken again."""

    def refuse(self, answer: Reply, reason: str) -> None:
        """In the midst of content: the session ends with this answer. The transaction is still there."""


class Refusal(msgspec.Struct, frozen=True):
    """What was refused. `phase`: the verb for the history. `often`: a client can bring about any number of these, so
    that not each is told."""

    verdict: Verdict
    phase: str
    sender: Address | None = None
    recipient: Address | None = None
    recipients: tuple[str, ...] = ()
    often: bool = False

    @property
    def answer(self) -> Reply:
        return self.verdict.reply or replies.UNSURE


OnRefusal = Callable[[Refusal, OnReply], None]


class Intake:
    """The transactions of one client. One writer: who brings them.

    `draft`: the transaction under way, from an accepted MAIL to the end of data. `setup`: the settings under which it
    goes on; who brings the mail replaces them between two transactions only.
    """

    __slots__ = ("_inspections", "_place", "_refused", "_waits", "client", "draft", "setup")

    def __init__(self, setup: ListenerSetup, client: Client, waits: Waits, refused: OnRefusal) -> None:
        self.setup = setup
        self.client = client
        self.draft: Draft | None = None
        self._inspections: Inspections | None = None
        self._waits = waits
        self._refused = refused
        self._place: ArrivingClient | None = None  # among those who are on their way with a message

    # ---- The session

    def visit(self) -> None:
        """A session has begun."""
        if self.setup.inspectors:
            self._inspections = inspecting.visiting(self.setup.inspectors, self.client.who(self.setup), self._log)

    def ended(self) -> None:
        """The session is over."""
        self.reset()
        self.leave()
        inspections, self._inspections = self._inspections, None
        if inspections is not None:
            inspections.ended()

    def _log(self, text: str) -> None:
        doors = self.setup.doors
        doors.log((Noted(doors.now_us(), self.draft.id if self.draft is not None else 0, "error", text),))


    def join(self) -> None:
        """The client is on its way with a message."""
        if self._place is None:
            self._place = self.setup.doors.storing.join()

    def leave(self) -> None:
        """The client is not on its way with a message any more."""
        if self._place is not None:
            self._place.leave()
            self._place = None

    def reset(self) -> None:
        """Let go of the transaction, with what it has in the spool."""
        if self.client.forwarded is not None:
            self.client.forwards(None)
        draft = self.draft
        if draft is not None:
            self.draft = None
            self.leave()
            if draft.counted:
                self._give_back(draft)
            draft.abort()
        if self._inspections is not None:
            self._inspections.aborted()

    # ---- Rules

    def ask(self, rule: Rule | None, phase: Phase, judged: Callable[[Verdict], None]) -> None:
        """Ask about the client. `mail`, `rcpt` and `end` have the same lines in them: each call saved is a hundredth
        of what receiving a message costs (13 of 1,300 interpreter steps)."""
        if self._inspections is not None:
            rule = self._inspections.beside(rule, phase)
        verdict = ACCEPT if rule is None else rule(self._question(phase))
        if isinstance(verdict, Verdict):
            judged(verdict)
        else:
            self._waits.wait_for(verdict, judged)

    def _question(self, phase: Phase) -> Question:
        client = self.client
        return Question(client.who(self.setup), client.trusted, phase=phase)

    def refuse(self, verdict: Verdict, phase: str, answered: OnReply, recipient: Address | None = None) -> None:
        """The transaction under way stands no longer: the answer to its next command."""
        draft = self.draft
        sender = draft.mail.reverse_path if draft is not None else None
        self._refused(Refusal(verdict, phase, sender, recipient), answered)

    def note_refusal(
        self, answer: Reply | None, reason: str, phase: str, sender: Address | None = None,
        recipient: Address | None = None, recipients: tuple[str, ...] = (), why: str = "",
    ) -> None:
        """The event of a refusal. `answer`: what the client is told of it, None if it is told nothing."""
        doors = self.setup.doors
        refused = Refused(
            doors.now_us(),
            0,
            self.client.who(self.setup),
            phase,
            "" if answer is None else said(answer),
            str(sender) if sender is not None else "",
            str(recipient) if recipient is not None else "",
            reason,
            recipients,
            why,
        )
        doors.record((refused,))

    # ---- MAIL, RCPT, DATA

    def mail(self, mail: Mail, answered: OnReply) -> None:
        setup, client = self.setup, self.client
        budget = setup.doors.limiting.budget
        if budget.held > budget.most:  # it is spent; RFC 5321 §4.3.2: 452 to MAIL
            self._refused(Refusal(_MEMORY_SPENT, "MAIL", mail.reverse_path, often=True), answered)
            return
        rule = setup.rules.mail
        if self._inspections is not None:
            rule = self._inspections.beside(rule, _MAIL)
        if rule is None:
            self._mail_judged(mail, answered, ACCEPT)
            return
        peer = client.peer or client.who(setup)
        verdict = rule(Question(peer, client.trusted, mail.reverse_path, mail.size, phase=_MAIL))
        if isinstance(verdict, Verdict):
            self._mail_judged(mail, answered, verdict)
        else:
            self._waits.wait_for(verdict, partial(self._mail_judged, mail, answered))

    def _mail_judged(self, mail: Mail, answered: OnReply, verdict: Verdict) -> None:
        if verdict is not ACCEPT and not passes(verdict):
            self._mail_refused(Refusal(verdict, "MAIL", mail.reverse_path), answered)
            return
        setup, client = self.setup, self.client
        doors = setup.doors
        answer = replies.SENDER_OK
        if mail.parameters:
            granted = wishes_in.at_mail(mail, setup.options.extensions, doors.now_us(), known=client.is_known)
            if isinstance(granted, Reply):
                verdict = Verdict(Action.REJECT, granted, granted.text)
                self._mail_refused(Refusal(verdict, "MAIL", mail.reverse_path), answered)
                return
            mail, answer = granted
        peer = client.describe(setup, smtputf8=True) if mail.smtputf8 else (client.peer or client.who(setup))
        draft = Draft(mail, peer, doors.now_us(), doors.loop.time() + setup.options.message_s)
        self.draft = draft
        if self._place is None:
            self._place = doors.storing.join()
        if verdict is not ACCEPT:
            _keep(draft, verdict)
        answered(answer)

    def _mail_refused(self, refusal: Refusal, answered: OnReply) -> None:
        if self._inspections is not None:
            self._inspections.aborted()
        self._refused(refusal, answered)

    def rcpt(self, rcpt: Rcpt, answered: OnReply) -> None:
        draft, setup, client = self.draft, self.setup, self.client
        assert draft is not None
        address = rcpt.forward_path
        if not address.domain:  # RFC 5321 §4.1.1.3: the bare <Postmaster>
            address = Address(address.local_part, setup.options.default_domain)
        recipient = Recipient(address, rcpt.notify, rcpt.orcpt, None, rcpt.parameters)
        rule = setup.rules.rcpt
        if self._inspections is not None:
            rule = self._inspections.beside(rule, _RCPT)
        if rule is None:
            self._rcpt_judged(recipient, answered, ACCEPT)
            return
        mail = draft.mail
        question = Question(
            client.peer or client.who(setup), client.trusted, mail.reverse_path, mail.size, address,
            len(draft.recipients), b"", rcpt.parameters, _RCPT,
        )  # fmt: skip
        verdict = rule(question)
        if isinstance(verdict, Verdict):
            self._rcpt_judged(recipient, answered, verdict)
        else:
            self._waits.wait_for(verdict, partial(self._rcpt_judged, recipient, answered))

    def _rcpt_judged(self, recipient: Recipient, answered: OnReply, verdict: Verdict) -> None:
        draft = self.draft
        assert draft is not None
        if verdict is not ACCEPT:
            if not passes(verdict):
                refusal = Refusal(verdict, "RCPT", draft.mail.reverse_path, recipient.address)
                self._refused(refusal, answered)
                return
            if verdict.action is _DISCARD:
                draft.discarded[len(draft.recipients)] = verdict.reason
                verdict = msgspec.structs.replace(verdict, action=Action.ACCEPT)
            _keep(draft, verdict)
        draft.recipients.append(recipient)
        answered(replies.RECIPIENT_OK)

    def data(self, answered: OnReply) -> None:
        """DATA: whether content may come."""
        assert self.draft is not None
        self.draft.id = self.setup.doors.storing.new_id()
        if self._inspections is None:
            answered(replies.GO_AHEAD)
        else:
            self._ask_data(partial(self._data_judged, answered))

    def _ask_data(self, judged: Callable[[Verdict], None]) -> None:
        draft, client = self.draft, self.client
        assert draft is not None and self._inspections is not None
        rule = self._inspections.beside(None, Phase.DATA)
        verdict = rule(
            Question(
                draft.peer, client.trusted, draft.mail.reverse_path, draft.mail.size, None, len(draft.recipients),
                phase=Phase.DATA, id=draft.id,
            )
        )  # fmt: skip
        if isinstance(verdict, Verdict):
            judged(verdict)
        else:
            self._waits.wait_for(verdict, judged)

    def _data_judged(self, answered: OnReply, verdict: Verdict) -> None:
        draft = self.draft
        assert draft is not None
        if passes(verdict):
            _keep(draft, verdict)
            answered(replies.GO_AHEAD)
        else:
            draft.id = 0
            self.refuse(verdict, "DATA", answered)

    # ---- Content

    def content(self, octets: bytes, *, last: bool) -> bool:
        """One piece. It holds no CR and no LF outside a CRLF, unless MAIL said BINARYMIME: who brings it has looked,
        and delivery does not look again. False: the disk is behind; bring nothing more until `Waits.catch_up`. There
        is no transaction any more if `Waits.refuse` was called."""
        draft = self.draft
        assert draft is not None
        if not draft.id:  # BDAT
            draft.id = self.setup.doors.storing.new_id()
        if self._inspections is not None:
            self._inspections.content(octets)
        if draft.incoming is not None:
            return drafts.stream(draft, octets)
        draft.pieces.append(octets)
        draft.size = size = draft.size + len(octets)
        return True if size <= UNCOUNTED else self._weigh(draft, last=last)

    def _weigh(self, draft: Draft, *, last: bool) -> bool:
        """Content that counts: into a file with it if it is large, or if memory is short."""
        budget = self.setup.doors.limiting.budget
        budget.held += draft.size - draft.counted
        draft.counted = draft.size
        if draft.size > self.setup.options.memory_content_max:
            if last or _has_header(draft):
                return self._spill(draft)
        elif budget.spent and not last:
            if _has_header(draft):
                return self._spill(draft)
            self._waits.refuse(replies.NO_MEMORY_LAST, NO_MEMORY)
            self.reset()
        return True

    def _give_back(self, draft: Draft) -> None:
        self.setup.doors.limiting.budget.held -= draft.counted
        draft.counted = 0

    def _spill(self, draft: Draft) -> bool:
        """Too much for memory: the content goes into a file from here on."""
        setup = self.setup
        incoming = setup.doors.storing.incoming(draft.id)
        incoming.resumed = self._waits.catch_up
        read = self._read_header if setup.reads_header else None
        more = drafts.spill(draft, incoming, self._mend(draft), read)
        self._give_back(draft)
        return more

    def _mend(self, draft: Draft) -> drafts.Mend | None:
        """How the message is mended; None if it is left as it is."""
        setup = self.setup
        mending = setup.mending
        if mending is _NOTHING or (mending is Mending.DATED and not self.client.is_known):
            return None
        message_id = f"<{identifier.text(draft.id)}@{setup.options.hostname}>"
        if mending is Mending.DATED:
            return partial(repair.dated, message_id=message_id, submitted_us=draft.started_us)
        identity = draft.peer.identity
        return partial(
            repair.repaired,
            reverse_path=draft.mail.reverse_path,
            owns=partial(setup.doors.knowing.owns, identity) if identity else None,
            message_id=message_id,
            submitted_us=draft.started_us,
        )

    def _read_header(self, draft: Draft, octets: bytes) -> bytes:
        client = self.client
        known = client.trusted or client.identity != ""
        octets = wishes_in.read_header(draft, octets, self.setup.options.extensions, known=known)
        completing = self.setup.completing
        if completing is not None:
            octets = completing(draft, octets)
        rules = self.setup.fields
        return octets if rules is None else drafts.with_fields(draft, octets, rules)

    # ---- The end of data

    def end(self, answered: OnReply) -> None:
        """The content is complete: rules, then the spool. A reply that is no refusal comes after the commit."""
        inspections = self._inspections
        if inspections is not None and not inspections.asked_data:  # BDAT
            self._ask_data(partial(self._chunks_judged, answered))
            return
        draft, setup = self.draft, self.setup
        assert draft is not None
        octets: bytes | None = None
        if draft.incoming is None:
            mend = None if setup.mending is _NOTHING else self._mend(draft)
            octets = drafts.finished(draft, mend, self._read_header if setup.reads_header else None)
        rule = setup.rules.message
        if self._inspections is not None:
            rule = self._inspections.beside(rule, _MESSAGE)
        if rule is None:
            self._message_judged(draft, octets, answered, ACCEPT)
            return
        question = Question(
            draft.peer, self.client.trusted, draft.mail.reverse_path, draft.size, None, len(draft.recipients),
            draft.sent_head, (), _MESSAGE, draft.id,
        )  # fmt: skip
        verdict = rule(question)
        if isinstance(verdict, Verdict):
            self._message_judged(draft, octets, answered, verdict)
        else:
            self._waits.wait_for(verdict, partial(self._message_judged, draft, octets, answered))

    def _chunks_judged(self, answered: OnReply, verdict: Verdict) -> None:
        draft = self.draft
        assert draft is not None
        if passes(verdict):
            _keep(draft, verdict)
            self.end(answered)  # it has been asked about now
        else:
            self.refuse_content(verdict, answered)

    def _message_judged(self, draft: Draft, octets: bytes | None, answered: OnReply, verdict: Verdict) -> None:
        if verdict is not ACCEPT:
            if not passes(verdict):
                self.refuse_content(verdict, answered)
                return
            _keep(draft, verdict)
        setup = self.setup
        now_us = setup.doors.now_us()
        changes = draft.changes
        if changes is not None:
            wrong = fault(changes.effects, setup.options.limits.size_max)
            if wrong:
                self._log(f"a rule asks for something that cannot be done: {wrong}")
                self.refuse_content(_FAULTY, answered)
                return
            octets = changing.change(draft, octets, now_us)
        if setup.doors.knowing.rewrite is not None:
            self._rewrite(draft, octets, answered)
        else:
            self._lead(draft, octets, answered, now_us)

    def _rewrite(self, draft: Draft, octets: bytes | None, answered: OnReply) -> None:
        pending = rewriting.ask(self.setup, draft, octets)
        if pending is None:
            self._rewritten(draft, octets, answered)
        else:
            self._waits.wait_for(_when(pending), lambda verdict: self._rewritten(draft, octets, answered))

    def _rewritten(self, draft: Draft, octets: bytes | None, answered: OnReply) -> None:
        """What rewriting makes of the message is known."""
        found = draft.rewriting
        if found is None:  # it broke, which `_when` has told
            self.refuse_content(_FAULTY, answered)
            return
        refused = rewriting.refusal(found)
        if refused is not None:
            self.refuse_content(refused, answered)
            return
        octets = rewriting.apply(draft, octets, found)
        self._lead(draft, octets, answered, self.setup.doors.now_us())

    def _lead(self, draft: Draft, octets: bytes | None, answered: OnReply, now_us: int) -> None:
        pending = loops.lead(self.setup, now_us, draft)
        if pending is None:
            self._led(draft, octets, answered)
        else:
            self._waits.wait_for(_when(pending), lambda verdict: self._led(draft, octets, answered))

    def _led(self, draft: Draft, octets: bytes | None, answered: OnReply) -> None:
        """The message was led through the aliases of its recipients."""
        expansion = draft.expansion
        if expansion is None:  # it broke, which `_when` has told: nothing is known of where the message goes
            self.refuse_content(_FAULTY, answered)
            return
        if expansion.excess or expansion.stopped or expansion.not_now:
            refused = loops.refusal(expansion)
            if refused is not None:
                self.refuse_content(refused, answered)
                return
        # From here on the message is not the client's any more: it is kept even if the client goes away.
        self.draft = None
        if self._inspections is not None:
            self._inspections.handed_over()
        if self.client.forwarded is not None:
            self.client.forwards(None)
        if self._place is not None:
            self._place.leave()
            self._place = None
        if draft.counted:
            self._give_back(draft)
        self._waits.hold()
        acceptance.accept(self.setup, draft, octets, answered)

    def refuse_content(self, verdict: Verdict, answered: OnReply) -> None:
        """The answer to the end of data is no: nothing of the transaction is left."""
        draft = self.draft
        assert draft is not None
        refusal = Refusal(verdict, "DATA", draft.mail.reverse_path, recipients=draft.names)
        self.reset()
        self._refused(refusal, answered)


async def _when(pending: Awaitable[None]) -> Verdict:
    await pending
    return ACCEPT


def _has_header(draft: Draft) -> bool:
    """Whether the header section is in memory as a whole, as it must be where content goes to a file."""
    if draft.size > HEADER_MAX:  # all that may belong to it
        return True
    draft.pieces[:] = [b"".join(draft.pieces)]
    return header_is_whole(draft.pieces[0])


def passes(verdict: Verdict) -> bool:
    """Whether the way goes on. HOLD and DISCARD are acceptance to the client."""
    return verdict.action is not Action.REJECT and verdict.action is not Action.DEFER


def _keep(draft: Draft, verdict: Verdict) -> None:
    """What a verdict means for the whole message."""
    if verdict.effects:
        changes = draft.changes
        if changes is None:
            changes = draft.changes = Changes()
        changes.effects += verdict.effects
        for effect in verdict.effects:
            if isinstance(effect, SetReversePath):
                draft.change_sender(effect.address)
    if verdict.action is _HOLD:
        draft.held = draft.held or verdict.reason or "held by a rule"
    elif verdict.action is _DISCARD:
        draft.dropped = draft.dropped or verdict.reason or "discarded by a rule"
