"""Encoded words, decoded for people (RFC 2047 §2, §6.2).

Only for showing: a Subject in the text of a DSN or in a list. What does not decode is shown as it stands. Nothing
here is ever put into a header field.
"""

from __future__ import annotations

import binascii
import re
from typing import Final

# RFC 2047 §2: encoded-word = "=?" charset "?" encoding "?" encoded-text "?="; RFC 2231 §5 adds *language to charset
_WORD: Final = re.compile(r"=\?([A-Za-z0-9._:+-]{1,40})(?:\*[A-Za-z0-9-]{1,20})?\?([BbQq])\?([!->@-~]{0,900})\?=")
# RFC 2047 §6.2: white space between two adjacent encoded words is ignored.
_BETWEEN: Final = re.compile(r"(\?=)[ \t]+(?==\?)")


def decode(text: str) -> str:
    """`text` with its encoded words decoded; control characters are left for the caller to clean."""
    if "=?" not in text:
        return text
    return _WORD.sub(_decode_one, _BETWEEN.sub(r"\1", text))


def _decode_one(found: re.Match[str]) -> str:
    charset, encoding, encoded = found.groups()
    try:
        if encoding in "Bb":
            octets = binascii.a2b_base64(encoded)
        else:
            octets = binascii.a2b_qp(encoded.encode("ascii"), header=True)
        return octets.decode(charset, "replace")
    except (ValueError, LookupError):
        return found.group()
