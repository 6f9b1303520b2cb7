"""SASLprep (RFC 4013): names and passwords in the form in which SCRAM works on them (RFC 5802 §2.2).

What always holds: ASCII without control characters comes out as it went in. How it fails: None, if RFC 4013 forbids the
text. `stringprep` of the standard library has the tables of RFC 3454, `unicodedata.ucd_3_2_0` the normal form of the
Unicode version that they are made for.
"""

from __future__ import annotations

import stringprep
import unicodedata
from collections.abc import Callable
from typing import Final

_PROHIBITED: Final[tuple[Callable[[str], bool], ...]] = (  # RFC 4013 §2.3
    stringprep.in_table_c12,
    stringprep.in_table_c21_c22,
    stringprep.in_table_c3,
    stringprep.in_table_c4,
    stringprep.in_table_c5,
    stringprep.in_table_c6,
    stringprep.in_table_c7,
    stringprep.in_table_c8,
    stringprep.in_table_c9,
    stringprep.in_table_a1,  # §2.5: a stored string holds no unassigned code points
)


def saslprep(text: str) -> str | None:
    """`text` prepared as a stored string (RFC 3454 §7), or None."""
    if text.isascii():
        return text if text.isprintable() else None
    mapped = "".join(  # RFC 4013 §2.1
        " " if stringprep.in_table_c12(char) else char for char in text if not stringprep.in_table_b1(char)
    )
    normal = unicodedata.ucd_3_2_0.normalize("NFKC", mapped)  # §2.2
    if any(prohibited(char) for char in normal for prohibited in _PROHIBITED):
        return None
    return normal if _direction_is_sound(normal) else None


def _direction_is_sound(text: str) -> bool:
    """RFC 3454 §6: right-to-left text begins and ends so, and holds nothing that is left-to-right."""
    right_to_left = [stringprep.in_table_d1(char) for char in text]
    if not any(right_to_left):
        return True
    return right_to_left[0] and right_to_left[-1] and not any(map(stringprep.in_table_d2, text))
