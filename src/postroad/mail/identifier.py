"""The queue id: a number that grows with time, unique in the whole spool, and its short text.

60 bits: microseconds since 2020-01-01 UTC, then ten bits for the shard, so that ids of all shards sort by time and the
id tells its shard. The text is 12 characters of Crockford's base 32 in lower case (no i, l, o, u), so that people can
read it out over a telephone. Upper case is read, too, and ``o`` as ``0``, ``i`` and ``l`` as ``1``.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Final

SHARDS_MAX: Final = 1024
_EPOCH_US: Final = 1_577_836_800_000_000  # 2020-01-01T00:00:00Z
_DIGITS: Final = "0123456789abcdefghjkmnpqrstvwxyz"
_VALUES: Final = {digit: value for value, digit in enumerate(_DIGITS)} | {"o": 0, "i": 1, "l": 1}
_PAIRS: Final = tuple(first + second for first in _DIGITS for second in _DIGITS)


def make(now_us: int, shard: int, last: int) -> int:
    """The next id of a shard: from the time, yet always above `last`, so that a clock set back makes no id twice."""
    number = ((now_us - _EPOCH_US) << 10) | shard
    return number if number > last else last + SHARDS_MAX


def shard_of(number: int) -> int:
    """The shard, 0..1023."""
    return number & (SHARDS_MAX - 1)


def made_us(number: int) -> int:
    """About when the id was made, in microseconds since 1970."""
    return (number >> 10) + _EPOCH_US


@lru_cache(maxsize=1024)  # the same one stands in Received, in the reply and in two lines of the log
def text(number: int) -> str:
    """12 characters, the most significant first."""
    pairs = _PAIRS
    return (
        pairs[number >> 50 & 1023] + pairs[number >> 40 & 1023] + pairs[number >> 30 & 1023]
        + pairs[number >> 20 & 1023] + pairs[number >> 10 & 1023] + pairs[number & 1023]
    )


def parse(written: str) -> int | None:
    """The id that `written` names, or None if it is no queue id."""
    if len(written) != 12:
        return None
    number = 0
    for char in written.lower():
        value = _VALUES.get(char)
        if value is None:
            return None
        number = number << 5 | value
    return number
