"""Whatever a remote says, wherever it is cut: nothing raises, each recipient has one outcome, cuts change nothing."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from postroad.mail.attempt import Outcome
from postroad.protocol.client import ClientMachine
from postroad.protocol.client_events import ConnectionEnded, Finished, SendContent, SessionReady, Step
from postroad.protocol.sending import Result

LINES = st.sampled_from(
    [b"220 mx\r\n", b"250 ok\r\n", b"250-mx\r\n250 PIPELINING\r\n", b"250-mx\r\n250 CHUNKING\r\n", b"354 go\r\n",
     b"421 bye\r\n", b"450 4.2.1 later\r\n", b"452 4.5.3 many\r\n", b"550 5.1.1 no\r\n", b"250-x\r\n", b"334 YQ==\r\n",
     b"250 ok\n", b"\r\n", b"250", b"\xff\r\n"]
)
TALKS = st.lists(LINES | st.binary(max_size=12), max_size=24)


def run(pieces: list[bytes], *, lmtp: bool) -> tuple[list[tuple[Result, ...]], Step]:
    machine = ClientMachine("me.test", lmtp=lmtp)
    outcomes: list[tuple[Result, ...]] = []
    carrying = False
    for piece in pieces:
        machine.feed(piece)
        while (event := machine.next_event()) is not None:
            match event:
                case SessionReady():
                    machine.begin(b"MAIL FROM:<>\r\n", [b"RCPT TO:<a@b>\r\n"] * 3, bdat=machine.capabilities.chunking)
                    carrying = True
                case SendContent():
                    machine.content_sent()
                case Finished(results=results) if carrying:
                    outcomes.append(results)
                    carrying = False
                case ConnectionEnded(results=results) if carrying:
                    outcomes.append(results)
                    carrying = False
                case _:
                    pass
        machine.take_output()
    step = machine.step
    if carrying:
        outcomes.append(machine.lost("4.4.2", "gone").results)
    return outcomes, step


@settings(max_examples=300, deadline=None)
@given(talk=TALKS, lmtp=st.booleans())
def test_everybody_has_one_outcome(talk: list[bytes], lmtp: bool) -> None:
    outcomes, _ = run(talk, lmtp=lmtp)
    for results in outcomes:
        assert len(results) == 3
        for found in results:
            assert found.status[0] == {Outcome.FAILED: "5", Outcome.DEFERRED: "4"}.get(found.outcome, "2")
            assert found.reply is None or all(line.isprintable() for line in found.reply.lines)
            assert found.text.isprintable()


@settings(max_examples=300, deadline=None)
@given(talk=TALKS, lmtp=st.booleans())
def test_nobody_is_told_as_relayed_without_a_2yz_after_354(talk: list[bytes], lmtp: bool) -> None:
    outcomes, _ = run(talk, lmtp=lmtp)
    octets = b"".join(talk)
    relayed = any(found.outcome in (Outcome.RELAYED, Outcome.DELIVERED) for found in outcomes[0]) if outcomes else False
    if relayed and b"CHUNKING" not in octets:
        assert b"250" in octets[octets.index(b"354") :]


@settings(max_examples=200, deadline=None)
@given(talk=st.lists(LINES, max_size=16), lmtp=st.booleans())
def test_octets_one_by_one_say_the_same(talk: list[bytes], lmtp: bool) -> None:
    """Lines come one write each, as an honest server's do: cutting them finer changes nothing."""
    single = [line[at : at + 1] for line in talk for at in range(len(line))]
    whole, cut = run(talk, lmtp=lmtp), run(single, lmtp=lmtp)
    assert [[(found.outcome, found.reach, found.status) for found in one] for one in whole[0]] == [
        [(found.outcome, found.reach, found.status) for found in one] for one in cut[0]
    ]
