"""The mailboxes in the value of an address field: From, Sender, To (RFC 5322 §3.4, §4.4).

What always holds: each element of the list counts. One that names no mailbox gives None, so that nobody takes a list
for harmless of which only a part was understood. Read once, from the left to the right: linear in its length. Not
here: the syntax of a mailbox (`grammar`).
"""

from __future__ import annotations

import re
from itertools import pairwise
from typing import Final, cast

from postroad.mail.address import Address
from postroad.protocol.grammar import parse_mailbox

VALUE_MAX: Final = 16_384  # characters of an address field that are looked at

# One token. What is not closed goes to the end of the value.
#   quoted-string    comment's end or beginning    angle-addr    "," ";" ":"    a word, such as an addr-spec
_TOKEN: Final = re.compile(
    r'"(?P<quoted>(?:[^"\\]|\\.)*)(?:"|\\?\Z)|(?P<paren>[()])|<(?P<angle>(?:[^<>"]|"(?:[^"\\]|\\.)*(?:"|\\?\Z))*)>?|'
    r"(?P<mark>[,;:])|(?P<word>[^\",:;<>()\s]+)|(?P<odd>\S)|\s+", re.DOTALL
)  # fmt: skip
# RFC 5322 §3.2.2: what may stand within a comment; a backslash takes the next character with it.
_COMMENT_PART: Final = re.compile(r"(?:[^()\\]|\\.)+|\\\Z", re.DOTALL)
_NONSENSE: Final = ">"  # in place of an angle-addr: nobody's
# RFC 5322 §4.4: obs-route = obs-domain-list ":"
_ROUTE: Final = re.compile(r"@[^:\"]*:")


def mailboxes(value: str) -> list[Address | None]:
    """The mailboxes in the order in which they are written. Display names, comments and group names are passed over.

    [None] for a value that is too long to be looked at.
    """
    if len(value) > VALUE_MAX:
        return [None]
    found: list[Address | None] = []
    angle: str | None = None  # of the element that is being read
    words: list[str] = []
    at, depth, length = 0, 0, len(value)
    while at < length:
        if depth:
            inside = _COMMENT_PART.match(value, at)
            if inside is not None:
                at = inside.end()
                continue
            depth += 1 if value[at] == "(" else -1
            at += 1
            continue
        token = cast("re.Match[str]", _TOKEN.match(value, at))  # each character begins one
        at = token.end()
        match token.lastgroup:
            case "paren":
                depth = int(token["paren"] == "(")
            case "angle":
                angle = token["angle"] if angle is None else _NONSENSE
            case "quoted" | "word" | "odd":
                if angle is None:
                    words.append(token[0])
                else:  # RFC 5322 §3.4: nothing stands behind an angle-addr in its element
                    angle = _NONSENSE
            case "mark":
                if token["mark"] != ":":  # behind ":" the name of a group is over
                    found += _element(angle, words)
                angle, words = None, []
    return found + _element(angle, words)


def _element(angle: str | None, words: list[str]) -> list[Address | None]:
    if angle is not None:
        return [parse_mailbox(_ROUTE.sub("", angle.strip(), count=1))]
    if not words:
        return []
    apart = any(not (one.endswith((".", "@")) or other.startswith((".", "@"))) for one, other in pairwise(words))
    return [None if apart else parse_mailbox("".join(words))]  # §4.4: white space around "." and "@"
