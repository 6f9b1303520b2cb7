"""Tables of regular expressions: regexp_table(5) and pcre_table(5) of Postfix.

    /^(.*)@old\\.example$/       ${1}@example.org
    !/@example\\.org$/           REJECT
    if /^list-/
    /-request@/                 listmaster
    endif

What always holds: the first rule that matches answers; rules are tried in order; case does not matter unless the flag
`i` turns that off; only whole keys are matched. Matching takes linear time (RE2), whatever the pattern and the key.
A pattern with what RE2 lacks (back-references, look-around, and the flag `x` of pcre) is matched by the module `regex`
for at most `PATTERN_S`; if that is not enough, the answer is "not now".

How it fails: a rule that cannot be used is told and left out, as in Postfix. RE2 and `regex` come with the extra
`patterns` of the package; without them the table is a Problem.
"""

from __future__ import annotations

import enum
import re
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Any, Final

import msgspec

from postroad.maps.face import Answer, NotNow, WithKey
from postroad.maps.rules import UsedRules, parse_rules
from postroad.world.problem import Problem

if TYPE_CHECKING:
    from collections.abc import Sequence

PATTERN_S: Final = 0.05  # for one pattern that RE2 cannot match
KEY_MAX: Final = 8_192  # characters of a key that is matched
_SET_MAX: Final = 200  # patterns that are matched at once
_SET_LEAST: Final = 8  # fewer are matched one by one
_MEMORY_MAX: Final = 64 * 1024 * 1024  # octets of RE2 for one set

_INSTALL: Final = "Install it: pip install 'postroad[patterns]'."
_REMEDY: Final = 'Write "/pattern/flags value".'
_FLAGS: Final = re.compile(r"[A-Za-z]*")
_MACRO: Final = re.compile(r"\$(?:\$|\{([^{}]*)\}|\(([^()]*)\)|([A-Za-z0-9_]+))?")


class PatternDialect(enum.Enum):
    """Whose patterns they are."""

    REGEXP = "regexp"  # POSIX extended; basic with the flag x
    PCRE = "pcre"


class PatternRule(msgspec.Struct):
    """One line. `pattern`: compiled, with `search`. `limited`: by `regex`, which needs a limit of time. `value`: texts
    and numbers of groups. `inner`: the rules of a condition. `number`: its place in the table.
    `line`, `written`: `maps.rules.Rule`."""

    pattern: Any
    limited: bool
    negated: bool
    value: tuple[str | int, ...] = ()
    inner: list[PatternRule] | None = None
    number: int = 0
    line: int = 0
    written: tuple[str, str] = ("", "")


class PatternSource(UsedRules):
    """The rules of one table."""

    waits = False

    def __init__(
        self, rules: Sequence[PatternRule], where: str, sets: Sequence[_Set], now_us: Callable[[], int]
    ) -> None:  # fmt: skip
        super().__init__(rules, now_us)
        self._rules = rules
        self._where = where
        self._sets = sets

    def look_up(self, key: str, part: bool = False) -> Answer:
        if part or len(key) > KEY_MAX:
            return None
        matched: set[int] | None = None
        if self._sets:
            matched = set()
            for each in self._sets:
                matched.update(each.matched(key))
        try:
            answer = _walk(self._rules, key, matched)
        except _TooLongError as error:
            return NotNow(f"{self._where}:{error.line}: the pattern took more than {PATTERN_S:g} s for {key[:60]!r}")
        except UnicodeEncodeError:  # a lone surrogate: no text has it
            return None
        if answer is None:
            return None
        rule, found = answer
        self.note(rule)
        return _value(rule.value, found, key)

    def close(self) -> None:
        """Nothing is held."""


class _TooLongError(Exception):
    def __init__(self, line: int) -> None:
        super().__init__(line)
        self.line = line


def _walk(rules: Sequence[PatternRule], key: str, matched: set[int] | None) -> tuple[PatternRule, Any] | None:
    """The first rule that matches, with the match if its value needs it."""
    for rule in rules:
        if matched is not None and not rule.limited:
            hit = rule.number in matched
            if hit is rule.negated:
                continue
            found: Any = _search(rule, key) if any(isinstance(each, int) for each in rule.value) else None
        else:
            found = _search(rule, key)
            if (found is not None) is rule.negated:
                continue
        if rule.inner is None:
            return rule, found
        inner = _walk(rule.inner, key, matched)
        if inner is not None:
            return inner
    return None


def _value(parts: tuple[str | int, ...], found: Any, key: str) -> str:
    value = "".join(each if isinstance(each, str) else found.group(each) or "" for each in parts)
    groups = [each for each in parts if isinstance(each, int)]
    if not groups:
        return value
    with_key = WithKey(value)
    at = key.rfind("@") if "@" in key else len(key)
    with_key.of_local_part = any(found.start(each) < at and found.group(each) for each in groups)
    return with_key


def _search(rule: PatternRule, key: str) -> Any:
    if not rule.limited:
        return rule.pattern.search(key)
    try:
        return rule.pattern.search(key, timeout=PATTERN_S)
    except TimeoutError:
        raise _TooLongError(rule.line) from None


class _Set:
    """Up to `_SET_MAX` patterns of equal options, matched at once."""

    def __init__(self, rules: Sequence[PatternRule], re2: Any) -> None:
        self._rules = rules
        options = rules[0].pattern.options
        before, options.max_mem = options.max_mem, _MEMORY_MAX
        self._set: Any = re2.Set.SearchSet(options)
        for rule in rules:
            self._set.Add(rule.pattern.pattern)
        # It matches everything: if it is not among the answers, RE2 ran out of memory and has said nothing.
        self._everything = self._set.Add("")
        try:
            self._set.Compile()
        except re2.error:  # too much for the memory
            self._set = None
        options.max_mem = before

    def matched(self, key: str) -> Iterable[int]:
        places = self._set.Match(key) if self._set is not None else ()
        if self._everything in places:
            return [self._rules[place].number for place in places if place != self._everything]
        return [rule.number for rule in self._rules if rule.pattern.search(key) is not None]


# ---- reading --------------------------------------------------------------------------------------------------------


class _Engines(msgspec.Struct, frozen=True):
    re2: Any
    regex: Any


def _engines() -> _Engines | None:
    try:
        import re2
        import regex
    except ImportError:
        return None
    return _Engines(re2, regex)


def parse_patterns(
    lines: Iterable[bytes], where: str, dialect: PatternDialect, now_us: Callable[[], int]
) -> tuple[PatternSource, int, list[Problem]] | Problem:
    """The rules of a text, how many there are, and what is wrong with single ones."""
    engines = _engines()
    if engines is None:
        return Problem(where, "a table of patterns needs google-re2 and regex, which are not installed", _INSTALL)
    found = parse_rules(
        lines,
        where,
        lambda text: _rule(text, dialect, engines, condition=False),
        lambda text: _rule(text, dialect, engines, condition=True),
        lambda: PatternRule(_Never(), False, False, inner=[]),
        _REMEDY,
    )
    if isinstance(found, Problem):
        return found
    rules, doubts = found
    every = list(_every(rules))
    for number, rule in enumerate(every):
        rule.number = number
    return PatternSource(rules, where, _sets(every, engines), now_us), len(every), doubts


def one_rule(text: str, dialect: PatternDialect) -> PatternRule | str:
    """The rule of one line, or what is wrong with it."""
    engines = _engines()
    return _rule(text, dialect, engines, condition=False) if engines is not None else f"it needs google-re2. {_INSTALL}"


def substituted(rule: PatternRule, key: str) -> str | None:
    """The value of a rule that needs no limit and is not negated; None if it does not match."""
    found = rule.pattern.search(key)
    if found is None:
        return None
    return "".join(each if isinstance(each, str) else found.group(each) or "" for each in rule.value)


def _every(rules: Iterable[PatternRule]) -> Iterator[PatternRule]:
    """In the order of the file, those of conditions too."""
    for rule in rules:
        yield rule
        yield from _every(rule.inner or ())


class _Never:
    """A pattern that matches nothing."""

    def search(self, key: str) -> None:
        return None


def _sets(rules: Sequence[PatternRule], engines: _Engines) -> list[_Set]:
    """RE2's patterns in groups of equal options; none if there are few rules."""
    groups: dict[tuple[bool, ...], list[PatternRule]] = {}
    linear = [rule for rule in rules if not rule.limited and not isinstance(rule.pattern, _Never)]
    if len(linear) < _SET_LEAST:
        return []
    for rule in linear:
        options = rule.pattern.options
        key = (options.case_sensitive, options.posix_syntax, options.one_line, options.dot_nl)
        groups.setdefault(key, []).append(rule)
    found = []
    for group in groups.values():
        found += [_Set(group[at : at + _SET_MAX], engines.re2) for at in range(0, len(group), _SET_MAX)]
    return found


def _rule(text: str, dialect: PatternDialect, engines: _Engines, *, condition: bool) -> PatternRule | str:
    """One line, or what is wrong with it."""
    line, negated = text, text.startswith("!")
    text = text[1:].lstrip() if negated else text
    cut = _cut(text)
    if cut is None:
        return f"{text[:60]!r} is not a pattern between two delimiters"
    pattern, rest = cut
    found = _FLAGS.match(rest)
    assert found is not None
    flags, value = found[0], rest[found.end() :]
    if value and not value[0].isspace():
        return f"{text[:60]!r} has no white space after its pattern"
    compiled = _compiled(pattern, flags, dialect, engines)
    if isinstance(compiled, str):
        return compiled
    matcher, limited = compiled
    if condition:
        return PatternRule(matcher, limited, negated, inner=[]) if not value.strip() else "an if has a value"
    template = _template(value.strip(), matcher.groups, negated=negated)
    if isinstance(template, str):
        return template
    written = line[: len(line) - len(value)].rstrip(), value.strip()
    return PatternRule(matcher, limited, negated, template, written=written)


def _cut(text: str) -> tuple[str, str] | None:
    """The pattern between its delimiters, and what follows it."""
    if not text or text[0].isalnum() or text[0].isspace():
        return None
    at = 1
    while at < len(text):
        if text[at] == "\\":
            at += 2
        elif text[at] == text[0]:
            return text[1:at], text[at + 1 :]
        else:
            at += 1
    return None


def _template(value: str, groups: int, *, negated: bool) -> tuple[str | int, ...] | str:
    """A value as texts and numbers of groups, or what is wrong with it."""
    parts: list[str | int] = []
    at = 0
    for found in _MACRO.finditer(value):
        parts.append(value[at : found.start()])
        at = found.end()
        name = found[1] or found[2] or found[3]
        if found[0] == "$$":
            parts.append("$")
        elif name is None:
            return f"{value[:60]!r} has a $ that begins nothing (write $$)"
        elif not name.isascii() or not name.isdigit():
            return f"{found[0]!r} names no group (write ${{1}}text for $1 before text)"
        elif negated:
            return f"{found[0]!r} stands after a negated pattern, which has no groups"
        elif not 0 < int(name) <= groups:
            return f"{found[0]!r} names a group that the pattern does not have"
        else:
            parts.append(int(name))
    parts.append(value[at:])
    return tuple(part for part in parts if part != "")


def _compiled(pattern: str, flags: str, dialect: PatternDialect, engines: _Engines) -> tuple[Any, bool] | str:
    """The pattern ready for use, and whether it needs a limit of time; or what is wrong with it."""
    known = "imx" if dialect is PatternDialect.REGEXP else "imsxAEUX"
    unknown = set(flags) - set(known)
    if unknown:
        return f"/{pattern[:60]}/ has the unknown flag {min(unknown)!r}"
    on = {flag for flag in known if flags.count(flag) % 2}  # each toggles
    if dialect is PatternDialect.REGEXP:
        extended = _extended(pattern) if "x" in on else pattern
        return _posix(extended, on, engines)
    return _perl(pattern, on, engines)


def _posix(pattern: str, on: set[str], engines: _Engines) -> tuple[Any, bool] | str:
    options = engines.re2.Options()
    options.log_errors = False
    options.case_sensitive = "i" in on
    options.posix_syntax = options.longest_match = options.perl_classes = options.word_boundary = True
    options.one_line = "m" not in on
    options.dot_nl = "m" not in on
    try:
        return engines.re2.compile(pattern, options), False
    except engines.re2.error as error:
        regex = engines.regex
        flags = regex.POSIX | (0 if "i" in on else regex.IGNORECASE) | (regex.MULTILINE if "m" in on else regex.DOTALL)
        return _limited(pattern, flags, error, engines)


def _perl(pattern: str, on: set[str], engines: _Engines) -> tuple[Any, bool] | str:
    options = engines.re2.Options()
    options.log_errors = False
    options.case_sensitive = "i" in on
    options.dot_nl = "s" not in on
    written = f"(?m){pattern}" if "m" in on else pattern
    written = rf"\A(?:{written})" if "A" in on else written
    written = f"(?U){written}" if "U" in on else written
    regex = engines.regex
    flags = (0 if "i" in on else regex.IGNORECASE) | (0 if "s" in on else regex.DOTALL)
    flags |= (regex.VERBOSE if "x" in on else 0) | (regex.MULTILINE if "m" in on else 0)
    if "x" in on:
        return _limited(pattern, flags, None, engines) if "U" not in on else "the flags x and U do not go together here"
    try:
        return engines.re2.compile(written, options), False
    except engines.re2.error as error:
        if "U" in on:
            return _said(pattern, error)
        return _limited(rf"\A(?:{pattern})" if "A" in on else pattern, flags, error, engines)


def _limited(pattern: str, flags: int, first: Exception | None, engines: _Engines) -> tuple[Any, bool] | str:
    """By `regex`. `first`: what RE2 said of it."""
    try:
        return engines.regex.compile(pattern, flags), True
    except engines.regex.error as error:
        return _said(pattern, first or error)


def _said(pattern: str, error: Exception) -> str:
    text = error.args[0] if error.args else ""
    said = text.decode("utf-8", "replace") if isinstance(text, bytes) else str(text)
    return f"/{pattern[:60]}/ cannot be understood: {said}"


_SWAPPED: Final = "(){}|+?"


def _extended(basic: str) -> str:
    """A basic regular expression of POSIX (with GNU's \\|, \\+ and \\?) as an extended one."""
    parts: list[str] = []
    at = 0
    begins = True  # here an asterisk is itself
    while at < len(basic):
        char = basic[at]
        two = basic[at : at + 2]
        if char == "[":
            end = _bracket_end(basic, at)
            parts.append(basic[at:end])
            at, begins = end, False
            continue
        if char == "\\" and len(two) == 2:
            parts.append(two[1] if two[1] in _SWAPPED else two)
            begins = two in ("\\(", "\\|")
            at += 2
            continue
        if (char == "*" and begins) or char in _SWAPPED:
            parts.append("\\" + char)
        else:
            parts.append(char)
        begins = begins and char == "^"
        at += 1
    return "".join(parts)


def _bracket_end(text: str, at: int) -> int:
    """Behind the bracket expression that begins at `at`."""
    end = at + 1
    if text[end : end + 1] == "^":
        end += 1
    if text[end : end + 1] == "]":
        end += 1
    while end < len(text) and text[end] != "]":
        closing = text.find(text[end + 1] + "]", end + 2) if text[end : end + 2] in ("[:", "[.", "[=") else -1
        end = closing + 2 if closing >= 0 else end + 1
    return min(end + 1, len(text))
