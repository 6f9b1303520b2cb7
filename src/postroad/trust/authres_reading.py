"""Authentication-Results of others, read; and those that claim to be ours, found (RFC 8601 §2, §4.1, §5). Pure.

Real fields do not all obey the grammar, so this reads more than it allows: values with "/" and "=" that are not
quoted (Gmail's header.b), fields without an authserv-id (Microsoft's), words such as `action=none` without a ptype.
What always holds: no exception whatever the field; the work is linear in its length, of which no more than FIELD_MAX
octets are read. How it fails: `Reading.problem` says what was not understood; the results before it are there.

RFC 8601 §2.3, §2.7.6: results of methods and properties of ptypes that are not registered are no results; they stand in
`Reading.others`, for people only.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import Final, NamedTuple, cast

import msgspec

from postroad.mail.address import canonical_domain
from postroad.mail.message import raw_fields
from postroad.trust.results import Found, PropertyValue

FIELD_MAX: Final = 65_536  # octets of one field that are read
RESULTS_MAX: Final = 100
PROPERTIES_MAX: Final = 50  # of one result
NAME_MAX: Final = 100  # characters of a method, or of a ptype with its property
BEGINNING_MAX: Final = 200  # tokens that are read to find the authserv-id
DEPTH_MAX: Final = 100  # of comments in each other
VERSION: Final = "1"

_USUAL: Final = frozenset(("none", "pass", "fail", "temperror", "permerror"))
_SIGNED: Final = _USUAL | {"policy", "neutral"}
METHODS: Final = {
    "arc": frozenset(("none", "pass", "fail")),
    "auth": _USUAL,
    "dkim": _SIGNED,
    "dkim-adsp": _USUAL | {"unknown", "discard", "nxdomain"},
    "dkim-atps": _USUAL,
    "dmarc": _USUAL,
    "dnswl": _USUAL - {"fail"},
    "domainkeys": _SIGNED,
    "iprev": _USUAL - {"none"},
    "rrvs": _USUAL | {"unknown"},
    "sender-id": _SIGNED | {"softfail"},
    "smime": _SIGNED,
    "spf": _SIGNED | {"softfail"},
    "vbr": _USUAL,
}
"""The registered methods and the results of each (IANA, Email Authentication Parameters)."""
PTYPES: Final = frozenset(("body", "dns", "header", "policy", "smtp"))
_OLD_RESULTS: Final = {"hardfail": "fail"}  # RFC 5451; RFC 8601 §6.6 lists it as deprecated

#   quoted-string, open to the end if it is not closed;    "(", ";", "=";    white space;    anything else
_TOKEN: Final = re.compile(
    r'(?P<quoted>"(?:[^"\\]|\\.)*(?:"|\\?\Z))|(?P<mark>[(;=])|(?P<space>[ \t\r\n]+)|(?P<word>[^ \t\r\n"(;=]+)',
    re.DOTALL,
)
_COMMENT_PART: Final = re.compile(r"[^()\\]+|\\.|\\\Z", re.DOTALL)
_ESCAPED: Final = re.compile(r"\\(.)", re.DOTALL)
_JOINING: Final = (".", "/")
_NAME: Final = b"authentication-results"


class Reading(msgspec.Struct, frozen=True):
    """What a field says. `authserv_id`: "" if it has none. `others`: pairs that are no results by the registry, as
    written. `problem`: what could not be read; "": all of it was understood."""

    authserv_id: str
    results: tuple[Found, ...] = ()
    others: tuple[str, ...] = ()
    problem: str = ""


class _Token(NamedTuple):
    kind: str
    text: str


class _Pair(NamedTuple):
    """`name=value`; `value` unquoted."""

    name: str
    value: str


def read(value: bytes) -> Reading:
    """What stands behind the name and colon of the field."""
    if len(value) > FIELD_MAX:
        return Reading("", problem=f"the field has {len(value)} octets, more than {FIELD_MAX}")
    parts, problem = _parts(value.decode("utf-8", "replace"))
    authserv_id, version, rest = _service(parts)
    if version != VERSION:
        # RFC 8601 §2.6: what follows might not be in the expected format.
        return Reading(authserv_id, problem=f"version {version[:20]} of the field is not known")
    results: list[Found] = []
    others: list[str] = []
    for part in rest:
        if len(results) + len(others) >= RESULTS_MAX:
            problem = problem or f"the field has more than {RESULTS_MAX} results"
            break
        _take(part, results, others)
    return Reading(authserv_id, tuple(results), tuple(others), problem)


def claims(value: bytes, authserv_ids: Iterable[str]) -> bool:
    """Whether the field says that one of these services wrote it, in whatever way that can be written.

    If no authserv-id can be read, a field that has one of ours in its beginning claims it, too: others might read it.
    So does every field whose beginning is so long that it is not read: no honest host writes that.
    """
    ours = {_same(each) for each in authserv_ids if each}
    text = value.decode("utf-8", "replace")  # all of it: a long comment may stand in front
    authserv_id = _named(text)
    if authserv_id is None:
        return True
    if authserv_id:
        return _same(authserv_id) in ours or _same(authserv_id.partition("/")[0]) in ours
    head = text.partition("=")[0].lower()
    return any(each in head for each in ours)


def forged(section: bytes, authserv_ids: Iterable[str]) -> list[tuple[int, int]]:
    """Where fields stand that claim to be ours, each with its CRLF. `section`: a header section as it came to us."""
    if _NAME not in section.lower():
        return []
    ids = tuple(authserv_ids)
    return [
        (begins, min(ends + 2, len(section)))
        for name, begins, starts, ends in raw_fields(section)
        if name == _NAME and claims(section[starts:ends], ids)
    ]


def without_forged(section: bytes, authserv_ids: Iterable[str]) -> tuple[bytes, tuple[bytes, ...]]:
    """The section without the fields that claim to be ours (RFC 8601 §5), and these. The same object if there are
    none."""
    spans = forged(section, authserv_ids)
    if not spans:
        return section, ()
    kept: list[bytes] = []
    at = 0
    for begins, ends in spans:
        kept.append(section[at:begins])
        at = ends
    return b"".join((*kept, section[at:])), tuple([section[begins:ends] for begins, ends in spans])


def trusted(section: bytes, authserv_ids: Iterable[str]) -> list[Reading]:
    """What the fields of these services say, from the top."""
    ours = {_same(each) for each in authserv_ids if each}
    if not ours or _NAME not in section.lower():
        return []
    return [read(each) for each in _of(section, ours)]


def values(section: bytes, authserv_ids: Iterable[str]) -> list[bytes]:
    """The fields of these services from the top, each from its authserv-id on."""
    ours = {_same(each) for each in authserv_ids if each}
    if not ours or _NAME not in section.lower():
        return []
    return _of(section, ours)


def _of(section: bytes, ours: set[str]) -> list[bytes]:
    found: list[bytes] = []
    for name, _, starts, ends in raw_fields(section):
        if name == _NAME and ends - starts <= FIELD_MAX:
            value = section[starts:ends]
            authserv_id = _named(value.decode("utf-8", "replace"))
            if authserv_id and _same(authserv_id) in ours:
                found.append(value)
    return found


def _same(authserv_id: str) -> str:
    """The form in which two are compared: a domain in A-labels, in lower case, without a final dot."""
    try:
        return canonical_domain(authserv_id)
    except ValueError:
        return authserv_id.lower().rstrip(".")


def _parts(text: str) -> tuple[list[list[_Token]], str]:
    """The tokens between the ";", comments being white space; and what is wrong."""
    parts: list[list[_Token]] = [[]]
    problem, at = "", 0
    while at < len(text):
        found = _TOKEN.match(text, at)
        assert found is not None, "each character begins a token"
        kind, at = str(found.lastgroup), found.end()
        if found[0] == "(":
            at, closed = _behind_comment(text, at)
            problem = problem or ("" if closed else "a comment is not closed")
            parts[-1].append(_Token("space", " "))
        elif found[0] == ";":
            parts.append([])
        else:
            if kind == "quoted" and (len(found[0]) < 2 or not found[0].endswith('"')):
                problem = problem or "a quoted string is not closed"
            parts[-1].append(_Token(kind, found[0]))
    return parts, problem


def _named(text: str) -> str | None:
    """The authserv-id, "" if there is none; None if it is not within the first BEGINNING_MAX tokens. No more is read
    than that."""
    tokens: list[_Token] = []
    at = 0
    while at < len(text):
        found = cast("re.Match[str]", _TOKEN.match(text, at))  # each character begins a token
        kind, at = str(found.lastgroup), found.end()
        if found[0] == ";":
            break
        if len(tokens) >= BEGINNING_MAX:
            return None
        if found[0] == "(":
            at, closed = _behind_comment(text, at)
            if not closed and all(token.kind == "space" for token in tokens):
                return None
            kind = "space"
        tokens.append(_Token(kind, found[0]))
        if kind == "mark":
            break
    return _service([tokens])[0]


def _behind_comment(text: str, at: int) -> tuple[int, bool]:
    """Behind the end of a comment, and whether it has one. One with more than DEPTH_MAX others in each other is said
    not to be closed."""
    depth = 1
    while depth and at < len(text):
        if depth > DEPTH_MAX:
            return len(text), False
        inside = _COMMENT_PART.match(text, at)
        if inside is not None:
            at = inside.end()
        else:
            depth += 1 if text[at] == "(" else -1
            at += 1
    return at, not depth


def _service(parts: list[list[_Token]]) -> tuple[str, str, list[list[_Token]]]:
    """The authserv-id, the version of the field, and the parts that are results. Microsoft's fields begin with a
    result at once."""
    first = parts[0]
    words: list[list[str]] = [[]]
    for token in first:
        if token.text == "=" and token.kind == "mark":
            return "", VERSION, parts
        if token.kind == "space":
            words.append([])
        else:
            words[-1].append(_plain(token))
    said = ["".join(word) for word in words if any(word)]
    if not said:
        return "", VERSION, parts[1:]
    return said[0], said[1] if len(said) > 1 else VERSION, parts[1:]


def _take(part: list[_Token], results: list[Found], others: list[str]) -> None:
    """Puts the result of one part, or what it is instead, where it belongs."""
    pairs = _pairs(part)
    first = next(pairs, None)
    if first is None:
        words = "".join([token.text if token.kind != "space" else " " for token in part]).strip()
        if words and words.lower() != "none":
            others.append(words)
        return
    method, _, version = first.name.lower().partition("/")
    result = first.value.lower()
    result = _OLD_RESULTS.get(result, result)
    if result not in METHODS.get(method, ()) or version not in ("", VERSION):
        others.append(" ".join([f"{name}={value}" for name, value in (first, *pairs)]))
        return
    reason = ""
    properties: list[PropertyValue] = []
    for name, value in pairs:
        ptype, dot, name = name.lower().partition(".")
        if not dot and ptype == "reason":
            reason = reason or value
        elif dot and ptype in PTYPES and len(properties) < PROPERTIES_MAX:
            properties.append((ptype, name, value))
    told = " ".join([f"{method}={result}", *[f"{ptype}.{name}={value}" for ptype, name, value in properties]])
    results.append(Found(method, result, reason, tuple(properties), told))


def _pairs(tokens: list[_Token]) -> Iterator[_Pair]:
    """Each `name=value` of one part. White space may stand around "=", "." and "/" of the name."""
    name = ""
    at = 0
    while at < len(tokens):
        token = tokens[at]
        at += 1
        if token.kind == "space":
            continue
        if token.text != "=" or token.kind != "mark":
            text = _plain(token)
            joins = name.endswith(_JOINING) or text.startswith(_JOINING)
            name = name + text if joins and len(name) < NAME_MAX else text
            continue
        while at < len(tokens) and tokens[at].kind == "space":
            at += 1
        value: list[str] = []
        while at < len(tokens) and tokens[at].kind != "space":
            # A quoted local-part stays quoted; a value that is all quoted does not.
            value.append(tokens[at].text)
            at += 1
        if name:
            yield _Pair(name, _unquoted(value))
        name = ""


def _unquoted(pieces: list[str]) -> str:
    if len(pieces) == 1 and pieces[0].startswith('"'):
        return _plain(_Token("quoted", pieces[0]))
    return "".join(pieces)


def _plain(token: _Token) -> str:
    if token.kind != "quoted":
        return token.text
    inside = token.text[1:-1] if len(token.text) > 1 and token.text.endswith('"') else token.text[1:]
    return _ESCAPED.sub(r"\1", inside.replace("\r\n", ""))
