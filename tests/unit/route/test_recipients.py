"""Which mailboxes exist: lists, files, any; postmaster; extensions; files that change."""

from __future__ import annotations

from pathlib import Path

import pytest

from postroad.mail.address import Address
from postroad.mail.owned import Owned
from postroad.route import recipients
from postroad.route.options import LocalDomain, RoutingOptions
from postroad.route.recipients import Mailboxes, Recipients, fold, mailboxes_of, read_names
from postroad.world.problem import Problem
from tests.unit.rights import as_ordinary_user

LISTED = Mailboxes(("ada", "Bob@example.org", "grün"))
RECIPIENTS = Recipients(
    {
        "example.org": LISTED,
        "any.example": Mailboxes(every=True),
        "plain.example": Mailboxes(("ada",), delimiter=""),
        "dash.example": Mailboxes(("ada",), delimiter="-"),
        ".relay.example": Mailboxes(("ada",)),
    }
)


@pytest.mark.parametrize(
    ("local_part", "domain", "known", "box"),
    [
        ("ada", "example.org", True, True),
        ("ADA", "example.org", True, True),
        ("ada+lists", "example.org", True, True),
        ("ada+", "example.org", True, True),
        ("bob", "example.org", True, True),
        ("GRÜN", "example.org", True, True),
        ("gru\u0308n", "example.org", True, True),
        ("+ada", "example.org", False, False),
        ("ad", "example.org", False, False),
        ("ada-lists", "example.org", False, False),
        ("Postmaster", "example.org", True, False),
        ("whoever", "any.example", True, True),
        ("postmaster", "any.example", True, True),
        ("ada+lists", "plain.example", False, False),
        ("ada-lists", "dash.example", True, True),
        ("ada", "x.relay.example", True, True),
        ("eve", "x.relay.example", False, False),
        ("ada", "relay.example", None, False),
        ("ada", "elsewhere.example", None, False),
    ],
)
def test_known(local_part: str, domain: str, known: bool | None, box: bool) -> None:
    assert RECIPIENTS.known(Address(local_part, domain)) is known
    assert RECIPIENTS.has_box(Address(local_part, domain)) is box


@pytest.mark.parametrize(
    ("local_part", "delimiter", "name"),
    [("Ada+X+Y", "+", "ada"), ("+X", "+", "+x"), ("a+b", "", "a+b"), ("", "+", ""), ("a~~b", "~~", "a")],
)
def test_fold(local_part: str, delimiter: str, name: str) -> None:
    assert fold(local_part, delimiter) == name


def test_a_file_is_read_again_when_it_changes(tmp_path: Path) -> None:
    path = tmp_path / "recipients"
    path.write_text("# ours\nada\nBob@EXAMPLE.org   # with a comment\n\neve@example.net\n")
    recipients = Recipients({"example.org": Mailboxes(("carol",), str(path))})
    assert recipients.load() == ()
    assert [bool(recipients.known(Address(name, "example.org"))) for name in ("ada", "bob", "carol", "eve")] == [
        True, True, True, False,
    ]  # fmt: skip
    assert recipients.load() == ()
    path.write_text("eve\n")
    assert recipients.load() == ()
    assert [bool(recipients.known(Address(name, "example.org"))) for name in ("ada", "carol", "eve")] == [
        False, True, True,
    ]  # fmt: skip


def test_what_was_known_stays_when_a_file_breaks(tmp_path: Path) -> None:
    path = tmp_path / "recipients"
    path.write_text("ada\n")
    recipients = Recipients({"example.org": Mailboxes((), str(path))})
    recipients.load()
    path.write_text("eve\nnot a mailbox\n")
    assert [problem.where for problem in recipients.load()] == [f"{path}:2"]
    assert recipients.load() == ()  # said once
    assert recipients.known(Address("ada", "example.org")) and not recipients.known(Address("eve", "example.org"))
    path.unlink()
    assert "no such file" in str(recipients.load()[0])
    assert recipients.known(Address("ada", "example.org"))


@pytest.mark.parametrize(
    ("octets", "line"),
    [(b"a b", 1), (b"ada\n@example.org", 2), (b"a\x01b", 1), (b"\n\nada@-x-", 3), (b"\xff\xfe", 0)],
)
def test_wrong_lines(tmp_path: Path, octets: bytes, line: int) -> None:
    path = tmp_path / "recipients"
    path.write_bytes(octets)
    found = read_names(str(path), "example.org", "+")
    assert isinstance(found, Problem) and found.remedy
    assert found.where == (f"{path}:{line}" if line else str(path))


def test_a_file_that_may_not_be_read(tmp_path: Path) -> None:
    path = tmp_path / "recipients"
    path.touch(0)
    with as_ordinary_user():
        found = read_names(str(path), "example.org", "+")
    assert "may not be read" in str(found)


def test_since_when_a_mailbox_has_its_owner(tmp_path: Path) -> None:
    """For RRVS (RFC 7293): behind a name in the file; of the domain as it was told."""
    path = tmp_path / "recipients"
    path.write_text("ada since=2014-04-03 # hired\nBob@example.org\tsince=2014-04-03T23:01:00Z\ncarol\n")
    boxes = Mailboxes(("dora",), str(path), since_us=1_000_000)
    recipients = Recipients({"example.org": boxes})
    assert recipients.load() == ()
    times = {"Ada+x": 1_396_483_200_000_000, "bob": 1_396_566_060_000_000, "carol": 0, "dora": 0, "nobody": 0}
    for name, at_us in times.items():
        assert recipients.owned(Address(name, "example.org")) == Owned(at_us, 1_000_000)
    assert recipients.owned(Address("ada", "elsewhere.example")) is None
    told_of = mailboxes_of(RoutingOptions((LocalDomain("example.org", ("any",), since="2014-04-03"),)))
    assert told_of["example.org"].since_us == 1_396_483_200_000_000


@pytest.mark.parametrize("line", ["ada since=2014", "ada since", "ada x since=2014-04-03", "ada since=2014-04-03 x"])
def test_what_means_nothing_behind_a_name(tmp_path: Path, line: str) -> None:
    path = tmp_path / "recipients"
    path.write_text(f"bob\n{line}\n")
    found = read_names(str(path), "example.org", "+")
    assert isinstance(found, Problem) and found.where == f"{path}:2" and "since=" in found.remedy


def test_keys_and_files_are_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert RECIPIENTS.known(Address("ada+" + "x" * 1_000_000, "example.org")) is False
    assert RECIPIENTS.known(Address("x" * 1_000_000, "any.example")) is False
    path = tmp_path / "recipients"
    path.write_text("x" * 513)
    found = read_names(str(path), "example.org", "+")
    assert isinstance(found, Problem) and "not a mailbox" in found.text
    monkeypatch.setattr(recipients, "FILE_MAX", 100)
    path.write_text("ada\n" * 26)
    found = read_names(str(path), "example.org", "+")
    assert isinstance(found, Problem) and "more than 100 octets" in found.text
