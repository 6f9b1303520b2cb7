"""The targets of tests/fuzz with inputs that hypothesis makes of their words, and makes small where one breaks them.

Never raise, where the input is split changes nothing, one reply per command, content ends at its true end, who counts
as relayed was accepted, what is read and written is read as the same: see `tests.fuzz.server`, `client`, `grammar` and
`bdat`.
"""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.fuzz.choices import HEAD, written
from tests.fuzz.targets import TARGETS


@pytest.mark.parametrize("name", TARGETS)
def test_target(name: str) -> None:
    target = TARGETS[name]
    pieces = st.lists(st.one_of(st.sampled_from(target.words), st.binary(max_size=16)), max_size=12)
    dialogs = st.sampled_from([b"", *(data[HEAD:] for _, data in target.inputs())])  # something is put into one of them

    @settings(max_examples=120, deadline=None, suppress_health_check=[HealthCheck.too_slow])
    @given(st.integers(0, 255), st.integers(1, 256), st.integers(0, 65_535), dialogs, st.integers(0, 500), pieces)
    def breaks_nothing(mode: int, stride: int, cut: int, dialog: bytes, at: int, put: list[bytes]) -> None:
        target.check(written(mode, stride, cut, dialog[:at] + b"".join(put) + dialog[at:]))

    breaks_nothing()
