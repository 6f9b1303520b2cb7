"""A message that is refused at its end leaves nothing behind in the session.

Every reason x DATA, BDAT, BDAT in the pipeline x SMTP, LMTP x every next command: the refusal has its replies, one for
each recipient over LMTP (RFC 2033 §4.2); the next command is answered as if there had been no message; then RCPT
without MAIL is 503, a recipient that the rules refuse is refused, and a good message is accepted, which is the good
message only and goes to its recipients only. Everything is in memory.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass

import pytest

from postroad.mail.envelope import Body, Notify, Ret
from postroad.mail.policy import ACCEPT, Question, Rules, Verdict, defer, reject
from postroad.protocol.offer import Dialect
from tests.logic.talk import RIGHT, WRONG, Talk, content, house
from tests.unit.receive.fakes import FULL, INVALID, IO, House

HEADER = b"Subject: refused\r\n"
BODY = b"\r\nThis text is never to be seen again.\r\n"
GOOD = b"Good: yes\r\n\r\nHello\r\n"


@dataclass(frozen=True)
class Reason:
    """Why a message is refused: by what it is, by the disk, or by a rule. `code`, `status`: what the client hears."""

    name: str
    code: int
    status: bytes
    octets: bytes = HEADER + BODY
    break_: Callable[[House], None] = lambda place: None
    mend: Callable[[House], None] = lambda place: None
    memory_content_max: int = 1_000_000
    verdict: Verdict = ACCEPT


def full(place: House) -> None:
    place.spool.failure = FULL


def broken(place: House) -> None:
    place.spool.failure = IO


def invalid(place: House) -> None:
    place.spool.failure = INVALID


def no_file(place: House) -> None:
    place.spool.file_failure = FULL


def whole(place: House) -> None:
    place.spool.failure = place.spool.file_failure = None


LARGE = HEADER + BODY + BODY[2:] * 500  # more than `receive.budget.UNCOUNTED`, so that it goes to a file
FIELD = b"Field: value\r\n"
RECEIVED = b"Received: from a by b; Mon, 30 Nov 2026 10:00:00 +0000\r\n"

REASONS = (
    Reason("size", 552, b"5.3.4", HEADER + b"\r\n" + (b"x" * 98 + b"\r\n") * 301),
    Reason("size by far", 552, b"5.3.4", HEADER + b"\r\n" + (b"x" * 98 + b"\r\n") * 600),
    Reason("bare LF", 550, b"5.5.2", HEADER + b"\r\none\ntwo\r\n"),
    Reason("bare CR", 550, b"5.5.2", HEADER + b"\r\none\rtwo\r\n"),
    Reason("bare LF, then much", 550, b"5.5.2", HEADER + b"\r\none\ntwo\r\n" + (b"x" * 98 + b"\r\n") * 30),
    Reason("NUL", 550, b"5.5.2", HEADER + b"\r\none\0two\r\n"),
    Reason("header size", 552, b"5.3.4", HEADER + (b"Field: " + b"v" * 400 + b"\r\n") * 5 + BODY),
    Reason("header count", 554, b"5.6.0", FIELD * 30 + BODY),
    Reason("long line", 554, b"5.6.0", HEADER + b"\r\n" + b"x" * 600 + b"\r\n"),
    Reason("full disk", 452, b"4.3.1", break_=full, mend=whole),
    Reason("failing disk", 451, b"4.3.0", break_=broken, mend=whole),
    Reason("not to be stored", 554, b"5.3.0", break_=invalid, mend=whole),
    Reason("full disk, in a file", 452, b"4.3.1", LARGE, no_file, whole, 100),
    Reason("full disk behind the file", 452, b"4.3.1", LARGE, full, whole, 100),
    Reason("a rule", 550, b"5.7.1", verdict=reject(550, "5.7.1", "No")),
    Reason("a rule, for now", 451, b"4.7.1", verdict=defer(451, "4.7.1", "Not now")),
    Reason("a rule, in a file", 550, b"5.7.1", LARGE, memory_content_max=100,
           verdict=reject(550, "5.7.1", "No")),
    Reason("loop", 554, b"5.4.6", RECEIVED * 12 + HEADER + BODY),
)  # fmt: skip

OPENING = (
    b"MAIL FROM:<old@elsewhere.test> SIZE=100 BODY=8BITMIME RET=FULL ENVID=old\r\n"
    b"RCPT TO:<ann@local.test> NOTIFY=SUCCESS ORCPT=rfc822;old@elsewhere.test\r\nRCPT TO:<bob@local.test>\r\n"
)
WAYS = ("DATA", "BDAT LAST", "BDAT in chunks", "BDAT in the pipeline")


def chunks(octets: bytes, size: int) -> list[bytes]:
    """BDAT commands with their octets, the last with LAST."""
    places = list(range(0, len(octets), size))
    return [
        b"BDAT %d%s\r\n" % (len(piece), b" LAST" if at == places[-1] else b"") + piece
        for at in places
        for piece in (octets[at : at + size],)
    ]


def refuse(talk: Talk, reason: Reason, way: str, behind: bytes) -> list[tuple[int, bytes]]:
    """A whole message that is refused; the replies to `behind`, which comes in the same octets where that may be."""
    last = 2 if talk.lmtp else 1
    if way == "BDAT in the pipeline":
        pieces = chunks(reason.octets, max(200, len(reason.octets) // 4))
        answers = talk.send(OPENING + b"".join(pieces) + behind)
        assert [code for code, _ in answers[:3]] == [250, 250, 250]
        rest = answers[3 : 3 + len(pieces) - 1 + last]
        assert_refused(rest, reason, last)
        return answers[3 + len(rest) :]
    assert [code for code, _ in talk.send(OPENING)] == [250, 250, 250]
    if way == "BDAT in chunks":
        pieces = chunks(reason.octets, max(200, len(reason.octets) // 4))
        heard = [answer for piece in pieces for answer in talk.send(piece)]
        assert len(heard) == len(pieces) - 1 + last
        assert_refused(heard, reason, last)
        return talk.send(behind)
    if way == "DATA":
        assert talk.ask("DATA") == [354]
        answers = talk.send(reason.octets + b".\r\n" + behind)
    else:
        answers = talk.send(chunks(reason.octets, 1_000_000)[0] + behind)
    assert_refused(answers[:last], reason, last)
    return answers[last:]


def assert_refused(answers: list[tuple[int, bytes]], reason: Reason, last: int) -> None:
    """250 to the chunks before the fault, then the same refusal to each; at the end to each recipient."""
    taken = list(itertools.takewhile(lambda answer: answer[0] == 250, answers))
    refused = answers[len(taken) :]
    assert len(refused) >= last, (reason.name, answers)
    assert {line[:9] for _, line in refused} == {b"%d %s" % (reason.code, reason.status)}, (reason.name, answers)


# What may come next, and how it is answered where no transaction is open.
SMTP_NEXT: dict[bytes, int] = {
    b"": 0,
    b"MAIL FROM:<new@elsewhere.test>\r\n": 250,
    b"MAIL FROM:<a b>\r\n": 501,
    b"RCPT TO:<ann@local.test>\r\n": 503,
    b"RCPT TO:<nobody@local.test>\r\n": 503,
    b"DATA\r\n": 503,
    b"BDAT 4 LAST\r\nx\r\n\r": 503,
    b"BDAT 4\r\nx\r\n\r": 503,
    b"BDAT 0 LAST\r\n": 503,
    b"RSET\r\n": 250,
    b"NOOP\r\n": 250,
    b"NOOP ignored\r\n": 250,
    b"EHLO client.test\r\n": 250,
    b"HELO client.test\r\n": 250,
    b"LHLO client.test\r\n": 500,
    b"VRFY ann@local.test\r\n": 250,
    b"VRFY nobody@local.test\r\n": 550,
    b"EXPN staff\r\n": 550,
    b"HELP\r\n": 214,
    b"ETRN local.test\r\n": 502,
    b"AUTH PLAIN " + RIGHT.encode() + b"\r\n": 235,
    b"AUTH PLAIN " + WRONG.encode() + b"\r\n": 535,
    b"AUTH UNKNOWN\r\n": 504,
    b"STARTTLS\r\n": 220,
    b"XFORWARD NAME=mx.elsewhere.test\r\n": 250,
    b"XCLIENT NAME=mx.elsewhere.test\r\n": 220,
    b"NONSENSE\r\n": 500,
    b"QUIT\r\n": 221,
}
LMTP_NEXT = SMTP_NEXT | {
    b"EHLO client.test\r\n": 500, b"HELO client.test\r\n": 500, b"LHLO client.test\r\n": 250,
}  # fmt: skip
NEXT = {Dialect.SMTP: SMTP_NEXT, Dialect.LMTP: LMTP_NEXT}


def place_of(dialect: Dialect, reason: Reason) -> House:
    """`reason` may be a rule; the message that comes behind is not refused by it."""

    def rule(context: Question) -> Verdict:
        if context.head.count(b"Received:") >= 12:
            return reject(554, "5.4.6", "Mail loop")
        return ACCEPT if b"Good: " in context.head else reason.verdict

    place = house(dialect, memory_content_max=reason.memory_content_max, rules=Rules(message=rule))
    reason.break_(place)
    return place


@pytest.mark.parametrize("dialect", Dialect, ids=lambda dialect: dialect.name)
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("reason", REASONS, ids=lambda reason: reason.name)
def test_a_refusal_leaves_nothing_behind(reason: Reason, way: str, dialect: Dialect) -> None:
    for line, code in NEXT[dialect].items():
        place = place_of(dialect, reason)
        talk = Talk(place)
        answers = refuse(talk, reason, way, line)
        verb = line[:4]
        if line:
            assert [answer[0] for answer in answers] == [code], (line, answers)
        assert not place.spool.stored and not place.queued
        reason.mend(place)
        if verb == b"QUIT":
            assert not talk.is_open
            continue
        if verb == b"STAR":
            talk.shake_hands()
        elif verb == b"XCLI":
            assert talk.ask(f"{talk.hello} client.test") == [250]
        assert_clean(talk, begun=verb == b"MAIL" and code == 250, chunked=verb != b"HELO")


def assert_clean(talk: Talk, *, begun: bool, chunked: bool) -> None:
    """No transaction is open (`begun`: MAIL was said since); then a good message, and it only, is taken."""
    place = talk.house
    known = talk.client.session._dialog is not None and talk.client.session._dialog.who().identity
    sender = "ann@local.test" if known else "new@elsewhere.test"
    if not begun:
        assert talk.ask("RCPT TO:<ann@local.test>", "DATA", f"MAIL FROM:<{sender}>") == [503, 503, 250]
    assert talk.ask("RCPT TO:<nobody@local.test>", "RCPT TO:<bob@local.test>") == [550, 250]
    if not known:
        assert talk.ask("RCPT TO:<x@far.test>") == [550]
    if chunked:
        answers = talk.send(b"".join(chunks(GOOD, 12)))
        assert [code for code, _ in answers] == [250, 250]
    else:
        assert talk.ask("DATA") == [354]
        assert [code for code, _ in talk.send(GOOD + b".\r\n")] == [250]
    (stored,) = place.spool.stored
    envelope = stored.envelope
    assert content(place, stored) == GOOD
    assert [str(each.address) for each in envelope.recipients] == ["bob@local.test"]
    assert (envelope.recipients[0].notify, envelope.recipients[0].orcpt) == (Notify.UNSET, "")
    assert str(envelope.reverse_path) == sender
    assert (envelope.envid, envelope.ret, envelope.body) == ("", Ret.UNSET, Body.SEVEN_BIT)
    assert place.queued == [stored] and place.doors.limiting.budget.held == 0
    assert all(each.aborted for each in place.spool.incomings if each.id != envelope.id)
    talk.client.hang_up()
    assert place.clients.sessions == 0


def test_every_reason_is_one_that_is_met() -> None:
    """The good message has none of them: with it there is no refusal at all."""
    for dialect in Dialect:
        talk = Talk(place_of(dialect, REASONS[0]))
        assert_clean(talk, begun=False, chunked=True)
