"""The node's secret: made once, the same ever after, for its owner only."""

from __future__ import annotations

import random
import stat
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from postroad.node.wiring.secret import NAME, SIZE, node_secret


def test_it_stays(tmp_path: Path) -> None:
    made = node_secret(tmp_path / "state", random.Random(1))
    assert len(made) == SIZE and node_secret(tmp_path / "state", random.Random(2)) == made
    assert stat.S_IMODE((tmp_path / "state" / NAME).stat().st_mode) == 0o600
    assert [each.name for each in (tmp_path / "state").iterdir()] == [NAME]


def test_half_a_secret_is_none(tmp_path: Path) -> None:
    (tmp_path / NAME).write_bytes(b"half")
    made = node_secret(tmp_path, random.Random(1))
    assert len(made) == SIZE and node_secret(tmp_path, random.Random(2)) == made


def test_what_was_left_of_a_crash_is_no_obstacle(tmp_path: Path) -> None:
    import os

    (tmp_path / f".{NAME}.{os.getpid()}").write_bytes(b"x")
    assert len(node_secret(tmp_path, random.Random(1))) == SIZE
    with ThreadPoolExecutor(1) as pool:
        assert pool.submit(node_secret, tmp_path, random.Random(3)).result() == node_secret(tmp_path, random.Random(4))
