"""A disk that fails under a running node (strace injects the errors): clients are told, nothing acknowledged is lost,
nothing refused is delivered, service resumes, and the log says what failed and where."""

from __future__ import annotations

import contextlib
import re
import smtplib
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.peers.harness import maildir, need
from tests.peers.harness.postroad import Node, local_domain, next_hop
from tests.peers.harness.process import NotReady, Program, folder, until
from tests.peers.harness.remote import Dialog, Remote

SMALL, LARGE = 100, 3_000_000


@pytest.fixture
def home() -> Iterator[Path]:
    with folder("faults") as path:
        yield path


@contextlib.contextmanager
def failing(pid: int, calls: str, error: str, output: Path) -> Iterator[None]:
    """While this lasts these calls of the process and its threads fail."""
    need.root()
    strace = Program(
        [need.program("strace"), "-f", "-qq", "-e", f"trace={calls}", "-e", f"inject={calls}:error={error}",
         "-o", str(output), "-p", str(pid)], output.with_suffix(".log"),
    )  # fmt: skip
    strace.start()
    strace.ready(lambda: all(map(_is_traced, Path(f"/proc/{pid}/task").iterdir())), "strace is attached")
    try:
        yield
    finally:
        strace.stop()


def _is_traced(task: Path) -> bool:
    """Whether this thread is. One that has ended meanwhile needs not be."""
    with contextlib.suppress(FileNotFoundError, ProcessLookupError):
        return (task / "status").read_text().partition("TracerPid:\t")[2][:1] not in ("", "0")
    return True


def _send(node: Node, name: str, size: int) -> tuple[int, bytes]:
    """The reply to the end of data, or before."""
    body = f"Subject: <{name}>\r\n\r\n".encode() + (b"x" * 78 + b"\r\n") * max(1, size // 80)
    with smtplib.SMTP("127.0.0.1", node.port, timeout=60) as client:
        client.ehlo("c.test")
        client.mail("s@c.test")
        client.rcpt("a@else.test")
        try:
            return client.data(body)
        except smtplib.SMTPDataError as error:
            return error.smtp_code, error.smtp_error if isinstance(error.smtp_error, bytes) else b""


def _names(remote: Remote) -> list[str]:
    return sorted(match[1].decode() for each in list(remote.transactions)
                  if (match := re.search(rb"Subject: <(.*?)>", each.content)))  # fmt: skip


@pytest.mark.parametrize(
    ("calls", "error", "size", "code", "status"),
    [
        ("fdatasync", "EIO", SMALL, 451, b"4.3.0"),
        ("fdatasync", "ENOSPC", SMALL, 451, b"4.3.0"),  # to SQLite any error of a sync is the same
        ("pwrite64", "EIO", SMALL, 451, b"4.3.0"),
        ("pwrite64", "ENOSPC", SMALL, 452, b"4.3.1"),
        ("fdatasync", "EIO", LARGE, 451, b"4.3.0"),
        ("fdatasync", "ENOSPC", LARGE, 452, b"4.3.1"),
        ("fsync", "EIO", LARGE, 451, b"4.3.0"),
        ("fsync", "ENOSPC", LARGE, 452, b"4.3.1"),
    ],
)
def test_a_failing_disk(home: Path, calls: str, error: str, size: int, code: int, status: bytes) -> None:
    def later(dialog: Dialog, verb: str, argument: str) -> str | None:
        return "450 4.2.0 later" if verb == "RCPT" else None

    with Remote(later) as remote:
        node = Node(home / "n", {"workers": 1, "next_hop": [next_hop("*", remote.port)]})
        with node:
            (worker,) = node.workers()
            kept = ["before-0", "before-1"]
            for name in kept:
                assert _send(node, name, size)[0] == 250
            with failing(worker, calls, error, home / "trace"):
                for number in range(3):
                    answer = _send(node, f"refused-{number}", size)
                    assert answer[0] == code and status in answer[1], (answer, node.log())
            assert "INJECTED" in (home / "trace").read_text()
            assert (worker,) == tuple(node.workers()), f"the worker has lived through it\n{node.log()}"
            where = "/spool/00/" if size == LARGE else "/spool/00.db"
            node.wait_log(where)  # what failed, and where
            # After a full disk the reserve comes first, and that is tried at intervals only.
            until(lambda: _send(node, "after", size)[0] == 250, "mail is taken again", within_s=30)
            kept.append("after")
            remote.rule = lambda dialog, verb, argument: None
            try:
                until(lambda: len(set(_names(remote))) >= 3, "all that was acknowledged arrives", within_s=60)
                until(lambda: node.json("queue") == [], "nothing is left", within_s=60, pause_s=0.3)
            except NotReady as problem:
                pytest.fail(f"{problem}\n{node.log()}")
            assert _names(remote) == sorted(kept), "each once, and nothing that was refused"
            node.command("spool", "check")


@pytest.mark.parametrize(
    ("calls", "error"),
    [(calls, error) for calls in ("rename,renameat,renameat2", "fsync") for error in ("EIO", "ENOSPC")],
)
def test_a_failing_disk_of_the_maildir(home: Path, calls: str, error: str) -> None:
    node = Node(home / "n", {"workers": 1, "domain": [local_domain("else.test")]})
    with node:
        (worker,) = node.workers()
        with failing(worker, calls, error, home / "trace"):
            assert _send(node, "kept", SMALL)[0] == 250
            node.wait_log("deferred")
        log = node.log(400)
        assert ("4.3.1" if error == "ENOSPC" else "4.3.0") in log and str(node.maildir("a@else.test")) in log, log
        [found] = maildir.wait(node.maildir("a@else.test"), of="<kept>")
        assert b"Subject: <kept>" in found
        until(lambda: node.json("queue") == [], "nothing is left", within_s=60, pause_s=0.3)
        assert len(maildir.raw(node.maildir("a@else.test"))) == 1, "once"
        assert not list((node.maildir("a@else.test") / "tmp").iterdir()), "nothing half is left"


def test_a_remotes_250_is_not_forgotten_while_outcomes_cannot_be_written(home: Path) -> None:
    """The outcome is committed when the disk works again; the message is not sent a second time meanwhile."""
    with Remote() as remote:
        node = Node(home / "n", {"workers": 1, "next_hop": [next_hop("*", remote.port)]})
        with node:
            (worker,) = node.workers()
            held = remote.rule
            remote.rule = lambda dialog, verb, argument: "450 4.2.0 later" if verb == "RCPT" else None
            assert _send(node, "once", SMALL)[0] == 250
            node.wait_log("deferred")
            with failing(worker, "fdatasync", "EIO", home / "trace"):
                remote.rule = held
                until(lambda: _names(remote) == ["once"], "it is relayed", within_s=60)
                node.wait_log("cannot be committed yet", within_s=30)
            until(lambda: node.json("queue") == [], "its end is committed", within_s=60, pause_s=0.3)
            assert _names(remote) == ["once"]
