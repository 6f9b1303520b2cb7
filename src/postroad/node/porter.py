"""The porter: a process that keeps the rights of root, and delivers as other users. It does nothing else.

Started by the supervisor before the node gives up its rights, with the number of a socket, and with its table
(`deliver.porter.PorterTable`) on standard input. Each datagram is one request, with a socket for the answer and a
descriptor of the content. The porter judges the frame, forks, and the child becomes the user, delivers and answers.

What always holds:
- as root it only reads a frame, looks up the user (in the child), and becomes the user;
- a child that fails answers, or its socket closes without an answer; the porter lives on;
- at most `processes_max` children at a time; the others wait in the socket;
- a child that runs a program ends when nobody waits for its answer any more; each child ends when its time is over.

The porter ends when no worker and no supervisor is left. How it fails: a message on stderr, and a deferral.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import os
import signal
import socket
import stat
import sys
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Final

import msgspec

from postroad.deliver.folders import deferred
from postroad.deliver.porter import (
    FRAME_MAX,
    PorterDomain,
    PorterRequest,
    PorterTable,
    answer_of,
    deliver,
    forward_answer,
    read_request,
    user_of,
)
from postroad.mail.attempt import Outcome, Reach
from postroad.mail.extension import extension_of
from postroad.mail.route import Destination, Transport
from postroad.protocol.sending import Result
from postroad.route.forward_includes import gathered
from postroad.route.forwards import source_of, stands_in
from postroad.route.outlets import OutletOptions, Place
from postroad.world.files import Posix
from postroad.world.forward_file import ForwardFile, read, read_included
from postroad.world.identity import UserAccount, account, become, find_user
from postroad.world.problem import Problem
from postroad.world.programs import ProgramResult, Programs, SystemPrograms

_TABLE_MAX: Final = 67_108_864  # octets of the table
_DESCRIPTORS: Final = 2  # of a request: for the answer, of the content
_FILE_S: Final = 300  # how long a child may take to write into a mailbox, and what a program gets beyond its own time
_READ_S: Final = 60  # how long a child may take to read a file of a user
_PR_SET_DUMPABLE: Final = 4


def main() -> int:
    """The process. Its only argument is the number of its socket."""
    sock = socket.socket(fileno=int(sys.argv[1]))
    table = msgspec.msgpack.decode(sys.stdin.buffer.read(_TABLE_MAX), type=PorterTable)
    os.chdir("/")
    os.umask(0o077)
    os.environ.clear()
    ctypes.CDLL(None).prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0)
    for number in (signal.SIGINT, signal.SIGHUP, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)  # it ends with the last of those that ask it
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    serve(sock, table)
    return 0


def serve(sock: socket.socket, table: PorterTable) -> None:
    """Until the other end is closed."""
    children = 0
    while True:
        children = _reaped(children, wait=children >= table.options.processes_max)
        if children >= table.options.processes_max:
            continue
        try:
            octets, descriptors, flags, _ = socket.recv_fds(sock, FRAME_MAX, _DESCRIPTORS)
        except InterruptedError:
            continue
        if not octets and not descriptors:
            return
        try:
            children += _take(sock, octets, descriptors, flags, table)
        finally:
            for descriptor in descriptors:
                os.close(descriptor)


def _reaped(children: int, *, wait: bool) -> int:
    """How many children are left."""
    while children:
        try:
            ended, _ = os.waitpid(-1, 0 if wait else os.WNOHANG)
        except ChildProcessError:
            return 0
        if not ended:
            return children
        children, wait = children - 1, False
    return 0


def _take(sock: socket.socket, octets: bytes, descriptors: list[int], flags: int, table: PorterTable) -> int:
    """One request; how many children it has made."""
    if flags & (socket.MSG_TRUNC | socket.MSG_CTRUNC) or len(descriptors) != _DESCRIPTORS:
        return _complain("a request is too long, or has not two descriptors")
    answer, content = descriptors
    if not stat.S_ISSOCK(os.fstat(answer).st_mode) or not stat.S_ISREG(os.fstat(content).st_mode):
        return _complain("a request has descriptors of another kind")
    found = read_request(octets, table)
    if isinstance(found, str):
        _send(answer, deferred("4.3.5", found))
        return _complain(found)
    try:
        child = os.fork()
    except OSError as error:
        _send(answer, deferred("4.3.0", f"no process can be made: {error.strerror}"))
        return _complain(f"cannot fork: {error.strerror}")
    if child:
        return 1
    code = 1
    try:
        sock.close()
        _child(*found, table, answer, content)
        code = 0
    finally:
        os._exit(code)


def _complain(text: str) -> int:
    print(f"porter: {text}", file=sys.stderr, flush=True)
    return 0


def _send(answer: int, result: Result) -> None:
    _tell(answer, answer_of(result))


def _tell(answer: int, octets: bytes) -> None:
    with contextlib.suppress(OSError), socket.socket(fileno=os.dup(answer)) as sock:
        sock.settimeout(0)
        sock.send(octets)


def _child(request: PorterRequest, domain: PorterDomain, table: PorterTable, answer: int, content: int) -> None:
    """Becomes the user, delivers, answers."""
    for number in (signal.SIGTERM, signal.SIGALRM, signal.SIGINT):
        signal.signal(number, signal.SIG_DFL)
    runs = domain.transport is Transport.PROGRAM
    signal.alarm(_READ_S if request.reads else _FILE_S + int(table.program.time_s if runs else table.mbox.lock_s))
    try:
        if request.reads:
            _tell(answer, forward_answer(_forward_file(request, domain, table)))
            return
        _send(answer, _as_user(request, domain, table, answer, content))
    except BaseException as error:
        _complain(f"{type(error).__name__}: {error}")
        _send(answer, deferred("4.3.0", f"internal error: {type(error).__name__}"))


def _forward_file(request: PorterRequest, domain: PorterDomain, table: PorterTable) -> ForwardFile:
    """What the file of a user says, read as this user."""
    name = user_of(request, domain, table)
    if name is None:
        return ForwardFile()
    try:
        if find_user(name) is None:
            return ForwardFile()
    except OSError as error:
        return ForwardFile(not_now=f"the user {name} cannot be looked up: {error.strerror}")
    user = account(name, "", table.options.uid_min)
    if isinstance(user, Problem):
        return ForwardFile()
    try:
        become(user, gain_rights=False)
    except OSError as error:
        return ForwardFile(not_now=f"cannot read as {name}: {error.strerror or error}")
    return _file_of(user, request, table)


def _file_of(user: UserAccount, request: PorterRequest, table: PorterTable) -> ForwardFile:
    """In a process that is the user: his file, with the files that it includes if it may."""
    found = read(user, extension_of(request.local_part, table.maildir.detail_delimiter))
    if found.text is None or not table.forward_includes:
        return found
    return gathered(found, partial(read_included, user=user))


def _stands_there(request: PorterRequest, domain: PorterDomain, table: PorterTable, user: UserAccount) -> str:
    """Why a program or file of a ``.forward`` is not used: the user, as whom this runs, must name it there now."""
    found = _file_of(user, request, table)
    if found.text is None:
        return found.not_now or found.fault or "the user has no .forward file any more"
    kinds: dict[Place, tuple[Transport, ...]] = {"forwards": table.forward_kinds, "includes": table.included_kinds}
    options = OutletOptions(
        programs=tuple(place for place in kinds if Transport.PROGRAM in kinds[place]),
        files=tuple(place for place in kinds if Transport.MBOX in kinds[place]),
        includes=("forwards",) if table.forward_includes else (),
    )
    wanted = Destination("", domain.transport, path=domain.path, command=domain.command)
    if stands_in(found.text, source_of("", user.name), options, wanted, dict(found.included)):
        return ""
    return "the .forward file of the user does not name this program or file any more"


def _as_user(request: PorterRequest, domain: PorterDomain, table: PorterTable, answer: int, content: int) -> Result:
    name = user_of(request, domain, table)
    if name is None:
        return Result(Outcome.FAILED, Reach.RECIPIENT, "5.1.1", "there is no user of this name")
    named = request.outlet is not None and name == domain.user  # by the operator himself, who may mean a system user
    user = account(name, domain.group, 1 if named else table.options.uid_min)
    if isinstance(user, Problem):
        return deferred("4.3.5", f"{user.where} {user.text}")
    try:
        become(user, gain_rights=table.options.gain_rights and domain.transport is Transport.PROGRAM)
    except OSError as error:
        return deferred("4.3.5", f"cannot deliver as {name}: {error.strerror or error}")
    if domain.forwards and request.outlet is not None and (why := _stands_there(request, domain, table, user)):
        return deferred("4.3.0", why)
    if domain.owner_of:
        domain = msgspec.structs.replace(domain, user=name, owner_of="")
    return deliver(request, domain, table, content, user.home, _Watched(answer), Posix())


class _Watched:
    """Runs programs while somebody waits for their end. `answer`: closes at the other end when nobody does."""

    def __init__(self, answer: int) -> None:
        self._answer = answer
        self._programs: Programs = SystemPrograms()

    async def run(
        self, command: Sequence[str], *, stdin: bytes | Path = b"", environment: Mapping[str, str],
        directory: str = "/", timeout_s: float, output_max: int = 65_536,
    ) -> ProgramResult:
        loop = asyncio.get_running_loop()
        task = loop.create_task(self._programs.run(
            command, stdin=stdin, environment=environment, directory=directory, timeout_s=timeout_s,
            output_max=output_max,
        ))

        def gone() -> None:
            loop.remove_reader(self._answer)
            task.cancel()

        loop.add_reader(self._answer, gone)
        try:
            return await task
        finally:
            loop.remove_reader(self._answer)


if __name__ == "__main__":
    sys.exit(main())
