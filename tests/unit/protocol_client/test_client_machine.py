"""The client machine against scripted servers: each dialog whole, octet by octet, and what hostile servers do.

A script is a list of lines: ``S:`` what the server says, ``C:`` what the machine must have said since, ``E:`` the event
that must have come. Nothing else may have been said or have come.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest

from postroad.mail.attempt import Reach
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
from postroad.protocol.sending import Result

Cut = Callable[[bytes], list[bytes]]


def whole(octets: bytes) -> list[bytes]:
    return [octets]


def single(octets: bytes) -> list[bytes]:
    return [octets[at : at + 1] for at in range(len(octets))]


CUTS = pytest.mark.parametrize("cut", [whole, single])

PIPELINING = b"250-mx\r\n250-PIPELINING\r\n250 SIZE\r\n"
PLAIN = b"250 mx\r\n"
CHUNKING = b"250-mx\r\n250-PIPELINING\r\n250-AUTH PLAIN\r\n250 CHUNKING\r\n"
MAIL = b"MAIL FROM:<a@x>\r\n"


def rcpts(count: int) -> list[bytes]:
    return [b"RCPT TO:<%d@y>\r\n" % number for number in range(count)]


class Talk:
    """A machine with its events and output taken after each word of the server."""

    def __init__(self, cut: Cut = whole, *, lmtp: bool = False, hello: bytes | None = PIPELINING) -> None:
        self.cut = cut
        self.machine = ClientMachine("me.test", lmtp=lmtp)
        self.events: list[ClientEvent] = []
        self.said = b""
        if hello is not None:
            self.server(b"220 mx ESMTP\r\n")
            assert self.heard() == (b"LHLO me.test\r\n" if lmtp else b"EHLO me.test\r\n")
            self.server(hello)
            assert self.event() == SessionReady()

    def server(self, octets: bytes) -> None:
        self.said += self.machine.take_output()
        for piece in self.cut(octets):
            self.machine.feed(piece)
            while (event := self.machine.next_event()) is not None:
                self.events.append(event)
                if event == SendContent(bdat=False) or event == SendContent(bdat=True):
                    self.machine.content_sent()
            self.said += self.machine.take_output()

    def heard(self) -> bytes:
        said, self.said = self.said + self.machine.take_output(), b""
        return said

    def event(self) -> ClientEvent:
        assert self.events, f"no event; waiting for {self.machine.step}"
        return self.events.pop(0)

    def finished(self) -> tuple[Result, ...]:
        event = self.event()
        assert isinstance(event, Finished)
        assert not self.events
        return event.results

    def ended(self) -> ConnectionEnded:
        event = self.event()
        assert isinstance(event, ConnectionEnded)
        assert not self.events
        assert self.machine.step is Step.CLOSED
        return event


def told(results: tuple[Result, ...]) -> list[tuple[str, str, str]]:
    return [(found.outcome.value, found.reach.value, found.status) for found in results]


RELAYED = ("relayed", "recipient", "2.0.0")


# -- a transaction


@CUTS
def test_pipelined_is_one_write(cut: Cut) -> None:
    """RFC 2920 §3.1"""
    talk = Talk(cut)
    talk.machine.begin(MAIL, rcpts(2))
    assert talk.heard() == MAIL + b"".join(rcpts(2)) + b"DATA\r\n"
    assert talk.machine.step is Step.MAIL
    talk.server(b"250 2.1.0 ok\r\n250 2.1.5 ok\r\n250 2.1.5 ok\r\n354 go\r\n")
    assert talk.event() == SendContent(bdat=False)
    assert talk.machine.step is Step.END
    talk.server(b"250 2.0.0 queued as 7\r\n")
    results = talk.finished()
    assert told(results) == [RELAYED, RELAYED]
    assert results[0].reply is not None and str(results[0].reply) == "250 2.0.0 queued as 7"
    assert talk.machine.step is Step.IDLE
    talk.machine.begin(MAIL, rcpts(1))
    assert talk.heard() == MAIL + b"RCPT TO:<0@y>\r\nDATA\r\n"


@CUTS
def test_one_by_one_without_pipelining(cut: Cut) -> None:
    talk = Talk(cut, hello=PLAIN)
    talk.machine.begin(MAIL, rcpts(2))
    assert talk.heard() == MAIL
    for command in (*rcpts(2), b"DATA\r\n"):
        talk.server(b"250 ok\r\n")
        assert talk.heard() == command
    talk.server(b"354 go\r\n")
    assert talk.event() == SendContent(bdat=False)
    talk.server(b"250 ok\r\n")
    assert told(talk.finished()) == [RELAYED, RELAYED]


@CUTS
@pytest.mark.parametrize("lmtp", [False, True])
def test_a_question_ends_after_rcpt_and_the_next_one_begins_with_rset(cut: Cut, lmtp: bool) -> None:
    taken = "delivered" if lmtp else "relayed"
    talk = Talk(cut, lmtp=lmtp)
    talk.machine.ask(MAIL, rcpts(2))
    assert talk.heard() == MAIL + b"".join(rcpts(2))
    talk.server(b"250 ok\r\n250 ok\r\n550 5.1.1 no\r\n")
    assert told(talk.finished()) == [(taken, "recipient", "2.1.5"), ("failed", "recipient", "5.1.1")]
    talk.machine.ask(MAIL, rcpts(1))
    assert talk.heard() == b"RSET\r\n" + MAIL + b"RCPT TO:<0@y>\r\n"
    talk.server(b"250 ok\r\n250 ok\r\n451 4.7.1 later\r\n")
    assert told(talk.finished()) == [("deferred", "recipient", "4.7.1")]
    talk.machine.begin(MAIL, rcpts(1))
    assert talk.heard() == b"RSET\r\n" + MAIL + b"RCPT TO:<0@y>\r\nDATA\r\n"


def test_a_question_one_by_one() -> None:
    talk = Talk(hello=PLAIN)
    talk.machine.ask(MAIL, rcpts(1))
    talk.server(b"250 ok\r\n")
    talk.server(b"250 ok\r\n")
    assert talk.heard() == MAIL + b"RCPT TO:<0@y>\r\n"
    assert told(talk.finished()) == [("relayed", "recipient", "2.1.5")]
    assert talk.machine.step is Step.IDLE


TOLD = [b"XFORWARD ADDR=192.0.2.1\r\n", b"XFORWARD IDENT=4F1\r\n"]


@CUTS
@pytest.mark.parametrize("answer", [b"250 ok\r\n", b"501 5.5.4 no\r\n", b"451 later\r\n"])
def test_xforward_stands_before_mail_and_decides_nothing(cut: Cut, answer: bytes) -> None:
    talk = Talk(cut)
    talk.machine.begin(MAIL, rcpts(1), before=TOLD)
    assert talk.heard() == b"".join(TOLD) + MAIL + b"RCPT TO:<0@y>\r\nDATA\r\n"
    assert talk.machine.step is Step.XFORWARD
    talk.server(answer * 2 + b"250 ok\r\n250 ok\r\n354 go\r\n")
    assert talk.event() == SendContent(bdat=False)
    talk.server(b"250 ok\r\n")
    assert told(talk.finished()) == [RELAYED]


@CUTS
def test_xforward_one_by_one_behind_rset(cut: Cut) -> None:
    talk = Talk(cut, hello=PLAIN)
    talk.machine.begin(MAIL, rcpts(1))
    talk.server(b"250 ok\r\n")
    talk.server(b"550 no\r\n")
    assert told(talk.finished()) == [("failed", "recipient", "5.0.0")]
    talk.heard()
    talk.machine.begin(MAIL, rcpts(1), before=TOLD)
    for command in (b"RSET\r\n", *TOLD, MAIL, *rcpts(1)):
        assert talk.heard() == command
        talk.server(b"250 ok\r\n")
    assert talk.heard() == b"DATA\r\n"


def test_an_answer_to_xforward_that_is_none_ends_the_session() -> None:
    talk = Talk()
    talk.machine.begin(MAIL, rcpts(1), before=TOLD)
    talk.server(b"354 go\r\n")
    assert talk.ended().result.reach is Reach.SESSION


@CUTS
def test_each_recipient_has_its_outcome(cut: Cut) -> None:
    for hello in (PIPELINING, PLAIN):
        talk = Talk(cut, hello=hello)
        talk.machine.begin(MAIL, rcpts(4))
        for answer in (b"250 ok", b"550 5.1.1 no", b"251 will forward", b"450 4.2.1 later", b"252 perhaps", b"354 go"):
            talk.server(answer + b"\r\n")
        assert talk.event() == SendContent(bdat=False)
        talk.server(b"250 ok\r\n")
        assert told(talk.finished()) == [
            ("failed", "recipient", "5.1.1"), RELAYED, ("deferred", "recipient", "4.2.1"), RELAYED
        ]


@CUTS
def test_all_refused_yet_data_accepted_a_single_dot(cut: Cut) -> None:
    """RFC 2920 §3.1: "if the DATA command was accepted the client SMTP should send a single dot"."""
    talk = Talk(cut)
    talk.machine.begin(MAIL, rcpts(2))
    talk.heard()
    talk.server(b"250 ok\r\n550 no\r\n450 later\r\n354 go\r\n")
    assert talk.heard() == b".\r\n"
    assert not talk.events
    assert talk.machine.step is Step.DOT
    talk.server(b"250 thank you for nothing\r\n")
    assert told(talk.finished()) == [("failed", "recipient", "5.0.0"), ("deferred", "recipient", "4.0.0")]
    assert talk.machine.step is Step.IDLE


def test_all_refused_and_data_too_then_rset() -> None:
    talk = Talk()
    talk.machine.begin(MAIL, rcpts(1))
    talk.heard()
    talk.server(b"250 ok\r\n550 5.1.1 no\r\n503 5.5.1 no recipients\r\n")
    assert told(talk.finished()) == [("failed", "recipient", "5.1.1")]
    talk.machine.begin(MAIL, rcpts(1))
    assert talk.heard() == b"RSET\r\n" + MAIL + b"RCPT TO:<0@y>\r\nDATA\r\n"
    talk.server(b"250 reset\r\n250 ok\r\n250 ok\r\n354 go\r\n")
    assert talk.event() == SendContent(bdat=False)
    talk.server(b"250 ok\r\n")
    assert told(talk.finished()) == [RELAYED]
    talk.machine.begin(MAIL, rcpts(1))
    assert talk.heard().startswith(MAIL)  # once is enough


def test_all_refused_without_pipelining_no_data_is_said() -> None:
    talk = Talk(hello=PLAIN)
    talk.machine.begin(MAIL, rcpts(1))
    talk.server(b"250 ok\r\n")
    talk.server(b"550 no\r\n")
    assert talk.heard() == MAIL + b"RCPT TO:<0@y>\r\n"
    assert told(talk.finished()) == [("failed", "recipient", "5.0.0")]
    talk.machine.begin(MAIL, rcpts(1))
    assert talk.heard() == b"RSET\r\n"
    talk.server(b"250 ok\r\n")
    assert talk.heard() == MAIL


def test_rset_that_is_refused_ends_the_session() -> None:
    talk = Talk(hello=PLAIN)
    talk.machine.begin(MAIL, rcpts(1))
    talk.server(b"250 ok\r\n")
    talk.server(b"550 no\r\n")
    talk.events.clear()
    talk.machine.begin(MAIL, rcpts(1))
    talk.server(b"500 what?\r\n")
    assert told(talk.ended().results) == [("deferred", "session", "4.5.0")]


@CUTS
@pytest.mark.parametrize(
    ("answer", "outcome"),
    [(b"550 5.7.1 not you", ("failed", "message", "5.7.1")), (b"451 4.7.1 later", ("deferred", "message", "4.7.1"))],
)
def test_mail_refused_is_all_refused(cut: Cut, answer: bytes, outcome: tuple[str, str, str]) -> None:
    talk = Talk(cut)
    talk.machine.begin(MAIL, rcpts(2))
    talk.heard()
    talk.server(answer + b"\r\n503 need MAIL\r\n503 need MAIL\r\n503 need MAIL\r\n")
    assert told(talk.finished()) == [outcome, outcome]
    talk = Talk(cut, hello=PLAIN)
    talk.machine.begin(MAIL, rcpts(2))
    talk.server(answer + b"\r\n")
    assert talk.heard() == MAIL
    assert told(talk.finished()) == [outcome, outcome]


def test_mail_refused_but_all_else_taken() -> None:
    """A server that takes RCPT and DATA all the same gets an empty message, for nobody."""
    talk = Talk()
    talk.machine.begin(MAIL, rcpts(1))
    talk.heard()
    talk.server(b"550 5.7.1 no\r\n250 ok\r\n354 go\r\n")
    assert talk.heard() == b".\r\n"
    talk.server(b"250 ok\r\n")
    assert told(talk.finished()) == [("failed", "message", "5.7.1")]


@pytest.mark.parametrize(
    ("answer", "outcome"),
    [
        (b"554 5.7.1 spam", ("failed", "message", "5.7.1")),
        (b"552 too big", ("failed", "message", "5.3.4")),
        (b"451 4.3.0 later", ("deferred", "message", "4.3.0")),
    ],
)
def test_the_end_of_data_refused(answer: bytes, outcome: tuple[str, str, str]) -> None:
    talk = Talk()
    talk.machine.begin(MAIL, rcpts(2))
    talk.server(b"250 ok\r\n250 ok\r\n550 5.1.1 no\r\n354 go\r\n")
    talk.event()
    talk.server(answer + b"\r\n")
    assert told(talk.finished()) == [outcome, ("failed", "recipient", "5.1.1")]
    assert talk.machine.step is Step.IDLE


def test_data_refused() -> None:
    talk = Talk()
    talk.machine.begin(MAIL, rcpts(2))
    talk.server(b"250 ok\r\n250 ok\r\n550 5.1.1 no\r\n451 4.3.1 full\r\n")
    assert told(talk.finished()) == [("deferred", "message", "4.3.1"), ("failed", "recipient", "5.1.1")]
    talk.machine.begin(MAIL, rcpts(1))
    assert b"RSET\r\n" in talk.heard()


def test_too_many_recipients_are_told_apart() -> None:
    """RFC 5321 §4.5.3.1.10"""
    talk = Talk()
    talk.machine.begin(MAIL, rcpts(5))
    talk.server(
        b"250 ok\r\n250 ok\r\n452 4.5.3 too many\r\n552 too many\r\n452 4.2.2 over quota\r\n250 ok\r\n354 go\r\n"
    )
    talk.event()
    talk.server(b"250 ok\r\n")
    event = talk.event()
    assert isinstance(event, Finished)
    assert event.excess == {1, 2}
    assert told(event.results)[1:4] == [
        ("deferred", "recipient", "4.5.3"), ("deferred", "recipient", "4.5.3"), ("deferred", "recipient", "4.2.2")
    ]


def test_452_before_anybody_was_accepted_is_no_excess() -> None:
    talk = Talk()
    talk.machine.begin(MAIL, rcpts(1))
    talk.server(b"250 ok\r\n452 no room\r\n503 no\r\n")
    event = talk.event()
    assert isinstance(event, Finished)
    assert not event.excess
    assert told(event.results) == [("deferred", "recipient", "4.3.1")]


@CUTS
def test_bdat(cut: Cut) -> None:
    for hello in (PIPELINING, PLAIN):
        talk = Talk(cut, hello=hello)
        talk.machine.begin(MAIL, rcpts(1), bdat=True)
        talk.server(b"250 ok\r\n")
        talk.server(b"250 ok\r\n")
        assert talk.heard() == MAIL + b"RCPT TO:<0@y>\r\n"
        assert talk.event() == SendContent(bdat=True)
        talk.server(b"250 ok\r\n")
        assert told(talk.finished()) == [RELAYED]
    talk = Talk(cut, hello=CHUNKING)
    talk.machine.begin(MAIL, rcpts(1), bdat=True)
    talk.server(b"250 ok\r\n550 no\r\n")
    assert told(talk.finished()) == [("failed", "recipient", "5.0.0")]
    talk.heard()
    talk.machine.begin(MAIL, rcpts(1), bdat=True)
    assert talk.heard() == b"EHLO me.test\r\n", "it resets, too"
    talk.server(b"250-mx\r\n250-CHUNKING\r\n250 PIPELINING\r\n")
    assert talk.heard() == MAIL + b"RCPT TO:<0@y>\r\n"
    talk.server(b"250 ok\r\n250 ok\r\n")
    assert talk.event() == SendContent(bdat=True)


@CUTS
@pytest.mark.parametrize(
    "answer",
    [b"250 2.0.0 late", b"250-late\r\n250 still", b"550 late", b"503 5.5.1 said already", b"220-mx\r\n220 CHUNKING",
     b"354 late", b"250-mx\r\n250 CHUNKING"],
)  # fmt: skip
def test_bdat_on_a_kept_connection_waits_for_the_answer_to_ehlo(cut: Cut, answer: bytes) -> None:
    """No other reply names what was offered before. Nothing of the message was sent: another connection may have it."""
    talk = Talk(cut, hello=CHUNKING)
    talk.machine.begin(MAIL, rcpts(1), bdat=True)
    talk.server(b"250 ok\r\n250 ok\r\n")
    talk.event()  # and the content is sent
    talk.server(b"250 done\r\n")
    assert told(talk.finished()) == [RELAYED]
    talk.heard()
    talk.machine.begin(MAIL, rcpts(2), bdat=True)
    assert talk.heard() == b"EHLO me.test\r\n"
    talk.server(answer + b"\r\n")
    assert told(talk.ended().results) == [("deferred", "session", "4.5.0")] * 2
    assert b"MAIL" not in talk.heard()


def test_what_stands_behind_the_answer_to_ehlo_said_again_ends_the_session() -> None:
    talk = Talk(hello=CHUNKING)
    talk.machine.begin(MAIL, rcpts(1), bdat=True)
    talk.server(b"250 ok\r\n550 no\r\n")
    talk.finished()
    talk.machine.begin(MAIL, rcpts(1), bdat=True)
    talk.server(b"250-mx\r\n250-CHUNKING\r\n250 PIPELINING\r\n250 surplus\r\n")
    assert told(talk.ended().results) == [("deferred", "session", "4.5.0")]


def test_behind_the_answer_to_ehlo_the_session_is_as_a_new_one() -> None:
    """A refusal of MAIL alone counts again: it can be late for nothing."""
    hello = b"250-mx\r\n250 CHUNKING\r\n"
    talk = Talk(hello=hello)
    talk.machine.begin(MAIL, rcpts(1), bdat=True)
    talk.server(b"250 ok\r\n")
    talk.server(b"550 no\r\n")
    talk.finished()
    talk.machine.begin(MAIL, rcpts(1), bdat=True)
    talk.server(hello)
    talk.server(b"550 5.7.1 not from you\r\n")
    assert told(talk.finished()) == [("failed", "message", "5.7.1")]


@CUTS
@pytest.mark.parametrize("refusal", [b"500 what?", b"502 5.5.1 no", b"503 5.5.1 bad sequence", b"555 5.5.4 no"])
@pytest.mark.parametrize("lmtp", [False, True])
def test_bdat_refused_as_a_command_spoils_the_session_not_the_message(cut: Cut, refusal: bytes, lmtp: bool) -> None:
    """RFC 5321 §4.2.4: it is said of the command, not of the message."""
    talk = Talk(cut, lmtp=lmtp)
    talk.machine.begin(MAIL, rcpts(3), bdat=True)
    talk.server(b"250 ok\r\n250 ok\r\n550 5.1.1 no\r\n250 ok\r\n")
    talk.event()
    talk.server(refusal + b"\r\n")
    ended = talk.ended()
    no = ("deferred", "session", "4.5.1")
    assert ended.bdat_refused and told(ended.results) == [no, ("failed", "recipient", "5.1.1"), no]


@pytest.mark.parametrize(
    ("answer", "outcome"),
    [(b"554 5.7.1 no", ("failed", "message", "5.7.1")), (b"551 5.7.1 no", ("failed", "message", "5.7.1"))],
)
def test_the_last_chunk_may_be_refused_for_the_message(answer: bytes, outcome: tuple[str, str, str]) -> None:
    talk = Talk()
    talk.machine.begin(MAIL, rcpts(1), bdat=True)
    talk.server(b"250 ok\r\n250 ok\r\n")
    talk.event()
    talk.server(answer + b"\r\n")
    assert told(talk.finished()) == [outcome]


# -- LMTP


@CUTS
def test_lmtp_answers_for_each_recipient(cut: Cut) -> None:
    """RFC 2033 §4.2"""
    talk = Talk(cut, lmtp=True)
    talk.machine.begin(MAIL, rcpts(4))
    talk.server(b"250 ok\r\n250 ok\r\n550 5.1.1 no\r\n250 ok\r\n250 ok\r\n354 go\r\n")
    assert talk.event() == SendContent(bdat=False)
    talk.server(b"250 2.1.5 one\r\n")
    assert not talk.events
    assert talk.machine.step is Step.END
    talk.server(b"452 4.2.2 full\r\n552 5.2.2 full\r\n")
    assert told(talk.finished()) == [
        ("delivered", "recipient", "2.1.5"), ("failed", "recipient", "5.1.1"), ("deferred", "recipient", "4.2.2"),
        ("failed", "recipient", "5.2.2"),
    ]
    assert talk.machine.step is Step.IDLE


def test_lmtp_lost_between_the_answers() -> None:
    talk = Talk(lmtp=True)
    talk.machine.begin(MAIL, rcpts(3))
    talk.server(b"250 ok\r\n250 ok\r\n250 ok\r\n250 ok\r\n354 go\r\n")
    talk.event()
    talk.server(b"250 2.0.0 one\r\n")
    assert told(talk.machine.lost("4.4.2", "gone").results) == [
        ("delivered", "recipient", "2.0.0"), ("deferred", "message", "4.4.2"), ("deferred", "message", "4.4.2")
    ]


def test_lmtp_354_for_nobody_ends_the_session() -> None:
    """RFC 2033 §4.2 demands 503: how many answers a dot would bring nobody can tell."""
    talk = Talk(lmtp=True)
    talk.machine.begin(MAIL, rcpts(1))
    talk.heard()
    talk.server(b"250 ok\r\n550 5.1.1 no\r\n354 go\r\n")
    assert talk.heard() == b""
    event = talk.event()
    assert isinstance(event, Finished)
    assert told(event.results) == [("failed", "recipient", "5.1.1")]
    assert talk.ended().results == ()


def test_lmtp_has_no_helo() -> None:
    talk = Talk(lmtp=True, hello=None)
    talk.server(b"220 mx\r\n")
    talk.server(b"500 LHLO? what?\r\n")
    assert talk.ended().result.reach is Reach.HOP
    assert talk.heard() == b"LHLO me.test\r\n"


# -- the session


@CUTS
@pytest.mark.parametrize(
    ("greeting", "outcome"),
    [
        (b"554 5.7.1 go away\r\n", ("failed", "hop", "5.7.1")),
        (b"421 busy\r\n", ("deferred", "hop", "4.3.2")),
        (b"450-one\r\n450 two\r\n", ("deferred", "hop", "4.0.0")),
        (b"250 hello\r\n", ("deferred", "session", "4.5.0")),
        (b"354 hello\r\n", ("deferred", "session", "4.5.0")),
        (b"\x80\x02\r\n", ("deferred", "session", "4.5.0")),
    ],
)
def test_a_greeting_that_is_none(cut: Cut, greeting: bytes, outcome: tuple[str, str, str]) -> None:
    talk = Talk(cut, hello=None)
    talk.server(greeting)
    ended = talk.ended()
    assert told((ended.result,)) == [outcome]
    assert talk.heard() == b""


@CUTS
def test_helo_where_ehlo_is_not_known(cut: Cut) -> None:
    """RFC 5321 §3.2"""
    talk = Talk(cut, hello=None)
    talk.server(b"220 old\r\n")
    talk.server(b"502 5.5.1 what?\r\n")
    assert talk.heard() == b"EHLO me.test\r\nHELO me.test\r\n"
    talk.server(b"250-old\r\n250 PIPELINING\r\n")
    assert talk.event() == SessionReady()
    assert not talk.machine.capabilities.pipelining  # HELO offers nothing
    talk = Talk(cut, hello=None)
    talk.server(b"220 old\r\n")
    talk.server(b"502 5.5.1 what?\r\n")
    talk.server(b"550 no\r\n")
    assert told((talk.ended().result,)) == [("failed", "hop", "5.0.0")]


def test_ehlo_refused_for_now() -> None:
    talk = Talk(hello=None)
    talk.server(b"220 mx\r\n")
    talk.server(b"450 4.7.1 later\r\n")
    assert told((talk.ended().result,)) == [("deferred", "hop", "4.7.1")]
    assert talk.heard() == b"EHLO me.test\r\n"


@CUTS
def test_starttls_forgets_what_was_learnt(cut: Cut) -> None:
    """RFC 3207 §4.2"""
    talk = Talk(cut)
    talk.machine.start_tls()
    assert talk.heard() == b"STARTTLS\r\n"
    talk.server(b"220 2.0.0 ready\r\n")
    assert talk.event() == StartHandshake()
    assert talk.machine.step is Step.HANDSHAKE
    talk.machine.tls_started()
    assert not talk.machine.capabilities.pipelining
    assert talk.heard() == b"EHLO me.test\r\n"
    talk.server(b"250-mx\r\n250 DSN\r\n")
    assert talk.event() == SessionReady()
    assert talk.machine.capabilities.dsn and not talk.machine.capabilities.pipelining


@CUTS
def test_a_greeting_inside_tls_shifts_no_replies(cut: Cut) -> None:
    talk = Talk(cut, hello=b"250-mx\r\n250 STARTTLS\r\n")
    talk.machine.start_tls()
    talk.server(b"220 go\r\n")
    assert talk.event() == StartHandshake()
    talk.machine.tls_started()
    talk.server(b"220 mx ESMTP again\r\n250-mx\r\n250 PIPELINING\r\n")
    assert talk.ended().result.reach is Reach.SESSION


@pytest.mark.parametrize("behind", [b"250 mx\r\n", b"2", b"\x16\x03\x01", b"421 no\r\n"])
def test_octets_behind_the_answer_to_starttls(behind: bytes) -> None:
    """CVE-2011-0411 on the client's side."""
    talk = Talk()
    talk.machine.start_tls()
    talk.server(b"220 ready\r\n" + behind)
    ended = talk.ended()
    assert told((ended.result,)) == [("deferred", "hop", "4.7.0")]
    talk = Talk()
    talk.machine.start_tls()
    talk.server(b"220 ready\r\n")
    assert talk.event() == StartHandshake()
    talk.server(behind)  # in a segment of its own, before the handshake has begun
    assert told((talk.ended().result,)) == [("deferred", "hop", "4.7.0")]


def test_starttls_refused_leaves_the_session() -> None:
    talk = Talk()
    talk.machine.start_tls()
    talk.server(b"454 4.7.0 TLS not available\r\n")
    event = talk.event()
    assert isinstance(event, TlsRefused) and event.reply.code == 454
    assert talk.machine.step is Step.IDLE
    talk = Talk()
    talk.machine.start_tls()
    talk.server(b"250 sure\r\n")
    assert talk.ended().result.status == "4.5.0"


def test_auth_with_an_initial_response() -> None:
    talk = Talk()
    talk.machine.authenticate("PLAIN", b"\0ada\0secret")
    assert talk.heard() == b"AUTH PLAIN AGFkYQBzZWNyZXQ=\r\n"
    talk.server(b"235 2.7.0 fine\r\n")
    assert talk.event() == AuthSucceeded()
    talk.machine.authenticate("EXTERNAL", b"")
    assert talk.heard() == b"AUTH EXTERNAL =\r\n"  # RFC 4954 §4
    talk.server(b"535 5.7.8 no\r\n")
    event = talk.event()
    assert isinstance(event, AuthRefused) and event.reply is not None and event.reply.status == "5.7.8"
    assert talk.machine.step is Step.IDLE


@CUTS
def test_auth_with_challenges(cut: Cut) -> None:
    talk = Talk(cut)
    talk.machine.authenticate("LOGIN", None)
    talk.server(b"334 VXNlciBOYW1lAA==\r\n")
    assert talk.event() == AuthChallenged(b"User Name\0") and talk.machine.step is Step.RESPONSE
    talk.machine.respond(b"ada")
    talk.server(b"334 UGFzc3dvcmQA\r\n")
    assert talk.event() == AuthChallenged(b"Password\0")
    talk.machine.respond(b"secret")
    assert talk.heard() == b"AUTH LOGIN\r\nYWRh\r\nc2VjcmV0\r\n"
    talk.server(b"235 ok\r\n")
    assert talk.event() == AuthSucceeded()


@pytest.mark.parametrize("challenge", [b"334 !!!\r\n", b"334 YQ\r\n", b"334 YWFh\r\n"])
def test_auth_is_cancelled_where_it_cannot_go_on(challenge: bytes) -> None:
    talk = Talk()
    talk.machine.authenticate("PLAIN", b"x")
    talk.heard()
    talk.server(challenge)
    if talk.machine.step is Step.RESPONSE:
        assert talk.event() == AuthChallenged(b"aaa")
        talk.machine.respond(None)
    assert talk.heard() == b"*\r\n"
    talk.server(b"501 5.7.0 cancelled\r\n")
    assert talk.event() == AuthRefused(None)


@pytest.mark.parametrize(
    ("octets", "ended"),
    [(b"235 2.7.0 why not\r\n", True), (b"250 ok\r\n", True), (b"421 4.3.2 bye\r\n", True), (b"", False)],
)
def test_what_comes_while_a_response_is_being_made(octets: bytes, ended: bool) -> None:
    talk = Talk()
    talk.machine.authenticate("SCRAM-SHA-256", b"x")
    talk.server(b"334 YWFh\r\n")
    assert talk.event() == AuthChallenged(b"aaa")
    talk.server(octets)
    assert bool(talk.events) is ended
    if ended:
        talk.ended()
    else:
        talk.machine.respond(b"y")
        assert talk.heard().endswith(b"\r\neQ==\r\n")


def test_a_server_that_goes_on_after_a_cancel() -> None:
    for answer in (b"334 YWFh\r\n", b"235 2.7.0 welcome all the same\r\n"):
        talk = Talk()
        talk.machine.authenticate("PLAIN", b"x")
        talk.server(b"334 !!!\r\n")
        talk.server(answer)
        assert talk.ended().result.status == "4.5.0"


def test_a_long_initial_response_waits_for_the_challenge() -> None:
    """RFC 4954 §4: the command line stays within 512 octets."""
    talk = Talk()
    talk.machine.authenticate("PLAIN", b"x" * 400)
    assert talk.heard() == b"AUTH PLAIN\r\n"
    talk.server(b"334 \r\n")
    assert len(talk.heard()) == 536 + 2
    talk.server(b"235 ok\r\n")
    assert talk.event() == AuthSucceeded()


def test_quit() -> None:
    talk = Talk()
    talk.machine.quit()
    assert talk.heard() == b"QUIT\r\n"
    talk.server(b"221 2.0.0 bye\r\n")
    assert talk.event() == Goodbye()
    assert talk.machine.step is Step.CLOSED


# -- hostile and broken servers


def at_every_step() -> list[tuple[str, bytes, int]]:
    """What the server had said when it went wrong, and how many results there must be."""
    return [
        ("idle", b"", 0),
        ("mail", b"", 3),
        ("rcpt", b"250 ok\r\n", 3),
        ("rcpt", b"250 ok\r\n550 5.1.1 no\r\n", 3),
        ("data", b"250 ok\r\n550 5.1.1 no\r\n250 ok\r\n250 ok\r\n", 3),
        ("end", b"250 ok\r\n550 5.1.1 no\r\n250 ok\r\n250 ok\r\n354 go\r\n", 3),
    ]


def brought_to(step: str, said: bytes) -> Talk:
    talk = Talk()
    if step != "idle":
        talk.machine.begin(MAIL, rcpts(3))
        talk.server(said)
        talk.events.clear()
    return talk


@pytest.mark.parametrize(("step", "said", "count"), at_every_step())
def test_421_at_any_time_ends_the_session(step: str, said: bytes, count: int) -> None:
    """RFC 5321 §3.8"""
    talk = brought_to(step, said)
    talk.server(b"421 4.3.2 shutting down\r\n")
    ended = talk.ended()
    assert told((ended.result,)) == [("deferred", "session", "4.3.2")]
    refused = said.count(b"550")
    assert told(ended.results) == (
        [("failed", "recipient", "5.1.1")] * refused + [("deferred", "session", "4.3.2")] * (count - refused)
    )
    talk.server(b"250 never mind\r\n")
    assert not talk.events


@pytest.mark.parametrize(("step", "said", "count"), at_every_step())
@pytest.mark.parametrize("garbage", [b"hello\r\n", b"250 ok\n", b"\0\0\0\0\r\n", b"250-x\r\n" * 200, b"2" * 5000])
def test_garbage_ends_the_session(step: str, said: bytes, count: int, garbage: bytes) -> None:
    talk = brought_to(step, said)
    talk.server(garbage)
    ended = talk.ended()
    undecided = ("deferred", "message" if step == "end" else "session", "4.5.0")
    refused = said.count(b"550")
    assert told(ended.results) == [("failed", "recipient", "5.1.1")] * refused + [undecided] * (count - refused)


@pytest.mark.parametrize(("step", "said", "count"), at_every_step())
def test_the_connection_lost(step: str, said: bytes, count: int) -> None:
    talk = brought_to(step, said)
    ended = talk.machine.lost("4.4.2", "gone")
    reach = "message" if step == "end" else "session"
    refused = said.count(b"550")
    assert told(ended.results) == (
        [("failed", "recipient", "5.1.1")] * refused + [("deferred", reach, "4.4.2")] * (count - refused)
    )
    if step == "end":
        assert "may have taken it" in ended.results[-1].text
    assert talk.machine.next_event() is None
    assert talk.machine.lost("4.4.2", "again").results == ()


@pytest.mark.parametrize(
    ("said", "answer"), [(b"", b"354 x\r\n"), (b"250 ok\r\n", b"354 x\r\n"), (b"250 ok\r\n" * 2, b"250 x\r\n")]
)
def test_replies_that_do_not_fit(said: bytes, answer: bytes) -> None:
    talk = Talk()
    talk.machine.begin(MAIL, rcpts(1))
    talk.server(said)
    talk.server(answer)
    assert told(talk.ended().results) == [("deferred", "session", "4.5.0")]


def test_3yz_to_the_end_of_data_is_not_tried_again_at_once() -> None:
    talk = brought_to("end", b"250 ok\r\n" * 4 + b"354 go\r\n")
    talk.server(b"354 more?\r\n")
    assert told(talk.ended().results) == [("deferred", "message", "4.5.0")] * 3


@pytest.mark.parametrize("behind", [b"250 ok\r\n", b"2", b"550 no\r\n"])
def test_an_answer_before_its_question(behind: bytes) -> None:
    """A reply that comes too early would shift all behind it: a 250 for a message that was never sent."""
    talk = Talk(hello=None)
    talk.server(b"220 mx\r\n250 mx\r\n")
    assert talk.ended().result.status == "4.5.0"
    talk = Talk(hello=PLAIN)
    talk.machine.begin(MAIL, rcpts(1))
    talk.heard()
    talk.server(b"250 ok\r\n" + behind)
    assert told(talk.ended().results) == [("deferred", "session", "4.5.0")]


@pytest.mark.parametrize(
    ("behind", "outcome", "words"),
    [
        (b"554 5.7.1 no after all\r\n", ("failed", "message", "5.7.1"), "554 5.7.1 no after all"),
        (b"451 4.3.0 later\r\n", ("deferred", "message", "4.3.0"), "451 4.3.0 later"),
        (b"421 4.3.2 going down\r\n", ("deferred", "session", "4.3.2"), "421 4.3.2 going down"),
        (b"250 ok\r\n", ("deferred", "session", "4.5.0"), "250 ok"),
    ],
)
def test_what_stands_behind_354_decides_and_nothing_is_sent(
    behind: bytes, outcome: tuple[str, str, str], words: str
) -> None:
    """In one segment, or with the second reply cut anywhere: no content goes out, the words are kept."""
    for at in range(1, len(behind)):
        machine = Talk().machine
        machine.begin(MAIL, rcpts(2))
        machine.take_output()
        machine.feed(b"250 ok\r\n550 5.1.1 no\r\n250 ok\r\n354 go\r\n" + behind[:at])
        assert machine.next_event() is None and machine.step is Step.DATA
        machine.feed(behind[at:])
        ended = machine.next_event()
        assert isinstance(ended, ConnectionEnded)
        assert told(ended.results) == [("failed", "recipient", "5.1.1"), outcome]
        assert words in f"{ended.results[1].reply} {ended.results[1].text}"
    machine = Talk().machine
    machine.begin(MAIL, rcpts(1))
    machine.take_output()
    machine.feed(b"250 ok\r\n250 ok\r\n354 go\r\n2")
    assert machine.next_event() is None
    found = machine.lost("4.4.2", "gone").results
    assert told(found) == [("deferred", "session", "4.4.2")] and "had begun to say: 2" in found[0].text


def test_an_answer_to_nothing_while_idle() -> None:
    talk = brought_to("end", b"250 ok\r\n" * 4 + b"354 go\r\n")
    talk.server(b"250 ok\r\n250 and another\r\n")
    event = talk.event()
    assert isinstance(event, Finished)
    assert told(event.results) == [RELAYED] * 3
    assert talk.ended().results == ()


@pytest.mark.parametrize("octets", [b"2", b"25", b"250 ok", b"250-half\r\n", b"421 4.7.0 by", b"\0"])
def test_octets_while_idle_end_the_session(octets: bytes) -> None:
    """They would be taken for the reply to the next MAIL."""
    talk = Talk()
    talk.server(octets)
    ended = talk.ended()
    assert ended.results == () and ended.result.status == "4.5.0"
    talk = Talk()
    talk.machine.feed(octets)  # the host begins before it has looked
    talk.machine.begin(MAIL, rcpts(2))
    assert talk.heard() == b""
    talk.server(b"")
    assert told(talk.ended().results) == [("deferred", "session", "4.5.0")] * 2


# -- nothing of one message touches the next (RFC 5321 §3.3)


def refused_before(hello: bytes = PIPELINING) -> Talk:
    """MAIL of the first message was refused for good."""
    talk = Talk(hello=hello)
    talk.machine.begin(MAIL, rcpts(1))
    talk.server(b"550 5.7.1 first sender refused\r\n" + (b"503 no\r\n503 no\r\n" if hello == PIPELINING else b""))
    assert told(talk.finished()) == [("failed", "message", "5.7.1")]
    talk.heard()
    return talk


def relayed_before(hello: bytes = PIPELINING) -> Talk:
    talk = Talk(hello=hello)
    talk.machine.begin(MAIL, rcpts(1))
    for answer in (b"250 ok", b"250 ok", b"354 go", b"250 2.0.0 ok"):
        talk.server(answer + b"\r\n")
    talk.event()
    assert told(talk.finished()) == [RELAYED]
    talk.heard()
    return talk


@pytest.mark.parametrize("hello", [PIPELINING, PLAIN])
def test_a_refusal_of_mail_is_not_told_of_the_next_message(hello: bytes) -> None:
    talk = refused_before(hello)
    talk.machine.feed(b"42")  # a reply that the network has cut in two
    talk.machine.begin(MAIL, rcpts(2))
    assert talk.heard() == b""
    event = talk.machine.next_event()
    assert isinstance(event, ConnectionEnded)
    assert told(event.results) == [("deferred", "session", "4.5.0")] * 2
    for end in ("lost", "421"):
        talk = refused_before(hello)
        talk.machine.begin(MAIL, rcpts(1))
        if end == "lost":
            found = talk.machine.lost("4.4.2", "gone").results
        else:
            talk.server(b"421 4.3.2 bye\r\n")
            found = talk.ended().results
        assert [each.outcome.value for each in found] == ["deferred"]


@pytest.mark.parametrize("late", [b"550 5.7.1 meant for the first\r\n", b"451 4.7.1 meant for the first\r\n"])
@pytest.mark.parametrize("hello", [PIPELINING, PLAIN])
def test_a_late_refusal_is_not_taken_for_that_of_the_next_mail(hello: bytes, late: bytes) -> None:
    """It arrives when MAIL is on its way: the reply to MAIL that comes behind it gives it away."""
    talk = relayed_before(hello)
    talk.machine.begin(MAIL, rcpts(1))
    talk.server(late)
    talk.server(b"250 2.1.0 second sender ok\r\n")
    assert told(talk.ended().results) == [("deferred", "session", "4.5.0")]
    talk = relayed_before(hello)
    talk.machine.begin(MAIL, rcpts(1))
    talk.server(late)
    assert not talk.events
    assert told(talk.machine.lost("4.4.2", "gone").results) == [("deferred", "session", "4.4.2")]


@pytest.mark.parametrize("hello", [PIPELINING, PLAIN])
def test_a_refusal_on_a_kept_connection_counts_once_another_confirms_it(hello: bytes) -> None:
    talk = relayed_before(hello)
    talk.machine.begin(MAIL, rcpts(3))
    talk.server(b"550 5.7.1 second sender refused\r\n")
    assert not talk.events
    for _ in range(4 if hello == PIPELINING else 1):
        talk.server(b"503 5.5.1 MAIL first\r\n")
    found = talk.finished()
    assert told(found) == [("failed", "message", "5.7.1")] * 3 and "second" in str(found[0].reply)


def test_a_late_250_on_a_kept_connection_spoils_the_session_only() -> None:
    for late in (b"250 ok\r\n", b"251 x\r\n"):
        talk = relayed_before()
        talk.machine.begin(MAIL, rcpts(2))
        talk.server(late + b"250 ok\r\n550 5.1.1 no\r\n250 ok\r\n354 go\r\n")
        assert told(talk.ended().results) == [("deferred", "session", "4.5.0")] * 2


# -- the words of the remote are kept


@CUTS
@pytest.mark.parametrize(
    ("refusal", "outcome"),
    [
        (b"554 5.7.1 blocked, see https://bl.example/", ("failed", "hop", "5.7.1")),
        (b"550 no", ("failed", "hop", "5.0.0")),
    ],
)
@pytest.mark.parametrize("end", ["lost", "garbage", "silent"])
def test_ehlo_refused_and_closed(cut: Cut, refusal: bytes, outcome: tuple[str, str, str], end: str) -> None:
    talk = Talk(cut, hello=None)
    talk.server(b"220 mx\r\n")
    talk.server(refusal + b"\r\n")
    assert talk.heard().endswith(b"HELO me.test\r\n")
    if end == "garbage":
        talk.server(b"what\r\n")
        result = talk.ended().result
    else:
        result = talk.machine.lost("4.4.2", f"the remote is {end}").result
    assert told((result,)) == [outcome]
    assert str(result.reply) == refusal.decode()
    assert end == "garbage" or end in result.text


def test_helo_refused_in_other_words() -> None:
    talk = Talk(hello=None)
    talk.server(b"220 mx\r\n")
    talk.server(b"554 5.7.1 blocked\r\n")
    talk.server(b"503 5.5.1 enough\r\n")
    result = talk.ended().result
    assert str(result.reply) == "503 5.5.1 enough" and "554 5.7.1 blocked" in result.text


@pytest.mark.parametrize("code", [b"521 5.3.2 this host takes no mail", b"556 5.1.10 no mail"])
def test_a_host_that_takes_no_mail_is_not_asked_again_by_helo(code: bytes) -> None:
    """RFC 7504 §3"""
    talk = Talk(hello=None)
    talk.server(b"220 mx\r\n")
    talk.server(code + b"\r\n")
    assert talk.heard() == b"EHLO me.test\r\n"
    result = talk.ended().result
    assert result.outcome.value == "failed" and str(result.reply) == code.decode()


@CUTS
def test_a_greeting_of_two_codes(cut: Cut) -> None:
    talk = Talk(cut, hello=None)
    talk.server(b"220-welcome to mx\r\n554 5.7.1 but not you\r\n")
    result = talk.ended().result
    assert told((result,)) == [("failed", "hop", "5.7.1")]
    assert str(result.reply) == "554 5.7.1 welcome to mx but not you"


@pytest.mark.parametrize("behind", [b"554 5.7.1 not you\r\n", b"421 4.7.0 too many\r\n"])
def test_a_second_reply_behind_the_greeting_or_ehlo_is_a_refusal(behind: bytes) -> None:
    for said in (b"220 mx\r\n", b"220 mx\r\n250 mx\r\n"):
        talk = Talk(hello=None)
        for line in said.splitlines(keepends=True)[:-1]:
            talk.server(line)
        talk.server(said.splitlines(keepends=True)[-1] + behind)
        result = next(event for event in talk.events if isinstance(event, ConnectionEnded)).result
        assert str(result.reply) == behind.decode().strip()


@pytest.mark.parametrize(
    "octets",
    [b"hello there\r\n", b"250 hello there\n", b"250-hello there\r\n" * 300, b"250 hello there" + b"x" * 5000],
)
def test_what_breaks_the_protocol_is_quoted(octets: bytes) -> None:
    talk = brought_to("rcpt", b"250 ok\r\n")
    talk.server(octets)
    assert "hello there" in talk.ended().result.text


def test_half_a_reply_is_quoted_when_the_connection_ends() -> None:
    talk = brought_to("rcpt", b"250 ok\r\n554-5.7.1 blocked\r\n554 5.7.1 see htt")
    found = talk.machine.lost("4.4.2", "the remote closed the connection").results
    assert found[0].text == "the remote closed the connection; it had begun to say: 554-5.7.1 blocked 554 5.7.1 see htt"


@pytest.mark.parametrize("step", ["MAIL", "RCPT", "DATA"])
@pytest.mark.parametrize("code", [b"432", b"534", b"535", b"538"])
def test_codes_of_auth_say_nothing_of_auth_elsewhere(step: str, code: bytes) -> None:
    """RFC 4954 §6 defines them for AUTH alone."""
    said = {"MAIL": b"", "RCPT": b"250 ok\r\n", "DATA": b"250 ok\r\n250 ok\r\n"}[step]
    talk = Talk()
    talk.machine.begin(MAIL, rcpts(1))
    talk.server(said + code + b" no\r\n" + b"503 no\r\n" * (2 - said.count(b"\r\n")))
    (found,) = talk.finished()
    assert found.status == f"{chr(code[0])}.0.0" and found.reach in (Reach.MESSAGE, Reach.RECIPIENT)


@pytest.mark.parametrize(
    ("answer", "outcome"),
    [
        (b"552 5.3.4 too big", ("failed", "message", "5.3.4")),
        (b"451 4.3.0 later", ("deferred", "message", "4.3.0")),
        (b"421 4.3.2 bye", ("deferred", "session", "4.3.2")),
        (b"250 ok", ("deferred", "session", "4.5.0")),
    ],
)
def test_an_answer_while_content_is_sent(answer: bytes, outcome: tuple[str, str, str]) -> None:
    machine = Talk().machine
    machine.begin(MAIL, rcpts(1))
    machine.take_output()
    machine.feed(b"250 ok\r\n250 ok\r\n354 go\r\n")
    assert machine.next_event() == SendContent(bdat=False)
    machine.feed(answer + b"\r\n")
    ended = machine.next_event()
    assert isinstance(ended, ConnectionEnded)
    assert told(ended.results) == [outcome]


def test_what_a_remote_said_is_kept_in_bounds() -> None:
    talk = Talk()
    talk.machine.begin(MAIL, rcpts(1))
    line = b"x" * 4000 + b"\r\n"
    talk.server(b"250 ok\r\n" + b"550-" * 1 + line + (b"550-" + line) * 14 + b"550 end\r\n503 no\r\n")
    (found,) = talk.finished()
    assert found.reply is not None
    assert sum(map(len, found.reply.lines)) <= 20 * 512


def test_the_count_of_answers_tells_progress() -> None:
    """For time limits: an octet of a reply is no answer."""
    talk = Talk()
    talk.machine.begin(MAIL, rcpts(1))
    before = talk.machine.answers
    talk.server(b"250 slo")
    assert talk.machine.answers == before
    talk.server(b"w\r\n")
    assert talk.machine.answers == before + 1


