"""The link: frames arrive whole, in order, with their descriptors; the end of one side is the end."""

from __future__ import annotations

import asyncio
import os
import random
import socket
import struct
from typing import Any

import pytest

from postroad.node.frames import FromWorker, Misconfigured, Ready, TallyTold, encode, read_from_worker
from postroad.node.link import FRAME_MAX, Link


async def _pair() -> tuple[Link[FromWorker], Link[FromWorker], list[Any], list[str]]:
    loop = asyncio.get_running_loop()
    ours, theirs = socket.socketpair()
    received: list[Any] = []
    ended: list[str] = []
    one = Link(ours, loop, read_from_worker, lambda frame, fds: None, lambda why: ended.append(f"one {why}"))
    other = Link(
        theirs, loop, read_from_worker, lambda frame, fds: received.append((frame, fds)),
        lambda why: ended.append(f"other {why}"),
    )  # fmt: skip
    return one, other, received, ended


async def _until(condition: Any) -> None:
    async with asyncio.timeout(30):
        while not condition():
            await asyncio.sleep(0.001)


async def test_frames_of_any_size_in_order() -> None:
    one, other, received, ended = await _pair()
    frames: list[FromWorker] = [Ready(), Misconfigured("x" * 3_000_000), TallyTold(({"d": 1}, ()))]
    frames += [Misconfigured(str(number)) for number in range(2000)]
    for frame in frames:
        one.send(frame)
    await _until(lambda: len(received) == len(frames))
    assert [frame for frame, _ in received] == frames
    one.close()
    await _until(lambda: ended == ["one ", "other "])
    other.send(Ready())  # into the void


async def test_descriptors_come_with_their_frame() -> None:
    one, other, received, _ = await _pair()
    pipes = [os.pipe() for _ in range(3)]
    one.send(Ready())
    one.send(Misconfigured("two"), [pipes[0][1], pipes[1][1]])
    one.send(Misconfigured("y" * 1_000_000), [pipes[2][1]])
    one.send(Ready())
    await _until(lambda: len(received) == 4)
    assert [len(fds) for _, fds in received] == [0, 2, 1, 0]
    for (reader, writer), descriptor in zip(pipes, [fd for _, fds in received for fd in fds], strict=True):
        os.write(descriptor, b"through")
        assert os.read(reader, 10) == b"through"
        for each in (reader, writer, descriptor):
            os.close(each)
    one.close()
    other.close()


class Victim:
    """A link whose other end is a plain socket."""

    def __init__(self) -> None:
        self.ours, theirs = socket.socketpair()
        self.received: list[FromWorker] = []
        self.ended: list[str] = []
        loop = asyncio.get_running_loop()
        self.link = Link(
            theirs, loop, read_from_worker, lambda frame, fds: self.received.append(frame), self.ended.append
        )

    async def heard(self, octets: bytes) -> str:
        """Why the link has ended after these octets."""
        self.ours.sendall(octets)
        await _until(lambda: self.ended)
        self.ours.close()
        (why,) = self.ended
        return why


def _on_the_wire(body: bytes, descriptors: int = 0) -> bytes:
    return struct.pack("!IH", len(body), descriptors) + body


async def test_a_frame_cut_short_is_not_delivered() -> None:
    victim = Victim()
    victim.ours.sendall(_on_the_wire(b"abc" * 10)[:9])
    victim.ours.close()
    await _until(lambda: victim.ended == [""])
    assert victim.received == []


async def test_a_frame_beyond_the_limit_ends_the_link() -> None:
    assert str(FRAME_MAX) in await Victim().heard(b"\xff\xff\xff\xff\x00\x00")


@pytest.mark.parametrize(
    ("body", "text"),
    [
        (b"", "of 0 octets cannot be read"),
        (b"\x80\x04\x95", "cannot be read"),  # the beginning of a pickle
        (encode(Ready())[:-1], "cannot be read"),
        (b"\x81\xa5frame\xa5Start", "Invalid value 'Start'"),  # what only workers may hear
        (b"\x81\xa5frame\xa9TallyTold", "missing required field"),
        (b"\x82\xa5frame\xadMisconfigured\xa4text\x01", "Expected `str`, got `int`"),
        (b"\x91" * 100_000, "cannot be read"),
    ],
)
async def test_what_is_no_frame_ends_the_link_and_says_why(body: bytes, text: str) -> None:
    victim = Victim()
    good = _on_the_wire(encode(Ready()))
    assert text in await victim.heard(good + _on_the_wire(body) + good)
    assert victim.received == [Ready()], "nothing behind it is read"


async def test_descriptors_of_a_frame_that_cannot_be_read_are_closed() -> None:
    one, other, received, ended = await _pair()
    reader, writer = os.pipe()
    rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, struct.pack("i", writer))]
    one._sock.sendmsg([_on_the_wire(b"garbage", 1)], rights)
    os.close(writer)
    await _until(lambda: len(ended) == 2)
    assert os.read(reader, 1) == b"", "nobody has the other end any more"
    os.close(reader)
    assert received == [] and "cannot be read" in ended[0]
    other.close()


async def test_garbage_ends_the_link_and_nothing_else() -> None:
    chance, whole = random.Random(7), encode(TallyTold(({"s": 3}, ((1, {"f": 2}, {}),))))
    for _ in range(300):
        body = bytearray(whole)
        for _ in range(chance.randrange(1, 6)):
            body[chance.randrange(len(body))] = chance.randrange(256)
        victim = Victim()
        victim.ours.sendall(_on_the_wire(bytes(body)))
        victim.ours.shutdown(socket.SHUT_WR)
        await _until(lambda victim=victim: victim.ended)
        assert victim.received or "cannot be read" in victim.ended[0]
        victim.ours.close()
