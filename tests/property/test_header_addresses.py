"""Addresses in header fields: rewriting any field changes nothing but addr-specs, and never makes a short line long."""

from __future__ import annotations

import re

from hypothesis import given, settings
from hypothesis import strategies as st

from postroad.mail.address import Address
from postroad.mail.message import LINE_MAX
from postroad.protocol.header_addresses import FIELDS, replaced, spots
from postroad.protocol.mailboxes import mailboxes

NEW = Address("new.name", "elsewhere.example")
names = st.sampled_from(["From", "to", "Reply-To", "Resent-Cc", "CC ", "Subject", "X-To"])
addresses = st.sampled_from([
    "ada@host.example", '"a b"@host.example', "a . b @ host . example", "a(c)@host.example", "é@host.example", "root",
    "@r.example,@s:u@host.example", "a@[192.0.2.1]", "x..y@host.example", "a@b@c", '"a\\"b"@host.example',
])  # fmt: skip
bits = st.one_of(
    addresses,
    addresses.map(lambda each: f"<{each}>"),
    st.sampled_from([
        ",", ";", ":", "<", ">", "(", ")", '"', "\\", " ", "\r\n ", "\r\n\t", "Group:", "(c (d) \\) )", '"q, <u@v>"',
        "@", "=?utf-8?q?a=40b?=", "undisclosed-recipients:;", "[", "]", "\0", "x" * 500,
    ]),
    st.text(max_size=5).map(lambda text: text.replace("\r", "").replace("\n", "")),
)  # fmt: skip
fields = st.tuples(names, st.lists(bits, max_size=14)).map(
    lambda made: f"{made[0]}: {''.join(made[1])}".rstrip("\r\n \t").encode() + b"\r\n"
)
sections = st.lists(fields, max_size=4).map(b"".join)


def _rewritten(section: bytes, new: Address = NEW) -> bytes:
    return replaced(section, [(spot, new) for spot in spots(section)])


@settings(max_examples=1_000, deadline=None)
@given(sections)
def test_all_else_stays_octet_for_octet(section: bytes) -> None:
    found = spots(section)
    changed = _rewritten(section)
    written = str(NEW).encode()
    at = 0
    kept = []
    for spot in found:
        kept.append(section[at : spot.start])
        at = spot.end
    kept.append(section[at:])
    comments = [b"".join(spot.comments) for spot in found]
    expected = kept[0] + b"".join(written + said + rest for said, rest in zip(comments, kept[1:], strict=True))
    # A fold is put in front of what would make a line too long, and nothing else.
    assert re.sub(rb"\r\n ?", b"", changed) == re.sub(rb"\r\n ?", b"", expected)


@settings(max_examples=1_000, deadline=None)
@given(sections, st.integers(1, 300))
def test_lines_that_were_short_stay_short(section: bytes, length: int) -> None:
    changed = _rewritten(section, Address("n" * length, "elsewhere.example"))
    if max(map(len, section.split(b"\r\n"))) <= LINE_MAX:
        assert max(map(len, changed.split(b"\r\n"))) <= LINE_MAX
    lines = changed.split(b"\r\n")
    assert len([each for each in lines if each.isspace()]) <= len([x for x in section.split(b"\r\n") if x.isspace()])


@settings(max_examples=1_000, deadline=None)
@given(sections)
def test_a_reader_finds_the_new_addresses_in_the_places_of_the_old_ones(section: bytes) -> None:
    """`mailboxes` reads more generously: what it takes for no address stays, and so does what it finds beyond."""
    changed = _rewritten(section)
    assert len(spots(changed)) == len(spots(section))
    assert {spot.address for spot in spots(changed)} <= {NEW}
    for field in re.split(rb"\r\n(?![ \t])", changed):
        name, _, value = field.partition(b":")
        if name.strip().lower() in FIELDS and spots(field) and b"(" not in value:
            assert NEW in mailboxes(value.decode("utf-8", "surrogateescape"))


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=200))
def test_any_octets(octets: bytes) -> None:
    section = b"To: " + re.sub(rb"\r\n(?![ \t])|\r|\n", b"", octets) + b"\r\n"
    assert replaced(section, []) == section
    _rewritten(section)
