"""Each command between MAIL, RCPT, DATA and BDAT leaves the transaction whole, or ends it whole.

A transaction of which a part is left would send a message to recipients of another one, or lose some. RFC 5321
§4.1.1.5 and §4.1.4: RSET and a successful EHLO end it; NOOP, VRFY, EXPN and HELP change nothing; a command that is
refused leaves all as it was. RFC 4954 §4, RFC 3207 §4: AUTH and STARTTLS are not for the midst of a transaction.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from postroad.mail.envelope import Body, Notify, Ret
from postroad.mail.policy import ACCEPT, Question, Rules, Verdict, reject
from postroad.protocol.offer import Dialect
from tests.logic.talk import RIGHT, WRONG, Talk, content, house
from tests.unit.receive.fakes import House

GOOD = b"Good: yes\r\n\r\nHello\r\n"
MAIL = "MAIL FROM:<ada@elsewhere.test> BODY=8BITMIME RET=HDRS ENVID=mine"
ANN = "RCPT TO:<ann@local.test> NOTIFY=DELAY ORCPT=rfc822;first@elsewhere.test"
BOB = "RCPT TO:<bob@local.test> NOTIFY=NEVER"

# Commands that leave the transaction as it is, and their reply. {hello}: EHLO, or LHLO over LMTP.
LEAVE: dict[str, int] = {
    "NOOP": 250,
    "NOOP MAIL FROM:<x@y.test>": 250,
    "VRFY ann@local.test": 250,
    "VRFY nobody@local.test": 550,
    "VRFY": 501,
    "EXPN staff": 550,
    "HELP": 214,
    "HELP RSET": 214,
    "ETRN local.test": 0,  # 502: not offered; 503 where it were
    "AUTH PLAIN": 503,
    f"AUTH PLAIN {RIGHT}": 503,
    f"AUTH PLAIN {WRONG}": 503,
    "AUTH": 503,
    "STARTTLS": 503,
    "XCLIENT ADDR=198.51.100.1": 503,
    "XFORWARD ADDR=198.51.100.1": 503,
    "MAIL FROM:<other@elsewhere.test>": 503,
    "MAIL FROM:<other@elsewhere.test> BODY=7BIT ENVID=other": 503,
    "MAIL": 503,
    "RSET now": 501,
    "QUIT now": 501,
    "{hello}": 501,
    "{hello} " + "x" * 256: 501,
    "{hello} refused.test": 550,
    "{other} client.test": 500,
    "NONSENSE": 500,
    "": 500,
    "SEND FROM:<x@y.test>": 502,
    "NOOP \x07": 500,
    "NOOP " + "x" * 3_000: 500,
    "BDATA": 500,
}
# Only before the first chunk: behind it RCPT and DATA are out of order.
LEAVE_RECIPIENTS: dict[str, int] = {
    "RCPT TO:<nobody@local.test>": 550,
    "RCPT TO:<x@far.test>": 550,
    "RCPT TO:<a b>": 501,
    "RCPT": 501,
    "RCPT TO:<ann@local.test> NOTIFY=SOMETIMES": 501,
    "RCPT TO:<ann@local.test> UNKNOWN=1": 555,
    "DATA now": 501,
}
IN_CHUNKS: dict[str, int] = {"RCPT TO:<ann@local.test>": 503, "DATA": 503, "DATA now": 503}
END: dict[str, int] = {"RSET": 250, "rset": 250, "{hello} client.test": 250, "{hello} another.test": 250}
PLACES = ("MAIL", "RCPT", "RCPT RCPT", "BDAT")


def place_of(dialect: Dialect) -> House:
    def hello(context: Question) -> Verdict:
        return reject(550, "5.7.1", "not you") if context.peer.hello == "refused.test" else ACCEPT

    return house(dialect, rules=Rules(hello=hello))


def begun(talk: Talk, place: str) -> None:
    """The transaction up to there, with two recipients in the end."""
    assert talk.ask(MAIL) == [250]
    if place != "MAIL":
        assert talk.ask(ANN) == [250]
    if place in ("RCPT RCPT", "BDAT"):
        assert talk.ask(BOB) == [250]
    if place == "BDAT":
        assert [code for code, _ in talk.send(b"BDAT 9\r\n" + GOOD[:9])] == [250]


def ended_well(talk: Talk, place: str) -> None:
    """The rest of it."""
    replies = 2 if talk.lmtp else 1
    if place == "MAIL":
        assert talk.ask(ANN) == [250]
    if place in ("MAIL", "RCPT"):
        assert talk.ask(BOB) == [250]
    if place == "BDAT":
        answers = talk.send(b"BDAT %d LAST\r\n" % (len(GOOD) - 9) + GOOD[9:])
    else:
        assert talk.ask("DATA") == [354]
        answers = talk.send(GOOD + b".\r\n")
    assert [code for code, _ in answers] == [250] * replies


def assert_whole(talk: Talk, count: int = 1) -> None:
    """The last message stored is the whole one."""
    stored = talk.house.spool.stored[-1]
    envelope = stored.envelope
    assert len(talk.house.spool.stored) == count
    assert content(talk.house, stored) == GOOD
    assert (str(envelope.reverse_path), envelope.envid, envelope.ret) == ("ada@elsewhere.test", "mine", Ret.HDRS)
    assert envelope.body is Body.SEVEN_BIT  # it is all ASCII
    assert [(str(each.address), each.notify, each.orcpt) for each in envelope.recipients] == [
        ("ann@local.test", Notify.DELAY, "rfc822;first@elsewhere.test"), ("bob@local.test", Notify.NEVER, ""),
    ]  # fmt: skip
    assert envelope.peer.hello == "client.test" and not envelope.peer.identity and not envelope.peer.tls


def leaving() -> Iterator[tuple[str, str, int]]:
    for place in PLACES:
        table = LEAVE | (IN_CHUNKS if place == "BDAT" else LEAVE_RECIPIENTS)
        if place == "MAIL":
            table = table | {"DATA": 503, "DATA now": 503, "BDAT 0": 503, "BDAT 0 LAST": 503}
        for line, code in table.items():
            yield place, line, code


def written(talk: Talk, line: str) -> str:
    other = "LHLO" if talk.hello == "EHLO" else "EHLO"
    return line.replace("{hello}", talk.hello).replace("{other}", other)


@pytest.mark.parametrize("dialect", Dialect, ids=lambda dialect: dialect.name)
@pytest.mark.parametrize(("place", "line", "code"), list(leaving()), ids=lambda value: str(value)[:40])
def test_a_command_that_leaves_the_transaction_whole(dialect: Dialect, place: str, line: str, code: int) -> None:
    talk = Talk(place_of(dialect))
    begun(talk, place)
    codes = talk.ask(written(talk, line))
    assert codes == [code] or (code == 0 and codes[0] in (502, 503)), codes
    ended_well(talk, place)
    assert_whole(talk)


@pytest.mark.parametrize("dialect", Dialect, ids=lambda dialect: dialect.name)
@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize(("line", "code"), list(END.items()))
def test_a_command_that_ends_the_transaction_whole(dialect: Dialect, place: str, line: str, code: int) -> None:
    talk = Talk(place_of(dialect))
    begun(talk, place)
    assert talk.ask(written(talk, line)) == [code]
    assert talk.ask(ANN, "DATA") == [503, 503]
    assert [code for code, _ in talk.send(b"BDAT 0 LAST\r\n")] == [503]
    assert not talk.house.spool.stored
    if "another" in line:
        assert talk.ask(f"{talk.hello} client.test") == [250]
    begun(talk, place)
    ended_well(talk, place)
    assert_whole(talk)


@pytest.mark.parametrize("dialect", Dialect, ids=lambda dialect: dialect.name)
@pytest.mark.parametrize("place", PLACES)
def test_every_command_one_behind_the_other(dialect: Dialect, place: str) -> None:
    """What leaves the transaction whole by itself does so with all others before it."""
    talk = Talk(place_of(dialect))
    begun(talk, place)
    for where, line, _ in leaving():
        if where == place and talk.is_open:
            talk.client.session._dialog.machine._faults = 0  # type: ignore[union-attr]
            talk.ask(written(talk, line))
    ended_well(talk, place)
    assert_whole(talk)


@pytest.mark.parametrize("dialect", Dialect, ids=lambda dialect: dialect.name)
@pytest.mark.parametrize("place", PLACES)
def test_quit_ends_all(dialect: Dialect, place: str) -> None:
    talk = Talk(place_of(dialect))
    begun(talk, place)
    assert talk.ask("QUIT") == [221]
    assert not talk.is_open and not talk.house.spool.stored
    assert talk.send(ANN.encode() + b"\r\n") == []


def test_authentication_and_tls_between_two_transactions() -> None:
    """RFC 3207 §4.2: TLS forgets the session; RFC 4954 §4: AUTH does not, and is for the transactions behind it."""
    talk = Talk(place_of(Dialect.SMTP))
    begun(talk, "RCPT RCPT")
    ended_well(talk, "RCPT RCPT")
    assert_whole(talk)
    assert talk.ask(f"AUTH PLAIN {RIGHT}", "RCPT TO:<ann@local.test>", "MAIL FROM:<ann@local.test>") == [235, 503, 250]
    assert talk.ask("RSET", "STARTTLS") == [250, 220]
    talk.shake_hands()
    assert talk.ask("RCPT TO:<ann@local.test>", "MAIL FROM:<>", "RCPT TO:<ann@local.test>", "DATA")[-1] == 354
    talk.send(GOOD + b".\r\n")
    envelope = talk.house.spool.stored[-1].envelope
    assert not envelope.peer.identity and [str(each.address) for each in envelope.recipients] == ["ann@local.test"]
