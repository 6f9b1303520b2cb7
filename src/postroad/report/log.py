"""The log: every event one line, written in batches to a file or to standard error.

What always holds: events come out in the order in which they went in; a file gets a batch by one `write` that appends,
a pipe gets whole lines, so that lines of several workers do not mix. A pipe that nobody reads does not block the event
loop, and memory is bounded: events that do not fit are dropped and counted, and the count is logged as soon as there is
room.

How it fails: an error of the disk is remembered in `failure` and tried again with the next batch; nothing is raised.
The log is for people who watch; events that must not be lost are in the spool's journal and in the history.

Not here: what a line looks like (`report.line`).
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import select
import socket
import stat
import threading
import traceback
from collections.abc import Callable, Iterable
from typing import Final, Protocol

from postroad.mail.event import Event, Noted
from postroad.mail.numbers import counted
from postroad.report.line import LEVELS, human_line, json_line, rank_of
from postroad.report.merging import merged
from postroad.report.options import LogFormat, LogOptions

_EVENTS_MAX: Final = 200  # events that wait to be formatted; a batch is written earlier when they are many
_PIPE_BUF: Final = select.PIPE_BUF  # a pipe that polls writable takes so much at once, whole (POSIX write)
_CUT: Final = b"..."


class Timer(Protocol):
    """What the log needs of an event loop."""

    def call_later(self, delay: float, callback: Callable[[], None], /) -> asyncio.TimerHandle: ...


class Log:
    """See the module. Everything is called on the loop, but for `LogHandler`."""

    def __init__(self, options: LogOptions, loop: Timer, now_us: Callable[[], int]) -> None:
        """Opens the file. Raises OSError if that fails: at start it is a mistake in the configuration."""
        self.dropped = 0  # lines dropped since the start
        self.failure = ""  # why the last batch could not be written, "" when it could
        self._options = options
        self._loop = loop
        self._now_us = now_us
        self._line = json_line if options.format is LogFormat.JSON else human_line
        self._rank = LEVELS.index(options.level.value)
        self._pending: list[Event] = []
        self._waiting = bytearray()  # formatted, not yet written: more than a batch only while writing is stuck
        self._timer: asyncio.TimerHandle | None = None
        self._dropped_untold = 0
        self._sink: _Sink | None = _Sink(options.path)

    def write(self, event: Event) -> None:
        """One event. Cheap: it is formatted with its batch."""
        self._pending.append(event)
        if len(self._pending) >= _EVENTS_MAX:
            self.flush()
        elif self._timer is None:
            self._timer = self._loop.call_later(self._options.flush_s, self._fire)

    def write_all(self, events: Iterable[Event]) -> None:
        """Several events, in order."""
        self._pending.extend(events)
        if len(self._pending) >= _EVENTS_MAX:
            self.flush()
        elif self._timer is None and self._pending:
            self._timer = self._loop.call_later(self._options.flush_s, self._fire)

    def flush(self) -> None:
        """Writes what waits, as far as that does not block."""
        self._format()
        self._drain()
        if self._waiting and self._timer is None:
            self._timer = self._loop.call_later(self._options.flush_s, self._fire)

    def reopen(self) -> None:
        """Opens the file by its name again, after it was moved away (SIGHUP). Keeps the old one if that fails."""
        self.flush()
        try:
            sink = _Sink(self._options.path)
        except OSError as error:
            self.write(Noted(self._now_us(), 0, "error", f"cannot reopen the log {self._options.path}: {error}"))
            return
        if self._sink is not None:
            self._sink.close()
        self._sink = sink

    def take(self, options: LogOptions) -> None:
        """Settings: goes on with them, and in the file of that name as it is now (SIGHUP)."""
        self.flush()
        self._options = options
        self._line = json_line if options.format is LogFormat.JSON else human_line
        self._rank = LEVELS.index(options.level.value)
        self.reopen()

    def close(self) -> None:
        """Writes what can be written at once, and ends. What is written later goes nowhere."""
        if self._timer is not None:
            self._timer.cancel()
        self._format()
        self._drain()
        if self._sink is not None:
            self._sink.close()
        self._sink = None

    def _fire(self) -> None:
        self._timer = None
        self.flush()

    def _format(self) -> None:
        pending, self._pending = self._pending, []
        if self._dropped_untold and len(self._waiting) < self._options.buffer_max // 2:
            text = f"{counted(self._dropped_untold, 'line of the log')} could not be written: dropped"
            self._dropped_untold = 0
            pending.insert(0, Noted(self._now_us(), 0, "warning", text))
        line_max, batch_max, buffer_max = self._options.line_max, self._options.batch_max, self._options.buffer_max
        waiting, line_of, rank = self._waiting, self._line, self._rank
        for event in merged(pending):
            matters = rank_of(event)
            if matters < rank:
                continue
            if len(waiting) >= batch_max:
                self._drain()
            line = line_of(event, matters)
            if len(line) > line_max:
                line = self._cut(event, line)
            if len(waiting) + len(line) >= buffer_max:
                self.dropped += 1
                self._dropped_untold += 1
                continue
            waiting += line
            waiting += b"\n"

    def _cut(self, event: Event, line: bytes) -> bytes:
        """A line within its limit; in JSON a smaller object, so that each line stays valid."""
        line_max = self._options.line_max
        if self._options.format is LogFormat.HUMAN:
            return line[: line_max - len(_CUT)].decode("utf-8", "ignore").encode() + _CUT
        kind = event.__struct_config__.tag
        return json_line(Noted(event.at_us, event.id, "warning", f"an event {kind} is too long to log"))

    def _drain(self) -> None:
        if self._sink is None:
            self._waiting.clear()
            return
        try:
            while self._waiting:
                count = self._sink.write(self._waiting)
                if not count:
                    return
                del self._waiting[:count]
            self.failure = ""
        except OSError as error:
            self.failure = f"cannot write the log: {error.strerror or error}"


class _Sink:
    """What is written to. `write` never blocks on anything but a disk."""

    def __init__(self, path: str) -> None:
        """Raises OSError."""
        self._socket: socket.socket | None = None
        if path:
            flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NOCTTY | os.O_NONBLOCK
            self._handle = os.open(path, flags, 0o640)
        else:
            self._handle = _standard_error()
        mode = os.fstat(self._handle).st_mode
        self._whole = stat.S_ISREG(mode)
        if stat.S_ISSOCK(mode):  # systemd's journal
            self._socket = socket.socket(fileno=self._handle)

    def write(self, octets: bytearray) -> int:
        """Writes what can be written now; 0 if nothing can. Raises OSError.

        A file takes all at once. Everything else gets no more than a pipe takes whole, cut behind a line if there
        is one: the lines of several processes then do not mix unless they are longer than that.
        """
        if self._whole:
            return os.write(self._handle, octets)
        piece = bytes(octets[: octets.rfind(b"\n", 0, _PIPE_BUF) + 1 or _PIPE_BUF])
        try:
            if self._socket is not None:
                return self._socket.send(piece, socket.MSG_DONTWAIT)
            if not self._has_room():
                return 0
            return os.write(self._handle, piece)
        except BlockingIOError:
            return 0

    def _has_room(self) -> bool:
        """For a description that is shared with processes that expect it to block, and so is left blocking."""
        poll = select.poll()
        poll.register(self._handle, select.POLLOUT)
        return bool(poll.poll(0))  # also if the reader is gone: the write then says so

    def close(self) -> None:
        with contextlib.suppress(OSError):
            if self._socket is not None:
                self._socket.close()
            else:
                os.close(self._handle)


def _standard_error() -> int:
    """A descriptor of our own for standard error: one that does not block if the kernel lets us open it anew."""
    mode = os.fstat(2).st_mode
    if stat.S_ISFIFO(mode) or stat.S_ISCHR(mode):
        try:
            return os.open("/proc/self/fd/2", os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC | os.O_NOCTTY | os.O_NONBLOCK)
        except OSError:  # no /proc, or it belongs to the user that we were before
            pass
    return os.dup(2)


class LogHandler(logging.Handler):
    """Sends what goes through the standard library's logging (asyncio's, uvloop's and our own exceptions) to the log.

    May be called from any thread. `loop` brings the record to the loop's thread; without a loop that runs, the record
    goes to standard error at once, as the last thing that is left.
    """

    def __init__(self, log: Log, loop: asyncio.AbstractEventLoop, now_us: Callable[[], int]) -> None:
        super().__init__()
        self._log = log
        self._loop = loop
        self._now_us = now_us
        self._thread = threading.get_ident()

    def emit(self, record: logging.LogRecord) -> None:
        text = f"{record.name}: {record.getMessage()}"
        if record.exc_info and record.exc_info[1] is not None:
            text = f"{text}: {''.join(traceback.format_exception(record.exc_info[1])).strip()}"
        event = Noted(self._now_us(), 0, _level_name(record.levelno), text)
        try:
            if threading.get_ident() == self._thread:
                self._log.write(event)
            else:
                self._loop.call_soon_threadsafe(self._log.write, event)
        except RuntimeError:  # the loop is closed
            with contextlib.suppress(OSError):
                os.write(2, human_line(event) + b"\n")


def _level_name(number: int) -> str:
    if number >= logging.ERROR:
        return "error"
    if number >= logging.WARNING:
        return "warning"
    return "info" if number >= logging.INFO else "debug"
