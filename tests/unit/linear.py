"""Counts the work of a parser: whether it is linear is shown by doubling its input, not by a clock.

The modules' regular expressions are replaced by ones that are matched here step by step, as the `re` module does it
(backtracking from the left), and counted. Methods of str and bytes count as many steps as their string is long; a
parser that calls one for each line of its input is quadratic by this measure, as it may well be in truth.
"""

from __future__ import annotations

import re
import re._constants as op  # type: ignore[import-not-found]
import re._parser as parser  # type: ignore[import-not-found]
import sys
from collections.abc import Callable, Iterator
from types import FrameType, ModuleType
from typing import Any

import pytest

TOO_MUCH = 40_000_000  # steps: nobody need wait for the end of a parser that is not linear


class Meter:
    """How many steps were made."""

    def __init__(self) -> None:
        self.steps = 0

    def add(self, steps: int) -> None:
        self.steps += steps
        assert self.steps < TOO_MUCH, "far too many steps"

    def profile(self, frame: FrameType, event: str, argument: Any) -> None:
        if event == "c_call":
            owner = getattr(argument, "__self__", None)
            self.add(len(owner) if isinstance(owner, str | bytes) else 1)
        elif event == "call":
            self.add(1)


class CountedPattern:
    """A regular expression whose matching is counted. Its results are those of `re`, which the real one gives."""

    def __init__(self, pattern: re.Pattern[Any], meter: Meter) -> None:
        self._real, self._meter = pattern, meter
        text = pattern.pattern.decode("latin-1") if isinstance(pattern.pattern, bytes) else pattern.pattern
        flags = pattern.flags & ~re.UNICODE if isinstance(pattern.pattern, bytes) else pattern.flags
        self._tree = list(parser.parse(text, flags))
        self._ignores_case = bool(pattern.flags & re.IGNORECASE)
        self._dot_all = bool(pattern.flags & re.DOTALL)
        self._multiline = bool(pattern.flags & re.MULTILINE)

    def match(self, text: Any, pos: int = 0, endpos: int = sys.maxsize) -> Any:
        return self._counted("match", text, pos, endpos)

    def fullmatch(self, text: Any, pos: int = 0, endpos: int = sys.maxsize) -> Any:
        return self._counted("fullmatch", text, pos, endpos)

    def search(self, text: Any, pos: int = 0, endpos: int = sys.maxsize) -> Any:
        return self._counted("search", text, pos, endpos)

    def finditer(self, text: Any, pos: int = 0, endpos: int = sys.maxsize) -> Iterator[Any]:
        while (found := self._counted("search", text, pos, endpos)) is not None:
            yield found
            pos = found.end() + (found.end() == found.start())
            if pos > len(text):
                return

    def findall(self, text: Any, pos: int = 0, endpos: int = sys.maxsize) -> list[Any]:
        list(self.finditer(text, pos, endpos))
        return self._real.findall(text, pos, endpos)

    def sub(self, replacement: Any, text: Any, count: int = 0) -> Any:
        list(self.finditer(text))
        return self._real.sub(replacement, text, count=count)

    def split(self, text: Any) -> list[Any]:
        list(self.finditer(text))
        return self._real.split(text)

    def _counted(self, how: str, text: Any, pos: int, endpos: int) -> Any:
        profile = sys.getprofile()
        sys.setprofile(None)  # the work of the counting is not counted
        try:
            found = getattr(self._real, how)(text, pos, endpos)
            codes = text if isinstance(text, bytes) else [ord(char) for char in text]
            end = min(endpos, len(text))
            ends = (lambda at: at == end) if how == "fullmatch" else (lambda at: True)
            starts = range(pos, end + 1) if how == "search" else (pos,)
            matched = None
            for start in starts:
                self._meter.add(1)
                matched = self._run(self._tree, codes, start, end, ends)
                if matched is not None:
                    break
            assert (matched is None) == (found is None), (self._real.pattern, how, text[:80])
            return found
        finally:
            sys.setprofile(profile)

    def _run(self, tree: list[Any], codes: Any, at: int, end: int, then: Callable[[int], bool]) -> int | None:
        """Where a match of `tree` ends after which `then` holds; None for none."""
        for stop in self._ends(tree, 0, codes, at, end):
            if then(stop):
                return stop
        return None

    def _ends(self, tree: list[Any], index: int, codes: Any, at: int, end: int) -> Iterator[int]:
        """All ends of matches of tree[index:] from `at` on, in the order in which `re` would try them."""
        # One character after the other needs no generator of its own.
        while index < len(tree) and tree[index][0] in _SINGLE:
            self._meter.add(1)
            if at >= end or not self._fits(tree[index], codes[at]):
                return
            at += 1
            index += 1
        if index == len(tree):
            yield at
            return
        code, argument = tree[index]
        if code in (op.MAX_REPEAT, op.POSSESSIVE_REPEAT, op.MIN_REPEAT):
            least, most, inner = argument
            inner = list(inner)
            assert code is op.MAX_REPEAT, "a kind of repetition that is not counted"
            stops = self._one_char(inner, codes, at, end, most) if len(inner) == 1 and inner[0][0] in _SINGLE else None
            if stops is not None:
                for stop in range(stops, at + least - 1, -1):
                    yield from self._ends(tree, index + 1, codes, stop, end)
                return
            for stop in self._repeated(inner, codes, at, end, least, most):
                yield from self._ends(tree, index + 1, codes, stop, end)
            return
        for stop in self._simple(code, argument, codes, at, end):
            yield from self._ends(tree, index + 1, codes, stop, end)

    def _one_char(self, inner: list[Any], codes: Any, at: int, end: int, most: int) -> int:
        stop = at
        while stop < end and stop - at < most and self._fits(inner[0], codes[stop]):
            stop += 1
        self._meter.add(stop - at + 1)
        return stop

    def _repeated(self, inner: list[Any], codes: Any, at: int, end: int, least: int, most: int) -> Iterator[int]:
        """Greedy, without recursion: one generator for each repetition."""
        stack = [(at, self._ends(inner, 0, codes, at, end))]
        while stack:
            place, more = stack[-1]
            stop = next(more, None)
            if stop is not None and stop != place and len(stack) <= most:
                stack.append((stop, self._ends(inner, 0, codes, stop, end)))
                continue
            if stop is not None:
                continue
            stack.pop()
            if len(stack) >= least:
                yield place

    def _simple(self, code: Any, argument: Any, codes: Any, at: int, end: int) -> Iterator[int]:
        self._meter.add(1)
        if code is op.SUBPATTERN:
            yield from self._ends(list(argument[3]), 0, codes, at, end)
        elif code is op.BRANCH:
            for branch in argument[1]:
                yield from self._ends(list(branch), 0, codes, at, end)
        elif code in (op.ASSERT, op.ASSERT_NOT):
            direction, inner = argument
            assert direction == 1
            there = self._run(list(inner), codes, at, end, lambda stop: True) is not None
            if there == (code is op.ASSERT):
                yield at
        elif code is op.AT:
            if self._stands(argument, codes, at, end):
                yield at
        else:
            raise NotImplementedError(code)

    def _stands(self, place: Any, codes: Any, at: int, end: int) -> bool:
        if place is op.AT_BEGINNING:
            return at == 0 or (self._multiline and codes[at - 1] == 10)
        if place is op.AT_END:
            return at == end or (codes[at] == 10 and (self._multiline or at == end - 1))
        return bool({op.AT_BEGINNING_STRING: at == 0, op.AT_END_STRING: at == end}[place])

    def _fits(self, node: Any, char: int) -> bool:
        code, argument = node
        if self._ignores_case and code is not op.ANY:
            return any(self._is(code, argument, each) for each in {char, *_cases(char)})
        return self._is(code, argument, char)

    def _is(self, code: Any, argument: Any, char: int) -> bool:
        if code is op.LITERAL:
            return bool(char == argument)
        if code is op.NOT_LITERAL:
            return bool(char != argument)
        if code is op.ANY:
            return self._dot_all or char != 10
        negated, found = False, False
        for kind, value in argument:
            if kind is op.NEGATE:
                negated = True
            elif kind is op.LITERAL:
                found = found or char == value
            elif kind is op.RANGE:
                found = found or value[0] <= char <= value[1]
            elif kind is op.CATEGORY:
                found = found or re.fullmatch(_CATEGORIES[value], chr(char)) is not None
            else:
                raise NotImplementedError(kind)
        return found != negated


_SINGLE = (op.LITERAL, op.NOT_LITERAL, op.ANY, op.IN)
_CATEGORIES = {
    op.CATEGORY_DIGIT: r"\d", op.CATEGORY_NOT_DIGIT: r"\D", op.CATEGORY_SPACE: r"\s", op.CATEGORY_NOT_SPACE: r"\S",
    op.CATEGORY_WORD: r"\w", op.CATEGORY_NOT_WORD: r"\W",
}  # fmt: skip


def _cases(char: int) -> set[int]:
    return {ord(each) for each in (chr(char).lower(), chr(char).upper()) if len(each) == 1}


def steps(modules: list[ModuleType], call: Callable[[], Any]) -> int:
    """How many steps `call` makes, with the regular expressions of these modules counted."""
    meter = Meter()
    with pytest.MonkeyPatch.context() as patch:
        for module in modules:
            for name, value in list(vars(module).items()):
                if isinstance(value, re.Pattern):
                    patch.setattr(module, name, CountedPattern(value, meter))
                elif name == "_named" and hasattr(value, "cache_info"):  # patterns that are made when they are wanted
                    patch.setattr(module, name, lambda text, real=value: CountedPattern(real(text), meter))
        sys.setprofile(meter.profile)
        try:
            call()
        finally:
            sys.setprofile(None)
    return meter.steps


def assert_linear(modules: list[ModuleType], call: Callable[[int], Callable[[], Any]], length: int) -> None:
    """`call(length)` gives a call whose input is so long. Four times the input may cost little more than four times
    the work; a quadratic parser makes sixteen times of it."""
    once, four_times = steps(modules, call(length)), steps(modules, call(4 * length))
    assert four_times <= 6 * once + 1_000, (once, four_times)
