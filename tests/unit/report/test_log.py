"""The log's batches, its limits, and where it goes."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
import socket
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from postroad.mail.event import Noted
from postroad.report import log as log_module
from postroad.report.log import Log, LogHandler
from postroad.report.options import LogFormat, LogLevel, LogOptions

NOW_US = 1_790_000_000_000_000


class Handle:
    def __init__(self) -> None:
        self.cancelled = False

    def cancel(self) -> None:
        self.cancelled = True


class Loop:
    """Timers that go off when told."""

    def __init__(self) -> None:
        self.timers: list[tuple[float, Callable[[], None], Handle]] = []

    def call_later(self, delay: float, callback: Callable[[], None], /) -> asyncio.TimerHandle:
        handle = Handle()
        self.timers.append((delay, callback, handle))
        return handle  # type: ignore[return-value]

    def turn(self) -> None:
        timers, self.timers = self.timers, []
        for _, callback, handle in timers:
            if not handle.cancelled:
                callback()


def noted(text: str, level: str = "info") -> Noted:
    return Noted(NOW_US, 0, level, text)


def log_to(path: Path, loop: Loop, **options: object) -> Log:
    return Log(LogOptions(path=str(path), **options), loop, lambda: NOW_US)  # type: ignore[arg-type]


def texts(path: Path) -> list[str]:
    return [line.rpartition(" ")[2] for line in path.read_text().splitlines()]


@pytest.fixture
def writes(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many octets each write took."""
    counts: list[int] = []
    real = os.write

    def write(handle: int, octets: bytes) -> int:
        counts.append(real(handle, octets))
        return counts[-1]

    monkeypatch.setattr(os, "write", write)
    return counts


def test_events_of_a_moment_go_out_together(tmp_path: Path, writes: list[int]) -> None:
    loop, path = Loop(), tmp_path / "log"
    log = log_to(path, loop, flush_s=0.05)
    log.write(noted("one"))
    log.write_all([noted("two"), noted("three")])
    log.write_all([])
    assert [delay for delay, *_ in loop.timers] == [0.05] and writes == []
    loop.turn()
    assert texts(path) == ["one", "two", "three"] and len(writes) == 1
    assert loop.timers == []
    log.write(noted("four"))
    log.close()
    assert texts(path)[-1] == "four"
    log.write(noted("five"))
    loop.turn()
    assert texts(path)[-1] == "four"


def test_many_events_do_not_wait(tmp_path: Path) -> None:
    loop, path = Loop(), tmp_path / "log"
    log = log_to(path, loop)
    for number in range(250):
        log.write(noted(str(number)))
    assert texts(path) == [str(number) for number in range(200)]
    loop.turn()
    assert texts(path) == [str(number) for number in range(250)]


def test_a_batch_is_written_in_pieces_of_its_limit(tmp_path: Path, writes: list[int]) -> None:
    log = log_to(tmp_path / "log", Loop(), batch_max=1000)
    log.write_all(noted("x" * 100) for _ in range(100))
    log.flush()
    assert 10 < len(writes) < 20 and max(writes) < 1200
    assert len(texts(tmp_path / "log")) == 100


@pytest.mark.parametrize(
    ("level", "shown"),
    [
        (LogLevel.DEBUG, ["d", "i", "w", "e"]),
        (LogLevel.INFO, ["i", "w", "e"]),
        (LogLevel.WARNING, ["w", "e"]),
        (LogLevel.ERROR, ["e"]),
    ],
)
def test_levels(tmp_path: Path, level: LogLevel, shown: list[str]) -> None:
    log = log_to(tmp_path / "log", Loop(), level=level)
    for name in ("debug", "info", "warning", "error"):
        log.write(noted(name[0], name))
    log.close()
    assert texts(tmp_path / "log") == shown


def test_json(tmp_path: Path) -> None:
    log = log_to(tmp_path / "log", Loop(), format=LogFormat.JSON)
    log.write_all([noted("one\n"), noted("two")])
    log.close()
    assert [json.loads(line)["text"] for line in (tmp_path / "log").read_text().splitlines()] == ["one\n", "two"]


@pytest.mark.parametrize("form", LogFormat)
def test_a_long_line_is_cut_and_stays_a_line(tmp_path: Path, form: LogFormat) -> None:
    log = log_to(tmp_path / "log", Loop(), format=form, line_max=200)
    log.write_all([noted("ü" * 300), noted("short")])
    log.close()
    first, second = (tmp_path / "log").read_bytes().splitlines()
    assert len(first) <= 200 and b"short" in second
    first.decode()
    if form is LogFormat.JSON:
        assert "too long" in json.loads(first)["text"]


def test_a_file_is_appended_to_and_reopened_by_name(tmp_path: Path) -> None:
    path, moved = tmp_path / "log", tmp_path / "log.1"
    path.write_text("old\n")
    log = log_to(path, Loop())
    log.write(noted("one"))
    log.flush()
    path.rename(moved)
    log.write(noted("two"))
    log.reopen()
    log.write(noted("three"))
    log.close()
    assert texts(moved) == ["old", "one", "two"] and texts(path) == ["three"]
    assert path.stat().st_mode & 0o777 & 0o037 == 0


def test_a_reopen_that_fails_keeps_the_old_file(tmp_path: Path) -> None:
    folder = tmp_path / "logs"
    folder.mkdir()
    log = log_to(folder / "log", Loop())
    folder.rename(tmp_path / "elsewhere")
    log.reopen()
    log.write(noted("after"))
    log.close()
    content = (tmp_path / "elsewhere" / "log").read_text()
    assert "cannot reopen the log" in content and content.endswith("after\n")


def test_a_file_that_cannot_be_opened_is_said_at_start(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        log_to(tmp_path / "no" / "log", Loop())


def _stuck(make: Callable[[], tuple[int, int]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody reads: nothing blocks, memory is bounded; then somebody reads: all lines are whole, the loss is told."""
    reader, writer = make()
    monkeypatch.setattr(log_module, "_standard_error", lambda: os.dup(writer))
    loop = Loop()
    log = Log(LogOptions(buffer_max=100_000), loop, lambda: NOW_US)
    for number in range(20_000):
        log.write(noted(f"{'x' * 50}-{number}"))
    assert log.dropped > 0 and len(loop.timers) == 1
    received = bytearray()
    os.set_blocking(reader, False)
    for _ in range(1000):
        with contextlib.suppress(BlockingIOError):
            received += os.read(reader, 1_000_000)
        if not loop.timers:
            break
        loop.turn()
    log.write(noted("the end"))
    log.close()
    received += os.read(reader, 1_000_000)
    os.close(reader)
    os.close(writer)
    lines = received.decode().splitlines()
    numbers = [int(line.rpartition("-")[2]) for line in lines if "xxx" in line]
    assert numbers == sorted(numbers) and all(line.startswith("2026-09-21T") for line in lines)
    assert len(numbers) + log.dropped == 20_000
    assert lines[-1].endswith("the end")
    told = [int(line.split()[3]) for line in lines if "could not be written: dropped" in line]
    assert sum(told) == log.dropped


def test_a_stuck_pipe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _stuck(os.pipe, tmp_path, monkeypatch)


def test_a_stuck_socket(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def pair() -> tuple[int, int]:
        one, other = socket.socketpair()
        return one.detach(), other.detach()

    _stuck(pair, tmp_path, monkeypatch)


def test_standard_error_of_our_own_does_not_block_and_leaves_the_others_be() -> None:
    reader, writer = os.pipe()
    saved = os.dup(2)
    try:
        os.dup2(writer, 2)
        own = log_module._standard_error()
        assert not os.get_blocking(own) and os.get_blocking(2)
    finally:
        os.dup2(saved, 2)
        for handle in (saved, reader, writer):
            os.close(handle)
    os.close(own)


def test_a_disk_that_fails_is_remembered_and_tried_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    loop = Loop()
    log = log_to(tmp_path / "log", loop)
    real, broken = os.write, True

    def write(handle: int, octets: bytes) -> int:
        if broken:
            raise OSError(28, "No space left on device")
        return real(handle, octets)

    monkeypatch.setattr(os, "write", write)
    log.write(noted("one"))
    loop.turn()
    assert "No space left" in log.failure and len(loop.timers) == 1
    broken = False
    loop.turn()
    assert log.failure == "" and texts(tmp_path / "log") == ["one"]


async def test_logging_goes_into_the_log_from_any_thread(tmp_path: Path) -> None:
    loop = asyncio.get_running_loop()
    log = Log(LogOptions(path=str(tmp_path / "log"), format=LogFormat.JSON), loop, lambda: NOW_US)
    logger = logging.Logger("test")
    logger.addHandler(LogHandler(log, loop, lambda: NOW_US))
    logger.warning("a %s\n", "word")
    try:
        raise ValueError("broken door")
    except ValueError:
        logger.exception("it failed")
    thread = threading.Thread(target=logger.error, args=("from a thread",))
    thread.start()
    thread.join()
    await asyncio.sleep(0)
    log.close()
    records = [json.loads(line) for line in (tmp_path / "log").read_text().splitlines()]
    assert [record["level"] for record in records] == ["warning", "error", "error"]
    assert records[0]["text"] == "test: a word\n"
    assert "Traceback" in records[1]["text"] and "ValueError: broken door" in records[1]["text"]
    assert records[2]["text"] == "test: from a thread"


def test_logging_after_the_loop_has_gone(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    loop = asyncio.new_event_loop()
    log = Log(LogOptions(path=str(tmp_path / "log")), loop, lambda: NOW_US)
    handler = LogHandler(log, loop, lambda: NOW_US)
    loop.close()
    handler.emit(logging.LogRecord("x", logging.ERROR, "", 1, "last words", None, None))
    assert "last words" in capfd.readouterr().err
