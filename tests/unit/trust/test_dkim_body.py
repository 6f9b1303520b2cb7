"""The canonical forms of bodies, in pieces of any size (RFC 6376 §3.4.3, §3.4.4)."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from postroad.trust.dkim_body import BodyForm, BodyHashes, Canonicalization
from tests.unit.trust.dkim_parts import body_hash, canonical_body

SIMPLE, RELAXED = Canonicalization.SIMPLE, Canonicalization.RELAXED


@pytest.mark.parametrize(
    ("body", "simple", "relaxed"),
    [
        (b"", b"\r\n", b""),
        (b"\r\n\r\n", b"\r\n", b""),
        (b" ", b" \r\n", b""),
        (b" \t\r\n \r\n", b" \t\r\n \r\n", b""),
        (b"a", b"a\r\n", b"a\r\n"),
        (b"a \t b\t\r\n\r\nc \r\n\r\n", b"a \t b\t\r\n\r\nc \r\n", b"a b\r\n\r\nc\r\n"),
        (b"a\r", b"a\r\r\n", b"a\r\r\n"),
        (b"a\n\r\n\n", b"a\n\r\n\n\r\n", b"a\n\r\n\n\r\n"),
        (b"a \r", b"a \r\r\n", b"a \r\r\n"),
        (b"a\r\r\n\r\n", b"a\r\r\n", b"a\r\r\n"),
        (b"a" + b"\r\n" * 9_000 + b"b", b"a" + b"\r\n" * 9_000 + b"b\r\n", b"a" + b"\r\n" * 9_000 + b"b\r\n"),
        (b"a" + b" " * 300_000 + b"b", b"a" + b" " * 300_000 + b"b\r\n", b"a b\r\n"),
    ],
)
def test_canonical_forms(body: bytes, simple: bytes, relaxed: bytes) -> None:
    assert canonical_body(body, BodyForm(SIMPLE)) == simple
    assert canonical_body(body, BodyForm(RELAXED)) == relaxed


_BODIES = st.lists(st.sampled_from([b"\r\n", b"\r", b"\n", b" ", b"\t", b"\0", b"a", b"bc", b"\xc3\xa4"]), max_size=40)


@settings(max_examples=400, deadline=None)
@given(_BODIES, st.lists(st.integers(0, 80), max_size=6), st.sampled_from([SIMPLE, RELAXED]), st.integers(-1, 30))
def test_where_it_is_cut_changes_nothing(
    parts: list[bytes], cuts: list[int], canonicalization: Canonicalization, length: int
) -> None:
    body = b"".join(parts)
    form = BodyForm(canonicalization, length if length >= 0 else None)
    canonical_body(body, form)
    ends = sorted({min(cut, len(body)) for cut in cuts} | {0, len(body)})
    pieces = [body[start:end] for start, end in itertools.pairwise(ends)]
    assert body_hash(pieces, form) == body_hash([body], form)
    assert body_hash([body[at : at + 1] for at in range(len(body))], form) == body_hash([body], form)


def test_many_forms_at_once() -> None:
    forms = [BodyForm(way, length) for way in (SIMPLE, RELAXED) for length in (None, 0, 3, 99)]
    bodies = BodyHashes([*forms, *forms])
    bodies.feed(b"a  b\r\n")
    bodies.feed(b"c \r\n\r\n")
    found = bodies.results()
    assert set(found) == set(forms)
    for form in forms:
        assert found[form] == body_hash([b"a  b\r\nc \r\n\r\n"], form)


def test_nothing_is_wanted() -> None:
    bodies = BodyHashes([])
    bodies.feed(b"a")
    assert not bodies.wanted and bodies.results() == {}
