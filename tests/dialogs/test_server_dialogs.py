"""Each transcript of tests/dialogs/server: whole groups at once, split at every octet, and over a real socket."""

from __future__ import annotations

import ssl
from pathlib import Path

import pytest
import trustme

from tests.dialogs.over_socket import SocketPlayer
from tests.dialogs.playing import Player, read

TRANSCRIPTS = sorted((Path(__file__).parent / "server").glob("*.txt"))


def test_there_are_transcripts() -> None:
    assert len(TRANSCRIPTS) >= 35


@pytest.fixture(scope="module")
def context() -> ssl.SSLContext:
    made = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    trustme.CA().issue_cert("localhost").configure_cert(made)
    return made


@pytest.mark.parametrize("split", [False, True], ids=["whole", "split"])
@pytest.mark.parametrize("path", TRANSCRIPTS, ids=lambda path: path.stem)
def test_dialog(path: Path, split: bool) -> None:
    Player(read(path), split=split).play()


@pytest.mark.parametrize("path", TRANSCRIPTS, ids=lambda path: path.stem)
def test_dialog_over_a_socket(path: Path, context: ssl.SSLContext) -> None:
    SocketPlayer(read(path), context).play()
