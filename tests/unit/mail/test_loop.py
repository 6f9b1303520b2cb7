"""The marks against loops: who can make them, and what they stand for."""

from __future__ import annotations

import pytest

from postroad.mail import loop
from postroad.mail.address import Address
from postroad.mail.loop import Marks

ADA = Address("ada", "a.test")
MARKS = Marks(b"secret")
ID = "<1@x.test>"


def test_a_mark_is_of_one_deed_one_mailbox_one_message_and_one_secret() -> None:
    made = {
        MARKS.delivered(ADA, ID), MARKS.expanded(ADA, ID), MARKS.delivered(Address("ada+x", "a.test"), ID),
        MARKS.delivered(Address("ada", "b.test"), ID), MARKS.delivered(ADA, "<2@x.test>"), MARKS.delivered(ADA, ""),
        Marks(b"other").delivered(ADA, ID),
    }  # fmt: skip
    assert len(made) == 7
    assert MARKS.delivered(ADA, ID) == Marks(b"secret").delivered(ADA, ID)


def test_case_composition_and_folding_change_nothing() -> None:
    assert MARKS.delivered(Address("ADA", "a.test"), ID) == MARKS.delivered(ADA, ID)
    assert MARKS.delivered(Address("u\u0308", "a.test"), ID) == MARKS.delivered(Address("\u00dc", "a.test"), ID)
    assert MARKS.delivered(ADA, "<1\t@x.test>") == MARKS.delivered(ADA, ID)


def test_the_boundary_between_the_parts_cannot_be_moved() -> None:
    assert MARKS.delivered(Address("ab", "c.test"), "d") != MARKS.delivered(Address("a", "bc.test"), "d")
    assert MARKS.delivered(Address("a", "c.testd"), "") != MARKS.delivered(Address("a", "c.test"), "d")


@pytest.mark.parametrize("count", [0, 1, 4, 5, 100, 101])
def test_what_is_written_is_read(count: int) -> None:
    marks = [MARKS.expanded(Address(f"u{number}", "a.test"), ID) for number in range(count)]
    field = loop.field(marks)
    assert loop.found(b"Subject: x\r\n" + field + b"To: y\r\n\r\n") == frozenset(marks[: loop.MARKS_MAX])
    assert all(len(line) <= 100 for line in field.split(b"\r\n"))


def test_marks_are_read_of_the_header_section_only_and_in_bounds() -> None:
    field = loop.field((MARKS.delivered(ADA, ID),))
    assert not loop.found(b"Subject: x\r\n\r\n" + field)
    assert loop.found(b"x-POSTROAD-loop:" + field.partition(b":")[2])
    assert len(loop.found(b"".join(b"X-Postroad-Loop: %016d\r\n" % number for number in range(3_000)))) == 1_000
