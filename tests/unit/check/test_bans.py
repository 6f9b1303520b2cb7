"""Bans, who they hold for, and the file that keeps them."""

from __future__ import annotations

import random
import stat
from pathlib import Path
from typing import Any

import pytest

from postroad.check import bans as kept
from postroad.check.bans import Ban, Bans, network_of
from postroad.world.problem import Problem


def ban(subject: str, until_us: int = 100, *, is_account: bool = False) -> Ban:
    return Ban(subject, 1, until_us, "why", "root", is_account)


@pytest.mark.parametrize(
    ("text", "network"),
    [
        ("192.0.2.1", "192.0.2.1"),
        ("192.0.2.1/32", "192.0.2.1"),
        ("192.0.2.77/24", "192.0.2.0/24"),
        ("::ffff:192.0.2.1", "192.0.2.1"),
        ("::ffff:192.0.2.9/120", "192.0.2.0/24"),
        ("2001:DB8::1", "2001:db8::1"),
        ("2001:db8::1/64", "2001:db8::/64"),
        ("fe80::1%eth0", "fe80::1"),
        ("ann", None),
        ("192.0.2.256", None),
        ("", None),
    ],
)
def test_how_a_network_is_written(text: str, network: str | None) -> None:
    assert network_of(text) == network


@pytest.mark.parametrize(
    ("subject", "address", "holds"),
    [
        ("192.0.2.1", "192.0.2.1", True),
        ("192.0.2.1", "192.0.2.2", False),
        ("192.0.2.0/24", "192.0.2.255", True),
        ("192.0.2.0/24", "192.0.3.0", False),
        ("0.0.0.0/8", "10.0.0.1", False),
        ("2001:db8::/64", "2001:db8::ffff:1", True),
        ("2001:db8::/64", "2001:db8:0:1::1", False),
        ("2001:db8::/64", "fe80::1%eth0", False),
        ("192.0.2.0/24", "c000:200::", False),  # the same bits of the other version
        ("192.0.2.1", "", False),
    ],
)
def test_for_whom_a_ban_holds(subject: str, address: str, holds: bool) -> None:
    found = Bans([ban(subject)]).of_address(address, 50)
    assert (found is not None) is holds


def test_a_ban_ends() -> None:
    bans = Bans([ban("192.0.2.1", 100), ban("192.0.2.2", 0), ban("ann", 100, is_account=True)])
    assert bans.of_address("192.0.2.1", 99) is not None and bans.of_account("Ann", 99) is not None
    assert bans.of_address("192.0.2.1", 100) is None and bans.of_account("ann", 100) is None
    assert bans.of_address("192.0.2.2", 10**18) is not None
    assert {each.subject for each in bans.expire(100)} == {"192.0.2.1", "ann"}
    assert len(bans) == 1 and bans.of_account("ann", 50) is None


def test_one_subject_has_one_ban_and_lifting_it_leaves_the_others() -> None:
    bans = Bans([ban("192.0.2.1"), ban("192.0.2.0/24"), ban("192.0.2.1", 200)])
    assert len(bans) == 2
    assert bans.lift("192.0.2.0/24") is not None
    assert bans.lift("192.0.2.0/24") is None
    assert bans.of_address("192.0.2.1", 150) is not None and bans.of_address("192.0.2.2", 50) is None
    assert bans.lift("192.0.2.1") is not None and bans.of_address("192.0.2.1", 50) is None


def test_bans_have_a_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kept, "BANS_MAX", 3)
    bans = Bans([ban("192.0.2.1", 0), ban("192.0.2.2", 70), ban("192.0.2.3", 60), ban("192.0.2.4", 80)])
    assert {each.subject for each in bans} == {"192.0.2.1", "192.0.2.2", "192.0.2.4"}


@pytest.mark.parametrize("seed", range(10))
def test_bans_end_in_time_whatever_was_added_lifted_and_replaced(monkeypatch: pytest.MonkeyPatch, seed: int) -> None:
    monkeypatch.setattr(kept, "BANS_MAX", 8)
    monkeypatch.setattr(kept, "_ENDS_MIN", 2)
    chance, bans = random.Random(seed), Bans()
    expected: dict[str, int] = {}
    for now_us in range(1, 400):
        subject, until_us = f"192.0.2.{chance.randrange(12)}", chance.choice((0, now_us + chance.randrange(1, 40)))
        if chance.random() < 0.7:
            if len(expected) >= 8:
                ends = [each for each in expected.values() if each]
                gone = next(name for name, until in expected.items() if not ends or until == min(ends))
                if ends:  # of two that end together either may go
                    gone = ({*expected} - {each.subject for each in _with(bans, subject, until_us)} or {gone}).pop()
                    assert expected[gone] == min(ends)
                else:
                    _with(bans, subject, until_us)
                del expected[gone]
            else:
                _with(bans, subject, until_us)
            expected[subject] = until_us
        else:
            assert (bans.lift(subject) is not None) is (expected.pop(subject, None) is not None)
        over = {name for name, until in expected.items() if 0 < until <= now_us}
        assert {each.subject for each in bans.expire(now_us)} == over
        expected = {name: until for name, until in expected.items() if name not in over}
        assert {each.subject: each.until_us for each in bans} == expected
        assert len(bans._ends) <= 2 * len(bans) + 3, "what is gone is cleared away"


def _with(bans: Bans, subject: str, until_us: int) -> Bans:
    bans.add(ban(subject, until_us))
    return bans


def test_that_nothing_ends_is_seen_without_looking_through_all() -> None:
    class Watched(Bans):
        def __iter__(self) -> Any:
            raise AssertionError("looked through")

    bans = Watched([ban(f"10.0.{place // 250}.{place % 250}", 100 + place) for place in range(900)])
    assert [each.subject for each in bans.expire(101)] == ["10.0.0.0", "10.0.0.1"]
    assert bans.expire(101) == [] and len(bans) == 898


def test_bans_follow_what_another_says() -> None:
    bans = Bans([ban("192.0.2.1"), ban("ann", is_account=True)])
    bans.follow([ban("192.0.2.2")], ["ann"])
    assert {each.subject for each in bans} == {"192.0.2.1", "192.0.2.2"}
    bans.follow([ban("192.0.2.3")], None)
    assert [each.subject for each in bans] == ["192.0.2.3"] and bans.of_address("192.0.2.1", 50) is None
    assert [each.subject for each in bans.expire(200)] == ["192.0.2.3"]


def test_the_file_keeps_what_is_in_force(tmp_path: Path) -> None:
    bans = Bans([ban("192.0.2.1"), ban("2001:db8::/64", 0), ban('an"n\n', is_account=True), ban("192.0.2.9", 40)])
    kept.write(tmp_path, bans, 50)
    found = kept.read(tmp_path)
    assert isinstance(found, Bans) and set(found) == {each for each in bans if each.subject != "192.0.2.9"}
    assert stat.S_IMODE((tmp_path / "bans.json").stat().st_mode) & 0o007 == 0
    assert [path.name for path in tmp_path.iterdir()] == ["bans.json"]


def test_no_file_is_no_ban(tmp_path: Path) -> None:
    found = kept.read(tmp_path)
    assert isinstance(found, Bans) and len(found) == 0


@pytest.mark.parametrize("octets", [b"", b"{}", b"[1]", b'[{"subject":"x/y","since_us":1,"until_us":2}]', b"\xff"])
def test_a_file_that_is_none_is_told(tmp_path: Path, octets: bytes) -> None:
    (tmp_path / "bans.json").write_bytes(octets)
    found = kept.read(tmp_path)
    assert isinstance(found, Problem) and "bans.json" in str(found) and "Remove the file" in str(found)


def test_a_link_in_the_way_is_not_followed(tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.write_text("mine")
    (tmp_path / "bans.new").symlink_to(elsewhere)
    kept.write(tmp_path, Bans([ban("192.0.2.1")]), 50)
    assert elsewhere.read_text() == "mine" and len(kept.read(tmp_path)) == 1  # type: ignore[arg-type]
