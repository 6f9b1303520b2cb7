"""Content that breaks off: in a chunk, under TLS or without; nothing of it is kept, and nothing of it is a command."""

from __future__ import annotations

import asyncio
import socket
import ssl

import pytest

from postroad.protocol.offer import Dialect
from postroad.receive.options import ListenerOptions, ListenerTls
from tests.unit.receive.fakes import House, opened
from tests.unit.receive.test_wire import Run, client_context, gone, read_until, run, serving

__all__ = ["run"]

CHUNK = b"BDAT 100 LAST\r\nSubject: half\r\n\r\nQUIT\r\nRSET\r\n"
OPEN = b"MAIL FROM:<a@b.test>\r\nRCPT TO:<ann@local.test>\r\n"


@pytest.mark.parametrize("how", ["close_notify", "closed", "reset"])
def test_tls_that_closes_within_a_chunk_leaves_nothing(run: Run, how: str) -> None:
    async def main() -> None:
        async with serving(ListenerOptions("smtps", tls=ListenerTls.IMPLICIT)) as (house, address):

            def client() -> None:
                plain = socket.create_connection(address)
                stream = client_context().wrap_socket(plain, server_hostname="mx.local.test")
                read_until(stream, b"\r\n")
                stream.sendall(b"EHLO client.test\r\n")
                read_until(stream, b"250 ")
                stream.sendall(OPEN + CHUNK)
                assert b"\r\n250 2.1.5" in b"\r\n" + read_until(stream, b"250 2.1.5 Recipient OK\r\n")
                if how == "close_notify":
                    try:
                        stream.unwrap().close()
                    except (OSError, ssl.SSLError):
                        stream.close()
                elif how == "reset":
                    stream.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
                    stream.close()
                else:
                    stream.close()

            await asyncio.to_thread(client)
            await gone(house)
            assert not house.spool.stored and not house.recorded and house.clients.sessions == 0

    run(main)


@pytest.mark.parametrize("dialect", Dialect)
@pytest.mark.parametrize("said", [CHUNK, b"BDAT 3\r\nabc", b"BDAT 3\r\nabcBDAT 0", b"DATA\r\n"])
def test_a_connection_that_ends_before_the_content_leaves_nothing(dialect: Dialect, said: bytes) -> None:
    house = House(dialect=dialect)
    client = opened(house, "LHLO a.test" if dialect is Dialect.LMTP else "EHLO a.test")
    client.say(OPEN)
    client.say(said)
    if said == b"DATA\r\n":
        client.say(b"Subject: half\r\n\r\n.\r")
    client.hang_up()
    assert not house.spool.stored and house.clients.sessions == 0
