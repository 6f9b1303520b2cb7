"""Runs programs: without a shell, with a clean environment, bounded in time and output.

What always holds: a command is a list of words that no shell ever sees (CVE-2020-7247, CVE-2019-10149); the program
gets only the environment that is given, only its three descriptors, and a session and process group of its own. When
`run` returns, the program has ended. If its time is over, its whole group is ended with it. The first `output_max`
octets of its output are kept; the rest is read and dropped, so that a full pipe never stops the program.

A program may end and leave processes behind that go on with its work: a list server takes a message, says 0, and sends
it to the members afterwards. So nothing of a program that has ended by itself is killed while it has time. `run` waits
until nobody holds its output open any more, as Postfix does; processes that have closed it are not waited for.

The loop's own `subprocess_exec` is not used, because uvloop's passes inheritable descriptors (our listening sockets!)
to the program and cuts words at a NUL.

How it fails: the ProgramResult says what happened, also if the program could not be started, failed, or was killed. If
a task is cancelled while its program runs, the program is ended first, as if its time were over, and the task gets the
result, too: so it is known whether the program has done its work.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO, Final, Protocol

import msgspec

# Between asking a group to end and killing it; and for the output of a group that was killed.
_GRACE_S: Final = 2.0


class ProgramResult(msgspec.Struct, frozen=True):
    """How a program ended. `exit_code` is -1 if it did not exit by itself: killed by `signal_number`, or never
    started (`error` says why). `output`: its standard output and error as they came. `broken_off`: its caller was
    cancelled, so it was asked to end; its exit code says whether it was done before."""

    exit_code: int
    signal_number: int = 0
    output: bytes = b""
    timed_out: bool = False
    error: str = ""
    broken_off: bool = False


class Programs(Protocol):
    async def run(
        self,
        command: Sequence[str],
        *,
        stdin: bytes | Path = b"",
        environment: Mapping[str, str],
        directory: str = "/",
        timeout_s: float,
        output_max: int = 65_536,
    ) -> ProgramResult:
        """Run `command` (its first word a path) to its end. `stdin`: octets, or a file that is handed over open."""
        ...


class SystemPrograms:
    """The machine's programs, on the running loop."""

    async def run(
        self,
        command: Sequence[str],
        *,
        stdin: bytes | Path = b"",
        environment: Mapping[str, str],
        directory: str = "/",
        timeout_s: float,
        output_max: int = 65_536,
    ) -> ProgramResult:
        try:
            process = _start(command, stdin, environment, directory)
        except (OSError, ValueError) as error:  # ValueError: a NUL in a word
            text = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
            return ProgramResult(-1, error=f"{command[0] if command else '(no command)'}: {text}")
        running = _Running(asyncio.get_running_loop(), process, stdin if isinstance(stdin, bytes) else b"", output_max)
        try:
            return await running.end(timeout_s)
        except asyncio.CancelledError:
            ended = running.ended() if running.has_exited else await running.end(0.0)
            return msgspec.structs.replace(ended, timed_out=False, broken_off=True)
        finally:
            running.finish()


def _start(
    command: Sequence[str], stdin: bytes | Path, environment: Mapping[str, str], directory: str
) -> subprocess.Popen[bytes]:
    with contextlib.ExitStack() as opened:
        given: IO[bytes] | int = subprocess.PIPE
        if isinstance(stdin, Path):
            given = opened.enter_context(open(stdin, "rb"))
        elif not stdin:
            given = subprocess.DEVNULL
        return subprocess.Popen(
            list(command),
            bufsize=0,
            stdin=given,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env=dict(environment),
            cwd=directory,
            start_new_session=True,
        )


class _Running:
    """One program from its start to its end, driven by the loop.

    Its first process stays unreaped as long as its group may be killed: so long its number, which is the group's,
    cannot be given to anybody else.
    """

    def __init__(
        self, loop: asyncio.AbstractEventLoop, process: subprocess.Popen[bytes], octets: bytes, output_max: int
    ) -> None:
        self._loop = loop
        self._process = process
        self._output = bytearray()
        self._output_max = output_max
        self._exited: asyncio.Future[None] = loop.create_future()
        self._silent: asyncio.Future[None] = loop.create_future()  # its output is at an end
        self._unwritten = memoryview(octets)
        self._watch()
        assert process.stdout is not None
        os.set_blocking(process.stdout.fileno(), False)
        loop.add_reader(process.stdout.fileno(), self._readable)
        if process.stdin is not None:
            os.set_blocking(process.stdin.fileno(), False)
            loop.add_writer(process.stdin.fileno(), self._writable)

    async def end(self, timeout_s: float) -> ProgramResult:
        """Wait for its end, or bring it about."""
        begun_s = self._loop.time()
        timed_out = not await _within(self._exited, timeout_s)
        if timed_out:
            self._kill(signal.SIGTERM)
            await _within(self._exited, _GRACE_S)
            self._kill(signal.SIGKILL)
            await self._exited
        elif not await _within(self._silent, max(0.0, timeout_s - (self._loop.time() - begun_s))):
            self._kill(signal.SIGKILL)  # what it left running holds its output open, and its time is over
            await _within(self._silent, _GRACE_S)
        return self.ended(timed_out=timed_out)

    @property
    def has_exited(self) -> bool:
        return self._exited.done()

    def ended(self, *, timed_out: bool = False) -> ProgramResult:
        """How it ended, after its first process has exited."""
        self.finish()
        code = self._process.returncode
        output = bytes(self._output)
        if code < 0:
            return ProgramResult(-1, -code, output, timed_out)
        return ProgramResult(code, 0, output, timed_out)

    def finish(self) -> None:
        """Leave no pipe behind, and no process of a group whose first one has not exited. To be called more than once
        does no harm."""
        self._close_input()
        self._close_output()
        if self._process.returncode is None:
            if self._exited.done():
                self._process.wait()  # it has exited: this only reaps it
            else:
                self._kill(signal.SIGKILL)
                self._exited.add_done_callback(lambda _: self._process.wait())

    def _watch(self) -> None:
        """Have `_exited` done when the first process exits, without reaping it."""
        if hasattr(os, "pidfd_open"):
            descriptor = os.pidfd_open(self._process.pid)
            self._loop.add_reader(descriptor, self._exits, descriptor)
        else:
            how = os.WEXITED | os.WNOWAIT
            waiting = self._loop.run_in_executor(None, os.waitid, os.P_PID, self._process.pid, how)
            waiting.add_done_callback(lambda _: self._has_exited())

    def _exits(self, descriptor: int) -> None:
        self._loop.remove_reader(descriptor)
        os.close(descriptor)
        self._has_exited()

    def _has_exited(self) -> None:
        if not self._exited.done():
            self._exited.set_result(None)

    def _readable(self) -> None:
        assert self._process.stdout is not None
        try:
            octets = os.read(self._process.stdout.fileno(), 65_536)
        except BlockingIOError:
            return
        except OSError:
            octets = b""
        self._output += octets[: self._output_max - len(self._output)]
        if not octets:
            self._close_output()

    def _writable(self) -> None:
        assert self._process.stdin is not None
        try:
            written = os.write(self._process.stdin.fileno(), self._unwritten[:65_536])
        except BlockingIOError:
            return
        except OSError:  # a program that does not read it all is within its rights
            written = len(self._unwritten)
        self._unwritten = self._unwritten[written:]
        if not self._unwritten:
            self._close_input()

    def _close_input(self) -> None:
        pipe = self._process.stdin
        if pipe is not None and not pipe.closed:
            self._loop.remove_writer(pipe.fileno())
            pipe.close()

    def _close_output(self) -> None:
        pipe = self._process.stdout
        if pipe is not None and not pipe.closed:
            self._loop.remove_reader(pipe.fileno())
            pipe.close()
        if not self._silent.done():
            self._silent.set_result(None)

    def _kill(self, number: signal.Signals) -> None:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self._process.pid, number)


async def _within(future: asyncio.Future[None], limit_s: float) -> bool:
    done, _ = await asyncio.wait((future,), timeout=limit_s)
    return bool(done)
