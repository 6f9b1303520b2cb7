"""Handshakes take turns: one in each turn of the loop, in order, and whoever gives up holds up nobody."""

from __future__ import annotations

import asyncio

import pytest

from postroad.world.handshakes import HandshakeSlots, is_whole

HELLO = b"\x16\x03\x01\x00\x04abcd"


@pytest.mark.parametrize("end", range(len(HELLO)))
def test_a_hello_is_whole_with_its_last_octet(end: int) -> None:
    assert not is_whole(HELLO[:end])
    assert is_whole(HELLO) and is_whole(HELLO + b"more")


@pytest.mark.parametrize("octets", [b"EHLO a\r\n", b"\x15", b"\x16\x03\x01\xff\xff"])
def test_what_can_be_no_handshake_is_not_waited_for(octets: bytes) -> None:
    assert is_whole(octets)


async def test_other_work_has_its_turn_between_two_handshakes() -> None:
    slots, log = HandshakeSlots(), list[str]()
    loop = asyncio.get_running_loop()

    async def handshake(name: str) -> None:
        await slots.turn()
        log.append(name)
        loop.call_soon(log.append, f"work after {name}")

    await asyncio.gather(*(handshake(name) for name in "abc"))
    await asyncio.sleep(0)
    assert log == ["a", "work after a", "b", "work after b", "c", "work after c"]


async def test_who_gives_up_while_waiting_holds_up_nobody() -> None:
    slots, log = HandshakeSlots(), list[str]()

    async def handshake(name: str) -> None:
        await slots.turn()
        log.append(name)

    tasks = [asyncio.ensure_future(handshake(name)) for name in "abc"]
    await asyncio.sleep(0)
    tasks[1].cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    assert log == ["a", "c"]
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    await slots.turn()  # nobody waits: at once
