"""Replies: good ones in every cut, bad ones for ever."""

from __future__ import annotations

import pytest

from postroad.mail.reply import Reply
from postroad.protocol.replies import BadReply, ReplyLimits, ReplyReader

GOOD = [
    (b"250 ok\r\n", Reply(250, "", ("ok",))),
    (b"250\r\n", Reply(250, "", ("",))),
    (b"250 \r\n", Reply(250, "", ("",))),
    (b"250 2.1.0 Ok\r\n", Reply(250, "2.1.0", ("Ok",))),
    (b"250 2.1.0\r\n", Reply(250, "2.1.0", ("",))),
    (b"550 5.1.1   no such user\r\n", Reply(550, "5.1.1", ("no such user",))),
    (b"550 4.1.1 the class is another\r\n", Reply(550, "", ("4.1.1 the class is another",))),
    (b"550 5.1.1234 no status\r\n", Reply(550, "", ("5.1.1234 no status",))),
    (b"550 5.1.1. no status\r\n", Reply(550, "", ("5.1.1. no status",))),
    (b"354 go\r\n", Reply(354, "", ("go",))),
    (b"220 mx.example.org ESMTP\r\n", Reply(220, "", ("mx.example.org ESMTP",))),
    (b"250-one\r\n250-two\r\n250 three\r\n", Reply(250, "", ("one", "two", "three"))),
    (b"250-one\r\n250-\r\n250\r\n", Reply(250, "", ("one", "", ""))),
    (b"550-5.7.1 one\r\n550-5.7.1 two\r\n550 5.7.1 three\r\n", Reply(550, "5.7.1", ("one", "two", "three"))),
    (b"550-5.7.1 one\r\n550 two\r\n", Reply(550, "5.7.1", ("one", "two"))),
    (b"550-one\r\n550 5.1.1 two\r\n", Reply(550, "5.1.1", ("one", "two"))),  # Cyrus
    (b"550-4.1.1 one\r\n550 5.1.1 two\r\n", Reply(550, "5.1.1", ("4.1.1 one", "two"))),
    # the last code decides, all words are kept
    (b"220-hello\r\n554 5.7.1 not you\r\n", Reply(554, "5.7.1", ("hello", "not you"))),
    (b"250-one\r\n550-5.1.1 two\r\n550 5.1.1 three\r\n", Reply(550, "5.1.1", ("one", "two", "three"))),
    (b"554-5.7.1 not you\r\n220 hello\r\n", Reply(220, "", ("5.7.1 not you", "hello"))),
    (b"250 \x1b[31mred\x00\x07\r\n", Reply(250, "", ("?[31mred??",))),
    (b"250 a\rb\r\n", Reply(250, "", ("a?b",))),
    (b"250 gr\xc3\xbc\xc3\x9fe\r\n", Reply(250, "", ("grüße",))),
    (b"250 \xff\r\n", Reply(250, "", ("\\xff",))),
    (b"250 \xe2\x80\xae\r\n", Reply(250, "", ("?",))),
    (b"299 odd\r\n", Reply(299, "", ("odd",))),
    (b"250 " + b"x" * 300 + b"\r\n", Reply(250, "", ("x" * 300,))),
    (b"250 " + b"x" * 4090 + b"\r\n", Reply(250, "", ("x" * 4090,))),
]

BAD = [
    (b"250 ok\n", "CRLF"),
    (b"\r\n", "not an SMTP reply"),
    (b"\n", "CRLF"),
    (b"250 ok\n250 more\r\n", "CRLF"),
    (b"25 ok\r\n", "not an SMTP reply"),
    (b"2500 ok\r\n", "not an SMTP reply"),
    (b"250ok\r\n", "not an SMTP reply"),
    (b"150 ok\r\n", "not an SMTP reply"),
    (b"650 ok\r\n", "not an SMTP reply"),
    (b"HTTP/1.1 400 Bad Request\r\n", "not an SMTP reply"),
    (b"SSH-2.0", "not an SMTP reply"),
    (b"\x16\x03\x01", "not an SMTP reply"),
    (b"\xb2\xb5\xb0 ok\r\n", "not an SMTP reply"),
    (b"250-one\r\nok\r\n", "not an SMTP reply"),
    (b"250-one\r\n250 two\n", "CRLF"),
    (b"250 " + b"x" * 4091 + b"\r\n", "longer than 4096"),
    (b"2" * 4096, "longer than 4096"),
    (b"250-x\r\n" * 129, "more than 128 lines"),
    ((b"250-" + b"y" * 1000 + b"\r\n") * 66, "65536 octets"),
]


def read(*pieces: bytes) -> list[Reply | BadReply]:
    reader, found = ReplyReader(), []
    for piece in pieces:
        reader.feed(piece)
        while (answer := reader.next()) is not None:
            found.append(answer)
            if isinstance(answer, BadReply):
                break
    return found


@pytest.mark.parametrize(("octets", "reply"), GOOD)
def test_a_reply_in_every_cut(octets: bytes, reply: Reply) -> None:
    assert read(octets) == [reply]
    assert read(*(octets[at : at + 1] for at in range(len(octets)))) == [reply]
    for at in range(1, min(len(octets), 100)):
        assert read(octets[:at], octets[at:]) == [reply]


@pytest.mark.parametrize(("octets", "reply"), GOOD)
def test_with_octets_behind_it(octets: bytes, reply: Reply) -> None:
    reader = ReplyReader()
    reader.feed(octets + b"221 2.0.0 bye\r\n22")
    assert reader.next() == reply
    assert reader.pending
    assert reader.next() == Reply(221, "2.0.0", ("bye",))
    assert reader.next() is None
    assert reader.pending
    reader.feed(b"0 x\r\n")
    assert reader.next() == Reply(220, "", ("x",))
    assert not reader.pending


@pytest.mark.parametrize(("octets", "text"), BAD)
def test_what_is_no_reply_breaks_for_ever(octets: bytes, text: str) -> None:
    for pieces in ((octets,), tuple(octets[at : at + 1] for at in range(len(octets)))):
        found = read(*pieces)
        assert isinstance(found[-1], BadReply)
        assert text in found[-1].text
        assert found[-1].text.isprintable()
    reader = ReplyReader()
    reader.feed(octets)
    while not isinstance(reader.next(), BadReply):
        pass
    reader.feed(b"250 fine again\r\n")
    assert isinstance(reader.next(), BadReply)


def test_an_endless_reply_is_not_held() -> None:
    reader = ReplyReader()
    for _ in range(10_000):
        reader.feed(b"250-and so on\r\n" * 50)
        answer = reader.next()
        if isinstance(answer, BadReply):
            break
    else:
        pytest.fail("it was read for ever")
    assert not reader.pending


def test_the_limits_are_settings() -> None:
    reader = ReplyReader(ReplyLimits(line_max=20, lines_max=2, reply_max=30))
    reader.feed(b"250-123456789\r\n250 1\r\n")
    assert reader.next() == Reply(250, "", ("123456789", "1"))
    reader.feed(b"250-123456789\r\n250-123456789\r\n250 1\r\n")
    assert isinstance(reader.next(), BadReply)


def test_forget_drops_what_is_held() -> None:
    reader = ReplyReader()
    reader.feed(b"250-one\r\n250-tw")
    assert reader.next() is None
    reader.forget()
    assert not reader.pending
    reader.feed(b"220 new\r\n")
    assert reader.next() == Reply(220, "", ("new",))
