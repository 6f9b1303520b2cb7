"""The process that delivers as other users: what it does with frames, good and bad, and when it ends."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from postroad.deliver.options import MaildirOptions, MboxOptions, PorterOptions, ProgramOptions
from postroad.deliver.porter import (
    FRAME_MAX,
    PorterDomain,
    PorterOutlet,
    PorterRequest,
    PorterTable,
    read_answer,
    read_forward,
    read_request,
    user_of,
)
from postroad.mail.route import Transport
from postroad.node import porter as porter_process
from postroad.protocol.sending import Result
from postroad.world import identity
from postroad.world.forward_file import ForwardFile
from postroad.world.identity import UserAccount
from postroad.world.problem import Problem

TABLE = PorterTable(
    "mx", {
        "dir.example": PorterDomain(Transport.MAILDIR, "{local_part}", path="/nowhere/{local_part}"),
        "home.example": PorterDomain(Transport.MAILDIR, "{local_part}", path="{home}/Maildir", forwards=True),
        "set.example": PorterDomain(Transport.PROGRAM, "no-such-user-here", command=("/bin/true",)),
    },
    PorterOptions(processes_max=2), MaildirOptions(), MboxOptions(), ProgramOptions(),
)  # fmt: skip
REQUEST = PorterRequest("dir.example", "no-such-user-here", "dir.example", None, "", 7, 1, False, b"", 2)


@pytest.fixture
def porter() -> Iterator[tuple[socket.socket, subprocess.Popen[bytes]]]:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    command = [sys.executable, "-m", "postroad.node.porter", str(theirs.fileno())]
    process = subprocess.Popen(
        command, stdin=subprocess.PIPE, stderr=subprocess.PIPE, pass_fds=(theirs.fileno(),)
    )
    theirs.close()
    assert process.stdin is not None
    process.stdin.write(msgspec.msgpack.encode(TABLE))
    process.stdin.close()
    yield ours, process
    ours.close()
    process.kill()
    process.wait()
    assert process.stderr is not None
    process.stderr.close()


def ask(sock: socket.socket, octets: bytes, content: int | None = None) -> bytes:
    """The answer; b"" for none."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    handle = os.memfd_create("x") if content is None else content
    os.write(handle, b"x\n")
    with ours:
        ours.settimeout(30)
        with theirs:
            socket.send_fds(sock, [octets], [theirs.fileno(), handle])
        os.close(handle)
        return ours.recv(FRAME_MAX)


def test_a_program_must_stand_in_the_file_of_the_user(tmp_path: Path) -> None:
    tmp_path.chmod(0o700)
    user = UserAccount("ada", os.getuid(), (os.getgid(),), str(tmp_path))
    table = msgspec.structs.replace(TABLE, forward_kinds=(Transport.PROGRAM,))
    request = msgspec.structs.replace(REQUEST, local_part="ada+x", outlet=PorterOutlet(Transport.PROGRAM))
    domain = PorterDomain(Transport.PROGRAM, "{local_part}", command=("/bin/x", "a"), forwards=True)
    file = PorterDomain(Transport.MBOX, "{local_part}", path="/home/ada/box", forwards=True)
    assert "no .forward file any more" in porter_process._stands_there(request, domain, table, user)
    (tmp_path / ".forward").write_text("bob, |/bin/x a\n/home/ada/box\n")
    assert "does not name" in porter_process._stands_there(request, domain, TABLE, user)  # no such kind
    assert "does not name" in porter_process._stands_there(request, domain, table, user)
    (tmp_path / ".forward").write_text("bob, |/bin/x a\n")
    assert porter_process._stands_there(request, domain, table, user) == ""
    assert "does not name" in porter_process._stands_there(request, file, table, user)
    (tmp_path / ".forward").write_text(f":include:{tmp_path}/more\n")
    (tmp_path / "more").write_text("|/bin/x a\n")
    assert "does not name" in porter_process._stands_there(request, domain, table, user)
    including = msgspec.structs.replace(table, forward_includes=True)
    assert "does not name" in porter_process._stands_there(request, domain, including, user)
    including = msgspec.structs.replace(including, included_kinds=(Transport.PROGRAM,))
    assert porter_process._stands_there(request, domain, including, user) == ""
    (tmp_path / "more").unlink()
    assert "No such file" in porter_process._stands_there(request, domain, including, user)
    (tmp_path / ".forward").chmod(0o666)
    assert "all users can write" in porter_process._stands_there(request, domain, table, user)
    (tmp_path / ".forward+x").write_text("bob\n")
    assert "does not name" in porter_process._stands_there(request, domain, table, user)


def test_whose_files_are_read(porter: tuple[socket.socket, subprocess.Popen[bytes]]) -> None:
    wanted = msgspec.structs.replace(REQUEST, reads=True)
    assert b"are not read" in ask(porter[0], msgspec.msgpack.encode(wanted))
    wanted = msgspec.structs.replace(wanted, domain="home.example")
    for name in ("no-such-user-here", "root", "../root"):
        answer = ask(porter[0], msgspec.msgpack.encode(msgspec.structs.replace(wanted, local_part=name)))
        assert read_forward(answer) == ForwardFile()


def test_bad_frames_end_nothing(porter: tuple[socket.socket, subprocess.Popen[bytes]]) -> None:
    sock, process = porter
    good = msgspec.msgpack.encode(REQUEST)
    sock.send(b"no descriptors")
    assert b"cannot be read" in ask(sock, b"\xff\xff")
    assert b"cannot be read" in ask(sock, good + b"\0")
    assert ask(sock, good + b"\0" * FRAME_MAX) == b""
    reading, writing = os.pipe()
    assert ask(sock, good, writing) == b""
    os.close(reading)
    socket.send_fds(sock, [good], [1])
    unknown = msgspec.structs.replace(REQUEST, domain="other.example")
    assert b"restart the node" in ask(sock, msgspec.msgpack.encode(unknown))
    for _ in range(5):  # more than there may be children
        result = read_answer(ask(sock, good))
        assert (result.status, result.text) == ("4.3.5", "no-such-user-here there is no such user")
    assert process.poll() is None


def test_it_ends_with_the_last_who_asks(porter: tuple[socket.socket, subprocess.Popen[bytes]]) -> None:
    sock, process = porter
    copy = sock.dup()
    sock.close()
    assert ask(copy, msgspec.msgpack.encode(REQUEST))
    copy.close()
    assert process.wait(30) == 0


@pytest.mark.parametrize(
    ("local_part", "user"),
    [("ada", "ada"), ("Ada+x", "ada"), ("a.b-c_1", "a.b-c_1"), ("0ada", None), ("../x", None), ("a b", None),
     ("ädä", None), ("x" * 33, None), ("-x", None), ("$x", None)],
)
def test_the_user_of_a_recipient(local_part: str, user: str | None) -> None:
    request = msgspec.structs.replace(REQUEST, local_part=local_part)
    assert user_of(request, TABLE.domains["dir.example"], TABLE) == user
    assert user_of(request, TABLE.domains["set.example"], TABLE) == "no-such-user-here"


@pytest.mark.parametrize(
    "changed",
    [{"local_part": "a\nb"}, {"at": "x\0"}, {"sender": ("a", "b\r")}, {"mark": "\n" * 16}, {"mark": "short"},
     {"size": -1}, {"prefix": b"x" * 32_769}, {"id": 1 << 63}, {"local_part": "x" * 513}],
)
def test_what_no_request_may_hold(changed: dict[str, object]) -> None:
    request = msgspec.structs.replace(REQUEST, **changed)
    try:
        octets = msgspec.msgpack.encode(request)
    except OverflowError:
        return
    assert isinstance(read_request(octets, TABLE), str)


@pytest.mark.parametrize("octets", [b"", b"x", b"\x93\xa9delivered\xa52.0.0", b"\x93\xa9delivered\xa3foo\xa0"])
def test_an_answer_that_is_none_defers(octets: bytes) -> None:
    result = read_answer(octets)
    assert isinstance(result, Result) and (result.outcome.value, result.status) == ("deferred", "4.3.0")


def test_nobody_becomes_root() -> None:
    found = identity.account("root", "", 1)
    assert isinstance(found, Problem) and "below" in found.text
    with pytest.raises(PermissionError):
        identity.become(identity.UserAccount("root", 0, (0,), "/"), gain_rights=False)


def test_a_group_that_is_not_there() -> None:
    assert isinstance(identity.account("nobody", "no-such-group-here", 1), Problem)
    assert identity.is_group("no-such-group-here") is False


def test_a_request_as_it_is_read() -> None:
    assert read_request(msgspec.msgpack.encode(REQUEST), TABLE) == (REQUEST, TABLE.domains["dir.example"])
