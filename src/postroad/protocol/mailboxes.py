"""The mailboxes in the value of an address field: From, Sender, To (RFC 5322 §3.4, §4.4).

What always holds: each element of the list counts. If one names no mailbox, the result is None, so that nobody trusts a
list that was understood only in part. The text is read once, from left to right, so the work is linear. Not here: the
syntax of a mailbox (`grammar`).
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import pairwise
from typing import Final, cast

from postroad.mail.address import Address
from postroad.protocol.grammar import parse_mailbox

VALUE_MAX: Final = 16_384  # characters of an address field that are looked at
HEADER_VALUE_MAX: Final = 262_144  # the same if recipients are taken from the field, or written into it
_ANY_DOMAIN: Final = "example"
_HOST: Final = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9-]*[A-Za-z0-9])?")

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


class _Element:
    """What is read of one element of the list. `end`: where an address stands that has no domain, behind its last
    character."""

    __slots__ = ("angle", "end", "words")

    def __init__(self) -> None:
        self.angle: str | None = None
        self.words: list[str] = []
        self.end = 0


def mailboxes(value: str, *, domain: str = "", value_max: int = VALUE_MAX) -> list[Address | None]:
    """The mailboxes in the order in which they are written. Display names, comments and group names are passed over.
    `domain`: of those that are written without one; "": they are none.

    [None] for a value that is too long to be looked at.
    """
    if len(value) > value_max:
        return [None]
    found: list[Address | None] = []
    for element in _elements(value):
        found += _mailbox(element, domain)
    return found


def qualified(value: str, domain: str, *, hosts_domain: str = "", value_max: int = HEADER_VALUE_MAX) -> str:
    """`value` with `@domain` behind each mailbox that is written without a domain, and with `hosts_domain`, unless it
    is "", behind each domain without a dot; the same object if there is none. All else stays, character for character.
    A value that is too long is left."""
    if len(value) > value_max:
        return value
    pieces: list[str] = []
    start = 0
    for element in _elements(value):
        if _lacks_domain(element):
            missing = f"@{domain}"
        elif hosts_domain and _lacks_dot(element):
            missing = f".{hosts_domain}"
        else:
            continue
        pieces += (value[start : element.end], missing)
        start = element.end
    return "".join((*pieces, value[start:])) if pieces else value


def _lacks_domain(element: _Element) -> bool:
    """Whether the element is a local-part and nothing more. Several words are no mailbox."""
    if element.angle is not None:
        return _is_local_part(element.angle.strip())
    return len(element.words) == 1 and _is_local_part(element.words[0])


def _lacks_dot(element: _Element) -> bool:
    """Whether the element is a mailbox whose domain is a single label."""
    text = element.angle.strip() if element.angle is not None else element.words[0] if len(element.words) == 1 else ""
    local_part, _, host = text.rpartition("@")
    return bool(local_part) and _HOST.fullmatch(host) is not None and parse_mailbox(text) is not None


def _is_local_part(text: str) -> bool:
    return bool(text) and text != _NONSENSE and (text.startswith('"') or "@" not in text) and \
        parse_mailbox(f"{text}@{_ANY_DOMAIN}") is not None


def _elements(value: str) -> Iterator[_Element]:
    """The elements of the list, the empty ones among them."""
    element = _Element()
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
                element.end = token.start("angle") + len(token["angle"].rstrip())
                element.angle = token["angle"] if element.angle is None else _NONSENSE
            case "quoted" | "word" | "odd":
                if element.angle is None:
                    element.words.append(token[0])
                    element.end = at
                else:  # RFC 5322 §3.4: nothing stands behind an angle-addr in its element
                    element.angle = _NONSENSE
            case "mark":
                if token["mark"] != ":":  # behind ":" the name of a group is over
                    yield element
                element = _Element()
    yield element


def _mailbox(element: _Element, domain: str) -> list[Address | None]:
    if domain and _lacks_domain(element):
        text = element.words[0] if element.angle is None else element.angle.strip()
        return [parse_mailbox(f"{text}@{domain}")]
    if element.angle is not None:
        return [parse_mailbox(_ROUTE.sub("", element.angle.strip(), count=1))]
    words = element.words
    if not words:
        return []
    apart = any(not (one.endswith((".", "@")) or other.startswith((".", "@"))) for one, other in pairwise(words))
    return [None if apart else parse_mailbox("".join(words))]  # §4.4: white space around "." and "@"
