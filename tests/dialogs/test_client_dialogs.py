"""Transcripts of the sending side: the real opener and its courier over a socket, and a peer that plays the S: lines.

As in `playing`, but the C: lines are what our client must say, octet by octet, and ``A:`` gives what became of each
recipient. The peer reads all that stands before its next line, and nothing may come behind the last.
"""

from __future__ import annotations

import asyncio
import ssl
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import trustme

from postroad.mail.envelope import Body
from postroad.mail.route import Hop, Transport
from tests.unit.deliver.test_opener import Sender, carry
from tests.unit.deliver.world import job

TRANSCRIPTS = sorted((Path(__file__).parent / "client").glob("*.txt"))
CONTENT = b"Subject: x\r\n\r\n.dot\r\n"
PATIENCE_S = 20


class Peer:
    """Plays the server of one transcript."""

    def __init__(self, lines: list[str], context: ssl.SSLContext) -> None:
        self.lines = lines
        self.context = context
        self.said: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    async def __call__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            for line in self.lines:
                octets = f"{line[3:]}\r\n".encode()
                if line.startswith("S:"):
                    writer.write(octets)
                elif line.startswith("C:"):
                    came = await asyncio.wait_for(reader.readline(), PATIENCE_S)
                    assert came == octets, f"{came!r}, not {octets!r}"
                elif line.startswith("T:"):
                    await writer.start_tls(self.context)
            assert await asyncio.wait_for(reader.read(), PATIENCE_S) == b""
            self.said.set_result(None)
        except Exception as error:
            self.said.set_exception(error)
        finally:
            writer.close()


@pytest.mark.parametrize("path", TRANSCRIPTS, ids=lambda path: path.stem)
async def test_dialog_of_the_courier(path: Path) -> None:
    lines = path.read_text("utf-8").splitlines()
    (outcomes,) = (line[3:].split() for line in lines if line.startswith("A:"))
    body = Body.BINARY_MIME if "! binary" in lines else Body.SEVEN_BIT
    transport = Transport.LMTP if "! lmtp" in lines else Transport.SMTP
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    trustme.CA().issue_cert("localhost").configure_cert(context)
    peer = Peer(lines, context)
    server = await asyncio.start_server(peer, "127.0.0.1", 0)
    hop = Hop("localhost", "127.0.0.1", server.sockets[0].getsockname()[1])
    with ThreadPoolExecutor(1) as pool:
        courier = await Sender(pool).open(hop, transport=transport)
        attempts = await carry(courier, job(CONTENT, to=2, body=body))
        courier.close()
        await asyncio.wait_for(peer.said, PATIENCE_S)
    server.close()
    assert [attempt.outcome.value for attempt in attempts] == outcomes
