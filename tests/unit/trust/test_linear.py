"""What reads fields and records of strangers is linear: four times the input costs a little more than four times."""

from __future__ import annotations

from collections.abc import Callable
from types import ModuleType
from typing import Any

import pytest

from postroad.mail import message
from postroad.protocol import mailboxes
from postroad.trust import author, authres, authres_reading, dmarc_record, tags
from postroad.trust.results import DKIM, FAIL, Found
from tests.unit.linear import assert_linear

BOMBS = ("(", ")", "()", "(a", '"', '""', '"a"', "\\", '\\"', "\\(", ";", "; ", "=", "a=", "a=b;", " ", "a ", "a . ",
         "a/", "@", "a@", "a@b,", "<", "<a", "<a@b>", "<>", ":", "a:", "[", ".", "a.", "\r\n ", "ä", "-", "a-", "!",
         "%", "mailto:a@b,", "v=DMARC1;")  # fmt: skip
MODULES: list[ModuleType] = [message, mailboxes, author, authres, authres_reading, dmarc_record, tags]

READERS: dict[str, Callable[[str], Any]] = {
    "authors": lambda text: author.authors(b"From: " + text.encode() + b"\r\n"),
    "read": lambda text: authres_reading.read(b" x; spf=" + text.encode()),
    "claims": lambda text: authres_reading.claims(text.encode(), ("mx.example.org",)),
    "forged": lambda text: authres_reading.forged(
        b"Authentication-Results:" + text.encode() + b"mx.example.org; none\r\n", ("mx.example.org",)
    ),
    "field": lambda text: authres.field(text, [Found(DKIM, FAIL, text, (("header", "i", text + "@b.example"),))]),
    "record": lambda text: dmarc_record.select(["v=DMARC1; p=reject; x=" + "y" * 500 + ";rua=" + text]),
    "address": lambda text: dmarc_record.mail_address("mailto:" + text),
}


@pytest.mark.parametrize("bomb", BOMBS)
@pytest.mark.parametrize("reader", READERS)
def test_a_bomb_takes_linear_time(reader: str, bomb: str) -> None:
    def call(length: int) -> Callable[[], Any]:
        text = bomb * (length // len(bomb))
        return lambda: READERS[reader](text)

    assert_linear(MODULES, call, 300)  # above what a domain and a record that is kept may have


def test_many_fields_take_linear_time() -> None:
    def call(length: int) -> Callable[[], Any]:
        section = b"Authentication-Results: mx.example.org; none\r\nFrom: a@b.example\r\n" * (length // 50)
        return lambda: (author.authors(section), authres_reading.without_forged(section, ("mx.example.org",)))

    assert_linear(MODULES, call, 1_000)
