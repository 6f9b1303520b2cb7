"""Postfix's test programs: smtp-sink, which takes all and counts, and smtp-source, which sends as fast as it can."""

from __future__ import annotations

import fcntl
import os
import re
import subprocess
import threading
import time
from collections.abc import Sequence
from pathlib import Path

from tests.peers.harness import need, ports
from tests.peers.harness.process import NotReady, listens, until

_PIPE_SIZE = 1 << 20
_COUNT = re.compile(rb"mesg=\s*(\d+)")


class Sink:
    """smtp-sink on 127.0.0.1:`port`, its counter read as it runs."""

    def __init__(self, *, port: int = 0, options: Sequence[str] = ()) -> None:
        self.port = port or ports.port()
        self._options = list(options)
        self._process: subprocess.Popen[bytes] | None = None
        self._reader: threading.Thread | None = None
        self.count = 0
        self.counted_at = 0.0
        """When the counter was last seen to change, time.monotonic()."""

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    def start(self) -> None:
        user = ["-u", "nobody"] if os.geteuid() == 0 else []
        self._process = subprocess.Popen(
            [need.program("smtp-sink"), *user, *self._options, "-c", f"127.0.0.1:{self.port}", "1024"],
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        )
        assert self._process.stdout is not None
        handle = self._process.stdout.fileno()
        fcntl.fcntl(handle, fcntl.F_SETPIPE_SZ, _PIPE_SIZE)
        os.set_blocking(handle, False)
        self._reader = threading.Thread(target=self._read, args=(handle, self._process), daemon=True)
        self._reader.start()
        until(lambda: listens("127.0.0.1", self.port), "smtp-sink")

    def _read(self, handle: int, process: subprocess.Popen[bytes]) -> None:
        """Takes the counter's lines in large pieces, seldom, so that reading costs next to nothing."""
        while True:
            try:
                octets = os.read(handle, _PIPE_SIZE)
            except BlockingIOError:
                octets = None
            if octets == b"":
                return
            if octets:
                found = _COUNT.findall(octets[-200:])
                if found and int(found[-1]) != self.count:
                    self.count = int(found[-1])
                    self.counted_at = time.monotonic()
            if process.poll() is not None and not octets:
                return
            time.sleep(0.01)

    def wait(self, count: int, within_s: float = 120.0) -> float:
        """Waits until it has `count` messages; the moment (time.monotonic()) at which that was seen."""
        try:
            until(lambda: self.count >= count, f"{count} messages in smtp-sink", within_s=within_s)
        except NotReady as error:
            raise NotReady(f"{error}; it has {self.count}") from None
        return self.counted_at

    def stop(self) -> None:
        if self._process is not None:
            self._process.terminate()
            self._process.wait(10)
            if self._reader is not None:
                self._reader.join(5)

    def __enter__(self) -> Sink:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()


def source_command(
    port: int, *, messages: int, sessions: int, size: int = 4096, recipients: int = 1, keep: bool = False,
    sender: str = "sender@source.test", recipient: str = "recipient@sink.test", options: Sequence[str] = (),
) -> list[str]:
    """A command line of smtp-source. `keep`: connections are kept (-d). `size` is that of the body."""
    command = [need.program("smtp-source"), "-s", str(sessions), "-m", str(messages), "-l", str(size)]
    if recipients > 1:
        command += ["-r", str(recipients)]
    if keep:
        command.append("-d")
    return [*command, "-f", sender, "-t", recipient, *options, f"127.0.0.1:{port}"]


def run_source(command: Sequence[str], *, log: Path | None = None, within_s: float = 300.0) -> float:
    """Runs smtp-source to its end; the seconds it took. Raises NotReady with what it said when it failed."""
    started = time.monotonic()
    ended = subprocess.run(command, capture_output=True, text=True, check=False, timeout=within_s)
    took_s = time.monotonic() - started
    said = ended.stdout + ended.stderr
    if log is not None:
        log.write_text(said)
    if ended.returncode != 0 or "fatal" in said or "error" in said:
        raise NotReady(f"{' '.join(command)} ended with {ended.returncode}:\n{said[-2000:]}")
    return took_s
