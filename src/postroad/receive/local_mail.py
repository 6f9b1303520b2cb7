"""One message of a user of this machine, on its way through an intake: from a socket or from the drop folder.

Who calls what: `content` for each piece, the last one with `last`; `on_end` is called once, with the reply that stands
for the message as a whole and the recipient that it concerns ("" for all); `gone` at any time if nobody waits any more.
`content` returns False if enough has come for now; `on_more` is called when more may come.

What always holds: after `on_end` nothing of the message is left here. The rules are asked only after the whole header
section has come, because it is read first. If a recipient is refused for now, the message is taken for nobody, and
comes again. Recipients who are refused for good get nothing, and the sender a report, in the commit that accepts the
message for the others. If all are refused, or the message as a whole, the answer is the refusal, unless `reports` is
wanted: then the sender gets a report, too, and the answer is 250.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import partial
from typing import TYPE_CHECKING, Final

from postroad.mail import identifier, trace, verp
from postroad.mail.address import Address
from postroad.mail.attempt import Attempt, Outcome, Reach
from postroad.mail.envelope import Envelope, Recipient
from postroad.mail.event import Noted
from postroad.mail.message import HEADER_MAX, MESSAGE_ID_MAX, first, header_end, header_is_whole, only_crlf
from postroad.mail.policy import ACCEPT, Action, Phase, Verdict
from postroad.mail.reply import Reply, reply, said
from postroad.mail.report import DsnAction, RecipientReport
from postroad.protocol.command import Mail, Rcpt
from postroad.receive import draft as drafts
from postroad.receive import local_head, local_users, replies
from postroad.receive.client import Client
from postroad.receive.doors import Doors
from postroad.receive.intake import Intake, OnReply, Refusal, passes
from postroad.receive.letting_go import let_go
from postroad.receive.local_request import LocalRequest
from postroad.receive.local_users import LocalUser
from postroad.receive.options import LocalOptions, LocalSender
from postroad.receive.setup import ListenerSetup
from postroad.receive.verdicts import verdict_of
from postroad.store.values import Failure, Stored

if TYPE_CHECKING:
    import asyncio

OnEnd = Callable[[Reply, str], None]

SAMPLE_MAX: Final = 1_048_576  # octets of a message that are kept for a report

_BARE: Final = reply(554, "5.6.0", "The message has a CR or an LF that is not a line end")
_NOBODY: Final = reply(554, "5.1.3", "No recipient addresses found in message header")
_NO_SENDER: Final = reply(553, "5.1.7", "The sender is not a mail address")
_NO_ADDRESS: Final = reply(501, "5.1.3", "A recipient is not a mail address")


class LocalMail:
    """See the module."""

    def __init__(
        self, setup: ListenerSetup, options: LocalOptions, user: LocalUser, request: LocalRequest, on_end: OnEnd,
        on_more: Callable[[], None], *, reports: bool = False, expired: bool = False,
        spare_id: Callable[[], int] | None = None,
    ) -> None:
        """`reports`: what is refused is told by mail. `expired`: what is refused for now is refused for good.
        `spare_id`: gives the id of a message that is not kept, if only its report is."""
        self._spare_id = spare_id or setup.doors.storing.new_id
        self._setup = setup
        self._options = options
        self._user = user
        self._request = request
        self._on_end: OnEnd | None = on_end
        self._on_more = on_more
        doors = setup.doors
        client = Client("", 0, None, trusted=True, since=doors.loop.time(), since_us=doors.now_us())
        client.greeted(user.label, esmtp=False)
        self._intake = Intake(setup, client, self, self._on_refusal)
        self._head = bytearray()  # what has come before the transaction takes content
        self._is_complete = False  # the last piece has come
        self._has_begun = self._is_open = False  # the header section was read; the transaction takes content
        self._ends_cr = self._hears_more = False
        self._named: tuple[Address, ...] = ()  # all recipients, once they are known
        self._recipients: list[Address] = []  # who are still to be asked about
        self._refused: list[tuple[Address, Reply]] = []
        self._reverse_path: Address | None = None
        self._reports, self._expired = reports, expired
        self._sample = bytearray()  # the first octets, for a report
        self._fate: Reply | None = None  # the message is refused; its end is awaited, for the report
        self._asking = self._at_once = False
        self._task: asyncio.Task[None] | None = None

    # ---- Who brings it

    def content(self, octets: bytes, *, last: bool) -> bool:
        if self._on_end is None:
            return True
        self._is_complete = last
        if self._reports and len(self._sample) < SAMPLE_MAX:
            self._sample += octets[: SAMPLE_MAX - len(self._sample)]
        if self._fate is not None:
            self._refuse_all(self._fate)
            return True
        if self._is_open:
            return self._take(octets)
        self._head += octets
        if self._has_begun:
            self._hears_more = True
            return False
        if last or len(self._head) > HEADER_MAX or header_is_whole(bytes(self._head)):
            self._begin()
        if self._on_end is None or not self._has_begun or self._fate is not None:
            return True
        if not self._is_open:
            self._hears_more = True
        return not self._hears_more

    def gone(self) -> None:
        """Nobody waits for the end any more. What was handed to the spool goes on."""
        self._on_end = None
        self._close()

    def leave(self) -> None:
        """The node stops: what is not complete has to come again."""
        if not self._is_complete:
            self._end(replies.LEAVING)

    def _close(self) -> None:
        if self._task is not None:
            let_go(self._task)
            self._task = None
        self._intake.ended()

    def _answered(self, answer: Reply) -> None:
        """The answer to a command, or to the end of the content."""
        if answer.ok or (answer.transient and not self._is_final(answer)):
            self._end(answer)
        else:
            self._refuse_all(answer)

    def _is_final(self, answer: Reply) -> bool:
        """Whether a refusal for now counts for good. The node's own trouble (4.3) is not the message's fault."""
        return self._expired and not answer.status.startswith("4.3.")

    def _refuse_all(self, answer: Reply, recipient: str = "") -> None:
        """Nothing of the message is taken."""
        if not (self._reports and self._named):
            self._end(answer, recipient)
        elif self._is_complete:
            self._tell_sender(answer)
        else:
            self._fate = answer
            if self._intake.draft is not None:
                self._intake.reset()
            self._go_on()

    def _end(self, answer: Reply, recipient: str = "") -> None:
        on_end, self._on_end = self._on_end, None
        if on_end is not None:
            self._close()
            on_end(answer, recipient)

    # ---- The header section and the envelope

    def _begin(self) -> None:
        self._has_begun = True
        options, user = self._options, self._user
        own = local_users.own_mailbox(user, options)
        sender = self._sender(own)
        if isinstance(sender, Reply):
            self._refuse(sender, None)
            return
        refused = local_users.refusal(user, sender, options, self._setup.doors.knowing.may_send)
        if refused is None or isinstance(refused, Reply):
            self._open(own, sender, refused)
        else:
            self.wait_for(_verdict(refused), lambda verdict: self._open(own, sender, verdict.reply))

    def _open(self, own: Address, sender: Address | None, refused: Reply | None) -> None:
        """It is known whether the user may use this sender."""
        options, request, user = self._options, self._request, self._user
        self._reverse_path = sender if refused is None else own
        head = local_head.prepared(
            bytes(self._head),
            extract=request.extract,
            domain=options.domain,
            author=str(sender or own),
            name=request.name or user.full_name,
            date=trace.date(self._setup.doors.now_us() // 1_000_000),
            message_id=f"<{identifier.text(self._spare_id())}.resent@{self._setup.options.hostname}>",
        )
        self._head = bytearray(head.octets)
        named = [
            each for written in request.recipients for each in local_users.mailboxes(written, options.domain)
        ]  # fmt: skip
        recipients = list(dict.fromkeys((*named, *head.recipients)))
        limit = self._setup.options.limits.recipients_max
        if not recipients:
            self._end(_NOBODY)
        elif None in recipients:
            self._refuse(_NO_ADDRESS, sender)
        elif len(recipients) > limit:
            self._refuse(reply(552, "5.5.3", f"More than {limit} recipients"), sender)
        else:
            self._named = tuple([each for each in recipients if each is not None])
            size_max = self._setup.options.limits.size_max
            if refused is None and request.size > size_max:
                refused = reply(552, "5.3.4", f"The message has more than {size_max} octets")
            if refused is not None:
                self._refuse(refused, sender)
                return
            self._recipients = list(self._named)
            self._intake.visit()
            self._intake.ask(self._setup.rules.connect, Phase.CONNECT, partial(self._admitted, sender))

    def _sender(self, own: Address) -> Address | Reply | None:
        written = self._request.sender
        if written is None or (self._options.sender is LocalSender.FORCED and not self._user.unlimited):
            return own
        if not written:
            return None
        first_named, *others = local_users.mailboxes(written, self._options.domain)
        return _NO_SENDER if first_named is None or others else first_named

    def _refuse(self, answer: Reply, sender: Address | None) -> None:
        """A refusal that no rule has made."""
        self._intake.note_refusal(answer, answer.text, "MAIL", sender)
        self._refuse_all(answer)

    def _admitted(self, sender: Address | None, verdict: Verdict) -> None:
        if not passes(verdict):
            self._answered(verdict.reply or replies.UNSURE)
            return
        request = self._request
        utf8 = not all(str(each).isascii() for each in (sender or "", *self._recipients))
        wanted = ((verp.XVERP, request.verp),) if request.verp else ()
        mail = Mail(sender, request.size, request.body, utf8, request.ret, request.envid, parameters=wanted)
        self._intake.mail(mail, self._on_mail)

    def _on_mail(self, answer: Reply) -> None:
        if answer.ok:
            self._ask_recipients()
        else:
            self._answered(answer)

    def _ask_recipients(self) -> None:
        """Go on with those who are still to be asked about. A loop, because answers most often come at once."""
        while self._recipients:
            self._asking, self._at_once = True, False
            rcpt = Rcpt(self._recipients.pop(0), self._request.notify)
            self._intake.rcpt(rcpt, self._on_rcpt)
            self._asking = False
            if not self._at_once:
                return
        draft = self._intake.draft
        assert draft is not None
        if draft.recipients:
            draft.refused = tuple(_report(address, answer) for address, answer in self._refused)
            self._intake.data(self._on_data)
        else:
            address, answer = self._refused[0]
            self._refuse_all(answer, str(address))

    def _on_rcpt(self, answer: Reply) -> None:
        if self._on_end is None:
            return
        if self._asking:
            self._at_once = True
        else:
            self._ask_recipients()

    def _on_data(self, answer: Reply) -> None:
        if answer.code != 354:
            self._answered(answer)
            return
        self._is_open = True
        octets, self._head = bytes(self._head), bytearray()
        if self._take(octets):
            self._go_on()

    # ---- Content

    def _take(self, octets: bytes) -> bool:
        last = self._is_complete
        if self._ends_cr:
            octets = b"\r" + octets
        self._ends_cr = not last and octets.endswith(b"\r")
        if self._ends_cr:
            octets = octets[:-1]
        if not only_crlf(octets):
            self._refuse_all(_BARE)
            return True
        more = self._intake.content(octets, last=last)
        if last and self._intake.draft is not None:
            self._intake.end(self._answered)
        elif not more:
            self._hears_more = True
        return more

    def _go_on(self) -> None:
        if self._hears_more and self._on_end is not None:
            self._hears_more = False
            self._on_more()

    # ---- What the intake tells

    def _on_refusal(self, refusal: Refusal, answered: OnReply) -> None:
        answer = refusal.answer
        self._intake.note_refusal(
            answer, refusal.verdict.reason, refusal.phase, refusal.sender, refusal.recipient, refusal.recipients
        )
        if refusal.recipient is not None and (answer.permanent or self._is_final(answer)):
            self._refused.append((refusal.recipient, answer))
        elif refusal.recipient is not None:
            self._end(answer, str(refusal.recipient))
            return
        answered(answer)

    def hold(self) -> None:
        """There is nothing more to bring."""

    def wait_for(self, pending: Awaitable[Verdict], judged: Callable[[Verdict], None]) -> None:
        self._task = self._setup.doors.loop.create_task(self._waited(pending, judged))

    async def _waited(self, pending: Awaitable[Verdict], judged: Callable[[Verdict], None]) -> None:
        verdict = await verdict_of(pending, self._tell_broken)
        if self._task is not None and self._on_end is not None:
            self._task = None
            judged(verdict)

    def _tell_broken(self, text: str) -> None:
        doors = self._setup.doors
        doors.log((Noted(doors.now_us(), 0, "error", text),))

    def catch_up(self) -> None:
        self._go_on()

    def refuse(self, answer: Reply, reason: str) -> None:
        self._answered(answer)

    # ---- The report

    def _tell_sender(self, answer: Reply) -> None:
        """All recipients failed: the sender gets a report, in place of the message in the spool."""
        setup = self._setup
        doors = setup.doors
        now_us, peer = doors.now_us(), self._intake.client.who(setup)
        refused = dict(self._refused)
        recipients = tuple(Recipient(each, self._request.notify) for each in self._named)
        content = self._returned()
        envelope = Envelope(
            self._spare_id(), self._reverse_path, recipients, len(content), now_us, peer, self._request.body,
            ret=self._request.ret, envid=self._request.envid,
            message_id=(first(content[: header_end(content)], b"message-id") or "")[:MESSAGE_ID_MAX],
        )
        reports = [_report(each, refused.get(each, answer)) for each in self._named]
        made, events = doors.storing.report(reports, Stored(envelope, content), lambda shard: doors.storing.new_id())
        events = (*drafts.refused(reports, drafts.accepted(envelope, now_us)), *events)
        self._intake.ended()
        told = reply(250, "2.0.0", "The message was refused; its sender gets a report")
        if not made:
            doors.record(events)
            self._end(told)
            return
        on_end, self._on_end = self._on_end, None
        doors.storing.accept(made[0], events, partial(self._told, doors, made[0], told, on_end))

    def _told(
        self, doors: Doors, report: Stored, told: Reply, on_end: OnEnd | None, failure: Failure | None
    ) -> None:
        if failure is None:
            doors.storing.queued(report)
        if on_end is not None:
            on_end(told if failure is None else replies.UNSURE, "")

    def _returned(self) -> bytes:
        """What the report returns of the message: all of it, or the header section if it is large."""
        octets = bytes(self._sample)
        if not only_crlf(octets):
            octets = octets.replace(b"\r\n", b"\n").replace(b"\r", b" ").replace(b"\n", b"\r\n")
        if self._request.size > SAMPLE_MAX:
            octets = octets[: header_end(octets)] + b"\r\n"
        return octets


async def _verdict(refused: Awaitable[Reply | None]) -> Verdict:
    answer = await refused
    return ACCEPT if answer is None else Verdict(Action.REJECT, answer)


def _report(address: Address, answer: Reply) -> RecipientReport:
    attempt = Attempt(
        Outcome.FAILED, Reach.RECIPIENT, answer.status or "5.0.0", f"refused: {said(answer)}", transport="sendmail"
    )
    return RecipientReport(Recipient(address), DsnAction.FAILED, attempt)
