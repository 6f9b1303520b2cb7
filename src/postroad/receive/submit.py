"""Mail without a session: `postroad submit` hands a message to a worker over a Unix socket, and an intake takes it.

The dialog is one JSON object in a line each way: the client sends a `Submit` (sender, recipients, size), gets a
`Submitted` with `go` if they are accepted, sends exactly `size` octets of content, and gets a last `Submitted` after
the commit. The socket belongs to the node's user (mode 0600). Whoever may open it may send as anybody, like a client in
a trusted network of a submission listener. The operator's rules for recipients and content hold; missing fields are
added.

What always holds: a message is taken whole or not at all; a client that goes away before its last octet leaves nothing,
one that goes later has its message accepted. If one recipient is refused, nothing is sent to the others. At most
`AT_ONCE_MAX` submissions go on at a time, each within the time that a message may take (`message_s`), in pieces that
the disk can follow.

How it fails: `Submitted.code` is the SMTP code of the refusal; 451 if the node stops or is busy.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path
from typing import Final, cast

import msgspec

from postroad.mail import verp
from postroad.mail.address import Address
from postroad.mail.event import Noted
from postroad.mail.message import only_crlf
from postroad.mail.policy import Phase, Verdict
from postroad.mail.reply import Reply, reply, said
from postroad.protocol.command import Mail, Rcpt
from postroad.protocol.grammar import parse_mailbox
from postroad.receive import replies
from postroad.receive.client import Client
from postroad.receive.intake import Intake, OnReply, Refusal, passes
from postroad.receive.letting_go import let_go
from postroad.receive.setup import ListenerSetup
from postroad.receive.verdicts import verdict_of

AT_ONCE_MAX: Final = 20  # submissions of one worker at a time
REQUEST_MAX: Final = 1_048_576  # octets of the first line
LISTENER: Final = "submit"  # the name in log and history

_BUSY: Final = reply(451, "4.3.2", f"{AT_ONCE_MAX} submissions are under way; try again")
_NOT_READ: Final = reply(501, "5.5.4", "The request cannot be read")
_BARE: Final = reply(554, "5.6.0", "The message has a CR or an LF that is not a line end")
_TOO_SLOW: Final = reply(451, "4.4.2", "The message did not come in time")


def socket_path(state_dir: Path, number: int) -> Path:
    """Where a worker listens for submissions."""
    return state_dir / "run" / f"submit-{number}"


class Submit(msgspec.Struct, frozen=True):
    """What the client wants. `sender`: "" is the null reverse-path. `size`: octets of content that follow. `verp`: the
    delimiters of a sender of its own for each recipient, "" for none."""

    sender: str
    recipients: tuple[str, ...]
    size: int
    user: str = ""
    verp: str = ""


class Submitted(msgspec.Struct, frozen=True, omit_defaults=True):
    """`go`: send the content. Else the end: `code` and `text` of the reply, and whom it concerns."""

    go: bool = False
    code: int = 0
    text: str = ""
    recipient: str = ""


class Submissions:
    """Those of a worker."""

    def __init__(self, setup: ListenerSetup) -> None:
        self.setup = setup
        self._open: set[Submission] = set()
        self._gone = asyncio.Event()  # one of them, since somebody waits for it
        self.stopping = False

    def take(self, setup: ListenerSetup) -> None:
        """Settings: submissions from here on go by them."""
        self.setup = setup

    def connect(self) -> Submission:
        """The protocol of a new connection."""
        return Submission(self)

    def joined(self, submission: Submission) -> bool:
        """Whether there is room for one more."""
        if self.stopping or len(self._open) >= AT_ONCE_MAX:
            return False
        self._open.add(submission)
        return True

    def gone(self, submission: Submission) -> None:
        self._open.discard(submission)
        self._gone.set()

    async def stop(self, limit_s: float) -> None:
        """The node stops: what is not complete has to come again. What is complete has its answer first."""
        self.stopping = True
        for submission in tuple(self._open):
            submission.leave()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(limit_s):
                while self._open:
                    self._gone.clear()
                    await self._gone.wait()


class Submission(asyncio.Protocol):
    """One connection, and what its intake waits for."""

    def __init__(self, submissions: Submissions) -> None:
        self._submissions = submissions
        self._transport: asyncio.Transport | None = None
        self._intake: Intake | None = None
        self._line = bytearray()
        self._recipients: list[Address] = []  # that are still to be asked about
        self._size = 0
        self._wanted: tuple[tuple[str, str], ...] = ()  # parameters of MAIL
        self._asking = self._at_once = False  # a recipient is asked about; it was answered within the call
        self._missing = -1  # octets of content that are still to come; -1: not yet
        self._ends_cr = False
        self._handed_over = False  # the content is complete
        self._task: asyncio.Task[None] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._setup = submissions.setup

    # ---- The connection

    def connection_made(self, given: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, given)
        if not self._submissions.joined(self):
            self._say_last(_BUSY)
            return
        setup = self._setup
        loop = setup.doors.loop
        client = Client("", 0, None, trusted=True, since=loop.time(), since_us=setup.doors.now_us())
        self._intake = Intake(setup, client, self, self._on_refusal)
        self._timer = loop.call_later(setup.options.message_s, self._say_last, _TOO_SLOW)

    def data_received(self, data: bytes) -> None:
        if self._transport is None or self._handed_over:
            return
        if self._missing >= 0:
            self._take(data)
            return
        self._line += data
        if b"\n" in data or len(self._line) > REQUEST_MAX:
            self._begin(bytes(self._line))

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport = None
        if self._timer is not None:
            self._timer.cancel()
        if self._task is not None:
            let_go(self._task)
        if self._intake is not None:
            self._intake.ended()
        self._submissions.gone(self)

    def leave(self) -> None:
        """The node stops. A message that is on its way to the disk has its answer first."""
        if not self._handed_over:
            self._say_last(replies.LEAVING)

    # ---- The talk

    def _begin(self, line: bytes) -> None:
        try:
            request = msgspec.json.decode(line, type=Submit)
        except msgspec.DecodeError:
            self._say_last(_NOT_READ)
            return
        sender = parse_mailbox(request.sender) if request.sender else None
        parsed = [parse_mailbox(each) for each in request.recipients]
        recipients = [each for each in parsed if each is not None]
        limits = self._setup.options.limits
        if (request.sender and sender is None) or len(recipients) != len(parsed) or not parsed or request.size < 0 or (
            request.verp and verp.fault(request.verp)
        ):
            self._say_last(_NOT_READ)
        elif len(parsed) > limits.recipients_max:
            self._say_last(reply(452, "4.5.3", f"More than {limits.recipients_max} recipients"))
        elif request.size > limits.size_max:
            self._say_last(reply(552, "5.3.4", f"The message has more than {limits.size_max} octets"))
        else:
            assert self._intake is not None
            self._recipients, self._size = recipients, request.size
            self._wanted = ((verp.XVERP, request.verp),) if request.verp else ()
            self._intake.client.greeted(request.user, esmtp=False)
            self._intake.visit()
            self._intake.ask(self._setup.rules.connect, Phase.CONNECT, partial(self._admitted, sender))

    def _admitted(self, sender: Address | None, verdict: Verdict) -> None:
        assert self._intake is not None
        if passes(verdict):
            utf8 = not all(str(each).isascii() for each in (sender or "", *self._recipients))
            self._intake.mail(Mail(sender, self._size, smtputf8=utf8, parameters=self._wanted), self._on_mail)
        else:
            self._say_last(verdict.reply or replies.UNSURE)

    def _on_mail(self, answer: Reply) -> None:
        if answer.ok:
            self._ask_recipients()
        else:
            self._say_last(answer)

    def _ask_recipients(self) -> None:
        """Go on with those who are still to be asked about. A loop, because answers most often come at once."""
        intake = self._intake
        assert intake is not None
        while self._recipients:
            self._asking, self._at_once = True, False
            intake.rcpt(Rcpt(self._recipients.pop(0)), self._on_rcpt)
            self._asking = False
            if not self._at_once:
                return
        intake.data(self._on_data)

    def _on_rcpt(self, answer: Reply) -> None:
        if not answer.ok:
            self._say_last(answer)
        elif self._asking:
            self._at_once = True
        else:
            self._ask_recipients()

    def _on_data(self, answer: Reply) -> None:
        if answer.code != 354:
            self._say_last(answer)
            return
        self._missing = self._size
        self._say(Submitted(go=True))
        if not self._missing:
            self._take(b"")

    def _take(self, data: bytes) -> None:
        intake = self._intake
        assert intake is not None and self._transport is not None
        data = data[: self._missing]
        self._missing -= len(data)
        last = not self._missing
        if self._ends_cr:
            data = b"\r" + data
        self._ends_cr = not last and data.endswith(b"\r")
        if self._ends_cr:
            data = data[:-1]
        if not only_crlf(data):
            self._say_last(_BARE)
            return
        if not intake.content(data, last=last):
            self._transport.pause_reading()
        if last and intake.draft is not None:
            self._handed_over = True
            if self._timer is not None:
                self._timer.cancel()  # from here on the time is ours, and the message may be accepted already
            intake.end(self._answered)

    def _answered(self, answer: Reply) -> None:
        """The end of data was answered."""
        if self._transport is not None:
            self._say_last(answer)

    def _on_refusal(self, refusal: Refusal, answered: OnReply) -> None:
        intake = self._intake
        assert intake is not None
        answer = refusal.answer
        intake.note_refusal(
            answer, refusal.verdict.reason, refusal.phase, refusal.sender, refusal.recipient, refusal.recipients
        )
        if refusal.recipient is not None:
            self._say_last(answer, str(refusal.recipient))
        else:
            answered(answer)

    def _say(self, told: Submitted) -> None:
        if self._transport is not None:
            self._transport.write(msgspec.json.encode(told) + b"\n")

    def _say_last(self, answer: Reply, recipient: str = "") -> None:
        self._handed_over = True  # nothing more is read
        self._say(Submitted(code=answer.code, text=said(answer), recipient=recipient))
        if self._transport is not None:
            self._transport.close()

    # ---- What the intake waits for (`intake.Waits`)

    def hold(self) -> None:
        """The client has nothing more to say."""

    def wait_for(self, pending: Awaitable[Verdict], judged: Callable[[Verdict], None]) -> None:
        self._task = self._setup.doors.loop.create_task(self._waited(pending, judged))

    async def _waited(self, pending: Awaitable[Verdict], judged: Callable[[Verdict], None]) -> None:
        verdict = await verdict_of(pending, self._tell_broken)
        self._task = None
        if self._transport is not None:
            judged(verdict)

    def _tell_broken(self, text: str) -> None:
        doors = self._setup.doors
        doors.log((Noted(doors.now_us(), 0, "error", text),))

    def catch_up(self) -> None:
        if self._transport is not None and not self._transport.is_closing():
            self._transport.resume_reading()

    def refuse(self, answer: Reply, reason: str) -> None:
        self._say_last(answer)
