"""What an operator does to the bans."""

from __future__ import annotations

import pytest

from postroad.check.banning import BanRequest, apply, read_request, subject_of
from postroad.check.bans import Ban, Bans


@pytest.mark.parametrize(
    ("written", "subject"),
    [
        ("192.0.2.1", ("192.0.2.1", False)),
        ("192.0.2.1/24", ("192.0.2.0/24", False)),
        ("2001:db8::1/64", ("2001:db8::/64", False)),
        ("Ann", ("ann", True)),
        ("ann@example.org", ("ann@example.org", True)),
        ("dead.beef", ("dead.beef", True)),
    ],
)
def test_a_subject(written: str, subject: tuple[str, bool]) -> None:
    assert subject_of(written) == subject


@pytest.mark.parametrize(
    "written",
    ["", "192.0.2.256", "192.0.2", "192.0.2.0/33", "2001:db8::g:1", "10::/200", "0.0.0.0/0", "::/0", "a\nb",
     "not/net", "10.0.0.1-10.0.0.9", "2001:db8::zz"],
)
def test_what_is_none(written: str) -> None:
    assert isinstance(subject_of(written), str)


def test_an_account_that_was_banned_under_an_odd_name_can_be_let_in_again() -> None:
    bans = Bans([Ban("a/b", 0, 0, "failed", "", True)])
    assert [row.text for row in apply(bans, BanRequest("lift", ("A/B", "c/d")), 1)] == [
        "lifted", "is not an address, network or account",
    ]  # fmt: skip
    assert not len(bans)


def test_add_and_lift() -> None:
    bans = Bans()
    rows = apply(bans, BanRequest("add", ("192.0.2.0/24", "Ann", "1.2.3"), 60.0, "spam", "root"), 1_000_000)
    assert [(row.subject, row.text) for row in rows] == [
        ("192.0.2.0/24", "banned"), ("ann", "banned"), ("1.2.3", "is not an address, network or account"),
    ]  # fmt: skip
    assert rows[0].ban == Ban("192.0.2.0/24", 1_000_000, 61_000_000, "spam", "root")
    assert bans.of_account("ann", 2_000_000) is not None
    rows = apply(bans, BanRequest("lift", ("192.0.2.7", "ANN", "bob")), 2_000_000)
    assert [(row.subject, row.text, row.ban is not None) for row in rows] == [
        ("192.0.2.7", "is banned as a part of 192.0.2.0/24", False), ("ann", "lifted", True),
        ("bob", "is not banned", False),
    ]  # fmt: skip
    assert [each.subject for each in bans] == ["192.0.2.0/24"]


def test_for_ever() -> None:
    assert apply(bans := Bans(), BanRequest("add", ("192.0.2.1",), 0.0), 5)[0].text == "banned"
    assert bans.of_address("192.0.2.1", 10**18) is not None


@pytest.mark.parametrize(
    "value",
    [None, {}, {"action": "eat"}, {"action": "add", "subjects": "x"}, {"action": "add", "reason": "a\nb"},
     {"action": "add", "for_s": -1.0}, {"action": "add", "for_s": 1e12}, {"action": "add", "by": "\x1b[1m"}],
)  # fmt: skip
def test_what_is_no_request(value: object) -> None:
    assert isinstance(read_request(value), str)


@pytest.mark.parametrize(
    ("first_s", "second_s", "until_us"),
    [(0.0, 60.0, 0), (3600.0, 60.0, 3_600_000_000), (60.0, 3600.0, 3_601_000_000), (60.0, 0.0, 0), (0.0, 0.0, 0)],
)
@pytest.mark.parametrize("subject", ["192.0.2.0/24", "ann"])
def test_a_longer_ban_stays(subject: str, first_s: float, second_s: float, until_us: int) -> None:
    bans = Bans()
    apply(bans, BanRequest("add", (subject,), first_s, "first", "root"), 0)
    row = apply(bans, BanRequest("add", (subject,), second_s, "second", "root"), 1_000_000)[0]
    kept = (not first_s and second_s > 0) or first_s > second_s > 0
    assert row.text.startswith("banned for longer already") is kept
    assert [ban.until_us for ban in bans] == [until_us]
    assert row.ban is not None and row.ban.reason == ("first" if kept else "second")


def test_a_ban_that_is_over_is_no_longer_ban() -> None:
    bans = Bans([Ban("192.0.2.1", 0, 5)])
    assert apply(bans, BanRequest("add", ("192.0.2.1",), 60.0), 10)[0].text == "banned"


@pytest.mark.parametrize(
    ("written", "text"),
    [
        ("198.51.100.7/24", "banned (the whole network of 198.51.100.7/24)"),
        ("198.51.100.0/24", "banned"),
        ("198.51.100.7/32", "banned"),
        ("2001:db8::1/64", "banned (the whole network of 2001:db8::1/64)"),
        ("2001:DB8::/64", "banned"),
    ],
)
def test_who_may_have_meant_an_address_is_told_of_the_network(written: str, text: str) -> None:
    assert apply(Bans(), BanRequest("add", (written,)), 0)[0].text == text
