"""The contract of maps: counts, several as one, files that change, questions that wait."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from pathlib import Path

import pytest
import trustme

from postroad.maps.asked import AT_ONCE, Asked, Known, answered
from postroad.maps.face import Answer, NoAnswer, NotNow
from postroad.maps.files import FileSource
from postroad.maps.maps import Maps, make
from postroad.maps.options import MapKind, MapOptions
from postroad.maps.simple import FirstSource, UnionSource
from postroad.maps.steps import KeyStep, steps_of
from postroad.route.recipients import read_names
from postroad.world.clock import SystemClock
from postroad.world.problem import Problem
from tests.unit.maps.fakes import Broken, Fixed, Waiting, named

AWAY = NotNow("it is away")


def inline(name: str, *entries: str) -> MapOptions:
    return MapOptions(name, MapKind.INLINE, entries=entries)


def made(*options: MapOptions, before: Maps | None = None, told: list[str] | None = None) -> Maps:
    heard = [] if told is None else told
    found = make(options, SystemClock(), lambda level, text: heard.append(f"{level}: {text}"), before)
    assert isinstance(found, Maps), found
    return found


async def _answer(pending: Answer | Awaitable[Answer]) -> Answer:
    return pending if pending is None or isinstance(pending, str | NotNow) else await pending


def test_kinds_and_counts() -> None:
    maps = made(
        inline("a", "x 1", "y 2"), inline("b", "y 3", "z 4"), MapOptions("any", MapKind.STATIC, value="OK"),
        MapOptions("first", MapKind.FIRST, maps=("a", "b")), MapOptions("both", MapKind.UNION, maps=("a", "b")),
    )  # fmt: skip
    asked = {"first": ("1", "2", "4", None), "both": ("1", "2,3", "4", None), "any": ("OK",) * 4}
    for name, values in asked.items():
        assert tuple(maps[name].look_up(key) for key in ("x", "Y", "z", "q")) == values
    counts = {each.name: (each.asked, each.found, each.entries) for each in maps.counts()}
    assert counts == {"a": (8, 4, 2), "b": (6, 3, 2), "any": (4, 4, -1), "first": (4, 3, -1), "both": (4, 3, -1)}


async def test_a_map_that_cannot_answer_ends_the_row_since_the_next_may_be_wrong() -> None:
    for source in (Fixed({"x": AWAY}), Waiting({"x": AWAY})):
        maps = [named(Fixed({})), named(source), named(Fixed({"x": "wrong", "y": "2"}))]
        for kind in (FirstSource, UnionSource):
            assert await _answer(kind(maps).look_up("x")) == AWAY
            assert await _answer(kind(maps).look_up("y")) == "2"


async def test_a_source_that_breaks_is_not_now() -> None:
    map = named(Broken())
    answer = map.look_up("x")
    assert isinstance(answer, NotNow) and "RuntimeError: a bug" in answer.text and map.not_now == 1


# ---- questions


async def test_look_ups_that_do_not_need_each_other_wait_together_and_each_is_made_once() -> None:
    source = Waiting({f"k{number}": f"v{number}" for number in range(5)} | {f"v{number}": "end" for number in range(5)})
    map, rounds = named(source), 0

    def question(asked: Asked) -> list[str]:
        nonlocal rounds
        rounds += 1
        found = []
        for number in range(5):
            first = asked.look_up(map, f"k{number}")
            if isinstance(first, str):
                second = asked.look_up(map, first)
                if isinstance(second, str):
                    found.append(second)
        return found

    pending = answered(question)
    assert not isinstance(pending, list | NotNow) and await pending == ["end"] * 5
    assert rounds == 3 and source.at_once_max == 5 and sorted(source.asked) == sorted(set(source.asked))


async def test_a_question_whose_answers_are_at_hand_does_not_wait() -> None:
    map = named(Fixed({"a": "1", "b": AWAY}))
    assert answered(lambda asked: asked.look_up(map, "a")) == "1"
    assert answered(lambda asked: asked.look_up(map, "b")) == AWAY
    assert answered(lambda asked: "other") == "other"


async def test_a_map_that_is_away_is_not_now_only_for_who_needs_it() -> None:
    map = named(Waiting({"a": AWAY, "b": "1"}))
    pending = answered(lambda asked: asked.look_up(map, "a"))
    assert not isinstance(pending, str | NotNow | NoAnswer) and pending is not None and await pending == AWAY
    pending = answered(lambda asked: asked.look_up(map, "b"))
    assert not isinstance(pending, str | NotNow | NoAnswer) and pending is not None and await pending == "1"


KEYS = (KeyStep("whole", "a@b"), KeyStep("local-part", "a", True), KeyStep("domain", "b", True))


def test_the_first_entry_is_that_of_the_first_key_whichever_map_has_it() -> None:
    one, two = Fixed({"a": "1", "b": "2"}), Fixed({"a@b": "3"})
    maps = (named(one, "one"), named(two, "two"))
    asked = Asked()
    assert asked.first(KEYS, maps) == ("3", "a@b", "two") and (one.asked, two.asked) == (["a@b"], ["a@b"])
    assert asked.first(KEYS[1:], maps) == ("1", "a", "one") and two.asked == ["a@b"]
    assert asked.first(KEYS[1:], maps[1:]) is None and asked.first(KEYS, ()) is None and not asked.stopped


@pytest.mark.parametrize("asked", [Asked(), Known(), AT_ONCE])
def test_a_map_that_is_away_is_not_passed_over_for_the_next_entry(asked: Asked) -> None:
    behind = Fixed({"a@b": "1", "a": "1"})
    assert asked.first(KEYS, (named(Fixed({"a@b": AWAY}), "away"), named(behind, "behind"))) is NoAnswer.NO_ANSWER
    assert behind.asked == []
    assert asked.first(KEYS, (named(behind, "behind"), named(Fixed({"a@b": AWAY}), "away"))) == ("1", "a@b", "behind")


async def test_the_first_entry_waits_for_each_map_before_it_asks_the_next() -> None:
    one, two = Waiting({"b": "1"}), Waiting({"a": "2", "b": "3"})
    pending = answered(lambda asked: asked.first(KEYS, (named(one, "one"), named(two, "two"))))
    assert one.asked == ["a@b"] and two.asked == []
    assert isinstance(pending, Awaitable) and await pending == ("2", "a", "two")
    assert one.asked == two.asked == ["a@b", "a"]


def test_who_cannot_wait_never_asks_a_map_that_waits() -> None:
    source = Waiting({"a": "1"})
    assert AT_ONCE.look_up(named(source), "a") is NoAnswer.NO_ANSWER and source.asked == []
    assert AT_ONCE.look_up(named(Fixed({"a": "1"})), "a") == "1"


# ---- files


def text(name: str, path: Path) -> MapOptions:
    return MapOptions(name, MapKind.TEXT, file=str(path))


def look(maps: Maps, times: int = 2) -> None:
    for _ in range(times):
        maps.look(lambda work, done: done(work()))


def test_a_file_is_read_again_and_a_broken_one_keeps_the_old_entries(tmp_path: Path) -> None:
    path = tmp_path / "people"
    path.write_text("a 1\n")
    told: list[str] = []
    maps = made(text("people", path), told=told)
    assert maps["people"].look_up("a") == "1"
    look(maps)
    assert told == []
    path.write_text("a 2\nb\n")
    look(maps)
    assert maps["people"].look_up("a") == "2"
    assert ["has no value" in told[0], "in force, with 1 entries" in told[1], len(told)] == [True, True, 2]
    for broken in (b"a \xff3\n", None):
        told.clear()
        path.write_bytes(broken) if broken is not None else path.unlink()
        look(maps)
        look(maps)
        assert maps["people"].look_up("a") == "2" and len(told) == 2 and "the old entries" in told[1]
    path.write_text("a 4\n")
    look(maps)
    assert maps["people"].look_up("a") == "4"


def test_a_byte_order_mark_is_no_part_of_the_first_entry(tmp_path: Path) -> None:
    path = tmp_path / "people"
    path.write_bytes(b"\xef\xbb\xbfada@x.org 1\r\nbob@x.org 2\r\n")
    people = made(text("people", path))["people"]
    assert [people.look_up(key) for key in ("ada@x.org", "bob@x.org")] == ["1", "2"]
    path.write_bytes(b"\xef\xbb\xbfada\r\nbob\r\n")
    assert read_names(str(path), "", "+") == {"ada": 0, "bob": 0}


def test_a_file_that_is_being_written_waits_until_it_is_whole(tmp_path: Path) -> None:
    path = tmp_path / "people"
    path.write_text("a 1\nb 1\n")
    told: list[str] = []
    maps = made(text("people", path), told=told)
    with path.open("w") as file:
        for entry in ("", "a 2\n", "b 2\n"):
            file.write(entry)
            file.flush()
            look(maps, 1)
            assert [maps["people"].look_up(key) for key in "ab"] == ["1", "1"]
    look(maps, 1)
    assert [maps["people"].look_up(key) for key in "ab"] == ["2", "2"] and len(told) == 1


def test_one_reading_at_a_time_and_look_ups_go_on(tmp_path: Path) -> None:
    path = tmp_path / "people"
    path.write_text("a 1\n")
    maps = made(text("people", path))
    begun = []
    path.write_text("a 22\n")
    for _ in range(4):
        maps.look(lambda work, done: begun.append((work, done)))
    assert len(begun) == 1 and maps["people"].look_up("a") == "1"
    work, done = begun[0]
    done(work())
    assert maps["people"].look_up("a") == "22"


def test_equal_options_keep_the_map_with_its_counters(tmp_path: Path) -> None:
    path = tmp_path / "people"
    path.write_text("a 1\n")
    before = made(text("people", path), inline("x", "a 1"), MapOptions("f", MapKind.FIRST, maps=("people", "x")))
    before["f"].look_up("a")
    after = made(
        text("people", path), inline("x", "a 2"), MapOptions("f", MapKind.FIRST, maps=("people", "x")), before=before
    )
    assert after["people"] is before["people"] and after["people"].asked == 1
    assert after["x"] is not before["x"] and after["f"] is not before["f"]
    path.write_text("b 22\n")
    again = made(*after.options, before=after)
    assert again["f"] is after["f"] and again["f"].look_up("a") == "2" and again["f"].look_up("b") == "22"


@pytest.mark.parametrize("changed", ["password", "roots"])
def test_a_changed_password_or_root_is_used_after_a_reload(tmp_path: Path, changed: str) -> None:
    files = {name: tmp_path / name for name in ("password", "roots")}
    files["password"].write_text("one\n")
    trustme.CA().cert_pem.write_to_path(files["roots"])
    options = MapOptions(
        "it", MapKind.HTTP, url="https://x/{key}", password_file=str(files["password"]), ca_file=str(files["roots"])
    )
    before = made(options)
    again = made(options, before=before)
    assert again["it"] is before["it"]
    files[changed].write_bytes(files[changed].read_bytes() + b"\n\n")
    after = made(options, before=again)
    assert after["it"].source is not again["it"].source
    for maps in (before, after):
        maps.close()


@pytest.mark.parametrize(
    ("options", "word"),
    [
        (text("people", Path("/nowhere/people")), "no such file"),
        (inline("people", "novalue"), "has no value"),
        (inline("people", "a 1", "a 2"), "twice"),
        (MapOptions("people", MapKind.FIRST, maps=("other",)), "no map 'other' before it"),
    ],
)
def test_what_cannot_be_made_is_a_problem(options: MapOptions, word: str) -> None:
    found = make([options], SystemClock(), lambda level, text: None)
    assert isinstance(found, tuple) and isinstance(found[0], Problem) and word in str(found[0])


def test_a_file_that_is_too_large_is_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "people"
    path.write_text("a 1\n")
    monkeypatch.setattr("postroad.maps.files.FILE_MAX", 3)
    found = FileSource(str(path), lambda lines, where: Problem(where, "read"))
    assert "more than 3 octets" in found.load()[0].text


@pytest.mark.parametrize(
    ("key", "keys"),
    [
        ("a+b@x.org", ["a+b@x.org", "a@x.org", "a+b", "a", "@x.org", "x.org", ".org"]),
        ("a@x.org", ["a@x.org", "a", "@x.org", "x.org", ".org"]),
        ("+b@x", ["+b@x", "+b", "@x", "x"]),
        ("s.x.org", ["s.x.org", ".x.org", ".org"]),
        ("192.0.2.1", ["192.0.2.1"]),
        ("2001:db8::1", ["2001:db8::1"]),
        ("root", ["root"]),
    ],
)
def test_steps(key: str, keys: list[str]) -> None:
    assert [step.key for step in steps_of(key, "+")] == keys
    assert [step.part for step in steps_of(key, "+")] == [False] + [True] * (len(keys) - 1)


def test_the_loop_is_not_needed_for_maps_that_answer_at_once() -> None:
    with pytest.raises(RuntimeError):
        asyncio.get_running_loop()
    assert made(inline("a", "x 1"))["a"].look_up("x") == "1"
