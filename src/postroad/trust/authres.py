"""Authentication-Results, written (RFC 8601; RFC 8617 §4.1.1 for the payload). Pure.

What always holds: what is written can be read by every reader of RFC 8601. Lines end with CRLF, and are folded between
two properties if they would be longer than LINE_WISHED; none is longer than RFC 5322 §2.1.1 allows. What strangers had
a say in (domains, selectors, reasons) is quoted if it must be, without control characters and cut to a limit, so it
cannot begin a field or another result. `spf` names the domain of the sender alone (`smtp.mailfrom=example.org`;
RFC 8601 §2.7.2), `dkim` has `header.d` beside `header.i`: readers behind us, such as opendmarc, understand no other
form.

Quoted strings hold no backslashes and quotes, and an address whose local-part must be quoted is written without it:
Mail::AuthenticationResults reads nothing of a field with such a thing in it. A message that is not internationalised
(RFC 6532) gets ASCII only: domains as A-labels, addresses without a local-part that is not ASCII, "?" for other
characters.

Not here: how such fields are read, and which are forged (`authres_reading`).
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from functools import lru_cache
from typing import Final

from postroad.mail.address import canonical_domain
from postroad.trust.results import DKIM, SPF, Found, PropertyValue

NAME: Final = b"Authentication-Results"
LINE_WISHED: Final = 78  # RFC 5322 §2.1.1
RESULTS_MAX: Final = 64  # results in one field
VALUE_MAX: Final = 400  # octets of one value
REASON_MAX: Final = 200

KEYWORD: Final = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9-]{0,40}[A-Za-z0-9])?")  # RFC 5321 §4.1.2: Ldh-str
_TOKEN: Final = re.compile(r"[!#$%&'*+\-.0-9A-Z^_`a-z{|}~]+")  # RFC 2045 §5.1
_LABEL: Final = r"[A-Za-z0-9_\u0080-\U0010ffff](?:[A-Za-z0-9_\u0080-\U0010ffff-]*[A-Za-z0-9_\u0080-\U0010ffff])?"
_DOMAIN: Final = re.compile(rf"{_LABEL}(?:\.{_LABEL})*")
_ATOM: Final = r"[A-Za-z0-9!#$%&'*+\-/=?^_`{|}~\u0080-\U0010ffff]+"
_DOT_ATOM: Final = re.compile(rf"{_ATOM}(?:\.{_ATOM})*")
_READABLE: Final = str.maketrans('"\\', "'/")
_UNWANTED: Final = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")


def field(authserv_id: str, results: Iterable[Found], *, utf8: bool = False) -> bytes:
    """The whole field with its CRLF. `utf8`: the message is internationalised. No results: "none" (RFC 8601 §2.2)."""
    return b"%s: %s\r\n" % (NAME, payload(authserv_id, results, utf8=utf8))


def payload(authserv_id: str, results: Iterable[Found], *, utf8: bool = False) -> bytes:
    """What stands behind the name, also in the field of an ARC set (RFC 8617 §4.1.1), without CRLF at its end."""
    parts = [words for words in (_result(each, utf8) for each in results) if words]
    return _folded([[written(_domain(authserv_id, utf8), utf8=utf8)], *(parts[:RESULTS_MAX] or [["none"]])])


def written(value: str, *, utf8: bool = False) -> str:
    """A value as it may stand in the field: as it is, or quoted."""
    if len(value) <= VALUE_MAX and _TOKEN.fullmatch(value):
        return value
    value = _tame(value, VALUE_MAX)
    local_part, at, domain = value.rpartition("@")
    domain = _domain(domain, utf8)
    if at and _DOMAIN.fullmatch(domain) and (utf8 or domain.isascii()):
        # RFC 8601 §2.2: pvalue = [ [ local-part ] "@" ] domain-name
        plain = _DOT_ATOM.fullmatch(local_part) and (utf8 or local_part.isascii())
        return f"{local_part}@{domain}" if plain else f"@{domain}"
    if not value.isascii():
        value = _domain(value, utf8)
        if utf8 and _DOMAIN.fullmatch(value):
            return value
    if not utf8:
        value = value.encode("ascii", "replace").decode()
    value = value.translate(_READABLE)
    return value if _TOKEN.fullmatch(value) else _quoted(value)


def _result(found: Found, utf8: bool) -> list[str]:
    """The words of one result; none if its names are no words of the grammar."""
    if not (_is_keyword(found.method) and _is_keyword(found.result)):
        return []
    words = [f"{found.method}={found.result}"]
    if found.reason:
        reason = _tame(found.reason, REASON_MAX)
        words.append("reason=" + _quoted(reason if utf8 else reason.encode("ascii", "replace").decode()))
    words += [
        f"{ptype}.{name}={written(value, utf8=utf8)}"
        for ptype, name, value in _understood(found)
        if _is_keyword(ptype) and _is_keyword(name)
    ]
    return words


@lru_cache(maxsize=256)
def _is_keyword(text: str) -> bool:
    return KEYWORD.fullmatch(text) is not None


def _understood(found: Found) -> Iterable[PropertyValue]:
    """The properties in the form that all readers understand."""
    if found.method == SPF:
        # RFC 8601 §2.7.2: SPF says nothing of the local-part.
        return [
            (ptype, name, value.rpartition("@")[2] if name == "mailfrom" else value)
            for ptype, name, value in found.properties
        ]
    if found.method == DKIM and not found.value("header", "d"):
        domain = found.value("header", "i").rpartition("@")[2]
        return [("header", "d", domain), *found.properties] if domain else found.properties
    return found.properties


def _domain(text: str, utf8: bool) -> str:
    """The domain in A-labels, if `text` is one that must be written so."""
    if utf8 or text.isascii():
        return text
    try:
        return canonical_domain(text)
    except ValueError:
        return text


def _tame(text: str, octets_max: int) -> str:
    """Without control characters, and cut."""
    return _UNWANTED.sub("?", text[:octets_max]).encode()[:octets_max].decode("utf-8", "ignore")


def _quoted(text: str) -> str:
    return f'"{text.translate(_READABLE)}"'


def _folded(parts: list[list[str]]) -> bytes:
    """Each result begins a line of its own, with one space; with two spaces a line goes on."""
    lines: list[str] = []
    for number, words in enumerate(parts, 1):
        end = ";" if number < len(parts) else ""
        whole = f"{' ' if lines else ''}{' '.join(words)}{end}"
        if len(whole) <= LINE_WISHED:
            lines.append(whole)
            continue
        line = f" {words[0]}" if lines else words[0]
        for word in (*words[1:-1], words[-1] + end) if len(words) > 1 else ():
            if len(line) + 1 + len(word) > LINE_WISHED:
                lines.append(line)
                line = f"  {word}"
            else:
                line = f"{line} {word}"
        lines.append(line if len(words) > 1 else line + end)
    return "\r\n".join(lines).encode()
