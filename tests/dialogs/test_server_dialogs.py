"""Each transcript of tests/dialogs/server, whole groups at once and split at every octet."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.dialogs.playing import Player, read

TRANSCRIPTS = sorted((Path(__file__).parent / "server").glob("*.txt"))


def test_there_are_transcripts() -> None:
    assert len(TRANSCRIPTS) >= 25


@pytest.mark.parametrize("split", [False, True], ids=["whole", "split"])
@pytest.mark.parametrize("path", TRANSCRIPTS, ids=lambda path: path.stem)
def test_dialog(path: Path, split: bool) -> None:
    Player(read(path), split=split).play()
