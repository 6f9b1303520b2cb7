"""How names of accounts are compared."""

from __future__ import annotations

import pytest

from postroad.check.bans import account_of
from postroad.mail.account import canonical_account


@pytest.mark.parametrize(
    ("written", "canonical"),
    [
        ("ann", "ann"),
        ("Ann", "Ann"),  # no address: RFC 8265 knows names that differ by case
        ("Ann@Example.ORG", "ann@example.org"),
        ("ann@b\u00fccher.example", "ann@xn--bcher-kva.example"),
        ("ann@XN--BCHER-KVA.example", "ann@xn--bcher-kva.example"),
        ("JOSE\u0301@example.org", "jos\u00e9@example.org"),
        ("a@b@Example.org", "a@b@example.org"),
        ("@example.org", "@example.org"),
        ("Ann@", "Ann@"),
        ("Ann@no domain", "Ann@no domain"),
        ("", ""),
    ],
)
def test_a_name_as_it_is_compared(written: str, canonical: str) -> None:
    assert canonical_account(written) == canonical
    assert canonical_account(canonical) == canonical


def test_bans_know_an_account_by_each_way_to_write_it() -> None:
    assert account_of("Ann@b\u00fccher.example") == account_of("ann@xn--bcher-kva.EXAMPLE")
