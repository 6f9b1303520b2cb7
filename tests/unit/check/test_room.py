"""What maps say of the room in a mailbox."""

from __future__ import annotations

import pytest

from postroad.check.room import full, means_nothing, verdict_of
from postroad.mail.address import Address

ADA = Address("ada", "example.org")


@pytest.mark.parametrize(
    ("value", "size", "said"),
    [
        ("over", 0, "452 4.2.2"), ("FULL", 0, "452 4.2.2"), ("0", 0, "452 4.2.2"), ("1000", 1001, "452 4.2.2"),
        ("1000", 1000, ""), ("450", 0, ""), ("552", 100, ""),
        ("552 5.2.2 is full", 0, "552 5.2.2 <ada@example.org>: is full"),
        ("552 is full", 0, "552 5.2.2"), ("450 try later", 0, "450 4.2.2"), ("554 4.7.1 odd", 0, "554 5.7.1"),
        ("REJECT go away", 0, "554 5.7.1 <ada@example.org>: go away"), ("DEFER_IF_PERMIT later", 0, "452 4.2.2"),
        ("DUNNO", 0, ""), ("ok", 0, ""), ("", 0, ""), ("PREPEND X: y", 0, ""), ("9" * 40, 5, ""),
        ("552 5.2.2 voll \u00fc\r\nRCPT", 0, "552 5.2.2"),
    ],
)  # fmt: skip
def test_values(value: str, size: int, said: str) -> None:
    verdict = verdict_of(value, ADA, size, fails=False)
    assert (verdict is None) is (said == "")
    if verdict is not None:
        assert str(verdict.reply).startswith(said) and str(verdict.reply).isascii()


def test_over_quota_and_what_means_nothing() -> None:
    assert str(full(ADA, fails=True).reply).startswith("552 5.2.2")
    assert means_nothing("PREPEND X: y") and means_nothing("?")
    assert not any(map(means_nothing, ("over", "5", "OK", "dunno", "552 5.2.2 x", "reject")))
