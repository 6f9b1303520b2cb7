"""The reader of PROXY headers under arbitrary octets: it never raises, is bounded, and splits change nothing."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from postroad.protocol.proxy import HeaderReader
from tests.unit.protocol.proxying import SIGNATURE, raw, tls, tlv, v1, v2

starts = st.sampled_from([
    b"", v1(), v2(), v2(checked=True), v2("192.0.2.7", 9, tls(name=b"x", client=3), tlv(5, b"id")), SIGNATURE,
    b"PROXY ", b"PROXY TCP4 ", SIGNATURE + b"\x21\x11\0\x0c", raw(0x31, bytes(216)),
])
blocks = st.builds(raw, st.sampled_from([0, 0x11, 0x21, 0x31]), st.binary(max_size=300))
octets = st.one_of(st.builds(lambda start, rest: start + rest, starts, st.binary(max_size=60)), blocks)


@settings(max_examples=500, deadline=None)
@given(octets, st.integers(0, 400), st.integers(0, 3), st.integers(0, 255))
def test_never_raises_and_splits_change_nothing(wire: bytes, cut: int, flips: int, value: int) -> None:
    changed = bytearray(wire)
    for flip in range(min(flips, len(changed))):
        changed[(cut * (flip + 7)) % len(changed)] = value
    wire = bytes(changed)
    whole, parts, single = HeaderReader(size_max=536), HeaderReader(size_max=536), HeaderReader(size_max=536)
    taken = whole.take(wire)
    assert 0 <= taken <= len(wire)
    assert whole.result is not None or taken == len(wire) <= 536
    cut %= len(wire) + 1
    both = parts.take(wire[:cut])
    assert parts.result is not None or both == cut
    both += parts.take(wire[cut:])
    for at in range(len(wire)):
        single.take(wire[at : at + 1])
    assert type(parts.result) is type(single.result) is type(whole.result)
    if type(whole.result).__name__ == "Header":
        assert (parts.result, single.result, both) == (whole.result, whole.result, taken)
