"""Target `client`: any octets from a remote to the client machine, over SMTP and LMTP, and to the reader of replies.

What must hold: nothing raises; each recipient of each transaction has exactly one result; who counts as relayed has a
2yz of his own RCPT and one of the end of data, counted by an oracle that notes which reply came while which step was
waited for; where a line is cut changes nothing, and lines that come sooner than they were asked for relay nobody more;
what is written is whole lines; what is held is bounded; no plaintext outlives STARTTLS. A hasty check compares with one
other cut of each wire, chosen by its octets.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field

from postroad.mail.attempt import Outcome
from postroad.mail.reply import Reply
from postroad.protocol.client import ClientMachine
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
)
from postroad.protocol.replies import BadReply, ReplyLimits, ReplyReader
from postroad.protocol.sending import Result
from tests.fuzz import choices
from tests.fuzz.choices import Choices, parted

LIMITS = ReplyLimits(line_max=300, lines_max=12, reply_max=900)
RCPTS = 3
TRANSACTIONS = 3
_RELAYED = (Outcome.RELAYED, Outcome.DELIVERED)
_SAID = re.compile(rb"(?:[!-~\x80-\xff][^\r\n\0]*\r\n)*")
_LINE = re.compile(rb"([2-5][0-9][0-9])(?:([ -])(.*))?", re.DOTALL)


@dataclass
class Transaction:
    """`answered`: which step each reply answered, with its code."""

    answered: list[tuple[Step, int]] = field(default_factory=list)
    results: tuple[Result, ...] | None = None

    def relayed(self) -> list[int]:
        return [place for place, found in enumerate(self.results or ()) if found.outcome in _RELAYED]


class Player:
    """A host that sends up to `TRANSACTIONS` messages to `RCPTS` recipients each, and then says goodbye."""

    def __init__(self, chosen: Choices) -> None:
        self.chosen = chosen
        self.lmtp = chosen.on(0)
        self.machine = ClientMachine("me.test", lmtp=self.lmtp, limits=LIMITS)
        self.done: list[Transaction] = []
        self.current: Transaction | None = None
        self.events: list[str] = []
        self.ended = False
        self.secured = self.authenticated = False

    def through(self, parts: list[bytes]) -> Player:
        for part in parts:
            step, before, current = self.machine.step, self.machine.answers, self.current
            self.machine.feed(part)
            while (event := self.machine.next_event()) is not None:
                assert not self.ended or isinstance(event, ConnectionEnded), event
                self._happened(event)
                if current is not None and self.machine.answers == before + 1 and current.results is not None:
                    break  # the reply was of this transaction: note it before the next begins
            self._note(current, step, self.machine.answers - before, part)
            self._happen_all()
            output = self.machine.take_output()
            assert _SAID.fullmatch(output), output
            assert not (self.ended and output)
            reader = self.machine._reader
            assert self.ended or len(reader.unread) - reader._at < LIMITS.line_max + len(part)
            assert reader._held <= LIMITS.reply_max and len(reader._lines) <= LIMITS.lines_max
        if self.current is not None:
            self._over(self.machine.lost("4.4.2", "gone").results)
        return self

    def _happen_all(self) -> None:
        while (event := self.machine.next_event()) is not None:
            self._happened(event)

    def _note(self, current: Transaction | None, step: Step, answers: int, part: bytes) -> None:
        """The oracle's record, where exactly one reply can have come: parts are lines or less."""
        if current is not None and answers == 1 and part.endswith(b"\n"):
            line = part[part.rfind(b"\n", 0, -1) + 1 :]
            current.answered.append((step, int(line[:3]) if line[:3].isdigit() else 0))

    def _happened(self, event: ClientEvent) -> None:
        self.events.append(type(event).__name__)
        machine, chosen = self.machine, self.chosen
        match event:
            case SessionReady():
                self._go_on()
            case StartHandshake():
                assert not machine._reader.pending
                if chosen.on(6):  # CVE-2011-0411: plaintext between the answer and the handshake
                    machine.feed(b"250 injected\r\n")
                    return
                machine.tls_started()
            case TlsRefused() | AuthSucceeded() | AuthRefused():
                self._go_on()
            case AuthChallenged():
                machine.respond(None if chosen.on(5) else b"answer")
            case SendContent():
                machine.content_sent()
            case Finished(results, excess):
                assert excess <= set(range(RCPTS))
                self._over(results)
                self._go_on()
            case ConnectionEnded(results=results):
                if self.current is None:
                    assert not results
                else:
                    self._over(results)
                self.ended = True
            case Goodbye():
                self.ended = True

    def _go_on(self) -> None:
        machine, chosen = self.machine, self.chosen
        if machine.step is not Step.IDLE:
            return
        offered = machine.capabilities
        if chosen.on(2) and offered.starttls and not self.secured:
            self.secured = True
            machine.start_tls()
        elif chosen.on(3) and offered.mechanisms and not self.authenticated:
            self.authenticated = True
            machine.authenticate("PLAIN", (b"x" * 600 if chosen.on(4) else b"") if chosen.on(5) else None)
        elif len(self.done) < TRANSACTIONS:
            self.current = Transaction()
            before = [b"XFORWARD NAME=x\r\n"] if "XFORWARD" in offered.keywords else []
            rcpts = [b"RCPT TO:<%d@b>\r\n" % number for number in range(RCPTS)]
            machine.begin(b"MAIL FROM:<>\r\n", rcpts, bdat=chosen.on(1) and offered.chunking, before=before)
        else:
            machine.quit()

    def _over(self, results: tuple[Result, ...]) -> None:
        current = self.current
        assert current is not None and len(results) == RCPTS, results
        current.results = results
        self.current = None
        self.done.append(current)
        for found in results:
            assert found.status[0] == {Outcome.FAILED: "5", Outcome.DEFERRED: "4"}.get(found.outcome, "2"), found
            assert found.text.isprintable(), found
            lines = found.reply.lines if found.reply is not None else ()
            assert len(lines) <= 20 and all(line.isprintable() and len(line) <= 512 for line in lines)

    @property
    def outcomes(self) -> list[list[tuple[Outcome, str, str]]]:
        return [
            [(found.outcome, found.reach.value, found.status) for found in one.results or ()] for one in self.done
        ]


def check(data: bytes, *, hasty: bool = False) -> None:
    chosen = choices.read(data)
    lines = _lines(chosen.wire)
    by_line = Player(chosen).through(lines)
    for transaction in by_line.done:
        _relayed_rightly(transaction, lmtp=by_line.lmtp)
    cut = [piece for line in lines for piece in parted(line, list(chosen.cuts(len(line))))]
    pairs = [b"".join(lines[max(at, 0) : at + 2]) for at in range(-(chosen.mode >> 7), len(lines), 2)]
    ways: list[tuple[_Comparison, list[bytes]]] = [
        (_no_more, [chosen.wire]),
        (_no_more, pairs),
        (_no_more, parted(chosen.wire, list(chosen.cuts(len(chosen.wire))))),
        (_the_same, cut),
        (_the_same, [line[at : at + 1] for line in lines for at in range(len(line))]),
    ]
    for compare, parts in choices.sampled(ways, data) if hasty else ways:
        compare(by_line, Player(chosen).through(parts))
    _read_alike(chosen)


_Comparison = Callable[[Player, Player], None]


def _the_same(by_line: Player, other: Player) -> None:
    """Cut within lines."""
    assert (other.events, other.outcomes) == (by_line.events, by_line.outcomes)


def _no_more(by_line: Player, joined: Player) -> None:
    """Lines that come sooner than they were asked for: a reply that nobody has asked for ends the session."""
    for one, other in zip(joined.done, by_line.done, strict=False):
        assert set(one.relayed()) <= set(other.relayed()), "sent sooner, and more is relayed"


def _lines(wire: bytes) -> list[bytes]:
    parts = wire.split(b"\n")
    return [part + b"\n" for part in parts[:-1]] + ([parts[-1]] if parts[-1] else [])


def _relayed_rightly(transaction: Transaction, *, lmtp: bool) -> None:
    """RFC 5321 §4.5.4.1, RFC 2033 §4.2: accepted at RCPT, and at the end of data."""
    relayed = transaction.relayed()
    rcpts = [code for step, code in transaction.answered if step is Step.RCPT]
    ends = [code for step, code in transaction.answered if step is Step.END]
    accepted = [place for place, code in enumerate(rcpts) if 200 <= code < 300]
    if lmtp:
        taken = [place for place, code in zip(accepted, ends, strict=False) if 200 <= code < 300]
    else:
        taken = accepted if ends and 200 <= ends[0] < 300 else []
    assert relayed == taken, (relayed, transaction.answered)


def _read_alike(chosen: Choices) -> None:
    """The reader of replies against the rule itself, in two cuts."""
    wire = chosen.wire
    expected = _replies(wire)
    for parts in ([wire], parted(wire, list(chosen.cuts(len(wire))))):
        reader, found = ReplyReader(LIMITS), list[tuple[int, int]]()
        broken = False
        for part in parts:
            reader.feed(part)
            while not broken and (answer := reader.next()) is not None:
                broken = isinstance(answer, BadReply)
                if isinstance(answer, Reply):
                    found.append((answer.code, len(answer.lines)))
        assert found == expected, (found, expected)


def _replies(wire: bytes) -> list[tuple[int, int]]:
    """Code and number of lines of each reply, up to the first octet that breaks a rule."""
    found: list[tuple[int, int]] = []
    code, lines, held = b"", 0, 0
    for line in _lines(wire):
        match = _LINE.fullmatch(line[:-2]) if line.endswith(b"\r\n") and len(line) <= LIMITS.line_max else None
        if match is None:
            break
        code, lines, held = match[1], lines + 1, held + len(line)
        if match[2] != b"-" and lines == 1:
            pass  # a reply of one line is bounded by that
        elif lines > LIMITS.lines_max or held > LIMITS.reply_max:
            break
        if match[2] != b"-":
            found.append((int(code), lines))
            lines = held = 0
    return found
