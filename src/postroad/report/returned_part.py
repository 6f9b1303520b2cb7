"""What a DSN returns of the message, its third part: the whole message or its header section.

RFC 3461 §4.3 and §6.2 (RET), RFC 6522 §3 and §4, RFC 6533 §4, RFC 8689 §5 (REQUIRETLS).

The part is 7-bit, so that every host takes it. If the message is not, it is converted as for a host without 8BITMIME
(`protocol.seven_bit`); if this is impossible, only the header section is returned, quoted-printable if needed. Reports
to a UTF-8 reverse-path go as 8bit instead: hosts that take them take 8-bit mail, too (RFC 6531 §3.1).

What always holds: no line has more than 998 octets. How it fails: if the content cannot be read any more, nothing is
returned.
"""

from __future__ import annotations

import binascii
from collections.abc import Callable
from typing import Final

from postroad.mail import wishes
from postroad.mail.envelope import Body, Envelope, Ret
from postroad.mail.message import HEADER_MAX, Content, ContentFile, header_end, only_crlf
from postroad.mail.message import size as content_size
from postroad.mail.report import DsnAction
from postroad.protocol import seven_bit
from postroad.report.options import ReportOptions

_LINE_MAX: Final = 998  # RFC 5322 §2.1.1, RFC 2045 §2.7 and §2.8, CRLF not counted

Read = Callable[[Envelope, ContentFile, int], bytes]
"""The first octets of a content file, at most so many."""


def returned_part(
    action: DsnAction, envelope: Envelope, content: Content | None, options: ReportOptions, utf8: bool, read: Read
) -> tuple[bytes, tuple[bytes, ...], bool]:
    """The header section for the text's use, the part with its own header, and whether it is 8-bit."""
    whole = content is not None and _is_whole(action, envelope, content, options)
    octets = _octets(envelope, content, whole, read)
    if octets is None:
        return b"", (), False
    section = octets[: header_end(octets)]
    if whole:
        form = _whole_form(octets, section, envelope, utf8)
        if form is not None:
            return section, *form
    return section, *_header_form(_cut_section(section, options.header_max), envelope, utf8)


def _octets(envelope: Envelope, content: Content | None, whole: bool, read: Read) -> bytes | None:
    """What is needed of the content, None if it cannot be had: the report then goes without it."""
    if content is None or isinstance(content, bytes):
        return content
    try:
        return read(envelope, content, content_size(envelope, content) if whole else HEADER_MAX)
    except OSError:
        return None


def _is_whole(action: DsnAction, envelope: Envelope, content: Content, options: ReportOptions) -> bool:
    if action is not DsnAction.FAILED or envelope.ret is Ret.HDRS:
        return False
    if wishes.parameter(envelope.parameters, wishes.REQUIRE_TLS) is not None:  # RFC 8689 §5: as if RET=HDRS
        return False
    size_max = options.full_asked_max if envelope.ret is Ret.FULL else options.full_max
    return content_size(envelope, content) <= size_max


def _whole_form(
    octets: bytes, section: bytes, envelope: Envelope, utf8: bool
) -> tuple[tuple[bytes, ...], bool] | None:
    """The part that returns the whole message and whether it is 8-bit; None if none can hold it."""
    if octets.isascii() and not _is_binary(octets, envelope):
        return (b"Content-Type: message/rfc822\r\n\r\n", octets), False
    if utf8 and not _is_binary(octets, envelope):
        kind = b"global" if envelope.smtputf8 and not section.isascii() else b"rfc822"
        return (b"Content-Type: message/" + kind + b"\r\nContent-Transfer-Encoding: 8bit\r\n\r\n", octets), True
    if envelope.smtputf8 and not section.isascii():
        if _is_binary(octets, envelope):
            return None
        # RFC 6533 §4.5: the way back is not known to know SMTPUTF8, so it MUST be encoded (RFC 6532 §3.7 allows it).
        encoded = binascii.b2a_qp(octets, istext=True)
        return (b"Content-Type: message/global\r\nContent-Transfer-Encoding: quoted-printable\r\n\r\n", encoded), False
    # RFC 2046 §5.2.1: message/rfc822 itself may not be encoded, but its parts may.
    made = _seven_bit(octets)
    return None if made is None else ((b"Content-Type: message/rfc822\r\n\r\n", made), False)


def _is_binary(octets: bytes, envelope: Envelope) -> bool:
    """Whether it is what neither 7bit nor 8bit can hold (RFC 2045 §2.7, §2.8)."""
    return envelope.body is Body.BINARY_MIME or b"\0" in octets or has_long_line(octets)


def _seven_bit(octets: bytes) -> bytes | None:
    """The message with 7-bit parts; None if there is no way to that, or its result would not do either."""
    pieces = (octets,)
    how = seven_bit.plan(seven_bit.survey(pieces), seven_bit.ConversionTarget.SEVEN_BIT)
    if isinstance(how, str):
        return None
    made = b"".join(seven_bit.converted(pieces, how))
    fits = made.isascii() and b"\0" not in made and only_crlf(made) and not has_long_line(made)
    return made if fits else None


def _header_form(section: bytes, envelope: Envelope, utf8: bool) -> tuple[tuple[bytes, ...], bool]:
    """The part that returns the header section alone, and whether it is 8-bit."""
    if section.isascii() and b"\0" not in section and not has_long_line(section):
        return (b"Content-Type: text/rfc822-headers\r\n\r\n", section), False
    # RFC 6533 §4.3 for UTF-8 header fields; RFC 6522 §4 allows quoted-printable for any other that is not 7-bit.
    kind = b"message/global-headers" if envelope.smtputf8 and not section.isascii() else b"text/rfc822-headers"
    if utf8 and b"\0" not in section and not has_long_line(section):
        return (b"Content-Type: " + kind + b"\r\nContent-Transfer-Encoding: 8bit\r\n\r\n", section), True
    encoded = binascii.b2a_qp(section, istext=True)
    return (b"Content-Type: " + kind + b"\r\nContent-Transfer-Encoding: quoted-printable\r\n\r\n", encoded), False


def _cut_section(section: bytes, size_max: int) -> bytes:
    if len(section) <= size_max:
        return section
    return section[: section.rfind(b"\n", 0, size_max) + 1]


def has_long_line(octets: bytes) -> bool:
    """Whether a line has more than 998 octets before its CRLF; looks at one place per 1,000 octets or so."""
    start = 0
    while len(octets) - start > _LINE_MAX:
        found = octets.rfind(b"\n", start, start + _LINE_MAX + 2)
        if found < 0:
            return True
        start = found + 1
    return False
