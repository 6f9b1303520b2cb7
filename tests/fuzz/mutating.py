"""A plain runner for where atheris is not installed: inputs that are kept, mutated by a seed; no coverage.

One seed replays a run. It knows the words of a target, so that it gets as deep as a dictionary takes it.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from dataclasses import dataclass

from tests.fuzz.choices import HEAD
from tests.fuzz.targets import Target

_MUTATIONS_MAX = 6
_SIZE_MAX = 4096


@dataclass(frozen=True)
class Failure:
    """An input that broke something, and how."""

    data: bytes
    error: Exception


def run(
    target: Target, seed: int, *, count: int | None = None, seconds: float | None = None, hasty: bool = False
) -> tuple[int, list[Failure]]:
    """How many inputs were tried, and what broke: the first input for each place that an error came from."""
    chance = random.Random(seed)
    pool = [data for _, data in target.inputs()] or [bytes(HEAD)]
    ends_at = None if seconds is None else time.monotonic() + seconds
    failures: dict[str, Failure] = {}
    tried = 0
    while (count is None or tried < count) and (ends_at is None or time.monotonic() < ends_at):
        data = mutated(chance, pool, target.words)
        tried += 1
        try:
            target.check(data, hasty=hasty)
        except Exception as error:
            failures.setdefault(_place(error), Failure(data, error))
    return tried, list(failures.values())


def _place(error: Exception) -> str:
    trace = error.__traceback__
    assert trace is not None
    while trace.tb_next is not None:
        trace = trace.tb_next
    return f"{type(error).__name__} {trace.tb_frame.f_code.co_filename}:{trace.tb_lineno}"


def mutated(chance: random.Random, pool: list[bytes], words: tuple[bytes, ...]) -> bytes:
    """One input of the pool, changed; now and then one made of words alone."""
    if chance.random() < 0.2:
        made = chance.randbytes(HEAD) + b"".join(chance.choice(words) for _ in range(chance.randrange(1, 16)))
        data = bytearray(made)
    else:
        data = bytearray(chance.choice(pool))
        for _ in range(chance.randrange(1, _MUTATIONS_MAX)):
            chance.choice(_MUTATIONS)(chance, data, words)
        if chance.random() < 0.5:
            other = chance.choice(pool)
            data[chance.randrange(len(data) + 1) :] = other[chance.randrange(min(len(other), HEAD), len(other) + 1) :]
        data[: min(HEAD, len(data))] = chance.randbytes(min(HEAD, len(data)))
    return bytes(data[:_SIZE_MAX])


def _put_word(chance: random.Random, data: bytearray, words: tuple[bytes, ...]) -> None:
    at = chance.randrange(len(data) + 1)
    data[at:at] = chance.choice(words)


def _replace(chance: random.Random, data: bytearray, words: tuple[bytes, ...]) -> None:
    at = chance.randrange(len(data) + 1)
    data[at : at + chance.randrange(8)] = chance.choice(words)


def _flip(chance: random.Random, data: bytearray, words: tuple[bytes, ...]) -> None:
    if data:
        data[chance.randrange(len(data))] = chance.randrange(256)


def _drop(chance: random.Random, data: bytearray, words: tuple[bytes, ...]) -> None:
    at = chance.randrange(len(data) + 1)
    del data[at : at + chance.randrange(1, 24)]


def _double(chance: random.Random, data: bytearray, words: tuple[bytes, ...]) -> None:
    at = chance.randrange(len(data) + 1)
    data[at:at] = data[at : at + chance.randrange(1, 80)]


def _move_lines(chance: random.Random, data: bytearray, words: tuple[bytes, ...]) -> None:
    lines = bytes(data).split(b"\r\n")
    lines.insert(chance.randrange(len(lines) + 1), lines.pop(chance.randrange(len(lines))))
    data[:] = b"\r\n".join(lines)


_Mutation = Callable[[random.Random, bytearray, tuple[bytes, ...]], None]
_MUTATIONS: tuple[_Mutation, ...] = (_put_word, _put_word, _replace, _flip, _drop, _double, _move_lines)
