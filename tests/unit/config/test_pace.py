"""Rates and patterns of hosts, as [[pace]] takes them."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic_core import PydanticCustomError

from postroad.config.pace import host_pattern, rate


@pytest.mark.parametrize("written", ["", "100/1m", "5/1s", "2000/1h"])
def test_rates(written: str) -> None:
    assert rate(written) == written


@pytest.mark.parametrize("written", ["100", "100/", "/1m", "0/1m", "-1/1m", "many/1m", 100, None, ["100/1m"]])
def test_what_is_no_rate_is_refused_with_an_example(written: Any) -> None:
    with pytest.raises(PydanticCustomError) as refused:
        rate(written)
    assert "is not a rate" in str(refused.value)


@pytest.mark.parametrize(
    ("written", "taken"),
    [
        ("mx1.Example.net", "mx1.example.net"), ("*.example.net", ".example.net"), (".example.net", ".example.net"),
        ("*", "*"), ("192.0.2.1", "192.0.2.1"), ("2001:DB8::1", "2001:db8::1"),
    ],
)  # fmt: skip
def test_patterns_of_hosts(written: str, taken: str) -> None:
    assert host_pattern(written) == taken


@pytest.mark.parametrize("written", ["a b", "mx*.example.net", 25])
def test_what_is_no_pattern_of_hosts(written: Any) -> None:
    with pytest.raises(PydanticCustomError):
        host_pattern(written)
