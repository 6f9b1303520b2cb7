"""Local delivery to a program: the content on its standard input, its exit code as the answer (sysexits.h).

What always holds: no shell (CVE-2020-7247, CVE-2019-10149). A placeholder is a whole argument: ``{recipient}``,
``{local_part}``, ``{domain}``, ``{sender}`` (empty for the null reverse-path); the same values are in the environment
as RECIPIENT, LOCAL_PART, DOMAIN and SENDER. A value that begins with ``-`` is taken for an option by most programs: it
is refused (5.1.3) unless ``--`` stands before its placeholder. An empty value is still an argument. The message has LF
line ends, and on top Return-Path, Delivered-To and the mark by which the node recognises it if it comes back
(`mail.loop`).

How it fails: `_EXITS` says what each exit code means. If what the program says begins with an enhanced status code of
the class 4 or 5, this code counts instead, as in Postfix. If the program is killed, runs out of time or cannot be
started, mail is deferred (4.3.0). The output of the program, bounded and cleaned, is the text of the attempt. `end`
breaks a delivery off at shutdown: the program's group gets SIGTERM, then SIGKILL, and the recipient is deferred,
unless the program has done its work by then. A program that went on unseen would deliver the message, and we would
deliver it again after the next start. Not here: running it (`world.programs`).
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import re
import tempfile
from collections.abc import Callable, Sequence
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Final

from postroad.deliver.courier_context import CourierContext
from postroad.deliver.files import write_message
from postroad.deliver.on_a_task import TaskCourier
from postroad.deliver.options import COMMAND_PLACEHOLDERS, ProgramOptions
from postroad.deliver.program_variables import variables
from postroad.mail import loop
from postroad.mail.address import Address
from postroad.mail.attempt import Attempt, Outcome, Reach
from postroad.mail.envelope import Body, Envelope, Recipient
from postroad.mail.job import Job
from postroad.mail.loop import Marks
from postroad.mail.message import Content, ContentFile
from postroad.mail.route import Transport
from postroad.mail.trace import delivered_to, return_path
from postroad.protocol.sending import Result
from postroad.store.content import pieces
from postroad.world.files import Posix
from postroad.world.programs import ProgramResult, Programs

_LOG: Final = logging.getLogger(__name__)
_PLACEHOLDER: Final = re.compile(rf"\{{({'|'.join(COMMAND_PLACEHOLDERS)})\}}")
_STATUS: Final = re.compile(r"([45]\.[0-9]{1,3}\.[0-9]{1,3})(?= |$)")
_TEXT_MAX: Final = 500

# sysexits.h → status. A class of 4 is for what may be otherwise another time.
_EXITS: Final = {
    0: "2.0.0",
    64: "5.3.0",  # EX_USAGE
    65: "5.6.0",  # EX_DATAERR
    66: "5.3.0",  # EX_NOINPUT
    67: "5.1.1",  # EX_NOUSER
    68: "5.1.2",  # EX_NOHOST
    69: "5.3.0",  # EX_UNAVAILABLE
    70: "5.3.0",  # EX_SOFTWARE
    71: "4.3.0",  # EX_OSERR
    72: "5.3.0",  # EX_OSFILE
    73: "5.2.0",  # EX_CANTCREAT
    74: "4.3.0",  # EX_IOERR
    75: "4.3.0",  # EX_TEMPFAIL
    76: "5.5.0",  # EX_PROTOCOL
    77: "5.7.0",  # EX_NOPERM
    78: "4.3.5",  # EX_CONFIG: ours to mend
    126: "4.3.5",  # found, but not to be executed
    127: "4.3.5",  # not found
}


class ProgramCourier(TaskCourier):
    """Delivers one job at a time, one recipient after the other. Always usable until closed."""

    def __init__(
        self,
        shared: CourierContext,
        programs: Programs,
        busy: set[ProgramCourier] | None = None,
        marks: Marks | None = None,
    ) -> None:
        """`busy`: where those stand that carry a job. `marks`: None where none are made."""
        super().__init__(shared.loop, busy if busy is not None else set())
        self._shared = shared
        self._programs = programs
        self._marks = marks
        self._began_us = 0
        self._ending = False

    @property
    def doing(self) -> str:
        """What a job that is carried is at."""
        return f"runs the program for {(self._shared.clock.now_us() - self._began_us) / 1_000_000:.0f} s"

    def carry(self, job: Job, done: Callable[[Job, tuple[Attempt, ...]], None]) -> None:
        """Carry a job. One at a time."""
        self._began_us = self._shared.clock.now_us()
        super().carry(job, done)

    async def end(self) -> None:
        """Break off what is being carried; its `done` has been called by then."""
        self._ending = True
        await super().end()

    async def _attempts(self, job: Job) -> list[Attempt]:
        attempts: list[Attempt] = []
        try:
            content = _as_it_is_read(job)
            for recipient in job.named():
                if self._ending:
                    raise asyncio.CancelledError
                async with contextlib.AsyncExitStack() as stack:
                    stdin = await self._stdin(job, recipient.address, content, stack)
                    attempts += [await self._deliver(job, recipient, stdin)]
        except asyncio.CancelledError:
            attempts += [_attempt(_deferred("4.3.2", "the delivery was broken off"), 0, 0)] * _left(job, attempts)
        except OSError as error:
            found = _deferred("4.3.0", f"the content could not be made ready: {error.strerror or error}")
            attempts += [_attempt(found, 0, 0)] * _left(job, attempts)
        except Exception as error:
            _LOG.exception("delivery by %s", job.destination.key)
            found = _deferred("4.3.0", f"internal error: {type(error).__name__}")
            attempts += [_attempt(found, 0, 0)] * _left(job, attempts)
        return attempts

    async def _stdin(
        self, job: Job, address: Address, content: Content, stack: contextlib.AsyncExitStack
    ) -> bytes | Path:
        """What stands on top differs from recipient to recipient."""
        prefix = self._prefix(job, address)
        binary = job.envelope.body is Body.BINARY_MIME
        if isinstance(content, bytes):
            return (prefix if binary else prefix.replace(b"\r\n", b"\n")) + content
        work = partial(_copy, prefix, job.envelope, content, binary=binary)
        path = await self._shared.loop.run_in_executor(self._shared.pool, work)
        stack.callback(path.unlink, missing_ok=True)
        return path

    def _prefix(self, job: Job, address: Address) -> bytes:
        prefix = fields_on_top(self._shared.options.program, job.reverse_path, address)
        if self._marks is None:
            return prefix
        return prefix + loop.field((self._marks.delivered(address, job.envelope.message_id),))

    async def _deliver(self, job: Job, recipient: Recipient, stdin: bytes | Path) -> Attempt:
        address = recipient.address
        shared, options = self._shared, self._shared.options.program
        started_us = shared.clock.now_us()
        values = values_of(job.reverse_path, address, job.destination.domain)
        command = arguments(job.destination.command, values)
        if isinstance(command, Result):
            return _attempt(command, started_us, 0)
        ended = await self._programs.run(
            command,
            stdin=stdin,
            environment={"PATH": options.path, "LANG": "C.UTF-8", **self._variables(job, recipient, values)},
            directory=options.directory,
            timeout_s=options.time_s,
            output_max=options.output_max,
        )
        return _attempt(finding(ended, options.time_s), started_us, max(0, shared.clock.now_us() - started_us))

    def _variables(self, job: Job, recipient: Recipient, values: dict[str, str]) -> dict[str, str]:
        if job.destination.outlet:
            return variables(values, recipient.address, recipient.given, self._shared.options.maildir.detail_delimiter)
        return {key.upper(): value for key, value in values.items()}


def fields_on_top(options: ProgramOptions, reverse_path: Address | None, address: Address) -> bytes:
    """What a program finds above the message."""
    top = return_path(reverse_path) if options.return_path else b""
    return top + delivered_to(address) if options.delivered_to else top


def _as_it_is_read(job: Job) -> Content:
    """The content, with the line ends that programs read if it is in memory."""
    content = job.content
    if isinstance(content, bytes) and job.envelope.body is not Body.BINARY_MIME:
        return content.replace(b"\r\n", b"\n")
    return content


def _left(job: Job, attempts: Sequence[Attempt]) -> int:
    return len(job.recipients) - len(attempts)


def _copy(prefix: bytes, envelope: Envelope, content: ContentFile, *, binary: bool) -> Path:
    """Large content as the program is to read it, in a file of our own; on a thread."""
    handle, name = tempfile.mkstemp(prefix="postroad-")
    try:
        write_message(Posix(), handle, chain((prefix,), pieces(envelope, content)), binary=binary)
    except BaseException:
        os.unlink(name)
        raise
    finally:
        os.close(handle)
    return Path(name)


def values_of(reverse_path: Address | None, address: Address, domain: str) -> dict[str, str]:
    return _address_values(address, domain) | {"sender": str(reverse_path) if reverse_path is not None else ""}


def _address_values(address: Address, domain: str) -> dict[str, str]:
    return {"recipient": str(address), "local_part": address.local_part, "domain": address.domain or domain}


def arguments(command: Sequence[str], values: dict[str, str]) -> tuple[str, ...] | Result:
    """The command with its placeholders filled in, or why it cannot be run for this message."""
    if not command:
        return _deferred("4.3.5", "no command is set for this destination")
    made: list[str] = []
    options_ended = False
    for word in command:
        found = _PLACEHOLDER.fullmatch(word)
        if found is None:
            if _PLACEHOLDER.search(word):
                return _deferred("4.3.5", f"a placeholder of a command must be a whole argument: {word!r}")
            options_ended = options_ended or word == "--"
            made.append(word)
            continue
        value = values[found[1]]
        if not value.isprintable() or (value.startswith("-") and not options_ended):
            status = "5.1.7" if found[1] == "sender" else "5.1.3"
            text = f"the {found[1].replace('_', '-')} cannot be given to a program as an argument"
            return Result(Outcome.FAILED, Reach.RECIPIENT, status, text)
        made.append(value)
    return tuple(made)


def never(command: Sequence[str], address: Address, domain: str) -> Result | None:
    """Why the command can be run for no message to this address, whoever sends it; None if it can."""
    found = arguments(command, _address_values(address, domain) | {"sender": ""})
    return found if isinstance(found, Result) and found.outcome is Outcome.FAILED else None


def finding(ended: ProgramResult, time_s: float) -> Result:
    """What the end of a program means."""
    said = _clean(ended.output)
    if ended.error:
        return _deferred("4.3.0", f"the program could not be started: {ended.error}")
    if ended.broken_off and ended.exit_code != 0:  # whatever its code: it was we who ended it
        return _deferred("4.3.2", f"the node stops and has ended the program: {said}".rstrip(": "))
    if ended.timed_out:
        return _deferred("4.3.0", f"the program did not end within {time_s:g} s" + (f": {said}" if said else ""))
    if ended.signal_number:
        return _deferred("4.3.0", f"the program was ended by signal {ended.signal_number}: {said}".rstrip(": "))
    status = _EXITS.get(ended.exit_code, "5.3.0")
    if status.startswith("2"):
        return Result(Outcome.DELIVERED, Reach.RECIPIENT, status, said)
    if own := _STATUS.match(said):
        status = own[1]
    outcome = Outcome.FAILED if status.startswith("5") else Outcome.DEFERRED
    return Result(outcome, Reach.RECIPIENT, status, f"the program ended with {ended.exit_code}: {said}".rstrip(": "))


def _clean(output: bytes) -> str:
    """What the program said, on one line, without what a terminal would act upon."""
    text = " ".join(output.decode("utf-8", "backslashreplace").split())
    return "".join(char if char.isprintable() else "?" for char in text)[:_TEXT_MAX]


def _deferred(status: str, text: str) -> Result:
    return Result(Outcome.DEFERRED, Reach.RECIPIENT, status, text)


def _attempt(result: Result, started_us: int, took_us: int) -> Attempt:
    return Attempt(
        result.outcome, result.reach, result.status, result.text, started_us=started_us, took_us=took_us,
        transport=Transport.PROGRAM.value,
    )
