"""Tables of rules with conditions: what regexp_table(5), pcre_table(5) and cidr_table(5) of Postfix have in common.

    if CONDITION
    rule
    endif

What always holds: rules stay in the order of the file, and those between `if` and `endif` are the `inner` rules of the
condition. At most `DEPTH_MAX` conditions stand within each other.

How it fails: a line that is no rule is told and left out, as in Postfix. If a condition cannot be read, its inner rules
match nothing. Postfix 3.7 leaves out only the line of the condition, so that they hold for every key.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, Final, Protocol, TypeVar

from postroad.maps.text import logical_lines
from postroad.world.problem import Problem, not_utf8

DEPTH_MAX: Final = 100  # conditions within each other


class Rule(Protocol):
    """One line. `inner`: the rules of a condition, None for any other rule. `line`: where it stands in the file.
    `written`: its pattern or network, and its value, as they stand there."""

    inner: Any
    line: int
    written: tuple[str, str]


R = TypeVar("R", bound=Rule)


class UsedRules:
    """The rules of a table, with the time when each was last the answer. `used`: those that were, by their names, such
    as ``line 3: /^x/``."""

    def __init__(self, rules: Sequence[Rule], now_us: Callable[[], int]) -> None:
        self._every = rules
        self._now_us = now_us
        self.used: dict[bytes, int] = {}

    def note(self, rule: Rule) -> None:
        """The rule is the answer."""
        self.used[_name(rule).encode()] = self._now_us()

    def entries(self) -> Iterator[tuple[str, str, int]]:
        """The name of each rule, its value, and when it was last the answer (0: never)."""
        for rule in _leaves(self._every):
            name = _name(rule)
            yield name, rule.written[1], self.used.get(name.encode(), 0)


def _name(rule: Rule) -> str:
    return f"line {rule.line}: {rule.written[0]}"


def _leaves(rules: Iterable[Rule]) -> Iterator[Rule]:
    for rule in rules:
        if rule.inner is None:
            yield rule
        else:
            yield from _leaves(rule.inner)


def parse_rules(
    lines: Iterable[bytes],
    where: str,
    rule_of: Callable[[str], R | str],
    condition_of: Callable[[str], R | str],
    never: Callable[[], R],
    remedy: str,
) -> tuple[list[R], list[Problem]] | Problem:
    """The outermost rules of a text, and what is wrong with single lines. `rule_of` and `condition_of` read one line
    and say what is wrong with it; `never` makes a condition that matches nothing."""
    doubts: list[Problem] = []
    outer: list[R] = []
    open_rules: list[list[R]] = [outer]  # of each condition that has no endif yet
    for number, octets in logical_lines(lines):
        try:
            line = octets.decode().strip()
        except UnicodeDecodeError:
            return not_utf8(f"{where}:{number}")
        if not line:  # only characters that Unicode takes for white space, and ASCII does not
            continue
        word = line.split(None, 1)[0].lower()
        if word == "endif":
            if len(open_rules) == 1:
                doubts.append(Problem(f"{where}:{number}", "endif without if", "Remove the line."))
            else:
                open_rules.pop()
            continue
        is_condition = word == "if"
        found = condition_of(line[2:].strip()) if is_condition else rule_of(line)
        if isinstance(found, str):
            doubts.append(Problem(f"{where}:{number}", found, remedy))
            if not is_condition:
                continue
            found = never()
        if is_condition and len(open_rules) > DEPTH_MAX:
            return Problem(f"{where}:{number}", f"has more than {DEPTH_MAX} if within each other", "Use fewer.")
        found.line = number
        open_rules[-1].append(found)
        if is_condition:
            open_rules.append(found.inner)
    if len(open_rules) > 1:
        doubts.append(Problem(where, "an if has no endif", "Write endif after its last rule."))
    return outer, doubts
