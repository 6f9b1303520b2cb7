"""Header fields that go, change and come."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from postroad.mail import message
from postroad.mail.field_rules import FieldRules, folded
from postroad.mail.message import LINE_MAX
from postroad.maps.field_patterns import rules, wrong_addition, wrong_change, wrong_removal

SECTION = (
    b"Received: from x\r\n\tby y with ESMTPSA id z\r\nX-Mailer: foo 1.0\r\nUser-Agent: Z\r\n"
    b"Subject: a\r\n very bad b\r\nX-Odd: caf\xe9 bad\r\nTo: x@y.example\r\n"
)


def made(remove: tuple[str, ...] = (), change: tuple[str, ...] = (), add: tuple[str, ...] = ()) -> FieldRules:
    assert not any([*map(wrong_removal, remove), *map(wrong_change, change), *map(wrong_addition, add)])
    found = rules(remove, change, add)
    assert found is not None
    return found


def test_nothing_wanted_is_no_rule() -> None:
    assert rules((), (), ()) is None


def test_fields_that_go() -> None:
    section, done = made(("user-agent", "/^Received: .*with ESMTPSA/", "X-None")).applied(SECTION)
    assert section == SECTION[SECTION.index(b"X-Mailer") :].replace(b"User-Agent: Z\r\n", b"")
    assert done == ("removed Received", "removed User-Agent")


def test_all_but_some_go() -> None:
    section, _ = made(("!/^(To|Subject):/",)).applied(SECTION)
    assert section == b"Subject: a\r\n very bad b\r\nTo: x@y.example\r\n"


def test_fields_that_change() -> None:
    rule = made((), ("/^X-Mailer: (.*)/ X-Agent: $1", "/^(Subject:.*)bad(.*)/ ${1}good$2", "/^(X-.*)bad/ ${1}g₣d"))
    section, done = rule.applied(SECTION)
    assert section == SECTION.replace(b"X-Mailer: foo", b"X-Agent: foo").replace(b"very bad", b"very good")
    assert done == ("changed X-Mailer", "changed Subject")


def test_the_first_rule_that_fits_counts() -> None:
    section, _ = made((), ("/^To: x/ To: first", "/^To:/ To: second")).applied(b"To: x\r\nTo: z\r\n")
    assert section == b"To: first\r\nTo: second\r\n"


@pytest.mark.parametrize("text", ["no field", "$1", "X: ${1}"])
def test_what_would_be_no_field_stays(text: str) -> None:
    section = b"Subject: a\r\n b\r\n"
    found, done = made((), (f"/^Subject: a(.*)$/s {text}",)).applied(section)
    assert message.header_end(found) == len(found)
    assert (found, done) == (section, ()) or found == b"X:\r\n b\r\n"


def test_fields_that_come_once() -> None:
    rule = made((), (), ("Reply-To: a@b.example", "X-Gateway: mx1"))
    assert rule.coming(b"reply-to: c\r\n", b"To: x\r\n") == (b"X-Gateway: mx1\r\n", ("added X-Gateway",))


def test_what_octets_above_ascii_become() -> None:
    section, _ = made((), ("/^(X-1: .*) bad/ ${1} good",)).applied(b"X-1: caf\xe9 bad\r\nX-1: caf\xc3\xa9 bad\r\n")
    assert section == b"X-1: caf\xe9 good\r\nX-1: caf\xc3\xa9 good\r\n"


def test_a_line_that_grows_is_folded() -> None:
    field = b"Subject: " + b"word " * 190 + b"end"
    section, _ = made((), ("/^(Subject: )(.*)/ ${1}" + "more " * 60 + "$2",)).applied(field + b"\r\n")
    assert max(map(len, section.split(b"\r\n"))) <= LINE_MAX
    assert section.replace(b"\r\n", b"") == b"Subject: " + b"more " * 60 + field[9:]
    whole = b"Subject: " + b"x" * 989
    assert made((), ("/^(Subject: )(.*)/ ${1}yyyyyyyyyy$2",)).applied(whole + b"\r\n") == (whole + b"\r\n", ())


@pytest.mark.parametrize(("wrong", "entry", "why"), [
    (wrong_removal, "User Agent", "neither the name"), (wrong_removal, "/(?=x)/", "linear time"),
    (wrong_removal, "/x/ y", "after the pattern"), (wrong_removal, "/(/", "cannot be understood"),
    (wrong_change, "User-Agent", "is not a pattern"), (wrong_change, "/x/", "no new text"),
    (wrong_change, "!/x/ Y: z", "negated"), (wrong_change, "/x/ Y: $1", "group"),
    (wrong_change, r"/(.)\1/ Y: $1", "linear time"),
    (wrong_addition, "Reply-To", "not a header field"), (wrong_addition, "A: b\r\nC: d", "not a header field"),
    (wrong_addition, "A:", "not a header field"), (wrong_addition, "A: " + "x" * 999, "998 octets"),
])  # fmt: skip
def test_entries_that_are_wrong(wrong: object, entry: str, why: str) -> None:
    assert callable(wrong)
    assert why in wrong(entry)


fields = st.tuples(st.sampled_from([b"A", b"Subject", b"X-1"]), st.binary(max_size=30)).map(
    lambda made: made[0] + b": " + made[1].translate(None, b"\r\n\0") + b"\r\n"
)


@settings(max_examples=300, deadline=None)
@given(
    st.lists(fields, max_size=6), st.text(max_size=20),
    st.sampled_from(["/a/ ", "/^(.)/ $1", "/^([^:]*): (.*)/s $2: $1"]),
)  # fmt: skip
def test_a_section_stays_a_section(parts: list[bytes], text: str, start: str) -> None:
    entry = start + text.replace("$", "")
    if wrong_change(entry):
        return
    section = b"".join(parts)
    found, _ = made(("x-1",), (entry,)).applied(section)
    assert message.header_end(found) == len(found)
    assert len(list(message.raw_fields(found))) == len([part for part in parts if not part.lower().startswith(b"x-1")])


@settings(max_examples=300, deadline=None)
@given(st.lists(st.integers(1, 1_200), max_size=8))
def test_folding_changes_no_octet(lengths: list[int]) -> None:
    field = b"A: " + b" ".join(b"x" * length for length in lengths)
    assert folded(field).replace(b"\r\n", b"") == field


def test_many_changes_are_told_in_few_words() -> None:
    section = b"".join(b"X-%d: a\r\n" % number for number in range(1_000))
    found, done = made(("/^X-/",)).applied(section)
    assert (found, len(done), done[-1]) == (b"", 21, "and 980 more")
