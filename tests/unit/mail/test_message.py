"""Where a header section ends: one notion, whoever asks."""

from __future__ import annotations

import pytest

from postroad.mail import message, trace
from postroad.protocol.data import Scrutiny
from postroad.protocol.limits import ProtocolLimits
from postroad.protocol.seven_bit import survey
from postroad.receive import repair

# Content, and where its header section ends (RFC 5322 §2.1, §2.2, §4.5), read by hand.
SECTIONS = [
    (b"", 0),
    (b"\r\n", 0),
    (b"\r\nA: b\r\n", 0),
    (b"A: b", 4),
    (b"A: b\r\n", 6),
    (b"A: b\r\n\r\nbody: x\r\n", 6),
    (b"A: b\r\n c\r\n\td\r\nB: e\r\n\r\n", 20),
    (b"A: b\r\n \r\nB: e\r\n\r\n", 15),  # a line of white space alone goes on with A (§4.2: obs-FWS)
    (b"A : b\r\nB\t \t: c\r\n\r\n", 16),  # §4.5: white space before the colon
    (b"A:\r\nB:\r\n\r\n", 8),
    (b"A: b\r\nno field\r\nB: c\r\n\r\n", 6),
    (b"A: b\r\nHello, you: c\r\n\r\n", 6),
    (b"A: b\r\n: c\r\n\r\n", 6),
    (b"A: b\r\nB\xc3\xa4: c\r\n\r\n", 6),
    (b" A: b\r\nB: c\r\n\r\n", 0),
    (b"\tA: b\r\n\r\n", 0),
    (b"Hello,\r\nDate: tomorrow\r\n", 0),
    (b"From ada Mon Jan  1 00:00:00 2026\r\nA: b\r\n\r\n", 0),
    (b"A: b\r\nFrom ada Mon Jan  1 00:00:00 2026\r\nB: c\r\n\r\n", 6),
    (b"A: b\rB: c\r\n\r\n", 11),  # in BINARYMIME: no line end
    (b"A: b\nB: c\r\n\r\n", 11),
    (b"x" * 2000 + b": c\r\n\r\n", 2005),
    (b"x" * 2001 + b": c\r\n\r\n", 0),
]


@pytest.mark.parametrize(("octets", "end"), SECTIONS)
def test_where_the_header_section_ends(octets: bytes, end: int) -> None:
    assert message.header_end(octets) == end
    names = [field.name for field in message.fields(octets)]
    assert sum(message.count(octets[:end], name.lower().encode()) for name in set(names)) == len(names)


@pytest.mark.parametrize("name", [b"Received", b"Received ", b"RECEIVED \t", b"received"])
@pytest.mark.parametrize(("octets", "end"), SECTIONS)
def test_everybody_has_the_same_notion(octets: bytes, end: int, name: bytes) -> None:
    """A field put at the end of the header section is seen by all, one put behind it by nobody."""
    field = name + b": x\r\n"
    whole = octets if octets.endswith(b"\r\n") or not octets else octets + b"\r\n"
    end = end if end < len(octets) else len(whole)
    within, behind = whole[:end] + field + whole[end:], whole[:end] + b"\r\n" + field + whole[end:]
    for content, count in ((within, 1), (behind, 0)):
        section = content[: message.header_end(content)]
        assert trace.hops(section) == message.count(section, b"received") == count
        found = message.first(section, b"received")
        assert found is None if not count else found is not None and found.startswith("x")
        assert sum(each.name.lower() == "received" for each in message.fields(content)) == count
        assert (message.without(content, b"received") != content) == bool(count)
        if b"\xc3" not in octets and b"x" not in octets:  # nor does conversion for hosts without 8BITMIME
            assert survey([content.replace(b"x\r\n", b"\xc3\xa4\r\n", 1)]).high_header == bool(count)


@pytest.mark.parametrize(("octets", "end"), SECTIONS)
def test_the_limits_at_the_door_count_the_same_section(octets: bytes, end: int) -> None:
    if b"\n" in octets.replace(b"\r\n", b"") or b"\r" in octets.replace(b"\r\n", b"") or octets.startswith(b"From "):
        return  # it is refused, or becomes another
    number = sum(1 for _ in message.fields(octets))
    many = b"Z: y\r\n" * 50
    for fields_max in {number, max(number - 1, 0)}:
        scrutiny = Scrutiny(ProtocolLimits(header_fields_max=fields_max), binary=False)
        for line in (octets + (b"" if octets.endswith(b"\r\n") or not octets else b"\r\n") + b"\r\n" + many).splitlines(
            keepends=True
        ):
            scrutiny.pass_on(line)
        assert (scrutiny.fault is None) == (fields_max == number)


@pytest.mark.parametrize(
    ("octets", "expected"),
    [
        (b"", b""),
        (b"\r\nbody\r\n", b"\r\nbody\r\n"),
        (b"A : b\r\n\r\n", b"A : b\r\n\r\n"),
        (b" by mx.example.com; Mon\r\nA: b\r\n\r\n", b"\r\n by mx.example.com; Mon\r\nA: b\r\n\r\n"),
        (b"\tx", b"\r\n\tx"),
        (b"no field\r\n", b"\r\nno field\r\n"),
        (b"From ada Mon\r\nA: b\r\n\r\n", b"X-Mailbox-Line: From ada Mon\r\nA: b\r\n\r\n"),
        (b">From ada Mon\r\n>>From b\r\nA: b\r\n",
         b"X-Mailbox-Line: >From ada Mon\r\nX-Mailbox-Line: >>From b\r\nA: b\r\n"),
        (b"From ada\r\n A: b\r\n", b"X-Mailbox-Line: From ada\r\n\r\n A: b\r\n"),
        (b"From ada", b"X-Mailbox-Line: From ada"),
        (b"From: ada\r\n", b"From: ada\r\n"),
        (b"From : ada\r\n", b"From : ada\r\n"),
        (b"From  ada\r\n\r\n", b"X-Mailbox-Line: From  ada\r\n\r\n"),
    ],
)  # fmt: skip
def test_nothing_goes_on_with_a_field_of_ours(octets: bytes, expected: bytes) -> None:
    joined = message.joining(octets)
    assert joined == expected
    assert message.joining(joined) == joined and message.joins(joined)
    ours = b"Received: by us;\r\n\tdate\r\n"
    assert next(message.fields(ours + joined)).value == b" by us;\tdate"


def test_a_header_section_that_has_not_come_as_a_whole() -> None:
    assert not message.header_is_whole(b"A: b\r\nB: c\r\n")
    assert not message.header_is_whole(b"From ada\r\nA: b\r\n")
    assert not message.header_is_whole(b"A: b\r\nSubj")
    assert not message.header_is_whole(b"A: b\r\n c")
    assert message.header_is_whole(b"A: b\r\n\r\n")
    assert message.header_is_whole(b"A: b\r\nno field\r\n")
    assert message.header_is_whole(b" A: b\r\n")


@pytest.mark.parametrize(
    ("octets", "line_max", "before", "fits"),
    [
        (b"", 4, 0, True), (b"ab\r\n", 4, 0, True), (b"abc\r\n", 4, 0, False), (b"ab\r\nabc\r\n", 4, 0, False),
        (b"ab\r\nab\r\nab", 4, 0, True), (b"\r\nab\r\n", 4, 2, True), (b"\r\nab\r\n", 4, 3, False),
        (b"ab", 4, 2, True), (b"ab", 4, 3, False), (b"\r\nabc\r\n", 4, 2, False), (b"x", 4, 9, False),
    ],
)  # fmt: skip
def test_lines_fit(octets: bytes, line_max: int, before: int, fits: bool) -> None:
    assert message.lines_fit(octets, line_max, before) is fits


def test_text_without_a_header_loses_no_line() -> None:
    text = b"Hello,\r\nDate: tomorrow at noon\r\nbye\r\n"
    mended = b"".join(repair.repaired(text, reverse_path=None, owns=None, message_id="<a@b>", submitted_us=0))
    assert mended.endswith(b"\r\n\r\n" + text)
    assert mended.startswith(b"Date: Thu, 1 Jan 1970 00:00:00 +0000\r\nMessage-ID: <a@b>\r\n\r\n")


def test_where_the_header_section_ends_without_an_empty_line_submission_puts_one() -> None:
    octets = b"From: a@b.test\r\nHello,\r\nTo: c@d.test\r\n"
    mended = b"".join(repair.dated(octets, message_id="<a@b>", submitted_us=0))
    assert mended.endswith(b"\r\nFrom: a@b.test\r\n\r\nHello,\r\nTo: c@d.test\r\n")
