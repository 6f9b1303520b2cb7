"""dkimpy as a second opinion on ARC: each validates what the other sealed, also in one chain."""

from __future__ import annotations

from typing import Any

import pytest

from postroad.trust.dkim_body import Canonicalization
from postroad.trust.dkim_sign import SigningOptions
from tests.unit.trust.dkim_parts import MESSAGE, secret
from tests.unit.trust.test_arc import KEYS, seal, sealed, validate, zone

dkim: Any = pytest.importorskip("dkim", reason="dkimpy is not installed")


def theirs(message: bytes) -> str:
    records = {name.encode() + b".": record.encode() for name, record in zone().records.items()}  # type: ignore[union-attr]
    found, _, _ = dkim.arc_verify(message, dnsfunc=lambda name, timeout=5: records.get(name, b""))
    return found.decode()


@pytest.mark.parametrize("count", [1, 2, 4])
def test_dkimpy_validates_what_we_seal(count: int) -> None:
    whole = sealed(count)
    assert theirs(whole) == "pass"
    assert theirs(whole + b"more\r\n") == "fail"


@pytest.mark.parametrize("count", [1, 2, 4])
def test_we_validate_what_dkimpy_seals(count: int) -> None:
    whole = MESSAGE
    for number in range(count):
        key = KEYS[number % 3]
        results = b"Authentication-Results: mx.example; arc=%s\r\n" % (b"pass" if number else b"none")
        lines = dkim.arc_sign(
            results + whole, b"arc", key.domain.encode(), secret(key), b"mx.example",
            include_headers=[b"from", b"to", b"subject", b"date"],
        )  # fmt: skip
        whole = b"".join(lines) + whole
    found = validate(whole)
    assert (found.result, found.reason) == ("pass", "")
    assert found.domains == tuple(KEYS[number % 3].domain for number in range(count))
    assert theirs(sealed(1, whole)) == "pass" and validate(sealed(1, whole)).result == "pass"  # both in one chain


@pytest.mark.parametrize("body", list(Canonicalization))
def test_both_forms_of_the_body(body: Canonicalization) -> None:
    whole = seal(MESSAGE, KEYS[0], SigningOptions(body=body))
    assert validate(whole).result == "pass" and theirs(whole) == "pass"
