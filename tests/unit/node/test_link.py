"""The link: frames arrive whole, in order, with their descriptors; the end of one side is the end."""

from __future__ import annotations

import asyncio
import os
import socket
from typing import Any

from postroad.node.link import Link


async def _pair() -> tuple[Link, Link, list[Any], list[str]]:
    loop = asyncio.get_running_loop()
    ours, theirs = socket.socketpair()
    received: list[Any] = []
    ended: list[str] = []
    one = Link(ours, loop, lambda frame, fds: None, lambda: ended.append("one"))
    other = Link(theirs, loop, lambda frame, fds: received.append((frame, fds)), lambda: ended.append("other"))
    return one, other, received, ended


async def _until(condition: Any) -> None:
    async with asyncio.timeout(5):
        while not condition():
            await asyncio.sleep(0.001)


async def test_frames_of_any_size_in_order() -> None:
    one, other, received, ended = await _pair()
    frames = [("a",), ("big", b"x" * 3_000_000), ("c", {"d": [1, 2]}), *(("n", n) for n in range(2000))]
    for frame in frames:
        one.send(frame)
    await _until(lambda: len(received) == len(frames))
    assert [frame for frame, _ in received] == frames
    one.close()
    await _until(lambda: ended == ["one", "other"])
    other.send(("into the void",))


async def test_descriptors_come_with_their_frame() -> None:
    one, other, received, _ = await _pair()
    pipes = [os.pipe() for _ in range(3)]
    one.send(("plain",))
    one.send(("two", 2), [pipes[0][1], pipes[1][1]])
    one.send(("big", b"y" * 1_000_000), [pipes[2][1]])
    one.send(("plain again",))
    await _until(lambda: len(received) == 4)
    assert [len(fds) for _, fds in received] == [0, 2, 1, 0]
    for (reader, writer), descriptor in zip(pipes, [fd for _, fds in received for fd in fds], strict=True):
        os.write(descriptor, b"through")
        assert os.read(reader, 10) == b"through"
        for each in (reader, writer, descriptor):
            os.close(each)
    one.close()
    other.close()


async def test_a_frame_cut_short_is_not_delivered() -> None:
    loop = asyncio.get_running_loop()
    ours, theirs = socket.socketpair()
    received: list[Any] = []
    ended: list[bool] = []
    Link(theirs, loop, lambda frame, fds: received.append(frame), lambda: ended.append(True))
    ours.sendall(b"\x00\x00\x00\x10\x00\x00abc")
    ours.close()
    await _until(lambda: ended == [True])
    assert received == []


async def test_a_frame_beyond_the_limit_ends_the_link() -> None:
    loop = asyncio.get_running_loop()
    ours, theirs = socket.socketpair()
    ended: list[bool] = []
    Link(theirs, loop, lambda frame, fds: None, lambda: ended.append(True))
    ours.sendall(b"\xff\xff\xff\xff\x00\x00")
    await _until(lambda: ended == [True])
    ours.close()
