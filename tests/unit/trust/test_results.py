"""What one check found."""

from __future__ import annotations

from postroad.trust.results import DKIM, PASS, Found


def test_a_property_is_found_by_ptype_and_name() -> None:
    found = Found(DKIM, PASS, properties=(("header", "d", "a.example"), ("header", "d", "b.example")))
    assert found.value("header", "d") == "a.example"
    assert found.value("smtp", "d") == found.value("header", "i") == ""
