"""Tables of patterns (tests/peers/test_maps.py asks Postfix)."""

from __future__ import annotations

import pytest

from postroad.maps import patterns
from postroad.maps.face import NotNow
from postroad.maps.patterns import PatternDialect, PatternSource, parse_patterns
from postroad.world.problem import Problem

REGEXP, PCRE = PatternDialect.REGEXP, PatternDialect.PCRE


def table(text: str, dialect: PatternDialect = REGEXP) -> tuple[PatternSource, list[str]]:
    made = parse_patterns(text.encode().splitlines(), "file", dialect, lambda: 1)
    assert not isinstance(made, Problem)
    return made[0], [f"{each.where.partition(':')[2]} {each.text}" for each in made[2]]


@pytest.mark.parametrize("dialect", [REGEXP, PCRE])
@pytest.mark.parametrize(
    ("text", "key", "value"),
    [
        (r"/^(.*)@old\.example$/ $1@example.org", "Ada@OLD.example", "Ada@example.org"),
        (r"/^(.*)@old\.example$/ ${1}x", "a@old.example", "ax"),
        (r"/^(a)(b)?/ <$1$2>", "ac", "<a>"),
        (r"/a/i yes", "A", None),
        (r"/a/ii yes", "A", "yes"),
        (r"!/a/ no a", "b", "no a"),
        (r"!/a/ no a", "xax", None),
        ("/a/ one\n/a/ two", "a", "one"),
        ("if /@x/\n/^a/ one\n!/^b/ two\nendif\n/./ other", "a@x", "one"),
        ("if /@x/\n/^a/ one\n!/^b/ two\nendif\n/./ other", "c@x", "two"),
        ("if /@x/\n/^a/ one\n!/^b/ two\nendif\n/./ other", "b@x", "other"),
        ("if !/@x/\nif /^a/\n/./ both\nendif\nendif", "a@y", "both"),
        ("if !/@x/\nif /^a/\n/./ both\nendif\nendif", "a@x", None),
        (r"/a\/b/ yes", "a/b", "yes"),
        (r"|a/b| yes", "a/b", "yes"),
        (r"/^[[:alpha:]]+$/ $$1", "abc", "$1"),
        (r"/(a)\1/ twice", "xaa", "twice"),
        ("/x/   inner  spaces  ", "x", "inner  spaces"),
    ],
)
def test_rules(dialect: PatternDialect, text: str, key: str, value: str | None) -> None:
    source, doubts = table(text, dialect)
    assert source.look_up(key) == value and doubts == []
    assert source.look_up(key, part=True) is None


@pytest.mark.parametrize(
    ("text", "key", "value"),
    [
        (r"/\(a\)\{2\}b*/x $1", "aab", "a"), (r"/a+/x yes", "aa", None), (r"/a\+/x yes", "aa", "yes"),
        (r"/*a/x yes", "*a", "yes"), (r"/[(]a/x yes", "(a", "yes"), (r"/(a|ab)(c|bcd)?$/ $2", "abcd", "bcd"),
    ],
)  # fmt: skip
def test_posix(text: str, key: str, value: str | None) -> None:
    assert table(text)[0].look_up(key) == value


@pytest.mark.parametrize(
    ("text", "key", "value"),
    [
        (r"/(?<=a)b/ yes", "ab", "yes"), (r"/a b/x yes", "ab", "yes"), (r"/^(a+)(a*)/U $1", "aaa", "a"),
        (r"/b/A yes", "ab", None), (r"/b/A yes", "ba", "yes"), (r"/\d{2}/ yes", "a12", "yes"),
    ],
)  # fmt: skip
def test_perl(text: str, key: str, value: str | None) -> None:
    assert table(text, PCRE)[0].look_up(key) == value


@pytest.mark.parametrize(
    ("text", "doubt"),
    [
        ("no pattern", "not a pattern"), ("/open value", "not a pattern"), ("/a/q value", "unknown flag 'q'"),
        ("/(a/ value", "cannot be understood"), ("/a/value x", "flag"), ("/(a)/ $2", "does not have"),
        ("!/(a)/ $1", "negated"), ("/(a)/ $1text", "names no group"), ("/a/ cost: $ 5", "begins nothing"),
        ("endif", "endif without if"), ("if /a/\n/b/ c", "no endif"), ("if /a/ value", "an if has a value"),
    ],
)  # fmt: skip
def test_rules_that_cannot_be_used_are_told_and_the_others_count(text: str, doubt: str) -> None:
    source, doubts = table(f"/z/ last\n{text}\n")
    assert source.look_up("z") == "last" and doubt in doubts[0], doubts


def test_what_stands_in_a_condition_that_cannot_be_used_is_left_out() -> None:
    source, doubts = table("if /(a/\n/./ one\nendif\n/./ two")
    assert source.look_up("a") == "two" and len(doubts) == 1


@pytest.mark.parametrize("dialect", [REGEXP, PCRE])
def test_many_rules_are_matched_at_once_and_give_the_same(dialect: PatternDialect) -> None:
    lines = [f"/^user{number}@(.*)$/ box{number}@$1" for number in range(700)]
    lines[3] = r"/^(user)\1@/ limited"
    lines[5] = "!/user/ nobody"
    lines.insert(300, "if /7@/\n/^user7@/ seven\nendif")
    source, doubts = table("\n".join(lines), dialect)
    assert doubts == [] and source._sets
    plain = PatternSource(source._rules, "file", [], lambda: 1)
    keys = [f"user{number}@x" for number in range(0, 700, 13)]
    keys += ["useruser@x", "USER7@y", "other", "user7@", "user999@x"]
    for key in keys:
        assert source.look_up(key) == plain.look_up(key), key
    assert source.look_up("user699@Z") == "box699@Z"


@pytest.mark.parametrize("memory_max", [20_000, 1_000_000, 4_000_000, patterns._MEMORY_MAX])
def test_a_set_that_runs_out_of_memory_gives_the_same(monkeypatch: pytest.MonkeyPatch, memory_max: int) -> None:
    monkeypatch.setattr(patterns, "_MEMORY_MAX", memory_max)
    source, _ = table("\n".join(f"/a{{1,40}}b{number}[a-z]{{1,40}}c$/ v{number}" for number in range(60)), PCRE)
    key = "a" * 60 + "b7" + "x" * 30 + "c"
    assert source.look_up(key) == PatternSource(source._rules, "file", [], lambda: 1).look_up(key) == "v7"


def test_a_pattern_that_takes_too_long_is_not_now(monkeypatch: pytest.MonkeyPatch) -> None:
    source, _ = table("/x/ other\n/^(a|aa|b)*(c)\\2$/ value", PCRE)
    monkeypatch.setattr(patterns, "PATTERN_S", 0.001)
    answer = source.look_up("ab" * 4000)
    assert answer is None or isinstance(answer, NotNow)  # `regex` may see that it cannot match
    source, _ = table("/x/ other\n/y/ value", PCRE)

    class Slow:
        def search(self, key: str, timeout: float) -> None:
            raise TimeoutError

    source._rules[1].pattern, source._rules[1].limited = Slow(), True
    answer = source.look_up("y")
    assert isinstance(answer, NotNow) and "file:2" in answer.text
    assert source.look_up("x") == "other"


def test_a_very_long_key_has_no_value() -> None:
    assert table("/./ yes")[0].look_up("a" * 10_000) is None


def test_without_the_extra_the_problem_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(patterns, "_engines", lambda: None)
    made = parse_patterns([b"/a/ b"], "file", REGEXP, lambda: 1)
    assert isinstance(made, Problem) and "postroad[patterns]" in made.remedy


def test_which_rules_were_the_answer_is_known() -> None:
    text = "# one\n/^a/i  $$one two\nif /b/\n!/c/ three\nendif\n/^a/i four\n"
    for more in ("", "".join(f"/^never{number}/ x\n" for number in range(10))):  # with a set of patterns, and without
        made = parse_patterns((text + more).encode().splitlines(), "file", REGEXP, lambda: 7)
        assert isinstance(made, tuple)
        source = made[0]
        assert [source.look_up(key) for key in ("a", "b", "bc", "z", "B")] == ["$one two", "three", None, None, "three"]
        assert list(source.entries())[:3] == [
            ("line 2: /^a/i", "$$one two", 7), ("line 4: !/c/", "three", 7), ("line 6: /^a/i", "four", 0),
        ]
