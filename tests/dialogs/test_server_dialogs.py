"""Each transcript of tests/dialogs/server: whole groups at once, split at every octet, over a real socket with the
machine alone behind it, and with the whole receive stack behind it.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import Iterator
from pathlib import Path

import pytest
import trustme
import uvloop

from postroad.protocol.extension import EXTENSIONS
from tests.dialogs.over_socket import SocketPlayer, talk
from tests.dialogs.playing import Player, Transcript, read
from tests.dialogs.real_server import RealServer, expected

TRANSCRIPTS = sorted((Path(__file__).parent / "server").glob("*.txt"))


def test_there_are_transcripts() -> None:
    assert len(TRANSCRIPTS) >= 35


def test_each_extension_has_a_transcript() -> None:
    """Announced, and each of its parameters and verbs said by a client."""
    lines = [line for path in TRANSCRIPTS for line in read(path).lines]
    announced = {text[4:].split()[0] for kind, text in lines if kind == "S:" and len(text) > 4}
    words = {word.partition("=")[0].upper() for kind, text in lines if kind == "C:" for word in text.split()}
    for extension in EXTENSIONS:
        parameters = {parameter.keyword for parameter in (*extension.mail, *extension.rcpt)}
        assert extension.keyword in announced, extension.keyword
        assert parameters | set(extension.verbs) <= words, extension.keyword


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


@pytest.fixture(scope="module")
def runner() -> Iterator[asyncio.Runner]:
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        yield runner


@pytest.fixture(scope="module")
def server(
    runner: asyncio.Runner, context: ssl.SSLContext, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[RealServer]:
    made = RealServer(tmp_path_factory.mktemp("server"), context, runner.get_loop())
    yield made
    made.close()


def test_few_transcripts_are_for_the_machine_only() -> None:
    assert sum(bool(read(path).machine_only) for path in TRANSCRIPTS) <= 1


@pytest.mark.parametrize("path", TRANSCRIPTS, ids=lambda path: path.stem)
def test_dialog_with_the_receive_stack(path: Path, runner: asyncio.Runner, server: RealServer) -> None:
    transcript = read(path)
    if not transcript.machine_only:
        runner.run(_real_dialog(transcript, server))
        assert not server.faults


async def _real_dialog(transcript: Transcript, server: RealServer) -> None:
    listener = server.listener(transcript)
    sock = socket.create_server(("127.0.0.1", 0))
    address = sock.getsockname()
    await listener.serve(sock)
    try:
        await asyncio.to_thread(talk, transcript, address, expected(transcript), implicit=transcript.offer.tls)
    finally:
        await listener.stop(10)
