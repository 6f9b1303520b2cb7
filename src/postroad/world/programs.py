"""Running programs: without a shell, with a clean environment, bounded in time and output.

What always holds: a command is a list of words that no shell ever sees (CVE-2020-7247, CVE-2019-10149); the program
gets the environment it is given and nothing of ours, no descriptor but its three, and a session and process group of
its own. It has ended when `run` returns, and past its time its whole group is killed. Of its output the first
`output_max` octets are kept, the rest is read and dropped, so that it never stands still for a full pipe.

How it fails: an Ended that says what happened. A program that could not be started, failed, or was killed is a value.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO, Final, Protocol

import msgspec

# Between asking a group to end and killing it; and for output that children left behind still hold open.
_GRACE_S: Final = 2.0


class Ended(msgspec.Struct, frozen=True):
    """How a program ended. `exit_code` is -1 where it did not exit by itself: killed by `signal_number`, or never
    started (`error` says why). `output`: its standard output and error as they came."""

    exit_code: int
    signal_number: int = 0
    output: bytes = b""
    timed_out: bool = False
    error: str = ""


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
    ) -> Ended:
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
    ) -> Ended:
        loop = asyncio.get_running_loop()
        given: IO[bytes] | int = asyncio.subprocess.PIPE
        try:
            if isinstance(stdin, Path):
                given = open(stdin, "rb")  # noqa: SIM115  # closed below, whatever happens
            transport, protocol = await loop.subprocess_exec(
                lambda: _Run(loop, output_max),
                *command,
                stdin=given,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.STDOUT,
                env=dict(environment),
                cwd=directory,
                start_new_session=True,
            )
        except (OSError, ValueError) as error:  # ValueError: a NUL in a word
            text = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
            return Ended(-1, error=f"{command[0] if command else '(no command)'}: {text}")
        finally:
            if not isinstance(given, int):
                given.close()
        try:
            return await protocol.follow(transport, stdin if isinstance(stdin, bytes) else b"", timeout_s)
        finally:
            transport.close()


class _Run(asyncio.SubprocessProtocol):
    """One program while it runs."""

    def __init__(self, loop: asyncio.AbstractEventLoop, output_max: int) -> None:
        self._output = bytearray()
        self._output_max = output_max
        self._exited = loop.create_future()
        self._silent = loop.create_future()  # its output is at an end

    def pipe_data_received(self, fd: int, data: bytes) -> None:
        self._output += data[: self._output_max - len(self._output)]

    def pipe_connection_lost(self, fd: int, exc: Exception | None) -> None:
        if fd == 1 and not self._silent.done():
            self._silent.set_result(None)

    def process_exited(self) -> None:
        if not self._exited.done():
            self._exited.set_result(None)

    async def follow(self, transport: asyncio.SubprocessTransport, octets: bytes, timeout_s: float) -> Ended:
        pid = transport.get_pid()
        try:
            self._feed(transport, octets)
            timed_out = not await _within(self._exited, timeout_s)
            if timed_out:
                _kill_group(pid, signal.SIGTERM)
                if not await _within(self._exited, _GRACE_S):
                    _kill_group(pid, signal.SIGKILL)
                    await self._exited
            if not await _within(self._silent, 0 if timed_out else _GRACE_S):
                # What it left running holds its output open: the group has members yet, so its number is still its own.
                _kill_group(pid, signal.SIGKILL)
        except BaseException:  # cancelled: nothing is left behind
            _kill_group(pid, signal.SIGKILL)
            raise
        code = transport.get_returncode()
        output = bytes(self._output)
        if code is None or code < 0:
            return Ended(-1, -(code or -signal.SIGKILL), output, timed_out)
        return Ended(code, 0, output, timed_out)

    def _feed(self, transport: asyncio.SubprocessTransport, octets: bytes) -> None:
        """Its input, buffered by the loop; a program that does not read it all is within its rights."""
        pipe = transport.get_pipe_transport(0)
        if isinstance(pipe, asyncio.WriteTransport):
            if octets:
                pipe.write(octets)
            pipe.close()


async def _within(future: asyncio.Future[None], limit_s: float) -> bool:
    done, _ = await asyncio.wait((future,), timeout=limit_s)
    return bool(done)


def _kill_group(pid: int, number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(pid, number)
