"""What effects make of a header section: each one, several in order, and what is wrong with an effect."""

from __future__ import annotations

import pytest

from postroad.mail.address import Address
from postroad.mail.effects import Sections, amended, applied, fault
from postroad.mail.envelope import Peer
from postroad.mail.message import fields
from postroad.mail.policy import (
    EFFECTS_MAX,
    Append,
    Effect,
    HeaderEffect,
    Prepend,
    Question,
    Record,
    RemoveField,
    ReplaceBody,
    SetField,
    SetReversePath,
)

HEAD = b"From: a@b.test\r\nSubject: one\r\n two\r\nX-Spam: no\r\nX-Spam: maybe\r\n"


def after(*effects: HeaderEffect, added: bytes = b"") -> Sections:
    return applied(Sections(b"", added, HEAD), effects)


@pytest.mark.parametrize(
    ("effects", "top", "head"),
    [
        ((Prepend("A", b"1"), Prepend("B", b"2")), b"B: 2\r\nA: 1\r\n", HEAD),
        ((Append("A", b"1"),), b"", HEAD + b"A: 1\r\n"),
        ((RemoveField("x-spam"),), b"", HEAD[: HEAD.index(b"X-Spam")]),
        ((SetField("Subject", b"new"),), b"", HEAD.replace(b"one\r\n two", b"new")),
        ((SetField("X-Spam", b"yes"),), b"", HEAD[: HEAD.index(b"X-Spam")] + b"X-Spam: yes\r\n"),
        ((SetField("New", b"x"),), b"", HEAD + b"New: x\r\n"),
        ((Prepend("A", b"1"), SetField("A", b"2")), b"A: 2\r\n", HEAD),
        ((SetField("A", b"2"), Prepend("A", b"1")), b"A: 1\r\n", HEAD + b"A: 2\r\n"),
        ((Prepend("A", b"1"), RemoveField("A")), b"", HEAD),
        ((RemoveField("A"), Prepend("A", b"1")), b"A: 1\r\n", HEAD),
    ],
)
def test_effects_are_applied_in_their_order(effects: tuple[HeaderEffect, ...], top: bytes, head: bytes) -> None:
    assert after(*effects) == Sections(top, b"", head)


def test_a_field_that_was_added_for_want_of_one_is_found_too() -> None:
    assert after(SetField("Date", b"now"), added=b"Date: then\r\n") == Sections(b"", b"Date: now\r\n", HEAD)
    assert after(RemoveField("Date"), added=b"Date: then\r\n") == Sections(b"", b"", HEAD)


def test_a_section_without_its_last_line_end_gets_it() -> None:
    found = applied(Sections(b"", b"", b"From: a@b.test"), (Append("A", b"1"),))
    assert [field.name for field in fields(found.head)] == ["From", "A"]


@pytest.mark.parametrize(
    ("effect", "wrong"),
    [
        (Prepend("A B", b"1"), "not the name"),
        (RemoveField("A:"), "not the name"),
        (Append("A", b"1\r\nEvil: yes"), "line end"),
        (Append("A", b"1\n 2"), "line end"),
        (Append("A", b"1\0"), "NUL"),
        (Append("A", b"1\r\n \r\n 2"), "line end"),
        (Append("A", b"1\r\n"), "line end"),
        (SetField("A", b"x" * 300_000), "octets of header fields"),
        (ReplaceBody(b"x" * 1001), "more than 1000 octets"),
        (ReplaceBody(b"one\ntwo"), "not a line end"),
    ],
)
def test_what_would_break_the_message_is_a_fault(effect: Effect, wrong: str) -> None:
    assert wrong in fault((effect,), 1000)
    assert fault((Append("A", b"1\r\n 2"), ReplaceBody(b"one\r\n"), effect), 1000)


def test_what_is_sound_has_no_fault() -> None:
    sound = (Append("A", b"1\r\n 2"), Prepend("B", "ä".encode()), ReplaceBody(b"one\r\n"), Record("r", "ok"))
    assert fault(sound, 9) == ""
    assert "effects" in fault((Record("r", "ok"),) * (EFFECTS_MAX + 1), 9)


def test_the_next_question_has_what_was_changed() -> None:
    question = Question(Peer(), reverse_path=Address("a", "b.test"), head=HEAD)
    changed = amended(question, (Prepend("A", b"1"), RemoveField("Subject"), SetReversePath(None)))
    assert changed.reverse_path is None
    assert [field.name for field in fields(changed.head)] == ["A", "From", "X-Spam", "X-Spam"]
