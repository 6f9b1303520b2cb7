"""Records as lines of a zone file (RFC 1035 §5.1). Pure.

What always holds: any name server can read a line, whatever the text of its record is. Text is split into strings of at
most STRING_MAX octets (RFC 1035 §3.3.14) in quotes; quotes and backslashes are escaped. Names are absolute.
"""

from __future__ import annotations

from typing import Final

STRING_MAX: Final = 255  # octets of one string of a TXT record
_INDENT: Final = "    "


def record(name: str, kind: str, value: str) -> str:
    """One record. `name`: without a dot at the end. No time to live: that of the zone."""
    return f"{name}. IN {kind} {value}"


def txt_record(name: str, text: str) -> str:
    """A TXT record; if it is long, one string in each line, in parentheses."""
    return record(name, "TXT", txt_value(text))


def txt_value(text: str) -> str:
    """The strings of a text."""
    octets = text.encode()
    strings = [_quoted(octets[at : at + STRING_MAX]) for at in range(0, len(octets), STRING_MAX)] or ['""']
    if len(strings) == 1:
        return strings[0]
    return "(\n" + "".join(f"{_INDENT}{each}\n" for each in strings) + _INDENT + ")"


def _quoted(octets: bytes) -> str:
    return '"' + "".join(map(_character, octets)) + '"'


def _character(octet: int) -> str:
    if octet in (0x22, 0x5C):
        return f"\\{chr(octet)}"
    return chr(octet) if 0x20 <= octet < 0x7F else f"\\{octet:03}"


def comment(text: str) -> str:
    """A line that name servers pass over."""
    return f"; {text}"
