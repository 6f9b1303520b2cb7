"""Address extensions, with one delimiter and with several."""

from __future__ import annotations

import pytest

from postroad.mail.extension import extension_of, without_extension


@pytest.mark.parametrize(
    ("local_part", "delimiters", "base"),
    [
        ("ada+lists", "+", "ada"), ("ada-lists", "+", "ada-lists"), ("ada+a+b", "+", "ada"), ("+lists", "+", "+lists"),
        ("ada+", "+", "ada"), ("ada", "+", "ada"), ("ada+lists", "", "ada+lists"), ("ada-a+b", "+-", "ada"),
        ("ada+a-b", "+-", "ada"), ("ada+a-b", "-+", "ada"), ("ada_a", "+-_", "ada"), ("-ada", "+-", "-ada"),
        ("owner-list", "+-", "owner-list"), ("Owner-List+x", "+-", "Owner-List+x"),
        ("list-request", "-", "list-request"),
        ("MAILER-DAEMON", "-", "MAILER-DAEMON"), ("double-bounce", "+-", "double-bounce"),
        ("-request", "-", "-request"),
        ("owner-list", "+", "owner-list"), ("owner+x", "+", "owner"),
    ],
)  # fmt: skip
def test_extensions(local_part: str, delimiters: str, base: str) -> None:
    assert without_extension(local_part, delimiters) == base
    assert base + extension_of(local_part, delimiters) == local_part
