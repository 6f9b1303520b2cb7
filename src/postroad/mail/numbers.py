"""A number and its noun as people write them: 1 message, 2 messages. All texts for people use it."""

from __future__ import annotations


def counted(number: int, thing: str) -> str:
    """The number with its noun. `thing`: the noun in the singular, whose plural ends in s; with more words behind it,
    the plural s comes at the end of the first: ``counted(2, "message in memory")`` is "2 messages in memory"."""
    noun, _, rest = thing.partition(" ")
    noun = noun if number == 1 else f"{noun}s"
    return f"{number} {noun} {rest}" if rest else f"{number} {noun}"
