"""Descriptors: the limit holds to the session, though it is seldom looked."""

from __future__ import annotations

from typing import Any

import pytest

from postroad.node.wiring.room import LOOKS_APART_MAX, DescriptorRoom


class Transport:
    """Of the lowest descriptor that is free."""

    def __init__(self, number: int | None) -> None:
        self.number, self.asked = number, 0

    def get_extra_info(self, name: str) -> Any:
        assert name == "socket"
        self.asked += 1
        return self if self.number is not None else None

    def fileno(self) -> int:
        assert self.number is not None
        return self.number


def admitted(room: DescriptorRoom, first: int) -> tuple[int, int]:
    """How many sessions are let in, each with the next descriptor, and how often was looked."""
    looks = 0
    for count in range(100_000):
        transport: Any = Transport(first + count)
        if not room(transport):
            return count, looks + transport.asked
        looks += transport.asked
    raise AssertionError("no end")


@pytest.mark.parametrize("files", [100, 1_000, 1_037, 65_536])
@pytest.mark.parametrize("reserved", [10, 512])
def test_the_limit_holds_to_the_session(files: int, reserved: int) -> None:
    last, looks = admitted(DescriptorRoom(files, reserved), 20)
    assert last == files - min(reserved, files // 2) - 20
    assert looks < last // LOOKS_APART_MAX + 150


def test_what_else_takes_descriptors_meanwhile_is_seen_in_time() -> None:
    """Between two looks an eighth of what is left may go: seven eighths are for others."""
    room = DescriptorRoom(1_000, 100)
    seen: Any = Transport(500)
    assert room(seen)
    unlooked = 0
    while True:
        later: Any = Transport(899)
        assert room(later)
        if later.asked:
            break
        unlooked += 1
    assert unlooked == 50
    full: Any = Transport(900)
    assert not room(full)


def test_a_connection_without_a_descriptor_is_let_in() -> None:
    unknown: Any = Transport(None)
    room = DescriptorRoom(100, 10)
    assert room(unknown) and room(unknown) and unknown.asked == 2


def test_a_reload_changes_what_is_reserved() -> None:
    room = DescriptorRoom(100, 10)
    transport: Any = Transport(85)
    assert room(transport)
    room.take(30)
    assert not room(transport)
