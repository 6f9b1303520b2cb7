"""Each transcript of tests/dialogs/client (see `sending`): in memory, whole and by octets, and over a socket."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from postroad.protocol.extension import EXTENSIONS
from tests.dialogs.sending import over_memory, over_socket, read

TRANSCRIPTS = sorted((Path(__file__).parent / "client").glob("*.txt"))


@pytest.fixture
def pool() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(1) as executor:
        yield executor


@pytest.mark.parametrize("split", [False, True], ids=["whole", "split"])
@pytest.mark.parametrize("path", TRANSCRIPTS, ids=lambda path: path.stem)
async def test_dialog_of_the_courier(path: Path, split: bool, pool: ThreadPoolExecutor, tmp_path: Path) -> None:
    await over_memory(read(path), pool, tmp_path, split=split)


@pytest.mark.parametrize("path", TRANSCRIPTS, ids=lambda path: path.stem)
async def test_dialog_of_the_courier_over_a_socket(path: Path, pool: ThreadPoolExecutor, tmp_path: Path) -> None:
    await over_socket(read(path), pool, tmp_path)


def test_each_extension_that_our_client_uses_has_a_transcript() -> None:
    """Offered by a remote, and each of its parameters and verbs said, but for what the table says is not used."""
    transcripts = [read(path) for path in TRANSCRIPTS]
    offered = {line[4:].split()[0] for transcript in transcripts for line in transcript.said("S:") if len(line) > 4}
    said = [line for transcript in transcripts for line in transcript.said("C:")]
    words = {word.partition("=")[0] for line in said for word in line.split()}
    for extension in EXTENSIONS:
        if extension.client == "not used":
            continue
        assert extension.keyword in offered, extension.keyword
        used = not extension.client.startswith("not used")
        parameters = {parameter.keyword for parameter in (*extension.mail, *extension.rcpt)}
        assert (parameters <= words) if used else not (parameters & words), extension.keyword
        assert set(extension.verbs) <= words, extension.keyword
