"""The field Received-SPF: what one check of SPF found (RFC 7208 §9.1). Pure.

What always holds: ASCII only, and no line longer than RFC 5322 §2.1.1 allows. What strangers had a say in is escaped
and cut, so that it can end neither a comment nor the field.

Authentication-Results says the same for programs; this field is for those that read no other.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final

from postroad.trust import results
from postroad.trust.spf import MAIL_FROM, SpfResult

LINE_WISHED: Final = 78  # RFC 5322 §2.1.1
COMMENT_MAX: Final = 400
VALUE_MAX: Final = 400

_DOT_ATOM: Final = re.compile(r"[A-Za-z0-9!#$%&'*+/=?^_`{|}~-]+(?:\.[A-Za-z0-9!#$%&'*+/=?^_`{|}~-]+)*")
_UNWANTED: Final = re.compile(r"[^\x20-\x7e]")
_SPECIAL: Final = re.compile(r"([()\\])")


def field(result: SpfResult) -> bytes:
    """The whole field with its CRLF."""
    lines = ["Received-SPF:"]
    for word in (result.result, *_comment(result), *_pairs(result)):
        if len(lines[-1]) + 1 + len(word) > LINE_WISHED and lines[-1].strip():
            lines.append(" " + word)
        else:
            lines[-1] += " " + word
    return "\r\n".join(lines).encode("ascii") + b"\r\n"


def _comment(result: SpfResult) -> list[str]:
    receiver = result.client.receiver
    told = f"{receiver}: {result.told}" if receiver else result.told
    text = _SPECIAL.sub(r"\\\1", _tame(told, COMMENT_MAX))
    return f"({' '.join(text.split())})".split(" ")


def _pairs(result: SpfResult) -> Iterator[str]:
    yield _pair("client-ip", result.client.address)
    if result.identity == MAIL_FROM:
        yield _pair("envelope-from", result.sender)
    yield _pair("helo", result.client.helo)
    if result.client.receiver:
        yield _pair("receiver", result.client.receiver)
    yield _pair("identity", result.identity)
    if result.result in (results.PERMERROR, results.TEMPERROR):
        yield _pair("problem", result.problem)
    elif result.result != results.NONE:
        yield _pair("mechanism", result.mechanism or "default")


def _pair(key: str, value: str) -> str:
    value = _tame(value, VALUE_MAX)
    if not _DOT_ATOM.fullmatch(value):
        value = '"' + value.replace("\\", "\\\\").replace('"', '\\"') + '"'
    return f"{key}={value};"


def _tame(text: str, characters_max: int) -> str:
    return _UNWANTED.sub("?", text[:characters_max])
