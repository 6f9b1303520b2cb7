"""Bounce Address Tag Validation (`route.batv`)."""

from __future__ import annotations

import pytest

from postroad.mail.address import Address
from postroad.route import batv
from postroad.route.batv import DAY_US, Tag

ADA = Address("ada", "example.org")
KEYS = ((3, b"new key"), (0, b"old key"))
NOW_US = 20_788 * DAY_US


def test_a_tag_is_valid_for_its_days() -> None:
    signed = batv.sign(ADA, KEYS[0], 7, NOW_US)
    assert signed.local_part.startswith("prvs=3795") and signed.local_part.endswith("=ada")
    assert len(signed.local_part) == len("prvs=3795abcdef=ada")
    for days in (0, 7):
        assert batv.read(signed, KEYS, 7, NOW_US + days * DAY_US) == Tag(ADA)
    for days in (-1, 8, 500):
        found = batv.read(signed, KEYS, 7, NOW_US + days * DAY_US)
        assert found is not None and found.address == ADA and "out of date" in found.wrong
    over = batv.sign(ADA, KEYS[0], 7, 20_995 * DAY_US)  # its last day is 002
    assert over.local_part.startswith("prvs=3002")
    assert batv.read(over, KEYS, 7, 20_996 * DAY_US) == Tag(ADA)


def test_all_keys_verify_and_case_does_not_matter() -> None:
    old = batv.sign(Address("Ada+x=y", "example.org"), KEYS[1], 7, NOW_US)
    assert batv.read(old, KEYS, 7, NOW_US) == Tag(Address("Ada+x=y", "example.org"))
    for changed in (old.local_part.lower(), old.local_part.upper()):
        found = batv.read(Address(changed, "example.org"), KEYS, 7, NOW_US)
        assert found is not None and not found.wrong
    gone = batv.read(old, KEYS[:1], 7, NOW_US)
    assert gone is not None and "not made here" in gone.wrong


@pytest.mark.parametrize("other", [Address("bob", "example.org"), Address("ada", "example.net")])
def test_a_tag_is_good_for_its_address_only(other: Address) -> None:
    signed = batv.sign(ADA, KEYS[0], 7, NOW_US)
    moved = Address(signed.local_part.rpartition("=")[0] + "=" + other.local_part, other.domain)
    found = batv.read(moved, KEYS, 7, NOW_US)
    assert found is not None and found.address == other and "not made here" in found.wrong


@pytest.mark.parametrize("local_part", [
    "ada", "prvs=ada", "prvs=3795abcde=ada", "prvs=3795abcdeg=ada", "prvs=3795abcdef=", "xprvs=3795abcdef=ada",
    "prvs=٣٧٩٥abcdef=ada",
])  # fmt: skip
def test_other_addresses_have_no_tag(local_part: str) -> None:
    assert batv.read(Address(local_part, "example.org"), KEYS, 7, NOW_US) is None
    assert not batv.is_tagged(local_part)
