"""Writes a header section with octets above ASCII in ASCII (RFC 2047, RFC 2231).

Display names, comments and free text become encoded words, parameters of Content-Type and Content-Disposition get the
extended form. The charset is UTF-8, or ``unknown-8bit`` (RFC 1428 §3) for octets that are no UTF-8; these octets are
kept.

What always holds: fields that are ASCII stay as they are, octet for octet; a reader who decodes gets the same text. How
it fails: None, if an address or a boundary is not ASCII, because no ASCII form means the same.
"""

from __future__ import annotations

import re
from base64 import b64encode
from collections.abc import Callable, Iterator
from typing import Final

from postroad.protocol.mime import PARAMETER, unquoted

_LINE: Final = rb"[^\r]*(?:\r(?!\n)[^\r]*)*(?:\r\n|\Z)"
_FIELD: Final = re.compile(rb"[^ \t]" + _LINE + rb"(?:[ \t]" + _LINE + rb")*")
_WORD_MAX: Final = 75  # RFC 2047 §2: characters of an encoded word
_SPACE: Final = re.compile(rb"(\s+)")
_ADDRESSES: Final = frozenset({
    b"from", b"sender", b"reply-to", b"to", b"cc", b"bcc", b"resent-from", b"resent-sender", b"resent-reply-to",
    b"resent-to", b"resent-cc", b"resent-bcc", b"disposition-notification-to", b"return-receipt-to", b"errors-to",
    b"mail-followup-to", b"mail-reply-to",
})
_PARAMETERS: Final = frozenset({b"content-type", b"content-disposition"})
_FOLD: Final = re.compile(rb"\r\n(?=[ \t])")
# RFC 2231 §7: attribute-char
_PLAIN: Final = frozenset(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789!#$&+-.^_`{|}~")


def in_ascii(section: bytes) -> bytes | None:
    """The whole section; None if it cannot be said in ASCII."""
    if section.isascii():
        return section
    written: list[bytes] = []
    for found in _FIELD.finditer(section):
        field = found.group()
        if not field.isascii():
            changed = _field(field)
            if changed is None:
                return None
            field = changed
        written.append(field)
    return b"".join(written)


def charset_of(octets: bytes) -> bytes:
    """By what name text in these octets goes."""
    try:
        octets.decode("utf-8")
    except UnicodeDecodeError:
        return b"unknown-8bit"
    return b"utf-8"


def _field(field: bytes) -> bytes | None:
    name, colon, value = field.partition(b":")
    end = b"\r\n" if value.endswith(b"\r\n") else b""
    value = value.removesuffix(b"\r\n")
    if not colon or not name.isascii():  # the line of a mailbox
        return _text(field.removesuffix(b"\r\n")) + end
    kind = name.strip().lower()
    written: bytes | None
    if kind in _ADDRESSES:
        written = _addresses(value)
    elif kind in _PARAMETERS:
        written = _parameters(value)
    else:
        written = _text(value)
    return None if written is None else name + colon + written + end


# -- encoded words -----------------------------------------------------------------------------------------------------


def words(octets: bytes) -> bytes:
    """Text as encoded words, one to a line (RFC 2047 §2)."""
    charset = charset_of(octets)
    room = (_WORD_MAX - len(charset) - len("=??B??=")) // 4 * 3
    return b"\r\n ".join(
        b"=?%b?B?%b?=" % (charset, b64encode(part)) for part in _parts(octets, room, whole=charset == b"utf-8")
    )


def _parts(octets: bytes, room: int, *, whole: bool) -> Iterator[bytes]:
    """In parts of at most `room` octets; `whole`: no character is divided (RFC 2047 §5)."""
    at = 0
    while at < len(octets):
        end = min(at + room, len(octets))
        while whole and end < len(octets) and octets[end] & 0xC0 == 0x80:
            end -= 1
        yield octets[at:end]
        at = end


def _text(value: bytes) -> bytes:
    """Free text: each run of words above ASCII becomes encoded words."""
    tokens = _SPACE.split(value)
    written: list[bytes] = []
    place = 0
    while place < len(tokens):
        if tokens[place].isascii():
            written.append(tokens[place])
            place += 1
            continue
        last = place
        while last + 2 < len(tokens) and not tokens[last + 2].isascii():
            last += 2
        run = _FOLD.sub(b"", b"".join(tokens[place : last + 1]))
        # RFC 2047 §6.2: white space between two encoded words is not shown, so it goes into ours.
        if place >= 2 and tokens[place - 2].endswith(b"?="):
            run = b" " + run
        if last + 2 < len(tokens) and tokens[last + 2].startswith(b"=?"):
            run += b" "
        written.append(words(run))
        place = last + 1
    return b"".join(written)


# -- addresses ---------------------------------------------------------------------------------------------------------


def _addresses(value: bytes) -> bytes | None:
    """A list of mailboxes and groups (RFC 5322 §3.4)."""
    written: list[bytes] = []
    phrase: list[bytes] = []  # tokens of which it is not known yet whether they are a name or an address
    angle = False
    for token in _tokens(value):
        if token.startswith(b"("):
            phrase.append(token if token.isascii() else _comment(token))
        elif angle:
            if not token.isascii():
                return None
            angle = token != b">"
            written.append(token)
        elif token in _ENDS:
            told = _name(phrase) if token in _BEHIND_NAME else _bare(phrase)
            if told is None:
                return None
            written += (told, token)
            phrase = []
            angle = token == b"<"
        else:
            phrase.append(token)
    told = _bare(phrase)
    return None if told is None else b"".join((*written, told))


_ENDS: Final = (b"<", b",", b":", b";")
_BEHIND_NAME: Final = (b"<", b":")
_ATOM_END: Final = re.compile(rb'[\s"(<>@,:;]')


def _tokens(value: bytes) -> Iterator[bytes]:
    """Quoted strings, comments, white space, specials, and what stands between them."""
    at = 0
    while at < len(value):
        start = at
        octet = value[at : at + 1]
        if octet == b'"':
            at = _behind_quoted(value, at)
        elif octet == b"(":
            at = _behind_comment(value, at)
        elif octet.isspace():
            found = _SPACE.match(value, at)
            at = found.end() if found else at + 1
        elif octet in b"<>@,:;":
            at += 1
        else:
            found = _ATOM_END.search(value, at)
            at = found.start() if found else len(value)
        yield value[start:at]


def _behind_quoted(value: bytes, at: int) -> int:
    at += 1
    while at < len(value) and value[at] != 0x22:
        at += 2 if value[at] == 0x5C else 1
    return min(at + 1, len(value))


def _behind_comment(value: bytes, at: int) -> int:
    depth = 0
    while at < len(value):
        octet = value[at]
        at += 2 if octet == 0x5C else 1
        depth += (octet == 0x28) - (octet == 0x29)
        if not depth:
            break
    return min(at, len(value))


def _comment(token: bytes) -> bytes:
    """A comment; one that is not closed goes to the end of the field, and is closed before the white space there."""
    text, behind = token[1:-1], b""
    if not _is_closed(token):
        text = token[1:].rstrip()
        behind = token[1 + len(text) :]
    return b"(" + _text(text) + b")" + behind


def _is_closed(token: bytes) -> bool:
    return token.endswith(b")") and _behind_comment(token + b")", 0) == len(token)


def _name(tokens: list[bytes]) -> bytes:
    """A phrase: the name of a mailbox or group."""
    joined = b"".join(tokens)
    if joined.isascii():
        return joined
    text = b"".join(unquoted(each) for each in tokens)
    before = text[: len(text) - len(text.lstrip())]
    behind = text[len(text.rstrip()) :]
    text = text.strip()
    if b"=?" in text or b"(" in text:
        return before + _text(text) + behind
    return before + words(_FOLD.sub(b"", text)) + behind


def _bare(tokens: list[bytes]) -> bytes | None:
    """What stands without angle brackets: an address, or a name without one."""
    if all(each.isascii() for each in tokens):
        return b"".join(tokens)
    return None if b"@" in tokens else _name(tokens)


# -- parameters --------------------------------------------------------------------------------------------------------


def _parameters(value: bytes) -> bytes | None:
    """A value with parameters: those above ASCII in the form of RFC 2231 §4."""
    boundary = False

    def extended(found: re.Match[bytes]) -> bytes:
        nonlocal boundary
        space, name, said = found.groups()
        if name is None or said.isascii() or not name.isascii():
            return found.group()
        boundary = boundary or name.lower() == b"boundary"
        return b";" + space + _parameter(name, said)

    written = PARAMETER.sub(extended, value)
    if boundary:
        return None
    return written if written.isascii() else _text(written)


def _parameter(name: bytes, said: bytes) -> bytes:
    said = _FOLD.sub(b"", said)
    said = unquoted(said) if said.startswith(b'"') else said.strip()
    if name.endswith(b"*"):  # in that form already, not quite
        return name + b"=" + _percent(said, lambda octet: octet < 0x80)
    first = b"*" not in name or name.endswith(b"*0")
    charset = charset_of(said)
    head = (charset if charset == b"utf-8" else b"") + b"''" if first else b""
    return name + b"*=" + head + _percent(said, lambda octet: octet in _PLAIN)


def _percent(octets: bytes, plain: Callable[[int], bool]) -> bytes:
    return b"".join(bytes((octet,)) if plain(octet) else b"%%%02X" % octet for octet in octets)
