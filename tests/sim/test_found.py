"""What the simulator has found, kept: each fault in a run that is made for it."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from postroad.deliver.stream import ContentStream, Piece
from postroad.mail.envelope import Envelope
from tests.sim import plan as plans
from tests.sim.bites import seeds_with
from tests.sim.house import simulate

pytestmark = pytest.mark.slow


class _AtOnce:
    def __init__(self, value: Any) -> None:
        self._value = value

    def add_done_callback(self, call: Any) -> None:
        call(self)

    def result(self) -> Any:
        return self._value


class _Loop:
    def run_in_executor(self, pool: Any, work: Any) -> _AtOnce:
        return _AtOnce(work())


@pytest.mark.parametrize("octets", [1, 4096, 4097, 8192])
def test_the_last_piece_of_a_chunk_says_so(octets: int) -> None:
    """The remote may answer its last octet at once; a 250 that came before we knew that all was sent led to a
    duplicate."""
    loop: Any = _Loop()
    pool: Any = object()
    envelope = Envelope(1, None, (), octets, 0)
    stream = ContentStream(envelope, b"x" * octets, stuffed=False, piece_size=4096, pool=pool, loop=loop)
    got: list[Piece] = []
    while not (got and got[-1].last):
        stream.fetch(got.append)
    assert sum(len(piece.octets) for piece in got) == octets
    assert got[-1].octets, "a piece of its own told the end, when the remote had all of it already"


def _with(seed: int, **settings: Any) -> plans.Plan:
    """The plan of a seed without faults, with these lines in its settings."""
    made = plans.plan(seed, days=0.2)
    lines = [f"{line.split(' = ')[0]} = {settings.get(line.split(' = ')[0], line.partition(' = ')[2])}"
             if " = " in line else line for line in made.settings]  # fmt: skip
    return dataclasses.replace(
        made, settings=tuple(lines), messages=12, trouble=0.0, dns=False, network=0.0, crashes=0, power_cuts=0,
        restarts=0, disk=0, reloads=0, operators=0, jumps=0, tls=False,
    )


@pytest.mark.parametrize(
    "settings",
    [
        # A connection that is not kept at all went while the content was read from the disk, again and again; and its
        # timer fired without a pause.
        {"idle_s": 0, "memory_max": 0},
        {"idle_s": 0, "inline_max": 500, "memory_content_max": 500},
        # Next to no room in memory.
        {"messages_max": 1, "ready_max": 1, "load_max": 1},
        # Large content in pieces by BDAT.
        {"bdat_size_min": 0, "whole_max": 300, "memory_max": 0},
    ],
    ids=lambda settings: ",".join(settings),
)
def test_edges_of_the_settings(settings: dict[str, int]) -> None:
    for seed in (1, 5):
        house = simulate(seed, made=_with(seed, **settings))
        assert house.ledger.faults == []
        assert house.ledger.deliveries


def test_a_seed_gives_one_run() -> None:
    made = _with(3)
    one, other = simulate(3, made=made), simulate(3, made=made)
    assert one.digest == other.digest
    assert one.ledger.deliveries and len(one.ledger.deliveries) == len(other.ledger.deliveries)


def test_a_transport_map_is_mended_before_the_disk_is_full() -> None:
    """The map led a domain to a transport that means nothing, so that its mail waited, and the run blamed the disk."""
    assert not simulate(8110).ledger.faults


def test_a_question_that_nobody_waits_for_keeps_its_permit() -> None:
    """It gave it back while its connection was still being opened: the next hop got more connections than its limit."""
    for made in seeds_with(range(7, 9), "verified"):
        assert not simulate(made.seed, made=made).ledger.faults
