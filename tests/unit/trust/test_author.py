"""The author domains of a message, as real mail has them."""

from __future__ import annotations

import pytest

from postroad.trust import author
from postroad.trust.author import AUTHORS_MAX, authors


def section(*values: str) -> bytes:
    return "".join([f"From: {value}\r\n" for value in values]).encode()


@pytest.mark.parametrize(
    ("value", "domains"),
    [
        ("ada@a.example", ("a.example",)),
        ("Ada <ada@A.Example>", ("a.example",)),
        ('"ada@other.example" <ada@a.example>', ("a.example",)),
        ("ada@other.example <ada@a.example>", ("a.example",)),
        ("(other@b.example) ada@a.example (x)", ("a.example",)),
        ("Ada\r\n <ada@a.example>", ("a.example",)),
        ("=?utf-8?q?x=40b.example?= <ada@a.example>", ("a.example",)),
        ("ada@bücher.example", ("xn--bcher-kva.example",)),
        ("<@relay.example:ada@a.example>", ("a.example",)),
        ('"ada@b.example"@a.example', ("a.example",)),
        ("Team: ada@a.example, bob@a.example;", ("a.example",)),
        ("ada@a.example, bob@A.EXAMPLE", ("a.example",)),
        ("Ada <ada@a.example", ("a.example",)),
        ("root@localhost", ("localhost",)),
    ],
)
def test_one_author_domain(value: str, domains: tuple[str, ...]) -> None:
    assert authors(section(value)).domains == domains
    assert authors(section(value)).problem == ""


@pytest.mark.parametrize(
    ("value", "domains"),
    [
        ("Ada, Bob <ada@a.example>", ("a.example",)),
        ('"Ada <ada@a.example>', ("a.example",)),
        ("ada@a.example.", ("a.example",)),
        ("<ada@a.example> <bob@b.example>", ("a.example", "b.example")),
        ("ada @b.example@a.example", ("b.example", "a.example")),
        ("Ada <ada@a..example>, x <x@b.example>", ("b.example",)),
        ('"x@no.example" y, <ada@a.example>', ("a.example",)),
        ('"x@no.example"@a..example, <ada@a.example>', ("a.example",)),
        ("(Ada <ada@a.example> \\)", ("a.example",)),
    ],
)
def test_what_is_no_address_still_names_its_domains(value: str, domains: tuple[str, ...]) -> None:
    found = authors(section(value))
    assert found.domains == domains and "no address" in found.problem


def test_several_authors_and_several_fields_all_count() -> None:
    assert authors(section("a@a.example, b@b.example")).domains == ("a.example", "b.example")
    two = authors(b"From: a@a.example\r\nSubject: x\r\nFROM : b@b.example\r\nX-From: c@c.example\r\n")
    assert two.domains == ("a.example", "b.example")
    assert two.problem == "the message has 2 From fields; it names 2 author domains"
    many = authors(section(", ".join([f"a@{number}.example" for number in range(9)])))
    assert len(many.domains) == AUTHORS_MAX and many.more


@pytest.mark.parametrize(
    ("octets", "problem"),
    [
        (b"", "the message has no From field"),
        (b"Subject: x\r\n", "the message has no From field"),
        (b"From:\r\n", "its From field names no domain"),
        (b"From: undisclosed:;\r\n", "its From field names no domain"),
        (b"From: Ada\r\n", "its From field has something that is no address; its From field names no domain"),
        (b"From: ada@[192.0.2.1]\r\n", "its From field names no domain but an address literal"),
        (b"From: " + b"x" * 20_000 + b"\r\n", "its From field has more than 16384 characters; "
         "its From field has something that is no address; its From field names no domain"),
    ],
)  # fmt: skip
def test_no_author_domain(octets: bytes, problem: str) -> None:
    found = authors(octets)
    assert found.domains == () and found.problem == problem


@pytest.mark.parametrize(
    "value",
    [
        '"' + "x" * 20_000 + '" <ceo@bank.example>',
        "(" + "x" * 20_000 + ") ceo@bank.example",
        "x" * 20_000 + " <ceo@bank.example>",
    ],
)
def test_a_long_display_name_hides_no_domain(value: str) -> None:
    found = authors(section(value))
    assert (found.domains, found.more) == (("bank.example",), False)


def test_what_is_not_looked_at_is_said() -> None:
    """Else a domain could be forged behind it."""
    for value in ("x" * 70_000 + " <ceo@bank.example>", "@a.example; " * 300 + "<x> <ceo@bank.example>"):
        assert authors(section(value)).more
    assert not authors(section("x" * 20_000)).more


def test_all_fields_together_are_read_only_so_far(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []

    def counted(text: str) -> str:
        asked.append(text)
        raise ValueError

    monkeypatch.setattr(author, "canonical_domain", counted)
    found = authors(section(*[", ".join(["@a.example;"] * 1_000)] * 8))
    assert found.more and len(asked) <= author.TRIES_MAX


def test_octets_that_are_no_utf_8_hide_nothing() -> None:
    assert authors(b"From: J\xfcrgen <j@a.example>\r\n").domains == ("a.example",)
    assert authors(b'From: "J\xfcrgen" <j@a.example>\r\n').domains == ("a.example",)
