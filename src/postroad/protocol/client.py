"""The client machine: one SMTP (RFC 5321) or LMTP (RFC 2033) session as its client sees it, sans-I/O.

Octets of the remote go in by `feed`, events come out by `next_event` until None, what is to be written by
`take_output`. The host starts what it wants (`begin`, `start_tls`, `authenticate`, `quit`) only while `step` is IDLE.

What always holds:
- Replies are matched to commands by counting, never by their text (RFC 2920 §3.1). A reply to no command ends the
  session, and so do octets that come while the session is idle; 421 ends it at any time.
- Nothing of one message touches the next: all that a transaction knows is forgotten when it ends, and when it begins.
  On a connection that has carried a message before, a refusal of MAIL or DATA may be a late reply to something else. So
  a refusal of MAIL counts only if the next RCPT is answered as out of order (503), and a refusal of DATA only if RSET
  is answered after it. If the session ends before such a sign, or before 354, no reply of the transaction counts. BDAT
  gives no such sign. So EHLO is said before it again, because only the answer to EHLO names what is offered. After this
  the session is as a new one.
- A refusal that comes while the session is idle refuses the session only before its first message. Later it may be a
  late reply, and it refuses nothing.
- If PIPELINING is offered, MAIL, all RCPT and DATA are one group; else each waits for its reply.
- A recipient whose RCPT was answered keeps this answer, whatever happens to the session later, except as said above.
- What the remote said is in the result: as its reply if the reply decides, else quoted in its text. A refused EHLO
  is what the remote said even if HELO then finds the connection closed.
- If a remote refuses BDAT as a command, no more octets of the message are sent to it, because nobody knows how it reads
  those of the chunk. The session is over, and the message may go by DATA over another one.
- Content is asked for (`SendContent`) only when somebody was accepted. If DATA is accepted although no recipient was, a
  single dot is sent (RFC 2920 §3.1).
- If the connection is lost after the end of data, nobody knows the outcome: it has the reach MESSAGE, not SESSION. The
  message must not be tried again at once, because the remote may have it.

How it fails: `ConnectionEnded`, once, as the last event. It carries the results for the recipients of a transaction
under way. Nothing raises for what a remote does.

Not here: octets of content (`stuffing`), sockets, TLS and time limits (`deliver.smtp`; `step` and `answers` say what is
being waited for and whether it has come).
"""

from __future__ import annotations

import binascii
from base64 import b64decode, b64encode
from collections import deque
from collections.abc import Sequence
from typing import Final

from postroad.mail.attempt import Outcome, Reach
from postroad.mail.reply import Reply
from postroad.protocol import capability
from postroad.protocol.capability import Capabilities
from postroad.protocol.client_events import (
    AuthChallenged,
    AuthRefused,
    AuthSucceeded,
    ClientEvent,
    ConnectionEnded,
    Finished,
    Goodbye,
    SendContent,
    SessionReady,
    StartHandshake,
    Step,
    TlsRefused,
    XclientRefused,
)
from postroad.protocol.replies import BadReply, ReplyLimits, ReplyReader
from postroad.protocol.sending import Result, Subject, brief, refusal
from postroad.protocol.stuffing import END

# What comes with each message, by plain names: on Python 3.11 a member by its class costs a look-up more.
_MAIL: Final = Step.MAIL
_RCPT: Final = Step.RCPT
_DATA: Final = Step.DATA
_END: Final = Step.END
_IDLE: Final = Step.IDLE
_CLOSED: Final = Step.CLOSED
_HANDSHAKE: Final = Step.HANDSHAKE
_CONTENT: Final = Step.CONTENT


# What a server need not offer any more when EHLO is said again in the same session (RFC 3207 §4.2, RFC 4954 §3).
_MAY_GO: Final = frozenset({"AUTH", "STARTTLS"})
_SEND_DATA: Final = SendContent(bdat=False)
_AUTH_LINE_MAX = 512  # RFC 4954 §4: an initial response must not make the command longer than a command may be

# RFC 5321 §4.2.4, §4.3.2: what is said of a command, not of a message.
_COMMAND_REFUSED: Final = (500, 502, 503, 555)
# RFC 7504 §3: the host, or the domain, takes no mail, and will take none: no other command changes that.
NO_MAIL: Final = (521, 556)


class ClientMachine:
    """See the module. `name`: our name for EHLO, a domain or an address literal. `ignored`: keywords that count as not
    offered."""

    __slots__ = (
        "_accepted", "_asks_only", "_bdat", "_cancelled", "_confirmed", "_confirming", "_events", "_excess",
        "_expected", "_hello_refused", "_ignored", "_kept", "_late", "_lmtp", "_mail_refusal", "_next", "_output",
        "_place", "_reader", "_reset", "_results", "_spoken_for", "_state", "_success", "_todo", "_went_on", "answers",
        "capabilities", "greeting", "injected", "name", "tls_asked", "tls_refused",
    )

    def __init__(
        self, name: str, *, lmtp: bool = False, limits: ReplyLimits | None = None,
        ignored: frozenset[str] = frozenset(),
    ) -> None:
        self.name = name
        self.capabilities = Capabilities()
        self.greeting: Reply | None = None
        self.answers = 0  # replies that were complete, for time limits
        self.tls_asked = self.tls_refused = False  # STARTTLS was said; and refused
        self.injected = False  # octets in plaintext stood behind the answer to STARTTLS
        self._ignored = ignored
        self._hello_refused: Reply | None = None  # EHLO was; HELO has not been answered yet
        self._kept = False  # a transaction has ended since EHLO was answered: what comes may be late
        self._lmtp = lmtp
        self._success = Outcome.DELIVERED if lmtp else Outcome.RELAYED
        self._reader = ReplyReader(limits)
        self._output: list[bytes] = []
        self._events: deque[ClientEvent] = deque()
        self._expected: deque[Step] = deque((Step.GREETING,))
        self._state = Step.IDLE  # what holds when no reply is expected
        self._spoken_for = ""  # by which name EHLO is said when XCLIENT is answered
        self._late: bytes | None = None  # an initial response that was too long for the command
        self._cancelled = False  # by us
        self._reset = False  # the remote has a transaction open that is over for us
        # of the transaction under way
        self._results: list[Result | None] = []
        self._todo: deque[tuple[Step, bytes]] = deque()
        self._next: tuple[bytes, Sequence[bytes], Sequence[bytes]] | None = None  # begins when EHLO is answered again
        self._accepted: list[int] = []
        self._excess: list[int] = []
        self._place = 0  # the RCPT, or over LMTP the accepted recipient, that the next reply is for
        self._mail_refusal: Result | None = None
        self._bdat = False
        self._asks_only = False  # nothing follows RCPT
        self._went_on = False  # octets stood behind 354
        self._confirming = False  # RSET shows whether DATA was refused
        self._confirmed = False  # replies and commands match: 354 came, which nothing but DATA brings

    # -- octets ----------------------------------------------------------------------------------------------------

    def feed(self, octets: bytes) -> None:
        """Octets of the remote; nothing that came after the end of the session counts."""
        self._reader.feed(octets)

    def take_output(self) -> bytes:
        """What to write now."""
        output = self._output
        if not output:
            return b""
        octets = b"".join(output)
        output.clear()
        return octets

    @property
    def step(self) -> Step:
        """What is being waited for."""
        return self._expected[0] if self._expected else self._state

    def next_event(self) -> ClientEvent | None:
        """The next thing that the host must know, None if more octets are needed."""
        if self._events:
            return self._events.popleft()
        reader = self._reader
        while reader.unread and self._state is not _CLOSED:
            if self._state is _HANDSHAKE:
                return self._injected()
            answer = reader.next()
            if answer is None:
                break
            event = self._broken(answer.text) if isinstance(answer, BadReply) else self._answered(answer)
            if event is not None:
                return event
        if (self._output or (not self._expected and self._state is _IDLE)) and reader.pending:
            return self._surplus("octets that we did not ask for")  # the next command is not on its way yet
        return None

    # -- what the host may ask for while idle ----------------------------------------------------------------------

    def begin(
        self, mail: bytes, rcpts: Sequence[bytes], *, bdat: bool = False, before: Sequence[bytes] = (),
        asks_only: bool = False,
    ) -> None:
        """A transaction with these commands, one RCPT at least. `bdat`: the content will come by BDAT. `asks_only`: no
        content will come (`ask`). `before`: XFORWARD commands, whose replies decide nothing: the message matters, not
        what is told of it."""
        assert self.step is Step.IDLE and rcpts
        self._results = [None] * len(rcpts)
        self._accepted = []
        self._excess = []
        self._place = 0
        self._mail_refusal = None
        self._went_on = self._confirming = self._confirmed = False
        self._bdat = bdat
        self._asks_only = asks_only
        if self._reader.pending:
            # It would be taken for the reply to MAIL, and all behind it for something else than it is.
            self._events.append(self._surplus("octets that we did not ask for"))
            return
        if bdat and self._kept:
            self._next = mail, rcpts, before
            self._hello()
            return
        expected, output = self._expected, self._output
        if self.capabilities.pipelining:  # RFC 2920 §3.1: DATA may be the last of a group
            if self._reset:
                self._reset = False
                output.append(b"RSET\r\n")
                expected.append(Step.RSET)
            if before:
                output.extend(before)
                expected.extend((Step.XFORWARD,) * len(before))
            output.append(mail)
            output.extend(rcpts)
            expected.append(_MAIL)
            expected.extend((_RCPT,) * len(rcpts))
            if not (bdat or asks_only):
                output.append(b"DATA\r\n")
                expected.append(_DATA)
            return
        told = ((Step.XFORWARD, command) for command in before)
        todo = self._todo = deque((*told, (Step.MAIL, mail), *((Step.RCPT, command) for command in rcpts)))
        if self._reset:
            self._reset = False
            todo.appendleft((Step.RSET, b"RSET\r\n"))
        self._say(*todo.popleft())

    def ask(self, mail: bytes, rcpts: Sequence[bytes]) -> None:
        """A transaction that ends after RCPT: whether the remote would take mail for these. RSET follows later."""
        assert self.step is Step.IDLE and rcpts
        self.begin(mail, rcpts, asks_only=True)

    def content_sent(self) -> None:
        """The content with its end is on its way: the remote's answer is awaited."""
        assert self._state is _CONTENT
        self._state = _IDLE
        self._place = 0
        if not self._lmtp:
            self._expected.append(_END)
        else:  # RFC 2033 §4.2: LMTP answers once for each RCPT that was accepted
            self._expected.extend((_END,) * len(self._accepted))

    def start_tls(self) -> None:
        """STARTTLS (RFC 3207)."""
        assert self.step is Step.IDLE
        self.tls_asked = True
        self._say(Step.STARTTLS, b"STARTTLS\r\n")

    def tls_started(self) -> None:
        """TLS is on: what was learnt before counts no more (RFC 3207 §4.2)."""
        assert self._state is Step.HANDSHAKE
        self._state = Step.IDLE
        self._reader.forget()
        self.capabilities = Capabilities()
        self._hello()

    def authenticate(self, mechanism: str, initial: bytes | None) -> None:
        """AUTH (RFC 4954). `initial`: the initial response, None if the mechanism has none."""
        assert self.step is Step.IDLE
        self._late, self._cancelled = None, False
        line = f"AUTH {mechanism}".encode("ascii")
        if initial is not None:
            with_initial = line + b" " + (b64encode(initial) or b"=")
            if len(with_initial) + 2 <= _AUTH_LINE_MAX:
                line = with_initial
            else:  # RFC 4954 §4: then it waits for the first challenge, which is empty
                self._late = initial
        self._say(Step.AUTH, line + b"\r\n")

    def respond(self, response: bytes | None) -> None:
        """The response to a challenge; None cancels the exchange."""
        assert self._state is Step.RESPONSE
        self._state = Step.IDLE
        if response is None:
            self._cancel()
        else:
            self._say(Step.AUTH, b64encode(response) + b"\r\n")

    def speak_for(self, command: bytes, hello: str) -> None:
        """XCLIENT: SessionReady if the session has begun again, with EHLO by the name `hello`, else XclientRefused."""
        assert self.step is Step.IDLE
        if self._reader.pending:  # it would be taken for the reply
            self._events.append(self._surplus("octets that we did not ask for"))
            return
        self._spoken_for = hello
        self._say(Step.XCLIENT, command)

    def _cancel(self) -> None:
        self._cancelled = True
        self._say(Step.AUTH, b"*\r\n")  # RFC 4954 §4: the server answers 501

    def quit(self) -> None:
        """QUIT; nothing may follow."""
        if self.step is Step.IDLE:
            self._say(Step.QUIT, b"QUIT\r\n")

    # -- how a session ends without the remote's word ----------------------------------------------------------------

    def lost(self, status: str, text: str) -> ConnectionEnded:
        """The connection is gone, or the remote was silent for too long."""
        if self._reader.pending:
            text = f"{text}; it had begun to say: {self._reader.held}"
        return self.end(Result(Outcome.DEFERRED, Reach.SESSION, status, text))

    def end(self, result: Result) -> ConnectionEnded:
        """End the session with this result for all that are undecided; for nobody if it had ended before."""
        if self._hello_refused is not None and result.reply is None:
            # RFC 5321 §4.2: what the remote said is the reason, not that it then closed.
            refused = refusal(self._hello_refused, Reach.HOP, Subject.SESSION)
            text = f"{refused.text} (EHLO); at HELO: {result.text}"
            result = Result(refused.outcome, refused.reach, refused.status, text, refused.reply)
        if self._kept and not self._confirmed:
            self._mail_refusal = None
            self._results = [None] * len(self._results)
        undecided = result
        if self.step is Step.END and result.reach is Reach.SESSION and result.reply is None:
            # RFC 5321 §4.5.3.2.6: the remote may have taken it
            text = f"{result.text}; the whole message had been sent, the remote may have taken it"
            undecided = Result(result.outcome, Reach.MESSAGE, result.status, text)
        results = self._decided(undecided)
        self._state = Step.CLOSED
        self._expected.clear()
        self._todo.clear()
        self._next = None
        self._events.clear()
        self._output.clear()
        self._forget()
        return ConnectionEnded(result, results)

    def _forget(self) -> None:
        """The transaction is over: nothing of it is left for the next one."""
        self._results = []
        self._mail_refusal = None
        self._kept = True

    def _decided(self, undecided: Result) -> tuple[Result, ...]:
        """A result for each recipient: its own, else that of MAIL, else `undecided`."""
        rest = self._mail_refusal or undecided
        return tuple(found if found is not None else rest for found in self._results)

    def _broken(self, text: str) -> ConnectionEnded:
        return self.end(Result(Outcome.DEFERRED, Reach.SESSION, "4.5.0", text))

    def _surplus(self, text: str) -> ConnectionEnded:
        """Octets that nothing was asked for, and that are not the whole of a reply yet."""
        return self.end(Result(Outcome.DEFERRED, Reach.SESSION, "4.5.0", f"{text}: {self._reader.held}"))

    def _injected(self) -> ConnectionEnded:
        """RFC 3207 §4, CVE-2011-0411: plaintext behind the answer would be read as if TLS had brought it."""
        self.injected = True
        text = f"octets in plaintext after the answer to STARTTLS: {self._reader.held}"
        return self.end(Result(Outcome.DEFERRED, Reach.HOP, "4.7.0", text))

    # -- replies -------------------------------------------------------------------------------------------------------

    def _say(self, step: Step, octets: bytes) -> None:
        self._output.append(octets)
        self._expected.append(step)

    def _answered(self, answer: Reply) -> ClientEvent | None:
        self.answers += 1
        expected = self._expected
        if answer.code == 421 and self.step is not Step.GREETING:  # RFC 5321 §3.8: may come at any time
            return self.end(refusal(answer, Reach.SESSION, Subject.SESSION))
        if not expected or self._output:
            return self._unasked(answer)
        step = expected.popleft()
        if step is _MAIL:
            if not 200 <= answer.code < 300:
                if answer.intermediate:
                    return self._unfit("MAIL", answer)
                self._mail_refusal = refusal(answer, Reach.MESSAGE, Subject.SENDER)
        elif step is _RCPT:
            if not self._rcpt_answered(answer):
                return self._unfit("RCPT", answer)
        elif step is _DATA:
            return self._data_answered(answer)
        elif step is _END:
            return self._end_answered(answer)
        else:
            return self._seldom_answered(step, answer)
        return None if expected else self._advance()

    def _seldom_answered(self, step: Step, answer: Reply) -> ClientEvent | None:
        match step:
            case Step.RSET:
                # RFC 5321 §4.1.1.5: always 250; without it nobody knows which transaction is open
                if not answer.ok:
                    return self._unfit("RSET", answer)
                if self._confirming:
                    self._confirming = False
                    return self._finish()
            case Step.XFORWARD:
                if answer.intermediate:
                    return self._unfit("XFORWARD", answer)
            case Step.DOT:
                return self._finish()
            case _:
                return self._opened(step, answer)
        return None if self._expected else self._advance()

    def _opened(self, step: Step, answer: Reply) -> ClientEvent | None:
        """A reply to what makes or ends a session."""
        match step:
            case Step.GREETING:
                return self._greeted(answer)
            case Step.HELLO | Step.HELO:
                return self._hello_answered(step, answer)
            case Step.STARTTLS:
                return self._starttls_answered(answer)
            case Step.AUTH:
                return self._auth_answered(answer)
            case Step.XCLIENT:
                return self._xclient_answered(answer)
            case _:
                self._state = Step.CLOSED
                return Goodbye()

    def _unasked(self, answer: Reply) -> ConnectionEnded:
        if answer.code >= 400:
            if self.step is Step.CONTENT:
                if self._bdat and answer.code in _COMMAND_REFUSED:
                    return self._bdat_refused(answer)
                # Out of turn, yet its meaning is plain; the data is not ended, so that nothing can be accepted.
                return self.end(refusal(answer, Reach.MESSAGE, Subject.MESSAGE))
            if not self._results and not self._kept:  # before the first message: the remote refuses the session
                return self.end(refusal(answer, Reach.HOP, Subject.SESSION))
        text = f"a reply that we did not ask for: {brief(answer)}"
        return self.end(Result(Outcome.DEFERRED, Reach.SESSION, "4.5.0", text))

    def _unfit(self, verb: str, answer: Reply) -> ConnectionEnded:
        return self.end(_odd(verb, answer))

    def _greeted(self, answer: Reply) -> ClientEvent | None:
        self.greeting = answer
        if answer.code != 220:  # RFC 5321 §4.3.2: CONNECTION ESTABLISHMENT, S: 220, E: 554
            return self._unopened("the connection", answer)
        self._hello()
        return None

    def _hello(self) -> None:
        self._say(Step.HELLO, f"{'LHLO' if self._lmtp else 'EHLO'} {self.name}\r\n".encode("ascii"))

    def _hello_answered(self, step: Step, answer: Reply) -> ClientEvent | None:
        if self._next is not None:
            return self._answered_again(*self._next, answer)
        if answer.ok:
            if answer.code == 220:
                # A greeting inside TLS (CVE-2016-0772's kin), or a second one: all replies behind it would be shifted.
                return self._unfit(step.name, answer)
            self._hello_refused = None
            offered = step is Step.HELLO
            self.capabilities = capability.parse(answer.lines, self._ignored) if offered else Capabilities()
            return SessionReady()
        if answer.permanent and step is Step.HELLO and not self._lmtp and answer.code not in NO_MAIL:
            # RFC 5321 §3.2: a server that does not support ESMTP is greeted with HELO
            self._hello_refused = brief(answer)
            self._say(Step.HELO, f"HELO {self.name}\r\n".encode("ascii"))
            return None
        return self._unopened(step.name, answer)

    def _answered_again(
        self, mail: bytes, rcpts: Sequence[bytes], before: Sequence[bytes], answer: Reply
    ) -> ClientEvent | None:
        """EHLO before BDAT (RFC 5321 §4.1.4: as RSET). A reply to something else does not name the extensions."""
        self._next = None
        offered = capability.parse(answer.lines, self._ignored).keywords if answer.ok and answer.code != 220 else {}
        if not (self.capabilities.keywords.keys() - _MAY_GO <= offered.keys() and self.capabilities.chunking):
            return self._unfit("EHLO, said again before BDAT", answer)
        self._kept = self._reset = False
        self.begin(mail, rcpts, bdat=True, before=before)
        return self._events.popleft() if self._events else None

    def _unopened(self, verb: str, answer: Reply) -> ConnectionEnded:
        if answer.code < 400:
            return self._unfit(verb, answer)
        refused = refusal(answer, Reach.HOP, Subject.SESSION)
        if self._hello_refused is not None:
            text = f"{refused.text}; to EHLO it had said: {self._hello_refused}"
            refused = Result(refused.outcome, refused.reach, refused.status, text, refused.reply)
        return self.end(refused)

    def _starttls_answered(self, answer: Reply) -> ClientEvent | None:
        if answer.code != 220:
            if answer.code < 400:
                return self._unfit("STARTTLS", answer)
            self.tls_refused = True
            return TlsRefused(brief(answer))
        if self._reader.pending:
            return self._injected()
        self._state = Step.HANDSHAKE
        return StartHandshake()

    def _xclient_answered(self, answer: Reply) -> ClientEvent | None:
        """220 greets the client that we speak for; nothing else does, so that no late reply can be taken for it."""
        if answer.code != 220:
            if self._kept:
                return self._unfit("XCLIENT", answer)
            if answer.permanent and answer.code not in NO_MAIL:
                return XclientRefused(brief(answer))
            return self._unopened("XCLIENT", answer)
        self.name = self._spoken_for
        self._kept = self._reset = False
        self._hello()
        return None

    def _auth_answered(self, answer: Reply) -> ClientEvent | None:
        late, self._late = self._late, None
        if answer.code == 334 and not self._cancelled:
            return self._challenged(answer, late)
        if answer.code == 235 and not self._cancelled:
            return AuthSucceeded()
        if answer.code < 400:
            return self._unfit("AUTH", answer)
        return AuthRefused(None if self._cancelled else brief(answer))

    def _challenged(self, answer: Reply, late: bytes | None) -> ClientEvent | None:
        try:
            challenge = b64decode(answer.lines[-1], validate=True)
        except (binascii.Error, ValueError):
            self._cancel()
            return None
        if late is not None:
            self._say(Step.AUTH, b64encode(late) + b"\r\n")
            return None
        if self._reader.pending:
            return self._surplus("octets after a challenge")
        self._state = Step.RESPONSE
        return AuthChallenged(challenge)

    def _rcpt_answered(self, answer: Reply) -> bool:
        place = self._place
        self._place = place + 1
        if self._mail_refusal is not None:
            # It tells nothing of the recipient, but confirms the refusal (RFC 5321 §4.1.4: 503, out of order).
            return answer.code == 503 or not self._kept
        if 200 <= answer.code < 300:  # 250 and 251; 252 is taken as well
            self._accepted.append(place)
            return True
        if answer.intermediate or (answer.code == 503 and self._kept):  # out of order? MAIL was accepted
            return False
        if self._accepted and _too_many(answer):
            self._excess.append(place)
            self._results[place] = Result(Outcome.DEFERRED, Reach.RECIPIENT, "4.5.3", _EXCESS, brief(answer))
        else:
            self._results[place] = refusal(answer, Reach.RECIPIENT, Subject.RECIPIENT)
        return True

    def _advance(self) -> ClientEvent | None:
        """All that was said is answered, and DATA was not among it."""
        todo = self._todo
        if self._mail_refusal is not None:
            if todo and self._kept and not self._place:
                # A refusal alone may be a late reply to something else: one RCPT shows whether MAIL was refused.
                self._say(*todo.popleft())
                todo.clear()
                return None
            todo.clear()
            return self._finish()
        if todo:
            self._say(*todo.popleft())
            return None
        if not self._accepted:
            self._reset = True
            return self._finish()
        if self._asks_only:
            self._reset = True
            self._decide_accepted(Result(self._success, Reach.RECIPIENT, "2.1.5", "the recipient was accepted"))
            return self._finish()
        if self._bdat:
            return self._ready_for_chunks()
        self._say(_DATA, b"DATA\r\n")
        return None

    def _ready_for_chunks(self) -> ClientEvent:
        if self._reader.pending:
            return self._behind("the answers to RCPT")
        self._state = _CONTENT
        return SendContent(bdat=True)

    def _behind(self, what: str) -> ConnectionEnded:
        """Something stands behind a reply, where content would be sent."""
        answer = self._reader.next()
        if not isinstance(answer, Reply):
            return self._broken(answer.text) if answer is not None else self._surplus(f"octets after {what}")
        if answer.code == 421:
            return self.end(refusal(answer, Reach.SESSION, Subject.SESSION))
        return self._unasked(answer)

    def _data_answered(self, answer: Reply) -> ClientEvent | None:
        if self._went_on:
            return self._answered_behind_354(answer)
        if answer.code == 354:
            self._confirmed = True
            if self._accepted:
                if self._reader.pending:
                    # It would be taken for the answer to a content that the remote has not seen. It is heard first.
                    self._went_on = True
                    self._expected.append(_DATA)
                    return None
                self._state = _CONTENT
                return _SEND_DATA
            if self._lmtp:
                # RFC 2033 §4.2 demands 503; how many replies a dot would bring now nobody can tell
                results = self._decided(_NOBODY)
                self._forget()
                self._events.append(ConnectionEnded(_NOBODY))
                self._state = Step.CLOSED
                return Finished(results, frozenset(self._excess))
            self._say(Step.DOT, END)  # RFC 2920 §3.1: "the client SMTP should send a single dot"
            return None
        if answer.code < 400:
            return self._unfit("DATA", answer)
        if self._accepted:
            self._decide_accepted(refusal(answer, Reach.MESSAGE, Subject.MESSAGE))
            if self._kept:
                # Behind a late reply this would be the refusal of one recipient. The answer to RSET, which would have
                # to come anyway, shows it.
                self._confirming = True
                self._say(Step.RSET, b"RSET\r\n")
                return None
        self._reset = True
        return self._finish()

    def _answered_behind_354(self, answer: Reply) -> ClientEvent:
        """The last code decides."""
        if answer.code >= 400:
            return self.end(refusal(answer, Reach.MESSAGE, Subject.MESSAGE))
        return self._unfit("DATA, behind 354", answer)

    def _end_answered(self, answer: Reply) -> ClientEvent | None:
        if 300 <= answer.code < 400:
            # What became of the message nobody knows: not at once again
            odd = _odd("the end of data", answer)
            return self.end(Result(odd.outcome, Reach.MESSAGE, odd.status, odd.text, odd.reply))
        if self._bdat and answer.code in _COMMAND_REFUSED and not self._place:
            return self._bdat_refused(answer)
        if 200 <= answer.code < 300:
            status = answer.status or "2.0.0"
            result = Result(self._success, Reach.RECIPIENT, status, "", brief(answer))
        else:
            result = refusal(answer, Reach.RECIPIENT if self._lmtp else Reach.MESSAGE, Subject.MESSAGE)
        if not self._lmtp:
            self._decide_accepted(result)
            return self._finish()
        self._results[self._accepted[self._place]] = result
        self._place += 1
        return None if self._expected else self._finish()

    def _bdat_refused(self, answer: Reply) -> ConnectionEnded:
        """What it made of the octets of the chunk nobody knows: another connection must do."""
        ended = self.end(_no_bdat(answer))
        return ConnectionEnded(ended.result, ended.results, bdat_refused=True)

    def _decide_accepted(self, result: Result) -> None:
        for place in self._accepted:
            self._results[place] = result

    def _finish(self) -> Finished:
        results = self._decided(_NOBODY)
        self._forget()
        return Finished(results, frozenset(self._excess)) if self._excess else Finished(results)


_EXCESS = "the remote took no more recipients in this transaction"

# Stands where every recipient has a result already; it can be seen only in LMTP's impossible 354.
_NOBODY = Result(Outcome.DEFERRED, Reach.SESSION, "4.5.0", "DATA was accepted though no recipient was")


def _odd(verb: str, answer: Reply) -> Result:
    kept = brief(answer)
    return Result(Outcome.DEFERRED, Reach.SESSION, "4.5.0", f"a reply that does not fit {verb}: {kept}", kept)


def _no_bdat(answer: Reply) -> Result:
    text = "the remote refused BDAT, which it had offered; DATA is tried next"
    return Result(Outcome.DEFERRED, Reach.SESSION, "4.5.1", text, brief(answer))


def _too_many(answer: Reply) -> bool:
    """RFC 5321 §4.5.3.1.10: 452, or 552 from servers that follow RFC 821, behind recipients that were accepted."""
    return answer.code in (452, 552) and answer.status in ("", "4.5.3", "5.5.3")
