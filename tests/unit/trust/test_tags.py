"""Lists of tags (RFC 6376 §3.2)."""

from __future__ import annotations

import pytest

from postroad.trust import tags
from postroad.trust.tags import TagFault


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("v=1", {"v": "1"}),
        ("v=1;", {"v": "1"}),
        (" v = 1 ; \r\n\ta=b c ;\r\n ", {"v": "1", "a": "b c"}),
        ("V=1; v=2", {"V": "1", "v": "2"}),  # names are told apart by their case
        ("p=; n=", {"p": "", "n": ""}),
        ("b=ab=\r\n cd==", {"b": "ab=\r\n cd=="}),
        ("new_tag2=x; d=grå.example", {"new_tag2": "x", "d": "grå.example"}),
    ],
)
def test_what_is_a_list(text: str, expected: dict[str, str]) -> None:
    assert tags.parse(text) == expected
    assert tags.gather(text) == (expected, ())


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", "tag 1 is empty"),
        (";", "tag 1 is empty"),
        ("v=1;; a=b", "tag 2 is empty"),
        ("v=1;;", "tag 2 is empty"),
        ("v=1; what", "tag 2 has no \"=\": 'what'"),
        ("v=1; =x", "tag 2 has a name that is not allowed: ''"),
        ("v=1; 9a=x", "tag 2 has a name that is not allowed: '9a'"),
        ("v=1; a b=x", "tag 2 has a name that is not allowed: 'a b'"),
        ("v=1; a=x; v=1", "the tag 'v' is there twice"),
        ("v=1; a=x\0y", "the value of the tag 'a' has a control character"),
        ("a=" + "x" * tags.LIST_MAX, "the list of tags has 65538 characters, more than 65536"),
        (";".join(f"a{each}=x" for each in range(101)), "the list has more than 100 tags"),
    ],
)
def test_what_is_none(text: str, told: str) -> None:
    assert tags.parse(text) == TagFault(told)


def test_what_can_be_read_is_gathered() -> None:
    found, faults = tags.gather("v=DMARC1; p=none; p=reject; what; sp=quarantine;; np=x\0")
    assert found == {"v": "DMARC1", "p": "none", "sp": "quarantine"}
    assert len(faults) == 4


def test_as_many_tags_as_may_be() -> None:
    full = ";".join(f"a{each}=x" for each in range(tags.TAGS_MAX))
    assert len(tags.gather(full)[0]) == tags.TAGS_MAX and not tags.gather(full + ";")[1]
    assert len(tags.gather(full + ";b=x;c=x;d=x")[0]) == tags.TAGS_MAX


def test_compact() -> None:
    assert tags.compact(" ab\r\n\tc d ") == "abcd"
