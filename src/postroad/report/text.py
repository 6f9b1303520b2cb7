"""Makes text that others supplied safe for a header field, a report for people, or a line of the log.

What always holds: the result of `clean` holds no control octet, no line break and nothing else that a terminal or a
parser acts upon (C1 controls, line separators, bidirectional overrides); the result of `field` is one header field
whose lines have at most 998 octets, none of them blank, so that nothing can be injected (RFC 5322 §2.1.1, §2.2).
"""

from __future__ import annotations

import re
from typing import Final

_LINE_MAX: Final = 76  # RFC 5322 §2.1.1 asks for 78
_TEXT_MAX: Final = 72  # text for people: a few less, so that quoted-printable seldom has to break a line
_WORD_MAX: Final = 900  # RFC 5322 §2.1.1: lines MUST be no more than 998; a longer word is cut into several
_PLACE: Final = re.compile(r"(\A|: )/[^:\n]*: ")  # before what is said of it
_LOCK_FILE: Final = re.compile(r"the file /[^\s:;,]*")
_SPACES: Final = re.compile(r" *[^ ]+")


def clean(text: str) -> str:
    """`text` with every unprintable character replaced: white space by a space, the rest by ``?``."""
    if text.isprintable():
        return text
    return "".join(char if char.isprintable() else " " if char.isspace() else "?" for char in text)


def without_places(text: str) -> str:
    """What we say of an attempt, for people outside: the paths of mailboxes, sockets and programs are for the log."""
    return _LOCK_FILE.sub("a lock file", _PLACE.sub(r"\1", text))


def ascii_of(text: str) -> str:
    """Printable ASCII: as `clean`, and other characters in RFC 6533's notation, ``\\x{FC}``."""
    cleaned = clean(text)
    if cleaned.isascii():
        return cleaned
    return "".join(char if char.isascii() else f"\\x{{{ord(char):02X}}}" for char in cleaned)


def shorten(text: str, length_max: int) -> str:
    """At most `length_max` characters, the cut marked."""
    return text if len(text) <= length_max else text[: length_max - 4] + " ..."


def shorten_reason(text: str, length_max: int) -> str:
    """At most `length_max` characters of a reason, its beginning cut and marked: the end says most, such as the error
    behind the names of the hosts. A reply code at the beginning stays."""
    if len(text) <= length_max:
        return text
    found = _CODE.match(text)
    head = f"{found[0]} ... " if found is not None and len(found[0]) + 8 < length_max else "... "
    return head + text[len(head) - length_max :] if len(head) < length_max else text[-length_max:]


_CODE: Final = re.compile(r"[2-5][0-9]{2}(?: [245]\.[0-9]{1,3}\.[0-9]{1,3})?(?= )")


def field(name: str, value: str) -> str:
    """One header field with its CRLF, folded at spaces (RFC 5322 §2.2.3). `value` has been cleaned."""
    line = f"{name}: {value}"
    if len(line) <= _LINE_MAX:
        return line + "\r\n"
    return "\r\n".join(_folded(line)) + "\r\n"


def _folded(line: str) -> list[str]:
    words: list[str] = _SPACES.findall(line.rstrip(" "))  # spaces without a word behind them: no match, again and again
    word_max = _WORD_MAX if line.isascii() else _WORD_MAX // 4  # in UTF-8 a character has at most 4 octets
    if max(map(len, words)) > word_max:
        # Degenerate, and only a hostile peer sends it: legal lines matter more here than the exact spaces.
        words = [piece for word in line.split() for piece in _cut(word)]
        words[1:] = [" " + word for word in words[1:]]
    lines: list[str] = []
    current = ""
    for word in words:
        if current and len(current) + len(word) > _LINE_MAX and not current.endswith(":"):
            lines.append(current)
            current = word
        else:
            current += word
    lines.append(current)
    return lines


def _cut(word: str) -> list[str]:
    return [word[at : at + _WORD_MAX // 4] for at in range(0, len(word), _WORD_MAX // 4)]


def wrapped(text: str, indent: str) -> list[str]:
    """Lines for people: at most 72 characters if the words allow, each with `indent`."""
    width = _TEXT_MAX - len(indent)
    if len(text) <= width:
        return [indent + text]
    lines: list[str] = []
    current = ""
    for word in text.split():
        for piece in _cut(word) if len(word) > _WORD_MAX else (word,):
            if current and len(current) + 1 + len(piece) > width:
                lines.append(indent + current)
                current = piece
            else:
                current = f"{current} {piece}" if current else piece
    if current:
        lines.append(indent + current)
    return lines
