"""8-bit and binary messages in 7 bit. The judge is Python's email parser: it must read the same from both."""

from __future__ import annotations

import email
import random
import re
from email.header import decode_header
from email.message import Message

import pytest

from postroad.protocol import ascii_header
from postroad.protocol.encoding import Base64, QuotedPrintable
from postroad.protocol.mime import BodyOctets, MimeLimits, walk
from postroad.protocol.seven_bit import ConversionTarget, Plan, converted, plan, survey


def cut(octets: bytes, size: int) -> list[bytes]:
    return [octets[at : at + size] for at in range(0, len(octets), size)]


def done(
    content: bytes, target: ConversionTarget = ConversionTarget.SEVEN_BIT, size: int = 1 << 18
) -> tuple[bytes, Plan]:
    found = plan(survey(cut(content, size)), target)
    assert isinstance(found, Plan), found
    return b"".join(converted(cut(content, size), found)), found


def why_not(
    content: bytes, target: ConversionTarget = ConversionTarget.SEVEN_BIT, limits: MimeLimits | None = None
) -> str:
    found = plan(survey([content], limits or MimeLimits()), target)
    assert isinstance(found, str), found
    return found


def leaves(octets: bytes) -> list[tuple[str, bytes]]:
    """Type and decoded octets of each part, a line end behind base64 aside."""
    return [
        (part.get_content_type(), part.get_payload(decode=True))
        for part in email.message_from_bytes(octets).walk()
        if not part.is_multipart()
    ]


def texts(octets: bytes, name: str) -> list[str]:
    """The decoded values of a field in all sections."""
    return [_text(value) for part in email.message_from_bytes(octets).walk() for value in _raw(part, name)]


def _raw(part: Message, name: str) -> list[str]:
    return [value for key, value in part.raw_items() if key.lower() == name]


def _text(value: str) -> str:
    octets = re.sub(rb"\r?\n(?=[ \t])", b"", value.encode("utf-8", "surrogateescape"))
    octets = re.sub(rb"(\?=)[ \t]+(?==\?)", rb"\1", octets)  # RFC 2047 §6.2
    octets = re.sub(rb"=\?[^ ?]+\?[BbQq]\?[^ ?]*\?=", lambda found: _word(found.group()), octets)
    return octets.decode("utf-8", "surrogateescape").strip()


def _word(word: bytes) -> bytes:
    octets, charset = decode_header(word.decode())[0]
    assert charset and isinstance(octets, bytes)
    return octets


def check(content: bytes) -> bytes:
    """Convert, and see that nothing got lost, in whatever pieces it came."""
    octets, _ = done(content)
    assert octets.isascii()
    for size in (1, 2, 3, 5, 64):
        assert done(content, size=size)[0] == octets
    assert leaves(octets) == leaves(content)
    return octets


MULTIPART = """Received: from x by y\r
Subject: Grüße an\r
 alle\r
MIME-Version: 1.0\r
Content-Type: multipart/mixed; boundary="a:b"\r
Content-Transfer-Encoding: 8bit\r
\r
Vorwort ä\r
--a:b\r
Content-Type: text/plain; charset=utf-8\r
Content-Transfer-Encoding: 8bit\r
\r
Hällo, there is more text than octets above ASCII = \r
.\r
From here\r
--a:b \r
Content-Type: multipart/alternative; boundary=c\r
Content-Transfer-Encoding: 8bit\r
\r
--c\r
\r
nur ascii\r
--c\r
Content-Type: text/html; charset=utf-8\r
\r
<p>für</p>\r
--c--\r
--a:b\r
Content-Type: message/rfc822\r
Content-Transfer-Encoding: 8bit\r
\r
Subject: innen ö\r
\r
Text ß\r
--a:b\r
Content-Type: application/octet-stream\r
Content-Transfer-Encoding: 8bit\r
\r
öäü\r
--a:b--\r
Nachwort\r
""".encode()


def test_each_part_by_itself() -> None:
    octets = check(MULTIPART)
    sections = re.findall(rb"(?mi)^content-transfer-encoding: (.*)\r$", octets)
    assert sections == [
        b"7bit", b"quoted-printable", b"7bit", b"base64", b"7bit", b"base64", b"base64"
    ]
    assert texts(octets, "subject") == ["Grüße an alle", "innen ö"]
    assert b"nur ascii\r\n--c\r\n" in octets, "a part that is ASCII stays as it is"
    assert b"Vorwort ??\r\n--a:b\r\n" in octets  # RFC 2046 §5.1.1: nobody reads it


def test_a_body_without_mime_fields_gets_them() -> None:
    octets = check("Subject: x\r\n\r\nHallo ü, this is text\r\n".encode())
    assert octets == (
        b"Subject: x\r\nMIME-Version: 1.0\r\nContent-Type: text/plain; charset=utf-8\r\n"
        b"Content-Transfer-Encoding: quoted-printable\r\n\r\nHallo =C3=BC, this is text\r\n"
    )
    assert b"charset=unknown-8bit" in check(b"Subject: x\r\n\r\nno UTF-8 at all: \xe4\r\n")  # RFC 1428 §3


@pytest.mark.parametrize(
    "content",
    [
        b"\xff\r\n",
        b"\r\n\xff\r\n",
        b"Subject: x\r\n\xff no field\r\nmore\r\n",  # its body begins without an empty line
        b"Subject: x\r\n\r\nlast line without an end, much of it ASCII \xc3\xbc ",
        b"Subject: \xff",
        b"Content-Type: text/plain\r\nContent-Transfer-Encoding: 8bit\r\nContent-Transfer-Encoding: 7bit\r\n\r\n\xfc",
        b"Content-Transfer-Encoding: quoted-printable\r\n\r\n=FC \xfc=\r\n x\r\n",
        b"Content-Transfer-Encoding: base64\r\n\r\nSGFs\xfcbG8=\r\n",
        b"Content-Type: multipart/digest; boundary=d\r\n\r\n--d\r\n\r\nSubject: x\r\n\r\n\xe4\xe4\xe4\r\n--d--\r\n",
        b"Content-Type: multipart/mixed; boundary=d\r\n\r\n--d\r\n\xfc\r\n--d--\r\n",
        b"Content-Type: multipart/mixed; boundary=d\r\n\r\n--d\r\nContent-Type: text/plain\r\n--d\r\n\r\n\xfc\r\n--d--",
        b"Content-Type: multipart/mixed; boundary=\"d e\"\r\n\r\n--d e\r\n\r\n\xfc\r\n--d e--\t\r\n"
        b"--d e\r\n\r\nepilogue\r\n",
        b"Content-Type: multipart/mixed; boundary=d\r\n\r\n--d\r\nContent-Type: multipart/mixed; boundary=e\r\n\r\n"
        b"--e\r\n\r\n\xfc never closed\r\n--d\r\n\r\n\xfc\r\n--d--\r\n",
    ],
)
def test_what_is_written_carelessly(content: bytes) -> None:
    check(content)


def test_a_line_that_is_broken_softly_cannot_become_a_delimiter() -> None:
    for length in range(60, 80):
        line = "ü" + "x" * length + "--b\r\n" + "--" + "-" * 200 + "=" * 30 + "\r\n"
        content = f"Content-Type: multipart/mixed; boundary=b\r\n\r\n--b\r\n\r\n{line * 2}--b--\r\n"
        octets = check(content.encode())
        assert max(map(len, octets.split(b"\r\n"))) <= 76


def test_signed_parts_are_converted_and_told() -> None:
    """As Postfix does it (tests/peers/test_seven_bit.py)."""
    content = (
        b"Content-Type: multipart/signed; boundary=s; protocol=x\r\n\r\n--s\r\nContent-Transfer-Encoding: 8bit\r\n\r\n"
        b"\xc3\xbc and more of it\r\n--s\r\nContent-Type: application/pgp-signature\r\n\r\nsigned\r\n--s--\r\n"
    )
    check(content)
    assert done(content)[1].signed
    assert not done(MULTIPART)[1].signed


def test_binary_content_for_a_remote_with_8bitmime() -> None:
    """RFC 3030 §3: what is binary becomes base64, 8-bit text stays."""
    content = (
        b"MIME-Version: 1.0\r\nContent-Type: multipart/mixed; boundary=b\r\nContent-Transfer-Encoding: binary\r\n\r\n"
        b"--b\r\nContent-Type: image/png\r\nContent-Transfer-Encoding: binary\r\n\r\n\x89PNG\r\n\x1a\n\0\r\r\n"
        b"--b\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Transfer-Encoding: binary\r\n\r\n\xc3\xbc\r\n"
        b"--b\r\nContent-Type: text/plain\r\nContent-Transfer-Encoding: binary\r\n\r\nascii\r\n--b--\r\n"
    )
    octets, _ = done(content, ConversionTarget.EIGHT_BIT)
    assert [part.get_payload(decode=True) for part in email.message_from_bytes(octets).walk()][1:] == [
        b"\x89PNG\r\n\x1a\n\0\r", b"\xc3\xbc", b"ascii"
    ]
    assert re.findall(rb"(?m)^Content-Transfer-Encoding: (.*)\r$", octets) == [b"8bit", b"base64", b"8bit", b"7bit"]
    assert b"\0" not in octets
    assert done(content)[0].isascii()
    for size in (1, 2, 7):
        assert done(content, size=size)[0] == done(content)[0]


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b"Content-Type: multipart/mixed\r\n\r\n\xfc\r\n", "without parts"),
        (b"Content-Type: multipart/mixed; boundary=b\r\n\r\n\xfc\r\n", "without parts"),
        (b"Content-Transfer-Encoding: x-uuencode\r\n\r\n\xfc\r\n", "x-uuencode"),
        (b"Content-Type: message/partial; id=1\r\n\r\nSubject: x\r\n\r\n\xfc\r\n", "message/partial"),
        (b"Content-Type: message/external-body\r\n\r\n\xfc\r\n", "message/external-body"),
        (b"To: \xfc@example.org\r\n\r\nx\r\n", "address"),
        (b"To: A <a@\xc3\xbc.example>\r\n\r\nx\r\n", "address"),
    ],
)
def test_what_cannot_be_converted(content: bytes, told: str) -> None:
    assert told in why_not(content)


def test_limits() -> None:
    nested = b"".join(b"Content-Type: multipart/mixed; boundary=b%d\r\n\r\n--b%d\r\n" % (n, n) for n in range(101))
    assert "nested more than 100" in why_not(nested + b"\r\n\xfc")
    deep = b"Content-Type: message/rfc822\r\n\r\n" * 101
    assert "nested more than 100" in why_not(deep + b"\r\n\xfc")
    many = b"Content-Type: multipart/mixed; boundary=b\r\n\r\n" + b"--b\r\n\r\n\r\n" * 10_001
    assert "10000 parts" in why_not(many + b"\xfc")
    assert "header section" in why_not(b"X: " + b"y" * 262_144 + b"\r\n\r\n\xfc")
    hyphens = b"Content-Type: multipart/mixed; boundary=b\r\n\r\n--b\r\n\r\n" + b"--\r\n" * 1001
    assert "two hyphens" in why_not(hyphens + b"\xfc", limits=MimeLimits(lines_max=1000))


@pytest.mark.parametrize("bomb", [
    b"Subject: \xfc" + b" x" * 100_000, b"To: " + b"(" * 200_000 + b"\xfc", b'To: "' + b"\\" * 200_000 + b"\xfc",
    b"To: " + b"a," * 100_000 + b"\xfc", b"Content-Type: a/b" + b';a="' * 60_000 + b"\xfc",
    b"Content-Type: a/b" + b';a="\\"' * 40_000 + b"\xfc", b"Content-Type: multipart/x" + b';boundary="\\' * 15_000,
    b"Content-Disposition: " + b"; \xfc" * 60_000, b"X: y\r\n" * 40_000 + b"Z: \xfc", b"x" * 250_000 + b"\xfc",
    b"Content-Transfer-Encoding:" * 9000 + b"\xfc", b"X:\r\n" + b" \r\n" * 80_000 + b" \xfc",
])
def test_bombs_take_linear_time(bomb: bytes) -> None:
    """The test's own time limit is the measure: what is not linear takes hours."""
    content = bomb + b"\r\nMIME-Version: 1.0\r\n\r\n\xfc\r\n"
    found = plan(survey([content]), ConversionTarget.SEVEN_BIT)
    if isinstance(found, Plan):
        assert b"".join(converted([content], found)).isascii()


def test_nothing_between_parts_becomes_a_delimiter() -> None:
    """A filter in front of us has seen one part; the reader behind us must see the same one."""
    content = (
        b'MIME-Version: 1.0\r\nContent-Type: multipart/mixed; boundary="b?"\r\n\r\n'
        b"--b\xff\r\nContent-Type: application/x-hidden\r\n\r\nhidden\r\n"
        b"--b?\r\n\r\nseen\r\n--b?--\r\n--b\0\r\n\r\nhidden\r\n"
    )
    for size in (1, 7, 1 << 18):
        octets, _ = done(content, size=size)
        assert octets.isascii() and b"\0" not in octets and b"--b*\r\n" in octets
        assert leaves(octets) == [("text/plain", b"seen")]
    everything = content.replace(b"b?", b"?*#!$%&~^|;<>[]{}")
    assert "no character is left" in why_not(everything)


def test_a_message_within_keeps_apart_from_the_fields_above_it() -> None:
    """It begins with no field of its own, and no empty line: what it gets would be fields of the part around it."""
    for around, level in (
        (b"MIME-Version: 1.0\r\nContent-Type: message/rfc822\r\n", 0),
        (b"Content-Type: multipart/digest; boundary=b\r\nMIME-Version: 1.0\r\n\r\n--b\r\n", 1),
    ):
        octets, _ = done(around + b"- text, no field: \xfc\r\n")
        parts = list(email.message_from_bytes(octets).walk())
        assert octets.isascii() and parts[level].get_content_type() == "message/rfc822"
        assert parts[level]["Content-Transfer-Encoding"] is None
        assert parts[level + 1].get_payload(decode=True).rstrip() == b"- text, no field: \xfc"


def test_many_small_parts_are_looked_at_once() -> None:
    """No empty line comes behind them for long: it is not looked for anew in each of them."""
    class Watched(bytes):
        looked_at = 0

        def find(self, *given: object) -> int:  # type: ignore[override]
            found = bytes.find(self, *given)  # type: ignore[arg-type]
            if given[0] == b"\r\n\r\n":
                Watched.looked_at += (len(self) if found < 0 else found) - int(given[1])  # type: ignore[call-overload]
            return found

        def __getitem__(self, place: object) -> bytes:  # type: ignore[override]
            return Watched(bytes.__getitem__(self, place))  # type: ignore[index]

        def __add__(self, other: bytes) -> bytes:
            return Watched(bytes.__add__(self, other))

        def __radd__(self, other: bytes) -> bytes:
            return Watched(other + bytes(self))

    content = b"Content-Type: multipart/mixed; boundary=b\r\n\r\n" + b"--b\r\n" * 1_000 + b"\xfc" * 300_000
    assert len(survey([Watched(piece) for piece in cut(content, 65_536)]).entities) == 1_001
    assert len(content) <= Watched.looked_at + 2_000 and Watched.looked_at <= 4 * len(content)


def test_hardly_anything_is_held() -> None:
    """What is held of a body is one piece at most, whatever stands in it."""
    def pieces() -> object:
        yield b"Content-Type: multipart/mixed; boundary=b\r\n\r\n--b\r\n\r\n"
        for _ in range(50):
            yield b"--" + b"\xfc" * 10_000

    assert max(len(token.octets) for token in walk(pieces()) if isinstance(token, BodyOctets)) <= 20_004  # type: ignore[arg-type]


@pytest.mark.parametrize("seed", range(300))
def test_any_message(seed: int) -> None:
    """Trees of parts from chance: their leaves are the same afterwards, and so are their header fields."""
    chance = random.Random(seed)
    content = b"From: a@example.org\r\nMIME-Version: 1.0\r\n" + _entity(chance, 0)
    octets = check(content)
    assert texts(octets, "subject") == texts(content, "subject")
    assert max(map(len, octets.split(b"\r\n"))) <= 998


_WORDS = (
    "ascii", "ü", "=", "--", "--b", "-- ", ".", "From ", "日本語", "=?utf-8?q?x?=", " ", "\t", "x" * 70, "é" * 40, "=C3"
)


def _entity(chance: random.Random, depth: int) -> bytes:
    field = b""
    if chance.random() < 0.5:
        words = " ".join(chance.choice(("ü", "plain", "=?utf-8?q?x?=", "é" * 40, "日本" * 20)) for _ in range(4))
        field = f"Subject: {words}\r\n".encode()
    kind = chance.choice(("text", "none", "octets", "multipart", "message")) if depth < 4 else "text"
    encoding = chance.choice(("8bit", "7bit", ""))
    if encoding:
        field += f"Content-Transfer-Encoding: {encoding}\r\n".encode()
    if kind == "multipart":
        boundary = f"b{depth}{'=' * chance.randrange(3)}"
        parts = b"".join(
            f"\r\n--{boundary}\r\n".encode() + _entity(chance, depth + 1) for _ in range(chance.randrange(1, 4))
        )
        field += f'Content-Type: multipart/mixed;\r\n boundary="{boundary}"\r\n\r\n'.encode()
        return field + parts + f"\r\n--{boundary}--".encode() + chance.choice((b"\r\n", b"\r\nepilogue\r\n", b""))
    if kind == "message":
        return field + b"Content-Type: message/rfc822\r\n\r\n" + _entity(chance, depth + 1)
    if kind == "octets":
        noise = bytes(chance.choice((*range(1, 10), *range(14, 256))) for _ in range(chance.randrange(300)))
        return field + b"Content-Type: application/x-noise\r\n\r\n" + noise
    if kind == "text":
        field += b"Content-Type: text/plain; charset=utf-8\r\n"
    lines = ["".join(chance.choice(_WORDS) for _ in range(chance.randrange(6))) for _ in range(chance.randrange(8))]
    return field + b"\r\n" + "\r\n".join(lines).encode()


# -- header sections


@pytest.mark.parametrize(
    ("field", "written"),
    [
        ("Subject: ascii", b"Subject: ascii"),
        ("Subject: Grüße", b"Subject: =?utf-8?B?R3LDvMOfZQ==?="),
        ("Subject:ü", b"Subject:=?utf-8?B?w7w=?="),
        ("To: Jürgen <j@example.org>, b@example.org", b"To: =?utf-8?B?SsO8cmdlbg==?= <j@example.org>, b@example.org"),
        ('To: "Müller, \\"M\\"" <m@example.org>', b"To: =?utf-8?B?TcO8bGxlciwgIk0i?= <m@example.org>"),
        ("To: a@example.org (Köln (am Rhein))", b"To: a@example.org (=?utf-8?B?S8O2bG4=?= (am Rhein))"),
        ("To: a@example.org (Jürgen", b"To: a@example.org (=?utf-8?B?SsO8cmdlbg==?=)"),
        ("To: a@example.org (Köln (am)\r\n ", b"To: a@example.org (=?utf-8?B?S8O2bG4=?= (am))\r\n "),
        ("To: a@example.org (ü\\)", b"To: a@example.org (=?utf-8?B?w7xcKQ==?=)"),
        ("To: Gruppe Ä: a@example.org;", b"To: =?utf-8?B?R3J1cHBlIMOE?=: a@example.org;"),
        ('Content-Type: text/x; name="Grüße.txt"; a=b', b"Content-Type: text/x; name*=utf-8''Gr%C3%BC%C3%9Fe.txt; a=b"),
        ("Content-Disposition: a;\r\n filename=ä.x", b"Content-Disposition: a;\r\n filename*=utf-8''%C3%A4.x"),
    ],
)
def test_header_fields(field: str, written: bytes) -> None:
    """RFC 2047 §5, RFC 2231 §4"""
    assert ascii_header.in_ascii(field.encode() + b"\r\n") == written + b"\r\n"


def test_octets_that_are_no_utf8_are_kept() -> None:
    assert ascii_header.in_ascii(b"Subject: \xe4\r\n") == b"Subject: =?unknown-8bit?B?5A==?=\r\n"
    assert ascii_header.in_ascii(b'Content-Type: a/b; name="\xe4"\r\n') == b"Content-Type: a/b; name*=''%E4\r\n"


def test_encoded_words_divide_no_character_and_have_75_at_most() -> None:
    for shift in range(6):
        said = "x" * shift + "日本語" * 40
        written = ascii_header.words(said.encode())
        for word in written.split(b"\r\n "):
            assert len(word) <= 75
            octets, charset = decode_header(word.decode())[0]
            assert isinstance(octets, bytes) and octets.decode(str(charset))
        assert _text(written.decode()) == said


# -- encodings


@pytest.mark.parametrize("seed", range(50))
def test_quoted_printable_and_base64_in_any_pieces(seed: int) -> None:
    chance = random.Random(seed)
    lines = [bytes(chance.choice(b"-= \tA.\xc3\xbc") for _ in range(chance.randrange(160))) for _ in range(12)]
    content = b"\r\n".join(lines)
    for encoder, name in ((QuotedPrintable(), "quoted-printable"), (Base64(), "base64")):
        written = b"".join(map(encoder.piece, cut(content, chance.randrange(1, 100)))) + encoder.end()
        assert all(len(line) <= 76 and not line.startswith(b"--") for line in written.split(b"\r\n"))
        assert not re.search(rb"[ \t]\r\n|[ \t]\Z", written)
        message = email.message_from_bytes(b"Content-Transfer-Encoding: %b\r\n\r\n" % name.encode() + written)
        assert message.get_payload(decode=True) == content


def test_nul_where_readers_must_not_look_however_the_pieces_are_cut() -> None:
    content = "\r\n".join((
        "Content-Type: multipart/mixed; boundary=b", "", "a\0b", "Grüße", "--b", "", "Grüße", "--b--", "a\0b", "ä", "",
    )).encode()  # fmt: skip
    octets = check(content)
    assert b"\0" not in octets and b"\r\na?b\r\nGr????e\r\n--b" in octets
    for size in (1, 3, len(content)):
        assert b"\0" not in done(content, ConversionTarget.EIGHT_BIT, size)[0]


def test_a_message_within_whose_header_section_is_missing() -> None:
    """What is said of its encoding must not become part of the header section above it."""
    octets, _ = done("Content-Type: message/rfc822\r\n: is no field\r\nGrüße\r\n".encode())
    (within,) = email.message_from_bytes(octets).get_payload()
    assert isinstance(within, Message) and within.get_payload(decode=True) == ": is no field\r\nGrüße\r\n".encode()
    assert octets.startswith(b"Content-Type: message/rfc822\r\n\r\nMIME-Version: 1.0\r\n")
