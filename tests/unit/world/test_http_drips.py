"""A server that drips its answer holds no thread for longer than the exchange may take."""

from __future__ import annotations

import asyncio
import contextlib
from concurrent.futures import ThreadPoolExecutor

from postroad.world.http import HttpRequest, HttpResponse, fetcher
from postroad.world.problem import Problem


async def _drip(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n")
    with contextlib.suppress(ConnectionError):
        while True:
            writer.write(b"x")
            await writer.drain()
            await asyncio.sleep(0.05)


async def _answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.readuntil(b"\r\n\r\n")
    writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
    await writer.drain()
    writer.close()


async def test_who_drips_is_given_up_and_the_thread_is_free_for_the_next() -> None:
    dripping = await asyncio.start_server(_drip, "127.0.0.1", 0)
    good = await asyncio.start_server(_answer, "127.0.0.1", 0)
    executor = ThreadPoolExecutor(1)
    fetch = fetcher(executor)
    slow, fast = (f"http://127.0.0.1:{each.sockets[0].getsockname()[1]}/" for each in (dripping, good))
    found = await fetch(HttpRequest(slow, b"", timeout_s=0.3))
    assert isinstance(found, Problem) and "did not answer within 0.3 s" in str(found)
    assert await asyncio.wait_for(fetch(HttpRequest(fast, b"", timeout_s=30.0)), 10) == HttpResponse(200, b"ok")
    executor.shutdown(wait=True)
    for each in (dripping, good):
        each.close()


async def test_what_nobody_waits_for_any_more_is_not_asked() -> None:
    asked = 0

    async def count(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal asked
        asked += 1
        writer.close()

    server = await asyncio.start_server(count, "127.0.0.1", 0)
    executor = ThreadPoolExecutor(1)
    held = asyncio.Event()
    loop = asyncio.get_running_loop()
    executor.submit(lambda: asyncio.run_coroutine_threadsafe(held.wait(), loop).result())  # the only thread is busy
    url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/"
    assert isinstance(await fetcher(executor)(HttpRequest(url, b"", timeout_s=0.1)), Problem)
    held.set()
    await loop.run_in_executor(executor, lambda: None)
    executor.shutdown(wait=True)
    assert asked == 0
    server.close()


async def test_a_url_that_cannot_be_asked_is_a_problem() -> None:
    """Such as those that strangers publish as places for reports."""
    fetch = fetcher(ThreadPoolExecutor(1))
    for url in ("https://a.example:99999/", "https://[a.example/"):
        found = await fetch(HttpRequest(url, b"", addresses=("192.0.2.1",)))
        assert isinstance(found, Problem) and url in found.where
