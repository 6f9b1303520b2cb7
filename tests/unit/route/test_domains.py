"""Domain patterns, our own names, and addresses that no mail goes to."""

from __future__ import annotations

import pytest

from postroad.mail.address import is_loopback, is_unusable
from postroad.route.domains import DomainTable, OwnNames, literal_address

TABLE = DomainTable(
    [("example.org", 1), (".example.org", 2), (".deep.example.org", 3), (".net", 4), ("*", 5), ("[192.0.2.1]", 6)]
)


@pytest.mark.parametrize(
    ("domain", "found"),
    [
        ("example.org", 1),
        ("a.example.org", 2),
        ("a.b.example.org", 2),
        ("deep.example.org", 2),
        ("x.deep.example.org", 3),
        ("net", 5),
        ("x.net", 4),
        ("notexample.org", 5),
        ("", 5),
        ("[192.0.2.1]", 6),
        ("[192.0.2.2]", None),
    ],
)
def test_the_most_exact_pattern_counts(domain: str, found: int | None) -> None:
    assert TABLE.find(domain) == found


def test_without_a_default() -> None:
    assert DomainTable([("example.org", 1)]).find("example.net") is None
    assert DomainTable[int]([]).find("example.net") is None


@pytest.mark.parametrize(
    ("domain", "address"),
    [
        ("[192.0.2.1]", "192.0.2.1"),
        ("[IPv6:2001:DB8:0:0::1]", "2001:db8::1"),
        ("[ipv6:::1]", "::1"),
        ("[2001:db8::1]", None),
        ("[IPv6:192.0.2.1]", None),
        ("[tag:thing]", None),
        ("[]", None),
        ("192.0.2.1", None),
        ("example.org", None),
    ],
)
def test_address_literals(domain: str, address: str | None) -> None:
    assert literal_address(domain) == address


@pytest.mark.parametrize(
    "address", ["127.0.0.1", "127.9.9.9", "::1", "0.0.0.0", "::", "::ffff:127.0.0.1", "::ffff:0.0.0.0"]
)
def test_loopback(address: str) -> None:
    assert is_loopback(address)


@pytest.mark.parametrize("address", ["192.0.2.1", "10.0.0.1", "2001:db8::1", "fe80::1", "::ffff:192.0.2.1"])
def test_other_addresses(address: str) -> None:
    assert not is_loopback(address) and not is_unusable(address)


@pytest.mark.parametrize("address", ["224.0.0.1", "255.255.255.255", "240.0.0.1", "ff02::1"])
def test_unusable(address: str) -> None:
    assert is_unusable(address)


def test_own_names() -> None:
    own = OwnNames(frozenset({"mx.example.org"}), frozenset({"192.0.2.1"}), frozenset({25, 587}))
    assert own.is_host("mx.example.org") and not own.is_host("mx2.example.org")
    assert own.is_address("192.0.2.1", 25) and own.is_address("192.0.2.1", 587)
    assert not own.is_address("192.0.2.1", 2525) and not own.is_address("192.0.2.2", 25)
