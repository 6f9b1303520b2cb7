"""Replies: what the server writes the client reads as the same, in any cut; octets that are none never raise."""

from __future__ import annotations

import re

from hypothesis import given, settings
from hypothesis import strategies as st

from postroad.mail.reply import Reply, encode
from postroad.protocol import capability
from postroad.protocol.replies import BadReply, ReplyLimits, ReplyReader

LIMITS = ReplyLimits(line_max=120, lines_max=5, reply_max=300)

texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=60)
printable = texts.filter(lambda text: text.isprintable() and text == text.strip(" "))
classes = st.sampled_from("245")
details = st.integers(0, 999)
# RFC 2034 §4: the class of the enhanced code is that of the reply code
# Text that begins as an enhanced code does is read as one.
lines_said = printable.filter(lambda text: re.match(r"[245]\.\d", text) is None)
replies = st.builds(
    lambda first, rest, subject, detail, status, lines: Reply(
        int(first) * 100 + rest, f"{first}.{subject}.{detail}" if status else "", tuple(lines)
    ),
    classes, st.integers(0, 99), details, details, st.booleans(), st.lists(lines_said, min_size=1, max_size=5),
)  # fmt: skip


def read(parts: list[bytes], limits: ReplyLimits | None = None) -> list[Reply | BadReply]:
    reader, found = ReplyReader(limits), list[Reply | BadReply]()
    for part in parts:
        reader.feed(part)
        while not (found and isinstance(found[-1], BadReply)) and (answer := reader.next()) is not None:
            found.append(answer)
    return found


@settings(max_examples=200, deadline=None)
@given(st.lists(replies, max_size=4), st.integers(1, 50))
def test_what_is_written_is_read_as_the_same(said: list[Reply], stride: int) -> None:
    wire = b"".join(map(encode, said))
    for parts in ([wire], [wire[at : at + stride] for at in range(0, len(wire), stride)]):
        found = read(parts)
        assert all(isinstance(answer, Reply) for answer in found)
        assert list(map(str, found)) == list(map(str, said))
        assert b"".join(encode(answer) for answer in found if isinstance(answer, Reply)) == wire


@settings(max_examples=200, deadline=None)
@given(st.integers(200, 599), texts, st.lists(texts, min_size=1, max_size=4))
def test_no_text_makes_a_reply_that_is_read_as_another(code: int, status: str, lines: list[str]) -> None:
    """Whatever is quoted: one reply with that code comes out, no line of it is too long (RFC 5321 §4.5.3.1.5)."""
    wire = encode(Reply(code, "", tuple(lines)))
    assert all(len(line) <= 510 and b"\r" not in line and b"\n" not in line for line in wire.split(b"\r\n"))
    (answer,) = read([wire])
    assert isinstance(answer, Reply) and answer.code == code and len(answer.lines) == len(lines)
    assert status.isprintable() or encode(Reply(code, "", (status,))).count(b"\r\n") == 1


starts = st.sampled_from(
    [b"250 ok\r\n", b"250-a\r\n", b"250 2.1.0 b\r\n", b"550 5.1.1 \r\n", b"\n", b"250 ok\n", b"2500\r\n"]
)


@settings(max_examples=300, deadline=None)
@given(st.lists(st.one_of(starts, st.binary(max_size=40)), max_size=8), st.integers(1, 40))
def test_any_octets_in_any_cut(pieces: list[bytes], stride: int) -> None:
    wire = b"".join(pieces)
    whole = read([wire], LIMITS)
    for answer in whole:
        lines = answer.lines if isinstance(answer, Reply) else (answer.text,)
        assert all(line.isprintable() for line in lines) and len(lines) <= LIMITS.lines_max
    cut = read([wire[at : at + stride] for at in range(0, len(wire), stride)], LIMITS)
    good = [answer for answer in whole if isinstance(answer, Reply)]
    assert [answer for answer in cut if isinstance(answer, Reply)] == good
    # Octets that cannot become a reply any more may be known as such before their line has come to its end.
    assert len(cut) >= len(whole)


@given(st.lists(texts, max_size=6))
def test_any_answer_to_ehlo(lines: list[str]) -> None:
    offered = capability.parse(["mx", *lines])
    assert min(offered.size_max, offered.mail_max, offered.rcpt_max, offered.rcpt_domain_max, offered.by_min_s) >= 0
    assert all(keyword == keyword.upper() and keyword.isascii() for keyword in offered.keywords)
    assert offered.pipelining == ("PIPELINING" in offered.keywords)
